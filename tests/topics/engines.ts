/** Redis and NATS as separate programs, on free ports and with folders of their own. */
import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { connect } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { commandOf, PEERS } from "../interop/peers.ts";
import { freePort, HOST } from "../ports.ts";

/** Kills a process when the standard input ends, which it does when the process of the tests has ended. */
const WATCH = 'read _; kill -9 "$0"';

/**
 * A folder for Redis, which waits for the disk before each answer. It is in memory if possible, because the
 * disk of a shared machine may stand still for minutes.
 */
export const REDIS_FOLDER = existsSync("/dev/shm") ? "/dev/shm" : tmpdir();

/** A program that listens on a port, and may be killed, restarted and stopped for a while. */
export class EngineProcess {
  readonly port: number;
  readonly folder: string;
  readonly #command: string[];
  /** What the server answers when it is ready, after it was sent `ask`. */
  readonly #ready: { ask: string; answer: RegExp };
  #child: ChildProcess | undefined;
  #watcher: ChildProcess | undefined;

  constructor(
    port: number,
    folder: string,
    command: string[],
    ready: { ask: string; answer: RegExp },
  ) {
    this.port = port;
    this.folder = folder;
    this.#command = command;
    this.#ready = ready;
  }

  /** Starts the program, and waits until it answers. */
  async start(): Promise<void> {
    const [program, ...args] = this.#command;
    const child = spawn(program, args, { stdio: "ignore", cwd: this.folder });
    this.#child = child;
    this.#watcher = spawn("sh", ["-c", WATCH, `${child.pid}`], {
      stdio: ["pipe", "ignore", "ignore"],
    });
    let answered = false;
    while (!answered) {
      if (child.exitCode !== null) throw new Error(`${program} has ended with ${child.exitCode}`);
      answered = this.#ready.answer.test(await this.ask(this.#ready.ask));
    }
  }

  /** Sends text to the server, and returns the start of its answer; "" if there is none. */
  async ask(text: string): Promise<string> {
    const socket = connect(this.port, HOST);
    try {
      await once(socket, "connect");
      socket.write(text);
      const [answer] = await once(socket, "data");
      return String(answer);
    } catch {
      return "";
    } finally {
      socket.destroy();
    }
  }

  /** Ends the program as a crash does. */
  async kill(): Promise<void> {
    const child = this.#child;
    if (child === undefined) return;
    this.#child = undefined;
    // First of all, because the id of the program may be used again when it has ended.
    this.#watcher!.kill("SIGKILL");
    const gone = once(child, "exit");
    child.kill("SIGKILL");
    await gone;
  }

  /** Makes the program stand still. */
  async pause(): Promise<void> {
    const { pid } = this.#child!;
    process.kill(pid!, "SIGSTOP");
    const status = () => readFile(`/proc/${pid}/status`, "utf8").catch(() => "State: T");
    while (!/State:\s+T/.test(await status()));
  }

  resume(): void {
    process.kill(this.#child!.pid!, "SIGCONT");
  }

  /** Ends the program and removes its folder. */
  async stop(): Promise<void> {
    await this.kill();
    await rm(this.folder, { recursive: true, force: true });
  }
}

/**
 * Starts Redis.
 *
 * @param persistent Whether Redis writes each command to the disk before it answers. Otherwise, a restart
 * loses everything.
 */
export async function startRedis(persistent = false): Promise<EngineProcess> {
  const folder = await mkdtemp(join(REDIS_FOLDER, "sluice-redis-"));
  const port = await freePort();
  const [program] = commandOf(PEERS.redis);
  const args = ["--port", `${port}`, "--bind", HOST, "--dir", folder, "--save", ""];
  // With "everysec", a Redis that is killed while it waits for the disk loses what it has confirmed.
  const append = persistent ? ["--appendonly", "yes", "--appendfsync", "always"] : [];
  const command = [program, ...args, ...append, "--maxclients", "500"];
  const engine = new EngineProcess(port, folder, command, { ask: "PING\r\n", answer: /^\+PONG/ });
  await engine.start();
  return engine;
}

/** Starts NATS with JetStream, which stores its streams in a folder. */
export async function startNats(): Promise<EngineProcess> {
  const folder = await mkdtemp(join(tmpdir(), "sluice-nats-"));
  const port = await freePort();
  const [program] = commandOf(PEERS.nats);
  const command = [program, "-a", HOST, "-p", `${port}`, "-js", "-sd", folder];
  const engine = new EngineProcess(port, folder, command, { ask: "", answer: /^INFO .*jetstream/ });
  await engine.start();
  return engine;
}
