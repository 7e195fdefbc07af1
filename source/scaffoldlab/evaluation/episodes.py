"""What happened in a set of episodes, and the numbers that follow from it."""

from dataclasses import dataclass
from typing import Any

import numpy as np

KEYPOINT_LIMIT = 0.05
"""A plan whose keypoint was located further than this from the true one is a keypoint failure [m]."""

OUTCOMES = ("success", "keypoint wrong", "tracking lost", "tracked but failed")
"""Classes of an episode, in the order in which a failure is explained (Scaffolds, section 4.3)."""

REPLANNED = "deterministic, replanned"
"""Name of the policy under evaluation where plans are made again."""

ZERO_ACTION = "zero action"
"""Name of the baseline that follows the plan with an open hand."""

TIMED_CLOSES = {f"timed close at {f:.2f}": f for f in (0.30, 0.35, 0.40, 0.45, 0.50)}
"""Names of the baselines that close the fingers at a fixed time, and that fraction of the episode."""


@dataclass(frozen=True, kw_only=True)
class Episodes:
    """E episodes of one policy.

    Attributes:
        policy: ``deterministic``, ``sampled``, ``zero action``, ``timed close at 0.40``, ...
        success: Whether the success condition held at any step, shape (E,), bool.
        success_end: Whether it held at the last step, shape (E,), bool.
        error: Tracking error after each control step [m], shape (E, T - 1).
        keypoint_error: Distance of the located from the true keypoints at the start, the largest [m], shape (E,).
        threshold: delta_init, above which tracking counts as lost [m].
        plan_id: Plan of each episode, shape (E,).
    """

    policy: str
    success: np.ndarray
    success_end: np.ndarray
    error: np.ndarray
    keypoint_error: np.ndarray
    threshold: float
    plan_id: np.ndarray

    @property
    def success_rate(self) -> float:
        """Share of successful episodes."""
        return float(self.success.mean())

    @property
    def success_stderr(self) -> float:
        """Standard error of the success rate, over initial states (trials of one state are averaged first)."""
        states = np.unique(self.plan_id)
        rates = np.array([self.success[self.plan_id == s].mean() for s in states])
        return float(rates.std(ddof=1) / np.sqrt(len(rates))) if len(rates) > 1 else 0.0

    @property
    def outcome(self) -> np.ndarray:
        """Class of each episode, an index into :data:`OUTCOMES`, shape (E,)."""
        lost = ~(self.error <= self.threshold).all(1)  # NaN is lost too
        return np.where(self.success, 0, np.where(self.keypoint_error > KEYPOINT_LIMIT, 1, np.where(lost, 2, 3)))

    def summary(self) -> dict[str, Any]:
        """The numbers of this policy, as JSON values."""
        counts = np.bincount(self.outcome, minlength=len(OUTCOMES))
        return {
            "episodes": len(self.success),
            "success_rate": self.success_rate,
            "success_stderr": self.success_stderr,
            "success_at_end_rate": float(self.success_end.mean()),
            "mean_tracking_error_m": float(self.error.mean()),
            "outcomes": {name: int(count) for name, count in zip(OUTCOMES, counts, strict=True)},
        }
