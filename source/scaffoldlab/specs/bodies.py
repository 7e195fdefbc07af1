"""Names of the bodies of a scene, and points on their surfaces."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from scaffoldlab.geometry import pose_apply, quat_apply
from scaffoldlab.specs.models import Composition


@dataclass(frozen=True, kw_only=True, eq=False)
class SolidBox:
    """A box that cannot move.

    Attributes:
        body: Body that it is a part of.
        center_e: Its centre in the env frame [m], shape (3,).
        rotation_eb: Its axes as columns, box to env frame, shape (3, 3).
        half: Half of its sides [m], shape (3,).
    """

    body: str
    center_e: np.ndarray
    rotation_eb: np.ndarray
    half: np.ndarray


def body_names(composition: Composition) -> list[str]:
    """Every body that a keypoint may sit on: assets, and ``asset/link`` for the links of articulations."""
    from scaffoldlab.usd.reader import body_names as links_of

    names = []
    for asset in composition.scene.assets:
        if asset.kind == "articulation":
            names += [f"{asset.name}/{link}" for link in links_of(composition.usd(asset.usd))]
        else:
            names.append(asset.name)
    return names


def body_surfaces(composition: Composition) -> dict[str, np.ndarray]:
    """10 000 points on the surface of every body, in its frame [m], shape (10000, 3) each."""
    from scaffoldlab.usd.reader import surface_points

    surfaces = {}
    for name in body_names(composition):
        asset_name, _, link = name.partition("/")
        asset = composition.scene.asset(asset_name, str(composition.source))
        surfaces[name] = surface_points(composition.usd(asset.usd), link)
    return surfaces


def solid_boxes(composition: Composition, poses: Mapping[str, np.ndarray]) -> list[SolidBox]:
    """A box around every collider of what a plan of the task does not move.

    That is static assets, and the links of articulations that carry no keypoint of the task.

    Args:
        composition: The task.
        poses: Pose of each body in the env frame, xyz [m] + quat_xyzw, shape (7,).
    """
    from scaffoldlab.usd.reader import collider_boxes

    held = {k.body for k in composition.task.keypoints}
    boxes = []
    for name in body_names(composition):
        asset_name, _, link = name.partition("/")
        asset = composition.scene.asset(asset_name, str(composition.source))
        if asset.kind == "rigid" or (link and name in held):
            continue
        pose = poses[name]
        boxes += [
            SolidBox(
                body=name,
                center_e=pose_apply(pose, center),
                rotation_eb=np.stack([quat_apply(pose[3:], axis) for axis in rotation.T], -1),
                half=half,
            )
            for center, rotation, half in collider_boxes(composition.usd(asset.usd), link)
        ]
    return boxes
