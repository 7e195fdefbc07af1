"""Composes a scene, a robot and a task into one Isaac Lab manager-based environment configuration."""

# A preset stands where its value will be; Isaac Lab resolves it, the type checker cannot.
# pyright: reportArgumentType=false

import math
from collections.abc import Iterable
from typing import Any

import isaaclab.sim as sim_utils
import numpy as np
from isaaclab.actuators import ImplicitActuatorCfg
from isaaclab.assets import ArticulationCfg, AssetBaseCfg, RigidObjectCfg
from isaaclab.envs import ManagerBasedRLEnvCfg
from isaaclab.managers import (
    CurriculumTermCfg,
    EventTermCfg,
    ObservationGroupCfg,
    ObservationTermCfg,
    RewardTermCfg,
    TerminationTermCfg,
)
from isaaclab.scene import InteractiveSceneCfg
from isaaclab.sensors import ContactSensorCfg
from isaaclab.sim import SimulationCfg
from isaaclab.utils import configclass
from isaaclab.utils.noise import GaussianNoiseCfg
from isaaclab_tasks.utils import preset

from scaffoldlab.geometry import quat_xyzw_from_rpy
from scaffoldlab.specs.models import AssetSpec, Composition, DriveSpec, Touching, load_task
from scaffoldlab.tasks.cpu_settings import set_cpu_fields
from scaffoldlab.tasks.physics import DECIMATION, PHYSICS_DT, PhysicsPresets
from scaffoldlab.terms import actions, curricula, events, observations, plan_command, rewards, terminations

HORIZON_OFFSETS = (0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 20, 30, 40, 50, 60)
"""Steps ahead at which the policy sees the plan: the 14 of the paper's code and one more, for the paper's 15."""
PAPER_STEPS = 300


def make_env_cfg(task: str) -> ManagerBasedRLEnvCfg:
    """A fresh environment configuration of a task; nothing is simulated yet.

    Args:
        task: Task name, e.g. ``move_apple``.

    Presets: ``physics=`` the engine; ``presets=paper`` T = 300 and the wide action clips of the paper;
    ``presets=randomized`` the domain randomization of its appendix C.4; ``presets=cpu`` what a CPU learns with.
    """
    composition = load_task(task)
    cfg = ScaffoldEnvCfg()
    cfg.scene = make_scene_cfg(composition)
    spec = composition.task
    plan = cfg.commands.plan
    plan.task, plan.threshold, plan.reduction = task, spec.termination.threshold, spec.termination.reduction
    plan.beta = preset(default=20.0, cpu=40.0)
    # An arm takes twice as long (appendix C.5).
    paper_steps = PAPER_STEPS * (2 if composition.robot.arm else 1)
    steps = {"default": spec.episode_steps, "paper": max(paper_steps, spec.episode_steps)}
    plan.steps = preset(**steps)
    cfg.episode_length_s = preset(**{name: count * DECIMATION * PHYSICS_DT for name, count in steps.items()})
    cfg.actions.hand.fingers = spec.grasp.actions
    cfg.rewards.fingertip_contact.params = {"sensors": tuple(spec.contact_sensors)}
    arm = composition.robot.arm
    if arm:
        # Appendix C: the same policy over an arm, within what the arm can do.
        cfg.actions.hand.position_limit = preset(default=arm.position_limit, paper=0.1)
        cfg.actions.hand.rotation_limit = math.radians(arm.rotation_limit_deg)
        cfg.actions.hand.gamma = preset(default=arm.action_average, paper=0.98)
        cfg.actions.hand.damping = preset(default=arm.damping, paper=0.5)
    camera = composition.scene.camera
    cfg.viewer.eye, cfg.viewer.lookat = camera.eye, camera.target
    set_cpu_fields(composition, "env", cfg)
    return cfg


