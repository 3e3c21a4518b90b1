import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  type Fragment,
  fragments,
  type FramePiece,
  type Message,
  MessageAssembler,
  Opcode,
} from "../lib/core/mod.ts";
import {
  DecodedPiece,
  MAX_MESSAGE_SIZE,
  type MessageOptions,
  MessageReader,
} from "../lib/core/message.ts";
import { concat, hex, pattern, utf8 } from "./bytes.ts";
import { PieceReader } from "./pieces.ts";
import { binary, fc, text } from "./property.ts";

/** A whole frame as one piece. */
function frame(opcode: number, payload: Uint8Array | string, fin = true): FramePiece {
  const bytes = typeof payload === "string" ? utf8(payload) : payload;
  const header = { fin, rsv: 0, opcode, masked: false, length: bytes.length };
  return { header, payload: bytes, last: true };
}

/** A frame in pieces. */
function pieces(opcode: number, payloads: Uint8Array[], fin = true): FramePiece[] {
  const { header } = frame(opcode, concat(payloads), fin);
  return payloads.map((payload, i) => ({ header, payload, last: i === payloads.length - 1 }));
}

const { Continuation, Text, Binary } = Opcode;
const NONE = new Uint8Array(0);

describe("DecodedPiece", () => {
  it("DecodedPiece.endsInAscii is about the last byte", () => {
    const header = { fin: true, rsv: 0, opcode: 1, masked: false, length: 3 } as const;
    const endsInAscii = (text: string) =>
      new DecodedPiece().set({ header, payload: utf8(text), last: true }).endsInAscii;
    assert.deepEqual(["\xe9a", "a\xe9", "\x7f", "\x80"].map(endsInAscii), [
      true,
      false,
      true,
      false,
    ]);
  });
});

