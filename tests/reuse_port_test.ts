import { describe } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import { it, notApplicable } from "./it.ts";
import { connect, HandshakeError, serve, type ServeOptions } from "../mod.ts";
import { certificates } from "./certificates.ts";
import { withPrograms } from "./programs.ts";
import { portOf, rejection } from "./support.ts";

const NOT_ON_LINUX = process.platform !== "linux" &&
  notApplicable("elsewhere the platforms differ");
const onDeno = "Deno" in globalThis;

/** Starts two servers on one port, and checks that clients reach each of them. */
async function share(options: ServeOptions, scheme = "ws", ca?: string): Promise<void> {
  const reached = new Set<string>();
  const first = await serve({ ...options, reusePort: true }, (ws) => ws.send("first"));
  const port = portOf(first);
  const second = await serve({ ...options, port, reusePort: true }, (ws) => ws.send("second"));
  assert.equal(portOf(second), port);
  // The platform chooses the server by the client's port.
  while (reached.size < 2) {
    const ws = await connect(`${scheme}://127.0.0.1:${port}/`, { tls: ca ? { ca } : undefined });
    reached.add(String(await ws.receive()));
    await ws.closed;
  }
  await first.shutdown();
  const ws = await connect(`${scheme}://127.0.0.1:${port}/`, { tls: ca ? { ca } : undefined });
  assert.equal(await ws.receive(), "second");
  await ws.closed;
  await second.shutdown();
}

describe("The option reusePort", () => {
  it(
    "lets two servers share a port, and each of them is reached",
    { skip: NOT_ON_LINUX },
    async () => {
      await share({});
    },
  );

  it("does so with TLS, or is refused in so many words", { skip: NOT_ON_LINUX }, async () => {
    const { ca, leaf } = await certificates();
    if (!onDeno) return await share({ tls: leaf }, "wss", ca);
    const error = await rejection<HandshakeError>(
      serve({ tls: leaf, reusePort: true }, () => {}),
    );
    assert.ok(error instanceof HandshakeError);
    assert.equal(error.code, "unsupported");
    assert.match(error.message, /--unstable-net/);
  });

  it("lets two processes share a port", { skip: NOT_ON_LINUX }, async () => {
    const program = (port: number) => `
      import { serve } from "sluice";
      const server = await serve({ port: ${port}, reusePort: true }, (ws) => ws.send("child"));
      console.log("port", server.address.port);`;
    const server = await serve({ reusePort: true }, (ws) => ws.send("parent"));
    const port = portOf(server);
    await withPrograms(async (start) => {
      const child = await start("share.mjs", program(port));
      await child.printed(/^port /m);
      const reached = new Set<string>();
      while (reached.size < 2) {
        const ws = await connect(`ws://127.0.0.1:${port}/`);
        reached.add(String(await ws.receive()));
        await ws.closed;
      }
    });
    await server.shutdown();
  });

  it("must be said by all: otherwise the port is taken", async () => {
    for (const [one, other] of [[true, false], [false, false], [false, true]]) {
      const server = await serve({ reusePort: one }, () => {});
      const second = serve({ port: portOf(server), reusePort: other }, () => {});
      const error = await rejection<NodeJS.ErrnoException>(second);
      assert.equal(error.code, "EADDRINUSE");
      await server.shutdown();
    }
  });

  it("must be a boolean", async () => {
    for (const reusePort of [1, "yes", null] as unknown as boolean[]) {
      await assert.rejects(serve({ reusePort }, () => {}), TypeError);
    }
  });
});
