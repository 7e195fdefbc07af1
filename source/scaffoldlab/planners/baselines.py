"""Planners that are baselines: plans of other states, and goals without a way to them."""

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.base import Planner, PlanRequest, Waypoints
from scaffoldlab.planners.scripted import oracle_waypoints
from scaffoldlab.plans.library import PlanLibrary
from scaffoldlab.specs.models import OracleStage


class PrerecordedPlanner(Planner):
    """Gives plans of another library as they are, whatever the state (Scaffolds, section 4.1: pre-recorded).

    Plan i of the asked states takes the waypoints of plan i of the library; the hand turns where it was turned there.
    """

    name = "prerecorded"
    needs_image = False
    checked = False

    def __init__(self, library: PlanLibrary):
        self.library = library

    def plan(self, request: PlanRequest) -> Waypoints:
        """The recorded waypoints, the first one replaced by where everything is.

        Raises:
            ScaffoldError: They are not as many as are wanted.
        """
        recorded = self.library.plans[request.index % len(self.library)]
        keypoints_e, hand_e = recorded.keypoints_e.copy(), recorded.wrist_e[:, :3].copy()
        if len(hand_e) != request.waypoint_count:
            raise ScaffoldError(
                f"{request.task}: the recorded plans have {len(hand_e)} waypoints and {request.waypoint_count} are "
                f"wanted. Give --waypoints {len(hand_e)}."
            )
        keypoints_e[0], hand_e[0] = request.keypoints_e, request.hand_e
        wrist_rpy = recorded.wrist_e[:, 3:].copy()
        turns = np.ptp(wrist_rpy, axis=0).any()
        wrist_rpy[0] = request.hand_rpy
        return Waypoints(
            keypoints_e=keypoints_e,
            hand_e=hand_e,
            wrist_rpy=wrist_rpy if turns else None,
            located_e=request.keypoints_e,
            source={"planner": self.name, "recorded": self.library.digest},
        )


class GoalPlanner(Planner):
    """Asks for the keypoints of the oracle's goal at once, with the hand at rest: a goal and no guidance.

    It turns the keypoint reward into the distance to the target of "RL with simple reward" (Scaffolds, appendix E.1).

    The goal of a keypoint is the oracle's last waypoint. Where that is less than half as far from the start as the
    furthest one, the motion goes to and fro, and its goal is the furthest: a raised hammer, a sponge at the end of its
    wipe. Leaving things where they are would else be rewarded.

    Args:
        stages: The oracle's stages.
    """

    name = "goal"
    needs_image = False
    checked = False

    def __init__(self, stages: list[OracleStage]):
        self.stages = stages

    def plan(self, request: PlanRequest) -> Waypoints:
        """Keypoints at their goal from the second waypoint on."""
        way_e, _ = oracle_waypoints(self.stages, request)
        distance = np.linalg.norm(way_e - way_e[0], axis=-1)
        returns = distance[-1] < distance.max(0) / 2
        goal_e = np.where(returns[:, None], way_e[distance.argmax(0), np.arange(len(returns))], way_e[-1])
        keypoints_e = np.broadcast_to(goal_e, (request.waypoint_count, *goal_e.shape)).copy()
        keypoints_e[0] = request.keypoints_e
        hand_e = np.broadcast_to(request.hand_e, (request.waypoint_count, 3)).copy()
        return Waypoints(
            keypoints_e=keypoints_e, hand_e=hand_e, located_e=request.keypoints_e, source={"planner": self.name}
        )
