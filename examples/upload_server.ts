/** Takes uploads of up to 16 GiB into files, in bounded memory, and says how far each one is. */
import { randomUUID } from "node:crypto";
import { open, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { serve, type WebSocketConnection } from "sluice";

const folder = process.argv[2] ?? tmpdir();
const STEP = 16 * 1024 ** 2;

async function save(ws: WebSocketConnection, pieces: AsyncIterable<Uint8Array>): Promise<void> {
  const path = join(folder, `${randomUUID()}.upload`);
  const file = await open(path, "wx");
  let received = 0;
  let told = 0;
  try {
    for await (const piece of pieces) {
      // Nothing more is read from the socket until the disk has taken this piece.
      await file.writeFile(piece);
      received += piece.length;
      if (received - told < STEP) continue;
      told = received;
      await ws.send(JSON.stringify({ received }));
    }
  } catch (error) {
    await rm(path);
    throw error;
  } finally {
    await file.close();
  }
  await ws.send(JSON.stringify({ received, path }));
}

const server = await serve({ port: 8080, maxMessageSize: 16 * 1024 ** 3 }, async (ws) => {
  for await (const { type, readable } of ws.messages()) {
    if (type !== "binary") {
      await ws.close({ closeCode: 1003, reason: "expected bytes" });
      return;
    }
    await save(ws, readable);
  }
});

console.log("port:", server.port);
process.once("SIGTERM", () => server.shutdown());
