/**
 * A program for `ws`, which must compile with the types of `@types/ws` and with those of `sluice/ws`. It
 * uses each name that `@types/ws` exports, each member, and each option.
 */
import { Buffer } from "node:buffer";
import { Agent, type ClientRequest, createServer, IncomingMessage } from "node:http";
import { createServer as createSecureServer } from "node:https";
import { createConnection } from "node:net";
import type { Duplex, DuplexOptions } from "node:stream";
import WebSocket, { createWebSocketStream, type RawData, WebSocketServer } from "ws";
import type {
  AddressInfo,
  CertMeta,
  ClientOptions,
  CloseEvent,
  Data,
  ErrorEvent,
  Event,
  EventListenerOptions,
  FinishRequestCallback,
  MessageEvent,
  PerMessageDeflateOptions,
  Server,
  ServerOptions,
  VerifyClientCallbackAsync,
  VerifyClientCallbackSync,
} from "ws";
import { WebSocket as Named } from "ws";

const options: WebSocket.ServerOptions = {
  port: 8080,
  maxPayload: 1024,
  perMessageDeflate: {
    zlibDeflateOptions: { chunkSize: 1024, memLevel: 7, level: 3 },
    zlibInflateOptions: { chunkSize: 10 * 1024 },
    clientNoContextTakeover: true,
    serverMaxWindowBits: 10,
    concurrencyLimit: 10,
    threshold: 1024,
  },
  verifyClient: (
    { origin, secure, req }: { origin: string; secure: boolean; req: IncomingMessage },
  ) => origin === "a" && secure && req.url === "/",
  handleProtocols: (protocols, request) => request.url === "/" && [...protocols][0]!,
};

const wss = new WebSocketServer(options, () => console.log("listening"));
const old: WebSocketServer = new WebSocketServer({ noServer: true });

wss.on("connection", (ws, request) => {
  const ip: string | undefined = request.socket.remoteAddress;
  ws.on("error", console.error);
  ws.on("message", function (data, isBinary) {
    const text: string = data.toString();
    this.send(`${text} ${ip}`);
    for (const client of wss.clients) {
      if (client !== ws && client.readyState === WebSocket.OPEN) {
        client.send(data, { binary: isBinary, compress: false, fin: true }, (error) => {
          if (error) console.error(error.message);
        });
      }
    }
  });
  ws.on("close", (code, reason) => console.log(code.toFixed(), reason.toString("utf8")));
  ws.on("pong", (data) => console.log(data.length));
  ws.once("ping", (data: Buffer) => ws.pong(data, false, (error: Error) => console.log(error)));
});
wss.on("headers", (headers, request) => headers.push(`X-Path: ${request.url}`));
wss.on("wsClientError", (error, socket, request) => {
  console.log(error.message, request.url);
  socket.destroy();
});
wss.on("listening", () => console.log(wss.address()));
wss.off("close", console.log);

function toBuffer(data: RawData): Buffer {
  if (Array.isArray(data)) return Buffer.concat(data);
  return data instanceof ArrayBuffer ? Buffer.from(data) : data;
}

const ws = new WebSocket("ws://localhost:8080", ["a", "b"], {
  headers: { "X-A": "b" },
  origin: "http://localhost",
  handshakeTimeout: 1000,
  followRedirects: true,
  maxRedirects: 3,
  perMessageDeflate: false,
  rejectUnauthorized: false,
  ca: "certificate",
  agent: undefined,
  protocolVersion: 13,
  maxPayload: 100,
  skipUTF8Validation: true,
  generateMask: (mask: Buffer) => void mask.fill(0),
  finishRequest: (request) => request.end(),
});
ws.binaryType = "arraybuffer";
ws.onopen = (event) => {
  const target: WebSocket = event.target;
  target.ping();
};
ws.onmessage = ({ data, type, target }: WebSocket.MessageEvent) => {
  const received: WebSocket.Data = data;
  console.log(received, type, target.url);
};
ws.onclose = ({ code, reason, wasClean }: WebSocket.CloseEvent) =>
  console.log(code, reason, wasClean);
