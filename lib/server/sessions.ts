/** Serves connections with a handler, from the handshake to the end, and shuts them down. */
import { checkCloseInfo, type Closing } from "../connection/closing.ts";
import { CloseCode, type CloseInfo } from "../core/close.ts";
import { HandshakeError, type HandshakeErrorCode, invalidState, wrongType } from "../core/error.ts";
import { checkKnown } from "../core/option_hints.ts";
import { checkNumber, type OptionNames } from "../core/options.ts";
import { type FrameCounts, NO_FRAMES } from "../core/protocol.ts";
import { ipBytes } from "../core/url.ts";
import { isAnswer, type Listeners, type Outcome, report } from "./refusal.ts";
import { onAbort } from "../abortable.ts";
import { driverOf, type WebSocketConnection } from "../connection/connection.ts";
import type { Address } from "../transport.ts";
import { backgroundTimer, nextTurn, timer } from "../timers.ts";

/**
 * The function that serves a connection. If it returns a promise (or another thenable), the connection is
 * closed when the promise settles: with 1000 if it resolves; with 1011 if it rejects, and `onError` is
 * called. A handler that returns anything else leaves the connection open.
 *
 * Await what the handler starts: `async (ws) => { ws.readable.pipeTo(ws.writable); }` closes the
 * connection at once. `onError` is called if a message is still waited for at that time.
 */
export type Handler = (ws: WebSocketConnection) => unknown;

/** Options of `shutdown()`: the code and reason to close with, and the time limit. */
export interface ShutdownOptions extends CloseInfo {
  /**
   * Maximum time for handlers to settle and connections to end, in milliseconds. After this time, the
   * transports are cut, and the server no longer waits for handlers. 0 cuts at once, Infinity disables
   * the limit.
   * @default {30_000}
   */
  timeout?: number | undefined;
}

const SHUTDOWN_OPTIONS: OptionNames<ShutdownOptions> = {
  closeCode: true,
  reason: true,
  timeout: checkNumber,
};

/** Limits for the connections of a server. See `ServeOptions`. */
export interface ConnectionLimits {
  maxConnections?: number | undefined;
  maxConnectionsPerAddress?: number | undefined;
  maxLifetime?: number | undefined;
}

/** Counts of a server so far. */
export interface ServerStats extends FrameCounts {
  /** Number of connections that were opened. */
  readonly opened: number;
  /** Number of connections that have ended. */
  readonly ended: number;
  /** Number of plain HTTP requests that `onRequest` answered. They do not count as refused. */
  readonly answered: number;
  /** Number of handshakes that were refused, by the `code` of the error. */
  readonly refused: Readonly<Partial<Record<HandshakeErrorCode, number>>>;
  /** The same by the HTTP status of the answer. 0 stands for no answer. */
  readonly refusedByStatus: Readonly<Record<number, number>>;
  /** Number of messages received completely, on all connections. */
  readonly messagesReceived: number;
  /** Number of messages sent, on all connections. */
  readonly messagesSent: number;
  /** Number of bytes received, including frame headers, on all connections. */
  readonly bytesReceived: number;
  /** Number of bytes given to the transports, including frame headers, on all connections. */
  readonly bytesSent: number;
}

/** What shows and ends the connections of a server. */
interface Control extends AsyncDisposable {
  readonly connections: ReadonlySet<WebSocketConnection>;
  readonly stats: ServerStats;
  readonly finished: Promise<void>;
  shutdown(options?: ShutdownOptions): Promise<void>;
}

type Totals = Record<
  keyof FrameCounts | "messagesReceived" | "messagesSent" | "bytesReceived" | "bytesSent",
  number
>;

function addTo(totals: Totals, stats: Readonly<Totals>): void {
  for (const name in totals) totals[name as keyof Totals] += stats[name as keyof Totals];
}

/** Maximum time for transports that were cut to end, in milliseconds. */
const CUT_TIMEOUT = 1000;

/** What knows the address of a client. */
interface Client {
  readonly remoteAddress?: Address | undefined;
}

export interface SessionsOptions extends ConnectionLimits, Listeners {
  signal?: AbortSignal;
}

/** Maximum number of clients that are answered with 503 at a time. Other clients are cut. */
const MAX_REFUSALS = 100;

const FORGOTTEN =
  "The handler's promise resolved while a message was being waited for, and the connection was closed. " +
  "Await or return the promise of pipeTo() or of the loop; a handler that returns no promise leaves the " +
  "connection open";

