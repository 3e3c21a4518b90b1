/** The operations of the random user, with their weights. */
import {
  broadcast,
  type BufferSource,
  type CloseInfo,
  type IncomingMessage,
  type OutgoingMessage,
  type SendOptions,
  WebSocketError,
} from "../../../mod.ts";
import type { Random } from "../random.ts";
import { BREAKS } from "./line.ts";
import type { Sent, Source, User } from "./world.ts";

/** A call by the user of one end. It starts in one turn and may finish in a later turn. */
export interface Operation {
  /** How often it is chosen, relative to the others. */
  weight: number;
  /** Whether it may end the connection other than cleanly. Default: false */
  wild?: boolean;
  run(user: User, random: Random): void;
}

/** The errors for a stream that is locked, or whose lock was released. */
const LOCKED = ["TypeError"];
/** The promise must not reject. */
const NEVER = "never";

// Lengths and pauses

const SHORT = [0, 0, 1, 2, 10, 20, 30, 60, 100, 125, 126, 200];
const LONG = [1000, 1024, 4000, 8191, 8192, 10_000, 16_384, 20_000, 65_535, 65_536, 70_000];

function lengthOf(random: Random): number {
  if (!random.once(4)) return random.pick(SHORT);
  return random.once(12) ? 200_000 : random.pick(LONG);
}

/** Pauses for a short while: not at all, for some turns, or for some time. */
async function pause(user: User, random: Random): Promise<void> {
  const { clock } = user.world;
  const how = random.below(8);
  if (how < 3) return;
  if (how < 6) await clock.turns(1 + random.below(3));
  else if (how < 7) await clock.sleep(1 + random.below(30));
  else await Promise.resolve();
}

/** Makes a signal that is aborted later or never, with a reason that the call rejects with. */
function signalOf(user: User, random: Random): AbortSignal | undefined {
  if (!random.once(4)) return undefined;
  const { controller, signal } = user.world.signal();
  const reason = user.world.fault("aborted");
  const how = random.below(4);
  if (how === 0) controller.abort(reason);
  else if (how === 1) {
    void user.world.clock.turns(random.below(6)).then(() => controller.abort(reason));
  } else if (how === 2) {
    void user.world.clock.sleep(random.below(50)).then(() => controller.abort(reason));
  }
  return signal;
}

// Reading

function receive(user: User, random: Random): void {
  const signal = signalOf(user, random);
  const received = user.ws.receive(signal === undefined ? undefined : { signal });
  user.track("receive()", received.then((message) => user.receive(message)));
}

function receiveSome(user: User, random: Random): void {
  const most = 1 + random.below(8);
  user.task(`receive() ${most} times`, async () => {
    for (let i = 0; i < most; i++) {
      user.receive(await user.ws.receive());
      await pause(user, random);
    }
  });
}

function iterate(user: User, random: Random): void {
  const most = random.once(2) ? Infinity : random.below(6);
  const messages = user.attempt("for await", () => user.ws[Symbol.asyncIterator]());
  if (messages === undefined) return;
  user.task(`for await, ${most} messages`, () => readIterator(user, messages, most, random));
}

async function readIterator(
  user: User,
  messages: AsyncIterator<unknown>,
  most = Infinity,
  random?: Random,
): Promise<void> {
  for await (const message of { [Symbol.asyncIterator]: () => messages }) {
    user.receive(message);
    if (--most < 0) return;
    if (random !== undefined) await pause(user, random);
  }
  user.readEnd = "clean";
}

function iterateBatches(user: User, random: Random): void {
  let most = random.once(2) ? Infinity : random.below(4);
  const batches = user.attempt("batches()", () => user.ws.batches());
  if (batches === undefined) return;
  user.task(`batches(), ${most} arrays`, async () => {
    for await (const messages of batches) {
      if (messages.length === 0) user.world.broken.push(`${user.name} got an empty array`);
      for (const message of messages) user.receive(message);
      if (--most < 0) return;
      await pause(user, random);
    }
    user.readEnd = "clean";
  });
}

