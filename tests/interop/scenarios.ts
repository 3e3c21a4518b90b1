/** Open connections in each role and with each peer: messages, pings, and the end. */
import assert from "node:assert/strict";
import type { Message, WebSocketError } from "../../mod.ts";
import { assertSameBytes, concat, cut, pattern, single, utf8 } from "../bytes.ts";
import { rejection } from "../support.ts";
import type { Ability } from "./peers.ts";
import type { Kind, Scenario } from "./row.ts";

const SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1048576];
const OF_EACH_SIZE: readonly ["text" | "binary", readonly Message[]][] = [
  ["text", SIZES.map((size) => "é".repeat(size >> 1) + "*".repeat(size & 1))],
  ["binary", SIZES.map(pattern)],
];
/** Characters of two, three and four bytes. */
const CHARACTERS = "é€😀".repeat(20);
const FRAGMENTS = [pattern(10), pattern(70000)];
const MIB = 2 ** 20;
/** Characters of one to four bytes: 1 MiB as UTF-8. */
const MIB_OF_TEXT = "aé€😀".repeat(MIB / 10) + "*".repeat(MIB % 10);
const PINGS = ["one", "", "*".repeat(125)];

/** Checks that a message is the expected one, without printing a mebibyte. */
function assertSame(got: Message, expected: Message): void {
  assert.equal(typeof got, typeof expected);
  if (typeof got !== "string") assertSameBytes(got, expected as Uint8Array);
  else assert.ok(got === expected, `the text of ${expected.length} characters is the same`);
}

/** Bytes of which each block of 64 KiB begins with its number. */
function numbered(length: number): Uint8Array {
  const bytes = new Uint8Array(length);
  const block = pattern(65536);
  for (let at = 0; at < length; at += block.length) {
    bytes.set(block, at);
    new DataView(bytes.buffer).setUint32(at, at);
  }
  return bytes;
}

type Rows = readonly Omit<Scenario, "kind">[];

function ofKind(kind: Kind, rows: Rows): Scenario[] {
  return rows.map((row) => ({ kind, ...row }));
}

const MESSAGES: Rows = [
  ...OF_EACH_SIZE.flatMap(([type, messages]): Rows => [
    {
      title: `${type} of each size, echoed by them`,
      quick: true,
      options: () => ({ theirs: { echo: true } }),
      async run({ ours }) {
        for (const message of messages) {
          await ours.send(message);
          assertSame(await ours.receive(), message);
        }
      },
    },
    {
      title: `${type} of each size, echoed by us`,
      async run({ ours, theirs }) {
        const echo = ours.readable.pipeTo(ours.writable);
        for (const message of messages) theirs.send({ type, parts: [message] });
        for (const message of messages) assertSame((await theirs.message()).data, message);
        theirs.close(1000);
        await echo;
      },
    },
  ]),
  {
    title: "two thousand messages through a pipe",
    async run({ ours, theirs }) {
      const echo = ours.readable.pipeTo(ours.writable);
      const messages = Array.from({ length: 2000 }, (_, i) => i % 2 ? `text ${i}` : pattern(i));
      for (const message of messages) {
        theirs.send({ type: typeof message === "string" ? "text" : "binary", parts: [message] });
      }
      for (const message of messages) assertSame((await theirs.message()).data, message);
      theirs.close(1000);
      await echo;
    },
  },
];

const FRAGMENTED: Rows = [
  {
    title: "a message in fragments, sent",
    quick: true,
    partly: ["tellFrames"],
    async run({ ours, theirs, can }) {
      const sent: [items: Message[], whole: Message][] = [
        [["one ", "", "two ", "three"], "one two three"],
        [FRAGMENTS, concat(FRAGMENTS)],
      ];
      for (const [items, whole] of sent) {
        await ours.send(items);
        const { data, parts } = await theirs.message();
        assertSame(data, whole);
        if (can("tellFrames")) assert.equal(parts, items.length);
      }
    },
  },
  {
    title: "a message in fragments, received",
    quick: true,
    needs: ["sendFragments"],
    needsCompressed: ["fragmentCompressed"],
    async run({ ours, theirs }) {
      theirs.send({ type: "text", parts: ["one ", "", "two ", "three"] });
      theirs.send({ type: "binary", parts: FRAGMENTS });
      assert.equal(await ours.receive(), "one two three");
      assertSame(await ours.receive(), concat(FRAGMENTS));
    },
  },
  {
    title: "text that is cut within characters, sent",
    async run({ ours, theirs }) {
      await ours.send(single(utf8(CHARACTERS)), { text: true });
      assert.equal((await theirs.message()).data, CHARACTERS);
    },
  },
  {
    title: "text that is cut within characters, received",
    needs: ["sendFragments", "sendRaw"],
    needsCompressed: ["fragmentCompressed"],
    async run({ ours, theirs }) {
      theirs.send({ type: "text", parts: single(utf8(CHARACTERS)), raw: true });
      assert.equal(await ours.receive(), CHARACTERS);
    },
  },
];

