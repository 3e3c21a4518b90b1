/**
 * Classes of failure that other implementations have had after the opening handshake, with one or more tests
 * for each. `threats_handshake_test.ts` tests the failures in the handshake.
 */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import { type CloseInfo, connect } from "../mod.ts";
import {
  encodeFrame,
  FrameDecoder,
  MessageAssembler,
  Opcode,
  Protocol,
  RemoteProtocolError,
} from "../lib/core/mod.ts";
import { PieceReader } from "./pieces.ts";
import { assertSameBytes, concat, hex, pattern, utf8 } from "./bytes.ts";
import { collectGarbage } from "./garbage.ts";
import {
  binaryFrame,
  continuation,
  inBothRoles,
  rejection,
  requestOf,
  textFrame,
  until,
  upgradeResponse,
  withRawServer,
} from "./support.ts";

const MIB = 2 ** 20;

type WithCode = Error & { closeCode: number };

/** Objects that must stay alive while memory is measured. */
const held: unknown[] = [];

/** The growth in bytes of the memory of the process for the result of `run`, without garbage. */
function growth(run: () => unknown): number {
  const used = () => {
    collectGarbage();
    const { heapUsed, external, arrayBuffers = 0 } = process.memoryUsage();
    return Math.max(heapUsed + external, heapUsed + arrayBuffers);
  };
  const before = used();
  held.push(run());
  const grown = used() - before;
  held.length = 0;
  return grown;
}

// ws 1.0.1, CVE-2026-45736
describe("memory disclosure", () => {
  const SIZES = [0, 1, 125, 126, 127, 8191, 8192, 8193, 65535, 65536, 65537];

  it("memory disclosure: reused buffers send only the new message", async () => {
    await inBothRoles(async (ws, peer) => {
      for (let round = 0; round < 3; round++) {
        for (const size of SIZES) {
          const bytes = pattern(size + 7).subarray(7);
          const text = "\u20ac".repeat(size % 1000) + "x".repeat(size);
          ws.send(bytes);
          ws.send(text);
          ws.pong(bytes.subarray(0, 125));
          const [first, second, third] = [await peer.next(), await peer.next(), await peer.next()];
          assertSameBytes(first.payload, bytes);
          assertSameBytes(second.payload, utf8(text));
          assertSameBytes(third.payload, bytes.subarray(0, 125));
        }
      }
    });
  });

  it("memory disclosure: no number is taken for a length of bytes to send", async () => {
    await inBothRoles(async (ws, peer) => {
      for (const wrong of [100, -1, 1n, true, null, undefined, Symbol("a"), { length: 100 }]) {
        assert.ok(await rejection(ws.send(wrong as never)) instanceof TypeError, String(wrong));
        if (wrong === undefined) continue;
        assert.ok(await rejection(ws.ping(wrong as never)) instanceof TypeError, String(wrong));
        assert.ok(await rejection(ws.pong(wrong as never)) instanceof TypeError, String(wrong));
        for (const info of [{ closeCode: 1000, reason: wrong }, { closeCode: wrong }]) {
          assert.throws(() => ws.close(info as CloseInfo), { name: /^(Type|Range)Error$/ });
        }
      }
      assert.throws(() => ws.close({ closeCode: 1000, reason: new Uint8Array(100) as never }));
      await ws.send("a");
      assert.deepEqual((await peer.next()).payload, utf8("a"));
      assert.equal(peer.frames.length, 0);
    });
  });

  it("memory disclosure: a view is sent without the rest of its buffer", async () => {
    const buffer = utf8("secret".repeat(5000)).buffer as ArrayBuffer;
    const views = [
      new Uint8Array(buffer, 7, 5),
      new DataView(buffer, 7, 5),
      new Uint8Array(buffer, 7, 10_000),
      new Float64Array(buffer, 8, 2),
    ];
    await inBothRoles(async (ws, peer) => {
      for (const view of views) {
        ws.send(view);
        const { payload } = await peer.next();
        assertSameBytes(payload, new Uint8Array(buffer, view.byteOffset, view.byteLength));
      }
    });
  });
});

