/** What the options, the opening handshake and the calls of both ends do, as lines of a log. */
import { Buffer } from "node:buffer";
import { once } from "node:events";
import { Agent, createServer, type IncomingMessage } from "node:http";
import { connect as connectSocket, type Socket } from "node:net";
import { tmpdir } from "node:os";
import process from "node:process";
import { Duplex } from "node:stream";
import { buffer } from "node:stream/consumers";
import type { VerifyClientInfo, WebSocket } from "../../lib/ws.ts";
import {
  closed,
  type connect,
  ended,
  type Implementation,
  IMPLEMENTATIONS,
  type Log,
  portOf,
} from "./implementations.ts";

/** The two implementations of a pairing, and where the server listens. */
export interface Setting {
  client: Implementation;
  server: Implementation;
  connect: (options?: Parameters<typeof connect>[1]) => ReturnType<typeof connect>;
  log: Log;
}

export interface OptionScenario {
  title: string;
  run(setting: Setting): Promise<void>;
  log: Log;
}

type ServerOptions = ConstructorParameters<Implementation["WebSocketServer"]>[0];
type ClientOptions = ConstructorParameters<Implementation["WebSocket"]>[2];

/** Starts a server, lets a client try to connect, and logs the answer. */
async function attempt(
  { client: { WebSocket }, server: { WebSocketServer }, log }: Setting,
  server: ServerOptions,
  options: ClientOptions & { path?: string; protocols?: string[] } = {},
): Promise<void> {
  const wss = new WebSocketServer({ port: 0, host: "127.0.0.1", ...server });
  if (wss.address() === null) await once(wss, "listening");
  const { path = "/", protocols = [], ...others } = options;
  const ws = new WebSocket(`ws://127.0.0.1:${portOf(wss)}${path}`, protocols, others);
  noteOutcome(ws, log);
  await closed(ws);
  wss.close();
}

/** Logs how an opening handshake ends. An open connection is closed. */
function noteOutcome(ws: WebSocket, log: Log): void {
  ws.on("open", () => {
    log.push(`open ${JSON.stringify(ws.protocol)} ${JSON.stringify(ws.extensions)}`);
    ws.close(1000);
  });
  ws.on("error", (error) => log.push(`error ${error.message}`));
  ws.on("close", (code) => log.push(`close ${code}`));
}

/** Answers a client's request with a head of its own, and logs what the client makes of it. */
async function answered(
  { client: { WebSocket }, log }: Setting,
  answer: (accept: string) => string,
  options: ClientOptions & { protocols?: string[] } = {},
): Promise<void> {
  const http = createServer();
  http.on("upgrade", async (request: IncomingMessage, socket: Socket) => {
    socket.on("error", () => {});
    socket.write(answer(await acceptOf(request.headers["sec-websocket-key"]!)));
  });
  http.listen(0, "127.0.0.1");
  await once(http, "listening");
  const { port } = http.address() as { port: number };
  const { protocols = [], ...others } = options;
  const ws = new WebSocket(`ws://127.0.0.1:${port}/`, protocols, others);
  noteOutcome(ws, log);
  await closed(ws);
  http.closeAllConnections();
  http.close();
}

async function acceptOf(key: string): Promise<string> {
  const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
  const digest = await crypto.subtle.digest("SHA-1", new TextEncoder().encode(key + guid));
  return Buffer.from(digest).toString("base64");
}

const head = (...fields: string[]) =>
  ["HTTP/1.1 101 Switching Protocols", "Connection: Upgrade", ...fields, "", ""].join("\r\n");

function refusedAnswer(
  title: string,
  fields: (accept: string) => string[],
  error: string,
  options: ClientOptions & { protocols?: string[] } = {},
): OptionScenario {
  return {
    title: `The client refuses ${title}`,
    run: (setting) => answered(setting, (accept) => head(...fields(accept)), options),
    log: [`error ${error}`, "close 1006"],
  };
}

const good = (accept: string) => ["Upgrade: websocket", `Sec-WebSocket-Accept: ${accept}`];

const INVALID_BLOCK = "error Z_DATA_ERROR: invalid block type (2)";

