/** Renders the results as Markdown tables. */
import type { Size } from "./bundle.ts";
import { count, spread, table, times } from "./markdown.ts";
import {
  find,
  isSame,
  isSameButLoad,
  type Measurement,
  publishedRatio,
  type Results,
  type TopicsResults,
} from "./results.ts";
import { figureOf } from "./statistics.ts";
import { ECHOES } from "./suite.ts";
import { type Outcome, outcomesOf } from "./targets.ts";
import { topicsSection } from "./topics_tables.ts";
import { type Kind, nameOf, shapeOf, unitOf } from "./workload.ts";

const LABELS: Record<string, string> = {
  loop: "sluice, direct",
  topics: "sluice, topics",
  pipe: "sluice, `pipeTo`",
  batches: "sluice, batches",
  http2: "sluice over HTTP/2",
  streams: "sluice, reader and writer",
  native: "native",
  bufferutil: "ws with bufferutil",
  tcp: "raw TCP",
};

/** The number of runs that a published figure needs. */
const ENOUGH = 3;

/** The usual name of a runtime. */
export function runtimeOf({ runtime, versions }: Results): string {
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

/** The peer that the README compares an echo with. */
function otherOf({ runtime }: Results): string {
  return runtime.startsWith("node") ? "bufferutil" : "native";
}

/** The ratios of the echo on each runtime. */
export function readmeTable(all: Results[]): string {
  const rows = [["", ...ECHOES.map(({ size }) => nameOf(size))]];
  for (const results of all) {
    for (const peer of ["loop", "pipe"]) {
      const title = `${runtimeOf(results)}, ${LABELS[peer].slice("sluice, ".length)}`;
      const cells = ECHOES.map((workload) =>
        spread(publishedRatio(find(results, workload), peer, otherOf(results)), times)
      );
      rows.push([title, ...cells]);
    }
  }
  const outcomes = outcomesOf(all);
  const amount = (verdict: Outcome["verdict"]) =>
    outcomes.filter((outcome) => outcome.verdict === verdict).length;
  return `![Echo servers beside a raw TCP echo](bench/results/echo.svg)

${table(rows)}

${provenance(all)} Of ${outcomes.length} goals, ${amount("reached")} are reached, ${
    amount("landed")
  } reach the minimum but not the aim, and ${amount("missed")} are missed.
[bench/RESULTS.md](bench/RESULTS.md) has all of them, with clients, latency, memory, compression and bundle sizes.`;
}

/** When the figures were measured, and whether that was often enough. */
function provenance(all: Results[]): string {
  const dates = [...new Set(all.map(({ date }) => date))].sort();
  const fewest = Math.min(
    ...all.flatMap(({ measurements }) => measurements.map(({ runs }) => runs.length)),
  );
  const caution = fewest < ENOUGH ? " Some of the figures are from fewer than three runs." : "";
  return `Measured on ${dates.join(" and ")}.${caution}`;
}

/** The complete document of the results. */
export function resultsDocument(
  all: Results[],
  sizes: Record<string, Size>,
  topics: TopicsResults | undefined,
): string {
  return `# Results

\`deno task bench render\` makes this file from bench/results/. [NOTES.md](NOTES.md) describes the method.
Each figure is the median of several runs, each with new processes. The lowest and the highest run are in brackets.

## Goals

A ratio is measured within a run, between neighbouring turns. If there are two loads, the lower ratio counts.
A goal is *reached* if the result reaches the aim, *landed* if it reaches only the required value, and
**missed** otherwise.

${goals(outcomesOf(all))}

## How the cost grows

![CPU time of a message by its size](results/sizes.svg)

![CPU time of a message by the number of connections](results/connections.svg)

${all.map(runtimeSection).join("\n\n")}

${topics === undefined ? "" : topicsSection(topics)}

## Bundle size

Sizes in bytes, bundled by esbuild as modules, including modules that are loaded on demand.

${table([["", "minified", "minified and gzipped"], ...Object.entries(sizes).map(weight)])}
`;
}

function weight([name, { minified, gzipped }]: [string, Size]): string[] {
  return [name, ...[minified, gzipped].map((bytes) => bytes.toLocaleString("en-US"))];
}

function goals(outcomes: Outcome[]): string {
  const rows = outcomes.map(({ runtime, title, unit, least, aim, measured, verdict }) => {
    const said = verdict === "missed" ? "**missed**" : verdict;
    const figure = spread(measured, times);
    return [`${runtime}, ${title}`, unit, String(least), String(aim), figure, said];
  });
  return table([["goal", "unit", "required", "aim", "measured", "result"], ...rows]);
}

function runtimeSection(results: Results): string {
  const { versions, machine, date, seconds, separateCores, measurements } = results;
  const list = (of: Record<string, string | number>) =>
    Object.entries(of).map(([name, value]) => `${name} ${value}`).join(", ");
  const works = measurements.filter(({ workload }, i) =>
    measurements.findIndex((other) => isSameButLoad(other.workload, workload)) === i
  );
  return `## ${runtimeOf(results)}

${date}. ${list(versions)}. ${list(machine)}; ${
    separateCores
      ? "the measured process has its own core, the other end uses the others"
      : "no separate cores"
  }. A round takes ${seconds} s of CPU time.

${works.map(({ workload }) => workTable(find(results, workload), results)).join("\n\n")}`;
}

/** A table with a row for each peer, and columns for each load and figure. */
function workTable(measurements: Measurement[], results: Results): string {
  const [{ runs: [first] }] = measurements;
  const peers = Object.keys(first);
  const last = peers.at(-1)!;
  const figures = Object.keys(first[last]);
  const heads = measurements.flatMap(({ workload }) =>
    figures.map((figure) => {
      const load = measurements.length > 1 ? `, ${workload.load}` : "";
      return `${unitOf(workload, figure)}${load}`;
    })
  );
  // The ratio is that of the openings.
  const hasRatio = figures.filter((figure) => figure !== "end").length === 1 && peers.length > 1;
  const rows = peers.map((peer) => [
    label(peer, results),
    ...measurements.flatMap(({ runs }) =>
      figures.map((figure) => spread(figureOf(runs, peer, figure), count))
    ),
    ...hasRatio ? [spread(publishedRatio(measurements, peer, last), times)] : [],
  ]);
  const title = hasRatio ? [`to ${label(last, results)}`] : [];
  const amount = measurements[0].runs.length;
  const runs = amount === 1 ? "1 run" : `${amount} runs`;
  const rounds = first[last][figures[0]].length;
  const made = rounds === 1 ? runs : `${runs} of ${rounds} rounds`;
  return `### ${headingOf(measurements[0])}\n\n${table([[made, ...heads, ...title], ...rows])}`;
}

function headingOf({ workload, runs: [first] }: Measurement): string {
  const { kind, type, size, tls, fragments, level, takeover } = workload;
  const { connections, inFlight } = shapeOf(workload);
  const message = `${nameOf(size)}, ${type}${fragments ? ` in ${fragments} fragments` : ""}`;
  const all = `${message}, ${
    connections.toLocaleString("en-US")
  } connections, ${inFlight} in flight`;
  const over = "http2" in first ? " over HTTP/2 and HTTP/1.1" : tls ? " over TLS" : "";
  const titles: Record<Kind, string> = {
    echo: type === "ping" ? `Pings of a client: ${all}` : `Echo${over}: ${all}`,
    deflate: `Compressed echo, level ${level}, ${takeover ? "with" : "without"} takeover: ${all}`,
    client: `Clients: ${all}`,
    latency: `One in flight on one connection: ${message}`,
    paced: `Latency at half of the rate of the last peer: ${all}`,
    open: "Opening handshakes of a server",
    fanout: `Fan-out: ${all}`,
    keepalive: `Pings of a server to ${connections.toLocaleString("en-US")} connections`,
    huge: `Messages of ${nameOf(size)} to a server`,
    memory: `Memory of a connection: ${connections.toLocaleString("en-US")} connections`,
  };
  return titles[kind];
}

/** The CPU time of a message with this load, in µs; undefined if it was not measured. */
export function microsecondsOf(
  { measurements }: Results,
  workload: Measurement["workload"],
  peer: string,
): number | undefined {
  const measurement = measurements.find((one) => isSame(one.workload, workload));
  const figure = measurement && figureOf(measurement.runs, peer);
  return figure && 1e6 / figure.median;
}
