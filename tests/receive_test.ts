import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { errorCodeOf, WebSocketError } from "../mod.ts";
import type { IncomingMessage, Message, WebSocketConnection } from "../mod.ts";
import { fragment } from "../lib/core/message.ts";
import { Budget, Inbox } from "../lib/connection/inbox.ts";
import {
  checkMode,
  closeInfoOf,
  type Mode,
  Receiver,
  type ReceiverHost,
} from "../lib/connection/receiver.ts";
import { webSocketError } from "../lib/core/error.ts";
import type { InboxStrategy } from "../lib/options.ts";
import { concat, pattern, utf8 } from "./bytes.ts";
import {
  binaryFrame,
  closeFrame,
  collect,
  continuation,
  inBothRoles,
  isPending,
  pingFrame,
  rejection,
  rest,
  textFrame,
  until,
  withPeer,
} from "./support.ts";

const INVALID_STATE = { name: "InvalidStateError" };

/** Each way to read a connection. Errors at the end are ignored. */
const MODES: Record<string, (ws: WebSocketConnection) => unknown> = {
  receive: (ws) => void ws.receive().catch(() => {}),
  iteration: (ws) => ws[Symbol.asyncIterator](),
  batches: (ws) => ws.batches(),
  readable: (ws) => ws.readable,
  messages: (ws) => ws.messages(),
  discard: (ws) => ws.discard(),
};

/** Whether the two are the same way to read. */
function sameMode(a: string, b: string): boolean {
  const kind = (mode: string) => /iteration|batches/.test(mode) ? "receive" : mode;
  return kind(a) === kind(b);
}

describe("The reader mode of WebSocketConnection", () => {
  for (const first of Object.keys(MODES)) {
    for (const second of Object.keys(MODES).filter((mode) => !sameMode(first, mode))) {
      it(`WebSocketConnection refuses ${second} after ${first}`, async () => {
        const [ws] = await withPeer("server");
        MODES[first](ws);
        if (second === "receive") await assert.rejects(ws.receive(), INVALID_STATE);
        else assert.throws(() => MODES[second](ws), INVALID_STATE);
        ws.terminate();
      });
    }
  }

  it("WebSocketConnection gives the same stream each time", async () => {
    const [readable] = await withPeer("server");
    assert.equal(readable.readable, readable.readable);
    const [messages] = await withPeer("server");
    assert.equal(messages.messages(), messages.messages());
    readable.terminate();
    messages.terminate();
  });
});

describe("WebSocketConnection.receive", () => {
  it("receive() gives the messages in order: text as strings, binary as bytes", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(
        textFrame("a"),
        binaryFrame(pattern(3)),
        textFrame(""),
        textFrame("gr\u00fc\u00df"),
      );
      assert.equal(await ws.receive(), "a");
      assert.deepEqual(await ws.receive(), pattern(3));
      assert.equal(await ws.receive(), "");
      assert.equal(await ws.receive(), "gr\u00fc\u00df");
    });
  });

  it("receive() puts fragments together, control frames between them", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a", false), pingFrame("1"), continuation("b", false), continuation("c"));
      assert.equal(await ws.receive(), "abc");
      assert.deepEqual((await peer.next()).payload, utf8("1"));
    });
  });

  it("receive() refuses a second call while one waits, which stays good", async () => {
    await inBothRoles(async (ws, peer) => {
      const first = ws.receive();
      await assert.rejects(ws.receive(), INVALID_STATE);
      peer.send(textFrame("a"), textFrame("b"));
      assert.equal(await first, "a");
      assert.equal(await ws.receive(), "b");
    });
  });

  it("receive() with a signal is taken back, and loses nothing", async () => {
    await inBothRoles(async (ws, peer) => {
      const controller = new AbortController();
      const waiting = ws.receive({ signal: controller.signal });
      const reason = new Error("enough");
      controller.abort(reason);
      assert.equal(await rejection(waiting), reason);
      assert.equal(await rejection(ws.receive({ signal: controller.signal })), reason);
      peer.send(textFrame("a"), textFrame("b"));
      assert.equal(await ws.receive(), "a");
      assert.equal(await ws.receive({ signal: new AbortController().signal }), "b");
    });
  });

  it("receive() with a signal that is aborted as the message comes loses nothing", async () => {
    await inBothRoles(async (ws, peer) => {
      for (let i = 0; i < 20; i++) {
        const controller = new AbortController();
        const waiting = ws.receive({ signal: controller.signal });
        peer.send(textFrame(`${i}`));
        for (let turns = 0; turns < i % 5; turns++) {
          await new Promise((done) => setTimeout(done, 0));
        }
        controller.abort();
        const message = await waiting.catch(() => ws.receive());
        assert.equal(message, `${i}`);
      }
    });
  });

  it("receive() rejects with the end of the connection, again at each call", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("last"), closeFrame(1000, "done"));
      assert.equal(await ws.receive(), "last");
      const expected = { name: "WebSocketError", closeCode: 1000, reason: "done" };
      await assert.rejects(ws.receive(), expected);
      await assert.rejects(ws.receive(), expected);
    });
  });

  it("receive() that waits rejects when the transport ends without a Close", async () => {
    await inBothRoles(async (ws, peer) => {
      const waiting = ws.receive();
      peer.transport.destroy();
      await assert.rejects(waiting, { name: "WebSocketError", closeCode: 1006 });
    });
  });
});

