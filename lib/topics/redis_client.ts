/** The connections that a backplane makes with the Redis client of the caller: redis, ioredis or Bun's. */
import { abortable, handled, sleep } from "../abortable.ts";
import { failure, invalidState, wrongType } from "../core/error.ts";
import { backgroundTimer, Countdown } from "../timers.ts";

/**
 * A client of Redis: of the npm package `redis` (`createClient()`), of `ioredis` (`new Redis()`), or
 * `RedisClient` of Bun. The backplane uses it only to make connections of its own.
 */
export interface RedisClient {
  /** Makes a client with the same options. */
  duplicate(...args: never[]): unknown;
}

/** Called by a connection. */
export interface RedisHandlers {
  /** Takes a message. `pattern` is the subscribed pattern, if the channel was not subscribed itself. */
  message(text: string, channel: string, pattern?: string): void;
  /** The connection has ended. It may be called more than once. */
  end(error: unknown): void;
}

/** One connection, which does not reconnect. */
export interface RedisConnection {
  /** Settles when the connection has opened or failed. */
  readonly opened: Promise<unknown>;
  command(args: string[]): Promise<unknown>;
  subscribe(channel: string, isPattern: boolean): Promise<unknown>;
  unsubscribe(channel: string, isPattern: boolean): Promise<unknown>;
  /** Ends the connection. Commands that wait reject. */
  destroy(): void;
}

/** Opens a connection. */
export type OpenRedis = (handlers: RedisHandlers) => RedisConnection;

type Callback = (...args: never[]) => void;

interface NodeRedis extends RedisClient {
  readonly options?: { socket?: object };
  connect(): Promise<unknown>;
  sendCommand(args: string[]): Promise<unknown>;
  subscribe(channel: string, listener: (text: string, channel: string) => void): Promise<unknown>;
  pSubscribe(channel: string, listener: (text: string, channel: string) => void): Promise<unknown>;
  unsubscribe(channel: string): Promise<unknown>;
  pUnsubscribe(channel: string): Promise<unknown>;
  on(event: string, listener: Callback): void;
  destroy(): void;
}

interface IoRedis extends RedisClient {
  connect(): Promise<unknown>;
  call(name: string, ...args: string[]): Promise<unknown>;
  subscribe(channel: string): Promise<unknown>;
  psubscribe(channel: string): Promise<unknown>;
  unsubscribe(channel: string): Promise<unknown>;
  punsubscribe(channel: string): Promise<unknown>;
  on(event: string, listener: Callback): void;
  disconnect(): void;
}

interface BunRedis extends RedisClient {
  readonly connected: boolean;
  connect(): Promise<unknown>;
  send(name: string, args: string[]): Promise<unknown>;
  subscribe(channel: string, listener: (text: string, channel: string) => void): Promise<unknown>;
  unsubscribe(channel: string): Promise<unknown>;
  onconnect: (() => void) | null;
  onclose: ((error: unknown) => void) | null;
  close(): void;
}

/**
 * Returns how to open connections with a client. The client is recognized by its methods.
 *
 * @throws {TypeError} If the value is not a client of redis, ioredis or Bun.
 */
export function opener(client: RedisClient): OpenRedis {
  const has = (...names: string[]) =>
    names.every((name) => typeof Object(client)[name as "duplicate"] === "function");
  if (has("duplicate", "sendCommand", "pSubscribe")) return openNodeRedis(client as NodeRedis);
  if (has("duplicate", "call", "psubscribe")) return openIoRedis(client as IoRedis);
  if (has("duplicate", "send", "subscribe")) return openBunRedis(client as BunRedis);
  throw wrongType("Expected a client of redis, ioredis or Bun");
}

type Duplicate<T> = (options: object) => T;

function openNodeRedis(client: NodeRedis): OpenRedis {
  return ({ message, end }) => {
    const socket = { ...client.options?.socket, reconnectStrategy: false };
    const options = { disableOfflineQueue: true, socket };
    const made = (client.duplicate as unknown as Duplicate<NodeRedis>).call(client, options);
    made.on("error", end);
    made.on("end", () => end(undefined));
    const plain = (text: string, channel: string) => message(text, channel);
    const opened = made.connect();
    const destroy = () => {
      try {
        made.destroy();
      } catch {
        // The client has ended already.
      }
    };
    return {
      opened,
      command: (args) => made.sendCommand(args),
      subscribe: (channel, isPattern) =>
        isPattern
          ? made.pSubscribe(channel, (text, from) => message(text, from, channel))
          : made.subscribe(channel, plain),
      unsubscribe: (channel, isPattern) =>
        isPattern ? made.pUnsubscribe(channel) : made.unsubscribe(channel),
      // A client that is destroyed while it connects keeps its socket.
      destroy: () => void opened.then(destroy, destroy),
    };
  };
}

