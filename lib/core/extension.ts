/**
 * Extensions of the protocol (RFC 6455 §9): what an end supports, how the ends agree, and what then
 * changes the data frames between them.
 *
 * @module
 */
import { HandshakeError } from "./error.ts";
import { type FramePiece, isControl } from "./decoder.ts";
import type { Opcode } from "./frame.ts";
import type { ExtensionHeader } from "./header.ts";

/** The parameters of an extension, in order; the value is undefined where there is none. */
export type ExtensionParameters = ExtensionHeader["parameters"];

/** An extension as one end supports it, before the handshake. */
export interface ExtensionFactory {
  /** The name under which it is registered. */
  readonly name: string;
  /** A client's offers, the preferred one first; the others are what it could fall back to. */
  offer(): readonly ExtensionParameters[];
  /**
   * A client reads what the server has chosen.
   *
   * @throws {HandshakeError} for parameters that do not answer an offer
   */
  finalize(parameters: ExtensionParameters): Extension;
  /** A server answers one offer; undefined declines it. */
  accept(
    parameters: ExtensionParameters,
  ): { parameters: ExtensionParameters; extension: Extension } | undefined;
}

/** Stands for output that is being worked on elsewhere. */
export const PENDING: unique symbol = Symbol("pending");

/** A data frame that is about to leave. */
export interface OutgoingFrame {
  /** The opcode; 0 in the middle of a message. */
  opcode: Opcode;
  /** Whether the message ends with it. */
  fin: boolean;
  /** The reserved bits that extensions have set so far. */
  rsv: number;
  /** The payload. An extension does not change these bytes but gives others. */
  payload: Uint8Array;
  /** Whether the sender wants the message compressed. Default: as the extension does by itself */
  compress?: boolean;
}

/** Takes what was pending: the frame, or what went wrong. */
export type EncodedFrame = (error: Error | undefined, frame: OutgoingFrame) => void;

/**
 * An extension as agreed on for one connection. It changes data frames; control frames pass it by.
 * Inbound it is a pull machine: `push()` gives it a piece, then `next()` is called until it gives
 * undefined.
 */
export interface Extension {
  /** The name under which it is registered. */
  readonly name: string;
  /** The reserved bits that it gives a meaning (`Rsv`). */
  readonly rsv: number;
  /**
   * Takes a piece of a data frame as it came.
   *
   * @throws {RemoteProtocolError} where the peer uses the extension wrongly
   */
  push(piece: FramePiece): void;
  /**
   * Gives the next piece as it was before the peer's extension changed it. Its header has the frame's
   * `fin` and opcode; `length` is 0 where it is not known yet. A payload that the extension has made is the
   * caller's: the extension does not use it again.
   *
   * @param ready where it is given, the answer may be {@linkcode PENDING}, and this is called once
   * when there is another
   * @throws {RemoteProtocolError} where the data cannot be what a peer has sent
   */
  next(ready?: () => void): FramePiece | typeof PENDING | undefined;
  /**
   * Changes a frame that is about to leave.
   *
   * @param later where it is given, the answer may be undefined, and this is called with it; no other
   * frame is given to it before
   */
  encode(frame: OutgoingFrame, later?: EncodedFrame): OutgoingFrame | undefined;
  /** Frees what it holds. What is pending is not called back. */
  close(): void;
}

/**
 * Pieces of frames as they were before the peer's extensions changed them, pulled out of a source of
 * pieces as they came.
 */
export class ExtensionReader {
  readonly #extensions: readonly Extension[];
  readonly #source: () => FramePiece | undefined;

  /**
   * Makes a reader for one connection.
   *
   * @param extensions in the order in which they were agreed on
   * @param source gives the pieces of a {@linkcode FrameDecoder}
   */
  constructor(extensions: readonly Extension[], source: () => FramePiece | undefined) {
    this.#extensions = extensions;
    this.#source = source;
  }

  /**
   * Takes the next piece, or undefined when the source has none.
   *
   * @param ready see {@linkcode Extension.next}
   */
  next(ready?: () => void): FramePiece | typeof PENDING | undefined {
    return this.#pull(0, ready);
  }

