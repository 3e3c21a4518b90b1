import { describe } from "node:test";
import assert from "node:assert/strict";
import { setTimeout } from "node:timers/promises";
import { isDeepStrictEqual } from "node:util";
import { encodeFrame, type Frame, FrameDecoder, Opcode, type Role } from "../lib/core/mod.ts";
import { BUFFER_SIZE, Encoder, LEND_FROM, releaseBuffer, takeBuffer } from "../lib/core/encoder.ts";
import { type TextCodec, webTextCodec } from "../lib/core/utf8.ts";
import { nodeTextCodec } from "../lib/runtime/node.ts";
import { firstByte } from "../lib/core/frame_writer.ts";
import { sharedFrame } from "../lib/core/shared_frame.ts";
import { SharedFrames, sharedLength } from "../lib/connection/sharing.ts";
import { assertSameBytes, concat, cut, hex, pattern, utf8 } from "./bytes.ts";
import type { Extension, OutgoingFrame } from "../lib/core/extension.ts";
import { FRAMES } from "./frame_table.ts";
import { it, notApplicable } from "./it.ts";
import { fc, offsets } from "./property.ts";

/** Bun's collector. */
const jsc: { edenGC(): void; fullGC(): void } | undefined = "Bun" in globalThis
  ? await import("bun:jsc" as string)
  : undefined;

const TEXT = firstByte(true, 0, Opcode.Text);
const BINARY = firstByte(true, 0, Opcode.Binary);
const ROLES: Role[] = ["client", "server"];

interface Read {
  fin: boolean;
  rsv: number;
  opcode: number;
  payload: Uint8Array;
}

/** The frames that the other end decodes from the chunks that the role wrote. */
function read(role: Role, chunks: readonly Uint8Array[]): Read[] {
  const decoder = new FrameDecoder({ role: role === "client" ? "server" : "client", rsvInUse: 7 });
  const frames: Read[] = [];
  let payloads: Uint8Array[] = [];
  chunks.forEach((chunk) => decoder.push(chunk));
  for (let piece = decoder.next(); piece; piece = decoder.next()) {
    payloads.push(piece.payload);
    if (!piece.last) continue;
    const { fin, rsv, opcode } = piece.header;
    frames.push({ fin, rsv, opcode, payload: concat(payloads) });
    payloads = [];
  }
  decoder.end();
  return frames;
}

/** Texts in which each code unit takes as many bytes of UTF-8 as in `character`. */
const TEXTS = [
  { character: "\x7f", counts: [1, 24, 25] },
  { character: "\x80", counts: [1, 24, 25] },
  { character: "a", counts: [0, 1, 23, 24, 25, 125, 126, 10922, 10923, 65535, 65536] },
  { character: "é", counts: [62, 63, 100, 5461, 5462, 32767, 32768] },
  { character: "€", counts: [41, 42, 3640, 3641, 21845, 21846, 30_000] },
  { character: "😀", counts: [31, 32, 5461, 16383, 16384] },
];

