/** The bar chart of the README: an SVG without a background, of colours that light and dark pages bear. */
import { find, medianOf, ratioOf, type Results } from "./results.ts";
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

const TEXT = "#7d8590";
const WIDTH = 880;
const PANEL = { width: 440, left: 70, bar: 320 };
const BAR = 11;
const GAP = 10;
const TOP = 70;

/** Of all runtimes: messages per CPU second as a share of what a raw TCP echo reaches. */
export function chart(all: Results[], titleOf: (results: Results) => string): string {
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
  const height = TOP + 2 * panelHeight;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" ` +
    `font-family="system-ui, sans-serif" role="img">`,
    "<title>Messages per second of CPU time, beside a raw TCP echo</title>",
    ...legend(),
    ...parts,
    text(
      WIDTH / 2,
      height - 12,
      "Number: messages per CPU second. Length: their share of what a raw TCP echo reaches, the dotted line.",
      "middle",
      11,
    ),
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
  const width = Math.round(share * scale);
  return `<rect x="${x}" y="${y}" width="${width}" height="${BAR - 2}" fill="${color}"/>` +
    text(x + width + 5, y + BAR - 3, short(value), "start", 9.5);
}

function legend(): string[] {
  let x = 10;
  return SERIES.flatMap(({ label, color }) => {
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

/** 1.03M, 691k, 14.3k, 812. */
function short(value: number): string {
  if (value >= 1e6) return `${(value / 1e6).toPrecision(3)}M`;
  return value >= 1000 ? `${Number((value / 1000).toPrecision(3))}k` : String(Math.round(value));
}
