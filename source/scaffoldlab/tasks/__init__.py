"""Isaac Lab environments of all tasks; importing this package registers them (entry point ``isaaclab.tasks``)."""

import logging

import gymnasium as gym

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.specs.models import load_task
from scaffoldlab.specs.paths import list_named
from scaffoldlab.tasks import cpu
from scaffoldlab.tasks.configs import KINDS

cpu.apply()


def _register(name: str) -> None:
    entry_points = {f"{kind}_cfg_entry_point": f"scaffoldlab.tasks.configs:{kind}_{name}" for kind in KINDS}
    gym.register(
        id=load_task(name).task.env_id,
        entry_point="isaaclab.envs:ManagerBasedRLEnv",
        disable_env_checker=True,
        kwargs={**entry_points, "default_agent": "rsl_rl_cfg_entry_point"},
    )


for _name in list_named("task"):
    try:
        _register(_name)
    except ScaffoldError as error:  # one broken file must not take the other tasks away
        logging.getLogger(__name__).error("%s\nThis task is not registered.", error)
