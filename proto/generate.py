"""Generates the Python stubs beside the .proto files, typed, with imports inside the package made relative.

Run as `python -m headway.proto.generate`; with `--check` nothing is written and a stale stub is an error.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent
PACKAGE = ROOT / "headway" / "v1"
# protoc names modules after the proto package, which is not where they lie in ours.
ABSOLUTE = re.compile(r"^from headway\.v1 import ", re.MULTILINE)


def generate(target: Path) -> list[Path]:
    """Writes all stubs below `target`; returns them. Raises RuntimeError when a proto does not compile."""
    from grpc_tools import protoc

    well_known = Path(protoc.__file__).parent / "_proto"
    sources = sorted(str(path.relative_to(ROOT)) for path in PACKAGE.glob("*.proto"))
    plugin = Path(sys.executable).parent / "protoc-gen-mypy_grpc"
    outputs = [f"--python_out={target}", f"--pyi_out={target}", f"--grpc_python_out={target}"]
    outputs += [f"--plugin=protoc-gen-mypy_grpc={plugin}", f"--mypy_grpc_out={target}"]
    status = protoc.main(["protoc", f"-I{ROOT}", f"-I{well_known}", *outputs, *sources])
    if status != 0:
        raise RuntimeError(f"protoc ended with status {status}")
    stubs = sorted((target / "headway" / "v1").glob("*_pb2*.py*"))
    for stub in stubs:
        stub.write_text(ABSOLUTE.sub("from . import ", stub.read_text(encoding="utf-8")), encoding="utf-8")
    return stubs


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="fail when a stub is stale, write nothing")
    check = parser.parse_args().check
    with tempfile.TemporaryDirectory() as scratch:
        stubs = generate(Path(scratch))
        stale = []
        for stub in stubs:
            kept = PACKAGE / stub.name
            if not kept.exists() or kept.read_bytes() != stub.read_bytes():
                stale.append(stub.name)
                if not check:
                    kept.write_bytes(stub.read_bytes())
    if check and stale:
        print(f"stale stubs: {', '.join(stale)}; run `make proto`", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
