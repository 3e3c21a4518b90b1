/** Draws bar charts of the results: SVGs without a background, readable on light and on dark pages. */
import { find, medianOf, type Query, ratioOf, type Results } from "./results.ts";
import { nameOf } from "./workload.ts";

const SIZES = [16, 1024, 65536, 2 ** 20];

interface Series {
  peer: string;
  label: string;
  color: string;
}

const SERIES: Series[] = [
  { peer: "loop", label: "sluice, for await and send()", color: "#2f81f7" },
  { peer: "pipe", label: "sluice, readable.pipeTo(writable)", color: "#85b8f5" },
  { peer: "native", label: "the runtime's own server", color: "#d29922" },
  { peer: "bufferutil", label: "ws with bufferutil", color: "#8b949e" },
  { peer: "ws", label: "ws (on Bun, its own)", color: "#b8bfc7" },
];

const RAW_TCP: Series = { peer: "tcp", label: "raw TCP", color: "#3fb950" };

const TEXT = "#7d8590";
const WIDTH = 880;
const PANEL = { width: 440, left: 70, bar: 320 };
const BAR = 11;
const GAP = 10;
const TOP = 70;

/** Draws the speed on all runtimes: messages per CPU second as a share of the rate of a raw TCP echo. */
export function speedChart(all: Results[], titleOf: (results: Results) => string): string {
  const groups = all.map((results) => ({
    title: titleOf(results),
    results,
    series: SERIES.filter(({ peer }) => find(results, { kind: "echo" })?.peers[peer]),
  }));
  const scale = PANEL.bar /
    Math.max(
      1,
      ...SIZES.flatMap((size) =>
        groups.flatMap(({ results, series }) =>
          series.map(({ peer }) => shareOf(results, size, peer) ?? 0)
        )
      ),
    );
  const heights = groups.map(({ series }) => series.length * BAR + GAP);
  const panelHeight = heights.reduce((sum, height) => sum + height, 0) + 40;
  const parts: string[] = [];
  SIZES.forEach((size, i) => {
    const x = (i % 2) * PANEL.width;
    let y = TOP + Math.floor(i / 2) * panelHeight;
    parts.push(text(x + PANEL.left, y - 8, `Echo of ${nameOf(size)}`, "start", 13, true));
    const limit = x + PANEL.left + Math.round(scale);
    parts.push(
      `<path d="M${limit} ${y - 4}V${
        y + panelHeight - 40
      }" stroke="${TEXT}" stroke-dasharray="2 3"/>`,
    );
    groups.forEach(({ title, results, series }, group) => {
      const middle = y + series.length * BAR / 2 + 4;
      parts.push(text(x + PANEL.left - 8, middle, title, "end", 11));
      series.forEach((one, bar) =>
        parts.push(barOf(results, size, one, scale, x + PANEL.left, y + bar * BAR))
      );
      y += heights[group];
    });
  });
  return svg({
    title: "Messages per second of CPU time, beside a raw TCP echo",
    note:
      "Number: messages per CPU second. Length: their share of what a raw TCP echo reaches, the dotted line.",
    height: TOP + 2 * panelHeight,
    series: SERIES,
    parts,
  });
}

/** One half of a chart: one figure for all runtimes. */
interface Panel {
  title: string;
  query: Query;
}

/** Draws the memory of idle connections on all runtimes. */
export function memoryChart(all: Results[], titleOf: (results: Results) => string): string {
  return panelChart(all, titleOf, {
    title: "Memory of an idle connection",
    note: "KiB for each of 5,000 idle connections. Shorter is better.",
    panels: [
      { title: "Resident memory", query: { kind: "idle", figure: "resident" } },
      { title: "The engine's heap", query: { kind: "idle", figure: "heap" } },
    ],
  });
}

/** Draws the round-trip time of a message to an echo server, on all runtimes. */
export function latencyChart(all: Results[], titleOf: (results: Results) => string): string {
  return panelChart(all, titleOf, {
    title: "Latency of an echo",
    note: "Microseconds for 16 B there and back, one message in flight. Shorter is better.",
    panels: [
      { title: "Median", query: { kind: "latency", figure: "p50" } },
      { title: "99th percentile", query: { kind: "latency", figure: "p99" } },
    ],
  });
}

