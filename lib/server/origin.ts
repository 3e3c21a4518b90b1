/** Checks the origin of requests (RFC 6455 §10.2). */
import { HandshakeError, wrongType, wrongValue } from "../core/error.ts";
import { withoutCredentials } from "../core/url.ts";

/** Exact origins or patterns; null allows clients that send no Origin. */
type Origins = readonly (string | RegExp | null)[] | "same-origin";

/**
 * @throws {TypeError} If the option is neither "same-origin" nor an array of strings, patterns and null.
 * @throws {RangeError} If a string is not an origin as browsers send it, and would never match.
 */
export function checkOrigins(name: string, origins: unknown): void {
  if (origins === "same-origin") return;
  const isItem = (one: unknown) => typeof one === "string" || one instanceof RegExp || one === null;
  if (!Array.isArray(origins) || !origins.every(isItem)) {
    throw wrongType(
      `Expected ${name} to be "same-origin" or an array of strings, patterns and null${
        origins === "*" ? ": leave the option out to allow all origins" : ""
      }`,
    );
  }
  for (const one of origins) {
    if (typeof one !== "string" || one === originOf(one)) continue;
    throw wrongValue(
      `Expected ${name} to be as browsers send them, like "${
        originOf(one) ?? "https://example.com"
      }", received ${JSON.stringify(one)}`,
    );
  }
}

/** Returns the origin of a URL as an Origin header has it (RFC 6454 §6.2). */
function originOf(text: string): string | undefined {
  if (text === "null") return text;
  try {
    const { protocol, host, origin } = new URL(text);
    if (origin !== "null") return origin;
    // The URL standard has no origin for the pages of a browser extension, but browsers send one.
    return host === "" ? undefined : `${protocol}//${host}`;
  } catch {
    return undefined;
  }
}

/** @throws {HandshakeError} If the origin is not allowed ("origin", status 403). */
export function checkOrigin(origin: string | undefined, url: () => URL, allowed: Origins): void {
  const found = allowed === "same-origin"
    ? origin === undefined || isSameHost(origin, url())
    : allowed.some((one) =>
      one instanceof RegExp
        ? origin !== undefined && matches(one, origin)
        : one === (origin ?? null)
    );
  if (found) return;
  throw new HandshakeError(
    origin === undefined
      ? "A request without Origin is not allowed"
      : `The origin ${withoutCredentials(origin)} is not allowed`,
    "origin",
    { status: 403 },
  );
}

function isSameHost(origin: string, asked: URL): boolean {
  let page: URL;
  try {
    page = new URL(origin);
  } catch {
    return false;
  }
  if (page.protocol !== "http:" && page.protocol !== "https:") return false;
  // A proxy that terminates TLS changes the scheme, and therefore the default port.
  return page.host === asked.host ||
    (page.hostname === asked.hostname && portOf(page) === portOf(asked));
}

function portOf({ protocol, port }: URL): string {
  return port || (protocol === "https:" ? "443" : "80");
}

function matches({ source, flags }: RegExp, text: string): boolean {
  // The flags g and y keep a position, and m would let a single line match.
  return new RegExp(`^(?:${source})$`, flags.replace(/[gmy]/g, "")).test(text);
}
