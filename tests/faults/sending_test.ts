/** Messages that their owner changes after the send, sends that wait in turn, and sends at the end. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import { it } from "../it.ts";
import {
  broadcast,
  type Message,
  type OutgoingMessage,
  serve,
  type WebSocketConnection,
} from "../../mod.ts";
import { Opcode } from "../../lib/core/mod.ts";
import { fragments } from "../../lib/core/message.ts";
import { Protocol } from "../../lib/core/protocol.ts";
import { pair } from "../../lib/testing.ts";
import { pattern, utf8 } from "../bytes.ts";
import { noServer, withHttp2 } from "../http2_servers.ts";
import { withPrograms } from "../programs.ts";
import {
  brief,
  closeFrame,
  frames,
  inBothRoles,
  rejection,
  rest,
  Tap,
  turn,
  until,
  urlOf,
  withPeer,
} from "../support.ts";

const INVALID_STATE = { name: "InvalidStateError" };
/** A transport that accepts nothing until its peer reads. */
const TIGHT = { capacity: 0 };
/** Long enough that a message is borrowed instead of copied. */
const LONG = 20_000;

type WithCode = Error & { closeCode: number };

describe("A5 a source of items that fails while its connection ends", () => {
  const PROGRAM = `
    import { pair } from "sluice/testing";
    const fault = () => { throw new Error("fault"); };
    const sources = {
      "a generator that throws": () => (function* () { fault(); })(),
      "a generator that throws later": () => (function* () { yield "a"; fault(); })(),
      "an asynchronous generator that throws": () => (async function* () { fault(); })(),
      "one that throws later": () => (async function* () { yield "a"; fault(); })(),
      "one that throws when it is left": () =>
        (async function* () { try { yield "a"; await null; yield "b"; } finally { fault(); } })(),
      "an iterator that throws": () => ({ [Symbol.iterator]: () => ({ next: fault, return: fault }) }),
      "an iterator that rejects": () => ({
        [Symbol.asyncIterator]: () => ({
          next: () => Promise.reject(new Error("fault")),
          return: () => Promise.reject(new Error("fault")),
        }),
      }),
      "an iterable without an iterator": () => ({ [Symbol.asyncIterator]: fault }),
      "a stream that errors": () => new ReadableStream({ start: (it) => it.error(new Error("fault")) }),
      "a stream that errors later": () => {
        let count = 0;
        return new ReadableStream({ pull: (it) => count++ ? it.error(new Error("fault")) : it.enqueue("a") });
      },
      "items of a wrong type": () => [Symbol("a"), 1],
    };
    const ends = {
      "close()": (ws) => ws.close(),
      "terminate()": (ws) => ws.terminate(),
      "its signal": (ws, peer, controller) => controller.abort(new Error("enough")),
      "the peer's close()": (ws, peer) => peer.close(),
      "the peer's terminate()": (ws, peer) => peer.terminate(),
      "no end": () => {},
    };
    for (const [source, make] of Object.entries(sources)) {
      for (const [end, run] of Object.entries(ends)) {
        for (const turns of [0, 1, 3]) {
          const [ws, peer] = await pair();
          const controller = new AbortController();
          const sent = ws.send(make(), { signal: controller.signal });
          const behind = ws.send(make());
          const outcome = sent.then(() => "sent", (error) => error.message);
          behind.catch(() => {});
          for (let i = 0; i < turns; i++) await null;
          run(ws, peer, controller);
          if (await outcome === "sent") console.log(source, end, "was sent");
          ws.terminate();
          peer.terminate();
        }
      }
    }
    await new Promise((resolve) => setTimeout(resolve, 50));
    console.log("done");
    // Keepalive's timers do not hold the process.
  `;

  it("A5 leaves no rejection unhandled, and each send rejects", async () => {
    await withPrograms(async (start) => {
      const child = await start("sources.ts", PROGRAM);
      const code = await child.exited;
      assert.deepEqual([child.stdout, child.stderr, code], ["done\n", "", 0]);
    });
  });
});

