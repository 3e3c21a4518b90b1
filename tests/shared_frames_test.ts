/** Frames that several connections send without a copy of their own. */
import { Buffer } from "node:buffer";
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { broadcast } from "../mod.ts";
import { Encoder } from "../lib/core/encoder.ts";
import { encodeFrame } from "../lib/core/frame_writer.ts";
import { Opcode } from "../lib/core/frame.ts";
import type { ProtocolEvent } from "../lib/core/event.ts";
import { Protocol } from "../lib/core/protocol.ts";
import type { DeflateEngine } from "../lib/core/deflate.ts";
import { sharedFrame, SharedRange } from "../lib/core/shared_frame.ts";
import type { Extension } from "../lib/core/extension.ts";
import {
  PerMessageDeflate,
  type PerMessageDeflateOptions,
} from "../lib/core/permessage_deflate.ts";
import { Recipients } from "../lib/connection/crowd.ts";
import { SharedFrames, sharedLength, shareFrame } from "../lib/connection/sharing.ts";
import { pair, type PairOptions } from "../lib/testing.ts";
import { deflateEngine } from "../lib/zlib.ts";
import { concat, hex } from "./bytes.ts";
import { binary, fc, text } from "./property.ts";
import { rest, until } from "./support.ts";

const long = fc.constantFrom(125, 126, 1024, 1025, 8191, 8192, 65_535, 65_536).map((length) =>
  new Uint8Array(length).map((_, i) => i)
);
const message = fc.oneof(text, binary, long, long.map((bytes) => "a".repeat(bytes.length)));

