"""An arm that carries the hand: wrist targets to joint targets by damped least squares (Scaffolds, appendix C.2)."""

from __future__ import annotations

from functools import cache

import numpy as np
import torch
from isaaclab.controllers import DifferentialIKController, DifferentialIKControllerCfg
from isaaclab.utils.math import (
    euler_xyz_from_quat,
    quat_apply,
    quat_conjugate,
    quat_error_magnitude,
    quat_from_euler_xyz,
    quat_mul,
)

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.geometry import quat_xyzw_from_rpy
from scaffoldlab.robots.kinematics import KinematicTree
from scaffoldlab.specs.models import Composition

SEARCH_DAMPING, SEARCH_STEPS, SEARCH_STRIDE = 0.05, 200, 0.2
"""Of the search for initial postures: lambda, steps at most, largest step of a joint [rad]."""


class Arm:
    """Kinematics of an arm with a hand, all in the env frame.

    The hand point is ``center`` [m] away from the palm, as seen from the palm at zero roll, pitch and yaw.

    Args:
        composition: A task whose robot has an arm.
        base: Pose of the arm's base, xyz [m] + quat_xyzw, shape (7,).
        device: Device of the results.
    """

    def __init__(self, composition: Composition, *, base: torch.Tensor, device: str | torch.device):
        spec = composition.robot
        assert spec.arm is not None
        self.damping, self.table_height = spec.arm.damping, composition.scene.table_height
        self._palm, self._device = spec.palm, device
        self._tree = KinematicTree(composition.usd(spec.usd), spec.wrist_joints, [spec.palm], device=device, base=base)
        palm_quat = torch.as_tensor(quat_xyzw_from_rpy(np.radians(spec.palm_rpy_deg)), dtype=torch.float32)
        self._out_of_palm = quat_conjugate(palm_quat[None].to(device))[0]
        self._rest = torch.tensor(spec.arm.rest, device=device)
        self._controller = cache(self._make_controller)
        self._known: tuple[torch.Tensor, torch.Tensor] | None = None

    def wrist(self, joints: torch.Tensor, center: torch.Tensor) -> torch.Tensor:
        """Hand point [m] and roll, pitch, yaw in -pi..pi [rad], shape (N, 7) -> (N, 6)."""
        point, quat = self._point(joints, center)
        return torch.cat([point, torch.stack(euler_xyz_from_quat(quat), -1)], -1)

    def step(self, joints: torch.Tensor, wrist: torch.Tensor, center: torch.Tensor) -> torch.Tensor:
        """Joint targets theta + J^T (J J^T + lambda^2 I)^-1 e within the limits, shape (N, 7) (eq. 5).

        Args:
            joints: Joint positions theta [rad], shape (N, 7).
            wrist: Wrist targets, shape (N, 6); their height is kept above the table (appendix C.5).
            center: Hand point seen from the palm [m], shape (3,).
        """
        if self.table_height is not None:
            wrist = wrist.clone()
            wrist[:, 2].clamp_(min=self.table_height)
        return self._damped_step(joints, wrist, center, self.damping)

    def prepare(self, wrist: torch.Tensor, center: torch.Tensor) -> None:
        """Searches the postures of wrist poses that resets will ask for, shape (M, 6).

        Raises:
            ScaffoldError: The arm does not reach one of them.
        """
        self._known = wrist.clone(), self._search(wrist, center)

    def reach(self, wrist: torch.Tensor, center: torch.Tensor) -> torch.Tensor:
        """Joint positions at which the hand is at these wrist poses, shape (N, 6) -> (N, 7)."""
        if self._known is not None:
            distance, row = (self._known[0] - wrist[:, None]).abs().amax(-1).min(1)
            if bool((distance < 1e-6).all()):
                return self._known[1][row]
        return self._search(wrist, center)

    def _search(self, wrist: torch.Tensor, center: torch.Tensor) -> torch.Tensor:
        joints = self._rest.repeat(len(wrist), 1)
        quat = quat_from_euler_xyz(wrist[:, 3], wrist[:, 4], wrist[:, 5])
        distance, worst = torch.zeros(len(wrist)), 0
        for _ in range(SEARCH_STEPS):
            target = self._damped_step(joints, wrist, center, SEARCH_DAMPING)
            joints = joints + (target - joints).clamp(-SEARCH_STRIDE, SEARCH_STRIDE)
            point, now = self._point(joints, center)
            distance = (point - wrist[:, :3]).norm(dim=-1)
            angle = quat_error_magnitude(now, quat)
            worst = int((distance + 0.1 * angle).argmax())
            if distance[worst] < 1e-4 and angle[worst] < 2e-3:
                return joints
        raise ScaffoldError(
            f"the arm does not reach the hand pose {np.round(wrist[worst].tolist(), 3).tolist()} (hand point, then "
            f"roll, pitch, yaw, env frame): it stops {float(distance[worst]):.3f} m away. Move the arm "
            "(`arm.position`, `arm.rest` of the robot file) or the task's `initial_state.hand`."
        )

    def _damped_step(
        self, joints: torch.Tensor, wrist: torch.Tensor, center: torch.Tensor, damping: float
    ) -> torch.Tensor:
        point, quat = self._point(joints, center)
        controller = self._controller(len(joints), damping)
        target_quat = quat_from_euler_xyz(wrist[:, 3], wrist[:, 4], wrist[:, 5])
        controller.set_command(torch.cat([wrist[:, :3], target_quat], -1))
        jacobian = self._tree.jacobian(joints, self._palm, point)
        return controller.compute(point, quat, jacobian, joints).clamp(*self._tree.limits)

    def _point(self, joints: torch.Tensor, center: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Hand point and the orientation that roll, pitch, yaw describe, shapes (N, 3) and (N, 4)."""
        palm = self._tree.poses(joints)[:, 0]
        quat = quat_mul(palm[:, 3:], self._out_of_palm.expand(len(palm), 4))
        return palm[:, :3] + quat_apply(quat, center.expand(len(palm), 3)), quat

    def _make_controller(self, count: int, damping: float) -> DifferentialIKController:
        cfg = DifferentialIKControllerCfg(command_type="pose", ik_method="dls", ik_params={"lambda_val": damping})
        return DifferentialIKController(cfg, num_envs=count, device=str(self._device))
