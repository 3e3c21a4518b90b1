/** Ports of this machine, for programs that listen by themselves. */
import { once } from "node:events";
import { connect as connectSocket, createServer } from "node:net";
import process from "node:process";

export const HOST = "127.0.0.1";

/**
 * The ports that `freePort()` chooses from. They are below those that the systems give to clients, and to
 * servers that ask for port 0: between two programs, another process would sometimes get such a port.
 */
const FIRST = 10_000;
const COUNT = 20_000;
/** Processes that run at the same time begin at different ports. */
let next = process.pid * 16;

/** A port that nobody listens on. Each call returns another one. */
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

/** Whether somebody listens on a port. */
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
