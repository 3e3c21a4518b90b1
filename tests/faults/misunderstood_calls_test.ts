/** Calls in the style of other libraries: each one fails with an error that says what to write instead. */
import { describe } from "node:test";
import assert from "node:assert/strict";
import { createServer, type IncomingMessage } from "node:http";
import { connect as connectSession, createServer as createHttp2Server } from "node:http2";
import { EventEmitter } from "node:events";
import { Duplex } from "node:stream";
import { it, knownLimit } from "../it.ts";
import {
  accept,
  basicAuth,
  broadcast,
  connect,
  fromWebSocket,
  reconnect,
  serve,
  WebSocketStream,
} from "../../mod.ts";
import * as browser from "../../lib/browser.ts";
import { attachHttp2, connectHttp2, upgradeHttp2 } from "../../lib/http2.ts";
import { attach, upgrade } from "../../lib/node.ts";
import { Endpoint, FrameDecoder, PerMessageDeflate, Protocol } from "../../lib/core/mod.ts";
import {
  assemble,
  FrameDecoderStream,
  FrameEncoderStream,
  MessageAssemblerStream,
  MessageFragmenterStream,
} from "../../lib/streams.ts";
import { pair, transportPair } from "../../lib/testing.ts";
import { deflateEngine } from "../../lib/zlib.ts";
import { FakeSocket } from "../native_sockets.ts";
import { echo, urlOf } from "../support.ts";

type Options = Record<string, unknown>;
type Case = [given: Options, message: RegExp];

const URL = "ws://127.0.0.1:1/";
const PROVIDER = { connect() {}, listen() {} };
const skipServer = "Deno" in globalThis && knownLimit("attachHttp2() is not there on Deno");

