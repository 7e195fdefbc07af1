"""Runs an experiment as a graph of artefacts: plan libraries, policies, evaluations, each made once.

An artefact is the output folder of one command, named by a digest of the command's inputs. What is there is used;
what was cut off is made again or, for a training, taken up where it stopped.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.evaluation.episodes import OUTCOMES
from scaffoldlab.experiments.models import REFINEMENTS, ExperimentSpec, PlansSpec, Protocol, RowSpec
from scaffoldlab.files import write_atomic
from scaffoldlab.specs.models import load_task

Run = Callable[["Artefact", Path], None]
"""Makes an artefact in a folder of artefacts."""


@dataclass(frozen=True)
class Artefact:
    """The output of one ``scaffoldlab`` command.

    Attributes:
        kind: Name of the command.
        options: Its options without the dashes; an :class:`Artefact` stands for its file, a tuple for what commas part.
        overrides: Hydra overrides.
        result: Pattern of the one file that exists when it is done.
        part: The file that others take of it, where that is another one; without it they do without that option, as
            a round of refinement without success gives no examples.
        definition: Digest of the files that define its task.
    """

    kind: str
    options: dict[str, Any]
    result: str
    overrides: tuple[str, ...] = ()
    definition: str = ""
    part: str = ""

    @property
    def needs(self) -> list[Artefact]:
        """What must be made before."""
        values = [v for value in self.options.values() for v in (value if isinstance(value, tuple) else [value])]
        return [value for value in values if isinstance(value, Artefact)]

    @cached_property
    def digest(self) -> str:
        """Digest of every input, those of what it needs included."""

        def plain(value: Any) -> Any:
            if isinstance(value, tuple):
                return [plain(v) for v in value]
            return value.digest + value.part if isinstance(value, Artefact) else value

        inputs = {name: plain(value) for name, value in self.options.items()}
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

    def taken(self, root: Path) -> Path | None:
        """The file that others take of it, or that they will; None if it is done and has none."""
        done = self.file(root)
        if not self.part:
            return done or self.folder(root) / self.result
        part = self.folder(root) / self.part
        return part if done is None or part.is_file() else None

    def command(self, root: Path) -> list[str]:
        """The command that makes it."""

        def word(value: Any) -> Any:
            if isinstance(value, tuple):
                return ",".join(str(word(v)) for v in value)
            return value.taken(root) if isinstance(value, Artefact) else value

        words = [sys.executable, "-m", "scaffoldlab", self.kind]
        for name, value in self.options.items():
            if (given := word(value)) is not None:
                words += [f"--{name}"] if given is True else [f"--{name}", str(given)]
        return [*words, "--out", str(self.folder(root)), *self.overrides]


@dataclass(frozen=True)
class Cell:
    """One number of the table: the evaluation of a row's policy on a task with a seed."""

    task: str
    row: str
    seed: int
    evaluation: Artefact | Path
    """How it is made, or the ``metrics.json`` that was made elsewhere."""


@dataclass
class GridResult:
    """Metrics of the cells that were made, and why others were not."""

    metrics: dict[tuple[str, str, int], dict[str, Any]] = field(default_factory=dict)
    failures: dict[tuple[str, str, int], str] = field(default_factory=dict)


