// The handlers under test forget to await.
// deno-lint-ignore-file require-await
/** The values that a handler returns, and what the peer sees after an error in the handler. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  type CloseInfo,
  connect,
  type Handler,
  serve,
  type WebSocketConnection,
  WebSocketError,
} from "../../mod.ts";
import { pair } from "../../lib/testing.ts";
import { withPrograms } from "../programs.ts";
import { isPending, rejection, rest, turn, until, urlOf, withServer } from "../support.ts";

/** Runs a client of a server with this handler, and returns the errors passed to `onError`. */
async function withHandler(
  handler: Handler,
  run: (client: WebSocketConnection, served: WebSocketConnection) => unknown,
): Promise<unknown[]> {
  const errors: unknown[] = [];
  let served: WebSocketConnection | undefined;
  await withServer({ onError: (error) => errors.push(error) }, async (server) => {
    const client = await connect(urlOf(server));
    await until(() => served !== undefined);
    await run(client, served!);
    client.terminate();
  }, (ws) => {
    served = ws;
    return handler(ws);
  });
  return errors;
}

/** The close code that the client receives after it has sent a message to the handler. */
async function codeOf(handler: Handler): Promise<{ closeCode: number; errors: unknown[] }> {
  let info: CloseInfo | undefined;
  const errors = await withHandler(handler, async (client) => {
    client.discard();
    client.send("a");
    info = await client.closed;
  });
  return { closeCode: info!.closeCode!, errors };
}

const upper = () =>
  new TransformStream<unknown, string>({
    transform: (chunk, controller) => controller.enqueue(String(chunk).toUpperCase()),
  });

