/** The conditions that must hold after every simulation. */
import { HandshakeError, isTransient, WebSocketError } from "../../mod.ts";
import { byteLength, messageOf } from "./message.ts";
import type { End } from "./network.ts";
import { MOST_ATTEMPTS } from "./plan.ts";
import { type Attempt, closeText, describe, type Half, type World } from "./world.ts";

/** One invariant. Returns the problems, one per line. */
type Invariant = (world: World) => string[];

/** The default timeouts of the library, in milliseconds. */
const DEFAULTS = {
  openTimeout: 10_000,
  closeTimeout: 10_000,
  pingInterval: 20_000,
  pingTimeout: 20_000,
};
const SHUTDOWN_TIMEOUT = 30_000;

/** The library counts time in slices, which are rounded up, in milliseconds. */
const ROUNDING = 8;
/** The rounding error of sums of fractions, in milliseconds. */
const ROUNDING_DOWN = 0.001;
/** Bytes that a reader may hold besides two messages: the inbox, and a chunk that is being read. */
const HELD = 65_536 + 65_536;
/** Bytes that may wait besides one message if the sender awaits each send. */
const BUFFERED = 2 * 65_536;

function optionOf(half: Half, name: keyof typeof DEFAULTS): number {
  return optionsOf(half)[name] ?? DEFAULTS[name];
}

function optionsOf({ name, world: { plan } }: Half) {
  const index = /^client (\d+)/.exec(name)?.[1];
  return index === undefined ? plan.server : plan.clients[Number(index)].options;
}

/** Additional time that an event may take because the process was suspended, in milliseconds. */
function standstillsOf({ time, plan }: World, timeout: number): number {
  const count = plan.incidents.filter(({ what }) => what === "standstill").length;
  // A slice that ends late is counted again.
  return time.standstills + count * Math.ceil(timeout / 4);
}

function nothingBrokeOnTheWay({ broken }: World): string[] {
  return broken;
}

function everyPromiseHasSettled({ tracked }: World): string[] {
  return tracked.filter(({ state }) => state === "pending").map(({ what }) => what);
}

function errorsAreDocumented({ tracked, attempts }: World): string[] {
  const errors = [
    ...tracked.filter(({ state }) => state === "rejected"),
    ...attempts.map(({ name, error }) => ({ what: name, error })),
  ];
  return errors.filter(({ error }) => error !== undefined && !isDocumented(error))
    .map(({ what, error }) => `${what}: ${describe(error)}`);
}

function isDocumented(error: unknown): boolean {
  return error instanceof WebSocketError || error instanceof HandshakeError ||
    (error as Error).name === "InvalidStateError";
}

function connectionsHaveEnded({ halves }: World): string[] {
  return halves.filter(({ closed, ws }) => closed === "pending" || ws.state !== "closed")
    .map(({ name, ws, closed }) => `${name} is ${ws.state}, closed is ${closed}`);
}

function transportsHaveEnded({ network }: World): string[] {
  // A machine that was never notified, because its line is dead, belongs to a proxy.
  return network.lines.flatMap(({ ends, faults }) =>
    ends.filter((end) => !end.closed && faults.length === 0 && !isProxy(end))
  ).map((end) => `${JSON.stringify(end.localAddress)} is open`);
}

function isProxy({ localAddress }: End): boolean {
  return localAddress.transport === "tcp" && localAddress.hostname.endsWith("-proxy");
}

/** The messages of one end arrive at the other end in order, unchanged and once. */
function messagesComeInOrder({ halves, plan }: World): string[] {
  return halves.flatMap((half) => {
    const wrong = half.received.filter((index) => typeof index === "string")
      .map((what) => `${half.name} received a message that was not sent: ${what}`);
    if (wrong.length > 0 || mayDrop(half, plan.broadcast.slow)) return wrong;
    const expected = half.received.map((_, i) => i);
    const at = expected.find((i) => half.received[i] !== i);
    return at === undefined
      ? []
      : [`${half.name} received message ${half.received[at]} at position ${at}`];
  });
}