export const OPTION_SCENARIOS: readonly OptionScenario[] = [
  {
    title: "handleUpgrade() takes a request and a stream that a program has made",
    async run({ server: { WebSocketServer }, log }) {
      const socket = new Duplex({
        read() {},
        write(chunk, _, done) {
          log.push(`${chunk}`.split("\r\n")[0]);
          done();
        },
      });
      const headers = {
        host: "a",
        connection: "upgrade",
        upgrade: "websocket",
        "sec-websocket-version": "13",
        "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
      };
      const request = {
        method: "GET",
        url: "/",
        headers,
        socket: {},
      } as unknown as IncomingMessage;
      const head = Buffer.from("818100000000" + "61", "hex");
      const wss = new WebSocketServer({ noServer: true });
      wss.handleUpgrade(request, socket, head, (ws) => {
        ws.on("message", (data) => log.push(`message ${data}`));
      });
      await new Promise((resolve) => setTimeout(resolve));
      socket.destroy();
      await Promise.all([...wss.clients].map(closed));
    },
    log: ["HTTP/1.1 101 Switching Protocols", "message a"],
  },
  {
    title: "A message that cannot be inflated fails with the error of zlib",
    async run({ server, connect, log }) {
      const ends = await connect({ server: { perMessageDeflate: true } });
      ends.client._socket!.write(Buffer.from("c185" + "00000000" + "ffffffffff", "hex"));
      await ended(ends);
      // The zlib of Deno gives ws no error.
      if ("Deno" in globalThis && server === IMPLEMENTATIONS.ws) ends.log.server[0] = INVALID_BLOCK;
      log.push(ends.log.server[0]);
    },
    log: [INVALID_BLOCK],
  },
  {
    title: "false refuses parameters of compression that the client asks for",
    async run(setting) {
      for (const name of ["serverNoContextTakeover", "serverMaxWindowBits"] as const) {
        const offered = name === "serverMaxWindowBits" ? 10 : true;
        await attempt(
          setting,
          { perMessageDeflate: { [name]: false } },
          { perMessageDeflate: { [name]: offered } },
        );
      }
    },
    log: [
      ...["error Unexpected server response: 400", "close 1006"],
      ...["error Unexpected server response: 400", "close 1006"],
    ],
  },
  refusedAnswer(
    "client_no_context_takeover if its option is false",
    (accept) => [
      ...good(accept),
      "Sec-WebSocket-Extensions: permessage-deflate; client_no_context_takeover",
    ],
    "Invalid Sec-WebSocket-Extensions header",
    { perMessageDeflate: { clientNoContextTakeover: false } },
  ),
  refusedAnswer(
    "client_max_window_bits if its option is false",
    (
      accept,
    ) => [
      ...good(accept),
      "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=9",
    ],
    "Invalid Sec-WebSocket-Extensions header",
    { perMessageDeflate: { clientMaxWindowBits: false } },
  ),
  {
    title: "A client whose clientMaxWindowBits is false does not offer to limit its window",
    run: (setting) =>
      attempt(setting, {
        perMessageDeflate: { clientMaxWindowBits: false },
        verifyClient: ({ req }: VerifyClientInfo) => {
          setting.log.push(req.headers["sec-websocket-extensions"]!);
          return true;
        },
      }, { perMessageDeflate: { clientMaxWindowBits: false } }),
    log: ["permessage-deflate", 'open "" "permessage-deflate"', "close 1000"],
  },
  {
    title: "The user and the password of the URL are decoded",
    async run({ client: { WebSocket }, server: { WebSocketServer }, log }) {
      const wss = new WebSocketServer({ port: 0, host: "127.0.0.1" });
      if (wss.address() === null) await once(wss, "listening");
      wss.on("connection", (ws, { headers: { authorization } }) => {
        log.push(Buffer.from(authorization!.slice(6), "base64").toString());
        ws.close();
      });
      for (const credentials of ["us%65r:p%3Aw", "user", ":word", "%:%ff"]) {
        await closed(new WebSocket(`ws://${credentials}@127.0.0.1:${portOf(wss)}`));
      }
      wss.close();
    },
    log: ["user:p:w", "user:", ":word", "%:\ufffd"],
  },
  {
    title: "The server takes the first subprotocol, and both ends compress if both ask for it",
    run: (setting) =>
      attempt(setting, { perMessageDeflate: true }, { protocols: ["b", "a"], path: "/x?y" }),
    log: ['open "b" "permessage-deflate"', "close 1000"],
  },
  {
    title: "handleProtocols chooses a subprotocol",
    run: (setting) =>
      attempt(setting, { handleProtocols: (offered) => [...offered].at(-1)! }, {
        protocols: ["a", "b"],
      }),
    log: ['open "b" ""', "close 1000"],
  },
  {
    title: "A client whose subprotocols are all declined fails",
    run: (setting) => attempt(setting, { handleProtocols: () => false }, { protocols: ["a"] }),
    log: ["error Server sent no subprotocol", "close 1006"],
  },
  {
    title: "verifyClient refuses with 401",
    run: (setting) => attempt(setting, { verifyClient: () => false }),
    log: ["error Unexpected server response: 401", "close 1006"],
  },
  {
    title: "verifyClient sees the origin, and refuses later with a status of its own",
    run: (setting) =>
      attempt(setting, {
        verifyClient: ({ origin, secure, req }, callback) => {
          setting.log.push(`verify ${origin} ${secure} ${req.url}`);
          setTimeout(() => callback(false, 429, "later", { "Retry-After": "1" }), 1);
        },
      }, { origin: "http://a" }),
    log: ["verify http://a false /", "error Unexpected server response: 429", "close 1006"],
  },
  {
    title: "A request for another path is refused with 400",
    run: (setting) => attempt(setting, { path: "/chat" }, { path: "/chatter" }),
    log: ["error Unexpected server response: 400", "close 1006"],
  },
  {
    title: "A query does not belong to the path, and version 8 is accepted",
    run: (setting) =>
      attempt(setting, { path: "/chat" }, { path: "/chat?a=b", protocolVersion: 8 }),
    log: ['open "" ""', "close 1000"],
  },
  {
    title: "A wrong request is given to wsClientError",
    async run({ server: { WebSocketServer }, log }) {
      const wss = new WebSocketServer({ port: 0, host: "127.0.0.1" });
      if (wss.address() === null) await once(wss, "listening");
      wss.on("wsClientError", (error, socket, request) => {
        log.push(`${error.message} ${request.method}`);
        socket.end("HTTP/1.1 418 I'm a teapot\r\nConnection: close\r\n\r\n");
      });
      const lines = ["Host: a", "Connection: Upgrade", "Upgrade: websocket"];
      const version = "Sec-WebSocket-Version: 13";
      const key = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==";
      const requests = [
        ["POST / HTTP/1.1", ...lines, version, key],
        ["GET / HTTP/1.1", ...lines, version],
        ["GET / HTTP/1.1", ...lines, key],
        ["GET / HTTP/1.1", ...lines, version, key, "Sec-WebSocket-Protocol: a;b"],
      ];
      for (const request of requests) {
        const socket = connectSocket(portOf(wss), "127.0.0.1");
        socket.write(`${request.join("\r\n")}\r\n\r\n`);
        log.push(`${(await buffer(socket))}`.split("\r\n")[0]);
      }
      wss.close();
    },
    log: [
      "Invalid HTTP method POST",
      "Missing or invalid Sec-WebSocket-Key header GET",
      "Missing or invalid Sec-WebSocket-Version header GET",
      "Invalid Sec-WebSocket-Protocol header GET",
    ].flatMap((line) => [line, "HTTP/1.1 418 I'm a teapot"]),
  },
  {
    title: "handleUpgrade() serves the requests that shouldHandle() takes",
    async run({ client: { WebSocket }, server: { WebSocketServer }, log }) {
      const wss = new WebSocketServer({ noServer: true, path: "/a" });
      const http = createServer();
      wss.on("headers", (lines, request) => {
        log.push(`${lines[0]} for ${request.url}`);
        lines.push("X-Added: yes");
      });
      http.on("upgrade", (request, socket, head) => {
        if (!wss.shouldHandle(request)) return socket.end("HTTP/1.1 404 Not Found\r\n\r\n");
        wss.handleUpgrade(request, socket, head, (ws) => ws.send(`${wss.clients.size}`));
      });
      http.listen(0, "127.0.0.1");
      await once(http, "listening");
      const { port } = http.address() as { port: number };
      const ws = new WebSocket(`ws://127.0.0.1:${port}/a`);
      ws.on("upgrade", (response) => log.push(`added ${response.headers["x-added"]}`));
      const [data] = await once(ws, "message");
      log.push(`${data} client`);
      ws.close();
      await closed(ws);
      const other = new WebSocket(`ws://127.0.0.1:${port}/b`);
      other.on("unexpected-response", (_, response) => {
        log.push(`status ${response.statusCode}`);
        other.terminate();
      });
      other.on("error", () => {});
      await closed(other);
      http.close();
    },
    log: ["HTTP/1.1 101 Switching Protocols for /a", "added yes", "1 client", "status 404"],
  },
  refusedAnswer("another upgrade", () => ["Upgrade: h2c"], "Invalid Upgrade header"),
  refusedAnswer(
    "a wrong Sec-WebSocket-Accept",
    () => good("AAAAAAAAAAAAAAAAAAAAAAAAAAA="),
    "Invalid Sec-WebSocket-Accept header",
  ),
  refusedAnswer(
    "a subprotocol that was not offered",
    (accept) => [...good(accept), "Sec-WebSocket-Protocol: z"],
    "Server sent an invalid subprotocol",
    { protocols: ["a"] },
  ),
  refusedAnswer(
    "a subprotocol if none was offered",
    (accept) => [...good(accept), "Sec-WebSocket-Protocol: z"],
    "Server sent a subprotocol but none was requested",
  ),
  refusedAnswer(
    "an extension if none was offered",
    (accept) => [...good(accept), "Sec-WebSocket-Extensions: permessage-deflate"],
    "Server sent a Sec-WebSocket-Extensions header but no extension was requested",
    { perMessageDeflate: false },
  ),
  refusedAnswer(
    "another extension",
    (accept) => [...good(accept), "Sec-WebSocket-Extensions: other"],
    "Server indicated an extension that was not requested",
  ),
  refusedAnswer(
    "a wrong parameter of an extension",
    (accept) => [
      ...good(accept),
      "Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=7",
    ],
    "Invalid Sec-WebSocket-Extensions header",
  ),
  {
    title: "A redirect is followed without the secrets of the first host, and reported",
    async run(setting) {
      const { log } = setting;
      const target = createServer();
      target.on("upgrade", (request, socket) => {
        const { authorization, cookie, "x-kept": kept } = request.headers;
        log.push(`${authorization} ${cookie} ${kept}`);
        socket.end("HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\n");
      });
      target.listen(0, "127.0.0.1");
      await once(target, "listening");
      const { port } = target.address() as { port: number };
      await answered(
        setting,
        () =>
          `HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: ws://127.0.0.1:${port}/b\r\n\r\n`,
        {
          followRedirects: true,
          auth: "a:b",
          headers: { Cookie: "secret", "X-Kept": "yes" },
        },
      );
      target.closeAllConnections();
      target.close();
    },
    log: ["undefined undefined yes", "error Unexpected server response: 403", "close 1006"],
  },
  {
    title: "Too many redirects fail",
    run: (setting) =>
      answered(
        setting,
        () => "HTTP/1.1 307 Temporary Redirect\r\nConnection: close\r\nLocation: /again\r\n\r\n",
        { followRedirects: true, maxRedirects: 2 },
      ),
    log: ["error Maximum redirects exceeded", "close 1006"],
  },
  {
    title: "A redirect to something else than a WebSocket fails",
    run: (setting) =>
      answered(
        setting,
        () => "HTTP/1.1 302 Found\r\nConnection: close\r\nLocation: ftp://a/\r\n\r\n",
        { followRedirects: true },
      ),
    log: [
      'error The URL\'s protocol must be one of "ws:", "wss:", "http:", "https:", or "ws+unix:"',
      "close 1006",
    ],
  },
  {
    title: "handshakeTimeout ends a handshake without an answer",
    run: (setting) => answered(setting, () => "", { handshakeTimeout: 50 }),
    log: ["error Opening handshake has timed out", "close 1006"],
  },
  {
    title: "close() and terminate() end a client that is still connecting",
    async run({ client: { WebSocket }, log }) {
      for (const method of ["close", "terminate"] as const) {
        const ws = new WebSocket("ws://127.0.0.1:1");
        noteOutcome(ws, log);
        ws[method]();
        log.push(`state ${ws.readyState}`);
        await closed(ws);
      }
    },
    log: ["close", "terminate"].flatMap(() => [
      "state 2",
      "error WebSocket was closed before the connection was established",
      "close 1006",
    ]),
  },
  {
    title: "An agent and createConnection make the socket",
    async run({ client: { WebSocket }, server: { WebSocketServer }, log }) {
      const wss = new WebSocketServer({ port: 0, host: "127.0.0.1" });
      if (wss.address() === null) await once(wss, "listening");
      class OwnAgent extends Agent {
        override createConnection(options: object): Socket {
          log.push("agent");
          return connectSocket(options as { port: number; host: string });
        }
      }
      const createConnection = (options: object) => {
        log.push("createConnection");
        return connectSocket(options as { port: number; host: string });
      };
      for (const options of [{ agent: new OwnAgent() }, { createConnection }]) {
        const ws = new WebSocket(`ws://127.0.0.1:${portOf(wss)}`, options as never);
        noteOutcome(ws, log);
        await closed(ws);
      }
      wss.close();
    },
    log: ["agent", 'open "" ""', "close 1000", "createConnection", 'open "" ""', "close 1000"],
  },
  {
    title: "A Unix socket is reached with ws+unix",
    async run({ client: { WebSocket }, server: { WebSocketServer }, log }) {
      const path = `${tmpdir()}/sluice-ws-${process.pid}-${Math.random()}.sock`;
      const http = createServer().listen(path);
      await once(http, "listening");
      const wss = new WebSocketServer({ server: http });
      wss.on("connection", (_, request) => log.push(request.url!));
      log.push(`${wss.address() === path}`);
      const ws = new WebSocket(`ws+unix:${path}:/room?a`);
      noteOutcome(ws, log);
      await closed(ws);
      http.close();
    },
    log: ["true", "/room?a", 'open "" ""', "close 1000"],
  },
  {
    title: "Callbacks of send() come in order, and with an error after the close",
    async run({ connect, log }) {
      const ends = await connect();
      const { client } = ends;
      for (const i of [1, 2, 3]) client.send(`${i}`, (error) => log.push(`${i} ${error?.message}`));
      client.ping("p", true, (error) => log.push(`ping ${error?.message}`));
      client.close();
      client.send("late", (error) => log.push(`late ${error?.message}`));
      log.push(`${client.bufferedAmount >= 4}`);
      await ended(ends);
      client.send("12345");
      client.pong("67");
      log.push(`${client.bufferedAmount}`);
      log.sort();
    },
    log: [
      "1 undefined",
      "11",
      "2 undefined",
      "3 undefined",
      "late WebSocket is not open: readyState 2 (CLOSING)",
      "ping undefined",
      "true",
    ],
  },
  {
    title: "The callbacks of compressed messages get an error after terminate()",
    async run({ connect, log }) {
      const ends = await connect({ server: { port: 0, perMessageDeflate: { threshold: 0 } } });
      const { client } = ends;
      client.send("a", { compress: true });
      client.send("b", { compress: true }, (error) => log.push(`${error?.message}`));
      client.ping("c", true, (error) => log.push(`${error?.message}`));
      log.push(`${client.bufferedAmount}`);
      client.terminate();
      await ended(ends);
      log.push(...ends.log.server);
    },
    log: [
      "3",
      "The socket was closed while data was being compressed",
      "The socket was closed while data was being compressed",
      'close 1006 "" (3)',
    ],
  },
  {
    title: "Wrong arguments throw",
    async run({ client: { WebSocket }, server: { WebSocketServer }, connect, log }) {
      const note = (run: () => void) => {
        try {
          run();
          log.push("nothing thrown");
        } catch (error) {
          const { name, message } = error as Error;
          log.push(`${name}: ${message}`);
        }
      };
      note(() => new WebSocket("nowhere"));
      note(() => new WebSocket("ws://a#b"));
      note(() => new WebSocket("ws://a", ["a", "a"]));
      note(() => new WebSocket("ws://a", { protocolVersion: 9 }));
      note(() => new WebSocketServer({}));
      const ends = await connect();
      note(() => ends.client.close(1005));
      note(() => ends.client.close(1000, "x".repeat(124)));
      note(() => ends.client.ping("x".repeat(126)));
      note(() => ends.client.send({} as never));
      ends.client.close();
      await ended(ends);
    },
    log: [
      "SyntaxError: Invalid URL: nowhere",
      "SyntaxError: The URL contains a fragment identifier",
      "SyntaxError: An invalid or duplicated subprotocol was specified",
      "RangeError: Unsupported protocol version: 9 (supported versions: 8, 13)",
      'TypeError: One and only one of the "port", "server", or "noServer" options must be specified',
      "TypeError: First argument must be a valid error code number",
      "RangeError: The message must not be greater than 123 bytes",
      "RangeError: The data size must not be greater than 125 bytes",
      "TypeError: The first argument must be of type string or an instance of Buffer, ArrayBuffer, " +
      "or Array or an Array-like Object. Received an instance of Object",
    ],
  },
  {
    title: "Listeners are given event objects, once, and until they are removed",
    async run({ connect, log }) {
      const ends = await connect();
      const { client, server } = ends;
      const twice = { handleEvent: ({ data }: { data: unknown }) => log.push(`object ${data}`) };
      client.addEventListener("message", twice);
      client.addEventListener("message", twice);
      client.addEventListener("message", ({ type }) => log.push(`once ${type}`), { once: true });
      client.onmessage = () => log.push("replaced");
      client.onmessage = ({ data, target }) => log.push(`attribute ${data} ${target === client}`);
      client.onclose = ({ code, reason, wasClean }) => log.push(`${code} ${reason} ${wasClean}`);
      server.send("1");
      await once(client, "message");
      client.removeEventListener("message", twice);
      client.onmessage = null;
      log.push(`${client.onmessage}`);
      server.send("2");
      await once(client, "message");
      server.close(1001, "bye");
      await ended(ends);
    },
    log: ["object 1", "once message", "attribute 1 true", "null", "1001 bye true"],
  },
  {
    title: "Binary messages have the type that binaryType says",
    async run({ connect, log }) {
      const ends = await connect();
      const { client, server } = ends;
      for (const type of ["nodebuffer", "arraybuffer", "fragments", "blob"] as const) {
        client.binaryType = type;
        server.send(Buffer.from("ab"), { fin: false });
        server.send(Buffer.from("cd"));
        const [data] = await once(client, "message");
        const parts = Array.isArray(data) ? data.map((part) => `${part}`).join("|") : "";
        log.push(
          `${type} ${data.constructor.name} ${
            data.length ?? data.byteLength ?? data.size
          } ${parts}`,
        );
      }
      client.binaryType = "other" as never;
      log.push(client.binaryType);
      client.close();
      await ended(ends);
    },
    log: [
      "nodebuffer Buffer 4 ",
      "arraybuffer ArrayBuffer 4 ",
      "fragments Array 2 ab|cd",
      "blob Blob 4 ",
      "blob",
    ],
  },
  {
    title: "Blobs are sent in order with other messages",
    async run({ connect, log }) {
      const ends = await connect({ server: { port: 0, perMessageDeflate: { threshold: 0 } } });
      const { client, server } = ends;
      server.on("message", (data, isBinary) => log.push(`${data} ${isBinary}`));
      client.send("first");
      client.send(new Blob(["blob"]));
      client.send(new Blob(["plain"]), { compress: false, binary: false });
      client.ping();
      client.send("last");
      client.close();
      await ended(ends);
    },
    log: ["first false", "blob true", "plain false", "last false"],
  },
  {
    title: "generateMask makes the masking keys, and mask: false leaves them out",
    async run({ connect, log }) {
      const keys = (mask: Buffer) => void mask.fill(7);
      const ends = await connect({ client: { generateMask: keys } });
      const { client, server } = ends;
      const frames: Buffer[] = [];
      server._socket!.prependListener("data", (chunk: Buffer) => frames.push(Buffer.from(chunk)));
      client.send("a");
      client.ping("b");
      client.send("c", { mask: false });
      server.on("error", () => {});
      await ended(ends);
      log.push(Buffer.concat(frames).subarray(0, 17).toString("hex"));
    },
    log: ["81810707070766" + "89810707070765" + "810163"],
  },
  {
    title: "pause() holds the peer back, and resume() lets everything through",
    async run({ connect, log }) {
      const ends = await connect();
      const { client, server } = ends;
      client.pause();
      log.push(`${client.isPaused}`);
      const chunk = Buffer.alloc(1 << 20);
      for (let i = 0; i < 40; i++) server.send(chunk);
      await new Promise((resolve) => setTimeout(resolve, 50));
      log.push(`${server.bufferedAmount > 0}`);
      let received = 0;
      client.on("message", (data) => received += (data as Buffer).length);
      client.resume();
      server.close();
      await ended(ends);
      log.push(`${client.isPaused} ${received === 40 << 20} ${server.bufferedAmount}`);
    },
    log: ["true", "true", "false true 0"],
  },
  {
    title: "A stream carries bytes in both directions, and ends both sides",
    async run({ client, server, connect, log }) {
      const ends = await connect();
      const near = client.createWebSocketStream(ends.client);
      const far = server.createWebSocketStream(ends.server);
      far.pipe(far);
      const sent = Buffer.alloc(1 << 20, "abc");
      const received = buffer(near);
      for (let at = 0; at < sent.length; at += 50_000) near.write(sent.subarray(at, at + 50_000));
      let seen = 0;
      near.on("data", (chunk: Buffer) => (seen += chunk.length) === sent.length && near.end());
      log.push(`${(await received).equals(sent)}`);
      await ended(ends);
      log.push(`${near.destroyed} ${far.destroyed}`);
    },
    log: ["true", "true true"],
  },
  {
    title: "A stream in object mode gives strings, and destroy() terminates the connection",
    async run({ client, connect, log }) {
      const ends = await connect();
      const stream = client.createWebSocketStream(ends.client, { readableObjectMode: true });
      ends.server.send("text");
      ends.server.send(Buffer.from("bytes"));
      await new Promise<void>((resolve) =>
        stream.on("data", (item) => {
          if (log.push(typeof item) === 2) resolve();
        })
      );
      stream.destroy();
      await once(stream, "close");
      await ended(ends);
      log.push(...ends.log.server.slice(-1));
    },
    log: ["string", "object", 'close 1006 "" (3)'],
  },
  {
    title: "closeTimeout cuts a peer that does not answer the Close",
    async run({ connect, log }) {
      const ends = await connect({ client: { closeTimeout: 50 } });
      ends.server.pause();
      ends.client.close(1000);
      await closed(ends.client);
      log.push(ends.log.client.at(-1)!);
      ends.server.resume();
      await ended(ends);
    },
    log: ['close 1006 "" (3)'],
  },
  {
    title: "close() of a server reports its end, also the second time",
    async run({ server: { WebSocketServer }, log }) {
      const wss = new WebSocketServer({ port: 0, host: "127.0.0.1" });
      await once(wss, "listening");
      const other = new WebSocketServer({ port: portOf(wss), host: "127.0.0.1" });
      const [error] = await once(other, "error");
      log.push(error.code);
      await new Promise<void>((resolve) =>
        wss.close((error) => resolve(void log.push(`${error}`)))
      );
      await new Promise<void>((resolve) =>
        wss.close((error) => resolve(void log.push(`${error}`)))
      );
      log.push(`${wss.address()}`);
    },
    log: ["EADDRINUSE", "undefined", "Error: The server is not running", "null"],
  },
];
