// A pipe between two connections does what the pipe of the platform does.
import { describe } from "node:test";
import assert from "node:assert/strict";
import { type ConnectionOptions, type WebSocketConnection, WebSocketStream } from "../mod.ts";
import { driverOf } from "../lib/connection/connection.ts";
import {
  type OpenStream,
  Sink,
  Source,
  type StreamHost,
  type StreamSender,
  WritableMessages,
} from "../lib/connection/pipe.ts";
import { Readable } from "../lib/abortable.ts";
import { pair } from "../lib/testing.ts";
import { pattern } from "./bytes.ts";
import { it } from "./it.ts";
import {
  binaryFrame,
  frames,
  giveUpRead,
  held,
  inBothRoles,
  isPending,
  rejection,
  rest,
  textFrame,
  until,
  withServer,
} from "./support.ts";

type Options = StreamPipeOptions;
type PipeTo = (from: ReadableStream, to: WritableStream, options?: Options) => Promise<void>;

const ours: PipeTo = (from, to, options) => from.pipeTo(to, options);
const platforms: PipeTo = (from, to, options) =>
  ReadableStream.prototype.pipeTo.call(from, to, options);

/** Two connections, and a pipe from one to the other. */
interface Setting {
  /** What sends to the pipe. */
  readonly feeder: WebSocketConnection;
  readonly from: WebSocketConnection;
  readonly to: WebSocketConnection;
  /** What the pipe sends to. */
  readonly drain: WebSocketConnection;
  /** What `drain` has received. */
  readonly received: string[];
  readonly signal: AbortController;
  /** Reads what the pipe sends. */
  read(): void;
}

interface Scenario {
  /** Called before the pipe starts. */
  before?(setting: Setting): unknown;
  /** Called in the turn in which the pipe starts, with its promise. */
  during?(setting: Setting): unknown;
  /** Whether the pipe has a signal. */
  readonly signals?: boolean;
  readonly compressed?: boolean;
  /** Whether the drain reads only when the scenario says so. */
  readonly slow?: boolean;
  readonly readableStrategy?: ConnectionOptions["readableStrategy"];
}

const LONG = "x".repeat(100_000);

const brief = (message: unknown) =>
  typeof message === "string" ? message.slice(0, 10) : `${(message as Uint8Array).length} bytes`;

