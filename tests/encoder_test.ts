import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { isDeepStrictEqual } from "node:util";
import { FrameDecoder, Opcode, type Role } from "../lib/core/mod.ts";
import { Encoder, firstByte, LEND_FROM } from "../lib/core/encoder.ts";
import { assertSameBytes, concat, cut, pattern, utf8 } from "./bytes.ts";
import { FRAMES } from "./frame_table.ts";
import { fc, offsets } from "./property.ts";

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
  { character: "a", counts: [0, 1, 125, 126, 10922, 10923, 65535, 65536] },
  { character: "é", counts: [62, 63, 100, 5461, 5462, 32767, 32768] },
  { character: "€", counts: [41, 42, 3640, 3641, 21845, 21846] },
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
    const writer = new Encoder("server");
    for (let i = 0; i < 1000; i++) writer.writeText(TEXT, "Hello");
    assert.equal(writer.size, 7000);
    assert.equal(writer.take().length, 1);
    assert.deepEqual(writer.take(), []);
  });

  it("Encoder gives a list each time that is its caller's own", () => {
    const writer = new Encoder("server");
    writer.writeBytes(BINARY, pattern(3));
    writer.take();
    writer.take().push(pattern(5));
    assert.deepEqual(writer.take(), []);
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

/** Takes the batch as a transport does: copies it, then releases it. */
function flush(writer: Encoder, sent: Uint8Array[]): void {
  sent.push(...writer.take().map((part) => part.slice()));
  writer.recycle();
}