describe("A5 a message that is awaited only after the connection has ended", () => {
  const PROGRAM = `
    import { pair } from "sluice/testing";
    const sleep = (delay) => new Promise((resolve) => setTimeout(resolve, delay));
    const aborted = (controller) => (controller.abort(new Error("enough")), controller.signal);
    const ways = {
      "receive()": (ws) => ws.receive(),
      "receive() with a signal": (ws) => ws.receive({ signal: new AbortController().signal }),
      "receive() with a signal that is aborted": (ws) => ws.receive({ signal: aborted(new AbortController()) }),
      "receive() with a signal that is aborted later": (ws) => ws.receive({ signal: AbortSignal.timeout(1) }),
      "a second receive()": (ws) => [ws.receive(), ws.receive()][1],
      "receive() beside a stream": (ws) => [ws.readable, ws.receive()][1],
      "next()": (ws) => ws[Symbol.asyncIterator]().next(),
      "a second next()": (ws) => [ws.receive(), ws[Symbol.asyncIterator]().next()][1],
    };
    const ends = {
      "the peer's close()": (ws, peer) => peer.close({ closeCode: 4000 }),
      "terminate()": (ws) => ws.terminate(),
      "the peer's terminate()": (ws, peer) => peer.terminate(),
    };
    for (const [way, begin] of Object.entries(ways)) {
      for (const [end, run] of Object.entries(ends)) {
        const [ws, peer] = await pair();
        const message = begin(ws);
        run(ws, peer);
        await sleep(5);
        const outcomes = [message, begin(ws)].map((one) => one.then(() => "a message", () => ""));
        await sleep(5);
        begin(ws);
        console.log((await Promise.all(outcomes)).join("") || "rejected");
        for (const end of [ws, peer]) end.terminate();
      }
    }
    await sleep(50);
  `;

  it("A5 rejects, and is no unhandled rejection", async () => {
    await withPrograms(async (start) => {
      const child = await start("messages.ts", PROGRAM);
      const code = await child.exited;
      assert.deepEqual([child.stderr, child.stdout, code], ["", "rejected\n".repeat(24), 0]);
    });
  });
});

it("F a payload of any length that is too long is refused with the same error", async () => {
  const [client, server] = await pair();
  for (const length of [126, 20_000, 1_000_000]) {
    const bytes = new Uint8Array(length);
    for (const payload of [bytes, "x".repeat(length)]) {
      for (const call of ["ping", "pong"] as const) {
        const error = await rejection(client[call](payload));
        assert.equal(error.name, "RangeError");
        assert.match(error.message, /125 bytes, received \d+$/);
      }
    }
  }
  const none = null as unknown as undefined;
  await client.send("as without options", none);
  assert.equal(await server.receive(none), "as without options");
  assert.equal(typeof await client.ping("", none), "number");
  for (const ws of [client, server]) ws.terminate();
});

/** Ways in which the owner of bytes detaches their buffer. */
const detaching: [name: string, make: (length: number) => [Uint8Array, detach: () => void]][] = [
  ["transferred", (length) => {
    const bytes = pattern(length);
    return [
      bytes,
      () => void structuredClone(bytes.buffer, { transfer: [bytes.buffer as ArrayBuffer] }),
    ];
  }],
  ["a WebAssembly memory that grows", (length) => {
    const { WebAssembly: platform } = globalThis as unknown as {
      WebAssembly: {
        Memory: new (options: { initial: number }) => {
          buffer: ArrayBuffer;
          grow(pages: number): void;
        };
      };
    };
    const memory = new platform.Memory({ initial: Math.ceil(length / 65536) });
    const bytes = new Uint8Array(memory.buffer, 0, length);
    bytes.set(pattern(length));
    return [bytes, () => memory.grow(1)];
  }],
];

/** Checks that the connection has failed, and returns the error. */
async function failed(ws: WebSocketConnection, sent: Promise<void>): Promise<void> {
  const [error, refused] = await Promise.all([
    rejection<WithCode>(ws.closed),
    rejection<WithCode>(sent),
  ]);
  assert.equal(error.closeCode, 1011);
  assert.equal(refused, error);
}