const LARGE: Rows = [
  {
    title: "16 MiB of bytes, echoed by them",
    quick: true,
    options: () => ({ ours: { maxMessageSize: 16 * MIB }, theirs: { echo: true } }),
    async run({ ours }) {
      const message = numbered(16 * MIB);
      await ours.send(message);
      assertSame(await ours.receive(), message);
    },
  },
  {
    title: "1 MiB of text with characters of each length, echoed by them",
    options: () => ({ theirs: { echo: true } }),
    async run({ ours }) {
      await ours.send(MIB_OF_TEXT);
      assertSame(await ours.receive(), MIB_OF_TEXT);
    },
  },
  {
    title: "1 MiB of text in fragments that are cut within characters, echoed by them",
    options: () => ({ theirs: { echo: true } }),
    async run({ ours }) {
      // 4,093 is prime, so that the cuts fall anywhere in a character.
      const bytes = utf8(MIB_OF_TEXT);
      const offsets = Array.from({ length: bytes.length / 4093 }, (_, i) => (i + 1) * 4093);
      await ours.send(cut(bytes, ...offsets), { text: true });
      assertSame(await ours.receive(), MIB_OF_TEXT);
    },
  },
];

const PINGING: Rows = [
  {
    title: "pings of ours are answered",
    quick: true,
    partly: ["tellPings"],
    // The peer tells of each ping, also of those that keep the connection alive.
    options: () => ({ ours: { pingInterval: 0 } }),
    async run({ ours, theirs, can }) {
      for (const payload of PINGS) assert.ok(await ours.ping(payload) >= 0);
      assert.ok(ours.latency! >= 0);
      if (!can("tellPings")) return;
      for (const payload of PINGS) assert.equal(await theirs.payload("ping"), payload);
    },
  },
  {
    title: "pings of theirs are answered",
    needs: ["ping"],
    partly: ["tellEmptyPong"],
    async run({ theirs, can }) {
      for (const payload of PINGS) theirs.ping(payload);
      const told = PINGS.filter((payload) => payload !== "" || can("tellEmptyPong"));
      for (const payload of told) assert.equal(await theirs.payload("pong"), payload);
    },
  },
  {
    title: "pongs that nobody asked for are taken",
    needs: ["ping", "pong"],
    async run({ ours, theirs, can }) {
      theirs.pong("unsolicited");
      await ours.pong("unsolicited");
      assert.ok(await ours.ping() >= 0);
      theirs.ping("still there");
      if (can("tellPongs")) assert.equal(await theirs.payload("pong"), "unsolicited");
      assert.equal(await theirs.payload("pong"), "still there");
    },
  },
  {
    title: "pings of ours within a message in fragments",
    needsCompressed: ["interruptCompressed"],
    async run({ ours, theirs }) {
      const items = async function* () {
        for (const item of ["one ", "two ", "three"]) {
          yield item;
          await ours.ping(item);
        }
      };
      await ours.send(items());
      assert.equal((await theirs.message()).data, "one two three");
    },
  },
  {
    title: "pings of theirs within a message in fragments",
    needs: ["sendFragments", "ping"],
    needsCompressed: ["fragmentCompressed"],
    async run({ ours, theirs }) {
      theirs.send({ type: "text", parts: ["one ", "two ", "three"], pings: ["a", "b"] });
      assert.equal(await ours.receive(), "one two three");
      assert.deepEqual([await theirs.payload("pong"), await theirs.payload("pong")], ["a", "b"]);
    },
  },
];

/** The arguments of close(), and the code that the other end then reports. */
const CLOSES: readonly [code: number | undefined, reason: string, told: number][] = [
  [undefined, "", 1005],
  [1000, "", 1000],
  [1000, "done", 1000],
  [1001, "going away", 1001],
  [1003, "", 1003],
  [1008, "policy", 1008],
  [1011, "error", 1011],
  [1013, "later", 1013],
  [3000, "*".repeat(123), 3000],
  [4999, "é€😀", 4999],
];

