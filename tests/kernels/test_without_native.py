"""Where the extension was not built, or is not wanted, every operation goes by torch."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from headway.cli.checks.software import cpu_operations

SCRIPT = """
import sys
import types
import torch

if "old" in sys.argv:
    sys.modules["headway.kernels.native._native"] = types.ModuleType("_native")  # says nothing of its interface
if "hide" in sys.argv:
    sys.modules["headway.kernels.native._native"] = None  # imports fail, as where no compiler was

from headway.cli.checks.software import cpu_operations
from headway.kernels import fused_moe, kv_pages, native, paged_attention, rms_norm, rope_kv_write, swiglu
import headway.worker.model.attention

assert not native.AVAILABLE and native.BUILT == (sys.argv[1:] == []) and native.instruction_set() is None
x = torch.randn(3, 32)
torch.testing.assert_close(swiglu.swiglu(x), torch.nn.functional.silu(x[:, :16]) * x[:, 16:])
torch.testing.assert_close(rms_norm.rms_norm(x, x[0], 1e-5), rms_norm.rms_norm_reference(x, x[0], 1e-5))
cache = torch.randn(2, 1, 16, 2, 16).unbind()
one = torch.zeros(1, 1, dtype=torch.int32)
batch = paged_attention.plan_attention([5], [5], one, 16, device=torch.device("cpu"), dtype=torch.float32)
query = torch.randn(5, 4, 16)
expected = paged_attention.attention_reference(query, cache[0][0, :5], cache[1][0, :5], 0.25).float()
torch.testing.assert_close(paged_attention.paged_attention(query, kv_pages.KvPages(*cache), batch, 0.25), expected)
finding = cpu_operations()
print(finding.verdict, finding.detail, finding.next, sep=" | ")
"""


@pytest.mark.parametrize(
    ("arguments", "variable", "told"),
    [(["hide"], "", "no extension was built"), ([], "0", "turned off"), (["old"], "", "of another version")],
)
def test_torch_takes_over_and_doctor_says_so(arguments: list[str], variable: str, told: str) -> None:
    environment = {**os.environ, "HEADWAY_NATIVE_KERNELS": variable}
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("warn | ") and told in done.stdout
    assert done.stderr.count("of another version") == (arguments == ["old"])


def test_an_extension_that_does_not_run_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        raise TypeError("function takes exactly 9 arguments")

    monkeypatch.setattr("headway.kernels.native.speed.product_speeds", broken)
    finding = cpu_operations()
    assert finding.verdict == "fail" and "takes exactly 9" in finding.detail and "Install" in finding.next
