import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  broadcast,
  type CloseInfo,
  connect,
  errorCodeOf,
  type WebSocketConnection,
  WebSocketError,
} from "../mod.ts";
import type { LeaveRule } from "../lib/connection/closing.ts";
import { driverOf } from "../lib/connection/connection.ts";
import { type MemoryTransport, pair } from "../lib/testing.ts";
import { pattern } from "./bytes.ts";
import {
  binaryFrame,
  closeFrame,
  collect,
  frames,
  inBothRoles,
  isPending,
  rejection,
  rest,
  textFrame,
  until,
  withPeer,
  withServer,
} from "./support.ts";
import { inVirtualTime } from "./virtual_time.ts";

type WithCode = Error & { closeCode: number; reason: string };

const TIGHT = { capacity: 0 };
const ABNORMAL = { closeCode: 1006, reason: "" };

describe("WebSocketConnection.close", () => {
  const allowed: [info: CloseInfo | undefined, sent: Required<CloseInfo>][] = [
    [undefined, { closeCode: 1005, reason: "" }],
    [{}, { closeCode: 1005, reason: "" }],
    [{ reason: "" }, { closeCode: 1005, reason: "" }],
    [{ reason: "done" }, { closeCode: 1000, reason: "done" }],
    [{ closeCode: 1000, reason: "x".repeat(123) }, { closeCode: 1000, reason: "x".repeat(123) }],
    [{ closeCode: 1000, reason: "\u20ac".repeat(41) }, {
      closeCode: 1000,
      reason: "\u20ac".repeat(41),
    }],
    ...[
      1000,
      1001,
      1002,
      1003,
      1007,
      1008,
      1009,
      1010,
      1011,
      1012,
      1013,
      1014,
      3000,
      3999,
      4000,
      4999,
    ]
      .map((closeCode): [CloseInfo, Required<CloseInfo>] => [{ closeCode }, {
        closeCode,
        reason: "",
      }]),
  ];
  for (const [info, sent] of allowed) {
    it(`close() with ${JSON.stringify(info)} sends ${sent.closeCode}`, async () => {
      await inBothRoles(async (ws, peer) => {
        const closing = ws.close(info);
        assert.equal(ws.state, "closing");
        assert.deepEqual(await peer.nextClose(), sent);
        peer.send(closeFrame(4001, "bye"));
        assert.deepEqual(await closing, { closeCode: 4001, reason: "bye" });
        assert.deepEqual(await ws.closed, { closeCode: 4001, reason: "bye" });
        assert.equal(ws.state, "closed");
      });
    });
  }

  const refused: [name: string, info: unknown, type: typeof TypeError][] = [
    ...[0, -1, 1.5, NaN, 999, 1004, 1006, 1015, 1016, 2999, 5000, 65536 + 1000].map(
      (
        closeCode,
      ): [string, unknown, typeof TypeError] => [`code ${closeCode}`, { closeCode }, RangeError],
    ),
    ["a reason of 124 bytes", { reason: "x".repeat(124) }, RangeError],
    ["a reason of 42 signs of 3 bytes", { reason: "\u20ac".repeat(42) }, RangeError],
    ["a code that is a string", { closeCode: "1000" }, TypeError],
    ["a reason that is a number", { closeCode: 1000, reason: 1 }, TypeError],
    ["null", null, TypeError],
  ];
  it("close() refuses what cannot be sent, and the connection stays open", async () => {
    await inBothRoles(async (ws, peer) => {
      for (const [name, info, type] of refused) {
        assert.throws(() => ws.close(info as CloseInfo), type, name);
        assert.equal(ws.state, "open", name);
      }
      await ws.send("a");
      assert.deepEqual(await frames(peer, 1), [["text", "a", true]]);
    });
  });

  it("close() again changes nothing, and gives the same", async () => {
    await inBothRoles(async (ws, peer) => {
      const first = ws.close({ closeCode: 3001 });
      const second = ws.close({ closeCode: 3002 });
      assert.equal((await peer.nextClose()).closeCode, 3001);
      peer.send(closeFrame(1000));
      assert.deepEqual([await first, await second, await ws.close()].map((it) => it.closeCode), [
        1000,
        1000,
        1000,
      ]);
      await rest();
      assert.equal(peer.frames.length, 0);
    });
  });

  it("close() sends the Close frame after all earlier messages", async () => {
    await inBothRoles(async (ws, peer) => {
      for (let i = 0; i < 3; i++) ws.send(`${i}`);
      ws.send(pattern(300_000));
      ws.close({ closeCode: 1000 });
      assert.deepEqual((await frames(peer, 3)).map(([, text]) => text), ["0", "1", "2"]);
      assert.deepEqual((await peer.next()).payload, pattern(300_000));
      assert.equal((await peer.nextClose()).closeCode, 1000);
    });
  });

  it("close() leaves what the peer sends before its Close to be read", async () => {
    await inBothRoles(async (ws, peer) => {
      const closing = ws.close({ closeCode: 1000 });
      await peer.nextClose();
      peer.send(textFrame("late"), closeFrame(1000));
      await closing;
      assert.deepEqual(await collect(ws), ["late"]);
    });
  });

  it("close() ends although nobody reads and the inbox is full", async () => {
    await inBothRoles(async (ws, peer) => {
      for (let i = 0; i < 20; i++) peer.send(binaryFrame(pattern(10_000)));
      await until(() => ws.stats.paused);
      const closing = ws.close({ closeCode: 1000 });
      await peer.nextClose();
      for (let i = 0; i < 20; i++) peer.send(binaryFrame(pattern(10_000)));
      peer.send(closeFrame(1000));
      assert.equal((await closing).closeCode, 1000);
      assert.ok(ws.stats.queued <= 65536 + 10_064, `${ws.stats.queued} bytes wait`);
    }, { closeTimeout: 0 });
  });

  it("close() checks messages for which the inbox has no room", async () => {
    await inBothRoles(async (ws, peer) => {
      for (let i = 0; i < 20; i++) peer.send(binaryFrame(pattern(10_000)));
      await until(() => ws.stats.paused);
      const closing = ws.close();
      await peer.nextClose();
      peer.write(peer.badFrame);
      assert.deepEqual(await closing, ABNORMAL);
      await assert.rejects(ws.closed, { closeCode: 1002 });
    });
  });

  it("close() resolves with 1006 if the connection is lost, and never rejects", async () => {
    await inBothRoles(async (ws, peer) => {
      const closing = ws.close({ closeCode: 1000 });
      await peer.nextClose();
      peer.polite = false;
      peer.transport.end();
      assert.deepEqual(await closing, ABNORMAL);
      const error = await rejection<WithCode>(ws.closed);
      assert.equal(error.closeCode, 1006);
      assert.deepEqual(await ws.close(), ABNORMAL);
    });
  });

  it("close() is cut after closeTimeout when the peer never answers", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.polite = false;
      const closing = ws.close({ closeCode: 1000 });
      await until(() => ws.state === "closed");
      assert.deepEqual(await closing, ABNORMAL);
      await assert.rejects(ws.closed, { name: "WebSocketError", closeCode: 1006 });
      await until(() => peer.ended);
    }, { closeTimeout: 30 });
  });

  it("close() is cut after closeTimeout, and clean, when the peer leaves the transport open", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.polite = false;
      const closing = ws.close({ closeCode: 1000 });
      await peer.nextClose();
      peer.send(closeFrame(1000, "bye"));
      assert.equal(await isPending(closing), true);
      await until(() => ws.state === "closed");
      assert.deepEqual(await closing, { closeCode: 1000, reason: "bye" });
      await ws.closed;
    }, { closeTimeout: 300 });
  });

  it("close() is cut after closeTimeout when the peer does not even read", async () => {
    await inBothRoles(
      async (ws, peer) => {
        peer.transport.pause();
        const sent = ws.send(pattern(200_000));
        const closing = ws.close();
        await until(() => ws.state === "closed");
        assert.deepEqual(await closing, ABNORMAL);
        assert.ok(await rejection(sent));
      },
      { closeTimeout: 30 },
      TIGHT,
    );
  });

  it("close() by Symbol.asyncDispose closes with 1000", async () => {
    await inBothRoles(async (ws, peer) => {
      const disposed = ws[Symbol.asyncDispose]();
      assert.equal((await peer.nextClose()).closeCode, 1000);
      peer.send(closeFrame(1000));
      await disposed;
      assert.equal(ws.state, "closed");
    });
  });
});

