import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { type TextCodec, Utf8Decoder, webTextCodec, WholeCharacters } from "../lib/core/utf8.ts";
import { denoTextCodec } from "../lib/runtime/deno.ts";
import { nodeTextCodec } from "../lib/runtime/node.ts";
import { assertSameBytes, concat, cut, cuts, hex, single, utf8 } from "./bytes.ts";
import { fc, offsets } from "./property.ts";

/** Valid text: the first and last character of each length, and around each gap of RFC 3629 §4. */
const VALID: readonly [digits: string, text: string][] = [
  ["", ""],
  ["00", "\0"],
  ["7f", "\x7f"],
  ["c2 80", "\u0080"],
  ["df bf", "\u07ff"],
  ["e0 a0 80", "\u0800"],
  ["e1 80 80", "\u1000"],
  ["ed 9f bf", "\ud7ff"],
  ["ee 80 80", "\ue000"],
  ["ef bf bd", "\ufffd"],
  ["ef bf be", "\ufffe"],
  ["ef bf bf", "\uffff"],
  ["f0 90 80 80", "\u{10000}"],
  ["f1 80 80 80", "\u{40000}"],
  ["f3 bf bf bf", "\u{fffff}"],
  ["f4 8f bf bf", "\u{10ffff}"],
  // A byte order mark is kept at any position.
  ["ef bb bf", "\ufeff"],
  ["ef bb bf 61 ef bb bf", "\ufeffa\ufeff"],
  ["ce ba e1 bd b9 cf 83 ce bc ce b5", "\u03ba\u1f79\u03c3\u03bc\u03b5"],
  ["68 69 20 f0 9f 98 80 21", "hi 😀!"],
];

/** Invalid text, and the offset of the first byte that no valid text has there. */
const INVALID: readonly [title: string, digits: string, at: number][] = [
  ["a continuation alone", "80", 0],
  ["the last continuation alone", "bf", 0],
  ["an overlong NUL", "c0 80", 0],
  ["an overlong U+007F", "c1 bf", 0],
  ["two bytes without continuation", "c2 00", 1],
  ["two leads", "c2 c2", 1],
  ["two bytes with the first lead as continuation", "c2 c0", 1],
  ["an overlong character of three bytes", "e0 80 80", 1],
  ["the last overlong character of three bytes", "e0 9f bf", 1],
  ["three bytes without second", "e1 00", 1],
  ["three bytes without third", "e1 80 00", 2],
  ["three bytes with a lead as third", "e1 80 e1", 2],
  ["three bytes with the first lead as third", "e1 80 c0", 2],
  ["the first surrogate", "ed a0 80", 1],
  ["the last surrogate", "ed bf bf", 1],
  ["a pair of surrogates", "ed a0 bd ed b8 80", 1],
  ["an overlong character of four bytes", "f0 80 80 80", 1],
  ["the last overlong character of four bytes", "f0 8f bf bf", 1],
  ["four bytes without third", "f0 90 00", 2],
  ["four bytes without fourth", "f1 80 80 00", 3],
  ["four bytes with a lead as fourth", "f1 80 80 c2", 3],
  ["a character beyond U+10FFFF", "f4 90 80 80", 1],
  ["a lead beyond U+10FFFF", "f5 80 80 80", 0],
  ["the last lead of four bytes", "f7 bf bf bf", 0],
  ["a lead of five bytes", "f8 88 80 80 80", 0],
  ["a lead of six bytes", "fc 84 80 80 80 80", 0],
  ["the byte fe", "fe", 0],
  ["the byte ff", "ff", 0],
];

/** Text that ends within a character. */
const TRUNCATED = ["c2", "df", "e0", "e0 a0", "ed 9f", "ef bf", "f0", "f0 90", "f4 8f bf", "f1 80"];

/** Text before the bytes of the tables, so that positions and alignments differ. */
const BEFORE = ["", "a", "é", "€", "😀", "some text, €50"];

/** Decodes the bytes piece by piece, in both ways. */
function decode(chunks: readonly Uint8Array[], last = true): string {
  const [bytes, pieces] = [new Utf8Decoder("a test"), new Utf8Decoder("a test")];
  return chunks.map((chunk, i) => {
    const isLast = last && i === chunks.length - 1;
    const other = outcome(() => pieces.pushPiece(pieceOf(chunk), isLast));
    assert.deepEqual(other, outcome(() => bytes.push(chunk, isLast)));
    if (other.thrown !== undefined) throw other.thrown;
    return other.text;
  }).join("");
}

