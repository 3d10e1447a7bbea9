"""Everything that only a GPU can show, in one command of under eight minutes; needs neither Ray nor a network.

python benchmarks/gpu.py [--out FILE] [--only tests ceilings kernels engine] [--minutes 8] [--check]

Where Headway is not installed, it needs torch, triton, numpy, msgspec, xxhash, protobuf, googleapis-common-protos,
grpcio, psutil and safetensors, and for the tests pytest, hypothesis and transformers.

Prints Markdown, and on a GPU puts it into docs/performance.md: the CUDA tests, the device's measured ceilings, what
share of its own floor each kernel reaches, and the engine from requests to tokens with dummy weights, by launched and
captured steps. `--check` goes through all of it at tiny sizes on whatever device there is, to see that the script is
whole; its figures mean nothing and go nowhere.
"""

from __future__ import annotations

import argparse
import importlib.util
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LAST_WORKLOAD_S = 25.0
TESTS_S = 150.0
PARTS = ("tests", "ceilings", "kernels", "engine")
PAGE = ROOT / "docs" / "performance.md"
BEGIN, END = "<!-- benchmarks/gpu.py writes from here -->", "<!-- to here -->"


def make_importable() -> None:
    """Where Headway is not installed, the checkout goes by its package's name all the same."""
    if importlib.util.find_spec("headway") is None:
        folder = Path(tempfile.mkdtemp(prefix="headway-import-"))
        (folder / "headway").symlink_to(ROOT)
        sys.path.insert(0, str(folder))


def run_tests() -> str:
    """The CUDA tests' last lines."""
    paths = [str(ROOT / "tests" / "kernels"), str(ROOT / "tests" / "model")]
    inherited = [path for path in sys.path if Path(path, "headway").exists()]
    running = subprocess.Popen(
        [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-o", f"pythonpath=tests {' '.join(inherited)}", *paths],
        cwd=ROOT, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    try:
        said, _ = running.communicate(timeout=TESTS_S)
    except subprocess.TimeoutExpired:
        running.kill()
        said, _ = running.communicate()
        said += f"\nended after {TESTS_S:.0f} s"
    return "\n".join(said.splitlines()[-25:])


def put_into(page: str, tables: str) -> str:
    """The page with `tables` in place of what the last run left between the marks. Raises ValueError without them."""
    before, mark, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not mark or not end:
        raise ValueError(f"the page has no place for tables: {BEGIN} and {END}")
    return f"{before}{BEGIN}\n\n{tables.strip()}\n\n{END}{after}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="write the tables there, too")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--minutes", type=float, default=8.0, help="no workload is begun that may end later")
    parser.add_argument("--check", action="store_true", help="tiny sizes, any device")
    options = parser.parse_args()
    make_importable()
    import torch

    from headway.benchmarks.device import ceilings, end_to_end, kernels

    if not torch.cuda.is_available() and not options.check:
        print("no CUDA device here; --check goes through the script without one", file=sys.stderr)
        return 1
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    name = torch.cuda.get_device_name() if device.type == "cuda" else "no GPU: figures mean nothing"
    parts = [f"{time.strftime('%Y-%m-%d')}, {name}, torch {torch.__version__}"]
    begun = time.monotonic()

    def say(text: str) -> None:
        parts.append(text)
        print(text, flush=True)

    print(parts[0], flush=True)
    if "tests" in options.only:
        say(f"```\n{run_tests()}\n```")
    found = ceilings.measure(device, tiny=options.check)
    say(found.table())
    if "kernels" in options.only:
        say(kernels.table(device, found, tiny=options.check))
    if "engine" in options.only:
        until = begun + 60 * options.minutes - LAST_WORKLOAD_S
        say(end_to_end.tables(device, found, tiny=options.check, until=until))
    say(f"{time.monotonic() - begun:.0f} s in all")
    if device.type == "cuda" and not options.check:
        PAGE.write_text(put_into(PAGE.read_text(), "\n\n".join(parts)))
    if options.out:
        options.out.write_text("\n\n".join(parts) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