describe("A9 what a handler returns", () => {
  const open: Record<string, Handler> = {
    "an echo that is not returned": (ws) => {
      ws.readable.pipeTo(ws.writable);
    },
    "an echo by a transform that is not returned": (ws) => {
      ws.readable.pipeThrough(upper()).pipeTo(ws.writable).catch(() => {});
    },
    "a loop of its own": (ws) => {
      (async () => {
        for await (const message of ws) await ws.send(message);
      })().catch(() => {});
    },
    "a value": (ws) => {
      ws.readable.pipeTo(ws.writable);
      return 5;
    },
    "an object whose then is no function": (ws) => {
      ws.readable.pipeTo(ws.writable);
      return { then: true };
    },
  };
  for (const [name, handler] of Object.entries(open)) {
    it(`A9 ${name} leaves the connection open`, async () => {
      const errors = await withHandler(handler, async (client, served) => {
        for (const text of ["A", "B"]) {
          await client.send(text);
          assert.equal(await client.receive(), text);
        }
        assert.equal(served.state, "open");
        assert.equal((await client.close({ closeCode: 4000 })).closeCode, 4000);
      });
      assert.deepEqual(errors, []);
    });
  }

  it("A9 a handler that does nothing leaves the connection open, and shutdown() ends it", async () => {
    const server = await serve({}, () => {});
    const client = await connect(urlOf(server));
    assert.equal(await isPending(client.closed), true);
    assert.equal(server.connections.size, 1);
    await server.shutdown();
    assert.equal((await client.closed).closeCode, 1001);
  });

  const then = (settle: (resolve: () => void, reject: (error: unknown) => void) => void) => ({
    then: settle,
  });
  const fault = new Error("fault");
  const thenable: [name: string, handler: Handler, closeCode: number][] = [
    ["a promise that resolves", () => Promise.resolve(), 1000],
    ["a promise that rejects", () => Promise.reject(fault), 1011],
    ["a thenable that resolves", () => then((resolve) => setTimeout(resolve, 1)), 1000],
    ["a thenable that rejects", () => then((_, reject) => setTimeout(reject, 1, fault)), 1011],
    ["a thenable that throws", () =>
      then(() => {
        throw fault;
      }), 1011],
    [
      "a function that is thenable",
      () => Object.assign(() => {}, then((resolve) => resolve())),
      1000,
    ],
    ["a then whose getter throws", () => ({
      get then() {
        throw fault;
      },
    }), 1011],
    ["a throw", () => {
      throw fault;
    }, 1011],
  ];
  for (const [name, handler, closeCode] of thenable) {
    it(`A9 ${name} closes with ${closeCode}`, async () => {
      const result = await codeOf(handler);
      assert.deepEqual(result, { closeCode, errors: closeCode === 1000 ? [] : [fault] });
    });
  }

  it("A9 what a thenable does after it has settled is ignored", async () => {
    const result = await codeOf(() =>
      then((resolve, reject) => {
        resolve();
        reject(fault);
        throw fault;
      })
    );
    assert.deepEqual(result, { closeCode: 1000, errors: [] });
  });

  const forgotten: Record<string, Handler> = {
    "pipeTo()": async (ws) => {
      ws.readable.pipeTo(ws.writable);
    },
    "pipeTo() behind an await": async (ws) => {
      await turn();
      ws.readable.pipeTo(ws.writable);
    },
    "pipeThrough() and pipeTo()": async (ws) => {
      ws.readable.pipeThrough(upper()).pipeTo(ws.writable);
    },
    "a loop of its own": async (ws) => {
      (async () => {
        for await (const message of ws) await ws.send(message);
      })();
    },
    "a loop over readable": async (ws) => {
      (async () => {
        for await (const message of ws.readable) await ws.send(message);
      })();
    },
    "a loop over messages()": async (ws) => {
      (async () => {
        for await (const { readable } of ws.messages()) await ws.send(readable);
      })();
    },
  };
  for (const [name, handler] of Object.entries(forgotten)) {
    it(`A9 an async handler that forgets to await ${name} closes with 1000, and onError has a hint`, async () => {
      // The test runners fail the test if a rejection is unhandled.
      const { closeCode, errors } = await codeOf(handler);
      assert.equal(closeCode, 1000);
      assert.equal(errors.length, 1);
      assert.equal((errors[0] as Error).name, "InvalidStateError");
      assert.match((errors[0] as Error).message, /Await or return the promise of pipeTo\(\)/);
    });
  }

  it("A9 an async handler that has finished reading gets no warning", async () => {
    const handlers: Handler[] = [
      async (ws) => void await ws.receive(),
      async (ws) => void await ws.readable.getReader().read(),
      async (ws) => {
        for await (const _ of ws) break;
      },
      async (ws) => await ws.send("a"),
    ];
    for (const handler of handlers) {
      assert.deepEqual(await codeOf(handler), { closeCode: 1000, errors: [] });
    }
  });

  it("A9 a process with such handlers outlives clients that are lost", async () => {
    await withPrograms(async (start) => {
      const child = await start(
        "forgetful.mjs",
        `import { connect, serve } from "sluice";
        const handlers = [
          (ws) => { ws.readable.pipeTo(ws.writable); },
          async (ws) => { ws.readable.pipeTo(ws.writable); },
        ];
        let hints = 0;
        for (const handler of handlers) {
          const server = await serve({ port: 0, onError: () => hints++ }, handler);
          const url = "ws://127.0.0.1:" + server.address.port;
          for (const end of ["close", "terminate"]) {
            const ws = await connect(url);
            ws.discard();
            await ws.send("a").catch(() => {});
            ws[end]();
            await ws.closed.catch(() => {});
          }
          await server.shutdown();
        }
        console.log(hints > 0 ? "lives" : "no hint");
        process.exit(0);`,
      );
      const code = await child.exited;
      assert.deepEqual([
        code,
        child.stdout.trim(),
        child.stderr.replace(/.*Warning.*\n.*trace-w.*\n/g, ""),
      ], [
        0,
        "lives",
        "",
      ]);
    });
  });
});

const fault = new Error("fault");

function failing(): WritableStream<unknown> {
  return new WritableStream({ write: () => Promise.reject(fault) });
}

function source(error: unknown): ReadableStream<string> {
  let count = 0;
  return new ReadableStream({
    pull(controller) {
      if (count++ < 2) controller.enqueue("part");
      else controller.error(error);
    },
  }, { highWaterMark: 0 });
}

/** The ways in which an error passes through the streams of a connection. */
const PIPES: Record<string, (ws: WebSocketConnection) => Promise<unknown>> = {
  "readable.pipeTo()": (ws) => ws.readable.pipeTo(failing()),
  "readable.pipeThrough()": (ws) =>
    ws.readable.pipeThrough(
      new TransformStream({
        transform() {
          throw fault;
        },
      }),
    ).pipeTo(new WritableStream()),
  "a pipe into writable": (ws) => source(fault).pipeTo(ws.writable),
  "a pipe through a transform into writable": (ws) =>
    source(fault).pipeThrough(upper()).pipeTo(ws.writable),
  "messages().pipeTo()": (ws) => ws.messages().pipeTo(failing()),
};