function lockReadable(user: User, random: Random): void {
  const reader = user.attempt("readable.getReader()", () => user.ws.readable.getReader(), LOCKED);
  if (reader === undefined) return;
  user.track("reader.closed", reader.closed, LOCKED);
  const most = random.once(3) ? Infinity : random.below(5);
  const hurry = random.once(3);
  user.task(`reader.read() ${most} times${hurry ? ", released early" : ""}`, async () => {
    let last: Promise<unknown> | undefined;
    for (let i = 0; i < most; i++) {
      const reading = reader.read().then(({ done, value }) => {
        if (!done) user.receive(value);
        return done;
      });
      last = reading;
      if (hurry && i === most - 1) break;
      if (await reading) {
        user.readEnd = "clean";
        break;
      }
      await pause(user, random);
    }
    reader.releaseLock();
    await last;
  }, LOCKED);
}

async function readToEnd(user: User, readable: ReadableStream<unknown>): Promise<void> {
  const reader = readable.getReader();
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      user.receive(value);
    }
    user.readEnd = "clean";
  } finally {
    reader.releaseLock();
  }
}

function readStreams(user: User, random: Random): void {
  const messages = user.attempt("messages()", () => user.ws.messages());
  if (messages === undefined || messages.locked) return;
  const most = random.once(2) ? Infinity : random.below(5);
  user.task(`messages(), ${most}`, () => takeStreams(user, messages, most, random));
}

async function takeStreams(
  user: User,
  messages: ReturnType<User["ws"]["messages"]>,
  most = Infinity,
  random?: Random,
): Promise<void> {
  const reader = messages.getReader();
  try {
    for (let i = 0; i < most; i++) {
      const { done, value } = await reader.read();
      if (done) {
        user.readEnd = "clean";
        return;
      }
      const way = random?.below(6) ?? 5;
      // Messages of an ignored branch count towards the queue until the end.
      if (way === 0) {
        user.skipped++;
        await value.readable.cancel(user.world.fault("not wanted"));
      } else if (way === 1 && !user.world.calm) {
        user.skipped++;
        user.dropped = true;
        user.world.trouble.add("a message is left unread");
      } else await readPieces(user, value);
      if (random !== undefined) await pause(user, random);
    }
  } finally {
    reader.releaseLock();
  }
}

async function readPieces(user: User, { type, readable }: IncomingMessage): Promise<void> {
  const reader = readable.getReader();
  let text = "";
  const bytes: number[] = [];
  for (;;) {
    const { done, value } = await reader.read();
    if (done) break;
    user.world.clock.touch();
    if (typeof value === "string") text += value;
    else {
      user.checkBuffer(value);
      for (const byte of value) bytes.push(byte);
    }
  }
  user.receive(type === "text" ? text : new Uint8Array(bytes));
}

const CALM_SINKS = ["fast", "slow"] as const;
const SINKS = [...CALM_SINKS, "fast", "throws", "hangs"] as const;

/** A sink of the user: fast, slow, one that throws, or one that never finishes. */
function sinkOf(user: User, random: Random): WritableStream<unknown> {
  const kind = random.pick(user.world.calm ? CALM_SINKS : SINKS);
  let left = random.below(4);
  if (kind === "throws" || kind === "hangs") user.dropped = true;
  if (kind === "hangs") user.world.trouble.add("a sink hangs");
  if (kind === "throws") user.gaveUp = true;
  if (kind === "throws") user.world.trouble.add("a sink throws");
  return new WritableStream({
    write: async (message) => {
      user.receive(message);
      if (kind === "slow") await pause(user, random);
      if (left-- > 0) return;
      if (kind === "throws") throw user.world.fault("the sink throws");
      if (kind === "hangs") await user.world.gate();
    },
    close: () => {
      user.readEnd = "clean";
    },
  });
}

