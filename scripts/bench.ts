/**
 * Measures how many messages a second of the server's CPU time echoes:
 * `deno task bench [echo | deflate] [--runtime node24] [--size 16] [--type text] [--peers loop,pipe,ws]
 * [--transport default,node] [--tls] [--rounds 5] [--messages N] [--profile]`.
 *
 * The peers: `loop` and `pipe`, ours by `for await (const message of ws) await ws.send(message)` and
 * by `ws.readable.pipeTo(ws.writable)`, and `ws`, the npm package (on Bun, its own substitute for
 * it); where they are named, also `chain` and `batch`, the transforms piped by hand, one item a chunk
 * or arrays, over sockets of `node:http` and without TLS. Each server is a process of its own; the
 * load is the same for all. They take turns, a fixed number of messages each, so that whatever slows
 * the machine down meets all of them; the ratios are those of neighbouring turns, to the last peer.
 *
 * The sockets under ours: `default`, those of the platform; `node`, those of `node:net`; `deno`, those
 * of `Deno.listen()`, which are no platform's default. With several, each peer runs over each.
 *
 * `deflate` has JSON texts of 1 KiB and 64 KiB compressed, with context takeover and the same settings
 * of zlib for all; then it measures the memory of a connection.
 */
import { parseArgs } from "node:util";
import type { LoadOptions } from "./bench/load.ts";
import { Peer, type Round } from "./bench/peer.ts";
import { topFunctions } from "./bench/profile.ts";
import { ROOT } from "./process.ts";
import { findRuntime, type Runtime, SUITE_RUNTIMES } from "./runtimes.ts";

const WS = "ws";
const BENCHMARKS = ["echo", "deflate"] as const;
const BY_HAND = ["chain", "batch"];
const RAW = "tcp";
const PEERS = ["loop", "pipe", ...BY_HAND, RAW, "native", WS];
const DEFAULT_PEERS = ["loop", "pipe", WS];
const TRANSPORTS = ["default", "node", "deno"];
const CONNECTIONS = 32;
const IN_FLIGHT = 16;
const PROFILES = new URL(".cache/bench/", ROOT);

/** A server to measure. */
interface Candidate {
  name: string;
  peer: string;
  transport: string;
}

interface Plan {
  runtime: Runtime;
  /** The last one is what the others are compared with. */
  candidates: Candidate[];
  tls: boolean;
  types: LoadOptions["type"][];
  sizes: number[];
  rounds: number;
  /** Messages of a round, or as many as suit the size. */
  messages: number | undefined;
  profile: boolean;
  deflate: boolean;
}

/** The rates of each peer, round by round. */
type Rates = Map<string, number[]>;

async function planFrom(args: string[]): Promise<Plan> {
  const { values, positionals } = parseArgs({
    args: args.filter((arg) => arg !== "--"),
    options: {
      runtime: { type: "string", default: "node24" },
      peers: { type: "string" },
      transport: { type: "string", default: "default" },
      tls: { type: "boolean", default: false },
      type: { type: "string", default: "text" },
      size: { type: "string" },
      rounds: { type: "string", default: "5" },
      messages: { type: "string" },
      profile: { type: "boolean", default: false },
    },
    allowPositionals: true,
  });
  const [benchmark = "echo"] = positionals.map((name) => oneOf("benchmark", name, BENCHMARKS));
  const deflate = benchmark === "deflate";
  const { peers: names = deflate ? "loop,ws" : DEFAULT_PEERS.join() } = values;
  const { size = deflate ? "1024,65536" : "16" } = values;
  const peers = names.split(",").map((name) => oneOf("peer", name, PEERS));
  const transports = values.transport.split(",").map((name) =>
    oneOf("transport", name, TRANSPORTS)
  );
  const runtime = await find(values.runtime);
  if (transports.includes("deno") && (runtime.engine !== "deno" || values.tls)) {
    throw new RangeError("--transport deno needs Deno, without --tls");
  }
  if (
    peers.some((name) => BY_HAND.includes(name)) && (values.tls || transports.join() !== "default")
  ) {
    throw new RangeError(`The peers ${BY_HAND.join(" and ")} take no --transport and no --tls`);
  }
  if (deflate && (values.tls || peers.some((name) => BY_HAND.includes(name)))) {
    throw new RangeError(`The benchmark deflate has no --tls, ${BY_HAND.join(" or ")}`);
  }
  if (values.profile && runtime.engine !== "node") throw new RangeError("--profile needs Node");
  return {
    runtime,
    candidates: candidatesOf(
      values.profile ? peers.filter((name) => name !== WS) : peers,
      transports,
    ),
    tls: values.tls,
    types: values.type.split(",").map((name) => oneOf("type", name, ["text", "binary"] as const)),
    sizes: size.split(",").map((text) => natural("--size", text)),
    rounds: natural("--rounds", values.rounds),
    messages: values.messages === undefined ? undefined : natural("--messages", values.messages),
    profile: values.profile,
    deflate,
  };
}

