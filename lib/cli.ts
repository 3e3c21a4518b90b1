#!/usr/bin/env node
/**
 * The command `sluice`: an interactive WebSocket client, and an echo server.
 *
 * @module
 */
import { once } from "node:events";
import { readFileSync } from "node:fs";
import process from "node:process";
import { createInterface, type Interface } from "node:readline";
import { parseArgs } from "node:util";
import { printable, withoutSecrets } from "./inspect.ts";
import { connect, type ConnectOptions, VERSION } from "./client/client.ts";
import type { WebSocketConnection } from "./connection/connection.ts";
import { HandshakeError, type WebSocketError } from "./core/error.ts";
import { Opcode } from "./core/frame.ts";
import type { Message } from "./core/message.ts";
import { formatAuthority } from "./core/url.ts";
import { basicAuthorization } from "./http.ts";
import { serve, type ServeOptions } from "./server/server.ts";

const USAGE = `Usage: sluice [options] URL       connects, sends the lines typed, prints what comes
       sluice serve [options]     runs an echo server
`;

const HELP = `${USAGE}
A URL without a scheme gets ws://, as in: sluice localhost:8080

Options of the client
  -H, --header "NAME: VALUE"   adds a header field to the request; may be repeated
  -s, --subprotocol NAME       offers a subprotocol; may be repeated
  -o, --origin ORIGIN          sends this Origin header field
      --user NAME:PASSWORD     sends this user name and password (Basic authentication)
  -m, --message TEXT           sends this instead of what is typed; may be repeated
  -n, --count N                closes after N messages have come
  -u, --unix PATH              connects to a Unix socket
  -x, --proxy URL              goes through an http, https or socks5 proxy; "environment" takes the
                               proxy of HTTPS_PROXY, HTTP_PROXY, ALL_PROXY and NO_PROXY
      --ca FILE                trusts these certificates (PEM)
      --cert FILE --key FILE   shows this certificate to the server (PEM)
  -k, --insecure               accepts any certificate
      --ping once              sends one ping, prints its latency, and closes
Options of both
      --ping SECONDS           sends a ping that often, 0 for none (default: 20); if it is given, a
                               client prints the latency of each ping
      --compression on|off     offers or accepts permessage-deflate (default: on for a client, off for
                               a server)
      --max-size BYTES         sets the longest message to receive, 0 for any (default: 1048576)
      --verbose                prints the handshake and each frame to the standard error
Options of the server
      --host NAME              listens at this address (default: 127.0.0.1)
      --port PORT              listens on this port, 0 for a free one (default: 8080)
      --unix PATH              listens on a Unix socket
      --cert FILE --key FILE   serves wss with this certificate (PEM)
  -s, --subprotocol NAME       accepts a subprotocol; may be repeated

  -h, --help                   prints this
  -V, --version                prints the version

Text messages are printed with their control characters escaped, binary messages as hexadecimal
digits. Each line that is typed is sent as a text message. The end of the input closes the connection,
unless --count waits for messages.

Exit codes: 0 the connection was closed with 1000, 1001 or no code; 1 it ended in another way, or
the output cannot be written; 2 the command line is wrong; 3 there was no connection.
`;

const OPTIONS = {
  header: { type: "string", short: "H", multiple: true },
  subprotocol: { type: "string", short: "s", multiple: true },
  origin: { type: "string", short: "o" },
  user: { type: "string" },
  message: { type: "string", short: "m", multiple: true },
  count: { type: "string", short: "n" },
  unix: { type: "string", short: "u" },
  proxy: { type: "string", short: "x" },
  compression: { type: "string" },
  ca: { type: "string" },
  insecure: { type: "boolean", short: "k" },
  ping: { type: "string" },
  "max-size": { type: "string" },
  verbose: { type: "boolean" },
  host: { type: "string" },
  port: { type: "string" },
  cert: { type: "string" },
  key: { type: "string" },
  help: { type: "boolean", short: "h" },
  version: { type: "boolean", short: "V" },
} as const;

type Values = ReturnType<typeof parse>["values"];

const CLIENT_ONLY = [
  "header",
  "origin",
  "user",
  "message",
  "count",
  "proxy",
  "ca",
  "insecure",
] as const;
const SERVER_ONLY = ["host", "port"] as const;

class UsageError extends Error {}

function parse(args: string[]) {
  try {
    return parseArgs({ args, options: OPTIONS, allowPositionals: true });
  } catch (error) {
    // The advice that parseArgs() adds is no help here.
    throw new UsageError((error as Error).message.split(". ")[0]);
  }
}

