import type { Replica } from "../state/messages";
import { NONE } from "./format";

/** Cells side by side, so that a wide group breaks into even rows. */
function across(tensorParallel: number): string {
  if (tensorParallel % 4 === 0) return "across-4";
  return tensorParallel === 1 ? "across-1" : "across-2";
}

/** One row a pipeline stage, one cell a rank; ranks count through a stage's tensor-parallel group first. */
export function RankGrid({ replica }: { replica: Replica }) {
  const { tensorParallel, pipelineParallel, pids, nodes } = replica;
  const stages = Array.from({ length: pipelineParallel }, (_, stage) => stage);
  const ranksOf = (stage: number) => Array.from({ length: tensorParallel }, (_, place) => stage * tensorParallel + place);
  return (
    <div className="ranks">
      <p className="ranks-title">
        tp {tensorParallel} × pp {pipelineParallel}
        <span>rank and process id</span>
      </p>
      <ol className="stages">
        {stages.map((stage) => (
          <li key={stage} className="stage">
            {pipelineParallel > 1 && <span className="stage-name">stage {stage}</span>}
            <ol className={`stage-ranks ${across(tensorParallel)}`} aria-label={`Ranks of stage ${stage}`}>
              {ranksOf(stage).map((rank) => (
                <li key={rank} className={pids[rank] ? "rank" : "rank is-missing"} title={nodes[rank] ? `on ${nodes[rank]}` : undefined}>
                  <b>r{rank}</b> <span>{pids[rank] || NONE}</span>
                </li>
              ))}
            </ol>
          </li>
        ))}
      </ol>
    </div>
  );
}
