/**
 * Where the library tells what happens to its connections: the log and the channels of the platform, which
 * the adapter of the platform sets. Nothing is told, and nothing costs time, if nobody listens.
 *
 * @module
 */
import type { CloseInfo } from "./core/close.ts";
import type { HandshakeError } from "./core/error.ts";
import type { Frame, Role } from "./core/frame.ts";
import type { RequestHead, ResponseHead } from "./core/http1.ts";
import type { Transport } from "./transport.ts";

/** What is known when the handshake is over. */
export interface Opened {
  readonly role: Role;
  readonly request: RequestHead;
  readonly response: ResponseHead;
  readonly transport: Pick<Transport, "localAddress" | "remoteAddress">;
}

/** Listens to one connection. */
export interface ConnectionListener {
  onFrame(direction: "in" | "out", frame: Frame): void;
  opened(connection: object): void;
  ended(connection: object, close: Required<CloseInfo>, error: Error | undefined): void;
}

export interface Diagnostics {
  /** Whether frames are told. Decided before the first connection. */
  readonly logsFrames: boolean;
  /** Whether anybody wants to know of handshakes that a server refuses. */
  readonly wantsRefused: boolean;
  /** Returns a listener for a new connection, or undefined if nobody listens. */
  listen(opened: Opened): ConnectionListener | undefined;
  /** A server has refused a handshake. */
  refused(error: HandshakeError, request: Request | undefined): void;
  /** A client could not connect. The URL has no credentials. */
  failed(url: string, error: unknown): void;
}

/** The diagnostics of the platform, if its adapter is loaded and has any. */
export let diagnostics: Diagnostics | undefined;

export function setDiagnostics(found: Diagnostics): void {
  diagnostics = found;
}
