/** A socket of `sluice/ws` that throws when it is written, and another one in the same turn. */
import process from "node:process";
import { Duplex } from "node:stream";
import { Sender } from "../../lib/ws.ts";

const log: string[] = [];
process.on("uncaughtException", (error) => void log.push(error.message));

function senderOn(write: () => void): Sender {
  return new Sender(
    new Duplex({
      read() {},
      write(_, __, done) {
        write();
        done();
      },
    }),
  );
}

const throwing = senderOn(() => {
  throw new Error("oops");
});
const other = senderOn(() => log.push("written"));
throwing.send("a", { fin: true });
other.send("b", { fin: true });
setTimeout(() => {
  other.send("c", { fin: true });
  setTimeout(() => console.log(log.join()), 20);
}, 20);