const SCENARIOS: Record<string, Scenario> = {
  "the source closes": {
    async during({ feeder }) {
      for (const message of ["a", "b", pattern(20_000)]) await feeder.send(message);
      await feeder.close({ closeCode: 4000 });
    },
  },
  "the source closes before anything was sent": {
    during: ({ feeder }) => feeder.close({ closeCode: 1000 }),
  },
  "the source fails after messages": {
    async during({ feeder, received }) {
      await feeder.send("a");
      await feeder.send(pattern(9000));
      await until(() => received.length === 2);
      feeder.terminate();
    },
  },
  "the source has failed, and its messages wait": {
    async before({ feeder, from }) {
      // Messages are received only after readable was taken.
      void from.readable;
      await feeder.send("a");
      await feeder.send("b");
      await rest();
      feeder.terminate();
      await until(() => from.state === "closed");
    },
  },
  "the source has closed, and its messages wait": {
    async before({ feeder, from }) {
      void from.readable;
      await feeder.send("a");
      await feeder.close();
      await until(() => from.state === "closed");
    },
  },
  "the source was closed and read": {
    async before({ feeder, from }) {
      void from.readable;
      await feeder.close();
      await until(() => from.state === "closed");
    },
  },
  "the source was cancelled": {
    before: ({ from }) => from.readable.cancel(),
  },
  "the source has failed while a message waits to be sent": {
    slow: true,
    async during({ feeder, from, read }) {
      await feeder.send(LONG);
      await feeder.send(LONG);
      await feeder.send(LONG);
      await until(() => from.stats.messagesReceived === 3);
      await rest();
      feeder.terminate();
      await rest();
      read();
    },
  },
  "the source has closed while a message waits to be sent": {
    slow: true,
    async during({ feeder, from, read }) {
      for (let i = 0; i < 3; i++) await feeder.send(LONG);
      feeder.close();
      await until(() => from.stats.messagesReceived === 3);
      await rest();
      read();
    },
  },
  "the sink fails": {
    async during({ feeder, drain, received }) {
      await feeder.send("a");
      await until(() => received.length === 1);
      drain.terminate();
    },
  },
  "the sink fails while a message waits to be sent": {
    slow: true,
    async during({ feeder, from, drain }) {
      for (let i = 0; i < 3; i++) await feeder.send(LONG);
      await until(() => from.stats.messagesReceived === 3);
      await rest();
      drain.terminate();
    },
  },
  "the sink's peer closes": {
    async during({ feeder, drain, received }) {
      await feeder.send("a");
      await until(() => received.length === 1);
      await drain.close({ closeCode: 4001 });
    },
  },
  "the sink's connection is closed here": {
    async during({ feeder, to, received }) {
      await feeder.send("a");
      await until(() => received.length === 1);
      await to.close();
    },
  },
  "a message comes while the sink's connection is closing": {
    slow: true,
    async during({ feeder, to, drain }) {
      to.close();
      await feeder.send("a");
      await rest();
      drain.terminate();
    },
  },
  "the sink has failed before": {
    async before({ to, drain }) {
      void to.writable;
      drain.terminate();
      await until(() => to.state === "closed");
    },
  },
  "the sink was closed before": {
    before: ({ to }) => to.writable.close(),
  },
  "the sink was aborted before": {
    before: ({ to }) => to.writable.abort(new Error("aborted")),
  },
  "the source has closed and the sink was aborted before": {
    async before({ feeder, from, to }) {
      void from.readable;
      await feeder.close();
      await until(() => from.state === "closed");
      await to.writable.abort(new Error("aborted"));
    },
  },
  "the source has failed and the sink was aborted before": {
    async before({ feeder, from, to }) {
      void from.readable;
      feeder.terminate();
      await until(() => from.state === "closed");
      await to.writable.abort(new Error("aborted"));
    },
  },
  "both were closed before": {
    async before({ feeder, from, to }) {
      void from.readable;
      await feeder.close();
      await until(() => from.state === "closed");
      await to.writable.close();
    },
  },
  "the sink is closing": {
    before: ({ to }) => void to.writable.close(),
    during: ({ feeder }) => feeder.send("a"),
  },
  "the source was cancelled and the sink is closing": {
    before: ({ from, to }) => {
      from.readable.cancel();
      to.writable.close();
    },
  },
  "the sink has a chunk that waits": {
    slow: true,
    async before({ to }) {
      const writer = to.writable.getWriter();
      writer.write(LONG);
      writer.write("first");
      writer.releaseLock();
      await rest();
    },
    async during({ feeder, read }) {
      await feeder.send("a");
      await rest();
      read();
      await rest();
      await feeder.close();
    },
  },
  "the sink fails while chunks from before wait": {
    slow: true,
    async before({ to }) {
      const writer = to.writable.getWriter();
      for (let i = 0; i < 2; i++) writer.write(LONG).catch(() => {});
      writer.releaseLock();
      await rest();
    },
    during: ({ drain }) => drain.terminate(),
  },
  "the sink will close after a chunk that waits": {
    slow: true,
    async before({ to }) {
      const writer = to.writable.getWriter();
      writer.write(LONG);
      writer.write(LONG);
      await rest();
      writer.close();
      writer.releaseLock();
    },
    async during({ feeder, read }) {
      await feeder.send("a");
      await rest();
      read();
    },
  },
  "the sink cannot write a message": {
    before: ({ to }) => {
      driverOf(to).machine.writePiece = () => {
        throw new Error("no memory");
      };
    },
    during: ({ feeder }) => feeder.send("a"),
  },
  "a read was given up": {
    async before({ feeder, from }) {
      await giveUpRead(from.readable);
      await feeder.send("first");
      await until(() => from.stats.messagesReceived === 1);
    },
    async during({ feeder }) {
      await feeder.send("second");
      await feeder.close();
    },
  },
  "a read was given up, and the source has failed": {
    async before({ feeder, from }) {
      await giveUpRead(from.readable);
      await feeder.send("first");
      await until(() => from.stats.messagesReceived === 1);
      feeder.terminate();
      await until(() => from.state === "closed");
    },
  },
  "a read was given up just before": {
    async before({ from }) {
      await giveUpRead(from.readable);
    },
    async during({ feeder }) {
      await feeder.send("first");
      await feeder.send("second");
      await feeder.close();
    },
  },
  "the signal aborts while nothing is moved": {
    signals: true,
    async during({ feeder, received, signal }) {
      await feeder.send("a");
      await until(() => received.length === 1);
      signal.abort(new Error("enough"));
    },
  },
  "the signal aborts at once": {
    signals: true,
    during: ({ signal }) => signal.abort(),
  },
  "the signal is aborted before": {
    signals: true,
    before: ({ signal }) => signal.abort(new Error("before")),
  },
  "the signal aborts while a message waits to be sent": {
    signals: true,
    slow: true,
    async during({ feeder, to, signal, read }) {
      feeder.send(LONG);
      feeder.send(LONG);
      await until(() => to.bufferedAmount > 0);
      await rest();
      signal.abort(new Error("enough"));
      await rest();
      read();
    },
  },
  "the signal aborts after the source has closed": {
    signals: true,
    slow: true,
    async during({ feeder, read, signal }) {
      feeder.send(LONG);
      feeder.send(LONG);
      feeder.close();
      await rest();
      signal.abort(new Error("too late"));
      await rest();
      read();
    },
  },
  "the sink fails after the source has failed": {
    slow: true,
    async during({ feeder, from, drain }) {
      feeder.send(LONG);
      feeder.send(LONG);
      await until(() => from.stats.messagesReceived === 2);
      await rest();
      feeder.terminate();
      await rest();
      drain.terminate();
    },
  },
  "both are compressed": {
    compressed: true,
    async during({ feeder }) {
      for (const message of ["a".repeat(2000), LONG, pattern(30_000), "b"]) {
        await feeder.send(message);
      }
      await feeder.close();
    },
  },
};

