/**
 * Echo servers whose connections are transforms piped by hand over the two byte streams of a socket:
 * bytes, frames, messages, frames, bytes. One item a chunk, or a batch.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type ByteDuplex, toStreams } from "../../lib/byte_streams.ts";
import { Endpoint } from "../../lib/core/mod.ts";
import { headOf, upgradedTransport } from "../../lib/runtime/node_upgrade.ts";
import {
  FrameDecoderStream,
  FrameEncoderStream,
  MessageAssemblerStream,
  MessageFragmenterStream,
} from "../../lib/streams.ts";

// What comes from the socket is nobody else's, and may be unmasked in place.
const DECODER = { role: "server", ownsInput: true } as const;
const ENCODER = { role: "server" } as const;

/** One item a chunk. */
export function echoItems({ readable, writable }: ByteDuplex): Promise<void> {
  return readable
    .pipeThrough(new FrameDecoderStream(DECODER))
    .pipeThrough(new MessageAssemblerStream())
    .pipeThrough(new MessageFragmenterStream())
    .pipeThrough(new FrameEncoderStream(ENCODER))
    .pipeTo(writable);
}

/** Arrays of items. */
export function echoBatches({ readable, writable }: ByteDuplex): Promise<void> {
  return readable
    .pipeThrough(FrameDecoderStream.batched(DECODER))
    .pipeThrough(MessageAssemblerStream.batched())
    .pipeThrough(MessageFragmenterStream.batched())
    .pipeThrough(FrameEncoderStream.batched(ENCODER))
    .pipeTo(writable);
}

/** A server with that echo; gives the port. */
export async function serveChain(echo: (duplex: ByteDuplex) => Promise<void>): Promise<number> {
  const server = createServer();
  server.on("upgrade", (request, socket, head) => {
    const endpoint = new Endpoint("server");
    endpoint.takeHead(headOf(request), new Uint8Array(head));
    endpoint.next();
    socket.write(endpoint.send({ type: "accept" }));
    // The load ends by destroying its sockets.
    echo(toStreams(upgradedTransport(socket))).catch(() => {});
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}