/** Returns the bytes as a piece of a frame, which notes how it is read. */
function pieceOf(bytes: Uint8Array) {
  const reads: string[] = [];
  return {
    size: bytes.length,
    endsInAscii: bytes[bytes.length - 1] < 0x80,
    reads,
    bytes: () => (reads.push("bytes"), bytes),
    text: (codec: TextCodec) => (reads.push("text"), codec.decode(bytes, 0, bytes.length)),
  };
}

function failure(position: number): object {
  const message = `Invalid UTF-8 in a test, at byte ${position}`;
  return { name: "RemoteProtocolError", closeCode: 1007, message };
}

describe("Utf8Decoder", () => {
  it("Utf8Decoder decodes valid text wherever it is cut", () => {
    for (const [digits, text] of VALID) {
      for (const before of BEFORE) {
        const bytes = concat([utf8(before), hex(digits)]);
        assert.equal(decode([bytes]), before + text, digits);
        assert.equal(decode([bytes], false), before + text, `${digits}, and more may follow`);
        for (const chunks of cuts(bytes).filter(({ length }) => length > 0)) {
          assert.equal(decode(chunks), before + text, digits);
        }
      }
    }
  });

  for (const [title, digits, at] of INVALID) {
    it(`Utf8Decoder fails at the first impossible byte of ${title} (${digits})`, () => {
      for (const before of BEFORE.map(utf8)) {
        const bytes = concat([before, hex(digits)]);
        const position = before.length + at;
        assert.throws(() => decode([bytes]), failure(position), "whole");
        assert.throws(() => decode(single(bytes.slice(0, position + 1)), false), failure(position));
        decode(single(bytes.slice(0, position)), false);
        for (const chunks of cuts(bytes)) assert.throws(() => decode(chunks), failure(position));
      }
    });
  }

  it("Utf8Decoder fails at the end of text that ends within a character", () => {
    for (const digits of TRUNCATED) {
      for (const before of BEFORE.map(utf8)) {
        const bytes = concat([before, hex(digits)]);
        assert.equal(decode([bytes], false), new TextDecoder().decode(before), digits);
        for (const chunks of [[bytes], ...cuts(bytes)]) {
          assert.throws(() => decode(chunks), failure(bytes.length), digits);
        }
      }
    }
  });

  it("Utf8Decoder is ready for another text after the last piece of one", () => {
    const decoder = new Utf8Decoder("a test");
    const [first, second] = cut(utf8("€"), 1);
    assert.equal(decoder.push(first, false), "");
    assert.equal(decoder.push(second, true), "€");
    assert.equal(decoder.push(hex("ef bb bf"), true), "\ufeff");
    assert.throws(() => decoder.push(hex("61 80"), true), failure(1));
  });

  it("Utf8Decoder gives a character as soon as it is complete", () => {
    const decoder = new Utf8Decoder("a test");
    const given = single(utf8("aé€😀")).map((byte) => decoder.push(byte, false));
    assert.deepEqual(given, ["a", "", "é", "", "", "€", "", "", "", "😀"]);
  });

  it("Utf8Decoder asks for the bytes of a piece only if a character may be cut off", () => {
    const decoder = new Utf8Decoder("a test");
    const [first, second] = cut(utf8("€"), 1);
    const read = (bytes: Uint8Array, last: boolean) => {
      const piece = pieceOf(bytes);
      decoder.pushPiece(piece, last);
      return piece.reads.join();
    };
    assert.equal(read(utf8("é, a"), false), "text");
    assert.equal(read(utf8("é"), false), "bytes");
    assert.equal(read(first, false), "bytes");
    assert.equal(read(concat([second, utf8("a")]), false), "bytes", "after a part of a character");
    assert.equal(read(utf8("é"), true), "text");
    assert.throws(() => read(hex("61 80"), true), failure(1));
  });

  it("Utf8Decoder leaves cut characters to a codec that takes anything", () => {
    const decode = (bytes: Uint8Array, start: number, end: number) =>
      bytes.slice(start, end).join();
    const decoder = new Utf8Decoder("text", { ...webTextCodec, decode, takesAnything: true });
    const given = [[0xe2], [], [0xff, 0xc3], [0x28], [0xf0]];
    const pieces = given.map((bytes) => pieceOf(Uint8Array.from(bytes)));
    assert.deepEqual(
      pieces.map((piece) => decoder.pushPiece(piece, piece === pieces.at(-1))),
      given.map((bytes) => bytes.join()),
    );
  });

  it("Utf8Decoder takes empty pieces anywhere", () => {
    const none = new Uint8Array(0);
    const [first, second] = cut(utf8("😀"), 2);
    assert.equal(decode([none, first, none, none, second, none]), "😀");
    assert.throws(() => decode([first, none]), failure(2));
  });

  it("Utf8Decoder does as a fatal TextDecoder does, wherever the bytes are cut", () => {
    fc.assert(fc.property(fc.array(sequence, { maxLength: 8 }), offsets(40), (parts, at) => {
      const bytes = concat(parts);
      const expected = outcome(() => strict.decode(bytes));
      const whole = outcome(() => decode([bytes]));
      assert.equal(whole.text, expected.text);
      assert.deepEqual(outcome(() => decode(cut(bytes, ...at))), whole);
      assert.deepEqual(outcome(() => decode([...single(bytes), new Uint8Array(0)])), whole);
    }));
  });
});

