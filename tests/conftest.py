"""What every test needs before anything imports torch."""

import os
import signal
import time

import pytest

# Several processes share the cores here, and OpenMP's spinning threads would make each of them ten times slower.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_OFFLINE", "1")

# A shell that starts the tests in the background has them ignore Ctrl-C, and so would every process that they start.
signal.signal(signal.SIGINT, signal.default_int_handler)

# By the monotonic clock: `python benchmarks/gpu.py` has so much time for tests, and wants to hear of those that ran.
UNTIL = float(os.environ.get("HEADWAY_TESTS_UNTIL", "inf"))


def pytest_runtest_setup(item: pytest.Item) -> None:
    if time.monotonic() > UNTIL:
        pytest.skip("the time for tests is over")