describe("A6 bytes that are detached before they have left", () => {
  for (const [how, make] of detaching) {
    it(`A6 in the turn of the send, ${how}: 1011, and nothing half leaves`, async () => {
      const [ws, peer] = await withPeer("server");
      const [other, otherPeer] = await withPeer("server");
      const before = ws.send("before");
      const [bytes, detach] = make(LONG);
      const sent = ws.send(bytes);
      const after = ws.send("after");
      const others = other.send(pattern(LONG));
      detach();
      await failed(ws, sent);
      await before.catch(() => {});
      await after.catch(() => {});
      assert.deepEqual(brief(await peer.next()), ["text", "before", true]);
      assert.equal((await peer.nextClose()).closeCode, 1011);
      await rest();
      assert.equal(peer.frames.length, 0);
      await others;
      assert.deepEqual((await otherPeer.next()).payload, pattern(LONG));
      other.terminate();
    });

    it(`A6 while the transport is full, ${how}: the messages before it arrive whole`, async () => {
      const [ws, peer] = await withPeer("server", {}, TIGHT);
      await until(() => ws.bufferedAmount === 0);
      peer.transport.pause();
      const first = ws.send(pattern(100_000));
      await turn();
      const [bytes, detach] = make(LONG);
      const sent = ws.send(bytes);
      await turn();
      detach();
      await turn();
      peer.transport.resume();
      await first;
      await failed(ws, sent);
      assert.deepEqual((await peer.next()).payload, pattern(100_000));
      assert.equal((await peer.nextClose()).closeCode, 1011);
    });

    it(`A6 while it waits for its turn, ${how}: 1011`, async () => {
      await inBothRoles(async (ws, peer) => {
        const source = new Tap<Message>();
        const fragmented = ws.send(source.items);
        source.give("a");
        await peer.next();
        const [bytes, detach] = make(LONG);
        const sent = ws.send(bytes);
        detach();
        source.end();
        await failed(ws, sent);
        await fragmented.catch(() => {});
        assert.deepEqual(brief(await peer.next()), ["more", "", true]);
        assert.equal((await peer.nextClose()).closeCode, 1011);
      });
    });

    it(`A6 while it is compressed, ${how}: a copy arrives`, async () => {
      for (const length of [17_000, 40_000, 300_000]) {
        const [client, server] = await pair({ server: { compression: true } });
        for (const [from, to] of [[client, server], [server, client]]) {
          const [bytes, detach] = make(length);
          const sent = from.send(bytes, { compress: true });
          detach();
          await sent;
          assert.deepEqual(await to.receive(), pattern(length));
        }
        client.terminate();
      }
    });

    it(`A6 over a socket, ${how}: the peer reads whole messages, then the end`, async () => {
      // The reader is slow: the socket holds a part of the first message, and the rest waits.
      const PROGRAM = `
        import { connect } from "sluice";
        const ws = await connect(process.argv.at(-1), { maxMessageSize: Infinity });
        await new Promise((resolve) => setTimeout(resolve, 500));
        try {
          for (;;) {
            const { length } = await ws.receive();
            console.log("message of " + length);
          }
        } catch (error) {
          console.log("end " + error.closeCode);
        }
      `;
      await withSlowReader(PROGRAM, async (ws) => {
        const first = ws.send(pattern(30_000_000));
        await turn();
        const [bytes, detach] = make(LONG);
        const sent = ws.send(bytes);
        await turn();
        detach();
        await failed(ws, sent);
        await first;
      }, /^message of 30000000\nend 1011\n$/);
      await withSlowReader(PROGRAM, async (ws) => {
        const [bytes, detach] = make(30_000_000);
        const sent = ws.send(bytes);
        await turn();
        const late = ws.send("late");
        detach();
        await failed(ws, sent);
        await late.catch(() => {});
      }, /^(message of 30000000\n)?end (1006|1011)\n$/);
    });
  }

  it(
    "A6 over a stream of HTTP/2: 1011, and the session continues",
    { skip: noServer },
    async () => {
      const lost = Promise.withResolvers<void>();
      const ready = Promise.withResolvers<void>();
      const handler = async (ws: WebSocketConnection) => {
        if (ws.request.url.endsWith("/echo")) return await ws.readable.pipeTo(ws.writable);
        const [bytes, detach] = detaching[0][1](900_000);
        const sent = ws.send(bytes);
        await until(() => ws.stats.bytesSent > 0);
        detach();
        ready.resolve();
        await failed(ws, sent).then(lost.resolve, lost.reject);
      };
      await withHttp2({ handler }, async ({ open }) => {
        const ws = await open("/");
        await ready.promise;
        const error = await rejection<WithCode>(ws.receive());
        assert.equal(error.closeCode, 1006);
        await lost.promise;
        const other = await open("/echo");
        await other.send("still there");
        assert.equal(await other.receive(), "still there");
        await other.close();
      });
    },
  );

  it("A6 a message that is cut into frames stays as it was, or the frames end", () => {
    const [bytes, detach] = detaching[0][1](100);
    const made = fragments(bytes, { maxFrameSize: 40 });
    assert.equal(made.next().value?.payload.length, 40);
    detach();
    assert.throws(() => made.next(), TypeError);
  });
});