describe("WholeCharacters", () => {
  /** Pieces of a text, the last one last, and the complete characters of each. */
  const rows: readonly [title: string, pieces: string[], taken: string[]][] = [
    ["text without surrogates", ["", "a", "\ud7ff", "\ue000", ""], [
      "",
      "a",
      "\ud7ff",
      "\ue000",
      "",
    ]],
    ["whole pairs", ["a😀", "😀"], ["a😀", "😀"]],
    ["a pair that is cut", ["a\ud83d", "\ude00b", "c"], ["a", "😀b", "c"]],
    ["the first pair, cut", ["\ud800", "\udc00", ""], ["", "\u{10000}", ""]],
    ["the last pair, cut", ["\udbff", "\udfff", ""], ["", "\u{10ffff}", ""]],
    ["an empty piece within a pair", ["\ud83d", "", "\ude00"], ["", "", "😀"]],
    ["a second half alone", ["\udc00", "a"], ["\udc00", "a"]],
    ["a first half at the end", ["a", "b\ud83d"], ["a", "b\ud83d"]],
    ["two first halves", ["\ud83d\ud83d", "\ude00"], ["\ud83d", "😀"]],
  ];
  for (const [title, pieces, taken] of rows) {
    it(`WholeCharacters takes ${title}`, () => {
      const characters = new WholeCharacters();
      for (let text = 0; text < 2; text++) {
        const given = pieces.map((piece, i) => characters.take(piece, i === pieces.length - 1));
        assert.deepEqual(given, taken);
        assert.equal(characters.half, "");
      }
    });
  }
});

const CODECS = { webTextCodec, nodeTextCodec, denoTextCodec };

