import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  type ExtensionHeader,
  headerValue,
  headerValues,
  parseExtensions,
  parseProtocols,
  parseTokenList,
  parseUpgrade,
  type RawHeaders,
  serializeExtensions,
  serializeProtocols,
} from "../lib/core/mod.ts";
import { isFieldValue, isToken } from "../lib/core/header.ts";
import { fc } from "./property.ts";

const TOKEN_CHARACTERS = "!#$%&'*+-.^_`|~0123456789" +
  "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";

type Parameters = [name: string, value: string | undefined][];

function extension(name: string, ...parameters: Parameters): ExtensionHeader {
  return { name, parameters };
}

/** The length of the test input. A parser that is not linear would not finish. */
const MEGABYTE = 2 ** 20;

describe("isToken", () => {
  it("isToken accepts exactly the characters of RFC 9110 §5.6.2", () => {
    for (let code = 0; code < 0x180; code++) {
      const character = String.fromCharCode(code);
      assert.equal(isToken(character), TOKEN_CHARACTERS.includes(character), `${code}`);
      assert.equal(isToken(`a${character}b`), TOKEN_CHARACTERS.includes(character), `${code}`);
    }
    assert.equal(isToken(""), false);
    assert.equal(isToken("a\n"), false);
  });
});

describe("isFieldValue", () => {
  it("isFieldValue accepts Latin-1 without control characters, except the tab", () => {
    for (let code = 0; code < 0x180; code++) {
      const valid = code === 9 || (code >= 0x20 && code !== 0x7f && code <= 0xff);
      assert.equal(isFieldValue(`a${String.fromCharCode(code)}b`), valid, `${code}`);
    }
    assert.equal(isFieldValue(""), true);
    assert.equal(isFieldValue("a\n"), false);
  });
});

describe("headerValues", () => {
  const headers: RawHeaders = [["A", "1"], ["b", "2"], ["a", "3"]];

  it("headerValues gives all fields with the name, whatever its case", () => {
    assert.deepEqual(headerValues(headers, "a"), ["1", "3"]);
    assert.deepEqual(headerValues(headers, "B"), ["2"]);
    assert.deepEqual(headerValues(headers, "__proto__"), []);
  });

  it("headerValue gives one value, or undefined, and refuses several", () => {
    assert.equal(headerValue(headers, "B"), "2");
    assert.equal(headerValue(headers, "c"), undefined);
    assert.throws(() => headerValue(headers, "A"), {
      code: "malformed-header",
      status: 400,
      message: "The A header occurs 2 times",
    });
  });
});

describe("parseTokenList", () => {
  const valid: readonly [value: string, tokens: string[]][] = [
    ["a", ["a"]],
    ["a,b", ["a", "b"]],
    ["a, b ,\tc", ["a", "b", "c"]],
    [" a ", ["a"]],
    [",a", ["a"]],
    ["a,", ["a"]],
    [", ,a,, b, ,", ["a", "b"]],
    ["a,a", ["a", "a"]],
    [TOKEN_CHARACTERS, [TOKEN_CHARACTERS]],
  ];
  it("parseTokenList reads a list, empty elements passed over", () => {
    for (const [value, tokens] of valid) assert.deepEqual(parseTokenList("X", value), tokens);
  });

  const invalid: readonly [value: string, expected: string, at: number][] = [
    ["", "at least one element", 0],
    ["  ", "at least one element", 2],
    [", ,", "at least one element", 3],
    ["a b", "a comma", 2],
    ["a;b", "a comma", 1],
    ["a, (b)", "a token", 3],
    ['"a"', "a token", 0],
    ["é", "a token", 0],
    ["a, b\0", "a comma", 4],
  ];
  for (const [value, expected, at] of invalid) {
    it(`parseTokenList refuses ${JSON.stringify(value)}`, () => {
      assert.throws(() => parseTokenList("Connection", value), failure("Connection", expected, at));
    });
  }

  it("parseTokenList takes time linear in the length", () => {
    assert.equal(parseTokenList("X", "a,".repeat(MEGABYTE / 2)).length, MEGABYTE / 2);
    assert.equal(parseTokenList("X", "a" + " ".repeat(MEGABYTE) + ",b").length, 2);
    assert.deepEqual(parseTokenList("X", ",".repeat(MEGABYTE) + "a"), ["a"]);
    assert.equal(parseTokenList("X", "a".repeat(MEGABYTE))[0].length, MEGABYTE);
  });
});