/** Connects a program to a server, and checks what the program prints until it ends. */
async function withSlowReader(
  program: string,
  run: (ws: WebSocketConnection) => Promise<unknown>,
  output: RegExp,
): Promise<void> {
  let ran: Promise<unknown> | undefined;
  const server = await serve({ port: 0, pingInterval: 0 }, (ws) => ran = run(ws));
  try {
    await withPrograms(async (start) => {
      const code = program.replace("process.argv.at(-1)", JSON.stringify(urlOf(server)));
      const child = await start("reader.ts", code);
      await child.exited;
      assert.match(child.stdout, output, child.stderr);
      await ran;
    });
  } finally {
    await server.shutdown();
  }
}

describe("A6 bytes that are changed while they wait", () => {
  const sources: [name: string, make: () => [Uint8Array, change: () => void]][] = [
    ["short", () => {
      const bytes = pattern(100);
      return [bytes, () => bytes.fill(0)];
    }],
    ["shared", () => {
      const bytes = new Uint8Array(new SharedArrayBuffer(LONG));
      bytes.set(pattern(LONG));
      return [bytes, () => bytes.fill(0)];
    }],
    ["resizable", () => {
      const buffer = new ArrayBuffer(LONG, { maxByteLength: LONG } as object);
      const bytes = new Uint8Array(buffer);
      bytes.set(pattern(LONG));
      return [bytes, () => (buffer as unknown as { resize(length: number): void }).resize(10)];
    }],
  ];
  for (const [name, make] of sources) {
    it(`A6 ${name} bytes that wait for their turn are copied at the call`, async () => {
      await inBothRoles(async (ws, peer) => {
        const source = new Tap<Message>();
        const fragmented = ws.send(source.items);
        source.give("a");
        await peer.next();
        const [bytes, change] = make();
        const expected = new Uint8Array(bytes);
        const sent = ws.send(bytes);
        change();
        source.end();
        await Promise.all([fragmented, sent]);
        await peer.next();
        assert.deepEqual((await peer.next()).payload, expected);
      });
    });

    it(`A6 ${name} bytes of a broadcast are copied at the call`, async () => {
      for (const slow of ["close", "drop-oldest"] as const) {
        const [ws, peer] = await withPeer("server", {}, TIGHT);
        peer.transport.pause();
        broadcast([ws], "x".repeat(100_000), { slow });
        const [bytes, change] = make();
        const expected = new Uint8Array(bytes);
        broadcast([ws], bytes, { slow });
        change();
        await turn();
        peer.transport.resume();
        await peer.next();
        assert.deepEqual((await peer.next()).payload, expected);
        ws.terminate();
      }
    });

    it(`A6 ${name} bytes of an item that is compressed are copied`, async () => {
      const [client, server] = await pair({ server: { compression: true } });
      const large = pattern(100_000);
      const [bytes, change] = make();
      const whole = [...large, ...bytes];
      const sent = client.send(
        (async function* () {
          yield large;
          yield bytes;
        })(),
        { compress: true },
      );
      queueMicrotask(() => large.fill(0, 50_000));
      await sent.then(change);
      assert.equal((await server.receive()).length, whole.length);
      client.terminate();
    });
  }

  it("A6 bytes of a broadcast may be detached at once", async () => {
    const pairs = await Promise.all([pair(), pair()]);
    const [bytes, detach] = detaching[0][1](LONG);
    broadcast(pairs.map(([, server]) => server), bytes);
    detach();
    for (const [client] of pairs) assert.deepEqual(await client.receive(), pattern(LONG));
    for (const [client] of pairs) client.terminate();
  });

  it("A6 what onFrame is given may be changed, and onFrame may send", async () => {
    let current: WebSocketConnection | undefined;
    await inBothRoles(async (ws, peer) => {
      current = ws;
      await ws.send(["a", "b"]);
      assert.deepEqual(await frames(peer, 3), [
        ["text", "a", false],
        ["more", "b", true],
        ["text", "seen", true],
      ]);
      void ws.close();
      assert.equal((await peer.next()).opcode, Opcode.Close);
      await rest();
      assert.equal(peer.frames.length, 0);
    }, {
      onFrame(direction, { opcode, fin, payload }) {
        if (direction === "in") return;
        payload.fill(0);
        if (opcode === Opcode.Continuation && fin) void current?.send("seen");
        if (opcode === Opcode.Close) void current?.send("never");
      },
    });
  });
});

