/** Renders the results as Markdown tables. */
import type { Size } from "./bundle.ts";
import { find, type Measurement, medianOf, ratioOf, type Results } from "./results.ts";
import { median } from "./statistics.ts";
import { type Outcome, outcomesOf } from "./targets.ts";
import { type TopicsResults, topicsSection } from "./topics_tables.ts";
import { nameOf } from "./workload.ts";

const SIZES = [16, 1024, 65536, 2 ** 20];

const LABELS: Record<string, string> = {
  loop: "sluice, direct",
  topics: "sluice, topics",
  pipe: "sluice, `pipeTo`",
  streams: "sluice, reader and writer",
  chain: "sluice, transforms by hand",
  batch: "sluice, the same in batches",
  native: "native",
  bufferutil: "ws with bufferutil",
  tcp: "raw TCP",
  python: "python3-websockets",
};

/** The usual name of a runtime. */
export function titleOf({ runtime, versions }: Results): string {
  const name = runtime.replace(/\d+$/, "");
  const [major, minor] = versions[runtime].split(".");
  return `${name[0].toUpperCase()}${name.slice(1)} ${
    name === "node" ? major : `${major}.${minor}`
  }`;
}

function label(peer: string, { runtime }: Results): string {
  if (peer === "ws" && runtime === "bun") return "ws (Bun's own substitute)";
  return LABELS[peer] ?? peer;
}

/** What other sections of the document are made with. */
export interface TableTools {
  table(rows: string[][]): string;
  count(value: number | undefined): string;
}

function table(rows: string[][]): string {
  const [head, ...body] = rows;
  const rule = head.map((_, i) => i === 0 ? "---" : "--:");
  return [head, rule, ...body].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

function count(value: number | undefined): string {
  if (value === undefined) return "";
  if (value < 100) return value.toFixed(1);
  return Number(value.toPrecision(3)).toLocaleString("en-US");
}

function times(value: number | undefined): string {
  return value === undefined ? "" : value.toFixed(2);
}

/** The echo rates on each runtime: ours next to the fastest of the others. */
export function readmeTable(all: Results[]): string {
  const rows = [["", ...SIZES.map(nameOf)]];
  for (const results of all) {
    const baseline = find(results, { kind: "echo" })?.peers.native ? "native" : "ws";
    for (const peer of ["loop", "pipe"]) {
      rows.push([
        `${titleOf(results)}, ${LABELS[peer].slice("sluice, ".length)}`,
        ...SIZES.map((size) => {
          const measurement = find(results, { kind: "echo", size });
          const ratio = times(ratioOf(measurement, peer, baseline));
          return `${count(medianOf(measurement, peer))} (${ratio})`;
        }),
      ]);
    }
    rows.push([
      `${titleOf(results)}, ${baseline === "ws" ? "ws" : "its own server"}`,
      ...SIZES.map((size) => count(medianOf(find(results, { kind: "echo", size }), baseline))),
    ]);
  }
  const outcomes = outcomesOf(all);
  const missed = outcomes.filter(({ verdict }) => verdict === "missed").length;
  const reached = outcomes.filter(({ verdict }) => verdict === "reached").length;
  return `![Echo servers beside a raw TCP echo](bench/results/echo.svg)

${table(rows)}

Of ${outcomes.length} goals, ${reached} are reached, ${
    outcomes.length - reached - missed
  } reach the minimum but not the aim, and ${missed} are missed.
[bench/RESULTS.md](bench/RESULTS.md) has all of them, with clients, latency, memory, compression and bundle sizes.`;
}

/** The complete document of the results. */
export function resultsDocument(
  all: Results[],
  sizes: Record<string, Size>,
  topics: TopicsResults | undefined,
): string {
  return `# Results

\`deno task bench render\` makes this file from bench/results/. [NOTES.md](NOTES.md) describes the method.

## Goals

Each ratio is the median of the ratios of neighbouring turns. A goal is *reached* if the result reaches
the aim, *landed* if it reaches only the required value, and **missed** otherwise.

${goals(outcomesOf(all))}

${all.map(runtimeSection).join("\n\n")}

${topics === undefined ? "" : topicsSection(topics, { table, count })}

## Bundle size

Sizes in bytes, bundled by esbuild as modules, including modules that are loaded on demand.

${table([["", "minified", "minified and gzipped"], ...Object.entries(sizes).map(weight)])}
`;
}

function weight([name, { minified, gzipped }]: [string, Size]): string[] {
  return [name, ...[minified, gzipped].map((bytes) => bytes.toLocaleString("en-US"))];
}

function goals(outcomes: Outcome[]): string {
  const rows = outcomes.map(({ runtime, title, unit, land, aim, measured, verdict }) => {
    const said = verdict === "missed" ? "**missed**" : verdict;
    const figure = unit === "KiB" ? measured.toFixed(1) : times(measured);
    return [`${runtime}, ${title}`, unit, String(land), String(aim), figure, said];
  });
  return table([["goal", "unit", "required", "aim", "measured", "result"], ...rows]);
}

function runtimeSection(results: Results): string {
  const { versions, machine, date, rounds, seconds, separateCores } = results;
  const list = (of: Record<string, string | number>) =>
    Object.entries(of).map(([name, value]) => `${name} ${value}`).join(", ");
  return `## ${titleOf(results)}

${date}. ${list(versions)}. ${list(machine)}; ${
    separateCores
      ? "the measured process has its own core, the other end uses the others"
      : "no separate cores"
  }. ${rounds} rounds of ${seconds} s of CPU time: median (minimum to maximum).

${results.measurements.map((measurement) => measurementTable(measurement, results)).join("\n\n")}`;
}

function measurementTable(measurement: Measurement, results: Results): string {
  const { figure, peers } = measurement;
  const rows = Object.entries(peers).map(([peer, values]) => {
    const [least, most] = [Math.min(...values), Math.max(...values)];
    const range = values.length > 1 ? ` (${count(least)} to ${count(most)})` : "";
    return [label(peer, results), `${count(median(values))}${range}`];
  });
  return `### ${headingOf(measurement)}\n\n${table([["", figure], ...rows])}`;
}

function headingOf({ kind, type, size, connections, inFlight, figure }: Measurement): string {
  const message = size === undefined ? "" : `${nameOf(size)}, ${type}`;
  const spread = `${connections} connections, ${inFlight} in flight`;
  const titles: Record<Measurement["kind"], string> = {
    echo: `Echo: ${message}, ${spread}`,
    deflate: `Compressed echo: ${message}, ${spread}`,
    client: `Clients: ${message}, ${spread}`,
    latency: `One in flight on one connection: ${message}, ${figure}`,
    open: "Opening handshakes of a server",
    fanout: `One message to ${connections} connections: ${message}, ${inFlight} in a burst`,
    idle: `${connections} idle connections: ${figure} per connection`,
  };
  return titles[kind];
}
