/**
 * The server of `tests/load.ts` in a separate process, which has its own descriptors. It prints its port and
 * that of a control server with the paths /status and, at the end, /shutdown.
 */
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { startLoadServer } from "../load.ts";
import { collectGarbage } from "../garbage.ts";

const server = await startLoadServer(collectGarbage);
const control = createServer(async (request, response) => {
  response.setHeader("Connection", "close");
  try {
    if (request.url === "/status") return response.end(JSON.stringify(await server.status()));
    await server.shutdown();
    response.end("{}");
  } catch (error) {
    response.statusCode = 500;
    response.end(String(error));
  }
  control.close();
});
control.listen(0, "127.0.0.1", () => {
  console.log(`ports ${server.port} ${(control.address() as AddressInfo).port}`);
});
