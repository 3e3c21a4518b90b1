import { describe } from "node:test";
import assert from "node:assert/strict";
import { createServer } from "node:http";
import { inspect } from "node:util";
import { it } from "./it.ts";
import { connect, fromWebSocket, WebSocketStream } from "../mod.ts";
import { WebSocketConnection } from "../lib/connection/connection.ts";
import { attach } from "../lib/node.ts";
import { echo, urlOf, withServer } from "./support.ts";

/** What `console.log()` prints on this runtime. */
function printed(value: unknown): string {
  const { Deno: deno } = globalThis as { Deno?: { inspect(value: unknown): string } };
  return deno === undefined ? inspect(value) : deno.inspect(value);
}

describe("What console.log() prints", () => {
  it("A connection prints its state, without credentials", async () => {
    await withServer({ protocols: ["chat"] }, async (server) => {
      const url = urlOf(server, "/room?token=secret").replace("//", "//ada:secret@");
      const headers = { Authorization: "Bearer secret", Cookie: "secret" };
      const ws = await connect(url, { protocols: ["chat"], headers });
      const [served] = server.connections;
      for (const [one, role] of [[ws, "client"], [served, "server"]] as const) {
        const text = printed(one);
        assert.match(text, /^WebSocketConnection \{/);
        assert.match(text, new RegExp(`url: "?'?ws://127.0.0.1:${server.port}/room`));
        assert.match(text, new RegExp(`role: ["']${role}["']`));
        assert.match(text, /state: ["']open["']/);
        assert.match(text, /protocol: ["']chat["']/);
        assert.match(text, /remoteAddress: ["']127\.0\.0\.1:\d+["']/);
        assert.match(text, /bufferedAmount: 0/);
        assert.doesNotMatch(text, /secret|ada/);
      }
      await ws.close({ closeCode: 4000, reason: "a\u001bb" });
      const text = printed(ws);
      assert.match(text, /state: ["']closed["']/);
      assert.match(text, /4000/);
      assert.ok(!text.includes("\u001b"));
    });
  });

  it("A connection over a native WebSocket prints no role, which only the platform knows", async () => {
    await withServer({}, async (server) => {
      const ws = await fromWebSocket(new WebSocket(server.url!));
      const text = printed(ws);
      assert.match(text, /^WebSocketConnection \{[^]*state: ["']open["']/);
      assert.doesNotMatch(text, /role/);
      await ws.close({ closeCode: 1000 });
    });
  });

  it("A server prints its address and its number of connections", async () => {
    await withServer({}, async (server) => {
      const ws = await connect(server.url!);
      const text = printed(server);
      assert.match(text, new RegExp(`^Server \\{[^]*url: ["']${server.url}["']`));
      assert.match(text, /connections: 1/);
      await ws.close();
    });
  });

  it("An attachment prints how many connections it has", async () => {
    const attached = attach(createServer(), { path: "/echo" }, echo);
    assert.match(printed(attached), /^Attachment \{[^]*connections: 0/);
    await attached.shutdown();
  });

  it("A WebSocketStream prints its URL without credentials, and its connection", async () => {
    await withServer({}, async (server) => {
      const stream = new WebSocketStream(`${server.url}/?token=secret`);
      await stream.opened;
      const text = printed(stream);
      assert.match(text, /^WebSocketStream \{/);
      assert.doesNotMatch(text, /secret/);
      stream.close();
      await stream.closed;
    });
  });

  it("The class and its prototype print, too", () => {
    assert.equal(typeof printed(WebSocketConnection), "string");
    assert.equal(typeof printed(WebSocketConnection.prototype), "string");
  });
});