describe("Encoder", () => {
  it("Encoder writes each frame of the table as a server", () => {
    for (const { title, fin, rsv, opcode, payload, unmasked } of FRAMES) {
      const writer = new Encoder("server");
      writer.writeBytes(firstByte(fin, rsv, opcode), payload);
      assert.equal(writer.size, unmasked.length, title);
      assertSameBytes(concat(writer.take()), unmasked);
      assert.equal(writer.size, 0, title);
    }
  });

  it("Encoder writes each frame of the table as a client, each with a key of its own", () => {
    const writer = new Encoder("client");
    for (const { opcode, payload, fin, rsv } of FRAMES) {
      writer.writeBytes(firstByte(fin, rsv, opcode), payload);
    }
    const parts = writer.take();
    const frames = FRAMES.map(({ fin, rsv, opcode, payload }) => ({ fin, rsv, opcode, payload }));
    assert.deepEqual(read("client", parts), frames);
  });

  for (const { character, counts } of TEXTS) {
    for (const role of ROLES) {
      it(`Encoder.writeText writes ${character} any number of times (${role})`, () => {
        const writer = new Encoder(role);
        for (const count of counts) {
          const text = character.repeat(count);
          const payload = utf8(text);
          writer.writeText(firstByte(true, 4, Opcode.Text), text);
          const [frame, ...more] = read(role, writer.take());
          assert.deepEqual([frame.fin, frame.rsv, frame.opcode, more], [true, 4, Opcode.Text, []]);
          assertSameBytes(frame.payload, payload);
          writer.recycle();
        }
      });
    }
  }

  it("Encoder.writeText makes U+FFFD of a lone surrogate", () => {
    const writer = new Encoder("server");
    writer.writeText(TEXT, "a\ud800b");
    assert.equal(writer.size, 7);
    assert.deepEqual(read("server", writer.take())[0].payload, utf8("a\ufffdb"));
  });

  it("Encoder writes what FrameDecoder reads, in the same order", () => {
    const size = fc.oneof(fc.nat(300), fc.constantFrom(8191, 8192, 65535, 65536, 70000));
    const payload = fc.oneof(
      fc.string({ unit: "binary", maxLength: 400 }),
      fc.constantFrom("é".repeat(100), "é".repeat(32768), "x".repeat(20000)),
      size.map(pattern),
    );
    const item = fc.record({
      payload,
      fin: fc.boolean(),
      lend: fc.boolean(),
      take: fc.boolean(),
    });
    const items = fc.array(item, { maxLength: 12 });
    fc.assert(fc.property(fc.constantFrom(...ROLES), items, offsets(5000), (role, written, at) => {
      const writer = new Encoder(role);
      const sent: Uint8Array[] = [];
      for (const { payload, fin, lend, take } of written) {
        if (typeof payload === "string") writer.writeText(firstByte(fin, 0, Opcode.Text), payload);
        else writer.writeBytes(firstByte(fin, 0, Opcode.Binary), payload.slice(), lend);
        if (take) flush(writer, sent);
      }
      flush(writer, sent);
      const expected = written.map(({ payload, fin }) =>
        typeof payload === "string"
          ? { fin, rsv: 0, opcode: Opcode.Text, payload: utf8(payload) }
          : { fin, rsv: 0, opcode: Opcode.Binary, payload }
      );
      // deepEqual would spend a long time on describing the difference in each step of shrinking.
      assert.ok(isDeepStrictEqual(read(role, cut(concat(sent), ...at)), expected));
    }));
  });
});

describe("Encoder and the payload of its caller", () => {
  for (const role of ROLES) {
    for (const length of [LEND_FROM - 1, LEND_FROM, 70000, 200_001]) {
      it(`Encoder copies ${length} bytes that it may only copy (${role})`, () => {
        const writer = new Encoder(role);
        const payload = pattern(length);
        writer.writeBytes(BINARY, payload);
        assertSameBytes(payload, pattern(length));
        payload.fill(0);
        assertSameBytes(read(role, writer.take())[0].payload, pattern(length));
      });

      it(`Encoder does not change ${length} bytes that it borrows (${role})`, () => {
        const writer = new Encoder(role);
        const payload = pattern(length);
        writer.writeBytes(BINARY, payload, true);
        assertSameBytes(read(role, writer.take())[0].payload, pattern(length));
        assertSameBytes(payload, pattern(length));
      });
    }
  }

  /** Whether the bytes to send are the payload's own buffer. */
  const sharing: { role: Role; lend?: true; isOwn?: true; length: number; shared: boolean }[] = [
    { role: "server", length: LEND_FROM, shared: false },
    { role: "server", lend: true, length: LEND_FROM, shared: true },
    { role: "server", lend: true, length: LEND_FROM - 1, shared: false },
    { role: "client", length: LEND_FROM, shared: false },
    { role: "client", lend: true, length: LEND_FROM, shared: false },
    { role: "client", isOwn: true, length: LEND_FROM, shared: true },
    { role: "server", isOwn: true, length: LEND_FROM, shared: true },
  ];
  for (const { role, lend = false, isOwn = false, length, shared } of sharing) {
    const verb = shared ? "sends" : "does not send";
    const whose = isOwn ? "own" : lend ? "lent" : "foreign";
    it(`Encoder ${verb} the buffer of a payload that is ${whose} (${role}, ${length})`, () => {
      const writer = new Encoder(role);
      const payload = pattern(length);
      writer.writeBytes(BINARY, payload, lend, isOwn);
      assert.equal(writer.take().some(({ buffer }) => buffer === payload.buffer), shared);
    });
  }
});

