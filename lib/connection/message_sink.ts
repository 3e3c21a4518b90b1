/**
 * The stream of messages to send.
 *
 * A file of its own because most connections are sent on without it, and then have nothing of it.
 *
 * @module
 */
import type { Message } from "../core/message.ts";
import type { BufferSource } from "../options.ts";
import { DONE } from "./outbox.ts";
import { toMessage } from "./outgoing.ts";

/** What a {@linkcode MessageSink} asks of its sender. */
export interface SinkHost {
  /** Sends a message. */
  write(message: Message): Promise<void>;
  /** Rejects with the error of a write: if the end has cut it off, no sooner than `closed` settles. */
  cutOff(error: unknown): Promise<never>;
  /** The writer of the stream has closed it; resolves when the connection is closed. */
  finish(): Promise<void>;
  /** The writer of the stream has aborted it. */
  leave(reason: unknown): void;
}

/** The stream of one connection. */
export class MessageSink {
  /** Whose writer sends. */
  readonly writable: WritableStream<Message | BufferSource>;
  #controller!: WritableStreamDefaultController;
  #closing = false;

  /** @param host what sends */
  constructor(host: SinkHost) {
    this.writable = new WritableStream({
      start: (controller) => {
        this.#controller = controller;
        // An abort waits for the write that is under way, and that may wait for the peer.
        controller.signal?.addEventListener("abort", () => host.leave(controller.signal.reason));
      },
      write: (chunk) => write(host, toMessage(chunk)),
      close: () => {
        this.#closing = true;
        return host.finish();
      },
      abort: (reason) => host.leave(reason),
    });
  }

  /** Nothing more is sent. A stream that was closed by its writer stays closed. */
  end(error: unknown): void {
    if (!this.#closing) this.#controller.error(error);
  }
}

function write(host: SinkHost, message: Message): Promise<void> {
  try {
    const sent = host.write(message);
    return sent === DONE ? sent : sent.catch((error) => host.cutOff(error));
  } catch (error) {
    return host.cutOff(error);
  }
}
