"""Forward kinematics and Jacobians of an articulation, batched over joint positions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from isaaclab.utils.math import combine_frame_transforms, quat_apply, subtract_frame_transforms

from scaffoldlab.usd.reader import Joint, joints


class KinematicTree:
    """Where the bodies of a USD articulation are; joints that are not named stay at zero.

    Quaternions are products along the chain, as in the engines, so that their sign does not jump.

    Args:
        path: The asset.
        joint_names: Joints in the order of the joint arrays.
        bodies: Bodies that are asked for.
        device: Device of the results.
        base: Pose of the asset in the frame of the results, xyz [m] + quat_xyzw, shape (7,); None is the origin.

    Attributes:
        limits: Lower and upper joint limits [m or rad], shape (2, J).
    """

    def __init__(
        self,
        path: Path,
        joint_names: Sequence[str],
        bodies: Sequence[str],
        *,
        device: str | torch.device,
        base: torch.Tensor | None = None,
    ):
        above = {joint.child: joint for joint in joints(path)}
        needed: set[str] = set()
        for body in bodies:
            while body and body not in needed:
                needed.add(body)
                body = above[body].parent
        self._joints = [joint for joint in joints(path) if joint.child in needed]
        self._number = {joint.child: number for number, joint in enumerate(self._joints)}
        self._column = {name: column for column, name in enumerate(joint_names)}
        self._device, self.bodies = device, list(bodies)
        self._base = self._tensor([0, 0, 0, 0, 0, 0, 1]) if base is None else base
        self._in_parent = self._tensor([j.in_parent for j in self._joints])
        in_child = self._tensor([j.in_child for j in self._joints])
        self._out_of_child = torch.cat(subtract_frame_transforms(in_child[:, :3], in_child[:, 3:]), -1)  # the inverse
        self._axes = self._tensor([j.axis for j in self._joints])
        named = {joint.name: joint for joint in joints(path)}
        self.limits = self._tensor([named[name].limits for name in joint_names]).T

    def poses(self, positions: torch.Tensor) -> torch.Tensor:
        """Poses of the bodies in the frame of ``base``, xyz [m] + quat_xyzw, shape (N, J) -> (N, B, 7)."""
        poses = self._walk(positions)[0]
        return torch.stack([poses[body] for body in self.bodies], 1)

    def jacobian(self, positions: torch.Tensor, body: str, points: torch.Tensor) -> torch.Tensor:
        """Geometric Jacobian of a point that moves with a body, shape (N, 6, J): linear rows, then angular ones.

        Args:
            positions: Joint positions [m or rad], shape (N, J).
            body: One of the bodies.
            points: Where the points are [m], shape (N, 3).
        """
        _, frames = self._walk(positions)
        jacobian = positions.new_zeros(len(positions), 6, positions.shape[1])
        while body:
            number = self._number[body]
            joint, frame = self._joints[number], frames[number]
            if joint.name in self._column:
                axis = quat_apply(frame[:, 3:], self._axes[number].expand(len(frame), 3))
                column = self._column[joint.name]
                if joint.kind == "revolute":
                    jacobian[:, :3, column] = torch.linalg.cross(axis, points - frame[:, :3])
                    jacobian[:, 3:, column] = axis
                else:
                    jacobian[:, :3, column] = axis
            body = joint.parent
        return jacobian

    def _walk(self, positions: torch.Tensor) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
        """Pose of every body by name, and the frame of every joint, each (N, 7)."""
        count = len(positions)
        poses, frames = {"": self._base.expand(count, 7)}, []
        for number, joint in enumerate(self._joints):
            frame = _compose(poses[joint.parent], self._in_parent[number].expand(count, 7))
            frames.append(frame)
            moved = _compose(frame, self._motion(joint, number, positions))
            poses[joint.child] = _compose(moved, self._out_of_child[number].expand(count, 7))
        return poses, frames

    def _motion(self, joint: Joint, number: int, positions: torch.Tensor) -> torch.Tensor:
        motion = positions.new_zeros(len(positions), 7)
        motion[:, 6] = 1.0
        if joint.name in self._column:
            value, axis = positions[:, self._column[joint.name], None], self._axes[number]
            if joint.kind == "prismatic":
                motion[:, :3] = value * axis
            else:
                motion[:, 3:6], motion[:, 6:] = torch.sin(value / 2) * axis, torch.cos(value / 2)
        return motion

    def _tensor(self, values: object) -> torch.Tensor:
        return torch.as_tensor(np.asarray(values), dtype=torch.float32, device=self._device)


def _compose(outer: torch.Tensor, inner: torch.Tensor) -> torch.Tensor:
    """Pose of ``inner`` seen from the parent of ``outer``, xyz [m] + quat_xyzw, shapes (N, 7)."""
    return torch.cat(combine_frame_transforms(outer[:, :3], outer[:, 3:], inner[:, :3], inner[:, 3:]), -1)