ws.onerror = ({ error, message }: WebSocket.ErrorEvent) => console.log(error, message);
ws.addEventListener("message", ({ data }) => console.log(String(data)), { once: true });
ws.addEventListener("close", { handleEvent: (event) => console.log(event.code) });
ws.on("unexpected-response", (request, response) => {
  console.log(response.statusCode);
  request.destroy();
});
ws.on("upgrade", (response: IncomingMessage) => console.log(response.headers));
ws.on("redirect", (url, request) => request.setHeader("X-From", url));
ws.on("message", (data: RawData) => console.log(toBuffer(data)));
ws.send(new Uint8Array(1));
ws.send(new Float32Array(1), { mask: true });
ws.send(new ArrayBuffer(1), () => {});
ws.close(1000, "done");
ws.close(1000, Buffer.from("done"));
const states: number[] = [WebSocket.CONNECTING, WebSocket.OPEN, ws.CLOSING, ws.CLOSED];
const { bufferedAmount, extensions, isPaused, protocol, url } = ws;
console.log(states, bufferedAmount, extensions, isPaused, protocol, url, old.clients.size);

class Client extends WebSocket {
  name = "";
  override close(code?: number, reason?: string | Buffer): void {
    super.close(code, reason);
  }
}

const custom = new WebSocketServer<typeof Client>({ noServer: true, WebSocket: Client });
custom.on("connection", (client) => client.name.trim());
const server = createServer();
server.on("upgrade", (request: IncomingMessage, socket: Duplex, head: Buffer) => {
  if (!custom.shouldHandle(request)) return socket.destroy();
  custom.handleUpgrade(request, socket, head, (client, asked) => {
    custom.emit("connection", client, asked);
  });
});
const accept: WebSocket.VerifyClientCallbackAsync = (info, callback) =>
  callback(info.secure, 401, "no", { "WWW-Authenticate": "Basic" });
new WebSocketServer({
  server,
  path: "/",
  verifyClient: accept,
  clientTracking: false,
  backlog: 10,
});
const stream: Duplex = createWebSocketStream(ws, { encoding: "utf8", decodeStrings: false });
stream.pipe(process.stdout);
const named: Named = new Named("ws://localhost");
const same: WebSocket = named;
same.terminate();
wss.close((error) => console.log(error?.message));

/** Whether a type is the same by its own name and as a member of WebSocket. */
type Same<A, B> = [A, B] extends [B, A] ? true : false;
export const sameByName: [
  Same<AddressInfo, WebSocket.AddressInfo>,
  Same<CertMeta, WebSocket.CertMeta>,
  Same<ClientOptions, WebSocket.ClientOptions>,
  Same<Data, WebSocket.Data>,
  Same<EventListenerOptions, WebSocket.EventListenerOptions>,
  Same<PerMessageDeflateOptions, WebSocket.PerMessageDeflateOptions>,
  Same<RawData, WebSocket.RawData>,
  Same<ServerOptions, WebSocket.ServerOptions>,
] = [true, true, true, true, true, true, true, true];

export function urlsOf(a: Event, b: MessageEvent, c: CloseEvent, d: ErrorEvent): string[] {
  const targets: WebSocket[] = [a, b, c, d].map((event) => event.target);
  return targets.map(({ url }) => url);
}
export const typeOf = <K extends keyof WebSocket.WebSocketEventMap>(
  event: WebSocket.WebSocketEventMap[K],
): string => event.type;

class Asked extends IncomingMessage {
  user = "ada";
}
const finish: FinishRequestCallback = (request: ClientRequest, websocket: WebSocket) => {
  request.setHeader("X-State", websocket.readyState).end();
};
const decide: VerifyClientCallbackSync<Asked> = ({ req, origin, secure }) =>
  req.user === origin && secure;
const later: VerifyClientCallbackAsync<Asked> = ({ req }, callback) => callback(req.user === "a");
export const assignable: [
  WebSocket.VerifyClientCallbackSync<Asked>,
  WebSocket.VerifyClientCallbackAsync<Asked>,
  WebSocket.FinishRequestCallback,
] = [decide, later, finish];