def make_scene_cfg(composition: Composition) -> InteractiveSceneCfg:
    """The scene's assets, the robot, the contact sensors of the task's object, and a light."""
    scene = InteractiveSceneCfg(num_envs=preset(default=256, paper=2048), env_spacing=2.5)
    for asset in composition.scene.assets:
        setattr(scene, asset.name, _asset_cfg(composition, asset))
    scene.robot = _robot_cfg(composition)
    tips = composition.robot.fingertips.values()
    for name, body in composition.task.contact_sensors.items():
        # One for each body: filtered sensors of several bodies are not to be had on every engine.
        sensor = ContactSensorCfg(
            prim_path=f"{{ENV_REGEX_NS}}/{body}",
            filter_prim_paths_expr=[f"{{ENV_REGEX_NS}}/robot/{tip}" for tip in tips],
        )
        setattr(scene, name, sensor)
    for _, leaf in composition.task.success.leaves():
        if isinstance(leaf, Touching):
            sensor = ContactSensorCfg(
                prim_path=f"{{ENV_REGEX_NS}}/{leaf.body}", filter_prim_paths_expr=[f"{{ENV_REGEX_NS}}/{leaf.other}"]
            )
            setattr(scene, leaf.sensor, sensor)
    scene.light = AssetBaseCfg(
        prim_path="/World/light", spawn=sim_utils.DomeLightCfg(intensity=2000.0, color=(0.9, 0.9, 0.9))
    )
    return scene


def _asset_cfg(composition: Composition, asset: AssetSpec) -> Any:
    pose = asset.pose().tolist()  # plain numbers: a configuration prints as YAML
    path = f"{{ENV_REGEX_NS}}/{asset.name}"
    spawn = sim_utils.UsdFileCfg(
        usd_path=str(composition.usd(asset.usd)), activate_contact_sensors=asset.kind != "static"
    )
    if asset.kind == "static":
        # A static collider: a kinematic body floods the log at every reset.
        state = AssetBaseCfg.InitialStateCfg(pos=tuple(pose[:3]), rot=tuple(pose[3:]))
        return AssetBaseCfg(prim_path=path, spawn=spawn, init_state=state)
    if asset.kind == "rigid":
        state = RigidObjectCfg.InitialStateCfg(pos=tuple(pose[:3]), rot=tuple(pose[3:]))
        return RigidObjectCfg(prim_path=path, spawn=spawn, init_state=state)
    actuators = {
        name: ImplicitActuatorCfg(
            joint_names_expr=[name],
            stiffness=0.0,
            damping=j.damping,
            friction=j.friction,
            dynamic_friction=j.friction,  # PhysX forgets a static friction as soon as the joint moves
        )
        for name, j in asset.joints.items()
    }
    state = ArticulationCfg.InitialStateCfg(pos=tuple(pose[:3]), rot=tuple(pose[3:]))
    return ArticulationCfg(prim_path=path, spawn=spawn, init_state=state, actuators=actuators)


def _robot_cfg(composition: Composition) -> ArticulationCfg:
    robot, grasp = composition.robot, composition.task.grasp
    start = {j: a for finger, joints in robot.fingers.items() for j, a in zip(joints, grasp.open[finger], strict=True)}
    hand = composition.task.initial_state.hand
    base = (0.0, 0.0, 0.0), 0.0
    if robot.arm:
        base = robot.arm.position, robot.arm.yaw_deg
        start |= dict(zip(robot.wrist_joints, robot.arm.rest, strict=True))
    else:
        start |= dict(zip(robot.wrist_joints[:3], (float(np.mean(r)) for r in (hand.x, hand.y, hand.z)), strict=True))
    quat = quat_xyzw_from_rpy(np.radians([0, 0, base[1]])).tolist()
    return ArticulationCfg(
        prim_path="{ENV_REGEX_NS}/robot",
        spawn=sim_utils.UsdFileCfg(usd_path=str(composition.usd(robot.usd)), activate_contact_sensors=True),
        init_state=ArticulationCfg.InitialStateCfg(pos=base[0], rot=tuple(quat), joint_pos=start),
        actuators={
            "wrist": _drive(robot.wrist_joints, robot.wrist_drive),
            "fingers": _drive(robot.finger_joints, robot.finger_drive),
        },
    )


def _drive(joints: Iterable[str], drive: DriveSpec) -> ImplicitActuatorCfg:
    each = isinstance(drive.effort, list)
    return ImplicitActuatorCfg(
        joint_names_expr=list(joints),
        stiffness=drive.stiffness,
        damping=drive.damping,
        joint_effort_limit=dict(zip(joints, drive.effort, strict=True)) if each else drive.effort,
        armature=preset(default=drive.armature["ovphysx"], **drive.armature),
    )


