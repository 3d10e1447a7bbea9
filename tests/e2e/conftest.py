"""Clusters that tests share, and clusters of their own for tests that break them."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.clusters import Cluster

sys.path.insert(0, str(Path(__file__).parents[1] / "model" / "support"))  # adapters made by peft


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
    return new_cluster(
        "--replicas", "2", "--dtype", "float32"
    )  # as transformers compute, which tokens are compared with
