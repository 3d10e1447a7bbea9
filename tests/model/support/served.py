"""An engine over one runner in this process: requests in, each one's tokens out."""

from __future__ import annotations

from array import array
from collections import defaultdict, deque

from headway.core.blocks import root_key
from headway.core.sampling import SamplingParams
from headway.worker.engine import Engine, Stop, Submit
from headway.worker.engine.reports import StepReport
from headway.worker.execution.launched import Launched
from headway.worker.execution.runner import Runner
from headway.worker.pages import PagePool
from headway.worker.plan import StepPlan, StepResult
from headway.worker.scheduler import Limits, Request, Scheduler
from headway.worker.scheduler.scheduler import IN_COLUMNS


class InProcess:
    """The engine's plane: plans are launched when they are sent, and collected when they are due."""

    def __init__(self, runner: Runner) -> None:
        self.runner = runner
        self.out: deque[Launched] = deque()
        self.most_out = 0
        self.preemptions = 0

    def send(self, plan: StepPlan) -> None:
        self.out.append(self.runner.launch(plan))
        self.most_out = max(self.most_out, len(self.out))

    def receive(self) -> StepResult:
        result = self.out.popleft().collect()
        assert result is not None
        return result

    def serve(
        self, asks: list[tuple[list[int], int, SamplingParams]], token_budget: int, in_columns: int = IN_COLUMNS
    ) -> list[list[int]]:
        """Each request's tokens, for its prompt, the most new ones, and how to draw them. `in_columns` is for the
        scheduler."""
        runner, engine_spec = self.runner, self.runner.spec.engine
        limits = Limits(
            page_size=engine_spec.page_size, total_pages=runner.total_pages,
            max_context_tokens=min(runner.info.max_context_tokens, runner.total_pages * engine_spec.page_size),
            max_sequences=engine_spec.max_sequences, token_budget=token_budget, max_waiting=100,
            vocab_size=runner.info.vocab_size, admission_forecast=False,
        )  # fmt: skip
        scheduler = Scheduler(limits, PagePool(limits.total_pages, limits.page_size), in_columns=in_columns)
        tokens: dict[int, list[int]] = defaultdict(list)
        unfinished = set(range(len(asks)))

        def publish(report: StepReport) -> None:
            assert not report.refusals
            if (decoded := report.decoded.get(0)) is not None:
                for id, token in zip(decoded.ids.tolist(), decoded.tokens.tolist(), strict=True):
                    tokens[id].append(token)
            for output in report.outputs.get(0, ()):
                tokens[output.id] += output.token_ids
                if output.finish:
                    unfinished.discard(output.id)
            if not unfinished:
                engine.inbox.put(Stop())

        engine = Engine(scheduler, self, publish)
        for number, (prompt, most, sampling) in enumerate(asks):
            request = Request(
                session=0, id=number, tokens=array("I", prompt), prompt_tokens=len(prompt), max_new_tokens=most,
                sampling=sampling, root=root_key("test"), page_size=limits.page_size,
            )  # fmt: skip
            engine.inbox.put(Submit(request))
        engine.run()
        while self.out:
            scheduler.update(self.receive())
        runner.step(scheduler.schedule())
        self.preemptions += scheduler.preemptions
        return [tokens[number] for number in range(len(asks))]
