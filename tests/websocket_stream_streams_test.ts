import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { type CloseInfo, WebSocketError, type WebSocketOpenInfo, WebSocketStream } from "../mod.ts";

import { pattern } from "./bytes.ts";
import { closeFrame, frames, isPending, rejection, rest, until, urlOf } from "./support.ts";
import { withPeer, withServer } from "./websocket_stream_support.ts";

type WithCode = DOMException & { closeCode: number; reason: string };

describe("The streams of a WebSocketStream", () => {
  it("readable gives text as strings and binary as bytes", async () => {
    await withServer(async (server, accepted) => {
      const stream = new WebSocketStream(urlOf(server));
      const { readable } = await stream.opened;
      await until(() => accepted.length === 1);
      await accepted[0].send("a");
      await accepted[0].send(pattern(3));
      const reader = readable.getReader();
      assert.equal((await reader.read()).value, "a");
      const { value } = await reader.read();
      assert.ok(value instanceof Uint8Array);
      assert.deepEqual(new Uint8Array(value), pattern(3));
    });
  });

  it("readable takes messages of any size, and no pings are sent", async () => {
    await withServer(async (server, accepted) => {
      const stream = new WebSocketStream(urlOf(server));
      const { readable } = await stream.opened;
      await until(() => accepted.length === 1);
      const large = pattern(3_000_000);
      const sent = accepted[0].send(large);
      const { value } = await readable.getReader().read();
      assert.deepEqual(value, large);
      await sent;
    });
  });

  const chunks: [name: string, chunk: () => unknown, frame: [string, string]][] = [
    ["a string", () => "a\u20ac", ["text", "a\u20ac"]],
    ["bytes", () => pattern(2), ["binary", "\0\x07"]],
    ["an ArrayBuffer", () => pattern(2).buffer, ["binary", "\0\x07"]],
    ["a DataView", () => new DataView(pattern(4).buffer, 0, 2), ["binary", "\0\x07"]],
    ["a number", () => 1.5, ["text", "1.5"]],
    ["null", () => null, ["text", "null"]],
    ["undefined", () => undefined, ["text", "undefined"]],
    ["an object", () => ({}), ["text", "[object Object]"]],
    ["an array", () => [1, 2], ["text", "1,2"]],
    ["a Date", () => ({ [Symbol.toPrimitive]: () => "own" }), ["text", "own"]],
    ["a lone surrogate", () => "\ud800", ["text", "\ufffd"]],
  ];
  it("writable converts chunks as the standard says", async () => {
    await withPeer(async (_, { writable }, peer) => {
      const writer = writable.getWriter();
      for (const [name, chunk, frame] of chunks) {
        await writer.write(chunk() as string);
        assert.deepEqual(await frames(peer, 1), [[...frame, true]], name);
      }
    });
  });

  const refused: [name: string, chunk: () => unknown][] = [
    ["a symbol", () => Symbol("a")],
    ["a shared buffer", () => new SharedArrayBuffer(1)],
    ["a view of one", () => new Uint8Array(new SharedArrayBuffer(1))],
    ["a resizable buffer", () => new ArrayBuffer(1, { maxByteLength: 2 })],
    ["a view of that", () => new Uint8Array(new ArrayBuffer(1, { maxByteLength: 2 }))],
  ];
  for (const [name, chunk] of refused) {
    it(`writable rejects the write of ${name} with a TypeError`, async () => {
      await withPeer(async (_, { writable }) => {
        await assert.rejects(writable.getWriter().write(chunk() as string), TypeError);
      });
    });
  }

  it("writable copies at the write", async () => {
    for (const length of [4, 100_000]) {
      await withPeer(async (_, { writable }, peer) => {
        const bytes = pattern(length);
        const written = writable.getWriter().write(bytes);
        bytes.fill(0);
        await written;
        assert.deepEqual((await peer.next()).payload, pattern(length));
      });
    }
  });

  it("writable stops resolving writes when the peer does not read", async () => {
    await withPeer(async (_, { writable }, peer) => {
      peer.transport.pause();
      const writer = writable.getWriter();
      let written = 0;
      const writing = (async () => {
        for (; written < 100; written++) await writer.write(pattern(50_000));
      })();
      assert.equal(await isPending(writing), true);
      assert.ok(written < 10, `${written} were written`);
      peer.transport.resume();
      await writing;
    });
  });

  it("writable that is closed sends an empty Close, and waits for the closing handshake", async () => {
    await withPeer(async (stream, { writable }, peer) => {
      const closing = writable.close();
      assert.deepEqual(await peer.nextClose(), { closeCode: 1005, reason: "" });
      assert.equal(await isPending(closing), true);
      peer.polite = false;
      peer.send(closeFrame());
      assert.equal(await isPending(closing), true);
      peer.transport.end();
      await closing;
      assert.deepEqual(await stream.closed, { closeCode: 1005, reason: "" });
    });
  });

  const reasons: [name: string, reason: unknown, sent: Required<CloseInfo>][] = [
    [
      "a WebSocketError",
      new WebSocketError("", { closeCode: 3333, reason: "r" }),
      { closeCode: 3333, reason: "r" },
    ],
    ["one with a reason alone", new WebSocketError("", { reason: "r" }), {
      closeCode: 1000,
      reason: "r",
    }],
    ["one without either", new WebSocketError("a"), { closeCode: 1005, reason: "" }],
    ["nothing", undefined, { closeCode: 1005, reason: "" }],
    ["a string", "a", { closeCode: 1005, reason: "" }],
    ["a plain object", { closeCode: 3333, reason: "r" }, { closeCode: 1005, reason: "" }],
    ["a DOMException", new DOMException("a", "DataCloneError"), { closeCode: 1005, reason: "" }],
  ];
  const leaving: Record<string, (info: WebSocketOpenInfo, reason: unknown) => Promise<void>> = {
    "readable.cancel": ({ readable }, reason) => readable.cancel(reason),
    "reader.cancel": ({ readable }, reason) => readable.getReader().cancel(reason),
    "writable.abort": ({ writable }, reason) => writable.abort(reason),
    "writer.abort": ({ writable }, reason) => writable.getWriter().abort(reason),
  };
  for (const [how, leave] of Object.entries(leaving)) {
    it(`${how}() sends the code and reason of a WebSocketError, else an empty Close`, async () => {
      for (const [name, reason, sent] of reasons) {
        await withPeer(async (stream, info, peer) => {
          const left = leave(info, reason);
          assert.deepEqual(await peer.nextClose(), sent, name);
          peer.send(closeFrame(sent.closeCode === 1005 ? undefined : sent.closeCode, sent.reason));
          await left;
          assert.deepEqual(await stream.closed, sent);
        });
      }
    });
  }

  it("readable.cancel() with a code that an endpoint may not send sends an empty Close", async () => {
    await withPeer(async (lost) => {
      // The error of an end without a Close frame carries 1006.
      const info = await lost.opened;
      info.connection.terminate();
      const abnormal = await rejection<WithCode>(lost.closed);
      assert.equal(abnormal.closeCode, 1006);
      await withPeer(async (stream, { readable }, peer) => {
        const cancelled = readable.cancel(abnormal);
        assert.deepEqual(await peer.nextClose(), { closeCode: 1005, reason: "" });
        peer.send(closeFrame());
        await cancelled;
        await stream.closed;
      });
    });
  });
});

