/** Basic authentication (RFC 7617) as a hook of the server. */

import { wrongType, wrongValue } from "../core/error.ts";
import { checkKnown } from "../core/option_hints.ts";
import { checkFunction, checkText, kindOf, type OptionNames } from "../core/options.ts";

/** A user name and a password. */
export interface Credentials {
  /** The name, without a colon. */
  username: string;
  /** The password. */
  password: string;
}

/** Options of {@linkcode basicAuth}. Exactly one of `credentials` and `verify` must be given. */
export interface BasicAuthOptions {
  /**
   * Name of the protected area, which a browser may show to the user.
   * @default {"WebSocket"}
   */
  realm?: string | undefined;
  /** User names and passwords that may connect. */
  credentials?: Credentials | Iterable<Credentials> | undefined;
  /**
   * Decides whether a user may connect. If the result is neither true nor false, the client is answered
   * with 500, and `onError` is called.
   */
  verify?:
    | (((credentials: Credentials, request: Request) => boolean | Promise<boolean>) | undefined)
    | undefined;
}

const BASIC_AUTH_OPTIONS: OptionNames<BasicAuthOptions> = {
  realm: checkRealm,
  credentials: true,
  verify: checkFunction,
};

/**
 * Makes an `onRequest` hook that asks for a user name and a password, and answers other requests with 401.
 * Names and passwords are compared in constant time.
 *
 * @example
 * ```ts
 * import { basicAuth, connect, serve } from "sluice";
 *
 * const onRequest = basicAuth({ credentials: { username: "ada", password: "lovelace" } });
 * const server = await serve({ port: 0, onRequest }, (ws) => ws.send("Welcome"));
 *
 * const ws = await connect(`ws://ada:lovelace@127.0.0.1:${server.port}`);
 * console.log(await ws.receive()); // Welcome
 * await server.shutdown();
 * ```
 * @throws {TypeError} If an option has the wrong type, or both or none of `credentials` and `verify` are
 * given.
 * @throws {RangeError} If a user name contains a colon, or the realm cannot be sent in a header field.
 */
export function basicAuth(
  options: BasicAuthOptions,
): (request: Request) => Promise<Response | undefined> {
  const verify = verifier(options);
  const challenge = challengeOf(options.realm ?? "WebSocket");
  return async (request) => {
    const given = credentialsOf(request);
    const isKnown: unknown = given !== undefined && await verify(given, request);
    // A common mistake is to return the user that was found.
    if (typeof isKnown !== "boolean") {
      throw wrongType(`verify must return true or false, received ${kindOf(isKnown)}`);
    }
    if (isKnown) return undefined;
    return new Response("Unauthorized\n", {
      status: 401,
      headers: { "WWW-Authenticate": challenge },
    });
  };
}

function verifier(options: BasicAuthOptions): NonNullable<BasicAuthOptions["verify"]> {
  checkKnown("basicAuth()", options, BASIC_AUTH_OPTIONS);
  const { credentials, verify } = options;
  if ((credentials === undefined) === (verify === undefined)) {
    throw wrongType(
      `Expected either credentials or verify, received ${
        verify === undefined ? "neither" : "both"
      }`,
    );
  }
  if (verify !== undefined) return verify;
  const known = Symbol.iterator in credentials! ? [...credentials] : [credentials!];
  for (const one of known) checkCredentials(one);
  return (given) => isAmong(known, given);
}

function checkCredentials({ username, password }: Credentials): void {
  if (typeof username !== "string" || typeof password !== "string") {
    throw wrongType("Expected username and password to be strings");
  }
  // RFC 7617 §2: the first colon ends the name.
  if (username.includes(":")) {
    // The message does not show the text, which may contain the password.
    throw wrongValue("Expected username to have no colon");
  }
}

function checkRealm(name: string, realm: unknown): void {
  checkText(name, realm);
  if (/^[\t\x20-\x7e]*$/.test(realm as string)) return;
  throw wrongValue(`Expected ${name} to have printable ASCII characters only`);
}

/** RFC 7617 §2, §2.1: the realm is a quoted string; the client must send UTF-8. */
function challengeOf(realm: string): string {
  return `Basic realm="${realm.replace(/["\\]/g, "\\$&")}", charset="UTF-8"`;
}

/**
 * Returns the credentials of a request with Basic authentication, or undefined.
 *
 * @example
 * ```ts
 * import { credentialsOf, serve } from "sluice";
 *
 * const server = await serve({ port: 0 }, async (ws) => {
 *   await ws.send(`Hello ${credentialsOf(ws.request)?.username ?? "stranger"}`);
 * });
 * await server.shutdown();
 * ```
 * @throws {TypeError} If the argument is not a Request of the web.
 */
export function credentialsOf(request: Request): Credentials | undefined {
  if (typeof request?.headers?.get !== "function") {
    throw wrongType(
      `Expected a Request of the web, such as ws.request, received ${kindOf(request)}`,
    );
  }
  const value = request.headers.get("authorization") ?? "";
  // RFC 9110 §11.1: the name of a scheme is case-insensitive.
  const token = /^basic +([A-Za-z0-9+/]+={0,2})$/i.exec(value)?.[1];
  const text = token === undefined ? undefined : decode(token);
  const colon = text?.indexOf(":") ?? -1;
  if (text === undefined || colon < 0) return undefined;
  return { username: text.slice(0, colon), password: text.slice(colon + 1) };
}

function decode(token: string): string | undefined {
  try {
    const bytes = Uint8Array.from(atob(token), (character) => character.charCodeAt(0));
    return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    return undefined;
  }
}

/** Compares with all known credentials, also after a match, so that the time is constant. */
async function isAmong(known: readonly Credentials[], given: Credentials): Promise<boolean> {
  let found = 0;
  for (const one of known) {
    const name = await isSame(one.username, given.username);
    const password = await isSame(one.password, given.password);
    found |= name & password;
  }
  return found === 1;
}

/** Compares digests, which have the same length and do not show where the texts differ. */
async function isSame(a: string, b: string): Promise<number> {
  const [left, right] = await Promise.all([digest(a), digest(b)]);
  let difference = 0;
  for (let i = 0; i < left.length; i++) difference |= left[i] ^ right[i];
  return difference === 0 ? 1 : 0;
}

async function digest(text: string): Promise<Uint8Array> {
  return new Uint8Array(await crypto.subtle.digest("SHA-256", new TextEncoder().encode(text)));
}
