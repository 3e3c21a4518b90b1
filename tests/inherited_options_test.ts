import { describe, it } from "node:test";
import assert from "node:assert/strict";
import * as browser from "../lib/browser.ts";
import { connect, fromWebSocket, reconnect, serve } from "../mod.ts";
import { rejection, urlOf, withServer } from "./support.ts";

/** As a program that gives some options to all of its connections. */
const options = () => Object.create({ maxMessageSize: 10 });

const CLIENTS: [
  name: string,
  open: (url: string) => PromiseLike<{ receive(): Promise<unknown> }>,
][] = [
  ["connect()", (url) => connect(url, options())],
  ["reconnect()", async (url) => (await reconnect(url, options()).next()).value!],
  ["fromWebSocket()", (url) => fromWebSocket(new WebSocket(url), options())],
  ["connect() of a browser", (url) => browser.connect(url, options())],
  ["fromWebSocket() of a browser", (url) => browser.fromWebSocket(new WebSocket(url), options())],
];

describe("Inherited options", () => {
  for (const [name, open] of CLIENTS) {
    it(`${name} keeps an inherited limit`, async () => {
      await withServer({}, async (server) => {
        const ws = await open(urlOf(server));
        const error = await rejection(ws.receive());
        assert.match(String(error), /maxMessageSize/);
      }, (ws) => ws.send("a".repeat(11)).catch(() => {}));
    });
  }

  it("serve() keeps an inherited limit", async () => {
    const given = Object.assign(options(), { port: 0 });
    let resolve!: (error: unknown) => void;
    const failed = new Promise((done) => resolve = done);
    const server = await serve(given, async (ws) => resolve(await rejection(ws.receive())));
    const ws = await connect(urlOf(server));
    await ws.send("a".repeat(11)).catch(() => {});
    assert.match(String(await failed), /maxMessageSize/);
    ws.terminate();
    await server.shutdown();
  });
});