async function main(args: string[]): Promise<number> {
  // A program that reads the output may end first, as in: sluice URL | head
  process.stdout.on("error", () => process.exit(1));
  try {
    const { values, positionals } = parse(args);
    if (values.help) return await print(HELP, 0);
    if (values.version) return await print(`${VERSION}\n`, 0);
    // The platform reads this variable when the first connection or server needs it.
    if (values.verbose) process.env.SLUICE_DEBUG = "1";
    const [first, ...rest] = positionals;
    if (first === undefined || rest.length > 0) {
      throw new UsageError("Expected one URL, or serve");
    }
    return await (first === "serve" ? runServer(values) : runClient(first, values));
  } catch (error) {
    if (!(error instanceof UsageError)) throw error;
    note(`sluice: ${error.message}`);
    process.stderr.write(`${USAGE}Try sluice --help\n`);
    return 2;
  }
}

function checkNone(names: readonly (keyof Values)[], values: Values, whose: string): void {
  const given = names.find((name) => values[name] !== undefined);
  if (given !== undefined) {
    throw new UsageError(`Cannot use --${given} here: it is an option of the ${whose}`);
  }
}

async function print(text: string, code: number): Promise<number> {
  if (!process.stdout.write(text)) await once(process.stdout, "drain");
  return code;
}

function note(text: string): void {
  process.stderr.write(`${printable(text)}\n`);
}

function commonOptions(values: Values) {
  const size = number("max-size", values["max-size"]);
  return {
    protocols: values.subprotocol,
    unix: values.unix,
    maxMessageSize: size === 0 ? Infinity : size,
    compression: onOff("compression", values.compression),
  };
}

function milliseconds(name: string, text: string | undefined): number | undefined {
  const seconds = number(name, text);
  return seconds === undefined ? undefined : seconds * 1000;
}

function number(name: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const value = Number(text);
  if (text.trim() === "" || !(value >= 0)) {
    throw new UsageError(`Expected --${name} to be a number, received ${text}`);
  }
  return value;
}

function onOff(name: string, text: string | undefined): boolean | undefined {
  if (text === undefined) return undefined;
  if (text !== "on" && text !== "off") {
    throw new UsageError(`Expected --${name} to be on or off, received ${text}`);
  }
  return text === "on";
}

function file(path: string | undefined): string | undefined {
  if (path === undefined) return undefined;
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new UsageError((error as Error).message);
  }
}

function certificate({ cert, key }: Values): { cert: string; key: string } | undefined {
  if ((cert === undefined) !== (key === undefined)) {
    throw new UsageError("Expected --cert and --key together");
  }
  return cert === undefined ? undefined : { cert: file(cert)!, key: file(key)! };
}

// The server

async function runServer(values: Values): Promise<number> {
  checkNone(CLIENT_ONLY, values, "client");
  const options: ServeOptions = {
    ...commonOptions(values),
    hostname: values.host,
    port: number("port", values.port) ?? 8080,
    pingInterval: milliseconds("ping", values.ping),
    tls: certificate(values),
  };
  let server;
  try {
    server = await serve(options, (ws) => ws.readable.pipeTo(ws.writable));
  } catch (error) {
    if (isUsage(error)) throw new UsageError((error as Error).message);
    note((error as Error).message);
    return 3;
  }
  for (const signal of ["SIGINT", "SIGTERM"] as const) {
    process.once(signal, () => server.shutdown());
  }
  const { address } = server;
  const scheme = options.tls === undefined ? "ws" : "wss";
  await print(
    address.transport === "tcp"
      ? `Listening on ${scheme}://${formatAuthority(address.hostname, address.port)}/\n`
      : `Listening on ${address.path}\n`,
    0,
  );
  await server.finished;
  return 0;
}

// The client

function clientOptions(values: Values): ConnectOptions {
  return {
    ...commonOptions(values),
    origin: values.origin,
    proxy: values.proxy,
    headers: [...(values.header ?? []).map(headerOf), ...credentials(values.user)],
    pingInterval: values.ping === "once" ? undefined : milliseconds("ping", values.ping),
    tls: {
      ...certificate(values),
      ca: file(values.ca),
      insecureSkipVerify: values.insecure,
    },
  };
}

function credentials(user: string | undefined): [string, string][] {
  if (user === undefined) return [];
  const colon = user.indexOf(":");
  // The message does not show the text, which may contain the password.
  if (colon < 0) throw new UsageError("Expected --user to be NAME:PASSWORD");
  return [["Authorization", basicAuthorization(user.slice(0, colon), user.slice(colon + 1))]];
}

function headerOf(text: string): [string, string] {
  const colon = text.indexOf(":");
  // The message does not show the text, which may contain a password.
  if (colon < 1) throw new UsageError("Expected --header to be NAME: VALUE");
  return [text.slice(0, colon).trim(), text.slice(colon + 1).trim()];
}