// ws CVE-2026-48779, undici CVE-2026-12151
describe("tiny fragments or chunks", () => {
  it("tiny fragments: a message of 65536 fragments of 64 bytes passes", async () => {
    const piece = pattern(64);
    await inBothRoles(async (ws, peer) => {
      const echoed = ws.receive();
      peer.send(binaryFrame(piece, false));
      for (let i = 0; i < 2; i++) peer.send(...Array(32767).fill(continuation(piece, false)));
      peer.send(continuation(piece));
      const message = await echoed as Uint8Array;
      assert.equal(message.length, 65536 * 64);
      assertSameBytes(message.subarray(-64), piece);
    }, { maxMessageSize: 4 * MIB });
  });

  for (const [type, first] of [["binary", binaryFrame], ["text", textFrame]] as const) {
    it(`tiny fragments: ${type} of one byte a fragment without end is 1009`, async () => {
      await inBothRoles(async (ws, peer) => {
        const error = rejection<WithCode>(ws.receive());
        peer.send(first === textFrame ? textFrame("a", false) : binaryFrame(utf8("a"), false));
        const many = Array(10_000).fill(continuation("a", false));
        // The peer continues for as long as it can.
        while (ws.state === "open" && ws.stats.bytesReceived < 32 * MIB) {
          peer.send(...many);
          await until(() => ws.stats.paused || peer.transport.bufferedAmount === 0);
          await new Promise((resolve) => setTimeout(resolve));
        }
        assert.equal((await error).closeCode, 1009);
        assert.equal((await peer.nextClose()).closeCode, 1009);
      }, { maxMessageSize: 100_000 });
    });
  }

  it("tiny fragments: a mebibyte in pieces of one byte takes little more than itself", () => {
    const piece = new Uint8Array(65536).fill(97);
    for (const type of ["binary", "text"] as const) {
      const assembler = new MessageAssembler();
      const unfinished = { frameFinished: true, messageFinished: false };
      const grown = growth(() => {
        for (let i = 0; i < MIB; i++) {
          if (type === "text") assembler.push({ type, data: "a", ...unfinished });
          else {assembler.push({
              type,
              data: piece.subarray(i & 0xfff, (i & 0xfff) + 1),
              ...unfinished,
            });}
        }
        return assembler;
      });
      // If each piece were an object, the memory would be more than 100 MiB.
      assert.ok(grown < 8 * MIB, `${type}: grown by ${grown} bytes`);
    }
  });

  it("tiny fragments: empty ones without end hold nothing", async () => {
    await inBothRoles(async (ws, peer) => {
      const received = ws.receive();
      peer.send(textFrame("a", false));
      for (let i = 0; i < 20; i++) {
        peer.send(...Array(1000).fill(continuation("", false)));
        await until(() => peer.transport.bufferedAmount === 0);
      }
      assert.equal(ws.stats.queued, 0);
      peer.send(continuation("b"));
      assert.equal(await received, "ab");
    });
  });

  it("tiny chunks: a message that comes byte by byte waits in little more than itself", () => {
    const bytes = encodeFrame({ opcode: Opcode.Binary, payload: pattern(MIB / 4) });
    const protocol = new Protocol("client", { ownsInput: true });
    const assembler = new MessageAssembler();
    const receive = (byte: number): unknown => {
      // A socket may deliver a chunk like this: one byte in a larger buffer.
      protocol.receive(new Uint8Array(64).fill(byte).subarray(0, 1));
      for (const event of protocol.events()) {
        if (event.type === "binary") return assembler.push(event);
      }
    };
    const grown = growth(() => {
      for (const byte of bytes.subarray(0, -1)) assert.equal(receive(byte), undefined);
      return [protocol, assembler];
    });
    assertSameBytes(receive(bytes.at(-1)!) as Uint8Array, pattern(MIB / 4));
    // If each piece kept its buffer, the memory would be more than 32 MiB.
    assert.ok(grown < 8 * MIB, `grown by ${grown} bytes`);
  });

  it("tiny chunks: a frame for onFrame that comes byte by byte takes little more than itself", () => {
    const frames: number[] = [];
    const protocol = new Protocol("client", {
      onFrame: (_, { payload }) => frames.push(payload.length),
    });
    const bytes = encodeFrame({ opcode: Opcode.Binary, payload: pattern(MIB / 2) });
    const grown = growth(() => {
      for (let at = 0; at < bytes.length - 1; at++) {
        protocol.receive(bytes.subarray(at, at + 1));
        for (const _ of protocol.events());
      }
      return protocol;
    });
    assert.deepEqual(frames, []);
    // If each byte were an object, the memory would be more than 48 MiB.
    assert.ok(grown < 8 * MIB, `grown by ${grown} bytes`);
    protocol.receive(bytes.subarray(-1));
    assert.equal([...protocol.events()].length, 1);
    assert.deepEqual(frames, [MIB / 2]);
  });

  it("tiny messages: many that wait to be read are held back", async () => {
    for (const payload of ["", "a"]) {
      await inBothRoles(async (ws, peer) => {
        for (let i = 0; i < 50; i++) peer.send(...Array(1000).fill(textFrame(payload)));
        await until(() => ws.stats.paused);
        assert.ok(ws.stats.queued <= 65536 + 65, `${ws.stats.queued} wait`);
        assert.ok(ws.stats.messagesReceived <= 1025, `${ws.stats.messagesReceived} wait`);
      });
    }
  });
});

