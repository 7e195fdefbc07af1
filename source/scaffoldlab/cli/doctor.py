"""``scaffoldlab doctor``: what works on this machine, by trying it, and the fix for what does not."""

import argparse
import contextlib
import importlib.metadata
import importlib.util
import io
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

STEP = """
from scaffoldlab.tasks.simulation import open_env
import torch
with open_env({task!r}, num_envs=2, overrides=["physics={engine}"]) as env:
    env.reset()
    for _ in range(5):
        _, reward, *_ = env.step(torch.zeros(2, env.action_manager.total_action_dim, device=env.device))
    assert torch.isfinite(reward).all()
    print("WORKS", env.device)
"""
RENDER = """
from scaffoldlab.planners.making import scripted_library
from scaffoldlab.specs.models import load_task
from scaffoldlab.tasks.rendering import render_initial_states
(image,) = render_initial_states({task!r}, scripted_library(load_task({task!r}), count=1, seed=0), size=200)
assert image.depth.max() > 0 and image.rgb.std() > 5
print("WORKS", f"{{image.rgb.shape[1]}} x {{image.rgb.shape[0]}} RGB-D")
"""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    state: Literal["ok", "absent", "broken"]
    detail: str
    fix: str = ""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the command."""
    parser.add_argument("--quick", action="store_true", help="skip what takes longer than a second: engines, renderer")
    parser.add_argument("--task", default="move_apple", help="task to step")


def run(args: argparse.Namespace) -> int:
    """Prints the findings; the exit code is 1 when nothing can simulate."""
    from rich.console import Console

    console = Console(highlight=False, soft_wrap=True)
    engines = ("ovphysx", "newton_mjwarp", "isaacsim_physx")
    checks: dict[str, Callable[[], Finding]] = {
        "Python": _python, "Isaac Lab": _isaaclab, "torch": _torch, "RL libraries": _rl_libraries, "disk": _disk
    }  # fmt: skip
    if not args.quick:
        checks |= {f"physics {engine}": lambda engine=engine: _physics(engine, args.task) for engine in engines}
        checks["renderer"] = lambda: _probe(RENDER.format(task=args.task), "reinstall isaaclab 3.0 (`make setup`)")
    checks["VLM endpoint"] = _endpoint
    findings = {}
    for name, check in checks.items():
        console.print(f"{name:<24}", end="")
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # libraries talk
            finding = findings[name] = check()
        color = {"ok": "green", "absent": "yellow", "broken": "red"}[finding.state]
        console.print(f"[{color}]{finding.state:<7}[/] {finding.detail}")
        if finding.fix:
            console.print(f"{'':<24}fix: {finding.fix}")
    simulates = args.quick or any(findings[f"physics {engine}"].state == "ok" for engine in engines)
    broken = findings["Python"].state == "broken" or findings["Isaac Lab"].state == "broken"
    return 0 if simulates and not broken else 1


def _python() -> Finding:
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info[:2] == (3, 12):
        return Finding("ok", f"{version} at {sys.executable}")
    return Finding("broken", f"{version}; Isaac Lab 3.0 needs 3.12", "run through `scripts/run`, after `make setup`")


def _isaaclab() -> Finding:
    try:
        version = importlib.metadata.version("isaaclab")
    except importlib.metadata.PackageNotFoundError:
        return Finding("broken", "not installed", "`make setup`, or `pip install 'isaaclab[ovphysx]==3.0.0'`")
    if version.startswith("3.0"):
        return Finding("ok", version)
    return Finding("broken", f"{version}; this version of ScaffoldLab is for 3.0", "`make setup`")


def _torch() -> Finding:
    import torch

    from scaffoldlab.tasks.cpu import cores

    if torch.cuda.is_available():
        return Finding("ok", f"{torch.__version__}, CUDA {torch.version.cuda}, {torch.cuda.get_device_name()}")
    return Finding(
        "ok", f"{torch.__version__}, no CUDA: everything runs on {cores()} CPU cores",
        "nothing to do, unless the machine has an NVIDIA GPU: then update its driver (nvidia-smi must work)",
    )  # fmt: skip


def _rl_libraries() -> Finding:
    found, missing = [], []
    for name in ("rsl-rl-lib", "skrl", "rl-games"):
        try:
            found.append(f"{name} {importlib.metadata.version(name)}")
        except importlib.metadata.PackageNotFoundError:
            missing.append(name)
    if missing:
        return Finding("absent", f"{', '.join(found) or 'none'}; without {', '.join(missing)}", "`make setup`")
    return Finding("ok", ", ".join(found))


def _disk() -> Finding:
    free = shutil.disk_usage(".").free / 2**30
    state = "ok" if free > 2 else "broken"
    return Finding(state, f"{free:.0f} GB free here", "" if free > 2 else "free at least 2 GB for logs and reports")


def _physics(engine: str, task: str) -> Finding:
    if engine == "isaacsim_physx" and importlib.util.find_spec("isaacsim") is None:
        return Finding("absent", "Isaac Sim is not installed", "only needed for its GUI: `pip install isaacsim`")
    return _probe(STEP.format(task=task, engine=engine), f"`make setup`, then use another engine than {engine}")


def _probe(code: str, fix: str) -> Finding:
    """Runs a script in a process of its own, where a crash harms nothing."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log"
        with log.open("wb") as file:
            try:
                code_of = subprocess.run([sys.executable, "-c", code], stdout=file, stderr=file, timeout=300).returncode
            except subprocess.TimeoutExpired:
                return Finding("broken", "no result within 300 s", fix)
        lines = log.read_text(errors="replace").splitlines()
    for line in lines:
        if line.startswith("WORKS"):
            return Finding("ok", f"{line.removeprefix('WORKS ')}, {time.monotonic() - started:.0f} s with start-up")
    last = next((line for line in reversed(lines) if line.strip()), f"exit code {code_of}")
    return Finding("broken", last[:200], fix)


def _endpoint() -> Finding:
    url = os.environ.get("SCAFFOLDLAB_BASE_URL") or os.environ.get("OPENAI_BASE_URL")
    model = os.environ.get("SCAFFOLDLAB_MODEL")
    key = os.environ.get("SCAFFOLDLAB_API_KEY") or os.environ.get("OPENAI_API_KEY")
    if not (url or key):
        return Finding(
            "absent", "none configured: plans come from the scripted oracle",
            "set SCAFFOLDLAB_BASE_URL, SCAFFOLDLAB_MODEL and, if it needs one, SCAFFOLDLAB_API_KEY",
        )  # fmt: skip
    from openai import OpenAI, OpenAIError

    try:
        models = [m.id for m in OpenAI(base_url=url, api_key=key or "none", timeout=10, max_retries=0).models.list()]
    except OpenAIError as error:
        return Finding("broken", f"{url or 'OpenAI'}: {type(error).__name__}", "check the URL, the key and the network")
    if model and models and model not in models:
        return Finding("broken", f"{url or 'OpenAI'} has no model {model!r}", f"choose one of {', '.join(models[:5])}")
    return Finding("ok", f"{url or 'OpenAI'}, {len(models)} models")