describe("Encoder and its batches", () => {
  it("Encoder gives many small frames as one piece", () => {
    for (const count of [1, 1000]) {
      const writer = new Encoder("server");
      for (let i = 0; i < count; i++) writer.writeText(TEXT, "Hello");
      assert.equal(writer.size, 7 * count);
      assert.equal(writer.take().length, 1);
      assert.deepEqual(writer.take(), [], "taken before");
    }
  });

  it("Encoder does not change taken bytes before they are recycled", () => {
    const writer = new Encoder("client");
    const taken: Uint8Array[] = [];
    const copies: Uint8Array[] = [];
    for (let i = 0; i < 300; i++) {
      writer.writeBytes(BINARY, pattern(i * 10));
      const parts = writer.take();
      taken.push(...parts);
      copies.push(...parts.map((part) => part.slice()));
    }
    assertSameBytes(concat(taken), concat(copies));
    assert.equal(read("client", taken).length, 300);
  });

  it("Encoder keeps bytes that are written between take and recycle", () => {
    const writer = new Encoder("server");
    writer.writeText(TEXT, "one");
    writer.take();
    writer.writeText(TEXT, "two");
    writer.recycle();
    for (let i = 0; i < 7000; i++) writer.writeText(TEXT, "more than a buffer");
    const [first, ...others] = read("server", writer.take());
    assert.deepEqual(first.payload, utf8("two"));
    assert.equal(others.length, 7000);
  });

  it("Encoder uses its buffers again although there is always more to send", () => {
    const writer = new Encoder("server");
    const buffers = new Set<ArrayBufferLike>();
    for (let i = 0; i < 1000; i++) {
      writer.writeBytes(BINARY, pattern(8000));
      const parts = writer.take();
      parts.forEach(({ buffer }) => buffers.add(buffer));
      writer.writeBytes(BINARY, pattern(8000));
      writer.recycle();
    }
    // The 16 MB were written through buffers of 64 KiB. The shared pool holds 16 of them.
    assert.ok(buffers.size <= 20, `${buffers.size} buffers were used`);
  });

  it("Encoder frees no buffer whose bytes have not left, however little is taken at a time", () => {
    const size = fc.oneof(fc.nat(2100), fc.constantFrom(8192, 9000, 65_522));
    const frame = fc.record({
      size,
      lend: fc.boolean(),
      most: fc.option(fc.constantFrom(1, 3000)),
    });
    const frames = fc.array(frame, { maxLength: 12 });
    fc.assert(fc.property(frames, (frames) => {
      const writer = new Encoder("server");
      const sent: Uint8Array[] = [];
      const take = (most?: number) => {
        sent.push(...writer.take(most).map((part) => part.slice()));
        writer.recycle();
        // Another connection uses the free buffers.
        const other = new Encoder("server");
        for (const size of [2000, 66_000]) {
          other.writeBytes(BINARY, new Uint8Array(size).fill(255));
        }
        other.take();
        other.recycle();
      };
      for (const { size, lend, most } of frames) {
        writer.writeBytes(BINARY, pattern(size), lend);
        if (most !== null) take(most);
      }
      while (writer.size > 0) take(1);
      const payloads = read("server", sent).map(({ payload }) => payload);
      assert.ok(isDeepStrictEqual(payloads, frames.map(({ size }) => pattern(size))));
    }));
  });

  it("Encoder never gives two writers the same buffer at a time", () => {
    const writers = Array.from({ length: 40 }, () => new Encoder("server"));
    for (let round = 0; round < 3; round++) {
      writers.forEach((writer, i) => writer.writeBytes(BINARY, pattern(i)));
      const parts = writers.map((writer) => writer.take());
      parts.forEach((part, i) => assert.deepEqual(read("server", part)[0].payload, pattern(i)));
      writers.forEach((writer) => writer.recycle());
    }
  });
});

