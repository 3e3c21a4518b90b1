/** A program for `ws`, which must compile with the types of `@types/ws` and with those of `sluice/ws`. */
import { Buffer } from "node:buffer";
import { createServer, type IncomingMessage } from "node:http";
import type { Duplex } from "node:stream";
import WebSocket, { createWebSocketStream, type RawData, WebSocketServer } from "ws";
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
