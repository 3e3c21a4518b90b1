/** Fuzzes many connections at a time. An idle one leaves its decoder to the next one that receives. */
import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import {
  encodeFrame,
  type Extension,
  type FramePiece,
  Opcode,
  Protocol,
  type ProtocolEvent,
  type ProtocolOptions,
  RemoteProtocolError,
  type Role,
} from "../../lib/core/mod.ts";
import { webTextCodec } from "../../lib/core/utf8.ts";
import { frameInput } from "./frames.ts";
import { chop, Random } from "./random.ts";
import type { Target } from "./target.ts";

const MOST = 1000;
const MOST_CHUNKS = 60;

/** Called within callbacks of the application. */
type Callback = () => void;

/** An extension that changes nothing. */
class Unchanged implements Extension {
  readonly name = "unchanged";
  readonly rsv = 4;
  readonly #pieces: FramePiece[] = [];
  push(piece: FramePiece): void {
    this.#pieces.push(piece);
  }
  next = (): FramePiece | undefined => this.#pieces.shift();
  encode = <T>(frame: T): T => frame;
  close(): void {}
}

/** A connection and what it did. It does the same each time that it is made with the same seed. */
class Neighbour {
  readonly log: unknown[] = [];
  readonly #random: Random;
  readonly #protocol: Protocol;
  readonly #chunks: Uint8Array[];
  readonly #kept: ProtocolEvent[] = [];
  readonly #failsAt: number;
  readonly #interferes: boolean;
  readonly #isPlain: boolean;
  #callbacks = 0;
  #isBusy = false;
  #isOver = false;

