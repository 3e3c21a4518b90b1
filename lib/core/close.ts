/** Close codes and the payload of Close frames (RFC 6455 §5.5.1 and §7.4). */
import { MAX_REASON_LENGTH, RemoteProtocolError, wrongType, wrongValue } from "./error.ts";
import { Utf8Decoder } from "./utf8.ts";

/**
 * The close codes that have a name (RFC 6455 §7.4.1 and the IANA registry).
 *
 * `NoStatus`, `Abnormal` and `TlsHandshake` are only reported. They are never sent in a frame.
 */
export const CloseCode = {
  /** 1000: the connection has served its purpose. */
  Normal: 1000,
  /** 1001: an endpoint goes away, because a server shuts down or the user leaves a page. */
  GoingAway: 1001,
  /** 1002: the peer violated the protocol. */
  ProtocolError: 1002,
  /** 1003: the endpoint does not accept this type of data. */
  UnsupportedData: 1003,
  /** 1005: reported if the Close frame has no code. */
  NoStatus: 1005,
  /** 1006: reported if no Close frame was received. */
  Abnormal: 1006,
  /** 1007: the data does not fit the type of the message, such as invalid UTF-8 in text. */
  InvalidPayload: 1007,
  /** 1008: a message violates the policy of the endpoint. */
  PolicyViolation: 1008,
  /** 1009: a message is too big. */
  MessageTooBig: 1009,
  /** 1010: the client needs an extension that the server did not accept. */
  MandatoryExtension: 1010,
  /** 1011: an unexpected error occurred. */
  InternalError: 1011,
  /** 1012: the service restarts. */
  ServiceRestart: 1012,
  /** 1013: the service is overloaded; try again later. */
  TryAgainLater: 1013,
  /** 1014: a gateway received an invalid response. */
  BadGateway: 1014,
  /** 1015: reported if the TLS handshake failed. */
  TlsHandshake: 1015,
} as const;

/** The code and the reason for closing a connection. */
export interface CloseInfo {
  /** The close code (RFC 6455 §7.4). Undefined if the Close frame has no code. */
  closeCode?: number;
  /** The reason, at most 123 bytes of UTF-8. */
  reason?: string;
}

/** Added to a close code that a native WebSocket refuses. The sum is a code for private use. */
export const PRIVATE_USE = 3000;

const encoder = /* @__PURE__ */ new TextEncoder();
const EMPTY = /* @__PURE__ */ new Uint8Array(0);

/** Returns whether a Close frame may have this code (RFC 6455 §7.4 and the IANA registry). */
export function isWireCloseCode(code: number): boolean {
  return Number.isInteger(code) &&
    ((code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
      (code >= 3000 && code <= 4999));
}

/**
 * Parses the payload of a Close frame. An empty payload gives code 1005 and no reason.
 * @throws {RemoteProtocolError} If the payload is one byte or has a code that must not be sent
 * (1002), or the reason is not UTF-8 (1007).
 */
export function parseClose(payload: Uint8Array): Required<CloseInfo> {
  // RFC 6455 §7.1.5: a missing status code is reported as 1005.
  if (payload.length === 0) return { closeCode: CloseCode.NoStatus, reason: "" };
  // RFC 6455 §5.5.1: if there is a body, it begins with a 2-byte code.
  if (payload.length === 1) {
    throw new RemoteProtocolError(
      "The payload of the Close frame has 1 byte, but a close code has 2",
      CloseCode.ProtocolError,
    );
  }
  const closeCode = (payload[0] << 8) | payload[1];
  if (!isWireCloseCode(closeCode)) {
    throw new RemoteProtocolError(
      `The Close frame has the code ${closeCode}, which must not be sent`,
      CloseCode.ProtocolError,
    );
  }
  if (payload.length === 2) return { closeCode, reason: "" };
  const reason = new Utf8Decoder("a close reason").push(payload.subarray(2), true);
  return { closeCode, reason };
}

/**
 * Serializes the payload of a Close frame. Without a code, or with 1005, it is empty.
 * @throws {RangeError} If the code must not be sent, the reason is longer than 123 bytes, or there
 * is a reason without a code.
 * @throws {TypeError} If the code is not a number or the reason is not a string.
 */
export function serializeClose(info: CloseInfo): Uint8Array {
  const { closeCode, reason = "" } = info;
  if (closeCode !== undefined && typeof closeCode !== "number") {
    throw wrongType(`Expected closeCode to be a number, received ${typeof closeCode}`);
  }
  if (typeof reason !== "string") {
    throw wrongType(`Expected reason to be a string, received ${typeof reason}`);
  }
  if (closeCode === undefined || closeCode === CloseCode.NoStatus) {
    if (reason === "") return new Uint8Array(0);
    throw wrongValue("Expected a closeCode with the reason, received a reason alone");
  }
  if (!isWireCloseCode(closeCode)) {
    throw wrongValue(
      `Expected closeCode to be 1000-1003, 1007-1014 or 3000-4999, received ${closeCode}`,
    );
  }
  const text = reason === "" ? EMPTY : encoder.encode(reason);
  if (text.length > MAX_REASON_LENGTH) {
    throw wrongValue(
      `Expected reason to be at most ${MAX_REASON_LENGTH} bytes of UTF-8, received ${text.length}`,
    );
  }
  const payload = new Uint8Array(2 + text.length);
  payload[0] = closeCode >> 8;
  payload[1] = closeCode;
  payload.set(text, 2);
  return payload;
}
