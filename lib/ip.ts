/**
 * IP addresses as bytes.
 *
 * A file of its own because proxies are told the server's address so, and ranges of addresses are
 * compared so.
 *
 * @module
 */

/** The 4 or 16 bytes of an address, an IPv6 address without its brackets; undefined for a name. */
export function ipBytes(text: string): Uint8Array | undefined {
  if (/^\d+(?:\.\d+){3}$/.test(text)) {
    const parts = text.split(".").map(Number);
    return parts.every((part) => part < 256) ? Uint8Array.from(parts) : undefined;
  }
  if (!/^[\da-f.:]*:[\da-f.:]*$/i.test(text)) return undefined;
  try {
    // The shortest form (RFC 5952), and no IPv4 in the end of it.
    return expand(new URL(`http://[${text}]`).hostname.slice(1, -1));
  } catch {
    return undefined;
  }
}

function expand(text: string): Uint8Array {
  const [head, tail] = text.split("::").map((half) => half === "" ? [] : half.split(":"));
  const gap = tail === undefined ? 0 : 8 - head.length - tail.length;
  const groups = [...head, ...Array(gap).fill("0"), ...(tail ?? [])];
  return Uint8Array.from(
    groups.map((group) => parseInt(group, 16)).flatMap((n) => [n >> 8, n & 255]),
  );
}

/** Whether both begin with so many equal bits, and are of one kind. */
export function shareBits(a: Uint8Array, b: Uint8Array, bits: number): boolean {
  if (a.length !== b.length || bits > a.length * 8) return false;
  return a.every((byte, i) => {
    const ignored = Math.min(8, Math.max(0, (i + 1) * 8 - bits));
    return byte >> ignored === b[i] >> ignored;
  });
}
