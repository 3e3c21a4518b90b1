/** A loop of awaited sends lets timers and other connections run, however fast the peer reads. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import { accept, connect, type Message, type WebSocketConnection } from "../../mod.ts";
import { transportPair } from "../../lib/testing.ts";

/** The number of timer callbacks that the test waits for. */
const TURNS = 20;
/**
 * The most CPU time that they may take, in milliseconds. A timer of 1 ms that is starved never fires in it.
 */
const MOST = 4000;

/** A client whose transport accepts everything at once. */
async function fast(compression: boolean): Promise<WebSocketConnection> {
  const [near, far] = transportPair();
  const [client] = await Promise.all([
    connect("ws://localhost/", { transport: near, pingInterval: 0 }),
    accept(far, { pingInterval: 0, compression }),
  ]);
  near.write = () => {};
  return client;
}

type Loop = (ws: WebSocketConnection, message: Message, goesOn: () => boolean) => Promise<unknown>;

const loops: [name: string, loop: Loop][] = [
  ["send()", async (ws, message, goesOn) => {
    while (goesOn()) await ws.send(message);
  }],
  ["send() of two at a time", async (ws, message, goesOn) => {
    while (goesOn()) await Promise.all([ws.send(message), ws.send(message)]);
  }],
  ["send() of an array", async (ws, message, goesOn) => {
    while (goesOn()) await ws.send([message, message]);
  }],
  ["one message of a generator", (ws, message, goesOn) =>
    ws.send((function* () {
      while (goesOn()) yield message;
    })())],
  [
    "one message of an asynchronous generator",
    (ws, message, goesOn) =>
      ws.send((async function* () {
        while (goesOn()) yield message;
      })()),
  ],
  ["writer.write()", async (ws, message, goesOn) => {
    const writer = ws.writable.getWriter();
    while (goesOn()) await writer.write(message);
  }],
  ["writer.ready", async (ws, message, goesOn) => {
    const writer = ws.writable.getWriter();
    while (goesOn()) {
      await writer.ready;
      writer.write(message).catch(() => {});
    }
  }],
  ["pipeTo()", async (ws, message, goesOn) => {
    const source = new ReadableStream<Message>({
      pull(controller) {
        if (goesOn()) controller.enqueue(message);
        else controller.close();
      },
    });
    await source.pipeTo(ws.writable, { preventClose: true });
  }],
  ["three loops of send()", (ws, message, goesOn) =>
    Promise.all([1, 2, 3].map(async () => {
      while (goesOn()) await ws.send(message);
    }))],
];

const messages: [name: string, message: Message, compression?: boolean][] = [
  ["text of 16 characters", "x".repeat(16)],
  ["an empty message", ""],
  ["20 KB", new Uint8Array(20_000)],
  ["text of 70 KB", "x".repeat(70_000)],
  ["1 MB", new Uint8Array(1_000_000)],
  ["compressed text of 10 KB", "x".repeat(10_000), true],
];

describe("B8 a loop of awaited sends lets timers run", () => {
  for (const [loop, run] of loops) {
    for (const [name, message, compression = false] of messages) {
      it(`B8 ${loop}, ${name}`, async () => {
        const ws = await fast(compression);
        const before = process.cpuUsage();
        let turns = 0;
        let calls = 0;
        let spent = 0;
        const timer = setInterval(() => turns++, 1);
        await run(ws, message, () => {
          if (++calls % 16 === 0) {
            const { user, system } = process.cpuUsage(before);
            spent = (user + system) / 1000;
          }
          return turns < TURNS && spent < MOST;
        });
        clearInterval(timer);
        ws.terminate();
        assert.ok(turns >= TURNS, `${turns} turns of a timer in ${spent} ms of CPU`);
      });
    }
  }

  it("B8 a connection that sends in a loop lets another one work", async () => {
    const ws = await fast(false);
    const [near, far] = transportPair();
    const [client, server] = await Promise.all([
      connect("ws://localhost/", { transport: near, pingInterval: 0 }),
      accept(far, { pingInterval: 0 }),
    ]);
    const echoing = server.readable.pipeTo(server.writable);
    let echoes = 0;
    let loops = 0;
    const loop = (async () => {
      while (echoes < TURNS && loops++ < 20_000_000) await ws.send("x".repeat(16));
    })();
    for (; echoes < TURNS; echoes++) {
      await client.send("echo");
      await client.receive();
    }
    await loop;
    assert.equal(echoes, TURNS);
    await client.close();
    await echoing;
    ws.terminate();
  });
});