// Bandit CVE-2026-42786
describe("quadratic reassembly", () => {
  it("quadratic reassembly: a message of a million fragments, byte by byte", () => {
    const count = 1_000_000;
    for (const type of [Opcode.Text, Opcode.Binary]) {
      const frames = new Uint8Array(count * 3);
      for (let i = 0; i < count; i++) {
        frames.set([(i === count - 1 ? 0x80 : 0) | (i === 0 ? type : 0), 1, 97], i * 3);
      }
      // Quadratic time would be 10^12 steps, and the test would not finish.
      const decoder = new FrameDecoder({ role: "client" });
      const reader = new PieceReader();
      const assembler = new MessageAssembler();
      let message: string | Uint8Array | undefined;
      for (let at = 0; at < frames.length; at += 2) {
        decoder.push(frames.subarray(at, at + 2));
        for (let piece = decoder.next(); piece; piece = decoder.next()) {
          message = assembler.push(reader.read(piece));
        }
      }
      assert.equal(message?.length, count);
    }
  });

  it("quadratic reassembly: a chunk with a million frames in it", () => {
    const frames = new Uint8Array(2 * MIB).map((_, i) => i % 2 === 0 ? 0x82 : 0);
    const protocol = new Protocol("client");
    protocol.receive(frames);
    let count = 0;
    for (const event of protocol.events()) if (event.type === "binary") count++;
    assert.equal(count, MIB);
  });
});

