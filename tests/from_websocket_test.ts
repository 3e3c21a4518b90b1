import { describe } from "node:test";
import assert from "node:assert/strict";
import { it } from "./it.ts";
import type { Message, WebSocketError } from "../mod.ts";
import { concat, pattern } from "./bytes.ts";
import { KINDS, type NativeInit, type NativePair } from "./native_sockets.ts";
import { collect, rejection, still, until } from "./support.ts";

/** Runs a test over each kind of native WebSocket. */
function overEach(
  title: string,
  run: (pair: NativePair) => unknown,
  init?: NativeInit,
): void {
  for (const { title: kind, skip, open } of KINDS) {
    it(`fromWebSocket over ${kind}: ${title}`, { skip }, async () => {
      const pair = await open(init);
      try {
        await run(pair);
      } finally {
        await pair.stop();
      }
    });
  }
}

/** Checks the code: the platform sends it unchanged, or sends one for private use instead. */
const oneOf = (code: number, ...codes: number[]) =>
  assert.ok(codes.includes(code), `${code} is one of ${codes}`);

describe("fromWebSocket: messages", () => {
  const SIZES = [0, 1, 125, 126, 65535, 65536, 300_000];
  const MESSAGES: Message[] = SIZES.flatMap((size) => [pattern(size), "é".repeat(size >> 1)]);

  overEach("messages of both types and each size come back in order", async ({ ours, peer }) => {
    const echo = peer.readable.pipeTo(peer.writable);
    const sending = (async () => {
      for (const message of MESSAGES) await ours.send(message);
    })();
    for (const message of MESSAGES) assert.deepEqual(await ours.receive(), message);
    await sending;
    const bytes = MESSAGES.reduce((sum, { length }) => sum + length, 0);
    assert.equal(ours.stats.bytesSent, bytes);
    assert.equal(ours.stats.bytesReceived, bytes);
    await ours.close({ closeCode: 1000 });
    await echo;
  });

  overEach("it echoes by a pipe, which ends with the peer's Close", async ({ ours, peer }) => {
    const echo = ours.readable.pipeTo(ours.writable);
    const messages = Array.from({ length: 500 }, (_, i) => i % 2 ? `text ${i}` : pattern(i));
    const sending = (async () => {
      for (const message of messages) await peer.send(message);
    })();
    for (const message of messages) assert.deepEqual(await peer.receive(), message);
    await sending;
    await peer.close({ closeCode: 1000 });
    await echo;
    assert.deepEqual(await ours.closed, { closeCode: 1000, reason: "" });
  });

  overEach("what came before the first read is kept", async ({ ours, peer }) => {
    await until(() => ours.stats.messagesReceived === 3);
    await peer.close({ closeCode: 1001 });
    assert.deepEqual(await collect(ours), ["one", new Uint8Array([2]), "three"]);
  }, {
    first: async (peer) => {
      for (const message of ["one", new Uint8Array([2]), "three"]) await peer.send(message);
    },
  });

  overEach("messages() gives a stream of one chunk a message", async ({ ours, peer }) => {
    await peer.send("one");
    await peer.send([pattern(10), pattern(5)]);
    await peer.close();
    const got: unknown[] = [];
    for await (
      const { type, readable } of ours.messages() as unknown as AsyncIterable<{
        type: string;
        readable: ReadableStream<Message>;
      }>
    ) got.push([type, await collect(readable)]);
    assert.deepEqual(got, [
      ["text", ["one"]],
      ["binary", [concat([pattern(10), pattern(5)])]],
    ]);
  });

  overEach("a message in pieces is sent whole, and others behind it", async ({ ours, peer }) => {
    const pieces = ReadableStream.from(["one ", "", "two"]);
    const sends = [ours.send(pieces), ours.send([pattern(10), pattern(70000)]), ours.send("last")];
    assert.equal(await peer.receive(), "one two");
    assert.deepEqual(await peer.receive(), concat([pattern(10), pattern(70000)]));
    assert.equal(await peer.receive(), "last");
    await Promise.all(sends);
  });

  overEach("bytes that are changed behind send() were copied", async ({ ours, peer }) => {
    const bytes = pattern(100);
    const sent = ours.send(bytes);
    bytes.fill(0);
    await sent;
    assert.deepEqual(await peer.receive(), pattern(100));
  });
});