def cells(experiment: ExperimentSpec, protocol: Protocol, *, device: str | None = None) -> list[Cell]:
    """Every cell of an experiment: tasks x rows x seeds."""
    graph = _Graph(experiment, protocol, device)
    return [
        Cell(task, row.name, seed, graph.evaluation(task, row, seed))
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
        if isinstance(cell.evaluation, Artefact):
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
    grid, failures = list(grid), {}

    def make(artefact: Artefact) -> None:
        for needed in artefact.needs:
            make(needed)
        with _alone_in(artefact.folder(root)):
            if artefact.digest in failures:
                raise failures[artefact.digest]
            if artefact.file(root) is not None:
                return
            try:
                (run or run_process)(artefact, root)
                write_atomic(artefact.folder(root) / "done.json", json.dumps({"command": artefact.command(root)}))
                if artefact.file(root) is None:
                    raise ScaffoldError(
                        f"{artefact.folder(root)}: the command left no {artefact.result}. See command.log there, and "
                        "run its command by hand: it is in done.json."
                    )
            except ScaffoldError as error:
                failures[artefact.digest] = error
                raise
            if on_done:
                on_done(f"made {artefact.kind}-{artefact.digest}")

    def one(cell: Cell) -> tuple[Cell, dict[str, Any] | str]:
        try:
            if isinstance(cell.evaluation, Artefact):
                make(cell.evaluation)
                return cell, _metrics(cell.evaluation.folder(root) / "metrics.json")
            return cell, _metrics(cell.evaluation)
        except ScaffoldError as error:
            if on_done:
                on_done(f"failed: {cell.task}, {cell.row}, seed {cell.seed}: {error}")
            return cell, str(error)

    result = GridResult()
    with ThreadPoolExecutor(jobs) as pool:
        for cell, outcome in pool.map(one, grid):
            key = (cell.task, cell.row, cell.seed)
            if isinstance(outcome, str):
                result.failures[key] = outcome
            else:
                result.metrics[key] = outcome
    return result


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Waits until no other job writes to a folder, be it of this process or of another."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / "lock").open("w")
    except OSError as error:
        raise ScaffoldError(f"{folder}: not writable ({error.strerror}). Give another --out.") from None
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)  # the system lets go of it when a process ends, however it ends
        yield


def _metrics(path: Path) -> dict[str, Any]:
    """What an evaluation has measured."""
    try:
        metrics = json.loads(path.read_text())
        metrics["success_rate"], metrics["success_stderr"]
        outcomes = metrics["policies"]["deterministic"]["outcomes"]
        if set(outcomes) != set(OUTCOMES):
            raise ValueError(f"outcomes are {', '.join(outcomes)}; allowed: {', '.join(OUTCOMES)}")
        sum(outcomes.values())
    except (OSError, ValueError, TypeError, KeyError) as error:
        got = "missing" if isinstance(error, FileNotFoundError) else f"no metrics ({type(error).__name__}: {error})"
        raise ScaffoldError(
            f"{path}: {got}; allowed: what `scaffoldlab evaluate` writes, with success_rate, success_stderr and "
            "policies.deterministic.outcomes. Write it there, or leave the row out with --rows."
        ) from None
    return metrics


@dataclass(frozen=True)
class Share:
    """The part of a machine that a job has to itself; None is all that there is."""

    gpu: str | None = None
    """As ``CUDA_VISIBLE_DEVICES`` names it."""
    cores: frozenset[int] | None = None
    """Numbers of CPU cores."""


def run_process(artefact: Artefact, root: Path, share: Share = Share()) -> None:
    """Runs the command of an artefact to its end; its output goes to ``command.log`` in the folder.

    Raises:
        ScaffoldError: It failed; with its last words.
    """

    def begin() -> None:
        _end_with_parent()
        if share.cores:
            os.sched_setaffinity(0, share.cores)

    folder = artefact.folder(root)
    folder.mkdir(parents=True, exist_ok=True)
    log = folder / "command.log"
    environment = os.environ | ({"CUDA_VISIBLE_DEVICES": share.gpu} if share.gpu else {})
    with log.open("w") as file:
        done = subprocess.run(artefact.command(root), stdout=file, stderr=file, env=environment, preexec_fn=begin)
    if done.returncode:
        said = log.read_text(errors="replace").rpartition("error: ")[2]
        raise ScaffoldError(f"{artefact.kind} failed ({log}): {' '.join(said.split()[-60:])}")


