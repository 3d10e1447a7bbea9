// Request figures over all routers, and their history for the small charts.

import type { Router } from "./messages";

export interface Figures {
  requestsPerSecond: number;
  outputTokensPerSecond: number;
  running: number;
  /** Percentiles cannot be averaged: over several routers these are the slowest router's. Null: no request finished. */
  ttftP50Ms: number | null;
  ttftP99Ms: number | null;
  tpotP50Ms: number | null;
  tpotP99Ms: number | null;
  /** Weighted by requests. Null: no request finished. */
  prefixHitRatio: number | null;
  errors: number;
  migrations: number;
}

function sum(routers: readonly Router[], value: (router: Router) => number): number {
  return routers.reduce((total, router) => total + value(router), 0);
}

function slowest(routers: readonly Router[], value: (router: Router) => number): number | null {
  return Math.max(0, ...routers.map(value)) || null;
}

export function figures(routers: readonly Router[]): Figures {
  const requestsPerSecond = sum(routers, (router) => router.requestsPerSecond);
  const hits = sum(routers, (router) => router.prefixHitRatio * router.requestsPerSecond);
  return {
    requestsPerSecond,
    outputTokensPerSecond: sum(routers, (router) => router.outputTokensPerSecond),
    running: sum(routers, (router) => router.running),
    ttftP50Ms: slowest(routers, (router) => router.ttftP50Ms),
    ttftP99Ms: slowest(routers, (router) => router.ttftP99Ms),
    tpotP50Ms: slowest(routers, (router) => router.tpotP50Ms),
    tpotP99Ms: slowest(routers, (router) => router.tpotP99Ms),
    prefixHitRatio: requestsPerSecond > 0 ? hits / requestsPerSecond : null,
    errors: sum(routers, (router) => router.errors),
    migrations: sum(routers, (router) => router.migrations),
  };
}

/** One point a second; figures are null while the page does not know them, which the charts draw as a gap. */
export interface Sample {
  time: number;
  figures: Figures | null;
}

export const HISTORY_SECONDS = 300;

export function appendSample(history: readonly Sample[], sample: Sample): Sample[] {
  const oldest = sample.time - HISTORY_SECONDS;
  return [...history.filter((kept) => kept.time > oldest), sample];
}
