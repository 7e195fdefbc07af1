"""Every task's configurations by name: ``configs:env_move_apple``, ``configs:skrl_move_apple``, ...

Isaac Lab's entry points are text, and ``isaaclab list_envs`` knows a project's own tasks by it.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

from scaffoldlab.specs.paths import list_named

KINDS = ("env", "rsl_rl", "skrl", "rl_games")
"""The environment, and the agent of each RL library."""


def __getattr__(name: str) -> Callable[[], Any]:
    for kind in KINDS:
        task = name.removeprefix(f"{kind}_")
        if task != name and task in list_named("task"):
            from scaffoldlab.tasks import agents, env_cfg

            return partial(env_cfg.make_env_cfg if kind == "env" else getattr(agents, kind), task)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