for (const [name, codec] of Object.entries(CODECS)) {
  describe(name, () => {
    /** Decodes the bytes as a part of a larger buffer, after ASCII of some length. */
    const decodeBetween = (bytes: Uint8Array, before: number) => {
      const ascii = new Uint8Array(before).fill(0x61);
      const around = concat([hex("ff 80"), ascii, bytes, hex("80 ff")]);
      return codec.decode(around, 2, around.length - 2);
    };

    it(`${name}.decode refuses every invalid text of the table, and keeps a byte order mark`, () => {
      for (const before of [0, 7, 300, 3000]) {
        for (const [, digits] of INVALID) {
          assert.throws(() => decodeBetween(hex(digits), before), digits);
        }
        for (const digits of TRUNCATED) {
          assert.throws(() => decodeBetween(hex(digits), before), digits);
        }
        for (const [digits, text] of VALID) {
          assert.equal(decodeBetween(hex(digits), before), "a".repeat(before) + text);
        }
      }
    });

    it(`${name}.decode does as a fatal TextDecoder does`, () => {
      fc.assert(fc.property(fc.array(sequence, { maxLength: 8 }), (parts) => {
        const bytes = concat(parts);
        const { text } = outcome(() => strict.decode(bytes));
        assert.equal(outcome(() => decodeBetween(bytes, 0)).text, text);
        const long = outcome(() => decodeBetween(bytes, 2000)).text;
        assert.equal(long, text === undefined ? undefined : "a".repeat(2000) + text);
      }));
    });

    it(`${name}.decode returns the same text if it is told whether the bytes are ASCII`, () => {
      for (const length of [0, 1, 127, 300, 1022, 1023, 1024, 70_000]) {
        const ascii = Uint8Array.from({ length: length + 2 }, (_, i) => i % 128);
        const text = strict.decode(ascii.subarray(1, 1 + length));
        for (const isAscii of [true, false, undefined]) {
          assert.equal(codec.decode(ascii, 1, 1 + length, isAscii), text);
        }
        const other = utf8(`${text}é`);
        assert.equal(codec.decode(other, 0, other.length, false), `${text}é`);
        assert.throws(() => codec.decode(concat([ascii, hex("e9")]), 1, length + 3, false));
      }
    });

    it(`${name}.encodeInto writes at the offset and nowhere else`, () => {
      for (const [digits, text] of VALID) {
        const bytes = hex(digits);
        const target = new Uint8Array(64).fill(0xaa);
        assert.equal(codec.encodeInto(text, target, 3), bytes.length);
        const rest = new Uint8Array(61 - bytes.length).fill(0xaa);
        assert.deepEqual(target, concat([hex("aa aa aa"), bytes, rest]), digits);
      }
    });

    it(`${name}.encodeInto needs no more room than the bytes that byteLength counts`, () => {
      fc.assert(fc.property(fc.array(unit, { maxLength: 40 }), (units) => {
        const text = units.join("");
        const bytes = new TextEncoder().encode(text);
        const target = new Uint8Array(3 + bytes.length);
        assert.equal(codec.byteLength?.(text) ?? bytes.length, bytes.length);
        assert.equal(codec.encodeInto(text, target, 3), bytes.length);
        assert.deepEqual(target.subarray(3), bytes);
      }));
    });

    it(`${name} encodes long text as TextEncoder does`, () => {
      const check = (text: string) => {
        const bytes = new TextEncoder().encode(text);
        const size = codec.byteLength?.(text);
        const target = new Uint8Array(7 + (size ?? 3 * text.length));
        assert.equal(size ?? bytes.length, bytes.length);
        assert.equal(codec.encodeInto(text, target, 7), bytes.length);
        assertSameBytes(target.subarray(7, 7 + bytes.length), bytes);
        const encoded = codec.encode?.(text);
        if (encoded === undefined) return;
        assert.equal(Object.getPrototypeOf(encoded), Uint8Array.prototype);
        assert.equal(encoded.buffer.byteLength, bytes.length);
        assertSameBytes(encoded, bytes);
      };
      const ends = ["", "a", "é", "\u0100", "語", "\uffff", "😀", "\ud83d", "\ude00"];
      for (const length of [2046, 2047, 2048, 2049, 20_000, 70_000]) {
        for (const fill of ["a", "é", "語"]) {
          for (const end of ends) {
            check(fill.repeat(length - end.length) + end);
            check(end + fill.repeat(length - end.length));
          }
        }
      }
      const units = fc.array(unit, { minLength: 1, maxLength: 40 });
      fc.assert(fc.property(units, fc.nat(200), (units, times) => {
        check(units.join("").repeat(times));
      }));
    });
  });
}

const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Bytes that are often, but not always, UTF-8. */
const sequence: fc.Arbitrary<Uint8Array> = fc.oneof(
  fc.string({ unit: "binary", minLength: 1, maxLength: 3 }).map(utf8),
  fc.constantFrom(...INVALID.map(([, digits]) => hex(digits)), ...TRUNCATED.map(hex)),
  fc.uint8Array({ maxLength: 4 }),
);

/** Characters, and lone surrogates, which may become pairs. */
const unit: fc.Arbitrary<string> = fc.oneof(
  fc.string({ unit: "binary" }),
  fc.constantFrom("\ud83d", "\ude00", "語".repeat(30), "a".repeat(100)),
);

function outcome(action: () => string): { text?: string; thrown?: Error } {
  try {
    return { text: action() };
  } catch (thrown) {
    return { thrown: thrown as Error };
  }
}
