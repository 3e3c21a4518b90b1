/**
 * How a connection ends: a state machine from the open connection to the end of its transport, with the
 * Close frames that were seen and those who are told of the end.
 *
 * @module
 */
import { CloseCode, type CloseInfo, serializeClose, truncateReason } from "../core/close.ts";
import {
  invalidState,
  isScriptCloseCode,
  RemoteProtocolError,
  WebSocketError,
  webSocketError,
  webSocketErrorSlots,
} from "../core/error.ts";
import type { CloseEvent } from "../core/event.ts";
import { checkKnown, type OptionNames } from "../core/options.ts";
import type { Protocol } from "../core/protocol.ts";
import type { CloseDetails } from "../options.ts";
import { handled } from "../abortable.ts";
import type { End, Receiver } from "./receiver.ts";
import type { Sender, SenderHost } from "./sender.ts";
import { deadline, nextTurn, now } from "../timers.ts";
import type { Transport } from "../transport.ts";

/** How far a connection has come to its end. */
export type Phase =
  /** Messages go both ways. */
  | "open"
  /** We close: our Close frame leaves after the messages that were accepted. The peer's is read for. */
  | "closing"
  /** The end of the input was met. The messages before it are being taken, and may be answered. */
  | "draining"
  /** The same, and we close: nothing more is accepted. */
  | "draining-closing"
  /** Both Close frames have been exchanged. The transport has not ended. */
  | "shaken"
  /** The connection has failed. The transport has not ended. */
  | "failed"
  /** The transport has ended after a clean close. A pipe has one turn to close `writable`. */
  | "settling"
  /** The transport has ended, and everything that waited is settled. */
  | "ended";

/** What takes a connection nearer to its end. */
type Step =
  /** We want to close. */
  | "close"
  /** The end of the input was met: a Close frame, a violation, or the end of the transport. */
  | "inputOver"
  /** The peer's Close frame has come, and ours has been written. */
  | "handshakeDone"
  /** The connection cannot end cleanly any more. */
  | "fail"
  /** The transport has ended, in a phase that does not wait for anything else. */
  | "transportOver"
  /** A pipe has had its turn. */
  | "settle";

/** The phase after a step. A step that a phase does not have is ignored. */
const NEXT: { readonly [step in Step]: { readonly [phase in Phase]?: Phase } } = {
  close: { open: "closing", draining: "draining-closing" },
  inputOver: { open: "draining", closing: "draining-closing" },
  handshakeDone: { draining: "shaken", "draining-closing": "shaken" },
  fail: {
    open: "failed",
    closing: "failed",
    draining: "failed",
    "draining-closing": "failed",
    // A callback that has seen the Close frame may throw later.
    shaken: "failed",
  },
  transportOver: { shaken: "settling", failed: "ended" },
  settle: { settling: "ended" },
};

/** What ends the input: undefined if the transport ended without a Close frame. */
export type InputEnd = CloseEvent | RemoteProtocolError | undefined;

/** Called when a connection has ended or failed; the error says why there was no clean close. */
export type EndListener = (error?: WebSocketError) => void;

/** How a connection closes when one of its streams is cancelled or aborted without a code. */
export type LeaveRule =
  /** With 1011 for an error, and otherwise without a code. */
  | "direct"
  /** Without a code, whatever the reason. */
  | "standard"
  /** As "direct", but a reason that is no error waits for the handler, which may still reject. */
  | "handler";

/** The parts of a connection that its end acts on. */
export interface ClosingParts {
  readonly machine: Pick<Protocol, "state" | "endsTransport" | "dispose">;
  readonly transport: Transport;
  readonly receiver: Receiver;
  readonly sender: Sender;
  /** Reads on if there is something to read and room for it. */
  pump(): void;
  /** Sends no more pings. */
  stopKeepalive(): void;
  /** Rejects the pings that wait for their pongs. */
  failPings(error: () => unknown): void;
}

/** Brings one connection to its end. */
export class Closing implements SenderHost {
  phase: Phase = "open";
  /** Whether input is still decoded: in the phases "open" and "closing". */
  isReading = true;
  /** How far the transport itself has come. */
  transport: "open" | "half-closed" | "closed" = "open";
  /** Why the connection does not end with a clean close. */
  error: WebSocketError | undefined;
  /** When the first Close frame was seen, by the clock of `now()`. */
  startedAt: number | undefined;
  leaveRule: LeaveRule = "direct";
  readonly #parts: ClosingParts;
  readonly #timeout: number;
  #cancelTimer: (() => void) | undefined;
  #frames: CloseDetails = {};
  #transportError: Error | undefined;
  /** What to close with when the handler has settled. */
  #leaving: CloseInfo | undefined;
  #onDecided: EndListener[] = [];
  #onEnded: EndListener[] = [];
  #closed: Promise<Required<CloseInfo>> | undefined;
  /** The errors that say no more than that the connection is at its end. */
  #ownErrors: WeakSet<object> | undefined;
  #lastRefusal: DOMException | undefined;