def _end_with_parent() -> None:
    """Lets Linux kill this process when a grid is killed: the next one would write to the same folder."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


# --- the graph of a cell ------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Graph:
    """What the cells of an experiment need, down to the plans."""

    experiment: ExperimentSpec
    protocol: Protocol
    device: str | None

    def evaluation(self, task: str, row: RowSpec, seed: int) -> Artefact | Path:
        """The test of a row's policy, or where it was made elsewhere."""
        if row.measured:
            return Path(row.measured.format(task=task, seed=seed))
        plans = row.test_plans or row.plans
        options = {
            "task": task,
            "checkpoint": self.policy(task, row, seed),
            "plans": self.plans(task, plans, "test", row),
            "trials": self.protocol.trials,
            "seed": seed,
        }
        if row.replan:
            again = plans.model_copy(update={"planner": row.replan})
            options |= {"replan": row.replan} | _asking(again)
        return self._artefact("evaluate", options, "metrics.json", row, test=True)

    def policy(self, task: str, row: RowSpec, seed: int) -> Artefact:
        """The policy of a row."""
        experiment = self.experiment
        train = self.plans(task, row.plans, "train1", row)
        if row.policy == "diffusion":
            assert row.teacher is not None
            teacher = self.policy(task, experiment.row(row.teacher), seed)
            demonstrations = {"teacher": teacher, "plans": train, "demonstrations": row.demonstrations}
            return self._artefact("imitate", {"task": task, **demonstrations, "seed": seed}, "policy.pt", row)
        minutes = self.protocol.minutes_of(load_task(task).task)
        validation = self.plans(task, row.plans, "validation", row)
        options = {"task": task, "plans": train, "validation": validation, "seed": seed, "minutes": minutes}
        return self._artefact("train", options, "model_best.pt", row)

    def plans(self, task: str, plans: PlansSpec, split: str, row: RowSpec) -> Artefact:
        """Plans for a split, for the training or the test of a row."""
        options: dict[str, Any] = {
            "task": task,
            "planner": plans.planner,
            "split": split,
            "num-plans": self.protocol.plans if split != "test" else self.protocol.states,
            "noise": self.experiment.noise_of(plans),
            "pictures": 0,
        }
        if plans.waypoints is not None:
            options["waypoints"] = plans.waypoints
        options |= _asking(plans)
        if plans.planner == "prerecorded":
            options["recorded"] = self.plans(task, row.plans, "train1", row)
        if plans.refined:
            options["examples"] = self.examples(task, plans, row)
        return _artefact("plan", options, "*.plans.npz")

    def examples(self, task: str, plans: PlansSpec, row: RowSpec) -> Artefact:
        """The best plans of the round before, as the policy that was trained without examples carried them out."""
        first = row.model_copy(update={"plans": plans.model_copy(update={"refined": 0})})
        last = REFINEMENTS - 1
        options = {
            "task": task,
            "checkpoint": self.policy(task, first, 0),
            "plans": (self.plans(task, first.plans, "train1", first), "train2", "train3"),
            "num-plans": self.protocol.plans,
            "rounds": last,
        }
        made = self._artefact("refine", options | _asking(plans), f"round_{last}/round.json", row)
        return replace(made, part=f"round_{plans.refined - 1}/best.plans.npz")

    def _artefact(
        self, kind: str, options: dict[str, Any], result: str, row: RowSpec, *, test: bool = False
    ) -> Artefact:
        """One that steps the simulator, with the overrides of its row."""
        options = options | self.protocol.options.get(kind, {})
        options |= {} if self.device is None else {"device": self.device}
        return _artefact(kind, options, result, row.overrides_in("test" if test else "training"))


def _artefact(kind: str, options: dict[str, Any], result: str, overrides: tuple[str, ...] = ()) -> Artefact:
    return Artefact(kind, options, result, overrides, load_task(options["task"]).digest())


def _asking(plans: PlansSpec) -> dict[str, Any]:
    """Options of planners, most of them of a model and of its stand-in; the model is one of the inputs."""
    options: dict[str, Any] = {"orientation": True} if plans.orientation else {}
    if plans.planner != "scripted":
        options |= {"votes": plans.votes} if plans.votes > 1 else {}
        options |= {"check-collisions": True} if plans.check_collisions else {}
        options |= {"oracle": plans.oracle} if plans.oracle else {}
    if plans.planner == "perturbed" and plans.perturb:
        options["perturb"] = ",".join(f"{name}={value:g}" for name, value in plans.perturb.items())
    if plans.planner == "vlm" and (model := os.environ.get("SCAFFOLDLAB_MODEL")):
        options["model"] = model
    return options
