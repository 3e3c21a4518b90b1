/**
 * Measures the cost of compression for a server, and prints a line of JSON. The variable SCENARIO selects
 * the scenario. The separate process keeps other work out of its memory and CPU time.
 */
import process from "node:process";
import { constants, deflateRawSync } from "node:zlib";
import {
  encodeFrame,
  type Extension,
  PerMessageDeflate,
  Protocol,
  RemoteProtocolError,
} from "../../lib/core/mod.ts";
import { deflateEngine } from "../../lib/zlib.ts";
import { connect, serve, type WebSocketConnection } from "../../mod.ts";
import { collectGarbage } from "../garbage.ts";

const MIB = 2 ** 20;

function memory(): number {
  collectGarbage();
  return process.memoryUsage.rss();
}

function cpu(): number {
  const { user, system } = process.cpuUsage();
  return (user + system) / 1000;
}

interface Cost {
  /** CPU time in milliseconds. */
  cpu: number;
  /** Memory in MiB. */
  memory: number;
}

function costSince(before: { rss: number; cpu: number }): Cost {
  const after = { cpu: cpu(), rss: process.memoryUsage.rss() };
  return { cpu: after.cpu - before.cpu, memory: (after.rss - before.rss) / MIB };
}

/** The number of runs. Compilation and garbage collection may disturb some of them. */
const RUNS = 3;

/** The result of the last run, with the lowest cost of all runs. */
function least<T extends Cost>(runs: T[]): T {
  const of = (what: "cpu" | "memory") => Math.min(...runs.map((run) => run[what]));
  return { ...runs.at(-1)!, cpu: of("cpu"), memory: of("memory") };
}

/** About 1 MiB that inflates to 1 GiB: one block, repeated. */
function bomb(): Uint8Array {
  const block = deflateRawSync(new Uint8Array(16 * MIB), {
    finishFlush: constants.Z_SYNC_FLUSH,
    level: 9,
  });
  const payload = new Uint8Array(64 * block.length);
  for (let i = 0; i < 64; i++) payload.set(block, i * block.length);
  return payload;
}

/** A bomb for `Protocol`, which stops with 1009. */
function bombProtocol() {
  const payload = bomb();
  const frame = encodeFrame({ opcode: 2, rsv: 4, payload }, { mask: true });
  const factory = new PerMessageDeflate({ engine: deflateEngine });
  const run = () => {
    const { extension } = factory.accept([])!;
    const protocol = new Protocol("server", { extensions: [extension], maxMessageSize: MIB });
    protocol.receive(frame);
    let out = 0;
    try {
      for (const event of protocol.events()) if (event.type === "binary") out += event.data.length;
    } catch (error) {
      protocol.dispose();
      if (error instanceof RemoteProtocolError) return { code: error.closeCode, out };
      throw error;
    }
  };
  run();
  const runs = [];
  while (runs.length < RUNS) {
    const before = { rss: memory(), cpu: cpu() };
    const result = run();
    runs.push({ ...result, ...costSince(before) });
  }
  return { sent: payload.length, ...least(runs) };
}

/** A bomb for a server with a whole connection. The client is in the same process. */
function bombServer() {
  const payload = bomb();
  const extension: Extension = {
    name: "permessage-deflate",
    rsv: 4,
    push: () => {},
    next: () => undefined,
    encode: (frame) => ({ ...frame, rsv: 4, payload: payload.slice() }),
    close: () => {},
  };
  const { name } = extension;
  const extensions = [{
    name,
    offer: () => [[]],
    finalize: () => extension,
    accept: () => undefined,
  }];
  return served(async (url) => {
    const run = async () => {
      const ws = await connect(url, { extensions });
      ws.send("bomb").catch(() => {});
      return (await ws.closed).closeCode;
    };
    await run();
    const runs = [];
    while (runs.length < RUNS) {
      const before = { rss: memory(), cpu: cpu() };
      const code = await run();
      runs.push({ code, ...costSince(before) });
    }
    return least(runs);
  });
}

async function echo(ws: WebSocketConnection): Promise<void> {
  for await (const message of ws) await ws.send(message);
}

async function served<T>(use: (url: string) => Promise<T>): Promise<T> {
  const server = await serve({ hostname: "127.0.0.1", port: 0, compression: true }, echo);
  if (server.address.transport !== "tcp") throw new TypeError("Expected a TCP address");
  const result = await use(`ws://127.0.0.1:${server.address.port}`);
  await server.shutdown();
  return result;
}

const TEXT = JSON.stringify(Array.from({ length: 100 }, (_, i) => ({ id: i, even: i % 2 === 0 })));

/** The memory in MiB, sampled ten times during `count` turns. */
async function growth(count: number, turn: (i: number) => Promise<void>): Promise<number[]> {
  const samples: number[] = [];
  for (let i = 0; i < count; i++) {
    await turn(i);
    if ((i + 1) % Math.ceil(count / 10) === 0) samples.push(memory() / MIB);
  }
  return samples;
}

/** Messages over one connection. */
function messages() {
  return served(async (url) => {
    const ws = await connect(url);
    const samples = await growth(1000, async () => {
      for (let i = 0; i < 100; i++) ws.send(TEXT);
      for (let i = 0; i < 100; i++) await ws.receive();
    });
    const received = ws.stats.messagesReceived;
    await ws.close({ closeCode: 1000 });
    return { samples, received };
  });
}

/** Connections that are opened, used, and closed or cut. */
function connections() {
  return served(async (url) => {
    let received = 0;
    const samples = await growth(1000, async (i) => {
      const ws = await connect(url, { compression: { memory: i % 2 ? "high" : "low" } });
      ws.send(TEXT);
      received += (await ws.receive()).length === TEXT.length ? 1 : 0;
      if (i % 3 === 0) {
        ws.terminate();
        await ws.closed.catch(() => {});
      } else {
        await ws.close({ closeCode: 1000 });
      }
    });
    return { samples, received };
  });
}

const SCENARIOS: Record<string, () => unknown> = {
  bomb: bombProtocol,
  "bomb-server": bombServer,
  messages,
  connections,
};

console.log(JSON.stringify(await SCENARIOS[process.env.SCENARIO!]()));
process.exit();
