/**
 * The sans-I/O core: bytes in, events out, and the reverse. It knows no streams, timers, promises or
 * runtimes; bring your own I/O.
 *
 * @module
 */

// Lets runtimes print errors with their codes.
import "./error_print.ts";

// One end of a connection.
export { Endpoint, type EndpointOptions } from "./endpoint.ts";
export { Protocol, type ProtocolOptions, type ProtocolState } from "./protocol.ts";
export { response } from "./event.ts";
export type {
  EndpointEvent,
  EventOf,
  Optional,
  OutgoingEndpointEvent,
  OutgoingEvent,
  ProtocolEvent,
} from "./event.ts";

// Frames and messages.
export { encodeFrame } from "./frame_writer.ts";
export { type Frame, type FrameHeader, Opcode, type Role, Rsv } from "./frame.ts";
export { FrameDecoder, type FrameDecoderOptions, type FramePiece } from "./decoder.ts";
export { fragments, MessageAssembler } from "./message.ts";
export type { Fragment, Message } from "./message.ts";
export { CloseCode, type CloseInfo, parseClose, serializeClose } from "./close.ts";

// The opening handshake.
export { acceptToken, type Agreement, type ReceivedOffer } from "./handshake.ts";
export {
  type HeadProgress,
  parseRequestHead,
  parseResponseHead,
  type RequestHead,
  type ResponseHead,
  serializeRequestHead,
  serializeResponseHead,
} from "./http1.ts";
export {
  type ExtensionHeader,
  headerValue,
  headerValues,
  parseExtensions,
  parseProtocols,
  parseTokenList,
  parseUpgrade,
  type RawHeaders,
  serializeExtensions,
  serializeProtocols,
} from "./header.ts";
export { parseWebSocketUrl, type WebSocketUrl } from "./url.ts";

// Extensions.
export { acceptExtensions, finalizeExtensions, offerExtensions, PENDING } from "./extension.ts";
export type {
  EncodedFrame,
  Extension,
  ExtensionFactory,
  ExtensionParameters,
  OutgoingFrame,
} from "./extension.ts";
export {
  PerMessageDeflate,
  type PerMessageDeflateInit,
  type PerMessageDeflateOptions,
  supportedExtensions,
} from "./permessage_deflate.ts";

// Errors.
export {
  HandshakeError,
  LocalProtocolError,
  RemoteProtocolError,
  WebSocketError,
} from "./error.ts";
export type { ErrorAnswer } from "./error.ts";
