"""The files of a scanned scene: background.usda, scene.usda, and what scene.yaml says."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import trimesh
from PIL import Image
from scipy.spatial.transform import Rotation

from scaffoldlab.camera import Camera
from scaffoldlab.files import write_atomic
from scaffoldlab.scan.o3d import open3d
from scaffoldlab.scan.scenes.background import Background
from scaffoldlab.scan.scenes.placement import Placement
from scaffoldlab.scan.scenes.solids import Solids
from scaffoldlab.scan.scenes.support import THICKNESS, Table
from scaffoldlab.specs.models import AssetSpec, CameraSpec, KeypointSpec, SceneSpec

BACKGROUND = "background"
"""Name of the static asset with the table and all that stands around."""
RESERVED = (BACKGROUND, "camera", "contact", "light", "robot")
"""Names that an object of a scene cannot have."""
TRIANGLES_MAX = 40_000
"""Triangles of the background that cameras see."""
LICENSE = "Made by scaffoldlab scan scene."
AROUND, ABOVE, BELOW = 0.5, 1.2, 0.3
"""How far around, above and below the table the background is kept [m]."""


def write_background(path: Path, background: Background, table: Table, solids: Solids) -> None:
    """Writes the static asset: a box under the table's top and the solids as colliders, the background as a visual.

    Args:
        path: The USD file; its picture of colours is written beside it.
        background: In the env frame, which is the asset's frame.
        table: The table.
        solids: What else is solid.
    """
    from scaffoldlab.usd.writer import UsdWriter

    usd = UsdWriter(path, license=LICENSE)
    surface = usd.friction("surface", static=1.0, dynamic=1.0, combine="average")
    quat_xyzw = Rotation.from_matrix(table.rotation_eb).as_quat()
    down = table.rotation_eb[:, 2]
    middle = table.center_e - down * THICKNESS / 2
    size = (*table.size, THICKNESS)
    usd.collider("table_collider", "box", size=size, position=middle, quat_xyzw=quat_xyzw, friction=surface)
    for number, solid in enumerate(solids.solids, 1):
        usd.collider(f"{solid.kind}_{number}_collider", "convex", mesh=solid.hull, friction=surface)
    top = np.abs(table.above(background.points)) < 0.01
    color = np.median(background.colors[top], axis=0) if top.any() else np.full(3, 0.6)
    usd.surface("table", color=color**2.2, roughness=0.6)
    # A little below the top: where an object stood, nothing was seen, and the box closes the hole.
    box, below = trimesh.creation.box(size), middle - 0.002 * down
    usd.visual("table", box, surface="table", position=below, quat_xyzw=quat_xyzw)
    mesh, picture = colored_mesh(background, table)
    if mesh is not None:
        usd.surface("seen", color=color**2.2, roughness=0.8, texture=f"./{path.stem}.png")
        usd.visual("seen", mesh, surface="seen")
        write_atomic(path.with_suffix(".png"), lambda file: Image.fromarray(picture).save(file, "png"))
    else:
        for number, solid in enumerate(solids.solids, 1):
            usd.visual(f"{solid.kind}_{number}", solid.hull, surface="table")
    # Not usd.save(): pxr does not say when a disk is full.
    write_atomic(path, usd.stage.GetRootLayer().ExportToString())


def colored_mesh(background: Background, table: Table) -> tuple[trimesh.Trimesh | None, np.ndarray]:
    """What cameras see of the background, and its picture of colours, a few pixels of one colour for each triangle."""
    height, beside = table.above(background.points), table.beside(background.points)
    near = background.part((height > -BELOW) & (height < ABOVE) & (beside < AROUND))
    if not len(near.faces):
        return None, np.empty((0, 0, 3), np.uint8)
    o3d = open3d()
    height, beside = table.above(near.points), table.beside(near.points)
    top = (np.abs(height) < 0.006) & (beside < 0.01)  # its noise would catch the light
    points = near.points - np.where(top, height, 0.0)[:, None] * table.rotation_eb[:, 2]
    mesh = o3d.geometry.TriangleMesh(o3d.utility.Vector3dVector(points), o3d.utility.Vector3iVector(near.faces))
    mesh.vertex_colors = o3d.utility.Vector3dVector(near.colors)
    # Clustering keeps the triangles small, and with them the detail of the colours.
    coarse, cell = mesh, 0.006
    while len(coarse.triangles) > TRIANGLES_MAX:
        coarse, cell = mesh.simplify_vertex_clustering(cell), 1.25 * cell
    vertices, faces = np.asarray(coarse.vertices), np.asarray(coarse.triangles)
    colors = np.asarray(coarse.vertex_colors)[faces].mean(1)
    side, pixels = int(np.ceil(np.sqrt(len(faces)))), 3
    palette = np.zeros((side * side, 3))
    palette[: len(faces)] = colors
    picture = palette.reshape(side, side, 3).repeat(pixels, 0).repeat(pixels, 1)
    row, column = np.divmod(np.arange(len(faces)), side)
    uv = np.column_stack(((column + 0.5) / side, 1 - (row + 0.5) / side)).repeat(3, axis=0)
    coarse.compute_vertex_normals()
    corners = faces.reshape(-1)
    split = trimesh.Trimesh(
        vertices[corners],
        np.arange(len(corners)).reshape(-1, 3),
        vertex_normals=np.asarray(coarse.vertex_normals)[corners],
        visual=trimesh.visual.TextureVisuals(uv=uv),
        process=False,
    )
    return split, (255 * picture).round().clip(0, 255).astype(np.uint8)


def write_stage(path: Path, placements: Sequence[Placement], files: Mapping[str, Path], out: Path) -> None:
    """Writes the scene as one USD stage that refers to the background and to the objects' files.

    Args:
        path: The USD file.
        placements: The objects in the env frame.
        files: USD file of each object.
        out: Folder that the file will be in, for relative paths.
    """
    from pxr import Gf, Usd, UsdGeom, UsdPhysics

    stage = Usd.Stage.CreateNew(str(path))
    UsdGeom.SetStageUpAxis(stage, UsdGeom.Tokens.z)
    UsdGeom.SetStageMetersPerUnit(stage, 1.0)
    UsdPhysics.SetStageKilogramsPerUnit(stage, 1.0)
    stage.SetDefaultPrim(UsdGeom.Xform.Define(stage, "/scene").GetPrim())
    stage.DefinePrim(f"/scene/{BACKGROUND}", "Xform").GetReferences().AddReference(f"./{BACKGROUND}.usda")
    for placement in placements:
        prim = stage.DefinePrim(f"/scene/{placement.name}", "Xform")
        relative = os.path.relpath(files[placement.name], out).replace(os.sep, "/")
        prim.GetReferences().AddReference(relative if relative.startswith(".") else f"./{relative}")
        pose = UsdGeom.Xformable(prim)
        x, y, z, w = Rotation.from_matrix(placement.pose[:3, :3]).as_quat().tolist()
        pose.ClearXformOpOrder()
        pose.AddTranslateOp(UsdGeom.XformOp.PrecisionDouble).Set(Gf.Vec3d(*placement.pose[:3, 3].tolist()))
        pose.AddOrientOp(UsdGeom.XformOp.PrecisionDouble).Set(Gf.Quatd(w, x, y, z))
    write_atomic(path, stage.GetRootLayer().ExportToString())


def scene_spec(
    *,
    description: str,
    placements: Sequence[Placement],
    kinds: Mapping[str, str],
    usd: Mapping[str, str],
    table: Table,
    camera: Camera,
    keypoints: Sequence[KeypointSpec],
) -> SceneSpec:
    """The scene as data.

    Args:
        description: One sentence.
        placements: The objects in the env frame.
        kinds: ``rigid`` or ``static``, by object.
        usd: File below assets/ of the background and of every object.
        table: The table.
        camera: The real camera that the scene is shown from, in the env frame.
        keypoints: Candidates.
    """
    assets: list[dict[str, Any]] = [{"name": BACKGROUND, "kind": "static", "usd": usd[BACKGROUND]}]
    for p in placements:
        roll, pitch, yaw = Rotation.from_matrix(p.pose[:3, :3]).as_euler("xyz", degrees=True)
        angles = {"roll_deg": roll, "pitch_deg": pitch, "yaw_deg": yaw}
        assets.append(
            {"name": p.name, "kind": kinds[p.name], "usd": usd[p.name], "position": _rounded(p.pose[:3, 3])}
            | {key: round(float(angle), 3) + 0.0 for key, angle in angles.items()}
        )
    corners = table.center_e + np.array([(x, y, 0) for x in (-0.5, 0.5) for y in (-0.5, 0.5)]) * (*table.size, 0)
    k, pose = camera.intrinsics, camera.pose_ec
    return SceneSpec(
        description=description,
        assets=[AssetSpec.model_validate(asset) for asset in assets],
        camera=CameraSpec(
            eye=_rounded(pose[:3, 3]),
            target=_rounded(pose[:3, 3] + pose[:3, 2] * _distance(camera, table)),
            up=_rounded(-pose[:3, 1], 5),
            fov_deg=round(float(np.degrees(2 * np.arctan(camera.width / 2 / k[0, 0]))), 2),
            width=camera.width,
            height=camera.height,
            intrinsics=(float(k[0, 0]), float(k[1, 1]), float(k[0, 2]), float(k[1, 2])),
        ),
        table_height=round(table.height, 4),
        workspace=(_rounded(corners.min(0) - (0.10, 0.10, 0.05)), _rounded(np.add(corners.max(0), (0.10, 0.10, 0.70)))),
        keypoints=list(keypoints),
    )


def _distance(camera: Camera, table: Table) -> float:
    """Distance along the optical axis to the table, at least 0.3 m."""
    slope = camera.pose_ec[:3, 2] @ table.rotation_eb[:, 2]
    return float(max(0.3, -table.above(camera.pose_ec[:3, 3]) / slope)) if slope < -0.05 else 1.0


def _rounded(vector: np.ndarray, digits: int = 4) -> tuple[float, float, float]:
    x, y, z = (round(float(value), digits) + 0.0 for value in vector)
    return x, y, z
