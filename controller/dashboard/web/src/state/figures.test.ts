import { describe, expect, it } from "vitest";

import { figures } from "./figures";
import { decode } from "./messages";

function routers(...fields: object[]) {
  return decode(JSON.stringify({ routers: fields })).routers;
}

describe("figures", () => {
  it("adds rates and counters, takes the slowest router's percentiles, weighs hits by requests", () => {
    const both = figures(
      routers(
        { id: "a", requestsPerSecond: 3, outputTokensPerSecond: 100, running: 2, errors: "1", ttftP99Ms: 80, prefixHitRatio: 0.5 },
        { id: "b", requestsPerSecond: 1, outputTokensPerSecond: 50, running: 1, errors: "2", ttftP99Ms: 200, prefixHitRatio: 0.9 },
      ),
    );
    expect(both).toMatchObject({ requestsPerSecond: 4, outputTokensPerSecond: 150, running: 3, errors: 3, ttftP99Ms: 200 });
    expect(both.prefixHitRatio).toBeCloseTo(0.6);
  });

  it("has no percentile and no ratio where nothing finished", () => {
    const idle = figures(routers({ id: "a" }));
    expect(idle).toMatchObject({ requestsPerSecond: 0, ttftP50Ms: null, tpotP99Ms: null, prefixHitRatio: null });
    expect(figures([])).toEqual(idle);
  });
});
