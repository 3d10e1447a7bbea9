"""What a narrow KV cache, or weights of 8 bits, cost in accuracy: log probabilities and greedy choices over known text,
against exact ones.

python benchmarks/narrow.py [--model DIR] [--tokens 1024]

The text is the source of modules of Python's standard library, which is what the demo model was trained on. Each place
is predicted from the places before it as the cache holds them.
"""

from __future__ import annotations

import argparse
import inspect
import os
import textwrap
from pathlib import Path
from types import ModuleType

os.environ.setdefault("OMP_NUM_THREADS", "1")

import bisect
import contextlib
import heapq
import shlex

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from headway.core.sampling import SamplingParams
from headway.core.specs import KV_DTYPES, WEIGHT_DTYPES, EngineSpec, GroupSpec
from headway.worker.execution.runner import Runner
from headway.worker.parallel.communicator import alone
from headway.worker.plan import RowAdded, RowWork, StepPlan

DEMO = Path(__file__).parents[1] / "demo" / "headway-demo"
TEXTS: tuple[ModuleType, ...] = (textwrap, bisect, contextlib, heapq, shlex)


def texts(model: Path, tokens: int) -> list[list[int]]:
    """The first tokens of each text."""
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    return [tokenizer.encode(inspect.getsource(module)).ids[:tokens] for module in TEXTS]


def predicted(
    model: Path, engine: EngineSpec, prompts: list[list[int]]
) -> tuple[npt.NDArray[np.float32], list[int], int]:
    """The log probability of each token after the first, the likeliest at its place, and a page's bytes."""
    spec = GroupSpec(replica_id="bench", model_name="bench", model_path=str(model), dtype="float32", engine=engine)
    runner = Runner(spec, alone("cpu"), lambda share: None)
    per_row = -(-max(map(len, prompts)) // engine.page_size) + 1
    runner.allocate(per_row)
    own: list[float] = []
    best: list[int] = []
    for number, prompt in enumerate(prompts):
        tokens = np.array(prompt, "<u4").tobytes()
        added = RowAdded(0, tokens, len(prompt), 0, list(range(per_row)), SamplingParams(), prompt_logprobs=1)
        plan = StepPlan(number, [0] if number else [], [added], [], [RowWork(0, 0, len(prompt), True, [])])
        result = runner.step(plan)
        assert result is not None
        for _, part in result.prompt_logprobs:
            own += np.frombuffer(part.values, "<f4").reshape(-1, part.width)[:, 0].tolist()
            best += np.frombuffer(part.ids, "<u4").reshape(-1, part.width)[:, 1].tolist()
    return np.array(own, np.float32), best, runner.info.kv_bytes_per_page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, default=DEMO)
    parser.add_argument("--tokens", type=int, default=1024, help="of each text")
    options = parser.parse_args()
    prompts = texts(options.model, options.tokens)
    exact, choices, whole = predicted(options.model, EngineSpec(), prompts)
    print(f"{len(exact)} places")
    print("narrow         bytes of a page  nats a token  mean |difference|  largest  same greedy choice")
    kinds = {f"kv {name}": EngineSpec(kv_dtype=name) for name in KV_DTYPES}
    kinds |= {f"weights {name}": EngineSpec(weight_dtype=name) for name in WEIGHT_DTYPES[1:]}
    for kind, engine in kinds.items():
        own, best, size = predicted(options.model, engine, prompts)
        apart = np.abs(own - exact)
        same = np.mean(np.array(best) == np.array(choices))
        print(
            f"{kind:13}  {size:7} ({size / whole:4.0%})  {-own.mean():12.4f}  {apart.mean():17.4f}"
            f"  {apart.max():7.3f}  {same:17.2%}"
        )


if __name__ == "__main__":
    main()
