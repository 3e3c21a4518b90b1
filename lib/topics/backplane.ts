/** The contract between topics and the engine that carries their messages, and the positions of messages. */
import { wrongType, wrongValue } from "../core/error_code.ts";
import { kindOf } from "../core/options.ts";

/**
 * The place of a message in the history of its topic. On the wire and in logs a position is written as
 * `epoch:offset`.
 */
export interface Position {
  /**
   * Names the history: 1 to 64 letters, digits, `-` or `_`. Offsets of different epochs cannot be
   * compared. An engine that has lost its history begins a new epoch.
   */
  readonly epoch: string;
  /**
   * Grows with each message of a topic, from 0, which is the place before the first message. It may skip
   * numbers. It is a safe integer.
   */
  readonly offset: number;
}

/** A message as a backplane carries it. */
export interface BackplaneMessage {
  /** What was given to `publish()`, as bytes or as text. */
  readonly data: Uint8Array | string;
  /** The place of the message. Undefined without history. */
  readonly position: Position | undefined;
}

/** Result of {@linkcode Backplane.read}. */
export interface HistoryRead {
  /** Whether `messages` are all messages after `since`. False if some are gone, or may be. */
  readonly recovered: boolean;
  /**
   * The messages after `since`, the oldest first. Empty if `recovered` is false. The last ones are missing
   * if there are more than `maxBytes` of the call.
   */
  readonly messages: readonly BackplaneMessage[];
  /** The place of the last message of the topic, whether or not it is still in the history. */
  readonly position: Position;
}

/** Receives the messages of one subscription of a backplane. No method of a receiver throws. */
export interface BackplaneReceiver {
  /**
   * Takes a message. Messages of one topic come in the order in which the engine took them.
   *
   * @param topic The name of the topic: the subscribed name, or a name that begins with the prefix.
   */
  message(topic: string, message: BackplaneMessage): void;
  /**
   * Says that messages may be lost from now on, because the engine cannot be reached. Called at most once
   * before `restored()`. All receivers that an outage interrupts get the same error, so that `onError` is
   * called once.
   */
  interrupted(error: unknown): void;
  /**
   * Says that messages come again after `interrupted()`. Messages that the engine takes after this call
   * are not lost. Those from before the call are only in the history, if the engine keeps one.
   */
  restored(): void;
  /**
   * Reports what went wrong without a loss of messages, for example that another client has sent the engine
   * something that is not a message.
   */
  error(error: unknown): void;
}

/** Options of the calls of a backplane. */
export interface BackplaneCall {
  /**
   * Aborts when the caller no longer waits. The call may reject then. The caller does not depend on it: a
   * call that never settles is given up too.
   */
  readonly signal: AbortSignal;
}

/** Options of {@linkcode Backplane.read}. */
export interface ReadCall extends BackplaneCall {
  /**
   * Maximum number of bytes of the messages that are returned. Each message counts 768 bytes more, and at
   * least one is returned, if there is any. If the last one is before `position`, the caller reads again
   * after it. A backplane may return fewer messages, or all of them. By default, all are returned.
   */
  readonly maxBytes?: number | undefined;
}

/**
 * Carries the messages of topics between processes. Each process has one backplane, for one `Topics`.
 * The contract is tested by `tests/topics/contract.ts`.
 *
 * - All messages of a process go through its backplane, and come back to the process if it has
 *   subscribed. All subscribers of a topic therefore see one order.
 * - A name is subscribed at most once at a time, however many subscribers it has in the process. If
 *   several subscriptions match a topic, such as `room/42` and `room/*`, each of them gets the message.
 * - Data are opaque bytes of any length, including 0. Nobody changes the bytes that are passed to a backplane
 *   or a receiver, so that a backplane may keep them without a copy. Text without lone surrogates stands
 *   for the bytes of its UTF-8: a backplane may turn one into the other, as its engine needs it.
 * - After a subscription has been confirmed, the backplane keeps it over all outages, and calls
 *   `interrupted()` and `restored()`. It does not report a message twice to a receiver.
 * - The caller owns the client of the engine. `close()` does not close a client that was passed in.
 */
export interface Backplane {
  /** Whether messages have positions, and `read()` exists. */
  readonly keepsHistory: boolean;

  /**
   * Subscribes to a topic.
   *
   * @param topic A name, or a prefix followed by `*`, which stands for any number of any characters. A
   * name has no other `*`; all other characters stand for themselves, even those that are special for
   * the engine.
   * @param receiver Gets the messages. Messages may come before the promise resolves.
   * @returns A promise that resolves when the engine has confirmed the subscription: each message that
   * the engine takes from then on is received. It rejects if the engine cannot be reached or refuses;
   * then there is no subscription, and the caller may try again.
   */
  subscribe(topic: string, receiver: BackplaneReceiver, options: BackplaneCall): Promise<void>;

  /**
   * Ends a subscription. After this call, its receiver is not called any more. A call for a topic that
   * is not subscribed, or whose subscription is not confirmed yet, is allowed.
   *
   * @returns A promise that resolves when the engine has confirmed the end, or cannot be reached. The
   * same topic may be subscribed again before that.
   */
  unsubscribe(topic: string): Promise<void>;

