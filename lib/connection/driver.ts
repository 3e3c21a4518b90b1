/**
 * Runs a connection: takes events from the protocol while there is room, and otherwise pauses the
 * transport.
 */
import { handled } from "../abortable.ts";
import { Closing, type ClosingParts } from "./closing.ts";
import {
  ControlRate,
  Keepalive,
  type KeepaliveHost,
  type Ping,
  Pings,
  type PingWaiter,
  type Traffic,
} from "./heartbeat.ts";
import { CloseCode } from "../core/close.ts";
import { invalidState, RemoteProtocolError } from "../core/error.ts";
import type { Role } from "../core/frame.ts";
import { MAX_MESSAGE_SIZE } from "../core/message.ts";
import type { Protocol, ProtocolOptions } from "../core/protocol.ts";
import type { TextCodec } from "../core/utf8.ts";
import type { ConnectionOptions, ConnectionStats } from "../options.ts";
import { type ConnectionListener, diagnostics } from "../inspect.ts";
import { Receiver, type ReceiverHost } from "./receiver.ts";
import { Sender, type WritingMachine } from "./sender.ts";
import type { Transport, TransportHandlers } from "../transport.ts";
import { nextTurn } from "../timers.ts";

/** Maximum memory that may wait while an extension works on earlier input, in bytes. */
const READ_MARK = 65536;

/** What a driver needs of a {@linkcode Protocol} or of its substitute. */
export type Machine =
  & Pick<
    Protocol,
    | "pending"
    | "bufferedAmount"
    | "bufferedMemory"
    | "whole"
    | "counts"
    | "held"
    | "takeHeld"
    | "release"
    | "receive"
    | "next"
    | "dispose"
  >
  & WritingMachine
  & {
    /** Unknown for a native WebSocket. */
    readonly role: Role | undefined;
  };

export interface DriverInit {
  /** The open transport, which the handshake has handled so far. */
  transport: Transport;
  /** Hands the transport over after the handshake. By default, nothing has handled the transport. */
  source?: { handOver(handlers: TransportHandlers): void };
  /** Where the callbacks of the machine find the driver. */
  link?: Link;
  options: Omit<ConnectionOptions, "signal">;
  /** Listens for the log and the channels of the platform. */
  listener?: ConnectionListener;
  machine: Machine;
}

export interface MachineHost {
  /** Listens for the log of the platform. */
  readonly listener: ConnectionListener | undefined;
  pump(): void;
  /** Fails the connection because a callback of the application has thrown. */
  failThrown(error: unknown): void;
}

/**
 * The driver that the callbacks of a machine call, which is created later. Holds nothing of the opening
 * handshake, so that its memory can be freed.
 */
export interface Link {
  driver?: MachineHost;
}

/** Returns the options of a `Protocol`. Without a link, they have no callbacks. */
export function protocolOptions(
  { maxMessageSize = MAX_MESSAGE_SIZE, maxFrameSize, onFrame }: DriverInit["options"],
  { textCodec, isExtended }: { textCodec: TextCodec | undefined; isExtended: boolean },
  link?: Link,
): Omit<ProtocolOptions, "extensions"> {
  const host = () => link!.driver!;
  const seen = onFrame && guarded(onFrame, (error) => host().failThrown(error));
  return {
    ...{ maxMessageSize, maxFrameSize, textCodec },
    onFrame: !diagnostics?.logsFrames ? seen : (direction, frame) => {
      host().listener?.onFrame(direction, frame);
      seen?.(direction, frame);
    },
    ownsInput: true,
    onReady: isExtended ? () => host().pump() : undefined,
  };
}

/** What only some connections have. Made on demand. */
class Extras {
  listener: ConnectionListener | undefined;
  pings: Pings | undefined;
  controlRate: ControlRate | undefined;
  pauses = 0;
}

