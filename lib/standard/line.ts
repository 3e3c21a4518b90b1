/**
 * What a connection in a browser runs on: the browser's WebSocketStream, or its WebSocket.
 *
 * @module
 */
import { handled } from "../abortable.ts";
import { sizeOf } from "../connection/receiver.ts";
import { SEND_MARK } from "../connection/sender.ts";
import type { CloseInfo } from "../core/close.ts";
import { WebSocketError, webSocketError } from "../core/error.ts";
import type { Message } from "../core/message.ts";
import { NativeSocket, type WebSocketLike } from "./native_socket.ts";
import type { WebSocketStreamConstructor, WebSocketStreamOptions } from "./stream_class.ts";

/** An open WebSocket of a browser. */
export interface Line {
  readonly protocol: string;
  readonly extensions: string;
  /** Resolves with the peer's code and reason after a clean close. */
  readonly closed: Promise<Required<CloseInfo>>;
  /**
   * Reads the next message. Resolves with undefined after a clean close, and rejects after another end. Is
   * called again when it has settled.
   */
  read(): Promise<unknown>;
  /** Sends a message, without keeping its bytes. Settles when there is room for another one. */
  write(message: Message): Promise<void> | undefined;
  /** Starts the closing handshake, after the messages written. */
  close(info: CloseInfo): void;
  /** Ends the connection at once, as far as the browser can. */
  terminate(): void;
}

/** Connects by a WebSocketStream of the platform. */
export async function openStream(
  Native: WebSocketStreamConstructor,
  url: string,
  options: WebSocketStreamOptions,
): Promise<Line> {
  const stream = new Native(url, options);
  const closed = handled(stream.closed);
  const { readable, writable, protocol, extensions } = await stream.opened;
  const reader = readable.getReader();
  const writer = writable.getWriter();
  let written = Promise.resolve();
  const close = (info?: CloseInfo) => stream.close(info);
  return {
    ...{ protocol, extensions, closed },
    read: async () => (await reader.read()).value,
    write: (message) =>
      written = writer.write(typeof message === "string" ? message : new Uint8Array(message)),
    close: (info) => void handled(written.finally(() => close(info))),
    terminate() {
      close();
      handled(reader.cancel());
    },
  };
}

interface Waiting {
  readonly message: Message;
  next?: Waiting;
}

/** A WebSocket of the platform, which cannot be paused. */
export class SocketLine extends NativeSocket implements Line {
  readonly closed: Promise<Required<CloseInfo>>;
  queued = 0;
  /** The messages that wait, as a linked list. */
  #first: Waiting | undefined;
  #last: Waiting | undefined;
  #settle!: { resolve(info: Required<CloseInfo>): void; reject(error: unknown): void };
  /** Resolves the pending read. */
  #give: ((message: Message | Promise<undefined>) => void) | undefined;
  /** The result of reads after the last message. */
  #end: Promise<undefined> | undefined;
  /** Settles the writes that wait for room. */
  #room: { promise: Promise<void>; resolve(end?: Promise<undefined>): void } | undefined;

  /** @param socket A socket that is connecting or open. */
  constructor(socket: WebSocketLike, maxQueuedBytes: number) {
    super(socket, maxQueuedBytes);
    this.closed = handled(new Promise((resolve, reject) => this.#settle = { resolve, reject }));
  }

  get protocol(): string {
    return this.socket.protocol ?? "";
  }

  get extensions(): string {
    return this.socket.extensions ?? "";
  }

  async read(): Promise<Message | undefined> {
    const first = this.#first;
    if (first === undefined) {
      return await (this.#end ?? new Promise((resolve) => this.#give = resolve));
    }
    this.#first = first.next;
    this.queued -= sizeOf(first.message);
    return first.message;
  }

  write(message: Message): Promise<void> | undefined {
    const isKept = typeof message === "string" || this.copies;
    this.send(isKept ? message : new Uint8Array(message), false);
    if (this.bufferedAmount <= SEND_MARK) return;
    if (this.#room === undefined) {
      let resolve!: (end?: Promise<undefined>) => void;
      this.#room = { promise: new Promise((done) => resolve = done), resolve };
    }
    return this.#room.promise;
  }

  terminate(): void {
    this.cut();
    this.ended(undefined, undefined);
  }

  protected deliver(message: Message | undefined): void {
    if (message === undefined) {
      this.fail("Neither text nor bytes", 1003);
    } else if (this.#give === undefined) {
      this.queued += sizeOf(message);
      const last: Waiting = { message };
      if (this.#first === undefined) this.#first = last;
      else this.#last!.next = last;
      this.#last = last;
    } else {
      this.#give(message);
      this.#give = undefined;
    }
  }

  protected drained(end?: Promise<undefined>): void {
    this.#room?.resolve(end);
    this.#room = undefined;
  }

  protected ended(info: Required<CloseInfo> | undefined, error: Error | undefined): void {
    // In the standard, a close is clean only if everything that was written has been sent.
    if (info !== undefined && this.#room === undefined) {
      this.#settle.resolve(info);
      this.#end = Promise.resolve(undefined);
    } else {
      const { closeCode = 1006, reason } = info ?? {};
      const failure = error instanceof WebSocketError
        ? error
        : webSocketError("The connection was lost", closeCode, reason, error);
      this.#settle.reject(failure);
      this.#end = handled(Promise.reject(failure));
    }
    this.#give?.(this.#end);
    this.drained(this.#end);
  }
}