async function setUp(
  { slow, compressed, readableStrategy }: Scenario,
  signal: AbortController,
): Promise<Setting> {
  const compression = compressed ? { threshold: 0 } : false;
  const both = { pingInterval: 0, compression, closeTimeout: 300 };
  const [feeder, from] = await pair({ client: both, server: { ...both, readableStrategy } });
  const [to, drain] = await pair({ client: both, server: both, ...(slow && { capacity: 0 }) });
  const received: string[] = [];
  const read = async () => {
    for await (const message of drain) received.push(brief(message));
  };
  const start = () => void read().catch(() => {});
  if (!slow) start();
  return { feeder, from, to, drain, received, signal, read: start };
}

/** Describes an error without its stack. */
function describeError(error: unknown): string {
  const { name, message, closeCode } = error as Error & { closeCode?: number };
  // Each platform has a text of its own.
  if (error instanceof TypeError) return name;
  return `${name} ${closeCode}: ${message}`;
}

async function settled(promise: Promise<unknown>): Promise<unknown> {
  try {
    return `resolved: ${await promise}`;
  } catch (error) {
    return describeError(error);
  }
}

/** Runs a test with a setting, and ends its connections. */
async function withSetting<T>(
  scenario: Scenario,
  run: (setting: Setting) => Promise<T>,
): Promise<T> {
  const setting = await setUp(scenario, new AbortController());
  try {
    return await run(setting);
  } finally {
    for (const ws of [setting.feeder, setting.from, setting.to, setting.drain]) ws.terminate();
  }
}

