/**
 * Does what a user of the npm package does, in plain JavaScript: imports every entry point and sends
 * messages through a server on a real socket. The process must exit without a call of exit(), which
 * shows that nothing is left open.
 */
import assert from "node:assert/strict";
import { execFile } from "node:child_process";
import { createServer } from "node:http";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { connect, serve, WebSocketStream } from "sluice";
import { encodeFrame, FrameDecoder, Opcode, Protocol } from "sluice/core";
import { attach } from "sluice/node";
import { assemble, FrameDecoderStream } from "sluice/streams";
import { pair } from "sluice/testing";

const binary = Uint8Array.from({ length: 70_000 }, (_, index) => index % 251);
const messages = [
  "hello",
  "",
  "h\u00e9llo \u{1f30a}",
  new Uint8Array(0),
  binary,
  "x".repeat(70_000),
];

for (
  const name of [connect, serve, WebSocketStream, Protocol, assemble, FrameDecoderStream, pair]
) {
  assert.equal(typeof name, "function");
}

function decodeOneFrame() {
  const payload = new TextEncoder().encode("frame");
  const decoder = new FrameDecoder({ role: "client" });
  decoder.push(encodeFrame({ fin: true, opcode: Opcode.Text, payload }));
  const piece = decoder.next();
  assert.equal(new TextDecoder().decode(piece?.payload), "frame");
  assert.equal(piece?.last, true);
}

async function echoThroughStream(url) {
  const stream = new WebSocketStream(url);
  const { readable, writable } = await stream.opened;
  const reader = readable.getReader();
  const writer = writable.getWriter();
  for (const message of messages) {
    await writer.write(message);
    assert.deepEqual((await reader.read()).value, message);
  }
  stream.close({ closeCode: 1000, reason: "done" });
  assert.equal((await stream.closed).closeCode, 1000);
}

async function echoThroughCommand(url) {
  // Node 20.0 has no import.meta.resolve().
  const command = fileURLToPath(new URL("node_modules/.bin/sluice", import.meta.url));
  const run = process.versions.deno === undefined ? [command] : ["run", "-A", command];
  const args = [...run, "--message", "typed", "--count", "1", url];
  assert.equal((await promisify(execFile)(process.execPath, args)).stdout, "typed\n");
}

async function echoThroughConnection(url) {
  const ws = await connect(url);
  for (const message of messages) {
    await ws.send(message);
    assert.deepEqual(await ws.receive(), message);
  }
  assert.equal((await ws.close({ closeCode: 1000 })).closeCode, 1000);
}

decodeOneFrame();
const server = await serve(
  { port: 0, hostname: "127.0.0.1" },
  (ws) => ws.readable.pipeTo(ws.writable),
);
const url = `ws://127.0.0.1:${server.address.port}/`;
await echoThroughStream(url);
await echoThroughConnection(url);
await echoThroughCommand(url);
await server.shutdown();

// A version that does not know the option would ignore it and listen.
const shared = await serve({ reusePort: true }, () => {}).catch((error) => error.code);
if (process.version.startsWith("v20.")) assert.equal(shared, "unsupported");
else if (typeof shared === "object") await shared.shutdown();

const http = createServer();
const attached = attach(http, {}, (ws) => ws.readable.pipeTo(ws.writable));
await new Promise((resolve) => http.listen(0, "127.0.0.1", resolve));
await echoThroughConnection(`ws://127.0.0.1:${http.address().port}/`);
await attached.shutdown();
http.close();
console.log(`smoke: ${3 * messages.length} messages echoed`);
