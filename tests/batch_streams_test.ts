import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  encodeFrame,
  type Extension,
  fragments,
  type Frame,
  FrameDecoder,
  type FramePiece,
  type Message,
  Opcode,
  PENDING,
} from "../lib/core/mod.ts";
import {
  ExtensionDecoderStream,
  ExtensionEncoderStream,
  FrameDecoderStream,
  FrameEncoderStream,
  MessageAssemblerStream,
  MessageFragmenterStream,
  type PullStream,
} from "../lib/streams.ts";
import { concat, cut, pattern, utf8 } from "./bytes.ts";
import { binary, fc, offsets, text } from "./property.ts";
import { isPending, rejection, rest } from "./support.ts";
import { Toy } from "./toy_extension.ts";

const MAX_ITEMS = 1024;
const MAX_SIZE = 65536;
const SERVER = { role: "server" } as const;

/** The items of a stream, and the message of the error that it failed with. */
interface Outcome<T> {
  items: T[];
  error: string | undefined;
}

function source<T>(items: readonly T[]): ReadableStream<T> {
  const rest = items.values();
  return new ReadableStream({
    pull(controller) {
      const { done, value } = rest.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
  }, { highWaterMark: 0 });
}

async function outcomeOf<T>(stream: ReadableStream<T>): Promise<Outcome<T>> {
  const items: T[] = [];
  const reader = stream.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return { items, error: undefined };
      items.push(value);
    }
  } catch (error) {
    return { items, error: (error as Error).message };
  }
}

function flat<T>({ items, error }: Outcome<T[]>): Outcome<T> {
  assert.ok(items.every(({ length }) => length > 0), "no batch is empty");
  return { items: items.flat(), error };
}

/** The items in runs, cut at the offsets. Some runs may be empty. */
function runs<T>(items: readonly T[], at: readonly number[]): T[][] {
  const ends = [...at.map((offset) => Math.min(offset, items.length)), items.length];
  ends.sort((a, b) => a - b);
  return ends.map((end, i) => items.slice(ends[i - 1] ?? 0, end));
}

const masked = (frame: Frame) => encodeFrame(frame, { mask: true });

const ping: Frame = { fin: true, rsv: 0, opcode: Opcode.Ping, payload: utf8("?") };
const pong: Frame = { fin: true, rsv: 0, opcode: Opcode.Pong, payload: utf8("!") };
/** A frame that no encoder takes (RFC 6455 §5.5). */
const invalid: Frame = { opcode: Opcode.Ping, payload: new Uint8Array(126) };

const control = fc.constantFrom(ping, pong);
const message = fc.oneof(text, binary);
const maxFrameSize = fc.constantFrom(1, 7, 100, Infinity);

/** Messages and control frames. Some control frames are between the fragments of a message. */
const conversation = fc.array(fc.tuple(message, maxFrameSize, fc.option(control)), {
  maxLength: 12,
})
  .map((parts) =>
    parts.flatMap(([message, maxFrameSize, between]) => {
      const [first, ...others] = fragments(message, { maxFrameSize });
      return between === null ? [first, ...others] : [first, between, ...others];
    })
  );

/** The extensions in use: none, one that works synchronously, one that works asynchronously, and both. */
const toys = fc.constantFrom(
  () => [],
  () => [new Toy("a", 3, { rsv: 4 }).finalize()],
  () => [new Toy("a", 3, { rsv: 4, slow: true }).finalize()],
  () => [
    new Toy("a", 3, { rsv: 4, slow: true }).finalize(),
    new Toy("b", 5, { rsv: 2, slow: true }).finalize(),
  ],
);

/** Frames as the extensions make them. */
async function encoded(frames: readonly Frame[], extensions: Extension[]): Promise<Frame[]> {
  const encoder = ExtensionEncoderStream.batched(extensions);
  const outcome = await outcomeOf(source([frames]).pipeThrough(encoder));
  assert.equal(outcome.error, undefined);
  return outcome.items.flat();
}

