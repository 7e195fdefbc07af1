"""The success condition of a task, evaluated on the true keypoints of all envs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from isaaclab.utils.math import quat_apply

from scaffoldlab.specs.models import JointBeyond

if TYPE_CHECKING:
    from scaffoldlab.specs.models import Composition, Condition, Near, OnTop
    from scaffoldlab.terms.plan_command import PlanCommand


class SuccessCondition:
    """Evaluates a :class:`~scaffoldlab.specs.models.Condition` tree, shape (num_envs,).

    It reads the task's own keypoints, not the plan's: a planner that located the wrong point does not
    thereby succeed.
    """

    def __init__(self, composition: Composition, command: PlanCommand):
        self.command = command
        self.condition = composition.task.success
        self.columns = {k.name: command.body_column(k.body) for k in composition.task.keypoints}
        self.points = {k.name: torch.tensor(k.point, device=command.device) for k in composition.task.keypoints}
        self.joints = {
            (leaf.asset, leaf.joint): command.scene[leaf.asset].find_joints(leaf.joint)[0][0]
            for leaf in self.condition.leaves()
            if isinstance(leaf, JointBeyond)
        }

    def __call__(self) -> torch.Tensor:
        """Whether the condition holds now, shape (num_envs,)."""
        return self._evaluate(self.condition)

    def position(self, keypoint: str) -> torch.Tensor:
        """True position of a keypoint in the env frame [m], shape (num_envs, 3)."""
        pose = self.command.body_poses[:, self.columns[keypoint]]
        return pose[:, :3] + quat_apply(pose[:, 3:], self.points[keypoint].expand(len(pose), 3))

    def _evaluate(self, condition: Condition) -> torch.Tensor:
        if condition.all is not None:
            return torch.stack([self._evaluate(c) for c in condition.all]).all(0)
        if condition.any is not None:
            return torch.stack([self._evaluate(c) for c in condition.any]).any(0)
        for name in ("near", "on_top", "joint_beyond"):
            leaf = getattr(condition, name)
            if leaf is not None:
                return getattr(self, f"_{name}")(leaf)
        raise AssertionError("validated at load: a condition names exactly one kind")

    def _near(self, near: Near) -> torch.Tensor:
        difference = self.position(near.keypoint) - self.position(near.to)
        return difference[:, : len(near.axes)].norm(dim=-1) < near.distance

    def _on_top(self, on_top: OnTop) -> torch.Tensor:
        height = (self.position(on_top.keypoint) - self.position(on_top.of))[:, 2]
        return (height - on_top.height).abs() < on_top.tolerance

    def _joint_beyond(self, beyond: JointBeyond) -> torch.Tensor:
        position = self.command.scene[beyond.asset].data.joint_pos.torch[:, self.joints[beyond.asset, beyond.joint]]
        return position.abs() > beyond.distance
