/** Faults over HTTP/2: streams and sessions without an 'error' listener, and refused streams. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import {
  type ClientHttp2Session,
  connect,
  createServer as createHttp2Server,
  type ServerHttp2Stream,
} from "node:http2";
import { type AddressInfo, createServer, type Socket } from "node:net";
import { it } from "../it.ts";
import { type HandshakeError, isTransient, type WebSocketConnection } from "../../mod.ts";
import { connectHttp2 } from "../../lib/http2.ts";
import {
  answerTo,
  CONNECT,
  endSession,
  http2Server,
  noServer,
  withHttp2,
} from "../http2_servers.ts";
import { withPrograms } from "../programs.ts";
import { rejection, until } from "../support.ts";

const skip = noServer;

/** Other listeners of the server, and the answers that it must give to requests which no listener takes. */
const SERVERS: [name: string, others: string][] = [
  ["no other listeners", ""],
  ["a 'request' listener", `server.on("request", (_request, response) => response.end());`],
  [
    "another 'stream' listener",
    `server.on("stream", (stream, headers) => {
      if (headers[":method"] !== "GET") return;
      stream.respond({ ":status": 200 });
      stream.end();
    });`,
  ],
];

/** A server that receives requests of each kind and sees them reset with each code, at once and later. */
const resetProgram = (others: string) => `
import { connect, createServer } from "node:http2";
import { attachHttp2 } from "sluice/http2";

const server = createServer({ settings: { enableConnectProtocol: true } });
${others}
attachHttp2(server, { path: "/ws" }, (ws) => ws.closed.catch(() => {}));
await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
const session = connect("http://127.0.0.1:" + server.address().port);
await new Promise((resolve) => session.once("remoteSettings", resolve));
const connectTo = { ":method": "CONNECT", ":authority": "a" };
const extended = { ...connectTo, ":scheme": "http", "sec-websocket-version": "13" };
const heads = [
  connectTo,
  { ...extended, ":path": "/other", ":protocol": "websocket" },
  { ...extended, ":path": "/ws", ":protocol": "websocket" },
  { ...extended, ":path": "/ws", ":protocol": "other" },
  { ":method": "GET", ":path": "/ws" },
  { ":method": "POST", ":path": "/other" },
];
for (const head of heads) {
  for (const code of [0, 2, 8]) {
    for (const delay of [0, 20]) {
      const stream = session.request(head, { endStream: false });
      stream.on("error", () => {});
      await new Promise((resolve) => setTimeout(resolve, delay));
      stream.close(code);
    }
  }
}
// The answer comes after all that was reset.
await new Promise((resolve) => session.ping(resolve));
await new Promise((resolve) => setTimeout(resolve, 20));
console.log("lives");
session.destroy();
server.close(() => console.log("closed"));
`;

describe("A4 requests that attachHttp2() leaves to others", () => {
  for (const [name, others] of SERVERS) {
    it(`A4 a stream that is reset leaves the process alive: ${name}`, { skip }, async () => {
      await withPrograms(async (start) => {
        const child = await start("resets.mjs", resetProgram(others));
        assert.equal(await child.exited, 0, child.stderr);
        assert.equal(child.stdout, "lives\nclosed\n");
      });
    });
  }

  const statuses: [name: string, others: boolean, plain: number][] = [
    ["no other listeners", false, 405],
    ["a 'request' listener", true, 200],
  ];
  for (const [name, others, plain] of statuses) {
    it(`A4 another path is answered with 404: ${name}`, { skip }, async () => {
      const server = http2Server();
      if (others) server.on("request", (_request, response) => void response.end());
      await withHttp2({ path: "/ws", server }, async ({ session, open }) => {
        for (const query of ["", "?a", "?b"]) {
          const { status } = await answerTo(session, { ...CONNECT, ":path": `/other${query}` });
          assert.equal(status, 404);
        }
        assert.equal((await answerTo(session, { ":path": "/ws" })).status, plain);
        await (await open("/ws")).close();
      });
    });
  }

  it("A4 another listener may take its request later in the turn, or within a second", {
    skip,
  }, async () => {
    const server = http2Server();
    server.on("stream", async (stream: ServerHttp2Stream, headers) => {
      if (headers[":path"] === "/ws") return;
      if (headers[":path"] === "/later") await new Promise((resolve) => setTimeout(resolve, 50));
      stream.respond({ ":status": 204 });
      stream.end();
    });
    await withHttp2({ path: "/ws", server }, async ({ session }) => {
      for (const path of ["/now", "/later"]) {
        assert.equal((await answerTo(session, { ...CONNECT, ":path": path })).status, 204);
      }
    });
  });

  it("A4 another path is answered with 404 when another listener leaves it", { skip }, async () => {
    const server = http2Server();
    server.on("stream", () => {});
    await withHttp2({ path: "/ws", server }, async ({ session }) => {
      const head = { ...CONNECT, ":path": "/other" };
      const answers = await Promise.all([answerTo(session, head), answerTo(session, head)]);
      assert.deepEqual(answers.map(({ status }) => status), [404, 404]);
    });
  });

  it("A4 onRequest answers plain requests if no other listener does", { skip }, async () => {
    const onRequest = (request: Request) =>
      request.url.endsWith("/health") ? new Response("well") : undefined;
    await withHttp2({ onRequest }, async ({ session, open, attached }) => {
      const { status, body } = await answerTo(session, { ":path": "/health" });
      assert.deepEqual([status, body], [200, "well"]);
      await until(() => attached.stats.answered === 1);
      assert.deepEqual(attached.stats.refused, {});
      await (await open()).close();
    });
  });
});

