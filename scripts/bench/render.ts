/** Renders the results: the charts, the tables of bench/RESULTS.md, and the tables of the README. */
import { ROOT, run } from "../process.ts";
import { readResults, readSizes, readTopics, type Results } from "./results.ts";
import { OTHER_RUNTIMES, RUNTIMES } from "./suite.ts";
import { readmeTable, resultsDocument } from "./tables.ts";

const README = new URL("README.md", ROOT);
const DOCUMENT = new URL("bench/RESULTS.md", ROOT);
/** The text of the README between these lines is generated. */
const MARKERS = ["<!-- bench -->", "<!-- /bench -->"] as const;

/** Writes the rendered files. */
export async function render() {
  for (const [file, text] of await rendered()) await Deno.writeTextFile(file, text);
}

/** Fails if a rendered file does not match the results. */
export async function checkRendered() {
  for (const [file, text] of await rendered()) {
    if (await Deno.readTextFile(file) === text) continue;
    console.log(`${file.pathname.slice(ROOT.pathname.length)} does not match bench/results/:`);
    console.log("`deno task bench render` renders it again");
    Deno.exitCode = 1;
  }
}

async function rendered(): Promise<[URL, string][]> {
  const found = await Promise.all([...RUNTIMES, ...OTHER_RUNTIMES].map(readResults));
  const all = found.filter((results): results is Results => results !== undefined);
  const document = resultsDocument(all, await readSizes() ?? {}, await readTopics());
  const readme = between(await Deno.readTextFile(README), readmeTable(all));
  // The library takes long to load, and the other commands do not need it.
  const { CHARTS } = await import("./chart.ts");
  const charts: [URL, string][] = [];
  for (const [name, draw] of Object.entries(CHARTS)) {
    const file = new URL(`bench/results/${name}.svg`, ROOT);
    charts.push([file, await formatted(await draw(all), ".svg")]);
  }
  return [
    ...charts,
    [DOCUMENT, await formatted(document, ".md")],
    [README, await formatted(readme, ".md")],
  ];
}

function between(text: string, content: string): string {
  const [start, end] = MARKERS.map((marker) => text.indexOf(marker));
  if (start < 0 || end < start) throw new Error(`Expected ${MARKERS.join(" and ")} in README.md`);
  return `${text.slice(0, start)}${MARKERS[0]}\n\n${content}\n\n${text.slice(end)}`;
}

/** Formats a text with `deno fmt`, which checks these files too. */
async function formatted(text: string, suffix: string): Promise<string> {
  const file = await Deno.makeTempFile({ suffix });
  try {
    await Deno.writeTextFile(file, text);
    const config = new URL("deno.json", ROOT).pathname;
    await run(Deno.execPath(), ["fmt", "-q", "--config", config, file]);
    return await Deno.readTextFile(file);
  } finally {
    await Deno.remove(file);
  }
}
