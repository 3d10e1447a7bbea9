// What happened, in words: derived from two states of the cluster that follow each other.

import type { Cluster } from "./cluster";
import type { ReplicaState } from "./messages";

export interface Activity {
  key: number;
  time: number;
  subject: string;
  state: ReplicaState | null;
  text: string;
}

export const ACTIVITY_LIMIT = 60;

type Change = Pick<Activity, "subject" | "state" | "text">;

function withReason(text: string, reason: string): string {
  return reason ? `${text}: ${reason}` : text;
}

/** Replicas that came, went, changed state or were started again, and models whose wanted number changed. */
export function changes(before: Cluster, after: Cluster): Change[] {
  const found: Change[] = [];
  for (const [id, replica] of after.replicas) {
    const old = before.replicas.get(id);
    const say = (text: string) =>
      found.push({ subject: id, state: replica.state, text: withReason(text, replica.reason) });
    if (!old) say(`appeared, ${replica.state.toLowerCase()}`);
    else if (old.state !== replica.state) say(`${old.state.toLowerCase()} → ${replica.state.toLowerCase()}`);
    else if (old.incarnation && replica.incarnation && old.incarnation !== replica.incarnation) say("started again");
  }
  for (const id of before.replicas.keys()) {
    if (!after.replicas.has(id)) found.push({ subject: id, state: null, text: "removed" });
  }
  for (const [name, model] of after.models) {
    const old = before.models.get(name);
    if (old && old.desiredReplicas !== model.desiredReplicas) {
      found.push({ subject: name, state: null, text: `wanted replicas ${old.desiredReplicas} → ${model.desiredReplicas}` });
    }
  }
  return found;
}
