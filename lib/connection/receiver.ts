/**
 * The receiving half of a connection: the queue, and the three ways to read it.
 *
 * A file of its own because how messages are read has nothing to do with how they come about.
 *
 * @module
 */
import { CloseCode } from "../core/close.ts";
import { invalidState } from "../core/error.ts";
import type { Fragment, Message } from "../core/message.ts";
import { Budget, type BudgetHost, type End, Inbox, sizeOf, type Waiter } from "./inbox.ts";
import { handled } from "../abortable.ts";
import { type IncomingMessage, MessageStreams } from "./message_streams.ts";
import type { ConnectionStats, InboxStrategy } from "../options.ts";

const HIGH_WATER_MARK = 65536;

/** The caller's measure, whose results are checked as those of a stream's strategy are. */
function checked(measure: (message: Message) => unknown): (message: Message) => number {
  return (message) => {
    const size = +(measure(message) as number);
    if (size >= 0 && size < Infinity) return size;
    throw new RangeError(
      `Expected readableStrategy.size to give a finite number of 0 or more, received ${size}`,
    );
  };
}

type Mode = "receive" | "readable" | "messages" | "discard";

/** What a {@linkcode Receiver} tells its connection. */
export interface ReceiverHost extends BudgetHost {
  /** What is held of a message that is put together. */
  readonly held: number;
  /** Gives out what is held, as one piece. */
  takeHeld(): Fragment | undefined;
  /** It was said how messages are read: whole, or in pieces. */
  onMode(whole: boolean): void;
  /** The reader of a stream has cancelled it. */
  leave(reason: unknown): void;
}

/** Keeps what came until it is read. */
export class Receiver {
  readonly #host: ReceiverHost;
  readonly #inbox: Inbox<Message>;
  #mode: Mode | undefined;
  #readable: ReadableStream<Message> | undefined;
  #streams: MessageStreams | undefined;
  #messagesReceived = 0;
  /** Whether a late message was dropped: all that come after it are dropped, too. */
  #dropping = false;

  /**
   * @param strategy how much may wait
   * @param host the connection
   */
  constructor(strategy: InboxStrategy = {}, host: ReceiverHost) {
    const { highWaterMark = HIGH_WATER_MARK, size } = strategy;
    this.#host = host;
    const measure = size === undefined ? sizeOf : checked(size);
    this.#inbox = new Inbox(new Budget(highWaterMark, host), measure);
  }