function pipeFromReadable(user: User, random: Random): void {
  const signal = signalOf(user, random);
  const preventCancel = random.once(2);
  const readable = user.attempt("readable", () => user.ws.readable);
  if (readable === undefined || readable.locked) return;
  const sink = sinkOf(user, random);
  // Node 24 and 26 lose a chunk if the signal is aborted before the pipe has started to read.
  if (signal !== undefined) user.skipped++;
  if (!preventCancel) noteClosing(user, "a pipe may cancel");
  user.dropped = true;
  user.track("readable.pipeTo()", readable.pipeTo(sink, { signal, preventCancel }), LOCKED);
}

function echo(user: User, random: Random): void {
  const readable = user.attempt("readable", () => user.ws.readable);
  const { writable } = user.ws;
  if (readable === undefined || readable.locked || writable.locked) return;
  const lane = user.lane("echo");
  // Two echoes would go on forever.
  let most = 10;
  const through = new TransformStream<unknown, string | Uint8Array>({
    transform: (message, controller) => {
      user.receive(message);
      if (most-- <= 0) return;
      controller.enqueue(user.compose(random, lane, Math.min(lengthOf(random), 1000), true).body);
    },
  });
  noteClosing(user, "an echo closes what it writes to");
  const piped = readable.pipeThrough(through).pipeTo(writable);
  user.track("readable.pipeThrough().pipeTo(writable)", piped, LOCKED);
}

function tee(user: User, random: Random): void {
  const readable = user.attempt("readable", () => user.ws.readable);
  if (readable === undefined || readable.locked) return;
  const [one, two] = readable.tee();
  user.track("the first branch of readable.tee()", readToEnd(user, one));
  if (random.once(2)) user.track("the second branch", new Response(textOf(two)).text(), LOCKED);
  else user.track("cancel() of the second branch", Promise.race([two.cancel(), Promise.resolve()]));
}

/** Converts a branch to bytes, so that a Response can read it. */
function textOf(readable: ReadableStream<unknown>): ReadableStream<Uint8Array<ArrayBuffer>> {
  return readable.pipeThrough(
    new TransformStream<unknown, Uint8Array<ArrayBuffer>>({
      transform: (_, controller) => controller.enqueue(new Uint8Array(1)),
    }),
  );
}

function discard(user: User): void {
  user.attempt("discard()", () => {
    user.ws.discard();
    user.dropped = true;
  });
}

function cancelReadable(user: User, random: Random): void {
  const readable = user.attempt("readable", () => user.ws.readable);
  if (readable === undefined || readable.locked) return;
  noteClosing(user, "cancel()");
  user.dropped = true;
  user.track("readable.cancel()", readable.cancel(leavingReason(user, random)));
}

// Sending

const BYTES_AS: readonly ((bytes: Uint8Array<ArrayBuffer>) => BufferSource)[] = [
  (bytes) => bytes,
  (bytes) => bytes.buffer,
  (bytes) => new DataView(bytes.buffer),
  (bytes) => {
    const larger = new Uint8Array(bytes.length + 9);
    larger.set(bytes, 5);
    return larger.subarray(5, 5 + bytes.length);
  },
];

function sendOptions(user: User, random: Random): SendOptions | undefined {
  const signal = signalOf(user, random);
  const compress = random.pick([undefined, undefined, true, false]);
  return signal === undefined && compress === undefined ? undefined : { signal, compress };
}

/** Options of a message with several frames. If it is aborted after the first frame, the connection fails. */
function itemOptions(user: User, random: Random): SendOptions | undefined {
  const options = sendOptions(user, random);
  if (options?.signal === undefined) return options;
  if (user.world.calm) return { compress: options.compress };
  user.world.trouble.add("a message is aborted");
  return options;
}

function sendWhole(user: User, random: Random): void {
  const sent = user.compose(random, "send", lengthOf(random), random.once(2));
  const { body } = sent;
  const bytes = typeof body === "string" ? undefined : new Uint8Array(body);
  const message = bytes === undefined ? body : random.pick(BYTES_AS)(bytes);
  user.trackSend("send()", sent, user.ws.send(message, sendOptions(user, random)));
  // The caller may reuse the bytes of a short message after send() has returned.
  if (bytes !== undefined && bytes.length < 8192 && random.once(4)) {
    new Uint8Array((message as Uint8Array).buffer ?? message).fill(1);
  }
}

