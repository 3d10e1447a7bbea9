import type { ModelGroup } from "../state/cluster";
import type { Model, Replica } from "../state/messages";
import { plural } from "./format";
import { ReplicaCard } from "./ReplicaCard";

interface ModelSectionProps {
  group: ModelGroup;
  canAct: boolean;
  onScale: (model: Model) => void;
  onDrain: (replica: Replica) => void;
}

export function ModelSection({ group, canAct, onScale, onDrain }: ModelSectionProps) {
  const { model, replicas } = group;
  const ready = replicas.filter((replica) => replica.state === "READY").length;
  const titleId = `model-${model.name}`;
  return (
    <section className="model" aria-labelledby={titleId}>
      <header className="model-head">
        <h3 id={titleId}>{model.name}</h3>
        <p className="model-facts">
          <span className={ready < model.desiredReplicas ? "model-count is-short" : "model-count"}>
            {ready} ready of {plural(model.desiredReplicas, "wanted replica")}
          </span>
          <span title="tensor-parallel × pipeline-parallel ranks in each replica">
            tp {model.tensorParallel} × pp {model.pipelineParallel}
          </span>
          {model.path && <span className="mono model-path">{model.path}</span>}
        </p>
        <button type="button" disabled={!canAct} onClick={() => onScale(model)} aria-label={`Scale ${model.name}`}>
          Scale…
        </button>
      </header>
      {replicas.length === 0 && <p className="hint">No replica of this model exists.</p>}
      <ul className="cards">
        {replicas.map((replica) => (
          <li key={replica.id}>
            <ReplicaCard replica={replica} canAct={canAct} onDrain={onDrain} />
          </li>
        ))}
      </ul>
    </section>
  );
}
