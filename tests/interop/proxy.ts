/** Runs a third-party proxy in front of a server. */
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { commandOf, type Peer, PEERS } from "./peers.ts";
import { accepts, freePort, HOST } from "../ports.ts";

/** A proxy, the text of its configuration, and its arguments. */
export interface Front {
  peer: Peer;
  configure(port: number, backend: number, folder: string): string;
  args(file: string, folder: string): string[];
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

function nginx(port: number, backend: number, folder: string): string {
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
    `    listen ${HOST}:${port};`,
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
};

export const HAPROXY: Front = {
  peer: PEERS.haproxy,
  configure: (port, backend) => haproxy(port, backend),
  args: (file) => ["-db", "-q", "-f", file],
};

/** Accepts HTTP/2 without TLS. */
export const HAPROXY_H2: Front = {
  ...HAPROXY,
  configure: (port, backend) => haproxy(port, backend, " proto h2"),
};

/** Runs a test with a proxy in front of a port. */
export async function withProxy(
  { peer, configure, args }: Front,
  backend: number,
  run: (port: number) => Promise<void>,
): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "sluice-proxy-"));
  const port = await freePort();
  const file = join(folder, "proxy.conf");
  await writeFile(file, configure(port, backend, folder));
  const [command, ...first] = commandOf(peer);
  const proxy = spawn(command, [...first, ...args(file, folder)], { stdio: "ignore" });
  const gone = once(proxy, "exit");
  try {
    let listening = false;
    while (!listening) {
      assert.equal(proxy.exitCode, null, `${peer.name} has ended`);
      listening = await accepts(port);
    }
    await run(port);
  } finally {
    proxy.kill("SIGKILL");
    await gone;
    await rm(folder, { recursive: true, force: true });
  }
}
