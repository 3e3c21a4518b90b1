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
 * RFC 6455 §10.2: a server may serve the pages of some origins only.
 *
 * @throws {HandshakeError} "origin", status 403, for another one
 */
export function checkOrigin(
  origin: string | undefined,
  request: () => Request,
  allowed: Origins | undefined,
): void {
  if (allowed === undefined) return;
  const found = allowed === "same-origin"
    ? origin === undefined || hostOf(origin) === new URL(request().url).host
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

function hostOf(origin: string): string | undefined {
  try {
    return new URL(origin).host;
  } catch {
    return undefined;
  }
}

// A pattern with the flag g or y would remember where it stopped.
function matches(pattern: RegExp, text: string): boolean {
  return new RegExp(pattern, pattern.flags.replace(/[gy]/g, "")).test(text);
}
