"""The scripted oracle: waypoints from the task's stages and the true keypoint positions. It sees what no model sees."""

from typing import Any

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.geometry import matrix_from_rpy
from scaffoldlab.planners.base import Planner, PlanRequest, Waypoints
from scaffoldlab.plans.plan import interpolate
from scaffoldlab.specs.models import OracleStage


class ScriptedPlanner(Planner):
    """Plans by the ``oracle`` stages of a task file.

    Args:
        stages: The stages.
        orientation: The hand turns along its arcs, as a door does that it holds; else it keeps its orientation.
    """

    name = "scripted"
    needs_image = False

    def __init__(self, stages: list[OracleStage], *, orientation: bool = False):
        self.stages, self.orientation = stages, orientation

    @property
    def header(self) -> dict[str, Any]:
        """Whether the hand turns, for the header of a library."""
        return {"orientation": True} if self.orientation else {}

    def plan(self, request: PlanRequest) -> Waypoints:
        """Waypoints of the stages; where fewer are asked for evenly chosen ones, where more points between them too."""
        keypoints_e, hand_e = oracle_waypoints(self.stages, request)
        wrist_rpy = request.hand_rpy + oracle_turns(self.stages)[:, None] * (0.0, 0.0, 1.0)
        count = request.waypoint_count
        if count < 2:
            raise ScaffoldError(f"task {request.task!r}: a plan needs at least 2 waypoints; got {count}.")
        if count < len(hand_e):
            at = np.linspace(0, len(hand_e) - 1, count).round().astype(int)
            keypoints_e, hand_e, wrist_rpy = keypoints_e[at], hand_e[at], wrist_rpy[at]
        elif count > len(hand_e):
            keypoints_e, hand_e, wrist_rpy = (interpolate(values, count) for values in (keypoints_e, hand_e, wrist_rpy))
        return Waypoints(
            keypoints_e=keypoints_e,
            hand_e=hand_e,
            wrist_rpy=wrist_rpy if self.orientation else None,
            located_e=request.keypoints_e,
            source={"planner": self.name},
        )


def oracle_waypoints(stages: list[OracleStage], request: PlanRequest) -> tuple[np.ndarray, np.ndarray]:
    """Keypoint and hand waypoints in the env frame [m], shapes (n, K, 3) and (n, 3).

    Within a stage the hand moves on a straight line or on an arc; carried keypoints move as it does, gathered ones
    towards each other, and the rest stay.
    """
    keypoints, hand = request.keypoints_e.copy(), request.hand_e.copy()
    keypoint_rows, hand_rows = [keypoints], [hand]
    for stage in stages:
        motion = _Motion(stage, request.keypoint_names, keypoints, hand)
        for step in range(1, stage.waypoints + 1):
            keypoints, hand = motion.at(step / stage.waypoints)
            keypoint_rows.append(keypoints)
            hand_rows.append(hand)
    return np.stack(keypoint_rows), np.stack(hand_rows)


def oracle_turns(stages: list[OracleStage]) -> np.ndarray:
    """How far the arcs have turned the hand about z [rad], shape (n,)."""
    steps = [
        np.radians(stage.hand.arc.angle_deg) / stage.waypoints if stage.hand and stage.hand.arc else 0.0
        for stage in stages
        for _ in range(stage.waypoints)
    ]
    return np.cumsum([0.0, *steps])


class _Motion:
    """What moves in one stage, from where it is when the stage begins."""

    def __init__(self, stage: OracleStage, names: tuple[str, ...], keypoints: np.ndarray, hand: np.ndarray):
        self.stage, self.names, self.keypoints, self.hand = stage, names, keypoints, hand

    def at(self, share: float) -> tuple[np.ndarray, np.ndarray]:
        """Keypoints and hand after a share of the stage in 0..1."""
        keypoints = self.keypoints.copy()
        carried = self._columns(self.stage.carry)
        keypoints[carried] = self._with_hand(keypoints[carried], share)
        if self.stage.gather is not None:
            pair = self._columns(self.stage.gather.keypoints)
            keypoints[pair] = _gathered(keypoints[pair], self.stage.gather.distance, share)
        return keypoints, self._with_hand(self.hand, share)

    def _with_hand(self, points: np.ndarray, share: float) -> np.ndarray:
        """Where points are that move as the hand does."""
        goal = self.stage.hand
        if goal is None:
            return points
        if goal.arc is not None:
            turn = matrix_from_rpy(np.array([0, 0, np.radians(share * goal.arc.angle_deg)]))
            center = np.array([*goal.arc.center, 0.0])
            return center + (points - center) @ turn.T
        if goal.by is not None:
            return points + share * np.array(goal.by)
        target = self.keypoints[self._columns(goal.keypoints)].mean(0) + goal.offset
        return points + share * (target - self.hand)

    def _columns(self, names: list[str]) -> list[int]:
        return [self.names.index(name) for name in names]


def _gathered(pair: np.ndarray, distance: float, share: float) -> np.ndarray:
    """Two points on their way to being a distance apart, shape (2, 3)."""
    apart = float(np.linalg.norm(pair[1] - pair[0]))
    middle = pair.mean(0)
    return middle + (pair - middle) * (1 + share * (distance / apart - 1))
