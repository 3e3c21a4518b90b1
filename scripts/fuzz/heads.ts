/** Heads of opening handshakes, valid and nearly valid ones, and values of their fields. */
import { acceptToken } from "../../lib/core/mod.ts";
import { mutateBytes, type Random } from "./random.ts";

/** A head, and whether it must be accepted. */
export interface HeadInput {
  bytes: Uint8Array;
  valid: boolean;
}

type Field = [name: string, value: string];

const NAMES = [
  "Host",
  "Upgrade",
  "Connection",
  "Sec-WebSocket-Key",
  "Sec-WebSocket-Accept",
  "Sec-WebSocket-Version",
  "Sec-WebSocket-Protocol",
  "Sec-WebSocket-Extensions",
  "Origin",
  "Content-Length",
  "Transfer-Encoding",
  "Authorization",
  "X-A",
  "__proto__",
];
const VALUES = [
  "",
  "a",
  "websocket",
  "upgrade",
  "keep-alive, Upgrade",
  "h2c, websocket/1",
  "13",
  "8",
  "dGhlIHNhbXBsZSBub25jZQ==",
  "chat, superchat",
  "permessage-deflate; client_max_window_bits",
  'x; y="z", w; v=1',
  "0",
  "5",
  "chunked",
  "http://localhost",
  "null",
  '"',
  "\\",
  "a\r\nX-Evil: 1",
  "\x00",
  "\xff",
  "a".repeat(9000),
];
const PIECES = ["a", "b1", "=", ";", ",", '"', "\\", " ", "\t", "/", "\x7f", "\xe9", "__proto__"];
const REQUEST_LINES = [
  "GET / HTTP/1.0",
  "POST / HTTP/1.1",
  "GET /\x00 HTTP/1.1",
  "GET  / HTTP/1.1",
  "GET * HTTP/1.1",
  "GET http://other/ HTTP/1.1",
  "GET //x HTTP/1.1",
  "GET / HTTP/2.0",
  "PRI * HTTP/2.0",
  "\x16\x03\x01",
  "GET /" + "a".repeat(9000) + " HTTP/1.1",
  "",
];
const STATUS_LINES = [
  "HTTP/1.1 101",
  "HTTP/1.1 200 OK",
  "HTTP/1.1 401 Unauthorized",
  "HTTP/1.1 302 Found",
  "HTTP/1.0 101 Switching Protocols",
  "HTTP/1.1 099 x",
  "HTTP/1.1 1010 x",
  "HTTP/2 101 x",
  "\x15\x03\x01\x00\x02\x02\x46",
  "",
];

/** Makes the head of a request. */
export function requestInput(random: Random): HeadInput {
  const fields: Field[] = [
    ["Host", "localhost"],
    ["Upgrade", random.pick(["websocket", "WebSocket", "h2c, websocket"])],
    ["Connection", random.pick(["Upgrade", "keep-alive, upgrade"])],
    ["Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="],
    ["Sec-WebSocket-Version", "13"],
  ];
  if (random.once(3)) fields.push(["Sec-WebSocket-Protocol", "chat, superchat"]);
  if (random.once(3)) fields.push(["Sec-WebSocket-Extensions", 'x; y=1; z="w", v']);
  if (random.once(3)) fields.push(["Origin", "http://localhost"]);
  return head(random, "GET /a?b=c HTTP/1.1", fields, REQUEST_LINES);
}

/** Makes the head of the response to a request with this key. */
export function responseInput(random: Random, key: string): HeadInput {
  const fields: Field[] = [
    ["Upgrade", random.pick(["websocket", "WebSocket"])],
    ["Connection", random.pick(["Upgrade", "keep-alive, upgrade"])],
    ["Sec-WebSocket-Accept", acceptToken(key)],
  ];
  if (random.once(3)) fields.push(["Sec-WebSocket-Protocol", "chat"]);
  if (random.once(3)) fields.push(["X-A", "b"]);
  return head(random, "HTTP/1.1 101 Switching Protocols", fields, STATUS_LINES);
}

function head(random: Random, start: string, fields: Field[], starts: readonly string[]) {
  const valid = random.once(4);
  let line = start;
  if (!valid) {
    if (random.once(4)) line = random.pick(starts);
    for (let count = random.below(4); count > 0; count--) mutateFields(random, fields);
  }
  const eol = !valid && random.once(20) ? random.pick(["\n", "\r", "\r\r\n"]) : "\r\n";
  const colon = () => !valid && random.once(30) ? random.pick([":", " : ", "", ":\t"]) : ": ";
  const lines = [line, ...fields.map(([name, value]) => `${name}${colon()}${value}`), "", ""];
  const bytes = latin1(lines.join(eol));
  return { bytes: !valid && random.once(3) ? mutateBytes(random, bytes) : bytes, valid };
}

function mutateFields(random: Random, fields: Field[]): void {
  const at = random.below(fields.length + 1);
  const field = fields[at];
  switch (field === undefined ? 0 : random.below(6)) {
    case 0:
      fields.splice(at, 0, [random.pick(NAMES), random.pick(VALUES)]);
      break;
    case 1:
      fields.splice(at, 1);
      break;
    case 2:
      fields.splice(random.below(fields.length + 1), 0, field);
      break;
    case 3:
      fields[at] = [field[0], random.pick(VALUES)];
      break;
    case 4:
      fields[at] = [field[0], valueInput(random)];
      break;
    default:
      for (let i = random.below(200); i > 0; i--) fields.push([`X-${i}`, "a".repeat(i)]);
  }
}

/** Makes the value of a field. */
export function valueInput(random: Random): string {
  let value = random.once(2) ? random.pick(VALUES) : "";
  for (let count = random.below(20); count > 0; count--) value += random.pick(PIECES);
  return value;
}

/** Encodes each character as one byte. */
export function latin1(text: string): Uint8Array {
  return Uint8Array.from(text, (character) => character.charCodeAt(0));
}
