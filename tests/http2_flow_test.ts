import { describe } from "node:test";
import assert from "node:assert/strict";
import type { ClientHttp2Session, ServerHttp2Stream } from "node:http2";
import { createServer, type Socket } from "node:net";
import type { AddressInfo } from "node:net";
import { it } from "./it.ts";
import type { HandshakeError, WebSocketConnection } from "../mod.ts";
import { connectHttp2, type ConnectHttp2Options, upgradeHttp2 } from "../lib/http2.ts";
import { lateEcho } from "./http_servers.ts";
import { dial, endSession, http2Server, listeners, noServer, withHttp2 } from "./http2_servers.ts";
import { rejection, rest, still, until } from "./support.ts";

const skip = noServer;

/** The most that may wait between two ends: the windows and buffers of HTTP/2, and our own buffers. */
const BOUND = 2 * 1024 * 1024;

/** Sends until told to stop, and counts how much was taken. */
function pump(ws: WebSocketConnection) {
  const state = { sent: 0, stopped: false, done: Promise.resolve() };
  state.done = (async () => {
    for (; !state.stopped; state.sent += 16384) await ws.send(new Uint8Array(16384));
  })();
  state.done.catch(() => {});
  return state;
}

async function checkEcho(ws: WebSocketConnection): Promise<void> {
  for (let i = 0; i < 20; i++) {
    await ws.send(new Uint8Array(65536));
    assert.equal((await ws.receive()).length, 65536);
  }
}

describe("Backpressure over HTTP/2", () => {
  it("A server that does not read stops its client, but no other stream", { skip }, async () => {
    const { handler: late, release } = lateEcho();
    const handler = (ws: WebSocketConnection) =>
      ws.request.url.endsWith("/late") ? late(ws) : ws.readable.pipeTo(ws.writable);
    await withHttp2({ handler }, async ({ open, attached }) => {
      const slow = await open("/late");
      const [theirs] = attached.connections;
      const sending = pump(slow);
      await until(() => sending.sent > 0);
      const stalled = await still(() => sending.sent);
      assert.ok(stalled < BOUND, `${stalled} bytes were taken`);
      assert.equal(theirs.stats.paused, true);
      assert.ok(theirs.stats.peakQueued < 65536 + 2 * 16384, `${theirs.stats.peakQueued} waited`);
      const quick = await open("/quick");
      await checkEcho(quick);
      assert.equal((await quick.close({ closeCode: 1000 })).closeCode, 1000);
      assert.equal(await still(() => sending.sent), stalled);
      sending.stopped = true;
      slow.discard();
      release();
      await sending.done;
      assert.ok(sending.sent > stalled);
      await slow.close();
    });
  });

  it("A client that does not read stops its server, but no other stream", { skip }, async () => {
    const pumps: ReturnType<typeof pump>[] = [];
    const handler = async (ws: WebSocketConnection) => {
      if (ws.request.url.endsWith("/tick")) {
        await rest();
        return ws.send("tick");
      }
      if (!ws.request.url.endsWith("/source")) return ws.readable.pipeTo(ws.writable);
      const sending = pump(ws);
      pumps.push(sending);
      await sending.done;
    };
    await withHttp2({ handler }, async ({ open }) => {
      const slow = await open("/source");
      await until(() => pumps[0]?.sent > 0);
      const stalled = await still(() => pumps[0].sent);
      assert.ok(stalled < BOUND, `${stalled} bytes were taken`);
      assert.equal(slow.stats.paused, true);
      const quick = await open("/quick");
      await checkEcho(quick);
      assert.equal((await quick.close({ closeCode: 1000 })).closeCode, 1000);
      // The server sends this message without receiving one first.
      const tick = await open("/tick");
      assert.equal(await tick.receive(), "tick");
      assert.equal((await tick.closed).closeCode, 1000);
      for (let i = 0; i < 200; i++) await slow.receive();
      assert.ok(pumps[0].sent >= 200 * 16384);
      pumps[0].stopped = true;
      while (await slow.receive().then(() => true, () => false));
      assert.equal((await slow.closed).closeCode, 1000);
    });
  });
});

