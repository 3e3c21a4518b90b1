import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { fromStreams, toStreams } from "../lib/transport.ts";
import type { Transport } from "../mod.ts";
import { transportPair } from "../lib/testing.ts";
import { concat, pattern, utf8 } from "./bytes.ts";
import { collect, isPending, rejection, rest, until } from "./support.ts";

/** Records the calls of a transport, in words. */
function listen(transport: Transport): { events: string[]; error?: Error } {
  const log: { events: string[]; error?: Error } = { events: [] };
  transport.handle({
    data: (chunk) => void log.events.push(`data ${new TextDecoder().decode(chunk)}`),
    drain: () => {},
    end: () => log.events.push("end"),
    close: (error) => {
      log.events.push("close");
      log.error = error;
    },
  });
  return log;
}

describe("fromStreams", () => {
  it("fromStreams gives a transport back as it is", () => {
    const [near] = transportPair();
    assert.equal(fromStreams(near), near);
  });

  it("fromStreams leaves the chunks of the readable to their owner", async () => {
    const owned = utf8("abc");
    const readable = new ReadableStream<Uint8Array>({
      start: (controller) => {
        controller.enqueue(owned);
        controller.close();
      },
    });
    const transport = fromStreams({ readable, writable: new WritableStream() });
    let ended = false;
    transport.handle({
      data: (chunk) => void chunk.fill(0),
      drain: () => {},
      end: () => ended = true,
      close: () => {},
    });
    await until(() => ended);
    assert.deepEqual(owned, utf8("abc"));
    transport.destroy();
  });

  it("fromStreams copies the bytes that it writes, so that they may be reused", async () => {
    const chunks: Uint8Array[] = [];
    const transport = fromStreams({
      readable: new ReadableStream(),
      writable: new WritableStream({ write: (chunk) => void chunks.push(chunk) }),
    });
    listen(transport);
    const part = utf8("abc");
    transport.write([part]);
    await until(() => transport.bufferedAmount === 0);
    part.fill(0);
    assert.deepEqual(chunks, [utf8("abc")]);
    transport.destroy();
  });

  it("fromStreams reads no further than it is asked to", async () => {
    let pulled = 0;
    const readable = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(Uint8Array.of(pulled++)),
    }, { highWaterMark: 0 });
    const transport = fromStreams({ readable, writable: new WritableStream() });
    await rest();
    assert.equal(pulled, 0);
    let taken = 0;
    transport.handle({
      data: () => {
        if (++taken % 3 === 0) transport.pause();
      },
      drain: () => {},
      end: () => {},
      close: () => {},
    });
    await rest();
    assert.equal(taken, 3);
    assert.ok(pulled <= 4, `${pulled} were pulled`);
    transport.resume();
    await until(() => taken === 6);
    transport.destroy();
  });

  it("fromStreams tells of an error of either stream", async () => {
    const fault = new Error("fault");
    let input!: ReadableStreamDefaultController<Uint8Array>;
    let output!: WritableStreamDefaultController;
    const make = () =>
      fromStreams({
        readable: new ReadableStream({ start: (controller) => void (input = controller) }),
        writable: new WritableStream({ start: (controller) => void (output = controller) }),
      });
    const breaks = [() => input.error(fault), () => output.error(fault)];
    for (const breakIt of breaks) {
      const log = listen(make());
      await rest();
      breakIt();
      await until(() => log.events.length > 0);
      assert.deepEqual(log.events, ["close"]);
      assert.equal(log.error, fault);
    }
  });

  it("fromStreams gives what was received before its streams failed", async () => {
    const fault = new Error("cable cut");
    for (const sizes of [[], [1], [40_000, 20_000, 3], [65_536]]) {
      const [near, far] = transportPair();
      const transport = fromStreams(toStreams(near));
      for (const size of sizes) far.write([pattern(size)]);
      await rest();
      far.fail(fault);
      await rest();
      let received = 0;
      const error = await new Promise<Error | undefined>((close) =>
        transport.handle({
          data: (chunk) => void (received += chunk.length),
          drain: () => {},
          end: () => {},
          close,
        })
      );
      assert.equal(error, fault);
      assert.equal(received, sizes.reduce((sum, size) => sum + size, 0));
    }
  });

  it("fromStreams that is destroyed cancels and aborts the streams", async () => {
    const reasons: unknown[] = [];
    const transport = fromStreams({
      readable: new ReadableStream({ cancel: (reason) => void reasons.push(reason) }),
      writable: new WritableStream({ abort: (reason) => void reasons.push(reason) }),
    });
    const log = listen(transport);
    transport.destroy();
    await until(() => log.events.length > 0 && reasons.length === 2);
    assert.deepEqual(log.events, ["close"]);
    assert.equal(log.error, undefined);
  });
});

