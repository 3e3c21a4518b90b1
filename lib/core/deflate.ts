/**
 * What compresses and decompresses for {@linkcode PerMessageDeflate}.
 *
 * A file of its own because it is the contract with the platform: the core has no zlib.
 *
 * @module
 */

/** How a {@linkcode Deflater} works. */
export interface DeflaterOptions {
  /** The base-2 logarithm of the window, 8 to 15: nothing further back may be referred to. */
  windowBits: number;
  /** The effort, 0 to 9, or -1 for the platform's default. */
  level: number;
  /** How much memory it may take, 1 to 9. */
  memLevel: number;
}

/** How an {@linkcode Inflater} works. */
export interface InflaterOptions {
  /** The base-2 logarithm of the window, 8 to 15. */
  windowBits: number;
  /**
   * Whether messages may refer to the ones before. Otherwise `reset()` is called behind each.
   */
  contextTakeover: boolean;
  /** The most bytes that a message may have: where it takes a whole message at once, it stops there. */
  maxMessageSize: number;
}

/** Raw DEFLATE (RFC 1951) as a platform has it. All of them may be shared by any connections. */
export interface DeflateEngine {
  /** Makes a compressor. */
  deflater(options: DeflaterOptions): Deflater;
  /** Makes a decompressor. */
  inflater(options: InflaterOptions): Inflater;
}

/** Compresses, one input after the other. */
export interface Deflater {
  /**
   * Compresses all of the input, and flushes: what comes out ends with 00 00 ff ff, or is empty where
   * there was nothing to flush. The bytes are the caller's.
   */
  deflate(input: Uint8Array): Uint8Array;
  /** The same beside the event loop. The input must not change, nor may another call come, until `done`. */
  deflateLater(
    input: Uint8Array,
    done: (error: Error | undefined, output: Uint8Array) => void,
  ): void;
  /** Forgets what came before. */
  reset(): void;
  /** Frees it. What is under way is not reported any more. */
  close(): void;
}

/** Decompresses, one message after the other, in pieces. */
export interface Inflater {
  /** Gives it the next bytes of a message, once it is `idle`. They must not change until it is again. */
  push(input: Uint8Array): void;
  /** Says that the message ends, once it is `idle`. What is still to come is taken as before. */
  finish(): void;
  /** Whether nothing more comes out before the next `push()` or `finish()`. */
  readonly idle: boolean;
  /**
   * Takes the next piece of at most 64 KiB, which may be empty. The bytes are the caller's.
   *
   * @throws {Error} for data that is invalid or cut short; it is then of no more use
   * @throws {RangeError} beyond `maxMessageSize`, where it stops there
   */
  next(): Uint8Array;
  /** The same beside the event loop. No other call may come until `done`. */
  nextLater(done: (error: Error | undefined, output: Uint8Array) => void): void;
  /** Forgets what came before. */
  reset(): void;
  /** Frees it. What is under way is not reported any more. */
  close(): void;
}