/** The CPU time of a run, in milliseconds. */
async function cpuOf(run: () => Promise<unknown>): Promise<number> {
  const before = process.cpuUsage();
  await run();
  const { user, system } = process.cpuUsage(before);
  return (user + system) / 1000;
}

/**
 * Checks that four times as many sends cost at most nine times as much. If the cost of a send grows with the
 * number that wait, it is sixteen times. One of several tries must pass, because garbage collection may
 * disturb a try.
 */
async function assertLinear(run: (count: number) => Promise<void>, count: number): Promise<void> {
  await run(count / 4);
  let least = Infinity;
  for (let i = 0; i < 6 && least > 9; i++) {
    const few = await cpuOf(() => run(count));
    const many = await cpuOf(() => run(4 * count));
    least = Math.min(least, many / Math.max(few, 10));
  }
  assert.ok(least <= 9, `${least} times the cost for four times as many`);
}

describe("B1 sends that wait for their turn", () => {
  const ends: [name: string, run: (count: number) => Promise<void>][] = [
    ["and get it", async (count) => {
      const [client, server] = await pair();
      server.discard();
      const source = new Tap<Message>();
      const fragmented = client.send(source.items);
      source.give("a");
      const sends = Array.from({ length: count }, () => client.send("x"));
      await turn();
      source.end();
      await Promise.all([fragmented, ...sends]);
      assert.equal(client.stats.messagesSent, count + 1);
      client.terminate();
    }],
    ["behind a message that is compressed", async (count) => {
      const [client, server] = await pair({ server: { compression: true } });
      server.discard();
      const compressed = client.send("x".repeat(100_000), { compress: true });
      const sends = Array.from({ length: count }, () => client.send("x"));
      await Promise.all([compressed, ...sends]);
      client.terminate();
    }],
    ["when the connection ends", async (count) => {
      const [client] = await pair();
      const forever = client.send((async function* () {
        yield "a";
        await new Promise(() => {});
      })());
      const sends = Array.from({ length: count }, () => client.send("x"));
      await turn();
      client.terminate();
      const settled = await Promise.allSettled([forever, ...sends]);
      assert.ok(settled.every(({ status }) => status === "rejected"));
    }],
    ["and are taken back one by one", async (count) => {
      const [client] = await pair();
      const source = new Tap<Message>();
      const fragmented = client.send(source.items);
      source.give("a");
      const controllers = Array.from({ length: count }, () => new AbortController());
      const sends = controllers.map(({ signal }) => client.send("x", { signal }));
      await turn();
      for (const controller of controllers.reverse()) controller.abort(new Error("enough"));
      await Promise.allSettled(sends);
      source.end();
      await fragmented;
      assert.equal(client.stats.messagesSent, 1);
      client.terminate();
    }],
    ["as messages of several frames", async (count) => {
      const [client, server] = await pair();
      server.discard();
      await Promise.all(Array.from({ length: count / 4 }, () => client.send(["x", "y"])));
      client.terminate();
    }],
  ];
  for (const [name, run] of ends) {
    it(`B1 sends that wait for their turn, ${name}, cost the same however many wait`, async () => {
      await assertLinear(run, 10_000);
    });
  }

  it("B1 messages that wait keep their order, be some taken back", async () => {
    await inBothRoles(async (ws, peer) => {
      const source = new Tap<Message>();
      const fragmented = ws.send(source.items);
      source.give("a");
      const controllers = Array.from({ length: 9 }, () => new AbortController());
      const sends = controllers.map(({ signal }, i) => ws.send(`${i}`, { signal }));
      const settled = Promise.allSettled(sends);
      for (const i of [0, 4, 5, 8]) controllers[i].abort();
      source.end();
      await fragmented;
      await settled;
      const texts = (await frames(peer, 7)).slice(2).map(([, text]) => text);
      assert.deepEqual(texts, ["1", "2", "3", "6", "7"]);
    });
  });

  it("B1 the cost of a ping does not depend on the number of waiting pings", async () => {
    const run = async (count: number) => {
      const [ws, peer] = await withPeer("server", { maxControlFramesPerSecond: Infinity });
      peer.frames.length = 0;
      const payloads = Array.from({ length: count }, (_, i) => utf8(`${i}`));
      const pings = payloads.map((payload) => ws.ping(payload));
      await turn();
      for (const payload of payloads) peer.send({ opcode: Opcode.Pong, payload });
      await Promise.all(pings);
      ws.terminate();
    };
    await assertLinear(run, 5000);
  });
});

