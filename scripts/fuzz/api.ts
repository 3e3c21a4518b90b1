/**
 * A random user: runs random operations of the whole public API on both ends of a connection, in memory
 * or over TCP. Afterwards all invariants must hold.
 *
 * The generator does not use fast-check's commands: each run has one number that repeats it on every
 * runtime, and operations overlap, which is not possible with fast-check's commands.
 */
import process from "node:process";
import { countTcpSockets } from "../../tests/resources.ts";
import { RealClock, turn, VirtualClock, wait } from "./api/clock.ts";
import { findBroken, hasReadOn } from "./api/invariants.ts";
import { AFTER_END, OPERATIONS, readOn, useAfterEnd } from "./api/operations.ts";
import {
  chooseSetup,
  closeServer,
  describeSetup,
  openPair,
  PLAIN,
  type Setup,
} from "./api/setup.ts";
import { describe, type Sent, World } from "./api/world.ts";
import { Random } from "./random.ts";
import type { Target } from "./target.ts";

/** One operation of a run. */
interface Step {
  end: 0 | 1;
  name: string;
  /** Seed for the choices of the operation, which stay the same when other operations are left out. */
  seed: number;
  /** Pause before the next operation: none, a number of turns, until all is at rest, or a time. */
  pause: { turns: number } | "rest" | { time: number };
}

/** The plan of a run. */
interface Plan {
  /** Whether no operation may end the connection other than cleanly. */
  calm: boolean;
  setup: Setup;
  steps: Step[];
  /** The ends that close the connection at the end, if it is still open. */
  closes: readonly (0 | 1)[];
  /** Whether both ends read to the end of the connection. */
  readOn: boolean;
}

const ALL = Object.entries(OPERATIONS);

/** The names of the operations, each repeated according to its weight. */
function weighed(operations: typeof ALL): string[] {
  return operations.flatMap(([name, { weight }]) => Array<string>(weight).fill(name));
}

const CHOICES = weighed(ALL);
const CALM_CHOICES = weighed(ALL.filter(([, { wild }]) => !wild));

function makePlan(random: Random): Plan {
  const calm = random.once(3);
  const setup = chooseSetup(random, calm);
  const steps = Array.from({ length: 2 + random.below(24) }, (): Step => ({
    end: random.pick([0, 1] as const),
    name: random.pick(calm ? CALM_CHOICES : CHOICES),
    seed: random.below(2 ** 31),
    pause: random.pick([
      { turns: 0 },
      { turns: 0 },
      { turns: 1 + random.below(4) },
      "rest",
      { time: random.pick([1, 5, 50, 300]) },
    ]),
  }));
  const closes = random.pick([[0], [1], [0, 1], []] as const);
  return { calm, setup, steps, closes, readOn: !random.once(4) };
}

/** Errors that were not caught or handled. */
const uncaught: string[] = [];
const noteRejection = (error: unknown) => void uncaught.push(`unhandled: ${describe(error)}`);
const noteException = (error: unknown) => void uncaught.push(`uncaught: ${describe(error)}`);

/** Runs a plan, and returns its world after all operations have ended. */
async function runPlan(plan: Plan): Promise<World> {
  const inMemory = plan.setup.carrier === "memory";
  const clock = inMemory ? new VirtualClock() : new RealClock();
  const world = new World(clock, plan.calm);
  uncaught.length = 0;
  try {
    await Promise.race([clock.stuck, carryOut(plan, world)]);
    world.broken.splice(0, Infinity, ...findBroken(world));
  } catch (error) {
    world.broken.push(`the run failed: ${(error as Error)?.stack ?? error}`);
  } finally {
    clock.stop();
  }
  return world;
}

async function carryOut(plan: Plan, world: World): Promise<void> {
  if (await openPair({ ...plan.setup }, world)) await useConnection(plan, world);
  world.track("the end of the server", closeServer(world), "never");
  await world.clock.settle(() => settled(world), true);
}