async function runClient(place: string, values: Values): Promise<number> {
  checkNone(SERVER_ONLY, values, "server");
  const url = /^[a-z][a-z\d+.-]*:\/\//i.test(place) ? place : `ws://${place}`;
  const count = number("count", values.count) ?? Infinity;
  if (!(count >= 1)) throw new UsageError(`Expected --count to be at least 1, received ${count}`);
  if (values.ping === "once") checkNone(["message", "count"], values, "client that goes on");
  const options = clientOptions(values);
  let ws: WebSocketConnection;
  if (options.pingInterval! > 0) {
    const noteLatency = () => {
      if (ws.latency !== undefined) note(`pong after ${ws.latency.toFixed(1)} ms`);
    };
    options.onFrame = (direction, { opcode }) => {
      // The latency is known in the next turn.
      if (direction === "in" && opcode === Opcode.Pong) setTimeout(noteLatency);
    };
  }
  try {
    ws = await connect(url, options);
  } catch (error) {
    return await refused(error);
  }
  const chosen = ws.protocol === "" ? "" : ` (${ws.protocol})`;
  note(`Connected to ${withoutSecrets(new URL(url))}${chosen}`);
  if (values.ping === "once") return await pingOnce(ws);
  const terminal = values.message === undefined ? openTerminal() : undefined;
  const lines = terminal === undefined ? values.message! : linesOf(terminal);
  const sending = sendAll(ws, lines, count === Infinity);
  process.once("SIGINT", () => ws.close({ closeCode: 1000 }));
  const code = await receiveAll(ws, terminal, count);
  terminal?.close();
  // A pending read of the terminal would keep the process running.
  process.stdin.destroy();
  await sending;
  return code;
}

async function pingOnce(ws: WebSocketConnection): Promise<number> {
  try {
    ws.discard();
    await print(`${(await ws.ping()).toFixed(1)} ms\n`, 0);
    await ws.close({ closeCode: 1000 });
    return 0;
  } catch (error) {
    note((error as Error).message);
    return 1;
  }
}

function isUsage(error: unknown): boolean {
  return error instanceof TypeError || error instanceof RangeError ||
    (error instanceof DOMException && error.name === "SyntaxError");
}

async function refused(error: unknown): Promise<number> {
  if (isUsage(error)) throw new UsageError((error as Error).message);
  const { message } = error as Error;
  note(message.startsWith("Cannot ") ? message : `Cannot connect: ${message}`);
  const { response } = error instanceof HandshakeError ? error : {};
  if (response !== undefined) {
    const body = await new Response(response.body).text().catch(() => "");
    if (body !== "") note(body.trimEnd());
  }
  return 3;
}

async function sendAll(
  ws: WebSocketConnection,
  lines: Iterable<string> | AsyncIterable<string>,
  thenClose: boolean,
): Promise<void> {
  try {
    for await (const line of lines) await ws.send(line);
    if (thenClose) await ws.close({ closeCode: 1000 });
  } catch {
    // `receiveAll()` reports why the connection has ended.
  }
}

async function receiveAll(
  ws: WebSocketConnection,
  terminal: Interface | undefined,
  count: number,
): Promise<number> {
  let received = 0;
  try {
    for (;;) {
      const message = await ws.receive();
      // Ignore messages that arrive after the last one that was asked for.
      if (received > 0 && received >= count) continue;
      await show(message, terminal);
      if (++received >= count) void ws.close({ closeCode: 1000 });
    }
  } catch (error) {
    const { closeCode, message } = error as WebSocketError;
    const ended = await ws.closed.then(() => true, () => false);
    const expected = ended && [1000, 1001, 1005].includes(closeCode!);
    note(message);
    return expected ? 0 : 1;
  }
}

const isInteractive = Boolean(process.stdin.isTTY && process.stdout.isTTY);

/** Reads the lines that are typed. Control-C and control-D end the input. */
function openTerminal(): Interface {
  const output = isInteractive ? process.stdout : undefined;
  const terminal = createInterface({ input: process.stdin, output, prompt: "> " });
  terminal.on("SIGINT", () => terminal.close());
  return terminal;
}

async function* linesOf(terminal: Interface): AsyncGenerator<string> {
  if (isInteractive) terminal.prompt();
  for await (const line of terminal) {
    yield line;
    if (isInteractive) terminal.prompt();
  }
}

async function show(message: Message, terminal: Interface | undefined): Promise<void> {
  const text = typeof message === "string" ? printable(message) : hexadecimal(message);
  await print(isInteractive ? `\r\x1b[K< ${text}\n` : `${text}\n`, 0);
  if (isInteractive) terminal?.prompt(true);
}

function hexadecimal(bytes: Uint8Array): string {
  return `0x${Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("")}`;
}

process.exitCode = await main(process.argv.slice(2));