/** Sends many messages in one turn, like a user who does not await. */
function sendMany(user: User, random: Random): void {
  for (let i = 2 + random.below(12); i > 0; i--) {
    const sent = user.compose(random, "send", random.pick(SHORT), random.once(2));
    user.trackSend("send()", sent, user.ws.send(sent.body));
  }
}

function sendAll(user: User, random: Random): void {
  const all = Array.from(
    { length: random.below(12) },
    () =>
      user.compose(random, "send", random.once(9) ? 70_000 : random.pick(SHORT), random.once(2)),
  );
  const promise = user.ws.sendAll(all.map(({ body }) => body));
  for (const sent of all) user.trackSend("sendAll()", sent, promise);
  if (all.length === 0) user.track("sendAll() of none", promise);
}

/** Sends and ignores the promise. No rejection may be unhandled. */
function sendIgnored(user: User, random: Random): void {
  const how = random.below(4);
  const sent = user.compose(random, "send", lengthOf(random), true);
  if (how === 0) void user.ws.send(sent.body);
  else if (how === 1) void user.ws.send(pieces(random, sent));
  else if (how === 2) void user.ws.send(asyncItems(user, random, sent, "promise is ignored"));
  else void user.ws.ping(`${random.below(1e9)}`);
}

function sendConverted(user: User, random: Random): void {
  // A lone surrogate would come back as another character.
  const sent = user.compose(random, "send", random.pick(SHORT), true);
  const text = random.once(2);
  if (text) {
    const bytes = new TextEncoder().encode(sent.body as string);
    return user.trackSend("send(bytes as text)", sent, user.ws.send(bytes, { text }));
  }
  const body = sent.body as string;
  sent.body = new TextEncoder().encode(body);
  user.trackSend("send(text as bytes)", sent, user.ws.send(body, { text }));
}

/** Splits the message into pieces. */
function pieces(random: Random, { body }: Sent): (string | Uint8Array)[] {
  const list: (string | Uint8Array)[] = [];
  const step = 1 + random.below(Math.max(1, body.length));
  for (let at = 0; at < body.length && list.length < 20; at += step) {
    const end = list.length === 19 ? body.length : at + step;
    list.push(body.slice(at, end));
  }
  if (random.once(5)) list.push(typeof body === "string" ? "" : new Uint8Array(0));
  return list.length > 0 ? list : [body];
}

function sendIterable(user: User, random: Random): void {
  const sent = user.compose(random, "send", lengthOf(random), random.once(2));
  const list = pieces(random, sent);
  const items = random.once(2) ? list : new Set(list).size === list.length ? new Set(list) : list;
  user.trackSend("send(iterable)", sent, user.ws.send(items, itemOptions(user, random)));
}

/** The behaviour of a source after its items. */
const CALM_SOURCES = ["ends", "slow"] as const;
const SOURCES = ["ends", "ends", "ends", "slow", "slow", "throws", "hangs"] as const;

function sourceOf(user: User, what: string): Source {
  const source = {
    what: `${user.name} ${what}`,
    checked: true,
    begun: false,
    busy: false,
    finished: false,
    released: 0,
  };
  user.world.sources.push(source);
  return source;
}

/** Returns the next item of a source after a pause, or undefined at its end. */
async function nextItem<T>(
  user: User,
  random: Random,
  source: Source,
  kind: typeof SOURCES[number],
  take: (opened: boolean) => T | undefined,
): Promise<T | undefined> {
  source.begun = source.busy = true;
  try {
    user.world.clock.touch();
    if (kind === "slow") await pause(user, random);
    let item = take(false);
    if (item === undefined && kind === "hangs") {
      await user.world.gate();
      item = take(true);
    }
    if (item !== undefined) return item;
    source.finished = true;
    if (kind === "throws") throw user.world.fault("the source throws");
    return undefined;
  } finally {
    source.busy = false;
  }
}