describe("A Close of the peer", () => {
  for (const closeCode of [1000, 1001, 1002, 1011, 3000, 4999, undefined]) {
    it(`A Close with ${closeCode ?? "no code"} is answered alike, and clean`, async () => {
      await inBothRoles(async (ws, peer) => {
        const reason = closeCode === undefined ? "" : "because";
        peer.send(closeFrame(closeCode, reason));
        const info = { closeCode: closeCode ?? 1005, reason };
        assert.deepEqual(await peer.nextClose(), info);
        assert.deepEqual(await ws.closed, info);
        assert.deepEqual(ws.closeInfo, { received: info, sent: info, first: "received" });
        assert.deepEqual(await ws.close({ closeCode: 3000 }), info);
      });
    });
  }

  it("A Close leaves closeInfo undefined before, and tells who was the first", async () => {
    await inBothRoles(async (ws, peer) => {
      assert.equal(ws.closeInfo, undefined);
      ws.close({ closeCode: 3001, reason: "mine" });
      const sent = { closeCode: 3001, reason: "mine" };
      assert.deepEqual(ws.closeInfo, { sent, first: "sent" });
      await peer.answerClose(3002, "yours");
      await ws.closed;
      const received = { closeCode: 3002, reason: "yours" };
      assert.deepEqual(ws.closeInfo, { sent, received, first: "sent" });
    });
  });

  it("A Close while messages wait to be sent is not clean", async () => {
    await inBothRoles(
      async (ws, peer) => {
        const writer = ws.writable.getWriter();
        const reader = ws.readable.getReader();
        peer.transport.pause();
        const writes = [writer.write(pattern(200_000)), writer.write("b")];
        await rest();
        peer.send(closeFrame(4000, "gone"));
        const errors = await Promise.all(writes.map((write) => rejection(write)));
        assert.equal(errors[0].name, "InvalidStateError");
        assert.equal(errors[1], errors[0]);
        assert.equal(await rejection(writer.write("later")), errors[0]);
        assert.equal(await rejection(writer.closed), errors[0]);
        peer.transport.resume();
        const error = await rejection<WithCode>(ws.closed);
        assert.ok(error instanceof WebSocketError);
        assert.equal(error.closeCode, 4000);
        assert.equal(error.reason, "gone");
        assert.equal((await reader.read()).done, true);
      },
      {},
      TIGHT,
    );
  });

  it("A Close while messages wait ends a loop as its code says", async () => {
    for (const closeCode of [1000, 1001, undefined, 4000]) {
      await inBothRoles(
        async (ws, peer) => {
          peer.transport.pause();
          ws.send(pattern(200_000)).catch(() => {});
          peer.send(textFrame("a"), closeFrame(closeCode));
          const read: unknown[] = [];
          const loop = (async () => {
            for await (const message of ws) read.push(message);
          })();
          if (closeCode === 4000) await assert.rejects(loop, { closeCode });
          else await loop;
          assert.deepEqual(read, ["a"]);
          const error = await rejection<WithCode>(ws.closed);
          assert.equal(error.closeCode, closeCode ?? 1005);
          assert.equal(errorCodeOf(error), "unsent");
          assert.match(error.message, /^The peer has closed while messages waited to be sent \(/);
        },
        {},
        TIGHT,
      );
    }
  });

  it("A Close while a long broadcast waits is not clean", async () => {
    await inBothRoles(
      async (ws, peer) => {
        peer.transport.pause();
        broadcast([ws], "x".repeat(100_000));
        peer.send(closeFrame(1000));
        const { message } = await rejection(ws.closed);
        assert.match(message, /^The peer has closed while messages waited to be sent \(/);
      },
      {},
      TIGHT,
    );
  });

  /** Waits for the turn in which the transport has closed. */
  async function cutOff(ws: WebSocketConnection): Promise<void> {
    const { closing } = driverOf(ws);
    while (closing.transport !== "closed") {
      await new Promise<void>((resolve) => setImmediate(resolve));
    }
  }

  it("A Close that cannot be answered any more is not clean", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"), closeFrame(4000, "gone"));
      peer.transport.fail(new Error("reset"));
      const error = await rejection<WithCode>(ws.closed);
      assert.deepEqual([error.closeCode, error.reason], [4000, "gone"]);
      assert.equal(errorCodeOf(error), "connection-lost");
      assert.match(error.message, /^The peer has closed before it was answered \(/);
      assert.equal(ws.signal.aborted, true);
      assert.equal(await ws.receive(), "a");
    });
  });

  it("Bytes that were changed before the transport was lost are the reason", async () => {
    // A client masks a copy of the bytes.
    const [ws, peer] = await withPeer("server", {}, TIGHT);
    peer.transport.pause();
    const bytes = pattern(20_000);
    void ws.send(bytes).catch(() => {});
    await rest();
    structuredClone(bytes, { transfer: [bytes.buffer as ArrayBuffer] });
    peer.transport.fail(new Error("reset"));
    assert.equal(errorCodeOf(await rejection(ws.closed)), "bytes-changed");
  });

  it("A Close that is handled after the end is not in closeInfo", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"), textFrame("b"), closeFrame(4000));
      await ws.receive();
      // As long as messages are taken, the Close waits.
      await ws.receive();
      assert.equal(driverOf(ws).closing.phase, "draining");
      ws.terminate();
      await rejection(ws.closed);
      await rest();
      assert.equal(ws.state, "closed");
      assert.equal(ws.closeInfo, undefined);
    });
  });

  it("terminate() ends a connection whose transport has just closed", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"));
      await until(() => ws.stats.messagesReceived === 1);
      peer.transport.fail(new Error("reset"));
      await cutOff(ws);
      ws.terminate();
      await rejection(ws.closed);
      assert.equal(ws.signal.aborted, true);
    });
  });

  it("A failure while input waits for room lets the transport end", async () => {
    await inBothRoles(async (ws, peer) => {
      for (let i = 0; i < 20; i++) peer.send(binaryFrame(pattern(10_000)));
      await until(() => ws.stats.paused);
      await rejection(ws.send((function* () {
        yield "a";
        yield "b";
        throw new Error("source");
      })()));
      await assert.rejects(ws.closed, { closeCode: 1011 });
      assert.equal(ws.stats.paused, false);
      await until(() => ws.signal.aborted);
    }, { closeTimeout: 0 });
  });

  it("A Close is in the messages of errors, in its order", async () => {
    const mine = 'sent 4001 "mine"';
    const yours = 'received 4002 "yours"';
    await inBothRoles(async (ws, peer) => {
      void ws.close({ closeCode: 4001, reason: "mine" });
      const late = async () => (await rejection(ws.send("late"))).message;
      assert.equal(await late(), `Cannot send: the connection is closing (${mine})`);
      await peer.answerClose(4002, "yours");
      await ws.closed;
      assert.equal(await late(), `Cannot send: the connection is closed (${mine}; then ${yours})`);
      assert.match((await rejection(ws.receive())).message, /\(sent .*; then received .*\)$/);
    });
    await inBothRoles(async (ws, peer) => {
      peer.send(closeFrame(4002));
      await ws.closed;
      const { message } = await rejection(ws.send("late"));
      assert.match(message, /\(received 4002; then sent 4002\)$/);
    });
    await inBothRoles(async (ws) => {
      ws.terminate();
      const { message } = await rejection(ws.send("late"));
      assert.match(message, /\(no Close frame either way\)$/);
    });
  });

  it("A Close of a handler that has returned need not wait for it", async () => {
    const handler = (ws: WebSocketConnection) =>
      void (async () => {
        await ws.receive();
        await ws.readable.cancel();
      })();
    await withServer({}, async (server) => {
      const ws = await connect(server.url!);
      await ws.send("a");
      assert.equal((await ws.closed).closeCode, 1005);
    }, handler);
  });

  it("A Close in the middle of a fragmented message ends it", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a", false), closeFrame(1000));
      assert.deepEqual(await collect(ws), []);
      assert.equal((await ws.closed).closeCode, 1000);
    });
  });

  it("Nothing after the peer's Close frame is read", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.polite = false;
      peer.send(textFrame("a"), closeFrame(1000), textFrame("b"), closeFrame(4000));
      peer.write(peer.badFrame);
      await peer.nextClose();
      peer.transport.end();
      assert.deepEqual(await collect(ws), ["a"]);
      assert.equal((await ws.closed).closeCode, 1000);
    });
  });
});

