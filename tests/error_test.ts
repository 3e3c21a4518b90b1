import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  HandshakeError,
  LocalProtocolError,
  RemoteProtocolError,
  WebSocketError,
} from "../lib/core/mod.ts";
import {
  checkWebCloseInfo,
  domError,
  errorCodeOf,
  failure,
  type RefusedResponse,
  timedOut,
  webSocketError,
  withCause,
  withCode,
  wrongType,
} from "../lib/core/error.ts";
import { addToMessage, replaceStack, withoutStack } from "../lib/core/error_print.ts";

type Init = ConstructorParameters<typeof WebSocketError>[1];

describe("WebSocketError", () => {
  it("WebSocketError has an interface as the platform's objects", () => {
    assert.equal(Object.prototype.toString.call(new WebSocketError()), "[object WebSocketError]");
    assert.deepEqual(Object.keys(WebSocketError.prototype), ["closeCode", "reason"]);
  });

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

describe("What is printed of errors", () => {
  const inspect = (value: unknown) => JSON.stringify(value);
  const printed = (error: Error) => {
    const hooks = error as unknown as Record<symbol, (...args: unknown[]) => string>;
    const text = hooks[Symbol.for("Deno.customInspect")](inspect, {});
    assert.equal(hooks[Symbol.for("nodejs.util.inspect.custom")](2, {}, inspect), text);
    return text.replace(`${error.stack}`, "stack");
  };

  it("a WebSocketError prints what it has, and nothing else", () => {
    assert.equal(printed(new WebSocketError("Gone")), "stack");
    assert.equal(
      printed(new WebSocketError("Gone", { closeCode: 1000 })),
      'stack {"closeCode":1000}',
    );
    const facts = { errorCode: "too-big", closeCode: 1009, reason: "r", cause: "c" };
    assert.equal(printed(webSocketError("Gone", 1009, "r", "c")), `stack ${inspect(facts)}`);
    const few = { errorCode: "connection-lost" };
    assert.equal(printed(webSocketError("Gone", null)), `stack ${inspect(few)}`);
  });

  it("any DOMException prints its code, another error as the runtime does", () => {
    const late = withCode(new DOMException("Late", "InvalidStateError"), "closed");
    assert.equal(printed(late), 'stack {"errorCode":"closed"}');
    assert.deepEqual(Object.getOwnPropertySymbols(wrongType("It is wrong")), []);
  });

  it("addToMessage changes the message and the stack", () => {
    const error = new TypeError("It failed $&");
    addToMessage(error, ", often $1");
    assert.equal(error.message, "It failed $&, often $1");
    assert.match(error.stack ?? "", /It failed \$&, often \$1[^]*error_test/);
    assert.deepEqual(Object.keys(error), []);
    for (const name of ["message", "stack"]) {
      const { configurable, writable } = Object.getOwnPropertyDescriptor(error, name)!;
      assert.deepEqual([configurable, writable], [true, true], name);
    }
  });

  it("replaceStack leaves out the functions of the library", async () => {
    const error = new RangeError("It failed");
    const ofLibrary = (hasWaited: boolean) => {
      replaceStack(error, ofLibrary, hasWaited);
      return error.stack;
    };
    const ofApplication = () => [ofLibrary(false), ofLibrary(true)];
    // In a timer, no function waits.
    const stacks = new Promise<unknown[]>((resolve) => {
      setTimeout(() => resolve(ofApplication()));
    });
    const [stack, kept] = await stacks;
    assert.match(`${stack}`, /^RangeError: It failed\n/);
    assert.doesNotMatch(`${stack}`, /ofLibrary/);
    assert.match(`${stack}`, /ofApplication/);
    assert.equal(kept, stack, "a stack without the waiting function is not better");
    assert.deepEqual(Object.keys(error), []);
  });

  it("replaceStack keeps the first stack if no function is found that waits", async () => {
    const error = new RangeError("It failed");
    const { stack } = new RangeError("It failed");
    const replace = () => replaceStack(error, replace, true);
    await new Promise<void>((resolve) => setTimeout(() => resolve(replace())));
    assert.equal(`${error.stack}`.replace(/\d+/g, ""), `${stack}`.replace(/\d+/g, ""));
  });

  it("withoutStack makes an error without the functions that are running", () => {
    const { stackTraceLimit } = Error;
    const error = withoutStack(() => new RangeError("It failed"));
    assert.doesNotMatch(`${error.stack}`, /error_test/);
    assert.match(`${new RangeError("It failed").stack}`, /error_test/);
    const { stack } = withoutStack(() => webSocketError("Lost", 1006));
    assert.match(`${stack}`, /^WebSocketError: Lost/);
    assert.doesNotMatch(`${stack}`, /\n/);
    assert.match(`${webSocketError("Lost", 1006).stack}`, /error_test/);
    assert.throws(() => withoutStack(() => assert.fail()), assert.AssertionError);
    assert.equal(Error.stackTraceLimit, stackTraceLimit);
  });

  it("a replaced stack can be set, is replaced again, and is inherited by nothing", () => {
    const error = new RangeError("It failed");
    const replace = () => replaceStack(error, replace, false);
    replace();
    assert.match(`${error.stack}`, /^RangeError: It failed\n/);
    assert.equal(Object.create(error).stack, undefined);
    error.stack = "another";
    assert.equal(error.stack, "another");
    assert.deepEqual(Object.keys(error), []);
    replace();
    assert.match(`${error.stack}`, /^RangeError: It failed\n/);
    assert.ok(Reflect.deleteProperty(error, "stack"));
  });

  it("a frozen error keeps its stack", () => {
    const replaced = webSocketError("It failed", 1006);
    const replace = (error: Error) => replaceStack(error, replace, false);
    replace(replaced);
    for (const error of [replaced, webSocketError("It failed", 1006)]) {
      const { stack } = Object.freeze(error);
      replace(error);
      assert.equal(error.stack, stack);
    }
  });

  it("without error_print.ts, an error without a stack gets one", async () => {
    const path = `../lib/core/error_code.ts?${Date.now()}`;
    const { makeReadable }: typeof import("../lib/core/error_code.ts") = await import(path);
    const [without, other] = [{ stack: "" }, { stack: "kept" }];
    for (const error of [without, other]) makeReadable(error as unknown as DOMException);
    assert.match(without.stack, /error_test/);
    assert.equal(other.stack, "kept");
  });
});

describe("What errors have", () => {
  it("HandshakeError has only the options that are given", () => {
    const bare = new HandshakeError("m", "upgrade");
    for (const name of ["status", "response", "reply", "cause"]) {
      assert.equal(Object.hasOwn(bare, name), false, name);
    }
    const response = { status: 403 } as RefusedResponse;
    const error = new HandshakeError("m", "proxy", { response, reply: 5 });
    assert.deepEqual([error.status, error.reply], [403, 5]);
    assert.equal(error.response, response);
    const { code, status, message } = timedOut(7);
    assert.deepEqual([code, status], ["timeout", 408]);
    assert.match(message, /openTimeout \(7 ms\)$/);
    assert.equal(new HandshakeError("m", "proxy", { response, status: 404 }).status, 404);
  });

  it("RemoteProtocolError.event is the one that is given, or none", () => {
    const event = { type: "close", closeCode: 1000, reason: "r" } as const;
    assert.equal(new RemoteProtocolError("m", 1002, { event }).event, event);
    assert.equal(new RemoteProtocolError("m", 1002, { event: null }).event, undefined);
    assert.equal(new RemoteProtocolError("m", 1006).event, undefined);
    assert.equal(new RemoteProtocolError("m", 1006, { event }).event, event);
  });

  it("an error has its code and its cause as properties that may be changed", () => {
    const error = failure("m", "connect-failed", "c") as Error & { code: string };
    assert.deepEqual([error.message, error.code, error.cause], ["m", "connect-failed", "c"]);
    assert.deepEqual(Object.keys(error), ["code"]);
    assert.equal(Object.hasOwn(failure("m", "connect-failed"), "cause"), false);
    const changed = withCode(withCode(error, "wrong-type"), "wrong-value") as typeof error;
    assert.deepEqual([changed.code, errorCodeOf(changed)], ["wrong-value", "wrong-value"]);
    const dom = withCause(domError("AbortError", "m", "wrong-state", "c"), "d");
    assert.equal(dom.cause, "d");
    assert.ok(!Object.keys(dom).includes("cause"));
    assert.ok(Object.keys(dom).includes("errorCode"));
    dom.cause = "e";
    assert.equal(dom.cause, "e");
    assert.ok(Reflect.deleteProperty(dom, "cause"));
  });

  it("errorCodeOf is undefined for what is no error of the library", () => {
    for (const value of [undefined, null, "x", 7, Symbol(), {}, new Error("x")]) {
      assert.equal(errorCodeOf(value), undefined);
    }
    assert.equal(errorCodeOf(new LocalProtocolError("x")), "wrong-state");
  });
});
