/** Which test files run on which runtimes. */
import type { Engine } from "./runtimes.ts";

/** Files that some runtimes alone run, because the others have nothing to show with them. */
const ONLY: readonly [files: RegExp, engines: readonly Engine[]][] = [
  // Which runtime drives the browser makes no difference to what runs in it.
  [/^tests\/interop\/(chromium|browser_entry|demo_page)_test\.ts$/, ["deno"]],
  // The tasks are programs for Deno.
  [/^tests\/tasks_test\.ts$/, ["deno"]],
  // Deno has no server of HTTP/2.
  [/^tests\/(http2_end|http2_flow|interop\/http2_chromium)_test\.ts$/, ["bun", "node"]],
];

/** What depends on the runtime, and the files that show it. */
const DEPENDS_ON_RUNTIME: Readonly<Record<string, readonly string[]>> = {
  transports: [
    "attach",
    "attach_requests",
    "backpressure",
    "byte_streams",
    "client",
    "client_failure",
    "faults/attach",
    "faults/ending",
    "faults/handler",
    "faults/http2",
    "faults/sending",
    "faults/standstill",
    "gather",
    "http2",
    "http2_client",
    "http2_end",
    "http2_flow",
    "http2_handshake",
    "interop/http2_haproxy",
    "matrix",
    "proxy",
    "request_body",
    "reuse_port",
    "server",
    "server_limits",
    "transport",
    "unix_socket",
    "upgrade",
    "ws_peer",
  ],
  TLS: ["faults/tls_limits", "tls"],
  zlib: ["faults/deflate", "permessage_deflate", "threats_deflate", "zlib"],
  streams: [
    "assemble_end",
    "batch_streams",
    "connection_end",
    "connection_iterable",
    "connection_messages",
    "error_code",
    "faults/fairness",
    "faults/websocket_stream",
  ],
  text: ["faults/ownership", "mask", "receive", "send", "utf8"],
  WebSocketStream: [
    "browser_connection",
    "from_websocket",
    "from_websocket_open",
    "websocket_stream",
    "websocket_stream_gc",
    "websocket_stream_server",
    "websocket_stream_table",
  ],
  processes: ["cli", "diagnostics", "connection_process", "deflate_process", "faults/cli", "kill"],
  "conformance, one level": ["conformance_socket"],
  simulation: ["simulation"],
};

const DEPENDENT = new Set(
  Object.values(DEPENDS_ON_RUNTIME).flat().map((name) => `tests/${name}_test.ts`),
);

/** Whether the runtime has anything to show with the file. */
export function appliesTo(file: string, engine: Engine): boolean {
  return ONLY.every(([files, engines]) => !files.test(file) || engines.includes(engine));
}

/** Whether what the file shows depends on the runtime. */
export function dependsOnRuntime(file: string): boolean {
  return DEPENDENT.has(file);
}

/** The files of the table that do not exist. */
export function unknownFiles(existing: readonly string[]): string[] {
  return [...DEPENDENT].filter((file) => !existing.includes(file));
}
