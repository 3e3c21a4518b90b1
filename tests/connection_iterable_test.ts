import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { Buffer } from "node:buffer";
import type { Message, OutgoingMessage, SendOptions, WebSocketConnection } from "../mod.ts";
import { pattern, utf8 } from "./bytes.ts";
import {
  brief,
  type BriefFrame,
  closeFrame,
  frames,
  inBothRoles,
  isPending,
  type RawPeer,
  rejection,
  rest,
  Tap,
} from "./support.ts";

const INVALID_STATE = { name: "InvalidStateError" };

describe("WebSocketConnection.send of several frames", () => {
  async function* asynchronously<T>(...items: T[]) {
    yield* items;
  }
  const abc: BriefFrame[] = [
    ["text", "a", false],
    ["more", "b", false],
    ["more", "c", false],
  ];
  const sources: [
    name: string,
    make: () => OutgoingMessage,
    frames: BriefFrame[],
  ][] = [
    ["an array", () => ["a", "b", "c"], [abc[0], abc[1], ["more", "c", true]]],
    ["an array of one", () => ["a"], [["text", "a", true]]],
    ["an array of bytes", () => [utf8("a"), utf8("b")], [
      ["binary", "a", false],
      ["more", "b", true],
    ]],
    ["a generator", () => asynchronously("a", "b", "c"), [...abc, ["more", "", true]]],
    ["a stream", () => ReadableStream.from(["a", "b", "c"]), [...abc, ["more", "", true]]],
    ["a stream of bytes", () => ReadableStream.from([utf8("a")]), [
      ["binary", "a", false],
      ["more", "", true],
    ]],
  ];
  for (const [name, make, expected] of sources) {
    it(`send() sends the items of ${name} as frames of one message`, async () => {
      const seen: BriefFrame[] = [];
      await inBothRoles(async (ws, peer) => {
        await ws.send(make());
        assert.equal(ws.stats.messagesSent, 1);
        assert.deepEqual(await frames(peer, expected.length), expected);
        assert.deepEqual(seen.splice(0), expected);
        await ws.send("next");
        assert.deepEqual(await frames(peer, 1), [["text", "next", true]]);
        seen.splice(0);
      }, { onFrame: (direction, frame) => void (direction === "out" && seen.push(brief(frame))) });
    });
  }

  it("send() of no items sends nothing", async () => {
    await inBothRoles(async (ws, peer) => {
      await ws.send([]);
      await ws.send(asynchronously<Message>());
      assert.equal(ws.stats.messagesSent, 0);
      await ws.send("a");
      assert.deepEqual(await frames(peer, 1), [["text", "a", true]]);
    });
  });

  it("send() takes each item as it is when it comes, be its buffer used again", async () => {
    await inBothRoles(async (ws, peer) => {
      for (const bytes of [new Uint8Array(1), Buffer.alloc(1)]) {
        const items = function* () {
          for (bytes[0] = 97; bytes[0] < 100; bytes[0]++) yield bytes;
        };
        await ws.send(items());
        assert.deepEqual((await frames(peer, 3)).map(([, text]) => text), ["a", "b", "c"]);
      }
    });
  });

  it("send() waits until an earlier message is complete; control frames do not", async () => {
    await inBothRoles(async (ws, peer) => {
      const source = new Tap<Message>();
      const writer = ws.writable.getWriter();
      const sent = ws.send(source.items);
      source.give("a");
      assert.deepEqual(await frames(peer, 1), [["text", "a", false]]);
      const others = [ws.send("x"), writer.write("y"), ws.send(["z"])];
      for (const other of others) assert.equal(await isPending(other), true);
      ws.ping("p");
      assert.deepEqual(await frames(peer, 1), [["ping", "p", true]]);
      source.give("b");
      assert.deepEqual(await frames(peer, 1), [["more", "b", false]]);
      source.end();
      await Promise.all([sent, ...others]);
      assert.deepEqual(await frames(peer, 4), [
        ["more", "", true],
        ["text", "x", true],
        ["text", "y", true],
        ["text", "z", true],
      ]);
    });
  });

  it("send() that waits for its turn can be taken back", async () => {
    await inBothRoles(async (ws, peer) => {
      const source = new Tap<Message>();
      const sent = ws.send(source.items);
      source.give("a");
      const controller = new AbortController();
      const { signal } = controller;
      const aborted = [ws.send("x", { signal }), ws.send(["y"], { signal })];
      const kept = ws.send("z", { signal: new AbortController().signal });
      await rest();
      controller.abort(new Error("enough"));
      for (const other of aborted) await assert.rejects(other, { message: "enough" });
      source.end();
      await Promise.all([sent, kept]);
      assert.deepEqual(await frames(peer, 3), [
        ["text", "a", false],
        ["more", "", true],
        ["text", "z", true],
      ]);
    });
  });

  /** Sends items that fail after the first one has been sent, and returns the error. */
  async function failMidway(
    ws: WebSocketConnection,
    peer: RawPeer,
    items: OutgoingMessage,
    options?: SendOptions,
  ): Promise<unknown> {
    const error = await rejection(ws.send(items, options));
    assert.equal((await peer.next()).fin, false);
    const { closeCode } = await peer.nextClose();
    assert.equal(closeCode, 1011);
    const closed = await rejection<Error & { closeCode: number }>(ws.closed);
    assert.equal(closed.closeCode, 1011);
    assert.equal(closed.cause, error);
    return error;
  }

  it("send() of items of both types fails the connection with 1011", async () => {
    const items = ["a", utf8("b"), "c"];
    for (const make of [() => items, () => ReadableStream.from(items)]) {
      await inBothRoles(async (ws, peer) => {
        assert.ok(await failMidway(ws, peer, make()) instanceof TypeError);
      });
    }
  });

  it("send() of items that throw half-way fails the connection with 1011", async () => {
    const fault = new Error("fault");
    const synchronous = function* () {
      yield "a";
      yield "b";
      throw fault;
    };
    const asynchronous = async function* () {
      yield "a";
      throw fault;
    };
    for (const make of [synchronous, asynchronous]) {
      await inBothRoles(async (ws, peer) => {
        assert.equal(await failMidway(ws, peer, make()), fault);
      });
    }
  });

  it("send() of items that throw before the first leaves the connection open", async () => {
    const fault = new Error("fault");
    const synchronous = () => ({
      [Symbol.iterator]: () => ({
        next: () => {
          throw fault;
        },
      }),
    });
    const asynchronous = () => ({
      [Symbol.asyncIterator]: () => ({ next: () => Promise.reject(fault) }),
    });
    const stream = () => new ReadableStream<string>({ start: (it) => it.error(fault) });
    await inBothRoles(async (ws, peer) => {
      for (const make of [synchronous, asynchronous, stream]) {
        assert.equal(await rejection(ws.send(make())), fault);
      }
      await ws.send("a");
      assert.deepEqual(await frames(peer, 1), [["text", "a", true]]);
    });
  });

  it("send() that is aborted half-way fails the connection with 1011", async () => {
    await inBothRoles(async (ws, peer) => {
      const source = new Tap<Message>();
      const controller = new AbortController();
      source.give("a");
      const failed = failMidway(ws, peer, source.items, { signal: controller.signal });
      await rest();
      const reason = new Error("enough");
      controller.abort(reason);
      assert.equal(await failed, reason);
      source.give("b");
      await rest();
      assert.equal(source.returned, true);
    });
  });

  it("send() that waits for an item rejects when the connection closes", async () => {
    await inBothRoles(async (ws, peer) => {
      const source = new Tap<Message>();
      source.give("a");
      const sent = ws.send(source.items);
      await peer.next();
      const behind = ws.send("x");
      ws.close();
      await assert.rejects(sent, INVALID_STATE);
      await assert.rejects(behind, INVALID_STATE);
      await assert.rejects(ws.send("y"), INVALID_STATE);
      await peer.answerClose();
      assert.equal((await ws.closed).closeCode, 1000);
    });
  });

  it("send() that waits for an item rejects when the peer closes, which is not clean", async () => {
    await inBothRoles(async (ws, peer) => {
      const source = new Tap<Message>();
      source.give("a");
      const sent = ws.send(source.items);
      await peer.next();
      peer.send(closeFrame(1000));
      await assert.rejects(sent, INVALID_STATE);
      await assert.rejects(ws.send("y"), INVALID_STATE);
      assert.equal((await rejection<Error & { closeCode: number }>(ws.closed)).closeCode, 1000);
    });
  });

  it("send() that waits for an item rejects when the connection is lost", async () => {
    await inBothRoles(async (ws, peer) => {
      const source = new Tap<Message>();
      source.give("a");
      const sent = ws.send(source.items);
      await peer.next();
      ws.terminate();
      assert.ok(await rejection(sent));
      assert.ok(await rejection(ws.send("y")));
      assert.ok(await rejection(ws.send(["z"])));
    });
  });

  it("send() takes items no faster than the peer reads", async () => {
    await inBothRoles(
      async (ws, peer) => {
        peer.transport.pause();
        let made = 0;
        const items = async function* () {
          for (; made < 100; made++) yield pattern(10_000);
        };
        const sent = ws.send(items());
        assert.equal(await isPending(sent), true);
        assert.ok(made < 10, `${made} items were taken`);
        peer.transport.resume();
        await sent;
        assert.equal(made, 100);
      },
      {},
      { capacity: 0 },
    );
  });

  /** A stream that never gives an item, and the reasons that it was cancelled with. */
  function silent(): { stream: ReadableStream<string>; cancelled: unknown[] } {
    const cancelled: unknown[] = [];
    const stream = new ReadableStream<string>({
      pull: () => new Promise<void>(() => {}),
      cancel: (reason) => void cancelled.push(reason),
    });
    return { stream, cancelled };
  }

  it("send() cancels a silent stream when the connection ends or has ended", async () => {
    await inBothRoles(async (ws) => {
      const [before, after] = [silent(), silent()];
      const sending = rejection(ws.send(before.stream));
      await rest();
      ws.terminate();
      const error = await sending;
      assert.deepEqual(before.cancelled, [error]);
      const late = await rejection(ws.send(after.stream));
      assert.deepEqual(after.cancelled, [late]);
    });
  });

  it("send() of items after close() says that the connection is closing", async () => {
    await inBothRoles(async (ws) => {
      await ws.send(["a", "b"]);
      void ws.close({ closeCode: 1000 });
      const { message } = await rejection<Error>(ws.send(["late"]));
      assert.equal(message, "Cannot send: the connection is closing (sent 1000)");
      ws.terminate();
    });
  });

  it("send() cancels a stream that is aborted before or in its turn", async () => {
    await inBothRoles(async (ws) => {
      const sources = [silent(), silent()];
      const controllers = sources.map(() => new AbortController());
      const sending = sources.map(({ stream }, i) =>
        rejection(ws.send(stream, { signal: controllers[i].signal }))
      );
      const reason = new Error("enough");
      for (const i of [1, 0]) {
        await rest();
        controllers[i].abort(reason);
        assert.equal(await sending[i], reason);
        await rest();
        assert.deepEqual(sources[i].cancelled, [reason]);
      }
    });
  });
});
