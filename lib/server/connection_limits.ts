/**
 * How many connections a server has, in all and from each address.
 *
 * @module
 */
import { HandshakeError } from "../core/error.ts";
import { ipBytes } from "../core/url.ts";
import type { Address } from "../transport.ts";

/** The limits of a server's connections. */
export interface ConnectionLimits {
  /**
   * How many there may be at a time. Each counts until its transport has ended, which a client may see a
   * moment before the server does. Default: Infinity
   */
  maxConnections?: number;
  /** How many of them from one address. Default: Infinity */
  maxConnectionsPerAddress?: number;
  /** How long each may be open, in milliseconds; 0 disables. Default: 0 */
  maxLifetime?: number;
}

/** Counts connections. */
export class ConnectionCount {
  readonly #limits: ConnectionLimits;
  readonly #byAddress = new Map<string, number>();
  #all = 0;

  constructor(limits: ConnectionLimits) {
    this.#limits = limits;
  }

  /** Counts one more, and gives its place, for `leave()`; an error where there is no room. */
  enter(address: Address | undefined): string | HandshakeError {
    const { maxConnections = Infinity, maxConnectionsPerAddress = Infinity } = this.#limits;
    if (this.#all >= maxConnections) return tooMany(maxConnections, "");
    const key = maxConnectionsPerAddress === Infinity ? "" : keyOf(address);
    const same = this.#byAddress.get(key) ?? 0;
    if (key !== "" && same >= maxConnectionsPerAddress) {
      return tooMany(maxConnectionsPerAddress, " from one address");
    }
    this.#all++;
    if (key !== "") this.#byAddress.set(key, same + 1);
    return key;
  }

  /** Counts it off again. */
  leave(key: string): void {
    this.#all--;
    if (key === "") return;
    const left = this.#byAddress.get(key)! - 1;
    if (left === 0) this.#byAddress.delete(key);
    else this.#byAddress.set(key, left);
  }
}

/** What counts as one address; an empty string where there is none, as with a Unix socket. */
function keyOf(address: Address | undefined): string {
  if (address?.transport !== "tcp") return "";
  const bytes = ipBytes(address.hostname);
  if (bytes === undefined) return address.hostname;
  if (bytes.length === 4) return bytes.join(".");
  // RFC 4291 §2.5.5.2: an IPv4 address, seen by a socket of both kinds.
  const isIpv4 = bytes.subarray(0, 12).join() === "0,0,0,0,0,0,0,0,0,0,255,255";
  if (isIpv4) return bytes.subarray(12).join(".");
  // RFC 4291 §2.5.4: the other half is the client's to choose.
  return bytes.subarray(0, 8).join(":");
}

function tooMany(limit: number, whence: string): HandshakeError {
  return new HandshakeError(
    `Expected at most ${limit} connections${whence}, received one more`,
    "too-many-connections",
    { status: 503 },
  );
}
