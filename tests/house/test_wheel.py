"""The wheel: built from the tree, installed into an empty environment, run from another folder."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    # From a copy: setuptools leaves a build folder behind, from which files that are long gone find their way back.
    target, copy = tmp_path_factory.mktemp("wheel"), tmp_path_factory.mktemp("tree") / "headway"
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".*", "build", "node_modules", "*.egg-info", "__pycache__")
    )
    # Without isolation: the build needs setuptools alone, which the test extra has.
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(target), str(copy)]
    built = subprocess.run(command, capture_output=True, text=True, timeout=110)
    assert built.returncode == 0, built.stderr[-2000:]
    (found,) = target.glob("*.whl")
    return found


def test_the_top_level_is_headway_alone(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    tops = {name.split("/")[0] for name in names}
    assert tops == {"headway", next(top for top in tops if top.endswith(".dist-info"))}


def test_it_holds_what_the_tree_serves_with_and_no_tests(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    assert "headway/demo/headway-demo/model.safetensors" in names
    assert "headway/demo/headway-demo/tokenizer.json" in names
    assert "headway/controller/dashboard/static/index.html" in names
    assert "headway/proto/headway/v1/inference.proto" in names
    assert "headway/py.typed" in names
    assert "headway/kernels/native/_native.pyi" in names
    assert "headway/kernels/native/_native.abi3.so" in names or shutil.which("gcc") is None
    assert not [name for name in names if name.startswith(("headway/tests", "headway/benchmarks", "headway/tools"))]


def test_every_python_file_of_the_packages_is_in_it(wheel: Path) -> None:
    names = set(zipfile.ZipFile(wheel).namelist())
    listed = subprocess.run(["git", "ls-files", "*.py"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    outside = ("tests/", "benchmarks/", "tools/", "docs/", "deploy/", "helm/", "setup.py")
    expected = {f"headway/{path}" for path in listed.split() if not path.startswith(outside)}
    assert expected - names == set()


def test_the_command_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    """The environment is empty but for the wheel; what it depends on is lent by a .pth file, not installed again."""
    python = tmp_path / "env" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", str(tmp_path / "env")], check=True)
    install = [str(python), "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", str(wheel)]
    subprocess.run(install, check=True, capture_output=True, timeout=60)
    lent = tmp_path / "lent"
    lent.mkdir()
    for path in sys.path:
        if path.endswith("site-packages"):
            for entry in Path(path).iterdir():
                # The editable install's own traces stay behind, or they would shadow the wheel.
                if "headway" not in entry.name and entry.suffix != ".pth" and not (lent / entry.name).exists():
                    (lent / entry.name).symlink_to(entry)
    environment = {**os.environ, "PYTHONPATH": str(lent)}
    command = [str(python.parent / "headway"), "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "Serve large language models" in done.stdout
    where = [str(python), "-c", "import headway; print(headway.__file__)"]
    found = subprocess.run(where, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True).stdout
    assert str(tmp_path) in found
