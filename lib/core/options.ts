/**
 * Checks the names and values of options. An unknown option is an error, because an ignored
 * `verifyClient` would let everybody in.
 */
import { wrongType, wrongValue } from "./error.ts";

/** Checks the value of an option. The value is not undefined. Throws if the value is wrong. */
export type OptionCheck = (name: string, value: unknown) => void;

/** The options of a type, each with its check, or with true if its value is checked elsewhere. */
export type OptionNames<T> = { readonly [name in keyof T]-?: true | OptionCheck };

/**
 * Returns what to write instead of wrong options.
 * @param names The options that exist.
 * @param name A name that does not exist. Undefined if the options are not an object.
 */
export type Hint = (names: object, name: string | undefined, options: unknown) =>
  | string
  | undefined;

/** Names of options in other libraries for browsers. */
const BROWSER_NAMES: { readonly [theirs: string]: string | undefined } = {
  binary: "text",
  code: "closeCode",
  maxPayload: "maxMessageSize",
  maxRetries: "maxAttempts",
  protocol: "protocols",
  reconnectInterval: "minDelay",
  subprotocols: "protocols",
};

/** The hint that browsers load. option_hints.ts has a better one. */
const browserHint: Hint = (names, name) => {
  if (name === undefined) return "protocols" in names ? "write { protocols: [...] }" : undefined;
  const ours = BROWSER_NAMES[name];
  return ours && ours in names ? `use ${ours}` : undefined;
};

export function optionsWithout<T extends object, K extends keyof T>(
  names: T,
  others: readonly K[],
): Omit<T, K> {
  const left = Object.entries(names).filter(([name]) => !others.includes(name as K & string));
  return Object.fromEntries(left) as Omit<T, K>;
}

/** Checks the names and values of options; `owner` is the function that the options belong to. */
export function checkKnown(owner: string, options: unknown, names: object, hint?: Hint): void {
  checkNames(owner, options, names, hint);
  checkValues(options as object, names);
}

/** Checks that options are an object, and that all of them exist. Undefined options are ignored. */
export function checkNames(
  owner: string,
  options: unknown,
  names: object,
  hint: Hint = browserHint,
): void {
  const wrong = (message: string, name?: string) => {
    const instead = hint(names, name, options);
    return wrongType(
      instead === undefined ? message : `${message}: ${instead}`,
      name === undefined ? undefined : { code: "unknown-option" },
    );
  };
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    const received = kindOf(options);
    throw wrong(`Expected the options of ${owner} to be an object, received ${received}`);
  }
  // The loop includes inherited options.
  for (const name in options) {
    if (Object.hasOwn(names, name) || options[name as never] === undefined) continue;
    throw wrong(`${owner} has no option ${name}`, name);
  }
}

/** Copies options. Inherited options count too, as in `checkNames()`. */
export function copyOf<T extends object>(options: T): T {
  const copy: Partial<T> = {};
  for (const name in options) copy[name] = options[name];
  return copy as T;
}

export function checkValues(options: object, names: object, prefix = ""): void {
  for (const name in names) {
    const check: unknown = names[name as never];
    if (typeof check !== "function") continue;
    const value = options[name as never];
    if (value !== undefined) check(prefix + name, value);
  }
}

export function checkType(name: string, value: unknown, type: string, isValid: boolean): void {
  if (isValid || value === undefined) return;
  throw wrongType(`Expected ${name} to be ${type}, received ${kindOf(value)}`);
}

export function checkNumber(name: string, value: unknown): void {
  checkType(name, value, "a number", typeof value === "number");
  if (value === undefined || (value as number) >= 0) return;
  throw wrongValue(`Expected ${name} to be at least 0, received ${value}`);
}

/** Checks that a value is an integer in a range. Infinity counts as an integer. */
export function checkInteger(name: string, value: unknown, least: number, most: number): void {
  checkType(name, value, "a number", typeof value === "number");
  const number = value as number;
  const isInteger = Number.isInteger(number) || number === Infinity;
  if (isInteger && number >= least && number <= most) return;
  throw wrongValue(`Expected ${name} to be an integer from ${least} to ${most}, received ${value}`);
}

export function checkText(name: string, value: unknown): void {
  checkType(name, value, "a string", typeof value === "string");
}

export function checkBoolean(name: string, value: unknown): void {
  checkType(name, value, "true or false", typeof value === "boolean");
}

export function checkFunction(name: string, value: unknown): void {
  checkType(name, value, "a function", typeof value === "function");
}

export function checkOneOf(name: string, value: unknown, values: readonly unknown[]): void {
  if (value === undefined || values.includes(value)) return;
  throw wrongValue(`Expected ${name} to be one of ${values.join(", ")}, received ${value}`);
}

export function checkTexts(name: string, value: unknown): void {
  const isValid = Array.isArray(value) && value.every((item) => typeof item === "string");
  checkType(name, value, "an array of strings", isValid);
}

export function checkSignal(name: string, value: unknown): void {
  checkType(name, value, "an AbortSignal", value instanceof AbortSignal);
}

/** Checks the option `slow` of a connection. */
export function checkSlow(name: string, value: unknown): void {
  checkOneOf(name, value, ["wait", "close", "terminate"]);
}

export function kindOf(value: unknown): string {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return "an array";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}
