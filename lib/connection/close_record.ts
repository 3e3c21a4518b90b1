/**
 * Which Close frames went, and how long the other side may take.
 *
 * A file of its own because it is the memory that the messages of a connection's errors come from.
 *
 * @module
 */
import { CloseCode, type CloseInfo, serializeClose } from "../core/close.ts";
import { isScriptCloseCode, WebSocketError, webSocketErrorSlots } from "../core/error.ts";
import { checkKnown, type OptionNames } from "../core/options.ts";
import type { CloseDetails } from "../options.ts";
import { now } from "../timers.ts";

/** Shared by all that are open. */
const NONE: CloseDetails = {};

/** The Close frames of a connection. */
export class CloseRecord {
  #details: CloseDetails = NONE;
  #startedAt: number | undefined;

  /** When the first of them went, by the clock of `now()`. */
  get startedAt(): number | undefined {
    return this.#startedAt;
  }

  /** The frames seen so far; undefined before the first. */
  get details(): CloseDetails | undefined {
    return this.#details.first === undefined ? undefined : { ...this.#details };
  }

  /** The peer's code and reason, or 1006. */
  get received(): Required<CloseInfo> {
    return this.#details.received ?? { closeCode: CloseCode.Abnormal, reason: "" };
  }

  /** Notes a frame. */
  note(direction: "received" | "sent", { closeCode, reason }: Required<CloseInfo>): void {
    const { first = direction } = this.#details;
    this.#startedAt ??= now();
    this.#details = { ...this.#details, [direction]: { closeCode, reason }, first };
  }

  /** As `received 1001 "going away"; then sent 1001 "going away"`. */
  toString(): string {
    const { received, sent, first } = this.#details;
    const both = [describe("received", received), describe("sent", sent)];
    if (first === "sent") both.reverse();
    return both.filter((part) => part !== "").join("; then ") || "no Close frame either way";
  }
}

function describe(verb: string, info: Required<CloseInfo> | undefined): string {
  if (info === undefined) return "";
  return `${verb} ${info.closeCode}${info.reason && ` ${JSON.stringify(info.reason)}`}`;
}

/** The platform's own class, if it has one: its errors carry a code too. */
const { WebSocketError: Native } = globalThis as unknown as {
  WebSocketError?: typeof WebSocketError;
};

/**
 * What to close with when a stream is cancelled or aborted. A WebSocketError says it, if a script may send
 * its code: the error of another connection may have any. Another error is 1011, unless the connection
 * follows the standard, which has no code for it.
 */
export function closeInfoOf(reason: unknown, standard: boolean): CloseInfo {
  const slots = webSocketErrorSlots(reason) ?? nativeSlots(reason);
  if (slots === undefined) {
    return !standard && isFailure(reason) ? { closeCode: CloseCode.InternalError } : {};
  }
  const { closeCode, reason: text } = slots;
  return closeCode !== null && isScriptCloseCode(closeCode) ? { closeCode, reason: text } : {};
}

/** The code and reason by the class's own getters: properties of the error itself do not count. */
function nativeSlots(reason: unknown): ReturnType<typeof webSocketErrorSlots> {
  if (Native === undefined) return undefined;
  const slot = (name: "closeCode" | "reason") =>
    Object.getOwnPropertyDescriptor(Native.prototype, name)!.get!.call(reason);
  try {
    return { closeCode: slot("closeCode"), reason: slot("reason") };
  } catch {
    return undefined;
  }
}

/**
 * Whether a reason without a code says that something went wrong. An AbortError says that somebody has had
 * enough, and what only looks like a WebSocketError says nothing.
 */
function isFailure(reason: unknown): boolean {
  try {
    return reason instanceof Error && !(reason instanceof WebSocketError) &&
      reason.name !== "AbortError";
  } catch {
    // A getter or a trap of the caller's has thrown.
    return false;
  }
}

const CLOSE_INFO: OptionNames<CloseInfo> = { closeCode: true, reason: true };

/**
 * Checks what a caller wants to close with.
 *
 * @returns The code and reason. Each was read once: a getter may say something else the next time
 * @throws {TypeError} If the code or the reason is of the wrong type.
 * @throws {RangeError} If the code must not be sent, or the reason is too long. 1005 stands for no code.
 */
export function checkCloseInfo(info: CloseInfo): CloseInfo {
  checkKnown("close()", info, CLOSE_INFO);
  const { closeCode, reason } = info;
  // Null is no number, and not taken for one that was left out.
  const implied = reason ? CloseCode.Normal : undefined;
  const checked = { closeCode: closeCode === undefined ? implied : closeCode, reason };
  serializeClose(checked);
  return checked;
}
