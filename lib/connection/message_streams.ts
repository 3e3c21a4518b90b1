/**
 * Messages as streams, for those too large to hold.
 *
 * A file of its own because it is one of the three ways to read a connection, and the only one that
 * needs a queue per message.
 *
 * @module
 */
import { webSocketError } from "../core/error.ts";
import { type Fragment, type Message, ownBytes } from "../core/message.ts";
import { type Budget, type End, Inbox, sizeOf } from "./inbox.ts";

/** A message that may still be arriving. */
export interface IncomingMessage {
  /** Whether it is text or bytes. */
  readonly type: "text" | "binary";
  /**
   * Its pieces, as they come: strings of a text message, bytes of a binary one. Each piece of bytes has a
   * buffer of its own.
   */
  readonly readable: ReadableStream<Message>;
}

/** Memory that a message takes beside its pieces, in bytes, while it waits. */
const MESSAGE_OVERHEAD = 512;

/** How a message ends. */
const WHOLE: End = { clean: true, error: undefined };

/** A message that waits to be taken. Its stream is made when it is. */
interface Waiting {
  readonly type: "text" | "binary";
  readonly pieces: Inbox<Message>;
}

/** Turns the pieces of messages into a stream of streams. */
export class MessageStreams {
  /** The messages. */
  readonly readable: ReadableStream<IncomingMessage>;
  readonly #budget: Budget;
  readonly #messages: Inbox<Waiting>;
  #current: Inbox<Message> | undefined;
  #skipping = false;

  /**
   * @param budget what the pieces count towards
   * @param cancel called when the reader of the messages cancels
   */
  constructor(budget: Budget, cancel: (reason: unknown) => void) {
    this.#budget = budget;
    this.#messages = new Inbox(budget, () => MESSAGE_OVERHEAD);
    this.readable = this.#messages.stream(cancel, (message) => this.#present(message));
  }

  /** Whether somebody waits for a message, or for a piece of one. */
  get awaited(): boolean {
    return this.#messages.awaited || this.#current?.awaited === true;
  }

  /** Adds a piece. */
  push(fragment: Fragment): void {
    const { data, messageFinished } = fragment;
    if (this.#current === undefined && !this.#skipping) this.#begin(fragment.type);
    if (data.length > 0) this.#current?.push(typeof data === "string" ? data : ownBytes(data));
    if (!messageFinished) return;
    this.#current?.end(WHOLE);
    this.#current = undefined;
    this.#skipping = false;
  }

  /** Leaves out what remains of the message under way: its reader gets the error. */
  drop(fragment: Fragment): void {
    this.#cut(webSocketError("The message came after our Close frame, and too late", 1000));
    this.#skipping = !fragment.messageFinished;
  }

  /** No more messages come. */
  end(end: End): void {
    if (this.#current !== undefined) this.#cut(end.error);
    this.#messages.end(end);
  }

  #begin(type: "text" | "binary"): void {
    const current = new Inbox<Message>(this.#budget, sizeOf);
    this.#current = current;
    this.#messages.push({ type, pieces: current });
  }

  #present({ type, pieces }: Waiting): IncomingMessage {
    const cancel = () => {
      if (this.#current !== pieces) return;
      this.#current = undefined;
      this.#skipping = true;
    };
    const readable = pieces.stream(cancel, (piece) => piece);
    return { type, readable };
  }

  #cut(error: unknown): void {
    this.#current?.end({ clean: false, error });
    this.#current = undefined;
  }
}
