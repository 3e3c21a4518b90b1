/**
 * The connections that one handler serves, from the handshake to the end, and their shutdown.
 *
 * A file of its own because a server that listens and one that is attached to an HTTP server differ
 * only in where their connections come from.
 *
 * @module
 */
import { checkCloseInfo } from "./close_record.ts";
import { CloseCode, type CloseInfo } from "./core/close.ts";
import { ConnectionCount, type ConnectionLimits } from "./connection_limits.ts";
import { HandshakeError } from "./core/error.ts";
import type { WebSocketConnection } from "./connection.ts";
import type { Address } from "./transport.ts";
import { backgroundTimer } from "./turn.ts";

/** What is done with each connection. */
export type Handler = (ws: WebSocketConnection, request: Request) => unknown;

/** The handshake of one connection. */
export type Open = (signal: AbortSignal, fault?: HandshakeError) => Promise<WebSocketConnection>;

/** What {@linkcode Sessions} need to know. */
export interface SessionsOptions extends ConnectionLimits {
  /** Shuts down when aborted. */
  signal?: AbortSignal;
  /** Told what a handler or a hook has thrown. */
  onError?: (error: unknown) => void;
}

/** The connections of one server. Internal. */
export class Sessions {
  readonly connections: Set<WebSocketConnection> = new Set();
  /** Resolves when `shutdown()` is through. */
  readonly finished: Promise<void>;
  readonly #options: SessionsOptions;
  readonly #handler: Handler;
  /** All that is to be waited for. */
  readonly #pending = new Set<Promise<void>>();
  readonly #count: ConnectionCount;
  readonly #shutdown = new AbortController();
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
    this.finished = new Promise((resolve) => this.#finish = resolve);
  }

  /**
   * Says how to take no more connections, and obeys the signal from now on.
   *
   * @param stop may give a promise that is to be waited for
   */
  start(stop: () => unknown): void {
    this.#stop = stop;
    const { signal } = this.#options;
    const shutdown = () => void this.shutdown();
    signal?.addEventListener("abort", shutdown, { once: true });
    this.finished.then(() => signal?.removeEventListener("abort", shutdown));
    if (signal?.aborted) shutdown();
  }

  /**
   * Serves one more connection.
   *
   * @param open its handshake, which ends when the signal is aborted, or is answered with a fault
   * @param address whence it comes
   */
  take(open: Open, address: Address | undefined): void {
    const done: Promise<void> = this.#run(open, address).finally(() => this.#pending.delete(done));
    this.#pending.add(done);
  }

  async #run(open: Open, address: Address | undefined): Promise<void> {
    const entered = this.#count.enter(address);
    if (entered instanceof HandshakeError) {
      // It rejects once that was answered.
      await open(this.#shutdown.signal, entered).catch(() => {});
      return;
    }
    let ws: WebSocketConnection;
    try {
      ws = await open(this.#shutdown.signal);
    } catch (error) {
      entered();
      // What the peer did wrong was answered; what our own hooks did wrong is reported.
      if (error instanceof HandshakeError && error.code === "hook-failed") {
        this.report(error.cause);
      } else if (!(error instanceof HandshakeError)) {
        // An option that cannot be used, which would otherwise look like a server that hangs up.
        this.report(error);
      }
      return;
    }
    this.connections.add(ws);
    if (this.#shutdown.signal.aborted) ws.close(this.#info);
    // A handler may go on when the connection has long ended.
    const cancelTimer = this.#limitLifetime(ws);
    const ended = ws.closed.catch(() => {}).then(() => {
      cancelTimer();
      entered();
      this.connections.delete(ws);
    });
    await this.#handle(ws);
    await ended;
  }

  #limitLifetime(ws: WebSocketConnection): () => void {
    const { maxLifetime = 0 } = this.#options;
    if (maxLifetime === 0 || maxLifetime === Infinity) return () => {};
    const close = () => ws.close({ closeCode: CloseCode.GoingAway });
    // A timer that is longer would fire at once.
    return backgroundTimer(close, Math.min(maxLifetime, 2 ** 31 - 1));
  }

  async #handle(ws: WebSocketConnection): Promise<void> {
    try {
      await this.#handler(ws, ws.request);
      ws.close({ closeCode: CloseCode.Normal });
    } catch (error) {
      // That the peer has left is no error of the handler's.
      if (!ws.isOwnError(error)) this.report(error);
      ws.close({ closeCode: CloseCode.InternalError });
    }
  }

  /** Tells `onError`. */
  report(error: unknown): void {
    const { onError = (error: unknown) => console.error(error) } = this.#options;
    try {
      onError(error);
    } catch (second) {
      console.error(second);
    }
  }

  /** Takes no more connections, closes those that are open, and waits for their end. */
  async shutdown(info: CloseInfo = { closeCode: CloseCode.GoingAway }): Promise<void> {
    checkCloseInfo(info);
    if (!this.#shutdown.signal.aborted) {
      this.#info = info;
      const stopped = this.#stop();
      for (const ws of this.connections) ws.close(info);
      this.#shutdown.abort(
        new HandshakeError("The server shuts down", "shutdown", { status: 503 }),
      );
      while (this.#pending.size > 0) await Promise.all(this.#pending);
      await stopped;
      this.#finish();
    }
    await this.finished;
  }
}
