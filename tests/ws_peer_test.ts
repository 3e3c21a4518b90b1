import { describe, it } from "node:test";
import assert from "node:assert/strict";
import type { Message, WebSocketError } from "../mod.ts";
import { concat, pattern } from "./bytes.ts";
import { type WsPair, wsPair, type WsPairOptions } from "./conformance/ws.ts";
import { rejection, ROLES, until } from "./support.ts";

/** Runs a test with this library as the client and as the server, and ends everything. */
function inBothRoles(
  title: string,
  run: (pair: WsPair) => Promise<void>,
  options?: WsPairOptions,
): void {
  for (const role of ROLES) {
    it(`ws as peer: ${title} (${role})`, async () => {
      const pair = await wsPair(role, options);
      try {
        await run(pair);
        assert.deepEqual(pair.theirs.errors, []);
      } finally {
        await pair.stop();
      }
    });
  }
}

/** Checks that the messages are the expected ones, without printing a mebibyte. */
function assertMessages(got: readonly Message[], expected: readonly Message[]): void {
  const shapes = (messages: readonly Message[]) => messages.map((m) => [typeof m, m.length]);
  assert.deepEqual(shapes(got), shapes(expected));
  got.forEach((message, i) => {
    const same = typeof message === "string"
      ? message === expected[i]
      : message.every((byte, at) => byte === (expected[i] as Uint8Array)[at]);
    assert.ok(same, `message ${i} has the same content`);
  });
}

async function take(ours: WsPair["ours"], count: number): Promise<Message[]> {
  const messages: Message[] = [];
  while (messages.length < count) messages.push(await ours.receive());
  return messages;
}

const SIZES = [0, 1, 125, 126, 127, 65535, 65536, 1048576];
const BINARY = SIZES.map(pattern);
const TEXT = SIZES.map((size) => "é".repeat(size >> 1) + "*".repeat(size & 1));

describe("ws as peer: messages", () => {
  for (const [type, messages] of [["text", TEXT], ["binary", BINARY]] as const) {
    inBothRoles(`${type} of each size, sent`, async ({ ours, theirs }) => {
      for (const message of messages) await ours.send(message);
      await until(() => theirs.messages.length === messages.length);
      assertMessages(theirs.messages, messages);
    });

    inBothRoles(`${type} of each size, received`, async ({ ours, theirs }) => {
      for (const message of messages) theirs.socket.send(message);
      assertMessages(await take(ours, messages.length), messages);
    });
  }

  inBothRoles("an echo by a pipe, of two thousand messages", async ({ ours, theirs }) => {
    const echo = ours.readable.pipeTo(ours.writable);
    const messages = Array.from({ length: 2000 }, (_, i) => i % 2 ? `text ${i}` : pattern(i));
    for (const message of messages) theirs.socket.send(message);
    await until(() => theirs.messages.length === messages.length);
    assertMessages(theirs.messages, messages);
    theirs.socket.close(1000);
    await echo;
  });

  inBothRoles("a message in fragments, sent", async ({ ours, theirs }) => {
    await ours.send(["one ", "", "two ", "three"]);
    await ours.send([pattern(10), pattern(70000)]);
    await until(() => theirs.messages.length === 2);
    assertMessages(theirs.messages, ["one two three", concat([pattern(10), pattern(70000)])]);
  });

  inBothRoles("a message in fragments, received", async ({ ours, theirs }) => {
    const { socket } = theirs;
    for (const [part, fin] of [["one ", false], ["", false], ["two", true]] as const) {
      socket.send(part, { fin });
    }
    socket.send(pattern(10), { fin: false });
    socket.ping("between");
    socket.send(pattern(70000), { fin: true });
    assertMessages(await take(ours, 2), ["one two", concat([pattern(10), pattern(70000)])]);
    await until(() => theirs.pongs.length === 1);
  });
});

describe("ws as peer: pings", () => {
  inBothRoles("our ping is answered", async ({ ours, theirs }) => {
    assert.ok(await ours.ping("ours") >= 0);
    assert.ok(await ours.ping() >= 0);
    assert.equal(theirs.pings[0], "ours");
    assert.ok(ours.latency! >= 0);
  });

  inBothRoles("a ping of theirs is answered", async ({ theirs }) => {
    for (const payload of ["one", "", "*".repeat(125)]) theirs.socket.ping(payload);
    await until(() => theirs.pongs.length === 3);
    assert.deepEqual(theirs.pongs, ["one", "", "*".repeat(125)]);
  });

  inBothRoles("an unsolicited pong is sent and received", async ({ ours, theirs }) => {
    theirs.socket.pong("unsolicited");
    await ours.pong("unsolicited");
    await until(() => theirs.pongs.length === 1);
    assert.ok(await ours.ping() >= 0);
  });
});

