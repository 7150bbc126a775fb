"""The machine a command runs on: threads, memory, cores, devices, versions."""

import contextlib
import ctypes
import math
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from Common.Errors import BadDevice, OutOfMemory, brief

if TYPE_CHECKING:
    import torch

PRECISIONS = ("auto", "fp32", "bf16")


def settle_threads() -> None:
    """Let PyTorch's idle threads sleep instead of spinning on the cores that step the environments.

    It has to be called before PyTorch is loaded. GNU's OpenMP waits some 0.1 ms first, since waking threads between two
    operations of a network would take as long as the work. `OMP_WAIT_POLICY` and `GOMP_SPINCOUNT` win if they are set, and
    so does `OMP_NUM_THREADS`: by default PyTorch has a thread for every core, whatever quota a container has.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & os.environ.keys():
        os.environ |= {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "4000"}
    if _quota() < _visible_cores():
        os.environ.setdefault("OMP_NUM_THREADS", str(cores()))


def keep_freed_memory() -> None:
    """Let glibc keep freed memory: every update needs the same large blocks, and fresh ones come with page faults."""
    m_trim_threshold, m_mmap_max = -1, -4  # malloc.h
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL("libc.so.6").mallopt
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, 2**31 - 1)


@contextlib.contextmanager
def writable_caches() -> Iterator[None]:
    """Let libraries such as W&B and Matplotlib write to a temporary folder where the home takes no files, or is unknown."""
    home = os.path.expanduser("~")
    with contextlib.ExitStack() as stack:
        try:
            with tempfile.TemporaryFile(dir=home) as file:
                file.write(b"a full one takes empty files")
        except OSError:
            place = stack.enter_context(tempfile.TemporaryDirectory(ignore_cleanup_errors=True))
            names = {"XDG_CACHE_HOME", "XDG_DATA_HOME", "MPLCONFIGDIR", *(["HOME"] if home == "~" else [])}
            for name in names - os.environ.keys():
                os.environ[name] = place
                stack.callback(os.environ.pop, name)
        yield


@contextlib.contextmanager
def allocating(what: str) -> Iterator[None]:
    """Turn a failure to allocate memory into `OutOfMemory`; PyTorch's own error has no type, so do nothing else in here."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        raise OutOfMemory(f"{what} do not fit into memory ({brief(error)})") from None


def cores() -> int:
    """Return how many cores this process may use: those it may run on, or fewer under a quota, which is rounded up."""
    return max(1, math.ceil(min(_visible_cores(), _quota())))


def _visible_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _quota(system: Path = Path("/")) -> float:
    """Return how many cores' time the process may take, as containers and batch systems limit it; infinite without a limit.

    Linux's control groups hold it, those of the process and those around them, in two versions
    (https://docs.kernel.org/admin-guide/cgroup-v2.html#cpu-interface-files,
    https://docs.kernel.org/scheduler/sched-bwc.html). `system` is the root of the file system.
    """
    mine = system / "proc/self/cgroup"
    limits = [math.inf]
    for line in mine.read_text().splitlines() if mine.is_file() else ():
        _, controllers, group = line.split(":", 2)
        if controllers and "cpu" not in controllers.split(","):
            continue
        root = system / "sys/fs/cgroup" / ("cpu" if controllers else "")
        own = root / group.strip("/")
        for folder in (own, *own.parents):
            with contextlib.suppress(OSError, ValueError):  # not there, or "max": no limit
                names = ("cpu.cfs_quota_us", "cpu.cfs_period_us") if controllers else ("cpu.max",)
                quota, period = map(int, " ".join((folder / name).read_text() for name in names).split())
                limits += [quota / period] if quota > 0 else []
            if folder == root:
                break
    return min(limits)


