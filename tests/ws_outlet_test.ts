/** When the sending half of `sluice/ws` writes, and what it does with its callbacks. */
import assert from "node:assert/strict";
import { once } from "node:events";
import type { AddressInfo } from "node:net";
import { nextTick } from "node:process";
import { Duplex } from "node:stream";
import { it } from "./it.ts";
import { Sender, WebSocket, WebSocketServer } from "../lib/ws.ts";
import { concat } from "./bytes.ts";

/** A socket that takes everything in a later tick, as long as `answers` is true. */
function socketOf(chunks: Uint8Array[], answers = true) {
  const waiting: (() => void)[] = [];
  const socket = new Duplex({
    read() {},
    write(chunk: Uint8Array, _, done) {
      chunks.push(new Uint8Array(chunk));
      if (answers) nextTick(done);
      else waiting.push(done);
    },
    // Like a socket: several parts are one write.
    writev(parts: { chunk: Uint8Array }[], done) {
      for (const { chunk } of parts) chunks.push(new Uint8Array(chunk));
      nextTick(done);
    },
  });
  return { socket, waiting };
}

it("sluice/ws: messages of one turn are one write", async () => {
  const chunks: Uint8Array[] = [];
  const sender = new Sender(socketOf(chunks).socket);
  const { promise, resolve } = Promise.withResolvers<void>();
  for (let at = 0; at < 10; at++) sender.send("a", { fin: true });
  sender.ping("b", false, () => resolve());
  await promise;
  assert.deepEqual(chunks.map(({ length }) => length), [33]);
});

it("sluice/ws: a program that awaits each message does not wait for a turn each time", async () => {
  const chunks: Uint8Array[] = [];
  const sender = new Sender(socketOf(chunks).socket);
  let turns = 0;
  let isOver = false;
  const count = () => {
    turns++;
    if (!isOver) setImmediate(count);
  };
  setImmediate(count);
  const sendAll = async () => {
    for (let at = 0; at < 400; at++) {
      await new Promise<void>((resolve) => sender.send("a", { fin: true }, () => resolve()));
    }
  };
  await Promise.all([sendAll(), sendAll(), sendAll()]);
  isOver = true;
  assert.equal(chunks.length, 400, "each batch has a message of each loop");
  assert.ok(turns < 100, `${turns} turns`);
  assert.ok(turns > 3, `other things wait for all messages: ${turns} turns`);
});

it("sluice/ws: a callback that throws does not keep others from being called", async () => {
  const { socket, waiting } = socketOf([], false);
  const sender = new Sender(socket);
  const log: string[] = [];
  let failed: unknown;
  const { promise, resolve } = Promise.withResolvers<void>();
  sender.send("a", { fin: true }, () => log.push("a"));
  sender.send("b", { fin: true }, () => {
    throw new Error("oops");
  });
  sender.send("c", { fin: true }, () => {
    log.push("c");
    resolve();
  });
  await new Promise((resolve) => setImmediate(() => setImmediate(resolve)));
  assert.equal(waiting.length, 1);
  try {
    waiting[0]();
  } catch (error) {
    failed = error;
  }
  await promise;
  assert.equal((failed as Error).message, "oops");
  assert.deepEqual(log, ["a", "c"]);
});

it("sluice/ws: a program may use its buffer again after send()", async () => {
  for (const length of [100, 8191, 8192, 20_000, 65_535, 65_536, 200_000]) {
    const chunks: Uint8Array[] = [];
    const sender = new Sender(socketOf(chunks).socket);
    const bytes = new Uint8Array(length).fill(1);
    const { promise, resolve } = Promise.withResolvers<void>();
    sender.send(bytes, { binary: true, fin: true }, () => resolve());
    bytes.fill(2);
    await promise;
    const header = length < 65_536 ? length < 126 ? 2 : 4 : 10;
    const sent = concat(chunks);
    assert.equal(sent.length, header + length);
    assert.ok(sent.subarray(header).every((byte) => byte === 1), `${length} bytes have changed`);
  }
});

/** Sends bytes that are detached in the same turn. Returns what the callback and the close report. */
async function sendDetached(client: WebSocket): Promise<string[]> {
  const bytes = new Uint8Array(100).fill(1);
  const log: string[] = [];
  const closed = once(client, "close");
  client.send(bytes, (error) => log.push((error as { code?: string }).code!));
  structuredClone(bytes, { transfer: [bytes.buffer] });
  const [code] = await closed;
  return [...log, String(code)];
}

it("sluice/ws: bytes that are detached while they wait cut the connection", async () => {
  for (const perMessageDeflate of [false, { threshold: 0 }]) {
    const wss = new WebSocketServer({ port: 0, perMessageDeflate });
    const received: unknown[] = [];
    wss.on("connection", (ws) => ws.on("message", (data) => received.push(data.toString())));
    await once(wss, "listening");
    const { port } = wss.address() as AddressInfo;
    const client = new WebSocket(`ws://127.0.0.1:${port}`, { perMessageDeflate });
    await once(client, "open");
    // Only a message that waits is not copied at once.
    if (!perMessageDeflate) client.send(new Blob(["first"]));
    assert.deepEqual(await sendDetached(client), ["ERR_INVALID_STATE", "1006"]);
    await Promise.all([...wss.clients].map((ws) => once(ws, "close")));
    assert.ok(!received.includes(""), "an empty message was sent");
    wss.close();
    await once(wss, "close");
  }
});
