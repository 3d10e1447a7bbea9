import { useState } from "react";

import { scale } from "../state/actions";
import type { Model } from "../state/messages";
import { ActionDialog, outcome } from "./ActionDialog";
import { plural } from "./format";

interface ScaleDialogProps {
  model: Model;
  onClose: (outcome: string | null) => void;
}

function consequence(model: Model, wanted: number): string {
  const difference = wanted - model.desiredReplicas;
  const ranks = plural(Math.abs(difference) * model.tensorParallel * model.pipelineParallel, "rank");
  if (difference > 0) return `Starts ${plural(difference, "replica")} more, which need devices for ${ranks}.`;
  if (difference < 0 && wanted === 0) return `Stops every replica. The model is no longer served.`;
  if (difference < 0) return `Drains and stops ${plural(-difference, "replica")}, which frees ${ranks}.`;
  return "This is the number that is wanted now.";
}

export function ScaleDialog({ model, onClose }: ScaleDialogProps) {
  const [replicas, setReplicas] = useState(String(model.desiredReplicas));
  const wanted = Number(replicas);
  const act = async () => outcome(await scale(model.name, wanted), `${model.name}: ${plural(wanted, "replica")} wanted.`);
  return (
    <ActionDialog title={`Scale ${model.name}`} confirm="Scale model" isDangerous={wanted < model.desiredReplicas} act={act}
      onClose={onClose}>
      <label>
        Replicas wanted
        <input type="number" min={0} max={1000} step={1} required value={replicas}
          onChange={(event) => setReplicas(event.target.value)} />
      </label>
      <p className="consequence" aria-live="polite">
        {consequence(model, wanted)}
      </p>
    </ActionDialog>
  );
}
