/** A WebSocket as a duplex stream of `node:stream`. */
import { nextTick } from "node:process";
import { Duplex, type DuplexOptions } from "node:stream";
import type { WebSocket } from "./websocket.ts";

/**
 * Makes a duplex stream of a WebSocket. Each chunk that is written is a message, and each message is a
 * chunk. With `readableObjectMode`, text is a string.
 *
 * @param ws The WebSocket, whose messages must not be read in another way.
 * @param options Options of the stream.
 */
export function createWebSocketStream(ws: WebSocket, options?: DuplexOptions): Duplex {
  /** An error of the WebSocket is followed by its own close. */
  let hasFailed = false;
  const isConnecting = () => ws.readyState === ws.CONNECTING;

  const duplex: Duplex = new Duplex({
    ...options,
    // The stream is closed when the WebSocket is.
    autoDestroy: false,
    emitClose: false,
    objectMode: false,
    writableObjectMode: false,

    read() {
      if (ws.isPaused) ws.resume();
    },

    write(chunk: Uint8Array, encoding, done) {
      if (isConnecting()) ws.once("open", () => duplex._write(chunk, encoding, done));
      else ws.send(chunk, done);
    },

    writev(chunks: { chunk: Uint8Array }[], done) {
      if (isConnecting()) return void ws.once("open", () => duplex._writev!(chunks as never, done));
      const last = chunks.length - 1;
      for (let i = 0; i < last; i++) ws.send(chunks[i].chunk);
      ws.send(chunks[last].chunk, done);
    },

    final(done) {
      if (isConnecting()) return void ws.once("open", () => duplex._final(done));
      const { _socket: socket } = ws;
      // The opening handshake has failed. 'error' will destroy the stream.
      if (socket === null) return;
      if (socket.writableFinished) {
        done();
        if (duplex.readableEnded) duplex.destroy();
      } else {
        socket.once("finish", () => done());
        ws.close();
      }
    },

    destroy(error, done) {
      const emitClose = () => nextTick(() => duplex.emit("close"));
      if (ws.readyState === ws.CLOSED) {
        done(error);
        return emitClose();
      }
      let isDone = false;
      ws.once("error", (error) => {
        isDone = true;
        done(error);
      });
      ws.once("close", () => {
        if (!isDone) done(error);
        emitClose();
      });
      if (!hasFailed) ws.terminate();
    },
  });

  ws.on("message", (data, isBinary) => {
    const chunk = !isBinary && duplex.readableObjectMode ? data.toString() : data;
    if (!duplex.push(chunk)) ws.pause();
  });
  ws.once("error", (error) => {
    if (duplex.destroyed) return;
    hasFailed = true;
    duplex.destroy(error);
  });
  ws.once("close", () => {
    if (!duplex.destroyed) duplex.push(null);
  });
  duplex.on("end", () => {
    if (!duplex.destroyed && duplex.writableFinished) duplex.destroy();
  });
  duplex.on("error", function onError(error: Error) {
    duplex.removeListener("error", onError);
    duplex.destroy();
    // Without another listener, the error must be thrown.
    if (duplex.listenerCount("error") === 0) duplex.emit("error", error);
  });
  return duplex;
}