describe("Iteration of WebSocketConnection", () => {
  const cases: [closeCode: number | undefined, ends: boolean][] = [
    [1000, true],
    [1001, true],
    [undefined, true],
    [1002, false],
    [1011, false],
    [1012, false],
    [3000, false],
    [4999, false],
  ];
  for (const [closeCode, ends] of cases) {
    it(`Iteration ${ends ? "ends" : "throws"} on ${closeCode ?? "no code"}`, async () => {
      await inBothRoles(async (ws, peer) => {
        peer.send(textFrame("a"), textFrame("b"), closeFrame(closeCode));
        const gathered: Message[] = [];
        const run = (async () => {
          for await (const message of ws) gathered.push(message);
        })();
        if (ends) await run;
        else await assert.rejects(run, { name: "WebSocketError", closeCode });
        assert.deepEqual(gathered, ["a", "b"]);
      });
    });
  }

  it("Iteration throws when the transport ends without a Close", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"));
      peer.transport.end();
      const gathered: Message[] = [];
      await assert.rejects(
        async () => {
          for await (const message of ws) gathered.push(message);
        },
        { name: "WebSocketError", closeCode: 1006 },
      );
      assert.deepEqual(gathered, ["a"]);
    });
  });

  it("Leaving a loop leaves the connection open, and another loop can continue", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"), textFrame("b"), textFrame("c"));
      for await (const message of ws) {
        assert.equal(message, "a");
        break;
      }
      assert.equal(ws.state, "open");
      assert.equal(await ws.receive(), "b");
      for await (const message of ws) {
        assert.equal(message, "c");
        break;
      }
      assert.equal(ws.state, "open");
    });
  });

  it("Iteration gives what had come before it began", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"), closeFrame(1000));
      await ws.closed;
      assert.deepEqual(await collect(ws), ["a"]);
    });
  });
});

