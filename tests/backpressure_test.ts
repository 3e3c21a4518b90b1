import { describe, it } from "node:test";
import assert from "node:assert/strict";
import type { Socket } from "node:net";
import { connect, type Message, serve, type WebSocketConnection } from "../mod.ts";
import { encodeFrame, FrameDecoder, Opcode } from "../lib/core/mod.ts";
import { hex, pattern } from "./bytes.ts";
import {
  binaryFrame,
  collect,
  inBothRoles,
  portOf,
  RawSocket,
  rejection,
  requestOf,
  rest,
  still,
  textFrame,
  turn,
  until,
  upgradeRequest,
  upgradeResponse,
  withRawServer,
} from "./support.ts";

const KIB = 1024;
const MIB = 1024 * KIB;
const INBOX = 64 * KIB;
/** The most that may be in flight between two correct processes, in bytes. */
const BOUND = 8 * MIB;
const MESSAGE = pattern(64 * KIB);
/** The amount to send, in bytes: far more than any kernel buffers. */
const TOTAL = 48 * MIB;

/** Ways to read that take one message each time. */
const READING: Record<string, (ws: WebSocketConnection) => () => Promise<unknown>> = {
  "receive()": (ws) => () => ws.receive(),
  "readable": (ws) => {
    const reader = ws.readable.getReader();
    return () => reader.read();
  },
  "messages()": (ws) => {
    const reader = ws.messages().getReader();
    return async () => await collect<Message>((await reader.read()).value!.readable);
  },
};

/** Ways to send that wait for the peer to read. */
const SENDING: Record<string, (ws: WebSocketConnection) => (data: Uint8Array) => Promise<void>> = {
  "send()": (ws) => (data) => ws.send(data),
  "writable": (ws) => {
    const writer = ws.writable.getWriter();
    return (data) => writer.write(data);
  },
};

describe("The inbox of a WebSocketConnection", () => {
  for (const [name, begin] of Object.entries(READING)) {
    it(`The inbox that is full pauses the transport, read by ${name}, and resumes it`, async () => {
      await inBothRoles(async (ws, peer) => {
        const take = begin(ws);
        for (let i = 0; i < 40; i++) peer.send(binaryFrame(pattern(10_000)));
        await until(() => ws.stats.paused);
        await rest();
        const { queued, pauses, messagesReceived } = ws.stats;
        assert.ok(queued >= INBOX && queued <= INBOX + 10_256, `${queued} bytes wait`);
        assert.equal(pauses, 1);
        assert.ok(messagesReceived < 10);
        for (let i = 0; i < 40; i++) await take();
        assert.equal(ws.stats.paused, false);
        assert.equal(ws.stats.queued, 0);
        assert.equal(ws.stats.messagesReceived, 40);
        assert.ok(ws.stats.peakQueued <= INBOX + 10_256);
      });
    });
  }

  it("The inbox takes one message of any size", async () => {
    await inBothRoles(async (ws, peer) => {
      for (let i = 0; i < 3; i++) peer.send(binaryFrame(pattern(500_000)));
      for (let i = 0; i < 3; i++) assert.deepEqual(await ws.receive(), pattern(500_000));
    });
  });

  it("The inbox counts the length of a text plus 64", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(...Array.from({ length: 2000 }, () => textFrame("")));
      await until(() => ws.stats.paused);
      assert.equal(ws.stats.messagesReceived, INBOX / 64);
    });
  });

  it("The inbox is as large as readableStrategy says", async () => {
    await inBothRoles(async (ws, peer) => {
      peer.send(...Array.from({ length: 10 }, (_, i) => textFrame(`${i}`)));
      await until(() => ws.stats.paused);
      assert.equal(ws.stats.messagesReceived, 3);
      for (let i = 0; i < 10; i++) assert.equal(await ws.receive(), `${i}`);
    }, { readableStrategy: { highWaterMark: 3, size: () => 1 } });
  });

  it("A readableStrategy that throws fails the connection with 1011, and the process continues", async () => {
    const cause = new Error("no size");
    const size = () => {
      throw cause;
    };
    await inBothRoles(async (ws, peer) => {
      peer.send(textFrame("a"));
      assert.equal((await peer.nextClose()).closeCode, 1011);
      assert.equal((await rejection(ws.closed)).cause, cause);
    }, { readableStrategy: { size } });
  });

  it("The inbox of a connection that nobody reads also bounds an incomplete message", async () => {
    await inBothRoles(
      async (ws, peer) => {
        peer.send(binaryFrame(pattern(900_000)));
        await until(() => ws.stats.paused);
        await rest();
        assert.ok(ws.stats.bytesReceived < 200_000, `${ws.stats.bytesReceived} bytes came`);
        assert.deepEqual(await ws.receive(), pattern(900_000));
      },
      {},
      { chunkSize: 16 * KIB },
    );
  });

  it("The inbox that is full does not keep sends from leaving", async () => {
    await inBothRoles(async (ws, peer) => {
      for (let i = 0; i < 40; i++) peer.send(binaryFrame(pattern(10_000)));
      await until(() => ws.stats.paused);
      await ws.send("a");
      assert.equal((await peer.next()).opcode, Opcode.Text);
    });
  });
});

