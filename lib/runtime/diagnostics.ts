/**
 * The log of `NODE_DEBUG=sluice` or `SLUICE_DEBUG=1`, and the channels of `node:diagnostics_channel`, which
 * Node, Deno and Bun have.
 */
import { channel } from "node:diagnostics_channel";
import process from "node:process";
import type { CloseInfo } from "../core/close.ts";
import { errorCodeOf } from "../core/error.ts";
import { type Frame, Opcode } from "../core/frame.ts";
import type { RawHeaders } from "../core/header.ts";
import {
  addressText,
  type ConnectionListener,
  type Diagnostics,
  type Opened,
  printable,
} from "../inspect.ts";

const SHOWN_TEXT = 80;
const SHOWN_BYTES = 16;

/**
 * The header fields whose values are shown. Any other field may hold a secret, also Sec-WebSocket-Protocol in
 * a request. In a response, Sec-WebSocket-Protocol is the chosen subprotocol.
 */
const SHOWN_FIELDS =
  /^(?:host|origin|user-agent|upgrade|connection|date|server|content-(?:type|length|encoding|language)|sec-websocket-(?:key|accept|version|extensions)|:.*)$/i;
const CHOSEN_PROTOCOL = /^sec-websocket-protocol$/i;

const OPCODES: { readonly [opcode: number]: string | undefined } = {
  [Opcode.Continuation]: "continuation",
  [Opcode.Text]: "text",
  [Opcode.Binary]: "binary",
  [Opcode.Close]: "close",
  [Opcode.Ping]: "ping",
  [Opcode.Pong]: "pong",
};

/** Returns the value of an environment variable, if it may be read without asking the user. */
function variable(name: string): string {
  const { Deno: deno } = globalThis as {
    Deno?: { permissions: { querySync(query: object): { state: string } } };
  };
  const state = deno?.permissions.querySync({ name: "env", variable: name }).state ?? "granted";
  return state === "granted" ? process.env[name] ?? "" : "";
}

/** Whether `NODE_DEBUG` names the library, as in `NODE_DEBUG=http,sluice`, or `SLUICE_DEBUG` is set. */
function isLogOn(): boolean {
  const names = variable("NODE_DEBUG").toLowerCase().split(/[\s,]+/);
  return names.includes("sluice") || names.includes("*") || !/^0?$/.test(variable("SLUICE_DEBUG"));
}

const open = channel("sluice.connection.open");
const close = channel("sluice.connection.close");
const error = channel("sluice.connection.error");
const refused = channel("sluice.server.refused");
const failed = channel("sluice.client.failed");

type Log = (line: string) => void;

const log: Log | undefined = isLogOn()
  ? (line) => console.error(`SLUICE ${process.pid}: ${line}`)
  : undefined;
let connections = 0;

/** Listens to a connection for the log, if it is on, and for the subscribers of the channels. */
function listenerOf(log: Log | undefined): ConnectionListener {
  return {
    onFrame: (direction, frame) => log?.(`${direction} ${frameText(frame)}`),
    opened(connection) {
      if (open.hasSubscribers) open.publish({ connection });
    },
    ended(connection, info, thrown) {
      log?.(thrown === undefined ? `closed ${closeText(info)}` : `failed: ${errorText(thrown)}`);
      if (thrown && error.hasSubscribers) error.publish({ connection, error: thrown });
      if (close.hasSubscribers) close.publish({ connection, ...info });
    },
  };
}

export const platformDiagnostics: Diagnostics = {
  logsFrames: log !== undefined,
  get wantsRefused(): boolean {
    return log !== undefined || refused.hasSubscribers;
  },
  listen(opened) {
    if (log === undefined) {
      const isWanted = open.hasSubscribers || close.hasSubscribers || error.hasSubscribers;
      return isWanted ? listenerOf(undefined) : undefined;
    }
    const number = `#${++connections}`;
    const logNumbered = (line: string) => log(`${number} ${line}`);
    handshakeLines(opened).forEach(logNumbered);
    return listenerOf(logNumbered);
  },
  refused(reason, request, remoteAddress, isAnswer) {
    const peer = addressText(remoteAddress);
    const from = peer === undefined ? "" : ` from ${peer}`;
    const { method = "", url = "" } = request ?? {};
    const what = request === undefined ? "a client" : `${method} ${pathText(url)}`;
    const { status } = reason;
    const answer = status === undefined ? "" : ` with ${status}`;
    log?.(
      isAnswer
        ? `answered ${what}${answer}`
        : `refused ${what}${from}${answer}: ${errorText(reason)}`,
    );
    if (refused.hasSubscribers) refused.publish({ error: reason, request, remoteAddress });
  },
  failed(url, reason) {
    log?.(`cannot connect to ${printable(url)}: ${errorText(reason)}`);
    if (failed.hasSubscribers) failed.publish({ url, error: reason });
  },
};