// undici CVE-2026-1528, gorilla CVE-2020-27813
describe("64-bit length overflow", () => {
  const lengths: [length: string, closeCode: number][] = [
    ["ff ff ff ff ff ff ff ff", 1002],
    ["80 00 00 00 00 00 00 00", 1002],
    ["7f ff ff ff ff ff ff ff", 1009],
    ["00 20 00 00 00 00 00 00", 1009],
    ["00 1f ff ff ff ff ff ff", 1009],
    ["00 00 00 01 00 00 00 00", 1009],
    ["00 00 00 00 00 10 00 01", 1009],
  ];
  it("64-bit length overflow: a length is judged before any of its bytes come", async () => {
    for (const [length, closeCode] of lengths) {
      await inBothRoles(async (ws, peer, role) => {
        const error = rejection<WithCode>(ws.receive());
        peer.write(hex(role === "server" ? `82 ff ${length} 00 00 00 00` : `82 7f ${length}`));
        assert.equal((await error).closeCode, closeCode, length);
        assert.equal((await peer.nextClose()).closeCode, closeCode, length);
      });
    }
  });

  it("64-bit length overflow: an announced length takes no memory", () => {
    const protocol = new Protocol("client");
    const assembler = new MessageAssembler();
    const grown = growth(() => {
      // 2^53 - 1 bytes: the most that is allowed without a limit.
      protocol.receive(hex("82 7f 00 1f ff ff ff ff ff ff 61 62"));
      for (const event of protocol.events()) if (event.type === "binary") assembler.push(event);
      return [protocol, assembler];
    });
    assert.equal(assembler.size, 2);
    assert.ok(grown < MIB, `grown by ${grown} bytes`);
  });

  it("64-bit length overflow: lengths of fragments that add up beyond the limit are 1009", () => {
    const protocol = new Protocol("client", { maxMessageSize: 2 ** 40 });
    protocol.receive(hex("02 01 61 00 7f 00 00 00 ff ff ff ff ff 62"));
    const read = () => [...protocol.events()];
    assert.equal(read().length, 2);
    const other = new Protocol("client", { maxMessageSize: 2 ** 40 });
    other.receive(hex("02 01 61 00 7f 00 00 01 00 00 00 00 00 62"));
    assert.throws(() => [...other.events()], (error: RemoteProtocolError) => {
      return error instanceof RemoteProtocolError && error.closeCode === 1009;
    });
  });
});

// curl CVE-2025-10148
describe("predictable mask", () => {
  /** The masking keys of frames that all have the same length. */
  function keysOf(bytes: Uint8Array, size: number): number[] {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    return Array.from({ length: bytes.length / size }, (_, i) => view.getUint32(i * size + 2));
  }

  it("predictable mask: a fresh key for each frame, each of its bits as often 0 as 1", () => {
    const random = Math.random;
    Math.random = () => assert.fail("Not a cryptographic source");
    try {
      const client = new Protocol("client");
      const frames = Array.from({ length: 8192 }, () => {
        return client.send({ type: "ping", payload: new Uint8Array(4) });
      });
      const keys = keysOf(concat(frames), 10);
      // Two of these 32-bit numbers are equal in about one of a hundred runs, ten practically never.
      assert.ok(new Set(keys).size > 8180, `${new Set(keys).size} keys`);
      for (let bit = 0; bit < 32; bit++) {
        const ones = keys.filter((key) => (key >>> bit) & 1).length;
        // Ten times the standard deviation, which is 45.
        assert.ok(Math.abs(ones - 4096) < 450, `bit ${bit} is set ${ones} times`);
      }
    } finally {
      Math.random = random;
    }
  });

  it("predictable mask: each frame of a fragmented message, and of a connection, has its own", async () => {
    const keys = new Set<string>();
    const nonces = new Set<string>();
    for (let i = 0; i < 3; i++) {
      await withRawServer(async (raw) => {
        const request = await requestOf(raw);
        nonces.add(/Sec-WebSocket-Key: (.*)\r/.exec(request)![1]);
        raw.write(upgradeResponse(request));
      }, async (url) => {
        const ws = await connect(url, { onFrame: () => {} });
        await ws.send(["a", "a", "a", "a"]);
        ws.terminate();
      });
    }
    assert.equal(nonces.size, 3);
    await withRawServer(async (raw) => {
      const request = await requestOf(raw);
      raw.write(upgradeResponse(request));
      raw.received = new Uint8Array(0);
      await until(() => raw.received.length >= 35);
      for (let at = 0; at < 35; at += 7) keys.add(String(raw.received.subarray(at + 2, at + 6)));
    }, async (url) => {
      const ws = await connect(url);
      for (let i = 0; i < 2; i++) await ws.send("a");
      await ws.send(["a", "a", "a"]);
      await until(() => keys.size === 5);
      ws.terminate();
    });
  });
});
