import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { connect, serve, WebSocketError } from "../mod.ts";
import { driverOf } from "../lib/connection/connection.ts";
import { pattern, utf8 } from "./bytes.ts";
import {
  binaryFrame,
  closeFrame,
  continuation,
  frames,
  giveUpRead,
  inBothRoles,
  isPending,
  rejection,
  rest,
  textFrame,
  turn,
  until,
  urlOf,
} from "./support.ts";

type WithCode = Error & { closeCode: number; reason: string };

const TIGHT = { capacity: 0 };
const ABNORMAL = { closeCode: 1006, reason: "" };

describe("The order of errors", () => {
  const ends = {
    "a Close": (peer: { encode(frame: ReturnType<typeof closeFrame>): Uint8Array }) =>
      peer.encode(closeFrame(1000)),
    "a bad frame": (peer: { badFrame: Uint8Array }) => peer.badFrame,
  };
  for (const [name, encode] of Object.entries(ends)) {
    it(`The echo of a message leaves before what answers ${name} in the same chunk`, async () => {
      await inBothRoles(async (ws, peer) => {
        const echo = (async () => {
          for await (const message of ws) await ws.send(message);
        })();
        echo.catch(() => {});
        peer.write(peer.encode(textFrame("a")), encode(peer as never));
        assert.deepEqual((await frames(peer, 2)).map(([type]) => type), ["text", "close"]);
      });
    });

    it(`Five hundred echoes leave before what answers ${name} in the same chunk`, async () => {
      await inBothRoles(async (ws, peer) => {
        ws.readable.pipeTo(ws.writable).catch(() => {});
        const messages = Array.from({ length: 500 }, (_, i) => peer.encode(textFrame(`${i}`)));
        peer.write(...messages, encode(peer as never));
        const got = await frames(peer, 501);
        assert.deepEqual(got.slice(0, 500).map(([, text]) => +text), [...messages.keys()]);
        assert.equal(got[500][0], "close");
      });
    });

    it(`Messages before ${name} can be read long after it`, async () => {
      await inBothRoles(async (ws, peer) => {
        peer.write(peer.encode(textFrame("a")), peer.encode(textFrame("b")), encode(peer as never));
        await until(() => ws.state !== "open");
        peer.transport.end();
        await until(() => ws.state === "closed");
        assert.equal(await ws.receive(), "a");
        assert.equal(await ws.receive(), "b");
        await assert.rejects(ws.receive(), { name: "WebSocketError" });
      });
    });
  }

  it("Messages before the end of the transport are delivered, then 1006", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"), textFrame("b"), textFrame("part", false));
      peer.transport.end();
      const error = await rejection<WithCode>(ws.closed);
      assert.equal(error.closeCode, 1006);
      assert.equal(await ws.receive(), "a");
      assert.equal(await ws.receive(), "b");
      assert.equal(await rejection(ws.receive()), error);
    });
  });

  it("A message that comes after a read was given up is delivered before 1006", async () => {
    await inBothRoles(async (ws, peer) => {
      await giveUpRead(ws.readable);
      peer.write(peer.encode(textFrame("a")));
      await until(() => ws.stats.messagesReceived === 1);
      peer.transport.destroy();
      await rejection(ws.closed);
      const reader = ws.readable.getReader();
      assert.deepEqual(await reader.read(), { done: false, value: "a" });
      assert.equal((await rejection<WithCode>(reader.read())).closeCode, 1006);
      assert.equal((await rejection<WithCode>(reader.closed)).closeCode, 1006);
    });
  });

  it("A message that comes after a read was given up is delivered before a clean close", async () => {
    await inBothRoles(async (ws, peer) => {
      await giveUpRead(ws.readable);
      peer.write(peer.encode(textFrame("a")), peer.encode(closeFrame(1000)));
      await until(() => peer.frames.length > 0);
      peer.transport.end();
      await ws.closed;
      const reader = ws.readable.getReader();
      assert.deepEqual(await reader.read(), { done: false, value: "a" });
      await reader.closed;
    });
  });

  it("Messages before a reset are delivered, then 1006 with its cause", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"), textFrame("b"));
      await until(() => ws.stats.messagesReceived === 2);
      const reset = new Error("reset");
      peer.transport.fail(reset);
      const error = await rejection<WithCode>(ws.closed);
      assert.equal(error.closeCode, 1006);
      assert.equal(error.cause, reset);
      assert.equal(await ws.receive(), "a");
      assert.equal(await ws.receive(), "b");
      assert.equal(await rejection(ws.receive()), error);
    });
  });

  it("Messages that wait for room in the inbox are delivered before 1006", async () => {
    await inBothRoles(async (ws, peer) => {
      for (let i = 0; i < 30; i++) peer.send(binaryFrame(pattern(10_000)));
      peer.transport.end();
      await until(() => ws.stats.paused);
      for (let i = 0; i < 30; i++) assert.deepEqual(await ws.receive(), pattern(10_000));
      await assert.rejects(ws.receive(), { closeCode: 1006 });
    });
  });

  it("Messages before invalid text are delivered, and the reason says what was wrong", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"), {
        fin: false,
        opcode: 1,
        payload: Uint8Array.of(0xce, 0xba, 0xff),
      });
      peer.send(continuation("never read"));
      const { closeCode, reason } = await peer.nextClose();
      assert.equal(closeCode, 1007);
      assert.match(reason, /UTF-8/);
      assert.equal(await ws.receive(), "a");
      await assert.rejects(ws.receive(), { closeCode: 1007 });
    });
  });
});