const LOOPS: Record<string, Handler> = {
  "a loop over readable": async (ws) => {
    for await (const _ of ws.readable) throw fault;
  },
  "a loop over readable, with something to tidy up": async (ws) => {
    try {
      for await (const _ of ws.readable) throw fault;
    } finally {
      await rest();
    }
  },
  "a loop over messages()": async (ws) => {
    for await (const _ of ws.messages()) throw fault;
  },
  "a loop over a message of messages()": async (ws) => {
    for await (const { readable } of ws.messages()) {
      for await (const _ of readable) throw fault;
    }
  },
  "a loop over the connection": async (ws) => {
    for await (const _ of ws) throw fault;
  },
  "abort() without a reason": async (ws) => {
    await ws.writable.abort();
    throw fault;
  },
};

describe("E13 an error in a handler is seen by the peer", () => {
  for (const [name, handler] of [...Object.entries(PIPES), ...Object.entries(LOOPS)]) {
    it(`E13 ${name} that fails closes with 1011`, async () => {
      assert.deepEqual(await codeOf(handler), { closeCode: 1011, errors: [fault] });
    });
  }

  for (const [name, pipe] of Object.entries(PIPES)) {
    it(`E13 ${name} that fails closes with 1011, also if it is caught or on a client`, async () => {
      const caught = await codeOf((ws) => pipe(ws).catch(() => {}));
      assert.deepEqual(caught, { closeCode: 1011, errors: [] });
      for (const end of ["client", "server"] as const) {
        const [client, server] = await pair();
        const [ours, theirs] = end === "client" ? [client, server] : [server, client];
        theirs.send("a");
        assert.equal(await rejection(pipe(ours)), fault);
        assert.equal((await theirs.closed).closeCode, 1011);
        assert.equal((await ours.closed).closeCode, 1011);
      }
    });
  }

  it("E13 a handler that rejects with the error of another connection closes with 1011", async () => {
    const [lost, other] = await pair();
    other.terminate();
    const error = await rejection<WebSocketError>(lost.closed);
    assert.equal(error.closeCode, 1006);
    const { closeCode } = await codeOf((ws) => source(error).pipeTo(ws.writable));
    assert.equal(closeCode, 1011);
    // If the handler catches the error, the stream was only abandoned.
    const caught = await codeOf((ws) => source(error).pipeTo(ws.writable).catch(() => {}));
    assert.deepEqual(caught, { closeCode: 1005, errors: [] });
  });

  const left: [name: string, handler: Handler, closeCode: number][] = [
    ["a loop that is left", async (ws) => {
      for await (const _ of ws.readable) break;
    }, 1000],
    ["a WebSocketError", async (ws) => {
      await ws.readable.cancel(new WebSocketError("", { closeCode: 4001 }));
      await rest();
    }, 4001],
    ["a reason that is no error", (ws) => ws.readable.cancel("enough"), 1005],
    ["an AbortError", (ws) => ws.writable.abort(new DOMException("", "AbortError")), 1005],
    ["cancel(), and then closed", async (ws) => {
      await ws.readable.cancel("enough");
      await ws.closed;
    }, 1005],
    ["closed, and then cancel()", async (ws) => {
      const { closed } = ws;
      await ws.readable.cancel("enough");
      await closed;
    }, 1005],
    ["cancel() in a handler that is not async", (ws) => {
      ws.readable.cancel("enough");
    }, 1005],
  ];
  for (const [name, handler, closeCode] of left) {
    it(`E13 ${name} closes with ${closeCode}`, async () => {
      assert.deepEqual(await codeOf(handler), { closeCode, errors: [] });
    });
  }

  it("E13 a handler that has left a loop can still send", async () => {
    await withHandler(async (ws) => {
      for await (const _ of ws.readable) break;
      await rest();
      await ws.send("sum");
    }, async (client) => {
      await client.send("a");
      assert.equal(await client.receive(), "sum");
      assert.equal((await client.closed).closeCode, 1000);
    });
  });
});
