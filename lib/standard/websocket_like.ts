/**
 * What is needed of a native WebSocket.
 *
 * A file of its own because the declarations compile where no platform declares a WebSocket.
 *
 * @module
 */

/** What is read of the events of a native WebSocket. */
export interface WebSocketLikeEvent {
  /** Which of them it is. */
  readonly type: string;
  /** Of "message": the message. */
  readonly data?: unknown;
  /** Of "close": the close code. */
  readonly code?: number;
  /** Of "close": the reason. */
  readonly reason?: string;
  /** Of "close": whether both Close frames went. */
  readonly wasClean?: boolean;
  /** Of "error": what went wrong, where the platform says so. */
  readonly error?: unknown;
  /** Of "error": the same in words, where the platform says so. */
  readonly message?: string;
}

/** What is needed of a native WebSocket: those of all platforms fit, and those of the package `ws`. */
export interface WebSocketLike {
  /** 0 while it connects, 1 when it is open, then 2 and 3. */
  readonly readyState: number;
  /** The bytes given to `send()` that the platform has not sent yet. Missing: nothing holds us back */
  readonly bufferedAmount?: number;
  /** The subprotocol. */
  readonly protocol?: string | null;
  /** The extensions. */
  readonly extensions?: string | null;
  /** The URL, on a client. */
  readonly url?: string | null;
  /** How binary messages come; it is set to "arraybuffer". */
  binaryType?: string;
  /** Sends a message. */
  send(data: string | Uint8Array<ArrayBuffer>): void;
  /** Starts the closing handshake. */
  close(code?: number, reason?: string): void;
  /** Ends the transport, where the platform has it. */
  terminate?(): void;
  /** Calls back at an event. */
  addEventListener(
    type: "open" | "message" | "error" | "close",
    listener: (event: WebSocketLikeEvent) => void,
  ): void;
  /** Calls back no more. */
  removeEventListener(
    type: "open" | "message" | "error" | "close",
    listener: (event: WebSocketLikeEvent) => void,
  ): void;
}
