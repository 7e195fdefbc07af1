"""Runs an experiment as a graph of artefacts: plan libraries, policies, evaluations, each made once.

An artefact is the output folder of one command, named by a digest of the command's inputs. What is there is used;
what was cut off is made again or, for a training, taken up where it stopped.
"""

from __future__ import annotations

import ctypes
import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.experiments.models import ExperimentSpec, PlansSpec, Protocol, RowSpec
from scaffoldlab.files import write_atomic
from scaffoldlab.specs.models import load_task

Run = Callable[["Artefact", Path], None]
"""Makes an artefact in a folder of artefacts."""


@dataclass(frozen=True)
class Artefact:
    """The output of one ``scaffoldlab`` command.

    Attributes:
        kind: Name of the command.
        options: Its options without the dashes; an :class:`Artefact` stands for its file.
        overrides: Hydra overrides.
        result: Pattern of the one file that exists when it is done.
        definition: Digest of the files that define its task.
    """

    kind: str
    options: dict[str, Any]
    result: str
    overrides: tuple[str, ...] = ()
    definition: str = ""

    @property
    def needs(self) -> list[Artefact]:
        """What must be made before."""
        return [value for value in self.options.values() if isinstance(value, Artefact)]

    @cached_property
    def digest(self) -> str:
        """Digest of every input, those of what it needs included."""
        inputs = {k: v.digest if isinstance(v, Artefact) else v for k, v in self.options.items()}
        everything = [self.kind, inputs, list(self.overrides), self.result, self.definition]
        text = json.dumps(everything, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    def folder(self, root: Path) -> Path:
        """Its folder."""
        return root / f"{self.kind}-{self.digest}"

    def file(self, root: Path) -> Path | None:
        """Its file, or None while it is not done."""
        found = sorted(self.folder(root).glob(self.result))
        return found[0] if found and (self.folder(root) / "done.json").is_file() else None

    def command(self, root: Path) -> list[str]:
        """The command that makes it."""
        words = [sys.executable, "-m", "scaffoldlab", self.kind]
        for name, value in self.options.items():
            given = value.file(root) or value.folder(root) / value.result if isinstance(value, Artefact) else value
            words += [f"--{name}", str(given)]
        return [*words, "--out", str(self.folder(root)), *self.overrides]


@dataclass(frozen=True)
class Cell:
    """One number of the table: the evaluation of a row's policy on a task with a seed."""

    task: str
    row: str
    seed: int
    evaluation: Artefact


@dataclass
class GridResult:
    """Metrics of the cells that were made, and why others were not."""

    metrics: dict[tuple[str, str, int], dict[str, Any]] = field(default_factory=dict)
    failures: dict[tuple[str, str, int], str] = field(default_factory=dict)


def cells(experiment: ExperimentSpec, protocol: Protocol, *, device: str | None = None) -> list[Cell]:
    """Every cell of an experiment: tasks x rows x seeds."""
    return [
        Cell(task, row.name, seed, _evaluation(experiment, protocol, task, row, seed, device))
        for task in experiment.tasks
        for row in experiment.rows
        for seed in protocol.seeds
    ]


def plan_of_work(grid: Iterable[Cell], root: Path) -> list[Artefact]:
    """What is not made yet, each once, what others need first."""
    work: dict[str, Artefact] = {}

    def visit(artefact: Artefact) -> None:
        if artefact.digest not in work and artefact.file(root) is None:
            for needed in artefact.needs:
                visit(needed)
            work[artefact.digest] = artefact

    for cell in grid:
        visit(cell.evaluation)
    return list(work.values())


def run_grid(
    grid: Iterable[Cell],
    root: Path,
    *,
    jobs: int = 1,
    run: Run | None = None,
    on_done: Callable[[str], None] | None = None,
) -> GridResult:
    """Makes what is missing, several artefacts at a time, and reads the metrics.

    An artefact that fails costs its cells and no other; the same call tries it again.

    Args:
        grid: Cells.
        root: Folder of the artefacts.
        jobs: Artefacts made at the same time.
        run: Makes an artefact; by default a process of its own.
        on_done: Called with a line about each artefact that was made or failed.
    """
    grid, locks, failures = list(grid), {}, {}
    guard = threading.Lock()

    def make(artefact: Artefact) -> None:
        for needed in artefact.needs:
            make(needed)
        with guard:
            lock = locks.setdefault(artefact.digest, threading.Lock())
        with lock:
            if artefact.digest in failures:
                raise failures[artefact.digest]
            if artefact.file(root) is not None:
                return
            try:
                (run or run_process)(artefact, root)
                write_atomic(artefact.folder(root) / "done.json", json.dumps({"command": artefact.command(root)}))
                if artefact.file(root) is None:
                    raise ScaffoldError(f"{artefact.folder(root)}: the command left no {artefact.result}.")
            except ScaffoldError as error:
                failures[artefact.digest] = error
                raise
            if on_done:
                on_done(f"made {artefact.kind}-{artefact.digest}")

    def one(cell: Cell) -> tuple[Cell, str | None]:
        try:
            make(cell.evaluation)
        except ScaffoldError as error:
            if on_done:
                on_done(f"failed: {cell.task}, {cell.row}, seed {cell.seed}: {error}")
            return cell, str(error)
        return cell, None

    result = GridResult()
    with ThreadPoolExecutor(jobs) as pool:
        for cell, failure in pool.map(one, grid):
            key = (cell.task, cell.row, cell.seed)
            if failure is not None:
                result.failures[key] = failure
            else:
                result.metrics[key] = json.loads((cell.evaluation.folder(root) / "metrics.json").read_text())
    return result


def run_process(artefact: Artefact, root: Path, env: dict[str, str] | None = None) -> None:
    """Runs the command of an artefact to its end; its output goes to ``command.log`` in the folder.

    Raises:
        ScaffoldError: It failed; with its last words.
    """
    folder = artefact.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "command.log"
    command, environment = artefact.command(root), os.environ | (env or {})
    with log.open("w") as file:
        done = subprocess.run(command, stdout=file, stderr=file, env=environment, preexec_fn=_end_with_parent)
    if done.returncode:
        words = " ".join(log.read_text(errors="replace").split()[-60:])
        raise ScaffoldError(f"{artefact.kind} failed ({log}): {words}")


def _end_with_parent() -> None:
    """Lets Linux kill this process when a grid is killed: the next one would write to the same folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


# --- the graph of a cell ------------------------------------------------------------------------------------------


def _evaluation(
    experiment: ExperimentSpec, protocol: Protocol, task: str, row: RowSpec, seed: int, device: str | None
) -> Artefact:
    where = {} if device is None else {"device": device}
    test = _library(experiment, protocol, task, row.test_plans or row.plans, "test", trained_on=row.plans)
    options = {
        "task": task,
        "checkpoint": _policy(experiment, protocol, task, row, seed, device),
        "plans": test,
        "episodes": protocol.states,
        "trials": protocol.trials,
        "seed": seed,
    }
    return _artefact("evaluate", options | where, "metrics.json", experiment.overrides(row, task, test=True))


def _policy(
    experiment: ExperimentSpec, protocol: Protocol, task: str, row: RowSpec, seed: int, device: str | None
) -> Artefact:
    where = {} if device is None else {"device": device}
    train = _library(experiment, protocol, task, row.plans, "train1", trained_on=row.plans)
    if row.policy == "diffusion":
        assert row.teacher is not None
        teacher = _policy(experiment, protocol, task, experiment.row(row.teacher), seed, device)
        options = {"task": task, "teacher": teacher, "plans": train, "demonstrations": row.demonstrations, "seed": seed}
        return _artefact("imitate", options | where, "policy.pt", experiment.overrides(row, task))
    minutes = experiment.minutes.get(task, protocol.minutes) if protocol.minutes_by_task else protocol.minutes
    validation = _library(experiment, protocol, task, row.plans, "validation", trained_on=row.plans)
    options = {"task": task, "plans": train, "validation": validation, "seed": seed, "minutes": minutes}
    return _artefact("train", options | where, "model_best.pt", experiment.overrides(row, task))


def _library(
    experiment: ExperimentSpec, protocol: Protocol, task: str, plans: PlansSpec, split: str, *, trained_on: PlansSpec
) -> Artefact:
    options: dict[str, Any] = {
        "task": task,
        "planner": plans.planner,
        "split": split,
        "num-plans": protocol.plans if split != "test" else protocol.states,
        "noise": experiment.noise if plans.noise is None else plans.noise,
        "pictures": 0,
    }
    if plans.waypoints is not None:
        options["waypoints"] = plans.waypoints
    if plans.perturb:
        options["perturb"] = ",".join(f"{name}={value:g}" for name, value in plans.perturb.items())
    if plans.planner == "prerecorded":
        options["recorded"] = _library(experiment, protocol, task, trained_on, "train1", trained_on=trained_on)
    return _artefact("plan", options, "*.plans.npz")


def _artefact(kind: str, options: dict[str, Any], result: str, overrides: tuple[str, ...] = ()) -> Artefact:
    return Artefact(kind, options, result, overrides, load_task(options["task"]).digest())
