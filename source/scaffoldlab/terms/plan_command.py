"""The plan as an Isaac Lab command: samples a plan at reset, restores its initial state, measures the tracking."""

# Isaac Lab marks fields that must be set by MISSING, whatever their type.
# pyright: reportAssignmentType=false

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import MISSING
from typing import TYPE_CHECKING, Any, cast

import torch
from isaaclab.managers import CommandTerm, CommandTermCfg
from isaaclab.utils import configclass

from scaffoldlab.keypoints.distance import KeypointDistance
from scaffoldlab.planners.making import scripted_library
from scaffoldlab.plans.library import PlanBatch, PlanLibrary
from scaffoldlab.plans.targets import PlanTargets
from scaffoldlab.specs.bodies import body_names
from scaffoldlab.specs.models import Composition, load_task
from scaffoldlab.terms.robot import HandRobot
from scaffoldlab.terms.success import SuccessCondition

if TYPE_CHECKING:
    import numpy as np
    from isaaclab.assets import Articulation, RigidObject
    from isaaclab.envs import ManagerBasedRLEnv

    from scaffoldlab.plans.plan import Plan


class PlanCommand(PlanTargets, CommandTerm):
    """Samples a plan for each env at reset and measures how well it is tracked.

    All positions are in the env frame [m]. ``step`` counts control steps of the episode itself rather than
    reading the env's ``episode_length_buf``, which trainers randomize at the start.

    Attributes:
        step: Control step t of each episode, shape (num_envs,).
        plan_id: Plan of each env, shape (num_envs,).
        assigned: Fixed plan of each env, shape (num_envs,), or None to sample.
        lenient: True while losing the plan ends no episode (evaluation).
        succeeded: Whether the success condition has held in this episode, shape (num_envs,).
    """

    cfg: PlanCommandCfg

    def __init__(self, cfg: PlanCommandCfg, env: ManagerBasedRLEnv):
        # Before the base class, which looks at metrics and debug views.
        self.composition = load_task(cfg.task)
        super().__init__(cfg, env)
        self.scene = env.scene
        self.robot = HandRobot(env, self.composition)
        self.succeeded = torch.zeros(self.num_envs, dtype=torch.bool, device=self.device)
        self.step = torch.zeros(self.num_envs, dtype=torch.long, device=self.device)
        self.plan_id = torch.zeros(self.num_envs, dtype=torch.long, device=self.device)
        self.assigned: torch.Tensor | None = None
        self.lenient = False
        self._measured_at = -1
        self._env_ids = torch.arange(self.num_envs, device=self.device)
        self._body_names = body_names(self.composition)
        self._bodies = [self._body(name) for name in self._body_names]
        self.distance = KeypointDistance(
            num_envs=self.num_envs,
            num_keypoints=len(self.composition.task.keypoints),
            num_bodies=len(self._bodies),
            delta=cfg.threshold,
            beta=cfg.beta,
            reduction=cfg.reduction,  # type: ignore[arg-type]
            device=str(self.device),
        )
        for column, (view, static) in enumerate(self._bodies):
            if view is None:
                self.body_poses[:, column] = torch.as_tensor(static, dtype=torch.float32, device=self.device)
        self.metrics = {
            name: torch.zeros(self.num_envs, device=self.device) for name in ("success", "tracking_error", "completed")
        }
        self.success = SuccessCondition(self.composition, self)
        self.use(_library(cfg, self.composition))

    # --- the plan -----------------------------------------------------------------------------------------------

    @property
    def command(self) -> torch.Tensor:
        """Keypoint and wrist targets of this step, shape (num_envs, 3 K + 6)."""
        return torch.cat([self.keypoint_targets.flatten(1), self.wrist_targets], -1)

    @property
    def keypoint_targets(self) -> torch.Tensor:
        """Planned keypoint positions at this step [m], shape (num_envs, K, 3)."""
        return self.distance.target

    @property
    def steps(self) -> int:
        """T, control steps of an episode."""
        return self.cfg.steps

    def use(self, library: PlanLibrary) -> None:
        """Switches to another library of the same task; takes effect at each env's next reset.

        Call it with a reset of all envs: running episodes would see the new plans.
        """
        batch: PlanBatch = library.batch(self.cfg.steps)
        self.library = library
        tensor = self._tensor
        self.keypoint_tracks, self.wrist_tracks = tensor(batch.keypoints_e), tensor(batch.wrist_e)
        self.initial_states = {name: tensor(a) for name, a in batch.initial_state.items()}
        self.robot.prepare(self.initial_states["hand"])
        columns = [self._body_names.index(name) for name in batch.body_names]
        self._plan_bodies = torch.tensor(columns, device=self.device)[tensor(batch.body_index, torch.long)].int()
        self._plan_points = tensor(batch.point_b)

    def assign(self, plan_ids: torch.Tensor | None) -> None:
        """Fixes the plan of each env at its next resets, shape (num_envs,); None samples again."""
        self.assigned = plan_ids

    def replan(self, env_ids: torch.Tensor, plans: Sequence[Plan]) -> None:
        """Gives running episodes other plans for the control steps that remain; their next reset forgets them.

        The targets change from this step on, so that a plan should begin at the present state (:meth:`state`).

        Args:
            env_ids: Envs, shape (M,).
            plans: M plans of the task. Each is stretched over the steps that its env has left, at least 2.
        """
        keypoints, wrists = self.keypoint_tracks[self.plan_id[env_ids]], self.wrist_tracks[self.plan_id[env_ids]]
        for row, (step, plan) in enumerate(zip(self.step[env_ids].tolist(), plans, strict=True)):
            keypoint_track, wrist_track = plan.tracks(self.steps - step)
            keypoints[row, step:], wrists[row, step:] = self._tensor(keypoint_track), self._tensor(wrist_track)
        rows = len(self.keypoint_tracks) + torch.arange(len(plans), device=self.device)
        bodies = [[self._body_names.index(k.body) for k in plan.keypoints] for plan in plans]
        points = [[k.point_b for k in plan.keypoints] for plan in plans]
        self.keypoint_tracks = torch.cat([self.keypoint_tracks, keypoints])
        self.wrist_tracks = torch.cat([self.wrist_tracks, wrists])
        self.plan_id[env_ids] = rows  # beyond the library: no reset samples them
        self.distance.body_index[env_ids] = self._tensor(bodies, torch.int32)
        self.distance.point_b[env_ids] = self._tensor(points)
        self._refresh()

    def state(self, env_id: int) -> dict[str, np.ndarray]:
        """The present state of an env in the form of :attr:`Plan.initial_state`; the hand turned as planned."""
        hand = torch.cat([self.robot.wrist[env_id, :3], self.wrist_targets[env_id, 3:]])
        state = {"hand": hand}
        for name in (n for n in self.initial_states if n != "hand"):
            spec, parts = self.composition.scene.asset(name, ""), []
            if self.composition.is_free(spec):
                pose = cast("RigidObject | Articulation", self.scene[name]).data.root_link_pose_w.torch[env_id]
                parts += [pose[:3] - self.scene.env_origins[env_id], pose[3:]]
            if spec.joints:
                asset = cast("Articulation", self.scene[name])
                joints, _ = asset.find_joints(list(spec.joints), preserve_order=True)
                parts.append(asset.data.joint_pos.torch[env_id][list(cast("list[int]", joints))])
            state[name] = torch.cat(parts)
        return {name: value.cpu().double().numpy().copy() for name, value in state.items()}

    def _tensor(self, values: Any, dtype: torch.dtype = torch.float32) -> torch.Tensor:
        return torch.as_tensor(values, dtype=dtype, device=self.device)

    def snapshot(self) -> dict[str, Any]:
        """Everything that :meth:`resume` needs to take the running episodes up again."""
        tensors = {name: tensor.clone() for name, tensor in self._running().items()}
        joints = {
            name: (asset.data.joint_pos.torch.clone(), asset.data.joint_vel.torch.clone())
            for name, asset in self.scene.articulations.items()
        }
        free = {name: asset for name, asset in self.scene.articulations.items() if not asset.is_fixed_base}
        roots = {
            name: (asset.data.root_link_pose_w.torch.clone(), asset.data.root_com_vel_w.torch.clone())
            for name, asset in {**self.scene.rigid_objects, **free}.items()
        }
        return {
            "library": self.library, "assigned": self.assigned, "lenient": self.lenient,
            "tensors": tensors, "joints": joints, "roots": roots,
        }  # fmt: skip

    def resume(self, snapshot: dict[str, Any]) -> None:
        """Takes up the episodes of a snapshot, the state of the scene included."""
        for name, (pose, velocity) in snapshot["roots"].items():
            self.scene[name].write_root_pose_to_sim_index(root_pose=pose)
            self.scene[name].write_root_velocity_to_sim_index(root_velocity=velocity)
        for name, (position, velocity) in snapshot["joints"].items():
            self.scene.articulations[name].write_joint_state_to_sim_index(position=position, velocity=velocity)
        self.use(snapshot["library"])
        self.assigned, self.lenient = snapshot["assigned"], snapshot["lenient"]
        for name, tensor in self._running().items():
            tensor.copy_(snapshot["tensors"][name])
        self.robot.send_target()

    def _running(self) -> dict[str, torch.Tensor]:
        """Buffers that belong to the running episodes."""
        own = {"step": self.step, "plan_id": self.plan_id, "succeeded": self.succeeded, "robot": self.robot.target}
        names = ("body_index", "point_b", "target", "position", "error", "reward", "exceeded")
        return own | {name: getattr(self.distance, name) for name in names} | self.metrics | self.success.running()

    # --- the measurement ----------------------------------------------------------------------------------------

    def measure(self) -> KeypointDistance:
        """Tracking after this control step; computed once a step, by whichever term asks first."""
        if self._measured_at != self._env.common_step_counter:
            self._measured_at = self._env.common_step_counter
            self.step += 1
            self._refresh()
            self.success.update()
            self.succeeded |= self.success()
        return self.distance

    @property
    def keypoints(self) -> torch.Tensor:
        """Positions of the plan's keypoints now [m], shape (num_envs, K, 3)."""
        return self.distance.position

    def keypoint_error(self) -> torch.Tensor:
        """Distance of the plan's keypoints from the task's own, the largest of the K [m], shape (num_envs,).

        It is zero for the oracle, and what a model's pointing is off by.
        """
        true = torch.stack([self.success.position(k.name) for k in self.composition.task.keypoints], 1)
        return (self.keypoints - true).norm(dim=-1).amax(-1)

    @property
    def action_dim(self) -> int:
        """Size of the action that follows the plan."""
        return self._env.action_manager.total_action_dim

    @property
    def body_poses(self) -> torch.Tensor:
        """Poses of the scene's bodies now, xyz [m] + quat_xyzw, shape (num_envs, B, 7)."""
        return self.distance.body_poses

    def body_column(self, name: str) -> int:
        """Column of a body in :attr:`body_poses`."""
        return self._body_names.index(name)

    def _refresh(self) -> None:
        origins = self.scene.env_origins
        for column, (view, _) in enumerate(self._bodies):
            if view is not None:
                pose = view()
                torch.sub(pose[:, :3], origins, out=self.body_poses[:, column, :3])
                self.body_poses[:, column, 3:] = pose[:, 3:]
        self.distance.target.copy_(self.keypoint_tracks[self.plan_id, self.step.clamp(max=self.steps - 1)])
        self.distance.compute()

    # --- Isaac Lab's hooks --------------------------------------------------------------------------------------

    def _update_metrics(self) -> None:
        self.measure()
        self.metrics["success"][:] = self.succeeded.float()
        self.metrics["tracking_error"][:] = self.distance.error
        self.metrics["completed"][:] = self.step / self.steps

    def _update_command(self) -> None:
        pass

    def _resample_command(self, env_ids: Sequence[int] | slice) -> None:
        ids = self._env_ids[env_ids]
        if self.assigned is not None:
            self.plan_id[ids] = self.assigned[ids]
        else:
            self.plan_id[ids] = torch.randint(len(self.library), (len(ids),), device=self.device)
        self.step[ids] = 0
        self.succeeded[ids] = False
        plan = self.plan_id[ids]
        self.distance.body_index[ids] = self._plan_bodies[plan]
        self.distance.point_b[ids] = self._plan_points[plan]
        self._restore(ids, plan)
        # The state was just made to agree with the plan, so the plan is the measurement.
        self.distance.position[ids] = self.keypoint_tracks[plan, 0]
        self.distance.target[ids] = self.keypoint_tracks[plan, 0]
        self.distance.error[ids] = 0.0

    def _restore(self, ids: torch.Tensor, plan: torch.Tensor) -> None:
        """Sets the exact initial state that each plan was made for."""
        ids32 = ids.int()
        for name, states in self.initial_states.items():
            values = states[plan]
            if name == "hand":
                self.robot.restore(ids, values)
                continue
            spec = self.composition.scene.asset(name, "")
            if self.composition.is_free(spec):
                pose, values = values[:, :7].clone(), values[:, 7:]
                pose[:, :3] += self.scene.env_origins[ids]
                asset = cast("RigidObject | Articulation", self.scene[name])
                asset.write_root_pose_to_sim_index(root_pose=pose, env_ids=ids32)
                asset.write_root_velocity_to_sim_index(root_velocity=torch.zeros_like(pose[:, :6]), env_ids=ids32)
            if spec.joints:
                asset = cast("Articulation", self.scene[name])
                joints, _ = asset.find_joints(list(spec.joints), preserve_order=True)
                asset.write_joint_state_to_sim_index(
                    position=values, velocity=torch.zeros_like(values), joint_ids=joints, env_ids=ids32
                )

    # --- bodies -------------------------------------------------------------------------------------------------

    def _body(self, name: str):
        """A function that returns a body's pose in the world, or the fixed env-frame pose of a static one."""
        asset_name, _, link = name.partition("/")
        spec = self.composition.scene.asset(asset_name, str(self.composition.source))
        if spec.kind == "static":
            return None, spec.pose()
        asset = self.scene[asset_name]
        if spec.kind == "rigid":
            return (lambda: asset.data.root_link_pose_w.torch), None
        (index,), _ = asset.find_bodies(link)
        return (lambda: asset.data.body_link_pose_w.torch[:, index]), None


def _library(cfg: PlanCommandCfg, composition: Composition) -> PlanLibrary:
    """The library of the configuration, or the oracle's plans when none is named."""
    if cfg.library:
        return PlanLibrary.load(cfg.library, task=cfg.task)
    return scripted_library(composition, count=cfg.oracle_plans, seed=0)


@configclass
class PlanCommandCfg(CommandTermCfg):
    """Configuration of :class:`PlanCommand`."""

    class_type: type = PlanCommand
    resampling_time_range: tuple[float, float] = (1.0e9, 1.0e9)
    task: str = MISSING
    """Task name."""
    library: str = ""
    """Plan library to sample from; empty: the scripted oracle's own plans, made in memory."""
    oracle_plans: int = 64
    """Number of those plans."""
    steps: int = MISSING
    """T, control steps of an episode."""
    beta: float = 20.0
    """beta of eq. 3 [1/m]."""
    threshold: float = MISSING
    """delta_init, tracking error at which an episode is given up [m]."""
    reduction: str = "mean"
    """``mean`` over keypoints (the paper) or ``any`` of them (its code)."""