describe("WebSocketConnection.readable", () => {
  it("readable gives messages that arrived before and after the stream was taken", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"), binaryFrame(pattern(2)));
      await until(() => ws.stats.messagesReceived === 2);
      const reader = ws.readable.getReader();
      peer.send(textFrame("c"), closeFrame(4000));
      const got = [await reader.read(), await reader.read(), await reader.read()];
      assert.deepEqual(got.map(({ value }) => value), ["a", pattern(2), "c"]);
      assert.equal((await reader.read()).done, true);
    });
  });

  it("readable closes after any clean close, with messages unread", async () => {
    await inBothRoles(async (ws, peer) => {
      const { readable } = ws;
      peer.send(textFrame("a"), textFrame("b"), closeFrame(4000));
      assert.equal((await ws.closed).closeCode, 4000);
      assert.deepEqual(await collect(readable), ["a", "b"]);
    });
  });

  it("readable after the end gives the waiting messages, then closes or errors", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"), closeFrame(1000));
      await ws.closed;
      assert.deepEqual(await collect(ws.readable), ["a"]);
    });
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"));
      peer.transport.end();
      const error = await rejection(ws.closed);
      const reader = ws.readable.getReader();
      assert.equal((await reader.read()).value, "a");
      assert.equal(await rejection(reader.read()), error);
    });
  });

  it("readable gives the messages before an error, then the error of `closed`", async () => {
    await inBothRoles(async (ws, peer) => {
      const reader = ws.readable.getReader();
      peer.write(peer.encode(textFrame("a")), peer.encode(textFrame("b")), peer.badFrame);
      const error = await rejection<DOMException & { closeCode: number }>(ws.closed);
      assert.equal(error.closeCode, 1002);
      assert.equal((await reader.read()).value, "a");
      assert.equal((await reader.read()).value, "b");
      assert.equal(await rejection(reader.read()), error);
      assert.equal(await rejection(reader.closed), error);
    });
  });

  it("readable holds nothing itself: its queue is the connection's", async () => {
    await inBothRoles(async (ws, peer) => {
      const { readable } = ws;
      peer.send(textFrame("a"), textFrame("b"));
      await until(() => ws.stats.queued === 2 * 65);
      await rest();
      assert.equal(ws.stats.queued, 2 * 65);
      const reader = readable.getReader();
      await reader.read();
      assert.equal(ws.stats.queued, 65);
    });
  });
});

describe("WebSocketConnection.discard", () => {
  it("discard() drops all messages, answers pings, and never pauses", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("before"), textFrame("part", false));
      await until(() => ws.stats.messagesReceived === 1);
      ws.discard();
      ws.discard();
      assert.equal(ws.stats.queued, 0);
      peer.send(continuation("rest"), pingFrame("1"));
      assert.deepEqual((await peer.next()).payload, utf8("1"));
      for (let i = 0; i < 10; i++) peer.send(binaryFrame(pattern(50_000)));
      peer.send(pingFrame("2"));
      assert.deepEqual((await peer.next()).payload, utf8("2"));
      const { queued, pauses, messagesReceived } = ws.stats;
      assert.deepEqual({ queued, pauses, messagesReceived }, {
        queued: 0,
        pauses: 0,
        messagesReceived: 12,
      });
    });
  });

  it("discard() resumes a paused connection", async () => {
    await inBothRoles(async (ws, peer) => {
      for (let i = 0; i < 4; i++) peer.send(binaryFrame(pattern(40_000)));
      await until(() => ws.stats.paused);
      ws.discard();
      assert.equal(ws.stats.paused, false);
      peer.send(closeFrame(1000));
      assert.equal((await ws.closed).closeCode, 1000);
    });
  });

  it("discard() still checks the messages", async () => {
    await inBothRoles(async (ws, peer) => {
      ws.discard();
      peer.send({ opcode: 1, payload: Uint8Array.of(0xff) });
      assert.equal((await peer.nextClose()).closeCode, 1007);
      await assert.rejects(ws.closed, { closeCode: 1007 });
    });
  });

  it("discard() leaves send() and close() as they are", async () => {
    await inBothRoles(async (ws, peer) => {
      ws.discard();
      await ws.send("a");
      assert.deepEqual((await peer.next()).payload, utf8("a"));
      const closing = ws.close({ closeCode: 1000 });
      assert.equal(await isPending(closing), true);
      await peer.answerClose();
      assert.deepEqual(await closing, { closeCode: 1000, reason: "" });
    });
  });

  it("messages() drops messages after our Close frame if there is no room", async () => {
    await inBothRoles(async (ws, peer) => {
      const streams = ws.messages().getReader();
      peer.send(binaryFrame(pattern(70_000)));
      await until(() => ws.stats.paused);
      const closing = ws.close();
      for (const fin of [true, false]) peer.send(binaryFrame(pattern(10), fin));
      peer.send(continuation(pattern(10)));
      await peer.answerClose();
      const { value: message } = await streams.read();
      const pieces = await collect<Message>(message!.readable) as Uint8Array[];
      assert.equal(concat(pieces).length, 70_000);
      assert.equal((await streams.read()).done, true);
      assert.equal((await closing).closeCode, 1000);
      assert.equal(ws.stats.messagesReceived, 3);
    });
  });
});

