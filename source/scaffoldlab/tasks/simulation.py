"""Opening the environment of a task from Python, as Isaac Lab's own commands do."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import gymnasium as gym
import torch
from isaaclab.app import launch_simulation
from isaaclab.envs import ManagerBasedRLEnv, ManagerBasedRLEnvCfg
from isaaclab_tasks.utils import resolve_task_config

import scaffoldlab.tasks  # noqa: F401  registers the tasks
from scaffoldlab.errors import ScaffoldError, unknown_name
from scaffoldlab.specs.models import load_task

ROOTS = {
    "env": "env.path",
    "agent": "agent.path",
    "physics": "physics",
    "renderer": "renderer",
    "presets": "presets",
}
"""What an override may begin with, and how it goes on."""


def make_cfg(
    task: str, *, num_envs: int, device: str | None = None, seed: int | None = None, overrides: Sequence[str] = ()
) -> ManagerBasedRLEnvCfg:
    """The resolved environment configuration of a task.

    Args:
        task: Task name, e.g. ``move_apple``.
        num_envs: Number of envs.
        device: ``cpu``, ``cuda:0``, ...; None takes CUDA when there is any.
        seed: Seed of the env.
        overrides: Hydra overrides and presets, e.g. ``physics=newton_mjwarp``; those of the agent are passed over.

    Raises:
        ScaffoldError: Unknown task, or an override that this environment does not have.
    """
    of_env = [o for o in overrides if not o.startswith("agent.")]
    env_id = load_task(task).task.env_id
    try:
        check_paths(of_env, env=resolve_task_config(env_id, None, overrides=_presets(of_env))[0])
        cfg, _ = resolve_task_config(env_id, None, overrides=of_env)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ScaffoldError(
            f"overrides {' '.join(of_env)}: {error}. "
            f"`isaaclab train --rl_library rsl_rl --task {env_id} --help` lists the presets; docs/training.md the rest."
        ) from error
    cfg.scene.num_envs = num_envs
    cfg.sim.device = device or ("cuda:0" if torch.cuda.is_available() else "cpu")
    cfg.seed = seed
    return cast(ManagerBasedRLEnvCfg, cfg)


def check_paths(overrides: Iterable[str], **cfgs: Any) -> None:
    """Refuses overrides of fields that a configuration does not have: Isaac Lab would add them and go on.

    Args:
        overrides: Hydra overrides, e.g. ``env.commands.plan.beta=10``.
        cfgs: The configurations that they begin with, by name, e.g. ``env``.

    Raises:
        ScaffoldError: No override, or no such field, with the nearest one. Dictionaries take new keys.
    """
    for override in overrides:
        path, equals, _ = override.partition("=")
        root, *parts = path.split(".")
        if not equals or root not in ROOTS:
            raise ScaffoldError(f"override {override!r}: allowed: {', '.join(f'{r}=...' for r in ROOTS.values())}.")
        node = cfgs.get(root)
        for part in parts if node is not None else ():
            fields = list(node) if isinstance(node, dict) else [n for n in vars(node) if not n.startswith("_")]
            if part not in fields:
                if isinstance(node, dict) and part == parts[-1]:
                    break
                raise unknown_name("field", part, fields, f"override {override}")
            node = node[part] if isinstance(node, dict) else getattr(node, part)


def _presets(overrides: Iterable[str]) -> list[str]:
    return [o for o in overrides if o.startswith(("physics=", "renderer=", "presets="))]


@contextmanager
def open_env(
    task: str, *, num_envs: int, device: str | None = None, seed: int | None = None, overrides: Sequence[str] = ()
) -> Iterator[ManagerBasedRLEnv]:
    """The environment of a task, closed at the end; see :func:`make_cfg` for the arguments."""
    cfg = make_cfg(task, num_envs=num_envs, device=device, seed=seed, overrides=overrides)
    with open_cfg(cfg, load_task(task).task.env_id) as env:
        yield env


@contextmanager
def open_cfg(cfg: ManagerBasedRLEnvCfg, env_id: str) -> Iterator[ManagerBasedRLEnv]:
    """The environment of a configuration, closed at the end."""
    with launch_simulation(cfg, None):
        env = cast(ManagerBasedRLEnv, gym.make(env_id, cfg=cfg).unwrapped)
        try:
            yield env
        finally:
            env.close()


def physics_name(cfg: ManagerBasedRLEnvCfg) -> str:
    """Name of the physics preset that a configuration was resolved to."""
    names = {"OvPhysxCfg": "ovphysx", "NewtonCfg": "newton_mjwarp", "PhysxCfg": "isaacsim_physx"}
    kind = type(cfg.sim.physics).__name__
    return names.get(kind, kind)


def with_default_presets(overrides: Sequence[str], device: str | None) -> tuple[str, ...]:
    """The overrides; on a machine or device without CUDA with the preset ``cpu``, unless ``cpu`` or ``paper`` is named.

    So whoever names only ``presets=randomized`` gets the same network as who names none.
    """
    on_cpu = device == "cpu" or (device is None and not torch.cuda.is_available())
    named = [n for o in overrides if o.startswith("presets=") for n in o.removeprefix("presets=").split(",") if n]
    if not on_cpu or {"cpu", "paper"} & set(named):
        return tuple(overrides)
    others = (o for o in overrides if not o.startswith("presets="))
    return (*others, f"presets={','.join(['cpu', *named])}")
