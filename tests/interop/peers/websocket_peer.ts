/** websocket (npm) as the other end. */
import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { AddressInfo, Socket } from "node:net";
// @ts-types="./untyped.d.ts"
import websocket from "websocket";
import { End, grouped, HOST, MAX_SIZE, pairs, type Part } from "./agent.ts";
import { packageVersion, runHere } from "./stdio.ts";

interface Connection {
  readonly protocol: string | null;
  readonly socket: Socket;
  readonly closeReasonCode: number;
  readonly closeDescription: string | null;
  readonly maskBytes: Buffer;
  readonly frameHeader: Buffer;
  readonly config: object;
  on(event: string, listener: (...args: never[]) => unknown): void;
  sendUTF(text: string): void;
  sendBytes(data: Buffer): void;
  sendFrame(frame: object): void;
  ping(data: Buffer): void;
  pong(data: Buffer): void;
  close(code?: number, reason?: string): void;
}

const OPCODES = { text: 1, binary: 2 };

class WebsocketEnd extends End {
  #server: Server | undefined;
  #connection: Connection | undefined;

  get #settings() {
    const { maxSize = MAX_SIZE } = this.options;
    return { maxReceivedFrameSize: maxSize, maxReceivedMessageSize: maxSize };
  }

  async listen() {
    const { port = 0, tls, refuse } = this.options;
    const http = tls === undefined ? createServer() : createSecureServer({
      cert: readFileSync(tls.cert),
      key: readFileSync(tls.key),
    });
    this.#server = http;
    const server = new websocket.server({ ...this.#settings, httpServer: http });
    // deno-lint-ignore no-explicit-any
    server.on("request", (request: any) => {
      if (refuse !== undefined) {
        request.reject(refuse.status, undefined, Object.fromEntries(refuse.headers));
        return;
      }
      const head: IncomingMessage = request.httpRequest;
      this.#use(request.accept(this.choose(request.requestedProtocols) ?? null, request.origin));
      this.#open(head);
    });
    await new Promise<void>((resolve) => http.listen(port, HOST, resolve));
    this.tell("listening", { port: (http.address() as AddressInfo).port });
  }

  connect() {
    const { url, protocols, headers, ca } = this.options;
    const tlsOptions = ca === undefined ? {} : { ca: readFileSync(ca) };
    const client = new websocket.client({ ...this.#settings, tlsOptions });
    client.on("connect", (connection: Connection) => {
      this.#use(connection);
      this.#open(client.response);
    });
    client.on("httpResponse", (head: IncomingMessage) => {
      head.on("error", () => {}).resume();
      this.tell("refused", { status: head.statusCode, headers: pairs(head.rawHeaders), body: "" });
    });
    client.on("connectFailed", ({ message }: Error) => this.tell("failed", { message }));
    client.connect(url, protocols, undefined, grouped(headers));
  }

  #open(head: IncomingMessage) {
    this.tell("open", {
      protocol: this.#connection!.protocol ?? "",
      extensions: [],
      target: head.url,
      headers: pairs(head.rawHeaders),
    });
  }

  #use(connection: Connection) {
    this.#connection = connection;
    connection.on(
      "message",
      (message: { utf8Data?: string; binaryData?: Buffer }) =>
        this.take(message.utf8Data ?? message.binaryData!),
    );
    connection.on(
      "ping",
      (_: () => void, data: Buffer) => this.tell("ping", { data: data.toString("base64") }),
    );
    connection.on("pong", (data: Buffer) => this.tell("pong", { data: data.toString("base64") }));
    connection.on("error", () => {});
    connection.on("close", (code: number, reason: string) => this.tell("closed", { code, reason }));
  }

  sendWhole(data: string | Uint8Array) {
    if (typeof data === "string") this.#connection!.sendUTF(data);
    else this.#connection!.sendBytes(Buffer.from(data));
  }

  sendPart({ data, type, first, last }: Part) {
    const connection = this.#connection!;
    const { maskBytes, frameHeader, config } = connection;
    const frame = new websocket.frame(maskBytes, frameHeader, config);
    frame.fin = last;
    frame.opcode = first ? OPCODES[type] : 0;
    frame.binaryPayload = Buffer.from(data);
    connection.sendFrame(frame);
  }

  ping(data: Uint8Array) {
    this.#connection!.ping(Buffer.from(data));
  }

  pong(data: Uint8Array) {
    this.#connection!.pong(Buffer.from(data));
  }

  close(code?: number, reason?: string) {
    this.#connection!.close(code, reason);
  }

  abort() {
    this.#connection!.socket.destroy();
  }

  stop() {
    this.#connection?.socket.destroy();
    this.#server?.close();
    this.#server?.closeAllConnections();
  }
}

await runHere(packageVersion("websocket"), (tell) => new WebsocketEnd(tell));