describe("parseProtocols", () => {
  it("parseProtocols reads a list and names its header", () => {
    assert.deepEqual(parseProtocols("chat, superchat"), ["chat", "superchat"]);
    assert.throws(() => parseProtocols("a b"), failure("Sec-WebSocket-Protocol", "a comma", 2));
  });

  it("parseProtocols reads what serializeProtocols wrote", () => {
    fc.assert(fc.property(fc.uniqueArray(token, { minLength: 1, maxLength: 5 }), (protocols) => {
      assert.deepEqual(parseProtocols(serializeProtocols(protocols)), protocols);
    }));
  });
});

describe("parseUpgrade", () => {
  it("parseUpgrade reads protocols with and without a version", () => {
    assert.deepEqual(parseUpgrade("websocket"), ["websocket"]);
    assert.deepEqual(parseUpgrade("h2c/1, WebSocket"), ["h2c/1", "WebSocket"]);
  });

  const invalid: readonly [value: string, expected: string, at: number][] = [
    ["websocket/", "a token", 10],
    ["/13", "a token", 0],
    ["a/b/c", "a comma", 3],
    ["", "at least one element", 0],
  ];
  for (const [value, expected, at] of invalid) {
    it(`parseUpgrade refuses ${JSON.stringify(value)}`, () => {
      assert.throws(() => parseUpgrade(value), failure("Upgrade", expected, at));
    });
  }
});