describe("Encoder and its memory", () => {
  const ids = new WeakMap<ArrayBufferLike, number>();
  let lastId = 0;
  /** Names the memory that a part begins with: small buffers are parts of a larger one. */
  const placeOf = ({ buffer, byteOffset }: Uint8Array) => {
    if (!ids.has(buffer)) ids.set(buffer, ++lastId);
    return `${ids.get(buffer)} ${byteOffset}`;
  };
  /** Takes so many buffers at a time, and releases them. */
  const buffersOf = (count: number, size: number) => {
    const taken = Array.from({ length: count }, () => takeBuffer(size));
    taken.forEach(releaseBuffer);
    return new Set(taken);
  };
  const pools: readonly [name: string, size: number, most: number][] = [
    ["4096 small buffers", 256, 4096],
    ["2048 middle buffers", 2048, 2048],
    ["64 large buffers", 2049, 64],
  ];
  for (const [name, size, most] of pools) {
    it(`Encoders keep at most ${name}`, () => {
      // Small buffers are made by up to 32. After the first time, none of them is left over.
      buffersOf(most + 32, size);
      const before = buffersOf(most + 32, size);
      assert.equal(before.size, most + 32);
      const again = buffersOf(most + 32, size);
      assert.equal([...again].filter((buffer) => before.has(buffer)).length, most);
    });
  }

  it("Small buffers are parts of 8 KiB", () => {
    const [part, ...others] = Array.from({ length: 4096 + 32 }, () => takeBuffer(1)).slice(-32);
    for (const buffer of [part, ...others]) assert.equal(buffer.length, 256);
    assert.equal(part.buffer.byteLength, 8192);
    assert.ok(others.every(({ buffer }) => buffer === part.buffer));
    assert.equal(new Set([part, ...others].map(placeOf)).size, 32);
  });

  it("Encoder takes a buffer that is as large as the last batch", () => {
    const [small, middle, large] = [256, 2048, BUFFER_SIZE];
    const encoder = new Encoder("server");
    const sizeOf = (...lengths: number[]) => {
      for (const length of lengths) encoder.writeBytes(BINARY, new Uint8Array(length));
      const parts = encoder.take();
      assert.equal(parts.length, 1);
      assert.equal(encoder.recycle(), true);
      // The buffer that was freed last is taken first.
      return [small, middle, large].find((size) => {
        const next = takeBuffer(size);
        releaseBuffer(next);
        return placeOf(next) === placeOf(parts[0]);
      });
    };
    assert.equal(sizeOf(1), small);
    assert.equal(sizeOf(242), small, "with the longest header");
    assert.equal(sizeOf(243), middle);
    assert.equal(sizeOf(1), small, "the batch would have fitted");
    assert.equal(sizeOf(2034), middle);
    assert.equal(sizeOf(1), middle, "much was written before");
    assert.equal(sizeOf(1), small);
    assert.equal(sizeOf(2035), large);
    assert.equal(sizeOf(1), middle, "the batch would have fitted");
    assert.equal(sizeOf(1000, 1030), middle, "just as much as it holds");
    encoder.writeBytes(BINARY, pattern(1000));
    for (const length of [1016, 22]) encoder.writeShared(SharedFrames.single(pattern(length)));
    assert.equal(encoder.take()[0].length, middle);
    encoder.recycle();
    assert.equal(sizeOf(1), middle, "the batch just fitted");
    assert.equal(sizeOf(1000, 1031), large);
    assert.equal(sizeOf(1), large, "more was written before");
    assert.equal(sizeOf(1), small);
    assert.equal(sizeOf(100, 141), middle, "the bytes have moved");
    assert.equal(sizeOf(1), middle, "the batch did not fit into a small buffer");
    assert.equal(sizeOf(1), small);
  });

  it("Encoder counts the bytes of a text that may not fit, if its codec can", () => {
    const write = (encoder: Encoder, text: string) => {
      encoder.writeText(TEXT, text);
      const { isLarge } = encoder;
      const frame = concat(encoder.take());
      assertSameBytes(
        frame,
        encodeFrame({ opcode: Opcode.Text, fin: true, rsv: 0, payload: utf8(text) }),
      );
      encoder.recycle();
      return isLarge;
    };
    const counting = (textCodec: TextCodec) => {
      const counted: string[] = [];
      const byteLength = textCodec.byteLength && ((text: string) => {
        counted.push(text);
        return textCodec.byteLength!(text);
      });
      return {
        encoder: new Encoder("server", { textCodec: { ...textCodec, byteLength } }),
        counted,
      };
    };
    const rows: [text: string, textCodec: TextCodec, isLarge: boolean][] = [
      ["a".repeat(678), webTextCodec, false],
      ["a".repeat(679), webTextCodec, true],
      ["a".repeat(2034), nodeTextCodec, false],
      ["a".repeat(2035), nodeTextCodec, true],
      ["é".repeat(1017), nodeTextCodec, false],
      ["é".repeat(1018), nodeTextCodec, true],
      ["語".repeat(678), nodeTextCodec, false],
      ["語".repeat(679), nodeTextCodec, true],
    ];
    for (const [text, codec, isLarge] of rows) {
      const { encoder, counted } = counting(codec);
      assert.equal(write(encoder, text), isLarge);
      assert.deepEqual(counted, codec.byteLength ? [text] : []);
    }
    // The next buffer will be as large as the last batch, if that is enough.
    const { encoder, counted } = counting(nodeTextCodec);
    const texts = [1001, 330, 107, 31].map((length) => "a".repeat(length));
    for (const text of texts) write(encoder, text);
    assert.deepEqual(counted, [texts[0], texts[2]]);
    encoder.writeText(TEXT, "a".repeat(1000));
    encoder.writeText(TEXT, "b".repeat(300));
    assert.equal(counted.length, 3, "there is room in the buffer");
    encoder.writeText(TEXT, "c".repeat(300));
    assert.equal(counted.length, 4);
  });

  it("Encoder encodes long text with the codec, if that can", () => {
    const encode = (text: string) => utf8(text.toUpperCase());
    const rows: [length: number, encode: TextCodec["encode"], sent: string][] = [
      [20_000, encode, "A"],
      [20_000, undefined, "a"],
      [1000, encode, "a"],
    ];
    for (const [length, encode, sent] of rows) {
      const encoder = new Encoder("server", { textCodec: { ...webTextCodec, encode } });
      encoder.writeText(TEXT, "a".repeat(length));
      const payload = utf8(sent.repeat(length));
      assertSameBytes(concat(encoder.take()), encodeFrame({ opcode: Opcode.Text, payload }));
    }
  });

  it("Encoder holds no lent bytes after they have left, not even in old garbage", {
    skip: jsc === undefined && notApplicable("only Bun can collect the young objects alone"),
  }, async () => {
    const { edenGC, fullGC } = jsc!;
    const encoders = Array.from({ length: 8 }, () => new Encoder("server"));
    const send = () =>
      encoders.map((encoder) => {
        const bytes = pattern(LEND_FROM);
        encoder.writeBytes(BINARY, bytes, true);
        encoder.take();
        encoder.recycle();
        return new WeakRef(bytes);
      });
    send();
    fullGC();
    const refs = send();
    // A reference that was just made keeps its target until the next turn.
    await setTimeout(1);
    edenGC();
    const kept = refs.filter((ref) => ref.deref() !== undefined);
    // The stack may still have the last one.
    assert.ok(kept.length <= 1, `${kept.length} are kept`);
  });

  it("Encoder goes on with a large buffer after a full one", () => {
    const encoder = new Encoder("server");
    for (let i = 0; i < 8; i++) encoder.writeBytes(BINARY, pattern(8000));
    encoder.take();
    encoder.writeBytes(BINARY, pattern(8000));
    assert.equal(encoder.take()[0].buffer.byteLength, 64 + BUFFER_SIZE);
    encoder.recycle();
  });

  /** The buffer that the next encoder gets for so many bytes. */
  const nextBuffer = (size: number) => {
    const encoder = new Encoder("server");
    encoder.writeBytes(BINARY, new Uint8Array(size));
    return placeOf(encoder.take()[0]);
  };
  const writeMany = (encoder: Encoder, count: number) => {
    for (let i = 0; i < count; i++) encoder.writeBytes(BINARY, pattern(8000));
  };

  it("Encoder frees a first buffer that was too short", () => {
    const encoder = new Encoder("server");
    encoder.writeBytes(BINARY, pattern(1000));
    const buffer = placeOf(encoder.take()[0]);
    encoder.writeBytes(BINARY, pattern(3000));
    assert.notEqual(nextBuffer(1000), buffer, "not before its bytes have left");
    const other = placeOf(encoder.take()[0]);
    encoder.recycle();
    assert.equal(nextBuffer(1000), buffer);
    assert.equal(nextBuffer(3000), other);
  });

  it("Encoder frees a full buffer after all of its bytes have left", () => {
    for (const lent of [false, true]) {
      const encoder = new Encoder("server");
      writeMany(encoder, 8);
      const buffer = placeOf(encoder.take()[0]);
      if (lent) encoder.writeBytes(BINARY, pattern(9000), true);
      writeMany(encoder, 1);
      if (lent) {
        encoder.recycle();
        assert.notEqual(nextBuffer(3000), buffer, "the header has not left");
      }
      const taken = encoder.take().map((part) => part.slice());
      assert.ok(taken.every(({ length }) => length > 0));
      assert.equal(read("server", taken).length, lent ? 2 : 1);
      encoder.recycle();
      const buffers = [nextBuffer(3000), nextBuffer(3000)];
      assert.ok(buffers.includes(buffer), lent ? "after lent bytes" : "");
    }
  });

  it("Encoder gives the byte that did not fit into a buffer with the next batch", () => {
    const encoder = new Encoder("server");
    const payload = pattern(BUFFER_SIZE + 1 - 10);
    encoder.writeBytes(BINARY, payload);
    const sent = [concat(encoder.take(1))];
    assert.equal(encoder.size, 1);
    assert.equal(encoder.recycle(), true);
    // Another connection fills the buffers that are free.
    const other = new Encoder("server");
    for (let i = 0; i < 3; i++) other.writeBytes(BINARY, new Uint8Array(60_000));
    sent.push(concat(encoder.take()));
    assert.deepEqual(sent.map(({ length }) => length), [BUFFER_SIZE, 1]);
    assert.equal(encoder.size, 0);
    assertSameBytes(read("server", sent)[0].payload, payload);
  });

  it("Encoder takes a large buffer after a batch of more than one", () => {
    const encoder = new Encoder("server");
    encoder.writeBytes(BINARY, pattern(BUFFER_SIZE + 1 - 10));
    encoder.take();
    encoder.recycle();
    encoder.writeBytes(BINARY, pattern(1));
    assert.equal(encoder.take()[0].buffer.byteLength, 64 + BUFFER_SIZE);
  });

  it("Encoder forgets lent bytes when they have left", () => {
    const encoder = new Encoder("server");
    const lent = pattern(LEND_FROM);
    encoder.writeBytes(BINARY, lent, true);
    encoder.take();
    assert.equal(encoder.recycle(), true);
    structuredClone(undefined, { transfer: [lent.buffer as ArrayBuffer] });
    encoder.writeBytes(BINARY, pattern(1));
    encoder.take();
    assert.deepEqual([encoder.isLentIntact, encoder.recycle()], [true, true]);
  });

  it("Encoder keeps the order of a byte in a new buffer and a shared frame", () => {
    const encoder = new Encoder("server");
    encoder.writeBytes(BINARY, pattern(BUFFER_SIZE + 1 - 10));
    encoder.writeShared(SharedFrames.single(pattern(2000)));
    const lengths = read("server", encoder.take()).map(({ payload }) => payload.length);
    assert.deepEqual(lengths, [BUFFER_SIZE + 1 - 10, 2000]);
  });

  it("Encoder masks long payloads by keys of their own", () => {
    for (const isOwn of [false, true]) {
      const keys = [0, 1].map(() => {
        const encoder = new Encoder("client");
        encoder.writeBytes(BINARY, pattern(LEND_FROM), false, isOwn);
        return concat(encoder.take()).slice(4, 8).join();
      });
      assert.notEqual(keys[0], keys[1]);
    }
  });

  it("Encoder.writePiece copies long bytes unless they are lent", () => {
    for (const [lend, shared] of [[undefined, false], [false, false], [true, true]] as const) {
      const encoder = new Encoder("server");
      const data = pattern(LEND_FROM);
      assert.equal(encoder.writePiece(data, true, lend), true);
      assert.equal(encoder.take().some(({ buffer }) => buffer === data.buffer), shared);
    }
  });

  it("Encoder.writePiece leaves bytes as they are that no extension has changed", () => {
    const extension = { name: "a", rsv: 0, encode: (frame: OutgoingFrame) => frame } as Extension;
    const encoder = new Encoder("client", { extensions: [extension] });
    const data = pattern(LEND_FROM);
    for (const lend of [false, true]) encoder.writePiece(data, true, lend);
    assertSameBytes(data, pattern(LEND_FROM));
    for (const { payload } of read("client", encoder.take())) assertSameBytes(payload, data);
  });

  for (const refused of [undefined, new Error("the connection is closed")]) {
    it(`Encoder.writePiece takes a frame later once, and reports it first (${refused})`, () => {
      const calls: string[] = [];
      let finish = () => {};
      const extension = {
        name: "a",
        rsv: 0,
        encode: (frame: OutgoingFrame, later) => void (finish = () => later!(undefined, frame)),
      } as Extension;
      const encoder = new Encoder("server", {
        extensions: [extension],
        onFrame: ({ payload }) => void calls.push(`frame of ${payload.length}`),
        refusal: () => refused,
      });
      const written = encoder.writePiece(pattern(5), true, false, undefined, (error) => {
        calls.push(`written ${error}`);
      });
      assert.deepEqual([written, encoder.size], [false, 0]);
      finish();
      finish();
      const expected = refused === undefined ? ["frame of 5"] : [];
      assert.deepEqual(calls, [...expected, `written ${refused}`]);
      assert.equal(read("server", encoder.take()).length, expected.length);
    });
  }

  it("Encoder.writePiece keeps characters that pieces cut, also if an extension refuses one", () => {
    const pieces = ["\ud83d", "\ude00a\ud83d", "\ude00"];
    const expected = ["", "😀a", "😀"].map(utf8);
    for (const isExtended of [false, true]) {
      let refuses = false;
      const extension = {
        name: "a",
        rsv: 0,
        encode: (frame: OutgoingFrame) => {
          if (refuses) throw new RangeError("not now");
          return frame;
        },
      } as Extension;
      const encoder = new Encoder("server", { extensions: isExtended ? [extension] : [] });
      for (const [i, piece] of pieces.entries()) {
        refuses = isExtended;
        if (refuses) assert.throws(() => encoder.writePiece(piece, false), /not now/);
        refuses = false;
        assert.equal(encoder.writePiece(piece, i === 2), true);
      }
      assert.deepEqual(read("server", encoder.take()).map(({ payload }) => payload), expected);
      const shared = encoder.writeShared(SharedFrames.single("a"));
      assert.equal(shared, !isExtended);
    }
  });

  it("Encoder.take stops before a long shared frame", () => {
    const encoder = new Encoder("server");
    for (let i = 0; i < 2; i++) {
      encoder.writeBytes(BINARY, pattern(3));
      encoder.writeShared(SharedFrames.single(pattern(2000)));
    }
    const lengths = () => encoder.take(1).map(({ length }) => length);
    assert.deepEqual([lengths(), lengths(), lengths(), lengths()], [[5], [2004], [5], [2004]]);
  });

  it("Encoder reports each frame once, as it is sent", () => {
    const frames: Frame[] = [];
    const encoder = new Encoder("server", { onFrame: (frame) => void frames.push(frame) });
    const payload = pattern(3);
    encoder.writeBytes(firstByte(true, 5, Opcode.Binary), payload);
    payload.fill(0);
    for (const fin of [false, true]) encoder.writePiece("é", fin);
    assert.deepEqual(frames, [
      { fin: true, rsv: 5, opcode: Opcode.Binary, payload: pattern(3) },
      { fin: false, rsv: 0, opcode: Opcode.Text, payload: utf8("é") },
      { fin: true, rsv: 0, opcode: Opcode.Continuation, payload: utf8("é") },
    ]);
  });

  it("Encoder counts the end of a full buffer as unused until it is taken", () => {
    const encoder = new Encoder("server");
    const full = BUFFER_SIZE;
    encoder.writeBytes(BINARY, pattern(3000));
    encoder.writeBytes(BINARY, pattern(57_000));
    assert.equal(encoder.unused, 0);
    encoder.take();
    const start = 3004 + 57_004;
    encoder.writeBytes(BINARY, pattern(1000));
    encoder.writeBytes(BINARY, pattern(8000));
    assert.equal(encoder.unused, full - start - 1004);
    encoder.writeBytes(BINARY, pattern(20_000), true);
    assert.equal(encoder.unused, full - start - 1004);
    assert.equal(encoder.take(1)[0].length, 1004);
    assert.equal(encoder.unused, 0);
    assert.deepEqual(encoder.take().map(({ length }) => length), [8008, 20_000]);
    assert.equal(encoder.unused, 0);
    encoder.recycle();
  });

  it("Encoder drops a lent payload that was detached, and all that follows it", () => {
    for (const before of [0, 3]) {
      const encoder = new Encoder("server");
      if (before > 0) encoder.writeBytes(BINARY, pattern(before));
      const lent = pattern(LEND_FROM);
      encoder.writeBytes(BINARY, lent, true);
      encoder.writeBytes(BINARY, pattern(5));
      structuredClone(undefined, { transfer: [lent.buffer as ArrayBuffer] });
      const taken = encoder.take();
      assert.deepEqual(taken, before === 0 ? [] : [concat([hex("82 03"), pattern(3)])]);
      assert.deepEqual([encoder.hasVanished, encoder.size, encoder.unused], [true, 0, 0]);
      if (before > 0) assert.equal(encoder.recycle(), true);
      encoder.writeBytes(BINARY, pattern(5));
      assert.deepEqual(concat(encoder.take()), concat([hex("82 05"), pattern(5)]));
      encoder.writeBytes(BINARY, pattern(LEND_FROM), true);
      assert.deepEqual(encoder.take().map(({ length }) => length), [4, LEND_FROM]);
      assert.equal(encoder.hasVanished, false);
    }
  });

  it("Encoder frees nothing while lent bytes that were taken have another length", () => {
    const encoder = new Encoder("server");
    const lent = pattern(LEND_FROM);
    encoder.writeBytes(BINARY, lent, true);
    assert.equal(encoder.isLentIntact, true);
    assert.equal(encoder.take()[1], lent);
    assert.equal(encoder.isLentIntact, true);
    structuredClone(undefined, { transfer: [lent.buffer as ArrayBuffer] });
    assert.equal(encoder.isLentIntact, false);
    assert.equal(encoder.recycle(), false);
    assert.equal(encoder.hasVanished, false);
  });

  it("Encoder.take copies lent bytes if it is told to", () => {
    const encoder = new Encoder("server");
    const lent = pattern(LEND_FROM);
    encoder.writeBytes(BINARY, lent, true);
    const [, bytes] = encoder.take(Infinity, true);
    lent.fill(0);
    assertSameBytes(bytes, pattern(LEND_FROM));
    structuredClone(undefined, { transfer: [lent.buffer as ArrayBuffer] });
    assert.deepEqual([encoder.isLentIntact, encoder.recycle()], [true, true]);
  });

  it("Encoder.take stops after so many bytes, but not after a header", () => {
    const encoder = new Encoder("server");
    for (let i = 0; i < 3; i++) encoder.writeBytes(BINARY, pattern(LEND_FROM), true);
    const lengths = (most: number) => encoder.take(most).map(({ length }) => length);
    assert.deepEqual(lengths(1), [4, LEND_FROM]);
    assert.equal(encoder.size, 2 * (LEND_FROM + 4));
    assert.deepEqual(lengths(LEND_FROM + 4), [4, LEND_FROM]);
    assert.deepEqual(lengths(5), [4, LEND_FROM]);
    assert.equal(encoder.size, 0);
  });

  it("Encoder counts its frames", () => {
    const encoder = new Encoder("server");
    encoder.writeText(TEXT, "a");
    encoder.writeText(TEXT, "a".repeat(40_000));
    encoder.writeBytes(BINARY, pattern(10_000));
    assert.equal(encoder.counts.frames, 3);
    assert.equal(encoder.writeShared(new SharedFrames(new Uint8Array(100)).write("a")!), true);
    assert.equal(encoder.counts.frames, 4);
    assert.equal(encoder.sharedMessages, 1);
    const ping = encodeFrame({ opcode: Opcode.Ping, payload: pattern(1) });
    assert.equal(encoder.writeSharedControl(sharedFrame(ping)), true);
    assert.deepEqual([encoder.counts.frames, encoder.sharedMessages], [5, 1]);
    encoder.take();
    assert.equal(encoder.writeSharedControl(sharedFrame(ping)), true);
    assert.deepEqual([encoder.counts.frames, encoder.sharedMessages], [6, 1]);
  });
});

