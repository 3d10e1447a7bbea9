import type { Replica } from "../state/messages";
import { count, milliseconds, percent, plural, rate, short } from "./format";
import { Pages } from "./Pages";
import { RankGrid } from "./RankGrid";
import { StateBadge } from "./StateBadge";

// Longer than any healthy step: the engine has work and does not get on with it.
const HANG_MS = 5000;

/** What an operator should know beyond the state and its reason. */
function warnings({ state, load }: Replica): string[] {
  const found: string[] = [];
  if (load.engineSilenceMs > HANG_MS) found.push(`no progress for ${(load.engineSilenceMs / 1000).toFixed(0)} s`);
  if (state === "READY" && load.totalPages > 0 && !load.accepting) found.push("does not accept requests");
  return found;
}

function LoadingBar({ loaded }: { loaded: number }) {
  const width = `${(loaded * 100).toFixed(1)}%`;
  return (
    <div className="meter">
      <div className="meter-head">
        <span>Weights loaded</span>
        <span>{percent(loaded)}</span>
      </div>
      <div className="bar" role="progressbar" aria-label="Weights loaded" aria-valuemin={0} aria-valuemax={100}
        aria-valuenow={Math.round(loaded * 100)}>
        <span className="bar-loaded" style={{ width }} />
      </div>
    </div>
  );
}

function LoadFigures({ replica: { load } }: { replica: Replica }) {
  return (
    <dl className="load">
      <div>
        <dt>Running</dt>
        <dd>{count(load.running)}</dd>
      </div>
      <div>
        <dt>Waiting</dt>
        <dd>{count(load.waiting)}</dd>
      </div>
      <div>
        <dt>Prefill</dt>
        <dd>
          {load.prefillRate ? rate(load.prefillRate) : "–"} <small>tok/s</small>
        </dd>
      </div>
      <div>
        <dt>Decode step</dt>
        <dd>{milliseconds(load.decodeStepMs)}</dd>
      </div>
    </dl>
  );
}

interface ReplicaCardProps {
  replica: Replica;
  canAct: boolean;
  onDrain: (replica: Replica) => void;
}

export function ReplicaCard({ replica, canAct, onDrain }: ReplicaCardProps) {
  const isDrainable = replica.state === "READY" || replica.state === "UNHEALTHY" || replica.state === "LOADING";
  const isLoading = replica.state === "LOADING" || (replica.state === "PENDING" && replica.loaded > 0);
  const said = [replica.reason, ...warnings(replica)].filter(Boolean).join("; ");
  return (
    <article className={`card card-${replica.state.toLowerCase()}`} aria-label={`Replica ${replica.id}`} data-replica={replica.id}>
      <header className="card-head">
        <h4 className="mono">{replica.id}</h4>
        <StateBadge state={replica.state} />
      </header>
      {said && <p className="reason">{said}</p>}
      {isLoading ? <LoadingBar loaded={replica.loaded} /> : <LoadFigures replica={replica} />}
      {!isLoading && replica.load.totalPages > 0 && <Pages load={replica.load} />}
      <RankGrid replica={replica} />
      <footer className="card-foot">
        <p className="card-facts">
          {replica.incarnation && <span className="mono" title={`Incarnation ${replica.incarnation}`}>#{short(replica.incarnation)}</span>}
          <span className={replica.restarts > 0 ? "restarts is-some" : "restarts"}>{plural(replica.restarts, "restart")}</span>
          {replica.endpoint && <span className="mono">{replica.endpoint}</span>}
        </p>
        {isDrainable && (
          <button type="button" disabled={!canAct} onClick={() => onDrain(replica)} aria-label={`Drain ${replica.id}`}>
            Drain…
          </button>
        )}
      </footer>
    </article>
  );
}