describe("fromWebSocket: closing", () => {
  const OURS: [info: { closeCode?: number; reason?: string }, code: number, reason: string][] = [
    [{}, 1005, ""],
    [{ closeCode: 1000 }, 1000, ""],
    [{ reason: "done" }, 1000, "done"],
    [{ closeCode: 3000, reason: "é" }, 3000, "é"],
    [{ closeCode: 4999, reason: "bye" }, 4999, "bye"],
  ];
  for (const [info, closeCode, reason] of OURS) {
    overEach(`it closes with ${JSON.stringify(info)}`, async ({ ours, peer }) => {
      await ours.send("before");
      const closing = ours.close(info);
      assert.equal(ours.state, "closing");
      assert.deepEqual(
        await collect(peer).catch((error) => error.closeCode),
        closeCode < 3000 ? ["before"] : closeCode,
      );
      assert.deepEqual(await peer.closed, { closeCode, reason });
      assert.equal((await closing).closeCode, closeCode);
      assert.equal((await ours.closed).closeCode, closeCode);
      assert.equal(ours.state, "closed");
      assert.equal(ours.closeInfo?.first, "sent");
      assert.equal((await rejection(ours.send("late"))).name, "InvalidStateError");
    });
  }

  const THEIRS: [closeCode: number | undefined, reason: string, ends: boolean][] = [
    [undefined, "", true],
    [1000, "done", true],
    [1001, "", true],
    [1011, "ouch", false],
    [4000, "bye", false],
  ];
  for (const [closeCode, reason, ends] of THEIRS) {
    overEach(`the peer closes with ${closeCode}`, async ({ ours, peer }) => {
      await peer.send("before");
      await peer.close({ closeCode, reason });
      assert.equal(await ours.receive(), "before");
      const read = collect(ours);
      if (ends) assert.deepEqual(await read, []);
      else assert.equal((await rejection<WebSocketError>(read)).closeCode, closeCode);
      const info = { closeCode: closeCode ?? 1005, reason };
      assert.deepEqual(await ours.closed, info);
      assert.deepEqual(ours.closeInfo, { received: info, sent: info, first: "received" });
      // Node's own WebSocket answers with the code alone.
      assert.equal((await peer.closed).closeCode, info.closeCode);
    });
  }

  overEach("codes that a native WebSocket does not send are refused", async ({ ours, peer }) => {
    for (const closeCode of [999, 1001, 1006, 1011, 2999, 5000]) {
      assert.throws(() => ours.close({ closeCode }), RangeError);
    }
    assert.throws(() => ours.close({ closeCode: 3000, reason: "*".repeat(124) }), RangeError);
    assert.throws(() => ours.close({ closeCode: "1000" } as never), TypeError);
    assert.equal(ours.state, "open");
    await ours.send("still");
    assert.equal(await peer.receive(), "still");
  });

  overEach("a peer that vanishes is an error", async ({ ours, peer }) => {
    await peer.send("before");
    await until(() => ours.stats.messagesReceived === 1);
    peer.terminate();
    const error = await rejection<WebSocketError>(ours.closed);
    assert.deepEqual([error.name, error.closeCode], ["WebSocketError", 1006]);
    assert.equal(await ours.receive(), "before");
    assert.equal(await rejection(ours.receive()), error);
  });

  overEach("terminate() lets go at once", async ({ ours, peer }) => {
    const reading = rejection<WebSocketError>(ours.receive());
    ours.terminate();
    assert.equal((await rejection<WebSocketError>(ours.closed)).closeCode, 1006);
    assert.equal((await reading).closeCode, 1006);
    assert.equal(ours.state, "closed");
    await peer.closed.catch(() => {});
  });

  overEach("`await using` closes with 1000", async ({ ours, peer }) => {
    await ours[Symbol.asyncDispose]();
    assert.equal((await peer.closed).closeCode, 1000);
  });
});

