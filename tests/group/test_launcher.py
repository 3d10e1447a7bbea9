"""Each rank of a group on CUDA sees a device of its own, out of those that the leader may use."""

import pytest

from headway.core.errors import ConfigError
from headway.worker.group.launcher import device_of


def test_device_of_each_rank():
    assert [device_of(rank, None) for rank in (1, 3)] == ["1", "3"]
    assert [device_of(rank, "4, 6,GPU-abc") for rank in (0, 1, 2)] == ["4", "6", "GPU-abc"]
    with pytest.raises(ConfigError, match="rank 2 needs a CUDA device, and CUDA_VISIBLE_DEVICES names 2"):
        device_of(2, "4,6")
