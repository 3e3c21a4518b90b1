/** Topics and their peers for tests, and an engine in memory that can fail. */
import assert from "node:assert/strict";
import type {
  Backplane,
  BackplaneCall,
  BackplaneMessage,
  BackplaneReceiver,
  HistoryRead,
  Position,
} from "../../lib/topics/backplane.ts";
import { type HistoryOptions, MemoryEngine } from "../../lib/topics/memory.ts";
import type { TopicsOptions } from "../../lib/topics/options.ts";
import { Topics } from "../../lib/topics/topics.ts";
import { pair, type PairOptions } from "../../lib/testing.ts";
import type { WebSocketConnection } from "../../lib/connection/connection.ts";
import type { Message } from "../../lib/core/message.ts";

/** A connection of a server, and the client at its other end, which collects what it gets. */
export class Client {
  readonly ws: WebSocketConnection;
  readonly far: WebSocketConnection;
  readonly got: Message[] = [];
  ended: Promise<void> | undefined;

  /** @param isReading Whether the client reads. If not, `wake()` makes it read. */
  private constructor(ws: WebSocketConnection, far: WebSocketConnection, isReading: boolean) {
    this.ws = ws;
    this.far = far;
    if (isReading) this.wake();
  }

  static async open(options: PairOptions = {}, isReading = true): Promise<Client> {
    const [far, ws] = await pair(options);
    return new Client(ws, far, isReading);
  }

  wake(): void {
    this.ended ??= (async () => {
      try {
        for await (const message of this.far) this.got.push(message);
      } catch {
        // The test looks at the state of the connection.
      }
    })();
  }

  /** Ends the connection after what was sent to it, and returns what has come. */
  async close(): Promise<Message[]> {
    this.wake();
    await this.ws.close();
    await this.ended;
    return this.got;
  }
}

/** Collects the errors of topics, so that a test can say which ones it expects. */
export class Errors {
  readonly all: { error: unknown; topic: string | undefined }[] = [];
  readonly onError = (error: unknown, topic: string | undefined): void => {
    this.all.push({ error, topic });
  };

  get codes(): (string | undefined)[] {
    return this.all.map(({ error }) => (error as { code?: string }).code);
  }
}

/** Runs a test with topics, and closes them. No error may be reported that the test does not expect. */
export async function withTopics<T = Message>(
  options: TopicsOptions<T>,
  run: (topics: Topics<T>) => Promise<void>,
): Promise<void> {
  const errors = new Errors();
  const topics = new Topics<T>({ onError: errors.onError, ...options });
  try {
    await run(topics);
  } finally {
    await topics.close();
  }
  assert.deepEqual(errors.all, []);
}

/** An engine in memory whose network fails when a test wants it. */
export class FlakyEngine {
  readonly engine: MemoryEngine;

  constructor(history?: HistoryOptions) {
    this.engine = new MemoryEngine(history);
  }

  /** @param isDelayed Whether messages arrive in a later turn, as over a network. */
  connect(isDelayed = false): FlakyBackplane {
    return new FlakyBackplane(this.engine.attach(), isDelayed);
  }
}

/** A backplane that can be cut from its engine. Messages that come meanwhile are lost. */
export class FlakyBackplane implements Backplane {
  readonly #inner: Backplane;
  readonly #receivers = new Map<string, BackplaneReceiver>();
  isDown = false;
  /** Whether calls never settle while the engine is down, instead of rejecting. */
  isSilent = false;
  /** Called before each read, to make something happen meanwhile. */
  beforeRead: (() => Promise<void> | void) | undefined;
  readonly calls: string[] = [];
  readonly #isDelayed: boolean;
  /** Number of times that the network was cut. What is under way then is lost. */
  #cuts = 0;

  constructor(inner: Backplane, isDelayed: boolean) {
    this.#inner = inner;
    this.#isDelayed = isDelayed;
  }

  get keepsHistory(): boolean {
    return this.#inner.keepsHistory;
  }

  cut(): void {
    this.isDown = true;
    this.#cuts++;
    const error = new Error("cut");
    for (const receiver of this.#receivers.values()) receiver.interrupted(error);
  }

  mend(): void {
    this.isDown = false;
    for (const receiver of this.#receivers.values()) receiver.restored();
  }

  async #reach(call: string): Promise<void> {
    this.calls.push(call);
    if (!this.isDown) return;
    if (this.isSilent) await new Promise(() => {});
    throw new Error("The engine is down");
  }

  async subscribe(
    topic: string,
    receiver: BackplaneReceiver,
    options: BackplaneCall,
  ): Promise<void> {
    await this.#reach(`subscribe ${topic}`);
    this.#receivers.set(topic, receiver);
    await this.#inner.subscribe(topic, {
      message: (name: string, message: BackplaneMessage) => {
        const cuts = this.#cuts;
        const deliver = () => {
          const isSubscribed = this.#receivers.get(topic) === receiver;
          if (!this.isDown && cuts === this.#cuts && isSubscribed) receiver.message(name, message);
        };
        if (!this.#isDelayed) deliver();
        else if (!this.isDown) setTimeout(deliver, 1);
      },
      interrupted: (error) => receiver.interrupted(error),
      restored: () => receiver.restored(),
      error: (error) => receiver.error(error),
    }, options);
  }

  async unsubscribe(topic: string): Promise<void> {
    this.calls.push(`unsubscribe ${topic}`);
    this.#receivers.delete(topic);
    await this.#inner.unsubscribe(topic);
  }

  async publish(
    topic: string,
    data: Uint8Array,
    options: BackplaneCall,
  ): Promise<Position | undefined> {
    await this.#reach("publish");
    return await this.#inner.publish(topic, data, options);
  }

  async read(
    topic: string,
    since: Position | undefined,
    options: BackplaneCall,
  ): Promise<HistoryRead> {
    await this.#reach(`read ${topic}`);
    await this.beforeRead?.();
    return await this.#inner.read!(topic, since, options);
  }

  async close(): Promise<void> {
    await this.#inner.close();
  }
}
