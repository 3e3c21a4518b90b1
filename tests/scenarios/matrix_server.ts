/**
 * Serves ws and wss to clients in other processes. Prints its addresses, and later the path of each
 * connection and how the connection ended.
 */
import process from "node:process";
import { type Message, serve, type WebSocketConnection } from "../../mod.ts";
import type { Frame } from "../../lib/core/mod.ts";

/** The data frames that were received and not yet reported: opcode, FIN, length. */
let frames: [opcode: number, fin: boolean, length: number][] = [];

function note(direction: string, { opcode, fin = true, payload }: Frame): void {
  if (direction === "in" && opcode < 8) frames.push([opcode, fin, payload.length]);
}

const HANDLERS: Record<string, (ws: WebSocketConnection) => Promise<unknown>> = {
  /** Reports the frames that a message arrived in, and sends the message back in two frames. */
  echo: async (ws) => {
    for await (const message of ws) {
      const came = frames;
      frames = [];
      await ws.send(JSON.stringify(came));
      await ws.send(halves(message));
    }
  },
  /** Reports the result of a ping. */
  ping: async (ws) => {
    await ws.send(typeof await ws.ping("from the server"));
    await ws.receive().catch(() => {});
  },
  close: (ws) => ws.close({ closeCode: 4002, reason: "gr\u00fc\u00df from the server" }),
};

function halves(message: Message): Message[] {
  const middle = message.length >> 1;
  return typeof message === "string"
    ? [message.slice(0, middle), message.slice(middle)]
    : [message.subarray(0, middle), message.subarray(middle)];
}

async function handle(ws: WebSocketConnection): Promise<void> {
  const { pathname } = new URL(ws.request.url);
  // Iteration throws for some close codes.
  await HANDLERS[pathname.split("/")[1]](ws).catch(() => {});
  const closed = await ws.closed.catch((error) => ({ closeCode: error.closeCode, reason: "" }));
  console.log(`${pathname} ${JSON.stringify([closed, ws.closeInfo])}`);
}

const options = { onFrame: note, pingInterval: 0 };
const servers = [
  await serve(options, handle),
  await serve({ ...options, tls: JSON.parse(process.env.LEAF!) }, handle),
];
const ports = servers.map(({ address }) => address.transport === "tcp" ? address.port : 0);
const { deno, bun, node } = process.versions as Record<string, string | undefined>;
const runtime = deno ? "deno" : bun ? "bun" : `node${node!.split(".")[0]}`;
console.log(`${runtime} has ports ${ports.join(" ")}`);
