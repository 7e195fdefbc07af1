"""Writes a scanned object as USD, and on request as URDF and MJCF, with its texture and its keypoints beside it."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import quoteattr

import numpy as np
import trimesh
import yaml
from PIL import Image
from scipy.spatial.transform import Rotation

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import write_atomic
from scaffoldlab.scan.objects.colliders import Part
from scaffoldlab.scan.objects.inertia import Inertia

GREY = (0.55, 0.56, 0.58)


@dataclass(frozen=True, eq=False)
class ScannedObject:
    """An object in its body frame: origin at the centre of mass, z up as it rests, long side along x.

    Attributes:
        name: Name of its files and prims.
        visual: What cameras see [m].
        texture: Picture of the visual, or None.
        parts: Convex colliders [m].
        inertia: Mass and inertia; its centre is the origin.
        friction: Coulomb friction, static and dynamic.
        keypoints: Keypoint candidates by name [m], shape (3,) each.
        facts: Where it comes from, kept in the USD file.
    """

    name: str
    visual: trimesh.Trimesh
    texture: Image.Image | None
    parts: list[Part]
    inertia: Inertia
    friction: float
    keypoints: Mapping[str, np.ndarray]
    facts: Mapping[str, object]


def write_usd(obj: ScannedObject, folder: Path) -> Path:
    """Writes ``NAME.usda``, its texture ``NAME.png`` and ``NAME.yaml`` with the keypoints; returns the first."""
    from pxr import Tf

    from scaffoldlab.usd.writer import UsdWriter

    path = folder / f"{obj.name}.usda"
    writer = UsdWriter(path, license="Scanned; the rights are those of who scanned it.")
    moments, axes = obj.inertia.principal()
    # Without a velocity iteration PhysX lets five boxes kick each other 8 mm aside when they are stacked.
    writer.body(
        "", mass=obj.inertia.mass, inertia=moments.tolist(), inertia_quat_xyzw=Rotation.from_matrix(axes).as_quat(),
        velocity_iterations=1,
    )  # fmt: skip
    picture = None
    if obj.texture is not None:
        picture, pixels = f"{obj.name}.png", obj.texture.convert("RGB")
        write_atomic(folder / picture, lambda file: pixels.save(file, "png"))
    writer.surface("surface", color=GREY, roughness=0.6, texture=picture and f"./{picture}")
    writer.friction("touch", static=obj.friction, dynamic=obj.friction, combine="average", stiff=True)
    for number, part in enumerate(obj.parts):
        _write_collider(writer, f"collider_{number:02}", part)
    writer.visual("visual", obj.visual, surface="surface")
    writer.note(**obj.facts)
    try:
        writer.save()
    except Tf.ErrorException as error:
        raise ScaffoldError(
            f"{path.name}: could not be written; what was there before is unchanged. Free space on that disk, or "
            "write to another folder."
        ) from error
    points = {name: [round(float(c), 4) for c in point] for name, point in obj.keypoints.items()}
    text = yaml.safe_dump({"keypoints": points}, sort_keys=False, default_flow_style=None)
    write_atomic(folder / f"{obj.name}.yaml", f"# Keypoint candidates in the body frame [m].\n{text}")
    return path


def _write_collider(writer, path: str, part: Part) -> None:
    if part.shape == "convex":
        writer.collider(path, "convex", mesh=part.mesh, friction="touch")
        return
    assert part.pose is not None
    place = {
        "position": part.pose[:3, 3],
        "quat_xyzw": Rotation.from_matrix(part.pose[:3, :3]).as_quat(),
        "friction": "touch",
    }
    if part.shape == "box":
        writer.collider(path, "box", size=part.size, **place)
    elif part.shape == "sphere":
        writer.collider(path, "sphere", size=part.size[0], **place)
    else:
        writer.collider(path, "cylinder", size=part.size[0], length=part.size[1], **place)


def write_urdf(obj: ScannedObject, folder: Path) -> Path:
    """Writes ``NAME.urdf`` over meshes in ``meshes/``; the same frame, mass and colliders as in USD."""
    _write_meshes(obj, folder)
    i = obj.inertia.tensor
    terms = {"ixx": i[0, 0], "ixy": i[0, 1], "ixz": i[0, 2], "iyy": i[1, 1], "iyz": i[1, 2], "izz": i[2, 2]}
    inertia = " ".join(f'{name}="{value:.9g}"' for name, value in terms.items())
    shapes = "\n".join(
        f'    <collision><geometry><mesh filename="meshes/{_mesh_name(n)}"/></geometry></collision>'
        for n in range(len(obj.parts))
    )
    text = f"""<?xml version="1.0"?>