/** The ability to close with the code. */
function closing(code: number | undefined): readonly Ability[] {
  if (code === undefined) return ["closeEmpty"];
  return code > 1000 && code < 3000 ? ["closeAny"] : [];
}

const CLOSING: Rows = [
  ...CLOSES.flatMap(([code, reason, told]): Rows => {
    const title = `${code ?? "no code"}${reason && ` ${reason.slice(0, 10)}`}`;
    const quick = code === undefined || code === 4999;
    return [
      {
        title: `we close with ${title}`,
        quick,
        partly: ["echoCode", "echoReason", "tellEmptyReason"],
        needs: code === undefined ? ["takeEmpty"] : code === 1013 ? ["take1013"] : [],
        async run({ ours, theirs, can }) {
          const echo = await ours.close({ closeCode: code, reason });
          assert.equal(echo.closeCode, can("echoCode") ? told : 1000);
          if (can("echoCode")) assert.equal(echo.reason, can("echoReason") ? reason : "");
          const closed = await theirs.closed();
          assert.equal(closed.closeCode, told);
          if (reason !== "" || can("tellEmptyReason")) assert.equal(closed.reason, reason);
          assert.deepEqual(await ours.closed, echo);
        },
      },
      {
        title: `they close with ${title}`,
        quick,
        partly: ["tellOwnClose"],
        needs: closing(code),
        async run({ ours, theirs, can }) {
          theirs.close(code, code === undefined ? undefined : reason);
          assert.deepEqual(await ours.closed, { closeCode: told, reason });
          const { closeCode } = await theirs.closed();
          if (can("tellOwnClose")) assert.equal(closeCode, told);
        },
      },
    ];
  }),
  {
    title: "messages before a Close frame arrive before it",
    async run({ ours, theirs }) {
      const messages = SIZES.map(pattern);
      for (const message of messages) ours.send(message);
      await ours.close({ closeCode: 1000 });
      for (const message of messages) assertSame((await theirs.message()).data, message);
      assert.equal((await theirs.closed()).closeCode, 1000);
    },
  },
  {
    title: "text that is not UTF-8 fails with 1007",
    needs: ["sendRaw"],
    async run({ ours, theirs }) {
      theirs.send({ type: "text", parts: [utf8("é").subarray(0, 1)], raw: true });
      assert.equal((await theirs.closed()).closeCode, 1007);
      assert.equal((await rejection<WebSocketError>(ours.closed)).closeCode, 1007);
    },
  },
  {
    title: "a message over our limit fails with 1009",
    options: () => ({ ours: { maxMessageSize: 1000 } }),
    async run({ ours, theirs }) {
      theirs.send({ type: "binary", parts: [pattern(1000)] });
      theirs.send({ type: "binary", parts: [pattern(1001)] });
      assertSame(await ours.receive(), pattern(1000));
      assert.equal((await theirs.closed()).closeCode, 1009);
      assert.equal((await rejection<WebSocketError>(ours.closed)).closeCode, 1009);
    },
  },
  {
    title: "a message over their limit is told as 1009",
    needs: ["limitSize"],
    needsCompressed: ["limitCompressed"],
    mayReport: true,
    options: () => ({ theirs: { maxSize: 1000 } }),
    async run({ ours, theirs }) {
      await ours.send(pattern(1000));
      await ours.send(pattern(1001));
      assertSame((await theirs.message()).data, pattern(1000));
      assert.equal((await ours.closed).closeCode, 1009);
    },
  },
];

const CUT: Rows = [
  {
    title: "they end the transport",
    quick: true,
    needs: ["abort"],
    async run({ ours, theirs, can }) {
      theirs.abort();
      assert.equal((await rejection<WebSocketError>(ours.closed)).closeCode, 1006);
      if (can("tellAbort")) assert.equal((await theirs.closed()).closeCode, 1006);
      else await theirs.gone();
    },
  },
  {
    title: "we end the transport",
    quick: true,
    partly: ["tell1006"],
    async run({ ours, theirs, can }) {
      ours.terminate();
      assert.equal((await rejection<WebSocketError>(ours.closed)).closeCode, 1006);
      assert.equal((await theirs.closed()).closeCode, can("tell1006") ? 1006 : 0);
    },
  },
];

/** The rows about open connections. */
export const SCENARIOS: readonly Scenario[] = [
  ...ofKind("messages", MESSAGES),
  ...ofKind("fragmented", FRAGMENTED),
  ...ofKind("large", LARGE),
  ...ofKind("pings", PINGING),
  ...ofKind("closing", CLOSING),
  ...ofKind("cut", CUT),
];
