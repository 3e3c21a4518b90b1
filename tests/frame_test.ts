import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import { isDeepStrictEqual } from "node:util";
import {
  encodeFrame,
  type Frame,
  FrameDecoder,
  type FrameDecoderOptions,
  type FramePiece,
  Opcode,
  type Role,
  Rsv,
} from "../lib/core/mod.ts";
import { headerLength, writeHeader } from "../lib/core/frame_writer.ts";
import { readingMemory } from "../lib/core/mask.ts";
import { type TextCodec, webTextCodec } from "../lib/core/utf8.ts";
import { concat, cut, cuts, hex, pattern, single, utf8 } from "./bytes.ts";
import {
  type FrameRow,
  FRAMES,
  LONG_HEADERS,
  MALFORMED,
  type MalformedRow,
} from "./frame_table.ts";
import { binary, fc, offsets } from "./property.ts";

/** All pieces that the decoder gives for these chunks. Each piece is taken as soon as it is available. */
function decode(options: FrameDecoderOptions, chunks: readonly Uint8Array[]): FramePiece[] {
  const decoder = new FrameDecoder(options);
  const pieces: FramePiece[] = [];
  for (const chunk of chunks) {
    decoder.push(chunk);
    for (let piece = decoder.next(); piece; piece = decoder.next()) pieces.push(piece);
  }
  return pieces;
}

/** The frame as the role receives it. */
function received(row: FrameRow, role: Role): Uint8Array {
  return role === "server" ? row.masked : row.unmasked;
}

function headerOf(row: FrameRow, role: Role) {
  const { fin, rsv, opcode, payload } = row;
  return { fin, rsv, opcode, masked: role === "server", length: payload.length };
}

const ROLES: Role[] = ["client", "server"];
const VARIANTS = ROLES.flatMap((role) => [true, false].map((ownsInput) => ({ role, ownsInput })));

