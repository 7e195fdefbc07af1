"""What an experiment is: rows over tasks, with the paper's numbers beside them. One YAML file each."""

import math
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, model_validator

from scaffoldlab.errors import unknown_name
from scaffoldlab.planners.base import OraclePart
from scaffoldlab.specs.models import Strict, TaskSpec, read_yaml
from scaffoldlab.specs.paths import roots

REFINEMENTS = 3
"""Rounds of few-shot refinement at most (Scaffolds, section 4.1)."""


class PlansSpec(Strict):
    """Who makes the plans of a row, and how well."""

    planner: Literal["scripted", "perturbed", "vlm", "prerecorded", "goal"] = "scripted"
    noise: Annotated[float, Field(ge=0)] | None = None
    """Standard deviation of the waypoint noise [m]; None takes the experiment's, and 0 where another than the scripted
    oracle plans: those err by themselves."""
    waypoints: Annotated[int, Field(ge=2, le=200)] | None = None
    """n; None takes the oracle's."""
    perturb: dict[str, float] = {}
    """Parameters of the perturbed planner."""
    votes: Annotated[int, Field(ge=1)] = 1
    """Answers of a model or of the perturbed planner, of which the most central is taken."""
    check_collisions: bool = False
    """Whether plans of these two through what cannot move are refused."""
    oracle: OraclePart | None = None
    """What the oracle does in the place of these two."""
    orientation: bool = False
    """Whether plans also say how the hand is turned."""
    refined: Annotated[int, Field(ge=0, le=REFINEMENTS)] = 0
    """Rounds of few-shot refinement before; a model only."""

    @model_validator(mode="after")
    def _of_a_model(self) -> "PlansSpec":
        if self.refined and self.planner != "vlm":
            raise ValueError(f"'refined' is for planner 'vlm', which can be shown examples; got {self.planner!r}")
        if self.perturb and self.planner != "perturbed":
            raise ValueError(f"'perturb' is for planner 'perturbed'; got {self.planner!r}")
        return self


class RowSpec(Strict):
    """One method or setting: which plans it trains on, which it is tested on, how it is trained."""

    name: str
    plans: PlansSpec = PlansSpec()
    test_plans: PlansSpec | None = None
    """Plans of the test, where they differ from those of the training."""
    policy: Literal["ppo", "diffusion"] = "ppo"
    demonstrations: Annotated[int, Field(ge=1)] | None = None
    """Rollouts of the row ``teacher`` that a diffusion policy learns from."""
    teacher: str | None = None
    """Row whose policy gives the demonstrations."""
    overrides: list[str] = []
    """Hydra overrides of env and agent."""
    test_overrides: list[str] | None = None
    """Overrides of the test, where they differ from those of the training."""
    replan: Literal["scripted", "perturbed", "vlm"] | None = None
    """Who plans again in the middle of the test's episodes."""
    measured: str | None = None
    """Where another system's ``metrics.json`` is, made elsewhere; ``{task}`` and ``{seed}`` are put in."""

    @model_validator(mode="after")
    def _taught(self) -> "RowSpec":
        if (self.policy == "diffusion") != (self.teacher is not None and self.demonstrations is not None):
            raise ValueError("a diffusion policy needs 'teacher' and 'demonstrations', and no other policy has them")
        if self.measured and self.model_fields_set - {"name", "measured"}:
            raise ValueError("a row that is 'measured' elsewhere has nothing but its name besides")
        try:
            (self.measured or "").format(task="", seed=0)
        except (KeyError, IndexError, ValueError):
            raise ValueError("'measured' is a path in which {task} and {seed} may stand, and no other braces") from None
        return self

    def overrides_in(self, part: Literal["training", "test"]) -> tuple[str, ...]:
        """Hydra overrides of env and agent in the training or the test."""
        return tuple(self.overrides if part == "training" or self.test_overrides is None else self.test_overrides)


