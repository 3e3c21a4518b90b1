/** Generates pseudorandom numbers that repeat with the same seed. */

/** A pseudorandom generator: the mulberry32 function over a counter. */
export class Random {
  #state: number;

  /** @param seed Any whole number. */
  constructor(seed: number) {
    this.#state = seed | 0;
    // Consecutive seeds must not give consecutive numbers.
    this.#state = this.#next() ^ Math.imul(seed, 0x9e3779b1);
  }

  #next(): number {
    this.#state = (this.#state + 0x6d2b79f5) | 0;
    let mixed = Math.imul(this.#state ^ (this.#state >>> 15), 1 | this.#state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return (mixed ^ (mixed >>> 14)) >>> 0;
  }

  /** A whole number from 0 to `limit - 1`. */
  below(limit: number): number {
    return Math.floor((this.#next() / 2 ** 32) * limit);
  }

  /** Returns true once in this many times on average. */
  once(times: number): boolean {
    return this.below(times) === 0;
  }

  /** Picks one of the items. */
  pick<T>(items: readonly T[]): T {
    return items[this.below(items.length)];
  }

  /** Makes random bytes. */
  bytes(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = this.below(256);
    return bytes;
  }

  /** Makes a list of at most this many new items. */
  list<T>(most: number, make: (index: number) => T): T[] {
    return Array.from({ length: this.below(most + 1) }, (_, i) => make(i));
  }
}

/** Cuts the bytes into chunks of random sizes, most of them small. */
export function chop(random: Random, bytes: Uint8Array): Uint8Array[] {
  const sizes = random.pick([[bytes.length || 1], [1], [1, 2, 3, 7], [5, 50, 500], [1, 4096]]);
  const chunks: Uint8Array[] = [];
  for (let at = 0; at < bytes.length;) {
    const size = random.pick(sizes);
    chunks.push(bytes.slice(at, at + size));
    at += size;
  }
  return chunks;
}

/** Changes, removes, inserts or repeats some of the bytes, or cuts them off. */
export function mutateBytes(random: Random, bytes: Uint8Array): Uint8Array {
  let changed = Array.from(bytes);
  for (let count = 1 + random.below(3); count > 0; count--) {
    const at = random.below(changed.length + 1);
    switch (random.below(6)) {
      case 0:
        if (at < changed.length) changed[at] ^= 1 << random.below(8);
        break;
      case 1:
        if (at < changed.length) changed[at] = random.pick([0, 9, 10, 13, 32, 127, 128, 255]);
        break;
      case 2:
        changed.splice(at, 1 + random.below(4));
        break;
      case 3:
        changed.splice(at, 0, ...random.bytes(1 + random.below(6)));
        break;
      case 4: {
        const length = random.below(40);
        changed.splice(at, 0, ...changed.slice(at, at + length));
        break;
      }
      default:
        changed = changed.slice(0, at);
    }
  }
  return Uint8Array.from(changed);
}
