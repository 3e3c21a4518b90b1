/** Final DEFLATE blocks in messages (RFC 7692 §7.2.3.4): how they are inflated, and their cost. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import { constants, deflateRawSync } from "node:zlib";
import { connect, type Message } from "../../mod.ts";
import {
  encodeFrame,
  type Fragment,
  type Frame,
  MessageAssembler,
  Opcode,
  PerMessageDeflate,
  Protocol,
  type Role,
  Rsv,
} from "../../lib/core/mod.ts";
import type { DeflateEngine, Inflater } from "../../lib/core/deflate.ts";
import { deflateEngines } from "../../lib/runtime/zlib.ts";
import { assertSameBytes, concat, cut, hex, pattern, single, utf8 } from "../bytes.ts";
import { requestOf, ROLES, upgradeResponse, withRawServer } from "../support.ts";

const INFLATER = { windowBits: 15, contextTakeover: true, maxMessageSize: 2 ** 26 };
const HELLO = hex("f3 48 cd c9 c9 07 00");

const oneShot = (bytes: Uint8Array) => new Uint8Array(deflateRawSync(bytes));

function inflate(inflater: Inflater, ...parts: Uint8Array[]): Uint8Array {
  const pieces: Uint8Array[] = [];
  for (const part of parts) {
    inflater.push(part);
    while (!inflater.idle) pieces.push(inflater.next());
  }
  inflater.finish();
  while (!inflater.idle) pieces.push(inflater.next());
  return concat(pieces);
}

async function inflateLater(inflater: Inflater, message: Uint8Array): Promise<Uint8Array> {
  const pieces: Uint8Array[] = [];
  const drain = async () => {
    while (!inflater.idle) {
      pieces.push(
        await new Promise<Uint8Array>((resolve, reject) =>
          inflater.nextLater((error, output) =>
            error === undefined ? resolve(output) : reject(error)
          )
        ),
      );
    }
  };
  inflater.push(message);
  await drain();
  inflater.finish();
  await drain();
  return concat(pieces);
}

const DATA: readonly [title: string, bytes: Uint8Array][] = [
  ["nothing", utf8("")],
  ["a byte", utf8("a")],
  ["Hello", utf8("Hello")],
  ["JSON", utf8(JSON.stringify(Array.from({ length: 200 }, (_, i) => ({ id: i, n: i * i }))))],
  ["64 KiB", pattern(65536)],
  ["200 KB of zeros", new Uint8Array(200_000)],
  ["what looks like the end", hex("00 00 ff ff 00 00 ff ff 01 00 00 ff ff")],
];

const ENGINES = deflateEngines();

for (const [i, engine] of ENGINES.entries()) {
  const way = i === ENGINES.length - 1 ? "the public way" : "handles";

  describe(`D4 a message that ends in a final block, by ${way}`, () => {
    for (const contextTakeover of [true, false]) {
      const mode = contextTakeover ? "with" : "without";
      for (const [title, bytes] of DATA) {
        it(`D4 ${title}, three times in a row, ${mode} context takeover, by ${way}`, async () => {
          const inflater = engine.inflater({ ...INFLATER, contextTakeover });
          const message = oneShot(bytes);
          const next = () => contextTakeover || inflater.reset();
          for (let again = 0; again < 3; again++) {
            assert.deepEqual(inflate(inflater, message), bytes);
            next();
            assert.deepEqual(await inflateLater(inflater, message), bytes);
            next();
            // RFC 7692 §7.2.3.4: the sender appends the head of an empty block.
            assert.deepEqual(inflate(inflater, message, hex("00")), bytes);
            next();
          }
          if (message.length < 1000) {
            assert.deepEqual(inflate(inflater, ...single(message)), bytes);
          }
          inflater.close();
        });
      }
    }

    it(`D4 stored without compression, by ${way}`, () => {
      const inflater = engine.inflater(INFLATER);
      for (let again = 0; again < 2; again++) {
        const stored = hex("01 05 00 fa ff 48 65 6c 6c 6f");
        assert.deepEqual(inflate(inflater, stored), utf8("Hello"));
        assert.deepEqual(inflate(inflater, stored, hex("00")), utf8("Hello"));
      }
      inflater.close();
    });

    it(`D4 the window reaches over it, by ${way}`, () => {
      const inflater = engine.inflater(INFLATER);
      assert.deepEqual(inflate(inflater, HELLO), utf8("Hello"));
      // RFC 7692 §7.2.3.2: "Hello" as a reference to the message before.
      assert.deepEqual(inflate(inflater, hex("f2 00 11 00 00")), utf8("Hello"));
      assert.deepEqual(inflate(inflater, concat([HELLO, HELLO])), utf8("HelloHello"));
      inflater.close();
    });

    it(`D4 data that is cut short stays an error, by ${way}`, () => {
      const stored = (length: number) =>
        concat([Uint8Array.of(1, length, 0, ~length, 0xff), pattern(length)]);
      const texts = ["Hello", "abc".repeat(50), JSON.stringify({ id: 7919, names: ["a", "b"] })];
      const whole = [...texts.map((text) => oneShot(utf8(text))), stored(20)];
      for (const message of whole) {
        for (let length = 0; length < message.length; length++) {
          const inflater = engine.inflater(INFLATER);
          const short = message.subarray(0, length);
          assert.throws(() => inflate(inflater, short), Error, `${length} of ${message.length}`);
          inflater.close();
        }
      }
    });

    it(`D4 a block that is not the last, cut short, stays an error, by ${way}`, () => {
      for (let length = 0; length < 20; length++) {
        const short = concat([Uint8Array.of(0, 20, 0, 0xeb, 0xff), pattern(length)]);
        const inflater = engine.inflater(INFLATER);
        assert.throws(() => inflate(inflater, short), Error, `${length} of 20 bytes`);
        inflater.close();
      }
    });
  });
}

describe("D4 what one-shot deflateRawSync() gives is a message", () => {
  const frame = (payload: Uint8Array, opcode: Opcode = Opcode.Text, fin = true): Frame => ({
    fin,
    rsv: opcode === Opcode.Continuation ? 0 : Rsv.Rsv1,
    opcode,
    payload,
  });

  /** The messages in the frames, received in this role. */
  function received(role: Role, engine: DeflateEngine, frames: readonly Frame[]): Message[] {
    const factory = new PerMessageDeflate({ engine });
    const { parameters, extension } = factory.accept(factory.offer()[0])!;
    const extensions = [role === "server" ? extension : factory.finalize(parameters)];
    const protocol = new Protocol(role, { extensions });
    const mask = role === "server" ? hex("01 02 03 04") : undefined;
    const assembler = new MessageAssembler();
    const messages: Message[] = [];
    for (const frame of frames) {
      protocol.receive(encodeFrame(frame, { mask }));
      for (const event of protocol.events()) {
        assert.ok(event.type === "text" || event.type === "binary");
        const message = assembler.push(event);
        if (message !== undefined) messages.push(message);
      }
    }
    protocol.dispose();
    return messages;
  }

  for (const role of ROLES) {
    it(`D4 a ${role} reads it twice in a row, whole and in frames`, () => {
      for (const engine of ENGINES) {
        const frames = [
          frame(HELLO),
          frame(HELLO),
          frame(HELLO.subarray(0, 3), Opcode.Text, false),
          frame(HELLO.subarray(3), Opcode.Continuation),
          frame(HELLO, Opcode.Text, false),
          frame(HELLO, Opcode.Continuation),
          frame(oneShot(pattern(300_000)), Opcode.Binary),
          frame(HELLO),
        ];
        const [last, binary, ...texts] = received(role, engine, frames).reverse();
        assert.deepEqual(texts, ["HelloHello", "Hello", "Hello", "Hello"]);
        assertSameBytes(binary as Uint8Array, pattern(300_000));
        assert.equal(last, "Hello");
      }
    });

    it(`D4 a ${role} fails a truncated compressed message with 1007`, () => {
      for (const engine of ENGINES) {
        for (let length = 1; length < HELLO.length; length++) {
          const frames = [frame(HELLO), frame(HELLO.subarray(0, length))];
          assert.throws(() => received(role, engine, frames), { closeCode: 1007 }, `${length}`);
        }
      }
    });
  }

  it("D4 connect() gets it from a server", async () => {
    const extensions = "permessage-deflate";
    await withRawServer(async (raw) => {
      const head = await requestOf(raw);
      raw.write(upgradeResponse(head, { "Sec-WebSocket-Extensions": extensions }));
      for (let i = 0; i < 2; i++) raw.write(hex("c1 07 f3 48 cd c9 c9 07 00"));
    }, async (url) => {
      const ws = await connect(url);
      for (let i = 0; i < 2; i++) assert.equal(await ws.receive(), "Hello");
      ws.terminate();
    });
  });
});

