/** The stacks of errors, and how `console.log()` prints a DOMException on Node, Deno and Bun. */
import { type ErrorCode, makeReadable, makeReadableBy, withCode } from "./error_code.ts";

makeReadableBy(makePrintable);

type Inspect = (value: unknown, options?: object) => string;

const { captureStackTrace } = Error as {
  captureStackTrace?: (target: object, made?: unknown) => void;
};

/**
 * Returns the stack of the caller of the first of the functions that is running, as a stack of the error.
 * JavaScriptCore leaves out a function that ends with a call of another one.
 */
function stackFor({ name, message }: Error, ...made: unknown[]): string {
  const holder: { name: string; message: string; stack?: string } = { name, message };
  for (const function_ of [...made, undefined]) {
    captureStackTrace!(holder, function_);
    if (holder.stack?.includes("\n")) break;
  }
  return `${holder.stack}`.replace(/^Error\b/, () => `${name}: ${message}`);
}

/**
 * Replaces the stack by that of the caller of `made`. If the caller has waited since, the stack is replaced
 * only if the runtime finds the functions that wait.
 */
export function replaceStack(error: Error, made: unknown, hasWaited: boolean): void {
  if (captureStackTrace === undefined) return;
  const stack = stackFor(error, made);
  if (!hasWaited || stack.includes("\n    at async ")) hide(error, "stack", stack);
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
  /* c8 ignore next 3: only JavaScriptCore makes no stack for a DOMException. */
  if (!Object.hasOwn(error, "stack") && captureStackTrace !== undefined) {
    hide(error, "stack", stackFor(error, error.constructor, withCode, makeReadable));
  }
  const print = (inspect: Inspect, options?: object): string => {
    const { stack, errorCode, closeCode, reason, cause } = error as DOMException & ErrorFacts;
    const facts = Object.entries({ errorCode, closeCode, reason, cause });
    const known = facts.filter(([, value]) =>
      value !== undefined && value !== null && value !== ""
    );
    if (known.length === 0) return `${stack}`;
    return `${stack} ${inspect(Object.fromEntries(known), options)}`;
  };
  hide(error, Symbol.for("Deno.customInspect"), print);
  hide(
    error,
    Symbol.for("nodejs.util.inspect.custom"),
    (_: unknown, options: object, inspect: Inspect) => print(inspect, options),
  );
}

interface ErrorFacts {
  errorCode?: ErrorCode;
  closeCode?: number | null;
  reason?: string;
  cause?: unknown;
}

function hide(error: object, name: PropertyKey, value: unknown): void {
  Object.defineProperty(error, name, { value, configurable: true, writable: true });
}
