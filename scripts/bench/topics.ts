/**
 * Measures the fan-out of topics in one process, and in three over Redis: messages delivered in a second of
 * the servers' CPU time, beside a loop over `ws.send()` and Socket.IO with its Redis Streams adapter. One
 * message, or a burst of ten, is in flight: the next one is published when all subscribers have it.
 */
import { mustRun } from "../process.ts";
import { findRuntimeByName } from "./options.ts";
import { encode, handshake } from "./frames.ts";
import { LineProcess, programOf } from "./measured.ts";
import { median } from "./statistics.ts";

const HOST = "127.0.0.1";
const PEERS = ["streams", "pubsub", "ws", "socket.io"];
/** The numbers of subscribers, and of messages that are published at once. */
const CASES = [[10, 1], [1000, 1], [10_000, 1], [1000, 10]] as const;
const SIZES = [64, 1024];
const ROUNDS = 3;
/** Deliveries of a round. */
const DELIVERIES = 60_000;

const ascii = new TextEncoder();

/** Counts the bytes that all subscribers have received. */
class Audience {
  readonly sockets: Deno.Conn[] = [];
  received = 0;
  #goal = 0;
  #reached = () => {};

  async join(port: number, isSocketIo: boolean): Promise<void> {
    const socket = await Deno.connect({ hostname: HOST, port });
    this.sockets.push(socket);
    const path = isSocketIo ? "/socket.io/?EIO=4&transport=websocket" : "/";
    await socket.write(ascii.encode(handshake(path)));
    const buffer = new Uint8Array(65536);
    const read = async (end: string) => {
      for (let text = ""; !text.includes(end);) {
        const count = await socket.read(buffer);
        if (count === null) throw new Error(`Expected ${end}, received ${text}`);
        text += new TextDecoder("latin1").decode(buffer.subarray(0, count));
      }
    };
    await read(isSocketIo ? '0{"sid"' : "\r\n\r\n");
    if (isSocketIo) {
      await socket.write(frameOf("40"));
      await read('40{"sid"');
    }
    void this.#count(socket, buffer);
  }

  async #count(socket: Deno.Conn, buffer: Uint8Array<ArrayBuffer>): Promise<void> {
    for (;;) {
      const count = await socket.read(buffer).catch(() => null);
      if (count === null) return;
      this.received += count;
      if (this.received >= this.#goal) this.#reached();
    }
  }

  async until(bytes: number): Promise<void> {
    if (this.received >= bytes) return;
    this.#goal = bytes;
    await new Promise<void>((resolve) => this.#reached = resolve);
  }
}

function frameOf(text: string): Uint8Array<ArrayBuffer> {
  return new Uint8Array(encode(0x81, ascii.encode(text), true));
}

/** The CPU time of a process, in seconds. */
async function cpuOf(pid: number): Promise<number> {
  const stat = await Deno.readTextFile(`/proc/${pid}/stat`);
  const [user, system] = stat.slice(stat.lastIndexOf(")") + 2).split(" ").slice(11, 13).map(Number);
  return (user + system) / 100;
}

/** Measures deliveries in a CPU second of the servers, and the CPU time of Redis for a message, in µs. */
async function measure(
  peer: string,
  processes: number,
  subscribers: number,
  burst: number,
  size: number,
) {
  const runtime = await findRuntimeByName("node24");
  const folder = await Deno.makeTempDir();
  const redisPort = 17_000 + Deno.pid % 1000;
  const servers: LineProcess[] = [];
  let redis: Deno.ChildProcess | undefined;
  const audience = new Audience();
  try {
    const port: string[] = [];
    if (processes > 1) {
      port.push(`${redisPort}`);
      const args = ["--port", `${redisPort}`, "--dir", folder, "--save", "", "--bind", HOST];
      redis = new Deno.Command("redis-server", { args, stdout: "null" }).spawn();
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
    for (let i = 0; i < processes; i++) {
      servers.push(new LineProcess(programOf(runtime, "topics_server.ts", [peer, ...port])));
    }
    const ports = await Promise.all(servers.map((server) => server.number()));
    const isSocketIo = peer === "socket.io";
    for (let i = 0; i < subscribers; i++) await audience.join(ports[i % processes], isSocketIo);
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const payload = "x".repeat(size);
    const frame = frameOf(isSocketIo ? `42["p","${payload}"]` : payload);
    const length = isSocketIo ? size + '42["m",""]'.length : size;
    const delivered = subscribers * (length + (length < 126 ? 2 : 4));
    audience.received = 0;
    let sent = 0;
    const frames = Uint8Array.from(Array.from({ length: burst }, () => [...frame]).flat());
    const publish = async (count: number) => {
      for (let i = 0; i < count; i += burst) {
        await audience.sockets[0].write(frames);
        await audience.until((sent += burst) * delivered);
      }
    };
    const messages = burst * Math.max(2, Math.ceil(DELIVERIES / subscribers / burst));
    await publish(burst * Math.ceil(messages / 5 / burst));
    const rates: number[] = [];
    const engine: number[] = [];
    const clock = async () => {
      const times = await Promise.all(servers.map(({ pid }) => cpuOf(pid)));
      const own = redis === undefined ? 0 : await cpuOf(redis.pid);
      return [times.reduce((sum, time) => sum + time, 0), own];
    };
    for (let round = 0; round < ROUNDS; round++) {
      const before = await clock();
      await publish(messages);
      const after = await clock();
      rates.push(messages * subscribers / Math.max(after[0] - before[0], 0.01));
      engine.push((after[1] - before[1]) / messages * 1e6);
    }
    return { rate: median(rates), redis: median(engine), rss: await memoryOf(servers[0].pid) };
  } finally {
    for (const socket of audience.sockets) socket.close();
    await Promise.all(servers.map((server) => server.close()));
    redis?.kill("SIGKILL");
    await redis?.status;
    await Deno.remove(folder, { recursive: true });
  }
}

/** The resident memory of a process, in MiB. */
async function memoryOf(pid: number): Promise<number> {
  const [, kilobytes] = /VmRSS:\s+(\d+)/.exec(await Deno.readTextFile(`/proc/${pid}/status`)) ?? [];
  return Number(kilobytes) / 1024;
}

/** Prints a table for each number of processes and each size. */
export async function measureTopics(): Promise<void> {
  await mustRun("redis-server", ["--version"]);
  for (const processes of [1, 3]) {
    for (const size of SIZES) {
      const where = processes === 1 ? "one process" : "three processes over Redis";
      console.log(`\nmessages delivered per CPU second, ${where}, ${size} B, node24`);
      for (const [subscribers, burst] of CASES) {
        for (const peer of processes === 1 ? PEERS.slice(1) : PEERS) {
          const { rate, redis, rss } = await measure(peer, processes, subscribers, burst, size);
          const figures = [rate, redis, rss].map((value) =>
            Math.round(value).toLocaleString("en-US")
          );
          console.log(
            `  ${`${burst} to ${subscribers}`.padStart(10)} ${peer.padEnd(10)} ${
              figures[0].padStart(9)
            }` +
              `   Redis ${figures[1].padStart(6)} µs a message   ${
                figures[2].padStart(5)
              } MiB a server`,
          );
        }
      }
    }
  }
}
