/**
 * Parses and serializes the header fields of the opening handshake (RFC 9110 §5.6, RFC 6455 §9.1).
 * Every parser takes linear time.
 */
import { HandshakeError, wrongType } from "./error.ts";

/** Header fields in their order. A name may occur several times. */
export type RawHeaders = readonly (readonly [name: string, value: string])[];

/** An extension and its parameters, as offered or accepted. */
export interface ExtensionHeader {
  /** The name of the extension. */
  readonly name: string;
  /** The parameters, in order. The value is undefined for a parameter without a value. */
  readonly parameters: readonly (readonly [name: string, value: string | undefined])[];
}

/** Returns the values of all fields with this name, in any case. */
export function headerValues(headers: RawHeaders, name: string): string[] {
  let values: string[] | undefined;
  for (const field of headers) {
    if (!isNamed(field[0], name)) continue;
    if (values === undefined) values = [field[1]];
    else values.push(field[1]);
  }
  return values ?? [];
}

export function isNamed(given: string, name: string): boolean {
  if (given.length !== name.length) return false;
  return given === name || given.toLowerCase() === name.toLowerCase();
}

/**
 * Returns the value of the only field with this name, or undefined.
 * @throws {HandshakeError} If there are several fields ("malformed-header").
 */
export function headerValue(headers: RawHeaders, name: string): string | undefined {
  const values = headerValues(headers, name);
  if (values.length <= 1) return values[0];
  const message = `The ${name} header occurs ${values.length} times`;
  throw new HandshakeError(message, "malformed-header", { status: 400 });
}

/** RFC 9110 §5.6.2, as a regular expression for one character. */
export const TCHAR = "[!#$%&'*+\\-.^_`|~0-9A-Za-z]";
const TOKEN = new RegExp(`^${TCHAR}+$`);
const NO_TOKEN = new RegExp(`(?!${TCHAR}).+`, "s");
const TOKEN_HERE = new RegExp(`${TCHAR}+`, "y");

/** Returns whether the text is a token (RFC 9110 §5.6.2). */
export function isToken(text: string): boolean {
  return TOKEN.test(text);
}

/** RFC 9110 §5.5: no control characters, and only Latin-1. */
export function isFieldValue(text: string): boolean {
  return /^[\t\x20-\x7e\x80-\xff]*$/.test(text);
}

export function checkField(name: string, value: string): void {
  if (!isToken(name)) {
    // A whole field given as the name may contain a password.
    const shown = JSON.stringify(name.replace(NO_TOKEN, "…"));
    throw wrongType(`Expected a header name to be a token, received ${shown}`);
  }
  if (!isFieldValue(value)) {
    throw wrongType(
      // The value may be a password.
      `The value of the ${name} header has a control character or one beyond Latin-1`,
    );
  }
}

class Scanner {
  readonly #name: string;
  readonly #text: string;
  #at = 0;

  constructor(name: string, text: string) {
    this.#name = name;
    this.#text = text;
  }

