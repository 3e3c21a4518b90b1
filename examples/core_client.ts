/** A client on the sans-I/O core and a bare socket of node:net: on Node, Bun and Deno. */
import { connect } from "node:net";
import {
  Endpoint,
  type EndpointEvent,
  MessageAssembler,
  type OutgoingEndpointEvent,
  RemoteProtocolError,
  response,
} from "sluice/core";

const url = new URL("ws://127.0.0.1:8080/echo");
const endpoint = new Endpoint("client", { maxMessageSize: 1024 * 1024 });
const messages = new MessageAssembler();
const socket = connect({ host: url.hostname, port: Number(url.port) });

function send(event: OutgoingEndpointEvent): void {
  socket.write(endpoint.send(event));
}

function take(event: EndpointEvent): void {
  switch (event.type) {
    case "accept":
      send({ type: "text", data: "Hello, ", messageFinished: false });
      return send({ type: "text", data: "World" });
    case "reject":
      return console.log("refused:", event.status);
    case "rejectData":
      return console.log(new TextDecoder().decode(event.data));
    case "text":
    case "binary": {
      const message = messages.push(event);
      if (message === undefined) return;
      console.log("received:", message);
      return send({ type: "close", closeCode: 1000, reason: "done" });
    }
    case "close":
      console.log("closed:", event.closeCode, event.reason);
  }
  // Answer pings, and a Close that the server sent first.
  const due = response(event);
  if (due !== undefined && endpoint.state !== "closed") send(due);
}

function receive(chunk: Uint8Array | null): void {
  if (endpoint.state === "closed") return;
  try {
    endpoint.receive(chunk);
    for (const event of endpoint.events()) take(event);
  } catch (error) {
    if (!(error instanceof RemoteProtocolError)) throw error;
    console.log("failed:", error.message);
    if (error.event !== undefined) send(error.event);
    socket.end();
  }
  if (endpoint.endsTransport) socket.end();
}

socket.on("connect", () => {
  send({ type: "request", host: url.host, target: url.pathname + url.search });
});
socket.on("data", receive);
socket.on("end", () => receive(null));
socket.on("error", (error) => console.log("lost:", error.message));
