import { expect, it } from "vitest";

import { duration, milliseconds, percent, plural, rate } from "./format";

it("writes rates in three digits", () => {
  expect([0, 0.417, 7.5, 41.7, 312.4, 3412, 18_400, 999_600].map(rate)).toEqual([
    "0", "0.42", "7.50", "41.7", "312", "3,412", "18.4k", "1.00M",
  ]);
});

it("writes no figure as a dash, and long times in seconds", () => {
  expect([null, 0, 4.27, 212, 31_000].map(milliseconds)).toEqual(["–", "–", "4.27 ms", "212 ms", "31.0 s"]);
});

it("tells a small share from none", () => {
  expect([null, 0, 0.004, 0.63, 1].map(percent)).toEqual(["–", "0%", "0.4%", "63%", "100%"]);
});

it("rounds ages down to the unit that matters", () => {
  expect([0, 9_400, 61_000, 7_300_000].map(duration)).toEqual(["0 s", "9 s", "1 min", "2 h"]);
});

it("counts", () => {
  expect([0, 1, 2].map((n) => plural(n, "rank"))).toEqual(["0 ranks", "1 rank", "2 ranks"]);
});
