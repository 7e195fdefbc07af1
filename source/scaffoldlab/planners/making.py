"""Making plans: initial states, requests to a planner, keypoints on bodies, validation, noise."""

import hashlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import batched

import numpy as np

from scaffoldlab.camera import RgbdImage
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.geometry import rpy_chain
from scaffoldlab.keypoints.keypoint import Keypoint, keypoint_positions, keypoint_snapped
from scaffoldlab.planners.base import Planner, PlanRequest, Waypoints
from scaffoldlab.planners.ledger import LedgerError
from scaffoldlab.planners.scripted import ScriptedPlanner
from scaffoldlab.plans.library import PlanLibrary
from scaffoldlab.plans.plan import Plan, with_waypoint_noise
from scaffoldlab.plans.reach import ArmReach
from scaffoldlab.plans.validation import PlanLimits, collision_reasons, reach_reasons, validate_waypoints
from scaffoldlab.specs.bodies import body_surfaces, solid_boxes
from scaffoldlab.specs.initial_state import body_poses, sample_initial_state
from scaffoldlab.specs.models import Composition

STEP_S = 1 / 60
"""Control step [s]."""

SPLITS = ("train1", "train2", "train3", "validation", "test")
"""Splits of the initial states of a task (Scaffolds, section 4); each has other ones."""

SPLIT_PLANS = 100
"""Plans of a split (Scaffolds, section 4)."""


def make_request(
    composition: Composition,
    *,
    seed: int,
    index: int,
    waypoint_count: int | None = None,
    image: RgbdImage | None = None,
    state: dict[str, np.ndarray] | None = None,
    feedback: str = "",
    control_steps: int | None = None,
) -> PlanRequest:
    """The request for plan ``index`` of a library, or with a ``state`` for a plan from there (see `PlanRequest`)."""
    task = composition.task
    start = state or sample_initial_state(composition, seed=seed, index=index)
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
        hand_e=start["hand"][:3],
        hand_rpy=start["hand"][3:],
        keypoints=keypoints,
        keypoints_e=keypoint_positions(keypoints, body_poses(composition, start)),
        image=image,
        state=state,
        feedback=feedback,
        control_steps=control_steps,
    )


def plan_limits(composition: Composition, *, steps: int | None = None) -> PlanLimits:
    """What a plan of the task must keep to, over all control steps of an episode or over these many."""
    return PlanLimits(
        duration_s=(steps or composition.task.episode_steps) * STEP_S, workspace_e=composition.scene.workspace
    )


def plan_check(composition: Composition, *, collisions: bool = False) -> Callable[[PlanRequest, Waypoints], list[str]]:
    """Reasons why waypoints are no plan of the task, in the frame that a model's prompt uses.

    An arm has to reach every waypoint of the hand: a plan beyond it cannot be carried out.

    Args:
        composition: The task.
        collisions: The hand point may not go through what cannot move either.
    """
    reasons_against = _reasons_against(composition)

    def check(request: PlanRequest, waypoints: Waypoints) -> list[str]:
        origin_e = waypoints.located_e[0]
        reasons = reasons_against(request, waypoints, origin_e)
        if collisions and np.shape(waypoints.hand_e) == (request.waypoint_count, 3):
            state = request.state or sample_initial_state(composition, seed=request.seed, index=request.index)
            boxes = solid_boxes(composition, body_poses(composition, state))
            reasons += collision_reasons(waypoints.hand_e, boxes, origin_e=origin_e)
        return reasons

    return check


def _reasons_against(
    composition: Composition,
) -> Callable[[PlanRequest, Waypoints, np.ndarray | None], list[str]]:
    """What every plan of the task is judged by, in positions relative to a point, shape (3,), or in the env frame."""
    arm = ArmReach(composition) if composition.robot.arm else None

    def judge(request: PlanRequest, waypoints: Waypoints, origin_e: np.ndarray | None) -> list[str]:
        limits = plan_limits(composition, steps=request.control_steps)
        reasons = validate_waypoints(request, waypoints, limits, origin_e=origin_e)
        return reasons + (reach_reasons(request, waypoints, arm, origin_e=origin_e) if arm else [])

    return judge


def make_plan(composition: Composition, planner: Planner, request: PlanRequest) -> Plan:
    """Asks the planner, puts what it located onto the bodies, and checks the result.

    A planner that gives positions only (Scaffolds, section 3.2) leaves the wrist's orientation as it is at the start.

    Args:
        composition: The task.
        planner: Who plans.
        request: What is asked for.

    Raises:
        ScaffoldError: No answer, a keypoint off every surface, or waypoints that are no plan, with the reasons.
    """
    waypoints = planner.plan(request)
    if planner.checked and (reasons := _reasons_against(composition)(request, waypoints, None)):
        raise ScaffoldError(f"plan {request.index}: " + " ".join(reasons))
    state = request.state or sample_initial_state(composition, seed=request.seed, index=request.index)
    keypoints, keypoints_e = waypoints.keypoints or request.keypoints, waypoints.keypoints_e.copy()
    if planner.needs_image and waypoints.keypoints is None:
        keypoints = located_keypoints(composition, request, waypoints.located_e)
        keypoints_e[0] = keypoint_positions(keypoints, body_poses(composition, state))
    orientation = np.broadcast_to(state["hand"][3:], waypoints.hand_e.shape)
    if waypoints.wrist_rpy is not None:
        orientation = rpy_chain(waypoints.wrist_rpy, state["hand"][3:])
    return Plan(
        task=request.task,
        keypoints=keypoints,
        keypoints_e=keypoints_e,
        wrist_e=np.concatenate([waypoints.hand_e, orientation], -1),
        initial_state=state,
        provenance={"seed": request.seed, "index": request.index, **waypoints.source},
    )


