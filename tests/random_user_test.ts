/** A short round of `deno task fuzz api`, with some fixed seeds and some new ones in each run. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import process from "node:process";
import type { WebSocketConnection } from "../mod.ts";
import { API, traceRun } from "../scripts/fuzz/api.ts";
import { RealClock } from "../scripts/fuzz/api/clock.ts";
import { findBroken } from "../scripts/fuzz/api/invariants.ts";
import { type Sent, User, World } from "../scripts/fuzz/api/world.ts";
import { Random } from "../scripts/fuzz/random.ts";
import { runTarget } from "../scripts/fuzz/target.ts";
import { withoutLeak } from "./resources.ts";

const SEEDS = { fixed: 1, new: Number(process.env.FUZZ_SEED ?? Date.now() % 1e9) };
const INPUTS = 75;

/** The world after a successful run, changed by `change`. */
function worldWith(change: (world: World) => void): World {
  const clock = new RealClock();
  clock.stop();
  const world = new World(clock, true);
  const close = { closeCode: 1000, reason: "" };
  for (const name of ["client", "server"] as const) {
    const ws = { state: "closed", closeInfo: { first: "received", received: close, sent: close } };
    const user = new User(name, ws as WebSocketConnection, world);
    world.users.push(user);
    const closed = { what: `${name} closed`, state: "resolved" as const, expected: [] };
    world.tracked.push(closed);
    user.readingOn = closed;
    user.readEnd = "clean";
    for (let index = 0; index < 3; index++) {
      user.sent.push({
        lane: "send",
        index,
        named: true,
        body: "a long message",
        state: "sent",
        lossy: false,
        received: 1,
      });
    }
  }
  for (const user of world.users) user.received.push(...user.peer.sent);
  change(world);
  return world;
}

/** Changes the world so that the server has not received a message. */
function lose({ users: [client, server] }: World, index: number, change: Partial<Sent> = {}): void {
  Object.assign(client.sent[index], { received: 0 }, change);
  server.received.splice(index, 1);
}

/** Errors in a run, and the invariant that reports them; none if the run is correct. */
const WORLDS: readonly [title: string, change: (world: World) => void, broken?: RegExp][] = [
  ["a run in which all went well", () => {}],
  ["a promise that waits", ({ tracked }) => tracked[0].state = "pending", /has settled/],
  ["an error of another kind", ({ tracked }) => {
    Object.assign(tracked[0], { state: "rejected", error: new TypeError("x is undefined") });
  }, /documented/],
  ["a promise that must not reject", ({ users: [client] }) => {
    client.track("close()", Promise.resolve(), "never").state = "rejected";
  }, /documented/],
  ["a message that is missing", (world) => lose(world, 1), /send\.2 without send\.1/],
  ["a message that was refused", (world) => lose(world, 1, { state: "refused" })],
  ["a message that may be dropped", (world) => lose(world, 1, { lossy: true })],
  ["a last message that is missing", (world) => lose(world, 2), /clean end without send\.2/],
  ["a message that is read twice", ({ users: [client, server] }) => {
    server.received.push(client.sent[2]);
  }, /send\.2 after send\.2/],
  ["messages in another order", ({ users: [, { received }] }) => {
    received.unshift(received.pop()!);
  }, /send\.0 after send\.2/],
  ["a message that nobody has sent", ({ users: [client] }) => {
    client.received.push("5 bytes");
  }, /nobody has sent/],
  ["a Close frame that was not sent", ({ users: [{ ws }] }) => {
    Object.assign(ws, {
      closeInfo: { first: "received", received: { closeCode: 4000, reason: "" } },
    });
  }, /client received .*4000.*agree|agree.*4000/],
  ["an end that is not clean", ({ tracked }) => {
    const error = Object.assign(new Error("lost"), { name: "WebSocketError", closeCode: 1006 });
    Object.assign(tracked[0], { state: "rejected", error });
  }, /without trouble/],
  ["a violation of the protocol", ({ tracked, trouble }) => {
    const error = Object.assign(new Error("bad"), { name: "WebSocketError", closeCode: 1002 });
    Object.assign(tracked[0], { state: "rejected", error });
    trouble.add("a line that is cut");
  }, /breaks the protocol/],
  ["a connection that is open", ({ users: [{ ws }] }) => {
    Object.assign(ws, { state: "open" });
  }, /have ended/],
  ["a source that is left", ({ sources }) => {
    sources.push({
      what: "it",
      checked: true,
      begun: true,
      busy: false,
      finished: false,
      released: 0,
    });
  }, /was not released/],
  ["an error that onError was told of", ({ reported }) => {
    reported.push(new Error("a client left"));
  }, /only handlers/],
  ["a listener that is left", (world) => {
    world.signal().signal.addEventListener("abort", () => {});
  }, /listener/],
];

describe("A random user of both ends", () => {
  for (const [title, seed] of Object.entries(SEEDS)) {
    it(`A random user breaks no invariant, with a ${title} seed`, async () => {
      console.log(`deno task fuzz api --seed ${seed} --inputs ${INPUTS}`);
      await withoutLeak(async () => {
        const { inputs, outcomes } = await runTarget("api", API.api, { seed, inputs: INPUTS });
        assert.equal(inputs, INPUTS);
        // If all runs had the same outcome, the test would show nothing.
        assert.ok(outcomes.size > 2, `${[...outcomes]}`);
      });
    });
  }

  it("A random user does the same with the same seed", async () => {
    for (let seed = 0; seed < 20; seed++) {
      const trace = await traceRun(new Random(seed));
      if (!trace.includes("setup: memory")) continue;
      assert.equal(await traceRun(new Random(seed)), trace);
    }
  });

  for (const [title, change, broken] of WORLDS) {
    it(`The invariants ${broken === undefined ? "accept" : "find"} ${title}`, () => {
      const found = findBroken(worldWith(change)).join("\n");
      if (broken === undefined) assert.equal(found, "");
      else assert.match(found, broken);
    });
  }
});