/** Makes an asynchronous iterable of items that records whether it was told to stop. */
function asyncItems(
  user: User,
  random: Random,
  sent: Sent,
  what: string,
): AsyncIterable<string | Uint8Array> {
  const kind = random.pick(user.world.calm ? CALM_SOURCES : SOURCES);
  const source = sourceOf(user, `${kind} ${what}`);
  const list = pieces(random, sent);
  let left = kind === "throws" || kind === "hangs" ? random.below(list.length) : list.length;
  if (kind === "throws") user.world.trouble.add("a source throws");
  if (kind !== "ends" && kind !== "slow") sent.lossy = true;
  const next = async (): Promise<IteratorResult<string | Uint8Array, undefined>> => {
    const take = (opened: boolean) => opened || left-- > 0 ? list.shift() : undefined;
    const value = await nextItem(user, random, source, kind, take);
    return value === undefined ? { done: true, value } : { done: false, value };
  };
  return {
    [Symbol.asyncIterator]: () => ({
      next,
      return: () => {
        source.released++;
        if (random.once(4)) return Promise.reject(user.world.fault("the source's return() throws"));
        return Promise.resolve({ done: true, value: undefined });
      },
    }),
  };
}

function sendAsync(user: User, random: Random): void {
  const sent = user.compose(random, "send", lengthOf(random), random.once(2));
  const items = asyncItems(user, random, sent, "iterable");
  const options = itemOptions(user, random);
  user.trackSend("send(async iterable)", sent, user.ws.send(items, options));
}

/** Makes a stream of the same items. */
function streamOf(
  user: User,
  items: AsyncIterable<string | Uint8Array>,
): ReadableStream<string | Uint8Array> {
  const iterator = items[Symbol.asyncIterator]();
  return new ReadableStream({
    pull: async (controller) => {
      const { done, value } = await iterator.next();
      if (done) controller.close();
      else controller.enqueue(value);
    },
    cancel: async () => void await iterator.return?.(),
  }, { highWaterMark: user.world.trace.length % 2 });
}

function sendStream(user: User, random: Random): void {
  const sent = user.compose(random, "send", lengthOf(random), random.once(2));
  const stream = streamOf(user, asyncItems(user, random, sent, "stream"));
  const options = itemOptions(user, random);
  user.trackSend("send(stream)", sent, user.ws.send(stream, options));
}

/** Messages that cannot be sent. They have no effect, or they end the connection if sending has started. */
const UNSENDABLE: readonly (() => [message: unknown, options?: SendOptions])[] = [
  () => [5],
  () => [null],
  () => [{}],
  () => [Symbol("a")],
  () => [new Uint8Array([255, 254]), { text: true }],
  () => [[5]],
  () => [["a", new Uint8Array(1)]],
  () => [(function* () {
    yield* [];
    throw new RangeError("a generator that throws");
  })()],
  () => [new Uint8Array(new SharedArrayBuffer(4))],
];

function sendUnsendable(user: User, random: Random): void {
  const [message, options] = random.pick(UNSENDABLE)();
  user.world.trouble.add("what cannot be sent");
  // A message in shared memory is like any other message.
  if (message instanceof Uint8Array) user.compose(random, "other", 4, false).body = message;
  const sending = user.ws.send(message as OutgoingMessage, options);
  user.track("send(what cannot be sent)", sending, ["TypeError", "RangeError"]);
}

function lockWritable(user: User, random: Random): void {
  const { writable } = user.ws;
  if (writable.locked) return;
  const writer = writable.getWriter();
  const lane = user.lane("write");
  user.track("writer.closed", writer.closed, LOCKED);
  const patient = random.once(2);
  const many = random.below(6);
  user.task(`writer.write() ${many} times${patient ? ", each when ready" : ""}`, async () => {
    for (let i = 0; i < many; i++) {
      if (patient) await writer.ready;
      const sent = user.compose(random, lane, lengthOf(random), random.once(2));
      user.trackSend("write()", sent, writer.write(sent.body as string), LOCKED);
      await pause(user, random);
    }
    if (!random.once(8)) return writer.releaseLock();
    noteClosing(user, "writer.close()");
    await writer.close();
  }, LOCKED);
}

