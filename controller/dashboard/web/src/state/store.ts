// The page's one store: the connection, the cluster, the history of figures and the list of what happened.

import { type Activity, ACTIVITY_LIMIT, changes } from "./activity";
import { apply, type Cluster, EMPTY } from "./cluster";
import { appendSample, figures, type Sample } from "./figures";
import type { ClusterMessage } from "./messages";

export type Connection =
  | { phase: "connecting" }
  | { phase: "live" }
  | { phase: "lost"; retryAt: number; attempts: number };

export interface State {
  connection: Connection;
  cluster: Cluster;
  /** When the last message came, in milliseconds since 1970; null before the first snapshot. */
  lastMessageAt: number | null;
  history: readonly Sample[];
  activities: readonly Activity[];
}

export class Store {
  private state: State = {
    connection: { phase: "connecting" },
    cluster: EMPTY,
    lastMessageAt: null,
    history: [],
    activities: [],
  };
  private readonly listeners = new Set<() => void>();
  private activityKey = 0;

  readonly get = (): State => this.state;

  readonly subscribe = (listener: () => void): (() => void) => {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  };

  /** Takes a message. A change is worth nothing until this connection's snapshot came: then it is refused with false. */
  message(message: ClusterMessage, now: number): boolean {
    if (!message.snapshot && this.state.connection.phase !== "live") return false;
    const before = this.state.cluster;
    const cluster = apply(before, message);
    const isFirst = this.state.lastMessageAt === null;
    const found = isFirst ? [] : changes(before, cluster);
    const activities = found.map((change) => ({ ...change, key: this.activityKey++, time: now })).reverse();
    this.set({
      connection: { phase: "live" },
      cluster,
      lastMessageAt: now,
      activities: [...activities, ...this.state.activities].slice(0, ACTIVITY_LIMIT),
    });
    return true;
  }

  connecting(): void {
    // A reconnect keeps the banner of the lost stream until the fresh snapshot is here.
    if (this.state.connection.phase === "live") this.set({ connection: { phase: "connecting" } });
  }

  lost(retryAt: number, attempts: number): void {
    this.set({ connection: { phase: "lost", retryAt, attempts } });
  }

  /** Called once a second: one more point for the charts. */
  sample(now: number): void {
    if (this.state.lastMessageAt === null) return;
    const isLive = this.state.connection.phase === "live";
    const known = isLive ? figures([...this.state.cluster.routers.values()]) : null;
    this.set({ history: appendSample(this.state.history, { time: now / 1000, figures: known }) });
  }

  private set(part: Partial<State>): void {
    this.state = { ...this.state, ...part };
    for (const listener of this.listeners) listener();
  }
}
