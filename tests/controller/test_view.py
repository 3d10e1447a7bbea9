"""Watching the cluster: a snapshot, then what changed."""

import asyncio
from contextlib import aclosing

from hypothesis import given, settings
from hypothesis import strategies as st

from headway.controller.view import ClusterView
from headway.proto.headway.v1 import admin_pb2


class Mirror:
    """What a watcher makes of the messages."""

    def __init__(self) -> None:
        self.replicas: dict[str, int] = {}
        self.routers: dict[str, int] = {}
        self.versions: list[int] = []

    def take(self, message: admin_pb2.WatchClusterResponse) -> None:
        if message.snapshot:
            self.replicas, self.routers = {}, {}
        self.versions.append(message.version)
        self.replicas.update({replica.id: replica.restarts for replica in message.replicas})
        self.routers.update({router.id: router.running for router in message.routers})
        for name in message.removed_replica_ids:
            self.replicas.pop(name, None)
        for name in message.removed_router_ids:
            self.routers.pop(name, None)


names = st.sampled_from(["x", "y", "z"])
Change = tuple[str, str, int]
changes = st.lists(
    st.one_of(
        st.tuples(st.just("replica"), names, st.integers(0, 3)),
        st.tuples(st.just("router"), names, st.integers(0, 3)),
        st.tuples(st.just("no replica"), names, st.just(0)),
        st.tuples(st.just("no router"), names, st.just(0)),
        st.tuples(st.just("look"), names, st.just(0)),
    ),
    max_size=30,
)


def apply(view: ClusterView, kind: str, name: str, value: int) -> None:
    match kind:
        case "replica":
            view.put_replica(admin_pb2.Replica(id=name, restarts=value))
        case "router":
            view.put_router(admin_pb2.Router(id=name, running=value))
        case "no replica":
            view.remove_replica(name)
        case "no router":
            view.remove_router(name)


@settings(deadline=None)
@given(changes, changes)
def test_a_watcher_ends_with_what_is_true(before: list[Change], after: list[Change]) -> None:
    async def run() -> None:
        view, mirror = ClusterView(), Mirror()
        for change in before:
            apply(view, *change)
        async with aclosing(view.watch()) as messages:
            mirror.take(await anext(messages))
            for kind, name, value in after:
                apply(view, kind, name, value)
                if kind == "look" and mirror.versions[-1] < view.version:
                    mirror.take(await anext(messages))
            if mirror.versions[-1] < view.version:
                mirror.take(await anext(messages))
        assert mirror.replicas == {replica.id: replica.restarts for replica in view.replicas()}
        assert mirror.routers == {router.id: router.running for router in view.routers()}
        assert mirror.versions == sorted(set(mirror.versions))

    asyncio.run(run())


async def test_a_slow_watcher_gets_one_message_for_many_changes() -> None:
    view = ClusterView()
    async with aclosing(view.watch()) as messages:
        first = await anext(messages)
        for number in range(1000):
            view.put_replica(admin_pb2.Replica(id="x", restarts=number))
        second = await anext(messages)
    assert (first.snapshot, second.snapshot) == (True, False)
    assert [replica.restarts for replica in second.replicas] == [999]
    assert second.version == first.version + 1000


async def test_what_is_the_same_is_no_news() -> None:
    view = ClusterView()
    view.put_replica(admin_pb2.Replica(id="x", restarts=1))
    version = view.version
    view.put_replica(admin_pb2.Replica(id="x", restarts=1))
    view.remove_replica("never")
    assert view.version == version


async def test_a_new_life_goes_on_above_the_old() -> None:
    old = ClusterView()
    for number in range(100):
        old.put_replica(admin_pb2.Replica(id="x", restarts=number))
    new = ClusterView()
    new.begin_life(1)
    assert new.version > old.version


async def test_a_watch_that_ends_leaves_nothing_behind() -> None:
    view = ClusterView()
    async with aclosing(view.watch()) as messages:
        await anext(messages)
        assert len(view._watchers) == 1
    assert not view._watchers
