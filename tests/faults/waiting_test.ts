/** Messages that wait to be sent take no more memory than `maxBufferedAmount` allows, whatever they are. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import { withPrograms } from "../programs.ts";

const LIMIT = 1048576;
const CONNECTIONS = 2;

/** A program that sends to connections whose peers do not read, and prints the most bytes held for each. */
const PROGRAM = `
  import process from "node:process";
  import { broadcast } from "sluice";
  import { pair } from "sluice/testing";
  const { WAY } = process.env;
  const maxBufferedAmount = ${LIMIT};
  const turn = () => new Promise((resolve) => setTimeout(resolve, 0));
  const gc = globalThis.gc ?? (() => globalThis.Bun.gc(true));
  const isBun = process.versions.bun !== undefined;
  async function held() {
    for (let i = 0; i < 2; i++) {
      gc();
      await turn();
    }
    const { heapUsed, external } = process.memoryUsage();
    return isBun ? heapUsed : heapUsed + external;
  }
  async function* endless() {
    yield "a";
    await new Promise(() => {});
  }
  const messages = {
    empty: () => "",
    short: () => "x",
    text: (i) => "message " + i,
    wide: (i) => "\u20ac" + i,
    bytes: () => new Uint8Array(1),
    medium: () => "x".repeat(11_008),
    long: () => new Uint8Array(20_000),
  };
  const [how, slow] = WAY.split(" ").reverse();
  const send = {
    send: (servers, message) => servers.forEach((ws) => ws.send(message)),
    items: (servers, message) => servers.forEach((ws) => ws.send([message])),
  }[how] ?? ((servers, message) => broadcast(servers, message, { maxBufferedAmount, slow: how }));
  const drops = how.startsWith("drop");
  const quiet = { pingInterval: 0 };
  for (const [name, make] of Object.entries(messages)) {
    // What the items are is for their owner to know: the sender has not asked for them yet.
    if (how === "items" && ["medium", "long"].includes(name)) continue;
    const pairs = [];
    for (let i = 0; i < ${CONNECTIONS}; i++) {
      pairs.push(await pair({ client: quiet, server: { ...quiet, maxBufferedAmount, slow: "close" } }));
    }
    const servers = pairs.map(([, server]) => server);
    if (slow === "behind") for (const ws of servers) ws.send(endless()).catch(() => {});
    await turn();
    const before = await held();
    let most = 0;
    let count = 0;
    let look = 500;
    // Looked at now and then: at the limit the connection lets go of what waits.
    while (count < (drops ? 10_000 : 1_000_000) && servers.every((ws) => ws.state === "open")) {
      send(servers, make(count++));
      if (count % 1000 === 0) await turn();
      if (count < look) continue;
      look *= 2;
      most = Math.max(most, await held() - before);
    }
    most = Math.max(most, await held() - before);
    const open = servers[0].state === "open";
    console.log(JSON.stringify({ name, count, each: most / ${CONNECTIONS}, open }));
    for (const [client, server] of pairs) {
      client.terminate();
      server.terminate();
    }
    await turn();
  }
  process.exit();
`;

const ways = [
  "send",
  "behind send",
  "behind items",
  "close",
  "behind close",
  "drop-newest",
  "drop-oldest",
  "behind drop-oldest",
];
function flags(): string[] {
  if (process.versions.bun !== undefined) return [];
  return [process.versions.deno === undefined ? "--expose-gc" : "--v8-flags=--expose-gc"];
}

describe("B2 memory of messages that wait for a slow reader", () => {
  for (const way of ways) {
    it(`B2 waiting messages, sent by ${way}, take at most twice maxBufferedAmount`, async () => {
      await withPrograms(async (start) => {
        const child = await start("waiting.ts", PROGRAM, { env: { WAY: way }, flags: flags() });
        assert.equal(await child.exited, 0, child.stderr);
        const lines = child.stdout.trim().split("\n").map((line) => JSON.parse(line));
        for (const { name, count, each, open } of lines) {
          const kib = Math.round(each / 1024);
          const text = `${kib} KiB for each connection after ${count} messages (${name})`;
          assert.ok(each <= 2 * LIMIT, text);
          assert.equal(open, way.includes("drop"), text);
        }
        assert.equal(lines.length, way.includes("items") ? 5 : 7);
      });
    });
  }
});