  /**
   * Publishes a message. Messages that are published by one process to one topic, also without awaiting
   * the calls, keep their order. A message that was refused must not be stored after a later one.
   *
   * @param topic A name, without `*`.
   * @returns A promise that resolves when the engine has taken the message: with its position if there
   * is a history. It rejects if the engine has not confirmed the message; the message may have been
   * taken all the same.
   */
  publish(
    topic: string,
    data: Uint8Array | string,
    options: BackplaneCall,
  ): Promise<Position | undefined>;

  /**
   * Reads from the history. Only with `keepsHistory`.
   *
   * @param topic A name, without `*`.
   * @param since The position after which to read. If undefined, `messages` is empty and `recovered` is
   * true: only the current position is asked for.
   */
  read?(topic: string, since: Position | undefined, options: ReadCall): Promise<HistoryRead>;

  /**
   * Stores who is subscribed to a topic in a process. Replaces what the process has stored before. The three
   * methods for presence exist together or not at all.
   *
   * @param topic A name, without `*`.
   * @param owner The id of the process: 1 to 64 letters, digits, `-` and `_`.
   * @param data Opaque bytes.
   * @param ttl Time after which the engine forgets the data, in milliseconds.
   */
  announce?(
    topic: string,
    owner: string,
    data: Uint8Array,
    ttl: number,
    options: BackplaneCall,
  ): Promise<void>;

  /** Removes what a process has announced for a topic. */
  withdraw?(topic: string, owner: string, options: BackplaneCall): Promise<void>;

  /** Returns the data of all processes that have announced members of a topic, in any order. */
  members?(topic: string, options: BackplaneCall): Promise<readonly Uint8Array[]>;

  /**
   * Ends all subscriptions and frees what the backplane holds: listeners, timers and the connections
   * that it has made. Waiting calls reject. May be called again.
   */
  close(): Promise<void>;
}

const POSITION = /^([A-Za-z0-9_-]{1,64}):(0|[1-9]\d{0,15})$/;

/** Writes a position as `epoch:offset`. */
export function formatPosition({ epoch, offset }: Position): string {
  return `${epoch}:${offset}`;
}

/**
 * Parses a position that is written as `epoch:offset`.
 *
 * @throws {TypeError} If the value is not a string.
 * @throws {RangeError} If the string is not a position.
 */
export function parsePosition(text: string): Position {
  if (typeof text !== "string") {
    throw wrongType(`Expected a position to be a string, received ${kindOf(text)}`);
  }
  const [, epoch, digits] = POSITION.exec(text) ?? [];
  const offset = Number(digits);
  if (epoch !== undefined && Number.isSafeInteger(offset)) return { epoch, offset };
  throw wrongValue(`Expected a position such as "epoch:12", received ${JSON.stringify(text)}`);
}

/**
 * Checks a position, and parses one that is written as `epoch:offset`.
 *
 * @throws {TypeError} If the value is neither a position nor a string.
 * @throws {RangeError} If the position is not valid.
 */
export function checkPosition(value: unknown): Position {
  if (typeof value === "string") return parsePosition(value);
  const { epoch, offset } = Object(value) as Partial<Position>;
  if (typeof epoch === "string" && typeof offset === "number") {
    return parsePosition(formatPosition({ epoch, offset }));
  }
  throw wrongType(`Expected a position, received ${kindOf(value)}`);
}

/** Whether both positions are of one epoch, and the first one is at or before the second. */
export function isCovered(a: Position | undefined, b: Position | undefined): boolean {
  return a !== undefined && b !== undefined && a.epoch === b.epoch && a.offset <= b.offset;
}

/** Maximum length of a topic's name, in bytes of UTF-8. */
export const MAX_TOPIC_LENGTH = 255;

const utf8 = new TextEncoder();

/** Characters that no name has: control characters (C0, DEL, C1), and halves of surrogate pairs. */
// deno-lint-ignore no-control-regex
const FORBIDDEN = /[\u0000-\u001f\u007f-\u009f]|\p{Surrogate}/u;

/**
 * Checks the name of a topic: 1 to 255 bytes of UTF-8 without control characters and lone surrogates.
 * An asterisk may only end a name, which makes the name a prefix.
 *
 * @param pattern Whether the name may be a prefix.
 * @throws {TypeError} If the name is not a string.
 * @throws {RangeError} If the name is not valid.
 */
export function checkTopic(name: unknown, pattern: boolean): void {
  if (typeof name !== "string") {
    throw wrongType(`Expected the name of a topic to be a string, received ${kindOf(name)}`);
  }
  const problem = problemOf(name, pattern);
  if (problem !== undefined) throw wrongValue(`Expected the name of a topic ${problem}`);
}

function problemOf(name: string, pattern: boolean): string | undefined {
  // No code unit takes more than 3 bytes, and a long name need not be encoded.
  const isLong = name.length > MAX_TOPIC_LENGTH ||
    (3 * name.length > MAX_TOPIC_LENGTH && utf8.encode(name).length > MAX_TOPIC_LENGTH);
  if (name === "") return "not to be empty";
  if (isLong) return `to have at most ${MAX_TOPIC_LENGTH} bytes of UTF-8`;
  if (FORBIDDEN.test(name)) return "to have no control characters and no lone surrogates";
  const star = name.indexOf("*");
  if (star < 0 || (pattern && star === name.length - 1)) return undefined;
  return pattern
    ? "to have an asterisk only at its end"
    : "to have no asterisk: a message has one topic";
}