describe("FrameDecoder", () => {
  for (const { role, ownsInput } of VARIANTS) {
    const options = { role, ownsInput, rsvInUse: 7 };
    const variant = `as ${role}, input ${ownsInput ? "owned" : "not owned"}`;

    it(`FrameDecoder gives each frame of the table as one piece (${variant})`, () => {
      for (const row of FRAMES) {
        const pieces = decode(options, [received(row, role).slice()]);
        const { payload } = row;
        assert.deepEqual(pieces, [{ header: headerOf(row, role), payload, last: true }], row.title);
      }
    });

    it(`FrameDecoder gives the same payload wherever a frame is cut (${variant})`, () => {
      for (const row of FRAMES.filter(({ payload }) => payload.length <= 256)) {
        for (const chunks of cuts(received(row, role))) {
          const pieces = decode(options, chunks);
          const where = `${row.title} cut as ${chunks.map((chunk) => chunk.length)}`;
          assert.deepEqual(concat(pieces.map(({ payload }) => payload)), row.payload, where);
          assert.deepEqual(pieces[0].header, headerOf(row, role), where);
          assert.ok(pieces.every(({ header }) => header === pieces[0].header), where);
          assert.equal(pieces.findIndex(({ last }) => last), pieces.length - 1, where);
        }
      }
    });

    it(`FrameDecoder gives a control frame as one piece wherever it is cut (${variant})`, () => {
      for (const row of FRAMES.filter(({ opcode }) => opcode >= 8)) {
        for (const chunks of cuts(received(row, role))) {
          const decoder = new FrameDecoder(options);
          for (const chunk of chunks) decoder.push(chunk.slice());
          assert.equal(decode(options, chunks).length, 1, row.title);
          assert.deepEqual(decoder.next()?.payload, row.payload, "all chunks at once");
        }
      }
    });

    it(`FrameDecoder gives frames in their order wherever the input is cut (${variant})`, () => {
      const frame = fc.record({
        opcode: fc.constantFrom<Opcode>(...Object.values(Opcode)),
        payload: fc.uint8Array({ maxLength: 125 }),
        mask: role === "server"
          ? fc.uint8Array({ minLength: 4, maxLength: 4 })
          : fc.constant(undefined),
      });
      fc.assert(fc.property(fc.array(frame, { maxLength: 8 }), offsets(600), (frames, at) => {
        const input = concat(frames.map(({ mask, ...rest }) => encodeFrame(rest, { mask })));
        assert.deepEqual(whole(decode(options, cut(input, ...at))), frames.map(fields));
      }));
    });
  }

  it("FrameDecoder leaves the input as it is unless it owns it", () => {
    for (const row of FRAMES) {
      const input = row.masked.slice();
      decode({ role: "server", rsvInUse: 7 }, [input]);
      assert.deepEqual(input, row.masked, row.title);
    }
  });

  it("FrameDecoder gives pieces that later changes of a masked input do not reach", () => {
    const row = FRAMES[0];
    for (const chunks of cuts(row.masked)) {
      const pieces = decode({ role: "server" }, chunks);
      chunks.forEach((chunk) => chunk.fill(0));
      assert.deepEqual(concat(pieces.map(({ payload }) => payload)), row.payload);
    }
  });

  it("FrameDecoder unmasks in place if it owns the input", () => {
    const input = FRAMES[0].masked.slice();
    const [{ payload }] = decode({ role: "server", ownsInput: true }, [input]);
    assert.equal(payload.buffer, input.buffer);
    assert.deepEqual(input.subarray(6), FRAMES[0].payload);
  });

  it("FrameDecoder gives views of an unmasked input", () => {
    const input = FRAMES[0].unmasked.slice();
    const [{ payload }] = decode({ role: "client" }, [input]);
    assert.equal(payload.buffer, input.buffer);
  });

  it("FrameDecoder gives plain Uint8Arrays of a chunk that is a subclass", () => {
    class Chunk extends Uint8Array {}
    const [{ payload }] = decode({ role: "client" }, [new Chunk(FRAMES[0].unmasked)]);
    assert.equal(payload.constructor, Uint8Array);
    assert.deepEqual(payload, FRAMES[0].payload);
  });

  it("FrameDecoder reads a chunk that lies within a larger buffer", () => {
    const buffer = concat([pattern(9), FRAMES[0].masked, pattern(9)]);
    const [{ payload }] = decode({ role: "server" }, [buffer.subarray(9, -9)]);
    assert.deepEqual(payload, FRAMES[0].payload);
  });

  it("FrameDecoder reads chunks pushed before any was taken", () => {
    const decoder = new FrameDecoder({ role: "client" });
    const { unmasked, payload } = FRAMES[0];
    single(unmasked).forEach((chunk) => decoder.push(chunk));
    assert.equal(decoder.bufferedAmount, unmasked.length);
    const taken: Uint8Array[] = [];
    for (let piece = decoder.next(); piece; piece = decoder.next()) taken.push(piece.payload);
    assert.deepEqual(concat(taken), payload);
    assert.equal(decoder.bufferedAmount, 0);
  });

  it("FrameDecoder gives the header of a long frame before any of its payload came", () => {
    for (const { length, unmasked, masked } of LONG_HEADERS) {
      const fields = { fin: true, rsv: 0, opcode: 2, length };
      const first = { payload: new Uint8Array(0), last: false };
      const client = decode({ role: "client" }, [hex(unmasked)]);
      assert.deepEqual(client, [{ header: { ...fields, masked: false }, ...first }]);
      const server = decode({ role: "server" }, single(hex(masked + "01020304")));
      assert.deepEqual(server, [{ header: { ...fields, masked: true }, ...first }]);
    }
  });

  it("FrameDecoder holds only the current chunk of a frame of 10 GiB", () => {
    for (const ownsInput of [true, false]) {
      const decoder = new FrameDecoder({ role: "server", ownsInput });
      decoder.push(hex("82 ff 00 00 00 02 80 00 00 00 00 00 00 00"));
      assert.equal(decoder.next()?.header.length, 10 * 2 ** 30);
      for (let chunk = 0; chunk < 64; chunk++) {
        decoder.push(new Uint8Array(65536));
        const piece = decoder.next();
        assert.equal(piece?.payload.length, 65536);
        assert.equal(piece.last, false);
        assert.equal(decoder.next(), undefined);
        assert.equal(decoder.bufferedAmount, 0);
      }
    }
  });

  it("FrameDecoder copies the payloads of control frames, also those in a Buffer", () => {
    for (const chunk of [hex("89 03 01 02 03"), Buffer.from(hex("89 03 01 02 03"))]) {
      const [{ payload }] = decode({ role: "client", ownsInput: true }, [chunk]);
      assert.equal(payload.constructor, Uint8Array);
      chunk.fill(0);
      assert.deepEqual(payload, hex("01 02 03"));
    }
  });

  it("FrameDecoder reads on in a chunk although another one has been pushed", () => {
    const decoder = new FrameDecoder({ role: "client" });
    decoder.push(hex("82 01 01 82 01 02"));
    const payloads = [decoder.next()?.payload];
    for (const chunk of ["82 01 03 82", "01", "", "04 82 01 05"]) decoder.push(hex(chunk));
    assert.equal(decoder.bufferedAmount, 3 + 4 + 1 + 4);
    for (let left = 0; left < 5; left++) payloads.push(decoder.next()?.payload);
    assert.deepEqual(payloads, [...["01", "02", "03", "04", "05"].map(hex), undefined]);
    assert.equal(decoder.frames, 5);
  });

  it("FrameDecoder counts an overhead for each chunk that waits, and drops empty ones", () => {
    const decoder = new FrameDecoder({ role: "client" });
    assert.deepEqual([decoder.bufferedAmount, decoder.bufferedMemory], [0, 0]);
    const memory = ["82 02", "01", "", "02", ""].map((digits) => {
      decoder.push(hex(digits));
      return decoder.bufferedMemory;
    });
    assert.deepEqual(memory, [2, 3 + 256, 3 + 256, 4 + 512, 4 + 512]);
    while (decoder.next() !== undefined);
    assert.equal(decoder.bufferedMemory, 0);
  });

  it("FrameDecoder copies less than half of a buffer if it has to wait", () => {
    for (const [size, isShared] of [[21, true], [22, false], [60, false]] as const) {
      const buffer = new Uint8Array(size);
      buffer.set(pattern(11), 3);
      const decoder = new FrameDecoder({ role: "client" });
      decoder.push(hex("82 0b"));
      decoder.push(buffer.subarray(3, 14));
      const { payload } = decoder.next()!;
      assert.deepEqual(payload, pattern(11));
      assert.equal(payload.buffer === buffer.buffer, isShared, `of ${size} bytes`);
    }
  });

  it("FrameDecoder releases a chunk that has been read and not lent", () => {
    const decoder = new FrameDecoder({ role: "client" });
    assert.equal(decoder.release(), true);
    decoder.push(hex("89 01 07"));
    assert.equal(decoder.release(), false, "not read");
    decoder.next();
    assert.equal(decoder.release(), true);
    decoder.push(hex("82 01 07 82"));
    decoder.next();
    assert.equal(decoder.release(), false, "not read to its end");
    decoder.push(hex("00"));
    assert.equal(decoder.next()?.payload.length, 0);
    assert.equal(decoder.release(), true, "another chunk has been lent");
    decoder.push(hex("82 01 07"));
    decoder.next();
    assert.equal(decoder.release(), false, "lent");
    decoder.push(hex("89 00"));
    decoder.push(hex("89"));
    decoder.next();
    assert.equal(decoder.release(), false, "another chunk waits");
    assert.equal(decoder.next(), undefined);
    assert.equal(decoder.release(), true, "the chunk was copied as part of a header");
    decoder.push(hex("00 8b 00"));
    decoder.next();
    assert.throws(() => decoder.next(), /\(frame at byte 15\)/);
  });

  it("FrameDecoder copies what has not been read of a borrowed chunk", () => {
    const decoder = new FrameDecoder({ role: "client" });
    const chunk = hex("82 01 07 82 02 08 09 82");
    decoder.push(chunk);
    decoder.next();
    assert.equal(decoder.release(true), false, "not read to its end");
    chunk.fill(0xff);
    assert.equal(decoder.bufferedAmount, 5);
    assert.deepEqual(decoder.next()?.payload, hex("08 09"));
    assert.equal(decoder.next(), undefined);
    assert.equal(decoder.position, 8);
    const second = hex("01 0a 8b 00");
    decoder.push(second);
    assert.deepEqual(decoder.next()?.payload, hex("0a"));
    assert.throws(() => decoder.next(), /\(frame at byte 10\)/);
  });

  it("FrameDecoder does not read a borrowed chunk after its release", () => {
    const decoder = new FrameDecoder({ role: "client" });
    decoder.push(hex("82 01 07 82 01 08"));
    assert.equal(decoder.advance(), true);
    assert.deepEqual(decoder.copy(), hex("07"));
    decoder.release(true);
    assert.deepEqual(decoder.copy(), hex(""));
    assert.deepEqual(decoder.next()?.payload, hex("08"));
  });

  it("FrameDecoder releases a borrowed chunk that has been read, even if it was lent", () => {
    const decoder = new FrameDecoder({ role: "client" });
    decoder.push(hex("82 01 07"));
    decoder.next();
    assert.equal(decoder.release(true), true);
    decoder.push(hex("83 00"));
    assert.throws(() => decoder.next(), /\(frame at byte 3\)/);
  });

  it("FrameDecoder unmasks a chunk in the memory of WebAssembly only if it owns its input", () => {
    const { masked, payload } = FRAMES.find(({ payload: { length } }) => length >= 128)!;
    const chunk = readingMemory()!.subarray(3, 3 + masked.length);
    for (const ownsInput of [false, true]) {
      chunk.set(masked);
      const decoder = new FrameDecoder({ role: "server", ownsInput });
      decoder.push(chunk);
      assert.equal(decoder.advance(), true);
      for (const _ of ["read", "read again"]) {
        const target = new Uint8Array(payload.length + 1);
        decoder.copyTo(target, 1);
        assert.deepEqual(target.subarray(1), payload);
        const inPlace = chunk.subarray(-payload.length);
        assert.deepEqual(inPlace, ownsInput ? payload : masked.subarray(-payload.length));
      }
      assert.deepEqual(decoder.copy(), payload);
    }
  });

  it("FrameDecoder tells the codec whether text is ASCII, if it has found that out", () => {
    const told = (text: string, isShared: boolean, ownsInput: boolean) => {
      const payload = utf8(text);
      const bytes = encodeFrame({ opcode: Opcode.Text, payload }, { mask: hex("80 81 fe ff") });
      const chunk = isShared ? readingMemory()!.subarray(5, 5 + bytes.length) : bytes;
      chunk.set(bytes);
      const decoder = new FrameDecoder({ role: "server", ownsInput });
      decoder.push(chunk);
      assert.equal(decoder.advance(), true);
      let isAscii: boolean | undefined;
      const decode: TextCodec["decode"] = (bytes, start, end, known) => {
        isAscii = known;
        return webTextCodec.decode(bytes, start, end);
      };
      assert.equal(decoder.text({ ...webTextCodec, decode }), text);
      return isAscii;
    };
    const long = "a".repeat(300);
    for (const ownsInput of [true, false]) {
      const known = [long, `${long}é`, "short"].map((text) => told(text, false, ownsInput));
      assert.deepEqual(known, [true, false, undefined]);
    }
    const known = [long, `${long}é`, "short"].map((text) => told(text, true, true));
    assert.deepEqual(known, [true, false, undefined]);
    assert.equal(told(long, true, false), undefined);
  });

  it("FrameDecoder refuses a role that does not exist, and reserved bits by default", () => {
    assert.throws(() => new FrameDecoder({} as FrameDecoderOptions), { name: "TypeError" });
    assert.throws(() => new FrameDecoder(undefined as never), { name: "TypeError" });
    for (const first of ["c2", "a2", "92"]) {
      assert.throws(() => decode({ role: "client" }, [hex(`${first} 00`)]), { closeCode: 1002 });
    }
  });

  it("FrameDecoder takes a frame of exactly maxFrameSize", () => {
    for (const { payload, unmasked, title } of FRAMES.filter(({ rsv }) => rsv === 0)) {
      const options = { role: "client", maxFrameSize: payload.length } as const;
      assert.equal(decode(options, [unmasked]).length, 1, title);
    }
  });
});

