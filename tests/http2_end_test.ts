import { describe } from "node:test";
import assert from "node:assert/strict";
import type { ClientHttp2Stream, Http2Session, Http2Stream, ServerHttp2Stream } from "node:http2";
import { it } from "./it.ts";
import type { WebSocketConnection, WebSocketError } from "../mod.ts";
import { encodeFrame, FrameDecoder, Opcode, serializeClose } from "../lib/core/mod.ts";
import { concat, hex, utf8 } from "./bytes.ts";
import { CONNECT, endSession, type Http2, noServer, withHttp2 } from "./http2_servers.ts";
import { rejection, ROLES, until } from "./support.ts";

const skip = noServer;
const MASK = { mask: hex("37 fa 21 3d") };
const HELLO = { opcode: Opcode.Text, payload: utf8("Hello") };
const CLOSE = { opcode: Opcode.Close, payload: serializeClose({ closeCode: 1000 }) };

/** The two ends: our connection, and the raw stream at its other end. */
interface Ends {
  ours: WebSocketConnection;
  theirs: Http2Stream;
  /** The chunks that the raw stream has received. */
  received: Uint8Array[];
  ended: () => boolean;
  http2: Http2;
}

/** Runs a test with a connection in each role. The other end is a raw stream. */
function inBothRoles(title: string, run: (ends: Ends, role: string) => Promise<unknown>): void {
  for (const role of ROLES) {
    it(`${title} (${role})`, { skip }, async () => {
      let accept!: (ws: WebSocketConnection) => void;
      const accepted = new Promise<WebSocketConnection>((resolve) => accept = resolve);
      const handler = (ws: WebSocketConnection) => {
        accept(ws);
        return ws.closed.catch(() => {});
      };
      const path = role === "server" ? undefined : () => false;
      await withHttp2({ handler, path }, async (http2) => {
        const received: Uint8Array[] = [];
        let ended = false;
        const listen = (stream: Http2Stream) => {
          stream.on("error", () => {});
          stream.on("data", (chunk: Uint8Array) => received.push(new Uint8Array(chunk)));
          stream.on("end", () => ended = !stream.aborted);
          return stream;
        };
        const stream = role === "server"
          ? listen(http2.session.request(CONNECT, { endStream: false }))
          : undefined;
        const raw = new Promise<Http2Stream>((resolve) => {
          if (stream !== undefined) resolve(stream);
          http2.server.once("stream", (stream: ServerHttp2Stream) => {
            if (role === "server") return;
            stream.respond({ ":status": 200 });
            resolve(listen(stream));
          });
        });
        const ours = await (role === "server" ? accepted : http2.open());
        const theirs = await raw;
        await run({ ours, theirs, received, ended: () => ended, http2 }, role);
        theirs.destroy();
      });
    });
  }
}

function frame(role: string, frame: { opcode: Opcode; payload: Uint8Array }): Uint8Array {
  return encodeFrame({ ...frame, payload: frame.payload.slice() }, role === "server" ? MASK : {});
}

/** The opcodes of the frames received. */
function opcodes(received: Uint8Array[], role: string): number[] {
  const decoder = new FrameDecoder({ role: role === "server" ? "client" : "server" });
  decoder.push(concat(received));
  const found: number[] = [];
  for (let piece = decoder.next(); piece; piece = decoder.next()) {
    if (piece.last) found.push(piece.header.opcode);
  }
  return found;
}

async function closeCodeOf(ws: WebSocketConnection): Promise<[code: number | null, why: string]> {
  const { closeCode, message } = await rejection<WebSocketError>(ws.closed);
  return [closeCode, message];
}

