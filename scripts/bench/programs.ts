/** Runs the programs of tests/ws/programs/ on `ws` and on `sluice/ws`, and compares the processor time. */
import { parseArgs } from "node:util";
import { knownNames, positiveNumber, readArguments, wholeNumber } from "../arguments.ts";
import { mustRun, ROOT } from "../process.ts";
import { findRuntimeByName } from "./options.ts";
import { median } from "./statistics.ts";

const USAGE = `deno task bench programs [NAME...] [--rounds N] [--load N]

Runs real programs on ws and on sluice/ws on Node, and prints their messages per CPU second.`;

const FOLDER = new URL("tests/ws/programs/", ROOT);
const RUNNER = new URL("tests/ws/run_program.ts", ROOT).pathname;
const IMPLEMENTATIONS = ["ws", "sluice"] as const;

/** Runs the programs in turns, so that anything that slows the machine down affects both. */
export async function programs(args: string[]): Promise<void> {
  const { names, rounds, load } = await readArguments(USAGE, () => planFrom(args));
  const node = await findRuntimeByName("node24");
  console.log(
    `Messages per CPU second, median of ${rounds} rounds, Node ${node.version}: ws, sluice, ratio`,
  );
  for (const name of names) {
    const rates = { ws: [] as number[], sluice: [] as number[] };
    for (let round = 0; round < rounds; round++) {
      for (const implementation of IMPLEMENTATIONS) {
        const args = ["--disable-warning=DEP0060", RUNNER, name, implementation, `${load}`];
        const output = await mustRun(node.path, args);
        const { messages, seconds } = JSON.parse(output.trim().split("\n").at(-1)!);
        rates[implementation].push(messages / seconds);
      }
    }
    const [ws, sluice] = IMPLEMENTATIONS.map((implementation) => median(rates[implementation]));
    const columns = [ws, sluice].map((rate) => Math.round(rate).toLocaleString("en").padStart(10));
    console.log(`${name.padEnd(12)}${columns.join("")}${(sluice / ws).toFixed(2).padStart(8)}`);
  }
}

interface Plan {
  names: readonly string[];
  rounds: number;
  load: number;
}

async function planFrom(args: string[]): Promise<Plan> {
  const { values, positionals } = parseArgs({
    args,
    allowPositionals: true,
    options: {
      rounds: { type: "string", default: "5" },
      load: { type: "string", default: "10" },
    },
  });
  return {
    names: knownNames("program", positionals, await allNames()),
    rounds: wholeNumber("--rounds", values.rounds, 1)!,
    load: positiveNumber("--load", values.load)!,
  };
}

async function allNames(): Promise<string[]> {
  const names: string[] = [];
  for await (const { name } of Deno.readDir(FOLDER)) {
    if (name !== "program.ts") names.push(name.replace(".ts", ""));
  }
  return names.sort();
}
