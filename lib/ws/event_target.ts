/** The events and listeners of the DOM on top of an EventEmitter. */
import type { Buffer } from "node:buffer";
import { EventEmitter } from "node:events";

/**
 * A message as 'message' listeners receive it: text and "nodebuffer" as a Buffer. With the type "blob", it
 * is a Blob, which the type of `ws` leaves out.
 */
export type RawData = Buffer | ArrayBuffer | Buffer[];

/** The data of a message event. Text is a string. */
export type Data = string | RawData;

/** A listener for an event with unknown arguments. */
// deno-lint-ignore no-explicit-any
export type AnyListener<T> = (this: T, ...args: any[]) => void;

/** A listener for an event with the arguments `A`. */
export type Listener<T, A> = A extends unknown[] ? (this: T, ...args: A) => void : never;

/** The methods of an EventEmitter, with the parameters of the listeners for the events `E`. */
export interface Listening<E> {
  /** Adds a listener. */
  on<K extends keyof E>(event: K, listener: Listener<this, E[K]>): this;
  /** Adds a listener. */
  on(event: string | symbol, listener: AnyListener<this>): this;
  /** Adds a listener for one event. */
  once<K extends keyof E>(event: K, listener: Listener<this, E[K]>): this;
  /** Adds a listener for one event. */
  once(event: string | symbol, listener: AnyListener<this>): this;
  /** Removes a listener. */
  off<K extends keyof E>(event: K, listener: Listener<this, E[K]>): this;
  /** Removes a listener. */
  off(event: string | symbol, listener: AnyListener<this>): this;
  /** Adds a listener. */
  addListener<K extends keyof E>(event: K, listener: Listener<this, E[K]>): this;
  /** Adds a listener. */
  addListener(event: string | symbol, listener: AnyListener<this>): this;
  /** Removes a listener. */
  removeListener<K extends keyof E>(event: K, listener: Listener<this, E[K]>): this;
  /** Removes a listener. */
  removeListener(event: string | symbol, listener: AnyListener<this>): this;
}

/** An EventEmitter with the events `E`. */
export type Emitter<E> = Omit<EventEmitter, keyof Listening<E>> & Listening<E>;

/** The class EventEmitter. Its listeners know their parameters, and `this`. */
export const Emitter: new <E>() => Emitter<E> = EventEmitter as never;

/** An event of a WebSocket. */
export class Event<T = unknown> {
  readonly #type: string;
  readonly #target: T | null;

  /** Makes an event. */
  constructor(type: string, target: T | null = null) {
    this.#type = type;
    this.#target = target;
  }

  /** The name of the event. */
  get type(): string {
    return this.#type;
  }

  /** The WebSocket. */
  get target(): T {
    return this.#target as T;
  }
}

/** The end of a connection. */
export class CloseEvent<T = unknown> extends Event<T> {
  readonly #init: { code?: number; reason?: string; wasClean?: boolean };

  /** Makes an event. */
  constructor(
    type: string,
    init: { code?: number; reason?: string; wasClean?: boolean } = {},
    target: T | null = null,
  ) {
    super(type, target);
    this.#init = init;
  }

  /** The close code. */
  get code(): number {
    return this.#init.code ?? 0;
  }

  /** The reason. */
  get reason(): string {
    return this.#init.reason ?? "";
  }

  /** Whether both ends have sent a Close frame. */
  get wasClean(): boolean {
    return this.#init.wasClean ?? false;
  }
}

/** An error. A 'close' event follows. */
export class ErrorEvent<T = unknown> extends Event<T> {
  readonly #init: { error?: unknown; message?: string };

  /** Makes an event. */
  constructor(
    type: string,
    init: { error?: unknown; message?: string } = {},
    target: T | null = null,
  ) {
    super(type, target);
    this.#init = init;
  }

  /** The error. */
  // deno-lint-ignore no-explicit-any
  get error(): any {
    return this.#init.error ?? null;
  }

  /** The message of the error. */
  get message(): string {
    return this.#init.message ?? "";
  }
}

/** A message. */
export class MessageEvent<T = unknown> extends Event<T> {
  readonly #data: Data;

  /** Makes an event. */
  constructor(type: string, init: { data?: unknown } = {}, target: T | null = null) {
    super(type, target);
    this.#data = (init.data ?? null) as Data;
  }

