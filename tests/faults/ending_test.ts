/** The order of events at the end, a peer that still pings, and the codes that a caller may close with. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { type CloseInfo, fromWebSocket, WebSocketError } from "../../mod.ts";
import { type ByteDuplex, toStreams } from "../../lib/transport.ts";
import { encodeFrame, Opcode } from "../../lib/core/mod.ts";
import { assemble, type MessageDuplex } from "../../lib/streams.ts";
import { pair, transportPair } from "../../lib/testing.ts";
import type { WebSocketLike, WebSocketLikeEvent } from "../../lib/standard/native_socket.ts";
import { pattern } from "../bytes.ts";
import {
  brief,
  closeFrame,
  held,
  inBothRoles,
  pingFrame,
  RawPeer,
  rejection,
  rest,
  ROLES,
  textFrame,
  until,
} from "../support.ts";

const TIGHT = { capacity: 0 };
/** More than fits in a transport without making a write wait. */
const LONG = pattern(200_000);

/** The members that a connection and the result of `assemble()` have in common. */
type Streams = Pick<MessageDuplex, "readable" | "writable" | "closed">;

/** The events that end a connection while a write waits, and the code of `closed` for each. */
const ENDS: Record<string, { end: (peer: RawPeer) => unknown; closeCode: number }> = {
  "a Close of the peer": { end: (peer) => peer.send(closeFrame(4567)), closeCode: 4567 },
  "a bad frame": { end: (peer) => peer.write(peer.badFrame), closeCode: 1002 },
  "text that is not UTF-8": {
    end: (peer) => peer.send({ opcode: Opcode.Text, payload: Uint8Array.of(0xff) }),
    closeCode: 1007,
  },
  "a message too long": { end: (peer) => peer.send(textFrame("x".repeat(2000))), closeCode: 1009 },
  "the end of the input": { end: (peer) => peer.transport.end(), closeCode: 1006 },
  "a reset": { end: (peer) => peer.transport.fail(new Error("reset")), closeCode: 1006 },
};

/** Awaits `closed` before the other promises. An unhandled rejection fails the test. */
async function closedFirst(
  streams: Streams,
  end: () => unknown,
): Promise<{ error: WebSocketError; refused: Error[] }> {
  const writer = streams.writable.getWriter();
  const reading = streams.readable.getReader().read();
  const writes = Array.from({ length: 9 }, () => writer.write(LONG));
  await rest();
  end();
  const error = await rejection<WebSocketError>(streams.closed);
  const settled = await Promise.allSettled([...writes, reading]);
  const refused = settled.slice(0, -1).filter(({ status }) => status === "rejected")
    .map((result) => (result as PromiseRejectedResult).reason);
  return { error, refused };
}

describe("E1 closed settles before the writes that the end interrupts", () => {
  for (const [name, { end, closeCode }] of Object.entries(ENDS)) {
    it(`E1 ${name}`, async () => {
      await inBothRoles(
        async (ws, peer) => {
          peer.transport.pause();
          peer.polite = false;
          const { error, refused } = await closedFirst(ws, () => end(peer));
          assert.ok(error instanceof WebSocketError);
          assert.equal(error.closeCode, closeCode);
          assert.equal(refused.length, 9);
          assert.ok(refused.every((one) => one === refused[0]));
        },
        { maxMessageSize: 1000 },
        TIGHT,
      );
    });

    it(`E1 ${name}, over assemble()`, async () => {
      for (const role of ROLES) {
        const [near, far] = transportPair(TIGHT);
        const streams = assemble(toStreams(near), { role, maxMessageSize: 1000, closeTimeout: 50 });
        const peer = framePeer(far, role === "client" ? "server" : "client");
        far.pause();
        const { error, refused } = await held(closedFirst(streams, () => end(peer)));
        assert.equal(error.closeCode, closeCode);
        // The transforms accept a few messages in advance.
        assert.ok(refused.length > 4);
        far.destroy();
      }
    });
  }

  it("E1 terminate()", async () => {
    await inBothRoles(
      async (ws, peer) => {
        peer.transport.pause();
        const { error } = await closedFirst(ws, () => ws.terminate());
        assert.equal(error.closeCode, 1006);
      },
      {},
      TIGHT,
    );
  });

  it("E1 a peer that does not answer our pings", async () => {
    await inBothRoles(
      async (ws, peer) => {
        peer.transport.pause();
        const { error } = await held(closedFirst(ws, () => {}));
        assert.equal(error.closeCode, 1011);
      },
      { pingInterval: 1000, pingTimeout: 100 },
      TIGHT,
    );
  });

  it("E1 writes that our own close() interrupts", async () => {
    await inBothRoles(async (ws, peer) => {
      const writer = ws.writable.getWriter();
      await writer.write("a");
      const writes = ["b", "c"].map((text) => writer.write(text));
      const closing = ws.close({ closeCode: 4000 });
      const late = writer.write("late");
      await rest();
      await peer.answerClose(4000);
      assert.equal((await ws.closed).closeCode, 4000);
      const ends = await Promise.allSettled([...writes, late]);
      const { status, reason } = ends[2] as PromiseRejectedResult;
      assert.deepEqual([status, reason.name], ["rejected", "InvalidStateError"]);
      await closing;
    });
  });

  it("E1 a pipe that our own close() interrupts", async () => {
    await inBothRoles(async (ws, peer) => {
      const endless = new ReadableStream({
        async pull(controller) {
          await rest();
          controller.enqueue("tick");
        },
      });
      const piped = endless.pipeTo(ws.writable);
      await peer.next();
      ws.close({ closeCode: 4000 });
      await rest();
      await rest();
      await peer.answerClose(4000);
      await ws.closed;
      assert.equal((await rejection(piped)).name, "InvalidStateError");
    });
  });

  it("E1 a chunk that cannot be sent is refused at once", async () => {
    await inBothRoles(async (ws) => {
      await assert.rejects(ws.writable.getWriter().write(Symbol("a") as never), TypeError);
      assert.equal(ws.state, "open");
    });
  });

  it("E1 close() waits for the transport even after closed has rejected", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.polite = false;
      let over = false;
      const closing = ws.close({ closeCode: 1000 }).then((info) => {
        over = true;
        return info;
      });
      await peer.nextClose();
      peer.write(peer.badFrame);
      assert.equal((await rejection<WebSocketError>(ws.closed)).closeCode, 1002);
      await rest();
      assert.equal(over, false);
      peer.transport.end();
      assert.equal((await closing).closeCode, 1006);
      assert.equal(ws.state, "closed");
    });
  });
});