const CLEAN = { clean: true, closeCode: 1000, error: new Error("clean") };
const FAILED = { clean: false, error: new Error("failed") };

describe("Budget", () => {
  it("Budget is full at its limit, and counts what waits and has waited", () => {
    let rooms = 0;
    const budget = new Budget(10, { onRoom: () => rooms++ });
    assert.deepEqual([budget.used, budget.peak, budget.taken, budget.isFull], [0, 0, 0, false]);
    const steps: [
      step: "add" | "remove",
      size: number,
      used: number,
      peak: number,
      full: boolean,
    ][] = [
      ["add", 4, 4, 4, false],
      ["add", 5, 9, 9, false],
      ["add", 1, 10, 10, true],
      ["add", 5, 15, 15, true],
      ["remove", 6, 9, 15, false],
      ["add", 0.5, 9.5, 15, false],
      ["add", 0.25, 9.75, 15, false],
      ["remove", 9, 0.75, 15, false],
      ["remove", 5, 0, 15, false],
    ];
    for (const [step, size, used, peak, full] of steps) {
      budget[step](size);
      assert.deepEqual([budget.used, budget.peak, budget.isFull], [used, peak, full]);
    }
    assert.deepEqual([budget.taken, rooms], [3, 3]);
  });

  it("Budget forgets the inexact rest of sums when nothing waits", () => {
    const budget = new Budget(10);
    for (const size of [0.1, 0.2]) budget.add(size);
    for (const size of [0.1, 0.2]) budget.remove(size);
    assert.equal(budget.used, 0);
  });

  it("Budget tells what would fill it: never nothing", () => {
    const limits: [limit: number, used: number, size: number, fills: boolean][] = [
      [0, 0, 0, false],
      [0, 0, 1, true],
      [1, 0, 1, true],
      [10, 4, 5, false],
      [10, 4, 6, true],
      [Infinity, 4, 1e9, false],
    ];
    for (const [limit, used, size, fills] of limits) {
      const budget = new Budget(limit);
      if (used > 0) budget.add(used);
      assert.equal(budget.wouldFill(size), fills, `${limit} ${used} ${size}`);
    }
    const one = new Budget(1);
    one.add(1);
    assert.equal(one.isFull, true);
  });
});

