/** What the peers in JavaScript share. `agent.py` describes the commands and the events. */
export const HOST = "127.0.0.1";

/** The longest message that a peer accepts if its options do not say. */
export const MAX_SIZE = 2 ** 26;

/** A frame of a message to send. */
export interface Part {
  data: Uint8Array;
  /** The text of the frame, unless the message is binary or sent as it is. */
  text?: string;
  /** The type of the message. */
  type: "text" | "binary";
  first: boolean;
  last: boolean;
}

/** The options of the commands "listen" and "connect". */
export interface Options {
  url?: string;
  port?: number;
  protocols?: string[];
  headers?: [name: string, value: string][];
  compression?: boolean;
  echo?: boolean;
  maxSize?: number;
  refuse?: { status: number; headers: [string, string][]; body: string };
  /** Paths of files in PEM format. */
  tls?: { cert: string; key: string };
  ca?: string;
}

/** Base64 of bytes, or of a text in UTF-8. Pages have no Buffer. */
export function toText(data: string | Uint8Array): string {
  const bytes = typeof data === "string" ? new TextEncoder().encode(data) : data;
  const blocks: string[] = [];
  for (let at = 0; at < bytes.length; at += 8192) {
    blocks.push(String.fromCharCode(...bytes.subarray(at, at + 8192)));
  }
  return btoa(blocks.join(""));
}

export function toBytes(text: string): Uint8Array {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0));
}

function decoded(bytes: Uint8Array): string {
  return new TextDecoder("utf-8", { ignoreBOM: true }).decode(bytes);
}

/** The header fields that Node lists as names and values in turn. */
export function pairs(raw: readonly string[]): [string, string][] {
  return Array.from({ length: raw.length / 2 }, (_, i) => [raw[2 * i], raw[2 * i + 1]]);
}

/** Header fields as an object. A name that comes several times has an array. */
export function grouped(fields: readonly [string, string][] = []): Record<string, string[]> {
  const all: Record<string, string[]> = {};
  for (const [name, value] of fields) (all[name] ??= []).push(value);
  return all;
}

type Tell = (told: object) => void;

/** One end of a connection. A library provides what the abstract methods do. */
export abstract class End {
  options: Options = {};
  #stopped = false;
  readonly #tell: Tell;

  constructor(tell: Tell) {
    this.#tell = tell;
  }

  abstract listen(): void | Promise<void>;
  abstract connect(): void | Promise<void>;
  abstract sendPart(part: Part): void | Promise<void>;
  abstract sendWhole(data: string | Uint8Array): void | Promise<void>;
  abstract ping(data: Uint8Array): void;
  abstract pong(data: Uint8Array): void;
  abstract close(code?: number, reason?: string): void | Promise<void>;
  abstract abort(): void;
  abstract stop(): void;

  tell(event: string, fields: object = {}): void {
    if (!this.#stopped) this.#tell({ event, ...fields });
  }

  /** Echoes a message, or reports it. */
  take(data: string | Uint8Array): void {
    if (this.options.echo) void this.sendWhole(data);
    else {
      const type = typeof data === "string" ? "text" : "binary";
      this.tell("message", { type, data: toText(data) });
    }
  }

  /** The subprotocol that a server chooses. */
  choose(offered: Iterable<string>): string | undefined {
    return [...offered].find((name) => this.options.protocols?.includes(name));
  }

  /** Executes a command. */
  async obey(command: Record<string, unknown>): Promise<void> {
    const { do: name, data, code, reason } = command as Record<string, string>;
    if (name === "listen" || name === "connect") {
      this.options = command as Options;
      await this[name]();
    } else if (name === "send") await this.#send(command as unknown as SendCommand);
    else if (name === "ping" || name === "pong") this[name](toBytes(data));
    else if (name === "close") await this.close(code as unknown as number, reason);
    else if (name === "abort") this.abort();
    else {
      this.#stopped = true;
      this.stop();
    }
  }

  async #send({ type, parts, pings, raw }: SendCommand): Promise<void> {
    const all = parts.map(toBytes);
    const isText = type === "text" && !raw;
    if (all.length === 1 && !raw) {
      await this.sendWhole(isText ? decoded(all[0]) : all[0]);
      return;
    }
    for (const [i, data] of all.entries()) {
      const text = isText ? decoded(data) : undefined;
      await this.sendPart({ data, text, type, first: i === 0, last: i === all.length - 1 });
      if (i < pings.length) this.ping(toBytes(pings[i]));
    }
  }
}

interface SendCommand {
  type: "text" | "binary";
  parts: string[];
  pings: string[];
  raw?: boolean;
}

/** Where the commands come from and where the events go. */
export interface Channel {
  commands: AsyncIterable<string>;
  write(line: string): void;
}

/** Plays the ends that the commands name until there are no more commands. */
export async function run(
  version: string,
  create: (tell: Tell) => End,
  { commands, write }: Channel,
): Promise<void> {
  write(JSON.stringify({ event: "version", version }));
  const ends = new Map<number, { end: End; done: Promise<void> }>();
  for await (const line of commands) {
    const { end: id, ...command } = JSON.parse(line);
    const tell = (told: object) => write(JSON.stringify({ end: id, ...told }));
    let entry = ends.get(id);
    if (entry === undefined) ends.set(id, entry = { end: create(tell), done: Promise.resolve() });
    const { end } = entry;
    entry.done = entry.done.then(() => end.obey(command)).catch((error) =>
      end.tell("failed", { message: String(error?.stack ?? error) })
    );
    if (command.do === "stop") ends.delete(id);
  }
}
