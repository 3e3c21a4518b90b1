/**
 * What both halves of an `Endpoint` have in common before it is open.
 *
 * A file of its own because the halves are two, and `endpoint.ts` uses either by this.
 *
 * @module
 */
import { LocalProtocolError } from "./error.ts";
import type { Extension, ExtensionFactory } from "./extension.ts";
import type { ExtensionChoice, HandshakeEvent, OutgoingHandshakeEvent } from "./handshake_event.ts";
import type { HeadLimits, RequestHead, ResponseHead } from "./http1.ts";

/** How the opening handshake is done. */
export interface OpeningOptions {
  /** The extensions supported, the preferred one first. */
  extensions: readonly ExtensionFactory[];
  /** How large the head that the peer sends may be. */
  limits?: HeadLimits;
  /** See `ClientHandshakeOptions`. */
  requireProtocol?: boolean;
}

/** What is agreed on once the connection is open. */
export interface Established {
  extensions: readonly Extension[];
}

/** One end's half. What it throws besides local errors is a HandshakeError: the peer's fault. */
export interface Opening {
  readonly state: "connecting" | "rejecting" | "closed";
  /** Set once the connection is open. */
  readonly established: Established | undefined;
  readonly request: RequestHead | undefined;
  readonly response: ResponseHead | undefined;
  /** Whether input may come; what is of no use any more may too, and is dropped. */
  readonly receives: boolean;
  takeHead(head: RequestHead, trailing?: Uint8Array): void;
  send(event: OutgoingHandshakeEvent): Uint8Array;
  next(): HandshakeEvent | undefined;
}

/** Input that was not read yet. */
export class Input {
  #chunks: Uint8Array[] = [];
  #ended = false;
  #touched = false;

  /** Whether the input has ended. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Whether anything was ever put in. */
  get touched(): boolean {
    return this.#touched;
  }

  get size(): number {
    return this.#chunks.reduce((sum, { length }) => sum + length, 0);
  }

  put(chunk: Uint8Array | null): void {
    this.#touched = true;
    if (chunk === null) this.#ended = true;
    else this.#chunks.push(chunk);
  }

  /** Puts back what was taken and not used. */
  putBack(chunk: Uint8Array): void {
    if (chunk.length > 0) this.#chunks.unshift(chunk);
  }

  /** The next chunk, null at the end of the input, undefined where there is none yet. */
  take(): Uint8Array | null | undefined {
    return this.#chunks.shift() ?? (this.#ended ? null : undefined);
  }

  clear(): void {
    this.#chunks = [];
  }
}

/** Those of the supported extensions that an event names. */
export function chosenOf(
  { extensions }: ExtensionChoice,
  supported: readonly ExtensionFactory[],
): readonly ExtensionFactory[] {
  for (const { name } of extensions ?? []) {
    if (supported.some((one) => one.name === name)) continue;
    throw new LocalProtocolError(`Expected extensions that are supported, received ${name}`);
  }
  if (extensions === undefined) return supported;
  return supported.filter(({ name }) => extensions.some((one) => one.name === name));
}

/** The error for an event that may not be sent now. */
export function misplaced(received: string, expected: string): LocalProtocolError {
  return new LocalProtocolError(`Expected ${expected}, received the event ${received}`);
}
