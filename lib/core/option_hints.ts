/**
 * Checks the names of options, with hints for the mistakes of those who know other libraries. Also has
 * hints for values that are not connections.
 */
import { wrongType } from "./error.ts";
import {
  checkKnown as checkKnownWith,
  checkNames as checkNamesWith,
  checkValues,
  type Hint,
  kindOf,
} from "./options.ts";

/**
 * Our options, and their names in ws, Bun.serve, Deno.serve, uWebSockets, socket.io, Python's
 * websockets, WebSocket-Node and reconnecting-websocket. A name also matches in snake_case.
 */
const FOREIGN: readonly (readonly [ours: string, theirs: string])[] = [
  ["alpn", "ALPNProtocols"],
  ["backoffFactor", "reconnectionDelayGrowFactor"],
  ["ca", "caCerts requestCert"],
  ["cert", "certFile"],
  ["closeCode", "code status statusCode"],
  ["compression", "perMessageDeflate"],
  ["headers", "additionalHeaders extraHeaders"],
  ["hostname", "host"],
  ["key", "keyFile"],
  ["level and memLevel", "zlibDeflateOptions"],
  ["maxAttempts", "maxRetries"],
  ["maxBufferedAmount", "backpressureLimit maxBackpressure writeLimit"],
  ["maxDelay", "maxReconnectionDelay"],
  ["maxFrameSize", "maxFrameLength maxReceivedFrameSize"],
  ["maxHeadSize", "maxHeaderSize"],
  ["maxLineLength", "maxLine"],
  [
    "maxMessageSize",
    "maxHttpBufferSize maxMessageLength maxPayload maxPayloadLength maxReceivedMessageSize maxSize",
  ],
  ["maxRedirects", "followRedirects"],
  ["minDelay", "minReconnectionDelay reconnectInterval"],
  ["onRequest", "allowRequest processRequest verifyClient"],
  ["onResponse", "processResponse"],
  ["openTimeout", "connectionTimeout handshakeTimeout upgradeTimeout"],
  ["origins", "cors"],
  ["pingInterval", "heartbeatInterval keepAlive keepaliveInterval sendPings"],
  ["pingTimeout", "heartbeatTimeout idleTimeout keepaliveGracePeriod"],
  ["protocols", "protocol subprotocols"],
  ["provider", "transport"],
  ["readableStrategy", "maxQueue"],
  ["retry", "shouldReconnect"],
  ["selectProtocol", "handleProtocols selectSubprotocol"],
  ["serverMaxWindowBits and clientMaxWindowBits", "maxWindowBits windowBits"],
  ["servername", "hostname serverHostname"],
  ["slow", "closeOnBackpressureLimit"],
  ["text", "binary isBinary"],
  ["tls", "ssl tlsOptions"],
  ["transport", "duplex sock socket"],
  ["unix", "path socketPath"],
  ["userAgent", "userAgentHeader"],
];

/** Hints for other names, given only if the function has the option `has`. */
const INSTEAD: readonly (readonly [has: string, hints: { readonly [name: string]: string }])[] = [
  // Clients.
  ["userAgent", {
    agent: "use `proxy`, or a `provider` of your own",
    auth: "put user name and password into the URL",
    createconnection: "use `transport`",
    rejectunauthorized: "use tls: { ca }, or tls: { insecureSkipVerify } in tests",
    servername: "write tls: { servername }",
    timeout: "write signal: AbortSignal.timeout(milliseconds)",
  }],
  ["insecureSkipVerify", {
    rejectunauthorized: "use `ca`, or `insecureSkipVerify` in tests",
  }],
  // Everything that encrypts.
  ["tls", {
    ca: "write tls: { ca }",
    cert: "write tls: { cert, key }",
    key: "write tls: { cert, key }",
    passphrase: "write tls: { cert, key }, with a key that has no passphrase",
    pfx: "write tls: { cert, key }",
  }],
  ["alpn", {
    passphrase: "give the key without a passphrase",
    pfx: "use `cert` and `key`",
  }],
  // Servers.
  ["onRequest", {
    auth: "use onRequest: basicAuth({ ... })",
    clienttracking: "`connections` of the server has them",
    fetch: "plain requests are for `onRequest`",
    handler: "the handler is an argument of its own, after the options",
    httpserver: "use attach() of /node",
    message: "the handler reads the messages",
    noserver: "use upgrade() of /node",
    onlisten: "await serve()",
    open: "the handler is called with each connection",
    server: "use attach() of /node",
    websocket: "the handler is an argument of its own, after the options",
  }],
  // Connections.
  ["maxMessageSize", {
    autopong: "pings are always answered",
    drain: "await the promises of send()",
    hostname: "the host is that of the URL, or of the HTTP server",
    limits: "the HTTP server has limits of its own",
    onclose: "await `closed` of the connection",
    onmessage: "read the messages from the connection",
    onopen: "await the connection",
    path: "the path is that of the URL, or of the HTTP server",
    port: "the port is that of the URL, or of the HTTP server",
    tls: "TLS is the HTTP server's, or that of the session or the transport",
  }],
  // Everything that waits.
  ["signal", { timeout: "write signal: AbortSignal.timeout(milliseconds)" }],
  // Messages.
  ["text", { fin: "send an iterable or a stream as one message of several frames" }],
  ["closeCode", { wasclean: "pass closeCode and reason only" }],
];

