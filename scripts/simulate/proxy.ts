/** Proxies on a simulated network: an HTTP proxy with CONNECT, and a SOCKS 5 proxy. */
import type { Listener, Transport, TransportHandlers, TransportProvider } from "../../mod.ts";

/** Parses a request and returns the answer; undefined while bytes are missing. */
type Parse = (bytes: Uint8Array) => Step | undefined;

type Step =
  | { answer: Uint8Array; length: number }
  | { hostname: string; port: number; length: number; answer: Uint8Array };

const PORTS = { http: 8080, socks5: 1080 } as const;

/** The kinds of proxies. */
export type ProxyKind = keyof typeof PORTS;

/** The URL of a proxy that runs on this machine. */
export function proxyUrl(kind: ProxyKind, hostname: string): string {
  return `${kind}://${hostname}:${PORTS[kind]}`;
}

/** Runs a proxy. */
export function runProxy(
  kind: ProxyKind,
  hostname: string,
  provider: TransportProvider,
): Promise<Listener> {
  return provider.listen({ hostname, port: PORTS[kind] }, (near) => {
    serveClient(near, kind === "http" ? [parseConnect] : [parseGreeting, parseRequest], provider);
  });
}

function serveClient(near: Transport, steps: Parse[], provider: TransportProvider): void {
  let bytes = new Uint8Array();
  const step = () => {
    const asked = steps[0]?.(bytes);
    if (asked === undefined) return;
    steps.shift();
    bytes = bytes.slice(asked.length);
    if (!("port" in asked)) return near.write([asked.answer]);
    near.pause();
    provider.connect({ hostname: asked.hostname, port: asked.port }).then((far) => {
      near.write([asked.answer]);
      join(near, far);
      if (bytes.length > 0) far.write([bytes]);
    }, () => near.destroy());
  };
  near.handle({
    data: (chunk) => {
      bytes = Uint8Array.of(...bytes, ...chunk);
      step();
    },
    drain: () => {},
    end: () => near.destroy(),
    close: () => {},
  });
}

const text = (bytes: Uint8Array) => String.fromCharCode(...bytes);
const ascii = (text: string) => Uint8Array.from(text, (character) => character.charCodeAt(0));

const parseConnect: Parse = (bytes) => {
  const head = text(bytes);
  const length = head.indexOf("\r\n\r\n") + 4;
  const [, hostname, port] = /^CONNECT ([^: ]+):(\d+) HTTP\/1\.1\r\n/.exec(head) ?? [];
  if (length < 4 || hostname === undefined) return undefined;
  return { hostname, port: Number(port), length, answer: ascii("HTTP/1.1 200 OK\r\n\r\n") };
};

const parseGreeting: Parse = (bytes) => {
  const length = 2 + bytes[1];
  return bytes.length >= length ? { length, answer: Uint8Array.of(5, 0) } : undefined;
};

/** The address is always a host name. */
const parseRequest: Parse = (bytes) => {
  const length = 7 + bytes[4];
  if (!(bytes.length >= length)) return undefined;
  const hostname = text(bytes.slice(5, length - 2));
  const port = bytes[length - 2] * 256 + bytes[length - 1];
  return { hostname, port, length, answer: Uint8Array.of(5, 0, 0, 1, 0, 0, 0, 0, 0, 0) };
};

/** The proxy stops reading while more than this number of bytes waits to be sent. */
const MOST_WAITING = 65_536;

/** Forwards data in both directions. */
function join(near: Transport, far: Transport): void {
  const handlers = (from: Transport, to: Transport): TransportHandlers => ({
    data: (chunk) => {
      to.write([chunk]);
      if (to.bufferedAmount > MOST_WAITING) from.pause();
    },
    drain: () => to.resume(),
    end: () => to.end(),
    close: () => to.destroy(),
  });
  near.handle(handlers(near, far));
  far.handle(handlers(far, near));
  near.resume();
}