  constructor(seed: number, callback: Callback) {
    const random = this.#random = new Random(seed);
    const role: Role = random.pick(["client", "server"]);
    this.#chunks = [...Array(1 + random.below(3))].flatMap(() => // Most chunks hold one or a few frames. Many single bytes would take the time of other inputs.
    [
      ...this.#growing(role),
      ...chop(random, frameInput(random, role).bytes.subarray(0, MOST)).slice(0, MOST_CHUNKS),
    ]);
    this.#failsAt = random.once(4) ? random.below(6) : Infinity;
    this.#interferes = random.once(4);
    const called = (what: unknown) => {
      this.log.push(what);
      this.#called();
      callback();
    };
    const options = optionsOf(random, called, seed);
    this.#isPlain = options.extensions === undefined;
    this.#protocol = new Protocol(role, options);
    this.#protocol.whole = random.once(2);
  }

  /** A message whose last frame needs more memory. Each chunk is one frame. */
  #growing(role: Role): Uint8Array[] {
    const mask = role === "server" ? { mask: this.#random.bytes(4) } : {};
    const opcode = this.#random.pick([Opcode.Text, Opcode.Binary]);
    const payload = new Uint8Array(10 + this.#random.below(30)).fill(97 + this.#random.below(26));
    return [
      encodeFrame({ fin: false, opcode, payload: payload.subarray(0, 1) }, mask),
      encodeFrame({ opcode: Opcode.Continuation, payload }, mask),
    ];
  }

  /** An application may throw, and may use the connection. */
  #called(): void {
    const at = this.#callbacks++;
    if (at === this.#failsAt) throw new Error("A callback threw");
    if (!this.#interferes) return;
    this.log.push(this.#protocol.release(at % 5 === 4));
    if (at < 30 && at % 5 > 2) this.log.push(this.#attempt(() => this.#read()));
  }

  /** Returns whether there is more to do. */
  step(before: Callback): boolean {
    if (this.#isBusy || this.#isOver) return !this.#isOver;
    this.#isBusy = true;
    this.log.push(this.#attempt(() => this.#act(before)));
    const { held, bufferedAmount, bufferedMemory, state, counts } = this.#protocol;
    this.log.push(held, bufferedAmount, bufferedMemory, state, counts);
    this.#isBusy = false;
    if (this.#isOver) this.log.push(...this.#kept);
    return !this.#isOver;
  }

  #act(before: Callback): unknown {
    const random = this.#random;
    const protocol = this.#protocol;
    switch (random.below(12)) {
      case 0:
        return protocol.release();
      case 1:
        return this.#read();
      case 2:
        if (random.once(4)) protocol.maxMessageSize = random.pick([30, 400, 20_000]);
        return undefined;
      case 3:
        return random.once(4) ? [protocol.takeHeld(), protocol.whole = !protocol.whole] : undefined;
      case 4:
        if (random.once(10)) protocol.dispose();
        return protocol.send({ type: "pong", payload: new Uint8Array(1) }).length;
    }
    const chunk = this.#chunks.shift()?.slice() ?? null;
    this.#isOver = chunk === null;
    const canLend = chunk !== null && this.#isPlain && protocol.bufferedAmount === 0;
    const isLent = canLend && random.once(2);
    const readsAll = chunk === null || !random.once(4);
    const releases = random.once(2);
    before();
    protocol.receive(chunk);
    const read: unknown[] = [];
    try {
      read.push(readsAll ? this.#readAll(isLent) : this.#read(isLent));
    } catch (error) {
      read.push(this.#report(error));
    }
    if (isLent) {
      read.push(protocol.release(true));
      chunk.fill(0xee);
    } else if (releases) read.push(protocol.release());
    return read;
  }

  #readAll(isLent: boolean): unknown[] {
    const events: unknown[] = [];
    for (let event = this.#read(isLent); event !== undefined; event = this.#read(isLent)) {
      events.push(event);
    }
    return events;
  }

  #read(isLent = false): unknown {
    const event = this.#protocol.next();
    if (event === undefined) return undefined;
    const isView = event.type === "binary" && !this.#protocol.whole;
    if (!isView || !isLent) this.#kept.push(event);
    return structuredClone(event);
  }

  #attempt(act: () => unknown): unknown {
    try {
      return act();
    } catch (error) {
      return this.#report(error);
    }
  }

  #report(error: unknown): unknown {
    const answer = error instanceof RemoteProtocolError ? error.event : undefined;
    const event = answer?.type === "close" ? answer : undefined;
    const answered = event && this.#random.once(2) &&
      this.#attempt(() => this.#protocol.send(event).length);
    return [String(error), event, answered];
  }
}

function optionsOf(random: Random, called: (what: unknown) => void, mark: number): ProtocolOptions {
  const options: ProtocolOptions = { ownsInput: random.once(2) };
  if (random.once(3)) options.maxFrameSize = random.pick([10, 130, 5000]);
  if (random.once(3)) options.maxMessageSize = random.pick([10, 130, 5000]);
  if (random.once(5)) options.extensions = [new Unchanged()];
  if (random.once(5)) {
    options.onFrame = (direction, { payload, ...frame }) => {
      called([direction, frame, payload.slice()]);
    };
  }
  if (random.once(3)) {
    options.textCodec = {
      ...webTextCodec,
      decode: (bytes, start, end) => {
        const text = webTextCodec.decode(bytes, start, end);
        called(["decode", end - start]);
        return `${mark} ${text}`;
      },
    };
  }
  if (random.once(2)) {
    options.allocate = (length) => {
      called(["allocate", length]);
      return new Uint8Array(length);
    };
  }
  return options;
}

/** Takes the decoder that an idle connection has left. */
function takeSpare(): void {
  new Protocol("client").receive(Uint8Array.of(0x81));
}

function logsApart(seeds: readonly number[]): unknown[][] {
  return seeds.map((seed) => {
    const alone = new Neighbour(seed, () => {});
    while (alone.step(takeSpare));
    return alone.log;
  });
}

function logsTogether(seeds: readonly number[], random: Random): unknown[][] {
  let depth = 0;
  const callback = () => {
    if (depth === 2 || random.once(2)) return;
    depth++;
    for (let count = random.below(4); count > 0; count--) random.pick(all).step(() => {});
    depth--;
  };
  const all = seeds.map((seed) => new Neighbour(seed, callback));
  for (let left = all; left.length > 0;) {
    const one = random.pick(left);
    // A socket often has several chunks one after the other.
    for (let count = 1 + random.below(3); count > 0; count--) {
      if (!one.step(() => {})) left = left.filter((other) => other !== one);
    }
  }
  return all.map(({ log }) => log);
}

const neighbours: Target = {
  what: "Protocol: many connections in turns do what each does alone",
  inputs: 50_000,
  run(random) {
    const seeds = [...Array(2 + random.below(4))].map(() => random.below(2 ** 31));
    const together = logsTogether(seeds, random);
    logsApart(seeds).forEach((log, i) => {
      // Only one entry is compared, because the report of two long logs takes minutes.
      const at = log.findIndex((entry, k) => !isDeepStrictEqual(entry, together[i][k]));
      assert.deepEqual([i, at, together[i][at]], [i, at, log[at]]);
      assert.equal(together[i].length, log.length);
    });
    return `${seeds.length} connections`;
  },
};

export const NEIGHBOURS: Readonly<Record<string, Target>> = { neighbours };