const deflate: PerMessageDeflateOptions = {
  serverNoContextTakeover: true,
  clientNoContextTakeover: undefined,
  serverMaxWindowBits: 9,
  clientMaxWindowBits: 15,
  zlibDeflateOptions: {
    flush: 1,
    finishFlush: 1,
    chunkSize: 1024,
    windowBits: 9,
    level: 1,
    memLevel: 1,
    strategy: 1,
    dictionary: Buffer.alloc(1),
    info: true,
  },
  zlibInflateOptions: { dictionary: Buffer.alloc(1) },
  threshold: 1,
  concurrencyLimit: 1,
};
const clientOptions: ClientOptions = {
  protocol: "chat",
  followRedirects: true,
  generateMask(mask) {
    mask.fill(1);
  },
  handshakeTimeout: 1,
  maxRedirects: 1,
  perMessageDeflate: deflate,
  localAddress: "127.0.0.1",
  protocolVersion: 13,
  headers: { "X-A": "b" },
  origin: "http://localhost",
  agent: new Agent(),
  host: "localhost",
  family: 4,
  rejectUnauthorized: false,
  allowSynchronousEvents: true,
  autoPong: true,
  maxPayload: 1,
  maxBufferedChunks: 1,
  maxFragments: 1,
  skipUTF8Validation: true,
  createConnection,
  finishRequest: finish,
  ca: "certificate",
  cert: Buffer.alloc(1),
  key: ["key"],
  passphrase: "secret",
};
const http = createServer<typeof Asked>({ IncomingMessage: Asked });
const serverOptions: ServerOptions<typeof Client, typeof Asked> = {
  host: "localhost",
  port: 1,
  backlog: 1,
  server: http,
  verifyClient: decide,
  handleProtocols: (protocols, { user }) => user === "ada" ? [...protocols][0]! : false,
  path: "/",
  noServer: false,
  allowSynchronousEvents: true,
  autoPong: true,
  clientTracking: true,
  perMessageDeflate: true,
  maxPayload: 1,
  maxBufferedChunks: 1,
  maxFragments: 1,
  skipUTF8Validation: true,
  WebSocket: Client,
};
export const secure: ServerOptions = { server: createSecureServer() };
const typed = new WebSocketServer<typeof Client, typeof Asked>(serverOptions);
export const typedToo: Server<typeof Client, typeof Asked> = typed;
export const parts: {
  options: ServerOptions<typeof Client, typeof Asked>;
  clients: Set<Client>;
} = typed;
export const address: AddressInfo | string | null = typed.address();
declare const asked: Asked;
declare const socket: Duplex;
export const may: boolean | Promise<boolean> = typed.shouldHandle(asked);
typed.handleUpgrade(
  asked,
  socket,
  Buffer.alloc(0),
  ({ name }, { user }) => console.log(name, user),
);
typed.close();

typed.on("connection", function (client, { user }) {
  console.log(client.name, user, this.clients.size);
}).once("headers", (headers, { user }) => headers.push(user))
  .off("wsClientError", (error, raw, request) => raw.end(error.message + request.url))
  .addListener("listening", () => {}).removeListener("close", () => {})
  .on("error", (error) => error.message);

export const nothing = new WebSocket(null);
export const second = new WebSocket(new URL("ws://localhost"), "a", clientOptions);
export const third = new WebSocket("ws://localhost", { timeout: 1, setHost: true, auth: "a:b" });
const one = new WebSocket("ws://localhost", clientOptions);
for (const method of ["on", "once", "off", "addListener", "removeListener"] as const) {
  one[method]("custom", (a, b) => console.log(a, b));
  typed[method](Symbol("custom"), (a) => console.log(a));
}
one.on("open", function () {
  this.pause();
  this.resume();
}).once("close", (code, reason) => [code.toFixed(), reason.length])
  .off("error", (error) => error.message).addListener("upgrade", (answer) => answer.statusCode)
  .removeListener("message", (data, isBinary) => [toBuffer(data), isBinary])
  .on("ping", (data) => data.length).on("pong", (data) => data.length);
one.ping();
one.ping(1, true, (error: Error) => console.log(error.message));
one.pong([1], false);

const sent: (error?: Error) => void = (error) => console.log(error);
one.send(new DataView(new ArrayBuffer(1)), sent);
one.send(new SharedArrayBuffer(1));
one.send(new Blob([]));
one.send(1);
one.send([1, 2]);
one.send({ valueOf: () => "text" });
one.send({ valueOf: () => new Uint8Array(1) });
one.send({ [Symbol.toPrimitive]: (_hint: string) => "text" });
one.send("text", { mask: true, binary: undefined, compress: true, fin: false }, sent);

for (const type of ["nodebuffer", "arraybuffer", "fragments"] as const) one.binaryType = type;
one.onopen =
  one.onmessage =
  one.onclose =
  one.onerror =
    null;
const listener = { handleEvent: (event: CloseEvent) => console.log(event.wasClean) };
const once: EventListenerOptions = { once: true };
one.addEventListener("close", listener, once);
one.removeEventListener("close", listener);
one.removeEventListener("message", ({ data }) => console.log(data));
one.addEventListener("error", ({ error, message }) => console.log(error, message));
export const state: 0 | 1 | 2 | 3 = one.readyState;
export const constants: [0, 1, 2, 3] = [
  WebSocket.CONNECTING,
  WebSocket.OPEN,
  one.CLOSING,
  one.CLOSED,
];
const duplexOptions: DuplexOptions = { highWaterMark: 1 };
createWebSocketStream(one, duplexOptions).end();
