/** Formats figures and tables as Markdown. */
import type { Spread } from "./statistics.ts";

export function table(rows: string[][]): string {
  const [head, ...body] = rows;
  const rule = head.map((_, i) => i === 0 ? "---" : "--:");
  return [head, rule, ...body].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

export function count(value: number): string {
  if (value < 100) return value.toFixed(1);
  return Number(value.toPrecision(3)).toLocaleString("en-US");
}

export function times(value: number): string {
  return value < 10 ? value.toFixed(2) : value.toFixed(1);
}

/** A median with its spread. */
export function spread(figure: Spread | undefined, format: (value: number) => string): string {
  if (figure === undefined) return "";
  const { median, least, most } = figure;
  return least === most
    ? format(median)
    : `${format(median)} (${format(least)} to ${format(most)})`;
}
