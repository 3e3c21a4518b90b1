/** Writes the frames that all recipients of a broadcast share, without looking at their senders. */
import type { Crowd, SharedRange } from "../core/shared_frame.ts";
import type { Transport } from "../transport.ts";

/** The sending half of a connection that can belong to a crowd. */
export interface Member {
  readonly encoder: object;
  readonly transport: Pick<Transport, "write" | "bufferedAmount">;
  /** Sends what waits. */
  flush(): void;
  /** Called when the crowd has written to the transport, and bytes wait or the transport has thrown. */
  wroteShared(failure: { cause: unknown } | undefined): void;
}

/** The recipients of a broadcast, whose encoders hold the same frames and nothing else. */
export class Recipients implements Crowd {
  readonly range: SharedRange;
  readonly recipients: readonly unknown[];
  readonly #members: readonly Member[];
  /** The transports of the members, except of those that have left during a flush. */
  readonly #transports: (Member["transport"] | undefined)[];
  isBroken = false;
  /** The frames that are being written, and the index of the member that gets them next. */
  #parts: readonly Uint8Array[] | undefined;
  #next = 0;

  constructor(range: SharedRange, recipients: readonly unknown[], members: readonly Member[]) {
    this.range = range;
    this.recipients = recipients;
    this.#members = members;
    this.#transports = members.map(({ transport }) => transport);
  }

  get isFlushing(): boolean {
    return this.#parts !== undefined;
  }

  flush(): void {
    if (this.isBroken) {
      for (const member of this.#members) member.flush();
    } else if (!this.range.isTaken) {
      const late = this.#writeAll(this.#parts = this.range.take());
      this.#parts = undefined;
      // A member that leaves before the end of a flush is searched for.
      for (const tell of late) tell();
    }
  }

  /** A transport may run code that sends, so that members leave meanwhile. */
  #writeAll(parts: readonly Uint8Array[]): (() => void)[] {
    const late: (() => void)[] = [];
    for (this.#next = 0; this.#next < this.#transports.length;) {
      const at = this.#next++;
      const transport = this.#transports[at];
      if (transport === undefined) continue;
      const failure = write(transport, parts);
      if (failure !== undefined || transport.bufferedAmount > 0) {
        late.push(() => this.#members[at].wroteShared(failure));
      }
    }
    return late;
  }

  leave(encoder: object): readonly Uint8Array[] | undefined {
    this.isBroken = true;
    if (this.#parts === undefined) return undefined;
    const at = this.#members.findIndex((member) => member.encoder === encoder);
    if (at < this.#next) return undefined;
    this.#transports[at] = undefined;
    return this.#parts;
  }
}

function write(
  transport: Member["transport"],
  parts: readonly Uint8Array[],
): { cause: unknown } | undefined {
  try {
    transport.write(parts);
  } catch (cause) {
    return { cause };
  }
}
