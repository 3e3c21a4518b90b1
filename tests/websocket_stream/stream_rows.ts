/** The rows about the wire: handshake, messages, backpressure, and each way of ending. */
import {
  answer,
  assert,
  type Env,
  type Info,
  latin1,
  NO_CODE,
  type Opened,
  pattern,
  Peer,
  rejection,
  rest,
  type Row,
  settled,
  type Stream,
  type StreamError,
  streamTo,
  turn,
  until,
  withStream,
} from "./kit.ts";
import { PIPE_ROWS } from "./pipe_rows.ts";

/** More bytes than the buffers of two kernels hold. */
const FLOOD = 64 * 1024 * 1024;

/** Exceptions of our class over a native WebSocket. */
const NO_RECEIVE_BACKPRESSURE = "a native WebSocket cannot be held back";
const SAYS_1006 = "a native WebSocket that has not sent all says 1006 in place of the peer's code";
const CRASHES = "Chromium's page crashes";
/** The standard defines no code for this. */
const TELLS_OF_ERRORS = "a connection that is no WebSocketStream says 1011 for an error";
/** An earlier draft of the standard required this. */
const ARRAY_BUFFERS = "Chromium gives an ArrayBuffer";

const CLOSE_INFOS: [info: Info | undefined, sent: Info][] = [
  [undefined, NO_CODE],
  [{}, NO_CODE],
  [{ reason: "" }, NO_CODE],
  [{ closeCode: undefined, reason: undefined }, NO_CODE],
  [{ closeCode: 1000 }, { closeCode: 1000, reason: "" }],
  [{ closeCode: 3000, reason: "a" }, { closeCode: 3000, reason: "a" }],
  [{ closeCode: 4999, reason: "x".repeat(123) }, { closeCode: 4999, reason: "x".repeat(123) }],
  [{ reason: "a" }, { closeCode: 1000, reason: "a" }],
  [{ reason: "\ud800" }, { closeCode: 1000, reason: "\ufffd" }],
  [{ closeCode: 1000.9 }, { closeCode: 1000, reason: "" }],
];

const CHUNKS: [name: string, chunk: () => unknown, type: string, data: string][] = [
  ["a string", () => "a\u20ac", "text", "a\u20ac"],
  ["an empty string", () => "", "text", ""],
  ["bytes", () => pattern(2), "binary", "\0\x07"],
  ["no bytes", () => new Uint8Array(0), "binary", ""],
  ["an ArrayBuffer", () => pattern(2).buffer, "binary", "\0\x07"],
  ["a DataView", () => new DataView(pattern(4).buffer, 1, 2), "binary", "\x07\x0e"],
  ["a Uint16Array", () => new Uint16Array(pattern(4).buffer, 2, 1), "binary", "\x0e\x15"],
  ["a number", () => 1.5, "text", "1.5"],
  ["a BigInt", () => 2n, "text", "2"],
  ["true", () => true, "text", "true"],
  ["null", () => null, "text", "null"],
  ["undefined", () => undefined, "text", "undefined"],
  ["an object", () => ({}), "text", "[object Object]"],
  ["an array", () => [1, 2], "text", "1,2"],
  ["a function", () => Object.assign(() => {}, { toString: () => "f" }), "text", "f"],
  ["a toPrimitive", () => ({ [Symbol.toPrimitive]: () => "own" }), "text", "own"],
  ["a lone surrogate", () => "\ud800", "text", "\ufffd"],
];

const REFUSED: [name: string, chunk: () => unknown][] = [
  ["a Symbol", () => Symbol("a")],
  ["an object without a string", () => Object.create(null)],
  ["a shared view", () => new Uint8Array(shared(1))],
  ["a resizable buffer", () => resizable()],
  ["a resizable view", () => new Uint8Array(resizable())],
];

/** In a browser only isolated pages have the constructor. */
function shared(length: number): ArrayBuffer {
  return new WebAssembly.Memory({ initial: length, maximum: length, shared: true })
    .buffer as unknown as ArrayBuffer;
}