function pipeToWritable(user: User, random: Random): void {
  const { writable } = user.ws;
  if (writable.locked) return;
  const lane = user.lane("pipe");
  const kind = random.pick(user.world.calm ? CALM_SOURCES : SOURCES);
  const source = sourceOf(user, `${kind} piped stream`);
  const signal = signalOf(user, random);
  // Node does not cancel the source of a pipe if the signal is aborted during a write.
  source.checked = signal === undefined;
  const preventClose = !random.once(4);
  const preventAbort = random.once(2);
  if (!preventClose) noteClosing(user, "a pipe closes");
  if (!preventAbort) noteClosing(user, "a pipe aborts");
  let left = random.below(6);
  const readable = new ReadableStream<string | Uint8Array>({
    pull: async (controller) => {
      const body = await nextItem(user, random, source, kind, () => {
        if (left-- <= 0) return undefined;
        const length = Math.min(lengthOf(random), 20_000);
        return user.compose(random, lane, length, random.once(2)).body;
      });
      if (body === undefined) controller.close();
      else controller.enqueue(body);
    },
    cancel: () => {
      source.released++;
    },
  }, { highWaterMark: random.below(2) });
  const piped = readable.pipeTo(writable, { signal, preventClose, preventAbort });
  user.track("pipeTo(writable)", piped, LOCKED);
}

function closeWritable(user: User): void {
  if (user.ws.writable.locked) return;
  noteClosing(user, "writable.close()");
  user.track("writable.close()", user.ws.writable.close(), LOCKED);
}

function abortWritable(user: User, random: Random): void {
  if (user.ws.writable.locked) return;
  noteClosing(user, "writable.abort()");
  user.track("writable.abort()", user.ws.writable.abort(leavingReason(user, random)), LOCKED);
}

const CALM_POLICIES = ["close", "drop-newest", "drop-oldest"] as const;
const POLICIES = [...CALM_POLICIES, "terminate"] as const;

function broadcastSome(user: User, random: Random): void {
  const slow = random.pick(user.world.calm ? CALM_POLICIES : POLICIES);
  const maxBufferedAmount = random.pick([0, 1, 100, 5000, 1_000_000]);
  const to = random.once(3) ? [user.ws, user.peer.ws] : [user.ws];
  for (let i = 1 + random.below(4); i > 0; i--) {
    const [length, text] = [lengthOf(random), random.once(2)];
    // A message that is broadcast to both ends has the mark of one of them.
    const lane = slow === "drop-oldest" ? "feed" : "send";
    const { body } = user.compose(random, lane, length, text, true);
    if (to.length > 1) user.peer.sent.push({ ...user.sent.at(-1)!, lane: `both ${lane}` });
    broadcast(to, body, { slow, maxBufferedAmount });
  }
  if (slow === "terminate") user.world.trouble.add("broadcast terminates");
  if (slow === "close") user.gaveUp = user.peer.gaveUp = true;
}

function ping(user: User, random: Random): void {
  const length = random.pick([undefined, 0, 1, 125, 126]);
  const payload = length === undefined ? undefined : random.bytes(length);
  const signal = signalOf(user, random);
  user.track("ping()", user.ws.ping(payload, { signal }), length === 126 ? ["RangeError"] : []);
}

function pong(user: User, random: Random): void {
  const length = random.pick([0, 1, 125, 126]);
  const payload = random.once(2) ? "p".repeat(length) : random.bytes(length);
  user.track("pong()", user.ws.pong(payload), length === 126 ? ["RangeError"] : []);
}

// Closing

/** From here on the peer's messages may be dropped, and this user ends the connection. */
function noteClosing(user: User, what: string): void {
  user.gaveUp = true;
  user.say(`may close by ${what}`);
}

