/** Runs a third-party proxy in front of a server. */
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { commandOf, type Peer, PEERS } from "./peers.ts";
import { accepts, freePort, HOST } from "../ports.ts";

/** The paths of a certificate, its key, and a file with both. */
interface TlsFiles {
  cert: string;
  key: string;
  both: string;
}

/** A proxy, the text of its configuration, and its arguments. */
export interface Front {
  peer: Peer;
  /** Returns the configuration. With `tls` the proxy terminates TLS. */
  configure(port: number, backend: number, folder: string, tls?: TlsFiles): string;
  args(file: string, folder: string): string[];
  version(): string;
}

function haproxy(port: number, backend: number, protocol = ""): string {
  return [
    "defaults",
    "  mode http",
    "  timeout connect 10s",
    "  timeout client 60s",
    "  timeout server 60s",
    "frontend front",
    `  bind ${HOST}:${port}${protocol}`,
    "  default_backend back",
    "backend back",
    `  server one ${HOST}:${backend}`,
    "",
  ].join("\n");
}

function nginx(port: number, backend: number, folder: string, tls?: TlsFiles): string {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  return [
    "daemon off;",
    "master_process off;",
    `pid ${folder}/pid;`,
    `error_log ${folder}/error.log;`,
    "events {}",
    "http {",
    "  access_log off;",
    ...temporary.map((name) => `  ${name}_temp_path ${folder}/${name};`),
    "  server {",
    `    listen ${HOST}:${port}${tls ? " ssl" : ""};`,
    ...(tls ? [`    ssl_certificate ${tls.cert};`, `    ssl_certificate_key ${tls.key};`] : []),
    // For responses with large heads.
    "    proxy_buffer_size 32k;",
    "    proxy_buffers 8 32k;",
    "    location / {",
    `      proxy_pass http://${HOST}:${backend};`,
    "      proxy_http_version 1.1;",
    "      proxy_set_header Upgrade $http_upgrade;",
    "      proxy_set_header Connection upgrade;",
    "      proxy_set_header Host $http_host;",
    "    }",
    "  }",
    "}",
    "",
  ].join("\n");
}

/** Without worker processes, which could outlive it. */
export const NGINX: Front = {
  peer: PEERS.nginx,
  configure: nginx,
  args: (file, folder) => ["-p", folder, "-e", join(folder, "error.log"), "-c", file],
  version: () => versionOf(PEERS.nginx),
};

export const HAPROXY: Front = {
  peer: PEERS.haproxy,
  configure: (port, backend, _, tls) => haproxy(port, backend, tls && ` ssl crt ${tls.both}`),
  args: (file) => ["-db", "-q", "-f", file],
  version: () => versionOf(PEERS.haproxy),
};

/** Accepts HTTP/2 without TLS. */
export const HAPROXY_H2: Front = {
  ...HAPROXY,
  configure: (port, backend) => haproxy(port, backend, " proto h2"),
};

/** The proxies by the names of the peers. */
export const FRONTS: Readonly<Record<string, Front>> = { nginx: NGINX, haproxy: HAPROXY };

function versionOf(peer: Peer): string {
  const { stdout, stderr } = spawnSync(commandOf(peer)[0], ["-v"], { encoding: "utf8" });
  const [version] = /\d+(\.\d+)+/.exec(stdout + stderr) ?? ["unknown"];
  return `${peer.name} ${version}`;
}

/** A running proxy. */
export interface Proxy {
  port: number;
  stop(): Promise<void>;
}

/** Starts a proxy in front of a port. With `tls` it terminates TLS. */
export async function startProxy(
  { peer, configure, args }: Front,
  backend: number,
  tls?: TlsFiles,
): Promise<Proxy> {
  const folder = await mkdtemp(join(tmpdir(), "sluice-proxy-"));
  const port = await freePort();
  const file = join(folder, "proxy.conf");
  await writeFile(file, configure(port, backend, folder, tls));
  const [command, ...first] = commandOf(peer);
  const proxy = spawn(command, [...first, ...args(file, folder)], { stdio: "ignore" });
  const gone = once(proxy, "exit");
  const stop = async () => {
    proxy.kill("SIGKILL");
    await gone;
    await rm(folder, { recursive: true, force: true });
  };
  try {
    while (!await accepts(port)) assert.equal(proxy.exitCode, null, `${peer.name} has ended`);
  } catch (error) {
    await stop();
    throw error;
  }
  return { port, stop };
}

/** Runs a test with a proxy in front of a port. */
export async function withProxy(
  front: Front,
  backend: number,
  run: (port: number) => Promise<void>,
): Promise<void> {
  const { port, stop } = await startProxy(front, backend);
  try {
    await run(port);
  } finally {
    await stop();
  }
}
