/** Makes valid and damaged compressed messages and bombs, and tests the code that inflates them. */
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { deflateRawSync } from "node:zlib";
import {
  encodeFrame,
  type Extension,
  type Frame,
  FrameDecoder,
  type Message,
  MessageAssembler,
  Opcode,
  PerMessageDeflate,
  type PerMessageDeflateOptions,
  Protocol,
  RemoteProtocolError,
  type Role,
  Rsv,
} from "../../lib/core/mod.ts";
import type { DeflateEngine, Inflater } from "../../lib/core/deflate.ts";
import { publicEngine } from "../../lib/runtime/zlib.ts";
import { deflateEngine } from "../../lib/zlib.ts";
import { joined } from "./frames.ts";
import { chop, mutateBytes, type Random } from "./random.ts";
import { outcomeOf, type Target } from "./target.ts";

/** Maximum size of a chunk of inflated data, in bytes. */
const PIECE = 65536;
const MAX_MESSAGE = 100_000;
const ROLES: readonly Role[] = ["client", "server"];
const ENGINES: readonly DeflateEngine[] = [deflateEngine, publicEngine];

/** Both kinds of context takeover, and windows of each size. */
const SETTINGS: readonly PerMessageDeflateOptions[] = [
  {},
  { memory: "low" },
  { memory: "high" },
  { clientNoContextTakeover: true, serverNoContextTakeover: true },
  { clientNoContextTakeover: true, serverMaxWindowBits: 9 },
  { serverNoContextTakeover: true, clientMaxWindowBits: 8 },
];

/** Bytes for one end, and the messages in them unless the bytes are damaged. */
export interface CompressedInput {
  bytes: Uint8Array;
  said?: Message[];
}

/** Negotiates the extension. The result is the same for the same settings. */
function agree(
  settings: PerMessageDeflateOptions,
  engine: DeflateEngine,
  maxMessageSize: number,
): Record<Role, Extension> {
  const factory = new PerMessageDeflate({ ...settings, threshold: 0, engine, maxMessageSize });
  const { parameters, extension } = factory.accept(factory.offer()[0])!;
  return { client: factory.finalize(parameters), server: extension };
}

function messageOf(random: Random): Message {
  const length = random.pick([0, 1, 10, 100, 1000, 1000, 10_000]);
  switch (random.below(8)) {
    case 0:
      return random.bytes(length);
    case 1:
      // Some of these messages exceed the size limit.
      return new Uint8Array(random.once(5) ? random.pick([90_000, 110_000, 500_000]) : length);
    case 2:
      return "\u20ac\u{1f600}a".repeat(length / 10);
    case 3:
      return new Uint8Array(length).fill(random.below(256));
    default:
      return `{"id":${random.below(1000)},"name":"name"}`.repeat(length / 25);
  }
}

/**
 * Makes bytes for an end with this role.
 *
 * @param settings The negotiated settings, as the peer has them.
 */
export function compressedInput(
  random: Random,
  receiver: Role,
  settings: PerMessageDeflateOptions,
): CompressedInput {
  const sender: Role = receiver === "client" ? "server" : "client";
  const extension = agree(settings, deflateEngine, Infinity)[sender];
  const protocol = new Protocol(sender, { extensions: [extension] });
  const said = random.list(4, () => messageOf(random));
  const written = said.flatMap((message) => send(random, protocol, message));
  protocol.dispose();
  const frames = decode(receiver, joined(written));
  if (random.once(4)) return { bytes: encode(random, receiver, frames), said };
  for (let count = 1 + random.below(3); count > 0; count--) damage(random, frames);
  const bytes = encode(random, receiver, frames);
  return { bytes: random.once(4) ? mutateBytes(random, bytes) : bytes };
}