export class Sessions {
  readonly connections: Set<WebSocketConnection> = new Set();
  /** Resolves when `shutdown()` is complete. */
  readonly finished: Promise<void>;
  readonly #options: SessionsOptions;
  readonly #handler: Handler;
  /** The number of connections and handlers that a shutdown waits for, including handshakes. */
  #pending = 0;
  /** Called when a shutdown has nothing more to wait for. */
  #onOver: (() => void) | undefined;
  #isCut = false;
  readonly #count: ConnectionCount;
  #shaking = 0;
  /** The number of clients that are being refused with 503. */
  #refusals = 0;
  readonly #abort = new AbortController();
  #stop: () => unknown = () => {};
  #info: CloseInfo = { closeCode: CloseCode.GoingAway };
  #finish!: () => void;
  #opened = 0;
  #answered = 0;
  readonly #refusedBy: Partial<Record<HandshakeErrorCode, number>> = {};
  readonly #refusedByStatus: Record<number, number> = {};
  /** The sums of the connections that have ended. */
  readonly #totals: Totals = {
    messagesReceived: 0,
    messagesSent: 0,
    bytesReceived: 0,
    bytesSent: 0,
    ...NO_FRAMES,
  };

  /** @throws {TypeError} If `handler` is not a function. */
  constructor(options: SessionsOptions, handler: Handler) {
    if (typeof handler !== "function") {
      throw wrongType(`Expected a handler, received ${typeof handler}`);
    }
    this.#options = options;
    this.#count = new ConnectionCount(options);
    this.#handler = handler;
    this.finished = new Promise((resolve) => this.#finish = resolve);
  }

  get stats(): ServerStats {
    const totals = { ...this.#totals };
    for (const ws of this.connections) addTo(totals, ws.stats);
    const opened = this.#opened;
    return {
      ...{ opened, ended: opened - this.connections.size, answered: this.#answered },
      refused: { ...this.#refusedBy },
      refusedByStatus: { ...this.#refusedByStatus },
      ...totals,
    };
  }

  /** Returns what a server and an attachment have in common. */
  control(): Control {
    const { connections, finished } = this;
    const shutdown = (options?: ShutdownOptions) => this.shutdown(options);
    const count = () => this.stats;
    return {
      ...{ connections, finished, shutdown },
      get stats(): ServerStats {
        return count();
      },
      [Symbol.asyncDispose]: () => shutdown(),
    };
  }

  /** Aborted by a shutdown, to end the handshakes under way. */
  get signal(): AbortSignal {
    return this.#abort.signal;
  }

  /** Starts to obey the signal of the options. A promise that `stop` returns is awaited. */
  start(stop: () => unknown): void {
    this.#stop = stop;
    const { signal } = this.#options;
    this.finished.then(onAbort(signal, () => void this.shutdown()));
  }

  /**
   * Reserves a place before a TLS handshake. Returns a function that frees the place, or undefined if
   * there is none.
   */
  admit(address: Address | undefined): (() => void) | undefined {
    const place = this.#count.enter({ remoteAddress: address });
    const isRefused = place instanceof HandshakeError;
    // One client at a time continues without a place, so that it can be answered with 503.
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
   * Counts a client whose handshake begins, and returns whom to tell what becomes of it. The connection
   * is served with the handler.
   */
  take(client: Client): Outcome {
    this.#pending++;
    const place = this.#count.enter(client);
    if (place instanceof HandshakeError) return this.#refusal(place);
    return {
      opened: (ws) => this.#serve(ws, place),
      refused: (error) => {
        this.#count.leave(place);
        this.#noteRefusal(error);
        this.#left();
      },
    };
  }

  #refusal(error: HandshakeError): Outcome {
    const isTold = this.#refusals++ < MAX_REFUSALS;
    // An error without a status is not answered.
    const fault = isTold ? error : new HandshakeError(error.message, error.code);
    this.#countRefused(fault);
    const refused = () => {
      this.#refusals--;
      this.#left();
    };
    return { fault, opened: refused, refused };
  }

  #countRefused({ code, status = 0 }: HandshakeError): void {
    this.#refusedBy[code] = (this.#refusedBy[code] ?? 0) + 1;
    this.#refusedByStatus[status] = (this.#refusedByStatus[status] ?? 0) + 1;
  }

  #noteRefusal(error: unknown): void {
    if (isAnswer(error)) this.#answered++;
    else if (error instanceof HandshakeError) this.#countRefused(error);
    // The faults of the peer were answered. The faults of our own hooks are reported.
    if (error instanceof HandshakeError && error.code === "hook-failed") {
      this.report(error.cause);
    } else if (!(error instanceof HandshakeError)) {
      // An option cannot be used. Without a report, the server would seem to hang up.
      this.report(error);
    }
  }

  #serve(ws: WebSocketConnection, place: string): void {
    this.connections.add(ws);
    this.#opened++;
    if (this.signal.aborted) ws.close(this.#info);
    const closing = this.#endLater(ws, place);
    try {
      const handler = this.#handler;
      const returned = handler(ws);
      if (typeof Object(returned).then === "function") {
        const handled = Promise.resolve(returned);
        handled.then(() => this.#handled(closing), (error) => this.#threw(closing, error));
      } else {
        closing.handlerLeft();
        this.#left();
      }
    } catch (error) {
      this.#threw(closing, error);
    }
  }

  /** Waits for the connection in addition to the handler, which may run longer than its connection. */
  #endLater(ws: WebSocketConnection, place: string): Closing {
    this.#pending++;
    const driver = driverOf(ws);
    const { closing } = driver;
    closing.leaveRule = "handler";
    closing.whenEnded(() => {
      this.#count.leave(place);
      this.connections.delete(ws);
      addTo(this.#totals, driver.stats);
      this.#left();
    });
    const { maxLifetime = 0 } = this.#options;
    if (maxLifetime > 0) {
      const close = () => void ws.close({ closeCode: CloseCode.GoingAway });
      closing.whenEnded(backgroundTimer(close, maxLifetime));
    }
    return closing;
  }

  #handled(closing: Closing): void {
    if (closing.phase === "ended") return this.#left();
    // One turn later, a pipe that was not awaited has asked for its first message.
    nextTurn(() => {
      if (closing.handlerSettled(false)) {
        this.report(invalidState(FORGOTTEN, "forgotten-await"));
      }
      this.#left();
    });
  }

  #threw(closing: Closing, error: unknown): void {
    // The end of the connection is not an error of the handler.
    if (!closing.isOwnError(error)) this.report(error);
    closing.handlerSettled(true);
    this.#left();
  }

  #left(): void {
    if (--this.#pending === 0) this.#onOver?.();
    else if (this.#isCut && this.connections.size === 0) this.#onOver?.();
  }

  report(error: unknown): void {
    report(error, this.#options);
  }

  async shutdown(options: ShutdownOptions = {}): Promise<void> {
    checkKnown("shutdown()", options, SHUTDOWN_OPTIONS);
    const { timeout = 30_000, closeCode, reason } = options;
    const isDefault = closeCode === undefined && reason === undefined;
    const info = checkCloseInfo(
      isDefault ? { closeCode: CloseCode.GoingAway } : { closeCode, reason },
    );
    // This timer keeps the process running, so that the caller's `await` continues.
    const cancelTimer = timer(() => this.#cut(), timeout);
    try {
      if (!this.signal.aborted) await Promise.race([this.#endAll(info), this.finished]);
      await this.finished;
    } finally {
      cancelTimer();
    }
  }

  async #endAll(info: CloseInfo): Promise<void> {
    this.#info = info;
    const over = new Promise<void>((resolve) => this.#onOver = resolve);
    const stopped = this.#stop();
    for (const ws of this.connections) ws.close(info);
    this.#abort.abort(new HandshakeError("The server shuts down", "shutdown", { status: 503 }));
    try {
      if (this.#pending > 0) await over;
      await stopped;
    } finally {
      this.#finish();
    }
  }

  #cut(): void {
    this.#isCut = true;
    for (const ws of this.connections) ws.terminate();
    if (this.connections.size === 0) this.#onOver?.();
    // Even a transport that was cut, or a hook, may never end.
    const cancelTimer = backgroundTimer(() => this.#finish(), CUT_TIMEOUT);
    this.finished.then(cancelTimer);
  }
}

/** Counts the connections of a server, in total and by address. @internal */
export class ConnectionCount {
  readonly #limits: ConnectionLimits;
  readonly #byAddress = new Map<string, number>();
  #all = 0;

  constructor(limits: ConnectionLimits) {
    this.#limits = limits;
  }

  /** Counts one more connection. Returns its key for `leave()`, or an error if there is no room. */
  enter(client: Client): string | HandshakeError {
    const { maxConnections = Infinity, maxConnectionsPerAddress = Infinity } = this.#limits;
    if (this.#all >= maxConnections) return tooMany("maxConnections", maxConnections);
    const key = maxConnectionsPerAddress === Infinity ? "" : keyOf(client.remoteAddress);
    const same = this.#byAddress.get(key) ?? 0;
    if (key !== "" && same >= maxConnectionsPerAddress) {
      return tooMany("maxConnectionsPerAddress", maxConnectionsPerAddress);
    }
    this.#all++;
    if (key !== "") this.#byAddress.set(key, same + 1);
    return key;
  }

  leave(key: string): void {
    this.#all--;
    if (key === "") return;
    const left = this.#byAddress.get(key)! - 1;
    if (left === 0) this.#byAddress.delete(key);
    else this.#byAddress.set(key, left);
  }
}

/** Returns the key of an address. The key is empty if there is no address, as with a Unix socket. */
function keyOf(address: Address | undefined): string {
  if (address?.transport !== "tcp") return "";
  const bytes = ipBytes(address.hostname);
  if (bytes === undefined) return address.hostname;
  if (bytes.length === 4) return bytes.join(".");
  // RFC 4291 §2.5.5.2: a dual-stack socket maps IPv4 addresses to IPv6.
  const isIpv4 = bytes.subarray(0, 12).join() === "0,0,0,0,0,0,0,0,0,0,255,255";
  if (isIpv4) return bytes.subarray(12).join(".");
  // RFC 4291 §2.5.4: the client chooses the other half.
  return bytes.subarray(0, 8).join(":");
}

function tooMany(name: string, limit: number): HandshakeError {
  return new HandshakeError(
    `The server has no room for another connection: ${name} (${limit}) is reached`,
    "too-many-connections",
    { status: 503 },
  );
}