  /** Whether no more should be received for now. */
  get full(): boolean {
    if (this.#mode === "discard") return false;
    // As long as nobody has said how the messages are read, a part of one counts as well.
    return this.#inbox.budget.fullWith(this.#mode === undefined ? this.#host.held : 0);
  }

  /** Whether somebody waits for a message. */
  get awaited(): boolean {
    return this.#inbox.awaited || this.#streams?.awaited === true;
  }

  /** Whether nothing waits. */
  get empty(): boolean {
    return this.#inbox.budget.used === 0;
  }

  /** How many messages, and pieces of them, were taken so far. */
  get taken(): number {
    return this.#inbox.budget.taken;
  }

  /** How it ended, once it has. */
  get ended(): End | undefined {
    return this.#inbox.ended;
  }

  /** Messages received whole so far. */
  get messagesReceived(): number {
    return this.#messagesReceived;
  }

  /** What it has done so far. */
  get stats(): Pick<ConnectionStats, "messagesReceived" | "queued" | "peakQueued"> {
    const { used: queued, peak: peakQueued } = this.#inbox.budget;
    return { messagesReceived: this.#messagesReceived, queued, peakQueued };
  }

  /** Calls back when the reader has read all, or is not reading. */
  whenQuiet(callback: () => void): void {
    this.#inbox.budget.whenQuiet(callback);
  }

  /**
   * Takes a piece of a message.
   *
   * @param late whether a message for which there is no room is dropped, and all that come after it
   */
  deliver(fragment: Fragment, late: boolean): void {
    if (fragment.messageFinished) this.#messagesReceived++;
    if (this.#mode === "discard") return;
    if (late && this.#inbox.budget.full) this.#startDropping();
    if (this.#dropping) return this.#streams?.drop(fragment);
    if (this.#streams !== undefined) return this.#streams.push(fragment);
    this.#inbox.push(fragment.data);
  }

  /** Nothing is put together any more: the pieces of what is dropped are dropped as they come. */
  #startDropping(): void {
    this.#dropping = true;
    this.#host.onMode(false);
    this.#host.takeHeld();
  }

  /** No more comes; what waits can still be read. */
  end(end: End): void {
    this.#inbox.end(end);
    this.#streams?.end(end);
  }

  /** Nobody reads any more: what waits or is to come is dropped, and whoever asks meets a clean end. */
  release(end: End): void {
    this.#stop();
    this.end(end);
  }

  /** See `WebSocketConnection`. */
  receive(options?: { signal?: AbortSignal }): Promise<Message> {
    const signal = options?.signal;
    try {
      this.#enter("receive");
      signal?.throwIfAborted();
      if (this.#inbox.awaited) throw alreadyAwaited();
    } catch (error) {
      return handled(Promise.reject(error));
    }
    const message = this.#inbox.take();
    return message === undefined ? this.#wait(signal) : Promise.resolve(message);
  }

  #wait(signal: AbortSignal | undefined): Promise<Message> {
    const waiting = new Waiting();
    this.#inbox.wait(signal === undefined ? waiting : this.#abortable(waiting, signal));
    return waiting.promise;
  }

  #abortable(waiting: Waiting, signal: AbortSignal): Waiter<Message> {
    const settle = () => signal.removeEventListener("abort", abort);
    const waiter = {
      give(message: Message) {
        settle();
        waiting.give(message);
      },
      end(end: End) {
        settle();
        waiting.end(end);
      },
    };
    const abort = () => {
      this.#inbox.unwait(waiter);
      waiting.reject(signal.reason);
    };
    signal.addEventListener("abort", abort, { once: true });
    return waiter;
  }

  /** See `WebSocketConnection`. */
  iterate(): AsyncIterator<Message> {
    this.#enter("receive");
    return new Iteration(this.#inbox);
  }

  /** See `WebSocketConnection`. */
  get readable(): ReadableStream<Message> {
    if (this.#readable === undefined) {
      this.#enter("readable");
      this.#readable = this.#inbox.stream((reason) => this.#leave(reason), (message) => message);
    }
    return this.#readable;
  }

  /** See `WebSocketConnection`. */
  messages(): ReadableStream<IncomingMessage> {
    if (this.#streams === undefined) {
      this.#setMode("messages");
      const streams = new MessageStreams(this.#inbox.budget, (reason) => this.#leave(reason));
      this.#handOver(streams);
      this.#streams = streams;
      // Only now: a piece that comes because there is room again is later than all that has waited.
      this.#host.onTaken();
    }
    return this.#streams.readable;
  }

  /** Passes on what was received, whole or in part, before anybody asked for streams. */
  #handOver(streams: MessageStreams): void {
    // A message that comes meanwhile, because there is room again, still comes whole.
    for (let data = this.#inbox.take(); data !== undefined; data = this.#inbox.take()) {
      streams.push(wholeFragment(data));
    }
    this.#host.onMode(false);
    const partial = this.#host.takeHeld();
    if (partial !== undefined) streams.push(partial);
    if (this.ended !== undefined) streams.end(this.ended);
  }

  /** See `WebSocketConnection`. */
  discard(): void {
    this.#enter("discard");
    this.#drop();
  }

  #leave(reason: unknown): void {
    this.#stop();
    this.#host.leave(reason);
  }

  #stop(): void {
    this.#mode = "discard";
    this.#host.onMode(false);
    this.#drop();
  }

  #drop(): void {
    this.#host.takeHeld();
    this.#inbox.clear();
    this.#host.onTaken();
  }

  #enter(mode: Mode): void {
    if (this.#mode === mode) return;
    this.#setMode(mode);
    this.#host.onMode(mode !== "discard");
    // A part of a message, which has counted so far, counts no more.
    this.#host.onTaken();
  }

  #setMode(mode: Mode): void {
    if (this.#mode !== undefined) {
      throw invalidState(
        `Expected to be read by ${this.#mode} as before, received a call for ${mode}`,
      );
    }
    this.#mode = mode;
  }
}

/**
 * A call of `receive()` that waits. A rejection counts as handled: the caller may be waiting for something
 * else when it comes, for example for a `send()` that rejects for the same reason.
 */
class Waiting implements Waiter<Message> {
  readonly promise: Promise<Message>;
  give!: (message: Message) => void;
  #reject!: (error: unknown) => void;

  constructor() {
    this.promise = new Promise((resolve, reject) => {
      this.give = resolve;
      this.#reject = reject;
    });
  }

  reject(error: unknown): void {
    handled(this.promise);
    this.#reject(error);
  }

  end({ error }: End): void {
    this.reject(error);
  }
}

type Resolve = (result: IteratorResult<Message> | Promise<never>) => void;

/**
 * One promise a message: an asynchronous function would make three. It is itself what then waits, and
 * keeps one function of the promise, which it rejects by resolving it with another one.
 */
class Iteration implements AsyncIterator<Message>, Waiter<Message> {
  readonly #inbox: Inbox<Message>;
  #resolve!: Resolve;
  /** What `next()` has given and is not settled yet. */
  #awaited: Promise<IteratorResult<Message>> | undefined;

  constructor(inbox: Inbox<Message>) {
    this.#inbox = inbox;
  }

  next(): Promise<IteratorResult<Message>> {
    const value = this.#inbox.take();
    if (value !== undefined) return Promise.resolve({ done: false, value });
    if (this.#inbox.awaited) return handled(Promise.reject(alreadyAwaited()));
    const awaited = new Promise<IteratorResult<Message>>((resolve) => this.#resolve = resolve);
    this.#awaited = awaited;
    this.#inbox.wait(this);
    return awaited;
  }

  give(value: Message): void {
    this.#awaited = undefined;
    this.#resolve({ done: false, value });
  }

  end(end: End): void {
    handled(this.#awaited!);
    this.#awaited = undefined;
    if (endsIteration(end)) this.#resolve({ done: true, value: undefined });
    else this.#resolve(Promise.reject(end.error));
  }
}

function endsIteration({ clean, closeCode }: End): boolean {
  return clean &&
    (closeCode === CloseCode.Normal || closeCode === CloseCode.GoingAway ||
      closeCode === CloseCode.NoStatus);
}

function alreadyAwaited(): DOMException {
  return invalidState("Expected one receive() at a time");
}

/** A message that came whole. */
export function wholeFragment(data: Message): Fragment {
  const finished = { frameFinished: true, messageFinished: true };
  return typeof data === "string"
    ? { type: "text", data, ...finished }
    : { type: "binary", data, ...finished };
}
