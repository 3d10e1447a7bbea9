import { useState } from "react";

import { drain } from "../state/actions";
import type { Replica } from "../state/messages";
import { ActionDialog, outcome } from "./ActionDialog";
import { plural } from "./format";

const DEFAULT_SECONDS = 30;

interface DrainDialogProps {
  replica: Replica;
  onClose: (outcome: string | null) => void;
}

export function DrainDialog({ replica, onClose }: DrainDialogProps) {
  const [seconds, setSeconds] = useState(String(DEFAULT_SECONDS));
  const { running, waiting } = replica.load;
  const act = async () => outcome(await drain(replica.id, Number(seconds)), `${replica.id} is draining.`);
  return (
    <ActionDialog title={`Drain ${replica.id}?`} confirm="Drain replica" isDangerous act={act} onClose={onClose}>
      <p>
        The replica takes no new requests, finishes what it has ({running} running, {waiting} waiting) and stops. What still
        runs after the time below moves to other replicas.
      </p>
      <label>
        Time to finish, in seconds
        <input type="number" min={0} max={3600} step={1} required value={seconds}
          onChange={(event) => setSeconds(event.target.value)} />
      </label>
      <p className="hint">
        {replica.model} · {plural(replica.tensorParallel * replica.pipelineParallel, "rank")}
      </p>
    </ActionDialog>
  );
}
