/**
 * Random calls of a page while its browser does random things: messages come, sends wait, the connection
 * closes or breaks, or the browser reports nothing any more.
 */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import * as browser from "../lib/browser.ts";
import { Random } from "../scripts/fuzz/random.ts";
import { FakeSocket, FakeStream, withGlobals } from "./native_sockets.ts";
import { rest, until } from "./support.ts";

const RUNS = Number(process.env.FUZZ_INPUTS ?? 100);
const SEED = Number(process.env.FUZZ_SEED ?? Date.now() % 1e9);

type Ours = browser.WebSocketConnection;

/** What a browser does on its side of a connection. */
interface Native {
  /** Receives a message. Returns false if the connection cannot receive any more. */
  receive(message: string): boolean;
  /** Sends a part of what waits. */
  drain(random: Random): void;
  /** Ends the connection with both Close frames, or without. */
  end(isClean: boolean): void;
}

const CLEAN = { closeCode: 1000, reason: "" };

/** A WebSocket that counts and drops what it is given while it closes, as the standard says. */
class LiveSocket extends FakeSocket implements Native {
  override bufferedAmount = 0;

  override send(data: string | Uint8Array): void {
    this.bufferedAmount += data.length;
  }

  override close(...args: unknown[]): void {
    super.close(...args);
    if (this.readyState === 1) this.readyState = 2;
  }

  receive(message: string): boolean {
    if (this.readyState === 3) return false;
    this.emit("message", { data: message });
    return true;
  }

  drain(random: Random): void {
    if (this.readyState === 1) this.bufferedAmount = random.below(this.bufferedAmount + 1);
  }

  end(wasClean: boolean): void {
    if (this.readyState === 3) return;
    if (!wasClean) this.emit("error");
    this.emit("close", { code: wasClean ? 1000 : 1006, reason: "", wasClean });
  }
}

/** A WebSocketStream whose writes wait, and which ends its streams as the standard says. */
class LiveStream extends FakeStream implements Native {
  receive(message: string): boolean {
    if (this.isOver) return false;
    try {
      this.input.enqueue(message);
      return true;
    } catch {
      return false;
    }
  }

  drain(random: Random): void {
    if (!random.once(3)) this.writes.splice(0).forEach(({ resolve }) => resolve());
  }

  end(isClean: boolean): void {
    if (this.isOver) return;
    const error = isClean
      ? new DOMException("Closed", "InvalidStateError")
      : new browser.WebSocketError("Lost");
    // A page may have cancelled or closed these streams.
    quietly(() => isClean ? this.input.close() : this.input.error(error));
    this.writes.splice(0).forEach(({ reject }) => reject(error));
    quietly(() => this.output.error(error));
    this.settle(isClean ? CLEAN : undefined, error);
  }
}

function quietly(call: () => void): void {
  try {
    call();
  } catch {
    // The stream has ended already.
  }
}

/** One page: what it called, what settled, and which messages came. */
class Page {
  readonly ws: Ours;
  readonly native: Native;
  readonly random: Random;
  readonly calls: string[] = [];
  readonly delivered: string[] = [];
  readonly received: unknown[] = [];
  /** The calls that have not settled, and what rejected as it must not. */
  readonly #pending = new Set<{ call: string }>();
  readonly #wrong: string[] = [];
  /** The errors that the page gave itself as reasons. */
  readonly #reasons = new Set<unknown>();
  #reader: ReadableStreamDefaultReader<unknown> | undefined;
  #writer: WritableStreamDefaultWriter<string> | undefined;

  constructor(ws: Ours, native: Native, random: Random) {
    this.ws = ws;
    this.native = native;
    this.random = random;
    this.#track("closed", ws.closed);
    this.#track("signal", new Promise((resolve) => ws.signal.onabort = resolve));
  }

