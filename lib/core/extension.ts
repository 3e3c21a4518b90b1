/**
 * The interface of protocol extensions (RFC 6455 §9), their negotiation, and how they change data
 * frames.
 */
import { HandshakeError, wrongType } from "./error.ts";
import { type FramePiece, isControl } from "./decoder.ts";
import type { Opcode } from "./frame.ts";
import type { ExtensionHeader } from "./header.ts";

/** The parameters of an extension, in order. A parameter without a value has undefined. */
export type ExtensionParameters = ExtensionHeader["parameters"];

/** An extension that one end supports, before the handshake. */
export interface ExtensionFactory {
  /** The registered name of the extension. */
  readonly name: string;
  /** Returns a client's offers, in order of preference. */
  offer(): readonly ExtensionParameters[];
  /**
   * Makes a client's extension from the parameters that the server has chosen.
   * @throws {HandshakeError} If the parameters do not answer an offer.
   */
  finalize(parameters: ExtensionParameters): Extension;
  /** Makes a server's extension from one offer. Returns undefined to decline the offer. */
  accept(
    parameters: ExtensionParameters,
  ): { parameters: ExtensionParameters; extension: Extension } | undefined;
}

/** Returned instead of output while another thread produces the output. */
export const PENDING: unique symbol = Symbol("pending");

/** A data frame to send. */
export interface OutgoingFrame {
  /** The opcode; 0 for all frames of a message except the first. */
  opcode: Opcode;
  /** Whether this frame is the last one of the message. */
  fin: boolean;
  /** The reserved bits that earlier extensions have set. */
  rsv: number;
  /** The payload. An extension must not change these bytes. It returns other bytes instead. */
  payload: Uint8Array;
  /** Whether to compress the message. By default the extension decides. */
  compress?: boolean;
}

/** Called with a frame that was pending, or with an error. */
export type EncodedFrame = (error: Error | undefined, frame: OutgoingFrame) => void;

/**
 * An extension on one connection. It changes data frames, never control frames. `push()` takes a
 * received piece. After each piece, `next()` is called until it returns undefined.
 */
export interface Extension {
  /** The registered name of the extension. */
  readonly name: string;
  /** The reserved bits that the extension uses (`Rsv`). */
  readonly rsv: number;
  /**
   * Takes a piece of a received data frame.
   * @throws {RemoteProtocolError} If the peer violates the rules of the extension.
   */
  push(piece: FramePiece): void;
  /**
   * Returns the next piece as it was before the peer's extension changed it. The header has `fin`
   * and the opcode of the frame; its `length` is 0 if the length is unknown. The caller owns the
   * payload.
   * @param ready Called once when there is output again, if the method has returned
   * {@linkcode PENDING}. Without this parameter the method must not return PENDING.
   * @throws {RemoteProtocolError} If the data is not valid.
   */
  next(ready?: () => void): FramePiece | typeof PENDING | undefined;
  /**
   * Changes a frame to send.
   * @param later Called with the result, if the method has returned undefined. No other frame is
   * given to the extension before. Without this parameter the method must not return undefined.
   */
  encode(frame: OutgoingFrame, later?: EncodedFrame): OutgoingFrame | undefined;
  /**
   * Says whether `encode()` changes a whole message in the same way for several connections: those whose
   * extensions return the same object. Returns null if the message stays as it is, and undefined if the
   * result depends on earlier messages.
   * @param length Length of the payload, in bytes.
   * @param compress As in {@linkcode OutgoingFrame}.
   */
  sharedBy?(length: number, compress: boolean | undefined): object | null | undefined;
  /** Frees all resources. No callback is called afterwards. */
  close(): void;
}

/** Reads received pieces through the extensions of a connection. */
export class ExtensionReader {
  readonly #extensions: readonly Extension[];
  readonly #source: () => FramePiece | undefined;
  /** Number of payload bytes of compressed messages, before and after the extensions. */
  compressed = 0;
  uncompressed = 0;
  /** Whether the message that is being read was changed by an extension. */
  #isChanged = false;

  constructor(extensions: readonly Extension[], source: () => FramePiece | undefined) {
    this.#extensions = extensions;
    this.#source = source;
  }

  /** Reads the next piece. Returns undefined if the source has none. */
  next(ready?: () => void): FramePiece | typeof PENDING | undefined {
    return this.#pull(0, ready);
  }

  /** RFC 6455 §9.1: the first extension was applied first, and is undone last. */
  #pull(at: number, ready?: () => void): FramePiece | typeof PENDING | undefined {
    const extension = this.#extensions[at];
    if (extension === undefined) return this.#source();
    for (;;) {
      const piece = extension.next(ready);
      if (piece !== undefined) {
        if (at === 0 && this.#isChanged && piece !== PENDING) {
          this.uncompressed += piece.payload.length;
        }
        return piece;
      }
      const given = this.#pull(at + 1, ready);
      if (given === undefined || given === PENDING || isControl(given.header.opcode)) return given;
      if (at === this.#extensions.length - 1) this.#count(given);
      extension.push(given);
    }
  }