describe("FrameDecoder with a malformed header", () => {
  for (const row of MALFORMED) {
    it(`FrameDecoder refuses ${row.title} (${row.bytes})`, () => {
      const expected = failure(row, 0);
      const bytes = hex(row.bytes);
      assert.throws(() => decode(optionsOf(row), [bytes]), expected);
      const before = single(bytes).slice(0, -1);
      assert.deepEqual(decode(optionsOf(row), before), [], "fails with the last byte, not before");
      assert.throws(() => decode(optionsOf(row), single(bytes)), expected);
    });
  }

  it("FrameDecoder gives the frames before the malformed one, and says where that one is", () => {
    const { masked, payload } = FRAMES[0];
    const row = MALFORMED.find(({ role }) => role === "server")!;
    for (const chunks of cuts(concat([masked, hex(row.bytes)])).slice(0, -1)) {
      const decoder = new FrameDecoder({ role: "server" });
      chunks.forEach((chunk) => decoder.push(chunk));
      const taken: Uint8Array[] = [];
      assert.throws(() => {
        for (let piece = decoder.next(); piece; piece = decoder.next()) taken.push(piece.payload);
      }, failure(row, masked.length));
      assert.deepEqual(concat(taken), payload);
    }
  });

  it("FrameDecoder throws the same error at every later call", () => {
    const decoder = new FrameDecoder({ role: "client" });
    decoder.push(hex("83 00 00"));
    decoder.push(hex("82 00"));
    const errors = [thrown(() => decoder.next()), thrown(() => decoder.next())];
    decoder.push(FRAMES[0].unmasked);
    assert.deepEqual([decoder.bufferedAmount, decoder.bufferedMemory], [0, 0]);
    errors.push(thrown(() => decoder.next()), thrown(() => decoder.end()));
    assert.equal(new Set(errors).size, 1);
    assert.ok(errors[0] instanceof Error);
    assert.equal(decoder.release(), true);
  });
});

