"""Few-shot refinement: plans that the policy carried out well are shown to the model when it plans the next round."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from scaffoldlab.camera import RgbdImage
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import keep_settings, write_atomic
from scaffoldlab.planners.base import Examples, Planner, PlanRequest, Waypoints
from scaffoldlab.planners.making import SPLIT_PLANS, make_library, split_seed
from scaffoldlab.plans.draw import contact_sheet, draw_plan
from scaffoldlab.plans.library import PlanLibrary
from scaffoldlab.specs.models import Composition

type Rank = Literal["success", "tracking"]
"""Best are plans that succeeded (the simulation knows), or plans that were tracked to their end (a robot knows)."""

_STREAM = 0x65786D706C65  # "exmple": keeps these draws apart from others that are seeded with (seed, index)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the policy made of the N plans of a library.

    Attributes:
        success: Share of trials that succeeded, shape (N,).
        completed: Share of the episode until tracking was lost, mean over trials; 1 when it never was, shape (N,).
        error: Mean tracking error [m], shape (N,).
    """

    success: np.ndarray
    completed: np.ndarray
    error: np.ndarray


type Rollout = Callable[[PlanLibrary], Outcome]
"""Runs the policy on every plan of a library."""

type Pictures = Callable[[int, int], Sequence[RgbdImage]]
"""Seed and count -> pictures of the initial states 0..count - 1 of that seed."""

type PlannerOfRound = Callable[[int, Examples | None, Path], Planner]
"""Number of the round, examples to show, and ledger to write -> who plans."""


@dataclass(frozen=True, kw_only=True)
class Round:
    """One round: a library, what became of it, and its best plans. Saved as ``round.json`` when it is finished.

    Attributes:
        number: 0 for the plans without examples.
        source: Split of the initial states, or ``library`` for a library that was given.
        seed: Its seed.
        asked: Plans asked for.
        plans: Plans made.
        examples: Plans to draw examples from in this round; 0: none were shown.
        success_rate: Share of successful episodes.
        completed_rate: Share of plans that were tracked to their end.
        rank: How the best plans were chosen: as asked, or what it fell back to.
        best: Numbers of the best plans in the library, best first.
        note: What one must know to read it, e.g. that no plan succeeded.
    """

    number: int
    source: str
    seed: int
    asked: int
    plans: int
    examples: int
    success_rate: float
    completed_rate: float
    rank: Literal["success", "tracking", "zero-shot"]
    best: list[int]
    note: str = ""


class FewShot:
    """Draws examples for the trajectory prompt (Scaffolds, section 3.2); the same for the same request and pool.

    A plan from the very state that is asked about is not shown: the model would only have to copy it.

    Args:
        pool: Plans that went well.
        count: m, examples of a prompt.
    """

    def __init__(self, pool: PlanLibrary, *, count: int = 3) -> None:
        self.pool, self.count = pool, count

    def __call__(self, request: PlanRequest) -> list[Waypoints]:
        """The examples for one request."""
        if self.pool.task != request.task or self.pool.keypoint_names != request.keypoint_names:
            raise ScaffoldError(
                f"examples: their plans are of task {self.pool.task!r} with keypoints "
                f"{', '.join(self.pool.keypoint_names)}; allowed here: {request.task!r} with "
                f"{', '.join(request.keypoint_names)}."
            )
        asked = (request.seed, request.index)
        others = [p for p in self.pool.plans if (p.provenance.get("seed"), p.provenance.get("index")) != asked]
        rng = np.random.default_rng((*asked, _STREAM))
        chosen = rng.choice(len(others), min(self.count, len(others)), replace=False)
        return [
            Waypoints(
                keypoints_e=plan.keypoints_e,
                hand_e=plan.wrist_e[:, :3],
                located_e=plan.keypoints_e[0],
                wrist_rpy=plan.wrist_e[:, 3:],
            )
            for plan in (others[i] for i in chosen)
        ]