async function useConnection(plan: Plan, world: World): Promise<void> {
  const { clock, users } = world;
  for (const user of users) user.track("closed", user.ws.closed);
  for (const [i, step] of plan.steps.entries()) {
    const user = users[step.end];
    world.say(`${i}. ${user.name}: ${step.name}`);
    const before = world.tracked.length;
    OPERATIONS[step.name].run(user, new Random(step.seed));
    for (const { what } of world.tracked.slice(before)) world.say(`     ${what}`);
    await pauseAfter(step, world);
  }
  world.say("the end");
  if (plan.readOn) { for (const user of users) readOn(user); }
  world.line?.goOn();
  if (plan.calm) {
    // The time is too short for a ping, which would flush the waiting data.
    await clock.settle(() => waitingSends(world).length === 0, clock.threads, 900);
    noteWaitingSends(world);
  }
  for (const end of plan.closes) {
    users[end].gaveUp = true;
    users[end].track("close() at the end", users[end].ws.close({ closeCode: 1000 }), "never");
  }
  const closed = () => users.every(({ ws }) => ws.state === "closed");
  if (plan.closes.length > 0) await clock.settle(closed, false);
  if (!closed()) world.trouble.add("cut at the end");
  for (const { ws } of users) ws.terminate();
  world.openGates(true);
  world.line?.goOn();
  await clock.settle(() => settled(world), true);
  world.line?.close();
  for (const user of users) useAfterEnd(user);
  await clock.rest();
}

/** If both ends read and neither closes, all sent messages leave. */
function noteWaitingSends(world: World): void {
  const { users, trouble, clock } = world;
  if (trouble.size > 0 || users.some(({ gaveUp, dropped }) => gaveUp || dropped)) return;
  // Over TCP it may take longer than the clock waits.
  if (!users.every(hasReadOn) || clock instanceof RealClock) return;
  for (const { lane, index } of waitingSends(world)) {
    world.broken.push(`${lane}.${index} is not sent although the peer reads`);
  }
}

function waitingSends({ users }: World): Sent[] {
  return users.flatMap(({ sent }) => sent.filter(({ state }) => state === "waiting"));
}

async function pauseAfter({ pause }: Step, { clock }: World): Promise<void> {
  if (pause === "rest") await clock.rest();
  else if ("time" in pause) await clock.sleep(pause.time);
  else await clock.turns(pause.turns);
}

function settled({ tracked, users, sources }: World): boolean {
  return tracked.every(({ state }) => state !== "pending") &&
    sources.every(({ busy }) => !busy) && users.every(({ ws }) => ws.state === "closed");
}

/** The trace of a run: the operations, their results and the broken invariants. */
function traceOf(plan: Plan, world: World): string {
  const outcomes = world.tracked.filter(({ what }) => !what.endsWith(AFTER_END))
    .map(({ what, state, error }) => {
      const why = state === "rejected" ? ` by ${describe(error)}` : "";
      return `  ${what}: ${state}${why}`;
    });
  return [
    ...new Set(world.broken.map((line) => `BROKEN ${line}`)),
    `setup: ${describeSetup(plan.setup)}`,
    `trouble: ${[...world.trouble].join(", ") || "none"}`,
    ...world.trace,
    "what became of it:",
    ...outcomes,
    ...world.users.map(({ name, ws }) => `  ${name} ${JSON.stringify(ws.closeInfo)}`),
  ].join("\n");
}

/** The first broken invariant, without the details that differ between runs. */
function kindOf({ broken }: World): string | undefined {
  return broken[0]?.replace(/\d+/g, "0");
}

/** Runs a plan and returns its world, with uncaught errors and sockets that were not closed. */
async function tryPlan(plan: Plan): Promise<World> {
  const sockets = countTcpSockets();
  const world = await runPlan(plan);
  // The platforms report unhandled rejections after all microtasks have run.
  await turn();
  await turn();
  world.broken.push(...uncaught);
  if (plan.setup.carrier === "memory") return world;
  for (let waits = 0; waits < 500 && countTcpSockets() > sockets; waits++) await wait(5);
  const left = countTcpSockets() - sockets;
  if (left > 0) world.broken.push(`${left} sockets are left open`);
  return world;
}

