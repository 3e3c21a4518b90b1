/** A process that is killed or stopped in the middle of a message: the other process notices. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { connect, serve, type WebSocketConnection, type WebSocketError } from "../mod.ts";
import { certificates } from "./certificates.ts";
import { Child } from "./programs.ts";
import { withoutLeak } from "./resources.ts";
import { portOf, rejection, until } from "./support.ts";

const PROGRAM = fileURLToPath(new URL("scenarios/killed.ts", import.meta.url));
const OPEN = { openTimeout: 60_000, maxMessageSize: Infinity, closeTimeout: 200 };

async function* endless(): AsyncGenerator<string> {
  for (;;) {
    yield "y".repeat(1000);
    await new Promise((resolve) => setImmediate(resolve));
  }
}

type Use = (ws: WebSocketConnection, child: Child) => Promise<void>;

/** Runs a test with a connection whose other end is a child process. The child has the given role. */
async function withChild(
  role: "client" | "server",
  scheme: "ws" | "wss",
  options: { pingInterval: number; pingTimeout?: number },
  use: Use,
): Promise<void> {
  const { ca, leaf } = await certificates();
  let child: Child | undefined;
  if (role === "server") {
    const env = scheme === "wss" ? { LEAF: JSON.stringify(leaf) } : undefined;
    child = new Child(PROGRAM, { env });
    try {
      const [, port] = await child.printed(/port (\d+)/);
      const url = `${scheme}://127.0.0.1:${port}/`;
      await use(await connect(url, { ...OPEN, ...options, tls: { ca } }), child);
    } finally {
      child.stop("SIGKILL");
      await child.exited;
    }
    return;
  }
  const tls = scheme === "wss" ? leaf : undefined;
  let used: Promise<void> | undefined;
  const server = await serve({ ...OPEN, ...options, tls }, (ws) => {
    used = use(ws, child!);
    return used;
  });
  child = new Child(PROGRAM, { env: { URL: `${scheme}://127.0.0.1:${portOf(server)}/`, CA: ca } });
  try {
    await until(() => used !== undefined);
    await used;
  } finally {
    child.stop("SIGKILL");
    await child.exited;
    await server.shutdown();
  }
  assert.equal(server.connections.size, 0);
}

/** Makes both ends send an endless message, acts on the child, and returns the error of the connection. */
async function midMessage(
  ws: WebSocketConnection,
  act: () => void,
): Promise<WebSocketError> {
  assert.equal(await ws.receive(), "whole");
  const sending = ws.send(endless());
  const receiving = ws.receive();
  // The promise may reject before `closed` does.
  receiving.catch(() => {});
  await until(() => ws.stats.bytesReceived > 20_000 && ws.stats.bytesSent > 20_000);
  act();
  const error = await rejection<WebSocketError>(ws.closed);
  assert.equal(await rejection(receiving), error, "Half a message is none");
  const refused = await rejection(sending);
  assert.ok(refused === error || refused.name === "InvalidStateError", String(refused));
  assert.equal(ws.stats.messagesReceived, 1);
  return error;
}

describe("A process in the middle of a message", () => {
  for (const role of ["client", "server"] as const) {
    for (const scheme of ["ws", "wss"] as const) {
      it(`A ${scheme} ${role} that is killed is 1006 to its peer`, async () => {
        await withoutLeak(() =>
          withChild(role, scheme, { pingInterval: 0 }, async (ws, child) => {
            const error = await midMessage(ws, () => child.stop("SIGKILL"));
            assert.equal(error.name, "WebSocketError");
            assert.equal(error.closeCode, 1006);
            assert.deepEqual(await ws.close(), { closeCode: 1006, reason: "" });
          })
        );
      });
    }

    it(`A ${role} that stands still is noticed by its missing pong`, async () => {
      await withoutLeak(() =>
        withChild(role, "ws", { pingInterval: 300, pingTimeout: 1000 }, async (ws, child) => {
          const error = await midMessage(ws, () => child.stop("SIGSTOP"));
          assert.equal(error.closeCode, 1011);
          assert.match(error.message, /No pong/);
        })
      );
    });
  }
});
