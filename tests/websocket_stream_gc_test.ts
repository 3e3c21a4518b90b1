/** A WebSocketStream without references, in another process in which garbage is collected. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import { withPrograms } from "./programs.ts";

const PROGRAM = `
import { createServer } from "node:net";
import { acceptToken } from "sluice/core";
import { WebSocketStream } from "sluice";

const sockets = [];
const server = createServer((socket) => {
  sockets.push(socket);
  socket.on("error", () => {});
  socket.once("data", (head) => {
    socket.pause();
    const key = /Sec-WebSocket-Key: (.*)\\r/i.exec(String(head))[1];
    socket.write("HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: websocket\\r\\n" +
      "Connection: Upgrade\\r\\nSec-WebSocket-Accept: " + acceptToken(key) + "\\r\\n\\r\\n");
  });
});
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const collect = globalThis.gc ?? (() => globalThis.Bun.gc(true));

async function leave() {
  const { writable } = await new WebSocketStream("ws://127.0.0.1:" + server.address().port).opened;
  writable.getWriter().write(new Uint8Array(32 * 1024 * 1024)).catch(() => {});
}
async function rounds() {
  for (let i = 0; i < 10; i++) {
    await new Promise((resolve) => setTimeout(resolve, 5));
    collect();
  }
}
for (let i = 0; i < 3; i++) await leave();
await rounds();
for (const socket of sockets) socket.destroy();
await rounds();
server.close();
console.log("collected");
`;

const flags = process.versions.bun !== undefined
  ? []
  : process.versions.deno !== undefined
  ? ["--v8-flags=--expose-gc"]
  : ["--expose-gc"];

describe("A WebSocketStream that is garbage", () => {
  it("One with a write that waits does no harm when it is collected", async () => {
    await withPrograms(async (start) => {
      const child = await start("garbage.mjs", PROGRAM, { flags });
      await child.printed(/collected/);
      assert.equal(await child.exited, 0, child.stderr);
      assert.equal(child.stderr, "");
    });
  });
});
