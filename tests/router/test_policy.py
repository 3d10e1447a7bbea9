"""The choice of a replica, as arithmetic and on simulated bursts in virtual time."""

from __future__ import annotations

import random
from collections import Counter, deque

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.core.errors import Overloaded, Unavailable
from headway.proto.headway.v1 import engine_pb2
from headway.router.policy import Candidate, Figures, Ledger, Pending, Policy, figures_from_load, predict

RATE = 10_000.0
IDLE = Figures(prefill_rate=RATE, max_sequences=16, total_pages=10_000)


def candidates(hits: dict[str, int] | None = None, **figures: Figures) -> list[Candidate]:
    return [
        Candidate(replica_id=name, figures=value, hit_tokens=(hits or {}).get(name, 0))
        for name, value in figures.items()
    ]


def test_prediction_is_queue_plus_own_uncached_tokens_at_the_measured_rate() -> None:
    figures = Figures(prefill_rate=1_000.0, waiting_uncached_tokens=300)
    prediction = predict(figures, prompt_tokens=500, hit_tokens=400, pending=Pending(2, 100, 7))
    assert prediction.ttft_s == pytest.approx((300 + 100 + 100) / 1_000)
    assert prediction.work_s == pytest.approx(0.1)


def test_a_whole_hit_still_computes_the_last_token() -> None:
    assert predict(Figures(prefill_rate=1.0), 64, 64).work_s == 1.0


def test_full_rows_and_full_pages_each_make_a_request_wait() -> None:
    free = predict(IDLE, 100, 0).ttft_s
    rows = Figures(prefill_rate=RATE, max_sequences=4, running=4, waiting=3, decode_step_s=0.0)
    busy = Figures(prefill_rate=RATE, max_sequences=4, running=4, waiting=3, decode_step_s=0.01)
    pages = Figures(prefill_rate=RATE, max_sequences=16, running=4, used_pages=99, total_pages=100)
    assert predict(rows, 100, 0).ttft_s == pytest.approx(free)
    assert predict(busy, 100, 0).ttft_s > free + 4 * 0.3
    assert predict(pages, 100, 0).ttft_s > free + 0.05


@given(st.integers(1, 5_000), st.integers(0, 5_000), st.integers(0, 20_000), st.integers(0, 50))
def test_more_hit_never_costs_more_and_more_queue_never_costs_less(
    prompt: int, hit: int, queued: int, waiting: int
) -> None:
    base = Figures(prefill_rate=RATE, max_sequences=8, waiting_uncached_tokens=queued, waiting=waiting, total_pages=500)
    more = Figures(
        prefill_rate=RATE, max_sequences=8, waiting_uncached_tokens=queued + 100, waiting=waiting + 1, total_pages=500
    )
    assert predict(base, prompt, min(hit, prompt)).cost_s <= predict(base, prompt, 0).cost_s
    assert predict(more, prompt, 0).cost_s >= predict(base, prompt, 0).cost_s


def test_warm_replica_wins_when_queues_are_alike_and_loses_behind_a_long_queue() -> None:
    policy = Policy(Ledger())
    warm = {"warm": 1_000}
    assert policy.choose(candidates(warm, warm=IDLE, cold=IDLE), 1_100).replica_id == "warm"
    queued = Figures(prefill_rate=RATE, max_sequences=16, waiting_uncached_tokens=20_000, total_pages=10_000)
    assert policy.choose(candidates(warm, warm=queued, cold=IDLE), 1_100).replica_id == "cold"


def test_ties_are_broken_evenly() -> None:
    policy = Policy(Ledger())
    chosen: Counter[str] = Counter()
    for _ in range(400):
        choice = policy.choose(candidates(a=IDLE, b=IDLE, c=IDLE, d=IDLE), 50)
        policy.ledger.release(choice.replica_id, choice.submit_id)
        chosen[choice.replica_id] += 1
    assert set(chosen.values()) == {100}


def test_cold_start_without_rates_spreads_a_burst() -> None:
    policy = Policy(Ledger())
    chosen = Counter(policy.choose(candidates(a=Figures(), b=Figures()), 200).replica_id for _ in range(20))
    assert chosen == {"a": 10, "b": 10}


def test_a_rate_measured_on_few_tokens_is_not_believed() -> None:
    """Else it would get no cold prompt any more, and never measure again."""
    policy = Policy(Ledger())
    busy_history = Figures(prefill_rate=8_000.0, computed_tokens=500_000)
    unlucky = Figures(prefill_rate=900.0, computed_tokens=200)
    chosen: Counter[str] = Counter()
    for _ in range(40):
        choice = policy.choose(candidates(a=busy_history, b=unlucky), 500)
        policy.ledger.release(choice.replica_id, choice.submit_id)
        chosen[choice.replica_id] += 1
    assert chosen == {"a": 20, "b": 20}


