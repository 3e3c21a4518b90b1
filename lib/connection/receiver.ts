/**
 * The receiving half of a connection: one queue, and the three ways to read it.
 *
 * @module
 */
import { CloseCode } from "../core/close.ts";
import { invalidState, webSocketError } from "../core/error.ts";
import { type Fragment, type Message, ownBytes } from "../core/message.ts";
import type { Protocol } from "../core/protocol.ts";
import { handled } from "../abortable.ts";
import type { ConnectionStats, InboxStrategy } from "../options.ts";
import { nextTurn } from "../timers.ts";

const HIGH_WATER_MARK = 65536;

// Memory that a message takes beside its length while it waits, in bytes, about.
const TEXT_OVERHEAD = 64;
const BYTES_OVERHEAD = 256;
/** The same for a message that is read in pieces, beside its pieces. */
const STREAM_OVERHEAD = 512;

/** Size of a message, or of a piece of one, unless the caller measures it. */
export function sizeOf(message: Message): number {
  return message.length + (typeof message === "string" ? TEXT_OVERHEAD : BYTES_OVERHEAD);
}

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

/** How much may wait to be read, over all the queues of a connection. */
export class Budget {
  /** Whether no more should come. One item is let in, whatever the limit. */
  isFull = false;
  /** What waits now, and the most that ever waited. */
  used = 0;
  peak = 0;
  /** How many items have been taken. */
  taken = 0;
  #items = 0;
  readonly #limit: number;
  readonly #onTaken: () => void;

  /**
   * @param limit the size from which on it is full
   * @param onTaken called after an item was taken, so that there may be room
   */
  constructor(limit: number, onTaken: () => void = () => {}) {
    this.#limit = limit;
    this.#onTaken = onTaken;
  }

  /** Whether this much more would make it full. */
  wouldFill(size: number): boolean {
    const sum = this.used + size;
    return sum > 0 && sum >= this.#limit;
  }

  /** Counts an item that comes into a queue. */
  add(size: number): void {
    this.#items++;
    this.used += size;
    if (this.used > this.peak) this.peak = this.used;
    this.isFull = this.wouldFill(0);
  }

  /** Counts an item that was taken out of a queue. */
  remove(size: number): void {
    // Sums of fractions are not exact.
    this.used = --this.#items === 0 ? 0 : Math.max(0, this.used - size);
    this.isFull = this.wouldFill(0);
    this.taken++;
    this.#onTaken();
  }

  /**
   * Calls back after a whole turn of the event loop in which nothing was taken: the reader has read
   * everything, or is not reading.
   */
  whenQuiet(callback: () => void): void {
    const { taken } = this;
    nextTurn(() => this.taken === taken ? callback() : this.whenQuiet(callback));
  }
}

/** How a queue ended. */
export interface End {
  /** Whether a stream closes here; otherwise it is errored. */
  readonly clean: boolean;
  /** The close code of the connection. */
  readonly closeCode?: number;
  /** What a reader gets that asks for one more. */
  readonly error: unknown;
}

/** Whoever waits for the next item. */
export interface Waiter<T> {
  /** Gets it. */
  give(item: T): void;
  /** There is none. */
  end(end: End): void;
}

/** Shared by all that are empty. */
const NONE: never[] = [];

/** A queue with one reader. */
export class Inbox<T> {
  /** What its items count towards. */
  readonly budget: Budget;
  readonly #sizeOf: (item: T) => number;
  #items: T[] = NONE;
  /** What each of them counts, as measured when it was added. */
  #sizes: number[] = NONE;
  #head = 0;
  /** Whoever waits for an item. */
  waiter: Waiter<T> | undefined;
  #end: End | undefined;
  #onEnd: (() => void) | undefined;
  #taking = false;

  /**
   * @param budget what its items count towards
   * @param sizeOf how much one counts
   */
  constructor(budget: Budget, sizeOf: (item: T) => number) {
    this.budget = budget;
    this.#sizeOf = sizeOf;
  }

  /** How many items wait. */
  get length(): number {
    return this.#items.length - this.#head;
  }

