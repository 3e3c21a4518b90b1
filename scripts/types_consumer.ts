/**
 * Uses the public names as a user's TypeScript code does. It is compiled against the installed package
 * and never run. The annotations check the types.
 */
import {
  type BroadcastOptions,
  connect,
  type ConnectOptions,
  fromWebSocket,
  HandshakeError,
  type Message,
  type ReconnectOptions,
  type SendOptions,
  serve,
  type ServeOptions,
  type Server,
  type WebSocketConnection,
  WebSocketError,
  type WebSocketLike,
  WebSocketStream,
} from "sluice";
import {
  encodeFrame,
  Endpoint,
  FrameDecoder,
  Opcode,
  PerMessageDeflate,
  Protocol,
  RemoteProtocolError,
  response,
} from "sluice/core";
import {
  assemble,
  FrameDecoderStream,
  FrameEncoderStream,
  MessageAssemblerStream,
  MessageFragmenterStream,
} from "sluice/streams";
import { pair } from "sluice/testing";
import {
  type ByteDuplex,
  fromStreams,
  toStreams,
  type Transport,
  type TransportProvider,
} from "sluice/transport";
import { type DeflateEngine, deflateEngine } from "sluice/zlib";

/** The address of a client has a host name, unless it came by a Unix socket. */
export function addressOf(ws: WebSocketConnection): string | undefined {
  return ws.remoteAddress?.hostname;
}

/** Compression with the core. */
export function makeDeflate(engine: DeflateEngine = deflateEngine): PerMessageDeflate {
  return new PerMessageDeflate({ engine, memory: "low", serverMaxWindowBits: 10 });
}

type Unset<T> = Record<keyof T, undefined>;

/** Options may be undefined, even with exactOptionalPropertyTypes. */
export function unset(
  client: Unset<ConnectOptions>,
  server: Unset<ServeOptions>,
  again: Unset<ReconnectOptions>,
  all: Unset<BroadcastOptions>,
  one: Unset<SendOptions>,
): [ConnectOptions, ServeOptions, ReconnectOptions, BroadcastOptions, SendOptions] {
  return [client, server, again, all, one];
}

/** A server that echoes. */
export async function startServer(): Promise<number> {
  const server: Server = await serve(
    { port: 0, hostname: "127.0.0.1", protocols: ["chat"] },
    (ws: WebSocketConnection) => {
      console.log(ws.request.url, ws.protocol, ws.bufferedAmount);
      return ws.readable.pipeTo(ws.writable);
    },
  );
  const { port = 0, url = "" } = server;
  await server.shutdown({ closeCode: 1001, timeout: 1000 });
  return port + url.length;
}

/** A client that reads in each of the possible ways. */
export async function useConnection(signal: AbortSignal): Promise<number> {
  const ws = await connect("ws://127.0.0.1/", {
    protocols: ["chat"],
    maxMessageSize: 1024,
    signal,
  });
  await ws.send("text");
  await ws.send(new Uint8Array([1, 2, 3]), { signal });
  const message: Message = await ws.receive({ signal });
  for await (const next of ws) console.log(typeof next === "string" ? next : next.byteLength);
  const { closeCode } = await ws.close({ closeCode: 1000, reason: "done" });
  return closeCode + message.length;
}

/** A client with the shape of the standard. */
export async function useStream(): Promise<string> {
  const stream = new WebSocketStream(new URL("wss://example.com/"), { protocols: ["chat"] });
  const { readable, writable, protocol } = await stream.opened;
  const writer = writable.getWriter();
  await writer.write("text");
  await writer.write(new ArrayBuffer(8));
  const { value } = await readable.getReader().read();
  stream.close({ closeCode: 1000 });
  const { closeCode, reason } = await stream.closed;
  return `${protocol} ${value} ${closeCode} ${reason}`;
}

/** A native WebSocket, as each platform declares it. */
export async function useNative(socket: WebSocketLike, global: GlobalSocket): Promise<string> {
  const ws = await fromWebSocket(global, { maxQueuedBytes: 1024 });
  await fromWebSocket(socket);
  return ws.protocol;
}
type GlobalSocket = typeof globalThis extends { WebSocket: { prototype: infer T } } ? T : never;

/** Our WebSocketStream has the members of the standard's draft. */
export const standard: new (
  url: string,
  options?: { protocols?: string[]; signal?: AbortSignal },
) => {
  readonly url: string;
  readonly opened: Promise<{
    readable: ReadableStream;
    writable: WritableStream;
    extensions: string;
    protocol: string;
  }>;
  readonly closed: Promise<{ closeCode?: number; reason?: string }>;
  close(info?: { closeCode?: number; reason?: string }): void;
} = WebSocketStream;

/** WebSocketStream is a type and a value, and can be extended. */
export class LoggedStream extends WebSocketStream {
  /** Describes a stream. */
  describe(stream: WebSocketStream = this): string {
    return stream.url;
  }
}

/** The errors have details. */
export function describeError(error: unknown): string {
  if (error instanceof WebSocketError) return `${error.closeCode} ${error.reason}`;
  if (error instanceof HandshakeError) return error.code;
  return String(error);
}

/** A user's own transport. */
export async function useTransport(duplex: ByteDuplex, own: TransportProvider): Promise<string> {
  const transport: Transport = fromStreams(duplex);
  const ws = await connect("ws://localhost/", { transport: toStreams(transport) });
  await connect("ws://localhost/", { provider: own, unix: "/run/app.sock" });
  return ws.protocol;
}

/** The core, without I/O. */
export function decode(chunk: Uint8Array): Uint8Array | undefined {
  const decoder = new FrameDecoder({ role: "server", maxFrameSize: 1024 });
  decoder.push(chunk);
  const protocol = new Protocol("client");
  protocol.receive(encodeFrame({ fin: true, opcode: Opcode.Ping, payload: new Uint8Array(0) }));
  for (const event of protocol.events()) console.log(event);
  return decoder.next()?.payload;
}

/** The batch transforms, piped by hand. */
export function echo(bytes: ReadableStream<Uint8Array>): ReadableStream<Uint8Array> {
  return bytes
    .pipeThrough(FrameDecoderStream.batched({ role: "server" }))
    .pipeThrough(MessageAssemblerStream.batched())
    .pipeThrough(MessageFragmenterStream.batched())
    .pipeThrough(FrameEncoderStream.batched({ role: "server" }));
}

/** One end of a connection, with the handshake. */
export function answers(bytes: Uint8Array | null): Uint8Array[] {
  const endpoint = new Endpoint("server", { maxMessageSize: 1024 });
  const sent: Uint8Array[] = [];
  try {
    endpoint.receive(bytes);
    for (const event of endpoint.events()) {
      if (event.type === "request") {
        sent.push(endpoint.send({ type: "accept", protocol: event.protocols[0] }));
      }
      if (event.type === "text" || event.type === "binary") sent.push(endpoint.send(event));
      const due = response(event);
      if (due !== undefined) sent.push(endpoint.send(due));
    }
  } catch (error) {
    if (!(error instanceof RemoteProtocolError)) throw error;
    if (error.event !== undefined) sent.push(endpoint.send(error.event));
  }
  return sent;
}

/** The building blocks, piped by hand. */
export const pieces: readonly unknown[] = [assemble, pair];
