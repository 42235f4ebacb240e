"""What a record says about the machine: enough to compare timings, nothing that names it."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = (
    "mutmeta",
    "numpy",
    "pandas",
    "scikit-learn",
    "scipy",
    "torch",
    "transformers",
    "learn2learn",
)
"""Packages whose versions can change a number. One that is not installed is left out."""


def environment(device: str = "cpu") -> dict[str, Any]:
    """Python, processor, device, threads, package versions and commit; no path, no host name.

    ``device`` is ``cpu``, ``cuda`` (or ``cuda:1``) or ``auto``: the first CUDA device where there
    is one. ``commit`` is that of the library's own repository, with ``-changed`` behind it when
    the library differs from it, and ``unknown`` when it is installed without a repository.
    """
    import torch  # slow to import, and a page that only reads records does not need it

    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    is_cuda = device.startswith("cuda")
    return {
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor": _processor(),
        "device": torch.cuda.get_device_name(device) if is_cuda else f"CPU, {_processor()}",
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "packages": {name: found for name in PACKAGES if (found := _version(name))},
        "commit": _commit(Path(__file__).parent),
    }


def peak_memory_mb(device: str = "cpu") -> float:
    """The most memory this process ever held, in MB (10⁶ bytes); NaN where it cannot be asked.

    For ``cpu`` this is resident memory, with interpreter and libraries. For ``cuda`` it is what
    PyTorch allocated on the device.
    """
    if device.startswith("cuda"):
        import torch

        return torch.cuda.max_memory_allocated(device) / 1e6
    status = Path("/proc/self/status")
    if status.exists():
        # Not getrusage: on Linux its peak includes what the parent held before it started us.
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 1e6 if sys.platform == "darwin" else peak * 1024 / 1e6


def _processor() -> str:
    """The processor's name; on Linux the standard library does not know it, the kernel does."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _commit(folder: Path) -> str:
    def git(*words: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(folder), *words], capture_output=True, text=True, check=True
        )
        return done.stdout.strip()

    try:
        # A library installed in an environment inside somebody's repository is not part of it.
        git("ls-files", "--error-unmatch", "errors.py")
        return git("rev-parse", "HEAD") + ("-changed" if git("status", "--porcelain", ".") else "")
    except (FileNotFoundError, subprocess.CalledProcessError):
        return "unknown"
