"""What plans ask for now and next: the lookup that the plan command of the envs and a robot's plan share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch


class PlanTargets:
    """Targets of the plans that N robots follow.

    Attributes:
        keypoint_tracks: Keypoint targets of P plans in the env frame [m], shape (P, T, K, 3).
        wrist_tracks: Hand point [m] and roll, pitch, yaw [rad] of P plans, shape (P, T, 6).
        plan_id: Which plan each follows, shape (N,).
        step: Control step t of each, shape (N,); after the last one the plan stays where it ends.
    """

    keypoint_tracks: torch.Tensor
    wrist_tracks: torch.Tensor
    plan_id: torch.Tensor
    step: torch.Tensor

    @property
    def wrist_targets(self) -> torch.Tensor:
        """Planned hand point [m] and roll, pitch, yaw [rad] at this step, shape (N, 6)."""
        return self.wrist_tracks[self.plan_id, self.step.clamp(max=self.wrist_tracks.shape[1] - 1)]

    @property
    def initial_keypoints(self) -> torch.Tensor:
        """Planned keypoint positions at the start [m], shape (N, K, 3)."""
        return self.keypoint_tracks[self.plan_id, 0]

    def future(self, offsets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Keypoint and wrist targets at steps ahead, shapes (N, H, K, 3) and (N, H, 6)."""
        at = (self.step[:, None] + offsets).clamp(max=self.wrist_tracks.shape[1] - 1)
        row = self.plan_id[:, None]
        return self.keypoint_tracks[row, at], self.wrist_tracks[row, at]