describe("MessageReader", () => {
  it("MessageReader gives the type of the message for each of its frames", () => {
    const read = readAll([
      frame(Text, "a", false),
      frame(Continuation, "b", false),
      frame(Continuation, "c"),
      frame(Binary, "d", false),
      frame(Continuation, "e"),
    ]);
    const finished = { frameFinished: true, messageFinished: true };
    const unfinished = { frameFinished: true, messageFinished: false };
    assert.deepEqual(read, [
      { type: "text", data: "a", ...unfinished },
      { type: "text", data: "b", ...unfinished },
      { type: "text", data: "c", ...finished },
      { type: "binary", data: utf8("d"), ...unfinished },
      { type: "binary", data: utf8("e"), ...finished },
    ]);
  });

  it("MessageReader distinguishes pieces of a frame from its end", () => {
    const [whole, half] = [[utf8("a"), utf8("b"), NONE], [utf8("c"), utf8("d")]];
    const read = readAll([...pieces(Text, whole, false), ...pieces(Continuation, half)]);
    assert.deepEqual(read.map(({ frameFinished }) => frameFinished), [
      false,
      false,
      true,
      false,
      true,
    ]);
    assert.deepEqual(read.map(({ messageFinished }) => messageFinished), [
      false,
      false,
      false,
      false,
      true,
    ]);
  });

  it("MessageReader refuses an end within a message", () => {
    const message = "The input ended within a message";
    const reader = new PieceReader();
    reader.end();
    for (const opcode of [Text, Binary]) {
      reader.read(frame(opcode, "a", false));
      assert.throws(() => reader.end(), failure(1006, message));
      reader.read(frame(Continuation, "b"));
      reader.end();
    }
  });

  const misplaced: readonly [title: string, FramePiece[], message: string][] = [
    [
      "a continuation without a message",
      [frame(Continuation, "a")],
      "A continuation frame has no message to continue",
    ],
    [
      "an unfinished continuation without a message",
      [frame(Continuation, "a", false)],
      "A continuation frame has no message to continue",
    ],
    [
      "a continuation after a message that is whole",
      [frame(Text, "a", false), frame(Continuation, "b"), frame(Continuation, "c")],
      "A continuation frame has no message to continue",
    ],
    [
      "a text message within a text message",
      [frame(Text, "a", false), frame(Text, "b")],
      "A text message began before the last one was finished",
    ],
    [
      "a binary message within a text message",
      [frame(Text, "", false), frame(Binary, "b")],
      "A binary message began before the last one was finished",
    ],
    [
      "a text message within a binary message",
      [frame(Binary, "a", false), frame(Continuation, "b", false), frame(Text, "c")],
      "A text message began before the last one was finished",
    ],
  ];
  for (const [title, frames, message] of misplaced) {
    it(`MessageReader refuses ${title}, as its last frame`, () => {
      const reader = new PieceReader();
      for (const piece of frames.slice(0, -1)) reader.read(piece);
      assert.throws(() => reader.read(frames.at(-1)!), failure(1002, message));
    });
  }

  it("MessageReader refuses a message on the length its frame declares", () => {
    const reader = new PieceReader({ maxMessageSize: 1000 });
    const header = { ...frame(Binary, "").header, length: 2 ** 53 - 1 };
    const message = "Message of at least 9007199254740991 bytes exceeds maxMessageSize (1000)";
    const nothing = { header, payload: NONE, last: false };
    assert.throws(() => reader.read(nothing), failure(1009, message));
  });

  it("MessageReader limits the sum of all fragments, and begins anew with each message", () => {
    const reader = new PieceReader({ maxMessageSize: 10 });
    for (let i = 0; i < 3; i++) {
      reader.read(frame(Binary, pattern(4), false));
      reader.read(frame(Continuation, pattern(6)));
    }
    reader.read(frame(Text, "aaaa", false));
    reader.read(frame(Continuation, "aaa", false));
    const message = "Message of at least 11 bytes exceeds maxMessageSize (10)";
    assert.throws(() => reader.read(frame(Continuation, "aaaa")), failure(1009, message));
  });

  it("MessageReader limits text by its bytes, not its characters", () => {
    const reader = new PieceReader({ maxMessageSize: 4 });
    reader.read(frame(Text, "éé"));
    assert.throws(() => reader.read(frame(Text, "ééé")), { closeCode: 1009 });
  });

  it("MessageReader counts a frame once, however many its pieces", () => {
    const options = { maxMessageSize: 3 };
    assert.equal(readAll(pieces(Binary, [hex("01"), hex("02"), hex("03")]), options).length, 3);
  });

  it("MessageReader gives whole characters only, across pieces and frames", () => {
    const [a, b, c, d] = [...utf8("😀")].map((byte) => Uint8Array.of(byte));
    const frames = [...pieces(Text, [a, b], false), ...pieces(Continuation, [NONE, c, d])];
    assert.deepEqual(readAll(frames).map(({ data }) => data), ["", "", "", "", "😀"]);
  });

  const invalid: readonly [title: string, FramePiece[], at: number][] = [
    ["whole text", [frame(Text, hex("61 ff"))], 1],
    ["a piece", pieces(Text, [hex("61"), hex("ff"), hex("61")]).slice(0, 2), 1],
    ["a continuation", [frame(Text, "ab", false), frame(Continuation, hex("80"), false)], 2],
    ["a character across frames", [
      frame(Text, hex("61 e2 82"), false),
      frame(Continuation, hex("28"), false),
    ], 3],
    ["text that ends within a character", [
      frame(Text, hex("61 e2"), false),
      frame(Continuation, hex("82")),
    ], 3],
    ["text that ends with an empty frame", [
      frame(Text, hex("c3"), false),
      frame(Continuation, NONE),
    ], 1],
  ];
  for (const [title, frames, at] of invalid) {
    it(`MessageReader refuses invalid UTF-8 in ${title} at its first byte`, () => {
      const reader = new PieceReader();
      for (const piece of frames.slice(0, -1)) reader.read(piece);
      const message = `Invalid UTF-8 in a text message, at byte ${at}`;
      assert.throws(() => reader.read(frames.at(-1)!), failure(1007, message));
    });
  }

  it("MessageReader counts bytes of text anew for each message", () => {
    const reader = new PieceReader();
    reader.read(frame(Text, "a", false));
    reader.read(frame(Continuation, "b"));
    reader.read(frame(Text, "whole"));
    const message = "Invalid UTF-8 in a text message, at byte 1";
    assert.throws(() => reader.read(frame(Text, hex("61 ff"), false)), failure(1007, message));
  });

  it("MessageReader takes any bytes in a binary message", () => {
    const [{ data }] = readAll([frame(Binary, hex("ff fe c0 80"))]);
    assert.deepEqual(data, hex("ff fe c0 80"));
  });

  it("MessageReader decodes whole messages with the codec it is given", () => {
    const textCodec = { decode: () => "decoded", encodeInto: () => 0 };
    assert.equal(readAll([frame(Text, "abc")], { textCodec })[0].data, "decoded");
  });
});