  /**
   * @param parts the parts of the connection
   * @param timeout how long the peer may take to close, in milliseconds; 0 for as long as it likes
   */
  constructor(parts: ClosingParts, timeout: number) {
    this.#parts = parts;
    this.#timeout = timeout;
  }

  /** See `WebSocketConnection`. */
  get state(): "open" | "closing" | "closed" {
    if (this.canSend()) return "open";
    const { phase } = this;
    return phase === "failed" || phase === "settling" || phase === "ended" ? "closed" : "closing";
  }

  /** Whether messages may be sent. */
  canSend(): boolean {
    return this.phase === "open" || this.phase === "draining";
  }

  /** Whether our Close frame may still be written. */
  canWrite(): boolean {
    const { phase } = this;
    if (phase === "open" || phase === "draining") return true;
    if (phase !== "closing" && phase !== "draining-closing") return false;
    // It may wait for the messages before it.
    const { state } = this.#parts.machine;
    return state === "open" || state === "remote-closing";
  }

  /** RFC 6455 §5.5.2: a ping is answered until the peer's Close frame has come. */
  canAnswer(): boolean {
    return this.canWrite() || this.phase === "closing";
  }

  /** Takes a step; false if the present phase does not have it. */
  #take(step: Step): boolean {
    const next = NEXT[step][this.phase];
    if (next === undefined) return false;
    if (this.phase === "open") this.#parts.stopKeepalive();
    this.phase = next;
    this.isReading = next === "open" || next === "closing";
    return true;
  }

  // Who is told

  /** Calls back when the transport has ended. */
  whenEnded(listener: EndListener): void {
    if (this.phase === "ended") listener(this.error);
    else this.#onEnded.push(listener);
  }

  /** Calls back as soon as the end is certain: when the connection has failed, or its transport has ended. */
  whenDecided(listener: EndListener): void {
    if (this.phase === "failed" || this.phase === "ended") return listener(this.error);
    this.#onDecided.push(listener);
    this.#stopWaitingForHandler();
  }

  /** See `WebSocketConnection`. */
  get closed(): Promise<Required<CloseInfo>> {
    return this.#closed ??= handled(
      new Promise((resolve, reject) =>
        this.whenDecided((error) => error === undefined ? resolve(this.received) : reject(error))
      ),
    );
  }

  /** The peer's code and reason, or 1006. */
  get received(): Required<CloseInfo> {
    return this.#frames.received ?? { closeCode: CloseCode.Abnormal, reason: "" };
  }

  /** The Close frames that were seen; undefined before the first. */
  get details(): CloseDetails | undefined {
    return this.#frames.first === undefined ? undefined : { ...this.#frames };
  }

  /** Describes the Close frames, as `received 1001 "going away"; then sent 1001 "going away"`. */
  #describe(): string {
    const { received, sent, first } = this.#frames;
    const both = [describe("received", received), describe("sent", sent)];
    if (first === "sent") both.reverse();
    return both.filter((part) => part !== "").join("; then ") || "no Close frame either way";
  }

  /** The error for those who send when they may not. */
  closedError(): DOMException {
    return this.refusal(`Expected an open connection, it is ${this.state}`);
  }

  /** An error for a call at the wrong moment: the same one as long as there is nothing else to say. */
  refusal(what: string): DOMException {
    const message = `${what} (${this.#describe()})`;
    const last = this.#lastRefusal;
    if (last?.message === message && last.cause === this.error) return last;
    return this.#lastRefusal = this.#own(invalidState(message, this.error));
  }

  #own<T extends object>(error: T): T {
    (this.#ownErrors ??= new WeakSet()).add(error);
    return error;
  }

  /** Whether an error says no more than that this connection is at its end. */
  isOwnError(error: unknown): boolean {
    if (typeof error !== "object" || error === null) return false;
    return error === this.error || this.#ownErrors?.has(error) === true;
  }

  // We close

  /** RFC 6455 §7.1.2: starts the closing handshake. Without effect once it was started. */
  startClose(info: CloseInfo): void {
    if (!this.#take("close")) return;
    const { reason = "" } = info;
    const closeCode = info.closeCode ?? (reason === "" ? CloseCode.NoStatus : CloseCode.Normal);
    this.#startTimer();
    this.#parts.sender.beforeClose(() => {
      if (this.canWrite()) this.#sendClose({ type: "close", closeCode, reason });
    });
    // The peer's Close may lie behind messages for which there was no room.
    this.#parts.pump();
  }

  #sendClose(event: CloseEvent): void {
    this.#parts.sender.control(event);
    this.#note("sent", event);
  }

  #note(direction: "received" | "sent", { closeCode, reason }: CloseEvent): void {
    const { first = direction } = this.#frames;
    this.startedAt ??= now();
    this.#frames = { ...this.#frames, [direction]: { closeCode, reason }, first };
  }

  /** Ends the transport unless the peer does so in time. */
  #startTimer(): void {
    const isNeeded = this.#timeout > 0 && this.transport !== "closed";
    if (!isNeeded || this.#cancelTimer !== undefined) return;
    this.#cancelTimer = deadline(() => this.#parts.transport.destroy(), this.#timeout);
  }

  /** Ends the transport at once. */
  terminate(): void {
    // After both Close frames the close stays a clean one.
    if (this.phase === "shaken") this.#parts.transport.destroy();
    else this.cut("The connection was terminated", CloseCode.Abnormal);
  }

  // The input ends

  /**
   * Decodes no further. The end is acted on when the messages before it have had their turn: the echo of
   * one of them leaves before our Close.
   */
  inputOver(end: InputEnd): void {
    if (this.#take("inputOver")) this.#parts.receiver.budget.whenQuiet(() => this.#actOn(end));
  }

  #actOn(end: InputEnd): void {
    if (end === undefined) this.#lose();
    else if (end instanceof RemoteProtocolError) this.fail(end.closeCode, end.message, end);
    else this.#receiveClose(end);
  }

  #receiveClose(event: CloseEvent): void {
    if (this.phase === "ended") return;
    this.#note("received", event);
    if (this.canWrite() && !this.#answerClose(event)) return;
    if (this.#take("handshakeDone")) this.#endTransport(this.#endsTransport);
  }

  /** RFC 6455 §7.1.1: the server ends the transport first, the client waits for it to do so. */
  get #endsTransport(): boolean {
    return this.#parts.machine.endsTransport || this.transport === "half-closed";
  }

  /** RFC 6455 §5.5.1: a Close is answered with a Close. Returns whether that makes a clean close. */
  #answerClose({ type, closeCode, reason }: CloseEvent): boolean {
    // The standard calls a close clean only if everything written had left before.
    const { pending } = this.#parts.sender;
    this.#sendClose({ type, closeCode, reason });
    if (!pending && this.transport !== "closed") return true;
    const late = pending ? "while messages waited to be sent" : "before it was answered";
    const message = `The peer has closed ${late} (${this.#describe()})`;
    this.#decideFailure(webSocketError(message, closeCode, reason), pending);
    this.#endTransport(this.#endsTransport);
    return false;
  }

  /** The input ended without a Close frame. */
  #lose(): void {
    const cause = this.#transportError;
    const detail = cause === undefined ? "" : `: ${cause.message}`;
    const message = `The transport ended without a Close frame${detail} (${this.#describe()})`;
    // A transport that knows the close code says so itself.
    const error = cause instanceof WebSocketError
      ? cause
      : webSocketError(message, CloseCode.Abnormal, "", cause);
    if (this.#decideFailure(error)) this.#endTransport(true);
  }

  // The connection fails

  /** RFC 6455 §7.1.7: fails the connection: says why, reads no more, ends the transport. */
  fail(closeCode: number, message: string, cause?: unknown): void {
    // The message of an extension may be of any characters.
    const reason = truncateReason(message);
    if (this.canWrite()) this.#sendClose({ type: "close", closeCode, reason });
    if (this.#decideFailure(webSocketError(message, closeCode, "", cause))) {
      this.#endTransport(true);
    }
  }

  /** Ends the transport at once, because no Close frame can tell the peer why. */
  cut(message: string, closeCode: number, cause?: unknown): void {
    this.#decideFailure(webSocketError(message, closeCode, "", cause));
    if (this.transport === "closed") this.#endWithTransport();
    else this.#parts.transport.destroy();
  }

  /**
   * Decides that the connection has failed. `closed` rejects before everything that waits.
   *
   * @param isComplete whether everything that the peer has sent was received: streams then close
   */
  #decideFailure(error: WebSocketError, isComplete = false): boolean {
    if (!this.#take("fail")) return false;
    const { sender, receiver } = this.#parts;
    this.error = error;
    for (const listener of this.#onDecided) listener(error);
    this.#parts.failPings(() => error);
    sender.end(isComplete ? () => this.closedError() : () => error);
    receiver.end({ clean: isComplete, closeCode: error.closeCode ?? undefined, error });
    // What still comes is dropped, up to the end of the transport.
    this.#parts.pump();
    return true;
  }

  // The transport ends

  /** Ends our side, if it is for us to do so, after everything that was written. */
  #endTransport(isOurTurn: boolean): void {
    if (this.transport === "closed") return this.#endWithTransport();
    this.#parts.sender.flushAll();
    if (isOurTurn) this.#parts.transport.end();
    this.#startTimer();
  }

  /** The peer has ended its side of the transport. */
  transportHalfClosed(): void {
    this.transport = "half-closed";
    if (this.isReading) this.#parts.pump();
    else if (this.phase === "shaken" || this.phase === "failed") this.#parts.transport.end();
  }

  /** The transport is gone. */
  transportClosed(error: Error | undefined): void {
    this.transport = "closed";
    this.#transportError = error;
    this.#parts.sender.checkLent();
    // In the other phases it has been stopped.
    if (this.phase === "open") this.#parts.stopKeepalive();
    // What was received whole is still delivered: the rest of one chunk, whatever waits already.
    if (this.isReading) this.#parts.pump();
    else this.#endWithTransport();
  }

  /** Settles everything that waits, if nothing is left to be read. */
  #endWithTransport(): void {
    if (!this.#take("transportOver")) return;
    const { machine, receiver, sender } = this.#parts;
    machine.dispose();
    this.#cancelTimer?.();
    if (this.error !== undefined) return this.#tellEnd();
    const { closeCode, reason } = this.received;
    const message = () => `The connection was closed (${this.#describe()})`;
    const end = this.#cleanEnd(message, closeCode, reason);
    this.#parts.failPings(() => end.error);
    receiver.end(end);
    // A pipe from `readable` to `writable` needs a turn to close the latter.
    if (sender.streaming) nextTurn(() => this.#settle());
    else this.#settle();
  }

  #settle(): void {
    this.#parts.sender.end(() => this.closedError());
    this.#take("settle");
    for (const listener of this.#onDecided) listener();
    this.#tellEnd();
  }

  #tellEnd(): void {
    for (const listener of this.#onEnded) listener(this.error);
  }

  /** A clean end. Its error is made for the first who asks for more. */
  #cleanEnd(message: () => string, closeCode: number, reason: string): End {
    let error: WebSocketError | undefined;
    const make = () => error ??= this.#own(webSocketError(message(), closeCode, reason));
    return {
      clean: true,
      closeCode,
      get error() {
        return make();
      },
    };
  }

  // Streams and handlers

  /** The reader or the writer of a stream gives up. */
  leave(reason: unknown): void {
    const info = closeInfoOf(reason, this.leaveRule === "standard");
    if (this.leaveRule !== "handler" || info.closeCode !== undefined) return this.startClose(info);
    // A loop that an error leaves cancels without a reason, and then the handler rejects.
    this.#leaving ??= reason === undefined ? { closeCode: CloseCode.Normal } : info;
    if (this.#onDecided.length > 0) this.#stopWaitingForHandler();
  }

  /** The handler has returned without a promise: nobody tells what becomes of the connection. */
  handlerLeft(): void {
    this.leaveRule = "direct";
    this.#stopWaitingForHandler();
  }

  /** There is no handler to wait for, or it may itself be what waits for the end. */
  #stopWaitingForHandler(): void {
    const leaving = this.#leaving;
    if (leaving !== undefined) nextTurn(() => this.startClose(leaving));
  }

  /**
   * The handler that owned the connection has settled: the connection closes, with 1000 or with 1011, and
   * nobody reads it any more. Returns whether somebody was still waiting for a message.
   */
  handlerSettled(rejected: boolean): boolean {
    if (!this.canSend()) return false;
    const { receiver } = this.#parts;
    const waiting = receiver.awaited;
    const { Normal: closeCode, InternalError } = CloseCode;
    this.startClose(rejected ? { closeCode: InternalError } : this.#leaving ?? { closeCode });
    receiver.release(this.#cleanEnd(() => "The handler has returned", closeCode, ""));
    return waiting;
  }

  /** Rejects with the error of a write: if the end has cut it off, no sooner than `closed` settles. */
  cutOff(error: unknown): Promise<never> {
    return new Promise((_, reject) => {
      if (this.canSend()) reject(error);
      else this.whenDecided(() => reject(error));
    });
  }

  /** The writer of a stream has closed it. Resolves when the connection is closed. */
  async finish(): Promise<void> {
    this.startClose({});
    // The clean end has come already if a pipe closes us in the turn that it is given.
    if (this.phase === "settling") return;
    await new Promise<void>((resolve, reject) =>
      this.whenDecided((error) => error === undefined ? resolve() : reject(error))
    );
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
