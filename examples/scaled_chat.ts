/**
 * A chat over three processes behind nginx, on one machine: ws://127.0.0.1:8080/. Redis carries the
 * messages and keeps the last ones, so that a client that reconnects to another process misses nothing.
 * Needs the programs `nginx` and `redis-server`. What ends is started again: kill it and see.
 */
import { type ChildProcess, fork, spawn } from "node:child_process";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import process from "node:process";
import { fileURLToPath } from "node:url";
import { createClient } from "redis";
import { serve } from "sluice";
import { redisStreamsBackplane, Topics } from "sluice/topics";

const WORKERS = ["one", "two", "three"];

/** One of the three servers. */
async function work(folder: string, name: string): Promise<void> {
  const redis = createClient({ socket: { path: join(folder, "redis.sock"), tls: false } });
  const topics = new Topics({ backplane: redisStreamsBackplane(redis, { size: 1000 }) });
  const isRoom = (topic: string) => /^room\/\w{1,40}$/.test(topic);
  // A process that was killed has left its socket.
  const unix = join(folder, `${name}.sock`);
  await rm(unix, { force: true });
  const server = await serve(
    { unix, maxMessageSize: 16 * 1024 },
    (ws) => topics.serve(ws, { maySubscribe: isRoom, mayPublish: isRoom }),
  );
  process.once("SIGTERM", async () => {
    await server.shutdown();
    await topics.close();
    process.exit();
  });
}

function nginx(folder: string): string {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  return `
daemon off;
master_process off;
pid ${folder}/nginx.pid;
error_log ${folder}/error.log;
events { worker_connections 4096; }
http {
  access_log off;
  ${temporary.map((name) => `${name}_temp_path ${folder}/${name};`).join(" ")}
  upstream chat {
    least_conn;
    ${WORKERS.map((name) => `server unix:${folder}/${name}.sock fail_timeout=1s;`).join(" ")}
  }
  server {
    listen 127.0.0.1:8080;
    location / {
      proxy_pass http://chat;
      proxy_http_version 1.1;
      proxy_set_header Upgrade $http_upgrade;
      proxy_set_header Connection upgrade;
      proxy_set_header Host $http_host;
    }
  }
}`;
}

/** Starts Redis, the three servers and nginx, and starts again what ends. */
async function supervise(): Promise<void> {
  const folder = await mkdtemp(join(tmpdir(), "chat-"));
  const config = join(folder, "nginx.conf");
  await writeFile(config, nginx(folder));
  await mkdir(join(folder, "data"));
  const running = new Set<ChildProcess>();
  let isEnding = false;

  const keep = (name: string, start: () => ChildProcess) => {
    const child = start();
    running.add(child);
    console.log(`${name}: ${child.pid}`);
    child.once("exit", async () => {
      running.delete(child);
      if (!isEnding) return setTimeout(keep, 200, name, start);
      if (running.size > 0) return;
      await rm(folder, { recursive: true, force: true });
      console.log("closed");
    });
  };

  const socket = ["--port", "0", "--unixsocket", join(folder, "redis.sock")];
  // Redis writes each message to the disk before it confirms it, so that a restart loses none.
  const append = ["--appendonly", "yes", "--appendfsync", "always"];
  const data = ["--dir", join(folder, "data"), "--save", "", ...append];
  keep("redis", () => spawn("redis-server", [...socket, ...data], { stdio: "ignore" }));
  for (const name of WORKERS) {
    keep(name, () => {
      const env = { ...process.env, CHAT_FOLDER: folder, CHAT_WORKER: name };
      return fork(fileURLToPath(import.meta.url), { env });
    });
  }
  keep("nginx", () => {
    return spawn("nginx", ["-p", folder, "-e", join(folder, "error.log"), "-c", config]);
  });

  process.once("SIGTERM", () => {
    isEnding = true;
    for (const child of running) child.kill();
  });
}

const { CHAT_FOLDER, CHAT_WORKER } = process.env;
if (CHAT_FOLDER && CHAT_WORKER) await work(CHAT_FOLDER, CHAT_WORKER);
else await supervise();