/** Whether messages may be dropped, because the end is in a room that drops them. */
function mayDrop({ name, peer }: Half, slow: string | undefined): boolean {
  if (!name.startsWith("client")) return false;
  return slow!.startsWith("drop") && peer !== undefined && peer.world.room.has(peer);
}

/** A reader that reached a clean end, which the peer began, has read all messages of the peer. */
function noMessageIsLost({ halves }: World): string[] {
  return halves.flatMap((half) => {
    const { name, readEnd, closed, closeInfo, isTerminated, peer } = half;
    if (readEnd !== "clean" || closed !== "clean" || isTerminated || peer === undefined) return [];
    if (closeInfo?.first !== "received") return [];
    const sent = peer.sent.filter(({ state }) => state === "sent").length;
    return half.received.length < sent
      ? [`${name} has read ${half.received.length} of ${sent} messages to a clean end`]
      : [];
  });
}

/** The Close frame that one end has received is the one that the other end has sent. */
function bothEndsAgree({ halves }: World): string[] {
  return halves.flatMap(({ name, closeInfo, peer }) => {
    const { received } = closeInfo ?? {};
    if (received === undefined || peer === undefined) return [];
    const sent = peer.closeInfo?.sent;
    if (received.closeCode === sent?.closeCode && received.reason === sent.reason) return [];
    return [`${name} ${closeText(closeInfo)}, its peer ${closeText(peer.closeInfo)}`];
  });
}

function cleanEndsHaveBothCloseFrames({ halves }: World): string[] {
  return halves.filter(({ closed, closeInfo }) =>
    closed === "clean" && (closeInfo?.sent === undefined || closeInfo.received === undefined)
  ).map(({ name, closeInfo }) => `${name} ${closeText(closeInfo)}`);
}

function nobodyBreaksTheProtocol({ halves, attempts }: World): string[] {
  const codes = ["timeout", "connection-lost", "connect-failed", "status", "proxy", "shutdown"];
  return [
    ...halves.filter(({ error, closeInfo }) =>
      [(error as WebSocketError | undefined)?.closeCode, closeInfo?.received?.closeCode]
        .some((code) => code === 1002 || code === 1007 || code === 1009)
    ).map(({ name, error }) => `${name}: ${describe(error)}`),
    ...attempts.filter(({ error }) =>
      error instanceof HandshakeError && !codes.includes(error.code)
    ).map(({ name, error }) => `${name}: ${describe(error)}`),
  ];
}

/** If no fault was caused on purpose, all connections open, and all end cleanly. */
function calmRunsAreClean({ plan, attempts, halves }: World): string[] {
  if (!plan.calm) return [];
  const slow = plan.broadcast.slow === "close" || plan.broadcast.slow === "terminate";
  const room = slow && plan.clients.some(({ service }) => service === "room");
  return [
    ...attempts.filter(({ error }) => error !== undefined && !isShutdown(error))
      .map(({ name, error }) => `${name}: ${describe(error)}`),
    ...halves.filter(({ closed, error }) =>
      closed !== "clean" && !room && !/while messages waited/.test((error as Error)?.message)
    ).map(({ name, error }) => `${name}: ${describe(error)}`),
  ];
}

/** Whether the server was shut down: it refuses clients, or does not listen any more. */
function isShutdown(error: unknown): boolean {
  return error instanceof HandshakeError &&
    ["connect-failed", "connection-lost", "status", "proxy"].includes(error.code);
}

/** An opening handshake takes no longer than `openTimeout`, and does not give up earlier. */
function openTimeoutsAreKept(world: World): string[] {
  return world.attempts.flatMap(({ name, startedAt, endedAt, error, openTimeout }: Attempt) => {
    if (openTimeout === 0) return [];
    const took = (endedAt ?? world.time.now) - startedAt;
    const most = openTimeout + ROUNDING + standstillsOf(world, openTimeout);
    const isTimeout = error instanceof HandshakeError && error.code === "timeout";
    if (took > most) return [`${name} took ${took} ms, openTimeout is ${openTimeout}`];
    if (isTimeout && took < openTimeout - ROUNDING_DOWN) {
      return [`${name} gave up after ${took} ms, openTimeout is ${openTimeout}`];
    }
    return [];
  });
}

