import { describe } from "node:test";
import assert from "node:assert/strict";
import { it } from "./it.ts";
import { connect, relay, WebSocketError, WebSocketStream } from "../mod.ts";
import type { CloseInfo, Message, WebSocketConnection } from "../mod.ts";
import type { RelayEnd } from "../lib/connection/relay.ts";
import { pair } from "../lib/testing.ts";
import { FakeSocket } from "./native_sockets.ts";
import { collect, rejection, still, withServer } from "./support.ts";
import { inVirtualTime } from "./virtual_time.ts";

const INVALID_STATE = { name: "InvalidStateError" };

interface Chain {
  /** The outer ends, which the relay does not use. */
  client: WebSocketConnection;
  backend: WebSocketConnection;
  relayed: ReturnType<typeof relay>;
}

/** A client and a backend, with a relay between them. */
async function chain(options?: Parameters<typeof relay>[2]): Promise<Chain> {
  const [client, near] = await pair();
  const [far, backend] = await pair();
  return { client, backend, relayed: relay(near, far, options) };
}

/** An end that the test controls: what it receives, whether it takes what is sent, and how it ends. */
class FakeEnd implements RelayEnd {
  readonly sent: Message[] = [];
  /** What the relay has ended it with. */
  readonly ends: (CloseInfo | "close" | "terminate")[] = [];
  readonly readable: ReadableStream<Message>;
  readonly writable: WritableStream<Message>;
  readonly closed: Promise<Required<CloseInfo>>;
  receives!: ReadableStreamDefaultController<Message>;
  finish!: (info: Required<CloseInfo>) => void;
  fail!: (error: WebSocketError) => void;

  /** @param taking Settles when the end takes a message. */
  constructor(taking: Promise<void> = Promise.resolve()) {
    this.readable = new ReadableStream({
      start: (controller) => void (this.receives = controller),
    });
    this.writable = new WritableStream({
      write: async (message) => {
        await taking;
        this.sent.push(message);
      },
    });
    this.closed = new Promise((resolve, reject) =>
      Object.assign(this, { finish: resolve, fail: reject })
    );
  }

  /** Like a native WebSocket, it closes with 1000 and 3000-4999 only. */
  close(info?: CloseInfo): Promise<unknown> {
    const { closeCode = 1000 } = info ?? {};
    if (closeCode !== 1000 && closeCode < 3000) throw new DOMException("", "InvalidAccessError");
    this.ends.push(info ?? "close");
    return Promise.resolve();
  }

  terminate(): void {
    this.ends.push("terminate");
  }
}

/** All that makes an object an end. */
const WHOLE = { readable: 0, writable: 0, closed: 0, close() {}, terminate() {} };

const NEVER = new Promise<void>(() => {});