describe("Streams, batched: the same as one item a chunk", () => {
  it("bytes to messages, however cut, valid or not", async () => {
    const flips = fc.option(fc.tuple(fc.nat(4000), fc.integer({ min: 1, max: 255 })));
    const property = fc.asyncProperty(
      conversation,
      toys,
      offsets(4000),
      flips,
      async (frames, toys, at, flip) => {
        const wire = concat((await encoded(frames, toys())).map(masked));
        if (flip !== null && wire.length > 0) wire[flip[0] % wire.length] ^= flip[1];
        const chunks = cut(wire, ...at);
        const options = { ...SERVER, rsvInUse: toys().reduce((bits, { rsv }) => bits | rsv, 0) };
        const single = source(chunks)
          .pipeThrough(new FrameDecoderStream(options))
          .pipeThrough(new ExtensionDecoderStream(toys()))
          .pipeThrough(new MessageAssemblerStream());
        const batched = source(chunks)
          .pipeThrough(FrameDecoderStream.batched(options))
          .pipeThrough(ExtensionDecoderStream.batched(toys()))
          .pipeThrough(MessageAssemblerStream.batched());
        assert.deepEqual(flat(await outcomeOf(batched)), await outcomeOf(single));
      },
    );
    await fc.assert(property, { numRuns: 150 });
  });

  it("messages to bytes, however they come in arrays, valid or not", async () => {
    const items = fc.array(
      fc.oneof(
        { weight: 9, arbitrary: message },
        { weight: 3, arbitrary: control },
        { weight: 1, arbitrary: fc.constant(invalid) },
      ),
      { maxLength: 12 },
    );
    const property = fc.asyncProperty(
      items,
      toys,
      offsets(12),
      maxFrameSize,
      async (items, toys, at, maxFrameSize) => {
        const single = source<Message | Frame>(items)
          .pipeThrough(new MessageFragmenterStream({ maxFrameSize }))
          .pipeThrough(new ExtensionEncoderStream(toys()))
          .pipeThrough(new FrameEncoderStream(SERVER));
        const batched = source<readonly (Message | Frame)[]>(runs(items, at))
          .pipeThrough(MessageFragmenterStream.batched({ maxFrameSize }))
          .pipeThrough(ExtensionEncoderStream.batched(toys()))
          .pipeThrough(FrameEncoderStream.batched(SERVER));
        const expected = await outcomeOf(single);
        const got = await outcomeOf(batched);
        assert.equal(got.error, expected.error);
        assert.deepEqual(concat(got.items), concat(expected.items));
      },
    );
    await fc.assert(property, { numRuns: 150 });
  });

  it("a client's chunk has a fresh masking key for each frame", async () => {
    const frames = Array.from({ length: 40 }, () => ping);
    const { items } = await outcomeOf(
      source([frames]).pipeThrough(FrameEncoderStream.batched({ role: "client" })),
    );
    assert.equal(items.length, 1);
    const decoder = new FrameDecoder(SERVER);
    decoder.push(items[0]);
    const keys = new Set<string>();
    for (let i = 0; i < frames.length; i++) {
      keys.add(String(items[0].subarray(7 * i + 2, 7 * i + 6)));
      assert.deepEqual(decoder.next()?.payload, ping.payload);
    }
    assert.ok(keys.size > 30);
  });

  it("a payload that is text or an ArrayBuffer is an error, after the frames before it", async () => {
    for (const payload of ["a", new ArrayBuffer(1), undefined]) {
      const frames = [ping, { ...ping, payload } as never];
      const { items, error } = await outcomeOf(
        source([frames]).pipeThrough(FrameEncoderStream.batched(SERVER)),
      );
      assert.equal(items.length, 1);
      assert.match(String(error), /^Expected frame.payload to be a Uint8Array/);
    }
  });

  it("a chunk of bytes is its reader's alone, and holds nothing else", async () => {
    const frames = [[ping], [{ ...ping, opcode: Opcode.Binary, payload: pattern(20_000) }]];
    const { items } = await outcomeOf(
      source(frames).pipeThrough(FrameEncoderStream.batched(SERVER)),
    );
    assert.deepEqual(items.map(({ buffer }) => buffer.byteLength), [3, 20_004]);
    assert.notEqual(items[1].buffer, frames[1][0].payload.buffer);
  });
});