describe("MessageReader with whole messages", () => {
  const readWhole = (frames: readonly FramePiece[], options?: MessageOptions) => {
    const reader = new MessageReader(options);
    assert.equal(reader.held, 0);
    return frames.map((piece) => {
      const read = reader.read(new DecodedPiece().set(piece), { whole: true });
      return [read?.data, reader.held];
    });
  };

  it("MessageReader joins fragments of one byte, and holds them until then", () => {
    for (const opcode of [Text, Binary]) {
      const value = (text: string) => opcode === Text ? text : utf8(text);
      const frames = [
        frame(opcode, "a", false),
        frame(Continuation, "b"),
        frame(opcode, "", false),
        frame(Continuation, "c", false),
        frame(Continuation, ""),
        frame(opcode, "e", false),
        frame(Continuation, ""),
        frame(opcode, "d"),
        frame(opcode, ""),
      ];
      assert.deepEqual(readWhole(frames), [
        [undefined, 1],
        [value("ab"), 0],
        [undefined, 0],
        [undefined, 1],
        [value("c"), 0],
        [undefined, 1],
        [value("e"), 0],
        [value("d"), 0],
        [value(""), 0],
      ]);
    }
  });

  it("MessageReader counts the bytes of pieces whose frame has no declared length", () => {
    const inflated = pieces(Binary, [hex("01 02 03"), hex("04 05"), hex("06")])
      .map((piece) => ({ ...piece, header: { ...piece.header, length: 0 } }));
    assert.equal(readWhole(inflated, { maxMessageSize: 6 }).length, 3);
    const message = "Message of at least 6 bytes exceeds maxMessageSize (5)";
    assert.throws(() => readWhole(inflated, { maxMessageSize: 5 }), failure(1009, message));
  });
});

describe("MAX_MESSAGE_SIZE", () => {
  it("MAX_MESSAGE_SIZE is 1 MiB, as documented", () => {
    assert.equal(MAX_MESSAGE_SIZE, 1_048_576);
  });
});

