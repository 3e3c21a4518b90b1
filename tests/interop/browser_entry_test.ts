/** The entry point for browsers in Chromium: with the browser's own class, without it, and under a policy. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { it } from "../it.ts";
import { attach } from "../../lib/node.ts";
import type { WebSocketConnection } from "../../mod.ts";
import { echo, until } from "../support.ts";
import { bundle } from "./browser.ts";
import { withBrowser } from "./chromium.ts";
import { Topics } from "../../lib/topics.ts";
import { PEERS, unlessThere } from "./peers.ts";

const { skip } = unlessThere(PEERS.chromium);

/** The time in milliseconds after which a page without a result counts as hanging. */
const DEADLINE = 180_000;

const topics = new Topics({ history: {} });
let published = 0;

/** Publishes 20 messages, some of them while the client has no connection. */
async function publishNews(): Promise<boolean> {
  while (published < 20) {
    await topics.publish("news", `${published++}`);
    const subscribers = () => topics.subscribers("news");
    if (published % 5 === 0) {
      for (const ws of subscribers() as WebSocketConnection[]) ws.terminate();
    }
    if (published % 5 === 2) await until(() => subscribers().length > 0);
  }
  return true;
}

/** The handlers of the server, by path. */
const HANDLERS: Record<string, (ws: WebSocketConnection) => unknown> = {
  "/app/echo": echo,
  // Never reads.
  "/app/deaf": (ws) => ws.closed,
  "/app/flood": async (ws) => {
    for (;;) await ws.send(new Uint8Array(65536));
  },
  "/app/tell": (ws) => ws.close({ closeCode: 4001, reason: "bye" }),
  "/app/topics": (ws) => topics.serve(ws, { maySubscribe: () => true, mayPublish: publishNews }),
  "/app/drop": (ws) => ws.terminate(),
  "/app/news": async (ws) => {
    await ws.send("news");
    await ws.ping();
    ws.terminate();
  },
};

/** Shows a page, and returns its report. */
async function report(name: string): Promise<Record<string, unknown>> {
  const { text } = await bundle("tests/interop/browser_entry_page.ts");
  let done!: (report: Record<string, unknown>) => void;
  const reported = new Promise<Record<string, unknown>>((resolve) => done = resolve);
  const server = createServer((request, response) => {
    const { pathname, search } = new URL(request.url!, "http://localhost");
    if (pathname === "/report") done(JSON.parse(decodeURIComponent(search.slice(1))));
    if (name === "policy") response.setHeader("Content-Security-Policy", "connect-src 'none'");
    response.setHeader("Content-Type", pathname.endsWith(".js") ? "text/javascript" : "text/html");
    const hide = name.endsWith("ithoutClass")
      ? "<script>delete globalThis.WebSocketStream; delete globalThis.WebSocketError</script>"
      : "";
    response.end(
      pathname === "/page.js"
        ? text
        : `<!doctype html>${hide}<script type="module" src="/page.js"></script>`,
    );
  });
  const attached = attach(server, {
    protocols: ["a"],
    onRequest: (request) =>
      new URL(request.url).pathname in HANDLERS ? undefined : new Response(null, { status: 404 }),
    onError: () => {},
  }, (ws) => HANDLERS[new URL(ws.request.url).pathname](ws));
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const late = setTimeout(() => done({ error: `No report within ${DEADLINE} ms` }), DEADLINE);
  try {
    return await withBrowser(`http://127.0.0.1:${port}/app/${name}`, reported);
  } finally {
    clearTimeout(late);
    await attached.shutdown();
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
}

describe("The entry point for browsers in Chromium", () => {
  it("E7 E8 it exports the browser's own classes, and its connections take relative URLs", {
    skip,
  }, async () => {
    assert.deepEqual(await report("classes"), {
      isNative: true,
      url: "/app/echo",
      byStream: "by stream",
      byConnection: "by connection",
      closeCode: 1009,
      connectionError: true,
      streamError: true,
      domError: true,
    });
  });

  it("E8 without a class of the browser's a stream takes relative URLs too", { skip }, async () => {
    assert.deepEqual(await report("withoutClass"), { url: "/app/echo", byStream: "by stream" });
  });

  for (const name of ["connections", "connectionsWithoutClass"]) {
    it(`Messages, backpressure, closes, errors and reconnect(): ${name}`, { skip }, async () => {
      const isNative = name === "connections";
      const { floodCode, ...others } = await report(name);
      // Only the browser's own class can slow the server down.
      assert.equal(floodCode, isNative ? "open" : 1013);
      const bye = { closeCode: 4001, reason: "bye" };
      assert.deepEqual(others, {
        echoed: 200,
        sent: 1,
        last: "last",
        closeCode: 3000,
        protocol: "a",
        buffered: true,
        isBounded: true,
        first: 65536,
        leaving: true,
        told: bye,
        lost: 1006,
        news: ["news", "news", "news"],
        ends: [bye, bye],
      });
    });
  }

  it("resumable() gets every message once over connections that are cut", { skip }, async () => {
    const got = Array.from({ length: 20 }, (_, i) => `${i}`);
    assert.deepEqual(await report("topics"), { got, recovered: [true] });
    await topics.close();
  });

  it("G4 a policy that forbids the connection is connect-failed, and its name is told", {
    skip,
  }, async () => {
    const { connect } = await report("policy");
    assert.match(connect as string, /^HandshakeError connect-failed: .*Content-Security-Policy/);
  });
});
