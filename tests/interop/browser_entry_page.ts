/** A page that uses the entry point for browsers, and reports the results to its server. */
import * as entry from "../../lib/browser.ts";
import { resumable } from "../../lib/topics.ts";

const scope = globalThis as unknown as Record<string, unknown>;

/** The name, code and message of the error, or "none". */
async function failure(promise: Promise<unknown>): Promise<string> {
  try {
    await promise;
    return "none";
  } catch (error) {
    const { name, code, message } = error as { name: string; code: unknown; message: string };
    return `${name} ${code}: ${message}`;
  }
}

/** The browser's own class, relative URLs, and errors of both kinds. */
async function classes(): Promise<Record<string, unknown>> {
  const { WebSocketStream, WebSocketError, connect } = entry;
  const isNative = WebSocketStream === scope.WebSocketStream &&
    WebSocketError === scope.WebSocketError;
  const stream = new WebSocketStream("echo");
  const { readable, writable } = await stream.opened;
  const writer = writable.getWriter();
  await writer.write("by stream");
  const { value: byStream } = await readable.getReader().read();
  stream.close();
  const ws = await connect("/app/echo", { maxMessageSize: 20 });
  await ws.send("by connection");
  const byConnection = await ws.receive();
  await ws.send("a message that is longer than that");
  const error = await ws.receive().catch((error) => error);
  const thrown = await new WebSocketStream("/none").opened.catch((error) => error);
  return {
    isNative,
    url: new URL(stream.url).pathname,
    byStream,
    byConnection,
    closeCode: error.closeCode,
    connectionError: error instanceof WebSocketError && error.constructor === WebSocketError,
    streamError: thrown instanceof WebSocketError && thrown.constructor === WebSocketError,
    domError: error instanceof DOMException && error.name === "WebSocketError",
  };
}

/** The same without the browser's class. */
async function withoutClass(): Promise<Record<string, unknown>> {
  const stream = new entry.WebSocketStream("echo");
  const { readable, writable } = await stream.opened;
  const writer = writable.getWriter();
  await writer.write("by stream");
  const { value: byStream } = await readable.getReader().read();
  stream.close();
  return { url: new URL(stream.url).pathname, byStream };
}

/** A policy that forbids all connections. */
async function policy(): Promise<Record<string, unknown>> {
  return { connect: await failure(entry.connect("/app/echo")) };
}

const PAYLOAD = new Uint8Array(65536).fill(7);

/** Whether a promise settles within a second. */
function settles(promise: Promise<unknown>): Promise<boolean> {
  const settled = promise.then(() => true, () => true);
  return Promise.race([settled, new Promise<boolean>((r) => setTimeout(() => r(false), 1000))]);
}

/** Messages in both directions, buffered data, closes, errors, and reconnecting. */
async function connections(): Promise<Record<string, unknown>> {
  const { broadcast, connect, reconnect, relay } = entry;
  const echo = await connect("/app/echo", { protocols: ["a"] });
  let echoed = 0;
  const reading = (async () => {
    for await (const message of echo) {
      if (message.length !== PAYLOAD.length) throw new Error("another length");
      if (++echoed === 200) break;
    }
  })();
  for (let i = 0; i < 200; i++) await echo.send(i % 2 ? PAYLOAD : "*".repeat(PAYLOAD.length));
  await reading;
  const { sent } = broadcast([echo], "last");
  const last = await echo.receive();
  const { closeCode } = await echo.close({ closeCode: 3000, reason: "done" });

  const deaf = await connect("/app/deaf");
  let waits = 0;
  while (await settles(deaf.send(PAYLOAD))) waits++;
  const buffered = deaf.bufferedAmount > 0;
  deaf.terminate();

  const flood = await connect("/app/flood", { maxQueuedBytes: 2 ** 20 });
  const overrun = await settles(flood.closed);
  const floodCode = overrun ? await flood.closed.catch((error) => error.closeCode) : "open";
  const first = (await flood.receive()).length;
  const leaving = await settles(flood.close());

  const told = await (await connect("/app/tell")).closed;
  const lost = await (await connect("/app/drop")).closed.catch((error) => error.closeCode);
  const news: unknown[] = [];
  for await (const ws of reconnect("/app/news", { minDelay: 1 })) {
    try {
      for await (const message of ws) news.push(message);
    } catch (error) {
      if (!ws.isOwnError(error)) throw error;
    }
    if (news.length >= 3) break;
  }
  const ends = await relay(await connect("/app/tell"), await connect("/app/echo"));
  return {
    ...{ echoed, sent, last, closeCode, protocol: echo.protocol },
    ...{ buffered, isBounded: waits < 1000, floodCode, first, leaving, told, lost, news, ends },
  };
}

/** Topics over connections that the server cuts. */
async function topics(): Promise<Record<string, unknown>> {
  const connections = entry.reconnect("/app/topics", { minDelay: 1 });
  const news = resumable(connections, { topics: ["news"] });
  const got: unknown[] = [];
  const recovered = new Set<boolean>();
  for await (const event of news) {
    if (event.type === "subscribed") {
      recovered.add(event.recovered);
      if (got.length === 0) void news.publish("start", "now").catch(() => {});
    }
    if (event.type === "message") got.push(event.message);
    if (got.length === 20) break;
  }
  return { got, recovered: [...recovered] };
}

const pages: Record<string, () => Promise<Record<string, unknown>>> = {
  connections,
  connectionsWithoutClass: connections,
  classes,
  withoutClass,
  policy,
  topics,
};

async function run(): Promise<void> {
  const { pathname } = location;
  const name = pathname.slice(pathname.lastIndexOf("/") + 1);
  const result = await pages[name]().catch((error) => ({ error: `${error}\n${error.stack}` }));
  // An image, because the policy about connections does not apply to images.
  const { Image } = scope as unknown as { Image: new () => { src: string } };
  new Image().src = `/report?${encodeURIComponent(JSON.stringify(result))}`;
}

run();
