/** The list of faults that no test can find, with the reasons: `tests/mutants.json`. */
import { ROOT } from "../process.ts";
import type { Mutant } from "./mutants.ts";

/** Some faults of one function that have the same reason. */
interface Entry {
  in: string;
  changes: string[];
  why: string;
}

/** The explained faults. A fault is found by its file, its function and its code, not by its line. */
export class Explanations {
  readonly #keys: ReadonlyMap<string, string>;

  constructor(entries: Record<string, Entry[]>) {
    this.#keys = new Map(
      Object.entries(entries).flatMap(([file, list]) =>
        list.flatMap(({ in: where, changes, why }) =>
          changes.map((change): [string, string] => [keyOf({ file, where, change }), why])
        )
      ),
    );
  }

  static async read(): Promise<Explanations> {
    return new Explanations(
      JSON.parse(await Deno.readTextFile(new URL("tests/mutants.json", ROOT))),
    );
  }

  has(mutant: Mutant): boolean {
    return this.#keys.has(keyOf(mutant));
  }

  /** The explanations for the files that none of the survivors needs. */
  stale(files: readonly string[], survivors: readonly Mutant[]): string[] {
    const needed = new Set(survivors.map(keyOf));
    return [...this.#keys.keys()].filter((key) =>
      !needed.has(key) && files.some((file) => key.startsWith(`${file} `))
    );
  }
}

function keyOf({ file, where, change }: Pick<Mutant, "file" | "where" | "change">): string {
  return `${file} (${where}): ${change}`;
}
