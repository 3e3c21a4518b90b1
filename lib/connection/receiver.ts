/** The receiving half of a connection: the ways to read its queue. */
import type { CloseInfo } from "../core/close.ts";
import { invalidState, isScriptCloseCode, WebSocketError, webSocketError } from "../core/error.ts";
import { type Fragment, fragment, type Message, ownBytes } from "../core/message.ts";
import type { Protocol } from "../core/protocol.ts";
import { handled, onAbort, rejectTraced } from "../abortable.ts";
import type { InboxStrategy } from "../options.ts";
import {
  Budget,
  checked,
  CLEAN,
  type End,
  Inbox,
  sizeOf,
  unchanged,
  type Waiter,
} from "./inbox.ts";
import type { StreamReader } from "./pipe.ts";

const HIGH_WATER_MARK = 65536;

/** Approximate memory that a message in pieces takes in addition to its pieces, in bytes. */
const STREAM_OVERHEAD = 512;

export type Mode = "receive" | "readable" | "messages" | "discard";

/** @throws {DOMException} InvalidStateError If the way of reading cannot change any more. */
export function checkMode(mode: Mode | undefined, next: Mode, isAwaited: boolean): void {
  if (mode !== undefined && mode !== "receive") {
    throw invalidState(
      `Cannot read by ${memberOf(next)}: the connection is read by ${memberOf(mode)}`,
      "reading-mode",
    );
  }
  if (isAwaited) {
    throw invalidState(
      `Cannot read by ${memberOf(next)}: a receive() or a loop waits for messages`,
      "busy",
    );
  }
}

function memberOf(mode: Mode): string {
  return mode === "readable" ? mode : `${mode}()`;
}

export interface ReceiverHost {
  /** Assembles the messages, or delivers them in pieces. */
  readonly machine: Pick<Protocol, "whole" | "held" | "takeHeld">;
  readonly closing: {
    leave(reason: unknown): void;
    retrace(error: unknown, hasWaited: boolean): unknown;
  };
  /** Called when there may be room for more. */
  onRoom(): void;
}

export class Receiver {
  /** The size of all queues together. */
  readonly budget: Budget;
  messagesReceived = 0;
  readonly host: ReceiverHost;
  readonly inbox: Inbox<Message>;
  /** The way of reading. Undefined until the application has chosen one. */
  mode: Mode | undefined;
  #readable: ReadableStream<Message> | undefined;
  #streams: MessageStreams | undefined;
  /** Whether a late message was dropped. All messages after it are dropped too. */
  #dropping = false;

  /** @param strategy The limit of the queues. */
  constructor(strategy: InboxStrategy = {}, host: ReceiverHost) {
    const { highWaterMark = HIGH_WATER_MARK, size } = strategy;
    this.host = host;
    const measure = size === undefined ? sizeOf : checked(size);
    this.budget = new Budget(highWaterMark, host);
    this.inbox = new Inbox(this.budget, measure);
  }

  /** Number of loops over the messages that are still running. */
  loops = 0;

  get awaited(): boolean {
    return this.inbox.waiter !== undefined || this.#streams?.awaited === true;
  }

