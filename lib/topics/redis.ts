/** Backplanes over Redis: publish and subscribe, with or without a history in streams. */
import { abortable, Gate, handled, sleep } from "../abortable.ts";
import { MESSAGE_OVERHEAD } from "../connection/sending.ts";
import { failure } from "../core/error.ts";
import { checkKnown } from "../core/option_hints.ts";
import { checkInteger, checkText, type OptionNames } from "../core/options.ts";
import { base64 } from "../core/sha1.ts";
import type {
  Backplane,
  BackplaneCall,
  BackplaneMessage,
  BackplaneReceiver,
  HistoryRead,
  Position,
  ReadCall,
} from "./backplane.ts";
import { Outbox, type OutboxHost } from "./outbox.ts";
import {
  isAnswer,
  opener,
  type RedisClient,
  type RedisConnection,
  RedisLine,
} from "./redis_client.ts";

/** Options of {@linkcode redisBackplane}. */
export interface RedisBackplaneOptions {
  /**
   * Start of the names of all keys and channels. Applications that share a Redis need different prefixes.
   * @default {"sluice:"}
   */
  prefix?: string | undefined;
}

/** Options of {@linkcode redisStreamsBackplane}. */
export interface RedisStreamsBackplaneOptions extends RedisBackplaneOptions {
  /**
   * Maximum number of messages that the history of a topic has.
   * @default {100}
   */
  size?: number | undefined;
  /**
   * Time after the last message of a topic until its history is removed, in milliseconds.
   * @default {300_000}
   */
  ttl?: number | undefined;
}

const OPTIONS: OptionNames<RedisBackplaneOptions> = { prefix: checkText };
const STREAMS_OPTIONS: OptionNames<RedisStreamsBackplaneOptions> = {
  ...OPTIONS,
  size: (name, value) => checkInteger(name, value, 1, 1_000_000),
  ttl: (name, value) => checkInteger(name, value, 1, Number.MAX_SAFE_INTEGER),
};

/**
 * Carries messages by publish and subscribe of Redis 7. Messages that are published while a process is
 * not connected to Redis do not reach its subscribers.
 *
 * @example
 * ```ts no-run
 * import { createClient } from "redis";
 * import { redisBackplane, Topics } from "sluice/topics";
 *
 * const topics = new Topics({ backplane: redisBackplane(createClient()) });
 * ```
 *
 * @param client A client of `redis`, `ioredis` or Bun. The backplane makes two connections with its
 * `duplicate()` and leaves the client itself alone.
 * @throws {TypeError} If the client is none of these, or an option has the wrong type.
 */
export function redisBackplane(
  client: RedisClient,
  options: RedisBackplaneOptions = {},
): Backplane {
  checkKnown("redisBackplane()", options, OPTIONS);
  return new RedisBackplane(client, options.prefix);
}

/**
 * Carries messages over Redis 7 and keeps the last ones of each topic in a stream. Processes get the
 * messages by publish and subscribe, and read those that they have missed from the stream.
 *
 * @example
 * ```ts no-run
 * import { Redis } from "ioredis";
 * import { redisStreamsBackplane, Topics } from "sluice/topics";
 *
 * const backplane = redisStreamsBackplane(new Redis(), { size: 1000, ttl: 600_000 });
 * const topics = new Topics({ backplane });
 * ```
 *
 * @param client A client of `redis`, `ioredis` or Bun. The backplane makes two connections with its
 * `duplicate()` and leaves the client itself alone.
 * @throws {TypeError} If the client is none of these, or an option has the wrong type.
 * @throws {RangeError} If an option has an invalid value.
 */
export function redisStreamsBackplane(
  client: RedisClient,
  options: RedisStreamsBackplaneOptions = {},
): Backplane {
  checkKnown("redisStreamsBackplane()", options, STREAMS_OPTIONS);
  return new RedisStreamsBackplane(client, options);
}

interface Subscription {
  readonly topic: string;
  readonly receiver: BackplaneReceiver;
  /** The place of the last message on this connection. */
  last: Position | undefined;
  isConfirmed: boolean;
  isInterrupted: boolean;
}

/** A message, and in a history the offset of the message before it in the topic. */
interface Parsed extends BackplaneMessage {
  readonly previous?: number;
}

