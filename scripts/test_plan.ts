/** Selects the test files of each runtime. */
import type { Engine } from "./runtimes.ts";

/** Files that only some runtimes run, because they test nothing on the others. */
const ONLY: readonly [files: RegExp, engines: readonly Engine[]][] = [
  // It makes no difference which runtime drives the browser.
  [/^tests\/interop\/(chromium|browser_entry|demo_page)_test\.ts$/, ["deno"]],
  // The programs are for Node. Its module hooks replace the package ws in them.
  [/^tests\/ws_programs_test\.ts$/, ["node"]],
  // The tasks are Deno programs.
  [/^tests\/tasks_test\.ts$/, ["deno"]],
  // Deno has no HTTP/2 server.
  [/^tests\/(http2_end|http2_flow|interop\/http2_chromium)_test\.ts$/, ["bun", "node"]],
];

/** The features that depend on the runtime, and the files that test them. */
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
    "interop/matrix",
    "matrix",
    "proxy",
    "request_body",
    "reuse_port",
    "server",
    "server_limits",
    "transport",
    "unix_socket",
    "upgrade",
    "ws_interface",
    "ws_programs",
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
  text: ["faults/ownership", "mask", "receive", "send", "shared_frames", "utf8"],
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
  topics: [
    "topics",
    "topics_history",
    "topics_memory",
    "topics_nats",
    "topics_outages",
    "topics_processes",
    "topics_redis",
  ],
};

const DEPENDENT = new Set(
  Object.values(DEPENDS_ON_RUNTIME).flat().map((name) => `tests/${name}_test.ts`),
);

/** Whether the file tests anything on the runtime. */
export function appliesTo(file: string, engine: Engine): boolean {
  return ONLY.every(([files, engines]) => !files.test(file) || engines.includes(engine));
}

/** Whether the result of the file depends on the runtime. */
export function dependsOnRuntime(file: string): boolean {
  return DEPENDENT.has(file);
}

/** The files in the table that do not exist. */
export function unknownFiles(existing: readonly string[]): string[] {
  return [...DEPENDENT].filter((file) => !existing.includes(file));
}
