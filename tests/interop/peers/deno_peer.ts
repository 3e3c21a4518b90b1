/** Deno's own WebSocket, and Deno.upgradeWebSocket(). */
import process from "node:process";
import { HOST } from "./agent.ts";
import { StandardEnd, type StandardSocket } from "./standard.ts";
import { runHere } from "./stdio.ts";

class DenoEnd extends StandardEnd {
  #server: Deno.HttpServer | undefined;

  async listen() {
    const { port = 0, tls, refuse, headers = [] } = this.options;
    const certificate = tls && {
      cert: await Deno.readTextFile(tls.cert),
      key: await Deno.readTextFile(tls.key),
    };
    const listening = Promise.withResolvers<number>();
    const options = {
      hostname: HOST,
      port,
      onListen: (address: Deno.NetAddr) => listening.resolve(address.port),
      ...certificate,
    };
    this.#server = Deno.serve(options as Deno.ServeTcpOptions, (request) => {
      if (refuse !== undefined) {
        return new Response(refuse.body, { status: refuse.status, headers: refuse.headers });
      }
      const { pathname, search } = new URL(request.url);
      const offered = request.headers.get("sec-websocket-protocol")?.split(", ") ?? [];
      const protocol = this.choose(offered);
      // The request cannot be read after the upgrade.
      const told = {
        target: pathname + search,
        headers: [...request.headers],
        protocol: protocol ?? "",
      };
      const upgrade = { protocol, idleTimeout: 0 };
      const { socket, response } = Deno.upgradeWebSocket(request, upgrade);
      for (const [name, value] of headers) response.headers.append(name, value);
      this.use(socket as unknown as StandardSocket, () => told);
      return response;
    });
    this.tell("listening", { port: await listening.promise });
  }

  connect() {
    const { url, protocols = [], headers } = this.options;
    // The types do not have the header fields yet.
    const options = { protocols, headers } as unknown as string[];
    this.use(new WebSocket(url!, options) as unknown as StandardSocket);
  }

  abort() {
    process.kill(process.pid, "SIGKILL");
  }

  override stop() {
    if (this.socket !== undefined) super.stop();
    void this.#server?.shutdown();
  }
}

await runHere(`Deno ${Deno.version.deno}`, (tell) => new DenoEnd(tell));
