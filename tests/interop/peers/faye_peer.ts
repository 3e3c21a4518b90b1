/** faye-websocket as the other end. */
import { Buffer } from "node:buffer";
import { readFileSync } from "node:fs";
import { createServer, type IncomingMessage, type Server } from "node:http";
import { createServer as createSecureServer } from "node:https";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
// @ts-types="./untyped.d.ts"
import WebSocket from "faye-websocket";
// @ts-types="./untyped.d.ts"
import deflate from "permessage-deflate";
import { grouped, HOST, MAX_SIZE, pairs } from "./agent.ts";
import { StandardEnd, type StandardSocket } from "./standard.ts";
import { packageVersion, runHere } from "./stdio.ts";

interface FayeSocket extends StandardSocket {
  headers: Record<string, string>;
  statusCode: number;
  ping(message: string, callback: () => void): void;
}

class FayeEnd extends StandardEnd {
  #server: Server | undefined;
  #stream: Duplex | undefined;

  get #settings() {
    const { compression, headers, maxSize = MAX_SIZE } = this.options;
    return {
      maxLength: maxSize,
      headers: grouped(headers),
      extensions: compression ? [deflate] : [],
    };
  }

  async listen() {
    const { port = 0, tls, protocols } = this.options;
    const server = tls === undefined ? createServer() : createSecureServer({
      cert: readFileSync(tls.cert),
      key: readFileSync(tls.key),
    });
    this.#server = server;
    server.on("upgrade", (request: IncomingMessage, stream: Duplex, head: Buffer) => {
      this.#stream = stream;
      const socket = new WebSocket(request, stream, head, protocols, this.#settings);
      this.use(
        socket as FayeSocket,
        () => ({ target: request.url, headers: pairs(request.rawHeaders) }),
      );
    });
    await new Promise<void>((resolve) => server.listen(port, HOST, resolve));
    this.tell("listening", { port: (server.address() as AddressInfo).port });
  }

  connect() {
    const { url, protocols, ca } = this.options;
    const tls = ca === undefined ? {} : { ca: readFileSync(ca) };
    const socket = new WebSocket.Client(url, protocols, { ...this.#settings, tls });
    this.#stream = (socket as { _stream: Duplex })._stream;
    this.use(socket as FayeSocket, () => ({ headers: Object.entries(socket.headers) }));
    const { onerror } = socket;
    socket.onerror = (event: { message: string }) => {
      if (socket.statusCode === undefined || socket.statusCode === 101) return onerror(event);
      const headers = Object.entries(socket.headers);
      this.tell("refused", { status: socket.statusCode, headers, body: "" });
    };
  }

  override sendWhole(data: string | Uint8Array) {
    super.sendWhole(typeof data === "string" ? data : Buffer.from(data));
  }

  override ping(data: Uint8Array) {
    const text = new TextDecoder().decode(data);
    const socket = this.socket as FayeSocket;
    socket.ping(text, () => this.tell("pong", { data: btoa(text) }));
  }

  abort() {
    this.#stream!.destroy();
  }

  override stop() {
    this.#stream?.destroy();
    this.#server?.close();
    this.#server?.closeAllConnections();
  }
}

await runHere(packageVersion("faye-websocket"), (tell) => new FayeEnd(tell));