/** A connection that was asked to close is closed after `closeTimeout` at the latest. */
function closeTimeoutsAreKept(world: World): string[] {
  return world.halves.flatMap((half) => {
    const { name, closeCalledAt, closedAt = world.time.now } = half;
    const closeTimeout = optionOf(half, "closeTimeout");
    if (closeCalledAt === undefined || closeTimeout === 0) return [];
    const took = closedAt - closeCalledAt;
    return took > closeTimeout + ROUNDING + standstillsOf(world, closeTimeout)
      ? [`${name} took ${took} ms, closeTimeout is ${closeTimeout}`]
      : [];
  });
}

/** Keepalive detects a connection whose line is silent, and does not do so too early. */
function keepaliveIsOnTime(world: World): string[] {
  return world.halves.flatMap((half) => {
    const { name, end, error, silence } = half;
    const isTimeout = error instanceof WebSocketError && error.errorCode === "pong-timeout";
    if (end === undefined || !isTimeout) return [];
    const timeout = optionOf(half, "pingTimeout");
    return silence < timeout - ROUNDING_DOWN
      ? [`${name} gave up after ${silence} ms, expected ${timeout}`]
      : [];
  });
}

/** Maximum time from the start of a silence until its connection is found dead, in milliseconds. */
function deadConnectionsAreFound(world: World): string[] {
  return world.halves.flatMap((half) => {
    const { name, end, closedAt = world.time.now } = half;
    const interval = optionOf(half, "pingInterval");
    const timeout = optionOf(half, "pingTimeout");
    const closeTimeout = optionOf(half, "closeTimeout");
    if (end === undefined || interval === 0 || timeout === 0) return [];
    if (end.line.silentSince === undefined) return [];
    const since = Math.max(end.line.silentSince, half.openedAt);
    const closing = half.closeInfo?.sent !== undefined && half.closeInfo.first === "sent";
    // After our Close frame was sent, closeTimeout applies. 0 means no limit.
    if (closing && closeTimeout === 0) return [];
    const most = interval + 4 * (timeout + ROUNDING) + closeTimeout + ROUNDING +
      standstillsOf(world, 4 * timeout + closeTimeout) + 4 * end.line.options.latency;
    const took = closedAt - since;
    return took > most ? [`${name} was found dead after ${took} ms, expected ${most}`] : [];
  });
}

/** A shutdown takes no longer than its `timeout`. */
function shutdownIsInTime(world: World): string[] {
  const { plan, shutdown, time } = world;
  const { timeout = SHUTDOWN_TIMEOUT } = plan.shutdown;
  if (shutdown === undefined) return [];
  const took = (shutdown.finishedAt ?? time.now) - shutdown.at;
  return took > timeout + ROUNDING + time.standstills
    ? [`The shutdown took ${took} ms, timeout is ${timeout}`]
    : [];
}

/** The delays of `reconnect()` are as long as announced. */
function retriesAreOnTime(world: World): string[] {
  return world.retries.flatMap(({ name, at, delay, nextAt }) => {
    if (delay > 6000) return [`${name} announced a delay of ${delay} ms`];
    if (nextAt === undefined) return [];
    const waited = nextAt - at;
    // Timers count whole milliseconds, and the shortest timer takes one millisecond.
    const isLate = waited > Math.max(1, delay) + 1 + world.time.standstills;
    return waited < delay - 1 || isLate
      ? [`${name} waited for ${waited} ms, expected ${delay}`]
      : [];
  });
}

