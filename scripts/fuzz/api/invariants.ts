/** The conditions that must hold at the end of every run. */

import { describe, type Sent, type Tracked, type User, type World } from "./world.ts";

const INVALID_STATE = "InvalidStateError";

/** One invariant. Returns the problems, one per line. */
type Invariant = (world: World) => string[];

function everyPromiseHasSettled({ tracked }: World): string[] {
  return tracked.filter(({ state }) => state === "pending").map(({ what }) => what);
}

function errorsAreDocumented(world: World): string[] {
  return world.tracked.filter((one) => one.state === "rejected" && !isDocumented(one, world))
    .map(({ what, error }) => `${what}: ${describe(error)}`);
}

/** Whether the error is a network error, an error for a wrong state, or an error of the user. */
function isDocumented({ expected, error }: Tracked, { reasons }: World): boolean {
  if (expected === "never") return false;
  // On Node, writing to a stream while it closes violates an internal assertion.
  if ((error as { code?: string } | undefined)?.code === "ERR_INTERNAL_ASSERTION") return true;
  if (reasons.has(error)) return true;
  const name = (error as Error | undefined)?.name ?? "";
  return name === "WebSocketError" || name === INVALID_STATE || expected.includes(name);
}

function nothingBrokeOnTheWay({ broken }: World): string[] {
  return broken;
}

function connectionsHaveEnded({ users }: World): string[] {
  return users.filter(({ ws }) => ws.state !== "closed").map(({ name, ws }) =>
    `${name} is ${ws.state}`
  );
}

/** Each message that a reader got was sent by the peer, and arrived whole, in order and once. */
function messagesComeInOrderAndOnce({ users }: World): string[] {
  return users.flatMap((user) => {
    const wrong = user.received.filter((one) => typeof one === "string")
      .map((one) => `${user.name} received what nobody has sent: ${one}`);
    const lanes = new Map<string, Sent>();
    for (const sent of user.received) {
      if (typeof sent === "string" || !sent.named) continue;
      const before = lanes.get(sent.lane);
      lanes.set(sent.lane, sent);
      const first = before === undefined ? 0 : before.index + 1;
      if (sent.index < first) {
        wrong.push(`${user.name} received ${nameOf(sent)} after ${nameOf(before!)}`);
      } else wrong.push(...holes(user, sent.lane, first, sent.index));
    }
    return wrong;
  });
}

function nameOf({ lane, index }: Sent): string {
  return `${lane}.${index}`;
}

/** The messages between two received messages that are missing without a reason. */
function holes(user: User, lane: string, from: number, to: number): string[] {
  if (user.skipped > 0) return [];
  return user.peer.sent.filter((sent) =>
    sent.named && sent.lane === lane && sent.index >= from && sent.index < to && isMissing(sent)
  ).map((sent) => `${user.name} received ${lane}.${to} without ${nameOf(sent)}`);
}

function isMissing(sent: Sent): boolean {
  return sent.received === 0 && sent.state === "sent" && !sent.lossy;
}

/** A reader that reached a clean end, and was not the first to close, has read all messages. */
function noMessageIsLostInSilence({ users }: World): string[] {
  return users.flatMap((user) => {
    const { readEnd, dropped, gaveUp, skipped, ws: { closeInfo } } = user;
    if (readEnd !== "clean" || dropped || gaveUp || skipped > 0) return [];
    if (closeInfo?.first !== "received") return [];
    const missing = user.peer.sent.filter((sent) =>
      isMissing(sent) && !isReplaced(sent, user.peer)
    );
    return missing.map((sent) => `${user.name} reached a clean end without ${nameOf(sent)}`);
  });
}

/** Whether a message that is too short to be identified may have been mistaken for another one. */
function isReplaced(missing: Sent, { sent }: User): boolean {
  if (missing.named) return false;
  return sent.some((other) =>
    other.received > 0 && (other.lossy || other.state !== "sent") &&
    describe(other.body) === describe(missing.body)
  );
}

/** The Close frame that one end has received is the one that the other end has sent. */
function bothEndsAgreeAboutCloseFrames({ users }: World): string[] {
  return users.flatMap(({ name, ws, peer }) => {
    const { received } = ws.closeInfo ?? {};
    const { sent } = peer.ws.closeInfo ?? {};
    if (received === undefined) return [];
    if (received.closeCode === sent?.closeCode && received.reason === sent.reason) return [];
    return [
      `${name} received ${JSON.stringify(received)}, but the peer sent ${JSON.stringify(sent)}`,
    ];
  });
}

