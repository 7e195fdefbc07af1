"""Lets the objects of a scanned scene fall in simulation: what stands well stays where it is."""

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy.spatial.transform import Rotation

from scaffoldlab.scan.drop import Body, drop
from scaffoldlab.scan.scenes.checks import settle_findings
from scaffoldlab.scan.scenes.files import BACKGROUND, write_background
from scaffoldlab.scan.scenes.scene import ScannedScene

SECONDS = 2.0
"""How long they fall [s]."""


def fall(bodies: Sequence[Body]) -> np.ndarray:
    """Poses of those that move, xyz [m] + quat_xyzw, shape (T, B, 7), in Isaac Lab on PhysX."""
    return drop(bodies, physics="ovphysx", seconds=SECONDS)


def settle_scene(scene: ScannedScene, simulate: Callable[[Sequence[Body]], np.ndarray] = fall) -> ScannedScene:
    """The scene with how far each object moves when it is let fall for 2 s; the poses stay those that were seen.

    Args:
        scene: What was found.
        simulate: Gives the poses of the bodies that move, xyz [m] + quat_xyzw, shape (T, B, 7).

    Raises:
        ScaffoldError: The simulation failed.
    """
    objects = [_body(p.name, scene.files[p.name], p.pose, scene.objects[p.name].kind) for p in scene.placements]
    moving = [body.name for body in objects if not body.static]
    if not moving:
        return scene
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{BACKGROUND}.usda"
        write_background(path, scene.background, scene.table, scene.solids)
        poses = simulate([_body(BACKGROUND, path, np.eye(4), "static"), *objects])
    first, last = poses[0], poses[-1]
    moved = np.linalg.norm(last[:, :3] - first[:, :3], axis=-1)
    turned = (Rotation.from_quat(last[:, 3:]) * Rotation.from_quat(first[:, 3:]).inv()).magnitude()
    settled = {n: (float(d), float(np.degrees(a))) for n, d, a in zip(moving, moved, turned, strict=True)}
    return replace(scene, settled=settled, findings=[*scene.findings, *settle_findings(settled)])


def _body(name: str, path: Path, pose: np.ndarray, kind: str) -> Body:
    quat_xyzw = Rotation.from_matrix(pose[:3, :3]).as_quat()
    return Body(name, str(path), tuple(np.concatenate((pose[:3, 3], quat_xyzw)).tolist()), kind == "static")
