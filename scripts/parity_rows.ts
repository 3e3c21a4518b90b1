/**
 * The rows of the two parity tables, W of wsproto and K of websockets, and which of them the tests of
 * a run have shown. A test shows the rows that its own title names: "W16 W17 bytes in and out".
 */
import type { TestCase } from "./junit.ts";

/** The letters of the tables. */
export const TABLES = ["W", "K"] as const;
export type Table = (typeof TABLES)[number];

/** All rows; there is no K15. */
export const ROWS: Readonly<Record<Table, readonly string[]>> = {
  W: numbered("W", 59),
  K: numbered("K", 114).filter((row) => row !== "K15"),
};

/** The result of a run for the rows of a table. */
export interface Coverage {
  /** Rows that every report shows. */
  everywhere: string[];
  /** Rows that some reports show, with the titles of the other reports. */
  somewhere: [row: string, missingIn: string[]][];
  /** Rows that no report shows. */
  nowhere: string[];
}

function numbered(table: Table, count: number): string[] {
  return Array.from({ length: count }, (_, i) => `${table}${String(i + 1).padStart(2, "0")}`);
}

/** The rows that the title of a test names. The titles of its groups do not count. */
export function rowsNamed({ name }: Pick<TestCase, "name">): string[] {
  const title = name.split(" > ").pop()!;
  return title.match(/\b[WK]\d{2,3}\b/g) ?? [];
}

/** The rows that passed tests name and that no failed test names. */
export function rowsShown(tests: readonly TestCase[]): Set<string> {
  const named = (wanted: TestCase["outcome"]) =>
    tests.filter(({ outcome }) => outcome === wanted).flatMap(rowsNamed);
  const failed = new Set(named("failed"));
  return new Set(named("passed").filter((row) => !failed.has(row)));
}

/** The names in titles that are in no table. */
export function unknownRows(tests: readonly TestCase[]): string[] {
  const known = new Set(Object.values(ROWS).flat());
  return [...new Set(tests.flatMap(rowsNamed).filter((row) => !known.has(row)))].sort();
}

/** Finds out which rows of a table the reports show. */
export function coverage(
  rows: readonly string[],
  reports: readonly { title: string; tests: readonly TestCase[] }[],
): Coverage {
  const result: Coverage = { everywhere: [], somewhere: [], nowhere: [] };
  const shown = reports.map(({ title, tests }) => ({ title, rows: rowsShown(tests) }));
  for (const row of rows) {
    const without = shown.filter(({ rows }) => !rows.has(row)).map(({ title }) => title);
    if (without.length === shown.length) result.nowhere.push(row);
    else if (without.length > 0) result.somewhere.push([row, without]);
    else result.everywhere.push(row);
  }
  return result;
}