describe("relay", () => {
  it("relay() passes text and bytes both ways", async () => {
    const { client, backend, relayed } = await chain();
    for (const [from, to] of [[client, backend], [backend, client]]) {
      await from.send("Hello");
      await from.send(Uint8Array.of(1, 2));
      assert.equal(await to.receive(), "Hello");
      assert.deepEqual(await to.receive(), Uint8Array.of(1, 2));
    }
    await client.close({ closeCode: 1000 });
    await relayed;
  });

  for (const side of ["client", "backend"] as const) {
    const other = side === "client" ? "backend" : "client";

    it(`relay() passes on the code and reason of the ${side}, after its messages`, async () => {
      const ends = await chain();
      await ends[side].send("last");
      void ends[side].close({ closeCode: 4000, reason: "bye" });
      assert.equal(await ends[other].receive(), "last");
      assert.deepEqual(await ends[other].closed, { closeCode: 4000, reason: "bye" });
      const both = { closeCode: 4000, reason: "bye" };
      assert.deepEqual(await ends.relayed, [both, both]);
    });

    it(`relay() passes on a Close of the ${side} without a code`, async () => {
      const ends = await chain();
      void ends[side].close();
      assert.deepEqual(await ends[other].closed, { closeCode: 1005, reason: "" });
      const codes = (await ends.relayed).map(({ closeCode }) => closeCode);
      assert.deepEqual(codes, [1005, 1005]);
    });

    it(`relay() cuts the other side when the ${side} is lost`, async () => {
      const ends = await chain();
      ends[side].terminate();
      const error = await rejection<Error & { closeCode: number }>(ends[other].closed);
      assert.equal(error.closeCode, 1006);
      const codes = (await ends.relayed).map(({ closeCode }) => closeCode);
      assert.deepEqual(codes, [1006, 1006]);
    });
  }

  it("relay() passes on why its own end has failed", async () => {
    const [client, near] = await pair({ server: { maxMessageSize: 10 } });
    const [far, backend] = await pair();
    const relayed = relay(near, far);
    await client.send("x".repeat(11));
    assert.equal((await backend.closed).closeCode, 1009);
    assert.equal((await relayed)[0].closeCode, 1009);
  });

  it("relay() reads no faster than the other side takes", async () => {
    const { client, backend, relayed } = await chain();
    let sent = 0;
    const sending = (async () => {
      for (; sent < 200; sent++) await client.send(new Uint8Array(65536));
    })();
    const taken = await still(() => sent);
    assert.ok(taken < 100, `${taken} messages were taken, which nobody reads`);
    for (let i = 0; i < 200; i++) await backend.receive();
    await sending;
    await backend.close({ closeCode: 1000 });
    await relayed;
  });

  it("relay() closes both with 1001 when its signal aborts", async () => {
    const controller = new AbortController();
    const { client, backend, relayed } = await chain({ signal: controller.signal });
    controller.abort();
    const codes = [await client.closed, await backend.closed].map(({ closeCode }) => closeCode);
    assert.deepEqual(codes, [1001, 1001]);
    await relayed;
  });

  for (const how of ["is cut", "stops to answer"]) {
    it(`relay() cuts a side that does not read when the other one ${how}`, async () => {
      const noPings = { pingInterval: 0 };
      const [client, near] = await pair({
        client: noPings,
        server: { pingInterval: 100, pingTimeout: 100 },
      });
      const [far, backend] = await pair({ client: noPings, server: noPings });
      const relayed = relay(near, far);
      const sending = (async () => {
        while (client.state === "open") await client.send(new Uint8Array(65536));
      })().catch(() => {});
      await still(() => client.stats.messagesSent);
      if (how === "is cut") client.terminate();
      // The timer of a ping does not keep the process running.
      const awake = setInterval(() => {}, 1000);
      const codes = (await relayed).map(({ closeCode }) => closeCode);
      clearInterval(awake);
      // A paused end may notice the cut only by its ping.
      assert.deepEqual(codes, [1011, 1006]);
      const error = await rejection<Error & { closeCode: number }>(collect(backend));
      assert.equal(error.closeCode, 1006);
      client.terminate();
      await sending;
    });
  }

  it("relay() delivers what was received before a side is lost", async () => {
    const [client, near] = await pair();
    const [far, backend] = await pair();
    const relayed = relay(near, far);
    const sending = (async () => {
      while (client.state === "open") await client.send(new Uint8Array(65536));
    })().catch(() => {});
    await still(() => client.stats.messagesSent);
    near.terminate();
    await rejection(near.closed);
    const before = backend.stats.messagesReceived;
    await new Promise((resolve) => setTimeout(resolve, 50));
    await rejection(collect(backend));
    assert.ok(before < near.stats.messagesReceived, "messages waited");
    assert.equal(backend.stats.messagesReceived, near.stats.messagesReceived);
    await relayed;
    client.terminate();
    await sending;
  });

  it("relay() refuses what is not a connection, and says what to write", async () => {
    await withServer({}, async (server) => {
      const ws = await connect(server.url!);
      const stream = new WebSocketStream(server.url!);
      const promise = connect(server.url!);
      for (
        const [values, message] of [
          [[ws, promise], /^Expected two connections, received an object: await connect\(\)$/],
          [[ws, stream], /: write \(await stream\.opened\)\.connection$/],
          [[server, ws], /: write server\.connections$/],
          [[ws, new FakeSocket()], /: write await fromWebSocket\(socket\)$/],
          [[ws, { readable: ws.readable, writable: ws.writable }], /received an object$/],
          ...["readable", "writable", "closed", "close", "terminate"].map((name) => [
            [ws, Object.fromEntries(Object.entries(WHOLE).filter(([member]) => member !== name))],
            /^Expected two connections, received an object/,
          ]),
          [[ws], /^Expected two connections, received undefined$/],
          [[], /received undefined$/],
          [[null, ws], /received null$/],
          [[ws, "ws://localhost"], /received a string$/],
        ] as [unknown, RegExp][]
      ) {
        const error = { name: "TypeError", code: "wrong-type", message };
        await assert.rejects(relay(...values as Parameters<typeof relay>), error);
      }
      const { connection } = await stream.opened;
      const other = await promise;
      await Promise.all([ws, connection, other].map((one) => one.close({ closeCode: 1000 })));
    });
  });

  it("relay() refuses the same connection twice, and locked connections", async () => {
    const [client, server] = await pair();
    const [other] = await pair();
    await assert.rejects(relay(client, client), TypeError);
    await assert.rejects(relay(client, other, { timeout: 1 } as never), TypeError);
    const reader = client.readable.getReader();
    await assert.rejects(relay(client, other), INVALID_STATE);
    reader.releaseLock();
    other.discard();
    await assert.rejects(relay(client, other), INVALID_STATE);
    await server.close();
  });

  it("relay() gives the other side 500 ms after a failure, and any time after a close", async () => {
    const failure = new WebSocketError("", { closeCode: 4001, reason: "why" });
    await inVirtualTime(async (time) => {
      const [lost, stuck] = [new FakeEnd(), new FakeEnd(NEVER)];
      void relay(lost, stuck);
      lost.receives.enqueue("a");
      await time.advance(1);
      lost.receives.error(failure);
      lost.fail(failure);
      await time.advance(499);
      assert.deepEqual(stuck.ends, []);
      await time.advance(1);
      assert.deepEqual(stuck.ends, ["terminate"]);

      const [left, slow] = [new FakeEnd(), new FakeEnd(NEVER)];
      void relay(left, slow);
      left.receives.enqueue("a");
      left.receives.close();
      left.finish({ closeCode: 1000, reason: "" });
      await time.advance(3_600_000);
      assert.deepEqual(slow.ends, []);
    });
  });

  it("relay() ends the other side once, whatever the end", async () => {
    const reason = "why";
    // A native WebSocket cannot send 1000 to 2999, so that these become 4000 to 5999.
    const table: [end: Required<CloseInfo> | WebSocketError, ends: unknown[], code: number][] = [
      [{ closeCode: 1000, reason }, [{ closeCode: 1000, reason }], 1000],
      [{ closeCode: 1001, reason }, [{ closeCode: 4001, reason }], 1001],
      [{ closeCode: 3000, reason }, [{ closeCode: 3000, reason }], 3000],
      [{ closeCode: 1005, reason: "" }, ["close"], 1005],
      [new WebSocketError("", { closeCode: 4001, reason }), [{ closeCode: 4001, reason }], 4001],
      [new WebSocketError("no code"), ["terminate"], 1006],
    ];
    for (const [end, ends, code] of table) {
      await inVirtualTime(async (time) => {
        const [a, b] = [new FakeEnd(), new FakeEnd()];
        const relayed = relay(a, b);
        a.receives.enqueue("last");
        await time.advance(1);
        if (end instanceof WebSocketError) {
          a.fail(end);
          a.receives.error(end);
        } else {
          a.finish(end);
          a.receives.close();
        }
        await time.advance(1000);
        assert.deepEqual([b.sent, b.ends, a.ends], [["last"], ends, []]);
        assert.equal(b.writable.locked, false);
        await b.writable.getWriter().write("own");
        assert.deepEqual(b.sent.slice(1), ["own"], "the relay neither closes nor aborts it");
        b.finish({ closeCode: 1000, reason: "" });
        b.receives.close();
        await time.advance(1000);
        assert.equal((await relayed)[0].closeCode, code);
        assert.equal(time.waiting, 0);
      });
    }
  });

  it("relay() no longer listens to its signal when both sides have ended", async () => {
    const controller = new AbortController();
    const [a, b] = [new FakeEnd(), new FakeEnd()];
    const relayed = relay(a, b, { signal: controller.signal });
    for (const end of [a, b]) {
      end.finish({ closeCode: 3000, reason: "" });
      end.receives.close();
    }
    await relayed;
    const before = [a.ends.length, b.ends.length];
    controller.abort();
    assert.deepEqual([a.ends.length, b.ends.length], before);
  });
});