/** Everything that can be observed of a pipe. */
async function observe(pipeTo: PipeTo, scenario: Scenario, prevent: Options): Promise<object> {
  return await withSetting(scenario, async (setting) => {
    const { from, to, drain, received, signal } = setting;
    // Both streams exist before anything arrives.
    const { readable } = from;
    const { writable } = to;
    await scenario.before?.(setting);
    const options = scenario.signals ? { ...prevent, signal: signal.signal } : prevent;
    const piped = pipeTo(readable, writable, options);
    piped.catch(() => {});
    await scenario.during?.(setting);
    const result = await settled(held(piped));
    const unlocked = [readable.locked, writable.locked];
    if (drain.state === "open") setting.read();
    await rest();
    const delivered = [...received];
    const left = await probe(setting, readable, writable);
    const closes = [from, to].map(({ closeInfo }) => closeInfo?.sent?.closeCode);
    return { result, unlocked, left, delivered, closes };
  });
}

/** What the streams still do after the pipe. */
async function probe(
  { feeder }: Setting,
  readable: ReadableStream,
  writable: WritableStream,
): Promise<unknown[]> {
  feeder.send("probe").catch(() => {});
  const reader = readable.getReader();
  const rests: unknown[] = [await isPending(reader.closed)];
  while (rests.at(-1) !== "probe" && rests.at(-1) !== "over") {
    try {
      const { done, value } = await held(reader.read());
      rests.push(done ? "over" : brief(value));
    } catch (error) {
      rests.push(describeError(error), "over");
    }
  }
  return [...rests, await settled(held(writable.getWriter().write("probe")))];
}

const COMBINATIONS: Options[] = Array.from({ length: 8 }, (_, bits) => ({
  preventAbort: (bits & 1) !== 0,
  preventCancel: (bits & 2) !== 0,
  preventClose: (bits & 4) !== 0,
}));

