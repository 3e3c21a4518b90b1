/** The checks of options and the conversions of Web IDL, each by a table. */
import assert from "node:assert/strict";
import { describe, it } from "node:test";
import {
  checkBoolean,
  checkInteger,
  checkKnown,
  checkNames,
  checkNumber,
  checkOneOf,
  checkSignal,
  checkType,
  checkValues,
  kindOf,
  optionsWithout,
} from "../lib/core/options.ts";
import { defineInterface, toDictionary, toStrings, toUnsignedShort } from "../lib/core/webidl.ts";

/** The message of the error that the call throws, or "" if it throws none. */
function messageOf(call: () => unknown): string {
  try {
    call();
  } catch (error) {
    return `${error}`;
  }
  return "";
}

describe("The checks of options", () => {
  const range = "Expected n to be an integer from 1 to 9, received";
  const cases: readonly [what: string, call: () => unknown, message: string][] = [
    ["a number", () => checkNumber("n", 0), ""],
    ["no number", () => checkNumber("n", undefined), ""],
    [
      "a negative number",
      () => checkNumber("n", -1),
      "RangeError: Expected n to be at least 0, received -1",
    ],
    ["NaN", () => checkNumber("n", NaN), "RangeError: Expected n to be at least 0, received NaN"],
    [
      "text for a number",
      () => checkNumber("n", "1"),
      "TypeError: Expected n to be a number, received a string",
    ],
    ["the least", () => checkInteger("n", 1, 1, 9), ""],
    ["the most", () => checkInteger("n", 9, 1, 9), ""],
    ["Infinity", () => checkInteger("n", Infinity, 1, Infinity), ""],
    ["less than the least", () => checkInteger("n", 0, 1, 9), `RangeError: ${range} 0`],
    ["more than the most", () => checkInteger("n", 10, 1, 9), `RangeError: ${range} 10`],
    ["a fraction", () => checkInteger("n", 1.5, 1, 9), `RangeError: ${range} 1.5`],
    [
      "text for an integer",
      () => checkInteger("n", "5", 1, 9),
      "TypeError: Expected n to be a number, received a string",
    ],
    [
      "an unknown option",
      () => checkKnown("f()", { b: 1 }, { a: 0 }),
      "TypeError: f() has no option b",
    ],
    ["no check", () => checkKnown("f()", { a: 1 }, { a: 0 }), ""],
    ["true", () => checkBoolean("b", true), ""],
    [
      "1 for true",
      () => checkBoolean("b", 1),
      "TypeError: Expected b to be true or false, received a number",
    ],
    ["one of two", () => checkOneOf("o", "a", ["a", "b"]), ""],
    ["none of two", () => checkOneOf("o", undefined, ["a", "b"]), ""],
    [
      "a third",
      () => checkOneOf("o", "c", ["a", "b"]),
      "RangeError: Expected o to be one of a, b, received c",
    ],
    ["a signal", () => checkSignal("s", new AbortController().signal), ""],
    [
      "no signal",
      () => checkSignal("s", {}),
      "TypeError: Expected s to be an AbortSignal, received an object",
    ],
    ["a type that is valid", () => checkType("t", 5, "a thing", true), ""],
    ["known names", () => checkNames("f()", { a: 1 }, { a: 0 }), ""],
    ["an unknown name without a value", () => checkNames("f()", { b: undefined }, { a: 0 }), ""],
    [
      "an unknown name",
      () => checkNames("f()", { b: 1 }, { a: 0 }),
      "TypeError: f() has no option b",
    ],
    [
      "a name of another library",
      () => checkNames("f()", { code: 1 }, { closeCode: 0 }),
      "TypeError: f() has no option code: use closeCode",
    ],
    [
      "such a name that leads nowhere",
      () => checkNames("f()", { code: 1 }, { a: 0 }),
      "TypeError: f() has no option code",
    ],
    [
      "text where options have protocols",
      () => checkNames("f()", "chat", { protocols: 0 }),
      "TypeError: Expected the options of f() to be an object, received a string: write { protocols: [...] }",
    ],
    ...[null, [], "chat", undefined].map((value): [string, () => unknown, string] => [
      `${kindOf(value)} as the options`,
      () => checkNames("f()", value, { a: 0 }),
      `TypeError: Expected the options of f() to be an object, received ${kindOf(value)}`,
    ]),
    ["a value that is valid", () => checkKnown("f()", { n: 1 }, { n: checkNumber }), ""],
    [
      "a value that is not",
      () => checkKnown("f()", { n: -1 }, { n: checkNumber }),
      "RangeError: Expected n to be at least 0, received -1",
    ],
    [
      "a value of a group",
      () => checkValues({ n: -1 }, { n: checkNumber, m: 0 }, "limits."),
      "RangeError: Expected limits.n to be at least 0, received -1",
    ],
    ["no value", () => checkValues({}, { n: () => assert.fail() }), ""],
  ];
  for (const [what, call, message] of cases) {
    it(`${what}: ${message || "no error"}`, () => assert.equal(messageOf(call), message));
  }

  it("only errors about names have a code", () => {
    const code = (options: unknown) => {
      try {
        checkNames("f()", options, {});
      } catch (error) {
        return (error as { code?: string }).code;
      }
    };
    assert.equal(code({ a: 1 }), "unknown-option");
    assert.notEqual(code(null), "unknown-option");
  });

  it("kindOf names what was received", () => {
    const values = [null, undefined, [], {}, "a", 1, () => {}];
    const kinds = [
      "null",
      "undefined",
      "an array",
      "an object",
      "a string",
      "a number",
      "a function",
    ];
    assert.deepEqual(values.map(kindOf), kinds);
  });

  it("optionsWithout leaves some out", () => {
    assert.deepEqual(optionsWithout({ a: 1, b: 2, c: 3 }, ["b"]), { a: 1, c: 3 });
  });
});

