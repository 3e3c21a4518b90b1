/** assemble() when its byte streams fail: it still ends, and everything that waits settles. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import type { WebSocketError } from "../mod.ts";
import { type ByteDuplex, toStreams } from "../lib/transport.ts";
import { assemble, type MessageDuplex } from "../lib/streams.ts";
import { transportPair } from "../lib/testing.ts";
import { concat, hex, utf8 } from "./bytes.ts";
import { collect, held, rejection, rest, until } from "./support.ts";

const HELLO = hex("81 05 48 65 6c 6c 6f");

/** How the streams settle: the code of `closed`, and what was read before the end. */
async function endOf({ closed, readable, writable }: MessageDuplex): Promise<[number, unknown[]]> {
  const read: unknown[] = [];
  const reading = (async () => {
    for await (const message of readable) read.push(message);
  })();
  const writer = writable.getWriter();
  const writes = [writer.write("a"), writer.write(new Uint8Array(200_000)), writer.write("b")];
  const settled = await Promise.allSettled([closed, reading, writer.closed, ...writes]);
  assert.equal(settled.length, 6);
  const [{ reason }] = settled as PromiseRejectedResult[];
  assert.equal((reason as WebSocketError).name, "WebSocketError", String(reason));
  return [(reason as WebSocketError).closeCode!, read];
}

describe("assemble() over byte streams that fail", () => {
  for (const [what, bytes, code] of [["good", "", 1006], ["bad", "83 00", 1002]] as const) {
    it(`assemble() ends with ${code} when the line is cut after ${what} frames`, async () => {
      const [near, far] = transportPair();
      far.handle({ data() {}, drain() {}, end() {}, close() {} });
      const duplex = assemble(toStreams(near), { role: "client" });
      far.write([concat([HELLO, hex(bytes)])]);
      setTimeout(() => far.fail(new Error("cut")), 5);
      assert.deepEqual(await endOf(duplex), [code, ["Hello"]]);
    });
  }

  it("assemble() ends with 1006 if the writable fails and the readable ends", async () => {
    const duplex: ByteDuplex = {
      readable: new ReadableStream({
        async pull(controller) {
          controller.enqueue(HELLO);
          await new Promise((resolve) => setTimeout(resolve, 5));
          controller.close();
        },
      }),
      writable: new WritableStream({
        write: () => Promise.reject(new Error("broken pipe")),
      }),
    };
    assert.deepEqual(await endOf(assemble(duplex, { role: "client" })), [1006, ["Hello"]]);
  });

  it("assemble() ends with 1006 after closeTimeout if the peer falls silent", async () => {
    for (const role of ["client", "server"] as const) {
      const [near, far] = transportPair();
      far.handle({ data() {}, drain() {}, end() {}, close() {} });
      const duplex = assemble(toStreams(near), { role, closeTimeout: 50 });
      const writer = duplex.writable.getWriter();
      const closing = writer.close();
      const ends = [duplex.closed, closing, collect(duplex.readable)];
      let errors: WebSocketError[] = [];
      Promise.all(ends.map((end) => rejection<WebSocketError>(end))).then((all) => errors = all);
      // The timer that ends it does not keep the process running.
      await until(() => errors.length > 0);
      assert.deepEqual(errors.map(({ closeCode }) => closeCode), [1006, 1006, 1006]);
      far.destroy();
    }
  });
});

describe("assemble() whose peer does not read", () => {
  const LONG = new Uint8Array(200_000);
  const PINGS = "89 81 00 00 00 00 31 89 81 00 00 00 00 32 89 81 00 00 00 00 33";

  /** A duplex whose output takes nothing until `flow` is called, and what the output then took. */
  function stuck(input: Uint8Array): { duplex: ByteDuplex; flow: () => void; sent: Uint8Array[] } {
    let flow = () => {};
    const flows = new Promise<void>((resolve) => flow = resolve);
    const sent: Uint8Array[] = [];
    const readable = new ReadableStream<Uint8Array>({
      async start(controller) {
        // After everything that was written before.
        await rest();
        controller.enqueue(input);
      },
    });
    const writable = new WritableStream<Uint8Array>({
      async write(chunk) {
        await flows;
        sent.push(chunk);
      },
    });
    return { duplex: { readable, writable }, flow, sent };
  }

  it("assemble() answers the last of several pings once there is room", async () => {
    const { duplex, flow, sent } = stuck(hex(PINGS));
    const { writable, closed } = assemble(duplex, { role: "server", closeTimeout: 50 });
    const writer = writable.getWriter();
    const writing = writer.write(LONG);
    await rest();
    await rest();
    assert.deepEqual(sent, []);
    flow();
    await writing;
    await until(() => concat(sent).length > LONG.length + 10);
    // The header of the message takes 10 bytes, and only one pong of 3 bytes follows.
    assert.deepEqual(concat(sent).slice(10 + LONG.length), hex("8a 01 33"));
    const closing = rejection(writer.close());
    await Promise.all([held(rejection(closed)), closing]);
  });

  it("assemble() tells the writer whose messages wait when the peer closes", async () => {
    const { duplex, flow } = stuck(hex("88 02 03 e8"));
    const { writable, closed } = assemble(duplex, { role: "client", closeTimeout: 50 });
    const writer = writable.getWriter();
    const writing = Promise.allSettled(Array.from({ length: 9 }, () => writer.write(LONG)));
    const error = await held(rejection<WebSocketError>(closed));
    assert.equal(error.closeCode, 1000);
    assert.match(error.message, /while messages waited to be sent/);
    flow();
    assert.deepEqual((await writing).at(-1)!.status, "rejected");
  });

  it("assemble() ends at closeTimeout, though a write never does", async () => {
    for (const role of ["client", "server"] as const) {
      const { duplex } = stuck(hex(""));
      const { writable, closed } = assemble(duplex, { role, closeTimeout: 50 });
      const writer = writable.getWriter();
      // Long enough to get stuck, and short enough that the write does not wait for room.
      const writing = writer.write(new Uint8Array(1000));
      const closing = rejection(writer.close());
      assert.equal((await held(rejection<WebSocketError>(closed))).closeCode, 1006);
      await Promise.all([closing, Promise.allSettled([writing])]);
    }
  });

  it("assemble() reads only what the inbox has room for", async () => {
    const [near, far] = transportPair({ capacity: 0 });
    far.handle({ data() {}, drain() {}, end() {}, close() {} });
    const { readable, closed } = assemble(toStreams(near), {
      role: "client",
      readableStrategy: { highWaterMark: 100 },
    });
    const count = 3000;
    const text = "x".repeat(125);
    far.write(Array.from({ length: count }, () => concat([hex("81 7d"), utf8(text)])));
    await rest();
    assert.ok(far.bufferedAmount > 0, "the rest waits at the peer");
    const reader = readable.getReader();
    for (let i = 0; i < count; i++) assert.equal((await reader.read()).value, text);
    far.end();
    await rejection(closed);
  });
});