  /** How it ended, once it has; items may still wait. */
  get ended(): End | undefined {
    return this.#end;
  }

  /**
   * Adds an item, or hands it to the waiting reader.
   *
   * @throws what its measure throws; the item is then not added
   */
  push(item: T): void {
    const waiter = this.waiter;
    if (waiter === undefined) {
      const sizeOf = this.#sizeOf;
      const size = sizeOf(item);
      if (this.#items === NONE) {
        // An array that grows by push() takes room for many: most pieces of messages are alone in theirs.
        this.#items = [item];
        this.#sizes = [size];
      } else {
        this.#items.push(item);
        this.#sizes.push(size);
      }
      this.budget.add(size);
    } else {
      this.waiter = undefined;
      this.budget.taken++;
      waiter.give(item);
    }
  }

  /** Takes the next item, if there is one. */
  take(): T | undefined {
    if (this.#head === this.#items.length) return undefined;
    const item = this.#items[this.#head];
    const size = this.#sizes[this.#head];
    this.#items[this.#head++] = undefined as T;
    // The places in front are given back when they are half of all, so that each is moved once.
    if (this.#head === this.#items.length) {
      this.#items = this.#sizes = NONE;
      this.#head = 0;
    } else if (this.#head >= 1024 && this.#head * 2 >= this.#items.length) {
      this.#items.splice(0, this.#head);
      this.#sizes.splice(0, this.#head);
      this.#head = 0;
    }
    this.budget.remove(size);
    return item;
  }

  /** Waits for an item when there is none to take. */
  wait(waiter: Waiter<T>): void {
    if (this.#end !== undefined) waiter.end(this.#end);
    else this.waiter = waiter;
  }

  /** Takes back a `wait()`. */
  unwait(waiter: Waiter<T>): void {
    if (this.waiter === waiter) this.waiter = undefined;
  }

  /** Drops what waits to be read. */
  clear(): void {
    while (this.take() !== undefined);
  }

  /** Says that no more items come. What waits can still be taken. */
  end(end: End): void {
    if (this.#end !== undefined) return;
    this.#end = end;
    const waiter = this.waiter;
    this.waiter = undefined;
    if (waiter !== undefined) waiter.end(end);
    else this.#onEnd?.();
  }

  /**
   * A stream over the items. Its own queue stays empty: what is not read waits here.
   *
   * @param cancel called when the reader cancels
   * @param present makes what the reader gets of an item
   */
  stream<U>(
    cancel: (reason: unknown) => void,
    present: (item: T) => U,
  ): ReadableStream<U> {
    return new Readable<U>({
      start: (controller) => {
        this.#onEnd = () => this.#finish(controller);
        if (this.#end !== undefined) this.#finish(controller);
      },
      pull: (controller) => {
        // The room that it makes may let the end come at once, and that must wait for the item.
        this.#taking = true;
        const item = this.take();
        this.#taking = false;
        if (item === undefined) return this.#pull(controller, present);
        controller.enqueue(present(item));
        if (this.length === 0 && this.#end?.clean) controller.close();
      },
      cancel: (reason) => {
        this.#onEnd = this.waiter = undefined;
        this.clear();
        cancel(reason);
      },
    }, { highWaterMark: 0 });
  }

  #pull<U>(
    controller: ReadableStreamDefaultController<U>,
    present: (item: T) => U,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      this.wait({
        give: (item) => {
          controller.enqueue(present(item));
          resolve();
        },
        end: (end) => {
          if (!end.clean) return reject(end.error);
          controller.close();
          resolve();
        },
      });
    });
  }

  /** The end came while nobody was waiting. */
  #finish(controller: ReadableStreamDefaultController): void {
    // What waits is left to later pulls: in the stream's own queue it would count no more, and an
    // error would drop it.
    if (this.length > 0 || this.#taking) return;
    const end = this.#end!;
    if (end.clean) controller.close();
    else controller.error(end.error);
  }
}

/**
 * A stream whose `pipeTo()` may be left to itself, as any other promise of a connection: its rejection is
 * for those who await it, and no unhandled one.
 */
class Readable<T> extends ReadableStream<T> {
  override pipeTo(...args: Parameters<ReadableStream<T>["pipeTo"]>): Promise<void> {
    return handled(super.pipeTo(...args));
  }
}

export type Mode = "receive" | "readable" | "messages" | "discard";

/** What a {@linkcode Receiver} needs of its connection. */
export interface ReceiverHost {
  /** What puts the messages together, or gives them in pieces. */
  readonly machine: Pick<Protocol, "whole" | "held" | "takeHeld">;
  /** There may be room for more. */
  onTaken(): void;
  /** The reader of a stream has cancelled it. */
  leave(reason: unknown): void;
}

/** Keeps what came until it is read. */
export class Receiver {
  /** What all queues together hold. */
  readonly budget: Budget;
  /** Messages received whole so far. */
  messagesReceived = 0;
  readonly #host: ReceiverHost;
  readonly #inbox: Inbox<Message>;
  /** How messages are read, once that is known. */
  mode: Mode | undefined;
  #readable: ReadableStream<Message> | undefined;
  #streams: MessageStreams | undefined;
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
    this.budget = new Budget(highWaterMark, () => host.onTaken());
    this.#inbox = new Inbox(this.budget, measure);
  }

  /** How many loops over the messages have not been left. */
  loops = 0;

  /** Whether somebody waits for a message. */
  get awaited(): boolean {
    return this.#inbox.waiter !== undefined || this.#streams?.awaited === true;
  }

  /** What it has done so far. */
  get stats(): Pick<ConnectionStats, "messagesReceived" | "queued" | "peakQueued"> {
    const { used: queued, peak: peakQueued } = this.budget;
    return { messagesReceived: this.messagesReceived, queued, peakQueued };
  }

  /**
   * Takes a piece of a message.
   *
   * @param late whether a message for which there is no room is dropped, and all that come after it
   */
  deliver(fragment: Fragment, late: boolean): void {
    if (fragment.messageFinished) this.messagesReceived++;
    if (this.mode === "discard") return;
    if (late && this.budget.isFull) this.#startDropping();
    if (this.#dropping) return this.#streams?.drop(fragment);
    if (this.#streams !== undefined) return this.#streams.push(fragment);
    this.#inbox.push(fragment.data);
  }

  /** Nothing is put together any more: the pieces of what is dropped are dropped as they come. */
  #startDropping(): void {
    this.#dropping = true;
    this.#host.machine.whole = false;
    this.#host.machine.takeHeld();
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
      if (this.#inbox.waiter !== undefined) throw alreadyAwaited();
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
    this.loops++;
    return new Iteration(this, this.#inbox);
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
      const streams = new MessageStreams(this.budget, (reason) => this.#leave(reason));
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
    this.#host.machine.whole = false;
    const partial = this.#host.machine.takeHeld();
    if (partial !== undefined) streams.push(partial);
    const { ended } = this.#inbox;
    if (ended !== undefined) streams.end(ended);
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
    this.mode = "discard";
    this.#host.machine.whole = false;
    this.#drop();
  }

  #drop(): void {
    this.#host.machine.takeHeld();
    this.#inbox.clear();
    this.#host.onTaken();
  }

  #enter(mode: Mode): void {
    if (this.mode === mode) return;
    this.#setMode(mode);
    this.#host.machine.whole = mode !== "discard";
    // A part of a message, which has counted so far, counts no more.
    this.#host.onTaken();
  }

  #setMode(mode: Mode): void {
    if (this.mode !== undefined && this.mode !== "receive") {
      throw invalidState(`Cannot read by ${mode}: the connection is read by ${this.mode}`);
    }
    if (this.awaited || this.loops > 0) {
      throw invalidState(`Cannot read by ${mode}: a receive() or a loop waits for messages`);
    }
    this.mode = mode;
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
  readonly #receiver: Receiver;
  readonly #inbox: Inbox<Message>;
  #isLeft = false;
  #resolve!: Resolve;
  /** What `next()` has given and is not settled yet. */
  #awaited: Promise<IteratorResult<Message>> | undefined;

  constructor(receiver: Receiver, inbox: Inbox<Message>) {
    this.#receiver = receiver;
    this.#inbox = inbox;
  }

  /** The loop is left. The connection may then be read in another way. */
  return(): Promise<IteratorResult<Message>> {
    if (!this.#isLeft) this.#receiver.loops--;
    this.#isLeft = true;
    return Promise.resolve({ done: true, value: undefined });
  }

  next(): Promise<IteratorResult<Message>> {
    if (this.#isLeft) return Promise.resolve({ done: true, value: undefined });
    const value = this.#inbox.take();
    if (value !== undefined) return Promise.resolve({ done: false, value });
    if (this.#inbox.waiter !== undefined) return handled(Promise.reject(alreadyAwaited()));
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
    const awaited = this.#awaited!;
    this.#awaited = undefined;
    if (endsIteration(end)) return this.#resolve({ done: true, value: undefined });
    handled(awaited);
    this.#resolve(Promise.reject(end.error));
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

/** A message that may still be arriving. */
export interface IncomingMessage {
  /** Whether it is text or bytes. */
  readonly type: "text" | "binary";
  /**
   * Its pieces, as they come: strings of a text message, bytes of a binary one. Each piece of bytes has a
   * buffer of its own.
   */
  readonly readable: ReadableStream<Message>;
}

/** How a message ends. */
const WHOLE: End = { clean: true, error: undefined };

/** A message that waits to be taken. Its stream is made when it is. */
interface WaitingMessage {
  readonly type: "text" | "binary";
  readonly pieces: Inbox<Message>;
}

/** Turns the pieces of messages into a stream of streams. */
class MessageStreams {
  /** The messages. */
  readonly readable: ReadableStream<IncomingMessage>;
  readonly #budget: Budget;
  readonly #messages: Inbox<WaitingMessage>;
  #current: Inbox<Message> | undefined;
  #skipping = false;

  /**
   * @param budget what the pieces count towards
   * @param cancel called when the reader of the messages cancels
   */
  constructor(budget: Budget, cancel: (reason: unknown) => void) {
    this.#budget = budget;
    this.#messages = new Inbox(budget, () => STREAM_OVERHEAD);
    this.readable = this.#messages.stream(cancel, (message) => this.#present(message));
  }

  /** Whether somebody waits for a message, or for a piece of one. */
  get awaited(): boolean {
    return this.#messages.waiter !== undefined || this.#current?.waiter !== undefined;
  }

  /** Adds a piece. */
  push(fragment: Fragment): void {
    const { data, messageFinished } = fragment;
    if (this.#current === undefined && !this.#skipping) this.#begin(fragment.type);
    if (data.length > 0) this.#current?.push(typeof data === "string" ? data : ownBytes(data));
    if (!messageFinished) return;
    this.#current?.end(WHOLE);
    this.#current = undefined;
    this.#skipping = false;
  }

  /** Leaves out what remains of the message under way: its reader gets the error. */
  drop(fragment: Fragment): void {
    this.#cut(webSocketError("The message came after our Close frame, and too late", 1000));
    this.#skipping = !fragment.messageFinished;
  }

  /** No more messages come. */
  end(end: End): void {
    if (this.#current !== undefined) this.#cut(end.error);
    this.#messages.end(end);
  }

  #begin(type: "text" | "binary"): void {
    const current = new Inbox<Message>(this.#budget, sizeOf);
    this.#current = current;
    this.#messages.push({ type, pieces: current });
  }

  #present({ type, pieces }: WaitingMessage): IncomingMessage {
    const cancel = () => {
      if (this.#current !== pieces) return;
      this.#current = undefined;
      this.#skipping = true;
    };
    const readable = pieces.stream(cancel, (piece) => piece);
    return { type, readable };
  }

  #cut(error: unknown): void {
    this.#current?.end({ clean: false, error });
    this.#current = undefined;
  }
}