function resizable(): ArrayBuffer {
  return new ArrayBuffer(1, { maxByteLength: 2 });
}

/** The ways to leave a stream with a reason. */
const LEAVING: Record<string, (opened: Opened, reason: unknown) => Promise<void>> = {
  "readable.cancel": ({ readable }, reason) => readable.cancel(reason),
  "reader.cancel": ({ readable }, reason) => readable.getReader().cancel(reason),
  "writable.abort": ({ writable }, reason) => writable.abort(reason),
  "writer.abort": ({ writable }, reason) => writable.getWriter().abort(reason),
};

const REASONS: [
  name: string,
  reason: (env: Env) => unknown,
  sent: Info,
  except?: Row["except"],
][] = [
  [
    "a WebSocketError",
    ({ WebSocketError }) => new WebSocketError("", { closeCode: 3333, reason: "r" }),
    { closeCode: 3333, reason: "r" },
  ],
  ["one with a reason alone", ({ WebSocketError }) => new WebSocketError("", { reason: "r" }), {
    closeCode: 1000,
    reason: "r",
  }],
  ["one without either", ({ WebSocketError }) => new WebSocketError("a"), NO_CODE],
  ["nothing", () => undefined, NO_CODE],
  ["a string", () => "a", NO_CODE],
  ["a plain object", () => ({ closeCode: 3333, reason: "r" }), NO_CODE],
  ["an AbortError", () => new DOMException("a", "AbortError"), NO_CODE],
  ["a DOMException", () => new DOMException("a", "DataCloneError"), NO_CODE, {
    connection: TELLS_OF_ERRORS,
  }],
  ["an Error", () => new Error("a"), NO_CODE, { connection: TELLS_OF_ERRORS }],
  [
    "E3 an impostor of WebSocketError",
    ({ WebSocketError }) => Object.assign(Object.create(WebSocketError.prototype), {}),
    NO_CODE,
  ],
  ["E3 a WebSocketError with properties of its own", ({ WebSocketError }) => {
    const error = new WebSocketError("", { closeCode: 3333, reason: "r" });
    for (const [name, value] of [["closeCode", 4444], ["reason", "own"]] as const) {
      Object.defineProperty(error, name, { value });
    }
    return error;
  }, { closeCode: 3333, reason: "r" }],
  ["E3 a WebSocketError whose own getters throw", ({ WebSocketError }) => {
    const error = new WebSocketError("", { closeCode: 3333, reason: "r" });
    const get = () => {
      throw new Error("thrown by a getter");
    };
    for (const name of ["closeCode", "reason", "name", "message"]) {
      Object.defineProperty(error, name, { get });
    }
    return error;
  }, { closeCode: 3333, reason: "r" }],
  ["E3 a WebSocketError without its prototype", ({ WebSocketError }) =>
    Object.setPrototypeOf(
      new WebSocketError("", { closeCode: 3333, reason: "r" }),
      null,
    ), { closeCode: 3333, reason: "r" }],
  [
    "E3 a Proxy of a WebSocketError",
    ({ WebSocketError }) => new Proxy(new WebSocketError("", { closeCode: 3333 }), {}),
    NO_CODE,
  ],
  [
    "E3 a Proxy that throws",
    () =>
      new Proxy({}, {
        get() {
          throw new Error("thrown by a trap");
        },
      }),
    NO_CODE,
  ],
];

/** The result of a promise: a word, or the name and the code of its error. */
async function outcome(promise: Promise<unknown>, describe = (_: unknown) => "fulfilled") {
  try {
    return describe(await promise);
  } catch (error) {
    const { name, closeCode } = error as StreamError;
    return closeCode === undefined ? name : `${name} ${closeCode}`;
  }
}

const read = (value: unknown) => (value as { done: boolean }).done ? "done" : "a message";
const code = (value: unknown) => `${(value as Info).closeCode}`;

/**
 * Each way of ending, with a pending read, and a write that waits for the peer to read: the results of
 * these, of later ones, and of `closed`.
 */