describe("pipeTo() between two connections", () => {
  for (const [title, scenario] of Object.entries(SCENARIOS)) {
    it(`pipeTo() does what the platform does if ${title}`, async () => {
      const [actual, expected] = await Promise.all(
        [ours, platforms].map((pipeTo) =>
          Promise.all(COMBINATIONS.map(async (prevent) => ({
            ...prevent,
            ...await observe(pipeTo, scenario, prevent),
          })))
        ),
      );
      assert.deepEqual(actual, expected);
    });
  }

  it("pipeTo() delivers everything, and closes the sink without a code", async () => {
    const { received, ...rests } = await withSetting({}, async (setting) => {
      const { feeder, from, to, received } = setting;
      const piped = from.readable.pipeTo(to.writable);
      assert.deepEqual([from.readable.locked, to.writable.locked], [true, true]);
      for (let i = 0; i < 1000; i++) await feeder.send(`${i}`);
      await feeder.close({ closeCode: 1000 });
      await piped;
      return {
        received,
        sent: to.closeInfo?.sent?.closeCode,
        got: from.closeInfo?.sent?.closeCode,
      };
    });
    assert.deepEqual(received, Array.from({ length: 1000 }, (_, i) => `${i}`));
    assert.deepEqual(rests, { sent: 1005, got: 1000 });
  });

  it("pipeTo() sends all messages of a chunk while the chunk is read", async () => {
    await inBothRoles(async (ws, peer) => {
      const piped = ws.readable.pipeTo(ws.writable);
      await rest();
      const encoded = ["a", "b", "c"].flatMap((text) => [...peer.encode(textFrame(text))]);
      driverOf(ws).data(Uint8Array.from(encoded));
      assert.equal(ws.stats.messagesSent, 3);
      ws.terminate();
      await rejection(piped);
    });
  });

  it("pipeTo() does not start before the current turn has ended", async () => {
    await withSetting({}, async ({ feeder, from, to, received }) => {
      void from.readable;
      await feeder.send("second");
      await rest();
      from.readable.pipeTo(to.writable);
      to.send("first");
      await until(() => received.length === 2);
      assert.deepEqual(received, ["first", "second"]);
    });
  });

  it("pipeTo() does not copy long messages of bytes", async () => {
    await inBothRoles(async (ws, peer, role) => {
      const { transport } = driverOf(ws);
      const write = transport.write.bind(transport);
      const shared: boolean[] = [];
      transport.write = (parts) => {
        shared.push(
          parts.some(({ buffer, length }) => length === 20_000 && buffer.byteLength === 20_000),
        );
        write(parts);
      };
      const piped = ws.readable.pipeTo(ws.writable);
      await rest();
      peer.write(peer.encode(binaryFrame(pattern(20_000))));
      const [[type, text]] = await frames(peer, 1);
      assert.deepEqual([type, text.length], ["binary", 20_000]);
      // A client masks what it sends.
      assert.deepEqual(shared, [role === "server"]);
      ws.terminate();
      await rejection(piped);
    });
  });

  it("pipeTo() waits while the sink has no room", async () => {
    await withSetting({ slow: true }, async ({ feeder, from, to, read, received }) => {
      const piped = from.readable.pipeTo(to.writable);
      for (let i = 0; i < 40; i++) feeder.send(LONG);
      await rest();
      const { queued, paused } = from.stats;
      assert.ok(to.bufferedAmount < 2 * LONG.length + 65536, `${to.bufferedAmount} bytes`);
      assert.ok(queued > 0 && queued < 2 * LONG.length + 65536 && paused, `${queued} bytes`);
      read();
      await until(() => received.length === 40);
      await feeder.close();
      await piped;
    });
  });

  it("pipeTo() gives up if one more message waits before the end of the source", async () => {
    await withSetting({ slow: true }, async ({ feeder, from, to, read }) => {
      const signal = new AbortController();
      const piped = from.readable.pipeTo(to.writable, { signal: signal.signal });
      for (const message of [LONG, LONG, "c"]) feeder.send(message);
      feeder.close();
      await until(() => from.stats.messagesReceived === 3);
      await rest();
      signal.abort(new Error("enough"));
      await rest();
      read();
      assert.equal((await rejection(piped)).message, "enough");
    });
  });

  for (const isQueued of [false, true]) {
    const when = isQueued ? "at the start" : "later";
    it(`pipeTo() sends a message that was being taken when the signal aborted ${when}`, async () => {
      const signal = new AbortController();
      const size = (message: unknown) => {
        if (message === "c") signal.abort(new Error("enough"));
        return 1;
      };
      const scenario = { slow: true, readableStrategy: { highWaterMark: 2, size } };
      await withSetting(scenario, async ({ feeder, from, to, read, received }) => {
        const { readable } = from;
        const messages = ["a", "b", "c", "d"];
        if (isQueued) { for (const message of messages) feeder.send(message); }
        await rest();
        const prevent = { preventAbort: true, preventCancel: true };
        const piped = readable.pipeTo(to.writable, { ...prevent, signal: signal.signal });
        piped.catch(() => {});
        if (!isQueued) { for (const message of [LONG, LONG, ...messages]) feeder.send(message); }
        await rest();
        read();
        assert.equal((await rejection(piped)).message, "enough");
        await until(() => received.at(-1) === "a");
        const reader = readable.getReader();
        for (const message of ["b", "c", "d"]) assert.equal((await reader.read()).value, message);
      });
    });
  }

  it("pipeTo() no longer listens to its signal when it has ended", async () => {
    await withSetting({}, async ({ feeder, from, to }) => {
      const { signal } = new AbortController();
      let listeners = 0;
      const { addEventListener, removeEventListener } = signal;
      signal.addEventListener = (...args: Parameters<typeof addEventListener>) => {
        listeners++;
        addEventListener.apply(signal, args);
      };
      signal.removeEventListener = (...args: Parameters<typeof removeEventListener>) => {
        listeners--;
        removeEventListener.apply(signal, args);
      };
      const piped = from.readable.pipeTo(to.writable, { signal });
      assert.equal(listeners, 1);
      await feeder.close();
      await piped;
      assert.equal(listeners, 0);
    });
  });

  it("pipeTo() is forgotten by the sink when it has ended", async () => {
    await withSetting({}, async ({ feeder, from, to }) => {
      const sink = WritableMessages.sinkOf(to.writable)!;
      const piped = from.readable.pipeTo(to.writable, { preventClose: true });
      await rest();
      assert.notEqual(sink.pipe, undefined);
      await feeder.close();
      await piped;
      assert.equal(sink.pipe, undefined);
    });
  });

  it("pipeTo() moves the messages itself once the chunks before it have been sent", async () => {
    await withSetting({}, async ({ feeder, from, to, received }) => {
      const sink = WritableMessages.sinkOf(to.writable)!;
      const writer = to.writable.getWriter();
      void writer.write("first");
      writer.releaseLock();
      const piped = from.readable.pipeTo(to.writable);
      await rest();
      assert.notEqual(sink.pipe, undefined);
      await feeder.send("second");
      await feeder.close();
      await piped;
      await until(() => received.length === 2);
      assert.deepEqual(received, ["first", "second"]);
    });
  });

  for (const how of ["close", "terminate"] as const) {
    it(`pipeTo() does not wait for earlier chunks after the source's ${how}()`, async () => {
      await withSetting({ slow: true }, async ({ feeder, from, to }) => {
        const writer = to.writable.getWriter();
        writer.write(LONG);
        const written = writer.write(LONG);
        writer.releaseLock();
        const prevent = { preventAbort: true, preventClose: true };
        const piped = settled(from.readable.pipeTo(to.writable, prevent));
        await rest();
        feeder[how]();
        assert.equal(await isPending(piped), false);
        assert.equal((await piped as string).startsWith("resolved"), how === "close");
        assert.equal(await isPending(written), true);
        written.catch(() => {});
      });
    });
  }

  const ENDS: Record<string, (setting: Setting) => unknown> = {
    "was closed": ({ to }) => to.writable.close(),
    "is closing": ({ to }) => void to.writable.close().catch(() => {}),
    "was aborted": ({ to }) => to.writable.abort(),
    "fails in this turn": ({ to }) => queueMicrotask(() => to.terminate()),
  };
  for (const [what, end] of Object.entries(ENDS)) {
    it(`pipeTo() leaves a message that waits if the sink ${what}`, async () => {
      await withSetting({}, async (setting) => {
        const { feeder, from, to } = setting;
        const { readable } = from;
        const { writable } = to;
        await feeder.send("a");
        await until(() => from.stats.messagesReceived === 1);
        await end(setting);
        // A rejection that nobody can handle would fail the test: the pipe of Node 24 makes one.
        await rejection(readable.pipeTo(writable, { preventCancel: true }));
        assert.deepEqual([readable.locked, writable.locked], [false, false]);
        const reading = readable.getReader().read();
        assert.equal(await isPending(reading), false);
        assert.equal((await reading).value, "a");
      });
      await rest();
    });
  }

  it("pipeTo() cancels the source with the error if the sink is closing", async () => {
    await withSetting({}, async ({ feeder, from, to }) => {
      const { readable } = from;
      await feeder.send("a");
      await until(() => from.stats.messagesReceived === 1);
      to.writable.close().catch(() => {});
      assert.equal((await rejection(readable.pipeTo(to.writable))).name, "TypeError");
      assert.equal(from.closeInfo?.sent?.closeCode, 1011);
    });
    await rest();
  });

  it("pipeTo() can follow another pipe of the same streams", async () => {
    await withSetting({}, async ({ feeder, from, to, received }) => {
      for (const message of ["a", "b", "c"]) {
        const signal = new AbortController();
        const prevent = { preventAbort: true, preventCancel: true, signal: signal.signal };
        const piped = from.readable.pipeTo(to.writable, prevent);
        await feeder.send(message);
        await until(() => received.at(-1) === message);
        signal.abort();
        await rejection(piped);
      }
    });
  });
});