def test_a_replica_that_is_slow_for_long_gets_less() -> None:
    fast = Figures(prefill_rate=8_000.0, computed_tokens=500_000)
    slow = Figures(prefill_rate=1_000.0, computed_tokens=500_000)
    policy = Policy(Ledger())
    chosen = Counter(policy.choose(candidates(fast=fast, slow=slow), 500).replica_id for _ in range(40))
    assert chosen["fast"] > 2 * chosen["slow"] > 0


def test_one_warm_prefix_does_not_fill_one_batch_while_others_idle() -> None:
    """Whole hits cost no prefill, so only what decoding together costs can send a request elsewhere."""
    policy = Policy(Ledger())
    chosen = Counter(policy.choose(candidates({"warm": 320}, warm=IDLE, cold=IDLE), 321).replica_id for _ in range(16))
    assert chosen["warm"] > chosen["cold"] > 0


def test_a_replica_without_a_rate_is_taken_for_as_fast_as_the_others() -> None:
    policy = Policy(Ledger())
    fast = Figures(prefill_rate=100_000.0, running=3, waiting_uncached_tokens=1_000)
    assert policy.choose(candidates(measured=fast, new=Figures()), 1_000).replica_id == "new"


def test_replicas_that_do_not_accept_are_never_chosen() -> None:
    policy = Policy(Ledger())
    closed = Figures(prefill_rate=1e9, accepting=False)
    busy = Figures(prefill_rate=100.0, waiting_uncached_tokens=10_000)
    for _ in range(10):
        assert policy.choose(candidates({"closed": 100}, closed=closed, busy=busy), 100).replica_id == "busy"
    with pytest.raises(Unavailable) as caught:
        policy.choose(candidates(closed=closed), 100)
    assert caught.value.retry_after_s
    with pytest.raises(Unavailable):
        policy.choose([], 100)


@pytest.mark.parametrize("sign", ["engine", "reports"])
def test_a_stalled_replica_is_the_last_resort(sign: str) -> None:
    policy = Policy(Ledger())
    hung = Candidate(
        replica_id="hung",
        figures=Figures(prefill_rate=RATE, silence_s=8.0 if sign == "engine" else 0.0),
        silent_s=8.0 if sign == "reports" else 0.0,
        hit_tokens=90,
    )
    busy = Figures(prefill_rate=100.0, waiting_uncached_tokens=10_000)
    assert policy.choose([hung, *candidates(busy=busy)], 100).replica_id == "busy"
    assert policy.choose([hung], 100).replica_id == "hung"


def test_full_queues_everywhere_are_overload_with_a_time_to_come_back() -> None:
    policy = Policy(Ledger())
    full = Figures(prefill_rate=RATE, running=4, max_sequences=4, waiting=2, max_waiting=2)
    with pytest.raises(Overloaded) as caught:
        policy.choose(candidates(a=full, b=full), 10)
    assert caught.value.retry_after_s is not None and 1.0 <= caught.value.retry_after_s <= 30.0
    room = Figures(prefill_rate=10.0, running=4, max_sequences=4, waiting=1, max_waiting=2, waiting_uncached_tokens=999)
    assert policy.choose(candidates(a=full, b=room), 10).replica_id == "b"
    with pytest.raises(Overloaded):  # the reservation just made fills b
        policy.choose(candidates(a=full, b=room), 10)


def test_reservations_count_until_a_report_covers_them() -> None:
    ledger = Ledger()
    policy = Policy(ledger)
    first = policy.choose(candidates(only=IDLE), 160)
    second = policy.choose(candidates(only=IDLE), 320)
    assert ledger.pending("only") == Pending(2, 480, 30)
    ledger.confirm("only", first.submit_id)
    assert ledger.pending("only") == Pending(1, 320, 20)
    ledger.release("only", first.submit_id)
    assert ledger.pending("only") == Pending(1, 320, 20)
    ledger.release("only", second.submit_id)
    assert ledger.pending("only") == Pending()
    policy.choose(candidates(only=IDLE), 160)
    ledger.forget("only")
    assert ledger.pending("only") == Pending()


