/**
 * Which Close frames went, and how long the other side may take.
 *
 * A file of its own because it is the memory that the messages of a connection's errors come from.
 *
 * @module
 */
import { CloseCode, type CloseInfo, isWireCloseCode, serializeClose } from "../core/close.ts";
import { WebSocketError } from "../core/error.ts";
import { checkKnown, type OptionNames } from "../core/options.ts";
import type { CloseDetails } from "../options.ts";

/** Shared by all that are open. */
const NONE: CloseDetails = {};

/** The Close frames of a connection. */
export class CloseRecord {
  #details: CloseDetails = NONE;

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

/** That of the platform, where it has one: who uses both need not care which is which. */
const { WebSocketError: Native = WebSocketError } = globalThis as unknown as {
  WebSocketError?: typeof WebSocketError;
};

/** The code and reason that a reason for cancelling or aborting carries. */
export function closeInfoOf(reason: unknown): CloseInfo {
  if (!(reason instanceof WebSocketError || reason instanceof Native)) return {};
  if (reason.closeCode === null) return {};
  return isWireCloseCode(reason.closeCode)
    ? { closeCode: reason.closeCode, reason: reason.reason }
    : {};
}

const CLOSE_INFO: OptionNames<CloseInfo> = { closeCode: true, reason: true };

/** Checks what a caller wants to close with. */
export function checkCloseInfo(info: CloseInfo, owner = "close()"): void {
  checkKnown(owner, info, CLOSE_INFO);
  const { closeCode, reason } = info;
  if (closeCode === CloseCode.NoStatus) {
    throw new RangeError("Expected a close code that may be sent, received 1005");
  }
  // Null is no number, and not taken for one that was left out.
  const implied = reason ? CloseCode.Normal : undefined;
  serializeClose({ closeCode: closeCode === undefined ? implied : closeCode, reason });
}
