"""The reconciler against a small world that does what it is told, in every order that hypothesis thinks of."""

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from headway.controller.reconcile import (
    READY,
    Action,
    Add,
    Drain,
    Forget,
    Launch,
    ReplicaView,
    Retire,
    Stop,
    reconcile,
)
from headway.proto.headway.v1 import admin_pb2

PATIENCE = 30.0
MODELS = ("a", "b")


@st.composite
def a_replica(draw: st.DrawFn, ordinal: int) -> ReplicaView:
    launched = draw(st.booleans())
    connected = launched and draw(st.booleans())
    return ReplicaView(
        id=f"r{ordinal}",
        model=draw(st.sampled_from((*MODELS, "gone"))),
        ordinal=ordinal,
        state=READY if connected and draw(st.booleans()) else admin_pb2.REPLICA_STATE_LOADING,
        launched=launched,
        connected=connected,
        failed=draw(st.booleans()),
        busy=draw(st.booleans()),
        drain_until=draw(st.sampled_from((0.0, 5.0, 1e6))),
        unfinished=draw(st.sampled_from((None, 0, 3))) if connected else 0,
    )


worlds = st.integers(0, 7).flatmap(lambda size: st.tuples(*(a_replica(ordinal) for ordinal in range(size))))
wishes = st.fixed_dictionaries({model: st.integers(0, 5) for model in MODELS})


class World:
    """Replicas that obey: launched ones come up, drained ones finish one request a turn."""

    def __init__(self, replicas: tuple[ReplicaView, ...]) -> None:
        self.replicas = {replica.id: replica for replica in replicas}
        self.now = 10.0
        self.next = len(replicas)

    def turn(self, wanted: dict[str, int]) -> list[Action]:
        actions = reconcile(wanted, self.replicas.values(), self.now)
        for action in actions:
            self.obey(action)
        self.now += 1.0
        self.replicas = {name: msgspec.structs.replace(each, busy=False) for name, each in self.replicas.items()}
        return actions

    def obey(self, action: Action) -> None:
        match action:
            case Add(model):
                self.replicas[f"r{self.next}"] = ReplicaView(id=f"r{self.next}", model=model, ordinal=self.next)
                self.next += 1
            case Retire(name):
                self.change(name, drain_until=self.now + PATIENCE)
            case Launch(name):
                self.change(name, launched=True, connected=True, state=READY, unfinished=2)
            case Drain(name):
                self.change(name, unfinished=max(0, (self.replicas[name].unfinished or 1) - 1))
            case Stop(name):
                before = self.replicas[name]
                lost = before.leaving and before.connected and before.unfinished != 0
                assert not lost or self.now >= before.drain_until, "stopped with requests before its time"
                assert before.leaving or before.failed
                self.change(name, launched=False, connected=False, unfinished=0)
            case Forget(name):
                assert not self.replicas[name].launched
                del self.replicas[name]

    def change(self, name: str, **fields: object) -> None:
        self.replicas[name] = msgspec.structs.replace(self.replicas[name], **fields)


@settings(deadline=None)
@given(worlds, wishes)
def test_every_world_comes_to_rest_at_what_is_wanted(replicas: tuple[ReplicaView, ...], wanted: dict[str, int]) -> None:
    world = World(replicas)
    for _ in range(100):
        world.turn(wanted)
    assert reconcile(wanted, world.replicas.values(), world.now) == []
    counts = dict.fromkeys(MODELS, 0)
    for replica in world.replicas.values():
        counts[replica.model] += 1
    assert counts == wanted
    # Those that were given up are not started again and again, and those that work are all up.
    assert all(replica.launched != replica.failed for replica in world.replicas.values())


@settings(deadline=None)
@given(worlds, wishes)
def test_no_more_go_or_come_than_the_difference(replicas: tuple[ReplicaView, ...], wanted: dict[str, int]) -> None:
    actions = reconcile(wanted, replicas, 10.0)
    by_id = {replica.id: replica for replica in replicas}
    for model in (*MODELS, "gone"):
        staying = [replica for replica in replicas if replica.model == model and not replica.leaving]
        gone = [a for a in actions if isinstance(a, Retire) and by_id[a.replica_id].model == model]
        come = [a for a in actions if isinstance(a, Add) and a.model == model]
        assert len(staying) - len(gone) + len(come) == wanted.get(model, 0)
        assert not (gone and come)


@settings(deadline=None)
@given(worlds, wishes)
def test_a_busy_replica_is_left_alone(replicas: tuple[ReplicaView, ...], wanted: dict[str, int]) -> None:
    busy = {replica.id for replica in replicas if replica.busy}
    for action in reconcile(wanted, replicas, 10.0):
        if isinstance(action, Launch | Drain | Stop | Forget):
            assert action.replica_id not in busy


def serving(number: int, unfinished: int = 0, **fields: object) -> ReplicaView:
    base = ReplicaView(
        id=f"r{number}", model="a", ordinal=number, state=READY, launched=True, connected=True, unfinished=unfinished
    )
    return msgspec.structs.replace(base, **fields)


def retired(*replicas: ReplicaView, keep: int) -> list[str]:
    return [a.replica_id for a in reconcile({"a": keep}, replicas, 0.0) if isinstance(a, Retire)]


def test_the_least_loaded_goes() -> None:
    assert retired(serving(0, 5), serving(1, 2), serving(2, 9), keep=2) == ["r1"]


def test_what_does_not_serve_goes_before_what_does() -> None:
    loading = serving(0, 0, state=admin_pb2.REPLICA_STATE_LOADING)
    failed = serving(1, 0, failed=True, launched=False)
    assert retired(serving(2), loading, failed, keep=1) == ["r1", "r0"]


def test_of_equals_the_newest_goes() -> None:
    assert retired(serving(0), serving(1), serving(2), keep=2) == ["r2"]


def test_a_replica_that_was_given_up_is_stopped_and_not_replaced() -> None:
    failed = serving(0, failed=True)
    assert reconcile({"a": 1}, [failed], 0.0) == [Stop("r0")]
    assert reconcile({"a": 1}, [msgspec.structs.replace(failed, launched=False)], 0.0) == []


def test_a_drained_replica_is_replaced_before_it_is_gone() -> None:
    assert reconcile({"a": 1}, [serving(0, 4, drain_until=9.0)], 0.0) == [Drain("r0"), Add("a")]