def resolve_device(name: str) -> "torch.device":
    """Return the device of a name; `auto` is CUDA if PyTorch can compute on it, else the CPU.

    A line on stderr says why a GPU is not used. Raises `BadDevice` for any other device that is missing or of no use.
    """
    import torch

    from Common import Parallel  # loads NumPy, which reads as well how many threads it may have

    with warnings.catch_warnings(record=True) as said:  # such as of a driver that is too old
        warnings.simplefilter("always")
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    usable = ["cpu", *(["cuda"] if count else []), *(f"cuda:{i}" for i in range(count))]
    if name not in ("auto", *usable):
        raise BadDevice(f"device {name!r} does not exist here: {', '.join(usable)} or auto is needed")
    if name == "cpu":
        return torch.device(name)
    if count:
        device = torch.device("cuda" if name == "auto" else name)
        reason = _failure_of(torch.device("cuda", Parallel.local_rank() % count) if device.index is None else device)
        if not reason:
            return device
        if name != "auto" or Parallel.local_count() > 1:  # ranks of one job compute on the same kind of device
            raise BadDevice(f"device {name!r} cannot be used ({reason}); cpu or auto is needed")
    else:
        reason = " ".join(brief(str(warning.message)) for warning in said[:1]) or _gpu_without_driver()
    if reason and not Parallel.local_rank():
        print(f"warning: computing on the CPU, for the GPU cannot be used: {reason}", file=sys.stderr)
    return torch.device("cpu")


def _failure_of(device: "torch.device") -> str:
    """Return why PyTorch cannot compute on a device, such as an old one that it has no kernels for; empty if it can.

    Raises `BadDevice` if others have taken all of its memory, which may not last.
    """
    import torch

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            torch.ones(1, device=device).add(1).item()
    except torch.OutOfMemoryError:
        raise BadDevice(f"device {str(device)!r} has no memory left; another one or cpu is needed") from None
    except RuntimeError as error:
        return brief(str(error).partition("\n")[0])
    return ""


def _gpu_without_driver(devices: Path = Path("/sys/bus/pci/devices")) -> str:
    """Return that the machine has a GPU of NVIDIA which PyTorch does not find, empty if it has none (known on Linux)."""
    import torch

    def read(file: Path) -> str:
        return file.read_text() if file.is_file() else ""

    for vendor in devices.glob("*/vendor") if "CUDA_VISIBLE_DEVICES" not in os.environ else ():  # it may hide them
        if read(vendor).startswith("0x10de") and read(vendor.with_name("class")).startswith("0x03"):
            return "PyTorch finds no driver" if torch.version.cuda else "this PyTorch was installed without CUDA"
    return ""


def resolve_precision(name: str, device: "torch.device") -> str:
    """Return the backbone's precision; `auto` is bf16 where the device computes in it natively, else fp32."""
    import torch

    if name != "auto":
        return name
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp32"
    cpuinfo = Path("/proc/cpuinfo")  # of Linux; elsewhere the processor is not asked
    flags = cpuinfo.read_text() if cpuinfo.is_file() else ""
    return "bf16" if "avx512_bf16" in flags or "amx_bf16" in flags else "fp32"


def versions(repository: Path) -> dict[str, Any]:
    """Return the versions of Python, of the packages that decide a run's numbers, and the repository's commit."""
    packages = {package: version(package) for package in ("torch", "gymnasium", "mujoco", "numpy")}
    return {"python": sys.version.split()[0]} | packages | {"commit": commit(repository)}


def commit(repository: Path) -> str | None:
    """Return the commit that is checked out, or None; `-dirty` follows it if Python files differ from it."""
    if not (repository / ".git").exists():
        return None  # git would answer for a repository around this folder

    def git(*words: str) -> str:
        return subprocess.run(
            ["git", *words], cwd=repository, capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        dirty = "-dirty" if git("diff", "--name-only", "HEAD", "--", "*.py") else ""
        return git("rev-parse", "--short=12", "HEAD") + dirty
    except (OSError, subprocess.CalledProcessError):
        return None