describe("The conversions of Web IDL", () => {
  it("toUnsignedShort takes 0 to 65535 and cuts fractions", () => {
    for (
      const [value, number] of [[0, 0], [65535, 65535], [65535.9, 65535], [-0.9, -0], ["7", 7]]
    ) {
      assert.equal(toUnsignedShort(value, "x"), number);
    }
    for (const value of [-1, 65536, NaN, Infinity, "a"]) {
      assert.match(
        messageOf(() => toUnsignedShort(value, "x")),
        /^TypeError: Expected x to be an integer from 0 to 65535, received /,
      );
    }
  });

  it("toDictionary takes objects, functions and nothing", () => {
    const object = { a: 1 };
    assert.equal(toDictionary(object, "x"), object);
    assert.deepEqual([toDictionary(null, "x"), toDictionary(undefined, "x")], [{}, {}]);
    assert.equal(
      messageOf(() => toDictionary(1, "x")),
      "TypeError: Expected x to be an object, received number",
    );
  });

  it("toStrings reads what is iterable, and nothing else", () => {
    assert.deepEqual(toStrings([1, "a\ud800"], "x"), ["1", "a\ufffd"]);
    assert.deepEqual(toStrings(new Set(["a"]), "x"), ["a"]);
    const withNext = (next: unknown) => ({ [Symbol.iterator]: () => ({ next }) });
    const wrong = [
      null,
      "ab",
      {},
      { [Symbol.iterator]: 1 },
      { [Symbol.iterator]: () => 1 },
      { [Symbol.iterator]: () => null },
      withNext(1),
      withNext(() => 1),
      withNext(() => null),
    ];
    for (const value of wrong) {
      const message = "TypeError: Expected x to be a sequence of strings";
      assert.equal(messageOf(() => toStrings(value, "x")), message);
    }
  });

  it("defineInterface gives a class the name and members of an interface", () => {
    class Renamed {
      a(): void {}
      b(): void {}
    }
    defineInterface(Renamed, "Shown", ["a"]);
    assert.equal(Renamed.name, "Shown");
    assert.equal(`${new Renamed()}`, "[object Shown]");
    const { prototype } = Renamed;
    assert.deepEqual(Object.keys(prototype), ["a"]);
    for (const [object, key] of [[Renamed, "name"], [prototype, Symbol.toStringTag]] as const) {
      const { configurable, writable, enumerable } = Object.getOwnPropertyDescriptor(object, key)!;
      assert.deepEqual([configurable, writable, enumerable], [true, false, false]);
    }
  });
});