class ExperimentSpec(Strict):
    """An experiment: tasks x rows x seeds."""

    name: str = ""
    title: str
    source: str
    """Section, table or figure of the paper."""
    tasks: Annotated[list[str], Field(min_length=1)]
    rows: Annotated[list[RowSpec], Field(min_length=1)]
    noise: Annotated[float, Field(ge=0)] = 0.0
    """Standard deviation of the waypoint noise on plans of the scripted oracle where a row says nothing [m]."""
    axis: str | None = None
    """Label of the x axis when the names of the rows are numbers: a line for each task instead of bars."""
    paper: dict[str, dict[str, float]] = {}
    """Success rates that the paper's text gives [%]: by row, by task or ``mean``."""
    differences: list[str] = []
    """What differs from the paper's set-up, besides what holds for every experiment."""

    @model_validator(mode="after")
    def _rows_exist(self) -> "ExperimentSpec":
        names = [row.name for row in self.rows]
        if len(set(names)) < len(names):
            raise ValueError(f"two rows have the same name; got {names}")
        unknown = {*self.paper, *(row.teacher for row in self.rows if row.teacher)} - set(names)
        if unknown:
            raise ValueError(f"no row is called {sorted(unknown)}; allowed: {names}")
        columns = [*self.tasks, "mean"]
        if unknown := {column for numbers in self.paper.values() for column in numbers} - set(columns):
            raise ValueError(f"'paper' has numbers of {sorted(unknown)}; allowed: {columns}")
        if self.axis and (worded := [name for name in names if not _begins_with_a_number(name)]):
            raise ValueError(f"with an 'axis' the name of a row begins with its number; got {worded}")
        return self

    def only(self, tasks: list[str] | None, rows: list[str] | None) -> "ExperimentSpec":
        """The same with some of its tasks and rows, and the teachers of those rows.

        Raises:
            ScaffoldError: It has no such task or row.
        """
        for kind, given, known in (("task", tasks, self.tasks), ("row", rows, [r.name for r in self.rows])):
            for name in given or ():
                if name not in known:
                    raise unknown_name(kind, name, known, f"experiment {self.name!r}")
        chosen = self.rows if rows is None else [row for row in self.rows if row.name in rows]
        teachers = {row.teacher for row in chosen}
        return self.model_copy(
            update={
                "tasks": [task for task in self.tasks if tasks is None or task in tasks],
                "rows": [row for row in self.rows if row in chosen or row.name in teachers],
            }
        )

    def noise_of(self, plans: PlansSpec) -> float:
        """Standard deviation of the waypoint noise on the plans of a row [m]."""
        if plans.noise is not None:
            return plans.noise
        return self.noise if plans.planner == "scripted" else 0.0

    def row(self, name: str) -> RowSpec:
        """The row of that name."""
        return next(row for row in self.rows if row.name == name)


def _begins_with_a_number(name: str) -> bool:
    try:
        return math.isfinite(float(name.split()[0]))
    except (ValueError, IndexError):
        return False


class Protocol(Strict):
    """How much is run for a number."""

    plans: int
    states: int
    trials: int
    seeds: tuple[int, ...]
    minutes: float
    """Training time at most, where a task says nothing or may say nothing [min]."""
    minutes_by_task: bool = False
    """Whether a task may say otherwise (``cpu.minutes``)."""
    options: dict[str, dict[str, int | bool]] = {}
    """Further options of single commands, without the dashes."""

    def minutes_of(self, task: TaskSpec) -> float:
        """Training time of a task at most [min]."""
        return task.cpu.minutes if self.minutes_by_task and task.cpu else self.minutes


SMOKE_OPTIONS = {"train": {"num-envs": 16, "iterations": 3}, "imitate": {"steps": 50}, "evaluate": {"no-film": True}}
PROTOCOLS = {
    "paper": Protocol(plans=100, states=100, trials=20, seeds=(0, 1, 2), minutes=240.0),
    "quick": Protocol(plans=100, states=100, trials=1, seeds=(0,), minutes=10.0, minutes_by_task=True),
    "smoke": Protocol(plans=4, states=4, trials=1, seeds=(0,), minutes=0.05, options=SMOKE_OPTIONS),
}
"""Scaffolds, section 4.1; a CPU's; one that only shows that everything runs."""

COMMON_DIFFERENCES = [
    "Isaac Lab 3.0 instead of ManiSkill 3, and our own assets instead of ReplicaCAD and RoboCasa",
    "plans of the scripted oracle or of its perturbed twin wherever no model is named",
    "on a CPU the settings of `presets=cpu` (docs/training.md): a small network; wrist offsets of at most 5 cm and "
    "0.3 rad instead of 10 cm and 1 rad (the arm: 20° in both); beta 40 instead of 20; contacts "
    "with the task's object only, weighed 0.5 instead of 1; the future plan as differences; the mean of the clipped "
    "action; training ends at 95 % of the validation states",
]


def list_experiments() -> dict[str, Path]:
    """Every experiment by name."""
    files = (path for root in roots() for path in sorted((root / "experiments").glob("*.yaml")))
    return {path.stem: path for path in files}


def load_experiment(name: str) -> ExperimentSpec:
    """Loads ``experiments/NAME.yaml``.

    Raises:
        ScaffoldError: With the file, the field, what was got and what is allowed.
    """
    files = list_experiments()
    if name not in files:
        raise unknown_name("experiment", name, list(files), "")
    return read_yaml(files[name], ExperimentSpec, name)
