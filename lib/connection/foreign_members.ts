/**
 * What other WebSockets have and a connection has not. A listener that is never called would be waited for
 * in silence, so that setting one is an error that says what to write.
 *
 * @module
 */

/** What to write instead of a listener for an event. */
const INSTEAD: { readonly [event: string]: string | undefined } = {
  open: "a connection is open when you get it",
  message: "write: for await (const message of ws)",
  close: "write: await ws.closed",
  error: "write: ws.closed.catch((error) => ...)",
  ping: "pings are answered; the option `onFrame` sees each frame",
  pong: "write: await ws.ping()",
  drain: "write: await ws.send(message)",
};

const HANDLERS = ["open", "message", "close", "error"];
const METHODS = ["addEventListener", "removeEventListener", "on", "once", "off", "addListener"];

/**
 * Makes members of other WebSockets throw a TypeError. They stay out of the types, and no loop over the
 * members finds them.
 */
export function refuseForeignMembers(prototype: object): void {
  for (const event of HANDLERS) refuseSetting(prototype, `on${event}`, INSTEAD[event]!);
  refuseSetting(prototype, "binaryType", "binary messages are always Uint8Arrays");
  refuseReading(prototype, "readyState", `ws.state is "open", "closing" or "closed"`);
  for (const name of METHODS) {
    define(prototype, name, {
      value(event: unknown) {
        const instead = typeof event === "string" ? INSTEAD[event] : undefined;
        throw new TypeError(`A connection has no ${name}(): ${instead ?? INSTEAD.message}`);
      },
      writable: true,
    });
  }
}

/** Reading it would give undefined, which equals no state. */
function refuseReading(prototype: object, name: string, instead: string): void {
  define(prototype, name, {
    get() {
      throw new TypeError(`A connection has no ${name}: ${instead}`);
    },
  });
}

function refuseSetting(prototype: object, name: string, instead: string): void {
  define(prototype, name, {
    get: () => undefined,
    set() {
      throw new TypeError(`A connection has no ${name}: ${instead}`);
    },
  });
}

function define(prototype: object, name: string, descriptor: PropertyDescriptor): void {
  Object.defineProperty(prototype, name, { ...descriptor, configurable: true });
}