function candidatesOf(peers: string[], transports: string[]): Candidate[] {
  return peers.flatMap((peer) => {
    if (peer === WS) return [{ name: WS, peer, transport: "default" }];
    return transports.map((transport) => ({
      name: transports.length === 1 ? peer : `${peer}-${transport}`,
      peer,
      transport,
    }));
  });
}

function oneOf<T extends string>(what: string, name: string, known: readonly T[]): T {
  const found = known.find((other) => other === name);
  if (found === undefined) {
    throw new RangeError(`Expected a ${what} of ${known.join(", ")}; got ${name}`);
  }
  return found;
}

function natural(option: string, text: string): number {
  const value = Number(text);
  if (Number.isInteger(value) && value > 0) return value;
  throw new RangeError(`Expected ${option} to be a number of at least 1, got ${text}`);
}

async function find(name: string): Promise<Runtime> {
  oneOf("runtime", name, SUITE_RUNTIMES.map((spec) => spec.name));
  const runtime = await findRuntime(SUITE_RUNTIMES.find((spec) => spec.name === name)!);
  if (runtime === undefined) throw new Error(`Expected ${name} on PATH, found none`);
  return runtime;
}

/** As many as take about a second. */
function messagesFor(size: number, deflate: boolean): number {
  if (deflate) return size < 8192 ? 20_000 : Math.ceil(50_000_000 / size);
  return size < 512 ? 300_000 : size < 8192 ? 150_000 : Math.ceil(500_000_000 / size);
}

async function compare(plan: Plan, load: LoadOptions): Promise<Rates> {
  const messages = plan.messages ?? messagesFor(load.size, plan.deflate);
  const mode = load.deflate ? [load.deflate] : load.tls ? ["tls"] : [];
  const peers = plan.candidates.map(({ name, peer, transport }) => {
    const folder = plan.profile ? new URL(`${name}/`, PROFILES) : undefined;
    return new Peer(name, plan.runtime, [peer, transport, ...mode], folder);
  });
  const rates: Rates = new Map(plan.candidates.map(({ name }) => [name, []]));
  try {
    for (const peer of peers) {
      await peer.open({ ...load, raw: peer.name.startsWith(RAW) });
      await peer.measure(messages);
    }
    for (let round = 1; round <= plan.rounds; round++) {
      for (const peer of peers) {
        const result = await peer.measure(messages);
        rates.get(peer.name)!.push(result.rate);
        printRound(round, peer.name, result);
      }
    }
  } finally {
    await Promise.all(peers.map((peer) => peer.close()));
  }
  return rates;
}

function printRound(round: number, name: string, result: Round) {
  const percent = (share: number) => `${Math.round(share * 100)} %`.padStart(5);
  const busy = `server ${percent(result.serverBusy)}, client ${percent(result.clientBusy)} busy`;
  const time = `${result.seconds.toFixed(1)} s`;
  console.log(`  round ${round}  ${name.padEnd(12)}${count(result.rate)}  (${time}, ${busy})`);
}