/** A piece that is a whole frame of a text message. */
function piece(payload: Uint8Array, rsv = 0): FramePiece {
  const header = { fin: true, rsv, opcode: Opcode.Text, masked: true, length: payload.length };
  return { header, payload, last: true };
}

const controlPiece: FramePiece = {
  header: { fin: true, rsv: 0, opcode: Opcode.Ping, masked: true, length: 1 },
  payload: ping.payload,
  last: true,
};
const frame: Frame = { fin: true, rsv: 0, opcode: Opcode.Text, payload: utf8("a") };

/** Each batched stream: valid input, an item that the stream refuses, and how many bytes an item counts. */
interface Form {
  make: () => PullStream<unknown, unknown>;
  /** One chunk of `count` items, each of `size` bytes. */
  input: (count: number, size: number) => unknown;
  /** Two good items, a bad one, then a good one. */
  bad: unknown;
}

const many = <T>(count: number, item: T): T[] => Array.from({ length: count }, () => item);
const textOf = (size: number): Frame => ({ ...frame, payload: new Uint8Array(size).fill(97) });

/** An extension that refuses payloads which begin with a zero, in both directions. */
function picky(): Extension {
  const extension = new Toy("picky", 0).finalize();
  const push = extension.push.bind(extension);
  extension.push = (piece) => {
    if (piece.payload[0] === 0) throw new Error("a zero");
    push(piece);
  };
  extension.encode = (frame) => {
    if (frame.payload[0] === 0) throw new Error("a zero");
    return frame;
  };
  return extension;
}

const zero = new Uint8Array(1);
const FORMS: Record<string, Form> = {
  FrameDecoderStream: {
    make: () => FrameDecoderStream.batched(SERVER),
    input: (count, size) => concat(many(count, masked(textOf(size)))),
    bad: concat([masked(frame), masked(frame), encodeFrame(frame), masked(frame)]),
  },
  ExtensionDecoderStream: {
    make: () => ExtensionDecoderStream.batched([picky()]),
    input: (count, size) => many(count, piece(textOf(size).payload)),
    bad: [piece(utf8("a")), piece(utf8("a")), piece(zero), piece(utf8("a"))],
  },
  MessageAssemblerStream: {
    make: () => MessageAssemblerStream.batched(),
    input: (count, size) => many(count, piece(textOf(size).payload)),
    bad: [piece(utf8("a")), piece(utf8("a")), piece(Uint8Array.of(0xff)), piece(utf8("a"))],
  },
  MessageFragmenterStream: {
    make: () => MessageFragmenterStream.batched(),
    input: (count, size) => many(count, textOf(size).payload),
    bad: ["a", "a", null, "a"],
  },
  ExtensionEncoderStream: {
    make: () => ExtensionEncoderStream.batched([picky()]),
    input: (count, size) => many(count, textOf(size)),
    bad: [frame, frame, { ...frame, payload: zero }, frame],
  },
  FrameEncoderStream: {
    make: () => FrameEncoderStream.batched(SERVER),
    input: (count, size) => many(count, textOf(size)),
    bad: [frame, frame, invalid, frame],
  },
};

/** How many items a chunk stands for. A chunk of bytes is measured by its size. */
function countOf(chunk: unknown, size: number): number {
  return chunk instanceof Uint8Array
    ? chunk.length / encodeFrame(textOf(size)).length
    : (chunk as unknown[]).length;
}

