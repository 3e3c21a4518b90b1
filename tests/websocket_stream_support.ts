/** What the tests of WebSocketStream share. */
import {
  serve,
  type ServeOptions,
  type Server,
  type WebSocketConnection,
  type WebSocketOpenInfo,
  WebSocketStream,
} from "../mod.ts";
import { transportPair } from "../lib/testing.ts";
import { RawPeer } from "./support.ts";

/** Runs a test with a server whose connections are handed to it. */
export async function withServer(
  run: (server: Server, accepted: WebSocketConnection[]) => unknown,
  options: ServeOptions = {},
): Promise<void> {
  const accepted: WebSocketConnection[] = [];
  const server = await serve(options, async (ws) => {
    accepted.push(ws);
    await ws.closed;
  });
  try {
    await run(server, accepted);
  } finally {
    for (const ws of accepted) ws.terminate();
    await server.shutdown();
  }
}

/** Runs a test with a stream and its peer by hand, in memory. */
export async function withPeer(
  run: (stream: WebSocketStream, info: WebSocketOpenInfo, peer: RawPeer) => unknown,
  capacity?: number,
): Promise<void> {
  const [near, far] = transportPair({ capacity });
  const peer = new RawPeer(far, "server");
  const stream = new WebSocketStream("ws://localhost/", { duplex: near, closeTimeout: 300 });
  try {
    await run(stream, await stream.opened, peer);
  } finally {
    near.destroy();
    far.destroy();
  }
}
