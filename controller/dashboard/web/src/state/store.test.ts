import { describe, expect, it } from "vitest";

import { decode } from "./messages";
import { Store } from "./store";
import { backoff } from "./stream";

const ready = { id: "demo-0", model: "demo", state: "REPLICA_STATE_READY", incarnation: "a" };
const snapshot = (fields: object = { replicas: [ready] }) => decode(JSON.stringify({ version: "1", snapshot: true, ...fields }));
const change = (fields: object) => decode(JSON.stringify({ version: "2", ...fields }));
const said = (store: Store) => store.get().activities.map((activity) => `${activity.subject} ${activity.text}`);

describe("Store", () => {
  it("is live from the first snapshot on, and counts nothing in it as news", () => {
    const store = new Store();
    expect(store.get().connection.phase).toBe("connecting");
    expect(store.message(snapshot(), 1000)).toBe(true);
    expect(store.get()).toMatchObject({ connection: { phase: "live" }, lastMessageAt: 1000, activities: [] });
  });

  it("refuses a change before the connection's snapshot", () => {
    const store = new Store();
    expect(store.message(change({ replicas: [ready] }), 1000)).toBe(false);
    expect(store.get().cluster.replicas.size).toBe(0);
  });

  it("keeps the old picture and its age while the stream is lost, and refuses changes until a fresh snapshot", () => {
    const store = new Store();
    store.message(snapshot(), 1000);
    store.lost(5000, 1);
    store.connecting();
    expect(store.get()).toMatchObject({ connection: { phase: "lost", attempts: 1 }, lastMessageAt: 1000 });
    expect(store.get().cluster.replicas.size).toBe(1);
    expect(store.message(change({ removedReplicaIds: ["demo-0"] }), 6000)).toBe(false);
    expect(store.message(snapshot({ replicas: [] }), 7000)).toBe(true);
    expect(store.get()).toMatchObject({ connection: { phase: "live" }, lastMessageAt: 7000 });
    expect(store.get().cluster.replicas.size).toBe(0);
  });

  it("tells what happened, newest first", () => {
    const store = new Store();
    store.message(snapshot({ models: [{ name: "demo", desiredReplicas: 1 }], replicas: [ready] }), 1000);
    store.message(change({ replicas: [{ ...ready, state: "REPLICA_STATE_UNHEALTHY", reason: "rank 1 died" }] }), 2000);
    store.message(change({ replicas: [{ ...ready, incarnation: "b" }] }), 3000);
    store.message(change({ models: [{ name: "demo", desiredReplicas: 0 }], removedReplicaIds: ["demo-0"] }), 4000);
    expect(said(store)).toEqual([
      "demo wanted replicas 1 → 0",
      "demo-0 removed",
      "demo-0 unhealthy → ready",
      "demo-0 ready → unhealthy: rank 1 died",
    ]);
  });

  it("tells of a restart that nobody saw as a change of state", () => {
    const store = new Store();
    store.message(snapshot(), 1000);
    store.message(change({ replicas: [{ ...ready, incarnation: "b" }] }), 2000);
    expect(said(store)).toEqual(["demo-0 started again"]);
  });

  it("records a gap while the stream is lost and forgets what is older than five minutes", () => {
    const store = new Store();
    store.sample(0);
    expect(store.get().history).toEqual([]);
    store.message(snapshot({ routers: [{ id: "r", requestsPerSecond: 4 }] }), 1000);
    store.sample(1000);
    store.lost(9000, 1);
    store.sample(2000);
    expect(store.get().history.map((sample) => sample.figures?.requestsPerSecond ?? null)).toEqual([4, null]);
    store.sample(301_500);
    expect(store.get().history.map((sample) => sample.time)).toEqual([2, 301.5]);
  });
});

describe("backoff", () => {
  it("doubles up to fifteen seconds", () => {
    expect([1, 2, 3, 9].map((attempt) => backoff(attempt, () => 0))).toEqual([500, 1000, 2000, 15_000]);
  });

  it("spreads by a fifth at most", () => {
    expect(backoff(2, () => 1)).toBe(800);
  });
});
