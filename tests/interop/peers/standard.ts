/** Ends that use the standard's WebSocket and WebSocketStream. */
import { End } from "./agent.ts";

/** What the standard's WebSocket and its imitations have in common. */
export interface StandardSocket {
  binaryType?: string;
  readonly protocol: string;
  readonly extensions?: string;
  onopen: ((event: never) => unknown) | null;
  onmessage: ((event: { data: string | ArrayBuffer | Uint8Array }) => unknown) | null;
  onerror: ((event: { message?: string }) => unknown) | null;
  onclose: ((event: { code: number; reason: string }) => unknown) | null;
  send(data: never): unknown;
  close(code?: number, reason?: string): unknown;
}

/** An end of a WebSocket. */
export abstract class StandardEnd extends End {
  protected socket: StandardSocket | undefined;
  #isOpen = false;

  /** Reports what happens to a socket. `told` is what the end knows of the other's head. */
  protected use(socket: StandardSocket, told: () => object = () => ({})): void {
    this.socket = socket;
    socket.binaryType = "arraybuffer";
    socket.onopen = () => {
      this.#isOpen = true;
      const { protocol, extensions = "" } = socket;
      const names = extensions.split(", ").filter(Boolean);
      this.tell("open", { protocol: protocol ?? "", extensions: names, headers: [], ...told() });
    };
    socket.onmessage = ({ data }) =>
      this.take(typeof data === "string" ? data : new Uint8Array(data));
    socket.onerror = ({ message = "error" }) => {
      if (!this.#isOpen) this.tell("failed", { message });
    };
    socket.onclose = ({ code, reason }) => {
      if (this.#isOpen) this.tell("closed", { code, reason });
    };
  }

  sendWhole(data: string | Uint8Array): void {
    this.socket!.send(data as never);
  }

  sendPart(): void {
    throw new Error("The API has no fragments");
  }

  ping(_: Uint8Array): void {
    throw new Error("The API has no pings");
  }

  pong(_: Uint8Array): void {
    throw new Error("The API has no pongs");
  }

  close(code?: number, reason?: string): void {
    if (code === undefined) this.socket!.close();
    else this.socket!.close(code, reason);
  }

  stop(): void {
    if (this.socket !== undefined) this.socket.onclose = null;
    this.close();
  }
}

/** The draft's WebSocketStream. */
interface StreamSocket {
  readonly opened: Promise<{
    readable: ReadableStream<string | Uint8Array>;
    writable: WritableStream<string | Uint8Array>;
    protocol: string;
    extensions: string;
  }>;
  readonly closed: Promise<{ closeCode?: number; reason?: string }>;
  close(info?: { closeCode?: number; reason?: string }): void;
}

export type StreamClass = new (url: string, options: object) => StreamSocket;

/** An end of a WebSocketStream, which is always a client. */
export class StreamEnd extends End {
  #socket: StreamSocket | undefined;
  #writer: WritableStreamDefaultWriter<string | Uint8Array> | undefined;
  readonly #class: StreamClass;
  readonly #kill: () => void;

  constructor(tell: (told: object) => void, socketClass: StreamClass, kill: () => void) {
    super(tell);
    this.#class = socketClass;
    this.#kill = kill;
  }

  listen(): void {
    throw new Error("WebSocketStream is a client");
  }

  connect(): void {
    const { url, protocols, headers } = this.options;
    const socket = new this.#class(url!, { protocols, headers });
    this.#socket = socket;
    socket.closed.catch(() => {});
    socket.opened.then(({ readable, writable, protocol, extensions }) => {
      this.#writer = writable.getWriter();
      this.#writer.closed.catch(() => {});
      const names = extensions.split(", ").filter(Boolean);
      this.tell("open", { protocol, extensions: names, headers: [] });
      void this.#read(readable);
      socket.closed.then(
        ({ closeCode, reason }) => this.tell("closed", { code: closeCode, reason }),
        ({ closeCode, reason }) =>
          this.tell("closed", { code: closeCode ?? 1006, reason: reason ?? "" }),
      );
    }, (error) => this.tell("failed", { message: String(error) }));
  }

  async #read(readable: ReadableStream<string | Uint8Array>) {
    const reader = readable.getReader();
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) return;
        // Chromium gives an ArrayBuffer.
        const data = typeof value === "string" ? value : new Uint8Array(value);
        if (this.options.echo) await this.#writer!.write(data);
        else this.take(data);
      }
    } catch {
      // `closed` tells the end.
    }
  }

  async sendWhole(data: string | Uint8Array): Promise<void> {
    await this.#writer!.write(data);
  }

  sendPart(): void {
    throw new Error("The API has no fragments");
  }

  ping(): void {
    throw new Error("The API has no pings");
  }

  pong(): void {
    throw new Error("The API has no pongs");
  }

  close(code?: number, reason?: string): void {
    this.#socket!.close(code === undefined ? {} : { closeCode: code, reason });
  }

  abort(): void {
    this.#kill();
  }

  stop(): void {
    this.#socket?.close();
  }
}
