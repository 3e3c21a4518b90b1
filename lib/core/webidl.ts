/**
 * What Web IDL says of interfaces and conversions, and a class in JavaScript does not do by itself.
 *
 * A file of its own because both WebSocketError and WebSocketStream are such interfaces.
 *
 * @module
 */

/**
 * Makes a class look like an interface: its members are enumerable, and its instances have a tag.
 *
 * @param members its attributes and operations
 */
export function defineInterface<T>(
  constructor: { readonly prototype: T },
  name: string,
  members: readonly (keyof T)[],
): void {
  const { prototype } = constructor;
  // Bundlers rename classes.
  Object.defineProperty(constructor, "name", { value: name, configurable: true });
  for (const member of members) Object.defineProperty(prototype, member, { enumerable: true });
  Object.defineProperty(prototype, Symbol.toStringTag, { value: name, configurable: true });
}

/**
 * Converts to a dictionary, as which null and undefined have no members.
 *
 * @throws {TypeError} when the value is no object
 */
export function toDictionary(value: unknown, what: string): Record<string, unknown> {
  if (value === undefined || value === null) return {};
  if (typeof value !== "object" && typeof value !== "function") {
    throw new TypeError(`Expected ${what} as an object, received ${typeof value}`);
  }
  return value as Record<string, unknown>;
}

/**
 * Converts to a string in which a lone surrogate is U+FFFD.
 *
 * @throws {TypeError} for a symbol, and what else converts to no string
 */
export function toUsvString(value: unknown): string {
  // Unlike String(), a template refuses a symbol.
  return `${value}`.replace(/\p{Surrogate}/gu, "\ufffd");
}

/**
 * Converts to an [EnforceRange] unsigned short.
 *
 * @throws {TypeError} for what is no number of 16 bits
 */
export function toUnsignedShort(value: unknown, what: string): number {
  // Unlike Number(), the operator refuses a BigInt.
  const number = Math.trunc(+(value as number));
  if (number >= 0 && number <= 0xffff) return number;
  throw new TypeError(`Expected ${what} as a number of 16 bits, received ${number}`);
}

/**
 * Converts to a sequence of strings.
 *
 * @throws {TypeError} when the value is no object that can be iterated over
 */
export function toStrings(value: unknown, what: string): string[] {
  const iterable = typeof value === "object" || typeof value === "function" ? value : null;
  if (typeof (iterable as Partial<Iterable<unknown>> | null)?.[Symbol.iterator] !== "function") {
    throw new TypeError(`Expected ${what} to be a sequence of strings`);
  }
  const strings: string[] = [];
  for (const item of iterable as Iterable<unknown>) strings.push(toUsvString(item));
  return strings;
}
