/**
 * The connections that one handler serves, from the handshake to the end, and their shutdown.
 *
 * A file of its own because a server that listens and one that is attached to an HTTP server differ
 * only in where their connections come from.
 *
 * @module
 */
import { checkCloseInfo } from "../connection/close_record.ts";
import { CloseCode, type CloseInfo } from "../core/close.ts";
import type { EndListener } from "../connection/ending.ts";
import { ConnectionCount, type ConnectionLimits } from "./connection_limits.ts";
import { HandshakeError, invalidState } from "../core/error.ts";
import { type Listeners, report } from "./hooks.ts";
import { type Cancellation, onAbort } from "../abortable.ts";
import {
  closeAfterHandler,
  setLeaveRule,
  type WebSocketConnection,
  whenEnded,
} from "../connection/connection.ts";
import type { Address } from "../transport.ts";
import { backgroundTimer, nextTurn } from "../timers.ts";

/**
 * What is done with each connection. A handler that returns a promise, or another thenable, owns the
 * connection until that settles: the connection is then closed with 1000, or with 1011 if the promise
 * rejects, and `onError` is told. A handler that returns anything else leaves the connection open until
 * it ends by itself.
 *
 * So `async (ws) => { ws.readable.pipeTo(ws.writable); }`, which does not await the pipe, closes at once;
 * `onError` is told when somebody still waits for a message then.
 */
