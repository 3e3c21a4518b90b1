/** The two kinds of measured processes: a server with a load, and a client of a raw server. */
import type { Runtime } from "../runtimes.ts";
import { type Contestant, type Round, timed } from "./contest.ts";
import type { Load } from "./lane.ts";
import type { Program } from "./cores.ts";
import { Measured, programOf } from "./measured.ts";
import { RawServer, type RawServerOptions } from "./raw_server.ts";

/** The peer that is ws with its native addon. ws uses the addon if it is installed. */
export const BUFFERUTIL = "bufferutil";

/** A script of this folder for one of the peers. `profileFolder` receives a CPU profile (Node only). */
export function peerProgram(
  runtime: Runtime,
  script: "server.ts" | "client.ts",
  args: string[],
  profileFolder?: URL,
): Program {
  const flags = profileFolder && ["--cpu-prof", `--cpu-prof-dir=${profileFolder.pathname}`];
  const env: Record<string, string> = args[0] === BUFFERUTIL ? {} : { WS_NO_BUFFER_UTIL: "1" };
  return { ...programOf(runtime, script, args, flags), env };
}

/** A measured server. */
export class ServerPeer implements Contestant {
  readonly name: string;
  readonly #program: Program;
  readonly #connect: (port: number) => Promise<Load>;
  #server: Measured | undefined;
  #load: Load | undefined;

  constructor(name: string, program: Program, connect: (port: number) => Promise<Load>) {
    this.name = name;
    this.#program = program;
    this.#connect = connect;
  }

  async open() {
    this.#server = new Measured(this.#program);
    this.#load = await this.#connect(await this.#server.number());
  }

  async round(messages: number): Promise<Round> {
    const [server, load] = [this.#server!, this.#load!];
    const timedWithAge = (work: () => Promise<number>) =>
      timed(server, async () => {
        const done = await work();
        if (load.isKept) await server.ask("age");
        return done;
      });
    const round = await timedWithAge(() => load.run(messages));
    const end = load.end && await timedWithAge(() => load.end!());
    const figures = { ...round.figures, ...end && { end: end.figures.rate }, ...load.figures?.() };
    return { ...round, figures };
  }

  async close() {
    await this.#load?.close();
    await this.#server?.close();
  }
}

/** A measured client with several connections. */
export class ClientPeer implements Contestant {
  readonly name: string;
  readonly #program: Program;
  readonly #options: RawServerOptions & { connections: number; inFlight: number };
  #server: RawServer | undefined;
  #client: Measured | undefined;

  constructor(
    name: string,
    program: Program,
    options: RawServerOptions & { connections: number; inFlight: number },
  ) {
    this.name = name;
    this.#program = program;
    this.#options = options;
  }

  async open() {
    this.#server = await RawServer.listen(this.#options);
    const { connections, inFlight, type, size } = this.#options;
    const args = [this.#server.port, connections, inFlight, type, size].map(String);
    this.#client = new Measured({ ...this.#program, args: [...this.#program.args, ...args] });
    // The client prints a number when it is open and its messages were verified.
    await this.#client.numbers();
  }

  round(messages: number): Promise<Round> {
    const client = this.#client!;
    return timed(client, async () => (await client.ask(String(messages)))[0]);
  }

  async close() {
    await this.#client?.close();
    this.#server?.close();
  }
}
