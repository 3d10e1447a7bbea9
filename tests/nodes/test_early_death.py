"""A rank on another node that ends before it has said a word, which no connection can tell."""

import threading

from headway.core.specs import GroupSpec
from headway.worker.group.followers import Followers
from headway.worker.group.spec import RankSpec


class Ended:
    """The handle of a rank that came up on another node and ended at once."""

    node, beside, pid = "far", False, 1

    def alive(self) -> bool:
        return False

    def kill(self) -> None:
        pass


class Launcher:
    address = "127.0.0.1"

    def launch(self, rank: RankSpec) -> Ended:
        return Ended()


def test_it_fails_the_group():
    failed = threading.Event()
    said: list[tuple[str, bool]] = []

    def fail(why: str, config: bool) -> None:
        said.append((why, config))
        failed.set()

    spec = GroupSpec(replica_id="test", model_name="test", model_path="/nowhere", pp=2)
    followers = Followers(spec, Launcher(), on_progress=lambda: None, on_failure=fail)
    try:
        followers.launch("tcp://127.0.0.1:1")
        assert failed.wait(30)
    finally:
        followers.close()
    assert said == [("rank 1 on far died", False)]
