"""The prefix index against a naive model that keeps one set a replica."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from headway.core.blocks import BlockKey, chain_keys, root_key
from headway.router.index import Medium, PrefixIndex
from headway.router.index.prefix import VALUE

MEDIA = st.sampled_from([Medium.DEVICE, Medium.DEVICE, Medium.HOST, Medium.DISK])
REPLICAS = st.sampled_from(["a", "b", "c", "d"])
# Two chains that part after three pages, and a third one of their own.
ROOT = root_key("r")
SHARED = list(range(12))
CHAINS = [
    chain_keys(ROOT, SHARED + [1] * 12, 4),
    chain_keys(ROOT, SHARED + [2] * 12, 4),
    chain_keys(ROOT, [7] * 24, 4),
]
KEYS = sorted({key for chain in CHAINS for key in chain})
SOME_KEYS = st.lists(st.sampled_from(KEYS), max_size=8)


class IndexAgainstSets(RuleBasedStateMachine):
    """`held` is what events said; `promised` maps (replica, key) to the time until which it counts."""

    def __init__(self) -> None:
        super().__init__()
        self.index = PrefixIndex()
        self.media: dict[Medium, dict[str, set[BlockKey]]] = {medium: {} for medium in Medium}
        self.held = self.media[Medium.DEVICE]
        self.promised: dict[tuple[str, BlockKey], float] = {}
        self.now = 0.0

    @rule(replica=REPLICAS, keys=SOME_KEYS, medium=MEDIA)
    def stored(self, replica: str, keys: list[BlockKey], medium: Medium) -> None:
        self.index.stored(replica, keys, medium)
        self.media[medium].setdefault(replica, set()).update(keys)
        if medium is Medium.DEVICE:
            for key in keys:
                self.promised.pop((replica, key), None)

    @rule(replica=REPLICAS, chain=st.sampled_from(CHAINS), depth=st.integers(0, 6), medium=MEDIA)
    def stored_chain(self, replica: str, chain: list[BlockKey], depth: int, medium: Medium) -> None:
        self.stored(replica, chain[:depth], medium)

    @rule(replica=REPLICAS, keys=SOME_KEYS, medium=MEDIA)
    def removed(self, replica: str, keys: list[BlockKey], medium: Medium) -> None:
        self.index.removed(replica, keys, medium)
        self.media[medium].get(replica, set()).difference_update(keys)

    @rule(replica=REPLICAS, forget=st.booleans())
    def emptied(self, replica: str, forget: bool) -> None:
        (self.index.forget if forget else self.index.cleared)(replica)
        for held in self.media.values():
            held.pop(replica, None)
        self.promised = {entry: until for entry, until in self.promised.items() if entry[0] != replica}

    @rule(replica=REPLICAS, chain=st.sampled_from(CHAINS), depth=st.integers(0, 6), life=st.integers(1, 5))
    def promise(self, replica: str, chain: list[BlockKey], depth: int, life: int) -> None:
        self.index.promise(replica, chain[:depth], self.now + life)
        for key in chain[:depth]:
            if key not in self.held.get(replica, set()):
                entry = (replica, key)
                self.promised[entry] = max(self.promised.get(entry, 0.0), self.now + life)

    @rule(seconds=st.integers(1, 3))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @invariant()
    def matches_are_the_unbroken_runs(self) -> None:
        for chain in CHAINS:
            expected = {}
            for replica in "abcd":
                worth = depth = 0
                for medium in Medium:
                    start = depth
                    while depth < len(chain) and self._has(replica, chain[depth], medium):
                        depth += 1
                    worth += VALUE[medium] * (depth - start)
                if depth:
                    expected[replica] = worth
            assert self.index.match(chain, self.now) == expected

    @invariant()
    def counts_are_true(self) -> None:
        assert len(self.index) == len(set().union(*self.held.values()))
        for replica in "abcd":
            for medium, held in self.media.items():
                assert self.index.pages(replica, medium) == len(held.get(replica, ()))

    @precondition(lambda self: not any(self.media.values()))
    @invariant()
    def nothing_is_left_behind(self) -> None:
        assert not any(map(len, self.index._media.values()))

    def _has(self, replica: str, key: BlockKey, furthest: Medium) -> bool:
        """There or nearer."""
        held = any(key in held.get(replica, set()) for medium, held in self.media.items() if medium <= furthest)
        return held or self.promised.get((replica, key), 0.0) > self.now


TestIndexAgainstSets = IndexAgainstSets.TestCase
TestIndexAgainstSets.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


def test_no_keys_match_nothing() -> None:
    index = PrefixIndex()
    index.stored("a", CHAINS[0])
    assert index.match([], 0.0) == {}


def test_a_recycled_bit_does_not_inherit_pages() -> None:
    index = PrefixIndex()
    index.stored("old", CHAINS[0])
    index.promise("old", CHAINS[2], until=100.0)
    index.forget("old")
    index.stored("new", CHAINS[1][:1])
    assert index.match(CHAINS[0], 0.0) == {"new": 1}
    assert index.match(CHAINS[2], 0.0) == {}


def test_more_replicas_than_a_machine_word_has_bits() -> None:
    index = PrefixIndex()
    for number in range(100):
        index.stored(f"replica-{number}", CHAINS[0][: number % 7])
    depths = index.match(CHAINS[0], 0.0)
    assert depths == {f"replica-{number}": number % 7 for number in range(100) if number % 7}


def test_the_nearer_copy_of_a_prefix_is_worth_more_and_a_far_one_more_than_none() -> None:
    index = PrefixIndex()
    for replica, medium in zip("abc", Medium, strict=True):
        index.stored(replica, CHAINS[0], medium)
    index.stored("d", CHAINS[0][:1])
    worth = index.match(CHAINS[0], 0.0)
    assert len(CHAINS[0]) == worth["a"] > worth["b"] > worth["c"] > worth["d"] == 1
    index.stored("a", CHAINS[0], Medium.HOST)
    index.removed("a", CHAINS[0][2:])
    assert index.match(CHAINS[0], 0.0)["a"] == 2 + VALUE[Medium.HOST] * (len(CHAINS[0]) - 2)
