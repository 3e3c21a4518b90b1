/** Writes the frames that all recipients of a broadcast share, without looking at their senders. */
import type { Crowd, SharedRange } from "../core/shared_frame.ts";
import type { Transport } from "../transport.ts";

/** The sending half of a connection that can belong to a crowd. */
export interface Member {
  readonly encoder: object;
  readonly transport: Pick<Transport, "write" | "bufferedAmount">;
  /** Sends what waits. */
  flush(): void;
  /** Called when the crowd has written to the transport, and bytes wait there. */
  filled(): void;
  /** Called when the transport has thrown. */
  cut(cause: unknown): void;
}

/** What a member is called for after a flush. Not a closure, which would be an object for each member on Bun. */
type Late = [member: Member, act: "flush" | "filled" | "cut", cause?: unknown];

/** The recipients of a broadcast, whose encoders hold the same frames and nothing else. */
export class Recipients implements Crowd {
  readonly range: SharedRange;
  readonly recipients: readonly unknown[];
  readonly #members: readonly Member[];
  /** The transports of the members, except of those that have left during a flush. */
  readonly #transports: (Member["transport"] | undefined)[];
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
    const { range } = this;
    if (range.crowd !== this) {
      // A member has left.
      for (const member of this.#members) member.flush();
    } else if (!range.isTaken) {
      const late = this.#writeAll(this.#parts = range.take());
      this.#parts = undefined;
      if (range.holders < this.#members.length) range.crowd = undefined;
      // Only now, because a member that leaves during the flush has to be searched for.
      for (const [member, act, cause] of late) member[act](cause);
    }
  }

  /** A transport may run code that sends, so that members leave meanwhile. */
  #writeAll(parts: readonly Uint8Array[]): Late[] {
    const late: Late[] = [];
    while (this.#next < this.#members.length) {
      const at = this.#next++;
      const transport = this.#transports[at];
      try {
        // A member that has left sends the frames itself.
        if (transport === undefined) late.push([this.#members[at], "flush"]);
        else {
          transport.write(parts);
          if (transport.bufferedAmount > 0) late.push([this.#members[at], "filled"]);
        }
      } catch (cause) {
        late.push([this.#members[at], "cut", cause]);
      }
    }
    this.#next = 0;
    return late;
  }

  leave(encoder: object): readonly Uint8Array[] | undefined {
    if (this.#parts === undefined) {
      // The others would keep the connection of this member with the crowd.
      this.range.crowd = undefined;
      return undefined;
    }
    const at = this.#members.findIndex((member) => member.encoder === encoder);
    if (at < this.#next) return undefined;
    this.#transports[at] = undefined;
    return this.#parts;
  }
}
