/**
 * Measures the fan-out of topics in one process, and in three over Redis: messages delivered in a second of
 * the servers' CPU time, beside a loop over prepared bytes, a loop over `ws.send()`, Bun's `publish()`, and
 * Socket.IO with its Redis Streams adapter. One message, or a burst of ten, is in flight: the next one is
 * published when all subscribers have it.
 */
import { freePort, HOST } from "../../tests/ports.ts";
import { mustRun } from "../process.ts";
import type { Runtime } from "../runtimes.ts";
import { BurstLoad } from "./burst_load.ts";
import { contest, type Contestant, type Round } from "./contest.ts";
import type { Program } from "./cores.ts";
import { machine, versions } from "./machine.ts";
import { Measured, programOf } from "./measured.ts";
import { findRuntimeByName } from "./options.ts";
import { peerProgram } from "./peer.ts";
import { type TopicsMeasurement, type TopicsResults, writeResults } from "./results.ts";
import { median, type Run } from "./statistics.ts";

/** The numbers of subscribers, and of messages that are published at once. */
const CASES = [[10, 1], [1000, 1], [10_000, 1], [1000, 10]] as const;
const SIZES = [64, 1024];

interface Setup {
  runtime: string;
  processes: number;
  peers: string[];
}

const SETUPS: readonly Setup[] = [
  { runtime: "node24", processes: 1, peers: ["topics", "tcp", "ws", "socket.io"] },
  { runtime: "bun", processes: 1, peers: ["topics", "tcp", "native"] },
  { runtime: "node24", processes: 3, peers: ["streams", "pubsub", "ws", "socket.io"] },
];

interface Case {
  runtime: Runtime;
  processes: number;
  subscribers: number;
  burst: number;
  size: number;
}

/** The servers of a peer, and their subscribers. */
class TopicsPeer implements Contestant {
  readonly name: string;
  readonly #case: Case;
  readonly #redis: Redis | undefined;
  readonly #servers: Measured[] = [];
  #load: BurstLoad | undefined;
  /** The CPU time of Redis for a message, in microseconds, in each round. */
  readonly engine: number[] = [];

  constructor(name: string, of: Case, redis: Redis | undefined) {
    this.name = name;
    this.#case = of;
    this.#redis = redis;
  }

