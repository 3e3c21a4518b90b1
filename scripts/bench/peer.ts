/** A server that is measured, in a process of its own, and the load on it. */
import process from "node:process";
import { ROOT } from "../process.ts";
import type { Runtime } from "../runtimes.ts";
import { DeflateLoad } from "./deflate_load.ts";
import { Load, type LoadOptions } from "./load.ts";

const FLAGS: Record<Runtime["engine"], string[]> = {
  deno: ["run", "-A", "--v8-flags=--expose-gc"],
  bun: ["run"],
  node: ["--expose-gc", "--disable-warning=ExperimentalWarning"],
};

/** One round. */
export interface Round {
  /** Messages per second of the server's CPU time. */
  rate: number;
  /** How much of the round each side computed; over 1 with several threads. */
  serverBusy: number;
  clientBusy: number;
  seconds: number;
}

/** A server and the connections to it. */
export class Peer {
  readonly name: string;
  readonly #process: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #lines: ReadableStreamDefaultReader<string>;
  #load: Load | DeflateLoad | undefined;

  /**
   * @param args what `server.ts` is told
   * @param profileFolder where to put a CPU profile of the server; Node only
   */
  constructor(name: string, runtime: Runtime, args: string[], profileFolder?: URL) {
    const profile = profileFolder && ["--cpu-prof", `--cpu-prof-dir=${profileFolder.pathname}`];
    this.name = name;
    this.#process = new Deno.Command(runtime.path, {
      args: [...FLAGS[runtime.engine], ...profile ?? [], "scripts/bench/server.ts", ...args],
      cwd: ROOT,
      stdin: "piped",
      stdout: "piped",
    }).spawn();
    this.#input = this.#process.stdin.getWriter();
    this.#lines = this.#process.stdout
      .pipeThrough(new TextDecoderStream())
      .pipeThrough(splitLines())
      .getReader();
  }

  /** Wait for the server and connect to it. */
  async open(options: LoadOptions) {
    const port = await this.#number();
    this.#load = await (options.deflate ? DeflateLoad : Load).connect(port, options);
  }

  /** Bytes of memory that a connection takes when a message has come and gone. */
  async memory(connections: number, options: LoadOptions): Promise<number> {
    const port = await this.#number();
    const load = options.deflate ? DeflateLoad : Load;
    const warm = await load.connect(port, { ...options, connections: 20 });
    const before = await this.#ask("memory");
    this.#load = await load.connect(port, { ...options, connections });
    const after = await this.#ask("memory");
    warm.close();
    return (after - before) / connections;
  }

  /** Have the messages echoed and see what that took. */
  async measure(messages: number): Promise<Round> {
    if (this.#load === undefined) throw new Error("Expected an open peer");
    const before = await this.#clocks();
    const echoed = await this.#load.run(messages);
    const after = await this.#clocks();
    const seconds = after.time - before.time;
    const server = after.server - before.server;
    const client = after.client - before.client;
    return {
      rate: echoed / server,
      serverBusy: server / seconds,
      clientBusy: client / seconds,
      seconds,
    };
  }

  /** Disconnect and end the server. */
  async close() {
    this.#load?.close();
    await this.#input.close();
    await this.#lines.cancel();
    await this.#process.status;
  }

  /** CPU time of both sides and the time of day, in seconds. */
  async #clocks(): Promise<{ server: number; client: number; time: number }> {
    const server = await this.#ask("") / 1e6;
    const { user, system } = process.cpuUsage();
    return { server, client: (user + system) / 1e6, time: performance.now() / 1e3 };
  }

  async #ask(question: string): Promise<number> {
    await this.#input.write(new TextEncoder().encode(`${question}\n`));
    return await this.#number();
  }

  async #number(): Promise<number> {
    const { value } = await this.#lines.read();
    if (value === undefined) throw new Error(`The server with ${this.name} has ended`);
    return Number(value);
  }
}

function splitLines(): TransformStream<string, string> {
  let rest = "";
  return new TransformStream({
    transform(text, controller) {
      const lines = (rest + text).split("\n");
      rest = lines.pop()!;
      for (const line of lines) controller.enqueue(line);
    },
  });
}
