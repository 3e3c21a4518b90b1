/** The stacks of errors, and how `console.log()` prints a DOMException on Node, Deno and Bun. */
import { type ErrorCode, makeReadable, makeReadableBy, withCode } from "./error_code.ts";

makeReadableBy(makePrintable);

const FOR_DENO = Symbol.for("Deno.customInspect");
const FOR_NODE = Symbol.for("nodejs.util.inspect.custom");

type Inspect = (value: unknown, options?: object) => string;

const { captureStackTrace } = Error as {
  captureStackTrace?: (target: object, made?: unknown) => void;
};

/** The calls that led to an error. */
interface Trace {
  name: string;
  message: string;
  /** V8 writes the text when it is read, which takes far longer than to note the calls. */
  stack?: string;
}

/** Whether the text of a stack is written when it is read. */
const isLazy = (() => {
  const trace = {};
  captureStackTrace?.(trace);
  return Object.getOwnPropertyDescriptor(trace, "stack")?.get !== undefined;
})();

/**
 * Notes the callers of the first of the functions that is running. JavaScriptCore leaves out a function
 * that ends with a call of another one.
 */
function traceFor({ name, message }: Error, ...made: unknown[]): Trace {
  const trace: Trace = { name, message };
  for (const function_ of [...made, undefined]) {
    captureStackTrace!(trace, function_);
    if (isLazy || trace.stack?.includes("\n")) break;
  }
  return trace;
}

/**
 * Makes an error without a stack, because a call that waits for the error gives it one. V8 takes longer to
 * note the calls than for the rest of an error.
 */
export function withoutStack<T extends Error>(make: () => T): T {
  const { stackTraceLimit } = Error as { stackTraceLimit?: number };
  // The property may be read-only.
  Reflect.set(Error, "stackTraceLimit", 0);
  try {
    return make();
  } finally {
    Reflect.set(Error, "stackTraceLimit", stackTraceLimit);
  }
}

function textOf({ name, message, stack }: Trace): string {
  return `${stack}`.replace(/^Error\b/, () => `${name}: ${message}`);
}

/**
 * Lets a class give private members to an error. A WeakMap takes longer, also when V8 collects its garbage.
 */
class Marked {
  constructor(error: object) {
    return error;
  }
}

/** An error whose stack was replaced: the first stack, and those of the last calls that rejected with it. */
class Traced extends Marked {
  #first: PropertyDescriptor | undefined;
  /** Of a call that has not waited. */
  #called: Trace | undefined;
  /** Of a later call that has waited. */
  #waited: Trace | undefined;

  static replace(error: Error, made: unknown, hasWaited: boolean): void {
    const isNew = !(#first in error);
    const traced = isNew ? new Traced(error) : error as Error & Traced;
    if (isNew) traced.#first = Object.getOwnPropertyDescriptor(error, "stack");
    traced.#waited = hasWaited ? traceFor(error, made) : undefined;
    if (!hasWaited) traced.#called = traceFor(error, made);
    Object.defineProperty(error, "stack", STACK);
  }

  static stackOf(error: Error): string | undefined {
    // An object may inherit the property from the error.
    if (!(#first in error)) return undefined;
    const waited = error.#waited && textOf(error.#waited);
    if (waited?.includes("\n    at async ")) return waited;
    if (error.#called !== undefined) return textOf(error.#called);
    const first = error.#first;
    return first?.get === undefined ? first?.value : first.get.call(error);
  }
}

/** The property `stack` of an error whose stack was replaced. */
const STACK: PropertyDescriptor = {
  get(this: Error) {
    return Traced.stackOf(this);
  },
  set(this: Error, value: unknown) {
    hide(this, "stack", value);
  },
  configurable: true,
};

/**
 * Replaces the stack by that of the caller of `made`. If the caller has waited since, the stack is replaced
 * only if the runtime finds the functions that wait.
 */
export function replaceStack(error: Error, made: unknown, hasWaited: boolean): void {
  // The application may have frozen an error that it has caught before.
  if (captureStackTrace === undefined || !Object.isExtensible(error)) return;
  Traced.replace(error, made, hasWaited);
}

/** Adds to the message of an error whose stack may have the message in it. */
export function addToMessage(error: Error, text: string): void {
  const { message, stack } = error;
  hide(error, "message", `${message}${text}`);
  hide(error, "stack", stack?.replace(message, () => error.message));
}

/** Gives a DOMException a stack, and lets `console.log()` print the stack and the codes. */
function makePrintable(error: DOMException): void {
  // V8 makes the text of a stack when the property is read, which takes longer than all else here.
  /* c8 ignore next 5: only JavaScriptCore makes no stack for a DOMException. */
  if (!Object.hasOwn(error, "stack") && captureStackTrace !== undefined) {
    const made = [error.constructor, withCode, makeReadable];
    const isWithout = (Error as { stackTraceLimit?: number }).stackTraceLimit === 0;
    hide(error, "stack", isWithout ? String(error) : textOf(traceFor(error, ...made)));
  }
  // A WebSocketError has been here before it got its code.
  if (Object.hasOwn(error, FOR_NODE)) return;
  hide(error, FOR_DENO, printForDeno);
  hide(error, FOR_NODE, printForNode);
}

function printForDeno(this: ErrorFacts, inspect: Inspect, options?: object): string {
  const { stack, errorCode, closeCode, reason, cause } = this;
  const facts = Object.entries({ errorCode, closeCode, reason, cause });
  const known = facts.filter(([, value]) => value !== undefined && value !== null && value !== "");
  if (known.length === 0) return `${stack}`;
  return `${stack} ${inspect(Object.fromEntries(known), options)}`;
}

function printForNode(this: ErrorFacts, _: unknown, options: object, inspect: Inspect): string {
  return printForDeno.call(this, inspect, options);
}

interface ErrorFacts extends DOMException {
  errorCode?: ErrorCode;
  closeCode?: number | null;
  reason?: string;
  cause?: unknown;
}

function hide(error: object, name: PropertyKey, value: unknown): void {
  Object.defineProperty(error, name, { value, configurable: true, writable: true });
}
