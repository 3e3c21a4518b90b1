import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { existsSync } from "node:fs";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import process from "node:process";
import { connect, HandshakeError, serve, type ServeOptions, WebSocketStream } from "../mod.ts";
import { withPrograms } from "./programs.ts";
import { rejection, until } from "./support.ts";

/** Runs a test with the path of a socket that no server listens on yet. */
async function withPath(run: (path: string) => Promise<void>): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "sluice-"));
  try {
    await run(join(folder, "socket"));
  } finally {
    await rm(folder, { recursive: true });
  }
}

/** Leaves the file of a socket whose server was killed. */
async function leaveStale(path: string): Promise<void> {
  await withPrograms(async (start) => {
    const program = `
      import { createServer } from "node:net";
      import process from "node:process";
      createServer().listen({ path: ${
      JSON.stringify(path)
    } }, () => process.kill(process.pid, 9));`;
    await (await start("stale.mjs", program)).exited;
  });
  assert.ok(existsSync(path), "Expected a stale socket");
}

async function failureOf(path: string): Promise<HandshakeError> {
  const error = await rejection<HandshakeError>(connect("ws://localhost/", { unix: path }));
  assert.ok(error instanceof HandshakeError);
  assert.equal(error.code, "connect-failed");
  assert.ok(error.message.includes(path), error.message);
  return error;
}

const cause = (error: Error) => (error.cause as { code?: string }).code;

describe("Unix sockets", () => {
  it("connect() and serve() meet on the path, and tell it as their address", async () => {
    await withPath(async (path) => {
      const server = await serve({ unix: path }, async (ws) => {
        for await (const message of ws) await ws.send(message);
      });
      assert.deepEqual(server.address, { transport: "unix", path });
      const { url, hostname, port } = server;
      assert.deepEqual([url, hostname, port], [undefined, undefined, undefined]);
      const ws = await connect("ws://example.test:81/chat?a", { unix: path });
      await ws.send("Hello");
      assert.equal(await ws.receive(), "Hello");
      assert.equal(ws.request.url, "http://example.test:81/chat?a");
      assert.deepEqual(ws.remoteAddress, server.address);
      assert.equal(ws.localAddress, undefined);
      const [peer] = server.connections;
      assert.deepEqual(peer.localAddress, server.address);
      assert.equal(peer.remoteAddress, undefined);
      assert.equal(peer.request.url, "http://example.test:81/chat?a");
      assert.equal((await ws.close({ closeCode: 1000 })).closeCode, 1000);
      await server.shutdown();
    });
  });

  it("WebSocketStream connects to the path", async () => {
    await withPath(async (path) => {
      const server = await serve({ unix: path }, (ws) => ws.send("Hello"));
      const stream = new WebSocketStream("ws://localhost/", { unix: path });
      const reader = (await stream.opened).readable.getReader();
      assert.equal((await reader.read()).value, "Hello");
      await stream.closed;
      await server.shutdown();
    });
  });

  it("A message of a MiB passes whole", async () => {
    await withPath(async (path) => {
      const server = await serve({ unix: path }, (ws) => ws.readable.pipeTo(ws.writable));
      const ws = await connect("ws://localhost/", { unix: path });
      const message = new Uint8Array(1 << 20).map((_, i) => i * 31);
      ws.send(message);
      assert.deepEqual(await ws.receive(), message);
      await ws.close();
      await server.shutdown();
    });
  });

  it("The server's file goes when it shuts down, and the path can be used again", async () => {
    await withPath(async (path) => {
      for (let i = 0; i < 2; i++) {
        const server = await serve({ unix: path }, (ws) => ws.receive().catch(() => {}));
        const ws = await connect("ws://localhost/", { unix: path });
        assert.equal(existsSync(path), true);
        await server.shutdown();
        assert.equal(existsSync(path), false);
        assert.equal((await ws.closed).closeCode, 1001);
      }
    });
  });

  it('connect() rejects with "connect-failed" if there is no socket', async () => {
    await withPath(async (path) => {
      assert.equal(cause(await failureOf(path)), "ENOENT");
    });
  });

  it('connect() says "connect-failed" of a file that is no socket', async () => {
    await withPath(async (path) => {
      await writeFile(path, "");
      assert.equal(cause(await failureOf(path)), "ECONNREFUSED");
    });
  });

  it("A stale socket is refused to clients, and a server does not take it over", async () => {
    await withPath(async (path) => {
      await leaveStale(path);
      assert.equal(cause(await failureOf(path)), "ECONNREFUSED");
      const error = await rejection<NodeJS.ErrnoException>(serve({ unix: path }, () => {}));
      assert.equal(error.code, "EADDRINUSE");
      assert.equal(existsSync(path), true);
    });
  });

  it("A second server on a path is refused, and the first one continues", async () => {
    await withPath(async (path) => {
      const server = await serve({ unix: path }, (ws) => ws.send("first"));
      const error = await rejection<NodeJS.ErrnoException>(serve({ unix: path }, () => {}));
      assert.equal(error.code, "EADDRINUSE");
      const ws = await connect("ws://localhost/", { unix: path });
      assert.equal(await ws.receive(), "first");
      await ws.closed;
      await server.shutdown();
    });
  });

  it("A server that cannot make its file says so", async () => {
    await withPath(async (path) => {
      await assert.rejects(serve({ unix: join(path, "socket") }, () => {}), Error);
    });
  });

  it("The path must be a string that is not empty", async () => {
    for (const [path, type] of [[1, TypeError], [null, TypeError], ["", RangeError]] as const) {
      const options = { unix: path } as ServeOptions;
      await assert.rejects(serve(options, () => {}), type);
      await assert.rejects(connect("ws://localhost/", options), type);
    }
  });

  it("A path may be exactly as long as an address can hold", async () => {
    const most = process.platform === "linux" ? 107 : 103;
    await withPath(async (path) => {
      // The limit counts bytes, not characters.
      const start = join(dirname(path), "\u00fc");
      const longest = start.padEnd(most - 1, "a");
      const server = await serve({ unix: longest }, (ws) => ws.send("Hello"));
      assert.ok(existsSync(longest));
      for (const tooLong of [`${longest}a`, `${longest}aa`, longest.padEnd(300, "a")]) {
        const expected = {
          name: "RangeError",
          message: /at most 10\d bytes of UTF-8, received \d+/,
        };
        await assert.rejects(connect("ws://localhost/", { unix: tooLong }), expected);
        await assert.rejects(serve({ unix: tooLong }, () => {}), expected);
      }
      const ws = await connect("ws://localhost/", { unix: longest });
      assert.equal(await ws.receive(), "Hello");
      await ws.closed;
      await server.shutdown();
    });
  });

  it("A peer that vanishes ends the connection with 1006", async () => {
    await withPath(async (path) => {
      const codes: (number | null)[] = [];
      const server = await serve({ unix: path, onError: () => {} }, async (ws) => {
        await ws.closed.catch((error) => codes.push(error.closeCode));
      });
      const ws = await connect("ws://localhost/", { unix: path });
      ws.terminate();
      await rejection(ws.closed);
      await until(() => codes.length === 1);
      assert.deepEqual(codes, [1006]);
      await server.shutdown();
    });
  });
});
