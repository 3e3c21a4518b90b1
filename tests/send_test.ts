import { describe, it } from "node:test";
import assert from "node:assert/strict";
import type { Message, OutgoingMessage } from "../mod.ts";
import {
  type EncodedFrame,
  type Extension,
  Opcode,
  type OutgoingFrame,
  Protocol,
} from "../lib/core/mod.ts";
import { type SharedFrame, sharedFrame } from "../lib/core/shared_frame.ts";
import { Sender, type SenderHost, type WritingMachine } from "../lib/connection/sender.ts";
import { isTooMuch } from "../lib/connection/sending.ts";
import { Recipients } from "../lib/connection/crowd.ts";
import { sharedLength, shareFrame } from "../lib/connection/sharing.ts";
import type { ConnectionOptions } from "../lib/options.ts";
import type { Transport } from "../lib/transport.ts";
import { ToyCodec } from "./toy_extension.ts";
import { concat, detached, hex, OddBytes, pattern, utf8 } from "./bytes.ts";
import { frames, inBothRoles, isPending, rejection, rest, Tap, turn } from "./support.ts";

const KIB = 1024;
const INVALID_STATE = { name: "InvalidStateError" };

/** Runs a test while the clock stands still, so that no turn of the event loop is long. */
async function atOneMoment(test: () => unknown): Promise<void> {
  const { now } = performance;
  performance.now = () => 0;
  try {
    await test();
  } finally {
    performance.now = now;
  }
}

/** A transport that accepts nothing until its peer reads. */
const TIGHT = { capacity: 0 };

describe("WebSocketConnection.send", () => {
  const forms: [name: string, message: OutgoingMessage, opcode: Opcode, payload: Uint8Array][] = [
    ["a string", "gr\u00fc\u00df", Opcode.Text, utf8("gr\u00fc\u00df")],
    ["an empty string", "", Opcode.Text, utf8("")],
    ["a Uint8Array", pattern(5), Opcode.Binary, pattern(5)],
    ["an empty Uint8Array", new Uint8Array(0), Opcode.Binary, utf8("")],
    ["a part of a buffer", pattern(9).subarray(2, 5), Opcode.Binary, pattern(9).slice(2, 5)],
    ["an ArrayBuffer", pattern(5).buffer as ArrayBuffer, Opcode.Binary, pattern(5)],
    ["a DataView", new DataView(pattern(8).buffer, 2, 3), Opcode.Binary, pattern(8).slice(2, 5)],
    ["a Uint16Array", new Uint16Array([0x6161]), Opcode.Binary, utf8("aa")],
    ["long text", "\u20ac".repeat(50_000), Opcode.Text, utf8("\u20ac".repeat(50_000))],
    ["long bytes", pattern(300 * KIB), Opcode.Binary, pattern(300 * KIB)],
    ["a lone surrogate", "a\ud800b", Opcode.Text, utf8("a\ufffdb")],
    [
      "a lone surrogate in longer text",
      "a".repeat(40) + "\udc00",
      Opcode.Text,
      utf8("a".repeat(40) + "\ufffd"),
    ],
  ];
  for (const [name, message, opcode, payload] of forms) {
    it(`send() sends ${name}`, async () => {
      await inBothRoles(async (ws, peer) => {
        await ws.send(message);
        const frame = await peer.next();
        assert.equal(frame.opcode, opcode);
        assert.equal(frame.fin, true);
        assert.deepEqual(frame.payload, payload);
        assert.equal(ws.stats.messagesSent, 1);
      });
    });
  }

  const texts: [name: string, message: Message, text: boolean, opcode: Opcode][] = [
    ["text as text", "a\u20ac", true, Opcode.Text],
    ["text as binary", "a\u20ac", false, Opcode.Binary],
    ["bytes as text", utf8("a\u20ac"), true, Opcode.Text],
    ["bytes as binary", utf8("a\u20ac"), false, Opcode.Binary],
  ];
  for (const [name, message, text, opcode] of texts) {
    it(`send() with the option text sends ${name}`, async () => {
      await inBothRoles(async (ws, peer) => {
        await ws.send(message, { text });
        await ws.send([message, message], { text });
        const frame = await peer.next();
        assert.equal(frame.opcode, opcode);
        assert.deepEqual(frame.payload, utf8("a\u20ac"));
        assert.equal((await peer.next()).opcode, opcode);
        assert.deepEqual((await peer.next()).payload, utf8("a\u20ac"));
      });
    });
  }

  it("send() with text: true refuses bytes that are not UTF-8", async () => {
    await inBothRoles(async (ws, peer) => {
      await assert.rejects(ws.send(Uint8Array.of(0xff), { text: true }), RangeError);
      await assert.rejects(ws.send([Uint8Array.of(0xff)], { text: true }), RangeError);
      await ws.send("still open");
      assert.deepEqual((await peer.next()).payload, utf8("still open"));
    });
  });

  const [euro, smile] = [utf8("\u20ac"), "\ud83d\ude00"];
  const cuts: [name: string, items: Message[], text: boolean, whole: string | undefined][] = [
    ["characters that items cut", [utf8("a"), euro.slice(0, 2), euro.slice(2)], true, "a\u20ac"],
    ["half a character at the end", [euro, euro.slice(0, 2)], true, undefined],
    ["half a character before a string", [euro.slice(0, 2), "a"], true, undefined],
    ["strings after whole characters", [euro, "a", euro], true, "\u20aca\u20ac"],
    ["a byte order mark", [utf8("\ufeffa")], true, "\ufeffa"],
    ["surrogates that items cut", ["a" + smile[0], smile[1]], false, `a${smile}`],
    ["half a surrogate at the end", ["a" + smile[0]], false, "a\ufffd"],
    ["half a surrogate before bytes", [smile[0], euro], false, "\ufffd\u20ac"],
    ["bytes after whole characters", [smile, euro, smile], false, `${smile}\u20ac${smile}`],
  ];
  for (const [name, items, text, whole] of cuts) {
    it(`send() with the option text ${whole === undefined ? "refuses" : "takes"} ${name}`, async () => {
      for (const source of [() => items, () => ReadableStream.from(items)]) {
        await inBothRoles(async (ws, peer) => {
          const sent = ws.send(source() as Message[], { text });
          if (whole === undefined) {
            await assert.rejects(sent, { name: "RangeError", code: "wrong-value" });
            return;
          }
          await sent;
          const parts = [await peer.next()];
          while (!parts.at(-1)!.fin) parts.push(await peer.next());
          assert.equal(parts[0].opcode, text ? Opcode.Text : Opcode.Binary);
          const bytes = concat(parts.map(({ payload }) => payload));
          const got = new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
          assert.equal(got, whole);
        });
      }
    });
  }

  it("send() and writable take a buffer of another realm", async () => {
    await inBothRoles(async (ws, peer) => {
      const buffer = pattern(5).buffer as ArrayBuffer;
      Object.setPrototypeOf(buffer, { [Symbol.toStringTag]: "ArrayBuffer" });
      const writer = ws.writable.getWriter();
      for (
        const send of [
          (data: ArrayBuffer) => ws.send(data),
          (data: ArrayBuffer) => writer.write(data),
        ]
      ) {
        await send(buffer);
        assert.deepEqual((await peer.next()).payload, pattern(5));
      }
    });
  });

  it("send() copies shared and resizable buffers of any length", async () => {
    await inBothRoles(async (ws, peer) => {
      for (const length of [4, 10_000]) {
        const shared = new Uint8Array(new SharedArrayBuffer(length)).fill(1);
        const resizable = new ArrayBuffer(length, { maxByteLength: 2 * length });
        const sources = [shared, shared.buffer as unknown as ArrayBuffer, resizable];
        const sent = sources.map((source) => ws.send(source as Message));
        shared.fill(2);
        resizable.resize(0);
        await Promise.all(sent);
        const expected = [1, 1, 0].map((byte) => new Uint8Array(length).fill(byte));
        for (const payload of expected) assert.deepEqual((await peer.next()).payload, payload);
      }
    });
  });

  it("send() and writable send the bytes of a subclass, whatever its members return", async () => {
    await inBothRoles(async (ws, peer) => {
      const writer = ws.writable.getWriter();
      for (const length of [0, 4, 200, 10_000, 20_000, 70_000]) {
        const bytes = new OddBytes(pattern(length));
        const sends = [() => ws.send(bytes), () => writer.write(bytes), () => ws.send([bytes])];
        for (const send of sends) {
          const sent = send();
          assert.deepEqual((await peer.next()).payload, pattern(length));
          await sent;
        }
      }
      ws.pong(new OddBytes(pattern(125)));
      assert.deepEqual((await peer.next()).payload, pattern(125));
    });
  });

  const wrong: [name: string, make: () => unknown][] = [
    ["undefined", () => undefined],
    ["null", () => null],
    ["a number", () => 1],
    ["a boolean", () => true],
    ["a plain object", () => ({})],
    ["a function", () => () => {}],
    ["a symbol", () => Symbol("a")],
    ["an iterable of numbers", () => [1]],
    ["a stream of objects", () => ReadableStream.from([{}])],
    ["detached bytes", () => detached(4)],
    ["a stream of detached bytes", () => ReadableStream.from([detached(4)])],
    ["detached bytes of a subclass", () => detached(new OddBytes(4))],
  ];
  for (const [name, make] of wrong) {
    it(`send() refuses ${name} with a TypeError, and the connection stays open`, async () => {
      await inBothRoles(async (ws, peer) => {
        await assert.rejects(ws.send(make() as Message), TypeError);
        await ws.send("next");
        assert.deepEqual(await frames(peer, 1), [["text", "next", true]]);
        assert.equal(ws.stats.messagesSent, 1);
      });
    });
  }

  it("send() rejects when the connection is closing or closed", async () => {
    await inBothRoles(async (ws, peer) => {
      const closing = ws.close();
      for (const message of ["a", pattern(10_000), ["a"], ReadableStream.from(["a"])]) {
        await assert.rejects(ws.send(message), INVALID_STATE);
      }
      await peer.answerClose();
      await closing;
      for (const message of ["a", ["a"]]) await assert.rejects(ws.send(message), INVALID_STATE);
    });
  });

  it("send() with an aborted signal sends nothing", async () => {
    await inBothRoles(async (ws, peer) => {
      const signal = AbortSignal.abort(new Error("enough"));
      for (const message of ["a", ["a"]]) {
        await assert.rejects(ws.send(message, { signal }), { message: "enough" });
      }
      await ws.send("b");
      assert.deepEqual(await frames(peer, 1), [["text", "b", true]]);
    });
  });
});