describe("What a cancelled readable closes with", () => {
  const stop = new DOMException("", "AbortError");
  const own = new WebSocketError("", { closeCode: 4001 });
  const fault = new Error("fault");
  /** The code at once, when `closed` is read, and when the handler returns or throws. */
  const table: [rule: LeaveRule, reason: unknown, ...codes: (number | undefined)[]][] = [
    ["direct", undefined, 1005, 1005, 1005, 1005],
    ["direct", own, 4001, 4001, 4001, 4001],
    ["direct", fault, 1011, 1011, 1011, 1011],
    ["standard", undefined, 1005, 1005, 1005, 1005],
    ["standard", own, 4001, 4001, 4001, 4001],
    ["standard", fault, 1005, 1005, 1005, 1005],
    ["handler", undefined, undefined, 1000, 1000, 1011],
    ["handler", stop, undefined, 1005, 1005, 1011],
    ["handler", own, 4001, 4001, 4001, 4001],
    ["handler", fault, 1011, 1011, 1011, 1011],
  ];
  for (const [rule, reason, ...codes] of table) {
    it(`A readable cancelled with ${reason ?? "nothing"} closes by the rule ${rule}`, async () => {
      const nexts: ((ws: WebSocketConnection) => unknown)[] = [
        () => {},
        (ws) => ws.closed,
        (ws) => driverOf(ws).closing.handlerSettled(false),
        (ws) => driverOf(ws).closing.handlerSettled(true),
      ];
      for (const [i, next] of nexts.entries()) {
        await inBothRoles(async (ws) => {
          driverOf(ws).closing.leaveRule = rule;
          await ws.readable.cancel(reason);
          next(ws);
          await rest();
          assert.equal(ws.closeInfo?.sent?.closeCode, codes[i], `${next}`);
        });
      }
    });
  }

  it("A readable may be cancelled when closed was read before", async () => {
    await inBothRoles(async (ws) => {
      driverOf(ws).closing.leaveRule = "handler";
      ws.closed.catch(() => {});
      await ws.readable.cancel();
      await rest();
      assert.equal(ws.closeInfo?.sent?.closeCode, 1000);
    });
  });
});