describe("toStreams", () => {
  it("toStreams carries bytes both ways, to the end of each side", async () => {
    const [near, far] = transportPair().map(toStreams);
    const writer = near.writable.getWriter();
    const back = far.writable.getWriter();
    const [forth] = await Promise.all([
      collect(far.readable),
      (async () => {
        for (let i = 0; i < 50; i++) await writer.write(pattern(5000));
        await writer.close();
      })(),
    ]);
    assert.deepEqual(concat(forth), concat(Array.from({ length: 50 }, () => pattern(5000))));
    const answer = collect(near.readable);
    await back.write(utf8("a"));
    await back.close();
    assert.deepEqual(concat(await answer), utf8("a"));
  });

  it("toStreams resolves a write when the transport has taken it", async () => {
    const [near, far] = transportPair({ capacity: 10 });
    const streams = toStreams(near);
    far.handle({ data() {}, drain() {}, end() {}, close() {} });
    far.pause();
    const writer = streams.writable.getWriter();
    await writer.write(pattern(10));
    const written = writer.write(pattern(10));
    assert.equal(await isPending(written), true);
    far.resume();
    await written;
    near.destroy();
    far.destroy();
  });

  it("toStreams reads no further than its queue", async () => {
    const [near, far] = transportPair();
    const streams = toStreams(near);
    far.handle({ data() {}, drain() {}, end() {}, close() {} });
    for (let i = 0; i < 50; i++) far.write([pattern(10_000)]);
    await rest();
    // The rest waits in the transport.
    assert.ok(far.bufferedAmount > 300_000, `${far.bufferedAmount} bytes wait`);
    far.end();
    assert.equal(concat(await collect(streams.readable)).length, 500_000);
    near.destroy();
  });

  it("toStreams errors both streams when the transport fails", async () => {
    const [near, far] = transportPair();
    const { readable, writable } = toStreams(near);
    const reader = readable.getReader();
    const writer = writable.getWriter();
    const fault = new Error("cable cut");
    far.fail(fault);
    assert.equal(await rejection(reader.read()), fault);
    assert.equal(await rejection(writer.closed), fault);
    await assert.rejects(writer.write(utf8("a")));
  });

  it("toStreams gives what was received before the transport failed", async () => {
    const fault = new Error("cable cut");
    for (const sizes of [[1, 2], [0, 3], [40_000, 40_000], [65_536], []]) {
      const [near, far] = transportPair();
      const { readable, writable } = toStreams(near);
      for (const size of sizes) far.write([pattern(size)]);
      await rest();
      far.fail(fault);
      await rest();
      assert.equal(await rejection(writable.getWriter().closed), fault);
      const reader = readable.getReader();
      let received = 0;
      const reading = (async () => {
        for (;;) received += (await reader.read()).value!.length;
      })();
      assert.equal(await rejection(reading), fault);
      assert.equal(received, sizes.reduce((sum, size) => sum + size, 0));
    }
  });

  it("toStreams rejects a write that waits when the transport goes", async () => {
    const [near, far] = transportPair({ capacity: 0 });
    const writer = toStreams(near).writable.getWriter();
    far.handle({ data() {}, drain() {}, end() {}, close() {} });
    far.pause();
    const written = writer.write(pattern(10));
    const closed = rejection(writer.closed);
    written.catch(() => {});
    await rest();
    near.destroy();
    assert.ok(await closed instanceof Error);
  });

  const leaving: [name: string, leave: (streams: ReturnType<typeof toStreams>) => Promise<void>][] =
    [
      ["readable is cancelled", ({ readable }) => readable.cancel()],
      ["writable is aborted", ({ writable }) => writable.abort()],
    ];
  for (const [name, leave] of leaving) {
    it(`toStreams destroys the transport when its ${name}, whatever the peer does then`, async () => {
      const [near, far] = transportPair();
      const streams = toStreams(near);
      const log = listen(far);
      await leave(streams);
      far.write([utf8("a")]);
      far.end();
      await until(() => log.events.includes("close"));
      assert.deepEqual(log.events, ["end", "close"]);
    });
  }
});
