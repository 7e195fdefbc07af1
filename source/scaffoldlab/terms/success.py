"""The success condition of a task, evaluated on the true keypoints of all envs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from isaaclab.utils.math import quat_apply

from scaffoldlab.specs.models import Displaced, JointBeyond, JointWithin, Swings

if TYPE_CHECKING:
    from scaffoldlab.specs.models import Composition, Condition, Near, OnTop, Touching, Upright
    from scaffoldlab.terms.plan_command import PlanCommand

TOUCH_FORCE = 1e-3
"""Force above which two bodies count as touching [N]; fingertips count by the same."""


class SuccessCondition:
    """Evaluates a :class:`~scaffoldlab.specs.models.Condition` tree, shape (num_envs,).

    It reads the task's own keypoints, not the plan's: a planner that located the wrong point does not
    thereby succeed. Conditions with a memory take it up in :meth:`update`, once per control step; evaluating changes
    nothing.
    """

    def __init__(self, composition: Composition, command: PlanCommand):
        self.command = command
        self.condition = composition.task.success
        self.columns = {k.name: command.body_column(k.body) for k in composition.task.keypoints}
        self.points = {k.name: torch.tensor(k.point, device=command.device) for k in composition.task.keypoints}
        leaves = [leaf for _, leaf in self.condition.leaves()]
        self.joints = {
            (leaf.asset, leaf.joint): command.scene[leaf.asset].find_joints(leaf.joint)[0][0]
            for leaf in leaves
            if isinstance(leaf, JointBeyond | JointWithin)
        }
        kinds = {Displaced: Displacement, Swings: SwingCount}
        self.memories: dict[Displaced | Swings, Displacement | SwingCount] = {
            leaf: kinds[type(leaf)](leaf, command.num_envs, command.device)
            for leaf in leaves
            if isinstance(leaf, Displaced | Swings)
        }

    def __call__(self) -> torch.Tensor:
        """Whether the condition holds now, shape (num_envs,)."""
        return self._evaluate(self.condition)

    def update(self) -> None:
        """Takes up this control step; an episode begins where its keypoints are after its first one."""
        for leaf, memory in self.memories.items():
            memory.update(self.position(leaf.keypoint), self.command.step <= 1)

    def running(self) -> dict[str, torch.Tensor]:
        """What is remembered of the running episodes, by name; all of shape (num_envs, ...)."""
        return {
            f"success_{number}_{name}": tensor
            for number, memory in enumerate(self.memories.values())
            for name, tensor in vars(memory).items()
            if isinstance(tensor, torch.Tensor)
        }

    def position(self, keypoint: str) -> torch.Tensor:
        """True position of a keypoint in the env frame [m], shape (num_envs, 3)."""
        pose = self.command.body_poses[:, self.columns[keypoint]]
        return pose[:, :3] + quat_apply(pose[:, 3:], self.points[keypoint].expand(len(pose), 3))

    def _evaluate(self, condition: Condition) -> torch.Tensor:
        if condition.all is not None:
            return torch.stack([self._evaluate(c) for c in condition.all]).all(0)
        if condition.any is not None:
            return torch.stack([self._evaluate(c) for c in condition.any]).any(0)
        name, leaf = condition.leaf
        return getattr(self, f"_{name}")(leaf)

    def _near(self, near: Near) -> torch.Tensor:
        difference = self.position(near.keypoint) - self.position(near.to)
        return difference[:, : len(near.axes)].norm(dim=-1) < near.distance

    def _on_top(self, on_top: OnTop) -> torch.Tensor:
        height = (self.position(on_top.keypoint) - self.position(on_top.of))[:, 2]
        return (height - on_top.height).abs() < on_top.tolerance

    def _joint_beyond(self, beyond: JointBeyond) -> torch.Tensor:
        return self._joint(beyond).abs() > beyond.distance

    def _joint_within(self, within: JointWithin) -> torch.Tensor:
        return self._joint(within).abs() < within.distance

    def _joint(self, leaf: JointBeyond | JointWithin) -> torch.Tensor:
        return self.command.scene[leaf.asset].data.joint_pos.torch[:, self.joints[leaf.asset, leaf.joint]]

    def _upright(self, upright: Upright) -> torch.Tensor:
        quat = self.command.body_poses[:, self.command.body_column(upright.body), 3:]
        axis = torch.eye(3, device=quat.device)["xyz".index(upright.axis)]
        up = quat_apply(quat, axis.expand(len(quat), 3))[:, 2]
        return up.clamp(-1, 1).acos().rad2deg() < upright.angle_deg

    def _touching(self, touching: Touching) -> torch.Tensor:
        force = self.command.scene[touching.sensor].data.force_matrix_w.torch
        return force[:, 0, 0].norm(dim=-1) > TOUCH_FORCE

    def _displaced(self, displaced: Displaced) -> torch.Tensor:
        return self.memories[displaced].holds()

    def _swings(self, swings: Swings) -> torch.Tensor:
        return self.memories[swings].holds()


class Displacement:
    """How far a keypoint is from where it began over ground, and how far it has ever been from that height.

    Attributes:
        start: Where the episode began [m], shape (num_envs, 3).
        moved: Distance from there over ground now [m], shape (num_envs,).
        strayed: Largest distance from the first height so far [m], shape (num_envs,).
    """

    def __init__(self, spec: Displaced, num_envs: int, device: torch.device | str):
        self.spec = spec
        self.start = torch.zeros(num_envs, 3, device=device)
        self.moved, self.strayed = torch.zeros(2, num_envs, device=device).unbind()

    def update(self, position: torch.Tensor, begins: torch.Tensor) -> None:
        """Takes up the keypoint's position [m], shape (num_envs, 3); ``begins`` marks the episodes that start here."""
        self.start[:] = torch.where(begins[:, None], position, self.start)
        away = position - self.start
        self.moved[:] = away[:, :2].norm(dim=-1)
        self.strayed[:] = torch.maximum(self.strayed * ~begins, away[:, 2].abs())

    def holds(self) -> torch.Tensor:
        """Whether it is far enough, and has kept its height if it must, shape (num_envs,)."""
        tolerance = self.spec.height_tolerance
        kept = True if tolerance is None else self.strayed < tolerance
        return (self.moved > self.spec.distance) & kept


