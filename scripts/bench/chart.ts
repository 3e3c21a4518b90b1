/** Draws the charts of the results: SVGs without a background, readable on light and on dark pages. */
import { parse, View } from "vega";
import { compile, type TopLevelSpec } from "vega-lite";
import { find, published, publishedRatio, type Results } from "./results.ts";
import { CONNECTIONS, ECHOES, SIZES } from "./suite.ts";
import { microsecondsOf, runtimeOf } from "./tables.ts";
import { nameOf, shapeOf, type Workload } from "./workload.ts";

/** The peers, in the order of their bars. */
const SERIES: readonly [peer: string, label: string, color: string][] = [
  ["loop", "sluice, for await and send()", "#2f81f7"],
  ["pipe", "sluice, readable.pipeTo(writable)", "#85b8f5"],
  ["native", "the runtime's own server", "#d29922"],
  ["bufferutil", "ws with bufferutil", "#8b949e"],
  ["ws", "ws", "#b8bfc7"],
  ["tcp", "raw TCP", "#3fb950"],
];
const TEXT = "#7d8590";

interface Panel {
  title: string;
  workload: Omit<Workload, "load">;
  figure?: string;
}

type Chart = (all: Results[]) => Promise<string>;

const MEMORY = { kind: "memory", type: "text", size: 16 } as const;
const LATENCY = { kind: "paced", type: "text", size: 16 } as const;

/** The charts by the names of their files, without the extension. */
export const CHARTS: Record<string, Chart> = {
  echo: bars({
    title: "Messages per second of CPU time, beside a raw TCP echo",
    note:
      "Number: messages per CPU second. Length: their share of what a raw TCP echo reaches, the dotted line.",
    panels: ECHOES.map((workload) => ({ title: `Echo of ${nameOf(workload.size)}`, workload })),
    besideTcp: true,
  }),
  memory: bars({
    title: "Memory of a connection",
    note: "KiB of resident memory for each of 5,000 connections. Shorter is better.",
    panels: [
      { title: "Idle", workload: MEMORY, figure: "idle" },
      { title: "Active", workload: MEMORY, figure: "active" },
    ],
  }),
  latency: bars({
    title: "Latency of an echo",
    note:
      "Microseconds for 16 B there and back, at half of the rate that ws or the runtime's own server reaches. Shorter is better.",
    panels: [
      { title: "Median", workload: LATENCY, figure: "p50" },
      { title: "99th percentile", workload: LATENCY, figure: "p99" },
    ],
  }),
  sizes: lines({
    title: "CPU time of a message by its size",
    axis: "bytes of a message",
    works: SIZES,
    placeOf: ({ size }) => size,
  }),
  connections: lines({
    title: "CPU time of a message by the number of connections",
    axis: "connections, with one message of 16 B in flight on each",
    works: CONNECTIONS,
    placeOf: (workload) => shapeOf(workload).connections,
  }),
};

/** Draws lines over a logarithmic axis, with a panel for each runtime. */
function lines({ title, axis, works, placeOf }: {
  title: string;
  axis: string;
  works: readonly Workload[];
  placeOf: (workload: Workload) => number;
}): Chart {
  return (all) => {
    const values = all.flatMap((results) =>
      SERIES.flatMap(([peer, series]) =>
        works.flatMap((workload) => {
          const time = peer === "tcp" ? undefined : microsecondsOf(results, workload, peer);
          if (time === undefined) return [];
          return { runtime: runtimeOf(results), series, place: placeOf(workload), time };
        })
      )
    );
    const axisLook = {
      grid: true,
      gridOpacity: 0.25,
      titleColor: TEXT,
      titleFontWeight: "normal" as const,
      tickCount: 6,
    };
    return draw(title, {
      data: { values },
      columns: 2,
      facet: { field: "runtime", sort: all.map(runtimeOf), title: null },
      spec: {
        width: 310,
        height: 200,
        mark: { type: "line", point: true },
        encoding: {
          x: {
            field: "place",
            type: "quantitative",
            title: axis,
            scale: { type: "log" },
            axis: { ...axisLook, format: "~s" },
          },
          y: {
            field: "time",
            type: "quantitative",
            title: "µs of CPU time for a message",
            scale: { type: "log" },
            axis: { ...axisLook, format: ",~r" },
          },
          color: colorOf(values),
        },
      },
      resolve: { axis: { x: "independent", y: "independent" } },
    });
  };
}

/** The colors of the series that are shown. */
function colorOf(values: { series: string }[]) {
  const shown = SERIES.filter(([, label]) => values.some(({ series }) => series === label));
  return {
    field: "series",
    scale: { domain: shown.map(([, label]) => label), range: shown.map(([, , color]) => color) },
    legend: { orient: "top" as const, title: null, columns: 3 },
  };
}

/** Draws bars. With `besideTcp`, they show the share of raw TCP's rate, which is drawn as a line. */
function bars({ title, note, panels, besideTcp = false }: {
  title: string;
  note: string;
  panels: Panel[];
  besideTcp?: boolean;
}): Chart {
  return (all) => {
    const bars = panels.flatMap(({ title, workload, figure }) =>
      all.flatMap((results) => {
        const found = find(results, workload);
        return SERIES.flatMap(([peer, series]) => {
          const value = published(found, peer, figure)?.median;
          const length = besideTcp ? publishedRatio(found, peer, "tcp")?.median : value;
          if (value === undefined || (besideTcp && peer === "tcp")) return [];
          return { panel: title, runtime: runtimeOf(results), series, length, text: short(value) };
        }).map((bar, place) => ({ ...bar, place }));
      })
    );
    const bar = { mark: "bar" as const, encoding: { color: colorOf(bars) } };
    const number = {
      mark: { type: "text" as const, align: "left" as const, dx: 4, fontSize: 9.5, color: TEXT },
      encoding: { text: { field: "text" } },
    };
    const rule = {
      mark: { type: "rule" as const, strokeDash: [2, 3], color: TEXT },
      encoding: { x: { datum: 1 } },
    };
    return draw(title, {
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
          ...besideTcp ? [rule] : [],
        ],
      },
      resolve: { scale: { x: besideTcp ? "shared" : "independent" }, axis: { y: "independent" } },
    });
  };
}

async function draw(title: string, spec: TopLevelSpec): Promise<string> {
  const config = {
    aria: false,
    background: undefined,
    font: "system-ui, sans-serif",
    title: { color: TEXT },
    view: { stroke: null },
    axis: { domain: false, ticks: false, grid: false, labelColor: TEXT, labelFontSize: 11 },
    legend: { labelColor: TEXT, labelFontSize: 11, labelLimit: 0 },
    header: {
      labelAnchor: "start" as const,
      labelColor: TEXT,
      labelFontSize: 13,
      labelFontWeight: "bold" as const,
    },
  };
  const view = new View(parse(compile({ ...spec, config }).spec), { renderer: "none" });
  return (await view.toSVG()).replace(">", ` role="img"><title>${title}</title>`);
}

/** Formats a number in a short form: 1.03M, 691k, 14.3k, 812, 8.12. */
function short(value: number): string {
  if (value < 1000) return value.toPrecision(3);
  return value < 1e6
    ? `${Number((value / 1e3).toPrecision(3))}k`
    : `${(value / 1e6).toPrecision(3)}M`;
}
