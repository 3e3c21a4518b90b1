/**
 * What makes a connection run: takes events out of the protocol as long as there is room for them, and
 * brings the connection to its end.
 *
 * A file of its own because its order of events is what is hard about a connection, and the users of one
 * need not see it.
 *
 * @module
 */
import { closeInfoOf, type CloseRecord } from "./close_record.ts";
import { ControlRate } from "./control_rate.ts";
import { CloseCode, type CloseInfo, truncateReason } from "../core/close.ts";
import {
  invalidState,
  RemoteProtocolError,
  WebSocketError,
  webSocketError,
} from "../core/error.ts";
import { type CloseEvent, response } from "../core/event.ts";
import type { Fragment } from "../core/message.ts";
import { webTextCodec } from "../core/utf8.ts";
import { randomPayload } from "../core/mask.ts";
import { type DriverInit, type Machine, type MachineHost, machineOf } from "./driver_init.ts";
import { Ending, type EndListener, type LeaveRule, NOT_ENDING, withListener } from "./ending.ts";
import { Keepalive, type KeepaliveHost, Pings, type Traffic } from "./keepalive.ts";
import type { ConnectionStats } from "../options.ts";
import { handled } from "./outbox.ts";
import { Receiver, type ReceiverHost } from "./receiver.ts";
import { Sender, type SenderHost } from "./sender.ts";
import { slowPolicyOf } from "./slow_consumer.ts";
import type { Transport, TransportHandlers } from "../transport.ts";
import { nextTurn } from "../timers.ts";

/** How much memory may wait while an extension works on what came before, in bytes. */
const READ_MARK = 65536;

/**
 * Drives the machines of one connection. It is itself what its parts and the transport call: an object
 * and a function for each of these calls would be half of what an idle connection takes.
 */