describe("The arguments of pipeTo()", () => {
  it("pipeTo() reads each option once, in the order of the standard", async () => {
    await withSetting({}, async ({ feeder, from, to }) => {
      const read: string[] = [];
      const get = (_: object, name: string) => {
        read.push(name);
        return name === "signal" ? undefined : 0;
      };
      const piped = from.readable.pipeTo(to.writable, new Proxy({}, { get }));
      await feeder.close();
      await piped;
      assert.deepEqual(read, ["preventAbort", "preventCancel", "preventClose", "signal"]);
    });
  });

  const refused: Record<string, [destination: unknown, options?: unknown]> = {
    "no destination": [undefined],
    "null": [null],
    "another object": [{}],
    "options that are no object": ["writable", 5],
    "options that are a string": ["writable", "signal"],
    "a signal that is none": ["writable", { signal: { aborted: false } }],
    "null as signal": ["writable", { signal: null }],
    "an object with the prototype of a signal": ["writable", {
      signal: Object.create(AbortSignal.prototype),
    }],
  };
  for (const [title, [destination, options]] of Object.entries(refused)) {
    it(`pipeTo() rejects ${title} with a TypeError`, async () => {
      await withSetting({}, async ({ from, to }) => {
        const { writable } = to;
        const target = (destination === "writable" ? writable : destination) as WritableStream;
        const piped = from.readable.pipeTo(target, options as Options);
        assert.equal((await rejection(piped)).name, "TypeError");
      });
    });
  }

  it("pipeTo() rejects with the error of a getter, and locks nothing", async () => {
    await withSetting({}, async ({ from, to }) => {
      const error = new Error("getter");
      const options = {
        get preventClose(): boolean {
          throw error;
        },
      };
      assert.equal(await rejection(from.readable.pipeTo(to.writable, options)), error);
      assert.deepEqual([from.readable.locked, to.writable.locked], [false, false]);
    });
  });

  it("pipeTo() rejects a locked stream with a TypeError, and does not lock the other one", async () => {
    await withSetting({}, async ({ from, to }) => {
      const reader = from.readable.getReader();
      assert.equal((await rejection(from.readable.pipeTo(to.writable))).name, "TypeError");
      assert.equal(to.writable.locked, false);
      reader.releaseLock();
      to.writable.getWriter();
      assert.equal((await rejection(from.readable.pipeTo(to.writable))).name, "TypeError");
      assert.equal(from.readable.locked, false);
    });
  });

  it("pipeTo() takes null for no options, and nothing from the prototype of objects", async () => {
    const shared = Object.prototype as { preventClose?: boolean };
    for (const options of [null, undefined]) {
      await withSetting({}, async ({ feeder, from, to }) => {
        shared.preventClose = true;
        const piped = from.readable.pipeTo(to.writable, options as unknown as Options);
        delete shared.preventClose;
        await feeder.close();
        await piped;
        assert.equal(to.closeInfo?.sent?.closeCode, 1005);
      });
    }
  });

  it("pipeTo() uses the stream's own methods, not those that a program has put over them", async () => {
    await withSetting({}, async ({ feeder, from, to, received }) => {
      const { readable } = from;
      const { writable } = to;
      const fail = () => assert.fail("called");
      Object.assign(readable, { getReader: fail, cancel: fail });
      Object.assign(writable, { getWriter: fail, close: fail, abort: fail });
      const piped = readable.pipeTo(writable);
      await feeder.send("a");
      await feeder.close();
      await piped;
      assert.deepEqual(received, ["a"]);
    });
  });
});

