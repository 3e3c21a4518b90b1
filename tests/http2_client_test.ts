/** The client over HTTP/2, with a server in another process: also on Deno, which has no such server. */
import { after, before, describe } from "node:test";
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import type { ClientHttp2Session } from "node:http2";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { it, peerMissing } from "./it.ts";
import type { HandshakeError, WebSocketConnection, WebSocketError } from "../mod.ts";
import { connectHttp2, type ConnectHttp2Options } from "../lib/http2.ts";
import { assertSameBytes, pattern } from "./bytes.ts";
import { dial, endSession, listeners, noServer } from "./http2_servers.ts";
import { Child, readSource, withPrograms } from "./programs.ts";
import { rejection, still, until } from "./support.ts";

// The test runner passes the paths of the runtimes.
const node = process.env.RUNTIME_NODE24;
const missing = node === undefined || !existsSync(node);
const skip = noServer !== undefined && missing
  ? peerMissing("no Node 24, which the runner gives by RUNTIME_NODE24")
  : undefined;
const runtime = noServer !== undefined && !missing ? { path: node, name: "node24" } : undefined;
const BOUND = 2 * 1024 * 1024;

describe("connectHttp2() to a server in another process", () => {
  let server: Child;
  let session: ClientHttp2Session;
  let url: string;
  let plainUrl: string;

  before(async () => {
    if (skip !== undefined) return;
    const path = fileURLToPath(new URL("scenarios/http2_server.ts", import.meta.url));
    server = new Child(path, { runtime });
    const [, port, plainPort] = await server.printed(/ports: (\d+) (\d+)/);
    url = `ws://127.0.0.1:${port}`;
    plainUrl = `ws://127.0.0.1:${plainPort}`;
    session = dial(url.replace("ws", "http"));
  });

  after(async () => {
    if (skip !== undefined) return;
    await endSession(session);
    server.stop();
    await server.exited;
  });

  const open = (path = "/", options: ConnectHttp2Options = {}) =>
    connectHttp2(session, url + path, { pingInterval: 0, ...options });

  it("Messages of each size come back", { skip }, async () => {
    const ws = await open("/echo?a", { protocols: ["chat"], headers: { "X-A": "1" } });
    assert.equal(ws.protocol, "chat");
    for (const size of [0, 1, 126, 65536, 1048576]) {
      await ws.send(pattern(size));
      assertSameBytes(await ws.receive() as Uint8Array, pattern(size));
      const text = "é".repeat(size >> 1);
      await ws.send(text);
      assert.ok(await ws.receive() === text);
    }
    await ws.ping();
    const info = { closeCode: 3000, reason: "r" };
    assert.deepEqual(await ws.close(info), info);
  });

  it("Several connections on one session", { skip }, async () => {
    const all = await Promise.all(Array.from({ length: 20 }, () => open("/echo")));
    await Promise.all(all.map((ws, i) => ws.send(`${i}`)));
    for (const [i, ws] of all.entries()) assert.equal(await ws.receive(), `${i}`);
    await Promise.all(all.map((ws) => ws.close()));
  });

  it("A server that does not read stops only its own stream", { skip }, async () => {
    const slow = await open("/sleep");
    let sent = 0;
    let stopped = false;
    const sending = (async () => {
      for (; !stopped; sent += 16384) await slow.send(new Uint8Array(16384));
    })();
    await until(() => sent > 0);
    const stalled = await still(() => sent);
    assert.ok(stalled < BOUND, `${stalled} bytes were taken`);
    const quick = await open("/echo");
    await quick.send("quick");
    assert.equal(await quick.receive(), "quick");
    await quick.close();
    stopped = true;
    slow.discard();
    assert.equal((await (await open("/wake")).closed).closeCode, 1000);
    await sending;
    await slow.close();
  });

  it("A server that sends more than is read is stopped", { skip }, async () => {
    const sentBytes = () => Number([...server.stdout.matchAll(/sent (\d+)/g)].at(-1)?.[1] ?? 0);
    const ws = await open("/source");
    await until(() => sentBytes() > 0);
    const stalled = await still(sentBytes);
    assert.ok(stalled < BOUND, `${stalled} bytes were sent`);
    assert.equal(ws.stats.paused, true);
    for (let i = 0; i < 100; i++) assert.equal((await ws.receive()).length, 65536);
    ws.terminate();
    await rejection(ws.closed);
  });

  const ends: [path: string, code: number][] = [
    ["/closes", 4001],
    ["/terminates", 1006],
    ["/raw/ends", 1006],
    ["/raw/resets", 1006],
  ];
  for (const [path, code] of ends) {
    it(`${path} is ${code}`, { skip }, async () => {
      const ws: WebSocketConnection = await open(path);
      if (path === "/raw/ends") assert.equal(await ws.receive(), "last");
      const end = await ws.closed.catch((error: WebSocketError) => error);
      assert.equal(end.closeCode, code);
    });
  }

  const failures: [path: string, code: string][] = [
    ["/refused", "status"],
    ["/raw/long", "status"],
    ["/raw/resets-early", "connection-lost"],
    ["/raw/refuses", "stream-refused"],
    ["/raw/protocol", "subprotocol"],
    ["/raw/extension", "extension"],
    ["/raw/silent", "timeout"],
  ];
  for (const [path, code] of failures) {
    it(`${path} is ${code}`, { skip }, async () => {
      const options = path === "/raw/silent" ? { openTimeout: 50 } : {};
      const error = await rejection<HandshakeError>(open(path, options));
      assert.equal(error.code, code);
      if (code !== "status") return;
      const body = error.response!.body as ReadableStream<Uint8Array<ArrayBuffer>>;
      const length = (await new Response(body).arrayBuffer()).byteLength;
      assert.equal(length, path === "/refused" ? 3 : 65536);
    });
  }

  it("A signal gives up while the server is silent", { skip }, async () => {
    const before = listeners(session);
    const controller = new AbortController();
    const attempt = open("/raw/silent", { signal: controller.signal });
    setTimeout(() => controller.abort("enough"), 20);
    assert.equal(await rejection(attempt), "enough");
    assert.deepEqual(listeners(session), before);
  });

  it("Any status of success opens a connection", { skip }, async () => {
    const ws = await open("/raw/201");
    assert.equal(ws.response.status, 201);
    ws.terminate();
  });

  it(
    "After the server destroys the session, connections are 1006 and none is opened",
    { skip },
    async () => {
      const other = dial(url.replace("ws", "http"));
      const ws = await connectHttp2(other, `${url}/raw/goaway`);
      assert.equal((await rejection<WebSocketError>(ws.closed)).closeCode, 1006);
      await until(() => other.destroyed);
      const late = await rejection<HandshakeError>(connectHttp2(other, url));
      assert.equal(late.code, "connect-failed");
    },
  );

  it("A server without the setting is no-extended-connect", { skip }, async () => {
    const other = dial(plainUrl.replace("ws", "http"));
    for (let i = 0; i < 2; i++) {
      const error = await rejection<HandshakeError>(connectHttp2(other, `${plainUrl}/a?token=b`));
      assert.equal(error.code, "no-extended-connect");
      assert.ok(error.message.endsWith(` (${plainUrl}/a)`), error.message);
    }
    await endSession(other);
  });
});

describe("The example of HTTP/2", () => {
  it("examples/http2.ts has both ends, and shuts down", { skip: noServer }, async () => {
    const program = (await readSource("examples/http2.ts")).replaceAll("8080", "0");
    await withPrograms(async (start) => {
      const child = await start("http2.ts", program);
      await child.printed(/port: \d+/);
      for (const i of [1, 2, 3]) assert.match(child.stdout, new RegExp(`Hello from stream ${i}\n`));
      child.stop();
      await child.printed(/closed/);
      await child.exited;
    });
  });
});
