"""Closed-loop planning: where a plan is not followed, the planner is told so and plans again from the present state."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.planners.making import STEP_S, make_plans, make_request

if TYPE_CHECKING:
    from scaffoldlab.camera import RgbdImage
    from scaffoldlab.planners.base import Planner
    from scaffoldlab.plans.plan import Plan
    from scaffoldlab.terms.plan_command import PlanCommand


class Replanner:
    """Plans again in the middle of an episode (beyond the paper, whose plans are made once, at the start).

    An env is due when its tracking error has been above ``error`` for ``steps`` control steps, enough of the episode
    is left, and it has not succeeded. The planner gets the present state, a picture of it if it needs one, and what
    went wrong in words (``PlanRequest.feedback``). The new plan is for the steps that remain. Where the planner has
    none, the old one stays.

    Args:
        planner: Who plans; any planner.
        error: Tracking error [m]; None takes half of the task's delta_init, to which training anneals it.
        steps: Control steps in a row that it lasts.
        limit: New plans in an episode at most.
        least: Control steps that must be left.
        concurrency: Plans made at the same time.

    Attributes:
        pictures: Takes a picture of each of some envs as it is now; set before :meth:`begin` if the planner needs any.
        count: New plans so far.
        failures: Why there were none, one text each.
        model: The model that has written them, if it was one.
    """

    def __init__(
        self,
        planner: Planner,
        *,
        error: float | None = None,
        steps: int = 20,
        limit: int = 1,
        least: int = 60,
        concurrency: int = 4,
    ) -> None:
        if (error is not None and not error > 0) or min(steps, limit, concurrency) < 1 or least < 2:
            raise ScaffoldError(
                f"replanner: error is {error} m, steps {steps}, limit {limit}, concurrency {concurrency}, least "
                f"{least}; allowed: above 0, at least 1, 1 and 1, and at least 2."
            )
        self.planner, self.error, self.steps, self.limit, self.least = planner, error, steps, limit, least
        self.pictures: Callable[[Sequence[int]], Sequence[RgbdImage]] | None = None
        self.count, self.failures, self.model = 0, list[str](), ""
        self._concurrency = concurrency

    def begin(self, plan: PlanCommand, count: int) -> None:
        """Starts new episodes in the first ``count`` envs; the others are left alone.

        Raises:
            ScaffoldError: The planner needs pictures, and there is no camera to take them.
        """
        if self.planner.needs_image and self.pictures is None:
            raise ScaffoldError(
                f"replanner: the {self.planner.name} planner needs pictures of the present, and `pictures` is None; "
                "set it to a function of env ids, e.g. to `take_pictures` of an env with a camera."
            )
        self._above = torch.zeros(plan.num_envs, dtype=torch.long, device=plan.device)
        self._plan_ids = plan.plan_id.tolist()
        self._left = torch.where(torch.arange(plan.num_envs, device=plan.device) < count, self.limit, 0)

    def step(self, plan: PlanCommand) -> bool:
        """Looks at the tracking after a control step, and says whether any env has a new plan."""
        threshold = plan.cfg.threshold / 2 if self.error is None else self.error
        followed = plan.distance.error <= threshold  # NaN is not followed
        self._above = torch.where(followed, 0, self._above + 1)
        time = plan.step <= plan.steps - self.least
        due = (self._above >= self.steps) & (self._left > 0) & time & ~plan.succeeded
        ids = due.nonzero().flatten()
        if not len(ids):
            return False
        self._left[ids] -= 1
        self._above[ids] = 0
        made = self._plans(plan, ids.tolist(), threshold)
        if made:
            plan.replan(torch.tensor(list(made), device=plan.device), list(made.values()))
        self.count += len(made)
        return bool(made)

    def _plans(self, plan: PlanCommand, ids: list[int], threshold: float) -> dict[int, Plan]:
        """New plans by env, without those that could not be made."""
        images = self.pictures(ids) if self.planner.needs_image and self.pictures else [None] * len(ids)
        requests = {}
        for env, image in zip(ids, images, strict=True):
            before = plan.library.plans[self._plan_ids[env]]
            requests[env] = make_request(
                plan.composition,
                seed=before.provenance.get("seed", 0),
                index=before.provenance.get("index", env),
                waypoint_count=plan.library.waypoint_count,
                image=image,
                state=plan.state(env),
                feedback=feedback(plan, env, threshold, self.steps),
                control_steps=plan.steps - int(plan.step[env]),
            )

        made = make_plans(plan.composition, self.planner, list(requests.values()), concurrency=self._concurrency)
        self.failures += [why for why in made if isinstance(why, str)]
        plans = {env: new for env, new in zip(requests, made, strict=True) if not isinstance(new, str)}
        self.model = next((m for p in plans.values() if (m := p.provenance.get("model"))), self.model)
        return plans


def feedback(plan: PlanCommand, env: int, threshold: float, steps: int) -> str:
    """What went wrong in an episode, in words for a model: how far everything is from where the plan has it."""
    step = int(plan.step[env])
    names = [k.name for k in plan.composition.task.keypoints]
    offsets = [*(plan.keypoints - plan.keypoint_targets)[env], (plan.robot.wrist - plan.wrist_targets)[env, :3]]
    off = "; ".join(
        f"the {name} is {float(offset.norm()):.2f} m from its planned position, by "
        f"[{', '.join(f'{v:.2f}' for v in (offset + 0.0).tolist())}]"
        for name, offset in zip([*names, "hand"], offsets, strict=True)
    )
    return (
        f"You are in the middle of the task: {step * STEP_S:.1f} of {plan.steps * STEP_S:.1f} seconds are over. The "
        f"plan until now was not followed: for {steps * STEP_S:.1f} seconds things have been more than "
        f"{threshold:.2f} m off on average. Now {off}. The initial positions below are those of this moment. "
        "Plan the rest from there."
    )
