/** Compressed messages with a browser, and through nginx. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { once } from "node:events";
import { createServer, type IncomingMessage } from "node:http";
import type { AddressInfo } from "node:net";
import type * as Ws from "ws";
import { it } from "../it.ts";
import {
  connect,
  type PerMessageDeflateOptions,
  serve,
  type ServeOptions,
  type WebSocketConnection,
} from "../../mod.ts";
import { attach } from "../../lib/node.ts";
import { pattern } from "../bytes.ts";
import { portOf } from "../support.ts";
import { withBrowser } from "./chromium.ts";
import { PEERS, unlessThere } from "./peers.ts";
import { HOST } from "../ports.ts";
import { NGINX, withProxy } from "./proxy.ts";

// Imported by its path, because Bun has a built-in "ws".
const path = new URL("../../node_modules/ws/wrapper.mjs", import.meta.url).href;
const { WebSocket, WebSocketServer }: typeof Ws = await import(path);

const SIZES = [0, 16, 1024, 4096, 65536, 300_000];

/** The settings that both ends may agree on. */
const SETTINGS: PerMessageDeflateOptions[] = [
  {},
  { memory: "high" },
  { memory: "low" },
  { memory: "high", serverMaxWindowBits: 9, threshold: 0 },
];

/** An echo that also sends its statistics after the message "stats". */
async function echo(ws: WebSocketConnection): Promise<void> {
  for await (const message of ws) {
    await ws.send(message);
    if (message === "stats") await ws.send(JSON.stringify(ws.stats));
  }
}

function serving(compression: PerMessageDeflateOptions): ServeOptions {
  return { compression, maxMessageSize: Infinity };
}

/** The script of the page: an echo of each size, as text and as bytes. */
const script = (sizes: number[]) => `
  const pattern = (length) => Uint8Array.from({ length }, (_, i) => (i * 7 + (i >> 8)) & 255);
  const same = (a, b) => a.length === b.length && a.every((byte, i) => byte === b[i]);
  const socket = new WebSocket("ws://" + location.host + "/");
  socket.binaryType = "arraybuffer";
  const next = () => new Promise((resolve, reject) => {
    socket.onmessage = ({ data }) => resolve(data);
    socket.onclose = ({ code }) => reject("closed with " + code);
  });
  async function main() {
    await new Promise((resolve, reject) => { socket.onopen = resolve; socket.onclose = reject; });
    for (const size of ${JSON.stringify(sizes)}) {
      const text = "text €".repeat(size / 6);
      socket.send(text);
      if (await next() !== text) return "text of " + size;
      socket.send(pattern(size));
      if (!same(new Uint8Array(await next()), pattern(size))) return "bytes of " + size;
    }
    socket.send("stats");
    await next();
    const stats = JSON.parse(await next());
    const closed = new Promise((resolve) => socket.onclose = ({ code }) => resolve(code));
    socket.close(3000);
    return { extensions: socket.extensions, stats, code: await closed };
  }
  main().catch(String).then((body) =>
    fetch("/result", { method: "POST", body: JSON.stringify(body) }));
`;

interface PageResult {
  extensions: string;
  stats: { bytesReceived: number; bytesSent: number };
  code: number;
}

async function runPage(compression: PerMessageDeflateOptions): Promise<PageResult> {
  const server = createServer();
  const result = new Promise<string>((resolve) => {
    server.on("request", async (request: IncomingMessage, response) => {
      if (request.method === "GET") {
        response.setHeader("Content-Type", "text/html; charset=utf-8");
        response.end(`<!doctype html><script>${script(SIZES)}</script>`);
        return;
      }
      let body = "";
      for await (const chunk of request.setEncoding("utf8")) body += chunk;
      response.end();
      resolve(body);
    });
  });
  const attached = attach(server, serving(compression), echo);
  await new Promise<void>((resolve) => server.listen(0, HOST, resolve));
  try {
    const url = `http://${HOST}:${(server.address() as AddressInfo).port}/`;
    return JSON.parse(await withBrowser(url, result));
  } finally {
    await attached.shutdown();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** The number of bytes without compression. */
const PLAIN = 2 * SIZES.reduce((sum, size) => sum + size, 0);

describe("chromium as peer, compressed", () => {
  const { skip } = unlessThere(PEERS.chromium);
  for (const compression of SETTINGS) {
    it(`chromium as peer, compressed: ${JSON.stringify(compression)}`, { skip }, async () => {
      const { extensions, stats, code } = await runPage(compression);
      assert.match(extensions, /^permessage-deflate/);
      assert.equal(code, 3000);
      assert.ok(
        stats.bytesReceived < PLAIN / 2 && stats.bytesSent < PLAIN / 2,
        JSON.stringify(stats),
      );
    });
  }
});

function throughNginx(backend: number, run: (url: string) => Promise<void>): Promise<void> {
  return withProxy(NGINX, backend, (port) => run(`ws://${HOST}:${port}/`));
}

describe("nginx in between, compressed", () => {
  const { skip } = unlessThere(PEERS.nginx);

  for (const compression of SETTINGS) {
    const title = JSON.stringify(compression);

    it(`nginx between "ws" and our server: ${title}`, { skip }, async () => {
      const server = await serve(serving(compression), echo);
      try {
        await throughNginx(portOf(server), async (url) => {
          const socket = new WebSocket(url, { perMessageDeflate: { threshold: 0 } });
          await once(socket, "open");
          assert.match(socket.extensions, /permessage-deflate/);
          for (const size of SIZES) {
            const message = pattern(size);
            socket.send(message);
            const [data] = await once(socket, "message") as [Uint8Array];
            assert.ok(data.length === size && data.every((byte, i) => byte === message[i]));
          }
          const [{ stats }] = server.connections;
          assert.ok(stats.bytesReceived < PLAIN / 2 && stats.bytesSent < PLAIN / 2);
          socket.close(3000, "done");
          const [code, reason] = await once(socket, "close");
          assert.deepEqual([code, String(reason)], [3000, "done"]);
        });
      } finally {
        await server.shutdown();
      }
    });

    it(`nginx between our client and "ws": ${title}`, { skip }, async () => {
      const theirs = new WebSocketServer({
        host: HOST,
        port: 0,
        perMessageDeflate: { threshold: 0 },
      });
      await once(theirs, "listening");
      theirs.on("connection", (socket) => {
        socket.on("message", (data: Uint8Array, binary: boolean) => socket.send(data, { binary }));
      });
      try {
        await throughNginx((theirs.address() as AddressInfo).port, async (url) => {
          const ws = await connect(url, serving(compression));
          assert.match(ws.extensions, /^permessage-deflate/);
          for (const size of SIZES) {
            for (const message of ["text €".repeat(size / 6), pattern(size)]) {
              await ws.send(message);
              assert.deepEqual(await ws.receive(), message);
            }
          }
          assert.ok(ws.stats.bytesReceived < PLAIN / 2 && ws.stats.bytesSent < PLAIN / 2);
          assert.equal((await ws.close({ closeCode: 3000 })).closeCode, 3000);
        });
      } finally {
        for (const client of theirs.clients) client.terminate();
        await new Promise((resolve) => theirs.close(resolve));
      }
    });
  }
});
