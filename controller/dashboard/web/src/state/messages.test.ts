import { describe, expect, it } from "vitest";

import { decode } from "./messages";

describe("decode", () => {
  it("takes an event without any field as an empty change", () => {
    expect(decode("{}")).toEqual({
      version: 0,
      snapshot: false,
      models: [],
      replicas: [],
      removedReplicaIds: [],
      routers: [],
      removedRouterIds: [],
    });
  });

  it("reads 64-bit numbers from strings and states from names", () => {
    const message = decode(
      JSON.stringify({
        version: "18231",
        snapshot: true,
        replicas: [
          { id: "demo-0", state: "REPLICA_STATE_READY", loaded: 1, load: { usedPages: "12", totalPages: "4096", accepting: true } },
        ],
        routers: [{ id: "r", requests: "9007199254740991", running: 3 }],
      }),
    );
    expect(message.version).toBe(18231);
    expect(message.snapshot).toBe(true);
    expect(message.replicas[0]).toMatchObject({ state: "READY", load: { usedPages: 12, totalPages: 4096, accepting: true } });
    expect(message.routers[0]).toMatchObject({ requests: 9007199254740991, running: 3 });
  });

  it("fills what proto3 JSON omits", () => {
    const [replica] = decode('{"replicas":[{"id":"demo-0"}]}').replicas;
    expect(replica).toMatchObject({ state: "UNKNOWN", pids: [], loaded: 0, restarts: 0, tensorParallel: 1, pipelineParallel: 1 });
    expect(replica?.load).toMatchObject({ running: 0, totalPages: 0, accepting: false });
  });

  it("shows a state of a newer controller as unknown, by name or by number", () => {
    const message = decode('{"replicas":[{"id":"a","state":"REPLICA_STATE_SLEEPING"},{"id":"b","state":42}]}');
    expect(message.replicas.map((replica) => replica.state)).toEqual(["UNKNOWN", "UNKNOWN"]);
  });

  it("takes NaN and infinity, which JSON spells as strings, as no figure", () => {
    const [router] = decode('{"routers":[{"id":"r","ttftP50Ms":"NaN","ttftP99Ms":"Infinity"}]}').routers;
    expect(router).toMatchObject({ ttftP50Ms: 0, ttftP99Ms: 0 });
  });

  it("throws SyntaxError on what is not JSON", () => {
    expect(() => decode("<html>")).toThrow(SyntaxError);
  });
});
