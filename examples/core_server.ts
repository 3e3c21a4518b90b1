/** An echo server on the sans-I/O core and the bare sockets of node:net: on Node, Bun and Deno. */
import { type AddressInfo, createServer, type Socket } from "node:net";
import process from "node:process";
import {
  Endpoint,
  type EndpointEvent,
  type OutgoingEndpointEvent,
  RemoteProtocolError,
  response,
} from "sluice/core";

/** The event that answers another one, if any. */
function answer(event: EndpointEvent): OutgoingEndpointEvent | undefined {
  switch (event.type) {
    case "request":
      if (event.target === "/echo") return { type: "accept", protocol: event.protocols[0] };
      return { type: "reject", status: 404 };
    case "text":
    case "binary":
      // A piece of a message is sent back as a piece.
      return event;
    default:
      return response(event);
  }
}

function serve(socket: Socket): void {
  const endpoint = new Endpoint("server", { maxMessageSize: 1024 * 1024 });
  const send = (event: OutgoingEndpointEvent) => {
    // If the client does not read, stop reading from it.
    if (!socket.write(endpoint.send(event))) socket.pause();
  };
  const receive = (chunk: Uint8Array | null) => {
    if (endpoint.state === "closed") return;
    try {
      endpoint.receive(chunk);
      for (const event of endpoint.events()) {
        const due = answer(event);
        if (due !== undefined) send(due);
      }
    } catch (error) {
      if (!(error instanceof RemoteProtocolError)) throw error;
      console.log("refused:", error.message);
      if (error.event !== undefined) send(error.event);
      socket.end();
    }
    // The server ends the connection, after everything was written.
    if (endpoint.endsTransport) socket.end();
  };
  socket.on("data", receive);
  socket.on("end", () => receive(null));
  socket.on("drain", () => socket.resume());
  socket.on("error", (error) => console.log("lost:", error.message));
}

const server = createServer(serve);
server.listen(8080, "127.0.0.1", () => {
  console.log("port:", (server.address() as AddressInfo).port);
});
process.once("SIGTERM", () => server.close(() => console.log("closed")));