/** `reconnect()` tries again after every failure that may pass, as often as `maxAttempts` says. */
function reconnectDoesNotGiveUp({ givenUp }: World): string[] {
  return givenUp.filter(({ error, failed }) => isTransient(error) && failed < MOST_ATTEMPTS)
    .map(({ name, error, failed }) => `${name} after ${failed} attempts: ${describe(error)}`);
}

/** The code of `close()` is sent, unless the connection was closed or has failed before. */
function closeCodesAreSent({ halves }: World): string[] {
  return halves.flatMap((half) => {
    const { name, askedCode, closeInfo, closed } = half;
    const { first, sent } = closeInfo ?? {};
    // A slow peer may have been closed before.
    const wasSlow = optionsOf(half).slow === "close" && sent?.closeCode === 1008;
    const mayDiffer = first !== "sent" || closed !== "clean" || wasSlow;
    if (askedCode === undefined || mayDiffer || sent?.closeCode === askedCode) return [];
    return [`${name} sent ${sent?.closeCode}, close() had ${askedCode}`];
  });
}

function noListenerIsLeft({ listeners }: World): string[] {
  return listeners.flatMap((count, index) => count() > 0 ? [`client ${index} has ${count()}`] : []);
}

function memoryIsBounded(world: World): string[] {
  const { halves, plan } = world;
  const longest = Math.max(
    0,
    ...plan.clients.flatMap(({ sizes }) =>
      sizes.map((size, index) => byteLength(messageOf(index, size)))
    ),
  );
  return halves.flatMap((half) => {
    const { name, mostHeld, mostWaiting, end } = half;
    const room = world.room.has(half) ? plan.broadcast.maxBufferedAmount! : 0;
    const wrong: string[] = [];
    if (mostHeld > HELD + 2 * longest) wrong.push(`${name} held ${mostHeld} bytes`);
    const buffered = Math.max(mostWaiting, end?.mostBuffered ?? 0);
    if (buffered > BUFFERED + longest + room) wrong.push(`${name} had ${buffered} bytes waiting`);
    return wrong;
  });
}

/** A server's `onError` receives errors of the server's own code, and no errors that a client causes. */
function nothingIsReported({ reported }: World): string[] {
  return reported.map(describe);
}

function noTimerIsLeft({ timersLeft }: World): string[] {
  return timersLeft > 0 ? [`${timersLeft} are`] : [];
}

/** All invariants by their descriptions. */
const INVARIANTS: Readonly<Record<string, Invariant>> = {
  "nothing broke on the way": nothingBrokeOnTheWay,
  "every promise has settled": everyPromiseHasSettled,
  "errors are documented ones": errorsAreDocumented,
  "connections have ended": connectionsHaveEnded,
  "transports have ended": transportsHaveEnded,
  "messages come in order": messagesComeInOrder,
  "no message is lost in silence": noMessageIsLost,
  "both ends agree about Close frames": bothEndsAgree,
  "clean ends have both Close frames": cleanEndsHaveBothCloseFrames,
  "nobody breaks the protocol": nobodyBreaksTheProtocol,
  "calm runs are clean": calmRunsAreClean,
  "openTimeout is kept": openTimeoutsAreKept,
  "closeTimeout is kept": closeTimeoutsAreKept,
  "keepalive gives up on time": keepaliveIsOnTime,
  "dead connections are found": deadConnectionsAreFound,
  "a shutdown is over in time": shutdownIsInTime,
  "retries come on time": retriesAreOnTime,
  "reconnect() does not give up": reconnectDoesNotGiveUp,
  "the code of close() is sent": closeCodesAreSent,
  "memory is bounded": memoryIsBounded,
  "nothing is reported": nothingIsReported,
  "no timer is left": noTimerIsLeft,
  "no listener of a signal is left": noListenerIsLeft,
};

/** Returns the broken invariants, one per line. */
export function findBroken(world: World): string[] {
  return Object.entries(INVARIANTS).flatMap(([name, check]) =>
    check(world).map((wrong) => `${name}: ${wrong}`)
  );
}