/** A TCP server that never sends anything. */
async function withSilence(run: (session: ClientHttp2Session) => Promise<void>): Promise<void> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.resume();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const session = dial(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
  try {
    await run(session);
  } finally {
    await endSession(session);
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

describe("Giving up over HTTP/2", () => {
  const reason = new Error("enough");

  it("connectHttp2() does not begin with a signal that is aborted", async () => {
    await withSilence(async (session) => {
      const before = listeners(session);
      const signal = AbortSignal.abort(reason);
      assert.equal(await rejection(connectHttp2(session, "ws://a/", { signal })), reason);
      assert.deepEqual(listeners(session), before);
    });
  });

  for (const connected of [false, true]) {
    const when = connected ? "before the settings come" : "while the session is connecting";
    it(`connectHttp2() gives up ${when}`, async () => {
      await withSilence(async (session) => {
        if (connected) await new Promise((resolve) => session.once("connect", resolve));
        const before = listeners(session);
        const controller = new AbortController();
        const { signal } = controller;
        const attempts = Array.from(
          { length: 12 },
          () => connectHttp2(session, "ws://a/", { signal }),
        );
        const timed = connectHttp2(session, "ws://a/", { openTimeout: 50 });
        assert.equal((await rejection<HandshakeError>(timed)).code, "timeout");
        controller.abort(reason);
        for (const attempt of attempts) assert.equal(await rejection(attempt), reason);
        assert.deepEqual(listeners(session), before);
        assert.equal(session.destroyed, false);
      });
    });
  }

  it(
    "connectHttp2() gives up before the response comes, and resets the stream",
    { skip },
    async () => {
      let asked = 0;
      const server = http2Server();
      server.on("stream", (stream: ServerHttp2Stream) => {
        asked++;
        // A listener that reads a stream has taken it.
        stream.resume();
      });
      await withHttp2({ server, path: () => false }, async ({ open, session, streams }) => {
        const before = listeners(session);
        const controller = new AbortController();
        const attempt = open("/", { signal: controller.signal });
        await until(() => asked === 1);
        const [stream] = streams;
        controller.abort(reason);
        assert.equal(await rejection(attempt), reason);
        await until(() => streams.size === 0);
        assert.equal(stream.rstCode, 8);
        const timed = await rejection<HandshakeError>(open("/", { openTimeout: 50 }));
        assert.equal(timed.code, "timeout");
        await until(() => asked === 2 && streams.size === 0);
        assert.deepEqual(listeners(session), before);
      });
    },
  );

  it("connectHttp2() gives up while the session has no stream to spare", { skip }, async () => {
    const settings = { enableConnectProtocol: true, maxConcurrentStreams: 1 };
    const server = http2Server(settings);
    await withHttp2({ server }, async ({ open, streams }) => {
      const first = await open();
      const timed = await rejection<HandshakeError>(open("/", { openTimeout: 50 }));
      assert.equal(timed.code, "timeout");
      const controller = new AbortController();
      const attempt = open("/", { signal: controller.signal });
      await rest();
      controller.abort(reason);
      assert.equal(await rejection(attempt), reason);
      assert.equal(streams.size, 1);
      await first.send("still");
      assert.equal(await first.receive(), "still");
      // After the first connection is closed its place is free. The attempts that gave up do not hold it.
      await first.close();
      await (await open()).close();
    });
  });

  it("A signal that is aborted later has no effect", { skip }, async () => {
    await withHttp2({}, async ({ open }) => {
      const controller = new AbortController();
      const ws = await open("/", { signal: controller.signal });
      controller.abort(reason);
      await ws.send("still");
      assert.equal(await ws.receive(), "still");
      await ws.close();
    });
  });

  it("upgradeHttp2() gives up when its signal is aborted", { skip }, async () => {
    const controller = new AbortController();
    const server = http2Server();
    let asked = false;
    const given = new Promise<unknown>((resolve) => {
      server.on("stream", (stream: ServerHttp2Stream, headers) => {
        const onRequest = () => {
          asked = true;
          return new Promise<void>(() => {});
        };
        const { signal } = controller;
        resolve(rejection(upgradeHttp2(stream, headers, { onRequest, signal })));
      });
    });
    await withHttp2({ server, path: () => false }, async ({ open }) => {
      const attempt = rejection<HandshakeError>(open());
      await until(() => asked);
      controller.abort(reason);
      assert.equal(await given, reason);
      assert.equal((await attempt).code, "connection-lost");
    });
  });
});

describe("Sessions that fail", () => {
  const servers: [what: string, onSocket: (socket: Socket) => void][] = [
    ["closes at once", (socket) => socket.destroy()],
    ["ends at once", (socket) => socket.end()],
    ["speaks HTTP/1.1", (socket) => {
      socket.once(
        "data",
        () => socket.end("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"),
      );
    }],
  ];
  for (const [what, onSocket] of servers) {
    it(`connectHttp2() to a server that ${what} is connect-failed`, async () => {
      const server = createServer((socket) => {
        socket.on("error", () => {});
        onSocket(socket);
        socket.resume();
      });
      await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
      const { port } = server.address() as AddressInfo;
      const session = dial(`http://127.0.0.1:${port}`);
      const options: ConnectHttp2Options = { openTimeout: 20_000 };
      const attempts = [1, 2].map(() => connectHttp2(session, `ws://127.0.0.1:${port}/`, options));
      for (const attempt of attempts) {
        assert.equal((await rejection<HandshakeError>(attempt)).code, "connect-failed");
      }
      await endSession(session);
      await new Promise((resolve) => server.close(resolve));
    });
  }

  it('connectHttp2() rejects with "connect-failed" and a cause if nobody listens', async () => {
    const session = dial("http://127.0.0.1:1");
    const error = await rejection<HandshakeError>(connectHttp2(session, "ws://127.0.0.1:1/"));
    assert.equal(error.code, "connect-failed");
    assert.equal((error.cause as { code: string }).code, "ECONNREFUSED");
    const late = await rejection<HandshakeError>(connectHttp2(session, "ws://127.0.0.1:1/"));
    assert.equal(late.code, "connect-failed");
  });
});