export class Driver
  implements TransportHandlers, MachineHost, ReceiverHost, ClosingParts, KeepaliveHost {
  readonly transport: Transport;
  readonly machine: Machine;
  readonly receiver: Receiver;
  readonly sender: Sender;
  readonly closing: Closing;
  readonly keepalive: Keepalive | undefined;
  readonly #maxControlFrames: number | undefined;
  #extras: Extras | undefined;

  isPaused = false;
  #pumping: boolean;
  #bytesReceived = 0;
  /** Number of messages that had been taken when the last chunk arrived. */
  #takenBefore = 0;

  constructor(init: DriverInit) {
    const { transport, source, link, options } = init;
    const { pingInterval = 20_000, pingTimeout = 20_000, closeTimeout = 10_000 } = options;
    this.transport = transport;
    if (init.listener !== undefined) this.#extra.listener = init.listener;
    this.machine = init.machine;
    this.#maxControlFrames = options.maxControlFramesPerSecond;
    this.closing = new Closing(this, closeTimeout);
    this.receiver = new Receiver(options.readableStrategy, this);
    this.sender = new Sender(this.machine, transport, this.closing, options);
    if (pingInterval > 0) this.keepalive = new Keepalive(this, pingInterval, pingTimeout);
    const trailing = this.machine.bufferedAmount;
    this.#bytesReceived = trailing;
    if (link !== undefined) link.driver = this;
    // A chunk that comes during the call follows these bytes, and waits.
    this.#pumping = trailing > 0;
    if (source === undefined) transport.handle(this);
    else source.handOver(this);
    this.#pumping = false;
    if (trailing > 0) this.pump();
    if (!this.isPaused) transport.resume();
  }

  get #extra(): Extras {
    return this.#extras ??= new Extras();
  }

  get listener(): ConnectionListener | undefined {
    return this.#extras?.listener;
  }

  get pings(): Pings | undefined {
    return this.#extras?.pings;
  }

  get stats(): ConnectionStats {
    return {
      messagesReceived: this.receiver.messagesReceived,
      messagesSent: this.sender.messagesSent,
      bytesReceived: this.#bytesReceived,
      bytesSent: this.sender.bytesSent,
      queued: this.receiver.budget.used,
      peakQueued: this.receiver.budget.peak,
      paused: this.isPaused,
      pauses: this.#extras?.pauses ?? 0,
      ...this.machine.counts,
    };
  }

  data(chunk: Uint8Array): boolean {
    const received = this.#bytesReceived + chunk.length;
    this.pump(chunk);
    // release() is about the last chunk. A callback of the application may have led to another chunk.
    return received === this.#bytesReceived && !this.#pumping && this.machine.release();
  }

  borrow(chunk: Uint8Array): void {
    const { machine, sender: { isExtended }, isPaused, closing: { isReading } } = this;
    // Extensions may keep views of a chunk, and a chunk after unread input must wait. Input is left
    // unread while the driver is paused, and after the end of the input.
    const isKept = isExtended || this.#pumping || isPaused || !isReading;
    this.pump(isKept ? new Uint8Array(chunk) : chunk);
    if (!isKept) machine.release(true);
  }

  get keepsUp(): boolean {
    const { used, taken } = this.receiver.budget;
    return used === 0 || taken !== this.#takenBefore;
  }

  drain(): void {
    this.sender.drained();
  }

  end(): void {
    this.closing.transportHalfClosed();
  }

  close(error: Error | undefined): void {
    this.closing.transportClosed(error);
  }

  /** Takes events while there is room for them. */
  pump(chunk?: Uint8Array): void {
    const { closing, machine, receiver } = this;
    const { budget } = receiver;
    if (chunk !== undefined) {
      this.#bytesReceived += chunk.length;
      this.#takenBefore = budget.taken;
      if (closing.isReading) machine.receive(chunk);
    }
    if (this.#pumping) return;
    this.#pumping = true;
    while (closing.isReading && !((budget.isFull || receiver.mode === undefined) && this.#isFull)) {
      try {
        const event = machine.next();
        if (event === undefined) {
          if (closing.transport === "open" || machine.pending) break;
          closing.inputOver(undefined);
        } else if (event.type === "text" || event.type === "binary") {
          receiver.deliver(event, closing.phase === "closing");
        } else if (event.type === "close") closing.inputOver(event);
        else if (event.type === "ping") this.#answerPing(event.payload);
        else this.#takePong(event.payload);
      } catch (error) {
        // Any other error was thrown by a callback of the application. It must not end the process.
        if (error instanceof RemoteProtocolError) closing.inputOver(error);
        else this.failThrown(error);
      }
    }
    this.#pumping = false;
    // Input that waits for extensions is kept as received.
    const isBehind = this.sender.isExtended && machine.pending &&
      machine.bufferedMemory > READ_MARK;
    const isFull = (budget.isFull || receiver.mode === undefined) && this.#isFull;
    const paused = closing.isReading && (isBehind || isFull);
    if (paused !== this.isPaused) this.#setPaused(paused);
  }

  get #isFull(): boolean {
    // After this end's Close, nothing waits for room: the peer's Close may follow the messages. After the
    // end of the transport, only the rest of a chunk is left.
    const { phase, transport } = this.closing;
    if (phase !== "open" || transport === "closed") return false;
    const { budget, mode } = this.receiver;
    // Until the way of reading is known, a part of a message counts as well.
    return budget.isFull || (mode === undefined && budget.wouldFill(this.machine.held));
  }

  /** RFC 6455 §5.5.2: a ping is answered with a pong that has the same payload. */
  #answerPing(payload: Uint8Array): void {
    this.#countControl();
    this.sender.answer(payload);
  }

  #takePong(payload: Uint8Array): void {
    // A pong that was asked for is not part of a flood.
    if (!this.pings?.pong(payload)) this.#countControl();
  }

  #countControl(): void {
    const rate = this.#extra.controlRate ??= new ControlRate(this.#maxControlFrames);
    rate.count(this.receiver.messagesReceived);
  }

  failThrown(error: unknown): void {
    this.closing.fail(CloseCode.InternalError, "A callback threw", error);
  }

  #setPaused(paused: boolean): void {
    this.isPaused = paused;
    if (paused) {
      this.#extra.pauses++;
      this.transport.pause();
    } else {
      this.transport.resume(this.machine.release());
    }
  }

  onRoom(): void {
    if (this.isPaused) this.pump();
  }

  get latency(): number | undefined {
    return this.pings?.latency;
  }

  ping(payload: Uint8Array): Promise<number> {
    return handled(
      new Promise((resolve, reject) => {
        if (!this.closing.canSend) throw this.closing.closedError();
        if (!this.#addPing({ payload }, { sentAt: 0, resolve, reject })) {
          throw invalidState(
            "Cannot ping: an earlier ping with this payload waits for its pong",
            "busy",
          );
        }
      }),
    );
  }

  sendPing(ping: Ping, waiter: PingWaiter): void {
    if (this.closing.canSend) this.#addPing(ping, waiter);
  }

  #addPing({ payload, frame }: Ping, waiter: PingWaiter): boolean {
    const isNew = (this.#extra.pings ??= new Pings()).add(payload, waiter);
    if (isNew) this.sender.control({ type: "ping", payload }, frame);
    return isNew;
  }

  get isAlive(): boolean {
    return this.closing.phase === "open" && this.closing.transport !== "closed";
  }

  traffic(): Traffic {
    const { bytesSent: sent } = this.sender;
    return { received: this.#bytesReceived, sent, waiting: this.transport.bufferedAmount };
  }

  lost(timeout: number): void {
    const message = `No pong came within pingTimeout (${timeout} ms)`;
    this.closing.fail(CloseCode.InternalError, message, undefined, "pong-timeout");
  }
}

type OnFrame = NonNullable<ConnectionOptions["onFrame"]>;

/** Wraps a callback of the application, so that the connection fails if the callback throws. */
function guarded(onFrame: OnFrame, onThrown: (error: unknown) => void): OnFrame {
  const fail = (error: unknown) => nextTurn(() => onThrown(error));
  return (direction, frame) => {
    try {
      const returned: unknown = onFrame(direction, frame);
      // Nothing waits for the promise, but it may reject.
      if (returned instanceof Promise) returned.catch(fail);
    } catch (error) {
      fail(error);
    }
  };
}