describe("B11 sends after the end", () => {
  it("B11 sends after the end are refused with one error", async () => {
    await inBothRoles(async (ws, peer) => {
      const closing = ws.close();
      const errors = await Promise.all([
        rejection(ws.send("a")),
        rejection(ws.send(["b"])),
        rejection(ws.ping()),
      ]);
      assert.equal(new Set(errors).size, 1);
      assert.equal(errors[0].name, "InvalidStateError");
      await peer.answerClose();
      await closing;
      const late = await Promise.all([1, 2, 3].map(() => rejection(ws.send("a"))));
      assert.equal(new Set(late).size, 1);
      assert.match(
        late[0].message,
        /^Cannot send: the connection is closed \(sent 1005; then received 1000\)/,
      );
      assert.ok(ws.isOwnError(errors[0]) && ws.isOwnError(late[0]));
    });
  });

  it("B11 the error has the cause of an end that was not clean", async () => {
    await inBothRoles(async (ws) => {
      ws.terminate();
      const error = await rejection(ws.closed);
      const late = await Promise.all([1, 2].map(() => rejection<Error>(ws.send("a"))));
      assert.equal(late[0], late[1]);
      assert.equal(late[0].cause, error);
    });
  });
});

describe("E11 a character that two items of a message share", () => {
  const items: [name: string, items: string[], whole: string][] = [
    ["its halves at the ends", ["x\ud83d", "\ude00y"], "x\u{1f600}y"],
    ["an empty item between them", ["\ud83d", "", "\ude00"], "\u{1f600}"],
    ["each of two", ["\ud83d", "\ude00\ud83d", "\ude01"], "\u{1f600}\u{1f601}"],
    ["a first half alone at the end", ["a", "b\ud83d"], "ab\ufffd"],
    ["a first half before another character", ["\ud83d", "a"], "\ufffda"],
    ["two first halves", ["\ud83d", "\ud83d", "\ude00"], "\ufffd\u{1f600}"],
    ["a second half alone", ["a", "\ude00"], "a\ufffd"],
  ];
  const ways: [name: string, make: (items: string[]) => OutgoingMessage][] = [
    ["an array", (items) => items],
    ["a generator", (items) =>
      (async function* () {
        yield* items;
      })()],
    ["a stream", (items) => ReadableStream.from(items)],
  ];
  for (const [name, parts, whole] of items) {
    for (const [way, make] of ways) {
      for (const compression of [false, true]) {
        it(`E11 ${name}: ${way}${compression ? ", compressed" : ""}`, async () => {
          const [client, server] = await pair({ server: { compression } });
          await client.send(make(parts), { compress: compression });
          assert.equal(await server.receive(), whole);
          await client.send(make(parts), { compress: compression, text: false });
          assert.deepEqual(await server.receive(), utf8(whole));
          await client.send("next");
          assert.equal(await server.receive(), "next");
          client.terminate();
        });
      }
    }

    it(`E11 ${name}: events of the protocol`, () => {
      const [client, server] = [new Protocol("client"), new Protocol("server")];
      let text = "";
      parts.forEach((data, i) => {
        const messageFinished = i === parts.length - 1;
        server.receive(client.send({ type: "text", data, messageFinished }));
        for (const event of server.events()) if (event.type === "text") text += event.data;
      });
      assert.equal(text, whole);
    });
  }
});