const hint: Hint = (names, name, options) =>
  name === undefined
    ? insteadOfObject(options, names)
    : foreignHint(name, names) ?? insteadHint(name, names) ?? similarHint(name, names);

/** Checks the names and values of options; `owner` is the function that the options belong to. */
export function checkKnown(owner: string, options: unknown, names: object): void {
  checkKnownWith(owner, options, names, hint);
}

/** Checks that options are an object, and that all of them exist. Undefined options are ignored. */
export function checkNames(owner: string, options: unknown, names: object): void {
  checkNamesWith(owner, options, names, hint);
}

/** Checks an option that is an object with options of its own. */
export function checkNested(name: string, options: unknown, names: object): void {
  checkNames(name, options, names);
  checkValues(options as object, names, `${name}.`);
}

/** Returns the error for a value that is no connection, with what to write instead. */
export function notConnections(
  expected: string,
  value: unknown,
  instead: string | undefined = insteadOfConnections(Object(value)),
): TypeError {
  const message = `Expected ${expected}, received ${kindOf(value)}`;
  return wrongType(instead === undefined ? message : `${message}: ${instead}`);
}

function insteadOfConnections(value: object): string | undefined {
  if (value instanceof Map) return "write map.values()";
  if ("then" in value) return "await connect()";
  if ("opened" in value) return "write (await stream.opened).connection";
  if ("connections" in value) return "write server.connections";
  if ("terminate" in value && "closed" in value) return "write [connection]";
  if ("readyState" in value) return "write await fromWebSocket(socket)";
  if (Symbol.asyncIterator in value) return "take the connections with `for await`";
  return undefined;
}

/** Returns what to write instead of options that are not an object. */
function insteadOfObject(options: unknown, names: object): string | undefined {
  const isProtocols = typeof options === "string" || Array.isArray(options);
  if (isProtocols && "protocols" in names) return "write { protocols: [...] }";
  if (typeof options === "number" && "closeCode" in names) return "write { closeCode, reason }";
  if (typeof options === "number" && "port" in names) return `write { port: ${options} }`;
  if (typeof options !== "function") return undefined;
  return "onError" in names
    ? "the options come before the handler, write {} for none"
    : "await the promise instead of passing a callback";
}

/** Returns a name in lower case, without hyphens and underscores. */
function plainName(name: string): string {
  return name.replace(/[-_]/g, "").toLowerCase();
}

function foreignHint(name: string, names: object): string | undefined {
  const key = plainName(name);
  const found = FOREIGN.find(([ours, theirs]) =>
    theirs.toLowerCase().split(" ").includes(key) && Object.hasOwn(names, ours.split(" ")[0])
  );
  return found && `use ${found[0]}`;
}

function insteadHint(name: string, names: object): string | undefined {
  const key = plainName(name);
  const found = INSTEAD.find(([has, hints]) => has in names && Object.hasOwn(hints, key));
  return found?.[1][key];
}

/** Returns the option whose name has a similar spelling. */
function similarHint(wrong: string, names: object): string | undefined {
  const key = plainName(wrong);
  const most = key.length > 6 ? 2 : 1;
  const found = Object.keys(names).find((name) => editDistance(plainName(name), key) <= most);
  return found && `use ${found}`;
}

/** Levenshtein distance. */
function editDistance(a: string, b: string): number {
  let row = Array.from({ length: b.length + 1 }, (_, i) => i);
  for (let i = 1; i <= a.length; i++) {
    const next = [i];
    for (let j = 1; j <= b.length; j++) {
      const changed = row[j - 1] + (a[i - 1] === b[j - 1] ? 0 : 1);
      next.push(Math.min(changed, row[j] + 1, next[j - 1] + 1));
    }
    row = next;
  }
  return row[b.length];
}
