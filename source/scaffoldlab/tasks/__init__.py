"""Isaac Lab environments of all tasks; importing this package registers them (entry point ``isaaclab.tasks``)."""

import logging

import gymnasium as gym

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.specs.models import load_task
from scaffoldlab.specs.paths import list_named
from scaffoldlab.tasks import cpu

cpu.apply()


def _register(name: str) -> None:
    def env_cfg():
        from scaffoldlab.tasks.env_cfg import make_env_cfg

        return make_env_cfg(name)

    def agent(library: str):
        def agent_cfg():
            from scaffoldlab.tasks import agents

            return getattr(agents, library)(name)

        return agent_cfg

    gym.register(
        id=load_task(name).task.env_id,
        entry_point="isaaclab.envs:ManagerBasedRLEnv",
        disable_env_checker=True,
        kwargs={
            "env_cfg_entry_point": env_cfg,
            "rsl_rl_cfg_entry_point": agent("rsl_rl"),
            "skrl_cfg_entry_point": agent("skrl"),
            "rl_games_cfg_entry_point": agent("rl_games"),
            "default_agent": "rsl_rl_cfg_entry_point",
        },
    )


for _name in list_named("task"):
    try:
        _register(_name)
    except ScaffoldError as error:  # one broken file must not take the other tasks away
        logging.getLogger(__name__).error("%s\nThis task is not registered.", error)
