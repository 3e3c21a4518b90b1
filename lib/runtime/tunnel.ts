/**
 * Opening the tunnel through a proxy, within the time that there is for it.
 *
 * A file of its own because each adapter that has TLS needs it.
 *
 * @module
 */
import type { Transport, Tunnel } from "../transport.ts";

/** Opens it, or cuts the transport when that fails or is given up. */
export async function openTunnel(
  { open }: Tunnel,
  transport: Transport,
  signal: AbortSignal | undefined,
): Promise<void> {
  const abort = () => transport.destroy();
  signal?.addEventListener("abort", abort, { once: true });
  if (signal?.aborted) abort();
  try {
    await open(transport);
    signal?.throwIfAborted();
  } catch (error) {
    transport.destroy();
    throw signal?.aborted ? signal.reason : error;
  } finally {
    signal?.removeEventListener("abort", abort);
  }
}