/** More rounds than a session of Node survives if each one leaks 50 KB (`maxSessionMemory` is 10 MB). */
const ROUNDS = 200;

describe("G1 streams that are cut while they are congested", () => {
  it("G1 200 downloads that are cut leave the session usable", { skip }, async () => {
    const handler = async (ws: WebSocketConnection) => {
      for (;;) await ws.send(new Uint8Array(900_000));
    };
    const server = http2Server();
    server.on("request", (_request, response) => void response.end("Hello"));
    await withHttp2({ handler, server, path: "/ws" }, async ({ session, open, attached }) => {
      for (let round = 0; round < ROUNDS; round++) {
        const ws = await open("/ws");
        const [theirs] = attached.connections;
        await until(() => ws.stats.paused && theirs.bufferedAmount > 0);
        ws.terminate();
        await rejection(ws.closed);
        await until(() => attached.connections.size === 0);
      }
      assert.equal((await answerTo(session, { ":path": "/" })).body, "Hello");
    });
  });

  it("G1 200 uploads that are cut leave the session usable", { skip }, async () => {
    const handler = (ws: WebSocketConnection) => ws.closed.catch(() => {});
    await withHttp2({ handler, maxMessageSize: Infinity }, async ({ open, attached }) => {
      for (let round = 0; round < ROUNDS; round++) {
        const ws = await open();
        const sent = [1, 2].map(() => rejection(ws.send(new Uint8Array(250_000))));
        const [theirs] = attached.connections;
        await until(() => theirs.stats.paused);
        ws.terminate();
        await Promise.all(sent);
        await until(() => attached.connections.size === 0);
      }
      const ws = await open();
      await ws.close();
    });
  });

  it("G1 what a stream has not taken leaves in order, before its end", { skip }, async () => {
    const received: number[] = [];
    const handler = async (ws: WebSocketConnection) => {
      for await (const message of ws) received.push(message.length);
    };
    await withHttp2({ handler, maxMessageSize: Infinity }, async ({ open }) => {
      const ws = await open();
      const lengths = [1, 20_000, 0, 300_000, 8192, 16_384, 5, 70_000];
      for (const length of lengths) void ws.send(new Uint8Array(length));
      assert.equal((await ws.close({ closeCode: 1000 })).closeCode, 1000);
      assert.deepEqual(received, lengths);
    });
  });
});

/** What happens to a session, and when. */
const ENDS: [what: string, arrange: (session: ClientHttp2Session) => void][] = [
  ["destroyed at once", (session) => session.destroy()],
  ["destroyed with an error at once", (session) => session.destroy(new Error("enough"))],
  ["destroyed when it connects", (session) => session.on("connect", () => session.destroy())],
  [
    "destroyed with an error when it connects",
    (session) => session.on("connect", () => session.destroy(new Error("enough"))),
  ],
  ["closed when it connects", (session) => session.on("connect", () => session.close())],
  [
    "destroyed a moment after it connects",
    (session) => session.on("connect", () => setTimeout(() => session.destroy(new Error("x")), 20)),
  ],
];

