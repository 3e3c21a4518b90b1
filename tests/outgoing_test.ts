/** What callers send, as messages and pieces of messages. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  convert,
  isFixed,
  isItemError,
  isPlainBytes,
  ownItem,
  type Piece,
  piecesOf,
  StreamSource,
  toMessage,
  toSendable,
  viewOf,
} from "../lib/connection/outgoing.ts";
import type { Message, OutgoingMessage } from "../mod.ts";
import { OddBytes, pattern, utf8 } from "./bytes.ts";
import { collect, rejection } from "./support.ts";

/** A buffer of another realm, which is no instance of this realm's class. */
function foreign<T extends ArrayBufferLike>(buffer: T): T {
  const tag = Object.prototype.toString.call(buffer).slice(8, -1);
  Object.setPrototypeOf(buffer, { [Symbol.toStringTag]: tag });
  return buffer;
}

const bytes = pattern(9);
const shared = () => new SharedArrayBuffer(3);
const resizable = () => new ArrayBuffer(3, { maxByteLength: 6 } as object);

describe("What callers send", () => {
  const sources: [name: string, value: unknown, view: Uint8Array | undefined, fixed: boolean][] = [
    ["bytes", bytes, bytes, true],
    ["a view of a part", new DataView(bytes.buffer, 2, 3), bytes.slice(2, 5), true],
    ["a buffer", bytes.buffer, bytes, true],
    ["a buffer of another realm", foreign(pattern(9).buffer as ArrayBuffer), bytes, true],
    ["a shared buffer", shared(), new Uint8Array(3), false],
    ["a shared buffer of another realm", foreign(shared()), new Uint8Array(3), false],
    ["a resizable buffer", resizable(), new Uint8Array(3), false],
    ["text", "a", undefined, true],
    ["an object", { byteLength: 3 }, undefined, true],
    ["nothing", undefined, undefined, true],
  ];
  for (const [name, value, expected, fixed] of sources) {
    it(`viewOf() and isFixed(): ${name}`, () => {
      const view = viewOf(value);
      assert.deepEqual(view && [...view], expected && [...expected]);
      const own = ownItem(value);
      if (view === undefined) return assert.equal(own, value);
      assert.equal(isFixed(view), fixed);
      assert.deepEqual(own, new Uint8Array(expected!));
      assert.notEqual((own as Uint8Array).buffer, view.buffer);
      assert.deepEqual(toSendable(value as OutgoingMessage), view);
      if (fixed) return assert.deepEqual(toMessage(value), view);
      assert.throws(() => toMessage(value), { name: "TypeError", message: /neither shared nor/ });
    });
  }

  it("viewOf() returns bytes as they are, and copies those of a subclass", () => {
    const { Buffer } = globalThis as { Buffer?: { from(bytes: Uint8Array): Uint8Array } };
    for (const known of [pattern(3), Buffer?.from(pattern(3)) ?? pattern(4)]) {
      assert.equal(isPlainBytes(known), true);
      assert.equal(viewOf(known), known);
      assert.equal(toSendable(known), known);
    }
    const odd = new OddBytes(pattern(9));
    assert.equal(isPlainBytes(odd), false);
    const view = viewOf(odd)!;
    assert.deepEqual(view, pattern(9));
    assert.notEqual(view.buffer, odd.buffer);
    assert.equal(isPlainBytes({ length: 3 }), false);
  });

  it("toSendable() takes iterables and streams, and refuses the rest", async () => {
    const items = [["a"], new Set(["a"]), (async function* () {})()];
    for (const item of items) assert.equal(toSendable(item as OutgoingMessage), item);
    const stream = ReadableStream.from(["a", "b"]);
    const source = toSendable(stream as never) as StreamSource;
    assert.ok(source instanceof StreamSource);
    assert.deepEqual(await collect(source), ["a", "b"]);
    assert.throws(() => toSendable(stream as never), {
      name: "TypeError",
      message: /another reader/,
    });
    const refused: [value: unknown, received: string][] = [
      [undefined, "undefined"],
      [null, "null"],
      [1, "a number"],
      [true, "a boolean"],
      [() => {}, "a function"],
      [Symbol("a"), "a symbol"],
      [{}, "an object: write JSON.stringify(object)"],
      [Promise.resolve("a"), "an object: await the promise first"],
      [new Blob(["a"]), "an object: write blob.stream()"],
    ];
    for (const [value, received] of refused) {
      assert.throws(() => toSendable(value as never), {
        name: "TypeError",
        message:
          `Expected a string, a buffer source, an iterable or a stream, received ${received}`,
      });
    }
  });

  it("A source of a stream can be cancelled while a read waits, also in vain", async () => {
    const reasons: unknown[] = [];
    const stream = new ReadableStream({ cancel: (reason) => void reasons.push(reason) });
    const source = new StreamSource(stream);
    const next = source[Symbol.asyncIterator]().next();
    source.cancel("reason");
    assert.equal((await next).done, true);
    assert.deepEqual(reasons, ["reason"]);
    const broken = ReadableStream.from({
      async *[Symbol.asyncIterator]() {
        yield await Promise.reject(new Error("broken"));
      },
    });
    const other = new StreamSource(broken);
    await rejection(other[Symbol.asyncIterator]().next());
    other.cancel("reason");
  });

  const converted: [message: Message, text: boolean | undefined, expected: Message][] = [
    ["\u20ac", undefined, "\u20ac"],
    ["\u20ac", true, "\u20ac"],
    ["\u20ac", false, utf8("\u20ac")],
    [utf8("\u20ac"), undefined, utf8("\u20ac")],
    [utf8("\u20ac"), true, "\u20ac"],
    [utf8("\ufeffa"), true, "\ufeffa"],
    [utf8("\u20ac"), false, utf8("\u20ac")],
    [new Uint8Array(shared()), true, "\0\0\0"],
  ];
  for (const [message, text, expected] of converted) {
    it(`convert() ${typeof message} with text: ${text}`, () => {
      assert.deepEqual(convert(message, text), expected);
    });
  }

  const INVALID = { name: "RangeError", message: /not valid UTF-8$/ };

  it("convert() refuses bytes that are not UTF-8, and names the cause", () => {
    assert.throws(() => convert(Uint8Array.of(0xff), true), (error: Error) => {
      assert.ok(error.cause instanceof TypeError);
      assert.match(error.message, INVALID.message);
      return error.name === INVALID.name;
    });
  });

  const half = utf8("\u20ac").subarray(0, 2);
  const pieces: [name: string, items: unknown[], text: boolean | undefined, expected: Message[]][] =
    [
      ["nothing", [], undefined, []],
      ["a text", ["a"], undefined, ["a"]],
      ["texts", ["a", "", "b"], undefined, ["a", "", "b"]],
      ["bytes", [utf8("a"), utf8("b").buffer], undefined, [utf8("a"), utf8("b")]],
      ["both as text", [utf8("a"), "b", utf8("c")], true, ["a", "b", "c"]],
      ["both as bytes", ["a", utf8("b"), "c"], false, [utf8("a"), utf8("b"), utf8("c")]],
      ["a character that items cut", [half, utf8("\u20ac").subarray(2)], true, ["", "\u20ac"]],
      ["half a pair, then bytes", ["\ud83d", utf8("b")], false, [utf8(""), utf8("\ufffdb")]],
      ["a pair that items cut", ["\ud83d", "\ude00"], false, [utf8(""), utf8("\u{1f600}")]],
    ];
  for (const [name, items, text, expected] of pieces) {
    it(`piecesOf() gives ${name}`, async () => {
      const last = expected.length - 1;
      const found = await collect(piecesOf(items as Message[], text));
      assert.deepEqual(found, expected.map((data, i) => ({ data, last: i === last })));
      // The end of an asynchronous source comes later, so that an empty piece ends the message.
      const each: Piece[] = await collect(piecesOf(ReadableStream.from(items as Message[]), text));
      const empty = typeof expected[0] === "string" ? "" : new Uint8Array(0);
      assert.deepEqual(
        each.map(({ last }) => last),
        [...expected.map(() => false), true].slice(last < 0 ? 1 : 0),
      );
      if (last >= 0) assert.deepEqual(each.pop()!.data, empty);
      assert.deepEqual(each.map(({ data }) => data), expected);
    });
  }

  it("piecesOf() ends cut characters of an asynchronous source as its own", async () => {
    const cut = await collect(piecesOf(ReadableStream.from(["a", "\ud83d"]), false));
    assert.deepEqual(cut.at(-1), { data: utf8("\ufffd"), last: true });
    const error = await rejection(collect(piecesOf(ReadableStream.from([half]), true)));
    assert.deepEqual([error.name, isItemError(error)], ["RangeError", true]);
  });

  const refused: [name: string, items: unknown[], text: boolean | undefined, error: string][] = [
    ["a number", [1], undefined, "TypeError"],
    ["text and bytes", ["a", utf8("b")], undefined, "TypeError"],
    ["bytes and text", [utf8("a"), "b"], undefined, "TypeError"],
    ["half a character before text", [half, "a"], true, "RangeError"],
    ["half a character at the end", [half], true, "RangeError"],
  ];
  for (const [name, items, text, expected] of refused) {
    it(`piecesOf() refuses ${name}`, async () => {
      const error = await rejection(collect(piecesOf(items as Message[], text)));
      assert.deepEqual([error.name, isItemError(error)], [expected, true]);
    });
  }

  it("An error of the source is no error of an item", async () => {
    const fault = new Error("fault");
    const items = {
      *[Symbol.iterator](): Generator<Message> {
        yield "a";
        throw fault;
      },
    };
    assert.equal(await rejection(collect(piecesOf(items, undefined))), fault);
    assert.deepEqual([isItemError(fault), isItemError(undefined)], [false, false]);
  });

  it("piecesOf() copies the items that it holds", async () => {
    const items = {
      *[Symbol.iterator](): Generator<Message> {
        const reused = new Uint8Array(1);
        for (const byte of [1, 2, 3]) yield reused.fill(byte);
      },
    };
    const found = await collect(piecesOf(items, undefined));
    assert.deepEqual(found.map(({ data }) => [...(data as Uint8Array)]), [[1], [2], [3]]);
  });
});
