/**
 * TCP by Deno's own sockets, with the transport that carries TLS there. It is not in the library, being
 * no faster than `node:net`; here it shows that, for as long as it is so.
 */
import { DenoTransport } from "../../lib/runtime/deno.ts";
import { nodeProvider } from "../../lib/runtime/node.ts";
import type { TransportProvider } from "../../mod.ts";

/** What `node:net` reads at most at once. */
const READ_SIZE = 65536;

/** Listens by `Deno.listen()`. */
export const denoTcpProvider: TransportProvider = {
  ...nodeProvider,
  listen({ hostname, port }, accept) {
    const listener = Deno.listen({ hostname, port });
    (async () => {
      for await (const conn of listener) {
        conn.setNoDelay(true);
        accept(new DenoTransport(conn, READ_SIZE));
      }
    })();
    const address = { transport: "tcp", hostname, port: listener.addr.port } as const;
    return Promise.resolve({ address, close: () => Promise.resolve(listener.close()) });
  },
};
