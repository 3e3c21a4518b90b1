/** The errors of `ws`: its codes and messages for the errors of the core. */
import { constants } from "node:zlib";
import type { HandshakeError, RemoteProtocolError } from "../core/error.ts";

/** An error with the code of `ws`, such as WS_ERR_INVALID_OPCODE. */
export interface CodedError extends Error {
  /** The code. */
  code: string;
}

const UNSUPPORTED_LENGTH = "Unsupported WebSocket frame: payload length > 2^53 - 1";

type Named = readonly [message: string, code: string];

/** The error of `ws` for the message of a {@linkcode RemoteProtocolError}. */
const VIOLATIONS: readonly (readonly [RegExp, (found: RegExpExecArray) => Named])[] = [
  [
    /uses \(RSV (\d)\)/,
    ([, rsv]) => (Number(rsv) & 3) !== 0 ? reserved("RSV2 and RSV3", "2_3") : reserved("RSV1", "1"),
  ],
  [/reserved bits|bit RSV1/, () => reserved("RSV1", "1")],
  [/unknown opcode (\d+)/, ([, opcode]) => wrongOpcode(opcode)],
  [/no message to continue/, () => wrongOpcode("0")],
  [/A text message began/, () => wrongOpcode("1")],
  [/A binary message began/, () => wrongOpcode("2")],
  [/longer than 125 bytes/, () => wrongLength("126")],
  [/Close frame has 1 byte/, () => wrongLength("1")],
  [/frame is fragmented/, () => ["FIN must be set", "WS_ERR_EXPECTED_FIN"]],
  [/is not masked/, () => ["MASK must be set", "WS_ERR_EXPECTED_MASK"]],
  [/is masked/, () => ["MASK must be clear", "WS_ERR_UNEXPECTED_MASK"]],
  [
    /has the code (\d+)/,
    ([, code]) => [`invalid status code ${code}`, "WS_ERR_INVALID_CLOSE_CODE"],
  ],
  [/more than it needs/, () => ["length is not minimal", "WS_ERR_INVALID_PAYLOAD_LENGTH"]],
  [/Invalid UTF-8/, () => ["invalid UTF-8 sequence", "WS_ERR_INVALID_UTF8"]],
];

function reserved(bits: string, code: string): Named {
  return [`${bits} must be clear`, `WS_ERR_UNEXPECTED_RSV_${code}`];
}

function wrongOpcode(opcode: string): Named {
  return [`invalid opcode ${opcode}`, "WS_ERR_INVALID_OPCODE"];
}

function wrongLength(length: string): Named {
  return [`invalid payload length ${length}`, "WS_ERR_INVALID_CONTROL_PAYLOAD_LENGTH"];
}

/** Returns the error to emit if the peer has violated the protocol. */
export function violationOf(cause: RemoteProtocolError): CodedError {
  const { message, closeCode } = cause;
  for (const [pattern, make] of VIOLATIONS) {
    const found = pattern.exec(message);
    if (found === null) continue;
    const [text, code] = make(found);
    const Class = closeCode === 1007 ? Error : RangeError;
    return coded(new Class(`Invalid WebSocket frame: ${text}`, { cause }), code);
  }
  if (closeCode === 1008) return coded(new RangeError(message), "WS_ERR_TOO_MANY_BUFFERED_PARTS");
  if (closeCode === 1007) {
    // zlib has the same code for all invalid data. The text is its own.
    const text = message.replace(/^.*cannot be inflated: /, "");
    const error = coded(new Error(text, { cause }), "Z_DATA_ERROR");
    return Object.assign(error, { errno: constants.Z_DATA_ERROR });
  }
  const [text, code] = closeCode === 1009 && !message.includes("2^53")
    ? ["Max payload size exceeded", "WS_ERR_UNSUPPORTED_MESSAGE_LENGTH"]
    : [UNSUPPORTED_LENGTH, "WS_ERR_UNSUPPORTED_DATA_PAYLOAD_LENGTH"];
  return coded(new RangeError(text, { cause }), code);
}

/** Gives an error a code. */
export function coded<T extends Error>(error: T, code: string): T & CodedError {
  return Object.assign(error, { code });
}

/** How a server answers a request that it refuses. */
export interface Refusal {
  /** The status. */
  status: number;
  /** The body of the response, and the message of the 'wsClientError' event. */
  message: string;
  /** Additional header fields. */
  headers?: { readonly [name: string]: string };
}

const BAD_EXTENSIONS = "Invalid or unacceptable Sec-WebSocket-Extensions header";

/** The refusals of `ws` that come before `shouldHandle()`, by the code of a {@linkcode HandshakeError}. */
const REFUSALS: { readonly [code: string]: Refusal } = {
  method: { status: 405, message: "Invalid HTTP method" },
  "not-upgrade": { status: 400, message: "Invalid Upgrade header" },
  key: { status: 400, message: "Missing or invalid Sec-WebSocket-Key header" },
  version: {
    status: 400,
    message: "Missing or invalid Sec-WebSocket-Version header",
    headers: { "Sec-WebSocket-Version": "13, 8" },
  },
};

/** Returns how to refuse a request, and whether this comes before `shouldHandle()`. */
export function refusalOf({ code, status = 400, message }: HandshakeError): {
  refusal: Refusal;
  isEarly: boolean;
} {
  const early = REFUSALS[code];
  if (early !== undefined) return { refusal: early, isEarly: true };
  const header = /Sec-WebSocket-(?:Protocol|Extensions)|subprotocol/.exec(message)?.[0];
  if (header === undefined) return { refusal: { status, message }, isEarly: false };
  const text = header.endsWith("Extensions")
    ? BAD_EXTENSIONS
    : "Invalid Sec-WebSocket-Protocol header";
  return { refusal: { status: 400, message: text }, isEarly: false };
}

/** The refusal of offers of permessage-deflate that the server cannot accept. */
export const UNACCEPTABLE: Refusal = { status: 400, message: BAD_EXTENSIONS };

/** Returns the error of a client whose server has answered wrongly. */
export function answerError(
  cause: HandshakeError,
  { offersProtocols, offersExtensions }: { offersProtocols: boolean; offersExtensions: boolean },
): Error {
  return new Error(wrongAnswer(cause, offersProtocols, offersExtensions), { cause });
}

function wrongAnswer(
  { code, message }: HandshakeError,
  offersProtocols: boolean,
  offersExtensions: boolean,
): string {
  switch (code) {
    case "upgrade":
      return "Invalid Upgrade header";
    case "accept":
      return "Invalid Sec-WebSocket-Accept header";
    case "subprotocol":
      if (message.includes("chose none")) return "Server sent no subprotocol";
      return offersProtocols
        ? "Server sent an invalid subprotocol"
        : "Server sent a subprotocol but none was requested";
    case "extension":
      return offersExtensions
        ? "Server indicated an extension that was not requested"
        : "Server sent a Sec-WebSocket-Extensions header but no extension was requested";
    case "duplicate-parameter":
    case "parameter-name":
    case "parameter-value":
      return "Invalid Sec-WebSocket-Extensions header";
    default:
      return /Sec-WebSocket-Extensions/.test(message)
        ? "Invalid Sec-WebSocket-Extensions header"
        : message;
  }
}
