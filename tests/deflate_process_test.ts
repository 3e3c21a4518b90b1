import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { fileURLToPath } from "node:url";
import { Child } from "./programs.ts";

const PROGRAM = fileURLToPath(new URL("scenarios/deflate.ts", import.meta.url));

interface Report {
  code: number;
  /** Bytes of the message as sent, and as inflated. */
  sent: number;
  out: number;
  /** CPU time in milliseconds, and memory in MiB. */
  cpu: number;
  memory: number;
  /** Resident memory in MiB, sampled ten times during the run. */
  samples: number[];
  received: number;
}

async function report(scenario: string): Promise<Report> {
  const child = new Child(PROGRAM, { env: { SCENARIO: scenario } });
  try {
    assert.equal(await child.exited, 0, child.stderr);
    return JSON.parse(child.stdout);
  } finally {
    child.stop();
  }
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1];
}

/** In MiB: well below the size of a leak of one context, or of 1 KiB a message, in half of the run. */
const MOST_GROWTH = 15;

/**
 * Checks that memory does not grow in one half of the run, the better one. A leak grows all the time, but an
 * engine may enlarge its young generation once, by 32 MiB.
 */
function assertFlat({ samples }: Report): void {
  const [first, middle, last] = [2, 4, -3].map((at) => median(samples.slice(at).slice(0, 3)));
  const grown = Math.min(middle - first, last - middle);
  assert.ok(grown < MOST_GROWTH, `grown by ${grown} MiB in each half: ${samples.join(" ")}`);
}

describe("permessage-deflate: CPU time and memory", () => {
  it("a mebibyte that inflates to a gibibyte is stopped at the limit, by the protocol", async () => {
    const { code, sent, out, cpu, memory } = await report("bomb");
    assert.equal(code, 1009);
    assert.ok(sent > 1e6 && out <= 2 ** 20, `${sent} became ${out}`);
    assert.ok(cpu < 100, `${cpu} ms of CPU time`);
    assert.ok(memory < 20, `${memory} MiB`);
  });

  it("a mebibyte that inflates to a gibibyte is stopped at the limit, by a server", async () => {
    const { code, cpu, memory } = await report("bomb-server");
    assert.equal(code, 1009);
    assert.ok(cpu < 100, `${cpu} ms of CPU time`);
    assert.ok(memory < 20, `${memory} MiB`);
  });

  it("memory is flat over 100,000 compressed messages", async () => {
    const result = await report("messages");
    assert.equal(result.received, 100_000);
    assertFlat(result);
  });

  it("memory is flat over 1,000 connections with compression, closed and cut", async () => {
    const result = await report("connections");
    assert.equal(result.received, 1000);
    assertFlat(result);
  });
});
