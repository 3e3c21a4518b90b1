import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { connect, type ConnectionStats, serve } from "../mod.ts";
import { pair } from "../lib/testing.ts";
import { until } from "./support.ts";

type Counts = Partial<ConnectionStats>;

/** The counts of frames and of compressed bytes, without those that are 0. */
function countsOf(stats: object): Counts {
  const counted = /^(?:frames|pings|pongs|compressed|uncompressed)/;
  const found = Object.entries(stats).filter(([name, count]) => counted.test(name) && count !== 0);
  return Object.fromEntries(found);
}

describe("stats", () => {
  it("Frames, pings and pongs are counted in both directions", async () => {
    const quiet = { pingInterval: 0, compression: false };
    const [client, server] = await pair({ client: quiet, server: quiet });
    await client.send("Hello");
    await client.send(["a", "b", "c"]);
    await client.ping();
    await server.pong("unasked");
    await server.receive();
    await server.receive();
    await until(() => client.stats.pongsReceived === 2);
    const sent = { framesSent: 5, pingsSent: 1, framesReceived: 2, pongsReceived: 2 };
    assert.deepEqual(countsOf(client.stats), sent);
    const received = { framesReceived: 5, pingsReceived: 1, framesSent: 2, pongsSent: 2 };
    assert.deepEqual(countsOf(server.stats), received);
    await client.close();
    assert.equal(client.stats.framesSent, 6);
    assert.equal(client.stats.framesReceived, 3);
  });

  it("Bytes of compressed messages are counted before and after", async () => {
    const compression = { threshold: 100 };
    const [client, server] = await pair({ client: { compression }, server: { compression } });
    await client.send("short");
    const text = "long ".repeat(1000);
    await client.send(text);
    // A long message is compressed on another thread, and each of its pieces is a frame.
    await client.send([text, text]);
    for (const expected of ["short", text, text + text]) {
      assert.equal(await server.receive(), expected);
    }
    const { uncompressedBytesSent, compressedBytesSent, bytesSent } = client.stats;
    assert.equal(uncompressedBytesSent, 3 * text.length);
    assert.ok(compressedBytesSent > 0 && compressedBytesSent < bytesSent);
    const { uncompressedBytesReceived, compressedBytesReceived } = server.stats;
    assert.equal(uncompressedBytesReceived, uncompressedBytesSent);
    assert.equal(compressedBytesReceived, compressedBytesSent);
    await client.close();
  });

  it("A server adds up the counts of all connections, including ended ones", async () => {
    const options = { port: 0, pingInterval: 0, compression: true };
    const server = await serve(options, async (ws) => {
      for await (const message of ws) await ws.send(message);
    });
    const text = "long ".repeat(1000);
    for (let i = 0; i < 2; i++) {
      const ws = await connect(server.url!, { pingInterval: 0 });
      await ws.send(text);
      await ws.receive();
      await ws.ping();
      if (i === 0) await ws.close();
    }
    await until(() => server.stats.ended === 1);
    const { framesReceived, framesSent, pingsReceived, pongsSent, ...others } = server.stats;
    assert.deepEqual([framesReceived, framesSent, pingsReceived, pongsSent], [5, 5, 2, 2]);
    assert.equal(others.uncompressedBytesReceived, 2 * text.length);
    assert.equal(others.uncompressedBytesSent, 2 * text.length);
    assert.ok(others.compressedBytesReceived < text.length);
    await server.shutdown();
  });
});