describe("The end of a connection", () => {
  it("A clean close closes readable, errors writable a turn later, then settles closed", async () => {
    await inBothRoles(async (ws, peer) => {
      const order: string[] = [];
      const note = (name: string) => () => void order.push(name);
      ws.readable.getReader().closed.then(note("readable closes"), note("readable errors"));
      const writer = ws.writable.getWriter();
      writer.closed.then(note("writable closes"), note("writable errors"));
      ws.closed.then(note("closed resolves"), note("closed rejects"));
      peer.send(closeFrame(1000));
      await until(() => order.length === 3);
      assert.deepEqual(order, ["readable closes", "writable errors", "closed resolves"]);
      assert.equal((await rejection(writer.closed)).name, "InvalidStateError");
    });
  });

  it("A clean close errors a writable that is made after it", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(closeFrame(1000));
      await ws.closed;
      const writer = ws.writable.getWriter();
      assert.equal((await rejection(writer.closed)).name, "InvalidStateError");
      assert.equal((await rejection(writer.write("a"))).name, "InvalidStateError");
    });
  });

  it("A pipe from readable to writable resolves when the peer closes", async () => {
    for (const closeCode of [1000, 1001, undefined, 4000]) {
      await inBothRoles(async (ws, peer) => {
        const piped = ws.readable.pipeTo(ws.writable);
        peer.send(textFrame("a"), textFrame("b"));
        await frames(peer, 2);
        peer.send(closeFrame(closeCode));
        await piped;
        assert.equal((await ws.closed).closeCode, closeCode ?? 1005);
      });
    }
  });

  it("A pipe over sockets resolves on both sides", async () => {
    const piped: Promise<void>[] = [];
    const server = await serve({}, (ws) => {
      const done = ws.readable.pipeTo(ws.writable);
      piped.push(done);
      return done;
    });
    for (let i = 0; i < 10; i++) {
      const ws = await connect(urlOf(server));
      const writer = ws.writable.getWriter();
      const reader = ws.readable.getReader();
      for (let j = 0; j < 10; j++) {
        await writer.write(`${j}`);
        assert.equal((await reader.read()).value, `${j}`);
      }
      if (i % 2 === 0) await ws.close({ closeCode: 1000 });
      else await writer.close();
      assert.equal((await reader.read()).done, true);
    }
    await Promise.all(piped);
    await server.shutdown();
  });

  it("An unclean end gives readable, writable and closed the same error", async () => {
    await inBothRoles(async (ws, peer) => {
      const reader = ws.readable.getReader();
      const writer = ws.writable.getWriter();
      peer.transport.destroy();
      const error = await rejection<WithCode>(ws.closed);
      assert.ok(error instanceof WebSocketError);
      assert.equal(error.closeCode, 1006);
      assert.equal(await rejection(reader.read()), error);
      assert.equal(await rejection(reader.closed), error);
      assert.equal(await rejection(writer.closed), error);
      assert.equal(await rejection(writer.write("a")), error);
      const late = await rejection<Error>(ws.send("a"));
      assert.equal(late.name, "InvalidStateError");
      assert.equal(late.cause, error);
    });
  });

  it("terminate() ends the transport at once; closed rejects with 1006", async () => {
    await inBothRoles(async (ws, peer) => {
      const waiting = [ws.receive(), ws.ping()];
      ws.terminate();
      ws.terminate();
      const error = await rejection<WithCode>(ws.closed);
      assert.equal(error.closeCode, 1006);
      for (const promise of waiting) assert.equal(await rejection(promise), error);
      await until(() => peer.ended);
      assert.equal(ws.state, "closed");
      assert.equal(peer.frames.filter(({ opcode }) => opcode === 8).length, 0);
      assert.deepEqual(await ws.close(), ABNORMAL);
    });
  });

  it("terminate() cuts a connection that is closing, and a peer that does not read", async () => {
    await inBothRoles(
      async (ws, peer) => {
        peer.transport.pause();
        const sent = ws.send(pattern(300_000));
        const closing = ws.close();
        ws.terminate();
        assert.deepEqual(await closing, ABNORMAL);
        assert.ok(await rejection(sent));
      },
      { closeTimeout: 0 },
      TIGHT,
    );
  });

  it("terminate() after both Close frames leaves the close clean", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.polite = false;
      ws.close({ closeCode: 1000 });
      await peer.nextClose();
      peer.send(closeFrame(1000));
      await until(() => ws.closeInfo?.received !== undefined);
      ws.terminate();
      assert.equal((await ws.closed).closeCode, 1000);
    });
  });

  it("If the peer ends its side without a Close, this side ends too", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.polite = false;
      peer.transport.end();
      await assert.rejects(ws.closed, { closeCode: 1006 });
      await until(() => peer.ended);
      assert.equal(peer.frames.length, 0);
    });
  });

  it("A peer that ends its side after its Close frame gets ours", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.polite = false;
      peer.send(closeFrame(1000));
      peer.transport.end();
      assert.equal((await peer.nextClose()).closeCode, 1000);
      assert.equal((await ws.closed).closeCode, 1000);
      await until(() => peer.ended);
    }, { closeTimeout: 0 });
  });

  it("A reader that cancels and a writer that aborts close the connection", async () => {
    const reasons: [reason: unknown, closeCode: number, text: string][] = [
      [new WebSocketError("", { closeCode: 4001, reason: "mine" }), 4001, "mine"],
      [new WebSocketError("", { reason: "mine" }), 1000, "mine"],
      [new WebSocketError("no code"), 1005, ""],
      [{ closeCode: 4001, reason: "mine" }, 1005, ""],
      [new DOMException("", "AbortError"), 1005, ""],
      [undefined, 1005, ""],
    ];
    for (const [reason, closeCode, text] of reasons) {
      await inBothRoles(async (ws, peer) => {
        const cancelled = ws.readable.cancel(reason);
        assert.deepEqual(await peer.nextClose(), { closeCode, reason: text });
        peer.send(closeFrame(1000));
        await cancelled;
        await ws.closed;
      });
      await inBothRoles(async (ws, peer) => {
        const aborted = ws.writable.abort(reason);
        assert.deepEqual(await peer.nextClose(), { closeCode, reason: text });
        peer.send(closeFrame(1000));
        await aborted;
        await ws.closed;
      });
    }
  });

  for (const way of ["readable", "messages()"]) {
    it(`Cancelling ${way} with waiting messages lets the close finish`, async () => {
      await inBothRoles(async (ws, peer) => {
        const readable = way === "readable" ? ws.readable : ws.messages();
        for (let i = 0; i < 20; i++) peer.send(binaryFrame(pattern(10_000)));
        await until(() => ws.stats.paused);
        await readable.cancel();
        assert.equal(ws.stats.queued, 0);
        await peer.nextClose();
        for (let i = 0; i < 20; i++) peer.send(binaryFrame(pattern(10_000)));
        peer.send(closeFrame());
        assert.equal((await ws.closed).closeCode, 1005);
      }, { closeTimeout: 0 });
    });

    it(`Cancelling ${way} in a handler goes on reading to the peer's Close`, async () => {
      await inBothRoles(async (ws, peer) => {
        driverOf(ws).closing.leaveRule = "handler";
        const readable = way === "readable" ? ws.readable : ws.messages();
        for (let i = 0; i < 20; i++) peer.send(binaryFrame(pattern(10_000)));
        await until(() => ws.stats.paused);
        await readable.cancel();
        peer.send(closeFrame(4000));
        assert.equal((await peer.nextClose()).closeCode, 4000);
      });
    });
  }

  it("A writer that aborts while a write waits for the peer still closes", async () => {
    await inBothRoles(
      async (ws, peer) => {
        peer.transport.pause();
        const writer = ws.writable.getWriter();
        const written = writer.write(pattern(200_000));
        written.catch(() => {});
        await rest();
        const aborted = writer.abort();
        aborted.catch(() => {});
        await until(() => ws.state !== "open");
        peer.transport.resume();
        await peer.next();
        assert.equal((await peer.nextClose()).closeCode, 1005);
        peer.send(closeFrame());
        await ws.closed;
      },
      {},
      TIGHT,
    );
  });

  it("A writer that closes waits for the whole closing handshake", async () => {
    await inBothRoles(async (ws, peer) => {
      const writer = ws.writable.getWriter();
      const closing = writer.close();
      assert.equal((await peer.nextClose()).closeCode, 1005);
      assert.equal(await isPending(closing), true);
      peer.send(closeFrame(1000));
      await closing;
      await writer.closed;
      assert.equal((await ws.closed).closeCode, 1000);
    });
  });

  it("A writer that closes gets the error of an end that is not clean", async () => {
    await inBothRoles(async (ws, peer) => {
      const closing = ws.writable.getWriter().close();
      await peer.nextClose();
      peer.transport.destroy();
      const error = await rejection(closing);
      assert.equal(error, await rejection(ws.closed));
    });
  });

  it("An onFrame that throws fails only its connection, with 1011", async () => {
    const fault = new Error("fault");
    for (const seen of ["in", "out"]) {
      await inBothRoles(async (ws, peer) => {
        ws.send("a").catch(() => {});
        peer.send(textFrame("b"), { opcode: 9, payload: utf8("") });
        const error = await rejection<WithCode>(ws.closed);
        assert.equal(error.closeCode, 1011);
        assert.equal(error.cause, fault);
        await until(() => peer.frames.some(({ opcode }) => opcode === 8));
        await turn();
      }, {
        onFrame: (direction) => {
          if (direction === seen) throw fault;
        },
      });
    }
  });
});
