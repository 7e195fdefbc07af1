"""Writes a trained policy as one ONNX file with everything that is needed to run it on a robot."""

import contextlib
import math
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scaffoldlab.deployment.policy import PolicyMetadata
from scaffoldlab.files import write_atomic
from scaffoldlab.specs.models import load_task

if TYPE_CHECKING:
    from isaaclab.envs import ManagerBasedRLEnv
    from rsl_rl.runners import OnPolicyRunner


def export_policy(runner: "OnPolicyRunner", metadata: PolicyMetadata, path: Path) -> None:
    """Writes the deterministic policy of a runner, its observation normalisation included.

    rsl_rl writes the network; the weights are then put into the same file, with the metadata.
    """
    import onnx

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
        runner.export_policy_to_onnx(folder, "policy.onnx")
        model = onnx.load(Path(folder) / "policy.onnx")
    onnx.helper.set_model_props(model, metadata.properties())
    onnx.checker.check_model(model)
    write_atomic(path, model.SerializeToString())


def policy_metadata(env: "ManagerBasedRLEnv", task: str) -> PolicyMetadata:
    """What the policy of an open env sees and does."""
    composition = load_task(task)
    cfg: Any = env.cfg
    action = cfg.actions.hand
    future = cfg.observations.policy.future_plan.params
    manager = env.observation_manager
    sizes = [math.prod(shape) for shape in manager.group_obs_term_dim["policy"]]
    return PolicyMetadata(
        task=task,
        robot=composition.task.robot,
        joint_names=composition.robot.wrist_joints + composition.robot.finger_joints,
        keypoint_names=list(composition.task.keypoint_names),
        observation_terms=dict(zip(manager.active_terms["policy"], sizes, strict=True)),
        horizon_offsets=list(future["offsets"]),
        relative_plan=future["relative"],
        finger_actions=action.fingers,
        action_size=env.action_manager.total_action_dim,
        position_limit=action.position_limit,
        rotation_limit=action.rotation_limit,
        action_average=action.gamma,
        arm_damping=action.damping,
        control_rate_hz=round(1 / env.step_dt, 6),
        episode_steps=cfg.commands.plan.steps,
    )