  /** Skips white space. Returns whether the value ends here. */
  atEnd(): boolean {
    const text = this.#text;
    while (text[this.#at] === " " || text[this.#at] === "\t") this.#at++;
    return this.#at === text.length;
  }

  /** Skips a character, if it is the next one. */
  take(character: string): boolean {
    if (this.atEnd() || this.#text[this.#at] !== character) return false;
    this.#at++;
    return true;
  }

  token(): string {
    this.atEnd();
    TOKEN_HERE.lastIndex = this.#at;
    if (!TOKEN_HERE.test(this.#text)) this.fail("a token");
    const start = this.#at;
    this.#at = TOKEN_HERE.lastIndex;
    return this.#text.slice(start, this.#at);
  }

  /** Reads a quoted-string (RFC 9110 §5.6.4). Returns its text without quotes and escapes. */
  quoted(): string {
    let value = "";
    for (; this.#at < this.#text.length; this.#at++) {
      let character = this.#text[this.#at];
      if (character === '"') {
        this.#at++;
        return value;
      }
      if (character === "\\") {
        if (++this.#at === this.#text.length) break;
        character = this.#text[this.#at];
      }
      value += character;
    }
    return this.fail("the end of a quoted string");
  }

  /** Reads a list. The list may have empty elements but must not be empty (RFC 9110 §5.6.1). */
  list<T>(element: () => T): T[] {
    const found: T[] = [];
    while (!this.atEnd()) {
      if (this.take(",")) continue;
      found.push(element());
      if (!this.atEnd() && !this.take(",")) this.fail("a comma");
    }
    if (found.length === 0) this.fail("at least one element");
    return found;
  }

  fail(expected: string): never {
    throw new HandshakeError(
      `The ${this.#name} header is malformed: expected ${expected} at character ${this.#at}`,
      "malformed-header",
      { status: 400 },
    );
  }
}

/**
 * Parses a list of tokens, such as the value of a Connection header.
 * @throws {HandshakeError} If the value is not a list of tokens ("malformed-header").
 */
export function parseTokenList(name: string, value: string): string[] {
  const scanner = new Scanner(name, value);
  return scanner.list(() => scanner.token());
}

/**
 * Parses the value of an Upgrade header: a list of protocols, which may have versions.
 * @throws {HandshakeError} If the value is not valid ("malformed-header").
 */
export function parseUpgrade(value: string): string[] {
  const scanner = new Scanner("Upgrade", value);
  return scanner.list(() => {
    const protocol = scanner.token();
    return scanner.take("/") ? `${protocol}/${scanner.token()}` : protocol;
  });
}

/**
 * Parses the value of a Sec-WebSocket-Extensions header (RFC 6455 §9.1).
 * @throws {HandshakeError} If the value is not valid or has no extension ("malformed-header").
 */
export function parseExtensions(value: string): ExtensionHeader[] {
  const scanner = new Scanner("Sec-WebSocket-Extensions", value);
  return scanner.list(() => {
    const name = scanner.token();
    const parameters: [string, string | undefined][] = [];
    while (scanner.take(";")) {
      const parameter = scanner.token();
      parameters.push([parameter, scanner.take("=") ? parameterValue(scanner) : undefined]);
    }
    return { name, parameters };
  });
}

function parameterValue(scanner: Scanner): string {
  if (!scanner.take('"')) return scanner.token();
  const value = scanner.quoted();
  // RFC 6455 §9.1: the text between the quotes must be a token.
  if (!isToken(value)) scanner.fail("a token between the quotes");
  return value;
}

/**
 * Serializes the value of a Sec-WebSocket-Extensions header.
 * @throws {TypeError} If a name or value is not a token.
 */
export function serializeExtensions(extensions: readonly ExtensionHeader[]): string {
  return extensions.map(({ name, parameters }) =>
    [
      requireToken(name),
      ...parameters.map(([key, value]) =>
        value === undefined ? requireToken(key) : `${requireToken(key)}=${requireToken(value)}`
      ),
    ].join("; ")
  ).join(", ");
}

/**
 * Parses the value of a Sec-WebSocket-Protocol header.
 * @throws {HandshakeError} If the value is not a list of tokens ("malformed-header").
 */
export function parseProtocols(value: string): string[] {
  return parseTokenList("Sec-WebSocket-Protocol", value);
}

/**
 * Serializes the value of a Sec-WebSocket-Protocol header.
 * @throws {TypeError} If a protocol is not a token, or occurs twice.
 */
export function serializeProtocols(protocols: readonly string[]): string {
  // The messages do not show the subprotocol, which may contain a token.
  if (!protocols.every(isToken)) throw wrongType("Expected each subprotocol to be a token");
  if (hasTwice(protocols)) throw wrongType("Expected each subprotocol once");
  return protocols.join(", ");
}

/** Returns whether a text occurs twice. RFC 6455 §4.1: the offered subprotocols are unique. */
export function hasTwice(texts: readonly string[]): boolean {
  return new Set(texts).size !== texts.length;
}

function requireToken(text: string): string {
  if (!isToken(text)) throw wrongType(`Expected a token, received ${JSON.stringify(text)}`);
  return text;
}
