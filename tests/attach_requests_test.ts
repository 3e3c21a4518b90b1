import { describe, it } from "node:test";
import assert from "node:assert/strict";
import type { Duplex } from "node:stream";
import { connect, type HandshakeError } from "../mod.ts";
import { attach, type AttachOptions, type Handler } from "../lib/node.ts";
import { concat, latin1 } from "./bytes.ts";
import {
  answerTo,
  CLOSE,
  echo,
  portOf,
  statusOf,
  urlOf,
  withAttached,
  withHttp,
} from "./http_servers.ts";
import { RawSocket, rejection, rest, turn, until, upgradeRequest } from "./support.ts";

describe("What attach refuses", () => {
  const cases: [name: string, request: string, status: number][] = [
    ["a host that is none", upgradeRequest({ Host: "a b" }), 400],
    ["two Hosts", upgradeRequest({ host: "b" }), 400],
    ["no key", upgradeRequest({ "Sec-WebSocket-Key": null }), 400],
    ["two keys", upgradeRequest({ "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==" }), 400],
    ["no version", upgradeRequest({ "Sec-WebSocket-Version": null }), 400],
    ["a Content-Length", upgradeRequest({ "Content-Length": "1" }), 400],
    ["a Transfer-Encoding", upgradeRequest({ "Transfer-Encoding": "chunked" }), 400],
    ["a subprotocol twice", upgradeRequest({ "Sec-WebSocket-Protocol": "a, a" }), 400],
    ["POST", upgradeRequest({}, "POST / HTTP/1.1"), 405],
    ["version 8", upgradeRequest({ "Sec-WebSocket-Version": "8" }), 426],
    ["another origin", upgradeRequest({ Origin: "https://b" }), 403],
  ];
  for (const [name, request, status] of cases) {
    it(`attach() answers ${name} with ${status}`, async () => {
      await withAttached({ origins: ["https://a", null] }, async (server, { connections }) => {
        const answer = await answerTo(server, request);
        assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `));
        assert.match(answer, /^connection: (Upgrade, )?close\r$/im);
        assert.equal(connections.size, 0);
      });
    });
  }

  it("attach() answers with the Response of onRequest", async () => {
    const onRequest = (request: Request) =>
      new Response(`no ${new URL(request.url).pathname}`, { status: 401, headers: { "X-A": "1" } });
    await withAttached({ onRequest }, async (server) => {
      const { response } = await rejection<HandshakeError>(connect(urlOf(server, "/a")));
      assert.equal(response?.status, 401);
      assert.equal(response.headers.get("x-a"), "1");
      const body = response.body as ReadableStream<Uint8Array<ArrayBuffer>>;
      assert.equal(await new Response(body).text(), "no /a");
    });
  });

  it("attach() answers 500 for hooks that throw, and reports them", async () => {
    const fault = new Error("secret");
    const fail = () => {
      throw fault;
    };
    const hooks: AttachOptions[] = [
      { onRequest: fail },
      { onResponse: fail },
      { selectProtocol: fail },
      { path: fail },
    ];
    for (const options of hooks) {
      const errors: unknown[] = [];
      const onError = (error: unknown) => void errors.push(error);
      await withAttached({ ...options, onError }, async (server) => {
        const { response } = await rejection<HandshakeError>(connect(urlOf(server)));
        assert.equal(response?.status, 500);
        const body = response.body as ReadableStream<Uint8Array<ArrayBuffer>>;
        assert.doesNotMatch(await new Response(body).text(), /secret/);
      });
      assert.deepEqual(errors, [fault]);
    }
  });

  it("attach() ends with a client that resets before it is answered", async () => {
    const onRequest = async () => {
      await rest();
    };
    await withAttached({ onRequest }, async (server, { connections }) => {
      const raw = await RawSocket.connect(portOf(server));
      raw.write(upgradeRequest());
      await turn();
      raw.socket.resetAndDestroy();
      await until(() => raw.closed);
      await rest();
      await until(() => connections.size === 0);
      assert.equal(await statusOf(server), 101);
    });
  });
});

describe("The path of attach", () => {
  /** Answers the requests that are left, as another listener of the server would. */
  const answerLeft = (_request: unknown, socket: Duplex) => {
    socket.on("error", () => {});
    socket.end("HTTP/1.1 418 Left\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
  };
  const cases: [name: string, path: AttachOptions["path"], asked: string, status: number][] = [
    ["none", undefined, "/a", 101],
    ["/chat", "/chat", "/chat", 101],
    ["/chat", "/chat", "/chat?a=b", 101],
    ["/chat", "/chat", "/a/../chat", 101],
    ["/chat", "/chat", "/chat/", 418],
    ["/chat", "/chat", "/chat/a", 418],
    ["/chat", "/chat", "//chat", 418],
    ["/chat", "/chat", "/", 418],
    ["/chat", "/chat", "/a?/chat", 418],
    ["a function", (path) => path.startsWith("/rooms/"), "/rooms/1?a", 101],
    ["a function", (path) => path.startsWith("/rooms/"), "/a", 418],
    ["a function of the request", (_, { headers }) => headers["x-a"] === "1", "/a", 101],
    ["a function of the request", (_, { headers }) => headers["x-a"] === "2", "/a", 418],
    ["a function that gives nothing", (() => {}) as never, "/a", 418],
  ];
  for (const [name, path, asked, status] of cases) {
    it(`attach() with the path ${name} gives ${status} to ${asked}`, async () => {
      await withHttp(async (server) => {
        const attached = attach(server, { path }, echo);
        const others = attach(server, { path: "/others" }, echo);
        server.on("upgrade", (request, socket) => {
          if (status === 418) answerLeft(request, socket);
        });
        const request = upgradeRequest({ "X-A": "1" }, `GET ${asked} HTTP/1.1`);
        const answer = await answerTo(server, concat([latin1(request), CLOSE]));
        assert.match(answer, new RegExp(`^HTTP/1\\.1 ${status} `));
        await Promise.all([attached.shutdown(), others.shutdown()]);
      });
    });
  }

  it("attach() several times gives a request to the first that fits", async () => {
    await withHttp(async (server) => {
      const handler = (text: string): Handler => (ws) => ws.send(text);
      const asked: string[] = [];
      const attached = [
        attach(server, { path: "/a" }, handler("a")),
        attach(server, { path: (path) => asked.push(path) > 0 && path === "/b" }, handler("b")),
        attach(server, { onRequest: () => new Response("none", { status: 404 }) }, echo),
      ];
      for (const name of ["a", "b"]) {
        const ws = await connect(urlOf(server, `/${name}`));
        assert.equal(await ws.receive(), name);
        await ws.close();
      }
      assert.equal(await statusOf(server, "/c"), 404);
      assert.deepEqual(asked, ["/b", "/c"]);
      await Promise.all(attached.map((one) => one.shutdown()));
    });
  });
});