class RedisBackplane implements Backplane {
  readonly prefix: string;
  readonly commands: RedisLine;
  readonly #subscriber: RedisLine;
  /** By channel or pattern. */
  readonly #subscriptions = new Map<string, Subscription>();
  /** The last change of each channel: a client may not change it twice at a time. */
  readonly #changes = new Map<string, Promise<unknown>>();

  constructor(client: RedisClient, prefix = "sluice:") {
    const open = opener(client);
    this.prefix = prefix;
    const nothing = () => {};
    const up = (connection: RedisConnection) => this.prepare(connection);
    this.commands = new RedisLine(open, { message: nothing, up, down: nothing });
    this.#subscriber = new RedisLine(open, {
      message: (text, channel, pattern) => this.#deliver(text, channel, pattern),
      up: (connection) => this.#restore(connection),
      down: (error) => this.#interrupt(error),
    });
  }

  get keepsHistory(): boolean {
    return false;
  }

  /** Prepares a connection before commands use it. */
  async prepare(_connection: RedisConnection): Promise<void> {}

  async subscribe(
    topic: string,
    receiver: BackplaneReceiver,
    { signal }: BackplaneCall,
  ): Promise<void> {
    const channel = this.#channelOf(topic);
    const subscription = {
      topic,
      receiver,
      last: undefined,
      isConfirmed: false,
      isInterrupted: false,
    };
    this.#subscriptions.set(channel, subscription);
    try {
      const connection = await this.#subscriber.ready(signal);
      if (this.#subscriptions.get(channel) !== subscription) {
        throw failure("The subscription has ended", "backplane-failed");
      }
      await abortable(this.#change(channel, connection, "subscribe"), signal);
      if (connection !== await this.#subscriber.ready(signal)) {
        throw failure("The connection to Redis has ended", "backplane-failed");
      }
      subscription.isConfirmed = true;
    } catch (error) {
      if (this.#subscriptions.get(channel) === subscription) await this.unsubscribe(topic);
      throw error;
    }
  }

  async unsubscribe(topic: string): Promise<void> {
    const channel = this.#channelOf(topic);
    if (!this.#subscriptions.delete(channel)) return;
    const connection = this.#subscriber.connection;
    if (connection === undefined) return;
    // A connection that has ended has no subscriptions any more.
    await this.#change(channel, connection, "unsubscribe").catch(() => {});
  }

  async publish(
    topic: string,
    data: Uint8Array | string,
    { signal }: BackplaneCall,
  ): Promise<Position | undefined> {
    await this.commands.command(["PUBLISH", this.prefix + topic, textOf(data)], signal);
    return undefined;
  }

  async announce(
    topic: string,
    owner: string,
    data: Uint8Array,
    ttl: number,
    { signal }: BackplaneCall,
  ): Promise<void> {
    await this.run(ANNOUNCE, [this.#membersOf(topic)], [owner, textOf(data), ttl], signal);
  }

  async withdraw(topic: string, owner: string, { signal }: BackplaneCall): Promise<void> {
    await this.commands.command(["HDEL", this.#membersOf(topic), owner], signal);
  }

  async members(topic: string, { signal }: BackplaneCall): Promise<readonly Uint8Array[]> {
    const found = await this.run(MEMBERS, [this.#membersOf(topic)], [], signal) as string[];
    return found.flatMap((text) => {
      const data = dataOf(text);
      return typeof data === "string" ? utf8.encode(data) : data ?? [];
    });
  }

  // deno-lint-ignore require-await
  async close(): Promise<void> {
    this.#subscriptions.clear();
    this.commands.close();
    this.#subscriber.close();
  }

  /** Runs a script. */
  run(
    script: string,
    keys: string[],
    args: (string | number)[],
    signal: AbortSignal,
  ): Promise<unknown> {
    const command = ["EVAL", script, `${keys.length}`, ...keys, ...args.map(String)];
    return this.commands.command(command, signal);
  }

  /** The key of a topic. All keys of a topic are in one slot of a cluster. */
  keyOf(topic: string, kind: string): string {
    return `${this.prefix}{t:${topic}}:${kind}`;
  }

  /** Parses what was published. Returns undefined if it is not a message. */
  parse(text: string): Parsed | undefined {
    const data = dataOf(text);
    return data === undefined ? undefined : { data, position: undefined };
  }

  #membersOf(topic: string): string {
    return this.keyOf(topic, "members");
  }

  /** The channel of a topic, or the pattern of a prefix, in which all other characters are escaped. */
  #channelOf(topic: string): string {
    const channel = this.prefix + topic;
    return isPattern(channel)
      ? `${channel.slice(0, -1).replace(/[\\*?[\]^-]/g, "\\$&")}*`
      : channel;
  }

  #change(
    channel: string,
    connection: RedisConnection,
    change: "subscribe" | "unsubscribe",
  ): Promise<unknown> {
    const run = () => connection[change](channel, isPattern(channel));
    const before = this.#changes.get(channel);
    const changed = handled(before === undefined ? run() : before.then(run, run));
    this.#changes.set(channel, changed);
    const forget = () => {
      if (this.#changes.get(channel) === changed) this.#changes.delete(channel);
    };
    changed.then(forget, forget);
    return changed;
  }

  #deliver(text: string, channel: string, pattern?: string): void {
    const subscription = this.#subscriptions.get(pattern ?? channel);
    if (subscription === undefined) return;
    const message = this.parse(text);
    if (message !== undefined) {
      const topic = channel.slice(this.prefix.length);
      if (pattern === undefined) this.#checkOrder(topic, subscription, message);
      subscription.receiver.message(topic, message);
    } else {
      const error = `Redis sent something that is not a message on the channel ${channel}`;
      subscription.receiver.error(failure(error, "malformed-message"));
    }
  }

  /** Lets the receiver read the history if messages before this one did not come. */
  #checkOrder(topic: string, subscription: Subscription, { position, previous }: Parsed): void {
    const { last, receiver, isConfirmed, isInterrupted } = subscription;
    subscription.last = position;
    const isNext = last?.epoch !== position?.epoch || last?.offset === previous;
    if (isNext || isInterrupted || !isConfirmed) return;
    receiver.interrupted(failure(`Redis has left out messages of ${topic}`, "backplane-failed"));
    receiver.restored();
  }

  #interrupt(error: unknown): void {
    for (const subscription of this.#subscriptions.values()) {
      subscription.last = undefined;
      if (!subscription.isConfirmed || subscription.isInterrupted) continue;
      subscription.isInterrupted = true;
      subscription.receiver.interrupted(error);
    }
  }

  async #restore(connection: RedisConnection): Promise<void> {
    // A subscription may have been confirmed while its connection ended.
    this.#interrupt(failure("The connection to Redis has ended", "backplane-failed"));
    const channels = Array.from(this.#subscriptions).filter(([, { isConfirmed }]) => isConfirmed);
    await Promise.all(channels.map(([channel]) => this.#change(channel, connection, "subscribe")));
    for (const [channel, subscription] of channels) {
      if (this.#subscriptions.get(channel) !== subscription) continue;
      subscription.isInterrupted = false;
      subscription.receiver.restored();
    }
  }
}

/** Time for which Redis keeps the position of a topic after its last message, in milliseconds. */
const POSITION_TTL = 86_400_000;
/** Pause before a message is published again, in milliseconds. */
const RETRY_PAUSE = 50;

class RedisStreamsBackplane extends RedisBackplane implements OutboxHost {
  readonly #size: number;
  readonly #ttl: number;
  readonly #process = crypto.randomUUID();
  readonly #gate = new Gate();
  readonly #outbox: Outbox = new Outbox(this);
  #count = 0;
  /** The id of this run of the Redis that is connected. "" if Redis does not tell. */
  #run = "";

  constructor(client: RedisClient, options: RedisStreamsBackplaneOptions) {
    super(client, options.prefix);
    this.#size = options.size ?? 100;
    this.#ttl = options.ttl ?? 300_000;
  }

  override get keepsHistory(): boolean {
    return true;
  }

  override async prepare(connection: RedisConnection): Promise<void> {
    // A Redis that loads its file refuses commands, but answers INFO. If a load ends between two messages,
    // only the first one is refused, and the second one overtakes it.
    await connection.command(["PING"]);
    const info = await connection.command(["INFO", "server"]).catch((error) => {
      if (isTransient(error)) throw error;
      // The user of the connection may not ask.
    });
    this.#run = /run_id:(\w+)/.exec(String(info))?.[1] ?? "";
  }

  override async publish(
    topic: string,
    data: Uint8Array | string,
    { signal }: BackplaneCall,
  ): Promise<Position> {
    const id = `${this.#process}-${++this.#count}`;
    const args = [this.prefix + topic, id, textOf(data), this.#size, this.#ttl];
    let again = 0;
    const place = await this.#outbox.publish(topic, signal, () => {
      const published = this.#runAt(PUBLISH, topic, [...args, again], signal);
      // From now on the message may be in the history. To look there takes Redis long.
      again = 1;
      return published;
    });
    return parsePlace(place)!;
  }

  get canSend(): boolean {
    return !this.#gate.isClosed && this.commands.connection !== undefined;
  }

  async ready(signal: AbortSignal): Promise<void> {
    await this.#gate.pass(signal);
    await this.commands.ready(signal);
  }

  isRefusal(error: unknown): boolean {
    return isAnswer(error);
  }

  failed(error: unknown, signal: AbortSignal): void {
    if (signal.aborted || this.commands.isClosed || !isTransient(error)) throw error;
    this.#gate.close(() =>
      Promise.allSettled([sleep(RETRY_PAUSE, signal), this.#outbox.settled()])
    );
  }

  async read(
    topic: string,
    since: Position | undefined,
    { signal, maxBytes = Infinity }: ReadCall,
  ): Promise<HistoryRead> {
    const most = Math.min(maxBytes, Number.MAX_SAFE_INTEGER);
    const args = [since?.epoch ?? "", since?.offset ?? 0, most, MESSAGE_OVERHEAD];
    await this.commands.ready(signal);
    const found = await this.#runAt(READ, topic, args, signal);
    const [last, entries, isPart] = found as [string, [id: string, fields: string[]][], unknown];
    const position = parsePlace(last)!;
    if (since === undefined) return { recovered: true, messages: [], position };
    const messages: BackplaneMessage[] = [];
    let { offset } = since;
    for (const [id, fields] of entries) {
      const message = this.parse(`${id} ${fields[3]} ${fields[5]}`);
      if (message?.previous !== offset) break;
      messages.push(message);
      offset = message.position!.offset;
    }
    const isWhole = entries.length === messages.length &&
      (offset === position.offset || isPart === 1);
    const isComplete = since.epoch === position.epoch && isWhole;
    return { recovered: isComplete, messages: isComplete ? messages : [], position };
  }

  override parse(text: string): Parsed | undefined {
    const [start = "", id, previous] = /^(\S+) (\d{1,16}) /.exec(text) ?? [];
    const position = parsePlace(id);
    const data = dataOf(text.slice(start.length));
    if (position === undefined || data === undefined) return undefined;
    return { data, position, previous: Number(previous) };
  }

  /** Runs a script that begins with `PLACE`. The run is that of the connection, which must be ready. */
  #runAt(
    script: string,
    topic: string,
    args: (string | number)[],
    signal: AbortSignal,
  ): Promise<unknown> {
    const keys = [this.keyOf(topic, "stream"), this.keyOf(topic, "position")];
    const keep = Math.max(this.#ttl, POSITION_TTL);
    return this.run(script, keys, [keep, this.#run, ...args], signal);
  }
}
function isPattern(channel: string): boolean {
  return channel.endsWith("*");
}

/** Whether a command may succeed later: the connection has ended, or Redis is starting or failing over. */
function isTransient(error: unknown): boolean {
  return !isAnswer(error) ||
    /^(LOADING|READONLY|MASTERDOWN|CLUSTERDOWN|TRYAGAIN|BUSY|NOREPLICAS) /
      .test((error as Error).message);
}

/** Parses the ID of an entry of a stream, which is `epoch-offset`. */
function parsePlace(id: unknown): Position | undefined {
  const [, epoch, digits] = /^(\d{1,20})-(\d{1,16})$/.exec(String(id)) ?? [];
  return epoch === undefined ? undefined : { epoch, offset: Number(digits) };
}

const utf8 = new TextEncoder();
const strict = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });

/** Writes data as text, because Bun's client carries only text: `t` and the text, or `b` and base64. */
function textOf(data: Uint8Array | string): string {
  if (typeof data === "string") return `t${data}`;
  try {
    return `t${strict.decode(data)}`;
  } catch {
    return `b${base64(data)}`;
  }
}

function dataOf(text: string): Uint8Array | string | undefined {
  if (text.startsWith("t")) return text.slice(1);
  if (!text.startsWith("b")) return undefined;
  try {
    return Uint8Array.from(atob(text.slice(1)), (character) => character.charCodeAt(0));
  } catch {
    return undefined;
  }
}

/** Offsets that are left out when another run of Redis goes on, which may not have the last messages. */
const LEFT_OUT = 1_000_000_000;

/**
 * Finds the place of the last message of a topic: its epoch, its offset, and the run of Redis that has
 * taken it. A Redis that was restarted, or that was a replica, may have lost messages whose offsets
 * subscribers know. It must not give these offsets to other messages.
 */
const PLACE = `
local function new_epoch()
  local time = redis.call('TIME')
  return string.format('%d%06d', time[1], time[2])
end
local stored = redis.call('GET', KEYS[2])
local epoch, offset, run
if stored then epoch, offset, run = string.match(stored, '^(%d+)-(%d+) (%w*)$') end
-- A position must stay a safe integer.
if not epoch or #epoch > 20 or #offset > 15 then
  redis.call('DEL', KEYS[1])
  epoch, offset, run = new_epoch(), '0', ''
end
-- A Redis that does not tell its run is taken for the same one.
local isSame = run == ARGV[2] or run == '' or ARGV[2] == ''
if ARGV[2] ~= '' then run = ARGV[2] end
local function store(id)
  redis.call('SET', KEYS[2], id .. ' ' .. run, 'PX', ARGV[1])
end`;

/** Appends a message, unless it is published again and there already, and publishes it. */
const PUBLISH = `${PLACE}
if ARGV[8] == '1' then
  for _, entry in ipairs(redis.call('XREVRANGE', KEYS[1], '+', '-')) do
    if entry[2][2] == ARGV[4] then return entry[1] end
  end
end
local step = isSame and 1 or ${LEFT_OUT}
local id = epoch .. '-' .. string.format('%.0f', tonumber(offset) + step)
redis.call('XADD', KEYS[1], 'MAXLEN', '=', ARGV[6], id, 'i', ARGV[4], 'p', offset, 'm', ARGV[5])
redis.call('PEXPIRE', KEYS[1], ARGV[7])
store(id)
redis.call('PUBLISH', ARGV[3], id .. ' ' .. offset .. ' ' .. ARGV[5])
return id`;

/**
 * Returns the position of a topic, which begins now if it has none, the messages after another one, and
 * whether these are a part of them.
 */
const READ = `${PLACE}
local id = epoch .. '-' .. offset
if not stored then store(id) end
if ARGV[3] ~= epoch or tonumber(ARGV[4]) >= tonumber(offset) then return { id, {}, 0 } end
local most, size, found, last = tonumber(ARGV[5]), 0, {}, epoch .. '-' .. ARGV[4]
repeat
  local entries = redis.call('XRANGE', KEYS[1], '(' .. last, '+', 'COUNT', 32)
  for _, entry in ipairs(entries) do
    size = size + #entry[2][6] + ARGV[6]
    if #found > 0 and size > most then return { id, found, 1 } end
    table.insert(found, entry)
    last = entry[1]
  end
until #entries < 32
return { id, found, 0 }`;

/** Stores the data of a process with the time at which they expire, by the clock of Redis. */
const ANNOUNCE = `
local time = redis.call('TIME')
local expires = time[1] * 1000 + math.floor(time[2] / 1000) + ARGV[3]
redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f', expires) .. ' ' .. ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end`;

/** Returns the data that have not expired, and removes the others. */
const MEMBERS = `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
local all = redis.call('HGETALL', KEYS[1])
for i = 1, #all, 2 do
  local expires, data = string.match(all[i + 1], '^(%d+) (.*)$')
  if expires and tonumber(expires) > now then
    table.insert(found, data)
  else
    redis.call('HDEL', KEYS[1], all[i])
  end
end
return found`;