describe("fromWebSocket: what a native WebSocket cannot do", () => {
  overEach("there are no pings", async ({ ours }) => {
    assert.equal((await rejection(ours.ping())).name, "NotSupportedError");
    assert.equal((await rejection(ours.pong())).name, "NotSupportedError");
    assert.equal(ours.latency, undefined);
  });

  overEach("a message too long fails the connection behind those before", async (pair) => {
    const { ours, peer } = pair;
    await peer.send("short");
    await peer.send("é".repeat(600));
    const error = await rejection<WebSocketError>(ours.closed);
    assert.equal(error.closeCode, 1009);
    oneOf((await peer.closed).closeCode, 1009, 4009);
    assert.equal(await ours.receive(), "short");
    assert.equal(await rejection(ours.receive()), error);
  }, { maxMessageSize: 1000 });

  overEach("what is not read piles up to maxQueuedBytes", async ({ ours, peer }) => {
    // Two messages fill the inbox, and eight more may wait. No message follows the eleventh: a platform that
    // stops reading would reset the connection because of it, and the Close frame would be lost.
    for (let i = 0; i < 11; i++) await peer.send(pattern(60_000 + i));
    const error = await rejection<WebSocketError>(ours.closed);
    assert.equal(error.closeCode, 1013);
    for (let i = 0; i < 10; i++) assert.deepEqual(await ours.receive(), pattern(60_000 + i));
    assert.equal(await rejection(ours.receive()), error);
    oneOf((await peer.closed).closeCode, 1013, 4013);
  }, { maxQueuedBytes: 500_000 });

  overEach("a reader that keeps up gets more than maxQueuedBytes", async ({ ours, peer }) => {
    const count = 200;
    const sending = (async () => {
      for (let i = 0; i < count; i++) {
        await peer.send(pattern(10_000));
        assert.equal((await ours.receive()).length, 10_000);
      }
    })();
    await sending;
  }, { maxQueuedBytes: 50_000 });

  overEach("a message in pieces is gathered up to maxQueuedBytes", async ({ ours, peer }) => {
    async function* endless() {
      for (;;) {
        await Promise.resolve();
        yield "*".repeat(1000);
      }
    }
    await ours.send("before");
    assert.ok(await rejection(ours.send(endless())) instanceof RangeError);
    assert.equal((await rejection<WebSocketError>(ours.closed)).closeCode, 1011);
    assert.equal(await peer.receive(), "before");
    oneOf((await peer.closed).closeCode, 1011, 4011);
  }, { maxQueuedBytes: 50_000 });

  overEach("sends wait for a peer that does not read", async ({ ours, peer }) => {
    const payload = pattern(65536);
    let sent = 0;
    let stopped = false;
    const sending = (async () => {
      for (; !stopped; sent += payload.length) await ours.send(payload);
    })();
    await until(() => sent > 0);
    const stalled = await still(() => sent);
    assert.ok(stalled < 32 * 1024 * 1024, `${stalled} bytes were taken`);
    assert.ok(ours.bufferedAmount > 0);
    stopped = true;
    peer.discard();
    await sending;
    await ours.send("all");
    await until(() => ours.bufferedAmount === 0);
    await until(() => peer.stats.messagesReceived === sent / payload.length + 1);
    await ours.close();
  });

  overEach("what it knows of the handshake", ({ ours, peer, socket }) => {
    assert.equal(peer.protocol, "chat");
    // Deno's server does not report the subprotocol.
    assert.equal(ours.protocol, socket.url === "" ? "" : "chat");
    assert.equal(ours.response.status, 101);
    assert.equal(ours.response.headers.get("sec-websocket-protocol") ?? "", ours.protocol);
    assert.equal(ours.remoteAddress, undefined);
    assert.equal(typeof ours.extensions, "string");
  }, { subprotocol: "chat" });

  overEach("the request of the option is copied", ({ ours }) => {
    assert.equal(ours.request.url, "http://example.com/path?query");
    assert.equal(ours.request.headers.get("x-name"), "value");
  }, { request: new Request("http://example.com/path?query", { headers: { "X-Name": "value" } }) });
});
