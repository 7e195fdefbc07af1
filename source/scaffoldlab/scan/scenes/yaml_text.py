"""The YAML text of scene and task files as a person would write it: short records on one line each."""

from typing import Any

import yaml

from scaffoldlab.specs.models import SceneSpec

TASK_COMMENTS = {
    "grasp": "# Of Move Apple. Find one for this object with scripts/search_grasp.py.",
    "success": "# `near` alone would be met in the air.",
}


def scene_text(spec: SceneSpec) -> str:
    """A scene file: one line for each asset and keypoint."""
    lines = [
        "# Made by `scaffoldlab scan scene`. Env frame: the middle of the table is above the origin, x away from the",
        "# camera, y left, z up [m]. What was measured: report/index.html.",
    ]
    for key, value in spec.model_dump(mode="json", exclude_defaults=True).items():
        if key in ("assets", "keypoints"):
            lines += [f"{key}:", *(f"  - {_flow(item)}" for item in value)]
        else:
            lines.append(f"{key}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def task_text(data: dict[str, Any]) -> str:
    """A task file, with comments on what to change first."""
    lines = [
        "# yaml-language-server: $schema=../task.schema.json",
        f"# Made by `scaffoldlab scan new-task`. More keypoints: assets/scenes/{data['scene']}/scene.yaml.",
    ]
    for key, value in data.items():
        if key in ("keypoints", "grasp", "prompt", "termination", "oracle"):
            lines.append("")
        lines += [TASK_COMMENTS[key]] if key in TASK_COMMENTS else []
        if isinstance(value, list):
            lines += [f"{key}:", *(f"  - {_flow(item)}" for item in value)]
        elif isinstance(value, dict) and key != "termination":
            lines += [f"{key}:", *(line for item in value.items() for line in _block(*item))]
        else:
            lines.append(f"{key}: {_flow(value)}")
    return "\n".join(lines) + "\n"


def _block(key: str, value: Any) -> list[str]:
    """An entry of a mapping at the second level."""
    if key in ("open", "close", "objects"):
        return [f"  {key}:", *(f"    {k}: {_flow(v)}" for k, v in value.items())]
    if key in ("all", "steps"):
        return [f"  {key}:", *(f"    - {_flow(v)}" for v in value)]
    return [f"  {key}: {_flow(value)}"]


def _flow(value: Any) -> str:
    """A value on one line."""
    return yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).removesuffix("...\n").strip()