describe("The end of a WebSocketStream", () => {
  for (const closeCode of [undefined, 1000, 1001, 1008, 3000, 4999]) {
    it(`A close by the peer with ${closeCode ?? "no code"} is clean`, async () => {
      await withServer(async (server, accepted) => {
        const stream = new WebSocketStream(urlOf(server));
        const { readable, writable } = await stream.opened;
        await until(() => accepted.length === 1);
        const order: string[] = [];
        const note = (name: string) => () => void order.push(name);
        const reader = readable.getReader();
        const writer = writable.getWriter();
        reader.closed.then(note("readable closes"), note("readable errors"));
        writer.closed.then(note("writable closes"), note("writable errors"));
        stream.closed.then(note("closed resolves"), note("closed rejects"));
        const reason = closeCode === undefined ? "" : "r";
        accepted[0].close({ closeCode, reason });
        assert.deepEqual(await stream.closed, { closeCode: closeCode ?? 1005, reason });
        await until(() => order.length === 3);
        assert.deepEqual(order, ["readable closes", "writable errors", "closed resolves"]);
        assert.equal((await reader.read()).done, true);
        assert.equal((await rejection(writer.closed)).name, "InvalidStateError");
      });
    });
  }

  it("A clean close settles although messages are unread, which can still be read", async () => {
    await withServer(async (server, accepted) => {
      const stream = new WebSocketStream(urlOf(server));
      const { readable } = await stream.opened;
      await until(() => accepted.length === 1);
      for (let i = 0; i < 10; i++) accepted[0].send(`${i}`);
      accepted[0].close({ closeCode: 1000 });
      assert.equal((await stream.closed).closeCode, 1000);
      const reader = readable.getReader();
      for (let i = 0; i < 10; i++) assert.equal((await reader.read()).value, `${i}`);
      assert.equal((await reader.read()).done, true);
    });
  });

  it("An end without a Close gives readable, writable and closed the same error", async () => {
    await withServer(async (server, accepted) => {
      const stream = new WebSocketStream(urlOf(server));
      const { readable, writable } = await stream.opened;
      await until(() => accepted.length === 1);
      accepted[0].terminate();
      const error = await rejection<WithCode>(stream.closed);
      assert.ok(error instanceof WebSocketError);
      assert.equal(error.closeCode, 1006);
      assert.equal(await rejection(readable.getReader().read()), error);
      const writer = writable.getWriter();
      assert.equal(await rejection(writer.write("a")), error);
      assert.equal(await rejection(writer.closed), error);
    });
  });

  it("An end without a Close after ours was sent is unclean, 1006", async () => {
    await withPeer(async (stream, _, peer) => {
      peer.polite = false;
      stream.close({ closeCode: 1000 });
      await peer.nextClose();
      peer.transport.end();
      const error = await rejection<WithCode>(stream.closed);
      assert.equal(error.closeCode, 1006);
    });
  });

  it("A close by the peer while writes are pending is not clean", async () => {
    await withPeer(async (stream, { readable, writable }, peer) => {
      peer.transport.pause();
      const writer = writable.getWriter();
      const written = writer.write(pattern(500_000));
      await rest();
      peer.send(closeFrame(4000, "r"));
      const refused = await rejection<WithCode>(written);
      assert.equal(refused.name, "InvalidStateError");
      assert.equal(await rejection(writer.write("a")), refused);
      peer.transport.resume();
      const error = await rejection<WithCode>(stream.closed);
      assert.ok(error instanceof WebSocketError);
      assert.deepEqual([error.closeCode, error.reason], [4000, "r"]);
      assert.equal((await readable.getReader().read()).done, true);
    }, 0);
  });

  it("A pipe of its streams resolves when the peer closes", async () => {
    await withServer(async (server, accepted) => {
      const stream = new WebSocketStream(urlOf(server));
      const { readable, writable } = await stream.opened;
      const piped = readable.pipeTo(writable);
      await until(() => accepted.length === 1);
      await accepted[0].send("a");
      assert.equal(await accepted[0].receive(), "a");
      accepted[0].close({ closeCode: 1000 });
      await piped;
      assert.equal((await stream.closed).closeCode, 1000);
    });
  });
});
