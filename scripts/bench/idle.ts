/** Measures the memory of idle connections. */
import type { Runtime } from "../runtimes.ts";
import { DeflateLoad } from "./deflate_load.ts";
import { EchoLoad, type LoadOptions } from "./load.ts";
import { Measured } from "./measured.ts";
import { peerProgram } from "./peer.ts";
import type { Candidate } from "./workload.ts";

/** Bytes per connection, without garbage. */
export interface Memory {
  /** Resident memory of the process. */
  rss: number;
  /** Memory of the engine for objects, and for buffers outside of its heap. */
  heap: number;
}

/** Share of connections that are opened before the measurement, so that one-time costs are not counted. */
const SHARE_BEFORE = 0.2;

/** The memory that a server needs for a connection that has echoed one message. */
export async function memoryOf(
  runtime: Runtime,
  { peer, transport }: Candidate,
  connections: number,
  { deflate, size = 16 }: Pick<LoadOptions, "deflate"> & { size?: number } = {},
): Promise<Memory> {
  const program = peerProgram(runtime, "server.ts", [peer, transport, deflate ?? "plain"]);
  const server = new Measured(program);
  const port = await server.number();
  const ask = async () => ({ rss: await server.ask("memory"), heap: await server.ask("heap") });
  const connect = async (count: number) => {
    const options = { type: "text", size, connections: count, inFlight: 1, deflate } as const;
    const load = await (deflate ? DeflateLoad : EchoLoad).connect(port, options);
    await load.run(count);
    return load;
  };
  const warm = await connect(Math.ceil(connections * SHARE_BEFORE));
  const before = await ask();
  const load = await connect(connections);
  const after = await ask();
  for (const one of [warm, load]) one.close();
  await server.close();
  return {
    rss: (after.rss - before.rss) / connections,
    heap: (after.heap - before.heap) / connections,
  };
}