/** Draws two figures for all runtimes side by side, each with a separate scale. */
function panelChart(
  all: Results[],
  titleOf: (results: Results) => string,
  { title, note, panels }: { title: string; note: string; panels: Panel[] },
): string {
  const parts: string[] = [];
  let height = 0;
  const shown = new Set<Series>();
  panels.forEach((panel, i) => {
    const x = i * PANEL.width + PANEL.left;
    let y = TOP;
    const groups = all.map((results) => {
      const measurement = find(results, panel.query);
      const bars = [...SERIES, RAW_TCP].flatMap((series) => {
        const value = medianOf(measurement, series.peer);
        return value === undefined ? [] : [{ series, value }];
      });
      return { title: titleOf(results), bars };
    });
    const most = Math.max(...groups.flatMap(({ bars }) => bars.map(({ value }) => value)));
    parts.push(text(x, y - 8, panel.title, "start", 13, true));
    for (const { title, bars } of groups) {
      parts.push(text(x - 8, y + bars.length * BAR / 2 + 4, title, "end", 11));
      for (const { series, value } of bars) {
        shown.add(series);
        parts.push(bar(x, y, PANEL.bar * value / most, series.color, value.toPrecision(3)));
        y += BAR;
      }
      y += GAP;
    }
    height = Math.max(height, y);
  });
  const series = [...SERIES, RAW_TCP].filter((one) => shown.has(one));
  return svg({ title, note, height: height + 40, series, parts });
}

interface Drawing {
  title: string;
  note: string;
  height: number;
  series: readonly Series[];
  parts: string[];
}

function svg({ title, note, height, series, parts }: Drawing): string {
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" ` +
    `font-family="system-ui, sans-serif" role="img">`,
    `<title>${title}</title>`,
    ...legend(series),
    ...parts,
    text(WIDTH / 2, height - 12, note, "middle", 11),
    "</svg>\n",
  ].filter((line) => line !== "").join("\n");
}

function shareOf(results: Results, size: number, peer: string): number | undefined {
  return ratioOf(find(results, { kind: "echo", size }), peer, "tcp");
}

function barOf(
  results: Results,
  size: number,
  { peer, color }: Series,
  scale: number,
  x: number,
  y: number,
): string {
  const value = medianOf(find(results, { kind: "echo", size }), peer);
  const share = shareOf(results, size, peer);
  if (value === undefined || share === undefined) return "";
  return bar(x, y, share * scale, color, short(value));
}

function bar(x: number, y: number, length: number, color: string, label: string): string {
  const width = Math.round(length);
  return `<rect x="${x}" y="${y}" width="${width}" height="${BAR - 2}" fill="${color}"/>` +
    text(x + width + 5, y + BAR - 3, label, "start", 9.5);
}

function legend(series: readonly Series[]): string[] {
  let x = 10;
  return series.flatMap(({ label, color }) => {
    const at = x;
    x += 26 + label.length * 6;
    return [
      `<rect x="${at}" y="14" width="10" height="10" fill="${color}"/>`,
      text(at + 15, 23, label, "start", 11),
    ];
  });
}

function text(
  x: number,
  y: number,
  content: string,
  anchor: "start" | "middle" | "end",
  size: number,
  bold = false,
): string {
  const weight = bold ? ` font-weight="600"` : "";
  return `<text x="${x}" y="${y}" text-anchor="${anchor}" font-size="${size}"${weight} ` +
    `fill="${TEXT}">${content.replaceAll("&", "&amp;")}</text>`;
}

/** Formats a number in a short form: 1.03M, 691k, 14.3k, 812. */
function short(value: number): string {
  if (value >= 1e6) return `${(value / 1e6).toPrecision(3)}M`;
  return value >= 1000 ? `${Number((value / 1000).toPrecision(3))}k` : String(Math.round(value));
}