describe("When WebSocketConnection.send settles", () => {
  const settling: [name: string, before: number, message: Message, settles: boolean][] = [
    ["a short message", 0, "a", true],
    ["text just within 64 KiB", 0, "a".repeat(65_000), true],
    ["text over 64 KiB", 0, "a".repeat(65_600), false],
    ["a short message behind as much as is allowed", 65_000, "a", true],
    ["a short message behind more", 65_530, "a".repeat(100), false],
    ["bytes of 16 KiB, which are copied", 0, pattern(16_384), true],
    ["bytes of more than 16 KiB, which are borrowed", 0, pattern(16_385), false],
  ];
  for (const [name, before, message, settles] of settling) {
    it(`send() of ${name} ${settles ? "settles at once" : "waits for the peer"}`, async () => {
      await inBothRoles(
        async (ws, peer) => {
          peer.transport.pause();
          for (let left = before; left > 0; left -= 5000) ws.send("b".repeat(Math.min(left, 5000)));
          const sent = ws.send(message);
          assert.equal(await isPending(sent), !settles);
          peer.transport.resume();
          await sent;
        },
        {},
        TIGHT,
      );
    });
  }

  it("A loop that awaits its sends sends several borrowed messages in a turn", async () => {
    await inBothRoles((ws) =>
      atOneMoment(async () => {
        let isNextTurn = false;
        setImmediate(() => isNextTurn = true);
        for (let i = 0; i < 3; i++) await ws.send(pattern(20_000));
        assert.equal(isNextTurn, false);
      })
    );
  });

  it("send() that waits settles when all before it has left", async () => {
    await inBothRoles(
      async (ws, peer) => {
        peer.transport.pause();
        const waiting = [ws.send(pattern(200 * KIB)), ws.send("a"), ws.send("b")];
        for (const sent of waiting) assert.equal(await isPending(sent), true);
        assert.ok(ws.bufferedAmount > 200 * KIB);
        peer.transport.resume();
        await Promise.all(waiting);
        assert.equal(ws.bufferedAmount, 0);
      },
      {},
      TIGHT,
    );
  });

  it("send() that waits rejects when the connection is lost", async () => {
    await inBothRoles(
      async (ws, peer) => {
        peer.transport.pause();
        const waiting = [ws.send(pattern(200 * KIB)), ws.send("a")];
        ws.terminate();
        for (const sent of waiting) assert.ok(await rejection(sent));
      },
      {},
      TIGHT,
    );
  });

  it("send() copies short messages, so that they may be changed at once", async () => {
    await inBothRoles(async (ws, peer) => {
      const bytes = utf8("abc");
      const sent = ws.send(bytes);
      bytes.fill(0);
      await sent;
      assert.deepEqual(await frames(peer, 1), [["binary", "abc", true]]);
    });
  });

  it("send() does not change borrowed bytes", async () => {
    await inBothRoles(async (ws) => {
      const bytes = pattern(100 * KIB);
      await ws.send(bytes);
      assert.deepEqual(bytes, pattern(100 * KIB));
    });
  });

  it("send() of a borrowed payload settles when it may be changed", async () => {
    await inBothRoles(
      async (ws, peer) => {
        const bytes = pattern(20 * KIB);
        for (let i = 0; i < 5; i++) {
          bytes.fill(i);
          await ws.send(bytes);
        }
        for (let i = 0; i < 5; i++) {
          assert.deepEqual((await peer.next()).payload, new Uint8Array(20 * KIB).fill(i));
        }
      },
      {},
      TIGHT,
    );
  });
});

