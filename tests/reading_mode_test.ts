import { describe } from "node:test";
import assert from "node:assert/strict";
import { it } from "./it.ts";
import type { Message, WebSocketConnection } from "../mod.ts";
import { pair } from "../lib/testing.ts";
import { collect, rest } from "./support.ts";

const INVALID_STATE = { name: "InvalidStateError" };

/** The streams, and how to read all of their items. */
const STREAMS: [name: string, take: (ws: WebSocketConnection) => Promise<unknown[]>][] = [
  ["readable", (ws) => collect(ws.readable)],
  ["messages()", async (ws) => {
    const texts = [];
    for await (const message of ws.messages()) {
      texts.push((await collect<Message>(message.readable)).join(""));
    }
    return texts;
  }],
];

describe("Changing the way of reading", () => {
  for (const [name, take] of STREAMS) {
    for (const arrived of [true, false]) {
      it(`receive() first, then ${name}, of what ${arrived ? "waits" : "comes"}`, async () => {
        const [client, server] = await pair();
        await client.send("password");
        if (arrived) { for (const text of ["a", "b"]) await client.send(text); }
        assert.equal(await server.receive(), "password");
        await rest();
        const taken = take(server);
        if (!arrived) { for (const text of ["a", "b"]) await client.send(text); }
        void client.close({ closeCode: 1000 });
        assert.deepEqual(await taken, ["a", "b"]);
      });
    }

    it(`a loop, and when it was left, ${name}`, async () => {
      const [client, server] = await pair();
      for (const text of ["a", "b", "c"]) await client.send(text);
      for await (const message of server) {
        assert.equal(message, "a");
        await assert.rejects(async () => await take(server), INVALID_STATE);
        break;
      }
      const taken = take(server);
      await assert.rejects(server.receive(), INVALID_STATE);
      void client.close({ closeCode: 1000 });
      assert.deepEqual(await taken, ["b", "c"]);
    });

    it(`${name} is refused while a receive() waits, and then not any more`, async () => {
      const [client, server] = await pair();
      const waiting = server.receive();
      await assert.rejects(async () => await take(server), INVALID_STATE);
      await client.send("a");
      assert.equal(await waiting, "a");
      const taken = take(server);
      await client.send("b");
      void client.close({ closeCode: 1000 });
      assert.deepEqual(await taken, ["b"]);
    });
  }

  it("receive() first, then discard()", async () => {
    const [client, server] = await pair();
    await client.send("a");
    assert.equal(await server.receive(), "a");
    server.discard();
    await client.send(new Uint8Array(1_000_000));
    await assert.rejects(server.receive(), INVALID_STATE);
    await client.close();
  });

  it("A stream that was made stays the way to read", async () => {
    const [client, server] = await pair();
    void server.readable;
    assert.throws(() => server.messages(), INVALID_STATE);
    await assert.rejects(server.receive(), INVALID_STATE);
    client.messages();
    assert.throws(() => client.readable, INVALID_STATE);
    client.terminate();
  });
});
