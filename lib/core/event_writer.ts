/**
 * Events to frames in a batch.
 *
 * A file of its own because what is written where is one thing, and whether it may be sent another,
 * which `protocol.ts` knows.
 *
 * @module
 */
import { serializeClose } from "./close.ts";
import { LocalProtocolError } from "./error.ts";
import type { ProtocolEvent } from "./event.ts";
import { encodeWith, type Extension, type OutgoingFrame } from "./extension.ts";
import { type Frame, MAX_CONTROL_LENGTH, Opcode } from "./frame.ts";
import type { FrameWriter, Ownership } from "./frame_writer.ts";
import type { Fragment, TextEvent } from "./message.ts";
import { wholeLength } from "./utf8.ts";

const encoder = new TextEncoder();

/** Told that a frame is in the batch, or why it is not. */
export type Written = (error?: Error) => void;

type OnFrame = (direction: "in" | "out", frame: Frame) => void;

/** Writes the events of one connection. */
export class EventWriter {
  readonly #onFrame: OnFrame | undefined;
  readonly #extensions: readonly Extension[];
  readonly #refusal: (() => Error | undefined) | undefined;
  /** The type of the message that we are in the middle of sending. */
  #sending: "text" | "binary" | undefined;
  /** The half of a character that the last piece of text has cut off. */
  #half = "";
  /** The frame that was written, which nobody was told of yet. */
  #seen: Frame | undefined;

  /**
   * @param options the extensions, and who is told of frames
   * @param refusal tells why a frame that was pending may no longer be sent; needed with extensions only
   */
  constructor(
    { onFrame, extensions = [] }: { onFrame?: OnFrame; extensions?: readonly Extension[] },
    refusal?: () => Error | undefined,
  ) {
    this.#onFrame = onFrame;
    this.#extensions = extensions;
    this.#refusal = refusal;
  }

  /** Writes one event; see `Protocol.write()`. */
  write(
    event: ProtocolEvent,
    writer: FrameWriter,
    ownership: Ownership,
    later: Written | undefined,
  ): boolean {
    switch (event.type) {
      case "text":
        if (this.#extensions.length > 0) return this.#extended(event, writer, "own", later);
        this.#text(event, writer);
        break;
      case "binary": {
        if (this.#extensions.length > 0) return this.#extended(event, writer, ownership, later);
        const opcode = this.#opcode(event, Opcode.Binary);
        this.#frame({ opcode, fin: event.messageFinished, payload: event.data }, writer, ownership);
        break;
      }
      case "ping":
        this.#control(Opcode.Ping, checkControl(event.payload), writer);
        break;
      case "pong":
        this.#control(Opcode.Pong, checkControl(event.payload), writer);
        break;
      case "close":
        this.#control(Opcode.Close, serializeClose(event), writer);
    }
    return true;
  }

  /** Whether a message has begun and is not whole. */
  get underway(): boolean {
    return this.#sending !== undefined;
  }

  /** Tells of the frame that was written: not before, because who is told may write another one. */
  tell(): void {
    const frame = this.#seen;
    this.#seen = undefined;
    if (frame !== undefined) this.#onFrame?.("out", frame);
  }

  #text(event: TextEvent, writer: FrameWriter): void {
    const opcode = this.#opcode(event, Opcode.Text);
    const text = this.#characters(event);
    const { messageFinished: fin } = event;
    if (this.#onFrame !== undefined) {
      this.#seen = { fin, rsv: 0, opcode, payload: encoder.encode(text) };
    }
    writer.text(opcode, text, fin);
  }

  /** The characters of a piece of text that are whole, with what the piece before it has cut off. */
  #characters({ data, messageFinished }: TextEvent): string {
    if (messageFinished && this.#half === "") return data;
    const text = this.#half + data;
    const end = messageFinished ? text.length : wholeLength(text);
    this.#half = text.slice(end);
    return text.slice(0, end);
  }

  #control(opcode: Opcode, payload: Uint8Array, writer: FrameWriter): void {
    this.#frame({ opcode, fin: true, payload }, writer, "copy");
  }

  #frame(
    { opcode, fin, payload, rsv = 0 }: Omit<OutgoingFrame, "rsv"> & { rsv?: number },
    writer: FrameWriter,
    ownership: Ownership,
  ): void {
    if (this.#onFrame !== undefined) {
      // A copy: the bytes may be the caller's, and are masked where they are our own.
      this.#seen = { fin, rsv, opcode, payload: new Uint8Array(payload) };
    }
    writer.bytes(opcode, payload, fin, rsv, ownership);
  }

  /** Writes a piece of a message as the extensions make it. */
  #extended(
    event: Fragment,
    writer: FrameWriter,
    ownership: Ownership,
    later: Written | undefined,
  ): boolean {
    const [sending, half] = [this.#sending, this.#half];
    const opcode = this.#opcode(event, event.type === "text" ? Opcode.Text : Opcode.Binary);
    const payload = event.type === "text" ? encoder.encode(this.#characters(event)) : event.data;
    const { messageFinished: fin, compress } = event;
    const put = (frame: OutgoingFrame) =>
      this.#frame(frame, writer, frame.payload === payload ? ownership : "own");
    let isDue = true;
    const encoded = later && ((error: Error | undefined, frame: OutgoingFrame) => {
      if (!isDue) return;
      isDue = false;
      const refused = error ?? this.#refusal?.();
      if (refused === undefined) put(frame);
      this.tell();
      later(refused);
    });
    let frame: OutgoingFrame | undefined;
    try {
      frame = encodeWith(this.#extensions, { opcode, fin, rsv: 0, payload, compress }, encoded);
    } catch (error) {
      [this.#sending, this.#half] = [sending, half];
      throw error;
    }
    if (frame !== undefined) put(frame);
    return frame !== undefined;
  }

  /** The opcode of the next frame of a message (RFC 6455 §5.4). */
  #opcode(event: Fragment, opcode: Opcode): Opcode {
    const begun = this.#sending;
    if (begun !== undefined && begun !== event.type) {
      throw new LocalProtocolError(
        `Expected the ${begun} message to go on, received a ${event.type} event`,
      );
    }
    this.#sending = event.messageFinished ? undefined : event.type;
    return begun === undefined ? opcode : Opcode.Continuation;
  }
}

/**
 * Checks the payload of a ping or a pong (RFC 6455 §5.5).
 *
 * @throws {RangeError} If it is longer than 125 bytes.
 */
export function checkControl(payload: Uint8Array): Uint8Array {
  if (payload.length > MAX_CONTROL_LENGTH) {
    throw new RangeError(
      `Expected a control payload of at most 125 bytes, received ${payload.length}`,
    );
  }
  return payload;
}