describe("WebSocketConnection.writable", () => {
  for (const length of [3, 20 * KIB]) {
    it(`writable copies ${length} bytes at the write`, async () => {
      await inBothRoles(async (ws, peer) => {
        const writer = ws.writable.getWriter();
        await rest();
        const bytes = pattern(length);
        const written = writer.write(bytes);
        bytes.fill(0);
        await written;
        assert.deepEqual((await peer.next()).payload, pattern(length));
      });
    });

    it(`writable copies ${length} bytes at the write while another message is sent`, async () => {
      await inBothRoles(async (ws, peer) => {
        const writer = ws.writable.getWriter();
        const source = new Tap<Message>();
        const sent = ws.send(source.items);
        source.give("a");
        await rest();
        const bytes = pattern(length);
        const written = writer.write(bytes);
        bytes.fill(0);
        source.end();
        await Promise.all([sent, written]);
        await frames(peer, 2);
        assert.deepEqual((await peer.next()).payload, pattern(length));
      });
    });
  }

  it("writable converts other chunks to strings, and refuses those that have none", async () => {
    const chunks: [chunk: unknown, text: string][] = [
      [1, "1"],
      [null, "null"],
      [undefined, "undefined"],
      [{}, "[object Object]"],
      [{ toString: () => "own" }, "own"],
      [["a", "b"], "a,b"],
    ];
    await inBothRoles(async (ws, peer) => {
      const writer = ws.writable.getWriter();
      for (const [chunk, text] of chunks) {
        await writer.write(chunk as string);
        assert.deepEqual(await frames(peer, 1), [["text", text, true]]);
      }
    });
    const fault = new Error("no string");
    const throwing = {
      toString: () => {
        throw fault;
      },
    };
    for (const chunk of [Symbol("a"), throwing, new Uint8Array(new SharedArrayBuffer(1))]) {
      await inBothRoles(async (ws) => {
        const error = await rejection(ws.writable.getWriter().write(chunk as never));
        if (chunk === throwing) assert.equal(error, fault);
        else assert.ok(error instanceof TypeError);
      });
    }
  });

  it("writable waits as send() does", async () => {
    await inBothRoles(
      async (ws, peer) => {
        peer.transport.pause();
        const writer = ws.writable.getWriter();
        await writer.write(pattern(20 * KIB));
        const written = writer.write(pattern(100 * KIB));
        assert.equal(await isPending(written), true);
        assert.equal(writer.desiredSize, 0);
        peer.transport.resume();
        await written;
      },
      {},
      TIGHT,
    );
  });
});

/** A transport that keeps what it is given while it is slow. */
class FakeTransport implements Pick<Transport, "write" | "bufferedAmount"> {
  bufferedAmount = 0;
  isSlow = false;
  written: Uint8Array[] = [];

  write(parts: readonly Uint8Array[]): void {
    assert.ok(parts.length > 0);
    for (const part of parts) {
      this.written.push(part.slice());
      if (this.isSlow) this.bufferedAmount += part.length;
    }
  }

  /** The bytes that it was given since the last call. */
  take(): Uint8Array {
    const bytes = concat(this.written);
    this.written = [];
    return bytes;
  }
}

interface SenderInit {
  role?: "client" | "server";
  extensions?: Extension[];
  options?: Pick<ConnectionOptions, "slow" | "maxBufferedAmount">;
  machine?: Partial<WritingMachine>;
  transport?: FakeTransport;
}

function senderOf(
  {
    role = "server",
    extensions = [],
    options = {},
    machine,
    transport = new FakeTransport(),
  }: SenderInit = {},
) {
  const notes: unknown[] = [];
  const note = (...args: unknown[]) => void notes.push(args);
  /** For each error that was given a new stack, whether its call had waited. */
  const retraced: boolean[] = [];
  const host: SenderHost & { canSend: boolean; canWrite: boolean; canAnswer: () => boolean } = {
    canSend: true,
    canWrite: true,
    canAnswer: () => true,
    closedError: () => new DOMException("closed", "InvalidStateError"),
    endError: () => new Error("ended"),
    retrace: (error: unknown, hasWaited: boolean) => {
      retraced.push(hasWaited);
      return error;
    },
    refusal: (message: string) => new DOMException(message, "InvalidStateError"),
    fail: (closeCode: number, message: string) => note("fail", closeCode, message),
    cut: (message: string, closeCode: number) => note("cut", closeCode, message),
    startClose: (info: object) => note("startClose", info),
    terminate: () => note("terminate"),
    cutOff: (error: unknown) => Promise.reject(error),
    finish: () => Promise.resolve(),
    leave: (reason: unknown) => note("leave", reason),
  };
  const protocol = (machine ?? new Protocol(role, {}, extensions)) as WritingMachine;
  const sender = new Sender(protocol, transport as unknown as Transport, host, options);
  const drain = () => {
    transport.bufferedAmount = 0;
    sender.drained();
  };
  return { sender, transport, host, notes, retraced, drain };
}

