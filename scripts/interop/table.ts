/** The interop matrix as a table: for the terminal, and for the documentation. */
import { type Case, CASES } from "../../tests/interop/matrix.ts";
import type { Told } from "./told.ts";

const ROLES = ["server", "client"] as const;

/** A cell of the table. */
interface Entry {
  passed: number;
  failed: number;
  /** Numbers of the notes that say what the peer cannot do. */
  notes: number[];
}

interface Line {
  peer: string;
  as: string;
  entries: (Entry | undefined)[];
}

/** The matrix, over all runtimes. */
export interface Table {
  cases: readonly Case[];
  lines: Line[];
  notes: string[];
  versions: Map<string, string>;
}

/** Counts the results. A note is numbered where it first appears. */
export function tableOf(all: readonly Told[]): Table {
  const versions = new Map<string, string>();
  const entries = new Map<string, Entry>();
  const key = (peer: string, as: string, name: string) => `${peer} ${as} ${name}`;
  const notes: string[] = [];
  for (const told of all) {
    if (told.event === "version") versions.set(told.peer, told.version);
    if (told.event !== "cell" && told.event !== "lack") continue;
    const place = key(told.peer, told.as, told.case);
    if (!entries.has(place)) entries.set(place, { passed: 0, failed: 0, notes: [] });
    const entry = entries.get(place)!;
    if (told.event === "cell") entry[told.problem === undefined ? "passed" : "failed"]++;
    else {
      const note = `${told.peer}: ${told.why}`;
      if (!notes.includes(note)) notes.push(note);
      const number = notes.indexOf(note) + 1;
      if (!entry.notes.includes(number)) entry.notes.push(number);
    }
  }
  const cases = CASES.filter((name) =>
    [...entries.keys()].some((place) => place.endsWith(` ${name}`))
  );
  const lines = [...versions.keys()].flatMap((peer) =>
    ROLES.map((as): Line => ({
      peer,
      as,
      entries: cases.map((name) => entries.get(key(peer, as, name))),
    }))
  );
  return { cases, lines, notes, versions };
}

function text({ passed, failed }: Entry): string {
  if (passed + failed === 0) return "–";
  return failed === 0 ? `${passed}` : `${failed} of ${passed + failed} failed`;
}

/** The table for the terminal. */
export function toText({ cases, lines, notes }: Table): string {
  const rows = [
    ["peer", ...cases],
    ...lines.map(({ peer, as, entries }) => [
      `${peer} as ${as}`,
      ...entries.map((entry) =>
        entry === undefined ? "" : text(entry) + entry.notes.map((note) => ` [${note}]`).join("")
      ),
    ]),
  ];
  const widths = rows[0].map((_, column) => Math.max(...rows.map((row) => row[column].length)));
  const padded = rows.map((row) =>
    row.map((cell, i) => cell.padEnd(widths[i])).join("  ").trimEnd()
  );
  return [...padded, "", ...notes.map((note, i) => `[${i + 1}] ${note}`)].join("\n");
}

/** The table in Markdown. A peer that does not play a role has no line. */
export function toMarkdown({ cases, lines, notes, versions }: Table): string {
  const row = (cells: readonly string[]) => `| ${cells.join(" | ")} |`;
  const cell = (entry: Entry | undefined) =>
    entry === undefined
      ? ""
      : `${text(entry)}${entry.notes.length > 0 ? `<sup>${entry.notes.join(", ")}</sup>` : ""}`;
  return [
    row(["peer", "its role", ...cases]),
    row(["---", "---", ...cases.map(() => "---:")]),
    ...lines.map(({ peer, as, entries }) => row([peer, as, ...entries.map(cell)])),
    "",
    ...notes.map((note, i) => `${i + 1}. ${note}`),
    "",
    row(["peer", "version"]),
    row(["---", "---"]),
    ...[...versions].map((names) => row(names)),
  ].join("\n");
}
