/** HTTP servers for the tests of attach(). */
import assert from "node:assert/strict";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo, Socket } from "node:net";
import {
  connect,
  type ConnectOptions,
  type HandshakeError,
  type WebSocketConnection,
} from "../mod.ts";
import { attach, type Attachment, type AttachOptions, type Handler } from "../lib/node.ts";
import { encodeFrame } from "../lib/core/mod.ts";
import { hex, utf8 } from "./bytes.ts";
import { RawSocket, still, until } from "./support.ts";

const MASK = { mask: hex("37 fa 21 3d") };
export const MESSAGE = encodeFrame({ opcode: 1, payload: utf8("Hello") }, MASK);
export const CLOSE = encodeFrame({ opcode: 8, payload: hex("03 e8") }, MASK);
/** The echo of the message, and the answer to the Close frame. */
export const ANSWER = "\x81\x05Hello\x88\x02\x03\xe8";

export const echo: Handler = (ws) => ws.readable.pipeTo(ws.writable);
export const plain: RequestListener = (request, response) =>
  void response.end(`plain ${request.url}`);

export function portOf(server: Server): number {
  return (server.address() as AddressInfo).port;
}

export function urlOf(server: Server, path = "/"): string {
  return `ws://127.0.0.1:${portOf(server)}${path}`;
}

/** Runs a test with an HTTP server, then closes the server and all of its sockets. */
export async function withHttp(
  run: (server: Server) => unknown,
  server: Server = createServer(plain),
): Promise<void> {
  const sockets = new Set<Socket>();
  server.on("connection", (socket) => sockets.add(socket));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await run(server);
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** Runs a test with an HTTP server that `attach()` is used on. */
export async function withAttached(
  options: AttachOptions,
  run: (server: Server, attached: Attachment) => unknown,
  handler: Handler = echo,
) {
  await withHttp(async (server) => {
    const attached = attach(server, options, handler);
    try {
      await run(server, attached);
    } finally {
      await attached.shutdown();
    }
  });
}

/** Everything that the server answers until it ends the connection. */
export async function answerTo(server: Server, ...parts: (string | Uint8Array)[]): Promise<string> {
  const raw = await RawSocket.connect(portOf(server));
  for (const part of parts) raw.write(part);
  await raw.close();
  return raw.text;
}

/** Connects, and returns the status of the refusal, or 101. */
export async function statusOf(server: Server, path = "/", options: ConnectOptions = {}) {
  try {
    const ws = await connect(urlOf(server, path), options);
    await ws.close();
    return 101;
  } catch (error) {
    return (error as HandshakeError).response!.status;
  }
}

/** A handler that starts to echo when it is released. */
export function lateEcho(): { handler: Handler; release: () => void } {
  let release!: () => void;
  const released = new Promise<void>((resolve) => release = resolve);
  const handler: Handler = async (ws) => {
    await released;
    await echo(ws);
  };
  return { handler, release };
}

/** Sends to a server that does not read until the send blocks, then lets it read, and closes. */
export async function checkStall(
  ws: WebSocketConnection,
  connections: ReadonlySet<WebSocketConnection>,
  release: () => void,
): Promise<void> {
  const payload = new Uint8Array(65536);
  let sent = 0;
  let stopped = false;
  const sending = (async () => {
    for (; !stopped; sent += payload.length) await ws.send(payload);
  })();
  await until(() => sent > 0);
  const stalled = await still(() => sent);
  assert.ok(stalled < 32 * 1024 * 1024, `${stalled} bytes were taken`);
  const [{ stats }] = connections;
  assert.equal(stats.paused, true);
  assert.ok(stats.peakQueued < 2 * 65536 + 200, `${stats.peakQueued} were queued`);
  stopped = true;
  ws.discard();
  release();
  await sending;
  await ws.close();
}