/** Encodes a message in frames of random lengths. */
function send(random: Random, protocol: Protocol, message: Message): Uint8Array[] {
  const ends = random.list(3, () => random.below(message.length + 1)).sort((a, b) => a - b);
  // A string must not be cut between the two halves of a character.
  const cuts = typeof message === "string" ? [] : ends;
  let start = 0;
  return [...cuts, message.length].map((end, i) => {
    const data = message.slice(start, end);
    start = end;
    const rest = { frameFinished: true, messageFinished: i === cuts.length };
    return protocol.send(
      typeof data === "string"
        ? { type: "text", data, ...rest }
        : { type: "binary", data, compress: !random.once(5), ...rest },
    );
  });
}

function decode(receiver: Role, bytes: Uint8Array): Frame[] {
  const decoder = new FrameDecoder({ role: receiver, rsvInUse: Rsv.Rsv1, ownsInput: true });
  const frames: Frame[] = [];
  decoder.push(bytes);
  for (let piece = decoder.next(); piece !== undefined; piece = decoder.next()) {
    const { fin, rsv, opcode } = piece.header;
    assert.ok(piece.last);
    frames.push({ fin, rsv, opcode: opcode as Opcode, payload: piece.payload });
  }
  return frames;
}

function encode(random: Random, receiver: Role, frames: readonly Frame[]): Uint8Array {
  const masked = receiver === "server";
  return joined(
    frames.map((frame) => encodeFrame(frame, masked ? { mask: random.bytes(4) } : {})),
  );
}

/** A bomb: 1 KiB of it inflates to 1 MiB. */
const BOMB = deflateRawSync(new Uint8Array(1 << 22), { level: 9 });

/** Payloads of a malicious peer. */
const ODD: readonly ((random: Random) => Uint8Array)[] = [
  // An unknown block type, stored blocks whose lengths do not match, no block at all.
  () => Uint8Array.from([0x07]),
  () => Uint8Array.from([0x00, 0x05, 0x00, 0x05, 0x00, 1, 2, 3, 4, 5]),
  () => new Uint8Array(0),
  () => new Uint8Array(1),
  // A reference to data that was never sent.
  () => Uint8Array.from([0x4b, 0x04, 0x61, 0x00, 0x62, 0x00]),
  // Final blocks (RFC 7692 §7.2.3.4), followed by other data, and very many empty ones.
  (random) => deflateRawSync(new Uint8Array(random.below(5000))),
  (random) => joined([deflateRawSync(random.bytes(50)), deflateRawSync(random.bytes(50))]),
  (random) => joined(Array.from({ length: random.below(2000) }, () => Uint8Array.from([3, 0]))),
  // Empty stored blocks, which cost the receiver work and produce no output.
  (random) => new Uint8Array(5 * random.below(2000)).map((_, i) => i % 5 < 3 ? 0 : 255),
  () => BOMB,
  (random) => random.bytes(random.pick([1, 20, 500])),
];

function damage(random: Random, frames: Frame[]): void {
  const at = random.below(frames.length + 1);
  const frame = frames[at];
  switch (frame === undefined ? 0 : random.below(9)) {
    case 0: {
      const payload = random.pick(ODD)(random);
      frames.splice(at, 0, { fin: !random.once(5), rsv: Rsv.Rsv1, opcode: Opcode.Binary, payload });
      break;
    }
    case 1:
      frames.splice(at, 1);
      break;
    case 2:
      frames[at] = { ...frame, rsv: (frame.rsv ?? 0) ^ Rsv.Rsv1 };
      break;
    case 3:
      frames[at] = { ...frame, opcode: random.pick([Opcode.Text, Opcode.Binary]) };
      break;
    case 4:
    case 5:
      frames[at] = { ...frame, payload: random.pick(ODD)(random) };
      break;
    default:
      frames[at] = { ...frame, payload: mutateBytes(random, frame.payload) };
  }
}

/** Makes an engine that reports the size of its output. */
function counting(engine: DeflateEngine, onOutput: (size: number) => void): DeflateEngine {
  return {
    deflater: (options) => engine.deflater(options),
    inflater(options): Inflater {
      const inflater = engine.inflater(options);
      return {
        get idle() {
          return inflater.idle;
        },
        push: (input) => inflater.push(input),
        finish: () => inflater.finish(),
        nextLater: () => assert.fail("Nothing is done elsewhere without onReady"),
        reset: () => inflater.reset(),
        close: () => inflater.close(),
        next() {
          const output = inflater.next();
          onOutput(output.length);
          return output;
        },
      };
    },
  };
}

