import { createServer, type IncomingMessage } from "node:http";
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { connect, type HandshakeError, type WebSocketConnection } from "../mod.ts";
import { attach, type AttachOptions, type Handler } from "../lib/node.ts";
import { encodeFrame } from "../lib/core/mod.ts";
import { concat, hex, latin1, utf8 } from "./bytes.ts";
import {
  ANSWER,
  answerTo,
  checkStall,
  CLOSE,
  echo,
  lateEcho,
  MESSAGE,
  portOf,
  statusOf,
  urlOf,
  withAttached,
  withHttp,
} from "./http_servers.ts";
import { isPending, RawSocket, rejection, rest, turn, until, upgradeRequest } from "./support.ts";

describe("attach", () => {
  it("attach() refuses options of the wrong type at the call", () => {
    const server = createServer();
    for (const options of [{ onRequest: 5 }, { selectProtocol: "a" }, { protocols: "a" }]) {
      assert.throws(() => attach(server, options as never, echo), TypeError);
    }
    assert.equal(server.listenerCount("upgrade"), 0);
  });

  it("attach() serves WebSockets and plain HTTP on one server", async () => {
    await withAttached({ protocols: ["chat"], headers: { "X-A": "1" } }, async (server) => {
      const ws = await connect(urlOf(server, "/a?b"), { protocols: ["chat"] });
      assert.equal(ws.protocol, "chat");
      assert.equal(ws.response.headers.get("x-a"), "1");
      for (const message of ["Hello", "x".repeat(200_000), new Uint8Array(70_000).fill(7)]) {
        await ws.send(message);
        assert.deepEqual(await ws.receive(), message);
      }
      const response = await fetch(urlOf(server, "/c").replace("ws:", "http:"), {
        headers: { Connection: "close" },
      });
      assert.equal(await response.text(), "plain /c");
      await ws.close();
    });
  });

  it("attach() leaves the chunks of a socket to others who listen to it", async () => {
    const payload = new Uint8Array(400_000).fill(7);
    const frame = encodeFrame({ opcode: 2, payload }, { mask: hex("37 fa 21 3d") });
    const sent = concat([frame, MESSAGE, frame, MESSAGE, CLOSE]);
    const second: Uint8Array[] = [];
    const first: Uint8Array[] = [];
    await withAttached({}, async (server) => {
      server.on("upgrade", (_, socket) => {
        socket.on("data", (chunk: Uint8Array) => second.push(chunk));
      });
      server.prependListener("upgrade", (_, socket) => {
        socket.on("data", (chunk: Uint8Array) => first.push(chunk));
      });
      const raw = await RawSocket.connect(portOf(server));
      raw.write(upgradeRequest());
      await until(() => raw.text.includes("\r\n\r\n"));
      raw.write(sent);
      await raw.close();
    }, async (ws) => {
      for await (const { length } of ws) assert.ok(length === 5 || length === payload.length);
    });
    assert.deepEqual(concat(first), sent);
    assert.deepEqual(concat(second), sent);
  });

  it("attach() leaves a chunk to a listener that is called once", async () => {
    const frame = encodeFrame({ opcode: 1, payload: utf8("Hello") }, { mask: hex("37 fa 21 3d") });
    const chunks: Uint8Array[] = [];
    await withAttached({}, async (server) => {
      server.prependListener("upgrade", (_, socket) => {
        socket.once("data", (chunk: Uint8Array) => chunks.push(chunk));
      });
      const raw = await RawSocket.connect(portOf(server));
      raw.write(upgradeRequest());
      await until(() => raw.text.includes("\r\n\r\n"));
      raw.write(concat([frame, CLOSE]));
      await raw.close();
    }, async (ws) => {
      for await (const message of ws) assert.equal(message, "Hello");
    });
    assert.equal(chunks.length, 1);
    assert.deepEqual(new Uint8Array(chunks[0]).subarray(0, frame.length), frame);
  });

  it("attach() sends the header fields of an iterator to every client", async () => {
    const headers = new Map([["X-A", "1"]]).entries();
    await withAttached({ headers }, async (server) => {
      for (let i = 0; i < 2; i++) {
        const ws = await connect(urlOf(server));
        assert.equal(ws.response.headers.get("x-a"), "1");
        await ws.close();
      }
    });
  });

  it("attach() gives the handler the request as it came", async () => {
    let seen: unknown;
    const handler: Handler = (ws) => {
      const { request } = ws;
      const repeated = ws.rawHeaders.request.filter(([name]) => name === "X-A");
      const { remoteAddress } = ws;
      seen = [request.url, request.method, request.headers.get("x-a"), repeated];
      assert.equal(remoteAddress?.transport, "tcp");
    };
    await withAttached({}, async (server) => {
      const request = upgradeRequest({ "X-A": "1\r\nX-A: 2" }, "GET /a?b=c HTTP/1.1");
      await answerTo(server, concat([latin1(request), CLOSE]));
      const repeated = [["X-A", "1"], ["X-A", "2"]];
      assert.deepEqual(seen, ["http://localhost/a?b=c", "GET", "1, 2", repeated]);
    }, handler);
  });

  it("attach() gives its hooks the request of node:http", async () => {
    const seen: unknown[] = [];
    const see = ({ url }: Request, incoming: IncomingMessage) =>
      void seen.push(url === `http://${incoming.headers.host}${incoming.url}`);
    await withAttached({
      onRequest: see,
      selectProtocol: (_, request, incoming) => see(request, incoming),
      onResponse: (_, request, incoming) => see(request, incoming),
    }, async (server) => {
      const ws = await connect(urlOf(server, "/a?b=c"));
      await ws.close();
      assert.deepEqual(seen, [true, true, true]);
    });
  });

  it("attach() keeps messages that arrive together with the request", async () => {
    await withAttached({}, async (server) => {
      const answer = await answerTo(server, concat([latin1(upgradeRequest()), MESSAGE, CLOSE]));
      assert.match(answer, /^HTTP\/1\.1 101 [^]*: s3pPLMBiTxaQ9kYGzzhZRbK\+xOo=\r\n/);
      assert.equal(answer.slice(answer.indexOf("\r\n\r\n") + 4), ANSWER);
    });
  });

  it("attach() keeps messages that come while a hook takes its time", async () => {
    const onRequest = async () => {
      for (let i = 0; i < 10; i++) await turn();
    };
    await withAttached({ onRequest }, async (server) => {
      const raw = await RawSocket.connect(portOf(server));
      raw.write(concat([latin1(upgradeRequest()), MESSAGE.subarray(0, 3)]));
      await turn();
      raw.write(MESSAGE.subarray(3));
      await turn();
      raw.write(CLOSE);
      await raw.close();
      assert.equal(raw.text.slice(raw.text.indexOf("\r\n\r\n") + 4), ANSWER);
    });
  });

  it("attach() holds back a peer whose messages are not read", async () => {
    const { handler, release } = lateEcho();
    await withAttached({}, async (server, { connections }) => {
      const ws = await connect(urlOf(server), { pingInterval: 0 });
      await checkStall(ws, connections, release);
    }, handler);
  });

  it("attach() outlives the timeouts of the HTTP server", async () => {
    await withAttached({}, async (server) => {
      server.setTimeout(20);
      const ws = await connect(urlOf(server));
      await new Promise((resolve) => setTimeout(resolve, 200));
      await ws.send("still there");
      assert.equal(await ws.receive(), "still there");
      await ws.close();
    });
  });

  it("attach() checks its arguments", async () => {
    const wrong: [options: unknown, handler: unknown, error: new () => Error][] = [
      [undefined, echo, TypeError],
      [{}, undefined, TypeError],
      [{ path: 1 }, echo, TypeError],
      [{ path: "chat" }, echo, RangeError],
      [{ openTimeout: -1 }, echo, RangeError],
      [{ headers: { "X A": "b" } }, echo, TypeError],
    ];
    await withHttp((server) => {
      const { length } = server.listeners("upgrade");
      for (const [options, handler, error] of wrong) {
        assert.throws(() => attach(server, options as AttachOptions, handler as Handler), error);
      }
      assert.equal(server.listeners("upgrade").length, length);
    });
  });
});