describe("Inbox", () => {
  const inboxOf = (onRoom: () => void = () => {}) => {
    const budget = new Budget(10, { onRoom });
    return { budget, inbox: new Inbox<number>(budget, (item) => item) };
  };

  it("Inbox gives the items in order with their sizes, however many wait", () => {
    const { budget, inbox } = inboxOf();
    let [added, taken, sum] = [0, 0, 0];
    for (const [adds, takes] of [[1, 1], [2, 1], [4000, 2200], [3000, 4700], [5, 106]]) {
      for (let i = 0; i < adds; i++, sum += added) inbox.push(++added);
      for (let i = 0; i < takes; i++, sum -= taken) assert.equal(inbox.take(), ++taken);
      assert.deepEqual([inbox.length, budget.used], [added - taken, sum]);
    }
    assert.equal(inbox.take(), undefined);
    inbox.push(7);
    inbox.clear();
    assert.deepEqual([inbox.length, budget.used, budget.taken], [0, 0, taken + 1]);
  });

  it("Inbox gives a waiting reader the item or the first end, once", () => {
    const { budget, inbox } = inboxOf();
    const got: unknown[] = [];
    const waiter = { give: (item: number) => got.push(item), end: (end: unknown) => got.push(end) };
    inbox.wait(waiter);
    inbox.push(5);
    assert.deepEqual([got, budget.taken, budget.used, inbox.length], [[5], 1, 0, 0]);
    inbox.wait(waiter);
    inbox.unwait({ give() {}, end() {} });
    inbox.end(CLEAN);
    inbox.end(FAILED);
    inbox.wait(waiter);
    assert.deepEqual(got, [5, CLEAN, CLEAN]);
    const { inbox: other } = inboxOf();
    other.wait(waiter);
    other.unwait(waiter);
    other.end(FAILED);
    assert.equal(got.length, 3);
  });

  for (const end of [CLEAN, FAILED]) {
    const name = end.clean ? "close" : "error";
    const outcome = async (reader: ReadableStreamDefaultReader<number>) =>
      await reader.closed.then(() => "close", (error) => error === FAILED.error ? "error" : error);

    it(`The stream of an Inbox has the ${name} without another read`, async () => {
      const before = inboxOf();
      before.inbox.end(end);
      assert.equal(
        await outcome(before.inbox.stream({ leave: () => {} }, (item) => item).getReader()),
        name,
      );

      const after = inboxOf();
      after.inbox.push(1);
      const reader = after.inbox.stream({ leave: () => {} }, (item) => item * 2).getReader();
      assert.deepEqual(await reader.read(), { done: false, value: 2 });
      after.inbox.end(end);
      assert.equal(await outcome(reader), name);

      const waiting = inboxOf();
      const reading = waiting.inbox.stream({ leave: () => {} }, (item) => item).getReader();
      const read = reading.read();
      read.catch(() => {});
      await rest();
      waiting.inbox.end(end);
      assert.equal(await outcome(reading), name);
      if (end.clean) assert.equal((await read).done, true);
      else assert.equal(await rejection(read), end.error);
    });

    it(`The stream of an Inbox gives what waits before the ${name}`, async () => {
      // Taking the first item makes room, so that the end comes at once.
      const { inbox } = inboxOf(() => inbox.end(end));
      inbox.push(1);
      const reader = inbox.stream({ leave: () => {} }, (item) => item).getReader();
      assert.deepEqual(await reader.read(), { done: false, value: 1 });
      if (!end.clean) await rejection(reader.read());
      assert.equal(await outcome(reader), name);

      const late = inboxOf();
      for (const item of [1, 2]) late.inbox.push(item);
      late.inbox.end(end);
      const other = late.inbox.stream({ leave: () => {} }, (item) => item).getReader();
      for (const value of [1, 2]) assert.deepEqual(await other.read(), { done: false, value });
      if (!end.clean) await rejection(other.read());
      assert.equal(await outcome(other), name);
    });
  }
});

async function texts({ value }: ReadableStreamReadResult<IncomingMessage>): Promise<string[]> {
  return await collect(value!.readable as ReadableStream<string>);
}

/** A receiver whose host notes what it is asked for. */
function receiverOf(strategy?: InboxStrategy) {
  const noted = { rooms: 0, held: 0, left: [] as unknown[], traced: [] as unknown[] };
  const machine = {
    whole: true,
    held: 0,
    takeHeld: () => {
      noted.held++;
      return undefined;
    },
  };
  const host: ReceiverHost = {
    machine,
    onRoom: () => noted.rooms++,
    closing: {
      leave: (reason) => noted.left.push(reason),
      retrace: (error, hasWaited) => {
        noted.traced.push(hasWaited);
        return error;
      },
    },
  };
  const receiver = new Receiver(strategy, host);
  const deliver = (data: Message, late = false) =>
    receiver.deliver(fragment(data, true, true), late);
  return { receiver, deliver, machine, noted };
}

