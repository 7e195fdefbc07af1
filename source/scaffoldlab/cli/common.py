"""What the commands share: the arguments of a simulation, a console, and silence around noisy libraries."""

import argparse
import contextlib
import math
import os
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from scaffoldlab.camera import RgbdImage
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.findings import Finding
from scaffoldlab.specs.models import Composition, load_task
from scaffoldlab.specs.paths import list_named

DEFAULTS = {"votes": 1, "batch": 1, "perturb": ""}
"""Values of options that are not given, where these are neither None nor False."""


def add_task(parser: argparse.ArgumentParser, default: str | None = None) -> None:
    """Adds ``--task``."""
    known = ", ".join(list_named("task"))
    parser.add_argument("--task", required=default is None, default=default, help=f"one of {known}, or its env id")


def add_simulation(parser: argparse.ArgumentParser) -> None:
    """Adds ``--device``, ``--seed`` and the Hydra overrides."""
    parser.add_argument("--device", default=None, help="cpu, cuda:0, ...; by default CUDA where there is any")
    parser.add_argument("--seed", type=int, default=0, help="seed of everything random")
    parser.add_argument(
        "overrides", nargs="*", metavar="OVERRIDE",
        help="Hydra overrides and presets of Isaac Lab, e.g. physics=newton_mjwarp env.commands.plan.beta=10",
    )  # fmt: skip


def refuse_option(args: argparse.Namespace, option: str, why: str) -> None:
    """Refuses an option that would do nothing here.

    Args:
        args: Arguments of the command, which may not have it.
        option: Name of the option among them.
        why: What it is for, what was got instead, and what to do.

    Raises:
        ScaffoldError: It is given.
    """
    value = getattr(args, option, None)
    if value is not None and value is not False and value != DEFAULTS.get(option):
        raise ScaffoldError(f"--{option.replace('_', '-')} is for {why}")


def check_noise(args: argparse.Namespace) -> None:
    """Refuses a ``--noise`` that is no standard deviation, or beside ``--plans``, which are taken as they are.

    Raises:
        ScaffoldError: It is negative or not finite, or would do nothing.
    """
    if args.noise is not None and not 0 <= args.noise < math.inf:
        raise ScaffoldError(f"--noise {args.noise}: no standard deviation; allowed: 0 or more [m], e.g. 0.015.")
    if plans := getattr(args, "plans", None):
        refuse_option(
            args, "noise",
            f"plans of the oracle; got --plans {plans}, which are taken as they are. Leave it out, or make noisy plans "
            "with `scaffoldlab plan --noise`.",
        )  # fmt: skip


def task_name(given: str) -> str:
    """Task name of ``--task``, which may be an env id.

    Raises:
        ScaffoldError: Unknown task.
    """
    if "-" in given:
        for name in list_named("task"):
            with contextlib.suppress(ScaffoldError):  # another task's broken file is no reason to fail
                if given == load_task(name).task.env_id:
                    return name
    return load_task(given).task.name


@contextlib.contextmanager
def quiet(log: Path) -> Iterator[Console]:
    """Sends everything that any library prints, C++ included, to a file; yields a console that is still seen.

    What was printed last is shown when the block fails.
    """
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    saved = os.dup(1), os.dup(2)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    try:
        with os.fdopen(os.dup(saved[1]), "w", encoding="utf-8") as screen:
            # Paths are to be copied: no line breaks inside.
            console = Console(file=screen, width=None if sys.stderr.isatty() else 110, soft_wrap=True)
            try:
                yield console
            except (ScaffoldError, KeyboardInterrupt):
                raise
            except BaseException:  # SystemExit too: a library has said why, into the log
                console.print(*log.read_text(errors="replace").splitlines()[-20:], sep="\n", markup=False)
                raise
    finally:
        with contextlib.suppress(OSError):  # the log's disk is full
            sys.stdout.flush()
            sys.stderr.flush()
        for number, descriptor in zip((1, 2), saved, strict=True):
            os.dup2(descriptor, number)
            os.close(descriptor)


def progress_bar(console: Console, *extra: TextColumn) -> Progress:
    """A progress bar with a count, the time so far and the time left."""
    return Progress(
        TextColumn("{task.description:<12}"), BarColumn(bar_width=28), MofNCompleteColumn(), *extra,
        TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn(),
        console=console, refresh_per_second=2,
    )  # fmt: skip


def picture_states(
    composition: Composition, bar: Progress, *, count: int, seed: int, device: str | None = None,
    overrides: Iterable[str] = (),
) -> list[RgbdImage]:  # fmt: skip
    """Pictures of the initial states 0..count - 1 of a seed, with progress; that of state i is number i."""
    from scaffoldlab.planners.making import still_library
    from scaffoldlab.tasks.rendering import render_initial_states

    job = bar.add_task("pictures", total=count)
    states = still_library(composition, count=count, seed=seed)
    return render_initial_states(
        composition.task.name, states, device=device, overrides=tuple(overrides),
        on_picture=lambda done: bar.update(job, completed=done),
    )  # fmt: skip


def print_findings(console: Console, findings: Iterable[Finding]) -> None:
    """Prints what an examination has found, a line each."""
    colors = {"ok": "green", "warning": "yellow", "error": "red"}
    for finding in findings:
        fix = f" {finding.fix}." if finding.fix else ""
        by = " (mended by itself)" if finding.fixed_by and finding.severity != "ok" else ""
        said = escape(f"{finding.check}: {finding.seen}.{fix}{by}")
        console.print(f"[{colors[finding.severity]}]{finding.severity:<8}[/]{said}", highlight=False)