function printRates(rates: Rates) {
  const last = baselineOf(rates);
  const title = rates.size > 1 ? `    to ${last}` : "";
  console.log(`\n  messages per CPU second       median        min        max${title}`);
  for (const [name, values] of rates) {
    const columns = [median(values), Math.min(...values), Math.max(...values)].map(count).join("");
    const ratio = rates.size > 1 ? ratioOf(rates, name).toFixed(2).padStart(9) : "";
    console.log(`  ${labelOf(name).padEnd(26)}${columns}${ratio}`);
  }
  console.log();
}

function labelOf(name: string): string {
  return [WS, RAW, "native"].includes(name) ? name : `sluice, ${name}`;
}

function baselineOf(rates: Rates): string {
  return [...rates.keys()].at(-1)!;
}

/** The median of the ratios of each round. */
function ratioOf(rates: Rates, name: string): number {
  const baseline = rates.get(baselineOf(rates))!;
  return median(rates.get(name)!.map((rate, round) => rate / baseline[round]));
}

function median(values: number[]): number {
  const sorted = values.toSorted((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

function count(value: number): string {
  return Math.round(value).toLocaleString("en-US").padStart(11);
}

/** Say who is ahead, and by what factor. */
function verdict(rates: Rates): string {
  const last = baselineOf(rates);
  return [...rates.keys()].filter((name) => name !== last).map((name) => {
    const ratio = ratioOf(rates, name);
    const [ahead, behind] = ratio >= 1 ? [name, last] : [last, name];
    const factor = Math.max(ratio, 1 / ratio).toFixed(2);
    return `${labelOf(ahead)} is ahead of ${labelOf(behind)} by a factor of ${factor}`;
  }).join("; ");
}

/** What a connection takes that has echoed one message of 1 KiB. */
async function printMemory({ candidates, runtime, tls }: Plan) {
  console.log("KiB of memory a connection: not compressed, with and without context takeover");
  for (const { name, peer, transport } of candidates) {
    const columns: string[] = [];
    for (const deflate of [undefined, "deflate", "deflate-each"] as const) {
      const server = new Peer(name, runtime, [peer, transport, deflate ?? "plain"]);
      const load = { type: "text", size: 1024, tls, connections: 1, inFlight: 1, deflate } as const;
      columns.push(`${Math.round(await server.memory(500, load) / 1024)}`.padStart(6));
      await server.close();
    }
    console.log(`  ${labelOf(name).padEnd(26)}${columns.join("")}`);
  }
}

async function printProfiles(peers: string[]) {
  for (const name of peers) {
    for await (const entry of Deno.readDir(new URL(`${name}/`, PROFILES))) {
      const file = new URL(`${name}/${entry.name}`, PROFILES);
      console.log(`\n${name}: .cache/bench/${name}/${entry.name}`);
      console.log(topFunctions(await Deno.readTextFile(file)).join("\n"));
    }
  }
}

async function removeProfiles() {
  await Deno.remove(PROFILES, { recursive: true }).catch((error) => {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
  });
}

const plan = await planFrom(Deno.args);
const verdicts: string[] = [];
for (const size of plan.sizes) {
  for (const type of plan.types) {
    const title = `${size} bytes, ${type}${
      plan.tls ? ", TLS" : ""
    }, ${plan.runtime.name} (${plan.runtime.version})`;
    console.log(
      `Echo${
        plan.deflate ? ", compressed" : ""
      }: ${title}, ${CONNECTIONS} connections, ${IN_FLIGHT} in flight`,
    );
    if (plan.profile) await removeProfiles();
    const { tls } = plan;
    const deflate = plan.deflate ? "deflate" as const : undefined;
    const load = { type, size, tls, connections: CONNECTIONS, inFlight: IN_FLIGHT, deflate };
    const rates = await compare(plan, load);
    printRates(rates);
    if (plan.profile) await printProfiles([...rates.keys()]);
    if (rates.size > 1) verdicts.push(`${title}: ${verdict(rates)}`);
  }
}
for (const line of verdicts) console.log(line);
if (plan.deflate) await printMemory(plan);
