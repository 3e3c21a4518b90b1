/**
 * Sets how `console.log()` prints the objects of the library, on Node, Deno and Bun.
 *
 * @module
 */
import { formatAuthority } from "./core/url.ts";
import type { Address } from "./transport.ts";

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
    const state = Object.entries(stateOf(object, describe));
    const known = state.filter(([, value]) => value !== undefined && value !== "");
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

/** The prototype itself has no state. */
function stateOf<T extends object>(object: T, describe: (object: T) => object): object {
  try {
    return describe(object);
  } catch {
    return {};
  }
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