const closedOf = (world: World, name: string) =>
  world.tracked.find(({ what }) => what === `${name} closed`)!;

/** A clean end has both Close frames. */
function cleanEndsHaveBothCloseFrames(world: World): string[] {
  return world.users.filter(({ name, ws }) =>
    closedOf(world, name).state === "resolved" &&
    (ws.closeInfo?.received === undefined || ws.closeInfo.sent === undefined)
  ).map(({ name, ws }) => `${name} closed cleanly with ${JSON.stringify(ws.closeInfo)}`);
}

/** Whether the user has read to the end, and no earlier operation prevented that. */
export function hasReadOn({ readingOn }: User): boolean {
  return readingOn !== undefined && (readingOn.error as Error | undefined)?.name !== INVALID_STATE;
}

/**
 * If no fault was caused on purpose and both ends read, both end cleanly. An end whose sends were waiting
 * when the peer's Close frame arrived gets an error for them.
 */
function withoutTroubleTheEndIsClean(world: World): string[] {
  const { users, trouble } = world;
  if (trouble.size > 0 || !users.every(hasReadOn)) return [];
  return users.filter(({ name }) => {
    const { state, error } = closedOf(world, name);
    return state === "rejected" && !/while messages waited/.test((error as Error).message);
  }).map(({ name }) => `${name} closed: ${describe(closedOf(world, name).error)}`);
}

/** Two ends of this library never report a protocol error of each other. */
function noEndBreaksTheProtocol(world: World): string[] {
  return world.users.flatMap(({ name, ws }) => {
    const { error } = closedOf(world, name);
    const codes = [
      ws.closeInfo?.received?.closeCode,
      ws.closeInfo?.sent?.closeCode,
      (error as { closeCode?: number } | undefined)?.closeCode,
    ];
    return codes.filter((code) => code === 1002 || code === 1007).map((code) =>
      `${name} ended with ${code}: ${describe(error)}`
    );
  });
}

function sourcesAreReleased({ sources }: World): string[] {
  return sources.flatMap(({ what, checked, begun, finished, released }) => {
    if (released > 1) return [`${what} was released ${released} times`];
    const abandoned = checked && begun && !finished && released === 0;
    return abandoned ? [`${what} was started, and was not released`] : [];
  });
}

/**
 * A server's `onError` receives the errors that handlers throw, and those of a handler that ends while
 * a read is pending. It receives no errors that a client causes.
 */
function onlyHandlersAreReported({ reported, reasons }: World): string[] {
  return reported.filter((error) => !reasons.has(error) && !isHint(error)).map(describe);
}

function isHint(error: unknown): boolean {
  return error instanceof DOMException &&
    error.message.startsWith("The handler's promise resolved");
}

function noListenerIsLeft({ signals }: World): string[] {
  return signals.filter(({ listeners, signal }) => listeners > 0 && !signal.aborted)
    .map(({ listeners }) => `${listeners} listeners of a signal are left`);
}

function noTimerIsLeft({ clock }: World): string[] {
  return clock.timers > 0 ? [`${clock.timers} timers are left`] : [];
}

/** All invariants by their descriptions. */
const INVARIANTS: Readonly<Record<string, Invariant>> = {
  "every promise has settled": everyPromiseHasSettled,
  "errors are documented ones": errorsAreDocumented,
  "nothing broke on the way": nothingBrokeOnTheWay,
  "connections have ended": connectionsHaveEnded,
  "messages come in order and once": messagesComeInOrderAndOnce,
  "no message is lost in silence": noMessageIsLostInSilence,
  "both ends agree about Close frames": bothEndsAgreeAboutCloseFrames,
  "clean ends have both Close frames": cleanEndsHaveBothCloseFrames,
  "without trouble the end is clean": withoutTroubleTheEndIsClean,
  "no end breaks the protocol": noEndBreaksTheProtocol,
  "sources are released": sourcesAreReleased,
  "only handlers are reported": onlyHandlersAreReported,
  "no listener is left": noListenerIsLeft,
  "no timer is left": noTimerIsLeft,
};

/** Returns the broken invariants, one per line. */
export function findBroken(world: World): string[] {
  return Object.entries(INVARIANTS).flatMap(([name, check]) =>
    check(world).map((wrong) => `${name}: ${wrong}`)
  );
}
