/**
 * Joins two connections: each gets the messages of the other.
 *
 * @module
 */
import { onAbort } from "../abortable.ts";
import { CloseCode, type CloseInfo, isWireCloseCode, PRIVATE_USE } from "../core/close.ts";
import { invalidState, type WebSocketError, wrongType } from "../core/error.ts";
import type { Message } from "../core/message.ts";
import { checkKnown } from "../core/option_hints.ts";
import { checkSignal, type OptionNames } from "../core/options.ts";

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

const RELAY_OPTIONS: OptionNames<RelayOptions> = { signal: checkSignal };

/**
 * Pipes the messages of each of two connections to the other, and passes on how a connection ends: a
 * Close with its code and reason, a Close without a code, a failure with its code. A lost connection
 * (1006) cuts the other one. Each side is read only as fast as the other side sends.
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
 *
 * @param a One connection. No other code may read or write it.
 * @param b The other connection.
 * @returns A promise of the ends of both connections, in this order: the code and reason that the peer
 * has sent, or 1006. It rejects only for invalid arguments.
 * @throws {TypeError} If both arguments are the same connection.
 * @throws {DOMException} InvalidStateError If other code reads or writes one of the connections.
 */
export async function relay(
  a: RelayEnd,
  b: RelayEnd,
  options: RelayOptions = {},
): Promise<[a: Required<CloseInfo>, b: Required<CloseInfo>]> {
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

/** Pipes in one direction, then ends the second connection like the first one has ended. */
async function pass(
  from: RelayEnd,
  to: RelayEnd,
): Promise<Required<CloseInfo>> {
  const streams = { preventAbort: true, preventCancel: true, preventClose: true };
  const piped = from.readable.pipeTo(to.writable, streams).catch(() => {});
  const end = await from.closed.catch(endOf);
  // The messages before the end are sent first.
  await piped;
  const { closeCode } = end;
  if (closeCode === CloseCode.NoStatus) void to.close();
  else if (isWireCloseCode(closeCode)) close(to, end);
  else to.terminate();
  return end;
}

function close(ws: RelayEnd, info: CloseInfo): void {
  try {
    void ws.close(info);
  } catch {
    // A native WebSocket closes with 1000 and 3000-4999 only.
    void ws.close({ ...info, closeCode: info.closeCode! + PRIVATE_USE });
  }
}

function endOf(error: unknown): Required<CloseInfo> {
  const { closeCode, reason } = error as WebSocketError;
  return { closeCode: closeCode ?? CloseCode.Abnormal, reason };
}