describe("pipeTo() with other streams", () => {
  it("pipeTo() connects a connection and a WebSocketStream, both ways", async () => {
    await withServer({ port: 0, hostname: "127.0.0.1" }, async (server) => {
      const stream = new WebSocketStream(server.url!);
      const { readable, writable } = await stream.opened;
      await withSetting({}, async ({ feeder, from, drain }) => {
        // `from` and the stream pass on to each other. The server echoes.
        const there = from.readable.pipeTo(writable);
        const back = readable.pipeTo(from.writable, { preventClose: true });
        await feeder.send("a");
        await feeder.send(pattern(100_000));
        assert.equal(await feeder.receive(), "a");
        assert.deepEqual(await feeder.receive(), pattern(100_000));
        await feeder.close({ closeCode: 4000 });
        await there;
        // The peer's close has errored the stream that this pipe writes to.
        await rejection(back);
        assert.equal((await stream.closed).closeCode, 1005);
        drain.terminate();
      });
    });
  });

  it("pipeTo() sends the pieces of a message, and the messages of other streams", async () => {
    await withSetting({}, async ({ feeder, from, to, received }) => {
      const piped = (async () => {
        for await (const message of from.messages()) {
          await (message.readable as ReadableStream).pipeTo(to.writable, { preventClose: true });
        }
      })();
      await feeder.send("a");
      await feeder.send(pattern(3));
      await feeder.close();
      await piped;
      const others = new ReadableStream({
        start(controller) {
          for (const chunk of ["b", 5]) controller.enqueue(chunk);
          controller.close();
        },
      });
      await others.pipeTo(to.writable);
      assert.deepEqual(received, ["a", "3 bytes", "b", "5"]);
    });
  });
});

