/** Group 7: the closing handshake, and connections that end without it. */
import { concat, hex, pattern, utf8 } from "../bytes.ts";
import {
  type Answer,
  binary,
  close,
  closes,
  continuation,
  fails,
  MORE,
  type PeerFrame,
  ping,
  type Row,
  text,
} from "./row.ts";

const HELLO = text("Hello World!");
const LONG = text("BAsd7&jh23".repeat(26215).slice(0, 262144));
const INVALID_REASON = hex("ce ba e1 bd b9 cf 83 ce bc ce b5 ed a0 80 65 64 69 74 65 64");

const HANDSHAKE: readonly Row[] = [
  closes("7.1.1", "a message, then a Close", [HELLO, close(1000)], close(1000), {
    before: [HELLO],
  }),
  closes("7.1.2", "two Closes", [close(1000), close(1000)], close(1000)),
  closes("7.1.3", "a ping behind the Close", [close(1000), ping()], close(1000)),
  closes("7.1.4", "a message behind the Close", [close(1000), HELLO], close(1000)),
  closes("7.1.5", "a Close in the middle of a message", [
    text("fragment1", MORE),
    close(1000),
    continuation("fragment2"),
  ], close(1000)),
  {
    ...closes(
      "7.1.6",
      "a long message, one more, a Close, a ping",
      [
        LONG,
        HELLO,
        close(1000),
        ping(),
      ],
      close(1000),
      { before: [LONG, HELLO] },
    ),
    mayLose: true,
  },
];

const PAYLOADS: readonly Row[] = [
  closes("7.3.1", "a Close without a payload", [close()], close()),
  fails("7.3.2", "a Close of one byte", [{ ...close(), payload: hex("03") }], 1002),
  closes("7.3.3", "a Close with a code", [close(1000)], close(1000)),
  closes(
    "7.3.4",
    "a Close with a reason",
    [close(1000, "Hello World!")],
    close(1000, "Hello World!"),
  ),
  closes(
    "7.3.5",
    "a reason of 123 bytes",
    [close(1000, "*".repeat(123))],
    close(1000, "*".repeat(123)),
  ),
  fails("7.3.6", "a reason of 124 bytes", [close(1000, "*".repeat(124))], 1002),
  fails("7.5.1", "a reason that is not UTF-8", [close(1000, INVALID_REASON)], 1007),
];

function valid(id: string, code: number): Row {
  return closes(id, `close code ${code}`, [close(code, "why")], close(code, "why"));
}

function invalid(id: string, code: number): Row {
  return fails(id, `close code ${code}`, [close(code)], 1002);
}

function numbered(
  group: string,
  codes: readonly number[],
  row: (id: string, code: number) => Row,
): Row[] {
  return codes.map((code, i) => row(`${group}.${i + 1}`, code));
}

const VALID = [1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3999, 4000, 4999];
const INVALID = [0, 999, 1004, 1005, 1006, 1016, 1100, 2000, 2999];
const OWN_VALID = [1012, 1013, 1014];
const OWN_INVALID = [1, 2, 10, 100, 255, 256, 500, 998, 1015, 1017, 1999, 5001, 9999, 32768, 65534];

const CODES: readonly Row[] = [
  ...numbered("7.7", VALID, valid),
  ...numbered("7.9", INVALID, invalid),
  ...numbered("7.13", [5000, 65535], invalid),
  ...numbered("codes.1", OWN_VALID, valid),
  ...numbered("codes.2", OWN_INVALID, invalid),
  fails("codes.3.1", "an invalid code beside a reason", [close(1005, "why")], 1002),
  fails("codes.3.2", "a message, then an invalid code", [HELLO, close(999)], 1002, {
    before: [HELLO],
  }),
  fails("codes.3.3", "a reason that ends within a character", [
    close(1000, concat([utf8("caf"), hex("c3")])),
  ], 1007),
];

/** The peer ends the transport without a Close frame. */
function lost(
  id: string,
  title: string,
  send: readonly PeerFrame[],
  expect: readonly Answer[] = [],
  holdBack = 0,
): Row {
  const outcome = { clean: false, code: 1006 };
  return { id, title, turns: [{ send, expect, holdBack, end: true }], outcome };
}

const LOST: readonly Row[] = [
  lost("lost.1", "the end before any frame", []),
  lost("lost.2", "the end behind a message", [HELLO], [HELLO]),
  lost("lost.3", "the end within a header", [HELLO, binary(pattern(300))], [HELLO], 301),
  lost("lost.4", "the end within a frame", [HELLO, text("cut off")], [HELLO], 3),
  lost("lost.5", "the end within a message", [HELLO, text("cut off", MORE)], [HELLO]),
  lost("lost.6", "the end within a Close", [close(1000)], [], 1),
];

/** Group 7, close codes, and transports that are lost. */
export const CLOSING: readonly Row[] = [...HANDSHAKE, ...PAYLOADS, ...CODES, ...LOST];