describe("B3 final blocks in a message", () => {
  const engine = ENGINES[0];
  // Noise fills the window with data that a block cannot contain itself.
  const noise = crypto.getRandomValues(new Uint8Array(32768));
  const blocks: readonly [title: string, message: Uint8Array][] = [
    ["15 empty blocks", concat(Array(15).fill(oneShot(utf8(""))))],
    ["15 empty blocks and an octet", concat([...Array(15).fill(oneShot(utf8(""))), hex("00")])],
    ["10 blocks of a byte", concat(Array(10).fill(oneShot(utf8("a"))))],
    // A match of length 3 at distance 1, in a fixed block: it refers to the window.
    ["10 blocks that refer to what came before", concat(Array(10).fill(hex("03 02 00")))],
    ["one block", oneShot(utf8("a"))],
  ];
  for (const [title, message] of blocks) {
    it(`B3 ${title}, after a full window, cost at most 3 microseconds a byte`, () => {
      const inflater = engine.inflater(INFLATER);
      inflate(inflater, oneShot(noise), hex("00"));
      const count = Math.ceil(30_000 / message.length);
      let least = Infinity;
      for (let round = 0; round < 5 && least > 3; round++) {
        const before = process.cpuUsage();
        for (let i = 0; i < count; i++) inflate(inflater, message);
        const { user, system } = process.cpuUsage(before);
        least = Math.min(least, (user + system) / (count * (message.length + 2)));
      }
      inflater.close();
      assert.ok(least <= 3, `${least} microseconds a byte`);
    });
  }

  it("B3 short fragments of a long message are inflated at once", async () => {
    // Noise does not compress: each byte received gives about one byte of output.
    const noise = crypto.getRandomValues(new Uint8Array(60_000));
    const bytes = concat([noise, noise.toReversed(), noise.map((byte) => byte ^ 0x5a)]);
    const packed = new Uint8Array(deflateRawSync(bytes, { finishFlush: constants.Z_SYNC_FLUSH }));
    let elsewhere = 0;
    const engine: DeflateEngine = {
      ...ENGINES[0],
      inflater: (options) => {
        const inflater = ENGINES[0].inflater(options);
        const { nextLater } = inflater;
        inflater.nextLater = (done) => {
          elsewhere++;
          nextLater.call(inflater, done);
        };
        return inflater;
      },
    };
    const factory = new PerMessageDeflate({ engine });
    const { extension } = factory.accept(factory.offer()[0])!;
    let ready = () => {};
    const protocol = new Protocol("server", { extensions: [extension], onReady: () => ready() });
    const assembler = new MessageAssembler();
    let message: Message | undefined;
    const receive = async (payload: Uint8Array, rsv: number, opcode: Opcode, fin: boolean) => {
      protocol.receive(encodeFrame({ fin, rsv, opcode, payload }, { mask: hex("01 02 03 04") }));
      for (;;) {
        for (const event of protocol.events()) message = assembler.push(event as Fragment);
        if (!protocol.pending) return;
        await new Promise<void>((resolve) => ready = resolve);
      }
    };
    const [first, rest] = cut(packed.subarray(0, -4), 170_000);
    await receive(first, Rsv.Rsv1, Opcode.Binary, false);
    const before = elsewhere;
    assert.ok(before > 0);
    for (let at = 0; at < rest.length; at += 5) {
      const fin = at + 5 >= rest.length;
      await receive(rest.subarray(at, at + 5), 0, Opcode.Continuation, fin);
    }
    assertSameBytes(message as Uint8Array, bytes);
    assert.equal(elsewhere, before);
    protocol.dispose();
  });

  it("B3 they are limited by the length of the message", () => {
    for (const engine of ENGINES) {
      const inflater = engine.inflater(INFLATER);
      inflate(inflater, oneShot(noise), hex("00"));
      const empty = oneShot(utf8(""));
      assert.throws(
        () => inflate(inflater, concat(Array(30).fill(empty))),
        /too many final blocks/,
      );
      inflater.close();
    }
  });
});
