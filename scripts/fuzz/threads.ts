/**
 * Compresses without threads. The time of a thread depends on the load of the machine, so two runs of one
 * seed would differ. Here compression takes a number of turns that depends only on the work.
 */
import { deflateEngine } from "../../lib/zlib.ts";

type Done = (error: Error | undefined, output: Uint8Array) => void;

/** Lower than the number of quiet turns after which the virtual clock jumps. */
const MOST_TURNS = 5;

/**
 * Makes the engine of `connect()` and `accept()` work in this thread.
 *
 * @param wait Waits for a number of turns.
 * @returns A function that restores the engine.
 */
export function replaceThreads(wait: (turns: number) => Promise<void>): () => void {
  const { deflater: makeDeflater, inflater: makeInflater } = deflateEngine;

  /** Does the work after some turns, unless the engine has been closed by then. */
  const later = (engine: { close(): void }) => {
    const close = engine.close.bind(engine);
    let isClosed = false;
    engine.close = () => {
      isClosed = true;
      close();
    };
    return async (work: () => Uint8Array, length: number, done: Done) => {
      await wait(1 + length % MOST_TURNS);
      if (isClosed) return;
      let output: Uint8Array;
      try {
        output = work();
      } catch (error) {
        return done(error as Error, new Uint8Array(0));
      }
      done(undefined, output);
    };
  };

  deflateEngine.deflater = (options) => {
    const deflater = makeDeflater(options);
    const run = later(deflater);
    deflater.deflateLater = (input, done) => {
      void run(() => deflater.deflate(input), input.length, done);
    };
    return deflater;
  };
  deflateEngine.inflater = (options) => {
    const inflater = makeInflater(options);
    const run = later(inflater);
    let pieces = 0;
    inflater.nextLater = (done) => void run(() => inflater.next(), pieces++, done);
    return inflater;
  };
  return () => {
    deflateEngine.deflater = makeDeflater;
    deflateEngine.inflater = makeInflater;
  };
}