/** A peer after the handshake. */
function framePeer(transport: RawPeer["transport"], role: "client" | "server"): RawPeer {
  transport.handle({ data() {}, drain() {}, end() {}, close() {} });
  const peer = Object.create(RawPeer.prototype);
  const mask = role === "client" ? { mask: pattern(4) } : {};
  return Object.defineProperties(peer, {
    transport: { value: transport },
    write: { value: (bytes: Uint8Array) => transport.write([bytes]) },
    send: {
      value: (frame: Parameters<typeof encodeFrame>[0]) =>
        transport.write([encodeFrame(frame, mask)]),
    },
    badFrame: { value: Uint8Array.of(0x83, role === "client" ? 0x80 : 0, 0, 0, 0, 0) },
  });
}

describe("E9 assemble() ends though its output takes nothing", () => {
  const inputs: Record<string, (controller: ReadableStreamDefaultController) => void> = {
    "ends": (controller) => controller.close(),
    "errors": (controller) => controller.error(new Error("reset")),
    "breaks the protocol": (controller) =>
      controller.enqueue(Uint8Array.of(0x83, 0x80, 0, 0, 0, 0)),
  };
  for (const [name, input] of Object.entries(inputs)) {
    it(`E9 the input ${name} while the output is blocked`, async () => {
      for (const role of ROLES) {
        const duplex: ByteDuplex = {
          readable: new ReadableStream({
            async start(controller) {
              await rest();
              input(controller);
            },
          }),
          writable: new WritableStream({ write: () => new Promise(() => {}) }),
        };
        const { readable, writable, closed } = assemble(duplex, { role, closeTimeout: 50 });
        const writer = writable.getWriter();
        const writes = Array.from({ length: 9 }, () => writer.write(LONG));
        const ends = [closed, ...writes, readable.getReader().read(), writer.closed];
        const settled = await held(Promise.allSettled(ends));
        assert.ok((settled[0] as PromiseRejectedResult).reason instanceof WebSocketError);
        const last = settled.slice(-3);
        assert.deepEqual(last.map(({ status }) => status), Array(3).fill("rejected"));
      }
    });
  }
});

describe("E9 assemble() refuses streams that it cannot use", () => {
  it("E9 streams that are locked, or none", () => {
    const lockedReadable = new ReadableStream<Uint8Array>();
    lockedReadable.getReader();
    const lockedWritable = new WritableStream<Uint8Array>();
    lockedWritable.getWriter();
    const wrong: unknown[] = [
      null,
      {},
      { readable: new ReadableStream() },
      { readable: new WritableStream(), writable: new ReadableStream() },
      { readable: lockedReadable, writable: new WritableStream() },
      { readable: new ReadableStream(), writable: lockedWritable },
    ];
    for (const duplex of wrong) {
      assert.throws(() => assemble(duplex as ByteDuplex, { role: "client" }), TypeError);
    }
  });
});

