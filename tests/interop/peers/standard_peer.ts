/** The client that a runtime or undici has by itself. The argument names it. */
import { Buffer } from "node:buffer";
import { channel } from "node:diagnostics_channel";
import process from "node:process";
import { grouped, toText } from "./agent.ts";
import { StandardEnd, type StandardSocket, type StreamClass, StreamEnd } from "./standard.ts";
import { packageVersion, runHere } from "./stdio.ts";

type SocketClass = new (url: string, options: object) => StandardSocket;

/** A client. A program has no other way than its own end to cut a connection. */
class ClientEnd extends StandardEnd {
  readonly #class: SocketClass;
  readonly #ping: Ping | undefined;

  constructor(tell: (told: object) => void, socketClass: SocketClass, ping?: Ping) {
    super(tell);
    this.#class = socketClass;
    this.#ping = ping;
    for (const event of ["ping", "pong"]) {
      channel(`undici:websocket:${event}`).subscribe((message) => {
        const { websocket, payload } = message as { websocket: unknown; payload: Uint8Array };
        if (websocket === this.socket) this.tell(event, { data: toText(payload) });
      });
    }
  }

  listen(): void {
    throw new Error("It has no server");
  }

  connect(): void {
    const { url, protocols = [], headers } = this.options;
    this.use(new this.#class(url!, { protocols, headers: grouped(headers) }));
  }

  override ping(data: Uint8Array): void {
    this.#ping!(this.socket!, data);
  }

  abort(): void {
    kill();
  }
}

type Ping = (socket: StandardSocket, data: Uint8Array) => void;

function kill(): void {
  process.kill(process.pid, "SIGKILL");
}

const node = `Node ${process.versions.node}, undici ${process.versions.undici}`;
const globals = globalThis as unknown as { WebSocket: SocketClass; WebSocketStream: StreamClass };

switch (process.argv[2]) {
  case "undici": {
    const { ping, WebSocket } = await import("undici");
    const socketClass = WebSocket as unknown as SocketClass;
    const pingWith: Ping = (socket, data) => ping(socket as never, Buffer.from(data));
    await runHere(packageVersion("undici"), (tell) => new ClientEnd(tell, socketClass, pingWith));
    break;
  }
  case "undici-stream": {
    const { WebSocketStream } = await import("undici") as unknown as typeof globals;
    await runHere(packageVersion("undici"), (tell) => new StreamEnd(tell, WebSocketStream, kill));
    break;
  }
  case "node":
    await runHere(node, (tell) => new ClientEnd(tell, globals.WebSocket));
    break;
  case "deno-stream":
    await runHere(
      `Deno ${process.versions.deno}`,
      (tell) => new StreamEnd(tell, globals.WebSocketStream, kill),
    );
}
