/** The peers of the rows, over ws and wss, and the HTTP server that controls them. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { Opcode, parseClose } from "../../lib/core/mod.ts";
import { defaultProvider } from "../../lib/platform.ts";
import type { Listener, Transport } from "../../lib/transport.ts";
import { utf8 } from "../bytes.ts";
import type { Certificates } from "../certificates.ts";
import { binaryFrame, closeFrame, RawPeer, textFrame, until } from "../support.ts";
import { type Command, latin1, pattern, type PeerState, type SeenFrame } from "./kit.ts";

const HOST = "127.0.0.1";

/** A peer, and the server's data about it. */
interface Entry {
  peer: RawPeer<Transport> | RawPeer;
  received: () => number;
}

export interface PeerServer {
  /** The URL of the peers. */
  ws: string;
  wss: string;
  /** The URL of the server that controls the peers. */
  control: string;
  /** Adds a peer that was connected in another way. */
  adopt(url: string, peer: RawPeer): void;
  close(): Promise<void>;
}

/**
 * Starts the servers.
 *
 * @param page Handler of requests that are not commands. Default: none
 */
export async function startPeers(
  { leaf }: Certificates,
  page?: (request: IncomingMessage, response: ServerResponse) => void,
): Promise<PeerServer> {
  const entries = new Map<string, Entry>();
  const provider = await defaultProvider();
  const accept = (transport: Transport) => acceptPeer(transport, entries);
  const place = { hostname: HOST, port: 0 };
  const plain = await provider.listen(place, accept);
  const secure = await provider.listen({ ...place, tls: leaf }, accept);
  const http = createServer(async (request, response) => {
    const [, space, name, what] = request.url!.split("/");
    if (space !== "peers") return page === undefined ? response.end() : page(request, response);
    try {
      const answer = await command(entries, name, what, JSON.parse(await bodyOf(request)));
      response.end(JSON.stringify(answer));
    } catch (error) {
      response.statusCode = 500;
      response.end(String(error));
    }
  });
  await new Promise<void>((resolve) => http.listen(0, HOST, resolve));
  return {
    ws: `ws://${HOST}:${portOf(plain)}/`,
    wss: `wss://${HOST}:${portOf(secure)}/`,
    control: `http://${HOST}:${(http.address() as AddressInfo).port}/peers/`,
    adopt(url, peer) {
      entries.set(new URL(url).pathname.slice(1), { peer, received: () => 0 });
    },
    async close() {
      for (const { peer } of entries.values()) peer.transport.destroy();
      http.closeAllConnections();
      await Promise.all([
        plain.close(),
        secure.close(),
        new Promise((resolve) => http.close(resolve)),
      ]);
    },
  };
}

function portOf({ address }: Listener): number {
  if (address.transport !== "tcp") throw new TypeError("Expected a TCP address");
  return address.port;
}

/** The body of a request. */
export async function bodyOf(request: IncomingMessage): Promise<string> {
  let text = "";
  request.setEncoding("utf8");
  for await (const chunk of request) text += chunk;
  return text;
}

function acceptPeer(transport: Transport, entries: Map<string, Entry>): void {
  let received = 0;
  const counting: Transport = {
    get bufferedAmount() {
      return transport.bufferedAmount;
    },
    handle: (handlers) =>
      transport.handle({
        ...handlers,
        data(chunk) {
          received += chunk.length;
          handlers.data(chunk);
        },
      }),
    write: (parts) => transport.write(parts),
    pause: () => transport.pause(),
    resume: () => transport.resume(),
    end: () => transport.end(),
    destroy: () => transport.destroy(),
  };
  const peer = new RawPeer<Transport>(counting, "server", (accept, head) => {
    const [name, answer = ""] = head.target.slice(1).split("?");
    entries.set(name, { peer, received: () => received });
    if (answer === "hang") return undefined;
    if (/^\d/.test(answer)) return utf8(`HTTP/1.1 ${answer} No\r\nContent-Length: 0\r\n\r\n`);
    return accept(answer);
  });
  transport.resume();
}

async function command(
  entries: Map<string, Entry>,
  name: string,
  what: string,
  commands: Command[],
): Promise<unknown> {
  if (what === "state") return stateOf(entries.get(name));
  await until(() => entries.has(name));
  const entry = entries.get(name)!;
  if (what === "next") return await nextOf(entry);
  for (const one of commands) perform(entry, one);
  return stateOf(entry);
}

function stateOf(entry: Entry | undefined): PeerState {
  return {
    dialled: entry !== undefined,
    ended: entry?.peer.ended || entry?.peer.closed || false,
    bufferedAmount: entry?.peer.transport.bufferedAmount ?? 0,
    received: entry?.received() ?? 0,
  };
}

async function nextOf({ peer }: Entry): Promise<SeenFrame> {
  const { opcode, payload } = await peer.next();
  if (opcode === Opcode.Close) return { type: "close", data: "", ...parseClose(payload) };
  if (opcode === Opcode.Text) return { type: "text", data: new TextDecoder().decode(payload) };
  return { type: "binary", data: latin1(payload) };
}

function perform({ peer }: Entry, [name, ...args]: Command): void {
  const [first, second] = args as [never, never];
  switch (name) {
    case "text":
      return peer.send(textFrame(first));
    case "bytes":
      for (let i = 0; i < (second ?? 1); i++) peer.send(binaryFrame(pattern(first)));
      return;
    case "close":
      return peer.send(closeFrame(first ?? undefined, second ?? ""));
    case "polite":
      peer.polite = first;
      return;
    default:
      return peer.transport[name]();
  }
}