const ENDINGS: {
  name: string;
  except?: Row["except"];
  /** Whether a write waits when the connection ends. */
  writing: boolean;
  end: (opened: Opened, env: Env, writer: WritableStreamDefaultWriter) => unknown;
  read: string;
  write?: string;
  /** The result of a later write. */
  later: string;
  closed: string;
}[] = [
  {
    name: "close() answered by the peer",
    writing: false,
    end: async (opened) => {
      opened.stream.close({ closeCode: 4000 });
      await answer(opened);
    },
    read: "done",
    later: "InvalidStateError",
    closed: "4000",
  },
  {
    name: "a Close of the peer",
    writing: false,
    end: ({ peer }) => peer.do(["close", 4001, "r"]),
    read: "done",
    later: "InvalidStateError",
    closed: "4001",
  },
  {
    name: "writer.close() answered by the peer",
    writing: false,
    end: async (opened, _, writer) => {
      const closing = writer.close();
      await answer(opened);
      await closing;
    },
    read: "done",
    later: "TypeError",
    closed: "1005",
  },
  {
    name: "the end of the transport",
    writing: false,
    end: ({ peer }) => peer.do(["end"]),
    read: "WebSocketError 1006",
    later: "WebSocketError 1006",
    closed: "WebSocketError 1006",
  },
  {
    name: "the loss of the transport",
    except: { native: CRASHES },
    writing: true,
    end: ({ peer }) => peer.do(["destroy"]),
    read: "WebSocketError 1006",
    write: "WebSocketError 1006",
    later: "WebSocketError 1006",
    closed: "WebSocketError 1006",
  },
  {
    name: "a Close of the peer while a write waits",
    except: { overWebSocket: SAYS_1006 },
    writing: true,
    end: ({ peer }) => peer.do(["close", 4002, "r"]),
    read: "done",
    write: "InvalidStateError",
    later: "InvalidStateError",
    closed: "WebSocketError 4002",
  },
];

async function checkEnding(env: Env, row: typeof ENDINGS[number]): Promise<void> {
  await withStream(env, async (opened) => {
    const { stream, readable, writable, peer } = opened;
    const reader = readable.getReader();
    const writer = writable.getWriter();
    const reading = reader.read();
    reading.catch(() => {});
    let write: Promise<unknown> | undefined;
    if (row.writing) {
      await peer.do(["pause"]);
      write = writer.write(new Uint8Array(FLOOD));
      await rest(peer);
    }
    writer.closed.catch(() => {});
    reader.closed.catch(() => {});
    const ended = row.end(opened, env, writer);
    // E1: `closed` settles first. If the write had been rejected before, the rejection would be unhandled
    // now.
    assert.equal(await outcome(stream.closed, code), row.closed, "closed");
    if (write !== undefined) assert.equal(await outcome(write), row.write, "the pending write");
    if (row.writing) await peer.do(["resume"]);
    await ended;
    assert.equal(await outcome(reading, read), row.read, "the pending read");
    assert.equal(await outcome(reader.read(), read), row.read, "a later read");
    assert.equal(await outcome(writer.write("a")), row.later, "a later write");
  });
}

