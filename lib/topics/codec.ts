/** Turns the values of an application into messages, and messages into values. */
import { handled } from "../abortable.ts";
import { wrongType } from "../core/error.ts";
import type { Message } from "../core/message.ts";
import { kindOf } from "../core/options.ts";

/** Turns values into messages and back. */
export interface Codec<T> {
  /** Returns the message for a value. An error makes `publish()` reject. */
  encode(value: T): Message;
  /** Returns the value of a message. An error says that the message is not valid. */
  decode(message: Message): T | Promise<T>;
}

/** The result of a validator of {@link https://standardschema.dev Standard Schema}. */
export type StandardResult<T> =
  | { readonly value: T; readonly issues?: undefined }
  | { readonly issues: readonly { readonly message: string }[] };

/** A validator of {@link https://standardschema.dev Standard Schema}, such as those of zod or valibot. */
export interface StandardSchema<T> {
  /** The validator. */
  readonly "~standard": {
    readonly version: 1;
    readonly vendor: string;
    readonly validate: (value: unknown) => StandardResult<T> | Promise<StandardResult<T>>;
    readonly types?: { readonly input: unknown; readonly output: T } | undefined;
  };
}

/** Messages stay as they are; other values become JSON. */
export const plainCodec: Codec<unknown> = {
  encode: (value) => isMessage(value) ? value : toJson(value),
  decode: (message) => message,
};

/** All values are JSON that the schema allows. */
export function jsonCodec<T>(schema: StandardSchema<T>): Codec<T> {
  const standard = schema["~standard"];
  return {
    encode: toJson,
    async decode(message) {
      const text = typeof message === "string" ? message : new TextDecoder().decode(message);
      const result = await standard.validate(JSON.parse(text));
      if (result.issues === undefined) return result.value;
      const why = result.issues.map(({ message }) => message).join("; ");
      throw wrongType(why, { code: "malformed-message" });
    },
  };
}

export function checkSchema(name: string, value: unknown): void {
  const { "~standard": standard } = Object(value) as Partial<StandardSchema<unknown>>;
  if (typeof standard?.validate === "function") return;
  throw wrongType(`Expected ${name} to be a Standard Schema, received ${kindOf(value)}`);
}

export function checkCodec(name: string, value: unknown): void {
  const { encode, decode } = Object(value) as Partial<Codec<unknown>>;
  if (typeof encode === "function" && typeof decode === "function") return;
  throw wrongType(`Expected ${name} to have encode() and decode(), received ${kindOf(value)}`);
}

/** Encodes a value. Throws a TypeError if the codec fails, or returns no message. */
export function encodeWith<T>(codec: Codec<T>, value: T): Message {
  let message: unknown;
  try {
    message = codec.encode(value);
  } catch (cause) {
    const { message: why } = Object(cause) as Partial<Error>;
    throw wrongType(`The codec cannot encode the value: ${why}`, { cause });
  }
  if (isMessage(message)) return message;
  // The rejection of a codec that is async must not count as unhandled.
  if (message instanceof Promise) handled(message);
  throw wrongType(`Expected a string or bytes from the codec, received ${kindOf(message)}`);
}

/** Decodes a message. Rejects with a TypeError if the codec or the validator rejects the message. */
export async function decodeWith<T>(codec: Codec<T>, message: Message): Promise<T> {
  try {
    return await codec.decode(message);
  } catch (cause) {
    const { message: why } = Object(cause) as Partial<Error>;
    throw wrongType(`The message is not valid: ${why}`, { code: "malformed-message", cause });
  }
}

function isMessage(value: unknown): value is Message {
  return typeof value === "string" || value instanceof Uint8Array;
}

/** Returns the JSON of a value. Throws a TypeError if the value has none, or JSON that says nothing. */
export function toJson(value: unknown): string {
  const json: string | undefined = JSON.stringify(value);
  // Such as "[object Promise]". The JSON of a promise, a buffer, a Map or a Blob is an empty object.
  const tag = Object.prototype.toString.call(value);
  const isLost = json === "{}" && tag !== "[object Object]";
  if (json !== undefined && !isLost && !ArrayBuffer.isView(value)) return json;
  const kind = isLost || ArrayBuffer.isView(value) ? tag.slice(8, -1) : kindOf(value);
  throw wrongType(`Expected a string, a Uint8Array or a value with JSON, received ${kind}`);
}