describe("ws as peer: subprotocols", () => {
  const offers: readonly [title: string, offered: string[], chosen: string][] = [
    ["the one in common is agreed on", ["a", "b"], "b"],
    ["none is agreed on where none was offered", [], ""],
  ];
  /** The subprotocols of the server, in either role of this library. */
  const supported = ["b", "c"];
  const handleProtocols = (offered: Set<string>) =>
    supported.find((name) => offered.has(name)) ?? false;

  for (const [title, offered, chosen] of offers) {
    for (const role of ROLES) {
      it(`ws as peer: ${title} (${role})`, async () => {
        const { ours, theirs, stop } = await wsPair(role, {
          ours: { protocols: role === "client" ? offered : supported },
          theirProtocols: offered,
          theirServer: { handleProtocols },
        });
        assert.deepEqual([ours.protocol, theirs.socket.protocol], [chosen, chosen]);
        await stop();
      });
    }
  }

  it("ws as peer: no subprotocol is agreed on if none is common (client)", async () => {
    const { ours, stop } = await wsPair("client", {
      ours: { protocols: ["a"] },
      theirServer: { handleProtocols },
    });
    assert.equal(ours.protocol, "");
    await stop();
  });

  it("ws as peer: a client of ws refuses a server without its subprotocol (server)", async () => {
    await assert.rejects(
      wsPair("server", { ours: { protocols: supported }, theirProtocols: ["a"] }),
      { message: "Server sent no subprotocol" },
    );
  });
});

/** The arguments of close(), and the code that the other end then reports. */
const CLOSES: readonly [closeCode: number | undefined, reason: string, told: number][] = [
  [undefined, "", 1005],
  [1000, "", 1000],
  [1000, "done", 1000],
  [1001, "going away", 1001],
  [1003, "", 1003],
  [1008, "policy", 1008],
  [1011, "error", 1011],
  [1013, "later", 1013],
  [3000, "*".repeat(123), 3000],
  [4999, "é", 4999],
];

describe("ws as peer: closing", () => {
  for (const [code, reason, told] of CLOSES) {
    const title = `${code ?? "no code"}${reason && ` ${reason.slice(0, 10)}`}`;
    const expected = { closeCode: told, reason };

    inBothRoles(`we close with ${title}`, async ({ ours, theirs }) => {
      assert.deepEqual(await ours.close({ closeCode: code, reason }), expected);
      assert.deepEqual(await theirs.closed, expected);
      assert.equal((await ours.closed).closeCode, told);
    });

    inBothRoles(`they close with ${title}`, async ({ ours, theirs }) => {
      theirs.socket.close(code, reason);
      assert.deepEqual(await ours.closed, expected);
      assert.equal((await theirs.closed).closeCode, told);
    });
  }

  inBothRoles("messages before a Close frame arrive before it", async ({ ours, theirs }) => {
    for (const message of BINARY) ours.send(message);
    await ours.close({ closeCode: 1000 });
    await theirs.closed;
    assertMessages(theirs.messages, BINARY);
  });

  inBothRoles("both close at once", async ({ ours, theirs }) => {
    theirs.socket.close(4001);
    await ours.close({ closeCode: 4002 });
    assert.equal((await ours.closed).closeCode, 4001);
    assert.equal((await theirs.closed).closeCode, 4002);
  });

  inBothRoles("they terminate", async ({ ours, theirs }) => {
    theirs.socket.terminate();
    assert.equal((await rejection<WebSocketError>(ours.closed)).closeCode, 1006);
    assert.equal((await theirs.closed).closeCode, 1006);
  });

  inBothRoles("we terminate", async ({ ours, theirs }) => {
    ours.terminate();
    assert.equal((await theirs.closed).closeCode, 1006);
    assert.equal((await rejection<WebSocketError>(ours.closed)).closeCode, 1006);
  });

  inBothRoles("a message over our limit fails with 1009", async ({ ours, theirs }) => {
    theirs.socket.send(pattern(1001));
    assert.deepEqual((await theirs.closed).closeCode, 1009);
    assert.equal((await rejection<WebSocketError>(ours.closed)).closeCode, 1009);
  }, { ours: { maxMessageSize: 1000 } });
});
