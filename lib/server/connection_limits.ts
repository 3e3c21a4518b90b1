/**
 * Counts the connections of a server, in total and by address.
 *
 * @module
 */
import { HandshakeError } from "../core/error.ts";
import { ipBytes } from "../core/url.ts";
import type { Address } from "../transport.ts";

/** Limits for the connections of a server. See `ServeOptions`. */
export interface ConnectionLimits {
  maxConnections?: number;
  maxConnectionsPerAddress?: number;
  maxLifetime?: number;
}

export class ConnectionCount {
  readonly #limits: ConnectionLimits;
  readonly #byAddress = new Map<string, number>();
  #all = 0;

  constructor(limits: ConnectionLimits) {
    this.#limits = limits;
  }

  /** Counts one more connection. Returns its key for `leave()`, or an error if there is no room. */
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

  leave(key: string): void {
    this.#all--;
    if (key === "") return;
    const left = this.#byAddress.get(key)! - 1;
    if (left === 0) this.#byAddress.delete(key);
    else this.#byAddress.set(key, left);
  }
}

/** Returns the key of an address. The key is empty if there is no address, as with a Unix socket. */
function keyOf(address: Address | undefined): string {
  if (address?.transport !== "tcp") return "";
  const bytes = ipBytes(address.hostname);
  if (bytes === undefined) return address.hostname;
  if (bytes.length === 4) return bytes.join(".");
  // RFC 4291 §2.5.5.2: a dual-stack socket maps IPv4 addresses to IPv6.
  const isIpv4 = bytes.subarray(0, 12).join() === "0,0,0,0,0,0,0,0,0,0,255,255";
  if (isIpv4) return bytes.subarray(12).join(".");
  // RFC 4291 §2.5.4: the client chooses the other half.
  return bytes.subarray(0, 8).join(":");
}

function tooMany(limit: number, whence: string): HandshakeError {
  return new HandshakeError(
    `Expected at most ${limit} connections${whence}, received one more`,
    "too-many-connections",
    { status: 503 },
  );
}
