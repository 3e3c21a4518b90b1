/** Documents of Yjs that y-websocket keeps the same, also after a client was away. */
import * as decoding from "lib0/decoding";
import * as encoding from "lib0/encoding";
import * as sync from "y-protocols/sync";
import { WebsocketProvider } from "y-websocket";
import * as Y from "yjs";
import { deferred, listen, type Program, range } from "./program.ts";

export const run: Program = async ({ WebSocket, WebSocketServer }, { load, measure }) => {
  const { server, port } = await listen();
  const wss = new WebSocketServer({ server });
  const shared = new Y.Doc();
  const frame = (write: (encoder: encoding.Encoder) => void) => {
    const encoder = encoding.createEncoder();
    encoding.writeVarUint(encoder, 0);
    write(encoder);
    return encoding.toUint8Array(encoder);
  };
  shared.on("update", (update: Uint8Array) => {
    const bytes = frame((encoder) => sync.writeUpdate(encoder, update));
    for (const ws of wss.clients) ws.send(bytes);
  });
  wss.on("connection", (ws) => {
    ws.binaryType = "arraybuffer";
    ws.send(frame((encoder) => sync.writeSyncStep1(encoder, shared)));
    ws.on("message", (data) => {
      const decoder = decoding.createDecoder(new Uint8Array(data as ArrayBuffer));
      if (decoding.readVarUint(decoder) !== 0) return;
      const answer = encoding.createEncoder();
      encoding.writeVarUint(answer, 0);
      sync.readSyncMessage(decoder, answer, shared, ws);
      if (encoding.length(answer) > 1) ws.send(encoding.toUint8Array(answer));
    });
  });
  const join = async () => {
    const doc = new Y.Doc();
    const provider = new WebsocketProvider(`ws://127.0.0.1:${port}`, "room", doc, {
      WebSocketPolyfill: WebSocket as never,
      disableBc: true,
    });
    await new Promise<void>((resolve) => provider.once("sync", () => resolve()));
    return { doc, provider };
  };
  const [one, two] = [await join(), await join()];
  const count = 300 * load;
  const textOf = (doc: Y.Doc) => doc.getText("text");
  const reaches = (doc: Y.Doc, length: number) => {
    const reached = deferred();
    const look = () => textOf(doc).length >= length && reached.resolve();
    doc.on("update", look);
    look();
    return reached.promise;
  };
  await measure(2 * count, async () => {
    for (const _ of range(count)) {
      textOf(one.doc).insert(0, "a");
      textOf(two.doc).insert(textOf(two.doc).length, "z");
    }
    await Promise.all([reaches(one.doc, 2 * count), reaches(two.doc, 2 * count)]);
  });
  two.provider.disconnect();
  textOf(one.doc).insert(0, "away");
  textOf(two.doc).insert(0, "alone");
  two.provider.connect();
  await Promise.all([reaches(one.doc, 2 * count + 9), reaches(two.doc, 2 * count + 9)]);
  const same = textOf(one.doc).toString() === textOf(two.doc).toString();
  one.provider.destroy();
  two.provider.destroy();
  wss.close();
  server.close();
  return { same, length: textOf(shared).length };
};