  /** Delivers a piece of a message. A `late` message without room is dropped, and all after it. */
  deliver(fragment: Fragment, late: boolean): void {
    if (fragment.messageFinished) this.messagesReceived++;
    if (this.mode === "discard") return;
    if (late && this.budget.isFull) this.#startDropping();
    if (this.#dropping) return this.#streams?.drop();
    if (this.#streams !== undefined) return this.#streams.push(fragment);
    this.inbox.push(fragment.data);
  }

  /** From now on, messages are delivered in pieces, so that dropped messages are not assembled first. */
  #startDropping(): void {
    this.#dropping = true;
    this.host.machine.whole = false;
    this.host.machine.takeHeld();
  }

  /** Marks the end. The waiting messages can still be read. */
  end(end: End): void {
    this.inbox.end(end);
    this.#streams?.end(end);
  }

  /** Drops all messages, now and later, because nothing reads them. A further read gets a clean end. */
  release(end: End): void {
    this.#stop();
    this.end(end);
  }

  receive(options?: { signal?: AbortSignal | undefined }): Promise<Message> {
    const signal = options?.signal;
    try {
      this.#enter("receive");
      signal?.throwIfAborted();
      if (this.inbox.waiter !== undefined) throw alreadyAwaited();
    } catch (error) {
      return handled(Promise.reject(error));
    }
    const message = this.inbox.take();
    return message === undefined ? this.#wait(signal) : Promise.resolve(message);
  }

  #wait(signal: AbortSignal | undefined): Promise<Message> {
    const { ended } = this.inbox;
    if (ended !== undefined) {
      return handled(Promise.reject(this.host.closing.retrace(ended.error, false)));
    }
    const waiting = new Waiting(this.host);
    this.inbox.wait(waiting);
    if (signal !== undefined) {
      waiting.stopWatching = onAbort(signal, (reason) => {
        this.inbox.unwait(waiting);
        waiting.abort(reason);
      });
    }
    return waiting.promise;
  }

  iterate(): AsyncIterator<Message> {
    this.#enter("receive");
    this.loops++;
    return new Iteration(this);
  }

  batches(): AsyncIterableIterator<Message[]> {
    this.#enter("receive");
    this.loops++;
    return new Batches(this.inbox, new Iteration(this));
  }

  get readable(): ReadableStream<Message> {
    if (this.#readable === undefined) {
      this.#enter("readable");
      this.#readable = this.inbox.messages(this);
    }
    return this.#readable;
  }

  messages(): ReadableStream<IncomingMessage> {
    if (this.#streams === undefined) {
      this.#setMode("messages");
      const streams = new MessageStreams(this.budget, this);
      this.#handOver(streams);
      this.#streams = streams;
      // Report the room only now, so that new pieces come after all pieces that have waited.
      this.host.onRoom();
    }
    return this.#streams.readable;
  }

  /** Passes on what was received before streams were asked for, including a partial message. */
  #handOver(streams: MessageStreams): void {
    // A message that arrives meanwhile, because there is room again, is still delivered whole.
    for (let data = this.inbox.take(); data !== undefined; data = this.inbox.take()) {
      streams.push(fragment(data, true, true));
    }
    this.host.machine.whole = false;
    const partial = this.host.machine.takeHeld();
    if (partial !== undefined) streams.push(partial);
    const { ended } = this.inbox;
    if (ended !== undefined) streams.end(ended);
  }

  discard(): void {
    this.#enter("discard");
    this.#stop();
  }

  /** Called when the reader of a stream has cancelled it. */
  leave(reason: unknown): void {
    this.#stop();
    this.host.closing.leave(reason);
  }

  #stop(): void {
    this.mode = "discard";
    this.host.machine.whole = false;
    this.host.machine.takeHeld();
    this.inbox.clear();
    this.host.onRoom();
  }

  #enter(mode: Mode): void {
    if (this.mode === mode) return;
    this.#setMode(mode);
    // A partial message no longer counts towards the budget.
    this.host.onRoom();
  }

  #setMode(mode: Mode): void {
    if (this.mode !== undefined) checkMode(this.mode, mode, this.awaited || this.loops > 0);
    this.mode = mode;
  }
}

/**
 * A pending call of `receive()`. A rejection counts as handled: the caller may be waiting for something
 * else, such as a `send()` that rejects for the same reason.
 */
class Waiting implements Waiter<Message> {
  readonly promise: Promise<Message>;
  stopWatching: (() => void) | undefined;
  #resolve!: (message: Message | Promise<never>) => void;
  readonly #host: ReceiverHost;

