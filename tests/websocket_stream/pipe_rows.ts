/** The rows about pipes between the streams of a connection and other streams. */
import {
  answer,
  assert,
  latin1,
  NO_CODE,
  rejection,
  rest,
  type Row,
  settled,
  withStream,
} from "./kit.ts";

export const PIPE_ROWS: Row[] = [
  {
    title: "pipes: readable to writable is an echo, and resolves when the peer closes",
    except: { native: "Chromium errors writable in the turn in which readable closes" },
    run: (env) =>
      withStream(env, async ({ stream, readable, writable, peer }) => {
        const piped = readable.pipeTo(writable);
        await peer.do(["text", "a"], ["bytes", 2]);
        assert.deepEqual(await peer.next(), { type: "text", data: "a" });
        assert.deepEqual(await peer.next(), { type: "binary", data: "\0\x07" });
        await peer.do(["close", 1000]);
        await piped;
        assert.equal((await stream.closed).closeCode, 1000);
      }),
  },
  {
    title: "pipes: pipeTo() with preventClose leaves the connection open",
    run: (env) =>
      withStream(env, async ({ writable, peer }) => {
        await source(["a", "b"]).pipeTo(writable, { preventClose: true });
        await writable.getWriter().write("c");
        for (const data of ["a", "b", "c"]) assert.equal((await peer.next()).data, data);
      }),
  },
  {
    title: "pipes: pipeTo() without it closes the connection behind the last message",
    run: (env) =>
      withStream(env, async (opened) => {
        const piped = source(["a"]).pipeTo(opened.writable);
        assert.equal((await opened.peer.next()).data, "a");
        assert.deepEqual(await answer(opened), NO_CODE);
        await piped;
        assert.deepEqual(await opened.stream.closed, NO_CODE);
      }),
  },
  {
    title: "pipes: pipeTo() of a source that fails aborts, with the code of its WebSocketError",
    run: (env) =>
      withStream(env, async (opened) => {
        const error = new env.WebSocketError("", { closeCode: 4000, reason: "r" });
        const piped = source(["a"], error).pipeTo(opened.writable);
        piped.catch(() => {});
        assert.equal((await opened.peer.next()).data, "a");
        assert.deepEqual(await answer(opened), { closeCode: 4000, reason: "r" });
        assert.equal(await rejection(piped), error);
      }),
  },
  {
    title: "pipes: pipeTo() with preventAbort leaves the connection open",
    run: (env) =>
      withStream(env, async ({ writable, peer }) => {
        const error = new Error("source");
        const piped = source(["a"], error).pipeTo(writable, { preventAbort: true });
        assert.equal(await rejection(piped), error);
        await writable.getWriter().write("b");
        for (const data of ["a", "b"]) assert.equal((await peer.next()).data, data);
      }),
  },
  {
    title: "pipes: pipeTo() into a sink that fails cancels, with preventCancel it does not",
    run: (env) =>
      withStream(env, async (opened) => {
        const { readable, peer } = opened;
        const error = new env.WebSocketError("", { closeCode: 4000 });
        const sink = () => new WritableStream({ write: () => Promise.reject(error) });
        await peer.do(["text", "a"]);
        assert.equal(
          await rejection(readable.pipeTo(sink(), { preventCancel: true })),
          error,
        );
        await peer.do(["text", "b"], ["text", "c"]);
        const reader = readable.getReader();
        assert.equal((await reader.read()).value, "b");
        reader.releaseLock();
        const piped = readable.pipeTo(sink());
        piped.catch(() => {});
        assert.deepEqual(await answer(opened), { closeCode: 4000, reason: "" });
        assert.equal(await rejection(piped), error);
      }),
  },
  {
    title: "pipes: pipeTo() with a signal: all prevented, it leaves the connection open",
    run: (env) =>
      withStream(env, async ({ readable, writable, peer }) => {
        const controller = new AbortController();
        const { signal } = controller;
        const prevent = { preventClose: true, preventAbort: true, preventCancel: true };
        const piped = readable.pipeTo(writable, { ...prevent, signal });
        await peer.do(["text", "a"]);
        assert.equal((await peer.next()).data, "a");
        const reason = new Error("enough");
        controller.abort(reason);
        assert.equal(await rejection(piped), reason);
        await peer.do(["text", "b"]);
        assert.equal((await readable.getReader().read()).value, "b");
        await writable.getWriter().write("c");
        assert.equal((await peer.next()).data, "c");
      }),
  },
  {
    title: "pipes: pipeTo() with a signal closes with the code of its reason",
    run: (env) =>
      withStream(env, async (opened) => {
        const controller = new AbortController();
        const reason = new env.WebSocketError("", { closeCode: 4001, reason: "r" });
        const piped = opened.readable.pipeTo(opened.writable, { signal: controller.signal });
        piped.catch(() => {});
        await rest(opened.peer);
        controller.abort(reason);
        assert.deepEqual(await answer(opened), { closeCode: 4001, reason: "r" });
        assert.equal(await rejection(piped), reason);
        await opened.stream.closed;
      }),
  },
  {
    title: "pipes: pipeThrough() in both directions",
    run: (env) =>
      withStream(env, async ({ readable, writable, peer }) => {
        const upper = new TransformStream<unknown, unknown>({
          transform: (chunk, controller) => controller.enqueue(String(chunk).toUpperCase()),
        });
        const piped = readable.pipeThrough(upper).pipeTo(writable);
        piped.catch(() => {});
        await peer.do(["text", "ab"], ["text", "c"]);
        assert.equal((await peer.next()).data, "AB");
        assert.equal((await peer.next()).data, "C");
        await peer.do(["close", 1000]);
        await Promise.allSettled([piped]);
      }),
  },
  {
    title: "pipes: tee() gives both branches all messages; both cancelled, the connection closes",
    run: (env) =>
      withStream(env, async (opened) => {
        const { readable, peer, stream } = opened;
        const branches = readable.tee().map((branch) => branch.getReader());
        await peer.do(["text", "a"], ["bytes", 2]);
        for (const reader of branches) {
          assert.equal((await reader.read()).value, "a");
          const { value } = await reader.read();
          assert.equal(latin1(new Uint8Array(value as ArrayBuffer)), "\0\x07");
        }
        const first = branches[0].cancel("one");
        assert.equal(await settled(stream.closed, peer), "pending");
        const second = branches[1].cancel("two");
        assert.deepEqual(await answer(opened), NO_CODE);
        await Promise.all([first, second]);
        await stream.closed;
      }),
  },
  {
    title: "pipes: leaving a loop over readable closes, with preventCancel it does not",
    run: (env) =>
      withStream(env, async (opened) => {
        const { readable, peer, stream } = opened;
        await peer.do(["text", "a"], ["text", "b"]);
        for await (const message of values(readable, { preventCancel: true })) {
          assert.equal(message, "a");
          break;
        }
        assert.equal(await settled(stream.closed, peer), "pending");
        const looping = (async () => {
          for await (const message of values(readable)) {
            assert.equal(message, "b");
            break;
          }
        })();
        assert.deepEqual(await answer(opened), NO_CODE);
        await looping;
        await stream.closed;
      }),
  },
];

function source(chunks: unknown[], error?: unknown): ReadableStream<unknown> {
  const rest = [...chunks];
  return new ReadableStream({
    pull(controller) {
      if (rest.length > 0) controller.enqueue(rest.shift());
      else if (error !== undefined) controller.error(error);
      else controller.close();
    },
  }, { highWaterMark: 0 });
}

function values<T>(
  readable: ReadableStream<T>,
  options?: { preventCancel: boolean },
): AsyncIterable<T> {
  const iterable = readable as unknown as {
    values(options?: { preventCancel: boolean }): AsyncIterable<T>;
  };
  return iterable.values(options);
}