export class Driver
  implements MachineHost, ReceiverHost, SenderHost, KeepaliveHost, TransportHandlers {
  /** What came, until it is read. */
  readonly receiver: Receiver;
  /** What is sent. */
  readonly sender: Sender;
  /** What carries the bytes. */
  readonly transport: Transport;
  readonly #protocol: Machine;
  readonly #keepalive: Keepalive | undefined;
  readonly #maxControlFrames: number | undefined;
  #controlRate: ControlRate | undefined;
  readonly #closeTimeout: number;
  /** Made for the first ping. */
  #pings: Pings | undefined;
  #ending: Readonly<Ending> = NOT_ENDING;
  #onEnd: EndListener | undefined;
  #onDecided: EndListener | undefined;
  #leaveRule: LeaveRule = "direct";
  /** Made when it is first asked for: most connections are closed without anybody asking. */
  #closed: Promise<Required<CloseInfo>> | undefined;

  #paused = false;
  #pauses = 0;
  #pumping = false;
  #bytesReceived = 0;
  /** How many messages had been taken when the last chunk came. */
  #takenBefore = 0;

  /** @param init the transport, from the handshake's hands, and the options */
  constructor(init: DriverInit) {
    const { transport, takeOver, options, textCodec = webTextCodec } = init;
    const { pingInterval = 20_000, pingTimeout = 20_000, closeTimeout = 10_000 } = options;
    this.#closeTimeout = closeTimeout;
    this.transport = transport;
    this.#protocol = machineOf(init, this);
    this.#maxControlFrames = options.maxControlFramesPerSecond;
    this.receiver = new Receiver(options.readableStrategy, this);
    this.sender = new Sender(this.#protocol, transport, textCodec, this, slowPolicyOf(options));
    if (pingInterval > 0) this.#keepalive = new Keepalive(this, pingInterval, pingTimeout);
    takeOver(this);
    if (!this.#paused) transport.resume();
  }

  /** See `WebSocketConnection`. */
  get state(): "open" | "closing" | "closed" {
    if (this.#ending.decided || this.#ending.finished) return "closed";
    return this.canSend() ? "open" : "closing";
  }

  /** Tells of the end of the transport. */
  whenEnded(listener: EndListener): void {
    if (this.#ending.settled) listener.ended(this.#ending.error);
    else this.#onEnd = withListener(this.#onEnd, listener);
  }

  /** Tells of the end as soon as it is certain: when the connection has failed, or with the transport. */
  whenDecided(listener: EndListener): void {
    if (this.#ending.decided) return listener.ended(this.#ending.error);
    this.#onDecided = withListener(this.#onDecided, listener);
    this.#stopWaitingForHandler();
  }

  /** See `WebSocketConnection`. */
  get closed(): Promise<Required<CloseInfo>> {
    return this.#closed ??= handled(
      new Promise((resolve, reject) =>
        this.whenDecided({
          ended: (error) =>
            error === undefined ? resolve(this.closeRecord.received) : reject(error),
        })
      ),
    );
  }

  /** The Close frames that went. */
  get closeRecord(): Readonly<CloseRecord> {
    return this.#ending.record;
  }

  /** What is to be changed of the end: from then on it is this connection's own. */
  get #ownEnding(): Ending {
    if (this.#ending === NOT_ENDING) this.#ending = new Ending();
    return this.#ending as Ending;
  }

  /** `closed` settles before what the end cuts off, or in the same turn. */
  #decide(): void {
    if (this.#ending.decided) return;
    this.#ownEnding.decided = true;
    this.#onDecided?.ended(this.#ending.error);
  }

  #settle(): void {
    this.#decide();
    this.#ownEnding.settled = true;
    this.#onEnd?.ended(this.#ending.error);
  }

  /** Whether an error says no more than that this connection is at its end. */
  isOwnError(error: unknown): boolean {
    if (typeof error !== "object" || error === null) return false;
    return error === this.receiver.ended?.error || this.#ending.hasCaused(error);
  }

  /** See `WebSocketConnection`. */
  get stats(): ConnectionStats {
    return {
      ...this.receiver.stats,
      messagesSent: this.sender.messagesSent,
      bytesReceived: this.#bytesReceived,
      bytesSent: this.sender.outbox.bytesSent,
      paused: this.#paused,
      pauses: this.#pauses,
    };
  }

  /** How long the last ping took to be answered, in milliseconds. */
  get latency(): number | undefined {
    return this.#pings?.latency;
  }

  /** Sends a ping; resolves with the milliseconds until its pong. */
  ping(payload: Uint8Array): Promise<number> {
    if (!this.canSend()) throw this.closedError();
    const pings = this.#pings ??= new Pings();
    if (pings.has(payload)) throw invalidState("Expected no ping with this payload to wait");
    this.sender.control({ type: "ping", payload });
    return pings.add(payload);
  }

  /** RFC 6455 §7.1.2: starts the closing handshake. Without effect once it was started. */
  startClose(info: CloseInfo): void {
    if (!this.canSend() || this.#ending.finished) return;
    const { reason = "" } = info;
    const closeCode = info.closeCode ?? (reason === "" ? CloseCode.NoStatus : CloseCode.Normal);
    this.#ownEnding.closeAsked = true;
    this.#keepalive?.stop();
    this.#armCloseTimer();
    this.sender.beforeClose(() => {
      if (this.canWrite()) this.#sendClose({ type: "close", closeCode, reason });
    });
    this.#pump();
  }

  /** Ends the transport at once. */
  terminate(): void {
    if (this.#ending.finished) return;
    if (!this.#ending.shaken) {
      this.#ownEnding.error ??= webSocketError("The connection was terminated", CloseCode.Abnormal);
    }
    this.#keepalive?.stop();
    this.transport.destroy();
  }

  // From the transport to the receiver; what the transport calls is said there

  data(chunk: Uint8Array): boolean {
    const received = this.#bytesReceived += chunk.length;
    if (this.#ending.stopped || this.#protocol.state === "closed") return false;
    this.#takenBefore = this.receiver.taken;
    this.#protocol.receive(chunk);
    if (this.#pumping) return false;
    this.#pump();
    // It speaks of the last chunk, and another may have come within a callback of the user's.
    return this.#protocol.release() && received === this.#bytesReceived;
  }

  get keepsUp(): boolean {
    return this.receiver.empty || this.receiver.taken !== this.#takenBefore;
  }

  /** Whether to take no more out of the protocol for now. */
  get #full(): boolean {
    // After our own Close nothing waits for room: the peer's Close may lie behind it. And of a
    // transport that is gone only the rest of a chunk is left.
    return this.receiver.full && this.canSend() && !this.#ending.transportClosed;
  }

  /** Whether more comes than extensions can take: what waits for them is held as it came. */
  get #behind(): boolean {
    return this.#protocol.pending && this.#protocol.bufferedMemory > READ_MARK;
  }

  /** Takes events as long as there is room for them. */
  #pump(): void {
    if (this.#pumping) return;
    this.#pumping = true;
    while (!this.#ending.stopped && !this.#full && this.#step());
    this.#pumping = false;
    this.#setPaused(!this.#ending.stopped && (this.#full || this.#behind));
  }

  /** Takes one event; tells whether there was one. */
  #step(): boolean {
    try {
      const event = this.#protocol.next();
      if (event === undefined) {
        if (this.#ending.inputEnded && !this.#protocol.pending) this.#stop(undefined);
        return false;
      }
      if (event.type === "ping") {
        this.#countControl();
        this.sender.answer(event.payload);
      } else if (event.type === "pong") {
        // What we have asked for is no flood.
        if (!this.#pings?.pong(event.payload)) this.#countControl();
      } else if (event.type === "close") this.#stop(event);
      else this.receiver.deliver(event, !this.canSend());
    } catch (error) {
      // Anything else was thrown by a callback of the user's, and must not take the process down.
      if (error instanceof RemoteProtocolError) this.#stop(error);
      else this.onThrown(error);
    }
    return true;
  }

  #countControl(): void {
    this.#controlRate ??= new ControlRate(this.#maxControlFrames);
    this.#controlRate.count(this.receiver.messagesReceived);
  }

  #setPaused(paused: boolean): void {
    if (paused === this.#paused) return;
    this.#paused = paused;
    if (paused) {
      this.#pauses++;
      this.transport.pause();
    } else {
      this.transport.resume(this.#protocol.release());
    }
  }

  // Closing

  /** Whether messages may be sent. */
  canSend(): boolean {
    return !this.#ending.closeAsked && this.canWrite();
  }

  /** Whether our Close frame is yet to go. */
  canWrite(): boolean {
    const { state } = this.#protocol;
    return this.#ending.error === undefined && (state === "open" || state === "remote-closing");
  }

  #sendClose(event: CloseEvent): void {
    this.sender.control(event);
    this.#ownEnding.record.note("sent", event);
    this.#keepalive?.stop();
    this.#armCloseTimer();
  }

  #armCloseTimer(): void {
    this.#ownEnding.armTimer(this.#closeTimeout, () => this.transport.destroy());
  }

  /**
   * What ends the input was met, or its end without a Close. It is acted on when the messages before
   * it had their turn: the echo of one of them is to leave before our Close.
   */
  #stop(cause: CloseEvent | RemoteProtocolError | undefined): void {
    this.#ownEnding.stopped = true;
    this.receiver.whenQuiet(() => {
      if (this.#ending.finished) return;
      if (cause === undefined) this.#lose();
      else if (cause instanceof RemoteProtocolError) {
        this.#fail(cause.closeCode, cause.message, cause);
      } else this.#closeReceived(cause);
    });
  }

  #closeReceived(event: CloseEvent): void {
    this.#ownEnding.record.note("received", event);
    if (this.canWrite()) this.#answerClose(event);
    this.#ownEnding.shaken = this.#protocol.state === "closed" && this.#ending.error === undefined;
    if (this.#ending.transportClosed) return this.#finish();
    this.sender.outbox.flushAll();
    // RFC 6455 §7.1.1: the server ends the transport first, the client waits for it to do so.
    if (this.#protocol.endsTransport || this.#ending.inputEnded) this.transport.end();
    this.#armCloseTimer();
  }

  /** RFC 6455 §5.5.1: a Close is answered with a Close. */
  #answerClose(event: CloseEvent): void {
    // The standard calls a close clean only if all that was written had left before.
    const { pending } = this.sender;
    this.#sendClose(response(event) as CloseEvent);
    if (pending || this.#ending.transportClosed) {
      const late = pending ? "while messages waited to be sent" : "before it was answered";
      const { closeCode, reason } = event;
      const message = `The peer has closed ${late} (${this.closeRecord})`;
      this.#ownEnding.error = webSocketError(message, closeCode, reason);
      this.#decide();
    }
    this.sender.refuse(this.closedError(), { all: pending });
    // Everything that the peer sent was received: a reader sees a clean end.
    if (pending) this.receiver.end(this.#ending.error!, true);
  }

  /** RFC 6455 §7.1.7: fails the connection: says why, reads no more, ends the transport. */
  #fail(closeCode: number, message: string, cause?: unknown): void {
    if (this.#ending.finished || this.#ending.error !== undefined) return;
    // The message of an extension may be of any characters.
    const reason = truncateReason(message);
    if (this.canWrite()) this.#sendClose({ type: "close", closeCode, reason });
    this.#ownEnding.stopped = true;
    this.#end(this.#ownEnding.error = webSocketError(message, closeCode, "", cause));
    this.#setPaused(false);
  }

  /** Ends the transport behind what was sent before. */
  #end(error: WebSocketError): void {
    this.#endWith(error);
    if (this.#ending.transportClosed) return this.#finish();
    this.sender.outbox.flushAll();
    this.transport.end();
    this.#armCloseTimer();
  }

  /** The input ended without a Close frame. */
  #lose(): void {
    const cause = this.#ending.transportError;
    // A transport that knows the close code says so itself.
    if (cause instanceof WebSocketError) this.#ownEnding.error ??= cause;
    const detail = cause === undefined ? "" : `: ${cause.message}`;
    const error = this.#ownEnding.error ??= webSocketError(
      `The transport ended without a Close frame${detail} (${this.closeRecord})`,
      CloseCode.Abnormal,
      "",
      cause,
    );
    this.#end(error);
  }

  drain(): void {
    this.sender.drained();
  }

  end(): void {
    this.#ownEnding.inputEnded = true;
    if (this.#ending.shaken || this.#ending.error !== undefined) return this.transport.end();
    this.#pump();
  }

  close(error: Error | undefined): void {
    this.#ownEnding.transportClosed = true;
    if (!this.sender.outbox.isLentIntact) this.vanished(true);
    this.#ownEnding.transportError = error;
    this.#keepalive?.stop();
    if (this.#ending.shaken || this.#ending.error !== undefined) return this.#finish();
    if (!this.#ending.inputEnded) this.end();
    // What was received whole is still delivered: the rest of one chunk, whatever waits already.
    else this.#pump();
  }

  /** The transport is gone: all that waits is settled. */
  #finish(): void {
    if (this.#ending.finished) return;
    // Nothing is read any more: what decompresses may be another connection's from here on.
    this.#ownEnding.finished = this.#ownEnding.stopped = true;
    this.#protocol.dispose();
    this.#ending.disarmTimer();
    this.#keepalive?.stop();
    if (this.#ending.error !== undefined) {
      this.#endWith(this.#ending.error);
      return this.#settle();
    }
    const { closeCode, reason } = this.closeRecord.received;
    const message = `The connection was closed (${this.closeRecord})`;
    const end = webSocketError(message, closeCode, reason);
    this.#pings?.fail(end);
    this.receiver.end(end, true);
    const settle = () => {
      this.sender.end(this.closedError());
      this.#settle();
    };
    // A pipe from `readable` to `writable` needs a turn to close the latter.
    if (this.sender.streaming) nextTurn(settle);
    else settle();
  }

  #endWith(error: WebSocketError): void {
    this.#decide();
    // The transport may take its time to end, and no ping can be sent meanwhile.
    this.#keepalive?.stop();
    this.#pings?.fail(error);
    this.sender.end(error);
    this.receiver.end(error, false);
  }

  /** The error for those who send when they may not. */
  closedError(): DOMException {
    return this.refusal(`Expected an open connection, it is ${this.state}`);
  }

  refusal(message: string): DOMException {
    return this.#ownEnding.refusal(`${message} (${this.closeRecord})`);
  }

  /** The reader or the writer of a stream gives up. */
  leave(reason: unknown): void {
    const info = closeInfoOf(reason, this.#leaveRule === "standard");
    if (this.#leaveRule !== "handler" || info.closeCode !== undefined) return this.startClose(info);
    // A loop that an error leaves cancels without a reason, and then the handler rejects.
    this.#ownEnding.leaving ??= reason === undefined ? { closeCode: CloseCode.Normal } : info;
    if (this.#onDecided !== undefined) this.#stopWaitingForHandler();
  }

  /** Says what becomes of the connection when a stream of it is left. */
  setLeaveRule(rule: LeaveRule): void {
    this.#leaveRule = rule;
    if (rule !== "handler") this.#stopWaitingForHandler();
  }

  /** There is no handler to wait for, or it may itself be what waits for the end. */
  #stopWaitingForHandler(): void {
    const { leaving } = this.#ending;
    if (leaving !== undefined) nextTurn(() => this.startClose(leaving));
  }

  /**
   * The handler that owned the connection has settled: the connection closes, and nobody reads it any
   * more. Tells whether somebody was still waiting for a message.
   */
  handlerSettled(rejected: boolean): boolean {
    if (!this.canSend()) return false;
    const waiting = this.receiver.awaited;
    const { leaving = { closeCode: CloseCode.Normal } } = this.#ending;
    this.startClose(rejected ? { closeCode: CloseCode.InternalError } : leaving);
    this.receiver.release(webSocketError("The handler has returned", CloseCode.Normal));
    return waiting;
  }

  /** A write that the end has cut off is not to reject before `closed`, which its caller may await. */
  cutOff(error: unknown): Promise<never> {
    return new Promise((_, reject) => {
      if (this.canSend()) reject(error);
      else this.whenDecided({ ended: () => reject(error) });
    });
  }

  /** Whether a ping is answered: RFC 6455 §5.5.2 wants it until the peer's Close frame has come. */
  canAnswer(): boolean {
    return this.canWrite() ||
      (this.#ending.error === undefined && this.#protocol.state === "local-closing");
  }

  // What the parts ask for, as their hosts say

  onReady(): void {
    this.#pump();
  }

  onThrown(error: unknown): void {
    this.#fail(CloseCode.InternalError, "A callback threw", error);
  }

  onTaken(): void {
    if (this.#paused) this.#pump();
  }

  get held(): number {
    return this.#protocol.held;
  }

  takeHeld(): Fragment | undefined {
    return this.#protocol.takeHeld();
  }

  onMode(whole: boolean): void {
    this.#protocol.whole = whole;
  }

  failMidway(cause: unknown): void {
    this.#fail(CloseCode.InternalError, "The message was cut short by its sender", cause);
  }

  vanished(lent: boolean): void {
    const message = "The bytes to send were detached or resized before they had left";
    if (!lent) return this.#fail(CloseCode.InternalError, message);
    this.#cut(webSocketError(message, CloseCode.InternalError));
  }

  transportThrew(cause: unknown): void {
    this.#cut(webSocketError("The transport threw", CloseCode.Abnormal, "", cause));
  }

  /** Ends the transport at once, where no Close frame can tell the peer why. */
  #cut(error: WebSocketError): void {
    if (this.#ending.finished || this.#ending.error !== undefined) return;
    this.#ownEnding.stopped = true;
    this.#ownEnding.error = error;
    this.#endWith(error);
    this.transport.destroy();
  }

  async finish(): Promise<void> {
    this.startClose({});
    // A clean end has come already where a pipe closes us in the turn that the end grants.
    if (this.#ending.finished && this.#ending.error === undefined) return;
    await new Promise<void>((resolve, reject) =>
      this.whenDecided({ ended: (error) => error === undefined ? resolve() : reject(error) })
    );
  }

  sendPing(): Promise<unknown> {
    return this.ping(randomPayload());
  }

  paused(): boolean {
    return this.#paused;
  }

  traffic(): Traffic {
    const { bytesSent: sent } = this.sender.outbox;
    return { received: this.#bytesReceived, sent, waiting: this.transport.bufferedAmount };
  }

  lost(): void {
    this.#fail(CloseCode.InternalError, "Keepalive: no pong in time");
  }
}