describe("The end of a stream", () => {
  inBothRoles(
    "END_STREAM without a Close frame is 1006, after the received messages",
    async (ends, role) => {
      const { ours, theirs } = ends;
      theirs.end(frame(role, HELLO));
      assert.equal(await ours.receive(), "Hello");
      const [code, why] = await closeCodeOf(ours);
      assert.equal(code, 1006);
      assert.doesNotMatch(why, /reset/);
      await until(ends.ended);
    },
  );

  inBothRoles("END_STREAM leaves the other direction open", async (ends, role) => {
    const { ours, theirs, received } = ends;
    theirs.end(concat([frame(role, HELLO), frame(role, CLOSE)]));
    const message = await ours.receive();
    await ours.send(message);
    assert.equal((await ours.closed).closeCode, 1000);
    await until(ends.ended);
    assert.deepEqual(opcodes(received, role), [Opcode.Text, Opcode.Close]);
  });

  inBothRoles("A reset is 1006, and says so", async ({ ours, theirs }) => {
    // A peer that has nothing to end does this.
    (theirs as ClientHttp2Stream)._final = (done) => done();
    theirs.close(8);
    const [code, why] = await closeCodeOf(ours);
    assert.equal(code, 1006);
    assert.match(why, /reset with code 8/);
  });

  inBothRoles("A reset after both Close frames is a clean end", async (ends, role) => {
    const { ours, theirs, received } = ends;
    theirs.write(frame(role, CLOSE));
    await until(() => received.length > 0);
    theirs.close(8);
    assert.equal((await ours.closed).closeCode, 1000);
  });

  inBothRoles("terminate() resets with CANCEL, and does not end first", async (ends) => {
    const { ours, theirs } = ends;
    await ours.send("Hello");
    ours.terminate();
    assert.equal((await closeCodeOf(ours))[0], 1006);
    await until(() => theirs.closed);
    assert.equal(theirs.rstCode, 8);
    assert.equal(ends.ended(), false);
  });

  inBothRoles("terminate() cuts a message that waits to be sent", async (ends) => {
    // Nobody reads, so that the sent data cannot leave.
    ends.theirs.pause();
    let sent = 0;
    const sending = (async () => {
      for (;; sent += 65536) await ends.ours.send(new Uint8Array(65536));
    })();
    await until(() => sent > 0 && ends.ours.bufferedAmount > 0);
    ends.ours.terminate();
    await rejection(sending);
    assert.equal((await closeCodeOf(ends.ours))[0], 1006);
    ends.theirs.resume();
    await until(() => ends.theirs.closed);
  });

  inBothRoles("A reset stops a sender in a loop", async ({ ours, theirs }) => {
    let sent = 0;
    const sending = (async () => {
      // As much as the transport accepts at once.
      for (;; sent++) await ours.send(new Uint8Array(65536));
    })();
    sending.catch(() => {});
    await until(() => sent > 20);
    theirs.close(8);
    await rejection(sending);
    assert.equal((await closeCodeOf(ours))[0], 1006);
  });

  for (const end of ["client", "server"] as const) {
    inBothRoles(`A session that the ${end} destroys is 1006`, async ({ ours, theirs, http2 }) => {
      const client = http2.session;
      const session = end === "client" ? client : serverSession(http2, theirs);
      await endSession(session);
      assert.equal((await closeCodeOf(ours))[0], 1006);
    });
  }
});

/** The server's end of the session. */
function serverSession(http2: Http2, theirs: Http2Stream): Http2Session {
  if (theirs.session !== undefined && theirs.session !== http2.session) return theirs.session;
  return [...http2.streams][0].session!;
}

describe("The closing handshake over HTTP/2", () => {
  const codes: [sent: { closeCode?: number; reason?: string }, got: [number, string]][] = [
    [{}, [1005, ""]],
    [{ closeCode: 1000 }, [1000, ""]],
    [{ closeCode: 1012, reason: "restart" }, [1012, "restart"]],
    [{ closeCode: 4999, reason: "é" }, [4999, "é"]],
  ];
  for (const [info, [closeCode, reason]] of codes) {
    for (const role of ROLES) {
      it(`${role} closes with ${JSON.stringify(info)}`, { skip }, async () => {
        const ended: unknown[] = [];
        const handler = async (ws: WebSocketConnection) => {
          if (role === "server") ws.close(info);
          ended.push(await ws.closed);
        };
        await withHttp2({ handler }, async ({ open, attached }) => {
          const ws = await open();
          if (role === "client") ws.close(info);
          assert.deepEqual(await ws.closed, { closeCode, reason });
          await until(() => attached.connections.size === 0);
          assert.deepEqual(ended, [{ closeCode, reason }]);
        });
      });
    }
  }

  it("After a GOAWAY open connections continue, and none is opened", { skip }, async () => {
    await withHttp2({}, async ({ open, session, streams }) => {
      const ws = await open();
      const [{ session: theirs }] = streams;
      theirs!.close();
      await until(() => session.closed);
      const error = await rejection<Error & { code: string }>(open());
      assert.equal(error.code, "connect-failed");
      await ws.send("still");
      assert.equal(await ws.receive(), "still");
      assert.equal((await ws.close({ closeCode: 1000 })).closeCode, 1000);
      await until(() => session.destroyed);
    });
  });
});
