import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  HandshakeError,
  LocalProtocolError,
  RemoteProtocolError,
  WebSocketError,
} from "../lib/core/mod.ts";
import { checkWebCloseInfo, webSocketError } from "../lib/core/error.ts";

type Init = ConstructorParameters<typeof WebSocketError>[1];

describe("WebSocketError", () => {
  it("WebSocketError has neither code nor reason by default", () => {
    const error = new WebSocketError();
    assert.deepEqual([error.message, error.closeCode, error.reason], ["", null, ""]);
    assert.deepEqual([error.name, error.code], ["WebSocketError", 0]);
  });

  it("WebSocketError is a DOMException and an Error, and has a stack", () => {
    for (const error of [new WebSocketError("Gone"), webSocketError("Gone", 1006)]) {
      assert.ok(error instanceof DOMException);
      assert.ok(error instanceof Error);
      assert.equal(error.message, "Gone");
      assert.match(error.stack ?? "", /error_test/);
    }
  });

  const taken: readonly [title: string, init: unknown, closeCode: number | null, reason: string][] =
    [
      ["an empty object", {}, null, ""],
      ["undefined members", { closeCode: undefined, reason: undefined }, null, ""],
      ["undefined", undefined, null, ""],
      ["null", null, null, ""],
      ["an empty reason alone", { reason: "" }, null, ""],
      ["a reason alone", { reason: "done" }, 1000, "done"],
      ["code 1000", { closeCode: 1000 }, 1000, ""],
      ["code 3000", { closeCode: 3000, reason: "r" }, 3000, "r"],
      ["code 4999", { closeCode: 4999, reason: "r" }, 4999, "r"],
      ["a code as text", { closeCode: "3000" }, 3000, ""],
      ["a code with a fraction", { closeCode: 3000.9 }, 3000, ""],
      ["a reason that is no text", { reason: 12 }, 1000, "12"],
      ["a reason that is null", { reason: null }, 1000, "null"],
      ["a reason with a lone surrogate", { reason: "a\ud800b" }, 1000, "a\ufffdb"],
      ["a reason with a pair of surrogates", { reason: "😀" }, 1000, "😀"],
      ["a reason of 123 bytes", { reason: "€".repeat(41) }, 1000, "€".repeat(41)],
    ];
  for (const [title, init, closeCode, reason] of taken) {
    it(`WebSocketError takes ${title}`, () => {
      const error = new WebSocketError("m", init as Init);
      assert.deepEqual([error.closeCode, error.reason], [closeCode, reason]);
    });
  }

  const refused: readonly [title: string, init: unknown, name: string][] = [
    ...[0, 999, 1001, 1005, 1006, 1011, 1015, 2999, 5000, 65535].map((
      closeCode,
    ): [string, unknown, string] => [`code ${closeCode}`, { closeCode }, "InvalidAccessError"]),
    ["a code that is null", { closeCode: null }, "InvalidAccessError"],
    ["a wrong code with a long reason", {
      closeCode: 999,
      reason: "x".repeat(124),
    }, "InvalidAccessError"],
    ["a code below 0", { closeCode: -1 }, "TypeError"],
    ["a code beyond 16 bits", { closeCode: 65536 }, "TypeError"],
    ["a code that is NaN", { closeCode: "x" }, "TypeError"],
    ["an infinite code", { closeCode: Infinity }, "TypeError"],
    ["a code that is a symbol", { closeCode: Symbol() }, "TypeError"],
    ["a reason of 124 bytes", { reason: "x".repeat(124) }, "SyntaxError"],
    ["a reason of 42 characters of 3 bytes", { reason: "€".repeat(42) }, "SyntaxError"],
    [
      "a reason that grows beyond 123 bytes as U+FFFD",
      { reason: "\ud800".repeat(42) },
      "SyntaxError",
    ],
    ["a reason that is a symbol", { reason: Symbol() }, "TypeError"],
    ["text", "x", "TypeError"],
    ["a number", 1000, "TypeError"],
    ["a boolean", true, "TypeError"],
  ];
  for (const [title, init, name] of refused) {
    it(`WebSocketError refuses ${title} with a ${name}`, () => {
      assert.throws(() => new WebSocketError("m", init as Init), { name });
      assert.throws(() => checkWebCloseInfo(init), { name });
    });
  }

  it("WebSocketError throws the DOMExceptions of the standard", () => {
    for (const init of [{ closeCode: 1001 }, { reason: "x".repeat(124) }]) {
      assert.throws(() => new WebSocketError("m", init), DOMException);
    }
  });

  it("WebSocketError has a code and reason that cannot be changed", () => {
    const error = new WebSocketError("m", { closeCode: 3000, reason: "r" });
    assert.throws(() => Object.assign(error, { closeCode: 1000 }), TypeError);
    assert.throws(() => Object.assign(error, { reason: "" }), TypeError);
  });
});

describe("webSocketError", () => {
  it("webSocketError takes codes that a caller may not give, and a cause", () => {
    const cause = new Error("reset");
    const error = webSocketError("Lost", 1006, "r", cause);
    assert.ok(error instanceof WebSocketError);
    assert.deepEqual([error.closeCode, error.reason, error.cause], [1006, "r", cause]);
    assert.deepEqual([error.name, error.code], ["WebSocketError", 0]);
  });

  it("webSocketError has no cause if none is given", () => {
    assert.ok(!Object.hasOwn(webSocketError("Lost", 1006), "cause"));
  });
});

describe("HandshakeError", () => {
  it("HandshakeError carries the code, and what else is known", () => {
    const cause = new Error("refused");
    const error = new HandshakeError("m", "connect-failed", { cause, status: 400 });
    assert.ok(error instanceof Error);
    const { name, message, code, status } = error;
    assert.deepEqual({ name, message, code, status, cause: error.cause }, {
      name: "HandshakeError",
      message: "m",
      code: "connect-failed",
      status: 400,
      cause,
    });
  });

  it("HandshakeError has no cause if none is given", () => {
    assert.ok(!Object.hasOwn(new HandshakeError("m", "timeout"), "cause"));
  });
});

describe("RemoteProtocolError", () => {
  it("RemoteProtocolError.event is the Close to answer with, its reason at most 123 bytes", () => {
    const short = new RemoteProtocolError("Expected less", 1009);
    assert.deepEqual(short.event, { type: "close", closeCode: 1009, reason: "Expected less" });
    const long = new RemoteProtocolError("x".repeat(200), 1002).event;
    assert.deepEqual(long, { type: "close", closeCode: 1002, reason: "x".repeat(123) });
    assert.equal(new RemoteProtocolError("The input ended", 1006).event, undefined);
    assert.equal(short.name, "RemoteProtocolError");
  });
});

describe("LocalProtocolError", () => {
  it("LocalProtocolError is an Error with its name", () => {
    const error = new LocalProtocolError("Expected an open connection");
    assert.ok(error instanceof Error);
    assert.deepEqual([error.name, error.message], [
      "LocalProtocolError",
      "Expected an open connection",
    ]);
  });
});