describe("E15 close() with messages of several frames", () => {
  const sources: [name: string, make: () => OutgoingMessage][] = [
    ["a generator", () =>
      (async function* () {
        yield "a";
      })()],
    ["an array", () => ["a", "b"]],
    ["a stream", () => ReadableStream.from(["a"])],
  ];
  for (const [name, make] of sources) {
    it(`E15 ${name} that has not begun is refused, and the error says why`, async () => {
      await inBothRoles(async (ws, peer) => {
        const sent = ws.send(make());
        const behind = ws.send("behind");
        const closing = ws.close({ closeCode: 1000 });
        for (const refused of [sent, behind]) {
          const error = await rejection<Error>(refused);
          assert.equal(error.name, "InvalidStateError");
          assert.match(error.message, /closed before the message had begun.*Await send\(\)/);
          assert.ok(ws.isOwnError(error));
        }
        assert.equal((await peer.nextClose()).closeCode, 1000);
        peer.send(closeFrame(1000));
        assert.equal((await closing).closeCode, 1000);
      });
    });
  }

  it("E15 one that has begun is cut short, and the error says so", async () => {
    await inBothRoles(async (ws, peer) => {
      const source = new Tap<Message>();
      const sent = ws.send(source.items);
      const behind = ws.send("behind");
      source.give("a");
      assert.deepEqual(await frames(peer, 1), [["text", "a", false]]);
      void ws.close({ closeCode: 1000 });
      assert.match((await rejection<Error>(sent)).message, /cut short.*Await send\(\)/);
      assert.match((await rejection<Error>(behind)).message, /had not begun|before the message/);
      await assert.rejects(ws.send("late"), INVALID_STATE);
      assert.equal((await peer.nextClose()).closeCode, 1000);
    });
  });

  it("E15 messages leave before the Close frame, also if they are compressed", async () => {
    const [client, server] = await pair({ server: { compression: true } });
    const sends = [client.send("x".repeat(100_000)), client.send("y"), client.send(pattern(LONG))];
    void client.close();
    await Promise.all(sends);
    assert.equal((await server.receive()).length, 100_000);
    assert.equal(await server.receive(), "y");
    assert.deepEqual(await server.receive(), pattern(LONG));
  });
});
