/** ws as the other end. */
import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { AddressInfo } from "node:net";
import { WebSocket, WebSocketServer } from "ws";
import { End, grouped, HOST, MAX_SIZE, pairs, type Part } from "./agent.ts";
import { packageVersion, runHere } from "./stdio.ts";

class WsEnd extends End {
  #server: Server | undefined;
  #socket: WebSocket | undefined;

  get #settings() {
    const { compression, maxSize = MAX_SIZE } = this.options;
    return { perMessageDeflate: compression ? { threshold: 0 } : false, maxPayload: maxSize };
  }

  async listen() {
    const { port = 0, headers = [], refuse, tls } = this.options;
    const http = tls === undefined ? createServer() : createSecureServer({
      cert: readFileSync(tls.cert),
      key: readFileSync(tls.key),
    });
    this.#server = http;
    const server = new WebSocketServer({
      ...this.#settings,
      server: http,
      handleProtocols: (offered) => this.choose(offered) ?? false,
      verifyClient: (_, answer) => {
        if (refuse === undefined) answer(true);
        else answer(false, refuse.status, refuse.body, Object.fromEntries(refuse.headers));
      },
    });
    server.on("headers", (lines) => {
      lines.push(...headers.map(([name, value]) => `${name}: ${value}`));
    });
    server.on("connection", (socket, request) => {
      this.#use(socket);
      this.#open(request);
    });
    await new Promise<void>((resolve) => http.listen(port, HOST, resolve));
    this.tell("listening", { port: (http.address() as AddressInfo).port });
  }

  connect() {
    const { url, protocols, headers, ca } = this.options;
    const socket = new WebSocket(url!, protocols, {
      ...this.#settings,
      // The types are those of fetch(), which has no arrays.
      headers: grouped(headers) as Record<string, string[] & string>,
      ca: ca && readFileSync(ca),
    });
    this.#use(socket);
    let response: IncomingMessage;
    socket.on("upgrade", (head) => response = head);
    socket.on("open", () => this.#open(response));
    socket.on("unexpected-response", async (_, head) => {
      const chunks: Buffer[] = [];
      for await (const chunk of head) chunks.push(chunk);
      const body = String(Buffer.concat(chunks));
      this.tell("refused", { status: head.statusCode, headers: pairs(head.rawHeaders), body });
    });
  }

  #open(head: IncomingMessage) {
    const { protocol, extensions } = this.#socket!;
    this.tell("open", {
      protocol,
      extensions: extensions.split(", ").filter(Boolean),
      target: head.url,
      headers: pairs(head.rawHeaders),
    });
  }

  #use(socket: WebSocket) {
    this.#socket = socket;
    socket.on("message", (data: Buffer, isBinary) => this.take(isBinary ? data : String(data)));
    socket.on("ping", (data) => this.tell("ping", { data: data.toString("base64") }));
    socket.on("pong", (data) => this.tell("pong", { data: data.toString("base64") }));
    socket.on("error", (error) => this.tell("failed", { message: error.message }));
    socket.on("close", (code, reason) => this.tell("closed", { code, reason: String(reason) }));
  }

  sendWhole(data: string | Uint8Array) {
    this.#socket!.send(data);
  }

  sendPart({ data, type, last }: Part) {
    this.#socket!.send(data, { binary: type === "binary", fin: last });
  }

  ping(data: Uint8Array) {
    this.#socket!.ping(data);
  }

  pong(data: Uint8Array) {
    this.#socket!.pong(data);
  }

  close(code?: number, reason?: string) {
    this.#socket!.close(code, reason);
  }

  abort() {
    this.#socket!.terminate();
  }

  stop() {
    this.#socket?.terminate();
    this.#server?.close();
    this.#server?.closeAllConnections();
  }
}

await runHere(packageVersion("ws"), (tell) => new WsEnd(tell));
