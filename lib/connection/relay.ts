/**
 * Joins two connections: each gets the messages of the other.
 *
 * @module
 */
import { onAbort } from "../abortable.ts";
import { CloseCode, type CloseInfo, isWireCloseCode } from "../core/close.ts";
import { invalidState, type WebSocketError, wrongType } from "../core/error.ts";
import { checkKnown, type OptionNames } from "../core/options.ts";
import { checkSignal } from "../options.ts";
import type { WebSocketConnection } from "./connection.ts";

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
  a: WebSocketConnection,
  b: WebSocketConnection,
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
    for (const ws of [a, b]) void ws.close({ closeCode: CloseCode.GoingAway });
  });
  try {
    return await Promise.all([pass(a, b), pass(b, a)]);
  } finally {
    stopWatching();
  }
}

/** Pipes in one direction, then ends the second connection like the first one has ended. */
async function pass(
  from: WebSocketConnection,
  to: WebSocketConnection,
): Promise<Required<CloseInfo>> {
  const streams = { preventAbort: true, preventCancel: true, preventClose: true };
  const piped = from.readable.pipeTo(to.writable, streams).catch(() => {});
  const end = await from.closed.catch(endOf);
  // The messages before the end are sent first.
  await piped;
  const { closeCode } = end;
  if (closeCode === CloseCode.NoStatus) void to.close();
  else if (isWireCloseCode(closeCode)) void to.close(end);
  else to.terminate();
  return end;
}

function endOf(error: unknown): Required<CloseInfo> {
  const { closeCode, reason } = error as WebSocketError;
  return { closeCode: closeCode ?? CloseCode.Abnormal, reason };
}
