/**
 * The end of a connection: a state machine from the open connection to the end of its transport, and the
 * listeners that are told.
 */
import { CloseCode, type CloseInfo, serializeClose } from "../core/close.ts";
import {
  type ErrorCode,
  invalidState,
  RemoteProtocolError,
  truncateReason,
  WebSocketError,
  webSocketError,
} from "../core/error.ts";
import { replaceStack, withoutStack } from "../core/error_print.ts";
import type { EventOf } from "../core/event.ts";
import { checkNames } from "../core/option_hints.ts";
import type { OptionNames } from "../core/options.ts";
import type { Protocol } from "../core/protocol.ts";
import type { CloseDetails } from "../options.ts";
import { handled } from "../abortable.ts";
import type { End } from "./inbox.ts";
import { closeInfoOf, type Receiver } from "./receiver.ts";
import type { Keepalive, Pings } from "./heartbeat.ts";
import type { Sender, SenderHost } from "./sender.ts";
import { Countdown, nextTurn, now } from "../timers.ts";
import type { Transport } from "../transport.ts";

export type Phase =
  /** Both ends may send messages. */
  | "open"
  /** This end closes: its Close frame follows the accepted messages. Reading continues. */
  | "closing"
  /** The input has ended. The messages before the end are still being read and may be answered. */
  | "draining"
  /** Like "draining", but this end closes too and accepts no more messages. */
  | "draining-closing"
  /** Both Close frames were exchanged. The transport has not ended yet. */
  | "shaken"
  /** The connection has failed. The transport has not ended yet. */
  | "failed"
  /** The transport has ended. Nothing waits any more. */
  | "ended";

type Step =
  /** This end starts to close. */
  | "close"
  /** The input has ended: by a Close frame, a violation, or the end of the transport. */
  | "inputOver"
  /** The peer's Close frame was received, and this end's was written. */
  | "handshakeDone"
  /** A clean close is no longer possible. */
  | "fail"
  /** The transport has ended, and the messages before its end were handled. */
  | "transportOver";

/** The phase after a step. A phase ignores the steps that it does not list. */
const NEXT: { readonly [phase in Phase]: { readonly [step in Step]?: Phase } } = {
  open: { close: "closing", inputOver: "draining", fail: "failed" },
  closing: { inputOver: "draining-closing", fail: "failed" },
  draining: { close: "draining-closing", handshakeDone: "shaken", fail: "failed" },
  "draining-closing": { handshakeDone: "shaken", fail: "failed" },
  // A callback that has seen the Close frame may throw later.
  shaken: { transportOver: "ended", fail: "failed" },
  failed: { transportOver: "ended" },
  ended: {},
};

/** What ended the input. Undefined if the transport ended without a Close frame. */
export type InputEnd = EventOf<"close"> | RemoteProtocolError | undefined;

export type EndListener = (error?: WebSocketError) => void;

/** One listener alone, or several: most connections have one. */
type Listeners = EndListener | readonly EndListener[] | undefined;

function added(listeners: Listeners, listener: EndListener): Listeners {
  return listeners === undefined ? listener : [listeners, listener].flat();
}

function tell(listeners: Listeners, error?: WebSocketError): void {
  if (typeof listeners === "function") listeners(error);
  else for (const listener of listeners ?? []) listener(error);
}

/** How a connection closes when one of its streams is cancelled or aborted without a code. */
export type LeaveRule =
  /** With 1011 for an error, and otherwise without a code. */
  | "direct"
  /** Without a code, whatever the reason is. */
  | "standard"
  /** Like "direct", but a reason that is not an error waits for the handler, which may reject. */
  | "handler";

/** The connection that ends. */
export interface ClosingParts {
  readonly machine: Pick<Protocol, "write" | "dispose"> & {
    readonly role: Protocol["role"] | undefined;
  };
  readonly transport: Transport;
  readonly receiver: Receiver;
  readonly sender: Sender;
  readonly keepalive: Pick<Keepalive, "cancel"> | undefined;
  readonly pings: Pick<Pings, "fail"> | undefined;
  /** Takes the events at hand. */
  pump(): void;
  /** Whether input waits for room. */
  readonly isPaused: boolean;
}

