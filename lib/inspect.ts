/**
 * What is shown of the library: how `console.log()` prints its objects, and what the log and the channels of
 * the platform are told. Nothing is told, and nothing costs time, if nobody listens.
 */
import type { CloseInfo } from "./core/close.ts";
import type { HandshakeError } from "./core/error.ts";
import type { Frame, Role } from "./core/frame.ts";
import type { RequestHead, ResponseHead } from "./core/http1.ts";
import { formatAuthority } from "./core/url.ts";
import type { Address, Transport } from "./transport.ts";

type Inspect = (value: unknown, options?: object) => string;

/**
 * Makes the objects of a class, given by its prototype, print their state instead of their members.
 * Values that are undefined or "" are omitted. The state must not contain credentials.
 */
export function makeInspectable<T extends object>(
  target: T,
  name: string,
  describe: (object: T) => object,
): void {
  const print = (object: T, inspect: Inspect, options: object): string => {
    let state = {};
    try {
      state = describe(object);
    } catch {
      // The prototype itself has no state.
    }
    const known = Object.entries(state).filter(([, value]) => value !== undefined && value !== "");
    return `${name} ${inspect(Object.fromEntries(known), options)}`;
  };
  // Node and Bun.
  define(target, "nodejs.util.inspect.custom", function (this: T, _: number, options, inspect) {
    return print(this, inspect, options);
  });
  define(target, "Deno.customInspect", function (this: T, inspect, options) {
    return print(this, inspect, options);
  });
}

// deno-lint-ignore no-explicit-any
function define(target: object, symbol: string, value: (...args: any[]) => string): void {
  Object.defineProperty(target, Symbol.for(symbol), { value, configurable: true, writable: true });
}

/** Returns a URL without the parts that may be secret: user name, password, query and fragment. */
export function withoutSecrets({ protocol, host, pathname }: URL): string {
  return `${protocol}//${host}${pathname}`;
}

/** Returns an address as text, such as "127.0.0.1:8080" or the path of a Unix socket. */
export function addressText(address: Address | undefined): string | undefined {
  if (address === undefined || address.transport === "unix") return address?.path;
  return formatAuthority(address.hostname, address.port);
}

/** Escapes control characters, and characters that are invisible or change the order of the text. */
export function printable(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, (character) => {
    const code = character.codePointAt(0)!;
    if (character === "\n") return "\\n";
    if (character === "\t") return "\\t";
    const digits = code.toString(16);
    if (code < 0x100) return `\\x${digits.padStart(2, "0")}`;
    return code < 0x10000 ? `\\u${digits.padStart(4, "0")}` : `\\u{${digits}}`;
  });
}

/** What is known when the handshake is over. */
export interface Opened {
  /** Over a native WebSocket, the role and the handshake are unknown. */
  readonly machine: { readonly role: Role | undefined };
  readonly request: RequestHead;
  readonly response: ResponseHead;
  readonly transport: Pick<Transport, "localAddress" | "remoteAddress">;
}

/** Listens to one connection. */
export interface ConnectionListener {
  onFrame(direction: "in" | "out", frame: Frame): void;
  opened(connection: object): void;
  ended(connection: object, close: Required<CloseInfo>, error: Error | undefined): void;
}

export interface Diagnostics {
  /** Whether frames are told. Decided before the first connection. */
  readonly logsFrames: boolean;
  /** Whether anybody wants to know of handshakes that a server refuses. */
  readonly wantsRefused: boolean;
  /** Returns a listener for a new connection, or undefined if nobody listens. */
  listen(opened: Opened): ConnectionListener | undefined;
  /** A server has refused a handshake, or its `onRequest` has answered a plain request (`isAnswer`). */
  refused(
    error: HandshakeError,
    request: Request | undefined,
    remoteAddress: Address | undefined,
    isAnswer: boolean,
  ): void;
  /** A client could not connect. The URL has no credentials. */
  failed(url: string, error: unknown): void;
}

/** The diagnostics of the platform, if its adapter is loaded and has any. */
export let diagnostics: Diagnostics | undefined;

export function setDiagnostics(found: Diagnostics): void {
  diagnostics = found;
}