def located_keypoints(composition: Composition, request: PlanRequest, located_e: np.ndarray) -> tuple[Keypoint, ...]:
    """Points that a planner has located, on the bodies that are nearest to them.

    Args:
        composition: The task.
        request: Names and state.
        located_e: Points in the env frame [m], shape (K, 3).

    Raises:
        ScaffoldError: No surface is near one of them.
    """
    state = request.state or sample_initial_state(composition, seed=request.seed, index=request.index)
    poses, surfaces = body_poses(composition, state), body_surfaces(composition)
    return tuple(
        keypoint_snapped(point, name, surfaces, poses)[0]
        for name, point in zip(request.keypoint_names, located_e, strict=True)
    )


def make_plans(
    composition: Composition,
    planner: Planner,
    requests: Sequence[PlanRequest],
    *,
    concurrency: int = 1,
    on_plan: Callable[[int, str | None], None] | None = None,
) -> list[Plan | str]:
    """Makes several plans, some of them at the same time.

    Args:
        composition: The task.
        planner: Who plans.
        requests: What is asked for.
        concurrency: Plans made at the same time.
        on_plan: Called after each plan, in their order, with its index and, if it failed, the reason.

    Returns:
        For each request its plan, or why there is none.

    Raises:
        LedgerError: A call to a model could not be recorded: the disk is full.
    """

    def one(request: PlanRequest) -> Plan | str:
        try:
            return make_plan(composition, planner, request)
        except LedgerError:
            raise
        except ScaffoldError as error:
            return str(error)

    made: list[Plan | str] = []
    with ThreadPoolExecutor(concurrency) as pool:
        if planner.batch > 1:
            list(pool.map(planner.prepare, batched(requests, planner.batch)))
        for request, plan in zip(requests, pool.map(one, requests), strict=True):
            made.append(plan)
            if on_plan:
                on_plan(request.index, plan if isinstance(plan, str) else None)
    return made


def make_library(
    composition: Composition,
    planner: Planner,
    *,
    count: int,
    seed: int,
    noise: float = 0.0,
    waypoint_count: int | None = None,
    split: str | None = None,
    images: Sequence[RgbdImage] | None = None,
    concurrency: int = 1,
    on_plan: Callable[[int, str | None], None] | None = None,
) -> PlanLibrary:
    """Makes plans 0..count - 1 of a seed, several at a time; a plan that fails is left out and reported.

    Args:
        composition: The task.
        planner: Who plans.
        count: Number of plans.
        seed: Seed; each seed gives other initial states.
        noise: Standard deviation of the noise added to the waypoints [m] (Scaffolds, appendix E.3).
        waypoint_count: n; None takes the oracle's.
        split: Name of the split that the seed is of, for the header.
        images: Picture of each initial state, for a planner that needs one.
        concurrency: Plans made at the same time.
        on_plan: Called after each plan with its index and, if it failed, the reason.

    Raises:
        ScaffoldError: Not one plan succeeded, or the noise is negative or not finite.
        LedgerError: A call to a model could not be recorded: the disk is full.
    """
    if not 0 <= noise < np.inf:
        raise ScaffoldError(
            f"{composition.task.name}: the noise of the waypoints has standard deviation {noise} m; allowed: 0 or more."
        )
    requests = [
        make_request(
            composition, seed=seed, index=index, waypoint_count=waypoint_count, image=images[index] if images else None
        )
        for index in range(count)
    ]
    made = make_plans(composition, planner, requests, concurrency=concurrency, on_plan=on_plan)
    plans = [with_waypoint_noise(p, sigma=noise, seed=seed) if noise > 0 else p for p in made if isinstance(p, Plan)]
    failures = {str(index): why for index, why in enumerate(made) if isinstance(why, str)}
    if not plans:
        raise ScaffoldError(f"none of {count} plans succeeded; the first failed because: {failures['0']}")
    header = {"planner": planner.name, "seed": seed, "waypoint_noise_m": noise, "asked": count, "failures": failures}
    header |= {"split": split} if split else {}
    return PlanLibrary(plans=tuple(plans), header=header | planner.header)


def scripted_library(composition: Composition, *, count: int, seed: int, noise: float = 0.0) -> PlanLibrary:
    """A library of the scripted oracle's plans, in memory and without a simulator."""
    return make_library(composition, ScriptedPlanner(composition.task.oracle), count=count, seed=seed, noise=noise)


def still_library(composition: Composition, *, count: int, seed: int) -> PlanLibrary:
    """Plans in which nothing moves, one for each of the initial states 0..count - 1 of a seed, to restore and render.

    Plan i is that of state i, also where the oracle has no plan.
    """

    def still(index: int) -> Plan:
        state = sample_initial_state(composition, seed=seed, index=index)
        request = make_request(composition, seed=seed, index=index, state=state)
        return Plan(
            task=request.task,
            keypoints=request.keypoints,
            keypoints_e=np.stack([request.keypoints_e] * 2),
            wrist_e=np.stack([state["hand"]] * 2),
            initial_state=state,
            provenance={"seed": seed, "index": index},
        )

    return PlanLibrary(tuple(still(index) for index in range(count)))


def split_seed(task: str, split: str, seed: int = 0) -> int:
    """Seed of a named split (``train1``, ``test``, ...): a digest, the same on every machine.

    Args:
        task: Task name.
        split: Name of the split.
        seed: Another seed than 0 gives other splits of the same names.
    """
    name = f"{task}/{split}/{seed}" if seed else f"{task}/{split}"
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
