"""Planners that are baselines: plans of other states, and goals without a way to them."""

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.base import Planner, PlanRequest, Waypoints
from scaffoldlab.planners.scripted import ScriptedPlanner
from scaffoldlab.plans.library import PlanLibrary
from scaffoldlab.specs.models import OracleStage


class PrerecordedPlanner(Planner):
    """Gives plans of another library as they are, whatever the state (Scaffolds, section 4.1: pre-recorded).

    Plan i of the asked states takes the waypoints of plan i of the library, its start included.
    """

    name = "prerecorded"
    needs_image = False
    checked = False

    def __init__(self, library: PlanLibrary):
        self.library = library

    def plan(self, request: PlanRequest) -> Waypoints:
        """The recorded waypoints, the first one replaced by where everything is."""
        recorded = self.library.plans[request.index % len(self.library)]
        keypoints_e, hand_e = recorded.keypoints_e.copy(), recorded.wrist_e[:, :3].copy()
        if len(hand_e) != request.waypoint_count:
            raise ScaffoldError(
                f"{request.task}: the recorded plans have {len(hand_e)} waypoints and {request.waypoint_count} are "
                f"wanted. Give --waypoints {len(hand_e)}."
            )
        keypoints_e[0], hand_e[0] = request.keypoints_e, request.hand_e
        source = {"planner": self.name, "recorded": self.library.digest}
        return Waypoints(keypoints_e=keypoints_e, hand_e=hand_e, located_e=request.keypoints_e, source=source)


class GoalPlanner(Planner):
    """Asks for the oracle's final keypoints at once, with the hand at rest: a goal and no guidance.

    It turns the keypoint reward into the distance to the target of "RL with simple reward" (Scaffolds, appendix E.1).
    """

    name = "goal"
    needs_image = False
    checked = False

    def __init__(self, stages: list[OracleStage]):
        self.oracle = ScriptedPlanner(stages)

    def plan(self, request: PlanRequest) -> Waypoints:
        """Keypoints at their goal from the second waypoint on."""
        goal_e = self.oracle.plan(request).keypoints_e[-1]
        keypoints_e = np.broadcast_to(goal_e, (request.waypoint_count, *goal_e.shape)).copy()
        keypoints_e[0] = request.keypoints_e
        hand_e = np.broadcast_to(request.hand_e, (request.waypoint_count, 3)).copy()
        return Waypoints(
            keypoints_e=keypoints_e, hand_e=hand_e, located_e=request.keypoints_e, source={"planner": self.name}
        )
