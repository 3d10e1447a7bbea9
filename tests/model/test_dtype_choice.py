"""Which type a group computes in: settled by the leader, from the checkpoint and what products cost here."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from rank_group import spec_for
from tiny_llamas import edit_config

from headway.core.errors import ConfigError
from headway.kernels.native import AVAILABLE
from headway.kernels.native.speed import ROWS, ProductSpeeds, product_speeds
from headway.worker.execution import dtype
from headway.worker.execution.dtype import dtype_name, settle_dtype

FASTER = ProductSpeeds((100.0, 400.0), (50.0, 50.0))
SLOWER = ProductSpeeds((100.0, 400.0), (50.0, 900.0))


@pytest.mark.parametrize(
    ("speeds", "stored", "chosen"),
    [
        (FASTER, "bfloat16", "bfloat16"),
        (SLOWER, "bfloat16", "float32"),
        (None, "bfloat16", "float32"),
        (FASTER, "float32", "float32"),
        (FASTER, "float16", "float32"),
    ],
)
def test_on_cpu(speeds: ProductSpeeds | None, stored: str, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dtype, "product_speeds", lambda: speeds)
    assert dtype_name(stored, "cpu", "auto") == chosen
    for wanted in ("float32", "bfloat16", "float16"):
        assert dtype_name(stored, "cpu", wanted) == wanted


def test_on_a_gpu() -> None:
    assert [dtype_name(name, "cuda", "auto") for name in ("float32", "float16", "bfloat16")] == [
        "bfloat16", "float16", "bfloat16",
    ]  # fmt: skip


def test_the_leader_settles_it_for_all_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "config.json").write_text('{"torch_dtype": "bfloat16"}')
    monkeypatch.setattr(dtype, "product_speeds", lambda: FASTER)
    assert settle_dtype(spec_for(tmp_path, 2, 1, dtype="auto")).dtype == "bfloat16"
    assert settle_dtype(spec_for(tmp_path, 2, 1, dtype="float32")).dtype == "float32"
    edit_config(tmp_path, dtype="int3")
    with pytest.raises(ConfigError, match=r"dtype must be one of .*got 'int3'"):
        settle_dtype(spec_for(tmp_path, 2, 1, dtype="auto"))


def test_it_needs_no_torch() -> None:
    """The leader has none."""
    script = "import sys, headway.worker.execution.dtype as d; d.product_speeds(); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)


@pytest.mark.skipif(not AVAILABLE, reason="not built, or turned off")
def test_what_is_measured() -> None:
    speeds = product_speeds()
    assert speeds is not None and all(len(part) == len(ROWS) and min(part) > 0 for part in speeds)
    assert "1/16 rows of 1024 x 1024 in " in str(speeds)
    assert FASTER.gain == pytest.approx(4.0)
