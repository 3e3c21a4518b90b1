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
  if (!isObject(value)) {
    throw new TypeError(`Expected ${what} as an object, received ${typeof value}`);
  }
  return value;
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
 * Converts to a sequence of strings. As Web IDL says, each member of the iterable and of its iterator
 * is read once, and `return()` is never called: a loop would call it when a conversion throws.
 *
 * @throws {TypeError} If the value is not an object that can be iterated over.
 */
export function toStrings(value: unknown, what: string): string[] {
  const notSequence = () => new TypeError(`Expected ${what} to be a sequence of strings`);
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
