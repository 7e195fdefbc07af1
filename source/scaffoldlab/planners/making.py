"""Making plans: initial states, requests to a planner, keypoints on bodies, validation, noise."""

from collections.abc import Iterable

import numpy as np

from scaffoldlab.camera import RgbdImage
from scaffoldlab.keypoints.keypoint import Keypoint, keypoint_positions
from scaffoldlab.planners.base import PlanRequest, Waypoints
from scaffoldlab.planners.scripted import ScriptedPlanner
from scaffoldlab.plans.library import PlanLibrary
from scaffoldlab.plans.plan import Plan, with_waypoint_noise
from scaffoldlab.specs.initial_state import body_poses, sample_initial_state
from scaffoldlab.specs.models import Composition


def make_request(
    composition: Composition,
    *,
    seed: int,
    index: int,
    waypoint_count: int | None = None,
    image: RgbdImage | None = None,
) -> PlanRequest:
    """The request for plan ``index`` of a library."""
    task = composition.task
    state = sample_initial_state(composition, seed=seed, index=index)
    keypoints = tuple(Keypoint(k.name, k.body, k.point) for k in task.keypoints)
    return PlanRequest(
        index=index,
        seed=seed,
        task=task.name,
        instruction=task.instruction,
        keypoint_names=task.keypoint_names,
        activity=task.prompt.activity,
        steps=tuple(task.prompt.steps),
        waypoint_count=waypoint_count or task.waypoint_count(),
        hand_e=state["hand"][:3],
        keypoints=keypoints,
        keypoints_e=keypoint_positions(keypoints, body_poses(composition, state)),
        image=image,
    )


def make_plan(
    composition: Composition, request: PlanRequest, waypoints: Waypoints, keypoints: tuple[Keypoint, ...]
) -> Plan:
    """The plan of a planner's answer; the wrist keeps its initial orientation (Scaffolds: positions only)."""
    state = sample_initial_state(composition, seed=request.seed, index=request.index)
    orientation = np.broadcast_to(state["hand"][3:], waypoints.hand_e.shape)
    return Plan(
        task=request.task,
        keypoints=keypoints,
        keypoints_e=waypoints.keypoints_e,
        wrist_e=np.concatenate([waypoints.hand_e, orientation], -1),
        initial_state=state,
        provenance={"seed": request.seed, "index": request.index, **waypoints.source},
    )


def scripted_library(
    composition: Composition, *, count: int, seed: int, noise: float = 0.0, indices: Iterable[int] | None = None
) -> PlanLibrary:
    """A library of the scripted oracle's plans, in memory and without a simulator.

    Args:
        composition: The task.
        count: Number of plans.
        seed: Seed; each seed gives other initial states.
        noise: Standard deviation of the waypoint noise [m].
        indices: Plan numbers instead of ``range(count)``.
    """
    planner = ScriptedPlanner(composition.task.oracle)
    plans = []
    for index in indices or range(count):
        request = make_request(composition, seed=seed, index=index)
        plan = make_plan(composition, request, planner.plan(request), request.keypoints)
        plans.append(with_waypoint_noise(plan, sigma=noise, seed=seed) if noise > 0 else plan)
    return PlanLibrary(plans=tuple(plans), header={"planner": "scripted", "seed": seed, "waypoint_noise_m": noise})