describe("Streams, batched: bounds and ends", () => {
  for (const [name, { make, input, bad }] of Object.entries(FORMS)) {
    it(`${name}: an error follows the batch of the values before it`, async () => {
      const { readable, writable } = make();
      const writer = writable.getWriter();
      const reader = readable.getReader();
      const write = writer.write(bad);
      const { value } = await reader.read();
      assert.equal(countOf(value, 1), 2);
      const error = await rejection(reader.read());
      assert.equal(await rejection(write), error);
      assert.equal(await rejection(writer.closed), error);
      assert.equal(await rejection(reader.closed), error);
    });

    const sizes: [count: number, size: number][] = [[5000, 0], [50, 5000], [3, 200_000]];
    for (const [count, size] of sizes) {
      it(`${name}: ${count} items of ${size} bytes come in bounded batches`, async () => {
        const { readable, writable } = make();
        const reader = readable.getReader();
        const writer = writable.getWriter();
        const write = writer.write(input(count, size));
        writer.close();
        let left = count;
        for (;;) {
          const { done, value } = await reader.read();
          if (done) break;
          const items = countOf(value, size);
          // The last item of a batch may exceed the limit. Small frames are bytes in one chunk.
          assert.ok((items - 1) * size < MAX_SIZE, `${items} items`);
          if (name !== "FrameEncoderStream") assert.ok(items <= MAX_ITEMS, `${items} items`);
          left -= items;
          if (left > 0) assert.equal(await isPending(write), true);
        }
        assert.equal(left, 0);
        await write;
      });
    }

    it(`${name}: pulls nothing while nobody reads`, async () => {
      let pulled = 0;
      const endless = new ReadableStream({
        pull: (controller) => {
          pulled++;
          controller.enqueue(input(10, 10));
        },
      }, { highWaterMark: 0 });
      const { readable, writable } = make();
      const piped = endless.pipeTo(writable).catch(() => {});
      await rest();
      const before = pulled;
      assert.ok(before <= 2, `${before} chunks`);
      const reader = readable.getReader();
      await reader.read();
      await rest();
      assert.ok(pulled <= before + 1, `${pulled} chunks`);
      await reader.cancel();
      await piped;
    });

    it(`${name}: an empty chunk is taken and gives nothing`, async () => {
      const empty = input(0, 0);
      const { items, error } = await outcomeOf(source([empty, empty]).pipeThrough(make()));
      assert.deepEqual([items, error], [[], undefined]);
    });

    it(`${name}: cancelling settles the waiting calls`, async () => {
      for (const chunks of [0, 1, 3]) {
        const { readable, writable } = make();
        const writer = writable.getWriter();
        const writes = many(chunks, input(5000, 20)).map((chunk) => writer.write(chunk));
        const reader = readable.getReader();
        const read = reader.read();
        if (chunks > 0) await read;
        const reason = new Error("enough");
        await reader.cancel(reason);
        assert.equal((await read).done, chunks === 0);
        await Promise.allSettled(writes);
        assert.equal(await rejection(writer.closed), reason);
      }
    });

    it(`${name}: aborting settles the waiting calls`, async () => {
      for (const chunks of [0, 1, 3]) {
        const { readable, writable } = make();
        const writer = writable.getWriter();
        const writes = Promise.allSettled(
          many(chunks, input(5000, 20)).map((chunk) => writer.write(chunk)),
        );
        const reader = readable.getReader();
        const read = reader.read();
        if (chunks > 0) await read;
        const reason = new Error("enough");
        await writer.abort(reason);
        assert.equal(await rejection(chunks === 0 ? read : reader.read()), reason);
        await writes;
        assert.equal(await rejection(writer.closed), reason);
      }
    });
  }
});

describe("Streams, batched: control frames", () => {
  const pieces = [piece(utf8("a")), controlPiece, piece(utf8("b")), piece(utf8("c")), controlPiece];

  it("they keep their place among the messages", async () => {
    const { items } = await outcomeOf(
      source([pieces]).pipeThrough(MessageAssemblerStream.batched()),
    );
    assert.deepEqual(items, [["a", ping, "b", "c", ping]]);
  });

  for (
    const [form, make] of [["one by one", undefined], [
      "batched",
      MessageAssemblerStream.batched,
    ]] as const
  ) {
    it(`onControl is called after the earlier values have been read (${form})`, async () => {
      const seen: unknown[] = [];
      const onControl = (frame: Frame) => void seen.push(frame);
      const stream: ReadableStream<unknown> = make === undefined
        ? source(pieces).pipeThrough(new MessageAssemblerStream({ onControl }))
        : source([pieces]).pipeThrough(make({ onControl }));
      const reader = stream.getReader();
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        seen.push(...(Array.isArray(value) ? value : [value]));
      }
      assert.deepEqual(seen, ["a", ping, "b", "c", ping]);
    });
  }

  it("an error of onControl follows the messages before it", async () => {
    const { items, error } = await outcomeOf(
      source([pieces]).pipeThrough(MessageAssemblerStream.batched({
        onControl: () => {
          throw new Error("no");
        },
      })),
    );
    assert.deepEqual([items, error], [[["a"]], "no"]);
  });
});

