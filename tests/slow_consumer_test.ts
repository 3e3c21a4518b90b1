/** Connections that keep sending although their peers do not read. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { broadcast, fromWebSocket, type WebSocketConnection, type WebSocketLike } from "../mod.ts";
import { pattern } from "./bytes.ts";
import { held, inBothRoles, isPending, type RawPeer, rejection, rest, until } from "./support.ts";

const KIB = 1024;
const MESSAGE = pattern(100 * KIB);
/** A transport that accepts nothing until its peer reads. */
const TIGHT = { capacity: 0 };
const LIMIT = { maxBufferedAmount: 512 * KIB };
/** The number of messages that fit within the limit: 500 KiB. */
const WITHIN = 5;

/** Sends to a peer that does not read until the peer is too slow, and returns how much was sent. */
async function sendTooMuch(ws: WebSocketConnection, peer: RawPeer): Promise<void> {
  peer.transport.pause();
  for (let i = 0; i < WITHIN; i++) {
    void ws.send(MESSAGE);
    // The messages are sent in several batches.
    if (i % 2 === 1) await rest();
  }
  assert.equal(ws.state, "open", "500 KiB are within the limit");
  assert.equal((await rejection(ws.send(MESSAGE))).name, "InvalidStateError");
  assert.notEqual(ws.state, "open", "600 KiB are not");
  assert.ok(ws.bufferedAmount <= LIMIT.maxBufferedAmount, `${ws.bufferedAmount} bytes wait`);
}

describe("A peer that is too slow", () => {
  it("slow: close delivers the accepted messages, then closes with 1008", async () => {
    await inBothRoles(
      async (ws, peer) => {
        await sendTooMuch(ws, peer);
        assert.equal(ws.state, "closing");
        peer.transport.resume();
        await until(() => peer.frames.length === WITHIN + 1);
        for (let i = 0; i < WITHIN; i++) {
          assert.equal((await peer.next()).payload.length, MESSAGE.length);
        }
        await peer.answerClose(1008);
        assert.equal((await ws.closed).closeCode, 1008);
        assert.deepEqual(ws.closeInfo?.sent, { closeCode: 1008, reason: "Too slow" });
        assert.equal(ws.stats.messagesSent, WITHIN);
      },
      { ...LIMIT, slow: "close" },
      TIGHT,
    );
  });

  it("slow: close cuts a client that still does not read after closeTimeout", async () => {
    await inBothRoles(
      async (ws, peer) => {
        await sendTooMuch(ws, peer);
        assert.equal(
          (await rejection<{ closeCode: number } & Error>(held(ws.closed))).closeCode,
          1006,
        );
        assert.equal(ws.state, "closed");
      },
      { ...LIMIT, slow: "close", closeTimeout: 50 },
      TIGHT,
    );
  });

  it("slow: terminate cuts it at once", async () => {
    await inBothRoles(
      async (ws, peer) => {
        await sendTooMuch(ws, peer);
        assert.equal(
          (await rejection<{ closeCode: number } & Error>(held(ws.closed))).closeCode,
          1006,
        );
        peer.transport.resume();
        await until(() => peer.closed);
      },
      { ...LIMIT, slow: "terminate", closeTimeout: 0 },
      TIGHT,
    );
  });

  it("slow: wait, the default, lets any amount wait, and all messages arrive", async () => {
    for (const options of [LIMIT, { ...LIMIT, slow: "wait" as const }]) {
      await inBothRoles(
        async (ws, peer) => {
          peer.transport.pause();
          const sending = Array.from({ length: 20 }, () => ws.send(MESSAGE));
          assert.ok(await isPending(Promise.race(sending)));
          peer.transport.resume();
          await Promise.all(sending);
          await until(() => peer.frames.length === 20);
        },
        options,
        TIGHT,
      );
    }
  });

  it("slow: one message of any length is let through, where nothing waits", async () => {
    for (const slow of ["close", "terminate"] as const) {
      await inBothRoles(
        async (ws, peer) => {
          // The server's answer to the handshake may still be buffered.
          await until(() => ws.bufferedAmount === 0);
          for (let i = 0; i < 3; i++) {
            await ws.send(MESSAGE);
            assert.equal((await peer.next()).payload.length, MESSAGE.length);
          }
        },
        { maxBufferedAmount: 10, slow },
        TIGHT,
      );
    }
  });

  it("slow: messages that wait for a message of several frames are counted", async () => {
    await inBothRoles(async (ws) => {
      const forever = ws.send((async function* () {
        yield "a";
        await new Promise(() => {});
      })());
      await rest();
      // Each of them counts as 768 bytes in addition to its payload.
      const waiting = Array.from({ length: 5 }, () => ws.send("x".repeat(100)));
      assert.ok(await isPending(Promise.race(waiting)));
      assert.equal(ws.bufferedAmount, 500);
      const refused = await Promise.all([rejection(ws.send("x")), rejection(forever)]);
      for (const { name } of refused) assert.match(name, /InvalidStateError|WebSocketError/);
      await Promise.allSettled(waiting);
    }, { maxBufferedAmount: 5 * (100 + 768), slow: "terminate" });
  });

  it("slow: writable and messages of several frames wait, whatever the limit", async () => {
    await inBothRoles(
      async (ws, peer) => {
        peer.transport.pause();
        const writer = ws.writable.getWriter();
        const writes = Array.from({ length: 5 }, () => writer.write(MESSAGE));
        assert.ok(await isPending(Promise.all(writes)));
        peer.transport.resume();
        await Promise.all(writes);
        peer.transport.pause();
        const items = ws.send([MESSAGE, MESSAGE, MESSAGE]);
        assert.ok(await isPending(items));
        peer.transport.resume();
        await items;
        assert.equal(ws.state, "open");
      },
      { maxBufferedAmount: 10, slow: "terminate" },
      TIGHT,
    );
  });
});

describe("A native WebSocket whose peer is too slow", () => {
  /** A socket that never sends, and the codes that it was closed with. */
  class StuckSocket implements WebSocketLike {
    readonly readyState = 1;
    readonly codes: (number | undefined)[] = [];
    bufferedAmount = 0;

    send(data: string | Uint8Array): void {
      this.bufferedAmount += data.length;
    }

    close(code?: number): void {
      // The standard requires this.
      if (code !== undefined && code < 3000) throw new DOMException("", "InvalidAccessError");
      this.codes.push(code);
    }

    addEventListener(): void {}

    removeEventListener(): void {}
  }

  it("slow: close and broadcast() close it with the code that a user may send", async () => {
    const ways: ((ws: WebSocketConnection) => unknown)[] = [
      (ws) => ws.send(MESSAGE),
      (ws) => broadcast([ws], MESSAGE, LIMIT),
    ];
    for (const send of ways) {
      const socket = new StuckSocket();
      const ws = await fromWebSocket(socket, { ...LIMIT, slow: "close", closeTimeout: 50 });
      for (let i = 0; i < WITHIN; i++) void send(ws);
      assert.equal(ws.state, "open");
      void send(ws);
      assert.equal(ws.state, "closing");
      await rejection(held(ws.closed));
      assert.equal(socket.codes[0], 4008);
    }
  });
});
