"""Everything that only a GPU can show, in one command of under eight minutes; needs neither Ray nor a network.

python benchmarks/gpu.py [--out FILE] [--only tests ceilings kernels engine] [--minutes 8] [--check]

Where Headway is not installed, the kernels need torch, triton and numpy; the engine also msgspec, xxhash, protobuf,
googleapis-common-protos, grpcio, psutil and safetensors; and the tests pytest, pytest-timeout, hypothesis, transformers
and peft. What cannot be measured for want of one of them says so in its line, and all else goes on.

Prints Markdown, all of it at the end, and on a GPU puts it into docs/performance.md: the CUDA tests, the device's
measured ceilings, what share of its own floor each kernel reaches, and the engine from requests to tokens with dummy
weights, by launched and captured steps. How far it is goes to stderr. `--check` goes through all of it at tiny sizes on
whatever device there is, to see that the script is whole; its figures mean nothing and go nowhere.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAST_UNIT_S = 40.0  # before the end, after which nothing is begun
TESTS_S = 90.0
HUNG_S = 20.0  # beyond their time, after which tests are killed
LAST_LINES = 12
PARTS = ("tests", "ceilings", "kernels", "engine")
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- benchmarks/gpu.py writes from here -->", "<!-- to here -->"


def make_importable() -> None:
    """Where Headway is not installed, the checkout goes by its package's name all the same."""
    if importlib.util.find_spec("headway") is None:
        folder = Path(tempfile.mkdtemp(prefix="headway-import-"))
        (folder / "headway").symlink_to(ROOT)
        sys.path.insert(0, str(folder))


def tell(text: str) -> None:
    """How far it is."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def run_tests() -> str:
    """What the CUDA tests say: of each kernel beside its reference, then of whole models."""
    end = time.monotonic() + TESTS_S
    kernels = _pytest(ROOT / "tests" / "kernels" / "interpreted", end - TESTS_S / 2, HEADWAY_KERNEL_TESTS="cuda")
    return kernels + "\n" + _pytest(ROOT / "tests" / "model", end)


def _pytest(folder: Path, until: float, **environment: str) -> str:
    """Failures, and the last lines. Tests that would begin after `until`, by the monotonic clock, are skipped
    (tests/conftest.py); those that hang are killed, and what was said before is told all the same."""
    inherited = [path for path in sys.path if Path(path, "headway").exists()]
    environment |= {"HEADWAY_TESTS_UNTIL": str(until), "PYTHONUNBUFFERED": "1"}
    with tempfile.TemporaryFile("w+") as said:
        running = subprocess.Popen(
            [sys.executable, "-m", "pytest", "-v", "-m", "gpu", "--continue-on-collection-errors", "--tb=line",
             "-p", "no:cacheprovider", "-o", f"pythonpath=tests {' '.join(inherited)}", str(folder)],
            cwd=ROOT, env=os.environ | environment, stdout=said, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            ended = f"exit code {running.wait(timeout=max(until - time.monotonic(), 0.0) + HUNG_S)}"
        except BaseException as error:
            os.killpg(running.pid, signal.SIGKILL)
            if not isinstance(error, subprocess.TimeoutExpired):
                raise
            ended = "killed in the middle of a test"
        said.seek(0)
        lines = said.read().splitlines()
    return "\n".join([f"{folder.relative_to(ROOT)}: {ended}", *(line[:200] for line in _worth_telling(lines))])


def _worth_telling(lines: Sequence[str]) -> list[str]:
    failed = [line for line in lines[:-LAST_LINES] if " FAILED" in line or " ERROR" in line]
    return [*failed[:LAST_LINES], *lines[-LAST_LINES:]]


def put_into(page: str, tables: str) -> str:
    """The page with `tables` in place of what the last run left between the marks. Raises ValueError without them."""
    before, mark, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"the page has no place for tables: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables.strip()}\n\n{END}{after}"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the tables there, too")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--minutes", type=float, default=8.0, help="all of it ends by then")
    parser.add_argument("--check", action="store_true", help="tiny sizes, any device")
    # How it starts itself for the units of a run.
    parser.add_argument("--units", nargs="*", help=argparse.SUPPRESS)
    parser.add_argument("--log", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--ceilings", nargs="*", type=float, default=(), help=argparse.SUPPRESS)
    parser.add_argument("--until", type=float, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def missing_device() -> str:
    """Why nothing can be measured here; "" where it can."""
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed"
    asked = subprocess.run(
        [sys.executable, "-c", "import torch; print(torch.cuda.is_available())"], capture_output=True, text=True
    )
    if asked.returncode:
        return f"torch cannot be imported: {asked.stderr.strip().splitlines()[-1]}"
    return "" if "True" in asked.stdout else "no CUDA device here; --check goes through the script without one"


def main() -> int:
    options = parse()
    make_importable()
    if options.units is not None:
        from headway.benchmarks.device.units import run

        return run(options.units, options.log, options.ceilings, options.check, options.until)
    if not options.check and (why := missing_device()):
        print(why, file=sys.stderr)
        return 1
    from headway.benchmarks.device.processes import Found, all_units, run_units
    from headway.benchmarks.device.report import markdown

    begun = time.monotonic()
    end = begun + 60 * options.minutes
    found, tests = Found(), ""

    def command(units: Sequence[str], log: Path, ceilings: Sequence[float]) -> list[str]:
        told = ["--ceilings", *map(str, ceilings)] if ceilings else []
        told += ["--check"] * options.check + ["--until", str(end - LAST_UNIT_S), "--log", str(log)]
        return [sys.executable, str(Path(__file__).resolve()), *told, "--units", *units]

    try:
        if "tests" in options.only:
            tell("tests")
            tests = f"```\n{run_tests()}\n```"
        run_units(all_units(options.only, options.check), command, found, tell, end)
    finally:
        heads = [
            f"{time.strftime('%Y-%m-%d')}, {found.device or 'no device was found'}",
            tests,
            _ceilings(found.ceilings),
        ]
        tables = markdown([*heads, f"{time.monotonic() - begun:.0f} s in all"], found.rows)
        _write(tables, options)
    return 0 if found.ceilings else 1


def _ceilings(found: Sequence[float]) -> str:
    if not found:
        return ""
    return f"Ceilings: copy {found[0] / 1e12:.2f} TB/s, bf16 product {found[1] / 1e12:.0f} TFLOP/s"


def _write(tables: str, options: argparse.Namespace) -> None:
    """Into the page, where they are a GPU's, and to the terminal last."""
    if not options.check:
        try:
            PAGE.write_text(put_into(PAGE.read_text(), tables))
        except (OSError, ValueError) as error:
            tell(f"{PAGE} is not written: {error}")
    if options.out:
        options.out.write_text(tables + "\n")
    print(tables, flush=True)


if __name__ == "__main__":
    sys.exit(main())