/** An extension that works asynchronously until it is told to finish. */
class Held {
  readonly #waiting: FramePiece[] = [];
  readonly #done: FramePiece[] = [];
  ready: (() => void) | undefined;
  readonly extension: Extension;

  constructor(atOnce = false) {
    this.extension = {
      name: "held",
      rsv: 0,
      push: (piece) => void this.#waiting.push(piece),
      next: (ready) => {
        const done = this.#done.shift();
        if (done !== undefined || this.#waiting.length === 0) return done;
        // A payload that begins with "w" has to wait.
        if (this.#waiting[0].payload[0] !== 119) return this.#waiting.shift();
        this.ready = () => {
          this.#done.push(this.#waiting.shift()!);
          ready!();
        };
        if (atOnce) this.ready();
        return PENDING;
      },
      encode: (frame, later) => {
        if (frame.payload[0] !== 119) return frame;
        this.ready = () => later!(undefined, frame);
        if (atOnce) this.ready();
        return undefined;
      },
      close() {},
    };
  }
}

/** Both directions of the extension, with the text of the results. */
const HELD: Record<
  string,
  (held: Held) => { stream: PullStream<unknown, unknown>; input: unknown[] }
> = {
  ExtensionDecoderStream: ({ extension }) => ({
    stream: ExtensionDecoderStream.batched([extension]),
    input: ["a", "b", "wait", "c"].map((text) => piece(utf8(text))),
  }),
  ExtensionEncoderStream: ({ extension }) => ({
    stream: ExtensionEncoderStream.batched([extension]),
    input: ["a", "b", "wait", "c"].map((text) => ({ ...frame, payload: utf8(text) })),
  }),
};

function texts(batch: unknown): string[] {
  return (batch as Frame[]).map(({ payload }) => new TextDecoder().decode(payload));
}

describe("Streams, batched: an extension that works elsewhere", () => {
  for (const [name, make] of Object.entries(HELD)) {
    it(`${name}: frames before a held frame are given at once, later ones wait`, async () => {
      const held = new Held();
      const { stream, input } = make(held);
      const writer = stream.writable.getWriter();
      const reader = stream.readable.getReader();
      const write = writer.write(input);
      assert.deepEqual(texts((await reader.read()).value), ["a", "b"]);
      const read = reader.read();
      assert.equal(await isPending(read), true);
      assert.equal(await isPending(write), true);
      held.ready!();
      assert.deepEqual(texts((await read).value), ["wait", "c"]);
      const closed = writer.close();
      assert.equal((await reader.read()).done, true);
      await Promise.all([write, closed]);
    });

    it(`${name}: it may be through before anybody reads on`, async () => {
      const held = new Held();
      const { stream, input } = make(held);
      const writer = stream.writable.getWriter();
      const reader = stream.readable.getReader();
      writer.write(input);
      assert.deepEqual(texts((await reader.read()).value), ["a", "b"]);
      held.ready!();
      await rest();
      assert.deepEqual(texts((await reader.read()).value), ["wait", "c"]);
    });

    it(`${name}: it may be through at once`, async () => {
      const { stream, input } = make(new Held(true));
      const { items } = await outcomeOf(source([input]).pipeThrough(stream));
      assert.deepEqual(items.map(texts), [["a", "b", "wait", "c"]]);
    });

    for (const how of ["cancel", "abort"] as const) {
      it(`${name}: ${how} settles all while it works, and its call back does no harm`, async () => {
        const held = new Held();
        const { stream, input } = make(held);
        const writer = stream.writable.getWriter();
        const reader = stream.readable.getReader();
        const settled = Promise.allSettled([writer.write(input), writer.closed, reader.closed]);
        await reader.read();
        const read = Promise.allSettled([reader.read()]);
        await rest();
        const reason = new Error("enough");
        await (how === "cancel" ? reader.cancel(reason) : writer.abort(reason));
        assert.equal((await read)[0].status, how === "cancel" ? "fulfilled" : "rejected");
        await settled;
        held.ready!();
        await rest();
      });
    }
  }
});