  get #program(): Program {
    const { runtime } = this.#case;
    const ports = this.#redis === undefined ? [] : [String(this.#redis.port)];
    return this.#redis === undefined && this.name !== "socket.io"
      ? peerProgram(runtime, "server.ts", [this.name, JSON.stringify({ work: "fanout" })])
      : programOf(runtime, "topics_server.ts", [this.name, ...ports]);
  }

  async open() {
    const { processes, subscribers, burst, size } = this.#case;
    for (let i = 0; i < processes; i++) this.#servers.push(new Measured(this.#program));
    const ports = await Promise.all(this.#servers.map((server) => server.number()));
    const options = {
      type: "text",
      size,
      connections: subscribers,
      inFlight: burst,
      raw: this.name === "tcp",
    } as const;
    const mode = this.name === "socket.io" ? "socket.io" : "fanout";
    this.#load = await BurstLoad.connect(ports, options, { mode });
  }

  async round(deliveries: number): Promise<Round> {
    const before = await this.#clocks();
    const delivered = await this.#load!.run(deliveries);
    const after = await this.#clocks();
    const [measured, own, time, engine] = after.map((value, i) => value - before[i]);
    this.engine.push(engine / (delivered / this.#case.subscribers) * 1e6);
    const [measuredBusy, otherBusy] = [measured / time, own / time];
    const figures = { rate: delivered / measured };
    return { figures, measuredBusy, otherBusy, seconds: time };
  }

  async #clocks(): Promise<number[]> {
    const clocks = await Promise.all(this.#servers.map((server) => server.clocks()));
    const measured = clocks.reduce((sum, clock) => sum + clock.measured, 0);
    return [measured, clocks[0].own, clocks[0].time, await this.#redis?.cpu() ?? 0];
  }

  async close() {
    await this.#load?.close();
    await Promise.all(this.#servers.map((server) => server.close()));
  }
}

/** A Redis that keeps nothing on disk. */
class Redis {
  readonly port: number;
  readonly #process: Deno.ChildProcess;
  readonly #socket: Deno.Conn;

  private constructor(port: number, process: Deno.ChildProcess, socket: Deno.Conn) {
    this.port = port;
    this.#process = process;
    this.#socket = socket;
  }

  static async start(): Promise<Redis> {
    const port = await freePort();
    const args = ["--port", `${port}`, "--save", "", "--bind", HOST];
    const process = new Deno.Command("redis-server", { args, stdout: "null" }).spawn();
    for (;;) {
      const socket = await Deno.connect({ hostname: HOST, port }).catch(() => undefined);
      if (socket !== undefined) return new Redis(port, process, socket);
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
  }

  /** The used CPU time, in seconds. */
  async cpu(): Promise<number> {
    await this.#socket.write(new TextEncoder().encode("INFO cpu\r\n"));
    const buffer = new Uint8Array(4096);
    let text = "";
    while (!text.includes("used_cpu_user_children")) {
      const count = await this.#socket.read(buffer);
      text += new TextDecoder().decode(buffer.subarray(0, count ?? 0));
      if (count === null) throw new Error(`Expected INFO, received ${text}`);
    }
    const of = (name: string) => Number(new RegExp(`used_cpu_${name}:([\\d.]+)`).exec(text)![1]);
    return of("sys") + of("user");
  }

  async stop() {
    this.#socket.close();
    this.#process.kill("SIGKILL");
    await this.#process.status;
  }
}

/** The number of deliveries that takes the slowest peer about a tenth of a second. */
const FIRST_TRY = 5000;

async function measure(
  of: Case,
  peers: string[],
  settings: { rounds: number; seconds: number },
): Promise<TopicsMeasurement> {
  const redis = of.processes > 1 ? await Redis.start() : undefined;
  try {
    const contestants = peers.map((peer) => new TopicsPeer(peer, of, redis));
    const run = await contest(contestants, { ...settings, first: FIRST_TRY });
    const { runtime, ...rest } = of;
    const engine = contestants.map(({ name, engine }) => [name, median(engine)]);
    return {
      runtime: runtime.name,
      ...rest,
      peers: rounded(run),
      ...redis === undefined ? {} : { engine: Object.fromEntries(engine) },
    };
  } finally {
    await redis?.stop();
  }
}

function rounded(run: Run): Record<string, number[]> {
  const peers = Object.entries(run);
  return Object.fromEntries(peers.map(([name, { rate }]) => [name, rate.map(Math.round)]));
}

/**
 * Measures everything, and writes bench/results/topics.json.
 *
 * @param separate Whether the measured processes have their own core.
 */
export async function measureTopics(
  separate: boolean,
  settings = { rounds: 3, seconds: 0.3 },
): Promise<void> {
  await mustRun("redis-server", ["--version"]);
  const measurements: TopicsMeasurement[] = [];
  const known: Record<string, string> = {};
  for (const { runtime: name, processes, peers } of SETUPS) {
    const runtime = await findRuntimeByName(name);
    Object.assign(known, versions(runtime));
    for (const size of SIZES) {
      for (const [subscribers, burst] of CASES) {
        const of = { runtime, processes, subscribers, burst, size };
        const measurement = await measure(of, peers, settings);
        measurements.push(measurement);
        const rates = Object.entries(measurement.peers).map(([peer, values]) =>
          `${peer} ${Math.round(median(values)).toLocaleString("en-US")}`
        );
        const what = `${processes} × ${name}, ${size} B, ${burst} to ${subscribers}`;
        console.log(`${what}: ${rates.join(", ")}`);
      }
    }
  }
  const results: TopicsResults = {
    versions: known,
    machine: machine(),
    date: new Date().toISOString().slice(0, 10),
    ...settings,
    separateCores: separate,
    measurements,
  };
  await writeResults("topics", results);
}