describe("MessageAssembler", () => {
  /** Messages with empty frames at different positions. */
  const withEmpty: readonly [title: string, parts: string[]][] = [
    ["one frame", ["Hello"]],
    ["one empty frame", [""]],
    ["an empty frame first", ["", "Hel", "lo"]],
    ["an empty frame in the middle", ["Hel", "", "lo"]],
    ["an empty frame last", ["Hel", "lo", ""]],
    ["empty frames only", ["", "", ""]],
    ["a frame a byte", [..."Hello"]],
  ];
  for (const [title, parts] of withEmpty) {
    it(`MessageAssembler puts ${title} together, as text and as binary`, () => {
      const frames = (opcode: number) =>
        parts.map((part, i) =>
          frame(i === 0 ? opcode : Continuation, part, i === parts.length - 1)
        );
      assert.deepEqual(assemble(frames(Text)), [parts.join("")]);
      assert.deepEqual(assemble(frames(Binary)), [utf8(parts.join(""))]);
    });
  }

  it("MessageAssembler puts 65536 fragments of one byte together", () => {
    const frames = (opcode: number) =>
      Array.from(
        { length: 65536 },
        (_, i) => frame(i === 0 ? opcode : Continuation, Uint8Array.of(i & 0x7f), i === 65535),
      );
    const expected = Uint8Array.from({ length: 65536 }, (_, i) => i & 0x7f);
    assert.deepEqual(assemble(frames(Binary)), [expected]);
    assert.deepEqual(assemble(frames(Text)), [new TextDecoder().decode(expected)]);
  });

  it("MessageAssembler puts a million pieces together in time linear in their size", () => {
    const assembler = new MessageAssembler();
    const data = hex("01 02 03 04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 10");
    for (let i = 0; i < 2 ** 20; i++) assembler.push(binaryPiece(data));
    assert.equal(assembler.size, 2 ** 24);
    const message = assembler.push({ ...binaryPiece(NONE), messageFinished: true });
    assert.equal(message?.length, 2 ** 24);
    assert.equal(message.at(-1), 16);
  });

  it("MessageAssembler keeps the order of small and large pieces", () => {
    const sizes = fc.array(fc.oneof(fc.nat(40), fc.integer({ min: 1000, max: 3000 })));
    fc.assert(fc.property(sizes, (sizes) => {
      const assembler = new MessageAssembler();
      const parts = sizes.map((size, i) => new Uint8Array(size).fill(i));
      for (const part of parts) assert.equal(assembler.push(binaryPiece(part)), undefined);
      const message = assembler.push({ ...binaryPiece(hex("ff")), messageFinished: true });
      assert.deepEqual(message, concat([...parts, hex("ff")]));
    }));
  });

  it("MessageAssembler puts messages together one after the other", () => {
    const messages = ["one", utf8("two"), "", NONE, "five"];
    const frames = messages.flatMap((message) => [...fragments(message, { maxFrameSize: 2 })])
      .map(({ fin, opcode, payload }) => frame(opcode, payload, fin));
    assert.deepEqual(assemble(frames), messages);
  });

  it("MessageAssembler keeps nothing of a message that is complete", () => {
    const assembler = new MessageAssembler();
    const assembled = (type: "text" | "binary", pieces: (string | Uint8Array)[]) =>
      pieces.map((data, i) => {
        const messageFinished = i === pieces.length - 1;
        return assembler.push({ type, data, frameFinished: true, messageFinished } as Fragment);
      }).pop();
    for (const letter of ["a", "b"]) {
      const pieces = Array(3000).fill(letter);
      assert.equal(assembled("text", pieces), pieces.join(""));
    }
    const messages = [[1, 2], [3, 4], [5]].map((values) =>
      assembled("binary", values.map((value) => new Uint8Array(3).fill(value)))
    );
    const expected = ["01 01 01 02 02 02", "03 03 03 04 04 04", "05 05 05"];
    assert.deepEqual(messages, expected.map(hex));
  });

  it("MessageAssembler gives the part that it holds as a partial message", () => {
    const assembler = new MessageAssembler();
    assert.deepEqual([assembler.size, assembler.takePartial()], [0, undefined]);
    const unfinished = { frameFinished: false, messageFinished: false };
    for (const data of ["Hé", "llo"]) assembler.push({ type: "text", data, ...unfinished });
    assert.equal(assembler.size, 5);
    assert.deepEqual(assembler.takePartial(), { type: "text", data: "Héllo", ...unfinished });
    assert.deepEqual([assembler.size, assembler.takePartial()], [0, undefined]);
    for (const data of [hex("01"), hex("02 03")]) assembler.push(binaryPiece(data));
    assert.equal(assembler.size, 3);
    assert.deepEqual(assembler.takePartial(), {
      type: "binary",
      data: hex("01 02 03"),
      ...unfinished,
    });
    assert.equal(
      assembler.push({ type: "text", data: "new", frameFinished: true, messageFinished: true }),
      "new",
    );
  });

  /** A piece that is a view of a chunk of this size. */
  const views: readonly { length: number; chunk: number; copied: boolean }[] = [
    { length: 64, chunk: 64, copied: false },
    { length: 64, chunk: 65, copied: true },
    { length: 65, chunk: 1000, copied: true },
    { length: 65535, chunk: 65536, copied: true },
    { length: 65536, chunk: 65536, copied: false },
    { length: 0, chunk: 0, copied: true },
  ];
  for (const { length, chunk, copied } of views) {
    it(`MessageAssembler ${copied ? "copies" : "takes over"} ${length} of ${chunk} bytes`, () => {
      const bytes = pattern(chunk);
      const data = bytes.subarray(0, length);
      const whole = { ...binaryPiece(data), messageFinished: true };
      const message = new MessageAssembler().push(whole) as Uint8Array;
      assert.deepEqual(message, data);
      assert.equal(message.buffer !== bytes.buffer, copied);
      assert.equal(message.buffer.byteLength, length);
    });
  }

  it("MessageAssembler does not hold on to the chunks that small fragments came in", () => {
    for (const length of [1, 100, 1024, 4095, 65535]) {
      const assembler = new MessageAssembler();
      const chunk = pattern(65536);
      assembler.push(binaryPiece(chunk.subarray(0, length)));
      chunk.fill(0);
      assert.deepEqual(assembler.takePartial()?.data, pattern(length), `${length} bytes`);
    }
  });
});