  /** RFC 6455 §9.1: the extension named first was applied first, and is undone last. */
  #pull(at: number, ready?: () => void): FramePiece | typeof PENDING | undefined {
    const extension = this.#extensions[at];
    if (extension === undefined) return this.#source();
    for (;;) {
      const piece = extension.next(ready);
      if (piece !== undefined) return piece;
      const given = this.#pull(at + 1, ready);
      if (given === undefined || given === PENDING || isControl(given.header.opcode)) return given;
      extension.push(given);
    }
  }
}

/**
 * Has a frame changed by one extension after the other; `later` as in {@linkcode Extension.encode}.
 *
 * @throws {TypeError} for an extension that gives no bytes
 */
export function encodeWith(
  extensions: readonly Extension[],
  frame: OutgoingFrame,
  later?: EncodedFrame,
): OutgoingFrame | undefined {
  if (later === undefined || extensions.length === 0) return encodeFrom(extensions, 0, frame);
  // The caller could change or detach the bytes while an extension works on them elsewhere.
  return encodeFrom(extensions, 0, { ...frame, payload: new Uint8Array(frame.payload) }, later);
}

function encodeFrom(
  extensions: readonly Extension[],
  start: number,
  frame: OutgoingFrame,
  later?: EncodedFrame,
): OutgoingFrame | undefined {
  for (let at = start; at < extensions.length; at++) {
    const changed = extensions[at].encode(frame, later && goesOn(extensions, at + 1, later));
    if (changed === undefined) return undefined;
    frame = checkEncoded(changed);
  }
  return frame;
}

/** Takes what an extension has worked on elsewhere, and has the rest of them change it. */
function goesOn(
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
  throw new TypeError(`Expected an extension to give bytes, received ${typeof frame?.payload}`);
}

/** What a client offers (RFC 6455 §9.1). */
export function offerExtensions(supported: readonly ExtensionFactory[]): ExtensionHeader[] {
  return supported.flatMap((one) =>
    one.offer().map((parameters) => ({ name: one.name, parameters }))
  );
}

/**
 * A client reads which of its offers the server has accepted.
 *
 * @throws {HandshakeError} "extension" for one that was not offered, or stands twice, or uses the same
 * reserved bits as another one; and what {@linkcode ExtensionFactory.finalize} throws
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
  // RFC 6455 §4.1: an extension that was not asked for fails the connection.
  if (factory === undefined) throw refused("only extensions that were offered", name);
  if (agreed.some((one) => one.name === name)) throw refused("each extension once", name);
  const extension = factory.finalize(parameters);
  // RFC 6455 §9.1, §5.2: a reserved bit has one meaning.
  if ((extension.rsv & bitsOf(agreed)) === 0) return extension;
  extension.close();
  throw refused("extensions that share no reserved bit", name);
}

/** What a server answers, and what is then in use. */
export interface AcceptedExtensions {
  /** What stands in the response. */
  readonly headers: readonly ExtensionHeader[];
  /** What changes the frames. */
  readonly extensions: readonly Extension[];
}

/**
 * A server chooses among the offers of a client: of each extension that it supports, in its own order
 * of preference, the first offer that it can accept.
 */
export function acceptExtensions(
  offers: readonly ExtensionHeader[],
  supported: readonly ExtensionFactory[],
): AcceptedExtensions {
  const headers: ExtensionHeader[] = [];
  const extensions: Extension[] = [];
  for (const factory of supported) {
    for (const { name, parameters } of offers) {
      if (name !== factory.name) continue;
      const accepted = factory.accept(parameters);
      if (accepted === undefined) continue;
      // RFC 6455 §9.1, §5.2: a reserved bit has one meaning.
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

/** The reserved bits that extensions use together. */
export function bitsOf(extensions: readonly Extension[]): number {
  return extensions.reduce((bits, { rsv }) => bits | rsv, 0);
}

function refused(expected: string, name: string): HandshakeError {
  return new HandshakeError(`Expected ${expected}, received ${name}`, "extension");
}
