import type { Cluster } from "../state/cluster";
import type { Connection } from "../state/store";
import { plural } from "./format";
import { Icon, type IconName } from "./Icon";

const PHASES: Record<Connection["phase"], { icon: IconName; text: string }> = {
  connecting: { icon: "loading", text: "Connecting" },
  live: { icon: "live", text: "Live" },
  lost: { icon: "unhealthy", text: "Stream lost" },
};

function summary(cluster: Cluster): string {
  const replicas = [...cluster.replicas.values()];
  const ready = replicas.filter((replica) => replica.state === "READY").length;
  const ranks = replicas.reduce((total, { tensorParallel, pipelineParallel }) => total + tensorParallel * pipelineParallel, 0);
  return [
    plural(cluster.models.size, "model"),
    `${ready} of ${plural(replicas.length, "replica")} ready`,
    plural(ranks, "rank"),
    plural(cluster.routers.size, "router"),
  ].join(" · ");
}

export function Header({ connection, cluster }: { connection: Connection; cluster: Cluster }) {
  const phase = PHASES[connection.phase];
  return (
    <header className="top">
      <h1 className="brand">
        <svg viewBox="0 0 32 32" aria-hidden="true">
          <rect className="brand-tile" width="32" height="32" rx="7" />
          <path className="brand-track" d="M6 22h20" />
          <rect className="brand-car" x="6" y="11" width="6" height="7" rx="1.5" />
          <rect className="brand-car" x="20" y="11" width="6" height="7" rx="1.5" />
        </svg>
        Headway
      </h1>
      {cluster.version > 0 && <p className="top-summary">{summary(cluster)}</p>}
      <p className={`connection connection-${connection.phase}`} role="status">
        <Icon name={phase.icon} />
        {phase.text}
      </p>
    </header>
  );
}