describe("SharedFrames", () => {
  const messages: readonly (string | Uint8Array)[] = ["", "a", "é".repeat(70), "€", pattern(200)];

  it("SharedFrames writes a frame if there is room for its longest form", () => {
    for (const message of messages) {
      const isText = typeof message === "string";
      const most = 14 + (isText ? 3 : 1) * message.length;
      assert.equal(sharedLength(message), most);
      assert.equal(new SharedFrames(new Uint8Array(most - 1)).write(message), undefined);
      const frames = new SharedFrames(new Uint8Array(most + 1));
      const expected = encodeFrame({
        opcode: isText ? Opcode.Text : Opcode.Binary,
        payload: isText ? utf8(message) : message,
      });
      const { bytes, start, end } = frames.write(message)!;
      assert.equal(start, 0);
      assert.equal(frames.size, end);
      assert.deepEqual(bytes.subarray(start, end), expected);
      if (end > 1) assert.equal(frames.write(message), undefined, "no room for another");
      const single = SharedFrames.single(message);
      assert.deepEqual(single.bytes.subarray(single.start, single.end), expected);
    }
  });
});

/** Takes the batch as a transport does: copies it, then releases it. */
function flush(writer: Encoder, sent: Uint8Array[]): void {
  sent.push(...writer.take().map((part) => part.slice()));
  writer.recycle();
}
