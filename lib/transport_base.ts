/**
 * The base class of all transports, and their queue of bytes.
 *
 * @module
 */
import { wrongType } from "./core/error.ts";
import { Queue } from "./core/queue.ts";
import type { Address, Transport, TransportHandlers } from "./transport.ts";

type Phase = "open" | "ending" | "ended" | "destroyed" | "closed";

/** A transport over some platform's channel of bytes. */
export abstract class BaseTransport implements Transport {
  protected handlers: TransportHandlers | undefined;
  /** The bytes written that have not left yet. */
  protected unsent = 0;
  /** The bytes that were written after this side had ended. */
  protected late = 0;
  protected error: Error | undefined;
  protected phase: Phase = "open";
  protected isInputEnded = false;

  get bufferedAmount(): number {
    return this.unsent + this.late;
  }

  protected get isDestroyed(): boolean {
    return this.phase === "destroyed" || this.phase === "closed";
  }

  handle(handlers: TransportHandlers): void {
    const isFirst = this.handlers === undefined;
    this.handlers = handlers;
    if (!isFirst) return;
    if (this.phase === "closed") queueMicrotask(() => this.handlers!.close(this.error));
    else this.start();
  }

  abstract write(parts: readonly Uint8Array[]): void;

  abstract pause(): void;

  abstract resume(released?: boolean): void;

  end(): void {
    if (this.phase !== "open") return;
    this.phase = "ending";
    if (this.unsent === 0) this.finish();
  }

  destroy(): void {
    if (this.isDestroyed) return;
    this.phase = "destroyed";
    this.cut();
  }

  protected abstract start(): void;

  /** Ends this side. Called when all bytes have left. */
  protected abstract finish(): void;

  /** Ends both sides. `reportClose()` must follow. */
  protected abstract cut(): void;

  /**
   * Keeps counting bytes that are written too late. Otherwise a sender in a loop would never yield, and
   * the end of the connection would never be reported.
   */
  protected drop(parts: readonly Uint8Array[]): void {
    this.late += sizeOf(parts);
  }

  /** Counts bytes that have left. After the last byte, this side ends if `end()` was called. */
  protected reportSent(length: number): void {
    this.unsent -= length;
    if (this.unsent > 0) return;
    if (this.phase === "ending") this.finish();
    this.reportDrain();
  }

  protected reportDrain(): void {
    if (this.bufferedAmount === 0 && !this.isDestroyed) this.handlers?.drain();
  }

  protected reportEnd(): void {
    if (this.isInputEnded || this.isDestroyed) return;
    this.isInputEnded = true;
    this.handlers?.end();
    if (this.phase === "ended") this.destroy();
  }

  /** For platforms that do not close by themselves when both sides have ended. */
  protected reportFinished(): void {
    if (this.phase !== "ending") return;
    this.phase = "ended";
    if (this.isInputEnded) this.destroy();
  }

  protected fail(error: Error): void {
    if (this.isDestroyed) return;
    this.error ??= error;
    this.destroy();
  }

  /**
   * Returns the first bytes of a queue. If they were detached, fails the transport and returns undefined.
   */
  protected firstOf(queue: ByteQueue | undefined): Uint8Array | undefined {
    if (!queue?.isDetached) return queue?.first;
    // Part of the frame may have left, so that no other bytes can follow.
    this.fail(wrongType("The bytes were detached", { code: "bytes-changed" }));
    return undefined;
  }

  protected reportClose(error?: Error): void {
    if (this.phase === "closed") return;
    this.phase = "closed";
    this.error ??= error;
    this.handlers?.close(this.error);
  }
}

export class ByteQueue {
  /** Each part with its original length: the owner of borrowed bytes may detach them. */
  readonly #parts = new Queue<{ bytes: Uint8Array; length: number }>();

  push(bytes: Uint8Array): void {
    this.#parts.push({ bytes, length: bytes.length });
  }

  get first(): Uint8Array | undefined {
    return this.#parts.first?.bytes;
  }

  /** Whether the first bytes were detached. */
  get isDetached(): boolean {
    const { first } = this.#parts;
    return first !== undefined && first.bytes.length !== first.length;
  }

  /** Removes bytes from the front of `first`. */
  remove(length: number): void {
    const first = this.#parts.first!;
    if (length === first.length) {
      this.#parts.shift();
    } else {
      first.bytes = first.bytes.subarray(length);
      first.length -= length;
    }
  }
}

export function sizeOf(parts: readonly Uint8Array[]): number {
  let size = 0;
  for (const part of parts) size += part.length;
  return size;
}

export function tcpAddress(
  hostname: string | undefined,
  port: number | undefined,
): Address | undefined {
  if (hostname === undefined || port === undefined) return undefined;
  return { transport: "tcp", hostname, port };
}