class SwingCount:
    """Counts how often a keypoint rises by a height above its lowest point, and falls by as much from its highest.

    Attributes:
        start: Height where the episode began [m], shape (num_envs,).
        turn: Lowest height since the last fall, or highest since the last rise [m], shape (num_envs,).
        raised: Whether the rise is done and the fall is due, shape (num_envs,).
        count: Swings done, shape (num_envs,).
    """

    def __init__(self, spec: Swings, num_envs: int, device: torch.device | str):
        self.spec = spec
        self.start, self.turn = torch.zeros(2, num_envs, device=device).unbind()
        self.raised = torch.zeros(num_envs, dtype=torch.bool, device=device)
        self.count = torch.zeros(num_envs, dtype=torch.long, device=device)

    def update(self, position: torch.Tensor, begins: torch.Tensor) -> None:
        """Takes up the keypoint's position [m], shape (num_envs, 3); ``begins`` marks the episodes that start here."""
        height = position[:, 2]
        self.start[:] = torch.where(begins, height, self.start)
        self.turn[:] = torch.where(begins, height, self.turn)
        self.raised &= ~begins
        self.count *= ~begins
        self.turn[:] = torch.where(self.raised, torch.maximum(self.turn, height), torch.minimum(self.turn, height))
        turned = (height - self.turn).abs() >= self.spec.height
        if self.spec.down_to is not None:
            turned &= ~self.raised | (height < self.start + self.spec.down_to)
        self.count += turned & self.raised
        self.raised ^= turned
        self.turn[:] = torch.where(turned, height, self.turn)

    def holds(self) -> torch.Tensor:
        """Whether there were enough swings, shape (num_envs,)."""
        return self.count >= self.spec.count
