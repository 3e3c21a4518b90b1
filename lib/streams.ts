/**
 * Streams that turn bytes into frames and frames into messages, and the reverse. Pipe them together, or
 * use {@linkcode assemble}.
 *
 * @example An echo made by hand
 * ```ts
 * import {
 *   FrameDecoderStream,
 *   FrameEncoderStream,
 *   MessageAssemblerStream,
 *   MessageFragmenterStream,
 * } from "sluice/streams";
 *
 * const bytes = new Uint8Array([0x81, 0x82, 0, 0, 0, 0, 0x68, 0x69]);
 * const echo = ReadableStream.from([bytes])
 *   .pipeThrough(new FrameDecoderStream({ role: "server" }))
 *   .pipeThrough(new MessageAssemblerStream())
 *   .pipeThrough(new MessageFragmenterStream())
 *   .pipeThrough(new FrameEncoderStream({ role: "server" }));
 * for await (const chunk of echo) console.log(chunk); // Uint8Array [0x81, 0x02, 0x68, 0x69]
 * ```
 *
 * Each class has a batch form, made by `batched()`, whose chunks are arrays. The batch form of a stream
 * of bytes puts several frames into one chunk. Batches are faster for small messages.
 *
 * @example The same in batches
 * ```ts
 * import {
 *   FrameDecoderStream,
 *   FrameEncoderStream,
 *   MessageAssemblerStream,
 *   MessageFragmenterStream,
 * } from "sluice/streams";
 *
 * const frame = [0x81, 0x82, 0, 0, 0, 0, 0x68, 0x69];
 * const echo = ReadableStream.from([new Uint8Array([...frame, ...frame])])
 *   .pipeThrough(FrameDecoderStream.batched({ role: "server" }))
 *   .pipeThrough(MessageAssemblerStream.batched())
 *   .pipeThrough(MessageFragmenterStream.batched())
 *   .pipeThrough(FrameEncoderStream.batched({ role: "server" }));
 * // Uint8Array [0x81, 0x02, 0x68, 0x69, 0x81, 0x02, 0x68, 0x69]
 * for await (const chunk of echo) console.log(chunk);
 * ```
 *
 * @module
 */
export { assemble, type AssembleOptions, type MessageDuplex } from "./streams/assemble.ts";
export type { ByteDuplex } from "./transport.ts";
export type { CloseInfo } from "./core/close.ts";
export type { EncodedFrame, Extension, OutgoingFrame, PENDING } from "./core/extension.ts";
export type { Frame, FrameHeader, Opcode, Role } from "./core/frame.ts";
export type { FrameDecoderOptions, FramePiece } from "./core/decoder.ts";
export type { FragmentsOptions, Message, MessageOptions } from "./core/message.ts";
export type { TextCodec } from "./core/utf8.ts";
export type { BufferSource, InboxStrategy } from "./options.ts";
export {
  ExtensionDecoderStream,
  ExtensionEncoderStream,
  FrameDecoderStream,
  type FrameEncoderOptions,
  FrameEncoderStream,
  type MessageAssemblerOptions,
  MessageAssemblerStream,
  MessageFragmenterStream,
  type PullStream,
} from "./streams/transforms.ts";