function leavingReason(user: User, random: Random): unknown {
  const reasons: (() => unknown)[] = [
    () => undefined,
    () => user.world.fault("left"),
    () => new WebSocketError("left", { closeCode: 4000 + random.below(1000), reason: "left" }),
    () => ({ closeCode: 4001 }),
  ];
  const reason = random.pick(reasons)();
  user.world.reasons.add(reason);
  return reason;
}

const INFOS: readonly (CloseInfo | undefined)[] = [
  undefined,
  {},
  { closeCode: 1000 },
  { closeCode: 1001, reason: "going" },
  { closeCode: 3000 },
  { closeCode: 4999, reason: "é".repeat(61) },
  { reason: "a reason alone" },
];
const BAD_INFOS: readonly unknown[] = [
  { closeCode: 999 },
  { closeCode: 1005 },
  { closeCode: 1006 },
  { closeCode: 5000 },
  { closeCode: 1000.5 },
  { reason: "r".repeat(124) },
  { closeCode: "1000" },
];

function close(user: User, random: Random): void {
  noteClosing(user, "close()");
  const info = random.pick(INFOS);
  if (user.closeStream !== undefined && info?.closeCode !== 1001) return user.closeStream(info);
  user.track(`close(${JSON.stringify(info) ?? ""})`, user.ws.close(info), NEVER);
}

function closeBadly(user: User, random: Random): void {
  const info = random.pick(BAD_INFOS) as CloseInfo;
  const expected = ["TypeError", "RangeError"];
  const before = user.ws.state;
  const closing = user.attempt("close(bad)", () => user.ws.close(info), expected);
  // E14: 1005 may be allowed, and then means that there is no code.
  if (closing !== undefined && info.closeCode !== 1005) {
    user.world.broken.push(`${user.name} close(${JSON.stringify(info)}) was accepted`);
  }
  if (closing !== undefined) noteClosing(user, "close(bad)");
  else if (before === "open" && user.ws.state !== "open") {
    user.world.broken.push(`${user.name} close(${JSON.stringify(info)}) threw, but also closed`);
  }
}

function terminate(user: User): void {
  user.world.trouble.add("terminate()");
  user.gaveUp = true;
  user.ws.terminate();
}

function dispose(user: User): void {
  noteClosing(user, "dispose");
  user.track("[Symbol.asyncDispose]()", user.ws[Symbol.asyncDispose](), NEVER);
}

function endHandler(user: User, random: Random): void {
  if (user.endHandler === undefined) return;
  noteClosing(user, "the end of its handler");
  if (user.world.calm || random.once(2)) return user.endHandler();
  user.world.trouble.add("a handler throws");
  user.endHandler(user.world.fault("the handler throws"));
}

// The environment

function stall(user: User, random: Random): void {
  const { line, clock, trouble } = user.world;
  if (line === undefined) return;
  line.stalled = true;
  trouble.add("a stall");
  void clock.sleep(random.pick([1, 10, 100, 5000])).then(() => line.goOn());
}

function breakLine(user: User, random: Random): void {
  const { line, trouble } = user.world;
  if (line === undefined) return;
  const how = random.pick(BREAKS);
  trouble.add(how);
  user.say(how);
  line.break(how, user.name === "client" ? 0 : 1);
}

function changeLine(user: User, random: Random): void {
  const { line } = user.world;
  if (line === undefined) return;
  line.options.chop = random.pick([0, 1, 3, 50]);
  line.options.join = random.once(2);
}

function openGates(user: User): void {
  user.world.openGates();
}

/** Checks that every property has a plausible value. */
function look(user: User): void {
  const { ws, world: { broken } } = user;
  const numbers = {
    ...ws.stats,
    paused: 0,
    bufferedAmount: ws.bufferedAmount,
    latency: ws.latency ?? 0,
  };
  for (const [name, value] of Object.entries(numbers)) {
    if (!(Number.isFinite(value) && value >= 0)) broken.push(`${user.name} ${name} is ${value}`);
  }
  if (!["open", "closing", "closed"].includes(ws.state)) broken.push(`state ${ws.state}`);
  if (ws.closed !== ws.closed) broken.push("closed returns a new promise each time");
  if (ws.request.headers.get("upgrade") !== "websocket") {
    broken.push("request has no Upgrade header");
  }
  if (ws.response.status !== 101) broken.push(`response.status is ${ws.response.status}`);
  if (ws.isOwnError(new Error("another"))) broken.push("isOwnError() accepts another error");
  if (ws.writable !== ws.writable) broken.push("writable returns a new stream each time");
}