describe("Shared frames", () => {
  it("are the frames that an encoder would write, whatever comes between", () =>
    fc.assert(fc.property(
      fc.array(
        fc.oneof(
          { weight: 4, arbitrary: fc.record({ op: fc.constant("share"), message }) },
          { weight: 2, arbitrary: fc.record({ op: fc.constant("write"), message }) },
          { weight: 2, arbitrary: fc.record({ op: fc.constant("skip"), message }) },
          { weight: 1, arbitrary: fc.record({ op: fc.constantFrom("take", "part"), message }) },
        ),
        { maxLength: 40 },
      ),
      (ops) => {
        const [encoder, other] = [new Encoder("server"), new Encoder("server")];
        const expected = new Encoder("server");
        let shared = new SharedFrames(new Uint8Array(200_000));
        const taken: Uint8Array[] = [];
        for (const { op, message } of ops) {
          if (op === "take" || op === "part") {
            // The bytes must not change until recycle(), and may be reused after it.
            taken.push(concat(encoder.take(op === "take" ? Infinity : 100)));
            if (op === "take") assert.equal(encoder.size, 0);
            encoder.recycle();
          } else if (op === "write") {
            encoder.writePiece(message, true, true);
            expected.writePiece(message, true);
          } else {
            let frame = shared.write(message);
            if (frame === undefined) {
              shared = new SharedFrames(new Uint8Array(Math.max(sharedLength(message), 200_000)));
              frame = shared.write(message)!;
            }
            assert.ok(other.writeShared(frame));
            if (op === "skip") continue;
            assert.ok(encoder.writeShared(frame));
            expected.writePiece(message, true);
          }
          assert.ok(encoder.size >= 0);
        }
        while (encoder.size > 0) taken.push(concat(encoder.take()));
        assert.deepEqual(concat(taken), concat(expected.take()));
        assert.equal(encoder.counts.frames, expected.counts.frames);
      },
    )));

  it("have a buffer for twice the bytes of the last turn", async () => {
    await rest();
    const written = Array.from({ length: 40 }, () => shareFrame("a".repeat(98)));
    assert.ok(written.every(({ start, end }) => end - start === 100));
    await rest();
    const next = Array.from({ length: 2 }, () => shareFrame("a".repeat(98)));
    assert.deepEqual(next.map(({ bytes, start }) => [bytes.length, start]), [[8000, 0], [
      8000,
      100,
    ]]);
    await rest();
    assert.equal(shareFrame("a").bytes.length, 400);
    await rest();
  });

  it("are views of a Buffer, if the platform has it", async () => {
    const [bytes] = SharedRange.of(shareFrame("a")).parts;
    assert.equal(bytes instanceof Buffer, true);
    await rest();
  });

  it("are in one range if they follow each other, which is the same for all that ask", () => {
    const bytes = Uint8Array.of(1, 2, 3, 4, 5, 6);
    const frame = (start: number, end: number, from = bytes) => ({ bytes: from, start, end });
    const first = frame(1, 3);
    const range = SharedRange.of(first);
    assert.equal(SharedRange.of(first), range);
    assert.deepEqual([range.length, range.frames, range.holders], [2, 1, 0]);
    assert.deepEqual(range.parts, [Uint8Array.of(2, 3)]);
    assert.equal(range.parts, range.parts);
    assert.equal(range.precedes(frame(3, 4)), true);
    assert.equal(range.precedes(frame(4, 5)), false);
    assert.equal(range.precedes(frame(3, 4, bytes.slice())), false);
    const both = range.followedBy(frame(3, 4));
    assert.equal(range.followedBy(frame(3, 4)), both);
    assert.deepEqual([both.length, both.frames, range.length], [3, 2, 2]);
    assert.deepEqual(both.parts, [Uint8Array.of(2, 3, 4)]);
    assert.equal(range.add(frame(4, 5)), false);
    assert.equal(range.add(frame(3, 4)), true);
    assert.deepEqual([range.length, range.frames], [3, 2]);
    assert.deepEqual(range.parts, [Uint8Array.of(2, 3, 4)]);
    assert.deepEqual(range.followedBy(frame(4, 6)).parts, [Uint8Array.of(2, 3, 4, 5, 6)]);
  });

  it("count the encoders that hold them and nothing else", () => {
    const sharedBy = () => null;
    const extensions = [{ sharedBy } as unknown as Extension];
    const encoders = [{}, {}, {}, { extensions }].map((options) => new Encoder("server", options));
    const [taking, writing, sharing] = encoders;
    const frames = new SharedFrames(new Uint8Array(100));
    const frame = frames.write("one")!;
    writing.writePiece("own", true);
    writing.take();
    for (const encoder of encoders) assert.equal(encoder.writeShared(frame), true);
    const range = SharedRange.of(frame);
    assert.equal(range.holders, 3);
    assert.equal(range.add(frames.write("two")!), true);
    for (const encoder of encoders) assert.equal(encoder.size, 10);
    assert.deepEqual(encoders.map(({ sharedMessages }) => sharedMessages), [2, 2, 2, 2]);
    assert.deepEqual(encoders.map(({ counts }) => counts.frames), [2, 3, 2, 2]);
    taking.take();
    assert.deepEqual([range.holders, taking.size, taking.sharedMessages], [2, 0, 2]);
    writing.writePiece("own", true);
    assert.deepEqual([range.holders, writing.size, writing.counts.frames], [1, 15, 4]);
    sharing.writeShared(frames.write("three")!);
    assert.deepEqual([range.holders, sharing.size, sharing.counts.frames], [0, 17, 3]);
    encoders[3].unshare();
    encoders[3].unshare();
    assert.deepEqual([range.holders, encoders[3].size, encoders[3].counts.frames], [0, 10, 2]);
    const text = "\x81\x03one\x81\x03two";
    const taken = encoders.map((encoder) =>
      new TextDecoder("latin1").decode(concat(encoder.take()))
    );
    assert.deepEqual(taken, ["", text + "\x81\x03own", text + "\x81\x05three", text]);
  });

  /** A crowd without transports. */
  const gather = (range: SharedRange) => range.crowd = new Recipients(range, [], []);

  it("are added for a crowd again when all of it has taken them", () => {
    const encoders = [1, 2, 3].map(() => new Encoder("server"));
    const frames = new SharedFrames(new Uint8Array(100));
    const first = frames.write("one")!;
    for (const encoder of encoders) encoder.writeShared(first);
    const range = SharedRange.of(first);
    const crowd = gather(range);
    const take = (some: Encoder[]) =>
      some.map((encoder) => new TextDecoder("latin1").decode(concat(encoder.take())));
    const [a, b, c] = encoders;
    assert.equal(a.crowd, crowd);
    assert.deepEqual([range.isTaken, a.crowdBytes], [false, 0]);
    assert.deepEqual(concat(range.take()), hex("81 03 6f 6e 65"));
    assert.deepEqual([a.size, a.crowdBytes, a.sharedMessages], [0, 5, 1]);
    assert.deepEqual([range.isTaken, range.length, range.holders], [true, 0, 3]);
    assert.equal(range.parts[0].buffer.byteLength, 0, "the memory is free");
    // Other frames may come from another buffer.
    const next = new SharedFrames(new Uint8Array(100));
    assert.equal(range.add(next.write("three")!), true);
    assert.deepEqual([range.length, range.isTaken], [7, false]);
    assert.equal(range.add(frames.write("3")!), false);
    assert.equal(range.add(next.write("four")!), true);
    assert.deepEqual([a.size, a.counts.frames, a.sharedMessages, a.crowd], [13, 3, 3, crowd]);
    // A frame for one encoder follows those that it has not taken.
    const own = next.write("five")!;
    assert.equal(b.writeShared(own), true);
    assert.deepEqual([b.size, b.counts.frames, b.crowd, a.crowd], [19, 4, undefined, undefined]);
    assert.equal(range.crowd, undefined);
    assert.deepEqual([a.crowdBytes, b.crowdBytes], [5, 5]);
    c.writePiece("own", true);
    assert.deepEqual([c.size, c.counts.frames, range.holders], [18, 4, 1]);
    const both = "\x81\x05three\x81\x04four";
    const expected = [both, both + "\x81\x04five", both + "\x81\x03own"];
    assert.deepEqual(take(encoders), expected);
    assert.deepEqual([range.holders, a.counts.frames, b.counts.frames, c.counts.frames], [
      0,
      3,
      4,
      4,
    ]);
  });

  it("are not held any more by an encoder that has taken them and writes another frame", () => {
    const [a, b] = [new Encoder("server"), new Encoder("server")];
    const frames = new SharedFrames(new Uint8Array(100));
    const first = frames.write("one")!;
    for (const encoder of [a, b]) encoder.writeShared(first);
    const range = SharedRange.of(first);
    gather(range);
    range.take();
    b.unshare();
    assert.deepEqual([range.holders, range.isTaken, a.crowd], [1, true, undefined]);
    assert.equal(range.add(frames.write("two")!), true);
    assert.deepEqual([a.size, a.sharedMessages, b.size, b.sharedMessages], [5, 2, 0, 1]);
    // It comes right after "two", but is no part of what "a" holds.
    b.writeShared(frames.write("three")!);
    assert.deepEqual([a.size, b.size, b.sharedMessages], [5, 7, 2]);
    a.take();
    a.writeShared(frames.write("four")!);
    assert.deepEqual([a.size, a.sharedMessages, range.holders], [6, 3, 0]);
  });

  it("are taken by each encoder alone when their crowd has ended", () => {
    const [a, b, c] = [1, 2, 3].map(() => new Encoder("server"));
    const frame = new SharedFrames(new Uint8Array(100)).write("one")!;
    for (const encoder of [a, b, c]) encoder.writeShared(frame);
    gather(SharedRange.of(frame));
    assert.equal(concat(a.take()).length, 5);
    assert.equal(b.crowd, undefined);
    b.writePiece("own", true);
    assert.equal(concat(c.take()).length, 5);
    assert.equal(concat(b.take()).length, 10);
    assert.deepEqual([a, b, c].map(({ counts }) => counts.frames), [1, 2, 1]);
  });

  it("that are being written are sent by an encoder that leaves before it is its turn", () => {
    const acts: [string, (encoder: Encoder, frames: SharedFrames) => unknown, string][] = [
      ["a frame of its own", (encoder) => encoder.writePiece("own", true), "\x81\x03own"],
      [
        "another shared frame",
        (encoder, frames) => encoder.writeShared(frames.write("two")!),
        "\x81\x03two",
      ],
      ["nothing", (encoder) => encoder.unshare(), ""],
    ];
    for (const [name, act, expected] of acts) {
      const encoder = new Encoder("server");
      const frames = new SharedFrames(new Uint8Array(100));
      const frame = frames.write("one")!;
      encoder.writeShared(frame);
      const range = SharedRange.of(frame);
      const parts = range.parts;
      const left: object[] = [];
      const leave = (encoder: object) => {
        left.push(encoder);
        return parts;
      };
      const state = { isFlushing: true, flush() {} };
      range.crowd = { range, recipients: [], ...state, leave };
      range.take();
      assert.equal(encoder.crowdBytes, 5);
      act(encoder, frames);
      assert.deepEqual([left, encoder.crowdBytes, range.holders], [[encoder], 0, 0], name);
      const text = new TextDecoder("latin1").decode(concat(encoder.take()));
      assert.equal(text, "\x81\x03one" + expected, name);
    }
  });

  it("are one part of the batch if nothing comes between them", () => {
    const frames = new SharedFrames(new Uint8Array(1000));
    const [a, b] = [new Encoder("server"), new Encoder("server")];
    for (const text of ["one", "two", "three"]) {
      const frame = frames.write(text)!;
      assert.ok(a.writeShared(frame) && b.writeShared(frame));
    }
    const [[x, ...more], [y]] = [a.take(), b.take()];
    assert.equal(more.length, 0);
    assert.equal(x, y);
    assert.equal(new TextDecoder("latin1").decode(x), "\x81\x03one\x81\x03two\x81\x05three");
  });

  it("are taken by each encoder in the range that it has written", () => {
    const frames = new SharedFrames(new Uint8Array(1000));
    const [one, two] = [frames.write("one")!, frames.write("two")!];
    const taken = [[one], [one, two], [two], [one]].map((some) => {
      const encoder = new Encoder("server");
      for (const frame of some) encoder.writeShared(frame);
      return new TextDecoder("latin1").decode(concat(encoder.take()));
    });
    const [first, second] = ["\x81\x03one", "\x81\x03two"];
    assert.deepEqual(taken, [first, first + second, second, first]);
  });

  it("share a buffer with all frames of a turn that has as many as the last one", async () => {
    const share = () => {
      const frames = Array.from({ length: 10 }, (_, i) => shareFrame(`message ${i}`));
      return new Set(frames.map(({ bytes }) => bytes)).size;
    };
    share();
    for (let again = 0; again < 3; again++) {
      await new Promise((resolve) => setImmediate(resolve));
      assert.equal(share(), 1);
    }
  });

  it("are refused by encoders that write other bytes", () => {
    const frame = new SharedFrames(new Uint8Array(100)).write("text")!;
    assert.equal(new Encoder("client").writeShared(frame), false);
    assert.equal(new Encoder("server", { onFrame: () => {} }).writeShared(frame), false);
    const midway = new Encoder("server");
    midway.writePiece("a", false);
    assert.equal(midway.writeShared(frame), false);
  });

  describe("of pings", () => {
    const payload = Uint8Array.of(1, 2, 3, 4);
    const frame = sharedFrame(encodeFrame({ opcode: Opcode.Ping, payload }));
    const ping: ProtocolEvent = { type: "ping", payload };

    it("are sent also within a message, and between other frames", () => {
      for (const before of [[], ["a"], ["a", "b"]]) {
        const [shared, own] = [new Protocol("server"), new Protocol("server")];
        for (const protocol of [shared, own]) {
          for (const text of before) protocol.writePiece(text, false);
          protocol.write(ping, protocol === shared ? frame : undefined);
          protocol.writePiece("c", true);
        }
        assert.deepEqual(concat(shared.encoder.take()), concat(own.encoder.take()));
        assert.equal(shared.encoder.size, 0);
        assert.deepEqual(shared.counts, own.counts);
      }
    });

    it("are sent without a copy", () => {
      const [first, second] = [new Protocol("server"), new Protocol("server")];
      for (const protocol of [first, second]) protocol.write(ping, frame);
      assert.equal(first.encoder.take()[0], second.encoder.take()[0]);
    });

    it("are not sent by clients, whose frames are masked", () => {
      const protocol = new Protocol("client");
      protocol.write(ping, frame);
      const bytes = concat(protocol.encoder.take());
      assert.equal(bytes.length, 10);
      assert.equal(bytes[1], 0x84);
    });

    it("are reported to onFrame", () => {
      const seen: unknown[] = [];
      const protocol = new Protocol("server", {
        onFrame: (direction, { opcode, payload }) => seen.push(direction, opcode, [...payload]),
      });
      protocol.write(ping, frame);
      assert.deepEqual(concat(protocol.encoder.take()), frame.bytes);
      assert.deepEqual(seen, ["out", Opcode.Ping, [1, 2, 3, 4]]);
    });

    it("are refused after a Close frame", () => {
      const protocol = new Protocol("server");
      protocol.write({ type: "close", closeCode: 1000, reason: "" });
      assert.throws(() => protocol.write(ping, frame), { name: "LocalProtocolError" });
    });
  });

  describe("of connections that compress", () => {
    const encoders = (options: PerMessageDeflateOptions, ...windows: number[]) => {
      let made = 0;
      const engine: DeflateEngine = {
        deflater: (options) => deflateEngine.deflater((made++, options)),
        inflater: deflateEngine.inflater,
      };
      const factory = new PerMessageDeflate({ engine, threshold: 100, ...options });
      const all = windows.map((bits) => {
        const { extension } = factory.accept([["server_max_window_bits", `${bits}`]])!;
        return new Encoder("server", { extensions: [extension] });
      });
      return { all, made: () => made };
    };
    const share = (all: Encoder[], message: string, compress?: boolean) => {
      const frame = new SharedFrames(new Uint8Array(10_000)).write(message)!;
      return all.map((encoder) => encoder.writeShared(frame, compress));
    };
    const long = "long ".repeat(100);

    it("are compressed once for each window, as by each connection itself", () => {
      const options = { serverNoContextTakeover: true };
      const { all, made } = encoders(options, 12, 12, 12, 9);
      // The second frame has a longer header after compression.
      const numbers = Array.from({ length: 300 }, (_, i) => Math.imul(i, 2654435761) >>> 0);
      const compressed = all.map(() => 0);
      let uncompressed = 0;
      for (const [i, message] of [long, numbers.join()].entries()) {
        assert.deepEqual(share(all, message), [true, true, true, true]);
        assert.equal(made(), 2 * (i + 1));
        uncompressed += message.length;
        for (const [nth, encoder] of all.entries()) {
          const { all: [alone] } = encoders(options, nth < 3 ? 12 : 9);
          alone.writePiece(message, true);
          const bytes = concat(encoder.take());
          assert.deepEqual(bytes, concat(alone.take()));
          assert.deepEqual([bytes[0], bytes[1] < 126], [0xc1, i === 0]);
          assert.equal(encoder.counts.compressed, compressed[nth] += alone.counts.compressed);
          assert.equal(encoder.counts.uncompressed, uncompressed);
        }
      }
    });

    it("stay plain if they are short, or are not to be compressed", () => {
      for (const serverNoContextTakeover of [false, true]) {
        const { all, made } = encoders({ serverNoContextTakeover }, 12, 9);
        assert.deepEqual(share(all, "short"), [true, true]);
        assert.deepEqual(share(all, long, false), [true, true]);
        assert.equal(made(), 0);
        const [x, y] = all.map((encoder) => concat(encoder.take()));
        assert.deepEqual(x, y);
        assert.deepEqual([x[0], all[0].counts.compressed], [0x81, 0]);
        const shares = serverNoContextTakeover;
        assert.deepEqual(share(all, "short", true), [shares, shares]);
      }
    });

    it("are compressed from the threshold on, by the length of the message", () => {
      const { all: [encoder] } = encoders({ serverNoContextTakeover: true }, 12);
      for (const [length, first] of [[99, 0x81], [100, 0xc1]]) {
        assert.deepEqual(share([encoder], "a".repeat(length)), [true]);
        assert.equal(encoder.take()[0][0], first);
      }
      const asked: number[] = [];
      const sharedBy = (length: number) => (asked.push(length), null);
      const extensions = [{ sharedBy } as unknown as Extension];
      const lengths = [0, 125, 126, 65_535, 65_536];
      const frames = new SharedFrames(new Uint8Array(200_000));
      for (const length of lengths) {
        const frame = frames.write(new Uint8Array(length))!;
        assert.equal(new Encoder("server", { extensions }).writeShared(frame), true);
      }
      assert.deepEqual(asked, lengths);
    });

    it("are refused if they depend on earlier messages, or on two extensions", () => {
      assert.deepEqual(share(encoders({}, 12).all, long), [false]);
      const factory = new PerMessageDeflate({ engine: deflateEngine, memory: "low" });
      const extensions = [1, 2].map(() => factory.accept([])!.extension);
      assert.deepEqual(share([new Encoder("server", { extensions })], "short"), [false]);
      const midway = encoders({ serverNoContextTakeover: true }, 12).all[0];
      midway.writePiece("a", false);
      assert.deepEqual(share([midway], long), [false]);
    });
  });

  const kinds: [name: string, options: PairOptions][] = [
    ["plain", {}],
    ["compressed", { server: { compression: true }, client: { compression: true } }],
    ["compressed without a context", {
      server: { compression: { memory: "low", threshold: 700 } },
      client: { compression: { memory: "low" } },
    }],
    ["compressed with another window", {
      server: { compression: { memory: "low", threshold: 0 } },
      client: { compression: { serverMaxWindowBits: 9 } },
    }],
    ["observed", { server: { onFrame: () => {} } }],
    ["with a policy", { server: { slow: "close" } }],
    ["without room in the transport", { capacity: 0 }],
    ["in small chunks", { chunkSize: 1 }],
  ];
  it("reach each kind of connection in the order of the calls", async () => {
    const ends = await Promise.all(kinds.map(([, options]) => pair(options)));
    // A client may broadcast too: its frames are masked.
    const all = ends.flatMap(([client, server]) => [[server, client], [client, server]]);
    const expected: string[] = [];
    for (let round = 0; round < 5; round++) {
      for (let i = 0; i < 3; i++) {
        const message = `ü${round}.${i}`.padEnd(i * 800);
        const result = broadcast(all.map(([from]) => from), message);
        assert.deepEqual(result, { sent: all.length, missed: 0, closed: 0 });
        expected.push(message);
        if (i === 1) {
          for (const [from] of all) void from.send(`own ${round}`);
          expected.push(`own ${round}`);
        }
      }
      if (round % 2 === 0) await new Promise((resolve) => setTimeout(resolve));
    }
    for (const [from, to] of all) {
      const got: unknown[] = [];
      while (got.length < expected.length) got.push(await to.receive());
      assert.deepEqual(got, expected);
      assert.equal(from.stats.messagesSent, expected.length);
      await until(() => from.bufferedAmount === 0);
    }
    for (const [client] of ends) await client.close();
  });
});
