"""What a task needs on a CPU beyond the usual settings, as part of ``presets=cpu`` of its configurations."""

from typing import Any, Literal

from isaaclab_tasks.utils import PresetCfg, preset

from scaffoldlab.errors import ScaffoldError, unknown_name
from scaffoldlab.specs.models import Composition


def set_cpu_fields(composition: Composition, root: Literal["env", "agent"], cfg: Any) -> None:
    """Sets the fields that the task's ``cpu.settings`` name, for ``presets=cpu`` and nothing else.

    Args:
        composition: The task.
        root: What the paths of these fields begin with.
        cfg: Configuration of the env, its presets not yet chosen, or that of the agent which is the preset ``cpu``.

    Raises:
        ScaffoldError: The configuration has no such field.
    """
    for path, value in (composition.task.cpu.settings if composition.task.cpu else {}).items():
        first, *parents, name = path.split(".")
        if first != root:
            continue
        where, node = f"{composition.source}: cpu.settings: {path}", cfg
        for part in parents:
            node = _fields(node, part, where)[part]
        fields = _fields(node, name, where)
        _set(node, name, _with_cpu(fields[name], value) if root == "env" else value)


def _fields(node: Any, name: str, where: str) -> dict[str, Any]:
    """The fields of a configuration, of which ``name`` has to be one."""
    fields = node if isinstance(node, dict) else vars(node)
    if isinstance(node, PresetCfg):
        raise ScaffoldError(f"{where}: {name!r} is inside a preset. Name the field above it.")
    if name not in fields:
        raise unknown_name("field", name, [n for n in fields if not n.startswith("_")], where)
    return fields


def _with_cpu(field: Any, value: float) -> PresetCfg:
    """The same field, whose preset ``cpu`` is ``value``."""
    options = vars(field) if isinstance(field, PresetCfg) else {"default": field}
    return preset(**{name: option for name, option in options.items() if not name.startswith("_")} | {"cpu": value})


def _set(node: Any, name: str, value: Any) -> None:
    if isinstance(node, dict):
        node[name] = value
    else:
        setattr(node, name, value)
