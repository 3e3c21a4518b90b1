/**
 * Runs the tables with one peer, in both roles. To add a peer of this kind, add a row in `peers.ts`, its
 * program, and a test file with one call.
 */
import { after, describe, it } from "node:test";
import { ROLES } from "../support.ts";
import { AGREEMENTS, FAILURES } from "./handshakes.ts";
import { open, type PairOptions } from "./pair.ts";
import { PeerProcess } from "./peer_process.ts";
import { type Peer, unlessThere } from "./peers.ts";
import type { Failure, Scenario } from "./row.ts";
import { SCENARIOS } from "./scenarios.ts";

/** The settings that every connection runs with. The options of a row come first. */
const SETTINGS: readonly { title: string; compression: boolean }[] = [
  { title: "", compression: false },
  { title: ", compressed", compression: true },
];

/** Longer than any wait within a row, in milliseconds. */
const DEADLINE = 180_000;

/** Defines the tests of a peer. */
export function interop(peer: Peer): void {
  let running: PeerProcess | undefined;
  const start = () => running ??= new PeerProcess(peer);
  const options = unlessThere(peer);

  const define = <R extends Scenario | Failure>(
    rows: readonly R[],
    run: (row: R, role: (typeof ROLES)[number], defaults: PairOptions) => Promise<void>,
  ) => {
    for (const { title, compression } of SETTINGS) {
      const defaults: PairOptions = {
        // Compresses short messages too. Otherwise few messages would be compressed.
        ours: { compression: compression && { threshold: 0 } },
        theirs: { compression },
      };
      const fits = ({ needs, needsCompressed }: R) =>
        [needs, compression ? needsCompressed : undefined].every((need) =>
          need === undefined || peer.can?.[need]
        );
      for (const row of rows.filter(fits)) {
        for (const role of row.roles ?? ROLES) {
          const name = `${peer.name} as peer: ${row.title} (${role}${title})`;
          it(name, options, () => run(row, role, defaults));
        }
      }
    }
  };

  describe(`${peer.name} as peer`, () => {
    after(() => running?.stop());

    define([...SCENARIOS, ...AGREEMENTS], async (row, role, defaults) => {
      const opening = await open(role, start(), merge(defaults, row.options?.(role)));
      try {
        const { theirs } = opening;
        const [told, ours] = await Promise.all([theirs.opened(), opening.ours]);
        await within(DEADLINE, row.run({ ours, theirs, peer, role, told }));
      } finally {
        await opening.stop();
      }
    });

    define(FAILURES, async (row, role, defaults) => {
      const opening = await open(role, start(), merge(defaults, row.options?.(role)));
      try {
        await within(DEADLINE, row.run(opening, role));
      } finally {
        await opening.stop();
      }
    });
  });
}

/** Fails a row that hangs, because some runtimes have no deadline for a test. */
async function within(milliseconds: number, running: Promise<void>): Promise<void> {
  let timer: ReturnType<typeof setTimeout> | undefined;
  const late = new Promise<never>((_, reject) => {
    timer = setTimeout(
      () => reject(new Error(`Expected an end within ${milliseconds} ms`)),
      milliseconds,
    );
  });
  await Promise.race([running, late]).finally(() => clearTimeout(timer));
}

function merge(defaults: PairOptions, row: PairOptions = {}): PairOptions {
  return {
    ...row,
    ours: { ...defaults.ours, ...row.ours },
    theirs: { ...defaults.theirs, ...row.theirs },
  };
}
