import { after, before, beforeEach, describe, it } from "node:test";
import assert from "node:assert/strict";
import { broadcast, type BroadcastOptions, WebSocketStream } from "../mod.ts";
import type { CloseInfo, Message, WebSocketConnection } from "../mod.ts";
import type { Recipient } from "../lib/connection/broadcast.ts";
import { Sender } from "../lib/connection/sender.ts";
import { defineSending, type Sending, sendingOf } from "../lib/connection/sending.ts";
import { pair } from "../lib/testing.ts";
import { shareFrame } from "../lib/connection/sharing.ts";
import { FakeSocket } from "./native_sockets.ts";
import { collect, rejection, rest, turn, until, withServer } from "./support.ts";

/** A message that fills the buffer of the transport in memory. */
const LARGE = new Uint8Array(100_000);

/** Connections whose peers read, and one whose peer does not. */
async function audience(): Promise<{
  servers: WebSocketConnection[];
  readers: WebSocketConnection[];
  sleeper: WebSocketConnection;
  slow: WebSocketConnection;
}> {
  const pairs = await Promise.all([pair(), pair(), pair()]);
  const [[a], [b], [sleeper]] = pairs;
  return {
    servers: pairs.map(([, server]) => server),
    readers: [a, b],
    sleeper,
    slow: pairs[2][1],
  };
}

/** Sends numbered messages until the slow connection has too many of them. */
function flood(servers: WebSocketConnection[], count: number, options: BroadcastOptions): void {
  for (let i = 0; i < count; i++) {
    const message = LARGE.slice();
    message[0] = i;
    broadcast(servers, message, options);
  }
}

async function take(ws: WebSocketConnection, count: number): Promise<number[]> {
  const got: number[] = [];
  while (got.length < count) got.push(((await ws.receive()) as Uint8Array)[0]);
  return got;
}

const numbers = (count: number, from = 0) => Array.from({ length: count }, (_, i) => from + i);

/** A connection, as in a browser, that takes a message when the test says so. */
class FakeRecipient implements Recipient {
  state = "open" as const;
  bufferedAmount = 0;
  readonly sent: Message[] = [];
  readonly compressed: (boolean | undefined)[] = [];
  readonly ends: (CloseInfo | "terminate")[] = [];
  #settle: { resolve(): void; reject(error: unknown): void } | undefined;

