/** Draws bar charts of the results: SVGs without a background, readable on light and on dark pages. */
import { parse, View } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";
import { find, medianOf, type Query, ratioOf, type Results } from "./results.ts";
import { nameOf } from "./workload.ts";

const SIZES = [16, 1024, 65536, 2 ** 20];

/** The peers, in the order of their bars. */
const SERIES: readonly [peer: string, label: string, color: string][] = [
  ["loop", "sluice, for await and send()", "#2f81f7"],
  ["pipe", "sluice, readable.pipeTo(writable)", "#85b8f5"],
  ["native", "the runtime's own server", "#d29922"],
  ["bufferutil", "ws with bufferutil", "#8b949e"],
  ["ws", "ws (on Bun, its own)", "#b8bfc7"],
  ["tcp", "raw TCP", "#3fb950"],
];
const TEXT = "#7d8590";

interface Panel {
  title: string;
  query: Query;
}

interface Chart {
  title: string;
  note: string;
  panels: Panel[];
  /** Whether the bars show the share of raw TCP's rate, which is drawn as a line. */
  besideTcp?: boolean;
}

type Draw = (all: Results[], titleOf: (results: Results) => string) => Promise<string>;

/** The charts by the names of their files, without the extension. */
export const CHARTS: Record<string, Draw> = {
  echo: chart({
    title: "Messages per second of CPU time, beside a raw TCP echo",
    note:
      "Number: messages per CPU second. Length: their share of what a raw TCP echo reaches, the dotted line.",
    panels: SIZES.map((size) => ({
      title: `Echo of ${nameOf(size)}`,
      query: { kind: "echo", size },
    })),
    besideTcp: true,
  }),
  memory: chart({
    title: "Memory of an idle connection",
    note: "KiB for each of 5,000 idle connections. Shorter is better.",
    panels: [
      { title: "Resident memory", query: { kind: "idle", figure: "resident" } },
      { title: "The engine's heap", query: { kind: "idle", figure: "heap" } },
    ],
  }),
  latency: chart({
    title: "Latency of an echo",
    note: "Microseconds for 16 B there and back, one message in flight. Shorter is better.",
    panels: [
      { title: "Median", query: { kind: "latency", figure: "p50" } },
      { title: "99th percentile", query: { kind: "latency", figure: "p99" } },
    ],
  }),
};

function chart({ title, note, panels, besideTcp = false }: Chart): Draw {
  return async (all, titleOf) => {
    const bars = panels.flatMap((panel) =>
      all.flatMap((results) => {
        const measurement = find(results, panel.query);
        return SERIES.flatMap(([peer, series]) => {
          const value = medianOf(measurement, peer);
          const length = besideTcp ? ratioOf(measurement, peer, "tcp") : value;
          if (value === undefined || (besideTcp && peer === "tcp")) return [];
          return {
            panel: panel.title,
            runtime: titleOf(results),
            series,
            length,
            text: short(value),
          };
        }).map((bar, place) => ({ ...bar, place }));
      })
    );
    const shown = SERIES.filter(([, label]) => bars.some(({ series }) => series === label));
    const bar = {
      mark: "bar" as const,
      encoding: {
        color: {
          field: "series",
          scale: {
            domain: shown.map(([, label]) => label),
            range: shown.map(([, , color]) => color),
          },
          legend: { orient: "top" as const, title: null, columns: 3 },
        },
      },
    };
    const number = {
      mark: { type: "text" as const, align: "left" as const, dx: 4, fontSize: 9.5, color: TEXT },
      encoding: { text: { field: "text" } },
    };
    const spec: TopLevelSpec = {
      data: { values: bars },
      title: { text: note, orient: "bottom", fontSize: 11, fontWeight: "normal", anchor: "middle" },
      columns: 2,
      facet: { field: "panel", sort: panels.map(({ title }) => title), title: null },
      spec: {
        width: 310,
        height: { step: 11, for: "offset" },
        layer: [
          {
            encoding: {
              x: { field: "length", type: "quantitative", axis: null },
              y: { field: "runtime", sort: null, title: null },
              yOffset: {
                field: "place",
                type: "ordinal",
                sort: null,
                scale: { paddingInner: 0.2 },
              },
            },
            layer: [bar, number],
          },
          ...besideTcp
            ? [{
              mark: { type: "rule" as const, strokeDash: [2, 3], color: TEXT },
              encoding: { x: { datum: 1 } },
            }]
            : [],
        ],
      },
      resolve: { scale: { x: besideTcp ? "shared" : "independent" }, axis: { y: "independent" } },
      config: {
        aria: false,
        background: undefined,
        font: "system-ui, sans-serif",
        title: { color: TEXT },
        view: { stroke: null },
        axis: { domain: false, ticks: false, grid: false, labelColor: TEXT, labelFontSize: 11 },
        legend: { labelColor: TEXT, labelFontSize: 11, labelLimit: 0 },
        header: {
          labelAnchor: "start",
          labelColor: TEXT,
          labelFontSize: 13,
          labelFontWeight: "bold",
        },
      },
    };
    const svg = await new View(parse(compile(spec).spec), { renderer: "none" }).toSVG();
    return svg.replace(">", ` role="img"><title>${title}</title>`);
  };
}

/** Formats a number in a short form: 1.03M, 691k, 14.3k, 812, 8.12. */
function short(value: number): string {
  if (value < 1000) return value.toPrecision(3);
  return value < 1e6
    ? `${Number((value / 1e3).toPrecision(3))}k`
    : `${(value / 1e6).toPrecision(3)}M`;
}
