/** Features of our WebSocketStream beyond the standard. `websocket_stream/` has the rows of the standard. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import {
  type ConnectOptions,
  HandshakeError,
  type ServeOptions,
  type WebSocketConnection,
  WebSocketError,
  WebSocketStream,
} from "../mod.ts";
import { pattern } from "./bytes.ts";
import { echo, rejection, rest, urlOf, withRawServer, withServer } from "./support.ts";

/** The error that the constructor throws for an option of the wrong type or value. */
const WRONG: [options: Record<string, unknown>, name: string][] = [
  [{ maxMessageSize: "1" }, "TypeError"],
  [{ maxMessageSize: -1 }, "RangeError"],
  [{ pingInterval: NaN }, "RangeError"],
  [{ onFrame: 1 }, "TypeError"],
  [{ unix: 1 }, "TypeError"],
  [{ unix: "" }, "RangeError"],
  [{ tls: 1 }, "TypeError"],
  [{ tls: { cert: "a" } }, "TypeError"],
];

describe("What WebSocketStream adds to the standard", () => {
  it("opened has the connection beneath", async () => {
    await withServer({ protocols: ["b"] }, async (server) => {
      const stream = new WebSocketStream(urlOf(server), { protocols: ["a", "b"] });
      const { readable, writable, connection } = await stream.opened;
      assert.equal(connection.readable, readable);
      assert.equal(connection.writable, writable);
      assert.equal(connection.protocol, "b");
      assert.equal(typeof await connection.ping(), "number");
      stream.close();
      await stream.closed;
    });
  });

  it("It takes the options of connect(), inherited ones too", async () => {
    let seen: string | null = null;
    const options: ServeOptions = { onRequest: ({ headers }) => void (seen = headers.get("a")) };
    await withServer(options, async (server) => {
      const given: ConnectOptions = Object.create({ headers: { a: "b" } });
      const stream = new WebSocketStream(urlOf(server), given);
      await stream.opened;
      assert.equal(seen, "b");
      stream.close();
      await stream.closed;
    });
  });

  for (const [options, name] of WRONG) {
    it(`The constructor throws a ${name} for ${JSON.stringify(options)}`, async () => {
      let dialled = 0;
      await withRawServer(() => void dialled++, async (url) => {
        assert.throws(() => Reflect.construct(WebSocketStream, [url, options]), { name });
        await rest();
      });
      assert.equal(dialled, 0);
    });
  }

  const absent = { maxMessageSize: undefined, pingInterval: undefined };
  for (const options of [{}, absent]) {
    it(`Its defaults are a browser's: messages of any size${options === absent ? ", undefined being none" : ""}`, async () => {
      await withServer({ maxMessageSize: Infinity }, async (server) => {
        const stream = new WebSocketStream(urlOf(server), options);
        const { readable, writable } = await stream.opened;
        const large = pattern(3_000_000);
        const written = writable.getWriter().write(large);
        assert.deepEqual((await readable.getReader().read()).value, large);
        await written;
        stream.close();
        await stream.closed;
      });
    });
  }

  it("Its limits are those of the options", async () => {
    await withServer({}, async (server) => {
      const stream = new WebSocketStream(urlOf(server), { maxMessageSize: 3 });
      const { writable } = await stream.opened;
      await writable.getWriter().write("long");
      const error = await rejection<WebSocketError>(stream.closed);
      assert.equal(error.closeCode, 1009);
    }, (ws: WebSocketConnection) => echo(ws).catch(() => {}));
  });

  it("A failed handshake has the HandshakeError as its cause", async () => {
    await withServer({ origins: [] }, async (server) => {
      const stream = new WebSocketStream(urlOf(server));
      for (const promise of [stream.opened, stream.closed]) {
        const error = await rejection<WebSocketError>(promise);
        assert.ok(error instanceof WebSocketError);
        assert.ok(error.cause instanceof HandshakeError);
        assert.equal(error.cause.code, "status");
        assert.equal(error.cause.response!.status, 403);
      }
    });
  });

  it("WebSocketStream fails if the server chooses none of the protocols", async () => {
    await withServer({}, async (server) => {
      const stream = new WebSocketStream(urlOf(server), { protocols: ["a"] });
      const error = await rejection<WebSocketError>(stream.opened);
      assert.ok(error.cause instanceof HandshakeError);
      assert.equal(error.cause.code, "subprotocol");
    });
  });
});