def test_figures_of_a_report_use_stand_ins_for_what_is_not_measured() -> None:
    fresh = figures_from_load(engine_pb2.Load(accepting=True), engine_pb2.DescribeResponse(page_size=16))
    assert fresh.mean_output > 0 and fresh.decode_step_s > 0 and fresh.max_waiting > 0 and fresh.prefill_rate == 0
    totals = engine_pb2.LoadTotals(requests=4, output_tokens=80)
    load = engine_pb2.Load(accepting=True, decode_step_ms=5.0, prefill_rate=123.0, totals=totals, engine_silence_ms=700)
    figures = figures_from_load(load, engine_pb2.DescribeResponse(page_size=32, max_sequences=8, max_waiting=3))
    assert 20.0 < figures.mean_output < 128.0 and figures.decode_step_s == pytest.approx(0.005)
    assert (figures.page_size, figures.max_sequences, figures.max_waiting) == (32, 8, 3)
    assert figures.silence_s == pytest.approx(0.7)


class SimulatedReplica:
    """Prefill at a fixed rate, first come first served; a prefix is warm once a request with it was computed."""

    def __init__(self) -> None:
        self.queue: deque[tuple[int, str]] = deque()
        self.warm: set[str] = set()
        self.promised: set[str] = set()
        self.seen = 0

    def figures(self) -> Figures:
        return Figures(
            prefill_rate=RATE,
            waiting=len(self.queue),
            waiting_uncached_tokens=sum(tokens for tokens, _ in self.queue),
            max_sequences=64,
            total_pages=10_000,
            decode_step_s=0.01,
            mean_output=32,
        )

    def run(self, seconds: float) -> None:
        budget = int(seconds * RATE)
        while self.queue and budget > 0:
            tokens, prefix = self.queue.popleft()
            if tokens > budget:
                self.queue.appendleft((tokens - budget, prefix))
                return
            budget -= tokens
            self.warm.add(prefix)


class SimulatedCluster:
    """Replicas whose reports come once a tick; arrivals in between see the last report and the ledger."""

    def __init__(self, size: int) -> None:
        self.replicas = {f"r{number}": SimulatedReplica() for number in range(size)}
        self.policy = Policy(Ledger())
        self.reports = {name: replica.figures() for name, replica in self.replicas.items()}
        self.sent: list[tuple[str, str]] = []

    def tick(self, seconds: float = 0.01) -> None:
        for name, replica in self.replicas.items():
            replica.run(seconds)
            self.reports[name] = replica.figures()
            self.policy.ledger.confirm(name, replica.seen)

    def send(self, prefix: str, shared: int, own: int) -> str:
        options = [
            Candidate(
                replica_id=name,
                figures=self.reports[name],
                hit_tokens=shared if prefix in replica.warm or prefix in replica.promised else 0,
            )
            for name, replica in self.replicas.items()
        ]
        choice = self.policy.choose(options, shared + own)
        replica = self.replicas[choice.replica_id]
        replica.promised.add(prefix)
        replica.seen = choice.submit_id
        replica.queue.append((shared + own - choice.hit_tokens, prefix))
        self.sent.append((prefix, choice.replica_id))
        return choice.replica_id


@pytest.mark.parametrize("reports_between", [False, True])
def test_a_burst_with_one_system_prompt_does_not_make_a_hot_spot(reports_between: bool) -> None:
    cluster = SimulatedCluster(4)
    for number in range(64):
        cluster.send("system", shared=600, own=100)
        if reports_between and number % 4 == 3:
            cluster.tick(0.001)
    share = Counter(replica for _, replica in cluster.sent)
    assert len(share) == 4
    assert max(share.values()) <= 32


def test_a_trickle_with_one_system_prompt_stays_on_the_warm_replica() -> None:
    cluster = SimulatedCluster(4)
    for _ in range(64):
        cluster.send("system", shared=600, own=20)
        cluster.tick(0.1)
    assert len({replica for _, replica in cluster.sent}) == 1


def test_distinct_prefixes_stick_to_their_replicas_and_use_all_of_them() -> None:
    cluster = SimulatedCluster(4)
    random_ = random.Random(7)
    prefixes = [f"tenant-{number}" for number in range(12)]
    for _ in range(600):
        cluster.send(random_.choice(prefixes), shared=800, own=20)
        cluster.tick(0.02)
    homes = {prefix: Counter(r for p, r in cluster.sent[100:] if p == prefix) for prefix in prefixes}
    stayed = sum(home.most_common(1)[0][1] for home in homes.values()) / 500
    assert stayed > 0.9
    assert len({home.most_common(1)[0][0] for home in homes.values()}) == 4
    assert max(Counter(replica for _, replica in cluster.sent).values()) < 600 * 0.45