  /** The message. Text is a string. */
  get data(): Data {
    return this.#data;
  }
}

for (
  const [{ prototype }, names] of [
    [Event, ["type", "target"]],
    [CloseEvent, ["code", "reason", "wasClean"]],
    [ErrorEvent, ["error", "message"]],
    [MessageEvent, ["data"]],
  ] as const
) {
  for (const name of names) Object.defineProperty(prototype, name, { enumerable: true });
}

/** The events that have an event object. */
export interface WebSocketEventMap<T = unknown> {
  /** The connection is open. */
  open: Event<T>;
  /** An error. */
  error: ErrorEvent<T>;
  /** The connection has ended. */
  close: CloseEvent<T>;
  /** A message. */
  message: MessageEvent<T>;
}

/** Options of `addEventListener()`. */
export interface EventListenerOptions {
  /**
   * Whether the listener is removed when it is called.
   * @default {false}
   */
  once?: boolean | undefined;
}

/** A listener that is given an event object. */
export type EventListener<E> = ((event: E) => void) | { handleEvent(event: E): void };

/** The listener that was added with `addEventListener()`, or set with an attribute. */
const GIVEN = Symbol("listener");
const IS_ATTRIBUTE = Symbol("attribute");

interface Wrapper {
  // deno-lint-ignore no-explicit-any
  (...args: any[]): void;
  [GIVEN]?: unknown;
  [IS_ATTRIBUTE]?: boolean;
}

/** Makes the event object from the arguments of the EventEmitter's event. */
const MAKERS: {
  readonly [type: string]: <T>(target: T, wasClean: () => boolean, args: unknown[]) => Event<T>;
} = {
  open: (target) => new Event("open", target),
  message: (target, _, [data, isBinary]) =>
    new MessageEvent("message", { data: isBinary ? data : `${data}` }, target),
  close: (target, wasClean, [code, reason]) =>
    new CloseEvent(
      "close",
      { code: code as number, reason: `${reason}`, wasClean: wasClean() },
      target,
    ),
  error: (target, _, [error]) =>
    new ErrorEvent("error", { error, message: (error as Error).message }, target),
};

/** Adds a listener that is given an event object. `wasClean` tells whether a close was clean. */
export function addListener<E>(
  emitter: EventEmitter,
  type: string,
  given: EventListener<E>,
  options: EventListenerOptions & { isAttribute?: boolean },
  wasClean: () => boolean,
): void {
  // As in the DOM, null is no listener.
  if (!Object.hasOwn(MAKERS, type) || given === null) return;
  const { once = false, isAttribute = false } = options;
  if (!isAttribute && find(emitter, type, given) !== undefined) return;
  const make = MAKERS[type];
  const wrapper: Wrapper = (...args) => {
    const event = make(emitter, wasClean, args) as E;
    if (typeof given === "object") given.handleEvent(event);
    else given.call(emitter, event);
  };
  wrapper[GIVEN] = given;
  wrapper[IS_ATTRIBUTE] = isAttribute;
  if (once) emitter.once(type, wrapper);
  else emitter.on(type, wrapper);
}

/** Removes a listener that was added with {@linkcode addListener}. */
export function removeListener(emitter: EventEmitter, type: string, given: unknown): void {
  const found = find(emitter, type, given);
  if (found !== undefined) emitter.removeListener(type, found);
}

function find(emitter: EventEmitter, type: string, given: unknown): Wrapper | undefined {
  return wrappers(emitter, type).find((one) => one[GIVEN] === given && !one[IS_ATTRIBUTE]);
}

function wrappers(emitter: EventEmitter, type: string): Wrapper[] {
  return emitter.listeners(type) as Wrapper[];
}

/** Returns the listener that an attribute such as `onmessage` has set. */
export function attributeOf(emitter: EventEmitter, type: string): unknown {
  return wrappers(emitter, type).find((one) => one[IS_ATTRIBUTE])?.[GIVEN] ?? null;
}

/** Removes the listener that an attribute has set. */
export function clearAttribute(emitter: EventEmitter, type: string): void {
  const found = wrappers(emitter, type).find((one) => one[IS_ATTRIBUTE]);
  if (found !== undefined) emitter.removeListener(type, found);
}