describe("Receiver", () => {
  it("Receiver counts the memory of what waits, and is full at 64 KiB", async () => {
    const { receiver, deliver } = receiverOf();
    deliver("abc");
    deliver(new Uint8Array(3));
    assert.equal(receiver.budget.used, 3 + 64 + 3 + 256);
    const pieces = receiverOf().receiver;
    const reader = pieces.messages().getReader();
    pieces.deliver(fragment("ab", true, false), false);
    pieces.deliver(fragment("c", true, true), false);
    assert.equal(pieces.budget.used, 512 + 2 + 64 + 1 + 64);
    assert.deepEqual(await texts(await reader.read()), ["ab", "c"]);
    assert.equal(pieces.budget.used, 0);
    const { budget } = receiverOf().receiver;
    assert.deepEqual([budget.wouldFill(65535), budget.wouldFill(65536)], [false, true]);
  });

  it("Receiver uses the caller's measure, and refuses what is not a size", () => {
    const sizes: [size: unknown, used: number | undefined][] = [
      [0, 0],
      [1.5, 1.5],
      ["2", 2],
      [-1, undefined],
      [NaN, undefined],
      [Infinity, undefined],
      ["x", undefined],
      [undefined, undefined],
    ];
    for (const [size, used] of sizes) {
      const { receiver, deliver } = receiverOf({ size: () => size as number });
      if (used !== undefined) deliver("a");
      else {
        const message = `Expected readableStrategy.size to return a finite number of at least 0, ` +
          `received ${Number(size)}`;
        assert.throws(() => deliver("a"), { name: "RangeError", message });
      }
      assert.equal(receiver.budget.used, used ?? 0);
    }
  });

  it("Receiver tells whether a reader waits", async () => {
    const { receiver, deliver } = receiverOf();
    assert.equal(receiver.awaited, false);
    const got = receiver.receive();
    assert.equal(receiver.awaited, true);
    deliver("a");
    assert.deepEqual([await got, receiver.awaited], ["a", false]);
    const pieces = receiverOf().receiver;
    const reader = pieces.messages().getReader();
    await rest();
    assert.equal(pieces.awaited, false);
    const read = reader.read();
    await rest();
    assert.equal(pieces.awaited, true);
    pieces.deliver(fragment("a", true, false), false);
    const piece = (await read).value!.readable.getReader();
    assert.equal((await piece.read()).value, "a");
    assert.equal(pieces.awaited, false);
    void piece.read();
    await rest();
    assert.equal(pieces.awaited, true);
  });

  it("Receiver drops late messages without room, and no longer has them assembled", async () => {
    const { receiver, deliver, machine, noted } = receiverOf({ highWaterMark: 1 });
    deliver("a", true);
    assert.equal(machine.whole, true);
    deliver("b", true);
    deliver("c", true);
    assert.deepEqual([machine.whole, noted.held > 0], [false, true]);
    assert.equal(await receiver.receive(), "a");
    deliver("d", true);
    receiver.end(FAILED);
    assert.equal(await rejection(receiver.receive()), FAILED.error);
    assert.equal(receiver.messagesReceived, 4);
  });

  const stops: [name: string, stop: (receiver: Receiver) => unknown, left: unknown[]][] = [
    ["discard()", (receiver) => receiver.discard(), []],
    ["release()", (receiver) => receiver.release(CLEAN), []],
    ["a cancelled readable", (receiver) => receiver.readable.cancel("why"), ["why"]],
    ["cancelled messages()", (receiver) => receiver.messages().cancel("why"), ["why"]],
  ];
  for (const [name, stop, left] of stops) {
    it(`Receiver drops what waits and comes after ${name}`, async () => {
      const { receiver, deliver, machine, noted } = receiverOf();
      deliver("a");
      await stop(receiver);
      assert.deepEqual([receiver.budget.used, receiver.mode], [0, "discard"]);
      assert.deepEqual([machine.whole, noted.held > 0, noted.rooms > 1], [false, true, true]);
      assert.deepEqual(noted.left, left);
      deliver("b");
      assert.equal(receiver.budget.used, 0);
      assert.throws(() => receiver.iterate(), { name: "InvalidStateError" });
    });
  }

  it("Receiver gives a reader that still waits the end when it is released", async () => {
    const { receiver } = receiverOf();
    const waiting = receiver.receive();
    receiver.release(CLEAN);
    assert.equal(await rejection(waiting), CLEAN.error);
  });

  it("Cancelling a message that has arrived leaves the current one", async () => {
    const { receiver } = receiverOf();
    const reader = receiver.messages().getReader();
    const pieces = [["a", true], ["b", false], ["c", false], ["d", true], ["e", true]] as const;
    const deliver = (index: number) =>
      receiver.deliver(fragment(pieces[index][0], true, pieces[index][1]), false);
    for (const index of [0, 1]) deliver(index);
    await (await reader.read()).value!.readable.cancel();
    deliver(2);
    const current = await reader.read();
    deliver(3);
    deliver(4);
    assert.deepEqual(await texts(current), ["b", "c", "d"]);
    assert.deepEqual(await texts(await reader.read()), ["e"]);
  });

  it("messages() drops the rest of a message for which there is no room after close()", async () => {
    const { receiver } = receiverOf({ highWaterMark: 600 });
    const reader = receiver.messages().getReader();
    receiver.deliver(fragment("a", true, false), true);
    receiver.deliver(fragment("b".repeat(600), true, false), true);
    const current = (await reader.read()).value!.readable.getReader();
    // The budget was full when these arrived.
    receiver.deliver(fragment("c", true, false), true);
    receiver.deliver(fragment("d", true, true), true);
    receiver.deliver(fragment("e", true, true), true);
    for (const text of ["a", "b".repeat(600)]) assert.equal((await current.read()).value, text);
    const error = await rejection<Error & { closeCode: number }>(current.read());
    assert.deepEqual([error.closeCode, errorCodeOf(error)], [1000, "dropped"]);
    receiver.end(CLEAN);
    assert.equal((await reader.read()).done, true);
  });

  it("A reason of a stream has the close code that it may send", () => {
    const reasons: [reason: unknown, closeCode: number | undefined, standard: boolean][] = [
      [new WebSocketError("a", { closeCode: 4001 }), 4001, false],
      [new WebSocketError("a", { closeCode: 1000 }), 1000, true],
      [new WebSocketError("a"), undefined, false],
      [webSocketError("a", 1006, ""), undefined, false],
      [webSocketError("a", 1011, ""), undefined, false],
      [new Error("a"), 1011, false],
      [new Error("a"), undefined, true],
      [new DOMException("a", "AbortError"), undefined, false],
      ["text", undefined, false],
      [undefined, undefined, false],
    ];
    for (const [reason, closeCode, standard] of reasons) {
      assert.equal(closeInfoOf(reason, standard).closeCode, closeCode, `${reason} ${standard}`);
    }
  });

  it("A way of reading can change while nothing waits", () => {
    checkMode(undefined, "readable", false);
    checkMode("receive", "readable", false);
    const refused: [mode: Mode | undefined, message: RegExp][] = [
      [undefined, /^Cannot read by readable: a receive\(\) or a loop waits for messages$/],
      ["receive", /^Cannot read by readable: a receive\(\) or a loop waits for messages$/],
      ["discard", /^Cannot read by readable: the connection is read by discard\(\)$/],
    ];
    for (const [mode, message] of refused) {
      assert.throws(() => checkMode(mode, "readable", true), {
        name: "InvalidStateError",
        message,
      });
    }
    const { receiver } = receiverOf();
    void receiver.iterate().return!();
    void receiver.readable;
    const { receiver: looped } = receiverOf();
    looped.iterate();
    assert.throws(() => looped.readable, INVALID_STATE);
  });

  it("A reason that cannot be examined is no failure", () => {
    const thrower = () => {
      throw new Error("examined");
    };
    const named = Object.defineProperty(new Error("a"), "name", { get: thrower });
    const proxy = new Proxy(new Error("a"), { getPrototypeOf: thrower, get: thrower });
    for (const reason of [named, proxy]) assert.deepEqual(closeInfoOf(reason, false), {});
  });

  it("Receiver tells of room when the way of reading is known", () => {
    for (const read of ["receive", "iterate", "messages", "discard"] as const) {
      const { receiver, noted } = receiverOf();
      void receiver[read]();
      assert.ok(noted.rooms > 0, read);
    }
    const { receiver, noted } = receiverOf();
    void receiver.readable;
    assert.ok(noted.rooms > 0);
  });

  it("Receiver hands over to messages() what waits, a part of a message, and the end", async () => {
    for (const end of [CLEAN, FAILED]) {
      const { receiver, deliver, machine } = receiverOf();
      deliver("a");
      deliver("b");
      machine.takeHeld = () => fragment("part", false, false) as never;
      receiver.end(end);
      const reader = receiver.messages().getReader();
      assert.equal(machine.whole, false);
      for (const text of ["a", "b"]) {
        assert.deepEqual(await texts(await reader.read()), [text]);
      }
      const part = (await reader.read()).value!.readable.getReader();
      assert.equal((await part.read()).value, "part");
      assert.equal(await rejection(part.read()), end.error);
      if (end.clean) assert.equal((await reader.read()).done, true);
      else assert.equal(await rejection(reader.read()), end.error);
    }
  });

  it("Receiver says which way of reading is in use", () => {
    const ways = ["readable", "messages()", "discard()"];
    const use = (receiver: Receiver, way: string) => {
      if (way === "readable") void receiver.readable;
      else void receiver[way.slice(0, -2) as "messages"]();
    };
    for (const way of ways) {
      for (const next of [...ways, "receive()"].filter((next) => next !== way)) {
        const { receiver } = receiverOf();
        use(receiver, way);
        const message = `Cannot read by ${next}: the connection is read by ${way}`;
        if (next === "receive()") assert.throws(() => receiver.iterate(), { message });
        else assert.throws(() => use(receiver, next), { message });
      }
    }
  });

  it("An aborted receive() takes no message, and its signal is no longer heard after it", async () => {
    const { receiver, deliver, noted } = receiverOf();
    deliver("a");
    const reason = new Error("enough");
    const aborted = AbortSignal.abort(reason);
    assert.equal(await rejection(receiver.receive({ signal: aborted })), reason);
    const first = new AbortController();
    assert.equal(await receiver.receive({ signal: first.signal }), "a");
    // Nobody handles the rejection of this one.
    void receiver.receive({ signal: first.signal });
    first.abort(reason);
    await rest();
    const second = new AbortController();
    const given = receiver.receive({ signal: second.signal });
    deliver("b");
    second.abort(reason);
    assert.equal(await given, "b");
    const third = new AbortController();
    const ended = receiver.receive({ signal: third.signal });
    receiver.end(FAILED);
    third.abort(reason);
    assert.equal(await rejection(ended), FAILED.error);
    assert.equal(await rejection(receiver.receive()), FAILED.error);
    assert.deepEqual(noted.traced, [true, false]);
    await rest();
  });

  it("A loop that is left counts once, and has no more items", async () => {
    const { receiver, deliver } = receiverOf();
    const loops = [receiver.iterate(), receiver.iterate()];
    assert.equal(receiver.loops, 2);
    deliver("a");
    for (let i = 0; i < 2; i++) {
      assert.deepEqual(await loops[0].return!(), { done: true, value: undefined });
      assert.equal(receiver.loops, 1);
    }
    assert.deepEqual(await loops[0].next(), { done: true, value: undefined });
    assert.deepEqual(await loops[1].next(), { done: false, value: "a" });
    const next = loops[1].next();
    deliver("b");
    assert.deepEqual(await next, { done: false, value: "b" });
  });

  it("A loop ends after 1000, 1001 and no code, and otherwise throws", async () => {
    const ends: [clean: boolean, closeCode: number | undefined, ends: boolean][] = [
      [true, 1000, true],
      [true, 1001, true],
      [true, 1005, true],
      [true, 1002, false],
      [true, 999, false],
      [true, 1006, false],
      [true, undefined, false],
      [false, 1000, false],
    ];
    for (const [clean, closeCode, quiet] of ends) {
      for (const isWaiting of [true, false]) {
        const { receiver, noted } = receiverOf();
        const loop = receiver.iterate();
        const waiting = isWaiting ? loop.next() : undefined;
        receiver.end({ clean, closeCode, error: FAILED.error });
        const next = waiting ?? loop.next();
        if (quiet) assert.deepEqual(await next, { done: true, value: undefined });
        else assert.equal(await rejection(next), FAILED.error);
        assert.deepEqual(noted.traced, quiet ? [] : [isWaiting]);
      }
    }
  });
});