/** What only a connection has that ends. */
class Ending {
  /** Time when the phase "open" ended, by the clock of `now()`. */
  startedAt: number | undefined;
  received: Required<CloseInfo> | undefined;
  sent: Required<CloseInfo> | undefined;
  first: CloseDetails["first"] | undefined;
  countdown: Countdown | undefined;
  transportError: Error | undefined;
  /** What to close with when the handler has settled. */
  leaving: CloseInfo | undefined;
  /** The errors that only say that the connection has ended. */
  ownErrors: WeakSet<object> | undefined;
  lastRefusal: DOMException | undefined;
  /** Whether everything that the peer has sent was received, although the connection has failed. */
  isComplete: boolean | undefined;
}

/** A clean end for readers. Its error is made when it is first needed. */
class CleanEnd implements End {
  readonly clean = true;
  readonly closeCode: number;
  readonly #reason: string;
  readonly #closing: Closing;
  /** The message, unless the Close frames are the reason. */
  readonly #message: string | undefined;
  #error: WebSocketError | undefined;

  constructor(closing: Closing, { closeCode, reason }: Required<CloseInfo>, message?: string) {
    this.#closing = closing;
    this.closeCode = closeCode;
    this.#reason = reason;
    this.#message = message;
  }

  get error(): WebSocketError {
    return this.#error ??= this.#closing.cleanError(this.closeCode, this.#reason, this.#message);
  }
}

export class Closing implements SenderHost {
  phase: Phase = "open";
  /** Whether input is still decoded. */
  isReading = true;
  /** Whether messages are accepted. */
  canSend = true;
  /** Whether this end's Close frame may still be written. */
  canWrite = true;
  transport: "open" | "half-closed" | "closed" = "open";
  /** The reason why the connection does not end with a clean close. */
  error: WebSocketError | undefined;
  leaveRule: LeaveRule = "direct";
  readonly #parts: ClosingParts;
  readonly #timeout: number;
  #onEnded: Listeners;
  #closed: Promise<Required<CloseInfo>> | undefined;
  /** Settles `#closed`, if a program has asked for it. */
  #settleClosed: EndListener | undefined;
  /** Made when the phase "open" ends, or shortly before. Most connections are open most of the time. */
  #ending: Ending | undefined;

  /** @param timeout Maximum time to wait for the peer's close, in milliseconds. 0 disables the limit. */
  constructor(parts: ClosingParts, timeout: number) {
    this.#parts = parts;
    this.#timeout = timeout;
  }

  /** Time when the phase "open" ended, by the clock of `now()`. */
  get startedAt(): number | undefined {
    return this.#ending?.startedAt;
  }

  /** The Close frame of the peer. */
  get received(): Required<CloseInfo> | undefined {
    return this.#ending?.received;
  }

  get state(): "open" | "closing" | "closed" {
    if (this.canSend) return "open";
    const { phase } = this;
    return phase === "failed" || phase === "ended" ? "closed" : "closing";
  }

  /** RFC 6455 §5.5.2: a ping is answered until the peer's Close frame was received. */
  canAnswer(): boolean {
    return this.canWrite || this.phase === "closing";
  }

  #take(step: Step): boolean {
    const next = NEXT[this.phase][step];
    if (next === undefined) return false;
    if (this.phase === "open") {
      (this.#ending ??= new Ending()).startedAt = now();
      this.#parts.keepalive?.cancel();
    }
    this.phase = next;
    this.isReading = next === "closing";
    this.canSend = next === "draining";
    if (next === "failed") this.canWrite = false;
    return true;
  }

  /** Calls the listener when the transport has ended. */
  whenEnded(listener: EndListener): void {
    if (this.phase === "ended") listener(this.error);
    else this.#onEnded = added(this.#onEnded, listener);
  }

