"""Events: domain randomization of the paper's appendix C.4, and a guard on the engine's contact buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from scaffoldlab.errors import ScaffoldError

if TYPE_CHECKING:
    from isaaclab.envs import ManagerBasedEnv


def randomize_joint_gains(
    env: ManagerBasedEnv, env_ids: torch.Tensor | None, factor: tuple[float, float] = (0.3, 3.0)
) -> None:
    """Multiplies stiffness and damping of every robot joint by U(factor), once per env. Appendix C.4."""
    robot = env.scene["robot"]
    for read, write, name in (
        (robot.data.joint_stiffness, robot.write_joint_stiffness_to_sim_index, "stiffness"),
        (robot.data.joint_damping, robot.write_joint_damping_to_sim_index, "damping"),
    ):
        gains = read.torch.clone()
        write(**{name: gains * torch.empty_like(gains).uniform_(*factor)})


def check_contact_buffers(env: ManagerBasedEnv, env_ids: torch.Tensor | None) -> None:
    """Raises when MuJoCo-Warp met more contacts or constraints than its buffers hold.

    It drops the rest, so that objects fall through each other, and only prints a line. Its record of overflows keeps
    what happened since the last check.

    Raises:
        ScaffoldError: A buffer overflowed.
    """
    from isaaclab_newton.physics import NewtonManager
    from mujoco_warp import OverflowType

    data = getattr(getattr(NewtonManager, "_solver", None), "mjw_data", None)
    if data is None:
        return
    buffers = OverflowType.NEFC | OverflowType.NJMAX_NNZ | OverflowType.BROADPHASE | OverflowType.NARROWPHASE
    seen = OverflowType(int(np.bitwise_or.reduce(data.overflow.numpy()))) & buffers
    if seen:
        raise ScaffoldError(
            f"newton_mjwarp: buffer overflow ({seen.name}) in {env.num_envs} envs with room for {data.naconmax} "
            f"contacts and {data.njmax} constraints an env; the engine drops the rest and objects fall through each "
            "other. Raise env.sim.physics.solver_cfg.nconmax (contacts per env) and njmax (constraints per env)."
        )
