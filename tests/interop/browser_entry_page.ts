/** A page that uses the entry point for browsers, and tells its server what came of it. */
import * as entry from "../../lib/browser.ts";

const scope = globalThis as unknown as Record<string, unknown>;

/** The message of an error, or what there is in its place. */
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

const pages: Record<string, () => Promise<Record<string, unknown>>> = {
  classes,
  withoutClass,
  policy,
};

async function run(): Promise<void> {
  const { pathname } = location;
  const name = pathname.slice(pathname.lastIndexOf("/") + 1);
  const result = await pages[name]().catch((error) => ({ error: `${error}\n${error.stack}` }));
  // An image: a policy about connections is none about images.
  const { Image } = scope as unknown as { Image: new () => { src: string } };
  new Image().src = `/report?${encodeURIComponent(JSON.stringify(result))}`;
}

run();
