/** What a connection tells of itself, and what it says about members that it does not have. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { accept } from "../mod.ts";
import { sendingOf } from "../lib/connection/sending.ts";
import { diagnostics, setDiagnostics } from "../lib/inspect.ts";
import { pair, transportPair } from "../lib/testing.ts";
import { brief, inBothRoles, RawPeer, rejection, textFrame, until } from "./support.ts";

type Loose = Record<string, (...args: unknown[]) => unknown>;

describe("The members of WebSocketConnection", () => {
  it("request is what onRequest was given, with the scheme of the transport", async () => {
    for (const secure of [true, false]) {
      const [near, far] = transportPair();
      Object.defineProperty(near, "secure", { value: secure });
      new RawPeer(far, "client");
      const seen: Request[] = [];
      const onRequest = (request: Request) => void seen.push(request);
      const ws = await accept(near, { onRequest });
      assert.equal(ws.request, seen[0]);
      ws.terminate();
    }
    for (const secure of [true, false]) {
      const [near, far] = transportPair();
      Object.defineProperty(near, "secure", { value: secure });
      new RawPeer(far, "client");
      const ws = await accept(near);
      assert.equal(ws.request.url, secure ? "https://localhost/" : "http://localhost/");
      assert.equal(ws.request, ws.request);
      assert.equal(ws.response.status, 101);
      assert.equal(ws.rawHeaders.request[0][0], "Host");
      ws.terminate();
    }
  });

  it("Both ends show the same heads", async () => {
    const added: [string, string][] = [["x-a", "1"], ["set-cookie", "b=2"]];
    const onResponse = (headers: Headers) => headers.set("x-b", "3");
    const rows = [
      {},
      { client: { protocols: ["a", "b"] }, server: { protocols: ["b"], headers: added } },
      { client: { compression: true }, server: { compression: true, headers: added, onResponse } },
    ];
    for (const row of rows) {
      const [client, server] = await pair(row);
      assert.deepEqual(server.rawHeaders, client.rawHeaders);
      assert.equal(server.response.statusText, client.response.statusText);
      assert.deepEqual([...server.response.headers], [...client.response.headers]);
      server.terminate();
      client.terminate();
    }
  });

  it("A program may change the header fields that it is shown", async () => {
    const server = { headers: [["x-a", "1"]] as [string, string][] };
    for (let again = 0; again < 2; again++) {
      const ends = await pair({ server });
      for (const { rawHeaders: { request, response }, response: { headers } } of ends) {
        for (const field of [...request, ...response]) (field as [string, string])[1] = "hidden";
        assert.equal(headers.get("x-a"), "1");
        assert.equal(headers.get("upgrade"), "websocket");
      }
      for (const ws of ends) {
        assert.ok(ws.rawHeaders.response.every(([, value]) => value !== "hidden"));
        ws.terminate();
      }
    }
  });

  it("null in the place of options counts as none", async () => {
    await inBothRoles(async (ws, peer) => {
      const none = null as unknown as undefined;
      await ws.send("a", none);
      assert.deepEqual(brief(await peer.next()), ["text", "a", true]);
      peer.send(textFrame("b"));
      assert.equal(await ws.receive(none), "b");
      void ws.ping("c", none);
      assert.deepEqual(brief(await peer.next()), ["ping", "c", true]);
    });
  });

  it("A ping and a pong take bytes or text", async () => {
    await inBothRoles(async (ws) => {
      const message = "Expected a payload of bytes or text, received number";
      await assert.rejects(ws.ping(1 as never), { name: "TypeError", message });
      await assert.rejects(ws.pong(1 as never), { name: "TypeError", message });
      assert.ok(sendingOf(ws) !== undefined);
      assert.equal(sendingOf({}), undefined);
    });
  });

  it("Members of other libraries say what to use, and can be replaced", async () => {
    await inBothRoles((ws) => {
      const loose = ws as unknown as Loose;
      const messages: [name: string, event: unknown, message: RegExp][] = [
        ["on", "message", /^A connection has no on\(\): write: for await/],
        ["on", "close", /^A connection has no on\(\): write: await ws\.closed$/],
        ["once", "upgrade", /^A connection has no once\(\): write: for await/],
        ["addEventListener", Symbol("a"), /no addEventListener\(\): write: for await/],
      ];
      for (const [name, event, message] of messages) {
        assert.throws(() => loose[name](event), { name: "TypeError", message });
      }
      assert.throws(() => loose.readyState, { name: "TypeError", message: /"open", "closing"/ });
      assert.equal(loose.onmessage, undefined);
      assert.throws(() => loose.onclose = () => {}, { name: "TypeError", message: /ws\.closed/ });
      const own = () => {};
      loose.on = own;
      assert.equal(loose.on, own);
      Object.defineProperty(loose, "onmessage", { value: own });
      assert.equal(loose.onmessage, own);
      for (const name of ["on", "onmessage", "readyState", "binaryType"]) {
        const { configurable, enumerable } = Object.getOwnPropertyDescriptor(
          Object.getPrototypeOf(ws),
          name,
        )!;
        assert.deepEqual([name, configurable, enumerable], [name, true, false]);
      }
    });
  });

  it("A listener of the platform is told of the connection, its frames and its end", async () => {
    // The first connection loads the adapter of the platform, which sets its diagnostics.
    await inBothRoles(() => {});
    const told: unknown[] = [];
    const before = diagnostics;
    setDiagnostics({
      logsFrames: true,
      wantsRefused: false,
      listen: () => ({
        onFrame: (direction, frame) => void told.push([direction, ...brief(frame)]),
        opened: (ws) => void told.push(["opened", ws]),
        ended: (ws, close, error) => void told.push(["ended", ws, close, error]),
      }),
      refused: () => {},
      failed: () => {},
    });
    try {
      const seen: string[] = [];
      const onFrame = (direction: string) => void seen.push(direction);
      await inBothRoles(async (ws, peer) => {
        peer.send(textFrame("a"));
        assert.equal(await ws.receive(), "a");
        await ws.send("b");
        await until(() => peer.frames.length > 0);
        ws.terminate();
        const error = await rejection(ws.closed);
        const close = await ws.close();
        assert.deepEqual(close, { closeCode: 1006, reason: "" });
        assert.deepEqual(told.splice(0), [
          ["opened", ws],
          ["in", "text", "a", true],
          ["out", "text", "b", true],
          ["ended", ws, close, error],
        ]);
      }, { onFrame });
      assert.deepEqual(seen, ["in", "out", "in", "out"]);
    } finally {
      setDiagnostics(before!);
    }
  });
});