  /** Settles when the connection has failed or its transport has ended. */
  get closed(): Promise<Required<CloseInfo>> {
    return this.#closed ??= handled(
      new Promise((resolve, reject) => {
        this.#settleClosed = (error) =>
          error === undefined ? resolve(this.received!) : reject(error);
        if (this.state === "closed") this.#settleClosed(this.error);
        else this.#stopWaitingForHandler();
      }),
    );
  }

  get details(): CloseDetails | undefined {
    const { received, sent, first } = this.#ending ?? {};
    if (first === undefined) return undefined;
    return { ...(received && { received }), ...(sent && { sent }), first };
  }

  /** Describes the Close frames, as `received 1001 "going away"; then sent 1001 "going away"`. */
  #describe(): string {
    const { received, sent, first } = this.#ending ?? {};
    const both = [describe("received", received), describe("sent", sent)];
    if (first === "sent") both.reverse();
    return both.filter((part) => part !== "").join("; then ") || "no Close frame either way";
  }

  /** The reason why nothing is sent any more. */
  endError(): Error {
    const { error } = this;
    return error === undefined || this.#ending!.isComplete ? this.closedError() : error;
  }

  /** Returns an error for a reader after a clean end. */
  cleanError(
    closeCode: number,
    reason: string,
    message: string = `The connection was closed (${this.#describe()})`,
  ): WebSocketError {
    return this.#own(webSocketError(message, closeCode, reason, undefined, "closed"));
  }

  closedError(): DOMException {
    return this.refusal(`Cannot send: the connection is ${this.state}`, "not-open");
  }

  /** Returns an error for a call at the wrong moment: the same one while the message is the same. */
  refusal(what: string, code: ErrorCode): DOMException {
    const message = `${what} (${this.#describe()})`;
    const ending = this.#ending ??= new Ending();
    let error = ending.lastRefusal;
    if (error?.message !== message || error.cause !== this.error) {
      ending.lastRefusal = error = this.#own(invalidState(message, code, this.error));
    }
    replaceStack(error, this.refusal, false);
    return error;
  }

  /** Gives the stack of this call to an error of this connection, which several calls may reject with. */
  retrace(error: unknown, hasWaited: boolean): unknown {
    if (this.isOwnError(error)) replaceStack(error as Error, this.retrace, hasWaited);
    return error;
  }

  #own<T extends object>(error: T): T {
    (this.#ending!.ownErrors ??= new WeakSet()).add(error);
    return error;
  }

  isOwnError(error: unknown): boolean {
    if (error === undefined) return false;
    return error === this.error || this.#ending?.ownErrors?.has(error as object) === true;
  }

  /** RFC 6455 §7.1.2: starts the closing handshake, unless it was started before. */
  startClose(info: CloseInfo): void {
    if (!this.#take("close")) return;
    const { reason = "" } = info;
    const closeCode = info.closeCode ?? (reason === "" ? CloseCode.NoStatus : CloseCode.Normal);
    this.#startCountdown();
    this.#parts.sender.beforeClose(() => {
      if (this.canWrite) this.#sendClose(closeCode, reason);
      this.#parts.sender.flush();
    });
    // The peer's Close frame may follow messages for which there was no room.
    if (this.#parts.isPaused) this.#parts.pump();
  }

  #sendClose(closeCode: number, reason: string): void {
    this.#parts.machine.write({ type: "close", closeCode, reason });
    const ending = this.#ending ??= new Ending();
    ending.sent = { closeCode, reason };
    ending.first ??= "sent";
    this.canWrite = false;
  }

  #startCountdown(): void {
    if (this.#timeout === 0) return;
    const { transport } = this.#parts;
    this.#ending!.countdown ??= new Countdown(() => transport.destroy(), this.#timeout);
  }

  terminate(): void {
    // After both Close frames, the close remains a clean one.
    if (this.phase === "shaken") this.#parts.transport.destroy();
    else this.cut("The connection was terminated", CloseCode.Abnormal, undefined, "terminated");
  }

  /** Stops decoding. The end waits until earlier messages were handled, so that they can be answered. */
  inputOver(end: InputEnd): void {
    if (this.#take("inputOver")) this.#actWhenQuiet(end);
  }

  /** Acts after a turn in which no message was taken: all are read, or the reader is not reading. */
  #actWhenQuiet(end: InputEnd): void {
    const { budget } = this.#parts.receiver;
    const { taken } = budget;
    nextTurn(() => {
      if (budget.taken !== taken) this.#actWhenQuiet(end);
      else if (end === undefined) this.#lose();
      else if (end instanceof RemoteProtocolError) this.fail(end.closeCode, end.message, end);
      else this.#receiveClose(end);
    });
  }

  #receiveClose({ closeCode, reason }: EventOf<"close">): void {
    if (this.phase === "ended") return;
    const ending = this.#ending!;
    ending.received = { closeCode, reason };
    ending.first ??= "received";
    if (this.canWrite) this.#answerClose(closeCode, reason);
    if (this.#take("handshakeDone")) this.#endTransport();
  }

  /** RFC 6455 §5.5.1: answers a Close with a Close. The connection fails if the close is not clean. */
  #answerClose(closeCode: number, reason: string): void {
    // In the standard, a close is clean only if everything that was written has been sent.
    const { pending } = this.#parts.sender;
    this.#sendClose(closeCode, reason);
    if (!pending && this.transport !== "closed") return;
    const late = pending ? "while messages waited to be sent" : "before it was answered";
    const message = `The peer has closed ${late} (${this.#describe()})`;
    const code = pending ? "unsent" : "connection-lost";
    this.#decideFailure(webSocketError(message, closeCode, reason, undefined, code), pending);
    this.#endTransport();
  }

  #lose(): void {
    const cause = this.#ending!.transportError;
    const detail = cause === undefined ? "" : `: ${cause.message}`;
    const message = `The transport ended without a Close frame${detail} (${this.#describe()})`;
    // A transport that knows the close code reports it in its error.
    // No call of the application has led to this end.
    const error = cause instanceof WebSocketError
      ? cause
      : withoutStack(() => webSocketError(message, CloseCode.Abnormal, "", cause));
    if (this.#decideFailure(error)) this.#endTransport();
  }

  /** RFC 6455 §7.1.7: fails the connection. Sends the code, stops reading and ends the transport. */
  fail(closeCode: number, message: string, cause?: unknown, code?: ErrorCode): void {
    // The message of an extension may contain any characters.
    const reason = truncateReason(message);
    if (this.canWrite) this.#sendClose(closeCode, reason);
    if (this.#decideFailure(webSocketError(message, closeCode, "", cause, code))) {
      this.#endTransport(true);
    }
  }

  /** Ends the transport at once, because no Close frame can tell the peer the reason. */
  cut(message: string, closeCode: number, cause?: unknown, code?: ErrorCode): void {
    this.#decideFailure(webSocketError(message, closeCode, "", cause, code));
    if (this.transport === "closed") this.#endWithTransport();
    else this.#parts.transport.destroy();
  }

  /**
   * Marks the connection as failed. `closed` rejects before everything else that waits. `isComplete` says
   * that everything the peer has sent was received, so that streams close.
   */
  #decideFailure(error: WebSocketError, isComplete = false): boolean {
    if (!this.#take("fail")) return false;
    const { sender, receiver } = this.#parts;
    this.error = error;
    this.#ending!.isComplete = isComplete;
    sender.leaveCrowd();
    this.#settleClosed?.(error);
    this.#parts.pings?.fail(() => error);
    sender.end();
    receiver.end({ clean: isComplete, closeCode: error.closeCode ?? undefined, error });
    // Further input is dropped until the transport ends.
    if (this.#parts.isPaused) this.#parts.pump();
    return true;
  }

  /** RFC 6455 §7.1.1: after both Close frames, the server ends the transport and the client waits for that. */
  #endTransport(
    isOurTurn: boolean = this.#parts.machine.role !== "client" || this.transport === "half-closed",
  ): void {
    if (this.transport === "closed") return this.#endWithTransport();
    this.#parts.sender.flushAll();
    if (isOurTurn) this.#parts.transport.end();
    this.#startCountdown();
  }

  transportHalfClosed(): void {
    this.transport = "half-closed";
    if (this.isReading) this.#parts.pump();
    else if (this.phase === "shaken" || this.phase === "failed") this.#parts.transport.end();
  }

  transportClosed(error: Error | undefined): void {
    this.transport = "closed";
    if (error !== undefined) (this.#ending ??= new Ending()).transportError = error;
    this.#parts.sender.checkLent();
    if (!this.isReading) return this.#endWithTransport();
    this.#parts.keepalive?.cancel();
    // Messages that were received completely are still delivered.
    this.#parts.pump();
  }

  #endWithTransport(): void {
    if (!this.#take("transportOver")) return;
    this.#parts.machine.dispose();
    const ending = this.#ending!;
    ending.countdown?.cancel();
    // A connection that is old would keep the timer until a full collection.
    ending.countdown = undefined;
    if (this.error !== undefined) return tell(this.#onEnded, this.error);
    const { receiver, sender, pings } = this.#parts;
    const end = new CleanEnd(this, ending.received!);
    pings?.fail(() => end.error);
    receiver.end(end);
    // A pipe from `readable` to `writable` has one turn to close `writable`.
    if (sender.sink !== undefined) nextTurn(() => this.#tellCleanEnd());
    else this.#tellCleanEnd();
  }

  #tellCleanEnd(): void {
    this.#parts.sender.end();
    this.#settleClosed?.();
    tell(this.#onEnded);
  }

  leave(reason: unknown): void {
    const info = closeInfoOf(reason, this.leaveRule === "standard");
    if (this.leaveRule !== "handler" || info.closeCode !== undefined) return this.startClose(info);
    // A loop that ends with an error cancels without a reason, and then the handler rejects.
    const ending = this.#ending ??= new Ending();
    ending.leaving ??= reason === undefined ? { closeCode: CloseCode.Normal } : info;
    if (this.#closed !== undefined) this.#stopWaitingForHandler();
  }

  /** The handler has returned without a promise, so nothing will report that it has finished. */
  handlerLeft(): void {
    this.leaveRule = "direct";
    this.#stopWaitingForHandler();
  }

  /** The close waits for a turn, because the handler itself may be waiting for the end. */
  #stopWaitingForHandler(): void {
    const leaving = this.#ending?.leaving;
    if (leaving !== undefined) nextTurn(() => this.startClose(leaving));
  }

  /** Closes with 1000 or 1011 after the handler. Returns whether a reader still waited for a message. */
  handlerSettled(rejected: boolean): boolean {
    if (!this.canSend) return false;
    const { receiver } = this.#parts;
    const waiting = receiver.awaited;
    const { Normal: closeCode, InternalError } = CloseCode;
    this.startClose(
      rejected ? { closeCode: InternalError } : this.#ending?.leaving ?? { closeCode },
    );
    const end = new CleanEnd(this, { closeCode, reason: "" }, "The handler has returned");
    receiver.release(end);
    return waiting;
  }

  /** Rejects with the error of a write. If the end has interrupted the write, `closed` settles first. */
  async cutOff(error: unknown): Promise<never> {
    if (!this.canSend) await this.closed.catch(() => {});
    throw error;
  }

  async finish(): Promise<void> {
    this.startClose({});
    await this.closed;
  }
}

function describe(verb: string, info: Required<CloseInfo> | undefined): string {
  if (info === undefined) return "";
  return `${verb} ${info.closeCode}${info.reason && ` ${JSON.stringify(info.reason)}`}`;
}

const CLOSE_INFO: OptionNames<CloseInfo> = { closeCode: true, reason: true };

/**
 * Checks what a caller wants to close with.
 * @returns A copy, because a getter may return another value the next time. 1005 stands for no code.
 * @throws {TypeError} If the code or the reason has the wrong type.
 * @throws {RangeError} If the code must not be sent, or the reason is too long.
 */
export function checkCloseInfo(info: CloseInfo): CloseInfo {
  checkNames("close()", info, CLOSE_INFO);
  const { closeCode, reason } = info;
  // Null is not a number, and does not count as omitted.
  const implied = reason ? CloseCode.Normal : undefined;
  const checked = { closeCode: closeCode === undefined ? implied : closeCode, reason };
  serializeClose(checked);
  return checked;
}