  constructor(host: ReceiverHost) {
    this.promise = new Promise((resolve) => this.#resolve = resolve);
    this.#host = host;
  }

  give(message: Message): void {
    this.stopWatching?.();
    this.#resolve(message);
  }

  end({ error }: End): void {
    this.stopWatching?.();
    this.#resolve(rejectTraced(this.promise, () => this.#host.closing.retrace(error, true)));
  }

  abort(reason: unknown): void {
    handled(this.promise);
    this.#resolve(Promise.reject(reason));
  }
}

type Resolve = (result: IteratorResult<Message> | Promise<never>) => void;

/** Set for two statements of `Iteration.next()`, where a closure would be an object for each message. */
let kept: Resolve | undefined;
const keep = (resolve: Resolve) => void (kept = resolve);

/**
 * Iterates with one promise per message. The iterator itself waits in the queue, and rejects by resolving
 * the promise with a rejected one.
 */
class Iteration implements AsyncIterator<Message>, Waiter<Message> {
  readonly #receiver: Receiver;
  isLeft = false;
  #resolve!: Resolve;
  #awaited: Promise<IteratorResult<Message>> | undefined;

  constructor(receiver: Receiver) {
    this.#receiver = receiver;
  }

  /** Leaves the loop. The connection may then be read in another way. */
  return(): Promise<IteratorReturnResult<undefined>> {
    if (!this.isLeft) this.#receiver.loops--;
    this.isLeft = true;
    return Promise.resolve({ done: true, value: undefined });
  }

  next(): Promise<IteratorResult<Message>> {
    if (this.isLeft) return Promise.resolve({ done: true, value: undefined });
    const { inbox, host } = this.#receiver;
    const value = inbox.take();
    if (value !== undefined) return Promise.resolve({ done: false, value });
    if (inbox.waiter !== undefined) return handled(Promise.reject(alreadyAwaited()));
    const { ended } = inbox;
    if (ended !== undefined) {
      return endsIteration(ended)
        ? Promise.resolve({ done: true, value: undefined })
        : handled(Promise.reject(host.closing.retrace(ended.error, false)));
    }
    const awaited = new Promise<IteratorResult<Message>>(keep);
    this.#awaited = awaited;
    this.#resolve = kept!;
    kept = undefined;
    inbox.waiter = this;
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
    this.#resolve(
      rejectTraced(awaited, () => this.#receiver.host.closing.retrace(end.error, true)),
    );
  }
}

/**
 * Iterates over arrays of messages. An array has the messages that waited, or else the next message and
 * what has come until the promise of this message was seen: usually the rest of its chunk.
 */
class Batches implements AsyncIterableIterator<Message[]> {
  readonly #inbox: Inbox<Message>;
  readonly #messages: Iteration;
  #pending: Promise<IteratorResult<Message[]>> | undefined;

  constructor(inbox: Inbox<Message>, messages: Iteration) {
    this.#inbox = inbox;
    this.#messages = messages;
  }

  [Symbol.asyncIterator](): this {
    return this;
  }

