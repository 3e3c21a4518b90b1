/**
 * The stacks of errors, and how `console.log()` prints a DOMException on Node, Deno and Bun.
 *
 * @module
 */
import { type ErrorCode, makeReadableBy } from "./error_code.ts";

makeReadableBy(makePrintable);

type Inspect = (value: unknown, options?: object) => string;

const { captureStackTrace } = Error as {
  captureStackTrace?: (target: object, made?: unknown) => void;
};

/**
 * Sets the stack to that of the caller of `made`. Makes one for a DOMException in JavaScriptCore, which has
 * none.
 */
function captureStack(error: Error, made: unknown): void {
  captureStackTrace!(error, made);
  // JavaScriptCore leaves out a function that ends with a call of another one.
  if (!error.stack?.includes("\n")) captureStackTrace!(error);
  hide(error, "stack", error.stack?.replace(/^Error\b/, `${error.name}: ${error.message}`));
}

/** Maximum number of lines of a stack that several calls have added to. */
const MAX_STACK_LINES = 30;

/** Puts the stack of the caller of `made` before the frames that the error has. */
export function addStack(error: Error, made: unknown): void {
  if (captureStackTrace === undefined) return;
  const earlier = framesOf(error.stack);
  captureStack(error, made);
  const frames = [...framesOf(error.stack), ...earlier].slice(0, MAX_STACK_LINES);
  hide(error, "stack", [`${error.name}: ${error.message}`, ...frames].join("\n"));
}

/** Adds to the message of an error whose stack may have the message in it. */
export function addToMessage(error: Error, text: string): void {
  const { message, stack } = error;
  hide(error, "message", `${message}${text}`);
  hide(error, "stack", stack?.replace(message, () => error.message));
}

function framesOf(stack: string = ""): string[] {
  return stack.split("\n").filter((line) => /^\s+at |@/.test(line));
}

/** Gives a DOMException a stack, and lets `console.log()` print the stack and the codes. */
function makePrintable(error: DOMException): void {
  if (!error.stack && captureStackTrace !== undefined) captureStack(error, undefined);
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
