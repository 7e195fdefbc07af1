"""The scripted oracle: waypoints from the task's stages and the true keypoint positions. It sees what no model sees."""

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.base import PlanRequest, Waypoints
from scaffoldlab.specs.models import OracleStage


class ScriptedPlanner:
    """Plans by the ``oracle`` stages of a task file."""

    name = "scripted"
    needs_image = False

    def __init__(self, stages: list[OracleStage]):
        self.stages = stages

    def plan(self, request: PlanRequest) -> Waypoints:
        """Waypoints of the stages, resampled evenly when another count is asked for."""
        keypoints_e, hand_e = oracle_waypoints(self.stages, request)
        count = request.waypoint_count
        if count < 2:
            raise ScaffoldError(f"task {request.task!r}: a plan needs at least 2 waypoints; got {count}.")
        if count != len(hand_e):
            at = np.linspace(0, len(hand_e) - 1, count).round().astype(int)
            keypoints_e, hand_e = keypoints_e[at], hand_e[at]
        return Waypoints(
            keypoints_e=keypoints_e, hand_e=hand_e, located_e=request.keypoints_e, source={"planner": self.name}
        )


def oracle_waypoints(stages: list[OracleStage], request: PlanRequest) -> tuple[np.ndarray, np.ndarray]:
    """Keypoint and hand waypoints in the env frame [m], shapes (n, K, 3) and (n, 3).

    Within a stage the hand moves on a straight line; carried keypoints move as it does, the rest stay.
    """
    keypoints, hand = request.keypoints_e.copy(), request.hand_e.copy()
    keypoint_rows, hand_rows = [keypoints.copy()], [hand.copy()]
    for stage in stages:
        goal = hand
        if stage.hand is not None and stage.hand.to is not None:
            goal = keypoints[request.keypoint_names.index(stage.hand.to)] + stage.hand.offset
        elif stage.hand is not None and stage.hand.by is not None:
            goal = hand + stage.hand.by
        step = (goal - hand) / stage.waypoints
        carried = [request.keypoint_names.index(name) for name in stage.carry]
        for _ in range(stage.waypoints):
            hand = hand + step
            keypoints[carried] += step
            hand_rows.append(hand.copy())
            keypoint_rows.append(keypoints.copy())
    return np.stack(keypoint_rows), np.stack(hand_rows)