describe("Sender", () => {
  for (const length of [16_384, 16_385]) {
    const how = length > 16_384 ? "without a copy" : "in the write of the others";
    it(`Sender moves ${length} bytes of a pipe ${how}`, () => {
      const { sender, transport } = senderOf();
      assert.equal(sender.move("a"), undefined);
      assert.equal(sender.move(pattern(length)), undefined);
      sender.flush();
      assert.equal(transport.written.length, length > 16_384 ? 2 : 1);
    });
  }

  /** The header of a server's frame of this length has four bytes. */
  const textOf = (frame: number) => "a".repeat(frame - 4);
  const sizes: [frame: number, given: boolean, waits: boolean][] = [
    [65_535, false, false],
    [65_536, true, false],
    [65_537, true, true],
  ];
  for (const [frame, given, waits] of sizes) {
    it(`Sender gives ${frame} bytes to the transport ${given ? "at once" : "in the next turn"}`, async () => {
      const { sender, transport, drain } = senderOf();
      transport.isSlow = true;
      const sent = sender.send(textOf(frame));
      assert.equal(transport.take().length, given ? frame : 0);
      await rest();
      if (!given) assert.equal(transport.take().length, frame);
      assert.equal(await isPending(sent), waits);
      assert.equal(sender.bufferedAmount, frame);
      drain();
      await sent;
      assert.deepEqual([sender.bufferedAmount, sender.bytesSent], [0, frame]);
    });
  }

  const crowds: [count: number, size: number, isEarly: boolean][] = [
    [63, 2035, false],
    [64, 2034, false],
    [64, 2035, true],
    [65, 2035, false],
  ];
  for (const [count, size, isEarly] of crowds) {
    const when = isEarly ? "before the turn ends" : "at the end of the turn";
    it(`${count} senders with ${size} bytes each flush ${when}`, async () => {
      await rest();
      const senders = Array.from({ length: count }, () => senderOf());
      const given = () => senders.reduce((sum, { transport }) => sum + transport.take().length, 0);
      for (const { sender } of senders) void sender.send(pattern(size));
      assert.equal(given(), 0, "in the same microtask");
      await Promise.resolve();
      assert.equal(given(), isEarly ? count * (size + 4) : 0);
      for (const { sender } of senders.slice(1)) void sender.send(pattern(size));
      await Promise.resolve();
      assert.equal(given(), 0, "the count has begun anew");
      await rest();
      assert.equal(given(), (isEarly ? count - 1 : 2 * count - 1) * (size + 4));
    });
  }

  it("Sender gives at most 256 KiB at a time, and the rest when the transport has sent them", async () => {
    const { sender, transport, drain } = senderOf();
    transport.isSlow = true;
    const sends = Array.from({ length: 30 }, () => sender.send(textOf(30_000)));
    const parts: number[] = [];
    for (let sum = 0; sum < 900_000; sum += parts.at(-1)!) {
      await rest();
      parts.push(transport.take().length);
      drain();
    }
    await Promise.all(sends);
    // The last part of each is whole.
    assert.ok(Math.max(...parts) < 262_144 + 30_000, parts.join());
    assert.ok(parts.length <= 8, parts.join());
  });

  it("Sender shares a frame only while nothing keeps it from leaving", async () => {
    const shared = (message: string) => ({ message, frame: shareFrame(message) });
    const toy = new ToyCodec("toy", 0, {});
    const cases: [name: string, init: SenderInit, shares: boolean][] = [
      ["a server", {}, true],
      ["a client, which masks", { role: "client" }, false],
      ["extensions", { extensions: [toy] }, false],
      ["a policy", { options: { slow: "close" } }, false],
      ["waiting by policy", { options: { slow: "wait" } }, true],
      [
        "a native WebSocket",
        { machine: Object.assign(new Protocol("server"), { overhead: 0 }) },
        false,
      ],
    ];
    for (const [name, init, shares] of cases) {
      const { sender, transport } = senderOf(init);
      assert.equal(sender.sendShared(shared("ab"), 10), shares, name);
      assert.equal(sender.messagesSent, shares ? 1 : 0, name);
      assert.equal(transport.take().length, 0, name);
      await rest();
      assert.equal(transport.take().length, shares ? 4 : 0, name);
    }
    const { sender, transport, host, drain } = senderOf();
    assert.equal(sender.sendShared(shared("longer than the limit"), 10), true);
    assert.equal(sender.sendShared(shared("ab"), 24), false);
    assert.equal(sender.sendShared(shared("ab"), 25), true);
    await rest();
    host.canSend = false;
    assert.equal(sender.sendShared(shared("ab"), 100), false);
    host.canSend = true;
    transport.isSlow = true;
    assert.equal(sender.sendShared(shared("ab"), 100), true);
    await rest();
    assert.equal(sender.sendShared(shared("ab"), 100), false, "the transport holds bytes");
    drain();
    const tap = new Tap<Message>();
    const items = sender.send(tap.items);
    assert.equal(sender.sendShared(shared("ab"), 100), false, "a message is under way");
    tap.end();
    await items;
    assert.equal(sender.sendShared(shared("ab"), 100), true);
  });

  it("Sender shares messages of up to 64 KiB with connections that compress", () => {
    const rows: [length: number, extended: boolean, shares: boolean][] = [
      [65_536, true, true],
      [65_537, true, false],
      [65_537, false, true],
    ];
    for (const [length, extended, shares] of rows) {
      for (const compress of [undefined, false]) {
        const given: unknown[] = [];
        const frame = shareFrame("");
        const writeShared = (...args: unknown[]) => given.push(...args) > 0;
        const empty = { size: 0, ownSize: 0, take: () => [], recycle: () => true };
        const encoder = { ...empty, writeShared } as unknown as WritingMachine["encoder"];
        const { sender } = senderOf({ machine: { encoder, extended } });
        const message = "a".repeat(length);
        assert.equal(sender.sendShared({ message, frame }, Infinity, compress), shares);
        assert.deepEqual(given, shares ? [frame, compress] : []);
      }
    }
  });

  it("Sender gives shared frames on at once from 64 KiB, and fewer at the end of the turn", async () => {
    for (const [size, isAtOnce] of [[65_535, false], [65_536, true]] as const) {
      const { sender, transport } = senderOf();
      const frame = sharedFrame(new Uint8Array(size));
      assert.equal(sender.sendShared({ message: "", frame }, Infinity), true);
      assert.equal(transport.take().length, isAtOnce ? size : 0);
      await rest();
      assert.equal(transport.take().length, isAtOnce ? 0 : size);
    }
  });

  it("Sender leaves its crowd when the transport is full", () => {
    for (const isSlow of [false, true]) {
      const { sender, transport } = senderOf();
      transport.isSlow = isSlow;
      const frame = sharedFrame(hex("81 01 61"));
      assert.equal(sender.sendShared({ message: "a", frame }, Infinity), true);
      const range = frame.range!;
      const crowd = range.crowd = new Recipients(range, [], [sender]);
      sender.flush();
      assert.equal(sender.crowd, isSlow ? undefined : crowd);
    }
  });

  it("Sender gives a ping of several connections on at once", async () => {
    const bytes = hex("89 01 61");
    const { sender, transport } = senderOf();
    const ping = (frame?: SharedFrame) =>
      sender.control({ type: "ping", payload: bytes.subarray(2) }, frame);
    void ping(sharedFrame(bytes));
    assert.deepEqual(transport.take(), bytes);
    void ping();
    assert.equal(transport.take().length, 0);
    await rest();
    assert.deepEqual(transport.take(), bytes);
  });

  it("A message of more than 8 KiB has a buffer of its own, although there is room", async () => {
    await rest();
    shareFrame(pattern(8192));
    await rest();
    const { bytes } = shareFrame("a");
    assert.notEqual(shareFrame(pattern(8193)).bytes, bytes);
    assert.equal(shareFrame(pattern(8192)).bytes, bytes);
  });

  it("Frames of a turn share a buffer, which has room for twice as many bytes as the last one", async () => {
    await rest();
    shareFrame("");
    await rest();
    assert.equal(shareFrame("a").bytes.length, sharedLength("a"));
    await rest();
    const large = pattern(8192);
    assert.equal(
      shareFrame(pattern(8193)).bytes.length,
      8193 + 4,
      "a longer message has its own",
    );
    assert.equal(shareFrame(large).bytes.length, sharedLength(large));
    await rest();
    assert.equal(shareFrame("a").bytes.length, 2 * (8192 + 4));
    await rest();
    shareFrame(large);
    for (let turn = 0; turn < 3; turn++) {
      await rest();
      let frame = shareFrame("");
      while (frame.end + sharedLength("a") <= frame.bytes.length) frame = shareFrame("a");
    }
    await rest();
    assert.equal(shareFrame("a").bytes.length, 65_536);
    await rest();
    assert.equal(shareFrame("a").bytes.length, sharedLength("a"));
  });

  it("Sender counts the memory of messages that wait", async () => {
    const { sender, host } = senderOf();
    assert.deepEqual([sender.bufferedAmount, sender.heldAmount, sender.pending], [0, 0, false]);
    const tap = new Tap<Message>();
    const items = sender.send(tap.items);
    const whole = sender.send("abc");
    assert.deepEqual([sender.bufferedAmount, sender.heldAmount, sender.pending], [
      3,
      3 + 768,
      true,
    ]);
    tap.end();
    await Promise.all([items, whole]);
    assert.equal(host.canSend, true);
    const native = {
      encoder: { size: 10, unused: 5 } as WritingMachine["encoder"],
      extended: false,
      overhead: 7,
    };
    const { sender: other, transport } = senderOf({ machine: native });
    transport.bufferedAmount = 3;
    assert.deepEqual([other.bufferedAmount, other.heldAmount], [13, 25]);
  });

  for (const slow of ["close", "terminate"] as const) {
    it(`Sender lets a mebibyte wait, unless told otherwise, with slow: ${slow}`, () => {
      for (const maxBufferedAmount of [undefined, 2000]) {
        const most = maxBufferedAmount ?? 1_048_576;
        const { sender, transport, notes } = senderOf({ options: { slow, maxBufferedAmount } });
        transport.bufferedAmount = most - 1000;
        void sender.send("a".repeat(1000 - sender.heldAmount + most - 1000));
        assert.deepEqual(notes, []);
        transport.bufferedAmount = most - sender.heldAmount + transport.bufferedAmount;
        void sender.send("a");
        const info = { closeCode: 1008, reason: "Too slow" };
        assert.deepEqual(notes, [slow === "close" ? ["startClose", info] : ["terminate"]]);
      }
    });
  }

  it("Sender answers pings, but only the last one while much waits", async () => {
    const { sender, transport, host, drain } = senderOf();
    const pong = (text: string) => concat([Uint8Array.of(0x8a, text.length), utf8(text)]);
    sender.answer(utf8("a"));
    assert.equal(transport.take().length, 0);
    await rest();
    assert.deepEqual(transport.take(), pong("a"));
    transport.isSlow = true;
    void sender.send(textOf(65_536));
    transport.take();
    sender.answer(utf8("b"));
    await rest();
    assert.equal(transport.take().length, 0, "the transport is given more when it has sent all");
    for (const text of ["c", "d"]) {
      const payload = utf8(text);
      sender.answer(payload);
      payload.fill(0);
    }
    transport.isSlow = false;
    drain();
    await rest();
    assert.deepEqual(transport.take(), concat([pong("b"), pong("d")]));
    drain();
    await rest();
    assert.equal(transport.take().length, 0, "a pong is owed once");
    host.canAnswer = () => false;
    sender.answer(utf8("e"));
    await rest();
    assert.equal(transport.take().length, 0);
    host.canWrite = false;
    assert.throws(() => sender.control({ type: "ping", payload: utf8("") }), INVALID_STATE);
  });

  it("Sender settles each send when its own bytes have left", async () => {
    const { sender, host, transport, retraced, drain } = senderOf();
    transport.isSlow = true;
    const large = () => [sender.send(textOf(65_537)), sender.send(textOf(60_000))];
    const [first, second] = large();
    assert.equal(transport.take().length, 65_537);
    drain();
    await first;
    assert.equal(transport.take().length, 60_000);
    assert.deepEqual([await isPending(second), sender.pending], [true, true]);
    drain();
    await second;
    assert.equal(sender.pending, false);

    const all = large();
    sender.flushAll();
    assert.equal(transport.take().length, 125_537);
    for (const sent of all) assert.equal(await isPending(sent), true);
    drain();
    await Promise.all(all);

    void sender.send("a");
    await rest();
    assert.equal(sender.pending, false, "a short message does not wait");
    const ended = [sender.send(textOf(70_000))];
    assert.equal(sender.pending, true, "the bytes are not even given to the transport");
    drain();
    ended.push(...large());
    sender.flushAll();
    const error = new Error("ended");
    host.endError = () => error;
    sender.end();
    for (const sent of ended) assert.equal(await rejection(sent), error);
    assert.equal(sender.pending, false);
    assert.deepEqual([...new Set(retraced)], [true]);
  });

  it("Sender gives short messages on before the bytes in front of them have left", async () => {
    const { sender, transport, drain } = senderOf();
    await sender.send(pattern(100_000));
    transport.isSlow = true;
    const first = sender.send(pattern(20_000));
    await rest();
    await sender.send("a");
    sender.flushAll();
    assert.deepEqual(transport.take().slice(-3), hex("81 01 61"));
    assert.equal(await isPending(first), true);
    drain();
    await first;
  });

  it("Sender waits until bytes that it sends after another message have left", async () => {
    const { sender, transport, drain } = senderOf();
    transport.isSlow = true;
    const items = sender.send((async function* () {
      yield "a";
    })());
    const copied = sender.send(pattern(10_000));
    const lent = sender.send(pattern(20_000));
    await Promise.all([items, copied]);
    assert.equal(await isPending(lent), true);
    drain();
    await lent;
    assert.equal(transport.take().length, 3 + 2 + 10_004 + 20_004);
  });

  it("Sender waits while a single byte is left", async () => {
    const { sender, transport, drain } = senderOf();
    transport.bufferedAmount = 1;
    const sent = sender.send(pattern(20_000));
    assert.equal(await isPending(sent), true);
    assert.equal(transport.take().length, 20_004);
    const later = sender.send(pattern(20_000));
    await rest();
    assert.equal(transport.take().length, 0);
    drain();
    await Promise.all([sent, later]);
  });

  it("Sender waits for a single byte that a native WebSocket holds", async () => {
    const { encoder } = new Protocol("server");
    const transport = new FakeTransport();
    const writePiece = () => {
      transport.bufferedAmount++;
      return true;
    };
    const { sender, drain } = senderOf({
      transport,
      machine: { encoder, extended: false, overhead: 0, writePiece },
    });
    const sent = sender.send(pattern(20_000));
    assert.equal(await isPending(sent), true);
    drain();
    await sent;
    await sender.send("a");
  });

  it("Sender lets a write that the end has interrupted reject as the connection says", async () => {
    const { sender, transport, host } = senderOf();
    transport.isSlow = true;
    host.cutOff = (error) => Promise.reject(new Error("cut off", { cause: error }));
    const written = rejection(sender.writable.getWriter().write(pattern(100_000)));
    await rest();
    const ended = new Error("ended");
    host.endError = () => ended;
    sender.end();
    const { message, cause } = await written;
    assert.deepEqual([message, cause], ["cut off", ended]);
  });

  it("Sender leaves a stream that its writer has closed alone", async () => {
    const { sender, host, notes } = senderOf();
    let finish: () => void = () => {};
    host.finish = () => new Promise((resolve) => finish = resolve);
    assert.equal(sender.sink, undefined);
    const writer = sender.writable.getWriter();
    assert.notEqual(sender.sink, undefined);
    void writer.close();
    await rest();
    sender.end();
    await writer.ready;
    finish();
    await writer.closed;
    const { sender: open } = senderOf();
    const { closed } = open.writable.getWriter();
    open.end();
    await assert.rejects(closed, { message: "ended" });
    const { sender: other, notes: left } = senderOf();
    await other.writable.abort("reason");
    assert.deepEqual([notes, left], [[], [["leave", "reason"]]]);
  });

  it("Sender fails the connection if lent bytes are detached before they have left", async () => {
    const fail = ["fail", 1011, "The bytes to send were detached or resized before they had left"];
    for (const waits of [false, true]) {
      const { sender, notes } = senderOf();
      const tap = new Tap<Message>();
      const items = waits ? sender.send(tap.items) : undefined;
      const bytes = pattern(20_000);
      sender.send(bytes).catch(() => {});
      structuredClone(bytes.buffer, { transfer: [bytes.buffer as ArrayBuffer] });
      tap.end();
      await items;
      await rest();
      assert.deepEqual(notes, [fail]);
    }
    const { sender, transport, notes, drain } = senderOf();
    transport.isSlow = true;
    const bytes = pattern(20_000);
    sender.send(bytes).catch(() => {});
    await rest();
    structuredClone(bytes.buffer, { transfer: [bytes.buffer as ArrayBuffer] });
    assert.deepEqual(notes, []);
    drain();
    assert.deepEqual(notes[0], ["cut", ...fail.slice(1)]);
  });

  it("Sender cuts the connection if the transport throws", () => {
    const thrown = senderOf();
    thrown.transport.isSlow = true;
    // More than the transport is given at a time.
    for (let i = 0; i < 30; i++) thrown.sender.send(textOf(30_000)).catch(() => {});
    thrown.transport.write = () => {
      throw new Error("fault");
    };
    thrown.drain();
    assert.deepEqual(thrown.notes, [["cut", 1006, "The transport threw"]]);
  });

  it("One message may always wait, and others up to the limit", () => {
    const cases: [held: number, length: number, most: number, isTooMuch: boolean][] = [
      [0, 11, 10, false],
      [1, 10, 10, true],
      [1, 9, 10, false],
      [10, 0, 10, false],
      [11, 0, 10, true],
    ];
    for (const [held, length, most, expected] of cases) {
      assert.equal(isTooMuch(held, length, most), expected, `${held} + ${length}, ${most}`);
    }
  });

  it("Sender looks after each 64 KiB of work whether the turn has been long: after 4 MiB", async () => {
    /** What is sent over and over, by length, and the number of steps until one waits. */
    const rows: [
      steps: (number | "ping" | "pong")[],
      extended: boolean,
      count: number,
    ][] = [
      // 2 KiB of work each.
      [[1024], false, 2048],
      [[64_512], false, 64],
      [[64_511], false, 66],
      // 65,535 are not enough for a look, so that it comes after the third message.
      [[31_743, 31_744], false, 129],
      [[63_487, "ping"], false, 129],
      [[63_487, "pong"], false, 129],
      // 32 KiB of work each.
      [[0], true, 128],
      [[9175], true, 102],
    ];
    const encoder = { size: 0 } as unknown as WritingMachine["encoder"];
    const payload = new Uint8Array(0);
    for (const [steps, extended, count] of rows) {
      const machine = { encoder, extended, writePiece: () => true, write: () => {} };
      const { sender } = senderOf({ machine });
      const take = (step: (typeof steps)[number]) => {
        if (typeof step === "number") return sender.send("a".repeat(step));
        if (step === "ping") return sender.control({ type: step, payload });
        return sender.answer(payload);
      };
      await turn();
      await atOneMoment(() => {
        const done = take(steps[0]);
        let taken = 1;
        for (; taken < 3000; taken++) {
          const sent = take(steps[taken % steps.length]);
          if (sent !== undefined && sent !== done) break;
        }
        assert.equal(taken + 1, count, JSON.stringify(steps));
      });
    }
  });

  it("A loop that awaits its sends lets other events happen", async () => {
    for (const extensions of [[], [new ToyCodec("toy", 0, {})]]) {
      const { sender } = senderOf({ extensions });
      let happened = false;
      setImmediate(() => happened = true);
      for (let i = 0; i < 20_000 && !happened; i++) await sender.send("a".repeat(2000));
      assert.equal(happened, true);
    }
  });
});

