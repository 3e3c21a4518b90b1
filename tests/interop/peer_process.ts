/** A running peer, and the ends of connections that it plays. */
import { Buffer } from "node:buffer";
import { type ChildProcess, spawn } from "node:child_process";
import process from "node:process";
import type { CloseInfo, Message } from "../../mod.ts";
import { until } from "../support.ts";
import { agentCommand, type Peer } from "./peers.ts";

/** Header fields as they were sent. */
export type Fields = readonly (readonly [name: string, value: string])[];

/** A refusal that a server sends or a client receives. */
export interface Refused {
  status: number;
  headers: Fields;
  body: string;
}

/** The options of a peer's end. */
export interface EndOptions {
  protocols?: readonly string[];
  /** Additional header fields of the request or the response. */
  headers?: Fields;
  compression?: boolean;
  /** Whether the end echoes messages, without reporting them. */
  echo?: boolean;
  /** The longest message that the end accepts, in bytes. */
  maxSize?: number;
  /** On a server: the answer to send instead of 101. */
  refuse?: Refused;
  /** On a server: the port to listen on. Default: a free one */
  port?: number;
  /** On a server: the paths of its certificate and its key. */
  tls?: { cert: string; key: string };
  /** On a client: the path of the certificate of the authority that it trusts. */
  ca?: string;
  /** On a server: the user and the password that it accepts. */
  credentials?: readonly [user: string, password: string];
}

/** The events that a peer reports. `agent.py` describes them. */
interface Events {
  listening: { port: number };
  open: { protocol: string; extensions: string[]; headers: Fields; target?: string };
  message: { type: "text" | "binary"; data: string; parts?: number };
  ping: { data: string };
  pong: { data: string };
  closed: { code: number; reason: string };
  refused: Refused;
  failed: { message: string };
}

type Told = { [event in keyof Events]: { event: event } & Events[event] }[keyof Events];

/** A message to send. Each part is a frame. */
export interface Sent {
  type: "text" | "binary";
  parts: readonly (string | Uint8Array)[];
  /** The payloads of pings. Each ping is sent after the part at the same index. */
  pings?: readonly string[];
  /** Whether the parts are sent as they are, even if a part is not valid UTF-8. */
  raw?: boolean;
}

/** A program that plays the peer. */
export class PeerProcess {
  stderr = "";
  /** The versions of the library and of the platform that runs it. */
  readonly version: Promise<string>;
  readonly #process: ChildProcess;
  readonly #ends = new Map<number, PeerEnd>();
  #last = 0;
  #exited = false;
  #rest = "";

  #toldVersion!: (version: string) => void;

  constructor(peer: Peer, env: Record<string, string> = {}) {
    this.version = new Promise((resolve) => this.#toldVersion = resolve);
    const [command, ...args] = agentCommand(peer);
    this.#process = spawn(command, args, {
      env: { ...process.env, NO_COLOR: "1", ...env },
      stdio: ["pipe", "pipe", "pipe"],
    });
    this.#process.on("error", (error) => this.stderr += error);
    this.#process.on("close", () => this.#exited = true);
    // A write may fail while the process ends. The end itself is noticed elsewhere.
    this.#process.stdin!.on("error", () => {});
    this.#process.stderr!.setEncoding("utf8").on("data", (text) => this.stderr += text);
    this.#process.stdout!.setEncoding("utf8").on("data", (text) => this.#take(text));
  }

  #take(text: string): void {
    if (!text.includes("\n")) {
      this.#rest += text;
      return;
    }
    const lines = (this.#rest + text).split("\n");
    this.#rest = lines.pop()!;
    for (const line of lines) {
      const { end, ...told } = JSON.parse(line);
      if (told.event === "version") this.#toldVersion(told.version);
      else this.#ends.get(end)?.told.push(told);
    }
  }

  get exited(): boolean {
    return this.#exited;
  }

  /** Creates a new end of a connection. */
  end(): PeerEnd {
    const id = ++this.#last;
    const end = new PeerEnd({
      order: (command) =>
        this.#process.stdin!.write(`${JSON.stringify({ end: id, ...command })}\n`),
      problem: () => this.#exited ? `the peer has ended: ${this.stderr}` : undefined,
    });
    this.#ends.set(id, end);
    return end;
  }

  /** Ends the process, and waits until it has ended. */
  async stop(): Promise<void> {
    this.#process.stdin!.end();
    this.#process.kill();
    await until(() => this.#exited);
  }
}

/** One end of a connection, played by a peer. */
export class PeerEnd {
  /** The events reported, without those that `next()` has returned. */
  readonly told: Told[] = [];
  readonly #line: { order(command: object): void; problem(): string | undefined };

  constructor(line: { order(command: object): void; problem(): string | undefined }) {
    this.#line = line;
  }

  /** Returns the next event of this type. Events before it are kept. */
  async next<T extends keyof Events>(type: T): Promise<Events[T]> {
    const place = (...types: (keyof Events)[]) =>
      this.told.findIndex(({ event }) => types.includes(event));
    // No event follows one of these.
    const last = () => this.told[place("failed", "refused", "closed")] ?? this.#line.problem();
    await until(() => place(type) !== -1 || last() !== undefined);
    if (place(type) === -1) {
      throw new Error(`Expected the peer to tell of ${type}, received ${JSON.stringify(last())}`);
    }
    const [told] = this.told.splice(place(type), 1);
    return told as unknown as Events[T];
  }

  /** Waits until the program of the peer has ended. */
  async gone(): Promise<void> {
    await until(() => this.#line.problem() !== undefined);
  }

  /** What the end reported when it was open. */
  opened(): Promise<Events["open"]> {
    return this.next("open");
  }

  /** The code and reason that the end was closed with. */
  async closed(): Promise<Required<CloseInfo>> {
    const { code, reason } = await this.next("closed");
    return { closeCode: code, reason };
  }

  /** The payload of the next ping or pong received. */
  async payload(type: "ping" | "pong"): Promise<string> {
    return Buffer.from((await this.next(type)).data, "base64").toString();
  }

  /** The next message, and its number of frames if the peer reports it. */
  async message(): Promise<{ data: Message; parts?: number }> {
    const { type, data, parts } = await this.next("message");
    const bytes = new Uint8Array(Buffer.from(data, "base64"));
    return { data: type === "text" ? new TextDecoder().decode(bytes) : bytes, parts };
  }

  /** Starts to listen for one connection, and returns the port. */
  async listen(options: EndOptions): Promise<number> {
    this.#line.order({ do: "listen", ...options });
    return (await this.next("listening")).port;
  }

  connect(url: string, options: EndOptions): void {
    this.#line.order({ do: "connect", url, ...options });
  }

  send({ type, parts, pings = [], raw }: Sent): void {
    const encoded = { parts: parts.map(base64), pings: pings.map(base64) };
    this.#line.order({ do: "send", type, raw, ...encoded });
  }

  ping(payload: string): void {
    this.#line.order({ do: "ping", data: base64(payload) });
  }

  pong(payload: string): void {
    this.#line.order({ do: "pong", data: base64(payload) });
  }

  close(code?: number, reason?: string): void {
    this.#line.order({ do: "close", code, reason });
  }

  abort(): void {
    this.#line.order({ do: "abort" });
  }

  stop(): void {
    this.#line.order({ do: "stop" });
  }
}

/** The base64 of bytes, or of the UTF-8 of a text. */
export function base64(data: string | Uint8Array): string {
  return Buffer.from(data as Uint8Array).toString("base64");
}
