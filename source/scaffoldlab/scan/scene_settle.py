"""Lets the objects of a scanned scene fall in simulation: what stands well stays where it is."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from scaffoldlab.scan.scene import ScannedScene
from scaffoldlab.scan.scene_checks import settle_findings
from scaffoldlab.scan.scene_files import BACKGROUND, write_background

SECONDS = 2.0
"""How long they fall [s]."""


@dataclass(frozen=True)
class Falling:
    """A body that is let fall, or that others fall on.

    Attributes:
        name: Its name.
        path: Its USD file.
        pose: In the env frame, shape (4, 4).
        static: Whether it never moves.
    """

    name: str
    path: Path
    pose: np.ndarray
    static: bool


Drop = Callable[[Sequence[Falling], float], np.ndarray]
"""Simulates bodies for some seconds; gives the poses of those that move, xyz [m] + quat_xyzw, shape (T, B, 7)."""


def settle_scene(scene: ScannedScene, drop: Drop) -> ScannedScene:
    """The scene with how far each object moves when it is let fall for 2 s; the poses stay those that were seen.

    Args:
        scene: What was found.
        drop: Simulates.

    Raises:
        ScaffoldError: The simulation failed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{BACKGROUND}.usda"
        write_background(path, scene.background, scene.table, scene.solids)
        objects = [
            Falling(p.name, scene.files[p.name], p.pose, scene.objects[p.name].kind == "static")
            for p in scene.placements
        ]
        moving = [body.name for body in objects if not body.static]
        if not moving:
            return scene
        poses = drop([Falling(BACKGROUND, path, np.eye(4), True), *objects], SECONDS)
    first, last = poses[0], poses[-1]
    moved = np.linalg.norm(last[:, :3] - first[:, :3], axis=-1)
    turned = (Rotation.from_quat(last[:, 3:]) * Rotation.from_quat(first[:, 3:]).inv()).magnitude()
    settled = {n: (float(d), float(np.degrees(a))) for n, d, a in zip(moving, moved, turned, strict=True)}
    return replace(scene, settled=settled, findings=[*scene.findings, *settle_findings(settled)])
