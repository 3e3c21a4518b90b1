/**
 * Close codes and the payload of Close frames (RFC 6455 §5.5.1 and §7.4).
 *
 * @module
 */
import { RemoteProtocolError } from "./error.ts";
import { Utf8Decoder } from "./utf8.ts";

export { truncateReason } from "./error.ts";

/**
 * The close codes that have a name (RFC 6455 §7.4.1 and the IANA registry).
 *
 * `NoStatus`, `Abnormal` and `TlsHandshake` are for reporting only: they never travel in a frame.
 */
export const CloseCode = {
  /** 1000: the purpose of the connection is fulfilled. */
  Normal: 1000,
  /** 1001: an endpoint goes away: a server shuts down, a page is left. */
  GoingAway: 1001,
  /** 1002: the peer broke the protocol. */
  ProtocolError: 1002,
  /** 1003: a type of data that the endpoint does not take. */
  UnsupportedData: 1003,
  /** 1005: reported where a Close frame carried no code. */
  NoStatus: 1005,
  /** 1006: reported where no Close frame came at all. */
  Abnormal: 1006,
  /** 1007: data that does not fit the type of the message, as invalid UTF-8 in text. */
  InvalidPayload: 1007,
  /** 1008: a message against the endpoint's policy. */
  PolicyViolation: 1008,
  /** 1009: a message too big to process. */
  MessageTooBig: 1009,
  /** 1010: the client wanted an extension that the server did not accept. */
  MandatoryExtension: 1010,
  /** 1011: the endpoint met an unexpected condition. */
  InternalError: 1011,
  /** 1012: the service restarts. */
  ServiceRestart: 1012,
  /** 1013: the service is overloaded; try again later. */
  TryAgainLater: 1013,
  /** 1014: a gateway got an invalid response from its upstream. */
  BadGateway: 1014,
  /** 1015: reported where the TLS handshake failed. */
  TlsHandshake: 1015,
} as const;

/** How a connection was, or is to be, closed. */
export interface CloseInfo {
  /** The close code (RFC 6455 §7.4). Left out: the Close frame carries none. */
  closeCode?: number;
  /** The reason: at most 123 bytes of UTF-8. */
  reason?: string;
}

/** The longest reason that fits a control frame beside the code, in bytes of UTF-8 (RFC 6455 §5.5). */
export const MAX_REASON_LENGTH = 123;

const encoder = new TextEncoder();

/**
 * Whether a close code may travel in a Close frame, and so may be sent and received
 * (RFC 6455 §7.4 and the IANA registry): 1000-1003, 1007-1014, 3000-4999.
 */
export function isWireCloseCode(code: number): boolean {
  return Number.isInteger(code) &&
    ((code >= 1000 && code <= 1003) || (code >= 1007 && code <= 1014) ||
      (code >= 3000 && code <= 4999));
}

/**
 * Reads the payload of a Close frame. An empty one gives code 1005 and no reason.
 *
 * @throws {RemoteProtocolError} 1002 for a payload of one byte or a code that must not be sent,
 * 1007 for a reason that is not UTF-8
 */
export function parseClose(payload: Uint8Array): Required<CloseInfo> {
  // RFC 6455 §7.1.5: no status code present is reported as 1005.
  if (payload.length === 0) return { closeCode: CloseCode.NoStatus, reason: "" };
  // RFC 6455 §5.5.1: a body, where there is one, begins with a code of two bytes.
  if (payload.length === 1) {
    throw new RemoteProtocolError(
      "Expected a Close payload of 0 or at least 2 bytes, received 1",
      CloseCode.ProtocolError,
    );
  }
  const closeCode = (payload[0] << 8) | payload[1];
  if (!isWireCloseCode(closeCode)) {
    throw new RemoteProtocolError(
      `Expected a close code of 1000-1003, 1007-1014 or 3000-4999, received ${closeCode}`,
      CloseCode.ProtocolError,
    );
  }
  if (payload.length === 2) return { closeCode, reason: "" };
  const reason = new Utf8Decoder("a close reason").push(payload.subarray(2), true);
  return { closeCode, reason };
}

/**
 * Writes the payload of a Close frame. Without a code, or with 1005, it is empty.
 *
 * @throws {RangeError} for a code that must not be sent, a reason over 123 bytes, or a reason
 * without a code
 * @throws {TypeError} for a code that is not a number or a reason that is not a string
 */
export function serializeClose(info: CloseInfo): Uint8Array {
  const { closeCode, reason = "" } = info;
  if (closeCode !== undefined && typeof closeCode !== "number") {
    throw new TypeError(`Expected closeCode to be a number, received ${typeof closeCode}`);
  }
  if (typeof reason !== "string") {
    throw new TypeError(`Expected reason to be a string, received ${typeof reason}`);
  }
  if (closeCode === undefined || closeCode === CloseCode.NoStatus) {
    if (reason === "") return new Uint8Array(0);
    throw new RangeError("Expected a close code beside the reason, received a reason alone");
  }
  if (!isWireCloseCode(closeCode)) {
    throw new RangeError(
      `Expected a close code of 1000-1003, 1007-1014 or 3000-4999, received ${closeCode}`,
    );
  }
  const text = encoder.encode(reason);
  if (text.length > MAX_REASON_LENGTH) {
    throw new RangeError(
      `Expected a reason of at most ${MAX_REASON_LENGTH} bytes of UTF-8, received ${text.length}`,
    );
  }
  const payload = new Uint8Array(2 + text.length);
  payload[0] = closeCode >> 8;
  payload[1] = closeCode;
  payload.set(text, 2);
  return payload;
}