describe("The streams of a connection", () => {
  /** A writable stream, whose chunks wait until they are released, and what its host was told. */
  function writable(waits: boolean) {
    const told: unknown[] = [];
    const releases: (() => void)[] = [];
    const send = () => waits ? new Promise<void>((resolve) => releases.push(resolve)) : undefined;
    const sender: StreamSender = { put: send, move: send };
    const host: StreamHost = {
      finish: () => Promise.resolve(void told.push("finish")),
      leave: (reason) => void told.push(reason),
    };
    const sink = new Sink(sender, host);
    return { told, releases, sink, stream: sink.stream };
  }

  it("a stream that is aborted while a chunk waits tells its host once, and at once", async () => {
    const { told, releases, stream } = writable(true);
    const writer = stream.getWriter();
    await writer.ready;
    for (const chunk of ["a", "b"]) writer.write(chunk).catch(() => {});
    await rest();
    releases[0]();
    await rest();
    assert.equal(releases.length, 2);
    writer.closed.catch(() => {});
    writer.abort("enough").catch(() => {});
    assert.deepEqual(told, ["enough"]);
  });

  it("a stream that is aborted while no chunk waits tells its host once", async () => {
    const { told, stream } = writable(false);
    const writer = stream.getWriter();
    await writer.write("a");
    writer.closed.catch(() => {});
    await writer.abort("enough");
    assert.deepEqual(told, ["enough"]);
  });

  it("a stream that is closed tells its sink and its host, and the host nothing more", async () => {
    const { told, sink, stream } = writable(false);
    await stream.close();
    await stream.abort("late");
    assert.deepEqual([sink.isClosed, told], [true, ["finish"]]);
  });

  it("a stream that is cancelled takes nothing more, tells its reader, and drops its queue", async () => {
    const calls: string[] = [];
    const queue = {
      open: () => void calls.push("open"),
      pull: ({ controller }: OpenStream, present: (item: string) => unknown) =>
        controller.enqueue(present("a")),
      shut: () => void calls.push("shut"),
      clear: () => void calls.push("clear"),
    };
    const reader = { leave: (reason: unknown) => void calls.push(`leave: ${reason}`) };
    const source = new Source(queue, reader, (item: string) => `${item}!`);
    const stream = new Readable<string>(source, { highWaterMark: 0 });
    const taken = stream.getReader();
    assert.equal((await taken.read()).value, "a!");
    await taken.cancel("enough");
    assert.deepEqual(calls, ["open", "shut", "leave: enough", "clear"]);
  });
});