/** Calls of each function with options that it does not have, and the message of the error. */
const CALLS: [
  name: string,
  call: (options: never) => unknown,
  cases: Case[],
  skip?: false | string,
][] = [
  ["connect", (options) => connect(URL, options), [
    [{ maxPayload: 1 }, /^connect\(\) has no option maxPayload: use maxMessageSize$/],
    [{ perMessageDeflate: false }, /perMessageDeflate: use compression$/],
    [{ handshakeTimeout: 1 }, /handshakeTimeout: use openTimeout$/],
    [{ followRedirects: true }, /followRedirects: use maxRedirects$/],
    [{ rejectUnauthorized: false }, /rejectUnauthorized: use tls: \{ ca \}/],
    [{ agent: {} }, /agent: use `proxy`/],
    [{ subprotocols: [] }, /subprotocols: use protocols$/],
    [{ max_size: 1 }, /max_size: use maxMessageSize$/],
    [{ ping_interval: 1 }, /ping_interval: use pingInterval$/],
    [{ additional_headers: {} }, /additional_headers: use headers$/],
    [{ maxMesageSize: 1 }, /maxMesageSize: use maxMessageSize$/],
    [{ header: {} }, /header: use headers$/],
    [{ nonsense: 1 }, /^connect\(\) has no option nonsense$/],
    [{ duplex: transportPair()[0] }, /duplex: use transport$/],
    [{ path: "/tmp/a" }, /path: use unix$/],
    [{ transport: PROVIDER }, /^Expected transport to be .*: write \{ provider \}$/],
    [{ provider: transportPair()[0] }, /^Expected provider to be .*: write \{ transport \}$/],
    [{ minDelay: 1 }, /minDelay/],
    [Object.create({ maxPayload: 1 }), /maxPayload/],
    [{ tls: { rejectUnauthorized: false } }, /^tls has no option rejectUnauthorized/],
    [{ tls: { ALPNProtocols: [] } }, /ALPNProtocols: use alpn$/],
    [{ compression: { windowBits: 9 } }, /^compression has no option windowBits/],
    [{ compression: { server_no_context_takeover: true } }, /use serverNoContextTakeover$/],
    [{ readableStrategy: { highwaterMark: 1 } }, /highwaterMark: use highWaterMark$/],
    [{ proxy: { url: "http://127.0.0.1:1", auth: "a:b" } }, /^proxy has no option auth/],
  ]],
  ["serve", (options) => serve(options, echo), [
    [{ verifyClient: () => false }, /^serve\(\) has no option verifyClient: use onRequest$/],
    [{ host: "0.0.0.0" }, /host: use hostname$/],
    [{ path: "/tmp/a" }, /path: use unix$/],
    [{ transport: PROVIDER }, /transport: use provider$/],
    [{ maxPayload: 1 }, /maxPayload: use maxMessageSize$/],
    [{ maxPayloadLength: 1 }, /maxPayloadLength: use maxMessageSize$/],
    [{ handleProtocols: () => "" }, /handleProtocols: use selectProtocol$/],
    [{ idleTimeout: 1 }, /idleTimeout: use pingTimeout$/],
    [{ backpressureLimit: 1 }, /backpressureLimit: use maxBufferedAmount$/],
    [{ websocket: {} }, /websocket: the handler is an argument/],
    [{ fetch: () => {} }, /fetch: plain requests are for `onRequest`/],
    [{ onListen: () => {} }, /onListen: await serve\(\)/],
    [{ cert: "" }, /cert: write tls: \{ cert, key \}/],
    [{ server: {} }, /server: use attach\(\)/],
    [{ process_request: () => {} }, /process_request: use onRequest$/],
    [{ allowRequest: () => {} }, /allowRequest: use onRequest$/],
    [{ origin: "a" }, /origin: use origins$/],
    [{ limits: { maxHeaderSize: 1 } }, /^limits has no option maxHeaderSize: use maxHeadSize$/],
    [{ tls: { cert: "", key: "", servername: "a" } }, /^tls has no option servername/],
  ]],
  ["accept", (options) => accept(transportPair()[0], options), [
    [{ verifyClient: () => false }, /^accept\(\) has no option verifyClient/],
  ]],
  ["attach", (options) => attach(createServer(), options, echo), [
    [{ verifyClient: () => false }, /^attach\(\) has no option verifyClient/],
    [{ maxPayload: 1 }, /use maxMessageSize$/],
    [{ port: 1 }, /port: the port is that/],
    [{ tls: {} }, /TLS is the HTTP server's/],
    [{ limits: {} }, /limits of its own/],
  ]],
  [
    "upgrade",
    (options) => upgrade({} as IncomingMessage, new Duplex(), new Uint8Array(), options),
    [
      [{ verifyClient: () => false }, /^upgrade\(\) has no option verifyClient/],
      [{ path: "/" }, /path: the path is that/],
    ],
  ],
  ["attachHttp2", (options) => attachHttp2(createHttp2Server(), options, echo), [
    [{ maxPayload: 1 }, /^attachHttp2\(\) has no option maxPayload: use maxMessageSize$/],
  ]],
  [
    "upgradeHttp2",
    (options) => upgradeHttp2(new Duplex() as never, {}, options),
    [[{ path: "/" }, /^upgradeHttp2\(\) has no option path/]],
  ],
  ["connectHttp2", (options) => {
    const session = connectSession("http://127.0.0.1:1");
    session.on("error", () => {});
    return connectHttp2(session, URL, options);
  }, [
    [{ maxPayload: 1 }, /^connectHttp2\(\) has no option maxPayload: use maxMessageSize$/],
    [{ proxy: URL }, /^connectHttp2\(\) has no option proxy$/],
  ]],
  ["reconnect", (options) => reconnect(URL, options), [
    [{ maxRetries: 1 }, /^reconnect\(\) has no option maxRetries: use maxAttempts$/],
    [{ reconnectInterval: 1 }, /use minDelay$/],
    [{ connectionTimeout: 1 }, /use openTimeout$/],
    [{ maxPayload: 1 }, /use maxMessageSize$/],
  ]],
  ["broadcast", (options) => broadcast([], "a", options), [
    [{ exclude: [] }, /^broadcast\(\) has no option exclude$/],
    [{ maxBackpressure: 1 }, /use maxBufferedAmount$/],
  ]],
  ["fromWebSocket", (options) => fromWebSocket(new FakeSocket(), options), [
    [{ maxPayload: 1 }, /^fromWebSocket\(\) has no option maxPayload: use maxMessageSize$/],
    [{ pingInterval: 1 }, /^fromWebSocket\(\) has no option pingInterval$/],
  ]],
  ["connect of the browser", (options) => browser.connect(URL, options), [
    [{ subprotocols: [] }, /^connect\(\) has no option subprotocols: use protocols$/],
    [{ request: {} }, /^connect\(\) has no option request$/],
  ]],
  ["pair", (options) => pair(options), [
    [{ latency: 1 }, /^pair\(\) has no option latency$/],
    [{ client: { maxPayload: 1 } }, /^connect\(\) has no option maxPayload/],
    [{ fault: { from: "client", after: 1, how: "end", when: 1 } }, /^fault has no option when$/],
  ]],
  ["transportPair", (options) => transportPair(options), [
    [{ url: URL }, /^transportPair\(\) has no option url$/],
  ]],
  ["PerMessageDeflate", (options) => new PerMessageDeflate(options), [
    [{ engine: deflateEngine, windowBits: 9 }, /use serverMaxWindowBits and clientMaxWindowBits$/],
    [{ engine: deflateEngine, maxPayload: 9 }, /use maxMessageSize$/],
  ]],
  ["Endpoint", (options) => new Endpoint("client", options), [
    [{ maxPayload: 1 }, /^Endpoint has no option maxPayload: use maxMessageSize$/],
  ]],
  ["Endpoint of a server", (options) => new Endpoint("server", options), [
    [{ limits: { maxHeaderSize: 1 } }, /^limits has no option maxHeaderSize: use maxHeadSize$/],
  ]],
  ["Protocol", (options) => new Protocol("client", options), [
    [{ max_message_size: 1 }, /^Protocol has no option max_message_size: use maxMessageSize$/],
  ]],
  ["assemble", (options) => assemble({} as never, options), [
    [{ role: "client", maxPayload: 1 }, /^assemble\(\) .*: use maxMessageSize$/],
    [{ role: "client", pingInterval: 1 }, /^assemble\(\) has no option pingInterval$/],
  ]],
  ["FrameDecoderStream", (options) => new FrameDecoderStream(options), [
    [{ role: "client", maxPayload: 1 }, /maxPayload$/],
    [{ role: "client", maxFrameLength: 1 }, /: use maxFrameSize$/],
  ]],
  ["FrameEncoderStream", (options) => FrameEncoderStream.batched(options), [
    [{ role: "client", mask: true }, /^FrameEncoderStream has no option mask$/],
  ]],
  ["MessageAssemblerStream", (options) => MessageAssemblerStream.batched(options), [
    [{ maxPayload: 1 }, /: use maxMessageSize$/],
  ]],
  ["MessageFragmenterStream", (options) => new MessageFragmenterStream(options), [
    [{ maxFrameLength: 1 }, /: use maxFrameSize$/],
  ]],
  ["basicAuth", (options) => basicAuth(options), [
    [{ verify: () => true, users: {} }, /^basicAuth\(\) has no option users$/],
  ]],
];

/** Checks that the call throws or rejects with a TypeError that has this message. */
async function refuses(call: () => unknown, message: RegExp): Promise<void> {
  await assert.rejects(async () => await call(), { name: "TypeError", message });
}

describe("F options of other libraries", () => {
  for (const [name, call, cases] of CALLS) {
    for (const [options, message] of cases) {
      it(`F ${name}: ${message.source}`, async () => {
        await refuses(() => call(options as never), message);
      });
    }
  }

  it("F an undefined option counts as omitted", async () => {
    const [client, server] = await pair({ client: { maxPayload: undefined } as never });
    await client.send("a", { binary: undefined } as never);
    assert.equal(await server.receive({ timeout: undefined } as never), "a");
    await client.close({ code: undefined } as never);
  });

  it("F a strategy of a class may have members of its own", async () => {
    class Strategy {
      highWaterMark = 1000;
      unit = 1;
      size = () => this.unit;
    }
    const [client, server] = await pair({ server: { readableStrategy: new Strategy() } });
    await client.send("abc");
    assert.equal(await server.receive(), "abc");
    await client.close();
    const native = new CountQueuingStrategy({ highWaterMark: 5 });
    await (await pair({ server: { readableStrategy: native } }))[0].close();
  });

  it("F WebSocketStream ignores members that it does not know, as Web IDL has it", async () => {
    for (const Class of [WebSocketStream, browser.WebSocketStream]) {
      const signal = AbortSignal.abort(new Error("enough"));
      const stream = Reflect.construct(Class, [URL, { signal, maxPayload: 1 }]) as InstanceType<
        typeof WebSocketStream
      >;
      await assert.rejects(stream.opened, { message: "enough" });
    }
  });
});

describe("F hints that fit", () => {
  const hints: [name: string, call: () => unknown, message: RegExp][] = [
    [
      "a server has no insecureSkipVerify",
      () => serve({ rejectUnauthorized: false } as never, echo),
      /^serve\(\) has no option rejectUnauthorized$/,
    ],
    [
      "nor a proxy",
      () => serve({ agent: {} } as never, echo),
      /^serve\(\) has no option agent$/,
    ],
    [
      "users of a server are a hook's",
      () => serve({ auth: "a:b" } as never, echo),
      /auth: use onRequest: basicAuth/,
    ],
    [
      "close() has no handler",
      () => pair().then(([ws]) => ws.close({ onmessage: 1 } as never)),
      /^close\(\) has no option onmessage$/,
    ],
    [
      "inside of tls",
      () => connect("wss://127.0.0.1:1", { tls: { rejectUnauthorized: false } } as never),
      /^tls has no option rejectUnauthorized: use `ca`/,
    ],
    [
      "limits have no port",
      () => serve({ limits: { port: 1 } } as never, echo),
      /^limits has no option port$/,
    ],
  ];
  for (const [name, call, message] of hints) it(`F ${name}`, () => refuses(call, message));
});

describe("F wrong values are reported, not ignored", () => {
  const cert = "-----BEGIN CERTIFICATE-----";
  const rows: [name: string, call: () => unknown, message: RegExp, error?: string][] = [
    // Options that exist, but have no meaning for the function.
    ["accept({ tls })", () => accept(transportPair()[0], { tls: {} } as never), /TLS is the HTTP/],
    ["accept({ port })", () => accept(transportPair()[0], { port: 1 } as never), /port is that of/],
    [
      "pair({ server: { hostname } })",
      () => pair({ server: { hostname: "a" } as never }),
      /host is/,
    ],
    // Origins that no browser sends.
    ["origins: *", () => serve({ origins: "*" as never }, echo), /leave the option out/],
    ["origins: a string", () => serve({ origins: "https://a" as never }, echo), /an array/],
    ["origins: true", () => serve({ origins: true as never }, echo), /an array/],
    [
      "origins: a URL",
      () => serve({ origins: [new globalThis.URL("https://a")] as never }, echo),
      /array/,
    ],
    ["origins: [*]", () => serve({ origins: ["*"] }, echo), /"\*"$/, "RangeError"],
    [
      "origins with a path",
      () => serve({ origins: ["https://a.test/"] }, echo),
      /like "https:\/\/a\.test", received/,
      "RangeError",
    ],
    [
      "origins with a default port",
      () => attach(createServer(), { origins: ["https://A.test:443"] }, echo),
      /like "https:\/\/a\.test"/,
      "RangeError",
    ],
    ["origins without a scheme", () => serve({ origins: ["a.test"] }, echo), /like/, "RangeError"],
    // Paths that no request can have.
    ...["/\u00fc", "/a b", "/chat?x=1", "/chat#x", "/a/../b"].map((
      path,
    ): [string, () => unknown, RegExp, string] => [
      `path: ${path}`,
      () => attach(createServer(), { path }, echo),
      /^Expected path to be the pathname of a URL, like \//,
      "RangeError",
    ]),
    // Servers that do not emit 'upgrade'.
    [
      "attach(undefined)",
      () => attach(undefined as never, {}, echo),
      /^Expected a server of node:http/,
    ],
    ["attach(port)", () => attach(8080 as never, {}, echo), /Expected a server of node:http/],
    ["attach(app) of Express", () => {
      const app = Object.assign(() => {}, new EventEmitter(), { listen() {} });
      Object.setPrototypeOf(app, EventEmitter.prototype);
      return attach(app as never, {}, echo);
    }, /In Express, app\.listen\(\) returns it/],
    ["attach(app) of Fastify", () => {
      return attach({ server: createServer(), listen() {}, close() {} } as never, {}, echo);
    }, /in Fastify, it is app\.server/],
    ["attachHttp2(server of HTTP/1.1)", () => {
      return attachHttp2(createServer() as never, {}, echo);
    }, /Expected a server of node:http2/],
    // Header fields that would be sent as different text.
    ...([
      [{ "X-A": undefined }, /the X-A header to be a string, received undefined/],
      [{ "X-A": null }, /received null/],
      [{ "X-A": ["a", "b"] }, /write one \[name, value\] for each/],
      [["X-A: b"], /to be \[name, value\]/],
      [[["X-A"]], /to be \[name, value\]/],
      [[["X-A", "b", "c"]], /to be \[name, value\]/],
      ["X-A: b", /headers to be an object/],
    ] as [unknown, RegExp][]).flatMap(([headers, message]): [string, () => unknown, RegExp][] => [
      [`connect({ headers: ${JSON.stringify(headers)} })`, () => {
        return connect(URL, { headers: headers as never });
      }, message],
      [`serve({ headers: ${JSON.stringify(headers)} })`, () => {
        return serve({ headers: headers as never }, echo);
      }, message],
    ]),
    // Other options of the wrong type.
    ["origin", () => connect(URL, { origin: {} as never }), /origin to be a string/],
    ["userAgent", () => connect(URL, { userAgent: true as never }), /userAgent to be a string/],
    [
      "provider of connect()",
      () => connect(URL, { provider: {} as never }),
      /methods connect\(\)/,
    ],
    [
      "provider of serve()",
      () => serve({ provider: "tcp" as never }, echo),
      /methods connect\(\)/,
    ],
    [
      "insecureSkipVerify",
      () => connect("wss://127.0.0.1:1", { tls: { insecureSkipVerify: "false" as never } }),
      /tls\.insecureSkipVerify to be true or false/,
    ],
    ["tls without a key", () => connect("wss://127.0.0.1:1", { tls: { cert } }), /together/],
    [
      "broadcast({ compress })",
      () => broadcast([], "a", { compress: "no" as never }),
      /true or false/,
    ],
  ];
  for (const [name, call, message, error = "TypeError"] of rows) {
    const skip = name.startsWith("attachHttp2") && skipServer;
    it(`F ${name}`, { skip }, async () => {
      await assert.rejects(async () => await call(), { name: error, message });
    });
  }

  it("F send() and receive() refuse values of the wrong type, and send nothing", async () => {
    const [client, server] = await pair();
    for (const options of [{ text: "yes" }, { compress: 1 }, { signal: {} }]) {
      await refuses(
        () => client.send("a", options as never),
        /^Expected (text|compress|signal) to be/,
      );
    }
    await refuses(() => client.receive({ signal: 5 } as never), /signal to be an AbortSignal/);
    await client.send("still");
    assert.equal(await server.receive(), "still");
    await client.close();
  });

  it("F origins of pages that are not of the web are taken", async () => {
    const origins = ["null", "chrome-extension://abcdef", "http://[::1]:8080", null, /./];
    await (await serve({ origins }, echo)).shutdown();
  });

  it("F reconnect() throws at the call", () => {
    const wrong: [options: unknown, error: string][] = [
      [{ tls: { rejectUnauthorized: false } }, "TypeError"],
      [{ maxMessageSize: "1" }, "TypeError"],
      [{ maxMessageSize: -1 }, "RangeError"],
      [{ headers: { "X-A": undefined } }, "TypeError"],
      [{ headers: { "X-A": "\n" } }, "TypeError"],
      [{ compression: { windowBits: 9 } }, "TypeError"],
      [{ proxy: { host: "a" } }, "TypeError"],
      [{ protocols: ["a b"] }, "SyntaxError"],
    ];
    for (const [options, name] of wrong) {
      assert.throws(() => reconnect(URL, options as never), { name }, JSON.stringify(options));
    }
    assert.throws(() => reconnect("nowhere"), { name: "SyntaxError" });
    assert.throws(() => reconnect(["ws://a"] as never), { name: "TypeError" });
  });

  it("F reconnect() sends header fields that can be read once with each attempt", async () => {
    const seen: (string | null)[] = [];
    const onRequest = ({ headers }: Request) => void seen.push(headers.get("x-token"));
    const server = await serve({ onRequest }, async () => {});
    const headers = new Map([["X-Token", "abc"]]).entries();
    for await (const _ of reconnect(urlOf(server), { headers, minDelay: 1 })) {
      if (seen.length === 3) break;
    }
    assert.deepEqual(seen, ["abc", "abc", "abc"]);
    await server.shutdown();
  });

  it("F the parts refuse roles and options that there are not", () => {
    const duplex = { readable: new ReadableStream(), writable: new WritableStream() };
    const calls: [call: () => unknown, message: RegExp][] = [
      [() => assemble(duplex, { role: "client", maxPayload: 1 } as never), /use maxMessageSize$/],
      [
        () => assemble(duplex, { role: "client", closeTimeout: "1" } as never),
        /closeTimeout to be/,
      ],
      [() => assemble(duplex, {} as never), /role to be "client" or "server", received undefined/],
      [() => new FrameDecoderStream({ role: "client", maxPayload: 1 } as never), /maxPayload/],
      [() => FrameDecoderStream.batched({ role: "peer" } as never), /received "peer"/],
      [() => new FrameEncoderStream({ mask: true } as never), /has no option mask/],
      [() => FrameEncoderStream.batched({} as never), /role to be/],
      [() => new MessageAssemblerStream({ maxPayload: 1 } as never), /use maxMessageSize$/],
      [() => MessageAssemblerStream.batched({ maxPayload: 1 } as never), /use maxMessageSize$/],
      [
        () => new MessageFragmenterStream({ fragmentSize: 1 } as never),
        /has no option fragmentSize/,
      ],
      [() => MessageFragmenterStream.batched({ fragmentSize: 1 } as never), /has no option/],
      [() => new FrameDecoder({} as never), /role to be/],
      [() => new Endpoint({ role: "client" } as never), /role to be .* received object/],
      [() => new Endpoint("client", { maxPayload: 1 } as never), /use maxMessageSize$/],
      [
        () => new Endpoint("client", { limits: { maxHeaderSize: 1 } } as never),
        /^limits has no option maxHeaderSize: use maxHeadSize$/,
      ],
    ];
    for (const [call, message] of calls) assert.throws(call, { name: "TypeError", message });
  });
});

describe("F arguments of other libraries", () => {
  const wrong: [name: string, call: () => unknown, message: RegExp, skip?: string | false][] = [
    [
      "connect(url, protocols)",
      () => connect(URL, ["chat"] as never),
      /write \{ protocols: \[...\] \}$/,
    ],
    [
      "connect(url, protocol)",
      () => connect(URL, "chat" as never),
      /write \{ protocols: \[...\] \}$/,
    ],
    ["connect(url, null)", () => connect(URL, null as never), /received null$/],
    ["serve(handler)", () => (serve as (handler: unknown) => unknown)(echo), /before the handler/],
    ["serve(port)", () => (serve as (port: unknown) => unknown)(8080), /write \{ port: 8080 \}$/],
    [
      "attach(server, handler)",
      () => (attach as (...args: unknown[]) => unknown)(createServer(), echo),
      /before the handler/,
    ],
    [
      "attachHttp2(server, handler)",
      () => (attachHttp2 as (...args: unknown[]) => unknown)(createHttp2Server(), echo),
      /before the handler/,
      skipServer,
    ],
    [
      "connect(url, protocols) of the browser",
      () => browser.connect(URL, ["chat"] as never),
      /write \{ protocols: \[...\] \}$/,
    ],
  ];
  for (const [name, call, message, skip = false] of wrong) {
    it(`F ${name}`, { skip }, () => refuses(call, message));
  }

  // deno-lint-ignore no-explicit-any
  type Loose = any;
  const calls: [name: string, call: (ws: Loose) => unknown, message: RegExp][] = [
    ["close(code, reason)", (ws) => ws.close(4001, "x"), /write \{ closeCode, reason \}$/],
    [
      "close({ code })",
      (ws) => ws.close({ code: 4001 }),
      /^close\(\) has no option code: use closeCode$/,
    ],
    ["close({ code, reason })", (ws) => ws.close({ code: 4001, reason: "x" }), /use closeCode$/],
    ["close({ closecode })", (ws) => ws.close({ closecode: 4001 }), /use closeCode$/],
    ["close(null)", (ws) => ws.close(null), /received null$/],
    ["send(message, callback)", (ws) => ws.send("a", () => {}), /await the promise/],
    ["send(message, { binary })", (ws) => ws.send("a", { binary: true }), /binary: use text$/],
    ["send(message, { fin })", (ws) => ws.send("a", { fin: false }), /fin: send an iterable/],
    ["send(message, true)", (ws) => ws.send("a", true), /received a boolean$/],
    ["receive({ timeout })", (ws) => ws.receive({ timeout: 5 }), /AbortSignal\.timeout/],
    ["receive(5)", (ws) => ws.receive(5), /received a number$/],
    ["ping(payload, true)", (ws) => ws.ping("a", true), /received a boolean$/],
    ["onmessage =", (ws) => ws.onmessage = () => {}, /onmessage: write: for await/],
    ["onopen =", (ws) => ws.onopen = () => {}, /onopen: a connection is open/],
    ["onclose =", (ws) => ws.onclose = () => {}, /onclose: write: await ws\.closed$/],
    ["onerror =", (ws) => ws.onerror = () => {}, /onerror: write: ws\.closed\.catch/],
    ["binaryType =", (ws) => ws.binaryType = "blob", /always Uint8Arrays$/],
    ["readyState", (ws) => ws.readyState === 1, /readyState: ws\.state is/],
    ["addEventListener()", (ws) => ws.addEventListener("message", () => {}), /write: for await/],
    [
      "on(message)",
      (ws) => ws.on("message", () => {}),
      /^A connection has no on\(\): write: for await/,
    ],
    ["on(close)", (ws) => ws.on("close", () => {}), /write: await ws\.closed$/],
    ["once(pong)", (ws) => ws.once("pong", () => {}), /write: await ws\.ping\(\)$/],
  ];
  for (const [name, call, message] of calls) {
    it(`F ${name}: nothing is sent, and the connection stays open`, async () => {
      const [client, server] = await pair();
      await refuses(() => call(client), message);
      await client.send("still");
      assert.equal(await server.receive(), "still");
      assert.equal(client.state, "open");
      await client.close();
    });
  }

  it("F shutdown({ code }) names the right option, and the server continues", async () => {
    const server = await serve({}, echo);
    await refuses(
      () => server.shutdown({ code: 1012 } as never),
      /^shutdown\(\) has no option code/,
    );
    await server.shutdown({ closeCode: 1012 });
  });

  it("F promises reject, and do not throw", async () => {
    const [client, server] = await pair();
    const options = { wrong: 1 } as never;
    for (const call of [() => client.send("a", options), () => client.receive(options)]) {
      const promise = call();
      await assert.rejects(promise, TypeError);
    }
    await client.close();
    await server.closed;
  });

  it("F members that other WebSockets have are in no list of members", async () => {
    const [client] = await pair();
    const names: string[] = [];
    for (const name in client) names.push(name);
    assert.deepEqual(names.filter((name) => /^on|Listener|readyState/.test(name)), []);
    await client.close();
  });
});
