/** Renders the results of the fan-out of topics as Markdown tables. */
import { count, table } from "./markdown.ts";
import type { TopicsMeasurement, TopicsResults } from "./results.ts";
import { median, ratio } from "./statistics.ts";
import { nameOf } from "./workload.ts";

const LABELS: Record<string, string> = {
  topics: "topics",
  streams: "topics, Redis Streams",
  pubsub: "topics, Redis",
  tcp: "raw loop of `socket.write()`",
  ws: "loop over `send()` of ws",
  native: "Bun's `publish()`",
  "socket.io": "Socket.IO",
};

interface Goal {
  runtime: string;
  processes: number;
  burst: number;
  peer: string;
  baseline: string;
  aim: number;
}

/** For 1,000 subscribers and messages of 64 bytes. */
const GOALS: readonly Goal[] = [
  { runtime: "node24", processes: 1, burst: 1, peer: "topics", baseline: "tcp", aim: 0.9 },
  { runtime: "node24", processes: 1, burst: 10, peer: "topics", baseline: "ws", aim: 6 },
  { runtime: "bun", processes: 1, burst: 1, peer: "topics", baseline: "native", aim: 0.9 },
  { runtime: "bun", processes: 1, burst: 10, peer: "topics", baseline: "native", aim: 0.9 },
  { runtime: "node24", processes: 3, burst: 1, peer: "streams", baseline: "socket.io", aim: 3 },
  { runtime: "node24", processes: 3, burst: 10, peer: "streams", baseline: "socket.io", aim: 3 },
];

/** The section of the document. */
export function topicsSection(results: TopicsResults): string {
  const { date, versions, machine, rounds, seconds, separateCores, measurements } = results;
  const list = (of: Record<string, string | number>) =>
    Object.entries(of).map(([name, value]) => `${name} ${value}`).join(", ");
  const groups = Map.groupBy(
    measurements,
    ({ runtime, processes, size }) => `${titleOf(runtime, processes)}, ${nameOf(size)}`,
  );
  const sections = [...groups].map(([title, group]) =>
    `### Topics: ${title}\n\n${groupTable(group)}`
  );
  return `## Topics

${date}. ${list(versions)}. ${list(machine)}${
    separateCores ? "; the servers have their own core" : ""
  }. Messages delivered in a second of the servers' CPU time, the median of ${rounds} rounds of ${seconds} s.
In brackets: the ratio of our first column to this one, the median of the ratios of neighbouring turns.

${goalsTable(measurements)}

${sections.join("\n\n")}`;
}

function titleOf(runtime: string, processes: number): string {
  return processes === 1 ? `one process, ${runtime}` : `three processes over Redis, ${runtime}`;
}

function groupTable(group: TopicsMeasurement[]): string {
  const names = Object.keys(group[0].peers);
  const [first] = names;
  const rows = group.map(({ burst, subscribers, peers, engine }) => [
    `${burst} to ${subscribers.toLocaleString("en-US")}`,
    ...names.map((name) => {
      const rate = count(median(peers[name]));
      return name === first ? rate : `${rate} (${ratio(peers[first], peers[name]).toFixed(2)})`;
    }),
    ...engine === undefined ? [] : [names.map((name) => Math.round(engine[name])).join(", ")],
  ]);
  const heads = names.map((name) => LABELS[name]);
  const engine = group[0].engine === undefined ? [] : ["Redis, µs a message, in this order"];
  return table([["messages to subscribers", ...heads, ...engine], ...rows]);
}

function goalsTable(measurements: TopicsMeasurement[]): string {
  const rows = GOALS.flatMap(({ runtime, processes, burst, peer, baseline, aim }) => {
    const found = measurements.find((one) =>
      one.runtime === runtime && one.processes === processes && one.burst === burst &&
      one.subscribers === 1000 && one.size === 64
    );
    if (found === undefined) return [];
    const measured = ratio(found.peers[peer], found.peers[baseline]);
    const title = `${titleOf(runtime, processes)}, ${burst} to 1,000, 64 B`;
    const verdict = measured >= aim ? "reached" : "**missed**";
    return [[title, `ratio to ${LABELS[baseline]}`, `${aim}`, measured.toFixed(2), verdict]];
  });
  return table([["goal", "unit", "aim", "measured", "result"], ...rows]);
}
