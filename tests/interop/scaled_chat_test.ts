/** The chat of the examples: three processes behind nginx, of which one is killed, and Redis too. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import { reconnect } from "../../mod.ts";
import { resumable, type ResumableTopics } from "../../lib/topics.ts";
import { it } from "../it.ts";
import { freePort, HOST } from "../ports.ts";
import { insideRepository, readSource, withPrograms } from "../programs.ts";
import { until } from "../support.ts";
import { REDIS_FOLDER } from "../topics/engines.ts";
import { PEERS, unlessThere } from "./peers.ts";

const ROOM = "room/tea";

/** A guest that keeps what it hears. */
class Guest {
  readonly heard: string[] = [];
  readonly room: ResumableTopics;
  isReady = false;
  hasMissed = false;

  constructor(url: string, signal: AbortSignal) {
    const connections = reconnect(url, { minDelay: 10, maxDelay: 200, signal });
    this.room = resumable(connections, { topics: [ROOM] });
    this.#run().catch((error) => assert.ok(signal.aborted, error));
  }

  async #run(): Promise<void> {
    for await (const event of this.room) {
      if (event.type === "message") this.heard.push(String(event.message));
      else if (event.type !== "subscribed") this.hasMissed = true;
      else if (this.isReady) this.hasMissed ||= !event.recovered;
      else this.isReady = true;
    }
  }
}

const skip = unlessThere(PEERS.nginx).skip ?? unlessThere(PEERS.redis).skip;

describe("The chat over three processes", () => {
  it(
    "examples/scaled_chat.ts loses nothing when a process and Redis are killed",
    { skip },
    async () => {
      const port = await freePort();
      const source = await readSource("examples/scaled_chat.ts");
      await withPrograms(async (start) => {
        const env = { TMPDIR: REDIS_FOLDER };
        const chat = await start("scaled_chat.ts", source.replaceAll("8080", `${port}`), { env });
        const pidOf = async (name: string, nth: number) => {
          const pids = () => [...chat.stdout.matchAll(new RegExp(`^${name}: (\\d+)$`, "gm"))];
          await until(() => pids().length > nth);
          return Number(pids()[nth][1]);
        };
        await chat.printed(/nginx: \d+/);
        const end = new AbortController();
        const guests = Array.from(
          { length: 9 },
          () => new Guest(`ws://${HOST}:${port}/`, end.signal),
        );
        await until(() => guests.every(({ isReady }) => isReady));
        // A guest says the next word when the last one is known to be taken, or else says it again.
        let said = 0;
        const say = async (count: number) => {
          for (const last = said + count; said < last; said++) {
            // A word that was taken without an answer comes twice.
            await until(() => new Set(guests[0].heard).size === said);
            let isTaken = false;
            while (!isTaken) {
              const word = guests[0].room.publish(ROOM, `${said}`);
              isTaken = await word.then(() => true, () => guests[0].heard.includes(`${said}`));
            }
          }
        };
        await say(20);
        process.kill(await pidOf("two", 0), "SIGKILL");
        await pidOf("two", 1);
        await say(20);
        process.kill(await pidOf("redis", 0), "SIGKILL");
        await pidOf("redis", 1);
        await say(20);
        // A word that was said twice may still be on its way to some of the guests.
        const isComplete = ({ heard }: Guest) =>
          new Set(heard).size === 60 && heard.length === guests[0].heard.length;
        await until(() => guests.every(isComplete));
        for (const { heard, hasMissed } of guests) {
          // A word may be there twice, if its guest did not get the answer and said it again.
          assert.deepEqual([...new Set(heard)], Array.from({ length: 60 }, (_, i) => `${i}`));
          assert.deepEqual(heard, guests[0].heard);
          assert.equal(hasMissed, false);
        }
        assert.doesNotMatch(chat.stdout, /two: \d+[^]*two: \d+[^]*two: \d+/, "It stays");
        end.abort();
        chat.stop();
        await chat.printed(/closed/);
      }, await insideRepository());
    },
  );
});
