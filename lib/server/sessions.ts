/**
 * The connections that one handler serves, from the handshake to the end, and their shutdown.
 *
 * @module
 */
import { checkCloseInfo } from "../connection/closing.ts";
import { CloseCode, type CloseInfo } from "../core/close.ts";
import { ConnectionCount, type ConnectionLimits } from "./connection_limits.ts";
import { HandshakeError, type HandshakeErrorCode, invalidState } from "../core/error.ts";
import { checkKnown, checkNumber, type OptionNames } from "../core/options.ts";
import { type Listeners, report } from "./hooks.ts";
import { onAbort } from "../abortable.ts";
import { driverOf, type WebSocketConnection } from "../connection/connection.ts";
import type { Address } from "../transport.ts";
import { backgroundTimer, nextTurn, timer } from "../timers.ts";

/**
 * What is done with each connection. A handler that returns a promise, or another thenable, owns the
 * connection until that settles: the connection is then closed with 1000, or with 1011 if the promise
 * rejects, and `onError` is told. A handler that returns anything else leaves the connection open until
 * it ends by itself.
 *
 * So `async (ws) => { ws.readable.pipeTo(ws.writable); }`, which does not await the pipe, closes at once;
 * `onError` is told when somebody still waits for a message then.
 */
export type Handler = (ws: WebSocketConnection) => unknown;

/** How a server shuts down: the code and reason to close with, and how long that may take. */
export interface ShutdownOptions extends CloseInfo {
  /**
   * Maximum time for handlers to settle and connections to end, in milliseconds. Then the transports are
   * cut, and handlers that have not settled are not waited for any more. 0 cuts at once, Infinity
   * disables the limit.
   *
   * @default {30_000}
   */
  timeout?: number;
}

const SHUTDOWN_OPTIONS: OptionNames<ShutdownOptions> = {
  closeCode: true,
  reason: true,
  timeout: checkNumber,
};

/** What a server has done so far. */
export interface ServerStats {
  /** How many connections were opened. */
  readonly opened: number;
  /** How many of them have ended. */
  readonly ended: number;
  /** How many handshakes were turned down, by the `code` of the error. */
  readonly refused: Readonly<Partial<Record<HandshakeErrorCode, number>>>;
  /** Messages received completely, of all connections. */
  readonly messagesReceived: number;
  /** Messages sent, of all connections. */
  readonly messagesSent: number;
  /** Bytes received, including frame headers, of all connections. */
  readonly bytesReceived: number;
  /** Bytes given to the transports, including frame headers, of all connections. */
  readonly bytesSent: number;
}

const TOTALS = ["messagesReceived", "messagesSent", "bytesReceived", "bytesSent"] as const;

type Totals = Record<typeof TOTALS[number], number>;

function addTo(totals: Totals, stats: Readonly<Totals>): void {
  for (const name of TOTALS) totals[name] += stats[name];
}

/** Maximum time for transports that were cut to end, in milliseconds. */
const CUT_TIMEOUT = 1000;

/** The handshake of one connection, or its answer to a fault, with which it then rejects. */
export type Open = (fault?: HandshakeError) => Promise<WebSocketConnection>;

/** What {@linkcode Sessions} need to know. */
export interface SessionsOptions extends ConnectionLimits, Listeners {
  /** Shuts down when aborted. */
  signal?: AbortSignal;
}

/** How many clients are answered with 503 at a time. The others are cut. */
const MAX_REFUSALS = 100;

const FORGOTTEN =
  "The handler's promise resolved while a message was being waited for, and the connection was closed. " +
  "Await or return the promise of pipeTo() or of the loop; a handler that returns no promise leaves the " +
  "connection open";