/** Sends until nothing more is taken. `sending` continues when the peer reads. */
async function fill(ws: WebSocketConnection, send: (data: Uint8Array) => Promise<void>) {
  const progress = { sent: 0, done: false };
  const sending = (async () => {
    while (progress.sent < TOTAL) {
      await send(MESSAGE);
      progress.sent += MESSAGE.length;
    }
    progress.done = true;
  })();
  sending.catch(() => {});
  await still(() => progress.sent);
  assert.equal(progress.done, false);
  assert.ok(progress.sent + ws.bufferedAmount <= BOUND, `${progress.sent} bytes were taken`);
  // A transport may gather some messages for one write.
  assert.ok(ws.bufferedAmount <= INBOX + 5 * MESSAGE.length, `${ws.bufferedAmount} bytes wait`);
  return { sending };
}

/** Reads everything that the connection sends, and counts the bytes of its messages. */
function countPayload(raw: RawSocket, role: "client" | "server"): () => number {
  const decoder = new FrameDecoder({ role });
  let count = 0;
  const take = (chunk: Uint8Array) => {
    decoder.push(chunk);
    for (let piece = decoder.next(); piece; piece = decoder.next()) count += piece.payload.length;
  };
  take(raw.received.slice(raw.text.indexOf("\r\n\r\n") + 4));
  raw.socket.removeAllListeners("data");
  raw.socket.on("data", take);
  raw.socket.resume();
  return () => count;
}

/** Runs a test with a connection of the server. Its client is a raw socket. */
async function withServerSide(run: (ws: WebSocketConnection, raw: RawSocket) => Promise<unknown>) {
  let accepted: WebSocketConnection | undefined;
  const server = await serve({ closeTimeout: 100, pingInterval: 0 }, async (ws) => {
    accepted = ws;
    await ws.closed;
  });
  const raw = await RawSocket.connect(portOf(server));
  raw.write(upgradeRequest());
  await until(() => accepted !== undefined && raw.text.includes("\r\n\r\n"));
  try {
    await run(accepted!, raw);
  } finally {
    accepted!.terminate();
    raw.socket.destroy();
    await server.shutdown();
  }
}

/** Runs a test with a connection of the client. Its server is a raw socket. */
async function withClientSide(run: (ws: WebSocketConnection, raw: RawSocket) => Promise<unknown>) {
  let accepted!: RawSocket;
  await withRawServer(async (raw) => {
    accepted = raw;
    raw.write(upgradeResponse(await requestOf(raw)));
  }, async (url) => {
    const ws = await connect(url, { pingInterval: 0 });
    try {
      await run(ws, accepted);
    } finally {
      ws.terminate();
    }
  });
}

const SIDES = { server: withServerSide, client: withClientSide };

describe("Backpressure over sockets", () => {
  for (const [side, withSide] of Object.entries(SIDES)) {
    for (const [name, begin] of Object.entries(SENDING)) {
      it(`${name} of a ${side} stalls within 8 MiB when the peer does not read`, async () => {
        await withSide(async (ws, raw) => {
          raw.socket.pause();
          const { sending } = await fill(ws, begin(ws));
          const count = countPayload(raw, side === "server" ? "client" : "server");
          await sending;
          await until(() => count() === TOTAL);
        });
      });
    }

    for (const [name, begin] of Object.entries(READING)) {
      it(`A ${side} whose consumer sleeps, by ${name}, stops its peer within 8 MiB`, async () => {
        await withSide(async (ws, raw) => {
          const take = begin(ws);
          const frame = encodeFrame(
            { opcode: Opcode.Binary, payload: MESSAGE },
            side === "server" ? { mask: hex("37 fa 21 3d") } : {},
          );
          const progress = { taken: 0 };
          const writing = writeAll(raw.socket, frame, progress);
          await until(() => ws.stats.paused);
          await still(() => progress.taken);
          assert.ok(progress.taken <= BOUND, `${progress.taken} bytes were taken`);
          assert.ok(ws.stats.queued <= INBOX + 2 * MESSAGE.length, `${ws.stats.queued} bytes wait`);
          for (let read = 0; read < TOTAL; read += MESSAGE.length) await take();
          await writing;
          assert.ok(ws.stats.peakQueued <= INBOX + 2 * MESSAGE.length);
          assert.ok(ws.stats.pauses > 0);
        });
      });
    }
  }

  it("terminate() cuts a peer that floods", async () => {
    await withServerSide(async (ws, raw) => {
      const frame = encodeFrame({ opcode: 2, payload: MESSAGE }, { mask: hex("37 fa 21 3d") });
      writeAll(raw.socket, frame, { taken: 0 }).catch(() => {});
      await until(() => ws.stats.paused);
      ws.terminate();
      await until(() => ws.state === "closed" && raw.closed);
    });
  });
});

/** Writes messages as fast as the kernel takes them. */
async function writeAll(socket: Socket, frame: Uint8Array, progress: { taken: number }) {
  for (let sent = 0; sent < TOTAL; sent += MESSAGE.length) {
    await new Promise<void>((resolve, reject) => {
      socket.write(frame, (error) => error ? reject(error) : resolve());
    });
    progress.taken += frame.length;
    if (sent % MIB === 0) await turn();
  }
}
