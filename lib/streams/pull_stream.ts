/**
 * What all transforms are: a machine between a writable and a readable.
 *
 * A file of its own because it knows streams and nothing of WebSockets, and the transforms the reverse.
 *
 * @module
 */
import { PENDING } from "../core/extension.ts";

/** A machine that is given input and from which output is taken. */
export interface Machine<I, O> {
  /** Gives it input. */
  push(input: I): void;
  /** Takes the next output, if there is any. When it is pending, `ready` is called once it is there. */
  next(ready: () => void): O | typeof PENDING | undefined;
  /** Says that no more input comes. */
  end(): void;
}

/**
 * A pull machine as a pair of streams, as `CompressionStream` is one. Its readable holds nothing: each
 * item is taken out of the machine when it is asked for, so that what came before an error is read
 * before the error is met. A TransformStream would drop it: erroring one empties its queue.
 */
export class PullStream<I, O> {
  /** What comes out. */
  readonly readable: ReadableStream<O>;
  /** What goes in. A write resolves when all that it gave was taken. */
  readonly writable: WritableStream<I>;
  readonly #machine: Machine<I, O>;
  #output!: ReadableStreamDefaultController<O>;
  #input!: WritableStreamDefaultController;
  /** Resolves the write, or the close, that is under way. */
  #taken: (() => void) | undefined;
  #refused: ((error: unknown) => void) | undefined;
  /** Resolves the pull that waits for input. */
  #pulled: (() => void) | undefined;
  #closing = false;
  readonly #ready = () => {
    // Whoever has cancelled in the meantime waits for nothing.
    if (this.#pulled !== undefined) this.#advance();
  };

  /**
   * Makes the streams of a machine.
   *
   * @param machine what turns the input into output
   */
  constructor(machine: Machine<I, O>) {
    this.#machine = machine;
    this.readable = new ReadableStream<O>({
      start: (controller) => {
        this.#output = controller;
      },
      pull: () => this.#pull(),
      cancel: (reason) => {
        this.#settlePull(() => {});
        this.#input.error(reason);
        this.#settleWrite();
      },
    }, { highWaterMark: 0 });
    this.writable = new WritableStream<I>({
      start: (controller) => {
        this.#input = controller;
        // abort() below waits for the write under way, and that one for a reader or an extension.
        controller.signal?.addEventListener("abort", () => this.#refuse(controller.signal.reason));
      },
      write: (chunk) => this.#write(() => machine.push(chunk)),
      close: () => this.#write(() => this.#closing = true),
      abort: (reason) => this.#fail(reason),
    });
  }

  #write(give: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#taken = resolve;
      this.#refused = reject;
      give();
      if (this.#pulled !== undefined) this.#advance();
    });
  }

  #pull(): Promise<void> {
    return new Promise((resolve) => {
      this.#pulled = resolve;
      this.#advance();
    });
  }

  /** Answers the pull that waits, if the machine can; otherwise lets the next input in. */
  #advance(): void {
    try {
      const item = this.#machine.next(this.#ready);
      if (item === PENDING) return;
      if (item !== undefined) return this.#settlePull(() => this.#output.enqueue(item));
      if (this.#closing) this.#end();
    } catch (error) {
      return this.#fail(error);
    }
    this.#settleWrite();
  }

  #end(): void {
    this.#machine.end();
    this.#settlePull(() => this.#output.close());
  }

  #fail(error: unknown): void {
    this.#input.error(error);
    this.#refuse(error);
  }

  /** Fails whoever waits, and the output. */
  #refuse(error: unknown): void {
    const refused = this.#refused;
    this.#taken = this.#refused = undefined;
    refused?.(error);
    this.#settlePull(() => this.#output.error(error));
  }

  #settlePull(act: () => void): void {
    const pulled = this.#pulled;
    this.#pulled = undefined;
    act();
    pulled?.();
  }

  #settleWrite(): void {
    const taken = this.#taken;
    this.#taken = this.#refused = undefined;
    taken?.();
  }
}
