/** The reader of messages, for pieces of a FrameDecoder. */
import {
  DecodedPiece,
  type Fragment,
  type MessageOptions,
  MessageReader,
} from "../lib/core/message.ts";
import type { FramePiece } from "../lib/core/mod.ts";

export class PieceReader {
  readonly #reader: MessageReader;

  constructor(options?: MessageOptions) {
    this.#reader = new MessageReader(options);
  }

  /** Reads a piece of a frame as a piece of a message. */
  read(piece: FramePiece): Fragment {
    return this.#reader.read(new DecodedPiece().set(piece))!;
  }

  end(): void {
    this.#reader.end();
  }
}
