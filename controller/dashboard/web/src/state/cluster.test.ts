import { describe, expect, it } from "vitest";

import { apply, EMPTY, modelGroups, sortedRouters } from "./cluster";
import { decode } from "./messages";

function message(fields: object) {
  return decode(JSON.stringify(fields));
}

const start = apply(
  EMPTY,
  message({
    version: "7",
    snapshot: true,
    models: [{ name: "demo", desiredReplicas: 2 }],
    replicas: [
      { id: "demo-0", model: "demo", state: "REPLICA_STATE_READY", restarts: 2 },
      { id: "demo-1", model: "demo", state: "REPLICA_STATE_LOADING", loaded: 0.5 },
    ],
    routers: [{ id: "router-1", requests: "5" }],
  }),
);

describe("apply", () => {
  it("replaces a changed item whole and leaves the others alone", () => {
    const after = apply(start, message({ version: "8", replicas: [{ id: "demo-0", model: "demo", state: "REPLICA_STATE_DRAINING" }] }));
    expect(after.version).toBe(8);
    expect(after.replicas.get("demo-0")).toMatchObject({ state: "DRAINING", restarts: 0 });
    expect(after.replicas.get("demo-1")).toBe(start.replicas.get("demo-1"));
    expect(after.routers).toBe(start.routers);
  });

  it("takes removed replicas and routers away", () => {
    const after = apply(start, message({ version: "8", removedReplicaIds: ["demo-1"], removedRouterIds: ["router-1"] }));
    expect([...after.replicas.keys()]).toEqual(["demo-0"]);
    expect(after.routers.size).toBe(0);
  });

  it("lets a snapshot replace everything, also what it does not name", () => {
    const after = apply(start, message({ version: "1", snapshot: true, replicas: [{ id: "other-0", model: "other" }] }));
    expect([...after.replicas.keys()]).toEqual(["other-0"]);
    expect(after.models.size).toBe(0);
    expect(after.routers.size).toBe(0);
    expect(after.version).toBe(1);
  });

  it("does not change the state it started from", () => {
    apply(start, message({ version: "8", removedReplicaIds: ["demo-0", "demo-1"] }));
    expect(start.replicas.size).toBe(2);
  });
});

describe("modelGroups", () => {
  it("sorts by number, not by letter, and keeps replicas of an unlisted model visible", () => {
    const replicas = ["demo-10", "demo-9"].map((id) => ({ id, model: "demo" }));
    const cluster = apply(start, message({ replicas: [...replicas, { id: "lost-0", model: "lost", tensorParallel: 4 }] }));
    const groups = modelGroups(cluster);
    expect(groups.map((group) => group.model.name)).toEqual(["demo", "lost"]);
    expect(groups[0]?.replicas.map((replica) => replica.id)).toEqual(["demo-0", "demo-1", "demo-9", "demo-10"]);
    expect(groups[1]?.model).toMatchObject({ desiredReplicas: 0, tensorParallel: 4 });
  });

  it("shows a model without replicas", () => {
    expect(modelGroups(apply(EMPTY, message({ snapshot: true, models: [{ name: "idle" }] })))).toHaveLength(1);
  });
});

describe("sortedRouters", () => {
  it("keeps a stable order whatever came last", () => {
    const cluster = apply(start, message({ routers: [{ id: "router-0" }, { id: "router-1" }] }));
    expect(sortedRouters(cluster).map((router) => router.id)).toEqual(["router-0", "router-1"]);
  });
});
