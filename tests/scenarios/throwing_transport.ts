/** A custom transport throws in the turn in which another connection sends too. */
import process from "node:process";
import { accept, connect } from "../../mod.ts";
import { transportPair } from "../../lib/testing.ts";

const errors: unknown[] = [];
process.on("uncaughtException", (error) => errors.push(error));

async function connection() {
  const [near, far] = transportPair();
  const [client, server] = await Promise.all([
    connect("ws://localhost/", { transport: near, pingInterval: 0 }),
    accept(far, { pingInterval: 0 }),
  ]);
  return { near, client, server };
}

const faulty = await connection();
const sound = await connection();
faulty.near.write = () => {
  throw new Error("A fault of the transport");
};
faulty.client.send("lost").catch(() => {});
sound.client.send("arrives").catch(() => {});
const message = await sound.server.receive();
const { closeCode, cause } = await faulty.client.closed.catch((error) => error);
console.log(`${message}, ${errors.length} uncaught, ${closeCode} because of ${cause}`);
process.exit();