/** An extension that works on a long frame until the test tells how that ends. */
class HeldCodec extends ToyCodec {
  /** Whether each frame could be worked on elsewhere, so far. */
  readonly allowed: boolean[] = [];
  finish: (error?: Error) => void = () => {};
  /** Whether the extension works at once, although it need not. */
  isQuick = false;
  fault: Error | undefined;

  constructor() {
    super("held", 0, {});
  }

  override encode(frame: OutgoingFrame, later?: EncodedFrame): OutgoingFrame | undefined {
    this.allowed.push(later !== undefined);
    if (this.fault !== undefined) throw this.fault;
    if (later === undefined || this.isQuick) return frame;
    this.finish = (error) => later(error, frame);
  }
}

function writeChunk(writable: WritableStream, bytes: Uint8Array): Promise<void> {
  const writer = writable.getWriter();
  const written = writer.write(bytes);
  writer.releaseLock();
  return written;
}

describe("Sender with an extension that works on another thread", () => {
  const LONG = 16_384;
  const SHORT = LONG - 1;
  const CUT = ["fail", 1011, "The message was cut short by its sender"];
  const header = (first: number) => concat([Uint8Array.of(first), hex("7e 40 00")]);

  function heldSender(options?: SenderInit["options"]) {
    const codec = new HeldCodec();
    return { codec, ...senderOf({ extensions: [codec], options }) };
  }

  async function* each<T>(...items: T[]): AsyncGenerator<T> {
    yield* items;
  }

  const ways: [name: string, send: (sender: Sender, bytes: Uint8Array) => Promise<void>][] = [
    ["send()", (sender, bytes) => sender.send(bytes)],
    ["a stream", (sender, bytes) => writeChunk(sender.writable, bytes)],
    ["items", (sender, bytes) => sender.send([bytes])],
  ];
  for (const [name, send] of ways) {
    it(`Messages of 16 KiB and more are processed elsewhere, by ${name}`, async () => {
      for (const isQuick of [false, true]) {
        const { codec, sender, transport } = heldSender();
        codec.isQuick = isQuick;
        await send(sender, pattern(SHORT));
        const sent = send(sender, pattern(LONG));
        assert.equal(await isPending(sent), !isQuick);
        assert.equal(sender.pending, !isQuick);
        if (!isQuick) codec.finish();
        await sent;
        assert.deepEqual(codec.allowed, [false, true]);
        await rest();
        assert.deepEqual(transport.take().slice(4 + SHORT), concat([header(0x82), pattern(LONG)]));
        assert.deepEqual([sender.messagesSent, sender.pending, sender.bufferedAmount], [
          2,
          false,
          0,
        ]);
        // The next message finds nothing left over.
        await sender.send("a");
        await rest();
        assert.deepEqual(transport.take(), hex("81 01 61"));
      }
    });
  }

  it("What is sent meanwhile follows, as it was at the call; pings need not wait", async () => {
    const { codec, sender, transport } = heldSender();
    const sent = sender.send(pattern(LONG));
    const bytes = utf8("bc");
    const after = sender.send(bytes);
    bytes.fill(0);
    void sender.control({ type: "ping", payload: utf8("") });
    assert.deepEqual([sender.bufferedAmount, sender.heldAmount - 768], [LONG + 2 + 2, LONG + 4]);
    await rest();
    assert.deepEqual(transport.take(), hex("89 00"));
    codec.finish();
    await Promise.all([sent, after]);
    await rest();
    assert.deepEqual(
      transport.take(),
      concat([header(0x82), pattern(LONG), hex("82 02"), utf8("bc")]),
    );
    assert.deepEqual([sender.messagesSent, sender.bufferedAmount], [2, 0]);
  });

  it("The promises of messages that had to wait also wait for room", async () => {
    const sends: [name: string, send: (sender: Sender) => Promise<void>][] = [
      ["a whole message", (sender) => sender.send(pattern(70_000))],
      ["items", (sender) => sender.send(["b".repeat(70_000)])],
    ];
    for (const [name, send] of sends) {
      const { codec, sender, transport, drain } = heldSender();
      transport.isSlow = true;
      const sent = send(sender);
      await rest();
      codec.finish();
      assert.equal(await isPending(sent), true, name);
      drain();
      await sent;
    }
  });

  const ends: [name: string, canWrite: boolean, error: Error | undefined, notes: unknown[]][] = [
    ["the Close frame was written meanwhile", false, undefined, []],
    ["the extension fails", true, new Error("fault"), [CUT]],
    ["the extension fails after the Close frame", false, new Error("fault"), []],
  ];
  for (const [name, canWrite, error, notes] of ends) {
    it(`A message is refused if ${name}`, async () => {
      const all = heldSender();
      const { codec, sender, host } = all;
      const sent = sender.send(pattern(LONG));
      const after = sender.send("a");
      host.canWrite = canWrite;
      codec.finish(error);
      const reason = await rejection(sent);
      if (error === undefined) assert.equal(reason.message, "closed");
      else assert.equal(reason, error);
      assert.deepEqual([...new Set(all.retraced)], [true]);
      if (canWrite) await after;
      else assert.equal((await rejection(after)).message, "closed");
      assert.deepEqual(all.notes, notes);
      assert.equal(sender.messagesSent, canWrite ? 1 : 0);
    });
  }

  it("A message is refused if the connection ends meanwhile", async () => {
    for (const [name, send] of ways) {
      const { codec, host, sender, notes } = heldSender();
      const error = new Error("ended");
      const sent = send(sender, pattern(LONG));
      await rest();
      const after = sender.send("a");
      host.endError = () => error;
      sender.end();
      for (const refused of [sent, after]) assert.equal(await rejection(refused), error, name);
      codec.finish();
      await rest();
      assert.equal(sender.messagesSent, 0);
      assert.deepEqual(notes, []);
    }
  });

  it("An extension that throws fails the connection, unless the Close frame was written", async () => {
    const rows: [extended: boolean, canWrite: boolean, notes: unknown[]][] = [
      [true, true, [CUT]],
      [true, false, []],
      [false, true, []],
    ];
    for (const [extended, canWrite, expected] of rows) {
      const fault = new Error("fault");
      const writePiece = () => {
        throw fault;
      };
      const { encoder } = new Protocol("server");
      const { sender, host, notes } = senderOf({ machine: { encoder, extended, writePiece } });
      host.canWrite = canWrite;
      assert.equal(await rejection(sender.send("a")), fault);
      assert.deepEqual([notes, sender.messagesSent], [expected, 0]);
    }
    const { codec, sender, host, notes } = heldSender();
    codec.fault = new Error("fault");
    assert.equal(await rejection(sender.send(pattern(LONG))), codec.fault);
    assert.deepEqual(notes, [CUT]);
    host.canWrite = false;
    assert.equal((await rejection(sender.send(pattern(LONG)))).message, "closed");
    assert.deepEqual(codec.allowed, [true]);
    const { sender: other, notes: both } = senderOf();
    await assert.rejects(other.send(["a", pattern(1)]), TypeError);
    assert.deepEqual(both, [CUT]);
  });

  it("The Close frame follows the whole messages, and items that have not begun are refused", async () => {
    const { codec, sender, host } = heldSender();
    const whole = [sender.send(pattern(LONG)), sender.send("a")];
    const items = sender.send(["b"]);
    host.canSend = false;
    const written: number[] = [];
    sender.beforeClose(() => void written.push(sender.messagesSent));
    assert.match((await rejection(items)).message, /before the message had begun/);
    assert.deepEqual([written, sender.bufferedAmount, sender.pending], [[], LONG + 1, true]);
    codec.finish();
    await Promise.all(whole);
    await rest();
    assert.deepEqual([written, sender.bufferedAmount, sender.pending], [[2], 0, false]);
  });

  it("A frame that is being processed is not interrupted by a signal", async () => {
    const { codec, sender, transport, notes } = heldSender();
    const controller = new AbortController();
    const reason = new Error("enough");
    const sent = sender.send(each(pattern(LONG), pattern(1)), { signal: controller.signal });
    await rest();
    controller.abort(reason);
    assert.equal(await isPending(sent), true);
    assert.deepEqual(notes, []);
    codec.finish();
    assert.equal(await rejection(sent), reason);
    assert.deepEqual(notes, [CUT]);
    sender.flushAll();
    assert.deepEqual(transport.take(), concat([header(0x02), pattern(LONG)]));
  });

  it("After such a frame, a signal interrupts the wait for the next item", async () => {
    for (const isQuick of [false, true]) {
      const { codec, sender, notes } = heldSender();
      codec.isQuick = isQuick;
      const controller = new AbortController();
      const reason = new Error("enough");
      const tap = new Tap<Message>();
      const sent = sender.send(tap.items, { signal: controller.signal });
      tap.give(pattern(LONG));
      await rest();
      codec.finish();
      await rest();
      controller.abort(reason);
      assert.equal(await rejection(sent), reason);
      assert.deepEqual(notes, [CUT]);
    }
  });
});

