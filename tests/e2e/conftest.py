"""Clusters that tests share, and clusters of their own for tests that break them."""

from collections.abc import Callable, Iterator

import pytest
from support.clusters import Cluster


@pytest.fixture(scope="session")
def new_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Cluster]]:
    """Brings clusters up; takes down at the end what a test left running."""
    made: list[Cluster] = []

    def make(*arguments: str) -> Cluster:
        cluster = Cluster(tmp_path_factory.mktemp("home"))
        made.append(cluster)
        cluster.up(*arguments)
        return cluster

    yield make
    for cluster in made:
        cluster.run("down", check=False)


@pytest.fixture(scope="session")
def cluster(new_cluster: Callable[..., Cluster]) -> Cluster:
    """Two replicas of the demo model, shared by the tests that break nothing."""
    return new_cluster("--replicas", "2")
