"""What a planner is: a picture, a sentence and an initial state in, waypoints of keypoints and hand out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, get_args

import numpy as np

from scaffoldlab.camera import RgbdImage
from scaffoldlab.keypoints.keypoint import Keypoint


@dataclass(frozen=True, kw_only=True)
class PlanRequest:
    """Everything a planner may look at for one plan. Positions are in the env frame [m], x forward, y left, z up.

    Attributes:
        index: Number of the plan in its library; with ``seed`` it fixes every random choice.
        seed: Seed of the library.
        task: Name of the task.
        instruction: The sentence, e.g. ``"Move the apple to the cutting board."``.
        keypoint_names: Names in the order of the task.
        activity: What the hand does, for "controlling a robot hand to ...".
        steps: The task sentences of the trajectory prompt.
        waypoint_count: n, waypoints asked for.
        hand_e: Initial hand point, shape (3,).
        hand_rpy: Its roll, pitch, yaw [rad], shape (3,).
        keypoints: The task's own keypoints (used by the oracle; names only by a model).
        keypoints_e: Their true initial positions, shape (K, 3) (used by the oracle only).
        image: Picture of the initial state, or None when the planner needs none.
        state: The state to plan from when it is not initial state ``index`` of the seed; as ``Plan.initial_state``.
        feedback: What went wrong until now, for a plan from the middle of an episode; empty at its start.
        control_steps: Control steps that the plan has; None: those of a whole episode.
    """

    index: int
    seed: int
    task: str
    instruction: str
    keypoint_names: tuple[str, ...]
    activity: str
    steps: tuple[str, ...]
    waypoint_count: int
    hand_e: np.ndarray
    keypoints: tuple[Keypoint, ...]
    keypoints_e: np.ndarray
    image: RgbdImage | None = None
    state: dict[str, np.ndarray] | None = None
    feedback: str = ""
    control_steps: int | None = None
    hand_rpy: np.ndarray = field(default_factory=lambda: np.zeros(3))


@dataclass(frozen=True, kw_only=True)
class Waypoints:
    """A planner's answer, in the env frame [m]; nothing in it is trusted before validation.

    Attributes:
        keypoints_e: Keypoint waypoints, shape (n, K, 3).
        hand_e: Hand-point waypoints, shape (n, 3).
        located_e: Where the planner saw the keypoints at the start, shape (K, 3).
        wrist_rpy: Roll, pitch, yaw of the hand [rad], shape (n, 3), or None when it keeps its orientation.
        pixels: ``located_e`` in the image [px], shape (K, 2) as (u, v), or None when it saw none.
        keypoints: The bodies and points that it attached them to, or None when it does not say.
        source: Provenance to keep with the plan: planner, model, ledger ids, attempts, ...
    """

    keypoints_e: np.ndarray
    hand_e: np.ndarray
    located_e: np.ndarray
    wrist_rpy: np.ndarray | None = None
    pixels: np.ndarray | None = None
    keypoints: tuple[Keypoint, ...] | None = None
    source: dict[str, Any] = field(default_factory=dict)


def medoid(answers: Sequence[Waypoints]) -> int:
    """Number of the answer with the least sum of distances to the others, the first of equals.

    The distance of two answers is that of their keypoints and hand, mean over these and over the waypoints [m].
    """
    points_e = np.stack([np.concatenate((a.keypoints_e, a.hand_e[:, None]), 1) for a in answers])
    distances = np.linalg.norm(points_e[:, None] - points_e, axis=-1).mean((-1, -2))
    return int(distances.sum(1).argmin())


type OraclePart = Literal["keypoints", "trajectory"]
"""What the oracle may do in a planner's place, to see which part of it errs (Scaffolds, section 4.2)."""

ORACLE_PARTS: tuple[OraclePart, ...] = get_args(OraclePart.__value__)


type Check = Callable[[PlanRequest, Waypoints], list[str]]
"""Reasons why waypoints are no plan, empty if they are one, e.g. of ``plans.validation.validate_waypoints``. Positions
in them should be relative to ``waypoints.located_e[0]``, as in a model's prompt."""

type Examples = Callable[[PlanRequest], Sequence[Waypoints]]
"""Waypoints that succeeded before, to show to a model (Scaffolds, section 3.2, few-shot improvement)."""


class Planner(Protocol):
    """Makes the waypoints of one plan; safe to call from several threads.

    Attributes:
        name: For the header of a library.
        needs_image: Whether requests must come with a picture.
        checked: False for a baseline, whose plans are not meant to be good ones.
        batch: Requests that :meth:`prepare` takes at a time.
    """

    name: str
    needs_image: bool
    checked: bool = True
    batch: int = 1

    @property
    def header(self) -> dict[str, Any]:
        """JSON values for the header of a library, e.g. settings."""
        return {}

    def prepare(self, requests: Sequence[PlanRequest]) -> None:
        """Does for several requests what is better done together, before :meth:`plan` is called with each."""

    def plan(self, request: PlanRequest) -> Waypoints:
        """Returns waypoints, or raises a ScaffoldError that says why there are none."""
        ...