/** The connections of one server. Internal. */
export class Sessions {
  readonly connections: Set<WebSocketConnection> = new Set();
  /** Resolves when `shutdown()` is through. */
  readonly finished: Promise<void>;
  readonly #options: SessionsOptions;
  readonly #handler: Handler;
  /** How many there are to be waited for, from the handshake on. */
  #pending = 0;
  /** Called when there is nothing to wait for any more. */
  #onOver: () => void = () => {};
  /** Whether a shutdown has taken too long. */
  #isCut = false;
  readonly #count: ConnectionCount;
  /** How many TLS handshakes are under way. */
  #shaking = 0;
  /** How many clients are being answered with 503. */
  #refusals = 0;
  readonly #shutdown = new AbortController();
  #stop: () => unknown = () => {};
  #info: CloseInfo = { closeCode: CloseCode.GoingAway };
  #finish!: () => void;
  #opened = 0;
  readonly #refusedBy: Partial<Record<HandshakeErrorCode, number>> = {};
  /** Of the connections that have ended. */
  readonly #totals: Totals = {
    messagesReceived: 0,
    messagesSent: 0,
    bytesReceived: 0,
    bytesSent: 0,
  };

  /** @throws {TypeError} when the handler is none */
  constructor(options: SessionsOptions, handler: Handler) {
    if (typeof handler !== "function") {
      throw new TypeError(`Expected a handler, received ${typeof handler}`);
    }
    this.#options = options;
    this.#count = new ConnectionCount(options);
    this.#handler = handler;
    this.finished = new Promise((resolve) => this.#finish = resolve);
  }

  /** What the server has done so far. */
  get stats(): ServerStats {
    const totals = { ...this.#totals };
    for (const ws of this.connections) addTo(totals, ws.stats);
    const opened = this.#opened;
    return {
      ...{ opened, ended: opened - this.connections.size },
      refused: { ...this.#refusedBy },
      ...totals,
    };
  }

  /** Aborted when it shuts down: ends the handshakes that are under way. */
  get signal(): AbortSignal {
    return this.#shutdown.signal;
  }

  /**
   * Says how to take no more connections, and obeys the signal from now on.
   *
   * @param stop may give a promise that is to be waited for
   */
  start(stop: () => unknown): void {
    this.#stop = stop;
    const { signal } = this.#options;
    this.finished.then(onAbort(signal, () => void this.shutdown()));
  }

  /**
   * Reserves a place for a client whose TLS handshake is about to begin.
   *
   * @returns a function that gives the place back, or undefined if there is no place
   */
  admit(address: Address | undefined): (() => void) | undefined {
    const place = this.#count.enter(address);
    const isRefused = place instanceof HandshakeError;
    // One client at a time goes on without a place, so that it can be answered with 503.
    if (isRefused && this.#shaking > 0) return undefined;
    this.#shaking++;
    let isOver = false;
    return () => {
      if (isOver) return;
      isOver = true;
      this.#shaking--;
      if (!isRefused) this.#count.leave(place);
    };
  }

  /**
   * Serves one more connection.
   *
   * @param open its handshake, which `signal` ends
   * @param address whence it comes
   */
  take(open: Open, address: Address | undefined): void {
    this.#pending++;
    const place = this.#count.enter(address);
    if (place instanceof HandshakeError) return this.#refuse(open, place);
    open().then(
      (ws) => this.#serve(ws, place),
      (error) => {
        this.#count.leave(place);
        this.#refused(error);
        this.#left();
      },
    );
  }

  #refuse(open: Open, error: HandshakeError): void {
    this.#countRefused(error);
    const isTold = this.#refusals++ < MAX_REFUSALS;
    // An error without a status is not answered.
    open(isTold ? error : new HandshakeError(error.message, error.code)).catch(() => {}).then(
      () => {
        this.#refusals--;
        this.#left();
      },
    );
  }

  #countRefused({ code }: HandshakeError): void {
    this.#refusedBy[code] = (this.#refusedBy[code] ?? 0) + 1;
  }

  #refused(error: unknown): void {
    if (error instanceof HandshakeError) this.#countRefused(error);
    // What the peer did wrong was answered; what our own hooks did wrong is reported.
    if (error instanceof HandshakeError && error.code === "hook-failed") {
      this.report(error.cause);
    } else if (!(error instanceof HandshakeError)) {
      // An option that cannot be used, which would otherwise look like a server that hangs up.
      this.report(error);
    }
  }

  #serve(ws: WebSocketConnection, place: string): void {
    this.connections.add(ws);
    this.#opened++;
    if (this.signal.aborted) ws.close(this.#info);
    const cancelTimer = this.#limitLifetime(ws);
    const { closing } = driverOf(ws);
    // It is over when both have ended: a handler may go on when the connection has long done so.
    this.#pending++;
    closing.whenEnded(() => {
      cancelTimer?.();
      this.#count.leave(place);
      this.connections.delete(ws);
      addTo(this.#totals, ws.stats);
      this.#left();
    });
    closing.leaveRule = "handler";
    try {
      const handler = this.#handler;
      const returned = handler(ws);
      if (isThenable(returned)) {
        Promise.resolve(returned).then(
          // A turn later a pipe that was not awaited has asked for its first message.
          () => nextTurn(() => this.#handled(ws)),
          (error) => this.#threw(ws, error),
        );
      } else {
        closing.handlerLeft();
        this.#left();
      }
    } catch (error) {
      this.#threw(ws, error);
    }
  }

  /** A handler's promise has resolved. */
  #handled(ws: WebSocketConnection): void {
    if (driverOf(ws).closing.handlerSettled(false)) this.report(invalidState(FORGOTTEN));
    this.#left();
  }

  /** A handler has thrown, or its promise has rejected. */
  #threw(ws: WebSocketConnection, error: unknown): void {
    // That the peer has left is no error of the handler's.
    if (!ws.isOwnError(error)) this.report(error);
    driverOf(ws).closing.handlerSettled(true);
    this.#left();
  }

  #left(): void {
    if (--this.#pending === 0) this.#onOver();
    else if (this.#isCut && this.connections.size === 0) this.#onOver();
  }

  #limitLifetime(ws: WebSocketConnection): (() => void) | undefined {
    const { maxLifetime = 0 } = this.#options;
    if (maxLifetime === 0) return undefined;
    return backgroundTimer(() => ws.close({ closeCode: CloseCode.GoingAway }), maxLifetime);
  }

  /** Tells `onError`. */
  report(error: unknown): void {
    report(error, this.#options);
  }

  /** Takes no more connections, closes those that are open, and waits for their end. */
  async shutdown(options: ShutdownOptions = {}): Promise<void> {
    checkKnown("shutdown()", options, SHUTDOWN_OPTIONS);
    const { timeout = 30_000, closeCode, reason } = options;
    const isDefault = closeCode === undefined && reason === undefined;
    const info = checkCloseInfo(
      isDefault ? { closeCode: CloseCode.GoingAway } : { closeCode, reason },
    );
    // The process goes on until then, so that whoever awaits the shutdown goes on too.
    const cancelTimer = timer(() => this.#cut(), timeout);
    try {
      if (!this.signal.aborted) await Promise.race([this.#shutDown(info), this.finished]);
      await this.finished;
    } finally {
      cancelTimer();
    }
  }

  async #shutDown(info: CloseInfo): Promise<void> {
    this.#info = info;
    const over = new Promise<void>((resolve) => this.#onOver = resolve);
    const stopped = this.#stop();
    for (const ws of this.connections) ws.close(info);
    this.#shutdown.abort(new HandshakeError("The server shuts down", "shutdown", { status: 503 }));
    try {
      if (this.#pending > 0) await over;
      await stopped;
    } finally {
      this.#finish();
    }
  }

  /** Cuts the transports, and waits for no handler any more. */
  #cut(): void {
    this.#isCut = true;
    for (const ws of this.connections) ws.terminate();
    if (this.connections.size === 0) this.#onOver();
    // A transport, or the answer of a hook, may still not end.
    const cancelTimer = backgroundTimer(() => this.#finish(), CUT_TIMEOUT);
    this.finished.then(cancelTimer);
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  const isObject = typeof value === "function" || (typeof value === "object" && value !== null);
  return isObject && typeof (value as Partial<PromiseLike<unknown>>).then === "function";
}
