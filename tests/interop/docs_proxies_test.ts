/** The configurations of nginx and haproxy in the documentation, with the real programs. */
import { describe, it } from "node:test";
import assert from "node:assert/strict";
import { connect } from "../../mod.ts";
import { readSource } from "../programs.ts";
import { portOf, withServer } from "../support.ts";
import { unlessThere } from "./peers.ts";
import { HOST } from "../ports.ts";
import { type Front, HAPROXY, NGINX, withProxy } from "./proxy.ts";

const page = await readSource("docs/guides/behind-a-proxy.md");

/** The configuration in the page, with the ports of the test. */
function shown(language: string, port: number, backend: number): string {
  const [, block] = new RegExp(`^\`\`\`${language}\\n([^]*?)^\`\`\`$`, "m").exec(page)!;
  assert.ok(block.includes(`${HOST}:8000`) && block.includes(`${HOST}:8080`));
  return block.replace(`${HOST}:8000`, `${HOST}:${port}`)
    .replace(`${HOST}:8080`, `${HOST}:${backend}`);
}

/** The configuration that nginx needs around the block of the page to run in a separate folder. */
function nginx(port: number, backend: number, folder: string): string {
  const temporary = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"];
  return `daemon off;
master_process off;
pid ${folder}/pid;
error_log ${folder}/error.log;
events {}
http {
access_log off;
${temporary.map((name) => `${name}_temp_path ${folder}/${name};`).join("\n")}
${shown("nginx", port, backend)}
}
`;
}

const FRONTS: Record<string, Front> = {
  nginx: { ...NGINX, configure: nginx },
  haproxy: { ...HAPROXY, configure: (port, backend) => shown("haproxy", port, backend) },
};

describe("The proxies of the documentation", () => {
  for (const [name, front] of Object.entries(FRONTS)) {
    const { skip } = unlessThere(front.peer);
    it(
      `The configuration of ${name} in docs/guides/behind-a-proxy.md works`,
      { skip },
      async () => {
        const onRequest = ({ url }: Request) =>
          url.endsWith("/health") ? new Response("ok") : undefined;
        await withServer({ onRequest, origins: "same-origin" }, async (server) => {
          await withProxy(front, portOf(server), async (port) => {
            const response = await fetch(`http://${HOST}:${port}/health`);
            assert.equal(await response.text(), "ok");
            const origin = `http://${HOST}:${port}`;
            const ws = await connect(`ws://${HOST}:${port}/`, { origin });
            await ws.send("Hello");
            assert.equal(await ws.receive(), "Hello");
            const [theirs] = server.connections;
            assert.equal(theirs.request.headers.get("x-forwarded-for"), HOST);
            await ws.close();
          });
        });
      },
    );
  }
});