def _proprioception(term: Any) -> ObservationTermCfg:
    """An observation of the robot itself, noisy when randomized (appendix C.4)."""
    return ObservationTermCfg(func=term, noise=preset(default=None, randomized=GaussianNoiseCfg(std=0.05)))


@configclass
class CommandsCfg:
    """The plan to follow."""

    plan: plan_command.PlanCommandCfg = plan_command.PlanCommandCfg()


@configclass
class ActionsCfg:
    """Residual of the wrist and closure of the fingers."""

    hand: actions.ResidualHandActionCfg = actions.ResidualHandActionCfg(
        position_limit=preset(default=0.05, paper=0.1), rotation_limit=preset(default=0.3, paper=1.0)
    )


@configclass
class ObservationsCfg:
    """Scaffolds, Table 4."""

    @configclass
    class PolicyCfg(ObservationGroupCfg):
        """What the policy sees."""

        joint_positions = _proprioception(observations.joint_positions)
        joint_velocities = _proprioception(observations.joint_velocities)
        action_average = _proprioception(observations.action_average)
        fingertip_poses = _proprioception(observations.fingertip_poses)
        initial_keypoints = ObservationTermCfg(func=observations.initial_keypoints)
        keypoints = ObservationTermCfg(func=observations.keypoints)
        wrist = _proprioception(observations.wrist)
        future_plan = ObservationTermCfg(
            func=observations.future_plan,
            params={"offsets": HORIZON_OFFSETS, "relative": preset(default=True, paper=False)},
        )

        def __post_init__(self):
            self.enable_corruption = True
            self.concatenate_terms = True

    policy: PolicyCfg = PolicyCfg()


@configclass
class RewardsCfg:
    """Scaffolds, eq. 3. The contact weight is 1 in the paper; 1/2 learns faster (docs/decisions)."""

    keypoint_tracking = RewardTermCfg(func=rewards.keypoint_tracking, weight=1.0)
    fingertip_contact = RewardTermCfg(func=rewards.fingertip_contact, weight=preset(default=0.5, paper=1.0))
    action_magnitude = RewardTermCfg(func=rewards.action_magnitude, weight=0.0)
    hand_to_object = RewardTermCfg(func=rewards.hand_to_object, weight=0.0)
    task_success = RewardTermCfg(func=rewards.task_success, weight=0.0)
    action_excess = RewardTermCfg(func=rewards.action_excess, weight=preset(default=0.0, cpu=-0.02))


@configclass
class TerminationsCfg:
    """Plan lost or over; success ends nothing."""

    tracking_lost = TerminationTermCfg(func=terminations.tracking_lost)
    plan_over = TerminationTermCfg(func=terminations.plan_over, time_out=True)


@configclass
class CurriculumCfg:
    """The tolerated tracking error falls to one half."""

    threshold = CurriculumTermCfg(
        func=curricula.anneal_threshold, params={"steps": preset(default=4800, paper=48000), "final_fraction": 0.5}
    )


@configclass
class EventsCfg:
    """Domain randomization (off by default) and the guard of the contact buffers."""

    joint_gains = preset(default=None, randomized=EventTermCfg(func=events.randomize_joint_gains, mode="startup"))
    contact_buffers = preset(
        default=None,
        newton_mjwarp=EventTermCfg(
            func=events.check_contact_buffers, mode="interval", interval_range_s=(0.5, 0.5), is_global_time=True
        ),
    )


@configclass
class ScaffoldEnvCfg(ManagerBasedRLEnvCfg):
    """An environment that follows keypoint plans; :func:`make_env_cfg` fills in the task."""

    scene: InteractiveSceneCfg = InteractiveSceneCfg(num_envs=256, env_spacing=2.5)
    commands: CommandsCfg = CommandsCfg()
    actions: ActionsCfg = ActionsCfg()
    observations: ObservationsCfg = ObservationsCfg()
    rewards: RewardsCfg = RewardsCfg()
    terminations: TerminationsCfg = TerminationsCfg()
    curriculum: CurriculumCfg = CurriculumCfg()
    events: EventsCfg = EventsCfg()
    decimation: int = DECIMATION
    episode_length_s: float = 5.0
    sim: SimulationCfg = SimulationCfg(dt=PHYSICS_DT, render_interval=DECIMATION, physics=PhysicsPresets())
