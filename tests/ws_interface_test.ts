/** `sluice/ws` behaves as `ws` does, as a client and as a server, also with `ws` at the other end. */
import assert from "node:assert/strict";
import { describe } from "node:test";
import { it } from "./it.ts";
import { connect, ended, IMPLEMENTATIONS, PAIRINGS, unlessReplaced } from "./ws/implementations.ts";
import { OPTION_SCENARIOS } from "./ws/option_scenarios.ts";
import { PART_SCENARIOS } from "./ws/part_scenarios.ts";
import { SCENARIOS } from "./ws/scenarios.ts";

for (const pairing of PAIRINGS) {
  const [client, server] = pairing;
  describe(`sluice/ws: a client of ${client}, a server of ${server}`, () => {
    for (const scenario of SCENARIOS) {
      it(
        `sluice/ws: ${scenario.title} (${client}, ${server})`,
        unlessReplaced(pairing),
        async () => {
          const ends = await connect(pairing, scenario.options);
          await scenario.run(ends);
          await ended(ends);
          const { log } = ends;
          assert.deepEqual(log.client.filter((line) => line !== "open"), scenario.client);
          assert.deepEqual(log.server, scenario.server);
        },
      );
    }

    for (const { title, run, log: expected } of [...OPTION_SCENARIOS, ...PART_SCENARIOS]) {
      it(`sluice/ws: ${title} (${client}, ${server})`, unlessReplaced(pairing), async () => {
        const log: string[] = [];
        await run({
          client: IMPLEMENTATIONS[client],
          server: IMPLEMENTATIONS[server],
          connect: (options) => connect(pairing, options),
          log,
        });
        assert.deepEqual(log, expected);
      });
    }
  });
}