describe("parseExtensions", () => {
  const valid: readonly [value: string, extensions: ExtensionHeader[]][] = [
    ["foo", [extension("foo")]],
    ["foo, bar; baz=2", [extension("foo"), extension("bar", ["baz", "2"])]],
    ["foo; a; b=1, foo", [extension("foo", ["a", undefined], ["b", "1"]), extension("foo")]],
    ['foo; a="1"', [extension("foo", ["a", "1"])]],
    ['foo; a="\\1\\2"', [extension("foo", ["a", "12"])]],
    ["foo ;\ta = b ; c", [extension("foo", ["a", "b"], ["c", undefined])]],
    [",, foo;a,,", [extension("foo", ["a", undefined])]],
    ["foo; a=1; a=2", [extension("foo", ["a", "1"], ["a", "2"])]],
    ["foo; A=B", [extension("foo", ["A", "B"])]],
    // Names of Object.prototype are ordinary names.
    ["__proto__; __proto__=1; constructor; toString=x", [
      extension("__proto__", ["__proto__", "1"], ["constructor", undefined], ["toString", "x"]),
    ]],
    ['permessage-deflate; client_max_window_bits; server_max_window_bits="10"', [
      extension(
        "permessage-deflate",
        ["client_max_window_bits", undefined],
        ["server_max_window_bits", "10"],
      ),
    ]],
  ];
  for (const [value, extensions] of valid) {
    it(`parseExtensions reads ${value}`, () => {
      assert.deepEqual(parseExtensions(value), extensions);
    });
  }

  const invalid: readonly [value: string, expected: string, at: number][] = [
    ["", "at least one element", 0],
    [",", "at least one element", 1],
    [";a", "a token", 0],
    ["foo;", "a token", 4],
    ["foo; ;a", "a token", 5],
    ["foo; =1", "a token", 5],
    ["foo; a=", "a token", 7],
    ["foo; a=,b", "a token", 7],
    ["foo; a=1 2", "a comma", 9],
    ["foo bar", "a comma", 4],
    ["foo; a=b=c", "a comma", 8],
    ['"foo"', "a token", 0],
    ['foo; a="1', "the end of a quoted string", 9],
    ['foo; a="', "the end of a quoted string", 8],
    ['foo; a="1\\', "the end of a quoted string", 10],
    ['foo; a="1\\"', "the end of a quoted string", 11],
    ['foo; a=""', "a token between the quotes", 9],
    ['foo; a="1 2"', "a token between the quotes", 12],
    ['foo; a="1,2"', "a token between the quotes", 12],
    ['foo; a="\\""', "a token between the quotes", 11],
    ['foo; a="1"2', "a comma", 10],
    ["föo", "a comma", 1],
    ["foo\r\nbar", "a comma", 3],
  ];
  for (const [value, expected, at] of invalid) {
    it(`parseExtensions refuses ${JSON.stringify(value)}`, () => {
      const expectedError = failure("Sec-WebSocket-Extensions", expected, at);
      assert.throws(() => parseExtensions(value), expectedError);
    });
  }

  it("parseExtensions takes time linear in the length", () => {
    assert.equal(parseExtensions("a;".repeat(MEGABYTE) + "a")[0].parameters.length, MEGABYTE);
    assert.equal(parseExtensions("a,".repeat(MEGABYTE)).length, MEGABYTE);
    const quoted = parseExtensions(`a; b="${"\\c".repeat(MEGABYTE)}"`);
    assert.equal(quoted[0].parameters[0][1]?.length, MEGABYTE);
    assert.throws(() => parseExtensions(`a; b="${"\\".repeat(MEGABYTE)}`));
    assert.throws(() => parseExtensions(`a${" ".repeat(MEGABYTE)}b`));
  });

  it("parseExtensions reads what serializeExtensions wrote", () => {
    const parameter = fc.tuple(token, fc.option(token, { nil: undefined }));
    const parameters = fc.array(parameter, { maxLength: 4 });
    const item = fc.tuple(token, parameters).map(([name, list]) => extension(name, ...list));
    fc.assert(fc.property(fc.array(item, { minLength: 1, maxLength: 4 }), (extensions) => {
      assert.deepEqual(parseExtensions(serializeExtensions(extensions)), extensions);
    }));
  });
});

describe("serializeExtensions", () => {
  it("serializeExtensions writes names, parameters and values", () => {
    const extensions = [extension("foo", ["a", undefined], ["b", "1"]), extension("bar")];
    assert.equal(serializeExtensions(extensions), "foo; a; b=1, bar");
  });

  it("serializeExtensions and serializeProtocols refuse names that are not tokens", () => {
    for (const text of ["", "a b", "a,b", "a\r\nb", 'a"', "é"]) {
      const expected = {
        name: "TypeError",
        message: `Expected a token, received ${JSON.stringify(text)}`,
      };
      assert.throws(() => serializeExtensions([extension(text)]), expected);
      assert.throws(() => serializeExtensions([extension("a", [text, undefined])]), expected);
      assert.throws(() => serializeExtensions([extension("a", ["b", text])]), expected);
      assert.throws(() => serializeProtocols(["a", text]), {
        name: "TypeError",
        message: "Expected each subprotocol to be a token",
      });
    }
  });

  it("serializeProtocols refuses a subprotocol that occurs twice", () => {
    assert.throws(() => serializeProtocols(["a", "b", "a"]), {
      name: "TypeError",
      message: "Expected each subprotocol once",
    });
    assert.equal(serializeProtocols(["a", "A"]), "a, A");
  });
});

const token: fc.Arbitrary<string> = fc.string({
  unit: fc.constantFrom(...TOKEN_CHARACTERS),
  minLength: 1,
  maxLength: 12,
});

function failure(name: string, expected: string, at: number): object {
  return {
    name: "HandshakeError",
    code: "malformed-header",
    status: 400,
    message: `The ${name} header is malformed: expected ${expected} at character ${at}`,
  };
}
