// The event stream's messages (proto/headway/v1/admin.proto) as the page uses them, and their decoding from proto3 JSON:
// fields with default values may be absent, 64-bit numbers are strings, enumerations are names, NaN is a string.

export const REPLICA_STATES = ["PENDING", "LOADING", "READY", "DRAINING", "UNHEALTHY", "STOPPED", "UNKNOWN"] as const;
export type ReplicaState = (typeof REPLICA_STATES)[number];

export interface Load {
  running: number;
  waiting: number;
  waitingUncachedTokens: number;
  usedPages: number;
  cachedPages: number;
  totalPages: number;
  engineSilenceMs: number;
  prefillRate: number;
  decodeStepMs: number;
  accepting: boolean;
}

export interface Replica {
  id: string;
  model: string;
  revision: string;
  state: ReplicaState;
  reason: string;
  incarnation: string;
  endpoint: string;
  pids: number[];
  nodes: string[];
  tensorParallel: number;
  pipelineParallel: number;
  loaded: number;
  restarts: number;
  load: Load;
}

export interface Model {
  name: string;
  path: string;
  desiredReplicas: number;
  tensorParallel: number;
  pipelineParallel: number;
}

export interface Router {
  id: string;
  grpcAddress: string;
  httpAddress: string;
  pid: number;
  running: number;
  requests: number;
  errors: number;
  migrations: number;
  outputTokensPerSecond: number;
  requestsPerSecond: number;
  ttftP50Ms: number;
  ttftP99Ms: number;
  tpotP50Ms: number;
  tpotP99Ms: number;
  prefixHitRatio: number;
}

export interface ClusterMessage {
  version: number;
  snapshot: boolean;
  models: Model[];
  replicas: Replica[];
  removedReplicaIds: string[];
  routers: Router[];
  removedRouterIds: string[];
}

type Json = Record<string, unknown>;

function object(value: unknown): Json {
  return typeof value === "object" && value !== null && !Array.isArray(value) ? (value as Json) : {};
}

function list(value: unknown): unknown[] {
  return Array.isArray(value) ? value : [];
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

/** A number of any width; absent, NaN and infinite become 0, which the page shows as "no figure". */
function number(value: unknown): number {
  const parsed = typeof value === "string" ? Number(value) : value;
  return typeof parsed === "number" && Number.isFinite(parsed) ? parsed : 0;
}

function replicaState(value: unknown): ReplicaState {
  const name = text(value).replace(/^REPLICA_STATE_/, "");
  return REPLICA_STATES.find((state) => state === name) ?? "UNKNOWN";
}

function load(value: unknown): Load {
  const json = object(value);
  return {
    running: number(json["running"]),
    waiting: number(json["waiting"]),
    waitingUncachedTokens: number(json["waitingUncachedTokens"]),
    usedPages: number(json["usedPages"]),
    cachedPages: number(json["cachedPages"]),
    totalPages: number(json["totalPages"]),
    engineSilenceMs: number(json["engineSilenceMs"]),
    prefillRate: number(json["prefillRate"]),
    decodeStepMs: number(json["decodeStepMs"]),
    accepting: json["accepting"] === true,
  };
}

function replica(value: unknown): Replica {
  const json = object(value);
  return {
    id: text(json["id"]),
    model: text(json["model"]),
    revision: text(json["revision"]),
    state: replicaState(json["state"]),
    reason: text(json["reason"]),
    incarnation: text(json["incarnation"]),
    endpoint: text(json["endpoint"]),
    pids: list(json["pids"]).map(number),
    nodes: list(json["nodes"]).map(text),
    tensorParallel: Math.max(1, number(json["tensorParallel"])),
    pipelineParallel: Math.max(1, number(json["pipelineParallel"])),
    loaded: Math.min(1, Math.max(0, number(json["loaded"]))),
    restarts: number(json["restarts"]),
    load: load(json["load"]),
  };
}

function model(value: unknown): Model {
  const json = object(value);
  return {
    name: text(json["name"]),
    path: text(json["path"]),
    desiredReplicas: number(json["desiredReplicas"]),
    tensorParallel: Math.max(1, number(json["tensorParallel"])),
    pipelineParallel: Math.max(1, number(json["pipelineParallel"])),
  };
}

function router(value: unknown): Router {
  const json = object(value);
  return {
    id: text(json["id"]),
    grpcAddress: text(json["grpcAddress"]),
    httpAddress: text(json["httpAddress"]),
    pid: number(json["pid"]),
    running: number(json["running"]),
    requests: number(json["requests"]),
    errors: number(json["errors"]),
    migrations: number(json["migrations"]),
    outputTokensPerSecond: number(json["outputTokensPerSecond"]),
    requestsPerSecond: number(json["requestsPerSecond"]),
    ttftP50Ms: number(json["ttftP50Ms"]),
    ttftP99Ms: number(json["ttftP99Ms"]),
    tpotP50Ms: number(json["tpotP50Ms"]),
    tpotP99Ms: number(json["tpotP99Ms"]),
    prefixHitRatio: number(json["prefixHitRatio"]),
  };
}

/** Decodes one event. Throws SyntaxError when the data is not JSON at all. */
export function decode(data: string): ClusterMessage {
  const json = object(JSON.parse(data));
  return {
    version: number(json["version"]),
    snapshot: json["snapshot"] === true,
    models: list(json["models"]).map(model),
    replicas: list(json["replicas"]).map(replica),
    removedReplicaIds: list(json["removedReplicaIds"]).map(text),
    routers: list(json["routers"]).map(router),
    removedRouterIds: list(json["removedRouterIds"]).map(text),
  };
}
