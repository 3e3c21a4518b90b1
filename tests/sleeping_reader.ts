/** Sends to a reader that sleeps, over TLS. The suite sends a smaller amount than `deno task soak`. */
import assert from "node:assert/strict";
import { createHash } from "node:crypto";
import process from "node:process";
import { connect, serve, type WebSocketConnection } from "../mod.ts";
import { certificates } from "./certificates.ts";
import { portOf, still, turn } from "./support.ts";

const MIB = 1 << 20;
/** The most bytes a connection may buffer: 64 KiB and the messages that exceed it. */
const MOST_BUFFERED = 256 * 1024;
/** The most bytes that may be in flight between two correct ends. */
const MOST_STALLED = 16 * MIB;
/** The short messages are copied into a shared batch buffer, the others are not. */
const SIZES = [100, 4000, 60_000];

/** The results. All of them except the count are in bytes. */
export interface SleepReport {
  /** The amount sent when the sender stalled. */
  stalled: number;
  /** The most that waited in the sender. */
  buffered: number;
  /** Resident memory before the test, when the sender stalled, and at its peak. */
  rss: { before: number; asleep: number; peak: number };
  /** The number of messages. */
  count: number;
}

/** Runs a test with both ends of a connection over TLS. */
export async function withTlsEnds(
  run: (client: WebSocketConnection, server: WebSocketConnection) => Promise<void>,
): Promise<void> {
  const { ca, leaf } = await certificates();
  const options = { pingInterval: 0, openTimeout: 30_000 };
  let accepted!: (ws: WebSocketConnection) => void;
  const accepting = new Promise<WebSocketConnection>((resolve) => accepted = resolve);
  const server = await serve({ tls: leaf, ...options }, async (ws) => {
    accepted(ws);
    await ws.closed.catch(() => {});
  });
  const client = await connect(`wss://localhost:${portOf(server)}/`, { tls: { ca }, ...options });
  try {
    await run(client, await accepting);
    await client.close();
  } finally {
    client.terminate();
    await server.shutdown();
  }
}

/**
 * Sends until the sender stalls, wakes the reader, and compares everything that was received with everything
 * that was sent.
 *
 * @param total Amount to send, in bytes: far more than any kernel buffers
 * @param sleep How much longer the reader then sleeps, in milliseconds
 */
export async function sendToSleeper(
  from: WebSocketConnection,
  to: WebSocketConnection,
  total: number,
  sleep = 0,
): Promise<SleepReport> {
  const memory = new Memory();
  const sender = new Sender(from, memory);
  const sending = sender.send(total);
  sending.catch(() => {});
  const stalled = await still(() => sender.sent);
  await new Promise((resolve) => setTimeout(resolve, sleep));
  assert.equal(sender.sent, stalled, "It stands still as long as the reader sleeps");
  assert.ok(stalled > 0 && stalled < total, `${stalled} bytes were sent`);
  assert.ok(stalled <= MOST_STALLED, `${stalled} bytes were sent`);
  const asleep = memory.sample();
  const { count, digest } = await readAll(to, total, memory);
  await sending;
  assert.ok(sender.buffered <= MOST_BUFFERED, `${sender.buffered} bytes waited`);
  assert.equal(count, sender.count);
  assert.equal(digest, sender.digest(), "What came is not what was sent");
  const rss = { before: memory.before, asleep, peak: memory.peak };
  return { stalled, buffered: sender.buffered, rss, count };
}

class Sender {
  sent = 0;
  count = 0;
  buffered = 0;
  readonly #ws: WebSocketConnection;
  readonly #memory: Memory;
  readonly #hash = createHash("sha256");

  constructor(ws: WebSocketConnection, memory: Memory) {
    this.#ws = ws;
    this.#memory = memory;
  }

  async send(total: number): Promise<void> {
    while (this.sent < total) {
      const bytes = message(this.count++);
      this.#hash.update(bytes);
      const sending = this.#ws.send(bytes);
      this.buffered = Math.max(this.buffered, this.#ws.bufferedAmount);
      await sending;
      this.sent += bytes.length;
      if (this.count % 256 === 0) this.#memory.sample();
    }
  }

  digest(): string {
    return this.#hash.digest("hex");
  }
}

/** Reads all messages, and checks that they arrive in order. */
async function readAll(ws: WebSocketConnection, total: number, memory: Memory) {
  const hash = createHash("sha256");
  let received = 0;
  let count = 0;
  while (received < total) {
    const bytes = await ws.receive();
    assert.ok(bytes instanceof Uint8Array);
    const index = new DataView(bytes.buffer, bytes.byteOffset).getUint32(0);
    assert.equal(index, count++, `Message ${index} is out of order`);
    hash.update(bytes);
    received += bytes.length;
    // The reader is slow at first.
    if (count < 200) await turn();
    if (count % 256 === 0) memory.sample();
  }
  return { count, digest: hash.digest("hex") };
}

function message(index: number): Uint8Array {
  const bytes = new Uint8Array(SIZES[index % SIZES.length]).fill(index * 7 + (index >> 8));
  new DataView(bytes.buffer).setUint32(0, index);
  return bytes;
}

/** The resident memory of this process. */
class Memory {
  readonly before: number = process.memoryUsage().rss;
  peak = 0;

  sample(): number {
    const { rss } = process.memoryUsage();
    this.peak = Math.max(this.peak, rss);
    return rss;
  }
}
