/**
 * Which options a function has. An option that it does not have is an error: `verifyClient`, ignored, would
 * let everybody in.
 *
 * @module
 */

/** The names of all options of a type; TypeScript sees to it that none is missing. */
export type OptionNames<T> = { readonly [name in keyof T]-?: true };

/**
 * What other libraries call our options, in lower case and without underscores, and our names, of which
 * the first that a function has is meant: those of ws, Bun.serve, Deno.serve, uWebSockets, socket.io,
 * Python's websockets, WebSocket-Node and reconnecting-websocket.
 */
const FOREIGN: { readonly [name: string]: string | undefined } = {
  additionalheaders: "headers",
  allowrequest: "onRequest",
  alpnprotocols: "alpn",
  backpressurelimit: "maxBufferedAmount",
  binary: "text",
  cacerts: "ca",
  certfile: "cert",
  closeonbackpressurelimit: "slow",
  code: "closeCode",
  connectiontimeout: "openTimeout",
  cors: "origins",
  duplex: "transport",
  extraheaders: "headers",
  followredirects: "maxRedirects",
  handleprotocols: "selectProtocol",
  handshaketimeout: "openTimeout",
  heartbeatinterval: "pingInterval",
  heartbeattimeout: "pingTimeout",
  host: "hostname",
  // Of tls.
  hostname: "servername",
  idletimeout: "pingTimeout",
  isbinary: "text",
  keepalive: "pingInterval",
  keepalivegraceperiod: "pingTimeout",
  keepaliveinterval: "pingInterval",
  keyfile: "key",
  maxbackpressure: "maxBufferedAmount",
  maxframelength: "maxFrameSize",
  maxheadersize: "maxHeadSize",
  maxhttpbuffersize: "maxMessageSize",
  maxline: "maxLineLength",
  maxmessagelength: "maxMessageSize",
  maxpayload: "maxMessageSize",
  maxpayloadlength: "maxMessageSize",
  maxqueue: "readableStrategy",
  maxreceivedframesize: "maxFrameSize",
  maxreceivedmessagesize: "maxMessageSize",
  maxreconnectiondelay: "maxDelay",
  maxretries: "maxAttempts",
  maxsize: "maxMessageSize",
  maxwindowbits: "serverMaxWindowBits and clientMaxWindowBits",
  minreconnectiondelay: "minDelay",
  path: "unix",
  permessagedeflate: "compression",
  processrequest: "onRequest",
  processresponse: "onResponse",
  protocol: "protocols",
  reconnectiondelaygrowfactor: "backoffFactor",
  reconnectinterval: "minDelay",
  requestcert: "ca",
  selectsubprotocol: "selectProtocol",
  serverhostname: "servername",
  sendpings: "pingInterval",
  shouldreconnect: "retry",
  sock: "transport",
  socket: "transport",
  socketpath: "unix",
  ssl: "tls",
  status: "closeCode",
  statuscode: "closeCode",
  subprotocols: "protocols",
  tlsoptions: "tls",
  transport: "provider",
  upgradetimeout: "openTimeout",
  useragentheader: "userAgent",
  verifyclient: "onRequest",
  windowbits: "serverMaxWindowBits and clientMaxWindowBits",
  writelimit: "maxBufferedAmount",
  zlibdeflateoptions: "level and memLevel",
};

/**
 * What to write where no option of ours has the same meaning. Each hint is for those who have a certain
 * option, so that nobody is told to write what does not exist there.
 */
const INSTEAD: readonly (readonly [has: string, hints: { readonly [name: string]: string }])[] = [
  // A client.
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
  // Anything that encrypts.
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
  // A server.
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
  // Any connection.
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
  // Anything that waits.
  ["signal", { timeout: "write signal: AbortSignal.timeout(milliseconds)" }],
  // One message.
  ["text", { fin: "send an iterable or a stream as one message of several frames" }],
  ["closeCode", { wasclean: "pass closeCode and reason only" }],
];

/** The hint for a name, if there is one for those who have these options. */
function insteadFor(key: string, names: object): string | undefined {
  const found = INSTEAD.find(([has, hints]) => has in names && Object.hasOwn(hints, key));
  return found?.[1][key];
}

/** The names of options without some of them. */
export function optionsWithout<T extends object, K extends keyof T>(
  names: T,
  others: readonly K[],
): Omit<T, K> {
  const left = Object.entries(names).filter(([name]) => !others.includes(name as K & string));
  return Object.fromEntries(left) as Omit<T, K>;
}

/**
 * Checks that options are an object that has only these names. An option that is undefined does not count.
 *
 * @param owner what the options belong to, for the message
 * @param options the options
 * @param names the names of all options that there are
 * @throws {TypeError} If the options are not an object, or one of them does not exist.
 */
export function checkKnown(owner: string, options: unknown, names: object): void {
  if (typeof options !== "object" || options === null || Array.isArray(options)) {
    throw new TypeError(
      `Expected the options of ${owner} to be an object, received ${kindOf(options)}${
        insteadOf(options, names)
      }`,
    );
  }
  // Inherited ones too, as of an object made from defaults.
  for (const name in options) {
    if (Object.hasOwn(names, name) || options[name as never] === undefined) continue;
    throw unknownOption(owner, name, names);
  }
}

/** The error for an option that does not exist. */
export function unknownOption(owner: string, name: string, names: object): TypeError {
  const key = plain(name);
  const hint = foreign(key, names) ?? insteadFor(key, names) ?? similar(key, names);
  return new TypeError(`${owner} has no option ${name}${hint === undefined ? "" : `: ${hint}`}`);
}

function kindOf(value: unknown): string {
  if (value === null) return "null";
  return Array.isArray(value) ? "an array" : `a ${typeof value}`;
}

/** What to write instead of options that are not an object. */
function insteadOf(options: unknown, names: object): string {
  const isProtocols = typeof options === "string" || Array.isArray(options);
  if (isProtocols && "protocols" in names) return ": write { protocols: [...] }";
  if (typeof options === "number" && "closeCode" in names) return ": write { closeCode, reason }";
  if (typeof options === "number" && "port" in names) return `: write { port: ${options} }`;
  if (typeof options !== "function") return "";
  return "onError" in names
    ? ": the options come before the handler, write {} for none"
    : ": await the promise instead of passing a callback";
}

function plain(name: string): string {
  return name.replace(/[-_]/g, "").toLowerCase();
}

function foreign(key: string, names: object): string | undefined {
  const ours = FOREIGN[key];
  if (ours === undefined || !Object.hasOwn(names, ours.split(" ")[0])) return undefined;
  return `use ${ours}`;
}

/** An option whose name differs by its spelling only. */
function similar(key: string, names: object): string | undefined {
  const most = key.length > 6 ? 2 : 1;
  const found = Object.keys(names).find((name) => distance(plain(name), key) <= most);
  return found && `use ${found}`;
}

/** How many letters are to be changed, added or taken away (Levenshtein's distance). */
function distance(a: string, b: string): number {
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