describe("The end of what attach attached", () => {
  it("After detach() no connection is accepted, and open ones stay open", async () => {
    await withAttached({}, async (server, attached) => {
      const ws = await connect(urlOf(server));
      await until(() => attached.connections.size === 1);
      attached.detach();
      attached.detach();
      assert.equal(server.listeners("upgrade").length, 0);
      server.on("upgrade", (_request, socket) => socket.end("HTTP/1.1 404 No\r\n\r\n"));
      assert.equal(await statusOf(server), 404);
      await ws.send("still there");
      assert.equal(await ws.receive(), "still there");
      assert.equal(attached.connections.size, 1);
      await ws.close();
      await until(() => attached.connections.size === 0);
    });
  });

  it("shutdown() detaches, closes with 1001 and waits for the handlers", async () => {
    let returned = 0;
    await withAttached({}, async (server, attached) => {
      const clients = await Promise.all([1, 2].map(() => connect(urlOf(server))));
      await until(() => attached.connections.size === 2);
      assert.equal(await isPending(attached.finished), true);
      await Promise.all([attached.shutdown(), attached[Symbol.asyncDispose]()]);
      await attached.finished;
      assert.equal(returned, 2);
      assert.equal(attached.connections.size, 0);
      assert.equal(server.listeners("upgrade").length, 0);
      for (const ws of clients) assert.equal((await ws.closed).closeCode, 1001);
    }, async (ws: WebSocketConnection) => {
      await echo(ws);
      await rest();
      returned++;
    });
  });

  it("shutdown() closes with the code given, and refuses one that cannot be sent", async () => {
    await withAttached({}, async (server, attached) => {
      const ws = await connect(urlOf(server));
      await assert.rejects(attached.shutdown({ closeCode: 1006 }), RangeError);
      await attached.shutdown({ closeCode: 1012, reason: "update" });
      assert.deepEqual(await ws.closed, { closeCode: 1012, reason: "update" });
    });
  });

  it("shutdown() answers 503 to a handshake whose hook takes its time", async () => {
    let asked = false;
    const onRequest = () => {
      asked = true;
      return new Promise<undefined>(() => {});
    };
    await withAttached({ onRequest }, async (server, attached) => {
      const opening = rejection<HandshakeError>(connect(urlOf(server)));
      await until(() => asked);
      await attached.shutdown();
      assert.equal((await opening).response?.status, 503);
    });
  });

  it("The signal shuts down", async () => {
    const controller = new AbortController();
    await withAttached({ signal: controller.signal }, async (server, attached) => {
      const ws = await connect(urlOf(server));
      controller.abort();
      assert.equal((await ws.closed).closeCode, 1001);
      await attached.finished;
      assert.throws(() => attach(server, { signal: controller.signal }, echo));
    });
  });
});