describe("fragments", () => {
  const cases: readonly [message: Message, maxFrameSize: number | undefined, parts: string[]][] = [
    ["Hello", undefined, ["Hello"]],
    ["Hello", 5, ["Hello"]],
    ["Hello", 4, ["Hell", "o"]],
    ["Hello", 1, [..."Hello"]],
    ["", 1, [""]],
    [utf8("Hello"), 2, ["He", "ll", "o"]],
    [NONE, undefined, [""]],
  ];
  for (const [message, maxFrameSize, parts] of cases) {
    const title = typeof message === "string" ? `text "${message}"` : `${message.length} bytes`;
    it(`fragments cuts ${title} into frames of ${maxFrameSize ?? "any"} size`, () => {
      const first = typeof message === "string" ? Text : Binary;
      const expected = parts.map((part, i) => ({
        fin: i === parts.length - 1,
        rsv: 0,
        opcode: i === 0 ? first : Continuation,
        payload: utf8(part),
      }));
      assert.deepEqual([...fragments(message, { maxFrameSize })], expected);
    });
  }

  it("fragments refuses a size that is no whole number from 1 on", () => {
    for (const maxFrameSize of [0, -1, NaN, 0.5, 1.5]) {
      assert.throws(() => [...fragments("a", { maxFrameSize })], {
        name: "RangeError",
        message:
          `Expected maxFrameSize to be a positive integer or Infinity, received ${maxFrameSize}`,
      });
    }
  });

  it("fragments refuses bytes that were detached before the last frame", () => {
    const bytes = pattern(10);
    const frames = fragments(bytes, { maxFrameSize: 4 });
    frames.next();
    structuredClone(undefined, { transfer: [bytes.buffer as ArrayBuffer] });
    assert.throws(() => frames.next(), {
      name: "TypeError",
      message: "The bytes were detached or resized before all frames were made",
    });
  });

  it("fragments cuts what MessageReader and MessageAssembler put together again", () => {
    const size = fc.integer({ min: 1, max: 40 });
    const wellFormed = text.filter((value) => !/\p{Surrogate}/u.test(value));
    fc.assert(fc.property(fc.oneof(wellFormed, binary), size, (message, maxFrameSize) => {
      const frames = [...fragments(message, { maxFrameSize })];
      assert.ok(frames.every(({ payload }) => payload.length <= maxFrameSize));
      const read = frames.map(({ fin, opcode, payload }) => frame(opcode, payload, fin));
      assert.deepEqual(assemble(read), [message]);
    }));
  });
});

function binaryPiece(data: Uint8Array): Fragment {
  return { type: "binary", data, frameFinished: false, messageFinished: false };
}

function readAll(frames: readonly FramePiece[], options?: MessageOptions): Fragment[] {
  const reader = new PieceReader(options);
  return frames.map((piece) => reader.read(piece));
}

function assemble(frames: readonly FramePiece[]): Message[] {
  const assembler = new MessageAssembler();
  return readAll(frames).flatMap((fragment) => assembler.push(fragment) ?? []);
}

function failure(closeCode: number, message: string): object {
  return { name: "RemoteProtocolError", closeCode, message };
}
