"""`python -m tools.demo_model`: prepare the text, train the model, train the draft, export both."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

from .model import DRAFT, MAIN
from .prepare import prepare
from .train import Run, train

STAGES = ("prepare", "main", "draft", "export")
DRAFT_SHARE = 0.1  # of the time


def main() -> None:
    """Parse the command line and run the stages that were asked for."""
    parser = argparse.ArgumentParser(prog="python -m tools.demo_model", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="where both model folders are written")
    parser.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "headway-demo-model",
                        help="checkpoints and logs; a second start goes on from there")  # fmt: skip
    parser.add_argument("--minutes", type=float, default=60.0, help="of training, for both models together")
    parser.add_argument("--processes", type=int, default=3, help="each uses one thread")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES)
    options = parser.parse_args()
    run_stages(options)


def run_stages(options: argparse.Namespace) -> None:
    """Run the chosen stages in their order."""
    draft_minutes = options.minutes * DRAFT_SHARE
    runs = {
        "main": Run("main", MAIN, options.minutes - draft_minutes, options.processes, options.work, options.seed),
        "draft": Run("draft", DRAFT, draft_minutes, options.processes, options.work, options.seed, teacher="main"),
    }
    if "prepare" in options.stages:
        prepare(options.work, options.seed)
    for name, run in runs.items():
        if name in options.stages:
            train(run)
    if "export" in options.stages:
        from .export import export

        export(options.work, options.out)


if __name__ == "__main__":
    main()
