import { describe } from "node:test";
import assert from "node:assert/strict";
import { it } from "./it.ts";
import { connect } from "../mod.ts";
import { pair } from "../lib/testing.ts";
import { rest, until, urlOf, withServer } from "./support.ts";

describe("WebSocketConnection.signal", () => {
  it("signal aborts when the connection has ended, with an error of its own", async () => {
    const ends: [name: string, end: (ws: Awaited<ReturnType<typeof pair>>[0]) => unknown][] = [
      ["InvalidStateError", (ws) => ws.close({ closeCode: 1000 })],
      ["WebSocketError", (ws) => ws.terminate()],
    ];
    for (const [name, end] of ends) {
      const connections = await pair();
      const signals = connections.map((ws) => ws.signal);
      assert.equal(connections[0].signal, signals[0]);
      await rest();
      assert.deepEqual(signals.map(({ aborted }) => aborted), [false, false]);
      void end(connections[0]);
      await until(() => signals.every(({ aborted }) => aborted));
      for (const [i, ws] of connections.entries()) {
        assert.equal(ws.state, "closed");
        assert.equal(signals[i].reason.name, name);
        assert.equal(ws.isOwnError(signals[i].reason), true);
      }
    }
  });

  it("signal is already aborted if it is first read after the end", async () => {
    const [client, server] = await pair();
    await client.close();
    await server.closed;
    assert.equal(client.signal.aborted, true);
    assert.equal(server.signal.aborted, true);
  });

  it("A handler that stops because of ws.signal is not an error", async () => {
    const errors: unknown[] = [];
    let done = false;
    await withServer({ onError: (error) => errors.push(error) }, async (server) => {
      const ws = await connect(urlOf(server));
      ws.terminate();
      await until(() => done);
      await rest();
      assert.deepEqual(errors, []);
    }, async ({ signal }) => {
      try {
        await new Promise((_, reject) =>
          signal.addEventListener("abort", () => reject(signal.reason))
        );
      } finally {
        done = true;
      }
    });
  });
});
