import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { checkKnown, checkNested, notConnections } from "../lib/core/option_hints.ts";
import { checkNumber } from "../lib/core/options.ts";

function namesOf(names: string): object {
  return Object.fromEntries(names.split(" ").map((name) => [name, true]));
}

describe("Hints for options that do not exist", () => {
  const rows: readonly [names: string, wrong: string, hint: string | undefined][] = [
    // Names of other libraries.
    ["maxMessageSize", "maxPayload", "use maxMessageSize"],
    ["maxMessageSize", "max_payload_length", "use maxMessageSize"],
    ["other", "maxPayload", undefined],
    ["level memLevel", "zlibDeflateOptions", "use level and memLevel"],
    ["memLevel", "zlibDeflateOptions", undefined],
    // What to do instead.
    ["signal", "timeout", "write signal: AbortSignal.timeout(milliseconds)"],
    ["other", "timeout", undefined],
    ["text", "fin", "send an iterable or a stream as one message of several frames"],
    ["servername maxMessageSize", "hostname", "use servername"],
    ["maxMessageSize", "hostname", "the host is that of the URL, or of the HTTP server"],
    // Names that are misspelt.
    ["abcdefg", "ABC-DEF_G", "use abcdefg"],
    ["abcdefg", "bcdefg", "use abcdefg"],
    ["abcdefg", "cdefg", undefined],
    ["abcdefg", "bcdefgh", "use abcdefg"],
    ["abcdefg", "bacdefg", "use abcdefg"],
    ["abcdefg", "xabcdefg", "use abcdefg"],
    ["abcdefg", "xyabcdefg", "use abcdefg"],
    ["abcdefg", "xyzabcdefg", undefined],
    ["abcdefg", "abcdefgx", "use abcdefg"],
    ["abcdefg", "abcdefgxy", "use abcdefg"],
    ["abcdefg", "abcdefgxyz", undefined],
    ["abcdefg", "abcxdefg", "use abcdefg"],
    ["abcdefg", "abxdefg", "use abcdefg"],
    ["abcdefg", "axxdefg", "use abcdefg"],
    ["abcdefg", "abcdexx", "use abcdefg"],
    ["abcdefg", "xxxdefg", undefined],
    ["abcdefg", "abcdxxx", undefined],
    ["abcdefg", "qwertyu", undefined],
    ["abcdef", "abcdxf", "use abcdef"],
    ["abcdef", "abcdxx", undefined],
    ["abcdef", "abxxef", undefined],
    ["other abcdef", "abcde", "use abcdef"],
  ];
  for (const [names, wrong, hint] of rows) {
    it(`${wrong} instead of ${names}: ${hint ?? "no hint"}`, () => {
      const message = `Test has no option ${wrong}${hint === undefined ? "" : `: ${hint}`}`;
      const options = { [wrong]: 1 };
      const check = () => checkKnown("Test", options, namesOf(names));
      assert.throws(check, { name: "TypeError", code: "unknown-option", message });
    });
  }

  const values: readonly [value: unknown, names: string, hint: string | undefined][] = [
    ["chat", "protocols", "write { protocols: [...] }"],
    [["chat"], "protocols", "write { protocols: [...] }"],
    ["chat", "closeCode port onError", undefined],
    [1000, "closeCode", "write { closeCode, reason }"],
    [8080, "port", "write { port: 8080 }"],
    [1, "protocols onError", undefined],
    [() => {}, "onError", "the options come before the handler, write {} for none"],
    [() => {}, "closeCode port protocols", "await the promise instead of passing a callback"],
    [null, "protocols closeCode port onError", undefined],
    [true, "protocols closeCode port onError", undefined],
  ];
  for (const [value, names, hint] of values) {
    it(`${typeof value} instead of an object with ${names}: ${hint ?? "no hint"}`, () => {
      const check = () => checkKnown("Test", value, namesOf(names));
      const isHinted = ({ name, message }: Error) =>
        name === "TypeError" &&
        message.startsWith("Expected the options of Test to be an object, received ") &&
        (hint === undefined ? !message.includes(": ") : message.endsWith(`: ${hint}`));
      assert.throws(check, isHinted);
    });
  }

  it("checkNested names the option and the one within", () => {
    const names = { most: checkNumber };
    checkNested("limits", { most: 1 }, names);
    assert.throws(() => checkNested("limits", { mist: 1 }, names), {
      name: "TypeError",
      message: "limits has no option mist: use most",
    });
    assert.throws(() => checkNested("limits", { most: "1" }, names), {
      name: "TypeError",
      message: /^Expected limits.most to be a number/,
    });
  });
});

describe("notConnections", () => {
  const rows: readonly [value: unknown, hint: string | undefined][] = [
    [new Map(), "write map.values()"],
    [Promise.resolve(), "await connect()"],
    [{ opened: true }, "write (await stream.opened).connection"],
    [{ connections: [] }, "write server.connections"],
    [{ terminate: 1, closed: 1 }, "write [connection]"],
    [{ terminate: 1 }, undefined],
    [{ closed: 1 }, undefined],
    [{ readyState: 1 }, "write await fromWebSocket(socket)"],
    [{ [Symbol.asyncIterator]: 1 }, "take the connections with `for await`"],
    [undefined, undefined],
    [7, undefined],
  ];
  for (const [value, hint] of rows) {
    it(`notConnections says ${hint ?? "no more"}`, () => {
      const { name, message } = notConnections("connections", value);
      assert.equal(name, "TypeError");
      assert.match(message, /^Expected connections, received /);
      assert.equal(message.includes(": "), hint !== undefined);
      if (hint !== undefined) assert.ok(message.endsWith(`: ${hint}`), message);
    });
  }

  it("notConnections says what its caller knows better", () => {
    assert.match(notConnections("connections", new Map(), "use this").message, /: use this$/);
  });
});
