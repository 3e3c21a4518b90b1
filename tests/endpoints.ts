/** Helpers for pairs of endpoints without I/O. */
import assert from "node:assert/strict";
import {
  Endpoint,
  type EndpointEvent,
  type EndpointOptions,
  type OutgoingEndpointEvent,
  RemoteProtocolError,
} from "../lib/core/mod.ts";
import { concat, latin1 } from "./bytes.ts";

export const REQUEST: OutgoingEndpointEvent = {
  type: "request",
  host: "example.com",
  target: "/chat?a=b",
};

/** Input in the forms that the tests use. */
export type Chunk = Uint8Array | string | null;

export function feed(endpoint: Endpoint, chunk: Chunk): void {
  endpoint.receive(typeof chunk === "string" ? latin1(chunk) : chunk);
}

/** The events of the endpoint for these chunks. */
export function read(endpoint: Endpoint, ...chunks: Chunk[]): EndpointEvent[] {
  return chunks.flatMap((chunk) => {
    feed(endpoint, chunk);
    return [...endpoint.events()];
  });
}

/** The error in what the peer sent. */
export function failureOf(endpoint: Endpoint): RemoteProtocolError {
  try {
    endpoint.next();
  } catch (error) {
    assert.ok(error instanceof RemoteProtocolError, `${error}`);
    return error;
  }
  throw new Error("Expected a failure");
}

/** Two endpoints. The server has received the client's request. */
export function asked(
  request: Partial<OutgoingEndpointEvent> = {},
  options: EndpointOptions = {},
): { client: Endpoint; server: Endpoint; event: EndpointEvent } {
  const client = new Endpoint("client", options);
  const server = new Endpoint("server", options);
  const [event] = read(server, client.send({ ...REQUEST, ...request } as OutgoingEndpointEvent));
  return { client, server, event };
}

/** Two endpoints with an open connection. */
export function open(options: EndpointOptions = {}): { client: Endpoint; server: Endpoint } {
  const { client, server } = asked({}, options);
  read(client, server.send({ type: "accept" }));
  return { client, server };
}

/** A client that has sent a request, and the request. */
export function waiting(options: EndpointOptions = {}): [Endpoint, string] {
  const client = new Endpoint("client", options);
  const sent = client.send({ ...REQUEST, protocols: ["a"] } as OutgoingEndpointEvent);
  return [client, String.fromCharCode(...sent)];
}

/** The events, with the pieces of each message or body merged into one event. */
export function merged(events: readonly EndpointEvent[]): EndpointEvent[] {
  const result: EndpointEvent[] = [];
  for (const event of events) {
    const last = result.at(-1);
    if (event.type === "rejectData" && last?.type === "rejectData") {
      result[result.length - 1] = { ...event, data: concat([last.data, event.data]) };
    } else if (event.type === "text" && last?.type === "text" && !last.messageFinished) {
      result[result.length - 1] = { ...event, data: last.data + event.data };
    } else result.push(event);
  }
  return result;
}