<robot name={quoteattr(obj.name)}>
  <mujoco><compiler strippath="false" fusestatic="false" discardvisual="false"/></mujoco>
  <link name={quoteattr(obj.name)}>
    <inertial><mass value="{obj.inertia.mass:.9g}"/><inertia {inertia}/></inertial>
    <visual><geometry><mesh filename="meshes/visual.obj"/></geometry></visual>
{shapes}
  </link>
</robot>
"""
    path = folder / f"{obj.name}.urdf"
    write_atomic(path, text)
    return path


def write_mjcf(obj: ScannedObject, folder: Path) -> Path:
    """Writes ``NAME.xml`` for MuJoCo over meshes in ``meshes/``: a free body with the same mass and colliders."""
    _write_meshes(obj, folder)
    i = obj.inertia.tensor
    full = " ".join(f"{v:.9g}" for v in (i[0, 0], i[1, 1], i[2, 2], i[0, 1], i[0, 2], i[1, 2]))
    texture = (
        '\n    <texture name="surface" type="2d" file="visual.png"/>\n    <material name="surface" texture="surface"/>'
    )
    textured = obj.texture is not None
    files = "\n".join(f'    <mesh name="part_{n:02}" file="{_mesh_name(n)}"/>' for n in range(len(obj.parts)))
    parts = "\n".join(
        f'      <geom type="mesh" mesh="part_{n:02}" friction="{obj.friction:g} 0.005 0.0001" group="3"/>'
        for n in range(len(obj.parts))
    )
    text = f"""<mujoco model={quoteattr(obj.name)}>
  <compiler meshdir="meshes" texturedir="meshes"/>
  <asset>{texture if textured else ""}
    <mesh name="visual" file="visual.obj"/>
{files}
  </asset>
  <worldbody>
    <body name={quoteattr(obj.name)}>
      <freejoint/>
      <inertial pos="0 0 0" mass="{obj.inertia.mass:.9g}" fullinertia="{full}"/>
      <geom type="mesh" mesh="visual"{' material="surface"' if textured else ""} contype="0" conaffinity="0" mass="0"/>
{parts}
    </body>
  </worldbody>
</mujoco>
"""
    path = folder / f"{obj.name}.xml"
    write_atomic(path, text)
    return path


def _mesh_name(number: int) -> str:
    return f"part_{number:02}.stl"


def _write_meshes(obj: ScannedObject, folder: Path) -> None:
    meshes = folder / "meshes"
    if meshes.is_dir():
        return
    meshes.mkdir()
    for number, part in enumerate(obj.parts):
        part.mesh.export(meshes / _mesh_name(number))
    plain = trimesh.Trimesh(obj.visual.vertices, obj.visual.faces, process=False)
    uv = getattr(obj.visual.visual, "uv", None)
    if uv is not None and obj.texture is not None:
        plain.visual = trimesh.visual.TextureVisuals(uv=uv, material=trimesh.visual.material.SimpleMaterial())
        shutil.copy(folder / f"{obj.name}.png", meshes / "visual.png")
    text = trimesh.exchange.obj.export_obj(plain, include_texture=False, write_texture=False)
    write_atomic(meshes / "visual.obj", text if isinstance(text, str) else text[0])
