/** Interfaces and conversions of Web IDL. */
import { wrongType } from "./error_code.ts";

/** Makes the members of a class enumerable, and gives its instances a tag, as Web IDL says. */
export function defineInterface<T>(
  constructor: { readonly prototype: T },
  name: string,
  members: readonly (keyof T)[],
): void {
  const { prototype } = constructor;
  // A bundler may have renamed the class.
  Object.defineProperty(constructor, "name", { value: name, configurable: true });
  for (const member of members) Object.defineProperty(prototype, member, { enumerable: true });
  Object.defineProperty(prototype, Symbol.toStringTag, { value: name, configurable: true });
}

/** Converts to a dictionary. Null and undefined become empty dictionaries. */
export function toDictionary(value: unknown, what: string): Record<string, unknown> {
  if (value === undefined || value === null) return {};
  if (!isObject(value)) {
    throw wrongType(`Expected ${what} to be an object, received ${typeof value}`);
  }
  return value;
}

/** Converts to a string. Lone surrogates become U+FFFD. */
export function toUsvString(value: unknown): string {
  // A template rejects a symbol, unlike String().
  return `${value}`.replace(/\p{Surrogate}/gu, "\ufffd");
}

/** Converts to an [EnforceRange] unsigned short. */
export function toUnsignedShort(value: unknown, what: string): number {
  // The operator rejects a BigInt, unlike Number().
  const number = Math.trunc(+(value as number));
  if (number >= 0 && number <= 0xffff) return number;
  throw wrongType(`Expected ${what} to be an integer from 0 to 65535, received ${number}`);
}

/**
 * Converts to a sequence of strings. Web IDL reads each member of the iterable and of its iterator
 * once, and never calls `return()`. A `for` loop would call it if a conversion throws.
 */
export function toStrings(value: unknown, what: string): string[] {
  const notSequence = () => wrongType(`Expected ${what} to be a sequence of strings`);
  if (!isObject(value)) throw notSequence();
  const method = value[Symbol.iterator];
  if (typeof method !== "function") throw notSequence();
  const iterator: unknown = method.call(value);
  if (!isObject(iterator)) throw notSequence();
  const { next } = iterator;
  if (typeof next !== "function") throw notSequence();
  const strings: string[] = [];
  for (;;) {
    const result: unknown = next.call(iterator);
    if (!isObject(result)) throw notSequence();
    if (result.done) return strings;
    strings.push(toUsvString(result.value));
  }
}

function isObject(value: unknown): value is Record<PropertyKey, unknown> {
  return typeof value === "function" || (typeof value === "object" && value !== null);
}
