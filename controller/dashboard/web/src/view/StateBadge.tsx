import type { ReplicaState } from "../state/messages";
import { Icon, type IconName } from "./Icon";

const ICONS: Record<ReplicaState, IconName> = {
  PENDING: "pending",
  LOADING: "loading",
  READY: "ready",
  DRAINING: "draining",
  UNHEALTHY: "unhealthy",
  STOPPED: "stopped",
  UNKNOWN: "unknown",
};

export function StateBadge({ state }: { state: ReplicaState }) {
  const name = state.charAt(0) + state.slice(1).toLowerCase();
  return (
    <span className={`state state-${state.toLowerCase()}`}>
      <Icon name={ICONS[state]} />
      {name}
    </span>
  );
}