/** All operations by name. */
export const OPERATIONS: Readonly<Record<string, Operation>> = {
  "receive": { weight: 8, run: receive },
  "receive some": { weight: 4, run: receiveSome },
  "iterate": { weight: 6, run: iterate },
  "iterate batches": { weight: 6, run: iterateBatches },
  "lock readable": { weight: 8, run: lockReadable },
  "messages": { weight: 6, run: readStreams },
  "pipe from readable": { weight: 4, run: pipeFromReadable },
  "echo": { weight: 2, run: echo },
  "tee": { weight: 1, run: tee },
  "discard": { weight: 1, run: discard },
  "cancel readable": { weight: 1, run: cancelReadable },

  "send": { weight: 20, run: sendWhole },
  "send many": { weight: 4, run: sendMany },
  "send all": { weight: 4, run: sendAll },
  "send, ignored": { weight: 3, run: sendIgnored },
  "send, converted": { weight: 2, run: sendConverted },
  "send iterable": { weight: 6, run: sendIterable },
  "send async iterable": { weight: 6, run: sendAsync },
  "send stream": { weight: 6, run: sendStream },
  "send what cannot be sent": { weight: 1, wild: true, run: sendUnsendable },
  "lock writable": { weight: 8, run: lockWritable },
  "pipe to writable": { weight: 5, run: pipeToWritable },
  "close writable": { weight: 1, run: closeWritable },
  "abort writable": { weight: 1, run: abortWritable },
  "broadcast": { weight: 5, run: broadcastSome },
  "ping": { weight: 4, run: ping },
  "pong": { weight: 2, run: pong },

  "close": { weight: 3, run: close },
  "close badly": { weight: 1, run: closeBadly },
  "terminate": { weight: 1, wild: true, run: terminate },
  "dispose": { weight: 1, run: dispose },
  "end handler": { weight: 2, run: endHandler },

  "stall": { weight: 2, wild: true, run: stall },
  "break the line": { weight: 2, wild: true, run: breakLine },
  "change the line": { weight: 2, run: changeLine },
  "open gates": { weight: 3, run: openGates },
  "look": { weight: 3, run: look },
};

/** Reads to the end, in the way in which the connection is already read. */
export function readOn(user: User): void {
  if (user.dropped) return;
  const readable = user.attempt("readable", () => user.ws.readable);
  const iterator = user.attempt("for await", () => user.ws[Symbol.asyncIterator]());
  const messages = user.attempt("messages()", () => user.ws.messages());
  const reading = readable !== undefined && !readable.locked
    ? readToEnd(user, readable)
    : iterator !== undefined
    ? readIterator(user, iterator)
    : messages !== undefined && !messages.locked
    ? takeStreams(user, messages)
    : undefined;
  if (reading !== undefined) user.readingOn = user.track("reading on", reading);
}

/** Suffix for the names of calls on a connection that has ended. */
export const AFTER_END = " after the end";

/** Uses a connection that has ended. Each call must report that. */
export function useAfterEnd(user: User): void {
  const { ws } = user;
  const refused = (call: string, promise: Promise<unknown>) => {
    const what = `${call}${AFTER_END}`;
    user.track(
      what,
      promise.then(() => user.world.broken.push(`${user.name} ${what} was accepted`)),
    );
  };
  refused("send()", ws.send("late"));
  refused("send(iterable)", ws.send(["late"]));
  refused("ping()", ws.ping());
  refused("pong()", ws.pong());
  user.track(`close()${AFTER_END}`, ws.close({ closeCode: 4000 }), NEVER);
  ws.terminate();
  broadcast([ws], "late");
  look(user);
}
