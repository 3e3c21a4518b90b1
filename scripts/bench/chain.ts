/**
 * Echo servers whose connections are transforms, piped by hand over the two byte streams of a socket:
 * bytes, frames, messages, frames, bytes. The chunks are single items or arrays.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { type ByteDuplex, toStreams } from "../../lib/transport.ts";
import { Endpoint } from "../../lib/core/mod.ts";
import { headOf, upgradedTransport } from "../../lib/runtime/node_upgrade.ts";
import {
  FrameDecoderStream,
  FrameEncoderStream,
  MessageAssemblerStream,
  MessageFragmenterStream,
} from "../../lib/streams.ts";

// The socket's data has no other user, and may be unmasked in place.
const DECODER = { role: "server", ownsInput: true } as const;
const ENCODER = { role: "server" } as const;

/** Echoes with one item per chunk. */
export function echoItems({ readable, writable }: ByteDuplex): Promise<void> {
  return readable
    .pipeThrough(new FrameDecoderStream(DECODER))
    .pipeThrough(new MessageAssemblerStream())
    .pipeThrough(new MessageFragmenterStream())
    .pipeThrough(new FrameEncoderStream(ENCODER))
    .pipeTo(writable);
}

/** Echoes with arrays of items. */
export function echoBatches({ readable, writable }: ByteDuplex): Promise<void> {
  return readable
    .pipeThrough(FrameDecoderStream.batched(DECODER))
    .pipeThrough(MessageAssemblerStream.batched())
    .pipeThrough(MessageFragmenterStream.batched())
    .pipeThrough(FrameEncoderStream.batched(ENCODER))
    .pipeTo(writable);
}

/** Starts a server with this echo, and returns its port. */
export async function serveChain(echo: (duplex: ByteDuplex) => Promise<void>): Promise<number> {
  const server = createServer();
  server.on("upgrade", (request, socket, head) => {
    const endpoint = new Endpoint("server");
    endpoint.takeHead(headOf(request), new Uint8Array(head));
    endpoint.next();
    socket.write(endpoint.send({ type: "accept" }));
    // The load ends by destroying its sockets, so errors are expected.
    echo(toStreams(upgradedTransport(socket))).catch(() => {});
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  return (server.address() as AddressInfo).port;
}