def best_plans(outcome: Outcome, rank: Rank, top: int) -> tuple[list[int], Literal["success", "tracking", "zero-shot"]]:
    """Numbers of the best plans, at most ``top``, best first, and how they were chosen.

    By success, ties by completed tracking and error; without any success by tracking, which takes only what was
    tracked to its end; without any of these there are none, and the next round is zero-shot again.
    """
    succeeded = np.lexsort((outcome.error, -outcome.completed, -outcome.success))
    succeeded = [int(i) for i in succeeded if outcome.success[i] > 0]
    if rank == "success" and succeeded:
        return succeeded[:top], "success"
    tracked = [int(i) for i in np.argsort(outcome.error, kind="stable") if outcome.completed[i] >= 1]
    return (tracked[:top], "tracking") if tracked else ([], "zero-shot")


@dataclass(frozen=True, kw_only=True)
class Refinement:
    """Rounds of planning, running and choosing (Scaffolds, section 3.2 and figure 5).

    Everything is kept below ``folder``: ``round_0``, ``round_1``, ... each with its library, ledger, pictures, best
    plans and ``round.json``; ``rounds.png`` shows the same plans of all rounds side by side. A finished round is
    read, and an unfinished one goes on where it was: the ledger knows what is paid.

    Attributes:
        composition: The task.
        folder: Where everything goes.
        planner: Who plans a round.
        rollout: Runs the policy.
        pictures: Renders initial states.
        sources: Splits to plan for, one a round, the last one for all that follow; the first may be a library, which
            then is round 0 as it is.
        rounds: Rounds after round 0 (the paper: up to 3).
        rank: How plans are ranked.
        top: Best plans to draw examples from (the paper: 10).
        shots: m, examples in a prompt (the paper: 3).
        count: Plans of a split.
        seed: Seed of the splits.
        concurrency: Plans made at the same time.
        drawn: Plans drawn of each round.
        settings: What else must not change between runs in one folder, e.g. model and checkpoint (JSON values).
    """

    composition: Composition
    folder: Path
    planner: PlannerOfRound
    rollout: Rollout
    pictures: Pictures
    sources: Sequence[str | PlanLibrary]
    rounds: int = 3
    rank: Rank = "success"
    top: int = 10
    shots: int = 3
    count: int = SPLIT_PLANS
    seed: int = 0
    concurrency: int = 4
    drawn: int = 12
    settings: dict[str, Any] = field(default_factory=dict)
    _images: dict[tuple[int, int], Sequence[RgbdImage]] = field(default_factory=dict, init=False)

    def run(self, on_round: Callable[[Round], None] = lambda finished: None) -> list[Round]:
        """Runs the rounds that are not finished and returns all.

        Raises:
            ScaffoldError: The folder holds a refinement with other settings, or a round made not one plan.
        """
        self._check_settings()
        finished: list[Round] = []
        for number in range(self.rounds + 1):
            file = self._folder(number) / "round.json"
            if file.is_file():
                finished.append(Round(**json.loads(file.read_text())))
            else:
                finished.append(self._round(number, finished[-1] if finished else None))
                write_atomic(file, json.dumps(asdict(finished[-1]), indent=1) + "\n")
            on_round(finished[-1])
        self._draw_rounds(finished)
        return finished

    def _round(self, number: int, before: Round | None) -> Round:
        folder = self._folder(number)
        source = self.sources[min(number, len(self.sources) - 1)]
        name, seed, count = self._states(source)
        pool = None
        if before is not None and before.best:
            pool = PlanLibrary.load(self._folder(before.number) / "best.plans.npz", task=self.composition.task.name)
        library = self._plan(number, source, pool)
        outcome = self.rollout(library)
        best, rank = best_plans(outcome, self.rank, self.top)
        if best:
            library.subset(best).save(folder / "best.plans.npz")
        self._draw(folder, library, outcome, self._pictures(seed, count))
        notes = {
            "tracking": "No plan succeeded: the best are those that were tracked to their end.",
            "zero-shot": "No plan succeeded or was tracked to its end: the next round gets no examples.",
        }
        if self.rank == "tracking":
            notes["zero-shot"] = "No plan was tracked to its end: the next round gets no examples."
        return Round(
            number=number,
            source=name,
            seed=seed,
            asked=count,
            plans=len(library),
            examples=len(pool) if pool else 0,
            success_rate=float(outcome.success.mean()),
            completed_rate=float((outcome.completed >= 1).mean()),
            rank=rank,
            best=best,
            note="" if rank == self.rank else notes[rank],
        )

    def _plan(self, number: int, source: str | PlanLibrary, pool: PlanLibrary | None) -> PlanLibrary:
        """The library of a round: read if it was made before."""
        file = self._folder(number) / "library.plans.npz"
        if file.is_file():
            return PlanLibrary.load(file, task=self.composition.task.name)
        if number == 0 and isinstance(source, PlanLibrary):
            library = source
        else:
            name, seed, count = self._states(source)
            examples = FewShot(pool, count=self.shots) if pool else None
            planner = self.planner(number, examples, self._folder(number) / "ledger.jsonl")
            library = make_library(
                self.composition, planner, count=count, seed=seed, split=None if name == "library" else name,
                images=self._pictures(seed, count) if planner.needs_image else None, concurrency=self.concurrency,
            )  # fmt: skip
            refinement = {"round": number, "examples": len(pool) if pool else 0, "shots": self.shots}
            library = replace(library, header=library.header | {"refinement": refinement})
        library.save(file)
        return library

    def _states(self, source: str | PlanLibrary) -> tuple[str, int, int]:
        """Name, seed and number of the initial states of a source."""
        if isinstance(source, str):
            return source, split_seed(self.composition.task.name, source, self.seed), self.count
        try:
            return "library", int(source.header["seed"]), int(source.header["asked"])
        except (KeyError, TypeError, ValueError):
            raise ScaffoldError(
                "refine: the library does not say from which seed its initial states are, so its states cannot be "
                "planned again. Give one that `scaffoldlab plan` made, or the name of a split."
            ) from None

    def _pictures(self, seed: int, count: int) -> Sequence[RgbdImage]:
        if (seed, count) not in self._images:
            self._images.clear()  # those of one split only: a hundred are half a gigabyte
            self._images[seed, count] = self.pictures(seed, count)
        return self._images[seed, count]

    def _draw(self, folder: Path, library: PlanLibrary, outcome: Outcome, images: Sequence[RgbdImage]) -> None:
        """Pictures of the first plans with their tracks, and all of them on one sheet."""
        pictures, captions = [], []
        for number, plan in enumerate(library.plans[: self.drawn]):
            index = plan.provenance["index"]
            pictures.append(draw_plan(images[index], plan, path=folder / "pictures" / f"plan_{index:04d}.png"))
            end = "succeeded" if outcome.success[number] > 0 else f"tracked {outcome.completed[number]:.0%}"
            captions.append(f"plan {index}: {end}")
        contact_sheet(pictures, captions=captions, path=folder / "plans.png")

    def _draw_rounds(self, finished: list[Round], plans: int = 4) -> None:
        """The first plans of every round: one row a plan, one column a round."""
        from PIL import Image

        rows = range(min(plans, self.drawn, max(r.asked for r in finished)))
        files = [(r, i, self._folder(r.number) / "pictures" / f"plan_{i:04d}.png") for i in rows for r in finished]
        drawn = [np.asarray(Image.open(f).convert("RGB")) if f.is_file() else None for *_, f in files]
        size = next((p.shape for p in drawn if p is not None), None)
        if size is None:
            return
        contact_sheet(
            [np.full(size, 230, np.uint8) if p is None else p for p in drawn],
            captions=[
                f"round {r.number} ({r.success_rate:.0%}), plan {i}{'' if p is not None else ': left out'}"
                for (r, i, _), p in zip(files, drawn, strict=True)
            ],
            columns=len(finished),
            path=self.folder / "rounds.png",
        )

    def _check_settings(self) -> None:
        """Writes down what the rounds are made with, or compares it with what is written."""
        sources = [s if isinstance(s, str) else f"library {s.digest}" for s in self.sources]
        given = {
            "task": self.composition.task.name, "sources": sources, "rank": self.rank, "top": self.top,
            "shots": self.shots, "count": self.count, "seed": self.seed, **self.settings,
        }  # fmt: skip
        keep_settings(self.folder / "refine.json", given)

    def _folder(self, number: int) -> Path:
        return self.folder / f"round_{number}"