interface Inflated {
  messages: Message[];
  outcome: string;
}

/** Inflates the input, and checks the output against the limits. */
function inflate(
  role: Role,
  settings: PerMessageDeflateOptions,
  engine: DeflateEngine,
  chunks: Uint8Array[],
): Inflated {
  let unseen = 0;
  const counted = counting(engine, (size) => {
    assert.ok(size <= PIECE, `a piece of ${size} bytes`);
    unseen += size;
    assert.ok(unseen <= MAX_MESSAGE + 2 * PIECE, `${unseen} bytes were inflated for one message`);
  });
  const extension = agree(settings, counted, MAX_MESSAGE)[role];
  const protocol = new Protocol(role, { maxMessageSize: MAX_MESSAGE, extensions: [extension] });
  const assembler = new MessageAssembler();
  const messages: Message[] = [];
  try {
    for (const chunk of [...chunks, null]) {
      if (protocol.state !== "open") break;
      protocol.receive(chunk);
      for (const event of protocol.events()) {
        if (event.type !== "text" && event.type !== "binary") continue;
        assert.ok(event.data.length <= PIECE + MAX_MESSAGE);
        const message = assembler.push(event);
        assert.ok(assembler.size <= MAX_MESSAGE, `${assembler.size} are held`);
        if (message === undefined) continue;
        messages.push(typeof message === "string" ? message : message.slice());
        unseen = 0;
      }
    }
    return { messages, outcome: "inflated" };
  } catch (error) {
    assert.ok(error instanceof RemoteProtocolError, String(error));
    return { messages, outcome: outcomeOf(error, [1002, 1007, 1009]) };
  } finally {
    protocol.dispose();
  }
}

const deflate: Target = {
  what:
    "PerMessageDeflate with each engine: same messages for whole and cut input, within the limits",
  inputs: 20_000,
  run(random) {
    const role = random.pick(ROLES);
    const settings = random.pick(SETTINGS);
    const { bytes, said } = compressedInput(random, role, settings);
    const chopped = chop(random, bytes);
    const inputs = chopped.length < 3000 ? [[bytes], chopped] : [[bytes]];
    // The engine that collects whole messages detects truncated data in more cases than the other one.
    const engine = random.pick(ENGINES);
    const ends = inputs.map((chunks) =>
      inflate(role, settings, engine, chunks.map((chunk) => chunk.slice()))
    );
    const [first] = ends;
    for (const { messages, outcome } of ends) {
      assertSame(messages, first.messages);
      // Which of two errors is found first may depend on the chunks.
      assert.equal(outcome === "inflated", first.outcome === "inflated");
    }
    if (said === undefined) return first.outcome;
    const tooLong = said.findIndex((message) => byteLength(message) > MAX_MESSAGE);
    assert.equal(first.outcome, tooLong === -1 ? "inflated" : "1009", "A valid stream");
    assertSame(first.messages, tooLong === -1 ? said : said.slice(0, tooLong));
    return tooLong === -1 ? "as it was sent" : "too long";
  },
};

/** Like deepEqual(), which is slow with long messages. */
function assertSame(messages: readonly Message[], expected: readonly Message[]): void {
  assert.equal(messages.length, expected.length);
  for (const [i, message] of messages.entries()) {
    const other = expected[i];
    const same = typeof message === "string" || typeof other === "string"
      ? message === other
      : Buffer.compare(message, other) === 0;
    assert.ok(same, `message ${i} differs`);
  }
}

function byteLength(message: Message): number {
  return typeof message === "string" ? new TextEncoder().encode(message).length : message.length;
}

/** The targets of compression. */
export const DEFLATE: Readonly<Record<string, Target>> = { deflate };
