// What the page knows of the cluster, and how a message changes it. Pure: a new value for each change.

import type { ClusterMessage, Model, Replica, Router } from "./messages";

export interface Cluster {
  version: number;
  models: ReadonlyMap<string, Model>;
  replicas: ReadonlyMap<string, Replica>;
  routers: ReadonlyMap<string, Router>;
}

export const EMPTY: Cluster = { version: 0, models: new Map(), replicas: new Map(), routers: new Map() };

function updated<T>(
  before: ReadonlyMap<string, T>,
  changed: readonly T[],
  key: (item: T) => string,
  removed: readonly string[] = [],
): ReadonlyMap<string, T> {
  if (changed.length === 0 && removed.length === 0) return before;
  const after = new Map(before);
  for (const item of changed) after.set(key(item), item);
  for (const id of removed) after.delete(id);
  return after;
}

/** A snapshot replaces everything; a change replaces the items it names, whole, and takes away the removed ones. */
export function apply(cluster: Cluster, message: ClusterMessage): Cluster {
  const base = message.snapshot ? EMPTY : cluster;
  return {
    version: message.version,
    models: updated(base.models, message.models, (model) => model.name),
    replicas: updated(base.replicas, message.replicas, (replica) => replica.id, message.removedReplicaIds),
    routers: updated(base.routers, message.routers, (router) => router.id, message.removedRouterIds),
  };
}

export interface ModelGroup {
  model: Model;
  replicas: Replica[];
}

const byName = new Intl.Collator("en", { numeric: true });

/** Models with their replicas, both in a stable order. A replica whose model is not listed still shows. */
export function modelGroups(cluster: Cluster): ModelGroup[] {
  const groups = new Map<string, ModelGroup>();
  for (const model of cluster.models.values()) groups.set(model.name, { model, replicas: [] });
  for (const replica of cluster.replicas.values()) {
    let group = groups.get(replica.model);
    if (!group) {
      const { tensorParallel, pipelineParallel } = replica;
      group = {
        model: { name: replica.model, path: "", desiredReplicas: 0, tensorParallel, pipelineParallel },
        replicas: [],
      };
      groups.set(replica.model, group);
    }
    group.replicas.push(replica);
  }
  for (const group of groups.values()) group.replicas.sort((a, b) => byName.compare(a.id, b.id));
  return [...groups.values()].sort((a, b) => byName.compare(a.model.name, b.model.name));
}

export function sortedRouters(cluster: Cluster): Router[] {
  return [...cluster.routers.values()].sort((a, b) => byName.compare(a.id, b.id));
}
