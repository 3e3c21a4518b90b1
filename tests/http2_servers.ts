/** Servers and sessions of HTTP/2 for the tests. */
import {
  type ClientHttp2Session,
  connect,
  createServer,
  type Http2Server,
  type Http2Session,
  type IncomingHttpHeaders,
  type OutgoingHttpHeaders,
  type ServerHttp2Stream,
  type Settings,
} from "node:http2";
import type { AddressInfo } from "node:net";
import process from "node:process";
import { knownLimit } from "./it.ts";
import type { WebSocketConnection } from "../mod.ts";
import {
  attachHttp2,
  type AttachHttp2Options,
  type Attachment,
  connectHttp2,
  type ConnectHttp2Options,
  type Handler,
} from "../lib/http2.ts";
import { until } from "./support.ts";

/** The reason why this runtime has no HTTP/2 server; undefined if it has one. */
export const noServer: string | undefined = process.versions.deno === undefined
  ? undefined
  : knownLimit("Deno's server of node:http2 can be made to crash");

/** Opens a session whose errors are not thrown. The calls that wait report them. */
export function dial(url: string): ClientHttp2Session {
  const session = connect(url);
  session.on("error", () => {});
  return session;
}

/** Ends a session at once. */
export async function endSession(session: Http2Session): Promise<void> {
  if (session.destroyed) return;
  const closed = new Promise<void>((resolve) => session.once("close", resolve));
  session.destroy();
  await closed;
}

/** A server and a session with it. */
export interface Http2 {
  server: Http2Server;
  session: ClientHttp2Session;
  attached: Attachment;
  /** The server's streams that are open. */
  streams: Set<ServerHttp2Stream>;
  url(path?: string): string;
  open(path?: string, options?: ConnectHttp2Options): Promise<WebSocketConnection>;
}

/** The options of a test server. */
export interface Http2Setup extends AttachHttp2Options {
  /** Default: an echo */
  handler?: Handler;
  /** Default: a server with the setting */
  server?: Http2Server;
}

/** A server with the setting that enables extended CONNECT (RFC 8441 §3). */
export function http2Server(settings: Settings = { enableConnectProtocol: true }): Http2Server {
  return createServer({ settings });
}

export const echo: Handler = (ws) => ws.readable.pipeTo(ws.writable);

/**
 * Runs a test with a session of a server that `attachHttp2()` is used on. All streams of the server must end
 * by themselves.
 */
export async function withHttp2(
  { handler = echo, server = http2Server(), ...options }: Http2Setup,
  run: (http2: Http2) => unknown,
): Promise<void> {
  const sessions = new Set<Http2Session>();
  const streams = new Set<ServerHttp2Stream>();
  server.on("sessionError", () => {});
  server.on("session", (session) => {
    sessions.add(session);
    // This listener is not on the server, because attachHttp2() checks the listeners of the server.
    session.on("stream", (stream: ServerHttp2Stream) => {
      streams.add(stream);
      stream.on("error", () => {});
      stream.on("close", () => streams.delete(stream));
    });
  });
  const attached = attachHttp2(server, { pingInterval: 0, ...options }, handler);
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  const session = dial(`http://127.0.0.1:${port}`);
  const url = (path = "/") => `ws://127.0.0.1:${port}${path}`;
  const open = (path = "/", options: ConnectHttp2Options = {}) =>
    connectHttp2(session, url(path), { pingInterval: 0, ...options });
  try {
    await run({ server, session, attached, streams, url, open });
    await until(() => streams.size === 0);
  } finally {
    await Promise.all([session, ...sessions].map(endSession));
    await attached.shutdown();
    await new Promise((resolve) => server.close(resolve));
  }
}

/** The names of the events of a session that have listeners, and how many listeners each has. */
export function listeners(session: Http2Session): string[] {
  return session.eventNames().map((name) =>
    `${String(name)} ${session.listenerCount(name as string)}`
  );
}

/** The answer to a raw request: its status, its header fields and its body. */
export async function answerTo(
  session: ClientHttp2Session,
  headers: OutgoingHttpHeaders,
): Promise<{ status: number; headers: IncomingHttpHeaders; body: string }> {
  const stream = session.request(headers, { endStream: false });
  let body = "";
  stream.setEncoding("utf8").on("data", (text) => body += text);
  const answered = new Promise<IncomingHttpHeaders>((resolve, reject) => {
    stream.on("response", resolve);
    stream.on("error", reject);
  });
  const ended = new Promise((resolve) => stream.on("end", resolve));
  const answer = await answered;
  await ended;
  stream.close();
  return { status: Number(answer[":status"]), headers: answer, body };
}

/** The head of a raw request for a WebSocket. */
export const CONNECT: OutgoingHttpHeaders = {
  ":method": "CONNECT",
  ":protocol": "websocket",
  ":scheme": "http",
  ":authority": "localhost",
  ":path": "/",
  "sec-websocket-version": "13",
};