function openIoRedis(client: IoRedis): OpenRedis {
  return ({ message, end }) => {
    const made = (client.duplicate as unknown as Duplicate<IoRedis>).call(client, {
      lazyConnect: true,
      retryStrategy: () => null,
      enableOfflineQueue: false,
      // Otherwise ioredis might publish a message twice.
      autoResendUnfulfilledCommands: false,
      autoResubscribe: false,
    });
    made.on("error", end);
    made.on("end", () => end(undefined));
    made.on("message", (channel: string, text: string) => message(text, channel));
    made.on(
      "pmessage",
      (pattern: string, channel: string, text: string) => message(text, channel, pattern),
    );
    return {
      opened: made.connect(),
      command: ([name, ...args]) => made.call(name, ...args),
      subscribe: (channel, isPattern) =>
        isPattern ? made.psubscribe(channel) : made.subscribe(channel),
      unsubscribe: (channel, isPattern) =>
        isPattern ? made.punsubscribe(channel) : made.unsubscribe(channel),
      destroy: () => made.disconnect(),
    };
  };
}

/** Time between two looks at whether Bun's client is connected, in milliseconds. */
const LOOK_INTERVAL = 100;

/** Bun's client has no way to receive the messages of a pattern. */
function openBunRedis(client: BunRedis): OpenRedis {
  return ({ message, end }) => {
    let made: BunRedis | undefined;
    let isDestroyed = false;
    let cancelTimer = () => {};
    // Bun's client calls `onclose` only when it no longer tries to connect.
    const look = () => {
      if (!made!.connected) return end(undefined);
      cancelTimer = backgroundTimer(look, LOOK_INTERVAL);
    };
    const listener = (text: string, channel: string) => message(text, channel);
    const destroy = () => {
      isDestroyed = true;
      cancelTimer();
      made?.close();
    };
    const open = async () => {
      made = await (client.duplicate as () => Promise<BunRedis>).call(client);
      if (isDestroyed) return made.close();
      await made.connect();
      made.onclose = end;
      // Bun's client reconnects by itself, and then its subscriptions are gone.
      made.onconnect = () => end(undefined);
      if (!isDestroyed) look();
    };
    return {
      opened: open(),
      command: ([name, ...args]) => made!.send(name, args),
      subscribe: async (channel, isPattern) => {
        if (!isPattern) return await made!.subscribe(channel, listener);
        const message = "Bun's Redis client has no patterns: use redis or ioredis";
        throw invalidState(message, "unsupported");
      },
      unsubscribe: (channel) => made!.unsubscribe(channel),
      destroy,
    };
  };
}

/** Time between two pings of a connection, and the time for the answer, in milliseconds. */
const PING_INTERVAL = 5_000;
const PING_TIMEOUT = 10_000;
const OPEN_TIMEOUT = 5_000;
const LONGEST_PAUSE = 1_000;

/** Whether an error is an answer of Redis. Other errors come from the client. */
export function isAnswer(error: unknown): boolean {
  return /^[A-Z]{3,} |^[A-Z]+ERR/.test(String((error as Error)?.message));
}

/**
 * Lets the calls of a connection reject at its end, in their order. Clients leave calls waiting that come
 * after the end, or reject them before earlier ones. Therefore a command without an answer ends the connection.
 */
function endingWith(
  connection: RedisConnection,
  ended: AbortSignal,
  end: (cause: unknown) => void,
): RedisConnection {
  const failed = (error: unknown): never => {
    if (!isAnswer(error)) end(error);
    throw error;
  };
  return {
    ...connection,
    command: (args) => abortable(connection.command(args).catch(failed), ended),
    subscribe: (...args) => abortable(connection.subscribe(...args), ended),
    unsubscribe: (...args) => abortable(connection.unsubscribe(...args), ended),
  };
}