export type Handler = (ws: WebSocketConnection, request: Request) => unknown;

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
  readonly #needsRequest: boolean;
  /** How many there are to be waited for, from the handshake on. */
  #pending = 0;
  #onNonePending: (() => void) | undefined;
  readonly #count: ConnectionCount;
  /** How many TLS handshakes are under way. */
  #shaking = 0;
  /** How many clients are being answered with 503. */
  #refusals = 0;
  readonly #shutdown = new Shutdown();
  #stop: () => unknown = () => {};
  #info: CloseInfo = { closeCode: CloseCode.GoingAway };
  #finish!: () => void;

  /** @throws {TypeError} when the handler is none */
  constructor(options: SessionsOptions, handler: Handler) {
    if (typeof handler !== "function") {
      throw new TypeError(`Expected a handler, received ${typeof handler}`);
    }
    this.#options = options;
    this.#count = new ConnectionCount(options);
    this.#handler = handler;
    this.#needsRequest = mayLookAtSecond(handler);
    this.finished = new Promise((resolve) => this.#finish = resolve);
  }

  /** Aborted when it shuts down: ends the handshakes that are under way. */
  get signal(): Cancellation {
    return this.#shutdown;
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
    begin(open).then(
      (ws) => this.#serve(ws, place),
      (error) => {
        this.#count.leave(place);
        this.#refused(error);
        this.#left();
      },
    );
  }

  #refuse(open: Open, error: HandshakeError): void {
    const isTold = this.#refusals++ < MAX_REFUSALS;
    // An error without a status is not answered.
    begin(open, isTold ? error : new HandshakeError(error.message, error.code)).catch(() => {})
      .then(() => {
        this.#refusals--;
        this.#left();
      });
  }

  #refused(error: unknown): void {
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
    if (this.signal.aborted) ws.close(this.#info);
    const session = new Session(this, ws, place, this.#limitLifetime(ws));
    // It is over when both have ended: a handler may go on when the connection has long done so.
    this.#pending++;
    whenEnded(ws, session);
    setLeaveRule(ws, "handler");
    try {
      const returned = this.#handle(ws);
      if (isThenable(returned)) {
        // No asynchronous function: what it keeps while it waits is several times as large.
        Promise.resolve(returned).then(session.returned.bind(session), session.threw.bind(session));
      } else {
        setLeaveRule(ws, "direct");
        this.#left();
      }
    } catch (error) {
      session.threw(error);
    }
  }

  /** A connection has ended. */
  ended(ws: WebSocketConnection, place: string): void {
    this.#count.leave(place);
    this.connections.delete(ws);
    this.#left();
  }

  /** A handler has settled. */
  handled(ws: WebSocketConnection, rejected: boolean): void {
    const waiting = closeAfterHandler(ws, rejected);
    if (waiting && !rejected) this.report(invalidState(FORGOTTEN));
    this.#left();
  }

  #handle(ws: WebSocketConnection): unknown {
    const handler = this.#handler;
    if (this.#needsRequest) return handler(ws, ws.request);
    return (handler as (ws: WebSocketConnection) => unknown)(ws);
  }

  #left(): void {
    if (--this.#pending === 0) this.#onNonePending?.();
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
  async shutdown(info: CloseInfo = { closeCode: CloseCode.GoingAway }): Promise<void> {
    const checked = checkCloseInfo(info, "shutdown()");
    if (!this.signal.aborted) {
      this.#info = checked;
      const stopped = this.#stop();
      for (const ws of this.connections) ws.close(checked);
      this.#shutdown.abort(
        new HandshakeError("The server shuts down", "shutdown", { status: 503 }),
      );
      if (this.#pending > 0) await new Promise<void>((resolve) => this.#onNonePending = resolve);
      await stopped;
      this.#finish();
    }
    await this.finished;
  }
}

/** What is done at the end of one connection: an object takes less than functions that remember it. */
class Session implements EndListener {
  readonly #sessions: Sessions;
  readonly #ws: WebSocketConnection;
  readonly #place: string;
  readonly #cancelTimer: (() => void) | undefined;

  constructor(
    sessions: Sessions,
    ws: WebSocketConnection,
    place: string,
    cancelTimer: (() => void) | undefined,
  ) {
    this.#sessions = sessions;
    this.#ws = ws;
    this.#place = place;
    this.#cancelTimer = cancelTimer;
  }

  ended(): void {
    this.#cancelTimer?.();
    this.#sessions.ended(this.#ws, this.#place);
  }

  /** The handler's promise has resolved. */
  returned(): void {
    // A turn later a pipe that was not awaited has asked for its first message.
    nextTurn(() => this.#sessions.handled(this.#ws, false));
  }

  /** The handler has thrown, or its promise has rejected. */
  threw(error: unknown): void {
    // That the peer has left is no error of the handler's.
    if (!this.#ws.isOwnError(error)) this.#sessions.report(error);
    this.#sessions.handled(this.#ws, true);
  }
}

/** Ends the handshakes under way: each would need 800 bytes to listen to an AbortSignal. */
class Shutdown implements Cancellation {
  aborted = false;
  reason: unknown;
  readonly #listeners = new Set<() => void>();

  addEventListener(_: "abort", listener: () => void): void {
    this.#listeners.add(listener);
  }

  removeEventListener(_: "abort", listener: () => void): void {
    this.#listeners.delete(listener);
  }

  abort(reason: unknown): void {
    this.aborted = true;
    this.reason = reason;
    for (const listener of this.#listeners) listener();
    this.#listeners.clear();
  }
}

function isThenable(value: unknown): value is PromiseLike<unknown> {
  const isObject = typeof value === "function" || (typeof value === "object" && value !== null);
  return isObject && typeof (value as Partial<PromiseLike<unknown>>).then === "function";
}

/** A transport of somebody's own may throw at once. */
function begin(open: Open, fault?: HandshakeError): Promise<WebSocketConnection> {
  try {
    return open(fault);
  } catch (error) {
    return Promise.reject(error);
  }
}

/**
 * Whether a function may look at a second argument: any but an arrow function of one plain parameter,
 * which has no `arguments` either. A Request takes 3 KiB, and half the time of a handshake.
 */
function mayLookAtSecond(handler: Handler): boolean {
  const source = Function.prototype.toString.call(handler);
  return !/^(?:async\b\s*)?(?:\(\s*[\w$]+\s*\)|[\w$]+)\s*=>/.test(source);
}
