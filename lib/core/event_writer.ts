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

  #text(event: TextEvent, writer: FrameWriter): void {
    const opcode = this.#opcode(event, Opcode.Text);
    const { data, messageFinished: fin } = event;
    this.#onFrame?.("out", { fin, rsv: 0, opcode, payload: encoder.encode(data) });
    writer.text(opcode, data, fin);
  }

  #control(opcode: Opcode, payload: Uint8Array, writer: FrameWriter): void {
    this.#frame({ opcode, fin: true, payload }, writer, "copy");
  }

  #frame(
    { opcode, fin, payload, rsv = 0 }: Omit<OutgoingFrame, "rsv"> & { rsv?: number },
    writer: FrameWriter,
    ownership: Ownership,
  ): void {
    this.#onFrame?.("out", { fin, rsv, opcode, payload });
    writer.bytes(opcode, payload, fin, rsv, ownership);
  }

  /** Writes a piece of a message as the extensions make it. */
  #extended(
    event: Fragment,
    writer: FrameWriter,
    ownership: Ownership,
    later: Written | undefined,
  ): boolean {
    const before = this.#sending;
    const opcode = this.#opcode(event, event.type === "text" ? Opcode.Text : Opcode.Binary);
    const payload = event.type === "text" ? encoder.encode(event.data) : event.data;
    const { messageFinished: fin, compress } = event;
    const put = (frame: OutgoingFrame) =>
      this.#frame(frame, writer, frame.payload === payload ? ownership : "own");
    const encoded = later && ((error: Error | undefined, frame: OutgoingFrame) => {
      const refused = error ?? this.#refusal?.();
      if (refused === undefined) put(frame);
      later(refused);
    });
    let frame: OutgoingFrame | undefined;
    try {
      frame = encodeWith(this.#extensions, { opcode, fin, rsv: 0, payload, compress }, encoded);
    } catch (error) {
      this.#sending = before;
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

function checkControl(payload: Uint8Array): Uint8Array {
  if (payload.length > MAX_CONTROL_LENGTH) {
    throw new RangeError(
      `Expected a control payload of at most 125 bytes, received ${payload.length}`,
    );
  }
  return payload;
}