describe("What is left after the end of a connection", () => {
  it("No timer but that of closeTimeout is left after close(), and none after the end", async () => {
    await inVirtualTime(async (time) => {
      const [client, server] = await pair();
      const { closing } = driverOf(client);
      assert.equal(time.waiting, 2, "each end has a timer for its pings");
      server.readable.getReader();
      await time.advance(100);
      const began = performance.now();
      const closed = client.close();
      assert.equal(time.waiting, 2, "one is for closeTimeout instead");
      await closed;
      assert.equal(closing.startedAt, began);
      await time.advance(100);
      assert.equal(time.waiting, 0);
      await Promise.all([client.close({ closeCode: 4000 }), server.close()]);
      assert.deepEqual([time.waiting, closing.startedAt], [0, began]);
    });
  });

  it("No timer is left after the transport is lost, whatever waits to be read", async () => {
    await inVirtualTime(async (time) => {
      const [client, server] = await pair();
      for (let i = 0; i < 20; i++) void server.send(pattern(10_000));
      await time.advance(10);
      assert.equal(client.stats.paused, true);
      const lost = rejection(client.closed);
      (driverOf(server).transport as MemoryTransport).fail(new Error("reset"));
      await lost;
      assert.equal(time.waiting, 0);
      await client.close();
      assert.equal(time.waiting, 0);
    });
  });

  it("isOwnError() knows the errors of this end only", async () => {
    const [client, server] = await pair();
    for (const value of [undefined, null, "a", new Error("a")]) {
      assert.equal(client.isOwnError(value), false, String(value));
    }
    await server.close();
    const refused = await rejection(client.send("a"));
    const ended = await rejection(client.receive());
    for (const error of [refused, ended]) {
      assert.deepEqual([client.isOwnError(error), server.isOwnError(error)], [true, false]);
    }
    assert.equal(client.isOwnError(undefined), false);
  });
});