/** Runs a test with a server that accepts TCP connections and never answers. */
async function withMuteServer(run: (port: number) => Promise<void>): Promise<void> {
  const sockets = new Set<Socket>();
  const server = createServer((socket) => {
    sockets.add(socket);
    socket.on("error", () => {});
    socket.resume();
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    await run((server.address() as AddressInfo).port);
  } finally {
    for (const socket of sockets) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
  }
}

describe("G2 sessions that end while connectHttp2() waits", () => {
  for (const [what, arrange] of ENDS) {
    it(`G2 a session without listeners that is ${what} is connect-failed`, async () => {
      await withMuteServer(async (port) => {
        const session = connect(`http://127.0.0.1:${port}`);
        const attempt = rejection<HandshakeError>(
          connectHttp2(session, `ws://127.0.0.1:${port}/`),
        );
        arrange(session);
        assert.equal((await attempt).code, "connect-failed");
        await endSession(session);
      });
    });
  }

  it("G2 the session has no 'error' listener and nobody listens at the address", async () => {
    const session = connect("http://127.0.0.1:1");
    const error = await rejection<HandshakeError>(connectHttp2(session, "ws://127.0.0.1:1/"));
    assert.equal(error.code, "connect-failed");
    assert.equal((error.cause as { code: string }).code, "ECONNREFUSED");
  });

  it("G2 a session that fails under an open connection ends it with 1006", { skip }, async () => {
    const server = http2Server();
    await withHttp2({ server }, async ({ url }) => {
      const session = connect(url().replace("ws", "http"));
      const ws = await connectHttp2(session, url());
      session.destroy(new Error("enough"));
      const error = await rejection<Error & { closeCode: number }>(ws.closed);
      assert.equal(error.closeCode, 1006);
      await endSession(session);
    });
  });
});

describe("G3 sessions with as many streams as the server allows", () => {
  for (const waiting of [1, 12]) {
    it(`G3 ${waiting} that wait connect when there is room`, { skip }, async () => {
      const settings = { enableConnectProtocol: true, maxConcurrentStreams: 3 };
      await withHttp2({ server: http2Server(settings) }, async ({ open }) => {
        const first = await Promise.all([open(), open(), open()]);
        const others = Array.from({ length: waiting }, async () => {
          const ws = await open();
          await ws.send("Hello");
          assert.equal(await ws.receive(), "Hello");
          return await ws.close({ closeCode: 1000 });
        });
        await first[0].close();
        first[1].terminate();
        await first[2].close();
        for (const { closeCode } of await Promise.all(others)) assert.equal(closeCode, 1000);
      });
    });
  }

  it("G3 a server that refuses each stream is stream-refused, which may be tried again", {
    skip,
  }, async () => {
    let asked = 0;
    const server = createHttp2Server({ settings: { enableConnectProtocol: true } });
    server.on("stream", (stream: ServerHttp2Stream) => {
      asked++;
      // REFUSED_STREAM
      stream.close(7);
    });
    await withHttp2({ server, path: "/none" }, async ({ open }) => {
      const error = await rejection<HandshakeError>(open());
      assert.equal(error.code, "stream-refused");
      assert.ok(isTransient(error));
      assert.ok(asked > 1 && asked < 20, `asked ${asked} times`);
      const late = await rejection<HandshakeError>(open("/", { openTimeout: 30 }));
      assert.match(late.code, /^(timeout|stream-refused)$/);
    });
  });

  it("G3 header fields that can be read only once are sent again", { skip }, async () => {
    let asked = 0;
    const values: unknown[] = [];
    const server = createHttp2Server({ settings: { enableConnectProtocol: true } });
    server.on("stream", (stream: ServerHttp2Stream, headers) => {
      values.push(headers["x-a"]);
      if (asked++ === 0) stream.close(7);
      else stream.respond({ ":status": 200 });
    });
    await withHttp2({ server, path: "/none" }, async ({ open }) => {
      const headers = new Map([["X-A", "1"]]).entries();
      const ws = await open("/", { headers });
      ws.terminate();
      assert.deepEqual(values, ["1", "1"]);
    });
  });
});
