/** Asks a SOCKS 5 proxy for a connection (RFC 1928), with user name and password (RFC 1929). */
import { HandshakeError, wrongValue } from "../core/error.ts";
import { concat } from "../core/message.ts";
import { ipBytes } from "../core/url.ts";
import type { TransportReader } from "../opening.ts";

/** User name and password. Both are empty if there are none. */
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

/** @throws {RangeError} If the user name or the password is too long to be sent. */
export function checkSocksCredentials({ username, password }: SocksCredentials): void {
  // RFC 1929 §2: each length is one byte.
  if (utf8(username).length <= 255 && utf8(password).length <= 255) return;
  throw wrongValue("Expected the SOCKS user name and password to have at most 255 bytes each");
}

/** @throws {HandshakeError} If the proxy refuses ("proxy") or the connection ends ("connection-lost"). */
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
    throw refused(named ? "it accepts no user name and password" : "it wants authentication");
  }
  if (!methods.includes(method)) {
    throw refused(`it chose the authentication method ${method}, which was not offered`);
  }
  if (method === NO_AUTHENTICATION) return;
  const [name, secret] = [utf8(username), utf8(password)];
  write(line, [1, name.length], name, [secret.length], secret);
  // The first byte is a version, and differs between proxies.
  const [, status] = await bytes.take(2);
  if (status !== 0) throw refused(`it rejects this user name and password (status ${status})`);
}

async function readReply(bytes: ByteReader): Promise<void> {
  const reply = await readCode(bytes);
  if (reply !== 0) {
    throw refused(`${REPLIES[reply] ?? "unassigned reply"} (reply ${reply})`, { reply });
  }
  const [, type] = await bytes.take(2);
  // RFC 1928 §5: an IPv4 address, a name that starts with its length, or an IPv6 address. The address
  // from which the proxy connects is not used.
  const lengths: Record<number, number> = { 1: 4, 4: 16 };
  const length = type === 3 ? (await bytes.take(1))[0] : lengths[type];
  if (length === undefined) throw refused(`its reply has the unknown address type ${type}`);
  await bytes.take(length + 2);
  if (!bytes.isEmpty) throw refused("it sent bytes after its reply, before the server was asked");
}

function addressOf(hostname: string): Uint8Array {
  const ip = ipBytes(hostname);
  if (ip !== undefined) return concat([Uint8Array.of(ip.length === 4 ? 1 : 4), ip]);
  const name = utf8(hostname);
  if (name.length > 255) throw refused("the host name is longer than 255 bytes");
  return concat([Uint8Array.of(3, name.length), name]);
}

/** Reads the version, which shows whether this is a SOCKS 5 proxy, and the byte after it. */
async function readCode(bytes: ByteReader): Promise<number> {
  const [version] = await bytes.take(1);
  if (version !== VERSION) throw refused(`it answers with version ${version}`);
  const [code] = await bytes.take(1);
  return code;
}

function refused(why: string, options: { reply?: number } = {}): HandshakeError {
  return new HandshakeError(`Cannot connect through the SOCKS 5 proxy: ${why}`, "proxy", options);
}

function write(line: TransportReader, ...parts: (Uint8Array | readonly number[])[]): void {
  line.transport.write([concat(parts.map((part) => Uint8Array.from(part)))]);
}

function utf8(text: string): Uint8Array {
  return new TextEncoder().encode(text);
}

class ByteReader {
  readonly #line: TransportReader;
  #bytes: Uint8Array = new Uint8Array(0);

  constructor(line: TransportReader) {
    this.#line = line;
  }

  get isEmpty(): boolean {
    return this.#bytes.length === 0;
  }

  async take(length: number): Promise<Uint8Array> {
    while (this.#bytes.length < length) {
      const chunk = await this.#line.read();
      if (chunk === null) {
        throw new HandshakeError(
          "The connection ended before the SOCKS 5 proxy had answered",
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
