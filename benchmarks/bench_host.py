"""What every benchmark of the nodes needs: the host with the pack in it, and a description of the machine.

Imports nothing of the host or the pack at its top; `load` does, once.
"""

from __future__ import annotations

import datetime
import importlib
import platform
import sys
from pathlib import Path
from types import SimpleNamespace

ROOT = Path(__file__).resolve().parents[1]
# Never ROOT itself: our nodes/ would hide the host's nodes.py.
sys.path.insert(0, str(ROOT / "tests" / "host" / "support"))

import in_host  # noqa: E402


def load(device: str = "cpu") -> SimpleNamespace:
    """The pack inside the host: .guidance, .autograd, .settings, ... SystemExit with advice where there is no host."""
    try:
        path = in_host.find_host()
    except ValueError as error:
        raise SystemExit(str(error)) from error
    if path is None:
        raise SystemExit("no ComfyUI found: set COMFYUI_PATH to its folder, or put it at ~/ComfyUI")
    missing = in_host.missing_requirements()
    if missing:
        raise SystemExit(
            f"ComfyUI is at {path}, but this Python lacks {', '.join(missing)}: "
            f"pip install -r {path / 'requirements.txt'}"
        )
    _without_arguments(in_host.import_host, path, cpu=device == "cpu")
    return modules(in_host.import_pack())


def modules(pack) -> SimpleNamespace:
    """The parts of an imported pack that benchmarks use."""
    part = lambda name: importlib.import_module(f"{pack.__name__}.{name}")
    return SimpleNamespace(
        package=pack,
        guidance=part("nodes.host.sampling.wrapper"),
        autograd=part("nodes.host.autograd.bridge"),
        device_memory=part("nodes.host.memory.device_memory"),
        settings=part("gradpaint.method.settings"),
    )


def _without_arguments(function, *args, **kwargs):
    """The host parses sys.argv when it is imported; ours are not for it."""
    ours, sys.argv = sys.argv, sys.argv[:1]
    try:
        return function(*args, **kwargs)
    finally:
        sys.argv = ours


def footer(device: str) -> str:
    """How a result was made: command, machine, versions, date."""
    import comfyui_version
    import torch

    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    if device == "cuda":
        machine = torch.cuda.get_device_name()
    else:
        machine = f"{_processor()}, {torch.get_num_threads()} thread(s)"
    return (
        f"Command: `{command}`\n\n{machine}; torch {torch.__version__}, Python {platform.python_version()}, "
        f"ComfyUI {comfyui_version.__version__}, {datetime.date.today().isoformat()}."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        name = next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        name = platform.processor() or platform.machine()
    return f"{name} ({platform.machine()})"


def table(header: list[str], rows: list[list[str]]) -> str:
    """A Markdown table."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in line) + " |" for line in lines)


def save(text: str, out: Path | None) -> None:
    """Print the result and, if a file is named, write it there."""
    print(text)
    if out is not None:
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(text + "\n")