describe("E12 a ping that comes after our Close is answered", () => {
  it("E12 until the peer's Close has come", async () => {
    await inBothRoles(async (ws, peer) => {
      ws.close({ closeCode: 1000 });
      assert.equal((await peer.nextClose()).closeCode, 1000);
      peer.send(pingFrame("a"));
      peer.send(pingFrame("b"));
      for (const text of ["a", "b"]) {
        const { opcode, payload } = await peer.next();
        assert.deepEqual([opcode, String.fromCharCode(...payload)], [Opcode.Pong, text]);
      }
      peer.send(closeFrame(1000), pingFrame("late"));
      assert.equal((await ws.closed).closeCode, 1000);
      await rest();
      assert.deepEqual(peer.frames.map(brief), []);
    });
  });

  it("E12 but neither pings nor pongs of our own are sent any more", async () => {
    await inBothRoles(async (ws, peer) => {
      ws.close({ closeCode: 1000 });
      await peer.nextClose();
      for (const call of [ws.ping(), ws.pong(), ws.send("a")]) {
        assert.equal((await rejection(call)).name, "InvalidStateError");
      }
      await rest();
      assert.deepEqual(peer.frames, []);
    });
  });

  it("E12 over assemble()", async () => {
    for (const role of ROLES) {
      const [near, far] = transportPair();
      const { writable, closed } = assemble(toStreams(near), { role, closeTimeout: 50 });
      const received: number[] = [];
      const peer = framePeer(far, role === "client" ? "server" : "client");
      far.handle({
        data: (chunk) => void received.push(chunk[0] & 15),
        drain() {},
        end() {},
        close() {},
      });
      writable.getWriter().close().catch(() => {});
      await until(() => received.length === 1);
      peer.send(pingFrame("a"));
      await until(() => received.length === 2);
      assert.deepEqual(received, [Opcode.Close, Opcode.Pong]);
      far.destroy();
      await rejection(closed);
    }
  });
});

describe("E14 close() with what closed gave", () => {
  it("E14 1005 means no code", async () => {
    await inBothRoles(async (ws, peer) => {
      const closing = ws.close({ closeCode: 1005, reason: "" });
      const { opcode, payload } = await peer.next();
      assert.deepEqual([opcode, payload.length], [Opcode.Close, 0]);
      peer.send(closeFrame());
      assert.deepEqual(await closing, { closeCode: 1005, reason: "" });
    });
  });

  const codes: [sent: CloseInfo, seen: CloseInfo][] = [
    [{}, { closeCode: 1005, reason: "" }],
    [{ closeCode: 1000 }, { closeCode: 1000, reason: "" }],
    [{ closeCode: 1011, reason: "r" }, { closeCode: 1011, reason: "r" }],
    [{ closeCode: 4001, reason: "r" }, { closeCode: 4001, reason: "r" }],
  ];
  for (const [sent, seen] of codes) {
    it(`E14 ${JSON.stringify(sent)} passes from one connection to another`, async () => {
      const [x, there] = await pair();
      const [y, here] = await pair();
      there.close(sent);
      await y.close(await x.closed);
      assert.deepEqual(await here.closed, seen);
    });
  }

  it("E14 the members of the argument are read once", async () => {
    await inBothRoles(async (ws, peer) => {
      const notes: string[] = [];
      ws.close({
        get closeCode() {
          return notes.push("closeCode") === 1 ? 4001 : -1;
        },
        get reason() {
          return notes.push("reason") === 2 ? "r" : "x".repeat(124);
        },
      });
      assert.deepEqual(await peer.nextClose(), { closeCode: 4001, reason: "r" });
    });
  });

  it("E14 1005 with a reason, and 1006, are still refused", async () => {
    const [ws] = await pair();
    for (const info of [{ closeCode: 1005, reason: "r" }, { closeCode: 1006 }]) {
      assert.throws(() => ws.close(info), RangeError);
    }
    assert.equal(ws.state, "open");
    ws.terminate();
  });

  it("E14 1005 closes a native WebSocket without a code", async () => {
    const calls: unknown[][] = [];
    const listeners = new Map<string, (event: WebSocketLikeEvent) => void>();
    const socket = {
      readyState: 1,
      send() {},
      close: (...args: unknown[]) => {
        calls.push(args);
        listeners.get("close")!({ type: "close", code: 1005, reason: "", wasClean: true });
      },
      addEventListener: (type: string, listener: (event: WebSocketLikeEvent) => void) =>
        listeners.set(type, listener),
      removeEventListener: () => {},
    } as unknown as WebSocketLike;
    const ws = await fromWebSocket(socket);
    assert.deepEqual(await ws.close({ closeCode: 1005 }), { closeCode: 1005, reason: "" });
    assert.deepEqual(calls[0], []);
  });
});
