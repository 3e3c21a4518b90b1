/** assemble() where its byte streams fail: it still comes to its end, with all that waits settled. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import type { WebSocketError } from "../mod.ts";
import { type ByteDuplex, toStreams } from "../lib/byte_streams.ts";
import { assemble, type MessageDuplex } from "../lib/streams.ts";
import { transportPair } from "../lib/testing.ts";
import { concat, hex } from "./bytes.ts";
import { collect, rejection, until } from "./support.ts";

const HELLO = hex("81 05 48 65 6c 6c 6f");

/** How all of it settled: the code of `closed`, and what was read before the end. */
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
    it(`assemble() ends with ${code} where the line is cut behind ${what} frames`, async () => {
      const [near, far] = transportPair();
      far.handle({ data() {}, drain() {}, end() {}, close() {} });
      const duplex = assemble(toStreams(near), { role: "client" });
      far.write([concat([HELLO, hex(bytes)])]);
      setTimeout(() => far.fail(new Error("cut")), 5);
      assert.deepEqual(await endOf(duplex), [code, ["Hello"]]);
    });
  }

  it("assemble() ends with 1006 where the writable fails and the readable ends", async () => {
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

  it("assemble() ends with 1006 after closeTimeout where the peer falls silent", async () => {
    for (const role of ["client", "server"] as const) {
      const [near, far] = transportPair();
      far.handle({ data() {}, drain() {}, end() {}, close() {} });
      const duplex = assemble(toStreams(near), { role, closeTimeout: 50 });
      const writer = duplex.writable.getWriter();
      const closing = writer.close();
      const ends = [duplex.closed, closing, collect(duplex.readable)];
      let errors: WebSocketError[] = [];
      Promise.all(ends.map((end) => rejection<WebSocketError>(end))).then((all) => errors = all);
      // The timer that ends it holds no process open.
      await until(() => errors.length > 0);
      assert.deepEqual(errors.map(({ closeCode }) => closeCode), [1006, 1006, 1006]);
      far.destroy();
    }
  });
});
