/**
 * Runs the interop matrix: `deno task interop [--peer ws,undici] [--case large] [--runtime deno,bun,node24]
 * [--write]`. Real peers are clients of our server and servers of our client. `--write` writes the table
 * to `docs/reference/interop.md`; it needs all peers and all cases.
 */
import { parseArgs } from "node:util";
import { CASES } from "../tests/interop/matrix.ts";
import { type Peer, PEERS } from "../tests/interop/peers.ts";
import {
  knownNames,
  readArguments,
  RUNTIME_NAMES,
  UsageError,
  withoutSeparator,
} from "./arguments.ts";
import { tableOf, toMarkdown, toText } from "./interop/table.ts";
import type { Told } from "./interop/told.ts";
import { ROOT, run } from "./process.ts";
import { findRuntimes, type Runtime, runtimeVariables, SUITE_RUNTIMES } from "./runtimes.ts";

const USAGE =
  "deno task interop [--peer ws,undici] [--case large] [--runtime deno,bun,node24] [--write]";
const RUNTIMES = "deno,bun,node24";
const PAGE = new URL("docs/reference/interop.md", ROOT);
/** Maximum time in milliseconds without a result. */
const PATIENCE = 5 * 60_000;
const NAMES = Object.values<Peer>(PEERS).filter(({ agent }) => agent).map(({ name }) => name);

interface Plan {
  peers: readonly string[];
  /** Whether peers were named. A missing peer is then a failure. */
  named: boolean;
  cases: readonly string[];
  runtimes: readonly string[];
  write: boolean;
}

function planFrom(args: readonly string[]): Plan {
  const { values } = parseArgs({
    args: withoutSeparator(args),
    options: {
      peer: { type: "string" },
      case: { type: "string" },
      runtime: { type: "string", default: RUNTIMES },
      write: { type: "boolean", default: false },
    },
  });
  const { peer, case: name, runtime, write } = values;
  if (write && (peer !== undefined || name !== undefined || runtime !== RUNTIMES)) {
    throw new UsageError("--write needs all peers, cases and runtimes");
  }
  return {
    peers: knownNames("peer", peer?.split(",") ?? [], NAMES),
    named: peer !== undefined,
    cases: knownNames("case", name?.split(",") ?? [], CASES),
    runtimes: knownNames("runtime", runtime.split(","), RUNTIME_NAMES),
    write,
  };
}

async function runOn(runtime: Runtime, { peers, cases }: Plan): Promise<Told[]> {
  const all: Told[] = [];
  let rest = "";
  const take = (text: string) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop()!;
    for (const line of lines) {
      if (!line.startsWith('{"event":')) {
        console.log(line);
        continue;
      }
      all.push(JSON.parse(line));
      print(runtime.name, all);
    }
  };
  const flags = runtime.engine === "deno" ? ["run", "-A", "--no-check"] : [];
  const program = new URL("scripts/interop/run.ts", ROOT).pathname;
  const { code, timedOut } = await run(
    runtime.path,
    [...flags, program, peers.join(), cases.join()],
    { patience: PATIENCE, env: { NO_COLOR: "1", ...await runtimeVariables() }, onOutput: take },
  );
  if (code === 0 && !timedOut) return all;
  const why = timedOut ? `no result within ${PATIENCE / 1000} s` : `exit code ${code}`;
  throw new Error(`${runtime.name}: ${why}\n${rest}`);
}

/** Prints the last event, if it is worth a line. */
function print(runtime: string, all: readonly Told[]): void {
  const told = all.at(-1)!;
  if (told.event === "cell" && told.problem !== undefined) {
    console.log(`\n✗ ${runtime}: ${told.title}\n${told.problem.replace(/^/gm, "    ")}\n`);
  } else if (told.event === "missing") {
    console.log(`peer ${told.peer} is missing: install ${told.missing}`);
  } else if (told.event === "end") {
    const own = all.filter(({ event, peer }) => event === "cell" && peer === told.peer);
    console.log(`${runtime}: ${told.peer}: ${own.length} checks in ${told.seconds.toFixed(1)} s`);
  }
}

/** Replaces the generated part of the page. */
async function write(markdown: string): Promise<void> {
  const page = await Deno.readTextFile(PAGE);
  const [start, end] = ["<!-- interop -->", "<!-- /interop -->"];
  const [before, after] = [page.split(start)[0], page.split(end)[1]];
  await Deno.writeTextFile(PAGE, `${before}${start}\n\n${markdown}\n\n${end}${after}`);
  await run(Deno.execPath(), ["fmt", "-q", PAGE.pathname]);
}

const plan = await readArguments(USAGE, () => planFrom(Deno.args));
const runtimes = await findRuntimes(
  SUITE_RUNTIMES.filter(({ name }) => plan.runtimes.includes(name)),
  true,
);
const started = performance.now();
// The runtimes run at the same time, because many checks wait for a peer.
const all = (await Promise.all(runtimes.map((runtime) => runOn(runtime, plan)))).flat();
const table = tableOf(all);
console.log(`\n${toText(table)}\n`);
const cells = all.filter((told) => told.event === "cell");
const failed = cells.filter(({ problem }) => problem !== undefined).length;
const missing = new Set(all.filter(({ event }) => event === "missing").map(({ peer }) => peer));
if (missing.size > 0) console.log(`missing peers: ${[...missing].join(", ")}`);
if (cells.length === 0) console.log("No check ran");
const took = ((performance.now() - started) / 1000).toFixed(0);
const summary = `${table.versions.size} peers, ${cells.length.toLocaleString("en-US")} checks on ${
  runtimes.map(({ name, version }) => `${name} ${version}`).join(", ")
}`;
console.log(`${summary}: ${failed} failed, ${missing.size} peers missing, ${took} s`);
const isComplete = missing.size === 0 || !(plan.named || plan.write || Deno.env.get("PEERS"));
if (failed > 0 || cells.length === 0 || !isComplete) Deno.exitCode = 1;
else if (plan.write) await write(`${summary}:\n\n${toMarkdown(table)}`);
