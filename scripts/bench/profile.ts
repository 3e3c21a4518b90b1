/** Reads a CPU profile of V8. */

/** The parts of a .cpuprofile that this file uses. */
interface CpuProfile {
  nodes: {
    id: number;
    callFrame: { functionName: string; url: string; lineNumber: number };
  }[];
  /** The node of each sample, and the duration of each sample in microseconds. */
  samples: number[];
  timeDeltas: number[];
}

const IDLE = "(idle)";

/** Lists the functions with the most self time, one per line: percentage of the busy time, name. */
export function topFunctions(text: string, limit = 30): string[] {
  const profile: CpuProfile = JSON.parse(text);
  const names = new Map(profile.nodes.map(({ id, callFrame }) => [id, nameOf(callFrame)]));
  const times = new Map<string, number>();
  let busy = 0;
  profile.samples.forEach((node, i) => {
    const name = names.get(node)!;
    if (name === IDLE) return;
    const time = profile.timeDeltas[i];
    busy += time;
    times.set(name, (times.get(name) ?? 0) + time);
  });
  return [...times].sort(([, a], [, b]) => b - a).slice(0, limit).map(([name, time]) =>
    `${(time / busy * 100).toFixed(1).padStart(5)} %  ${name}`
  );
}

function nameOf({ functionName, url, lineNumber }: CpuProfile["nodes"][0]["callFrame"]): string {
  const name = functionName || "(anonymous)";
  if (url === "") return name;
  const file = url.startsWith("node:") ? url : url.split("/").slice(-2).join("/");
  return `${name}  ${file}:${lineNumber + 1}`;
}