/** Maximum number of attempts to shrink a plan, and their maximum time in milliseconds. */
const MOST_TRIES = 300;
const MOST_TIME = 60_000;

/** Leaves out steps that the failure does not need. */
async function shrink(plan: Plan, failed: World): Promise<[Plan, World]> {
  const kind = kindOf(failed);
  let smallest: [Plan, World] = [plan, failed];
  let tries = 0;
  const end = performance.now() + MOST_TIME;
  const attempt = async (less: Plan) => {
    if (tries++ >= MOST_TRIES || performance.now() > end) return false;
    const world = await tryPlan(less);
    if (kindOf(world) !== kind) return false;
    smallest = [less, world];
    return true;
  };
  for (let size = Math.ceil(plan.steps.length / 2); size >= 1; size = size >> 1) {
    for (let at = 0; at < smallest[0].steps.length;) {
      const { steps } = smallest[0];
      const fewer = [...steps.slice(0, at), ...steps.slice(at + size)];
      if (!await attempt({ ...smallest[0], steps: fewer })) at += size;
    }
  }
  for (const less of plainer(smallest[0].setup)) {
    await attempt({ ...smallest[0], setup: less(smallest[0].setup) });
  }
  return smallest;
}

/** The ways to simplify a setup. */
function plainer({ options }: Setup): ((setup: Setup) => Setup)[] {
  const names = Object.keys(PLAIN) as (keyof Setup)[];
  const without = (end: 0 | 1, name: string) => (setup: Setup): Setup => {
    const { [name]: _, ...others } = setup.options[end] as Record<string, unknown>;
    const both: Setup["options"] = [...setup.options];
    both[end] = others;
    return { ...setup, options: both };
  };
  return [
    ...names.filter((name) => name !== "options")
      .map((name) => (setup: Setup) => ({ ...setup, [name]: PLAIN[name] })),
    ...Object.keys(options[0]).map((name) => without(0, name)),
    ...Object.keys(options[1]).map((name) => without(1, name)),
  ];
}

/** One word that says how a run has ended. */
function outcomeOf({ users, trouble }: World): string {
  if (users.length < 2) return "not opened";
  const [client, server] = users.map(({ ws }) => ws.closeInfo);
  if (client?.received === undefined || server?.received === undefined) return "broken off";
  return trouble.size === 0 ? "closed" : "closed in spite of trouble";
}

/** The failure to explain. */
let lastFailure: [Plan, World] | undefined;

/**
 * Runs the plan of a seed, and returns the trace.
 *
 * @param random Generator of the plan.
 */
export async function traceRun(random: Random): Promise<string> {
  const plan = makePlan(random);
  return traceOf(plan, await tryPlan(plan));
}

/** The random user as a target. */
export const API: Readonly<Record<string, Target>> = {
  api: {
    what: "a random user of both ends, in memory and over TCP: no invariant is broken",
    inputs: 2000,
    async begin() {
      process.on("unhandledRejection", noteRejection);
      process.on("uncaughtException", noteException);
      // Loads modules that the library loads on first use, because loading takes real time.
      for (const carrier of ["tcp", "proxy", "memory"] as const) {
        await tryPlan({
          calm: true,
          setup: { ...PLAIN, carrier, options: [{ compression: true }, { compression: true }] },
          steps: [],
          closes: [0],
          readOn: true,
        });
      }
    },
    end() {
      process.off("unhandledRejection", noteRejection);
      process.off("uncaughtException", noteException);
      return Promise.resolve();
    },
    async run(random) {
      const plan = makePlan(random);
      const world = await tryPlan(plan);
      if (world.broken.length === 0) return outcomeOf(world);
      lastFailure = [plan, world];
      throw new Error(world.broken.join("\n"));
    },
    async explain() {
      const [plan, world] = lastFailure!;
      const again = await tryPlan(plan);
      if (kindOf(again) === kindOf(world)) return traceOf(...await shrink(plan, again));
      return `The failure does not repeat reliably. The failed run:\n${traceOf(plan, world)}`;
    },
  },
};
