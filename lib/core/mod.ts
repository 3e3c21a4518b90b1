/**
 * The sans-I/O core: bytes in, events out, and the reverse. It knows no streams, timers, promises or
 * runtimes; bring your own I/O.
 *
 * @module
 */
export * from "./close.ts";
export * from "./endpoint.ts";
export type {
  DeflateEngine,
  Deflater,
  DeflaterOptions,
  Inflater,
  InflaterOptions,
} from "./deflate.ts";
export {
  type ErrorAnswer,
  HandshakeError,
  type HandshakeErrorCode,
  type HandshakeErrorOptions,
  LocalProtocolError,
  type RefusedResponse,
  RemoteProtocolError,
  type RemoteProtocolErrorOptions,
  WebSocketError,
} from "./error.ts";
export { encodeFrame, type EncodeFrameOptions, type Encoder, type Written } from "./encoder.ts";
export { type Frame, type FrameHeader, Opcode, type Role, Rsv } from "./frame.ts";
export {
  type CloseEvent,
  type OutgoingEvent,
  type PingEvent,
  type PongEvent,
  type ProtocolEvent,
  response,
} from "./event.ts";
export {
  type AcceptedExtensions,
  acceptExtensions,
  type EncodedFrame,
  type Extension,
  type ExtensionFactory,
  type ExtensionParameters,
  ExtensionReader,
  finalizeExtensions,
  offerExtensions,
  type OutgoingFrame,
  PENDING,
} from "./extension.ts";
export { FrameDecoder, type FrameDecoderOptions, type FramePiece } from "./decoder.ts";
export {
  type AcceptOptions,
  type Agreement,
  type HandshakeOffer,
  type ReceivedOffer,
} from "./agreement.ts";
export { acceptToken } from "./handshake.ts";
export * from "./http2_handshake.ts";
export * from "./handshake_event.ts";
export * from "./client_handshake.ts";
export * from "./server_handshake.ts";
export {
  type ExtensionHeader,
  headerValue,
  headerValues,
  isFieldValue,
  isToken,
  parseExtensions,
  parseProtocols,
  parseTokenList,
  parseUpgrade,
  type RawHeaders,
  serializeExtensions,
  serializeProtocols,
} from "./header.ts";
export {
  type BodyFraming,
  bodyFraming,
  type HeadLimits,
  type HeadParser,
  HeadProgress,
  HeadReader,
  type ParsedHead,
  parseRequestHead,
  parseResponseHead,
  type RequestHead,
  type ResponseHead,
  serializeRequestHead,
  serializeResponseHead,
} from "./http1.ts";
export {
  type BinaryEvent,
  type Fragment,
  fragments,
  type FragmentsOptions,
  type Message,
  MessageAssembler,
  type MessageOptions,
  type TextEvent,
} from "./message.ts";
export {
  PerMessageDeflate,
  type PerMessageDeflateInit,
  type PerMessageDeflateOptions,
  supportedExtensions,
} from "./permessage_deflate.ts";
export { Protocol, type ProtocolOptions, type ProtocolState } from "./protocol.ts";
export { parseWebSocketUrl, type WebSocketUrl } from "./url.ts";
export { type TextCodec, Utf8Decoder, webTextCodec } from "./utf8.ts";
