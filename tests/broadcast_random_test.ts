/**
 * Broadcasts to random connections, between other messages, pings and ends, in any order within a turn of
 * the event loop. Each connection must receive what it was sent, in order. BROADCAST_SEED sets the seed,
 * and BROADCAST_SECONDS repeats the test with further seeds.
 */
import assert from "node:assert/strict";
import process from "node:process";
import { it } from "node:test";
import {
  accept,
  broadcast,
  type BroadcastOptions,
  connect,
  type Message,
  type WebSocketConnection,
} from "../mod.ts";
import { transportPair } from "../lib/testing.ts";
import { Random } from "../scripts/fuzz/random.ts";
import { turn, until } from "./support.ts";

const { BROADCAST_SEED, BROADCAST_SECONDS = "0" } = process.env;
const SEED = Number(BROADCAST_SEED ?? Date.now() % 1_000_000);
/** Number of seeds that are always run. */
const RUNS = 12;

const CONNECTIONS = 8;
const STEPS = 150;
const SIZES = [0, 1, 10, 200, 1500, 9000, 70_000];
const LAST = "last";

/** A connection that broadcasts go to, with the other end. */
interface Recipient {
  readonly from: WebSocketConnection;
  readonly to: WebSocketConnection;
  readonly expected: string[];
  readonly received: string[];
  isPaused: boolean;
  /** Whether messages may be missing, because the connection was slow or has been ended. */
  mayMiss: boolean;
}

/** A message as a short text that is different for each message. Bytes must be equal after the number. */
function brief(message: Message): string {
  if (typeof message === "string") return `${message.slice(0, 8)} ${message.length}`;
  const isEven = message.every((byte, i) => i < 4 || byte === message[4]);
  return `${message.slice(0, 5)} ${message.length} ${isEven}`;
}

/** @param isPlain Whether the connection can share frames with all others. */
async function open(random: Random, isPlain: boolean): Promise<Recipient> {
  const perMessage = { serverNoContextTakeover: true, clientNoContextTakeover: true };
  const compression = isPlain ? false : random.pick([false, true, perMessage]);
  const protocols = random.pick([[], ["chat"]]);
  const [near, far] = transportPair({ chunkSize: random.pick([100, 5000, 1_000_000]) });
  const [client, server] = await Promise.all([
    connect("ws://test/", { transport: near, protocols, compression }),
    accept(far, { protocols: ["chat"], compression }),
  ]);
  const [from, to] = !isPlain && random.once(4) ? [client, server] : [server, client];
  return { from, to, expected: [], received: [], isPaused: false, mayMiss: false };
}

async function read(recipient: Recipient): Promise<void> {
  try {
    for await (const message of recipient.to) {
      while (recipient.isPaused) await turn();
      recipient.received.push(brief(message));
    }
  } catch {
    // The connection was cut.
  }
}

class Run {
  readonly #random: Random;
  readonly #recipients: readonly Recipient[];
  readonly #policy: NonNullable<BroadcastOptions["slow"]>;
  readonly #sizes: readonly number[];
  #chosen: Recipient[] = [];
  #count = 0;

  constructor(random: Random, recipients: readonly Recipient[]) {
    this.#random = random;
    this.#recipients = recipients;
    this.#policy = random.pick(["close", "terminate", "drop-newest"]);
    this.#sizes = random.pick([SIZES, SIZES.slice(0, 4)]);
  }

  step(): void {
    const random = this.#random;
    const one = random.pick(this.#recipients);
    const action = random.below(16);
    if (action < 10) this.#broadcast();
    else if (action === 10) this.#send(one, [`one ${this.#count++}`]);
    else if (action === 11) this.#send(one, ["item", `s ${this.#count++}`]);
    else if (action === 12) one.from.ping().catch(() => {});
    else if (action === 13) one.isPaused = !one.isPaused;
    else if (random.once(4)) this.#end(one);
  }

  /** A message with a number, which is overwritten after the call if it has bytes. */
  #message(): Message {
    const number = this.#count++;
    const size = this.#random.pick(this.#sizes);
    const letter = this.#random.pick(["x", "\u00e9", "\u20ac", "\u{1f600}"]);
    if (this.#random.once(2)) return `${number}: ${letter.repeat(size >> 2)}`;
    const bytes = new Uint8Array(size + 4).fill(number);
    new DataView(bytes.buffer).setUint32(0, number);
    return bytes;
  }

  #broadcast(): void {
    const random = this.#random;
    if (random.once(8)) this.#chosen = this.#recipients.filter(() => !random.once(3));
    const message = this.#message();
    const expected = brief(message);
    const except = random.once(8) ? this.#chosen.at(0) : undefined;
    const targets = this.#chosen.filter((each) => each !== except && each.from.state === "open");
    const { sent, missed, closed } = broadcast(this.#chosen.map(({ from }) => from), message, {
      slow: this.#policy,
      maxBufferedAmount: random.pick([1_048_576, 1_048_576, 1e9, 1e9, 1000]),
      compress: random.pick([undefined, true, false]),
      except: except?.from,
    });
    assert.equal(sent + missed + closed, targets.length);
    if (typeof message !== "string") message.fill(255);
    for (const target of targets) {
      target.expected.push(expected);
      if (missed + closed > 0) target.mayMiss = true;
    }
  }

  #send({ from, expected }: Recipient, items: string[]): void {
    if (from.state !== "open") return;
    expected.push(brief(items.join("")));
    from.send(items.length === 1 ? items[0] : items).catch(() => {});
  }

  #end(recipient: Recipient): void {
    recipient.mayMiss = true;
    const end = this.#random.pick([recipient.from, recipient.to]);
    if (this.#random.once(2)) end.terminate();
    else end.close().catch(() => {});
  }
}

function check({ from, to, expected, received, mayMiss }: Recipient): void {
  let at = 0;
  for (const message of received) {
    at = expected.indexOf(message, at) + 1;
    assert.ok(at > 0, `Received ${message}, but not in order: ${received} of ${expected}`);
  }
  if (mayMiss) return;
  assert.deepEqual(received, expected);
  assert.equal(from.stats.messagesSent, expected.length);
  assert.equal(from.stats.bytesSent, to.stats.bytesReceived);
}

async function run(seed: number): Promise<void> {
  const random = new Random(seed);
  const isPlain = random.once(2);
  const opening = Array.from({ length: CONNECTIONS }, () => open(random, isPlain));
  const recipients = await Promise.all(opening);
  const pause = random.pick([3, 10]);
  const reading = recipients.map(read);
  const steps = new Run(random, recipients);
  for (let step = 0; step < STEPS; step++) {
    steps.step();
    if (random.once(pause)) await turn();
    else if (random.once(5)) await undefined;
  }
  for (const recipient of recipients) {
    recipient.isPaused = false;
    if (recipient.from.state !== "open") continue;
    recipient.expected.push(brief(LAST));
    recipient.from.send(LAST).catch(() => {});
  }
  await until(() =>
    recipients.every(({ received, to }) => received.includes(brief(LAST)) || to.state !== "open")
  );
  recipients.forEach(check);
  for (const { from, to } of recipients) {
    from.terminate();
    to.terminate();
  }
  await Promise.all(reading);
}

it("broadcast() sends each connection all of its messages in order, whatever comes between", async () => {
  const end = performance.now() + 1000 * Number(BROADCAST_SECONDS);
  for (let seed = SEED; seed < SEED + RUNS || performance.now() < end; seed++) {
    try {
      await run(seed);
    } catch (error) {
      console.log(`BROADCAST_SEED=${seed}`);
      throw error;
    }
  }
});
