/**
 * Which pages may connect.
 *
 * A file of its own because it is a rule of the server's and no step of its handshake.
 *
 * @module
 */
import { HandshakeError } from "../core/error.ts";

/** Origins of pages, exact ones or patterns; null for clients that send none. */
type Origins = readonly (string | RegExp | null)[] | "same-origin";

/**
 * Checks the option.
 *
 * @throws {TypeError} If it is neither "same-origin" nor an array of strings, patterns and null.
 * @throws {RangeError} If one of the strings is not an origin as browsers send it: it would match none.
 */
export function checkOrigins(_name: string, origins: unknown): void {
  if (origins === "same-origin") return;
  const isItem = (one: unknown) => typeof one === "string" || one instanceof RegExp || one === null;
  if (!Array.isArray(origins) || !origins.every(isItem)) {
    throw new TypeError(
      `Expected origins as "same-origin" or an array of strings, patterns and null${
        origins === "*" ? ": leave the option out for all origins" : ""
      }`,
    );
  }
  for (const one of origins) {
    if (typeof one !== "string" || one === originOf(one)) continue;
    throw new RangeError(
      `Expected origins as browsers send them, like "${
        originOf(one) ?? "https://example.com"
      }", received ${JSON.stringify(one)}`,
    );
  }
}

/** The origin of a URL as an Origin header has it (RFC 6454 §6.2); undefined if there is none. */
function originOf(text: string): string | undefined {
  if (text === "null") return text;
  try {
    const { protocol, host, origin } = new URL(text);
    if (origin !== "null") return origin;
    // That of an extension of a browser, which the URL standard takes for opaque.
    return host === "" ? undefined : `${protocol}//${host}`;
  } catch {
    return undefined;
  }
}

/**
 * RFC 6455 §10.2: a server may serve the pages of some origins only.
 *
 * @throws {HandshakeError} "origin", status 403, for another one
 */
export function checkOrigin(
  origin: string | undefined,
  url: () => URL,
  allowed: Origins | undefined,
): void {
  if (allowed === undefined) return;
  const found = allowed === "same-origin"
    ? origin === undefined || isSameHost(origin, url())
    : allowed.some((one) =>
      one instanceof RegExp
        ? origin !== undefined && matches(one, origin)
        : one === (origin ?? null)
    );
  if (found) return;
  throw new HandshakeError(
    `Expected an allowed Origin, received ${origin ?? "none"}`,
    "origin",
    { status: 403 },
  );
}

/** Whether a page's host and port are those of a request. */
function isSameHost(origin: string, asked: URL): boolean {
  let page: URL;
  try {
    page = new URL(origin);
  } catch {
    return false;
  }
  if (page.protocol !== "http:" && page.protocol !== "https:") return false;
  // Behind a proxy that encrypts, the port of a wss URL is no default one of the URL that we see.
  return page.host === asked.host ||
    (page.hostname === asked.hostname && portOf(page) === portOf(asked));
}

function portOf({ protocol, port }: URL): string {
  return port || (protocol === "https:" ? "443" : "80");
}

/** Whether a pattern matches the whole of a text. */
function matches({ source, flags }: RegExp, text: string): boolean {
  // A pattern with the flag g or y would remember where it stopped; with m, a line would do.
  return new RegExp(`^(?:${source})$`, flags.replace(/[gmy]/g, "")).test(text);
}
