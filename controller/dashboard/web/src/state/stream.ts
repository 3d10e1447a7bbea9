// Keeps the event stream open: reconnects with a growing delay, and asks again when a connection has gone silent.

import { decode } from "./messages";
import type { Store } from "./store";

const FIRST_DELAY_MS = 500;
const LONGEST_DELAY_MS = 15_000;
// A connection whose other end vanished looks like one on which nothing happens: asking again tells them apart, for the
// price of one snapshot. Routers report every second or so, so that only a cluster without any is asked.
const SILENCE_MS = 30_000;
const FIRST_MESSAGE_MS = 10_000;

/** Delay before attempt n (from 1), with up to a fifth of jitter so that many pages do not come back at once. */
export function backoff(attempt: number, random: () => number = Math.random): number {
  const delay = Math.min(LONGEST_DELAY_MS, FIRST_DELAY_MS * 2 ** (attempt - 1));
  return delay * (1 - 0.2 * random());
}

export class Stream {
  private source: EventSource | null = null;
  private attempts = 0;
  private retry: ReturnType<typeof setTimeout> | undefined;
  private silence: ReturnType<typeof setTimeout> | undefined;

  constructor(
    private readonly store: Store,
    private readonly address: string,
  ) {}

  /** Connects now, also when a later attempt was planned. */
  readonly connect = (): void => {
    this.close();
    this.store.connecting();
    const source = new EventSource(this.address);
    this.source = source;
    source.onmessage = (event: MessageEvent<string>) => this.receive(event.data);
    source.onerror = () => this.lose();
    this.silence = setTimeout(() => this.lose(), FIRST_MESSAGE_MS);
  };

  close(): void {
    clearTimeout(this.retry);
    clearTimeout(this.silence);
    this.source?.close();
    this.source = null;
  }

  private receive(data: string): void {
    let accepted: boolean;
    try {
      accepted = this.store.message(decode(data), Date.now());
    } catch (error) {
      if (!(error instanceof SyntaxError)) throw error;
      accepted = false;
    }
    if (!accepted) return this.lose();
    this.attempts = 0;
    clearTimeout(this.silence);
    this.silence = setTimeout(this.connect, SILENCE_MS);
  }

  private lose(): void {
    this.close();
    this.attempts += 1;
    const delay = backoff(this.attempts);
    this.store.lost(Date.now() + delay, this.attempts);
    this.retry = setTimeout(this.connect, delay);
  }
}
