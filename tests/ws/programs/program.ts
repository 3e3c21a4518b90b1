/** What the programs have in common. */
import { once } from "node:events";
import { createServer, type RequestListener, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import type { Implementation } from "../implementations.ts";

export interface ProgramOptions {
  /** Multiplies the number of messages. */
  load: number;
  /** Runs the work, and measures its processor time. `count` is its number of messages. */
  measure(count: number, work: () => Promise<void>): Promise<void>;
}

/** A program. It returns what must be the same on all implementations. */
export type Program = (ws: Implementation, options: ProgramOptions) => Promise<unknown>;

export async function listen(
  listener?: RequestListener,
): Promise<{ server: Server; port: number }> {
  const server = createServer(listener);
  server.listen(0, "127.0.0.1");
  await once(server, "listening");
  return { server, port: (server.address() as AddressInfo).port };
}

/** A promise with the function that resolves it. */
export function deferred<T = void>(): { promise: Promise<T>; resolve: (value: T) => void } {
  let resolve!: (value: T) => void;
  const promise = new Promise<T>((done) => resolve = done);
  return { promise, resolve };
}

/** Returns the numbers from 0 to `count`, without `count`. */
export function range(count: number): number[] {
  return Array.from({ length: count }, (_, i) => i);
}

/** A promise that resolves after a number of calls of `done`. */
export function countdown(count: number): { promise: Promise<void>; done: () => void } {
  const { promise, resolve } = deferred();
  return { promise, done: () => --count === 0 && resolve() };
}
