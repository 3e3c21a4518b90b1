/** Selects the test files of each runtime. */
import type { Engine, RuntimeSpec } from "./runtimes.ts";

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
    "matrix",
    "node_reads",
    "owners",
    "proxy",
    "request_body",
    "reuse_port",
    "server",
    "server_limits",
    "transport",
    "unix_socket",
    "upgrade",
    "ws_interface",
    "ws_outlet",
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
    "pipe",
  ],
  text: ["faults/ownership", "mask", "receive", "send", "shared_frames", "utf8"],
  WebSocketStream: [
    "browser_connection",
    "browser_random",
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
    "topics_wiped",
  ],
};

/**
 * The version of Node that runs a file for all of them with `--all`, because the version cannot change the
 * result: all versions have the same code of ours, and the other files test their sockets, streams and text.
 */
const ONE_NODE: Readonly<Record<string, readonly string[]>> = {
  // Files that only compute. Node 22 has the oldest engine, and Deno the newest.
  node22: [
    "conformance",
    "conformance_differential",
    "deflate_conformance",
    "encoder",
    "endpoint",
    "frame",
    "fuzz",
    "handshake",
    "header",
    "http1",
    "message",
    "protocol",
    "random_user",
  ],
  // Files about peers, about programs of others, and about what V8 needs for a message.
  node24: [
    "docs",
    "faults/waiting",
    "interop/matrix",
    "simulation",
    "topics_processes",
    "ws_programs",
  ],
};

const pathOf = (name: string) => `tests/${name}_test.ts`;
const DEPENDENT = new Set(Object.values(DEPENDS_ON_RUNTIME).flat().map(pathOf));
const NODE_OF = new Map(
  Object.entries(ONE_NODE).flatMap(([node, names]) =>
    names.map((name) => [pathOf(name), node] as const)
  ),
);

/** Whether the file tests anything on the runtime. */
export function appliesTo(file: string, engine: Engine): boolean {
  return ONLY.every(([files, engines]) => !files.test(file) || engines.includes(engine));
}

/** Whether the result of the file depends on the runtime. */
export function dependsOnRuntime(file: string): boolean {
  return DEPENDENT.has(file);
}

/** Whether a runtime runs the file with `--all`. */
export function isInAll(file: string, { name, engine }: RuntimeSpec): boolean {
  return engine !== "node" || (NODE_OF.get(file) ?? name) === name;
}

/** The files in the tables that do not exist. */
export function unknownFiles(existing: readonly string[]): string[] {
  return [...DEPENDENT, ...NODE_OF.keys()].filter((file) => !existing.includes(file));
}
