/** Uploads a file to upload_server.ts in bounded memory, with progress: `upload.ts FILE [URL]`. */
import { createReadStream } from "node:fs";
import { stat } from "node:fs/promises";
import process from "node:process";
import { connect } from "sluice";

const [path, url = "ws://127.0.0.1:8080"] = process.argv.slice(2);
const { size } = await stat(path);

const ws = await connect(url);
// One message. The file is read as fast as the server takes it.
const sent = ws.send(createReadStream(path));
for await (const message of ws) {
  const { received, path: saved } = JSON.parse(String(message));
  console.log(`${Math.floor(100 * received / size)} %`);
  if (saved === undefined) continue;
  console.log("saved as", saved);
  break;
}
await sent;
await ws.close({ closeCode: 1000 });
