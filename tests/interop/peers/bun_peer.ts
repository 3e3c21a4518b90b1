/** Bun's own WebSocket, and Bun.serve(). */
import { readFileSync } from "node:fs";
import { grouped, HOST, MAX_SIZE, toText } from "./agent.ts";
import { StandardEnd, type StandardSocket } from "./standard.ts";
import { runHere } from "./stdio.ts";

interface BunSocket {
  send(data: string | Uint8Array): number;
  ping(data: Uint8Array): void;
  pong(data: Uint8Array): void;
  close(code?: number, reason?: string): void;
  terminate(): void;
}

interface BunServer {
  readonly port: number;
  upgrade(request: Request, options: { headers: Headers }): boolean;
  stop(closeActiveConnections: boolean): void;
}

declare const Bun: { version: string; serve(options: object): BunServer };

class BunEnd extends StandardEnd {
  #server: BunServer | undefined;
  #accepted: BunSocket | undefined;

  listen() {
    const { port = 0, tls, refuse, headers = [], compression, maxSize = MAX_SIZE } = this.options;
    let told = {};
    this.#server = Bun.serve({
      hostname: HOST,
      port,
      tls: tls && { cert: readFileSync(tls.cert, "utf8"), key: readFileSync(tls.key, "utf8") },
      fetch: (request: Request, server: BunServer) => {
        if (refuse !== undefined) {
          return new Response(refuse.body, { status: refuse.status, headers: refuse.headers });
        }
        const { pathname, search } = new URL(request.url);
        const offered = request.headers.get("sec-websocket-protocol")?.split(", ") ?? [];
        const protocol = this.choose(offered);
        told = {
          target: pathname + search,
          headers: [...request.headers],
          protocol: protocol ?? "",
        };
        const own = new Headers(headers);
        if (protocol !== undefined) own.set("Sec-WebSocket-Protocol", protocol);
        if (!server.upgrade(request, { headers: own })) return new Response("", { status: 400 });
      },
      websocket: {
        perMessageDeflate: compression ?? false,
        maxPayloadLength: maxSize,
        backpressureLimit: 2 * MAX_SIZE,
        idleTimeout: 0,
        sendPings: false,
        open: (socket: BunSocket) => {
          this.#accepted = socket;
          this.tell("open", { extensions: [], protocol: "", ...told });
        },
        message: (_: BunSocket, data: string | Uint8Array) => this.take(data),
        ping: (_: BunSocket, data: Uint8Array) => this.tell("ping", { data: toText(data) }),
        pong: (_: BunSocket, data: Uint8Array) => this.tell("pong", { data: toText(data) }),
        close: (_: BunSocket, code: number, reason: string) =>
          this.tell("closed", { code, reason }),
      },
    });
    this.tell("listening", { port: this.#server.port });
  }

  connect() {
    const { url, protocols = [], headers, compression = false } = this.options;
    const BunWebSocket = WebSocket as unknown as new (url: string, options: object) => object;
    const socket = new BunWebSocket(url!, {
      protocols,
      headers: grouped(headers),
      perMessageDeflate: compression,
    });
    this.use(socket as StandardSocket);
    for (const event of ["ping", "pong"]) {
      (socket as EventTarget).addEventListener(event, (message) => {
        this.tell(event, { data: toText(new Uint8Array((message as MessageEvent).data)) });
      });
    }
  }

  get #both(): BunSocket {
    return this.#accepted ?? this.socket as unknown as BunSocket;
  }

  override sendWhole(data: string | Uint8Array) {
    this.#both.send(data);
  }

  override ping(data: Uint8Array) {
    this.#both.ping(data);
  }

  override pong(data: Uint8Array) {
    this.#both.pong(data);
  }

  override close(code?: number, reason?: string) {
    if (code === undefined) this.#both.close();
    else this.#both.close(code, reason);
  }

  abort() {
    this.#both.terminate();
  }

  override stop() {
    this.#both?.terminate();
    this.#server?.stop(true);
  }
}

await runHere(`Bun ${Bun.version}`, (tell) => new BunEnd(tell));
