import { describe, it } from "node:test";
import assert from "node:assert/strict";
import type { TestCase } from "../scripts/junit.ts";
import { coverage, ROWS, rowsNamed, rowsShown, unknownRows } from "../scripts/parity_rows.ts";

function test(name: string, outcome: TestCase["outcome"] = "passed"): TestCase {
  return { name: `tests/a_test.ts: ${name}`, outcome, detail: "" };
}

describe("The list of parity rows", () => {
  it("has all of both tables", () => {
    assert.deepEqual([ROWS.W.length, ROWS.W[0], ROWS.W[58]], [59, "W01", "W59"]);
    assert.deepEqual([ROWS.K.length, ROWS.K[0], ROWS.K[112]], [113, "K01", "K114"]);
    assert.ok(!ROWS.K.includes("K15"));
  });

  const names: [what: string, name: string, rows: string[]][] = [
    ["one row", "W05 bytes out", ["W05"]],
    ["several rows", "Group > W16 W17, K101 bytes", ["W16", "W17", "K101"]],
    ["not from its group", "W01 group > no row of its own", []],
    ["nothing else", "XW05 W5 W0005 w05", []],
  ];
  for (const [what, name, rows] of names) {
    it(`is read from the title of a test: ${what}`, () => {
      assert.deepEqual(rowsNamed(test(name)), rows);
    });
  }

  it("has a row that passed, and neither failed nor was only skipped", () => {
    const tests = [
      test("W01"),
      test("W02"),
      test("W02 W03", "failed"),
      test("W04", "skipped"),
      test("W05"),
      test("W05", "skipped"),
    ];
    assert.deepEqual([...rowsShown(tests)], ["W01", "W05"]);
  });

  it("tells rows shown everywhere from others", () => {
    const reports = [
      { title: "a", tests: [test("W01"), test("W02")] },
      { title: "b", tests: [test("W01"), test("W02", "skipped")] },
    ];
    assert.deepEqual(coverage(["W01", "W02", "W03"], reports), {
      everywhere: ["W01"],
      somewhere: [["W02", ["b"]]],
      nowhere: ["W03"],
    });
  });

  it("says which names are no rows", () => {
    assert.deepEqual(unknownRows([test("W01 K15 W60"), test("K15")]), ["K15", "W60"]);
  });
});
