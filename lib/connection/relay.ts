/** Joins two connections: each gets the messages of the other. */
import { onAbort } from "../abortable.ts";
import { CloseCode, type CloseInfo, isWireCloseCode, PRIVATE_USE } from "../core/close.ts";
import { invalidState, type WebSocketError, wrongType } from "../core/error.ts";
import type { Message } from "../core/message.ts";
import { checkKnown, notConnections } from "../core/option_hints.ts";
import { checkSignal, type OptionNames } from "../core/options.ts";
import { timer } from "../timers.ts";

/** A connection that {@linkcode relay} can join with another one: of a server, a client or a browser. */
export interface RelayEnd {
  /** The messages received. */
  readonly readable: ReadableStream<Message>;
  /** The messages to send. */
  readonly writable: WritableStream<Message>;
  /** Settles at the end of the connection. */
  readonly closed: Promise<Required<CloseInfo>>;
  /** Closes the connection. */
  close(info?: CloseInfo): Promise<unknown>;
  /** Ends the transport at once. */
  terminate(): void;
}

/** Options of {@linkcode relay}. */
export interface RelayOptions {
  /** Closes both connections with 1001 when aborted. */
  signal?: AbortSignal | undefined;
}

/** Maximum time to deliver the messages that were received before a failure, in milliseconds. */
const DELIVERY_TIME = 500;

const RELAY_OPTIONS: OptionNames<RelayOptions> = { signal: checkSignal };

/**
 * Pipes the messages of each of two connections to the other, and passes on how a connection ends: a
 * Close with its code and reason, a Close without a code, a failure with its code. A lost connection
 * (1006) cuts the other one. Each side is read only as fast as the other side sends.
 *
 * The messages that were received before the end are delivered first. After a failure, the other side has
 * 500 ms to take them, and is cut if it does not.
 *
 * @example
 * ```ts
 * import { connect, relay, serve } from "sluice";
 *
 * const backend = await serve({ port: 0 }, (ws) => ws.readable.pipeTo(ws.writable));
 * const gateway = await serve({ port: 0 }, async (ws) => {
 *   await relay(ws, await connect(backend.url!, { signal: ws.signal }));
 * });
 *
 * const client = await connect(gateway.url!);
 * await client.send("Hello");
 * console.log(await client.receive()); // Hello
 * await client.close({ closeCode: 4000 });
 * await gateway.shutdown();
 * await backend.shutdown();
 * ```
 * @param a One connection. No other code may read or write it.
 * @param b The other connection.
 * @returns A promise of the ends of both connections, in this order: the code and reason that the peer
 * has sent, or 1006. It rejects only for invalid arguments.
 * @throws {TypeError} If an argument is not a connection, or both are the same connection.
 * @throws {DOMException} InvalidStateError If other code reads or writes one of the connections.
 */
export async function relay(
  a: RelayEnd,
  b: RelayEnd,
  options: RelayOptions = {},
): Promise<[a: Required<CloseInfo>, b: Required<CloseInfo>]> {
  for (const ws of [a, b]) {
    if (!isRelayEnd(ws)) throw notConnections("two connections", ws);
  }
  checkKnown("relay()", options, RELAY_OPTIONS);
  if (a === b) throw wrongType("Expected two connections, received the same one twice");
  for (const { readable, writable } of [a, b]) {
    if (readable.locked || writable.locked) {
      throw invalidState("Cannot relay: readable or writable of a connection is locked", "busy");
    }
  }
  const { signal } = options;
  const stopWatching = onAbort(signal, () => {
    for (const ws of [a, b]) close(ws, { closeCode: CloseCode.GoingAway });
  });
  try {
    return await Promise.all([pass(a, b), pass(b, a)]);
  } finally {
    stopWatching();
  }
}

/** Whether a value is a connection. Does not read its streams: they would choose its way of reading. */
function isRelayEnd(value: unknown): boolean {
  const object = Object(value) as Partial<RelayEnd>;
  return ["readable", "writable", "closed"].every((name) => name in object) &&
    typeof object.close === "function" && typeof object.terminate === "function";
}

async function pass(from: RelayEnd, to: RelayEnd): Promise<Required<CloseInfo>> {
  const streams = { preventAbort: true, preventCancel: true, preventClose: true };
  const piped = from.readable.pipeTo(to.writable, streams).catch(() => {});
  let most = Infinity;
  const end = await from.closed.catch(({ closeCode, reason }: WebSocketError) => {
    most = DELIVERY_TIME;
    return { closeCode: closeCode ?? CloseCode.Abnormal, reason };
  });
  // The messages before the end are sent first.
  const isSent = await settles(piped, most);
  const { closeCode } = end;
  if (!isSent) to.terminate();
  else if (closeCode === CloseCode.NoStatus) void to.close();
  else if (isWireCloseCode(closeCode)) close(to, end);
  else to.terminate();
  return end;
}

/** Whether a promise settles in time, in milliseconds. The promise does not reject. */
function settles(promise: Promise<void>, most: number): Promise<boolean> {
  return new Promise((resolve) => {
    const cancel = timer(() => resolve(false), most);
    void promise.then(() => (cancel(), resolve(true)));
  });
}

function close(ws: RelayEnd, info: CloseInfo): void {
  try {
    void ws.close(info);
  } catch {
    // A native WebSocket closes with 1000 and 3000-4999 only.
    void ws.close({ ...info, closeCode: info.closeCode! + PRIVATE_USE });
  }
}