  #count({ header, payload }: FramePiece): void {
    if (header.opcode !== 0) this.#isChanged = header.rsv !== 0;
    if (this.#isChanged) this.compressed += payload.length;
  }
}

/** Changes a frame by each extension in turn. For `later` see {@linkcode Extension.encode}. */
export function encodeWith(
  extensions: readonly Extension[],
  frame: OutgoingFrame,
  later?: EncodedFrame,
): OutgoingFrame | undefined {
  if (later === undefined) return encodeFrom(extensions, 0, frame);
  // The caller could change or detach the bytes while another thread reads them.
  return encodeFrom(extensions, 0, { ...frame, payload: new Uint8Array(frame.payload) }, later);
}

function encodeFrom(
  extensions: readonly Extension[],
  start: number,
  frame: OutgoingFrame,
  later?: EncodedFrame,
): OutgoingFrame | undefined {
  for (let at = start; at < extensions.length; at++) {
    const changed = extensions[at].encode(frame, later && continueFrom(extensions, at + 1, later));
    if (changed === undefined) return undefined;
    frame = checkEncoded(changed);
  }
  return frame;
}

/** Continues with the extensions from `start` on, after the previous extension has finished. */
function continueFrom(
  extensions: readonly Extension[],
  start: number,
  later: EncodedFrame,
): EncodedFrame {
  return (error, frame) => {
    if (error !== undefined) return later(error, frame);
    let changed: OutgoingFrame | undefined;
    try {
      changed = encodeFrom(extensions, start, checkEncoded(frame), later);
    } catch (thrown) {
      return later(thrown as Error, frame);
    }
    if (changed !== undefined) later(undefined, changed);
  };
}

function checkEncoded(frame: OutgoingFrame): OutgoingFrame {
  if (frame?.payload instanceof Uint8Array) return frame;
  throw wrongType(`An extension must return bytes, received ${typeof frame?.payload}`);
}

/** Returns a client's offers of all supported extensions (RFC 6455 §9.1). */
export function offerExtensions(supported: readonly ExtensionFactory[]): ExtensionHeader[] {
  return supported.flatMap((one) =>
    one.offer().map((parameters) => ({ name: one.name, parameters }))
  );
}

/**
 * Makes a client's extensions from the server's answer.
 * @throws {HandshakeError} If an extension was not offered, occurs twice or uses a reserved bit of
 * another extension ("extension"), or if {@linkcode ExtensionFactory.finalize} throws.
 */
export function finalizeExtensions(
  chosen: readonly ExtensionHeader[],
  supported: readonly ExtensionFactory[],
): Extension[] {
  const agreed: Extension[] = [];
  try {
    for (const one of chosen) agreed.push(finalizeOne(one, agreed, supported));
    return agreed;
  } catch (error) {
    for (const extension of agreed) extension.close();
    throw error;
  }
}

function finalizeOne(
  { name, parameters }: ExtensionHeader,
  agreed: readonly Extension[],
  supported: readonly ExtensionFactory[],
): Extension {
  const factory = supported.find((one) => one.name === name);
  // RFC 6455 §4.1: an extension that was not offered fails the connection.
  if (factory === undefined) throw refuse(name, "was not offered");
  if (agreed.some((one) => one.name === name)) throw refuse(name, "occurs twice");
  const extension = factory.finalize(parameters);
  // RFC 6455 §9.1, §5.2: a reserved bit has only one meaning.
  if ((extension.rsv & bitsOf(agreed)) === 0) return extension;
  extension.close();
  throw refuse(name, "uses a reserved bit of another extension");
}

/**
 * Chooses among a client's offers: for each supported extension, in the server's order of
 * preference, the first offer that the extension accepts.
 * @returns The extensions and parameters for the response, and the same extensions, ready for use.
 */
export function acceptExtensions(
  offers: readonly ExtensionHeader[],
  supported: readonly ExtensionFactory[],
): { readonly headers: readonly ExtensionHeader[]; readonly extensions: readonly Extension[] } {
  const headers: ExtensionHeader[] = [];
  const extensions: Extension[] = [];
  for (const factory of supported) {
    for (const { name, parameters } of offers) {
      if (name !== factory.name) continue;
      const accepted = factory.accept(parameters);
      if (accepted === undefined) continue;
      // RFC 6455 §9.1, §5.2: a reserved bit has only one meaning.
      if ((accepted.extension.rsv & bitsOf(extensions)) !== 0) {
        accepted.extension.close();
        continue;
      }
      headers.push({ name, parameters: accepted.parameters });
      extensions.push(accepted.extension);
      break;
    }
  }
  return { headers, extensions };
}

export function bitsOf(extensions: readonly Extension[]): number {
  return extensions.reduce((bits, { rsv }) => bits | rsv, 0);
}

function refuse(name: string, why: string): HandshakeError {
  return new HandshakeError(`The server chose the extension ${name}, which ${why}`, "extension");
}
