/**
 * Asking a SOCKS 5 proxy for a connection (RFC 1928), with user name and password (RFC 1929).
 *
 * A file of its own because it is one of two ways to ask.
 *
 * @module
 */
import { HandshakeError } from "../core/error.ts";
import { concat } from "../core/message.ts";
import { ipBytes } from "../ip.ts";
import type { TransportReader } from "../opening.ts";

/** Who asks; empty where nobody is named. */
export interface SocksCredentials {
  readonly username: string;
  readonly password: string;
}

const VERSION = 5;
const NO_AUTHENTICATION = 0;
const USERNAME_AND_PASSWORD = 2;
const NONE_ACCEPTABLE = 0xff;

/** RFC 1928 §6. */
const REPLIES: Readonly<Record<number, string>> = {
  1: "general failure",
  2: "connection not allowed",
  3: "network unreachable",
  4: "host unreachable",
  5: "connection refused",
  6: "TTL expired",
  7: "command not supported",
  8: "address type not supported",
};

/** @throws {RangeError} for a user name or password that is too long to be sent */
export function checkCredentials({ username, password }: SocksCredentials): void {
  // RFC 1929 §2: the lengths are bytes.
  if (utf8(username).length <= 255 && utf8(password).length <= 255) return;
  throw new RangeError("Expected a SOCKS user name and password of at most 255 bytes each");
}

/**
 * Asks for a connection to the server, whose name the proxy looks up, and waits for it.
 *
 * @throws {HandshakeError} "proxy", or "connection-lost"
 */
export async function connectBySocks(
  line: TransportReader,
  { hostname, port }: { hostname: string; port: number },
  credentials: SocksCredentials,
): Promise<void> {
  const address = addressOf(hostname);
  const bytes = new ByteReader(line);
  await authenticate(line, bytes, credentials);
  // RFC 1928 §4: CONNECT, a reserved byte, the address, and the port in network order.
  write(line, [VERSION, 1, 0], address, [port >> 8, port & 0xff]);
  await readReply(bytes);
}

async function authenticate(
  line: TransportReader,
  bytes: ByteReader,
  { username, password }: SocksCredentials,
): Promise<void> {
  const named = username !== "" || password !== "";
  const methods = named ? [NO_AUTHENTICATION, USERNAME_AND_PASSWORD] : [NO_AUTHENTICATION];
  write(line, [VERSION, methods.length], methods);
  const method = await readCode(bytes);
  if (method === NONE_ACCEPTABLE) {
    throw refused(named ? "no user name and password either" : "one that asks who we are");
  }
  if (!methods.includes(method)) throw refused(`the method ${method}, which was not offered`);
  if (method === NO_AUTHENTICATION) return;
  const [name, word] = [utf8(username), utf8(password)];
  write(line, [1, name.length], name, [word.length], word);
  // Some proxies put their own version in place of the first byte.
  const [, status] = await bytes.take(2);
  if (status !== 0) throw refused(`status ${status} for this user name and password`);
}

async function readReply(bytes: ByteReader): Promise<void> {
  const reply = await readCode(bytes);
  if (reply !== 0) {
    throw refused(`reply ${reply} (${REPLIES[reply] ?? "unassigned"})`, { reply });
  }
  const [, type] = await bytes.take(2);
  // RFC 1928 §5: IPv4, a name with its length before it, IPv6. Whence it connects is no matter to us.
  const lengths: Record<number, number> = { 1: 4, 4: 16 };
  const length = type === 3 ? (await bytes.take(1))[0] : lengths[type];
  if (length === undefined) throw refused(`the address type ${type}`);
  await bytes.take(length + 2);
  if (!bytes.empty) throw refused("bytes behind its reply");
}

function addressOf(hostname: string): Uint8Array {
  const ip = ipBytes(hostname);
  if (ip !== undefined) return concat([Uint8Array.of(ip.length === 4 ? 1 : 4), ip]);
  const name = utf8(hostname);
  if (name.length > 255) throw refused("a host name of more than 255 bytes to ask it for");
  return concat([Uint8Array.of(3, name.length), name]);
}

/** What follows the version, which tells at once whether this is a SOCKS 5 proxy at all. */
async function readCode(bytes: ByteReader): Promise<number> {
  const [version] = await bytes.take(1);
  if (version !== VERSION) throw refused(`version ${version}`);
  const [code] = await bytes.take(1);
  return code;
}

function refused(received: string, options: { reply?: number } = {}): HandshakeError {
  return new HandshakeError(
    `Expected a connection by the SOCKS 5 proxy, received ${received}`,
    "proxy",
    options,
  );
}

function write(line: TransportReader, ...parts: (Uint8Array | readonly number[])[]): void {
  line.transport.write([concat(parts.map((part) => Uint8Array.from(part)))]);
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

/** Reads so many bytes at a time. */
class ByteReader {
  readonly #line: TransportReader;
  #bytes: Uint8Array = new Uint8Array(0);

  constructor(line: TransportReader) {
    this.#line = line;
  }

  /** Whether nothing has come that was not taken. */
  get empty(): boolean {
    return this.#bytes.length === 0;
  }

  async take(length: number): Promise<Uint8Array> {
    while (this.#bytes.length < length) {
      const chunk = await this.#line.read();
      if (chunk === null) {
        throw new HandshakeError(
          "Expected an answer of the SOCKS 5 proxy, the connection ended before it was whole",
          "connection-lost",
        );
      }
      this.#bytes = concat([this.#bytes, chunk]);
    }
    const taken = this.#bytes.slice(0, length);
    this.#bytes = this.#bytes.slice(length);
    return taken;
  }
}