function handshakeLines({ machine, request, response, transport }: Opened): string[] {
  const { role } = machine;
  if (role === undefined) return ["connection over a native WebSocket"];
  const { method, target, headers } = request;
  const { status, statusText } = response;
  const peer = addressText(transport.remoteAddress);
  const [asked, answered] = role === "client" ? ["out", "in"] : ["in", "out"];
  return [
    `${role} connection${peer === undefined ? "" : ` with ${peer}`}`,
    `${asked} request ${method} ${pathText(target)}${fieldsText(headers)}`,
    `${answered} response ${status} ${printable(statusText)}`.trimEnd() +
    fieldsText(response.headers, CHOSEN_PROTOCOL),
  ];
}

function fieldsText(headers: RawHeaders, alsoShown?: RegExp): string {
  const fields = headers.map(([name, value]) => `${name}: ${fieldText(name, value, alsoShown)}`);
  return fields.map((field) => `; ${printable(field)}`).join("");
}

function fieldText(name: string, value: string, alsoShown?: RegExp): string {
  if (name === ":path") return pathText(value);
  return SHOWN_FIELDS.test(name) || alsoShown?.test(name) ? value : "(hidden)";
}

/** Returns a request target or a URL without user name and password, and without the values of its query. */
function pathText(target: string): string {
  const [path, ...query] = target.replace(/#.*/s, "").split("?");
  const shown = printable(path.replace(/^([\w.+-]+:\/\/)[^/]*@/, "$1"));
  if (query.length === 0) return shown;
  const names = query.join("?").split("&").map((pair) =>
    pair.includes("=") ? `${printable(pair.slice(0, pair.indexOf("=")))}=(hidden)` : "(hidden)"
  );
  return `${shown}?${names.join("&")}`;
}

function frameText({ fin = true, rsv = 0, opcode, payload }: Frame): string {
  const name = OPCODES[opcode] ?? `opcode ${opcode}`;
  const bits = rsv === 0 ? "" : rsv === 4 ? " compressed" : ` rsv ${rsv}`;
  const more = fin ? "" : " unfinished";
  const shown = payloadText(opcode, rsv, payload);
  const size = payload.length === 1 ? "1 byte" : `${payload.length} bytes`;
  return `${name}${bits}${more} ${size}${shown && `: ${shown}`}`;
}

function payloadText(opcode: number, rsv: number, payload: Uint8Array): string {
  const { length } = payload;
  if (length === 0) return "";
  if (opcode === Opcode.Close && length >= 2) {
    const reason = new TextDecoder().decode(payload.subarray(2));
    return closeText({ closeCode: payload[0] * 256 + payload[1], reason });
  }
  if (opcode === Opcode.Text && rsv === 0) {
    // A character may have four bytes, and the last one may be cut.
    const text = new TextDecoder().decode(payload.subarray(0, 4 * SHOWN_TEXT));
    const isCut = text.length > SHOWN_TEXT || length > 4 * SHOWN_TEXT;
    return `"${printable(text.slice(0, SHOWN_TEXT))}"${isCut ? "..." : ""}`;
  }
  const bytes = Array.from(
    payload.subarray(0, SHOWN_BYTES),
    (byte) => byte.toString(16).padStart(2, "0"),
  );
  return `${bytes.join(" ")}${length > SHOWN_BYTES ? " ..." : ""}`;
}

function closeText({ closeCode, reason }: Required<CloseInfo>): string {
  return `${closeCode}${reason && ` "${printable(reason)}"`}`;
}

/** Returns a thrown value as text. The value may be of any type, and may throw when it is read. */
function errorText(thrown: unknown): string {
  try {
    const { name = "", message = thrown } = Object(thrown) as { name?: unknown; message?: unknown };
    const code = errorCodeOf(thrown);
    const kind = `${String(name)}${code === undefined ? "" : ` (${String(code)})`}`;
    return printable(`${kind}: ${String(message)}`);
  } catch {
    return "a value that cannot be shown";
  }
}