/** What a line tells. */
export interface LineHandlers {
  message(text: string, channel: string, pattern?: string): void;
  /** Prepares a new connection before others may use it. */
  up(connection: RedisConnection): Promise<void>;
  /** There is no connection, or an attempt to make one has failed. */
  down(error: unknown): void;
}

interface Waiting {
  resolve(connection: RedisConnection): void;
  reject(error: unknown): void;
}

/** Keeps one connection to Redis open: makes another one when it has ended or does not answer. */
export class RedisLine {
  readonly #open: OpenRedis;
  readonly #handlers: LineHandlers;
  readonly #end = new AbortController();
  #connection: RedisConnection | undefined;
  readonly #waiting = new Set<Waiting>();
  #isRunning = false;

  constructor(open: OpenRedis, handlers: LineHandlers) {
    this.#open = open;
    this.#handlers = handlers;
  }

  /**
   * The connection, as soon as there is one. Waiting calls go on in the order in which they came. They
   * reject if the attempt to connect fails.
   */
  async ready(signal: AbortSignal): Promise<RedisConnection> {
    signal.throwIfAborted();
    this.#end.signal.throwIfAborted();
    if (!this.#isRunning) void this.#run();
    if (this.#connection !== undefined) return this.#connection;
    let waiting!: Waiting;
    const ready = new Promise<RedisConnection>((resolve, reject) => waiting = { resolve, reject });
    this.#waiting.add(waiting);
    try {
      return await abortable(ready, signal);
    } finally {
      this.#waiting.delete(waiting);
    }
  }

  /** The current connection, if there is one. */
  get connection(): RedisConnection | undefined {
    return this.#connection;
  }

  get isClosed(): boolean {
    return this.#end.signal.aborted;
  }

  /** Runs a command when there is a connection. */
  async command(args: string[], signal: AbortSignal): Promise<unknown> {
    const connection = await this.ready(signal);
    return await abortable(connection.command(args), signal);
  }

  close(): void {
    this.#end.abort(invalidState("The backplane is closed", "not-open"));
    this.#reject(this.#end.signal.reason);
  }

  #reject(error: unknown): void {
    for (const { reject } of this.#waiting) reject(error);
  }

  async #run(): Promise<void> {
    this.#isRunning = true;
    for (let pause = 0; !this.#end.signal.aborted;) {
      try {
        await this.#connect(() => pause = 0);
      } catch (error) {
        if (this.#end.signal.aborted) return;
        this.#handlers.down(error);
        this.#reject(error);
      }
      pause = Math.min(2 * pause + 20, LONGEST_PAUSE);
      await sleep(pause, this.#end.signal).catch(() => {});
    }
  }

  /** Opens a connection, and waits until it has ended. Rejects then. */
  async #connect(onOpen: () => void): Promise<never> {
    const ended = new AbortController();
    const end = (cause: unknown) =>
      ended.abort(failure("The connection to Redis has ended", "backplane-failed", cause));
    const { message } = this.#handlers;
    const stop = () => ended.abort(this.#end.signal.reason);
    this.#end.signal.addEventListener("abort", stop, { once: true });
    let opened: RedisConnection | undefined;
    try {
      opened = this.#open({ message, end });
      await this.#within(OPEN_TIMEOUT, handled(opened.opened), ended.signal);
      const connection = endingWith(opened, ended.signal, end);
      await this.#within(PING_TIMEOUT, this.#handlers.up(connection), ended.signal);
      this.#connection = connection;
      onOpen();
      for (const { resolve } of this.#waiting) resolve(connection);
      for (;;) {
        await sleep(PING_INTERVAL, ended.signal);
        await this.#within(PING_TIMEOUT, connection.command(["PING"]), ended.signal);
      }
    } finally {
      this.#end.signal.removeEventListener("abort", stop);
      this.#connection = undefined;
      end(undefined);
      opened?.destroy();
    }
  }

  async #within(timeout: number, promise: Promise<unknown>, signal: AbortSignal): Promise<void> {
    const late = new AbortController();
    const countdown = new Countdown(
      () => late.abort(failure("Redis does not answer", "backplane-failed")),
      timeout,
    );
    try {
      await abortable(abortable(promise, signal), late.signal);
    } finally {
      countdown.cancel();
    }
  }
}