  #track(call: string, promise: Promise<unknown>): void {
    const pending = { call };
    this.#pending.add(pending);
    const settled = () => void this.#pending.delete(pending);
    promise.then(settled, (error) => {
      settled();
      const isExpected = this.ws.isOwnError(error) || this.#reasons.has(error) ||
        // Another reader, or a stream that the page has closed.
        /^(reading-mode|busy)$/.test(String(browser.errorCodeOf(error))) ||
        call.startsWith("writer") && error instanceof TypeError;
      if (!isExpected) this.#wrong.push(`${call} rejected with ${error}`);
    });
  }

  #reason(): Error {
    const reason = new Error("mine");
    this.#reasons.add(reason);
    return reason;
  }

  /** Does one random thing. */
  step(): void {
    const { random } = this;
    const name = random.pick(Object.keys(this.#actions));
    // The rare actions end the connection or the reading.
    if (/^(close|cancel|terminate|discard|end|break|writerClose|writerAbort)$/.test(name)) {
      if (!random.once(6)) return;
    }
    this.calls.push(name);
    try {
      this.#actions[name]();
    } catch (error) {
      // Node fails with an assertion of its own if a page writes while a writer closes.
      const { code } = error as { code?: string };
      if (code !== "ERR_INTERNAL_ASSERTION") this.#track(name, Promise.reject(error));
    }
  }

  readonly #actions: Record<string, () => void> = {
    message: () => {
      const message = `${this.delivered.length} ${"*".repeat(this.random.below(80))}`;
      if (this.native.receive(message)) this.delivered.push(message);
    },
    drain: () => this.native.drain(this.random),
    end: () => this.native.end(true),
    break: () => this.native.end(false),
    send: () => {
      const length = this.random.pick([0, 10, 70_000]);
      this.#track(
        "send",
        this.ws.send(this.random.once(2) ? "*".repeat(length) : new Uint8Array(length)),
      );
    },
    receive: () => {
      const aborter = new AbortController();
      const options = this.random.once(3) ? { signal: aborter.signal } : {};
      const receiving = this.ws.receive(options);
      this.#track("receive", receiving);
      receiving.then((message) => this.received.push(message), () => {});
      queueMicrotask(() => aborter.abort(this.#reason()));
    },
    read: () => {
      this.#reader ??= this.ws.readable.getReader();
      const reading = this.#reader.read();
      this.#track("read", reading);
      reading.then(({ done, value }) => done || this.received.push(value), () => {});
    },
    loop: () => {
      const iterate = async () => {
        for await (const message of this.ws) this.received.push(message);
      };
      this.#track("loop", iterate());
    },
    batches: () => {
      const iterate = async () => {
        for await (const messages of this.ws.batches()) this.received.push(...messages);
      };
      this.#track("batches", iterate());
    },
    sendAll: () => {
      const length = this.random.pick([0, 10, 40_000]);
      this.#track("sendAll", this.ws.sendAll(["*".repeat(length), new Uint8Array(length)]));
    },
    cancel: () => this.#track("cancel", this.#reader?.cancel(this.#reason()) ?? Promise.resolve()),
    discard: () => this.ws.discard(),
    write: () => {
      this.#writer ??= this.ws.writable.getWriter();
      this.#writer.closed.catch(() => {});
      this.#writer.ready.catch(() => {});
      this.#track("writer.write", this.#writer.write("*"));
    },
    writerClose: () => this.#track("writer.close", this.#writer?.close() ?? Promise.resolve()),
    writerAbort: () =>
      this.#track("writer.abort", this.#writer?.abort(this.#reason()) ?? Promise.resolve()),
    close: () => this.#track("close", this.ws.close({ closeCode: 4001 })),
    terminate: () => this.ws.terminate(),
  };

  /** Ends the connection, and checks what must hold then. */
  async check(): Promise<void> {
    const { ws, native, random } = this;
    const last = random.pick(["end", "break", "terminate", "close"]);
    this.calls.push(`finally ${last}`);
    if (last === "terminate") ws.terminate();
    else if (last === "close") this.#track("close", ws.close());
    else native.end(last === "end");
    await until(() => ws.state === "closed");
    await rest();
    const calls = `${this.calls}`;
    assert.deepEqual([...this.#pending].map(({ call }) => call), [], calls);
    assert.deepEqual(this.#wrong, [], calls);
    assert.ok(ws.isOwnError(await ws.send("late").catch((error) => error)));
    assert.equal(ws.bufferedAmount, 0, calls);
    assert.deepEqual(this.received, this.delivered.slice(0, this.received.length), calls);
  }
}

async function run(seed: number): Promise<void> {
  const random = new Random(seed);
  const options: browser.ConnectOptions = {
    closeTimeout: 10,
    maxMessageSize: random.pick([60, 1e6]),
    maxBufferedAmount: random.pick([100_000, 1e6]),
    maxQueuedBytes: random.pick([1000, 4e6]),
    slow: random.pick(["wait", "wait", "close", "terminate"]),
  };
  const isStream = random.once(2);
  const socket = new LiveSocket();
  const globals = { WebSocketStream: isStream ? LiveStream : undefined };
  await withGlobals(globals, async () => {
    const opening = isStream
      ? browser.connect("ws://localhost/", options)
      : browser.fromWebSocket(socket, options);
    if (isStream) FakeStream.last.open();
    const page = new Page(await opening, isStream ? FakeStream.last as LiveStream : socket, random);
    page.calls.push(`FUZZ_SEED=${seed}`);
    for (let steps = 5 + random.below(30); steps > 0; steps--) {
      page.step();
      if (random.once(4)) await undefined;
      if (random.once(4)) await new Promise((resolve) => setTimeout(resolve, 0));
    }
    await page.check();
  });
}

describe("Random calls in a browser", () => {
  it("settle, and lose no message", async () => {
    for (let i = 0; i < RUNS; i++) await run(SEED + i);
  });
});