describe("FrameDecoder at the end of the input", () => {
  const { masked } = FRAMES[0];

  it("FrameDecoder.end passes between two frames", () => {
    const decoder = new FrameDecoder({ role: "server" });
    decoder.end();
    decoder.push(masked);
    decoder.next();
    decoder.end();
    assert.equal(decoder.next(), undefined);
  });

  it("FrameDecoder.end refuses an end within a frame or its header", () => {
    for (let length = 1; length < masked.length; length++) {
      const decoder = new FrameDecoder({ role: "server" });
      decoder.push(masked.subarray(0, length));
      while (decoder.next() !== undefined);
      assert.throws(() => decoder.end(), {
        closeCode: 1006,
        message: "The input ended within a frame (frame at byte 0)",
      }, `after ${length} bytes`);
    }
  });
});

describe("FrameDecoder and the ways to read a piece", () => {
  const failing = {
    decode: () => {
      throw new Error("not UTF-8");
    },
    encodeInto: () => 0,
  };
  const ways: Record<string, (decoder: FrameDecoder) => Uint8Array> = {
    bytes: (decoder) => decoder.bytes(),
    text: (decoder) => utf8(decoder.text(webTextCodec)),
    copy: (decoder) => decoder.copy(),
    copyTo: (decoder) => {
      const target = new Uint8Array(decoder.size + 2);
      decoder.copyTo(target, 1);
      assert.deepEqual([target[0], target.at(-1)], [0, 0]);
      return target.subarray(1, -1);
    },
    "text that fails, then bytes": (decoder) => {
      assert.throws(() => decoder.text(failing), /not UTF-8/);
      return decoder.bytes();
    },
    "text that fails, then text": (decoder) => {
      assert.throws(() => decoder.text(failing), /not UTF-8/);
      return utf8(decoder.text(webTextCodec));
    },
    "text that fails, then copy": (decoder) => {
      assert.throws(() => decoder.text(failing), /not UTF-8/);
      return decoder.copy();
    },
  };
  const rows = [
    { role: "client", header: "82 7e 07 d0", key: undefined },
    { role: "server", header: "82 fe 07 d0", key: hex("01 02 03 04") },
    { role: "server", header: "82 fe 07 d0", key: hex("01 00 00 00") },
    { role: "server", header: "82 fe 07 d0", key: hex("00 00 00 00") },
  ] as const;
  const payload = pattern(2000).map((byte) => byte & 0x7f);

  for (const [way, readWith] of Object.entries(ways)) {
    it(`FrameDecoder reads pieces by ${way}, and changes only input that it owns`, () => {
      for (const { role, header, key } of rows) {
        const sent = payload.map((byte, i) => byte ^ (key?.[i % 4] ?? 0));
        const input = concat([hex(header), key ?? new Uint8Array(0), sent]);
        const start = input.length - 2000;
        // The first cut is before the payload, so that the first piece is the whole payload.
        for (const at of [start, start + 1, start + 900, start + 1999]) {
          for (const ownsInput of [true, false]) {
            const decoder = new FrameDecoder({ role, ownsInput });
            const chunks = cut(input, at);
            for (const chunk of chunks) decoder.push(chunk);
            const pieces: Uint8Array[] = [];
            while (decoder.advance()) {
              const read = readWith(decoder);
              pieces.push(read.slice());
              if (way === "bytes" && key?.[0] === 1 && !ownsInput) read.fill(0);
            }
            assert.ok(isDeepStrictEqual(concat(pieces), payload), `cut at ${at}`);
            if (!ownsInput) {
              assert.ok(isDeepStrictEqual(concat(chunks), input), "the input is kept");
            }
          }
        }
      }
    });
  }

  it("FrameDecoder.endsInAscii is about the last byte of the piece, unmasked", () => {
    const payload = pattern(2000).map((byte, i) => byte ^ (i % 3 === 0 ? 0x80 : 0));
    for (const { role, header, key } of [rows[0], { ...rows[1], key: hex("81 02 7f ff") }]) {
      const sent = payload.map((byte, i) => byte ^ (key?.[i % 4] ?? 0));
      const head = concat([hex(header), key ?? new Uint8Array(0)]);
      const decoder = new FrameDecoder({ role, ownsInput: true });
      let end = 0;
      for (const chunk of [head, ...cut(sent, 1, 2, 3, 4, 5, 6, 7, 8, 1000, 1999)]) {
        decoder.push(chunk);
        while (decoder.advance()) {
          end += decoder.size;
          if (end === 0) continue;
          assert.equal(decoder.endsInAscii, payload[end - 1] < 0x80, `after ${end} bytes`);
          decoder.bytes();
          assert.equal(decoder.endsInAscii, payload[end - 1] < 0x80, "after it was unmasked");
        }
      }
      assert.equal(end, payload.length);
    }
  });

  it("FrameDecoder.copy returns bytes that are not part of the input", () => {
    for (const { role, header, key } of rows) {
      for (const ownsInput of [true, false]) {
        const decoder = new FrameDecoder({ role, ownsInput });
        const input = concat([hex(header), key ?? new Uint8Array(0), payload]);
        decoder.push(input);
        decoder.advance();
        const copy = decoder.copy();
        const before = copy.slice();
        input.fill(0);
        assert.equal(copy.buffer.byteLength, 2000);
        assert.ok(isDeepStrictEqual(copy, before));
      }
    }
  });
});