export const STREAM_ROWS: Row[] = [
  {
    title: "failed handshake: E4 opened and closed reject with an error each, closed with 1006",
    async run(env) {
      const url = "ws://127.0.0.1:1/";
      const given = () => {
        const stream = streamTo(env, new Peer(env, "hang"));
        stream.close();
        return stream;
      };
      for (
        const make of [
          () => streamTo(env, new Peer(env, "403")),
          () => streamTo(env, { url }),
          given,
        ]
      ) {
        const stream = make();
        const [opened, closed] = await Promise.all([
          rejection(stream.opened),
          rejection(stream.closed),
        ]);
        for (const error of [opened, closed]) {
          assert.ok(error instanceof env.WebSocketError);
          assert.equal(error.reason, "");
        }
        assert.ok(opened !== closed, "two errors");
        assert.deepEqual([opened.closeCode, closed.closeCode], [null, 1006]);
      }
    },
  },
  {
    title: "failed handshake: no server",
    async run(env) {
      const stream = new env.WebSocketStream("ws://127.0.0.1:1/");
      assert.ok(await rejection(stream.opened) instanceof env.WebSocketError);
      assert.ok(await rejection(stream.closed) instanceof env.WebSocketError);
    },
  },
  {
    title: "failed handshake: none of the protocols is chosen, or another one",
    async run(env) {
      const stream = streamTo(env, new Peer(env), { protocols: ["a"] });
      assert.ok(await rejection(stream.opened) instanceof env.WebSocketError);
    },
  },
  {
    title: "close() during the handshake fails it; code and reason are not used",
    async run(env) {
      for (const info of [undefined, { closeCode: 4000, reason: "unused" }]) {
        const peer = new Peer(env, "hang");
        const stream = streamTo(env, peer);
        await peer.until(({ dialled }) => dialled);
        stream.close(info);
        for (const promise of [stream.opened, stream.closed]) {
          const error = await rejection(promise);
          assert.ok(error instanceof env.WebSocketError);
          assert.ok(error.closeCode !== 4000 && error.reason === "", "neither code nor reason");
        }
        await peer.until(({ ended }) => ended);
      }
    },
  },
  {
    title: "signal: aborted before, both promises reject with its reason and nobody connects",
    except: { native: "Chromium rejects with an AbortError of its own" },
    async run(env) {
      const peer = new Peer(env);
      const reason = { not: "even an error" };
      const stream = streamTo(env, peer, { signal: AbortSignal.abort(reason) });
      assert.equal(await rejection(stream.opened), reason);
      assert.equal(await rejection(stream.closed), reason);
      await rest(peer);
      assert.equal((await peer.state()).dialled, false);
    },
  },
  {
    title: "signal: aborted during the handshake, the same, and the connection is failed",
    except: { native: "Chromium rejects with an AbortError of its own" },
    async run(env) {
      const peer = new Peer(env, "hang");
      const controller = new AbortController();
      const stream = streamTo(env, peer, { signal: controller.signal });
      await peer.until(({ dialled }) => dialled);
      const reason = new Error("enough");
      controller.abort(reason);
      assert.equal(await rejection(stream.opened), reason);
      assert.equal(await rejection(stream.closed), reason);
      await peer.until(({ ended }) => ended);
    },
  },
  ...[false, true].map((aborted): Row => ({
    title: `signal: E5 ${aborted ? "abort() then close()" : "close() then abort()"} in one turn`,
    except: { native: "Chromium rejects with an AbortError of its own" },
    async run(env) {
      const peer = new Peer(env, "hang");
      const controller = new AbortController();
      const stream = streamTo(env, peer, { signal: controller.signal });
      await peer.until(({ dialled }) => dialled);
      const reason = new Error("enough");
      if (!aborted) stream.close();
      controller.abort(reason);
      if (aborted) stream.close();
      assert.equal(await rejection(stream.opened), reason);
      assert.equal(await rejection(stream.closed), reason);
      await peer.until(({ ended }) => ended);
    },
  })),
  {
    title: "signal: aborted after opening, no effect",
    async run(env) {
      const peer = new Peer(env);
      const controller = new AbortController();
      const stream = streamTo(env, peer, { signal: controller.signal });
      const { writable } = await stream.opened;
      controller.abort();
      await rest(peer);
      await writable.getWriter().write("a");
      assert.equal((await peer.next()).data, "a");
      assert.equal(await settled(stream.closed, peer), "pending");
      await peer.do(["destroy"]);
    },
  },
  {
    title: "chunks out of readable: text is a string",
    run: (env) =>
      withStream(env, async ({ readable, peer }) => {
        const reader = readable.getReader();
        await peer.do(["text", "a\u20ac"], ["text", ""]);
        assert.equal((await reader.read()).value, "a\u20ac");
        assert.equal((await reader.read()).value, "");
      }),
  },
  {
    title: "chunks out of readable: binary is a Uint8Array with a buffer of its own",
    except: { native: ARRAY_BUFFERS },
    run: (env) =>
      withStream(env, async ({ readable, peer }) => {
        const reader = readable.getReader();
        await peer.do(["bytes", 3], ["bytes", 0], ["bytes", 70_000]);
        for (const length of [3, 0, 70_000]) {
          const value = (await reader.read()).value as Uint8Array;
          assert.equal(value.constructor, Uint8Array);
          assert.equal(latin1(value), latin1(pattern(length)));
          // The receiver of 3 bytes can look at the buffer, and must not find more bytes there.
          assert.deepEqual([value.byteOffset, value.buffer.byteLength], [0, length]);
        }
      }),
  },
  {
    title: "chunks out of readable: messages of any size",
    run: (env) =>
      withStream(env, async ({ readable, peer }) => {
        await peer.do(["bytes", 3_000_000]);
        const { value } = await readable.getReader().read();
        assert.equal((value as Uint8Array).byteLength, 3_000_000);
      }),
  },
  {
    title: "chunks out of readable: not a byte stream",
    run: (env) =>
      withStream(env, ({ readable }) => {
        let error: unknown;
        try {
          readable.getReader({ mode: "byob" });
        } catch (caught) {
          error = caught;
        }
        assert.ok(error instanceof TypeError);
      }),
  },
  ...CHUNKS.map(([name, chunk, type, data]): Row => ({
    title: `chunks into writable: ${name} is ${type}`,
    run: (env) =>
      withStream(env, async ({ writable, peer }) => {
        await writable.getWriter().write(chunk());
        assert.deepEqual(await peer.next(), { type, data });
      }),
  })),
  ...REFUSED.map(([name, chunk]): Row => ({
    title: `chunks into writable: ${name} rejects the write with a TypeError`,
    run: (env) =>
      withStream(env, async ({ stream, writable, peer }) => {
        const writer = writable.getWriter();
        writer.closed.catch(() => {});
        const error = await rejection(writer.write(chunk()));
        assert.ok(error instanceof TypeError, "a TypeError");
        // The sink has failed, so the stream cannot be used any more, but the connection can.
        assert.equal(await rejection(writer.write("a")), error);
        assert.equal(await settled(stream.closed, peer), "pending");
      }),
  })),
  {
    title: "chunks into writable: an object whose conversion throws rejects with what it threw",
    run: (env) =>
      withStream(env, async ({ writable }) => {
        const thrown = new RangeError("thrown");
        const chunk = {
          toString() {
            throw thrown;
          },
        };
        assert.equal(await rejection(writable.getWriter().write(chunk)), thrown);
      }),
  },
  {
    title: "chunks into writable: bytes are copied at the write",
    run: (env) =>
      withStream(env, async ({ writable, peer }) => {
        const writer = writable.getWriter();
        for (const length of [4, 100_000]) {
          await writer.ready;
          const bytes = pattern(length);
          const written = writer.write(bytes);
          bytes.fill(0);
          await written;
          assert.equal((await peer.next()).data, latin1(pattern(length)));
        }
      }),
  },
  {
    title: "send backpressure: writes stop resolving while the peer does not read",
    run: (env) =>
      withStream(env, async ({ writable, peer }) => {
        await peer.do(["pause"]);
        const writer = writable.getWriter();
        const bytes = new Uint8Array(1024 * 1024);
        let written = 0;
        const writing = (async () => {
          for (; written < 64; written++) await writer.write(bytes);
        })();
        let before = -1;
        while (before !== written) {
          before = written;
          await rest(peer);
        }
        assert.ok(written < 64, "fewer writes than all");
        assert.equal(await settled(writer.ready, peer), "pending");
        await peer.do(["resume"]);
        await writing;
      }),
  },
  {
    title: "receive backpressure: with nobody reading, the socket is not read further",
    except: { overWebSocket: NO_RECEIVE_BACKPRESSURE },
    run: (env) =>
      withStream(env, async ({ readable, peer }) => {
        await peer.do(["bytes", 65_536, FLOOD / 65_536]);
        const left = async () => (await peer.state()).bufferedAmount;
        let before = -1;
        let now = await left();
        while (before !== now) {
          before = now;
          await rest(peer);
          now = await left();
        }
        assert.ok(now > FLOOD / 2, "most of it to wait at the sender");
        const reader = readable.getReader();
        for (let i = 0; i < FLOOD / 65_536; i++) {
          const { value } = await reader.read();
          assert.equal((value as Uint8Array).byteLength, 65_536);
        }
      }),
  },
  ...CLOSE_INFOS.map(([info, sent]): Row => ({
    title: `close(${JSON.stringify(info) ?? ""}) sends ${sent.closeCode} ${sent.reason}`,
    run: (env) =>
      withStream(env, async (opened) => {
        const { stream } = opened;
        assert.equal(stream.close(info), undefined);
        stream.close({ closeCode: 3999 });
        assert.deepEqual(await answer(opened), sent);
        assert.deepEqual(await stream.closed, sent);
      }),
  })),
  {
    title: "close(): closed has the code and reason of the peer",
    run: (env) =>
      withStream(env, async ({ stream, peer }) => {
        stream.close({ closeCode: 4000, reason: "ours" });
        await peer.nextClose();
        await peer.do(["close", 4001, "theirs"]);
        const { closeCode, reason } = await stream.closed;
        assert.deepEqual([closeCode, reason], [4001, "theirs"]);
      }),
  },
  {
    title: "close(): what was written before is sent before",
    run: (env) =>
      withStream(env, async (opened) => {
        const { stream, writable, peer } = opened;
        const writer = writable.getWriter();
        writer.closed.catch(() => {});
        await writer.write("a");
        stream.close();
        assert.equal((await peer.next()).data, "a");
        assert.deepEqual(await answer(opened), NO_CODE);
        await stream.closed;
      }),
  },
  {
    title: "close(): messages that come before the Close of the peer are still read",
    except: {
      native: "Chromium drops what comes after its own Close",
      overWebSocket: "a native WebSocket drops what comes after its own Close",
    },
    run: (env) =>
      withStream(env, async ({ stream, readable, peer }) => {
        const reader = readable.getReader();
        stream.close();
        await peer.nextClose();
        await peer.do(["text", "late"], ["close"]);
        assert.equal((await reader.read()).value, "late");
        assert.equal((await reader.read()).done, true);
        await stream.closed;
      }),
  },
  ...Object.entries(LEAVING).flatMap(([how, leave]) =>
    REASONS.map(([name, reason, sent, except]): Row => ({
      title: `${how}(): ${name} sends ${sent.closeCode} ${sent.reason}`,
      except,
      run: (env) =>
        withStream(env, async (opened) => {
          const left = leave(opened, reason(env));
          assert.deepEqual(await answer(opened), sent);
          await left;
          assert.deepEqual(await opened.stream.closed, sent);
        }),
    }))
  ),
  ...Object.entries(LEAVING).flatMap(([how, leave]) =>
    [1001, 1002, 1006, 1011].map((closeCode): Row => ({
      title: `${how}(): E2 the error of another connection with ${closeCode} is an empty Close`,
      except: {
        native: "Chromium rejects the cancel with an InvalidAccessError",
        ...(closeCode === 1006 ? {} : { overWebSocket: SAYS_1006 }),
      },
      run: (env) =>
        withStream(env, async ({ stream: lost, writable, peer }) => {
          const error = await lostWith(closeCode, lost, writable, peer);
          assert.equal(error.closeCode, closeCode);
          await withStream(env, async (opened) => {
            const left = leave(opened, error);
            assert.deepEqual(await answer(opened), NO_CODE);
            await left;
            await opened.stream.closed;
          });
        }),
    }))
  ),
  {
    title: "readable.cancel(): a read that waits ends, and writing ends with an InvalidStateError",
    run: (env) =>
      withStream(env, async (opened) => {
        const reader = opened.readable.getReader();
        const writer = opened.writable.getWriter();
        const reading = reader.read();
        const cancelled = reader.cancel();
        assert.equal((await reading).done, true);
        await answer(opened);
        await cancelled;
        await opened.stream.closed;
        assert.equal((await rejection(writer.closed)).name, "InvalidStateError");
      }),
  },
  {
    title: "writable.abort(): a read that waits ends when the peer has closed",
    except: { connection: TELLS_OF_ERRORS },
    run: (env) =>
      withStream(env, async (opened) => {
        const { writable, readable, stream } = opened;
        const reading = readable.getReader().read();
        const aborted = writable.abort(new Error("enough"));
        await answer(opened);
        await aborted;
        assert.equal((await reading).done, true);
        assert.deepEqual(await stream.closed, NO_CODE);
      }),
  },
  {
    title: "writable.abort(): a write that waits for the peer does not keep it",
    except: { native: CRASHES },
    run: (env) =>
      withStream(env, async ({ writable, stream, peer }) => {
        await peer.do(["pause"]);
        const writer = writable.getWriter();
        const reason = new Error("enough");
        const written = writer.write(new Uint8Array(FLOOD));
        assert.equal(await settled(written, peer), "pending");
        const aborted = writer.abort(reason);
        writer.closed.catch(() => {});
        await peer.do(["destroy"]);
        await Promise.allSettled([aborted, written]);
        assert.equal((await rejection(stream.closed)).closeCode, 1006);
      }),
  },
  {
    title: "writable.close(): an empty Close; its promise waits for the whole closing handshake",
    run: (env) =>
      withStream(env, async ({ stream, writable, peer }) => {
        await peer.do(["polite", false]);
        const closing = writable.close();
        assert.deepEqual(await peer.nextClose(), NO_CODE);
        assert.equal(await settled(closing, peer), "pending");
        await peer.do(["close"]);
        await peer.do(["end"]);
        await closing;
        assert.deepEqual(await stream.closed, NO_CODE);
      }),
  },
  {
    title: "writable.close(): it rejects when the connection ends otherwise",
    run: (env) =>
      withStream(env, async ({ stream, writable, peer }) => {
        await peer.do(["polite", false]);
        const closing = writable.close();
        closing.catch(() => {});
        await peer.nextClose();
        await peer.do(["end"]);
        assert.equal((await rejection(stream.closed)).closeCode, 1006);
        assert.ok(await rejection(closing) instanceof env.WebSocketError);
      }),
  },
  ...[undefined, 1000, 1001, 1008, 1011, 3000, 4999].map((closeCode): Row => ({
    title: `clean close: the peer's ${closeCode ?? "empty Close"} is told in the standard's order`,
    run: (env) =>
      withStream(env, async ({ stream, readable, writable, peer }) => {
        const order: string[] = [];
        const note = (name: string) => () => void order.push(name);
        const reader = readable.getReader();
        const writer = writable.getWriter();
        reader.closed.then(note("readable closes"), note("readable errors"));
        writer.closed.then(note("writable closes"), note("writable errors"));
        stream.closed.then(note("closed resolves"), note("closed rejects"));
        const reason = closeCode === undefined ? "" : "r";
        await peer.do(["close", closeCode, reason]);
        const expected = { closeCode: closeCode ?? 1005, reason };
        assert.deepEqual(await peer.nextClose(), { ...expected, reason: answered(closeCode) });
        assert.deepEqual(await stream.closed, expected);
        await until(() => order.length === 3);
        assert.deepEqual(order, ["readable closes", "writable errors", "closed resolves"]);
        assert.equal((await reader.read()).done, true);
        assert.equal((await rejection(writer.closed)).name, "InvalidStateError");
      }),
  })),
  {
    title: "clean close: it settles although messages are unread, which can still be read",
    except: { native: "Chromium drops what is unread but the first message" },
    run: (env) =>
      withStream(env, async ({ stream, readable, peer }) => {
        for (let i = 0; i < 10; i++) await peer.do(["text", `${i}`]);
        await peer.do(["close", 1000]);
        assert.equal((await stream.closed).closeCode, 1000);
        const reader = readable.getReader();
        for (let i = 0; i < 10; i++) assert.equal((await reader.read()).value, `${i}`);
        assert.equal((await reader.read()).done, true);
      }),
  },
  {
    title: "unclean close: readable, writable and closed get the same WebSocketError with 1006",
    run: (env) =>
      withStream(env, async ({ stream, readable, writable, peer }) => {
        await peer.do(["end"]);
        const error = await rejection(stream.closed);
        assert.ok(error instanceof env.WebSocketError);
        assert.deepEqual([error.closeCode, error.reason], [1006, ""]);
        assert.equal(await rejection(readable.getReader().read()), error);
        const writer = writable.getWriter();
        assert.equal(await rejection(writer.write("a")), error);
        assert.equal(await rejection(writer.closed), error);
      }),
  },
  {
    title: "remote close while writes are pending: closed and writes reject, reading ends",
    except: { overWebSocket: SAYS_1006 },
    run: (env) =>
      withStream(env, async ({ stream, readable, writable, peer }) => {
        await peer.do(["pause"]);
        const writer = writable.getWriter();
        writer.closed.catch(() => {});
        const written = writer.write(new Uint8Array(FLOOD));
        assert.equal(await settled(written, peer), "pending");
        await peer.do(["close", 4000, "r"]);
        const error = await rejection(stream.closed);
        assert.ok(error instanceof env.WebSocketError);
        assert.deepEqual([error.closeCode, error.reason], [4000, "r"]);
        const refused = await rejection(written);
        assert.equal(refused.name, "InvalidStateError");
        assert.equal(await rejection(writer.write("a")), refused);
        await peer.do(["resume"]);
        assert.equal((await readable.getReader().read()).done, true);
      }),
  },
  {
    title: "the transport ends without a Close frame after ours was sent: unclean, 1006",
    run: (env) =>
      withStream(env, async ({ stream, peer }) => {
        await peer.do(["polite", false]);
        stream.close({ closeCode: 1000 });
        await peer.nextClose();
        await peer.do(["end"]);
        assert.equal((await rejection(stream.closed)).closeCode, 1006);
      }),
  },
  ...ENDINGS.map((row): Row => ({
    title: `pending reads and writes: E1 closed first, at ${row.name}`,
    except: row.except,
    run: (env) => checkEnding(env, row),
  })),
  ...PIPE_ROWS,
  {
    title: "never: a stream that nobody holds any more, with a write that waits",
    except: { native: CRASHES },
    async run(env) {
      const peer = new Peer(env);
      await (async () => {
        const { writable } = await streamTo(env, peer).opened;
        await peer.do(["pause"]);
        writable.getWriter().write(new Uint8Array(FLOOD)).catch(() => {});
      })();
      const { gc } = globalThis as { gc?: () => void };
      for (let i = 0; i < 5; i++) {
        gc?.();
        await turn(5);
      }
      await peer.do(["destroy"]);
      await rest(peer);
      gc?.();
    },
  },
];

/** Ends a connection uncleanly, with this code. */
async function lostWith(
  closeCode: number,
  stream: Stream,
  writable: WritableStream<unknown>,
  peer: Peer,
): Promise<StreamError> {
  if (closeCode === 1006) {
    await peer.do(["destroy"]);
  } else {
    // A Close frame is not clean while a write waits.
    await peer.do(["pause"]);
    const writer = writable.getWriter();
    const writing = writer.write(new Uint8Array(FLOOD));
    writing.catch(() => {});
    assert.equal(await settled(writing, peer), "pending");
    await peer.do(["close", closeCode]);
  }
  return await rejection(stream.closed);
}

/** RFC 6455 §5.5.1: a Close frame is answered with its code. The reason need not be repeated. */
function answered(closeCode: number | undefined): string {
  return closeCode === undefined ? "" : "r";
}
