/**
 * What is wrong with a server's certificate, in the same words on every platform.
 *
 * A file of its own because each adapter that has TLS needs it.
 *
 * @module
 */
import { HandshakeError } from "../core/error.ts";

/** How OpenSSL, BoringSSL and rustls name the checks. */
const CHECKS: readonly (readonly [pattern: RegExp, finding: string])[] = [
  [/ALTNAME|not valid for name|NotValidForName/, "one for another host name (wrong host name)"],
  [/HAS_EXPIRED|\b[Ee]xpired/, "one that has expired"],
  [/NOT_YET_VALID|NotValidYet|not valid yet/, "one that is not yet valid"],
  [
    /UNABLE_TO_(?:GET|VERIFY)|SELF_SIGNED|UNTRUSTED|UnknownIssuer/,
    "one of an unknown authority",
  ],
];

/** The error for a certificate that the platform does not accept. */
export function certificateError(servername: string, cause: unknown): HandshakeError {
  const { code, message } = cause as { code?: unknown; message?: string };
  const text = `${String(code)} ${message}`;
  const finding = CHECKS.find(([pattern]) => pattern.test(text))?.[1] ?? "one that is not valid";
  return new HandshakeError(
    `Expected a valid certificate for ${servername}, received ${finding}: ${message}`,
    "certificate",
    { cause },
  );
}