describe("FrameDecoder with input that has not been read", () => {
  it("FrameDecoder.end says where the frame begins that was not read", () => {
    const decoder = new FrameDecoder({ role: "client" });
    decoder.push(hex("82 01 07"));
    decoder.next();
    decoder.push(hex("82 01 07 82"));
    decoder.next();
    assert.throws(() => decoder.end(), { message: /\(frame at byte 6\)$/ });
    const other = new FrameDecoder({ role: "client" });
    other.push(hex("82 01 07"));
    other.next();
    other.push(hex("82 00"));
    assert.throws(() => other.end(), { message: /\(frame at byte 3\)$/ });
  });
});

describe("Opcode and Rsv", () => {
  it("Opcode and Rsv have the numbers of RFC 6455 §5.2", () => {
    const opcodes = { Continuation: 0, Text: 1, Binary: 2, Close: 8, Ping: 9, Pong: 10 };
    assert.deepEqual([Opcode, Rsv], [opcodes, { Rsv1: 4, Rsv2: 2, Rsv3: 1 }]);
  });
});

describe("encodeFrame", () => {
  it("encodeFrame writes each frame of the table", () => {
    for (const { title, unmasked, masked, key: mask, ...frame } of FRAMES) {
      assert.deepEqual(encodeFrame(frame), unmasked, title);
      assert.deepEqual(encodeFrame(frame, { mask }), masked, `${title}, masked`);
    }
  });

  it("encodeFrame throws if the payload was detached, masked or not", () => {
    for (const mask of [undefined, hex("01 02 03 04")]) {
      const payload = pattern(5);
      structuredClone(payload, { transfer: [payload.buffer as ArrayBuffer] });
      assert.throws(() => encodeFrame({ opcode: Opcode.Binary, payload }, { mask }), TypeError);
    }
  });

  it("encodeFrame leaves the payload and the key as they are", () => {
    const [payload, mask] = [pattern(300), hex("01 02 03 04")];
    encodeFrame({ opcode: Opcode.Binary, payload }, { mask });
    assert.deepEqual([payload, mask], [pattern(300), hex("01 02 03 04")]);
  });

  it("encodeFrame takes a fresh masking key for each frame", () => {
    const frame = { opcode: Opcode.Text, payload: utf8("Hello") };
    const frames = Array.from({ length: 3000 }, () => encodeFrame(frame, { mask: true }));
    const keys = frames.map((bytes) => bytes.subarray(2, 6).join());
    // Two of 3000 keys of 32 bits are equal in about one of a thousand runs, three practically never.
    assert.ok(new Set(keys).size > 2990);
    const texts = frames.flatMap((bytes) => decode({ role: "server" }, [bytes]));
    assert.ok(texts.every(({ payload }) => payload.every((byte, i) => byte === frame.payload[i])));
  });

  const payload = new Uint8Array(126);
  const refused: { title: string; frame: Frame; mask?: Uint8Array; message: string }[] = [
    {
      title: "a fragmented control frame",
      frame: { opcode: Opcode.Ping, fin: false, payload: hex("") },
      message: "Cannot fragment a control frame: fin must be true",
    },
    {
      title: "a control frame of 126 bytes",
      frame: { opcode: Opcode.Close, payload },
      message: "Expected a control payload of at most 125 bytes, received 126",
    },
    ...[3, 7, 11, 15, 16, -1, 1.5].map((opcode) => ({
      title: `opcode ${opcode}`,
      frame: { opcode: opcode as Opcode, payload },
      message: `Expected a known opcode, received ${opcode}`,
    })),
    ...[-1, 8, 0.5, NaN].map((rsv) => ({
      title: `reserved bits ${rsv}`,
      frame: { opcode: Opcode.Text, rsv, payload },
      message: `Expected rsv to be an integer from 0 to 7, received ${rsv}`,
    })),
    ...[0, 3, 5].map((length) => ({
      title: `a key of ${length} bytes`,
      frame: { opcode: Opcode.Text, payload },
      mask: new Uint8Array(length),
      message: `Expected a masking key of 4 bytes, received ${length}`,
    })),
  ];
  for (const { title, frame, mask, message } of refused) {
    it(`encodeFrame refuses ${title}`, () => {
      assert.throws(() => encodeFrame(frame, { mask }), { name: "RangeError", message });
    });
  }

  it("encodeFrame refuses a payload that is not a Uint8Array", () => {
    for (const payload of ["text", undefined, new ArrayBuffer(1)]) {
      const frame = { opcode: Opcode.Text, payload } as unknown as Frame;
      const message = /^Expected frame.payload to be a Uint8Array, received /;
      assert.throws(() => encodeFrame(frame), { name: "TypeError", message });
    }
    assert.throws(() => encodeFrame(undefined as never), {
      name: "TypeError",
      message: /^Expected/,
    });
  });

  it("encodeFrame writes what FrameDecoder reads", () => {
    fc.assert(fc.property(binary, fc.boolean(), fc.nat(7), (payload, fin, rsv) => {
      const frame = { fin, rsv, opcode: Opcode.Binary, payload };
      const options = { role: "server", rsvInUse: 7 } as const;
      const [piece] = decode(options, [encodeFrame(frame, { mask: true })]);
      const header = { fin, rsv, opcode: Opcode.Binary, masked: true, length: payload.length };
      assert.deepEqual(piece, { header, payload, last: true });
    }));
  });

  it("writeHeader writes the long headers of the table", () => {
    for (const { length, unmasked, masked } of LONG_HEADERS) {
      for (const bytes of [hex(unmasked), hex(masked)]) {
        const target = new Uint8Array(16);
        const isMasked = bytes[1] >= 0x80;
        const end = writeHeader(target, 1, bytes[0], length, isMasked ? 0x04030201 : undefined);
        const key = isMasked ? [1, 2, 3, 4] : [];
        assert.deepEqual([...target.subarray(1, end)], [...bytes, ...key]);
        assert.equal(headerLength(length, isMasked), isMasked ? 14 : 10);
      }
    }
  });
});

function optionsOf({ role, options }: MalformedRow): FrameDecoderOptions {
  return { role, ...options };
}

function failure({ closeCode, message }: MalformedRow, position: number): object {
  return {
    name: "RemoteProtocolError",
    closeCode,
    message: `${message} (frame at byte ${position})`,
  };
}

function thrown(action: () => unknown): unknown {
  try {
    action();
  } catch (error) {
    return error;
  }
  return undefined;
}

type Fields = { opcode: number; payload: number[] };

/** The pieces joined to frames. */
function whole(pieces: readonly FramePiece[]): Fields[] {
  const frames: Fields[] = [];
  let payload: number[] = [];
  for (const piece of pieces) {
    payload.push(...piece.payload);
    if (!piece.last) continue;
    frames.push({ opcode: piece.header.opcode, payload });
    payload = [];
  }
  return frames;
}

function fields({ opcode, payload }: { opcode: number; payload: Uint8Array }): Fields {
  return { opcode, payload: [...payload] };
}
