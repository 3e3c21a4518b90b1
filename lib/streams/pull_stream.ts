/**
 * Pairs of streams over machines that turn input into output.
 *
 * @module
 */
import { onAbort } from "../abortable.ts";
import { PENDING } from "../core/extension.ts";

/** Turns input into output. */
export interface Machine<O> {
  /**
   * Returns the next output, `PENDING`, or undefined if there is no input left. `ready` is called when
   * pending output is there.
   */
  next(ready: () => void): O | typeof PENDING | undefined;
  /** Called when there is no more input. */
  end?(): void;
}

/** Makes a machine. `take` returns the next input, or undefined if there is none yet. */
export type MachineOf<I, O> = (take: () => I | undefined) => Machine<O>;

/**
 * A machine as a pair of streams, like `CompressionStream`. The readable queues nothing: it takes each
 * item from the machine on demand, so that all items before an error can be read. (A `TransformStream`
 * that errors drops its queue.)
 */
export class PullStream<I, O> {
  /** The output. */
  readonly readable: ReadableStream<O>;
  /** The input. A write resolves when the machine has no more output for it. */
  readonly writable: WritableStream<I>;
  readonly #machine: Machine<O>;
  #chunk: I | undefined;
  #output!: ReadableStreamDefaultController<O>;
  #input!: WritableStreamDefaultController;
  /** These settle the current write or close. */
  #resolveWrite: (() => void) | undefined;
  #rejectWrite: ((error: unknown) => void) | undefined;
  #resolvePull: (() => void) | undefined;
  #isClosing = false;
  readonly #ready = () => {
    // The reader may have cancelled in the meantime.
    if (this.#resolvePull !== undefined) this.#advance();
  };

  /**
   * Makes the streams of a machine.
   *
   * @param machineOf Makes the machine that turns the input into output.
   */
  constructor(machineOf: MachineOf<I, O>) {
    this.#machine = machineOf(() => {
      const chunk = this.#chunk;
      this.#chunk = undefined;
      return chunk;
    });
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
        // abort() below is only called after the current write, which waits for a reader or an extension.
        onAbort(controller.signal, (reason) => this.#rejectAll(reason));
      },
      write: (chunk) => this.#write(() => this.#chunk = chunk),
      close: () => this.#write(() => this.#isClosing = true),
      abort: (reason) => this.#fail(reason),
    });
  }

  #write(act: () => void): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#resolveWrite = resolve;
      this.#rejectWrite = reject;
      act();
      if (this.#resolvePull !== undefined) this.#advance();
    });
  }

  #pull(): Promise<void> {
    return new Promise((resolve) => {
      this.#resolvePull = resolve;
      this.#advance();
    });
  }

  #advance(): void {
    try {
      const item = this.#machine.next(this.#ready);
      if (item === PENDING) return;
      if (item !== undefined) return this.#settlePull(() => this.#output.enqueue(item));
      if (this.#isClosing) {
        this.#machine.end?.();
        this.#settlePull(() => this.#output.close());
      }
    } catch (error) {
      return this.#fail(error);
    }
    this.#settleWrite();
  }

  #fail(error: unknown): void {
    this.#input.error(error);
    this.#rejectAll(error);
  }

  #rejectAll(error: unknown): void {
    const reject = this.#rejectWrite;
    this.#resolveWrite = this.#rejectWrite = undefined;
    reject?.(error);
    this.#settlePull(() => this.#output.error(error));
  }

  #settlePull(act: () => void): void {
    const resolve = this.#resolvePull;
    this.#resolvePull = undefined;
    act();
    resolve?.();
  }

  #settleWrite(): void {
    const resolve = this.#resolveWrite;
    this.#resolveWrite = this.#rejectWrite = undefined;
    resolve?.();
  }
}

/** Maximum number of items in a batch. */
const MAX_ITEMS = 1024;
/** Number of payload bytes after which a batch ends. */
export const MAX_BATCH_SIZE = 65536;

/** Makes a stream of arrays from a machine of single items. */
export function batched<I, O>(
  machineOf: MachineOf<I, O>,
  options: BatchOptions<O>,
): PullStream<readonly I[], O[]> {
  return new PullStream((take) => {
    let items: readonly I[] = [];
    let at = 0;
    const takeOne = () => {
      if (at === items.length) {
        items = take() ?? [];
        at = 0;
      }
      return at < items.length ? items[at++] : undefined;
    };
    return new Batch(machineOf(takeOne), options);
  });
}

/** Options of a {@linkcode Batch}. */
export interface BatchOptions<O> {
  /** Returns the size of an item, in bytes. */
  size: (item: O) => number;
  /**
   * Returns the function that handles an item outside of the batches, or undefined if the item belongs in
   * a batch. The function is called when all items before it have been read.
   */
  divert?: ((item: O) => (() => void) | undefined) | undefined;
}

/**
 * Collects the available output of a machine. A batch ends when the machine has no more output, its
 * output is pending, or it fails. The error then takes the place of the next batch.
 */
export class Batch<O> implements Machine<O[]> {
  readonly #machine: Machine<O>;
  readonly #options: BatchOptions<O>;
  /** An error that the machine threw after the last batch. */
  #failure: { error: unknown } | undefined;
  /** An item to divert when the batch before it has been read. */
  #held: O | undefined;
  #isPending = false;
  #isGathering = false;
  #wake: () => void = () => {};
  readonly #ready = () => {
    this.#isPending = false;
    // While gathering, the loop continues by itself.
    if (!this.#isGathering) this.#wake();
  };

  constructor(machine: Machine<O>, options: BatchOptions<O>) {
    this.#machine = machine;
    this.#options = options;
  }

  next(ready: () => void): O[] | typeof PENDING | undefined {
    this.#wake = ready;
    const batch: O[] = [];
    this.#isGathering = true;
    try {
      if (this.#failure === undefined) this.#gather(batch);
    } catch (error) {
      this.#failure = { error };
    } finally {
      this.#isGathering = false;
    }
    if (batch.length > 0) return batch;
    if (this.#failure !== undefined) throw this.#failure.error;
    return this.#isPending ? PENDING : undefined;
  }

  end(): void {
    this.#machine.end?.();
  }

  #gather(batch: O[]): void {
    const { size } = this.#options;
    for (let room = MAX_BATCH_SIZE; room > 0 && batch.length < MAX_ITEMS;) {
      const item = this.#next(batch.length > 0);
      if (item === undefined) return;
      room -= size(item);
      batch.push(item);
    }
  }

  /** Returns the next item of the batch, unless an earlier item must be diverted first. */
  #next(hasItems: boolean): O | undefined {
    for (;;) {
      const item = this.#held ?? this.#take();
      const act = item === undefined ? undefined : this.#options.divert?.(item);
      if (act === undefined) return item;
      this.#held = hasItems ? item : undefined;
      if (hasItems) return undefined;
      act();
    }
  }

  #take(): O | undefined {
    while (!this.#isPending) {
      // Set before the call: the machine may call #ready at once.
      this.#isPending = true;
      const item = this.#machine.next(this.#ready);
      if (item === PENDING) continue;
      this.#isPending = false;
      return item;
    }
    return undefined;
  }
}