  send(message: Message, options?: { compress?: boolean }): Promise<void> {
    this.sent.push(message);
    this.compressed.push(options?.compress);
    return new Promise((resolve, reject) => this.#settle = { resolve, reject });
  }

  /** Takes the last message, so that the next one may follow. */
  async take(): Promise<void> {
    this.#settle!.resolve();
    await rest();
  }

  async refuse(): Promise<void> {
    this.#settle!.reject(new Error("ended"));
    await rest();
  }

  close(info: CloseInfo): Promise<unknown> {
    this.ends.push(info);
    return Promise.resolve();
  }

  terminate(): void {
    this.ends.push("terminate");
  }
}

describe("broadcast", () => {
  it("sends to all open connections without waiting", async () => {
    const { servers, readers } = await audience();
    await readers[1].close();
    broadcast(servers, "text");
    broadcast(new Set(servers), new Uint8Array([1, 2]));
    assert.equal(await readers[0].receive(), "text");
    assert.deepEqual(await readers[0].receive(), new Uint8Array([1, 2]));
    for (const server of servers) server.terminate();
  });

  it("tells how many get the message, miss it and were closed, and leaves some out", async () => {
    const { servers, readers, slow } = await audience();
    const limit = { maxBufferedAmount: 250_000 };
    flood([slow], 3, { ...limit, slow: "drop-newest" });
    const missed = broadcast(servers, LARGE, { ...limit, slow: "drop-newest" });
    assert.deepEqual(missed, { sent: 2, missed: 1, closed: 0 });
    const closed = broadcast(servers, LARGE, { ...limit, slow: "terminate" });
    assert.deepEqual(closed, { sent: 2, missed: 0, closed: 1 });
    assert.deepEqual(broadcast(servers, "a"), { sent: 2, missed: 0, closed: 0 });
    for (const except of [servers[0], [servers[0]], new Set(servers.slice(0, 1))]) {
      assert.deepEqual(broadcast(servers, "b", { except }), { sent: 1, missed: 0, closed: 0 });
    }
    assert.throws(() => broadcast(servers, "b", { except: {} as never }), TypeError);
    await take(readers[0], 2);
    assert.equal(await readers[0].receive(), "a");
    for (const server of servers) server.terminate();
  });

  describe("of several messages in a turn", () => {
    type Connections = WebSocketConnection[];
    /** The number of connections that were looked at, one by one. */
    let looked = 0;
    const { sendShared } = Sender.prototype;
    before(() => {
      Sender.prototype.sendShared = function (...args) {
        looked++;
        return sendShared.apply(this, args);
      };
    });
    after(() => {
      Sender.prototype.sendShared = sendShared;
    });
    beforeEach(() => void (looked = 0));

    /** Waits for a turn whose buffer has room for several frames. */
    async function roomForMore(): Promise<void> {
      await turn();
      shareFrame(LARGE.subarray(0, 2000));
      await turn();
      looked = 0;
    }

    /** Opens three connections, sends "one" to them, acts, and tells what the clients get before "end". */
    async function afterOne(
      act: (servers: Connections) => unknown,
      first?: BroadcastOptions,
    ): Promise<{ got: Message[][]; all: Connections }> {
      const pairs = await Promise.all([pair(), pair(), pair()]);
      const all = pairs.map(([, server]) => server);
      await roomForMore();
      assert.equal(broadcast(new Set(all), "one", first).sent, 3);
      assert.equal(looked, 3);
      act(all);
      broadcast(all, "end");
      const got = await Promise.all(pairs.map(async ([client]) => {
        const messages: Message[] = [];
        try {
          for await (const message of client) {
            if (message === "end") break;
            messages.push(message);
          }
        } catch {
          messages.push("cut");
        }
        return messages;
      }));
      for (const server of all) server.terminate();
      return { got, all };
    }

    const send = (servers: Connections, message: Message, options?: BroadcastOptions) =>
      broadcast(servers, message, options).sent;

    it("looks at the connections once if nothing else waits for them", async () => {
      const { got, all } = await afterOne((servers) => {
        assert.deepEqual(broadcast(servers, "two"), { sent: 3, missed: 0, closed: 0 });
        assert.equal(servers[0].bufferedAmount, 10);
        const except = servers[1];
        assert.equal(send([except, ...servers.slice(1), servers[0]], "3", { except }), 2);
        assert.equal(looked, 5);
        assert.equal(servers[0].stats.messagesSent, 3);
      });
      assert.deepEqual(got, [["one", "two", "3"], ["one", "two"], ["one", "two", "3"]]);
      assert.deepEqual(all.map(({ stats }) => stats.messagesSent), [4, 3, 4]);
      assert.deepEqual(all.map(({ stats }) => stats.framesSent), [4, 3, 4]);
      assert.deepEqual(all.map(({ stats }) => stats.bytesSent), [18, 15, 18]);
    });

    it("does not look again in the next turn", async () => {
      const pairs = await Promise.all([pair(), pair()]);
      const servers = pairs.map(([, server]) => server);
      for (let round = 1; round <= 3; round++) {
        await roomForMore();
        assert.equal(send(servers, "a"), 2);
        assert.equal(servers[0].bufferedAmount, 3);
        // Other connections do not belong to the crowd.
        assert.deepEqual(broadcast([], "none"), { sent: 0, missed: 0, closed: 0 });
        assert.equal(send(servers, "b"), 2);
        assert.equal(looked, round === 1 ? 2 : 0);
        for (const [client, server] of pairs) {
          assert.equal(await client.receive(), "a");
          assert.equal(await client.receive(), "b");
          const { messagesSent, framesSent, bytesSent } = server.stats;
          assert.deepEqual([messagesSent, framesSent, bytesSent], [2, 2, 6].map((n) => n * round));
        }
      }
      for (const server of servers) server.terminate();
    });

    it("looks again in the next turn if the recipients are others", async () => {
      const [[, a], [, b], [client, c]] = await Promise.all([pair(), pair(), pair()]);
      await roomForMore();
      const rows: [recipients: Connections, looks: number][] = [
        [[a, b], 2],
        [[a, b, c], 5],
        [[a, b, c], 5],
        [[a, c, b], 8],
        [[c, c, b], 11],
        [[a, c], 13],
        [[a, c], 13],
      ];
      for (const [recipients, looks] of rows) {
        assert.equal(send(recipients, `${looks}`), recipients.length);
        assert.equal(looked, looks);
        await turn();
      }
      for (const looks of [5, 5, 8, 11, 11, 13, 13]) {
        assert.equal(await client.receive(), `${looks}`);
      }
      for (const server of [a, b, c]) server.terminate();
    });

    it("looks again in the next turn if one has sent another message, was full or has closed", async () => {
      for (const kind of ["send", "ping", "close", "full"]) {
        const pairs = await Promise.all([pair(), pair(), pair({ capacity: 100 })]);
        const servers = pairs.map(([, server]) => server);
        await roomForMore();
        const first = kind === "full" ? "a".repeat(200) : "one";
        send(servers, first);
        await turn();
        if (kind === "send") void servers[2].send("own");
        if (kind === "ping") void servers[2].ping().catch(() => {});
        if (kind === "close") void servers[2].close();
        await turn();
        const sent = kind === "close" ? 2 : 3;
        assert.equal(send(servers, "two"), sent);
        assert.equal(looked, 6, kind);
        const got: unknown[] = [];
        const [[client], , [last]] = pairs;
        for (let i = 0; i < 2; i++) got.push(await client.receive());
        assert.deepEqual(got, [first, "two"]);
        if (kind !== "close") {
          const expected = kind === "send" ? [first, "own", "two"] : [first, "two"];
          const seen: unknown[] = [];
          while (seen.length < expected.length) seen.push(await last.receive());
          assert.deepEqual(seen, expected);
        }
        for (const server of servers) server.terminate();
      }
    });

    it("gives a long message to the transport at once", async () => {
      const [[client, server]] = await Promise.all([pair()]);
      await roomForMore();
      assert.equal(send([server], "short"), 1);
      // A timer may be earlier than the next turn, in which the message leaves.
      assert.equal(await client.receive(), "short");
      const long = "a".repeat(65_532);
      assert.equal(send([server], long), 1);
      assert.equal(server.stats.bytesSent, 7 + 65_536);
      assert.equal(send([server], "b"), 1);
      assert.deepEqual([await client.receive(), await client.receive()], [long, "b"]);
      assert.equal(looked, 1);
      server.terminate();
    });

    it("does not keep the message of a crowd", async () => {
      const [[client, server]] = await Promise.all([pair()]);
      await roomForMore();
      send([server], "one");
      assert.equal(sendingOf(server)!.crowd?.range.length, 5);
      assert.equal(await client.receive(), "one");
      assert.equal(sendingOf(server)!.crowd?.range.length, 0);
      server.terminate();
      assert.equal(sendingOf(server)!.crowd, undefined);
    });

    const whole = ["one", "two", "three"];
    const rows: [
      name: string,
      looks: number,
      first: Message[],
      act: (all: Connections) => unknown,
    ][] = [
      ["sends another message", 9, ["one", "own", "two", "three"], ([ws]) => ws.send("own")],
      ["pings", 9, whole, ([ws]) => void ws.ping().catch(() => {})],
      [
        "begins a message of items",
        9,
        ["one", "items", "two", "three"],
        ([ws]) =>
          ws.send(async function* () {
            yield "it";
            await turn();
            yield "ems";
          }()),
      ],
      ["closes", 9, ["one"], ([ws]) => void ws.close()],
      ["closes after a message of items", 9, ["one"], ([ws]) => {
        void ws.send(["i"]).catch(() => {});
        void ws.close();
      }],
      ["is cut", 9, ["cut"], ([ws]) => ws.terminate()],
      ["does nothing", 3, whole, () => {}],
    ];
    for (const [name, looks, first, act] of rows) {
      it(`keeps the order for a connection that ${name} in between`, async () => {
        const isOpen = first.at(-1) === "three";
        const { got } = await afterOne((servers) => {
          act(servers);
          assert.equal(send(servers, "two"), isOpen ? 3 : 2);
          assert.equal(send(servers, "three"), isOpen ? 3 : 2);
          assert.equal(looked, looks);
        });
        assert.deepEqual(got, [first, whole, whole]);
      });
    }

    it("looks again at a connection that was closing", async () => {
      const [[, a], [, b], [client, c]] = await Promise.all([pair(), pair(), pair()]);
      void a.close();
      await roomForMore();
      for (const message of ["one", "two", "three"]) assert.equal(send([b, a, c], message), 2);
      assert.equal(looked, 9);
      assert.deepEqual([await client.receive(), await client.receive()], ["one", "two"]);
      for (const ws of [a, b, c]) ws.terminate();
    });

    it("looks again at a recipient that was not open", async () => {
      const [client, server] = await pair();
      const own = { state: "closing", bufferedAmount: 0, got: [] as Message[] };
      const recipient = {
        ...own,
        send: (message: Message) => Promise.resolve(void own.got.push(message)),
        close: () => {},
        terminate: () => {},
      } as unknown as Recipient & { state: string };
      await roomForMore();
      assert.equal(broadcast([server, recipient], "one").sent, 1);
      recipient.state = "open";
      assert.equal(broadcast([server, recipient], "two").sent, 2);
      assert.deepEqual(own.got, ["two"]);
      assert.deepEqual([await client.receive(), await client.receive()], ["one", "two"]);
      server.terminate();
    });

    it("looks again at a connection that has missed a message or gets it in another way", async () => {
      for (const slow of ["drop-newest", "close"] as const) {
        const [[, a], [, b]] = await Promise.all([pair(), pair()]);
        await roomForMore();
        broadcast([a], "a long message");
        looked = 0;
        const options = { slow, maxBufferedAmount: 10 };
        assert.equal(send([a, b], "one", options), 1);
        assert.equal(send([a, b], "two", options), 1);
        assert.equal(looked, 4);
        for (const ws of [a, b]) ws.terminate();
      }
      const [[, a], [client, b]] = await Promise.all([pair(), pair()]);
      await roomForMore();
      for (const message of ["one", "two"]) assert.equal(send([a, client], message), 2);
      assert.equal(looked, 4);
      for (const ws of [a, b]) ws.terminate();
    });

    it("looks at all if the policy would be broken", async () => {
      const { got } = await afterOne((servers) => {
        const slow = "drop-newest";
        assert.deepEqual(
          broadcast(servers, "two", { slow, maxBufferedAmount: 7 }),
          { sent: 0, missed: 3, closed: 0 },
        );
        assert.equal(looked, 6);
        assert.equal(broadcast(servers, "two", { slow, maxBufferedAmount: 8 }).sent, 3);
        assert.equal(send(servers, "x", { slow: "drop-oldest" }), 3);
      });
      assert.deepEqual(got, Array(3).fill(["one", "two", "x"]));
    });

    for (const place of [0, 1, 2]) {
      it(`looks at all if connection ${place} is another one than before`, async () => {
        const other = await pair();
        const { got } = await afterOne((servers) => {
          assert.equal(send(servers.with(place, other[1]), "two"), 3);
          assert.equal(looked, 6);
          assert.equal(servers[place].stats.messagesSent, 1);
        });
        assert.equal(await other[0].receive(), "two");
        assert.deepEqual(got, [0, 1, 2].map((i) => i === place ? ["one"] : ["one", "two"]));
        other[1].terminate();
      });
    }

    it("looks at all if the next frame is not in the same buffer, or does not follow", async () => {
      const long = "l".repeat(8193);
      const { got } = await afterOne((servers) => {
        assert.equal(send(servers, long), 3);
        assert.equal(looked, 6);
        assert.equal(send(servers, "two"), 3);
        assert.equal(looked, 9);
      });
      assert.deepEqual(got, Array(3).fill(["one", long, "two"]));
      const other = await pair();
      const between = await afterOne((servers) => {
        broadcast([other[1]], "between");
        assert.equal(send(servers, "two"), 3);
        assert.equal(looked, 7);
        assert.equal(send(servers.toReversed(), "three"), 3);
        assert.equal(looked, 10);
      });
      assert.deepEqual(between.got, Array(3).fill(whole));
      other[1].terminate();
    });
  });

  it("refuses what is not a connection, says what to write, and sends nothing", async () => {
    const [client, ws] = await pair();
    await withServer({}, async (server) => {
      const stream = new WebSocketStream(server.url!);
      for (
        const [to, message] of [
          [server, /^Expected an iterable of connections, received an object: write server\.conn/],
          [ws, /: write \[connection\]$/],
          [new Map([["a", ws]]), /: write map\.values\(\)$/],
          ["abc", /received a string$/],
          [undefined, /received undefined$/],
          [null, /received null$/],
          [[ws, null], /^Expected connections, received null$/],
          [[ws, Promise.resolve(ws)], /: await connect\(\)$/],
          [new Map([["a", ws]]).entries(), /received an array: write map\.values\(\)$/],
          [[ws, stream], /: write \(await stream\.opened\)\.connection$/],
          [[ws, new FakeSocket()], /: write await fromWebSocket\(socket\)$/],
          [["abc"], /received a string$/],
        ] as [WebSocketConnection[], RegExp][]
      ) {
        const error = { name: "TypeError", code: "wrong-type", message };
        assert.throws(() => broadcast(to, "x"), error);
      }
      const wrong = /^Expected except to be a connection or an iterable of connections, received /;
      for (
        const [except, message] of [
          ["abc", wrong],
          [new Map([["a", ws]]), wrong],
          [[null], /^Expected connections, received null$/],
          [null, wrong],
          [{}, wrong],
        ] as const
      ) {
        const error = { name: "TypeError", code: "wrong-type", message };
        assert.throws(() => broadcast([ws], "x", { except: except as never }), error);
      }
      const { connection } = await stream.opened;
      await connection.close();
    });
    broadcast([ws], "y", { except: undefined });
    assert.equal(await client.receive(), "y");
    await client.close();
  });

  it("a message of several frames that is under way is not cut into", async () => {
    const [client, server] = await pair();
    let more = () => {};
    const waiting = new Promise<void>((resolve) => more = resolve);
    const fragmented = server.send((async function* () {
      yield "a";
      await waiting;
      yield "b";
    })());
    await rest();
    broadcast([server], "broadcast");
    assert.equal(server.bufferedAmount, "broadcast".length, "what waits for its turn counts");
    more();
    await fragmented;
    assert.deepEqual([await client.receive(), await client.receive()], ["ab", "broadcast"]);
    assert.equal(server.bufferedAmount, 0);
    await client.close();
  });

  for (const slow of ["close", "terminate", undefined] as const) {
    it(`one that is too slow is ended by ${slow ?? "default"}, the others are not held up`, async () => {
      const { servers, readers, slow: server, sleeper } = await audience();
      const reading = readers.map((ws) => take(ws, 5));
      for (let i = 0; i < 5; i++) {
        flood(servers, 1, { maxBufferedAmount: 250_000, slow });
        await until(() => readers.every(({ stats }) => stats.messagesReceived === i + 1));
      }
      assert.deepEqual(await Promise.all(reading), [Array(5).fill(0), Array(5).fill(0)]);
      if (slow === "terminate") {
        await rejection(server.closed);
      } else {
        assert.deepEqual(server.closeInfo?.sent, { closeCode: 1008, reason: "Too slow" });
        const error = await rejection<{ closeCode: number } & Error>(collect(sleeper));
        assert.equal(error.closeCode, 1008, "once it reads it learns why");
      }
      for (const ws of servers) ws.terminate();
    });
  }

  it("drop-newest: a slow connection misses the newest messages", async () => {
    const { servers, sleeper } = await audience();
    flood([servers[2]], 6, { maxBufferedAmount: 350_000, slow: "drop-newest" });
    const kept = servers[2].stats.messagesSent;
    assert.ok(kept >= 2 && kept < 6, String(kept));
    assert.deepEqual(await take(sleeper, kept), numbers(kept));
    await until(() => servers[2].bufferedAmount === 0);
    flood([servers[2]], 1, { maxBufferedAmount: 350_000, slow: "drop-newest" });
    assert.deepEqual(await take(sleeper, 1), [0]);
    for (const ws of servers) ws.terminate();
  });

  it("drop-oldest: it gets the newest once it reads again", async () => {
    const { servers, sleeper } = await audience();
    const total = 20;
    flood([servers[2]], total, { maxBufferedAmount: 350_000, slow: "drop-oldest" });
    await rest();
    assert.ok(servers[2].bufferedAmount <= 350_000);
    const got: number[] = [];
    while (got.at(-1) !== total - 1) got.push(...await take(sleeper, 1));
    assert.ok(got.length < total);
    assert.deepEqual(got, [...got].sort((a, b) => a - b), "in order");
    for (const ws of servers) ws.terminate();
  });

  it("drop-oldest: waiting messages are dropped when the connection ends", async () => {
    const { servers, slow } = await audience();
    flood([slow], 4, { maxBufferedAmount: 350_000, slow: "drop-oldest" });
    await rest();
    assert.ok(slow.bufferedAmount > 0);
    slow.terminate();
    await rejection(slow.closed);
    flood([slow], 4, { maxBufferedAmount: 350_000, slow: "drop-oldest" });
    for (const ws of servers) ws.terminate();
  });

  it("a message that is longer than the limit is let through where nothing waits", async () => {
    for (const slow of ["close", "drop-oldest"] as const) {
      const [client, server] = await pair();
      broadcast([server], LARGE, { maxBufferedAmount: 10, slow });
      assert.equal((await client.receive()).length, LARGE.length);
      await client.close();
    }
  });

  it("drop-oldest: the order is kept at each moment while waiting messages leave", async () => {
    const [client, server] = await pair();
    let end = () => {};
    const fragmented = server.send((async function* () {
      yield "a";
      await new Promise<void>((resolve) => end = resolve);
    })());
    await rest();
    const count = 100;
    for (let i = 0; i < count; i++) {
      broadcast([server], String(i), { slow: "drop-oldest" });
      if (i === 10) end();
      // Each step of the sender is a microtask.
      await undefined;
    }
    await fragmented;
    const got = [await client.receive()];
    while (got.length <= count) got.push(await client.receive());
    assert.deepEqual(got, ["a", ...numbers(count).map(String)]);
    await client.close();
  });

  it("drop-oldest: a shared frame is only used while nothing waits", async () => {
    const shared: Message[] = [];
    const sending: Sending = {
      heldAmount: 0,
      endAsSlow() {},
      sendShared: ({ message }) => message !== "own" && shared.push(message) > 0,
    };
    const ws = new FakeRecipient();
    defineSending(ws, () => sending);
    const send = (message: string) => broadcast([ws], message, { slow: "drop-oldest" });
    for (const message of ["a", "own", "b"]) send(message);
    await ws.take();
    send("c");
    assert.deepEqual([shared, ws.sent], [["a"], ["own", "b"]]);
    await ws.take();
    await ws.take();
    send("d");
    assert.deepEqual([shared, ws.sent], [["a", "d"], ["own", "b", "c"]]);
  });

  const LONG = { maxBufferedAmount: 3 * (1 + 768), slow: "drop-oldest" } as const;
  const feeds: [name: string, limit: number, held: number, kept: string][] = [
    ["exactly the limit", LONG.maxBufferedAmount, 0, "cde"],
    ["less than the limit by one", LONG.maxBufferedAmount - 1, 0, "de"],
    ["the limit with what the connection holds", LONG.maxBufferedAmount + 10, 10, "cde"],
    ["too much with what the connection holds", LONG.maxBufferedAmount + 9, 10, "de"],
    ["one message, whatever the limit", 0, 0, "e"],
  ];
  for (const [name, maxBufferedAmount, held, kept] of feeds) {
    it(`drop-oldest: what waits is ${name}`, async () => {
      const ws = new FakeRecipient();
      // The second round finds that nothing is left of the first one, whose last message is refused.
      for (const end of ["take", "refuse"] as const) {
        ws.bufferedAmount = held;
        ws.sent.length = 0;
        for (const message of "abcde") {
          broadcast([ws], message, { maxBufferedAmount, slow: "drop-oldest", compress: true });
        }
        for (let i = 0; i < kept.length; i++) await ws.take();
        await ws[end]();
        assert.equal(ws.sent.join(""), `a${kept}`);
      }
      ws.bufferedAmount = 0;
      broadcast([ws], "f", LONG);
      for (const message of "ghi") broadcast([ws], message, LONG);
      await ws.refuse();
      assert.equal(
        ws.sent.join(""),
        `a${kept}f`,
        "what waited for a connection that has ended is dropped",
      );
      for (const message of "jklm") broadcast([ws], message, LONG);
      for (let i = 0; i < 4; i++) await ws.take();
      assert.equal(ws.sent.join(""), `a${kept}fjklm`);
      assert.equal(ws.compressed[0], true);
    });
  }

  it("a connection of a browser that is too slow is ended as it can be", () => {
    const ends: [slow: BroadcastOptions["slow"], end: CloseInfo | "terminate" | undefined][] = [
      [undefined, { closeCode: 4008, reason: "Too slow" }],
      ["close", { closeCode: 4008, reason: "Too slow" }],
      ["terminate", "terminate"],
      ["drop-newest", undefined],
    ];
    for (const [slow, end] of ends) {
      const ws = new FakeRecipient();
      ws.bufferedAmount = 10;
      assert.equal(broadcast([ws], "ab", { maxBufferedAmount: 12, slow, compress: false }).sent, 1);
      assert.deepEqual([ws.sent, ws.compressed, ws.ends], [["ab"], [false], []]);
      const { sent, missed, closed } = broadcast([ws], "ab", { maxBufferedAmount: 11, slow });
      assert.deepEqual([sent, missed, closed], end === undefined ? [0, 1, 0] : [0, 0, 1]);
      assert.deepEqual([ws.sent, ws.ends], [["ab"], end === undefined ? [] : [end]]);
    }
  });

  it("rejects messages of a wrong type and wrong options", () => {
    const wrong: [unknown, unknown, typeof Error][] = [
      [1, {}, TypeError],
      [["a"], {}, TypeError],
      ["a", { maxBufferedAmount: "1" }, TypeError],
      ["a", { maxBufferedAmount: -1 }, RangeError],
      ["a", { slow: "wait" }, RangeError],
    ];
    for (const [message, options, error] of wrong) {
      assert.throws(() => broadcast([], message as string, options as BroadcastOptions), error);
    }
  });
});
