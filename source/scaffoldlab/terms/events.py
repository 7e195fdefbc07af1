"""Events: domain randomization of the paper's appendix C.4, and a guard on the engine's contact buffers."""

from __future__ import annotations

from typing import TYPE_CHECKING

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
    """Raises when MuJoCo-Warp had more contacts than its buffers hold: it drops the rest and things fall through.

    Raises:
        ScaffoldError: The buffers overflowed.
    """
    from isaaclab_newton.physics import NewtonManager

    solver = getattr(NewtonManager, "_solver", None)
    data = getattr(solver, "mjw_data", None)
    if data is None:
        return
    contacts, capacity = int(data.nacon.numpy()[0]), int(data.naconmax)
    if contacts > capacity:
        raise ScaffoldError(
            f"newton_mjwarp: {contacts} contacts in {env.num_envs} envs, room for {capacity}; the engine drops the "
            "rest and objects fall through each other. Raise env.sim.physics.solver_cfg.nconmax (contacts per env)."
        )
