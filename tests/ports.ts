/** Free ports of this machine, for programs that listen by themselves. */
import { once } from "node:events";
import { connect as connectSocket, createServer } from "node:net";
import process from "node:process";

export const HOST = "127.0.0.1";

/**
 * The lowest port that `freePort()` returns. Its ports are below those that systems assign to clients and to
 * servers that ask for port 0. Otherwise another process could take the port before a program listens on it.
 */
const FIRST = 10_000;
const COUNT = 20_000;
/** Processes that run at the same time start at different ports. */
let next = process.pid * 7919;

/** Returns a port that no process listens on. Each call returns a different port. */
export async function freePort(): Promise<number> {
  for (;;) {
    const port = FIRST + next++ % COUNT;
    if (await mayListen(port)) return port;
  }
}

async function mayListen(port: number): Promise<boolean> {
  const server = createServer();
  try {
    await new Promise<void>((resolve, reject) => {
      server.once("error", reject);
      server.listen(port, HOST, resolve);
    });
  } catch {
    return false;
  }
  await new Promise((resolve) => server.close(resolve));
  return true;
}

/** Whether a process listens on the port. */
export async function accepts(port: number): Promise<boolean> {
  const socket = connectSocket(port, HOST);
  try {
    await once(socket, "connect");
    return true;
  } catch {
    return false;
  } finally {
    socket.destroy();
  }
}