  next(): Promise<IteratorResult<Message[]>> {
    if (this.#pending !== undefined) return handled(Promise.reject(alreadyAwaited()));
    const value = this.#takeAll();
    if (value.length > 0) return Promise.resolve({ done: false, value });
    return this.#pending = this.#collect();
  }

  async #collect(): Promise<IteratorResult<Message[]>> {
    try {
      const next = await this.#messages.next();
      return next.done ? next : { done: false, value: [next.value, ...this.#takeAll()] };
    } catch (error) {
      handled(this.#pending!);
      throw error;
    } finally {
      this.#pending = undefined;
    }
  }

  #takeAll(): Message[] {
    return this.#messages.isLeft ? [] : this.#inbox.takeAll();
  }

  /** Leaves the loop. */
  return(): Promise<IteratorReturnResult<undefined>> {
    return this.#messages.return();
  }
}

export function endsIteration({ clean, closeCode }: Omit<End, "error">): boolean {
  return clean && (closeCode === 1000 || closeCode === 1001 || closeCode === 1005);
}

export function alreadyAwaited(): DOMException {
  return invalidState("Cannot receive: an earlier receive() waits for a message", "busy");
}

/**
 * A message that may still be arriving, as a stream of its pieces: strings of a text message, bytes of a
 * binary one. Each piece of bytes has a buffer of its own.
 */
export type IncomingMessage =
  | { readonly type: "text"; readonly readable: ReadableStream<string> }
  | { readonly type: "binary"; readonly readable: ReadableStream<Uint8Array> };

interface WaitingMessage {
  readonly type: "text" | "binary";
  readonly pieces: Inbox<Message>;
}

/** Turns the pieces of messages into a stream of streams. */
class MessageStreams {
  readonly readable: ReadableStream<IncomingMessage>;
  readonly #budget: Budget;
  readonly #messages: Inbox<WaitingMessage>;
  #current: Inbox<Message> | undefined;
  #skipping = false;

  /** @param reader Told when the reader of the messages cancels. */
  constructor(budget: Budget, reader: StreamReader) {
    this.#budget = budget;
    this.#messages = new Inbox(budget, () => STREAM_OVERHEAD);
    const leave = (reason: unknown) => {
      reader.leave(reason);
      this.#clear();
    };
    this.readable = this.#messages.stream({ leave }, (message) => this.#present(message));
  }

  /** Drops the waiting messages with their pieces, which count for themselves. */
  #clear(): void {
    const messages = this.#messages;
    for (let next = messages.take(); next !== undefined; next = messages.take()) {
      next.pieces.clear();
    }
  }

  get awaited(): boolean {
    return this.#messages.waiter !== undefined || this.#current?.waiter !== undefined;
  }

  push(fragment: Fragment): void {
    const { data, messageFinished } = fragment;
    if (this.#current === undefined && !this.#skipping) this.#begin(fragment.type);
    if (data.length > 0) this.#current?.push(typeof data === "string" ? data : ownBytes(data));
    if (!messageFinished) return;
    this.#current?.end(CLEAN);
    this.#current = undefined;
    this.#skipping = false;
  }

  /** Drops the rest of the current message. Its reader gets the error. */
  drop(): void {
    if (this.#current === undefined) return;
    const message = "The rest of the message came after close(), and there was no room for it";
    this.#cut(webSocketError(message, 1000, "", undefined, "dropped"));
  }

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
    const leave = () => {
      if (this.#current !== pieces) return;
      this.#current = undefined;
      this.#skipping = true;
    };
    const readable = pieces.stream({ leave }, unchanged);
    // All pieces have the type of the message.
    return { type, readable } as IncomingMessage;
  }

  #cut(error: unknown): void {
    this.#current?.end({ clean: false, error });
    this.#current = undefined;
  }
}

/** The platform's own class, if it has one. Its errors carry a code too. */
const { WebSocketError: Native } = globalThis as unknown as {
  WebSocketError?: typeof WebSocketError;
};

/**
 * Returns what to close with when a stream is cancelled or aborted. A WebSocketError gives the code, if a
 * script may send that code; an error of another connection may have any. For another error it is 1011,
 * unless the connection follows the standard, which has no code for it.
 */
export function closeInfoOf(reason: unknown, standard: boolean): CloseInfo {
  const slots = slotsOf(reason);
  if (slots === undefined) {
    return !standard && isFailure(reason) ? { closeCode: 1011 } : {};
  }
  const { closeCode, reason: text } = slots;
  return closeCode !== null && isScriptCloseCode(closeCode) ? { closeCode, reason: text } : {};
}

/**
 * Returns the code and reason of a WebSocketError, of this library or of the platform. Uses the getters
 * of the class, because properties of the error itself do not count.
 */
function slotsOf(reason: unknown): { closeCode: number | null; reason: string } | undefined {
  for (const { prototype } of [WebSocketError, Native ?? WebSocketError]) {
    try {
      return {
        closeCode: Reflect.get(prototype, "closeCode", reason),
        reason: Reflect.get(prototype, "reason", reason),
      };
    } catch {
      // It is not an error of this class.
    }
  }
}

/**
 * Whether a reason without a code is a failure. An AbortError is a deliberate end, and an object that
 * only looks like a WebSocketError is not trusted.
 */
function isFailure(reason: unknown): boolean {
  try {
    return reason instanceof Error && !(reason instanceof WebSocketError) &&
      reason.name !== "AbortError";
  } catch {
    // A getter or a proxy of the caller has thrown.
    return false;
  }
}
