import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { accept, connect, HandshakeError } from "../mod.ts";
import { type LineFault, pair, transportPair } from "../lib/testing.ts";
import { pattern, utf8 } from "./bytes.ts";
import { collect, rejection, rest, until } from "./support.ts";

type WithCode = Error & { closeCode: number };

describe("pair", () => {
  it("pair() gives a client and a server that went through a handshake", async () => {
    const [client, server] = await pair({
      url: "ws://example.com/a?b",
      client: { protocols: ["x", "y"], headers: { "X-A": "1" } },
      server: { protocols: ["y"], headers: { "X-B": "2" } },
    });
    assert.equal(client.protocol, "y");
    assert.equal(server.protocol, "y");
    assert.equal(server.request.url, "http://example.com/a?b");
    assert.equal(server.request.headers.get("x-a"), "1");
    assert.equal(client.response.headers.get("x-b"), "2");
    assert.equal(client.localAddress, undefined);
    await client.send("a");
    await server.send(pattern(3));
    assert.equal(await server.receive(), "a");
    assert.deepEqual(await client.receive(), pattern(3));
    await client.close({ closeCode: 1000 });
    assert.equal((await server.closed).closeCode, 1000);
  });

  it("pair() rejects when the server refuses", async () => {
    const error = await rejection<HandshakeError>(pair({ server: { origins: ["https://a"] } }));
    assert.ok(error instanceof HandshakeError);
  });

  for (
    const options of [{}, { delay: 3 }, { chunkSize: 1 }, { chunkSize: 7, delay: 1 }, {
      capacity: 0,
    }]
  ) {
    it(`pair(${JSON.stringify(options)}) carries an echo of many messages`, async () => {
      const [client, server] = await pair(options);
      const piped = server.readable.pipeTo(server.writable);
      const messages = Array.from({ length: 50 }, (_, i) => "m".repeat(i));
      const echoes = collect(client);
      for (const message of messages) await client.send(message);
      await until(() => client.stats.messagesReceived === 50);
      await client.close();
      assert.deepEqual(await echoes, messages);
      await piped;
    });
  }
});

describe("transportPair", () => {
  it("transportPair() splits written bytes into chunks of chunkSize", async () => {
    const [near, far] = transportPair({ chunkSize: 4 });
    const sizes: number[] = [];
    far.handle({
      data: (chunk) => void sizes.push(chunk.length),
      drain() {},
      end() {},
      close() {},
    });
    near.handle({ data() {}, drain() {}, end() {}, close() {} });
    near.write([pattern(10), pattern(3)]);
    await until(() => sizes.length === 4);
    assert.deepEqual(sizes, [4, 4, 2, 3]);
    near.destroy();
    far.destroy();
  });

  it("transportPair() counts what exceeds its capacity", async () => {
    const [near, far] = transportPair({ capacity: 100 });
    let drains = 0;
    near.handle({ data() {}, drain: () => drains++, end() {}, close() {} });
    far.handle({ data() {}, drain() {}, end() {}, close() {} });
    far.pause();
    near.write([pattern(100)]);
    assert.equal(near.bufferedAmount, 0);
    near.write([pattern(50)]);
    assert.equal(near.bufferedAmount, 50);
    await rest();
    assert.equal(drains, 0);
    far.resume();
    await until(() => drains === 1);
    assert.equal(near.bufferedAmount, 0);
    near.destroy();
    far.destroy();
  });

  it("fail() breaks the line on both ends, during the handshake too", async () => {
    const cut = new Error("cable cut");
    const [client, server] = await Promise.all((() => {
      const [near, far] = transportPair();
      setTimeout(() => near.fail(cut), 20);
      return [connect("ws://a/", { transport: near }), accept(far)];
    })());
    for (const ws of [client, server]) {
      await until(() => ws.state === "closed");
      const error = await rejection<WithCode>(ws.closed);
      assert.equal(error.closeCode, 1006);
      assert.equal(error.cause, cut);
    }
    const [near, far] = transportPair({ delay: 5 });
    const opening = rejection<HandshakeError>(connect("ws://a/", { transport: near }));
    const accepting = rejection<HandshakeError>(accept(far));
    far.fail(cut);
    assert.equal((await opening).code, "connection-lost");
    assert.equal((await accepting).code, "connection-lost");
  });

  const faults: [how: LineFault["how"], client: string[], server: string[]][] = [
    ["end", ["end"], ["abc", "end"]],
    ["half-close", ["xyz", "later"], ["abc", "end"]],
    ["reset", ["close: The line was reset"], ["abc", "close: The line was reset"]],
    ["silence", [], ["abc"]],
  ];
  for (const [how, atClient, atServer] of faults) {
    it(`transportPair() with the fault "${how}" breaks after the given number of bytes`, async () => {
      const ends = transportPair({ fault: { from: "client", after: 3, how } });
      const seen: string[][] = [[], []];
      for (const [i, end] of ends.entries()) {
        end.handle({
          data: (chunk) => void seen[i].push(String.fromCharCode(...chunk)),
          drain() {},
          end: () => seen[i].push("end"),
          close: (error) => seen[i].push(`close: ${error?.message}`),
        });
      }
      ends[0].write([utf8("abcd")]);
      ends[1].write([utf8("xyz")]);
      await rest();
      ends[1].write([utf8("later")]);
      await rest();
      // Data in flight may be lost when the line breaks.
      assert.deepEqual(seen[0].filter((it) => atClient.includes(it)), atClient);
      assert.deepEqual(seen, [seen[0], atServer]);
      if (how !== "half-close") assert.ok(!seen[0].includes("later"));
      for (const end of ends) end.destroy();
    });
  }
});
