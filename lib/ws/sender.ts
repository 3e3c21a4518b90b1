/** The `Sender` of `ws`: writes frames to a socket. */
import { Buffer } from "node:buffer";
import type { Duplex } from "node:stream";
import { isWireCloseCode, serializeClose } from "../core/close.ts";
import { encodeFrame, firstByte, headerLength, writeHeader } from "../core/frame_writer.ts";
import { Opcode } from "../core/frame.ts";
import { Protocol } from "../core/protocol.ts";
import { EMPTY } from "./inlet.ts";
import { Outlet, type SendCallback, toBytes } from "./outlet.ts";
import type { AgreedExtensions } from "./receiver.ts";

/** Options of {@linkcode Sender.frame}. */
export interface SenderFrameOptions {
  /** The opcode. */
  opcode: number;
  /** Whether this is the last frame of the message. */
  fin?: boolean | undefined;
  /** Whether to mask the frame. */
  mask?: boolean | undefined;
  /** Writes the masking key into its argument. By default, the key is random. */
  generateMask?: ((mask: Buffer) => void) | undefined;
  /** Has no effect: the data is never changed. */
  readOnly?: boolean | undefined;
  /** Whether the data is compressed. */
  rsv1?: boolean | undefined;
}

/** Options of {@linkcode Sender.send}. */
export interface SenderOptions {
  /** Whether the message is binary. */
  binary?: boolean | undefined;
  /** Whether to compress the message. */
  compress?: boolean | undefined;
  /** Whether this is the last frame of the message. */
  fin?: boolean | undefined;
  /** Whether to mask the frame. */
  mask?: boolean | undefined;
}

/**
 * Writes frames to a socket, at the end of the turn.
 *
 * @example
 * ```ts
 * import { Sender } from "sluice/ws";
 * import { PassThrough } from "node:stream";
 *
 * const socket = new PassThrough();
 * socket.on("data", (bytes) => console.log(bytes.toString("hex"))); // 810548656c6c6f
 * new Sender(socket).send("Hello", { fin: true });
 * ```
 */
export class Sender {
  readonly #outlet: Outlet;

  /**
   * Makes a sender.
   *
   * @param socket Where the frames are written.
   * @param _extensions Has no effect: a sender that a program makes does not compress.
   * @param generateMask Writes a masking key into its argument. By default, keys are random.
   * @param outlet What a WebSocket writes with. Internal.
   */
  constructor(
    socket: Duplex,
    _extensions?: AgreedExtensions,
    generateMask?: (mask: Buffer) => void,
    outlet?: Outlet,
  ) {
    this.#outlet = outlet ?? new Outlet(socket, new Protocol("server"), {
      masks: false,
      generateMask,
      deflation: undefined,
      onError: (error) => socket.destroy(error),
    });
  }

  /**
   * Returns the bytes of a frame, in one or two parts. The data itself is the second part if the frame is
   * not masked.
   *
   * @param data The payload.
   * @param options The header of the frame.
   */
  static frame(data: string | Uint8Array, options: SenderFrameOptions): Buffer[] {
    const { opcode, fin = false, mask = false, generateMask, rsv1 = false } = options;
    const payload = toBuffer(data);
    const rsv = rsv1 ? 4 : 0;
    if (mask) {
      const key = generateMask && Buffer.alloc(4);
      if (key !== undefined) generateMask!(key);
      const frame = { opcode: opcode as Opcode, fin, rsv, payload };
      return [toBuffer(encodeFrame(frame, { mask: key ?? true }))];
    }
    const header = Buffer.alloc(headerLength(payload.length, false));
    writeHeader(header, 0, firstByte(fin, rsv, opcode), payload.length);
    return payload.length === 0 ? [header] : [header, payload];
  }

  /** Number of bytes that wait to be read or compressed. */
  get _bufferedBytes(): number {
    return this.#outlet.bufferedAmount;
  }

  /** 1 while a message is compressed, 2 while a Blob is read, or 0. */
  get _state(): number {
    return this.#outlet.state;
  }

  /** Sends a frame of a message. */
  send(data: unknown, options: SenderOptions, callback?: SendCallback): void {
    const { binary = false, compress = false, fin = false, mask = false } = options;
    const opcode = binary ? Opcode.Binary : Opcode.Text;
    this.#outlet.sendData(data, { opcode, fin, compress, mask }, callback);
  }

  /**
   * Sends a ping.
   *
   * @throws {RangeError} If the data is longer than 125 bytes.
   */
  ping(data: unknown, mask?: boolean, callback?: SendCallback): void {
    this.#outlet.sendControl(data, Opcode.Ping, mask === true, callback);
  }

  /**
   * Sends a pong.
   *
   * @throws {RangeError} If the data is longer than 125 bytes.
   */
  pong(data: unknown, mask?: boolean, callback?: SendCallback): void {
    this.#outlet.sendControl(data, Opcode.Pong, mask === true, callback);
  }

  /**
   * Sends a Close frame.
   *
   * @throws {TypeError} If the code must not be sent.
   * @throws {RangeError} If the reason is longer than 123 bytes.
   */
  close(
    code?: number,
    reason?: string | Uint8Array,
    mask?: boolean,
    callback?: SendCallback,
  ): void {
    const { closeCode = 1005, reason: text } = checkClose(code, reason);
    const payload = closeCode === 1005 ? EMPTY : serializeClose({ closeCode, reason: text });
    this.#outlet.sendControl(payload, Opcode.Close, mask === true, callback);
  }

  /** Sends the parts that {@linkcode Sender.frame} has returned. */
  sendFrame(parts: readonly (string | Uint8Array)[], callback?: SendCallback): void {
    this.#outlet.sendParts(parts.map(toBytes), callback);
  }
}

function toBuffer(data: string | Uint8Array): Buffer {
  const bytes = toBytes(data);
  if (Buffer.isBuffer(bytes)) return bytes;
  return Buffer.from(bytes.buffer as ArrayBuffer, bytes.byteOffset, bytes.length);
}

/** Checks the arguments of `close()`. */
export function checkClose(
  code: number | undefined,
  given: string | Uint8Array | undefined,
): { closeCode?: number; reason?: string } {
  if (code === undefined) return {};
  // A fraction is cut off when the code is written.
  const closeCode = typeof code === "number" ? Math.trunc(code) : NaN;
  if (!isWireCloseCode(closeCode)) {
    throw new TypeError("First argument must be a valid error code number");
  }
  if (given === undefined || !given.length) return { closeCode };
  if (typeof given !== "string" && !(given instanceof Uint8Array)) {
    throw new TypeError("Second argument must be a string or a Uint8Array");
  }
  const reason = typeof given === "string" ? given : Buffer.from(given).toString();
  if (Buffer.byteLength(reason) > 123) {
    throw new RangeError("The message must not be greater than 123 bytes");
  }
  return { closeCode, reason };
}