describe("Sender with messages of several items", () => {
  const FULL = 2_000_000;

  it("A message that ends before its first item has begun does no harm", async () => {
    const { sender, notes } = senderOf();
    const controller = new AbortController();
    const reason = new Error("enough");
    const tap = new Tap<Message>();
    const sent = sender.send(tap.items, { signal: controller.signal });
    await rest();
    controller.abort(reason);
    assert.equal(await rejection(sent), reason);
    assert.deepEqual(notes, []);
    tap.give("a");
    await rest();
    assert.equal(tap.returned, true);
  });

  it("A signal has no effect on the messages after its own", async () => {
    const { sender } = senderOf();
    const controller = new AbortController();
    await sender.send(["a"], { signal: controller.signal });
    const tap = new Tap<Message>();
    const sent = sender.send(tap.items);
    tap.give("b");
    await rest();
    controller.abort();
    tap.end();
    await sent;
  });

  it("Nothing is written after a signal or an end, at whatever moment", async () => {
    const stops: [
      name: string,
      stop: (all: ReturnType<typeof senderOf>, abort: () => void) => void,
    ][] = [
      ["signal", (_, abort) => abort()],
      ["end", ({ host, sender }) => {
        host.canSend = false;
        sender.end();
      }],
    ];
    for (const [name, stop] of stops) {
      for (let moment = 0; moment < 40; moment++) {
        const all = senderOf();
        const controller = new AbortController();
        let asked = 0;
        const items: AsyncIterable<Message> = {
          [Symbol.asyncIterator]: () => ({
            next: () => Promise.resolve({ done: ++asked > 3, value: "a" }),
          }),
        };
        const sent = all.sender.send(items, { signal: controller.signal });
        sent.catch(() => {});
        for (let i = 0; i < moment; i++) await undefined;
        const before = [asked, all.sender.bufferedAmount, all.sender.messagesSent];
        stop(all, () => controller.abort());
        for (let i = 0; i < 40; i++) await undefined;
        const after = [asked, all.sender.bufferedAmount, all.sender.messagesSent];
        assert.deepEqual(after, before, `${name} after ${moment} microtasks`);
      }
    }
  });

  it("An item may be used again when the next one is asked for", async () => {
    const { sender, transport } = senderOf();
    const expected = [1, 2].map((byte) => new Uint8Array(20_000).fill(byte));
    await sender.send((async function* () {
      const bytes = new Uint8Array(20_000);
      for (const byte of [1, 2]) yield bytes.fill(byte);
    })());
    await rest();
    const written = transport.take();
    assert.deepEqual(written.slice(4, 20_004), expected[0]);
    assert.deepEqual(written.slice(20_008, 40_008), expected[1]);
  });

  it("A message whose connection has ended is refused with the error of the end, or of close()", async () => {
    for (const closes of [false, true]) {
      const { sender, host } = senderOf();
      const tap = new Tap<Message>();
      const sent = sender.send(tap.items);
      const after = sender.send("b");
      await rest();
      host.canSend = false;
      if (closes) sender.beforeClose(() => {});
      tap.give("a");
      const expected = closes ? /before the message had begun/ : /^closed$/;
      assert.match((await rejection(sent)).message, expected);
      if (closes) assert.match((await rejection(after)).message, expected);
    }
  });

  it("Items are refused before they are asked for", async () => {
    const reason = new Error("enough");
    const rows: [
      name: string,
      canSend: boolean,
      signal: AbortSignal | undefined,
      message: string,
    ][] = [
      ["a signal", true, AbortSignal.abort(reason), "enough"],
      ["a signal and an end", false, AbortSignal.abort(reason), "enough"],
      ["an end", false, undefined, "closed"],
    ];
    for (const [name, canSend, signal, message] of rows) {
      const { sender, host, notes } = senderOf({ options: { slow: "close" } });
      host.canSend = canSend;
      let asked = false;
      const items = {
        *[Symbol.iterator]() {
          asked = true;
          yield "a";
        },
      };
      assert.equal((await rejection(sender.send(items, { signal }))).message, message, name);
      assert.deepEqual([asked, notes.length], [false, 0], name);
    }
  });

  it("An error that no function waits for keeps its stack, and counts as one that had waited", async () => {
    const { sender, host, retraced } = senderOf();
    const error = await new Promise<Error>((resolve) => {
      setTimeout(() => void sender.send([1] as never).catch(resolve), 0);
    });
    assert.match(error.stack!, /outgoing/);
    host.canSend = false;
    await rejection(sender.send(["a"]));
    assert.deepEqual(retraced, [true]);
  });

  it("Items that wait for their turn count as slow, if there is no room", async () => {
    const rows: [slow: SenderInit["options"], isBusy: boolean, canSend: boolean, ends: boolean][] =
      [
        [{ slow: "terminate" }, true, true, true],
        [{ slow: "terminate" }, true, false, false],
        [{ slow: "terminate" }, false, true, false],
        [{ slow: "wait" }, true, true, false],
      ];
    for (const [options, isBusy, canSend, ends] of rows) {
      const { sender, host, transport, notes } = senderOf({ options });
      const tap = new Tap<Message>();
      if (isBusy) void sender.send(tap.items);
      transport.bufferedAmount = FULL;
      host.canSend = canSend;
      sender.send(["a"]).catch(() => {});
      assert.deepEqual(
        notes,
        ends ? [["terminate"]] : [],
        JSON.stringify([options, isBusy, canSend]),
      );
      tap.end();
      await rest();
    }
  });
});
