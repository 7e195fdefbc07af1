"""Reading USD assets: bodies, joints, and points on their surface."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import trimesh
from pxr import Gf, Usd, UsdGeom, UsdPhysics, UsdShade


@dataclass(frozen=True, eq=False)
class Joint:
    """A joint of an articulation.

    Attributes:
        name: Name of the joint.
        kind: Type of the joint.
        parent: Parent body; empty for the world.
        child: Child body.
        axis: Axis in the joint frame, shape (3,).
        in_parent: Joint frame in the parent's frame, xyz [m] + quat_xyzw, shape (7,).
        in_child: Joint frame in the child's frame, xyz [m] + quat_xyzw, shape (7,).
        limits: Lower and upper limit [m or rad].
    """

    name: str
    kind: Literal["fixed", "revolute", "prismatic"]
    parent: str
    child: str
    axis: np.ndarray
    in_parent: np.ndarray
    in_child: np.ndarray
    limits: tuple[float, float]


@cache
def joints(path: Path) -> tuple[Joint, ...]:
    """All joints of an articulation, each after the one that its parent body hangs on."""
    stage = Usd.Stage.Open(str(path))
    waiting = [_joint(p) for p in Usd.PrimRange(stage.GetDefaultPrim()) if p.IsA(UsdPhysics.Joint)]
    free = _free_bodies(path, waiting)
    ordered: list[Joint] = []
    while waiting:
        known = {"", *free, *(joint.child for joint in ordered)}
        ordered += [joint for joint in waiting if joint.parent in known]
        waiting = [joint for joint in waiting if joint.parent not in known]
    return tuple(ordered)


@cache
def body_names(path: Path) -> list[str]:
    """Names of the rigid bodies below the default prim of an asset."""
    stage = Usd.Stage.Open(str(path))  # prims do not outlive their stage
    root = stage.GetDefaultPrim()
    return [p.GetName() for p in Usd.PrimRange(root) if p.HasAPI(UsdPhysics.RigidBodyAPI) and p != root]


def joint_limits(path: Path) -> dict[str, tuple[float, float]]:
    """Lower and upper limit of each joint that can move [m or rad]; infinite where the asset sets none."""
    return {joint.name: joint.limits for joint in joints(path) if joint.kind != "fixed"}


def is_fixed(path: Path) -> bool:
    """Whether a joint ties the asset to the world."""
    return any(not joint.parent for joint in joints(path))


def root_body(path: Path) -> str:
    """Body whose frame is the asset's: the one that the joint tree of a free asset starts at; empty if it is fixed."""
    return next(iter(_free_bodies(path, joints(path))), "")


@cache
def surface_points(path: Path, link: str = "", *, count: int = 10_000) -> np.ndarray:
    """Points spread evenly over the visible surface of a body, in its frame [m], shape (count, 3).

    Args:
        path: The asset.
        link: Body below the default prim, or empty for the whole asset.
        count: Number of samples (10 000 in the code of Scaffolds).
    """
    meshes = [trimesh.Trimesh(part.vertices, part.faces, process=False) for part in visual_parts(path, link)]
    points, _ = trimesh.sample.sample_surface(trimesh.util.concatenate(meshes), count, seed=0)
    return np.asarray(points)


@dataclass(frozen=True, eq=False)
class VisualPart:
    """A mesh that cameras see.

    Attributes:
        vertices: In the body's frame [m], shape (V, 3).
        faces: Vertices of each triangle, shape (F, 3).
        uv: Texture coordinates of each vertex, shape (V, 2), or None.
        color: Linear RGB in 0..1, shape (3,).
        texture: Picture that replaces the colour, or None.
    """

    vertices: np.ndarray
    faces: np.ndarray
    uv: np.ndarray | None
    color: np.ndarray
    texture: Path | None


@cache
def visual_parts(path: Path, link: str = "") -> tuple[VisualPart, ...]:
    """What a camera sees of a body: its triangle meshes with their materials.

    Args:
        path: The asset.
        link: Body below the default prim, or empty for the whole asset.
    """
    parts = []
    for prim, matrix in _prims(path, link):
        if prim.IsA(UsdGeom.Mesh) and UsdGeom.Imageable(prim).ComputePurpose() == UsdGeom.Tokens.default_:
            mesh = UsdGeom.Mesh(prim)
            vertices = np.asarray(mesh.GetPointsAttr().Get()) @ matrix[:3, :3].T + matrix[:3, 3]
            faces = np.asarray(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
            uv = UsdGeom.PrimvarsAPI(mesh).GetPrimvar("st")
            coordinates = np.asarray(uv.Get(), float) if uv and len(uv.Get() or ()) == len(vertices) else None
            parts.append(VisualPart(vertices, faces, coordinates, *_material(prim)))
    return tuple(parts)


def layer_facts(path: Path) -> dict[str, object]:
    """What a file says about where it came from, e.g. ``source`` and ``file_to_body`` of a scanned object."""
    stage = Usd.Stage.Open(str(path))
    return dict(stage.GetRootLayer().customLayerData)


def is_rigid(path: Path) -> bool:
    """Whether the default prim of an asset is a rigid body."""
    stage = Usd.Stage.Open(str(path))
    return stage.GetDefaultPrim().HasAPI(UsdPhysics.RigidBodyAPI)


def _material(prim: Usd.Prim) -> tuple[np.ndarray, Path | None]:
    """Linear colour, shape (3,), and texture of what a mesh is bound to; grey without a material."""
    color, texture = np.full(3, 0.5), None
    material, _ = UsdShade.MaterialBindingAPI(prim).ComputeBoundMaterial()
    for child in Usd.PrimRange(material.GetPrim()) if material else ():
        shader = UsdShade.Shader(child)
        diffuse, file = shader.GetInput("diffuseColor"), shader.GetInput("file")
        if diffuse and diffuse.Get() is not None:
            color = np.asarray(diffuse.Get(), float)
        if file and file.Get() is not None and file.Get().resolvedPath:
            texture = Path(file.Get().resolvedPath)
    return color, texture


@cache
def collider_boxes(path: Path, link: str = "") -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """A box around every collider of a body, in the body's frame; a box collider is its own.

    Args:
        path: The asset.
        link: Body below the default prim, or empty for the whole asset.

    Returns:
        Centre [m], shape (3,), axes as columns, shape (3, 3), and half sides [m], shape (3,), of each.
    """
    boxes = []
    for prim, matrix in _prims(path, link):
        if prim.HasAPI(UsdPhysics.CollisionAPI):
            extent = UsdGeom.Boundable.ComputeExtentFromPlugins(UsdGeom.Boundable(prim), Usd.TimeCode.Default())
            low, high = np.asarray(extent, float)
            scale = np.linalg.norm(matrix[:3, :3], axis=0)
            center = matrix[:3, :3] @ ((low + high) / 2) + matrix[:3, 3]
            boxes.append((center, matrix[:3, :3] / scale, (high - low) / 2 * scale))
    return boxes


@cache
def collider_points(path: Path) -> np.ndarray:
    """Points whose convex hull is that of an asset's colliders, in its frame [m], shape (P, 3)."""
    points = [
        _outline(prim) @ matrix[:3, :3].T + matrix[:3, 3]
        for prim, matrix in _prims(path)
        if prim.HasAPI(UsdPhysics.CollisionAPI)
    ]
    return np.concatenate(points) if points else np.empty((0, 3))


def _outline(prim: Usd.Prim) -> np.ndarray:
    """Points of a collider in its own frame, shape (P, 3); a round one gives a fine mesh's."""
    if prim.IsA(UsdGeom.Mesh):
        return np.asarray(UsdGeom.Mesh(prim).GetPointsAttr().Get(), float)
    if prim.IsA(UsdGeom.Cube):
        return np.asarray(trimesh.creation.box(np.full(3, UsdGeom.Cube(prim).GetSizeAttr().Get())).vertices)
    if prim.IsA(UsdGeom.Sphere):
        return np.asarray(trimesh.creation.icosphere(3, UsdGeom.Sphere(prim).GetRadiusAttr().Get()).vertices)
    capsule = prim.IsA(UsdGeom.Capsule)
    schema = UsdGeom.Capsule(prim) if capsule else UsdGeom.Cylinder(prim)
    radius, height = schema.GetRadiusAttr().Get(), schema.GetHeightAttr().Get()
    make = trimesh.creation.capsule if capsule else trimesh.creation.cylinder
    mesh = make(radius=radius, height=height)
    turn = {"X": [2, 0, 1], "Y": [1, 2, 0], "Z": [0, 1, 2]}[schema.GetAxisAttr().Get()]
    return np.asarray(mesh.vertices - mesh.bounds.mean(0))[:, turn]


def link_poses(path: Path, joint_positions: dict[str, float]) -> dict[str, np.ndarray]:
    """Poses of the bodies of an articulation in the asset frame, xyz [m] + quat_xyzw, shape (7,) each.

    Args:
        path: The asset; its joint tree starts with a fixed joint to the world, or at a free body, whose frame is then
            the asset's.
        joint_positions: Joint positions [m or rad]; joints not named are at zero.
    """
    chain = joints(path)
    matrices = dict.fromkeys(["", *_free_bodies(path, chain)], np.eye(4))
    for joint in chain:
        motion = _motion(joint, joint_positions.get(joint.name, 0.0))
        before, after = _matrix(joint.in_parent), _matrix(joint.in_child)
        matrices[joint.child] = matrices[joint.parent] @ before @ motion @ np.linalg.inv(after)
    del matrices[""]
    return {
        name: np.concatenate([m[:3, 3], trimesh.transformations.quaternion_from_matrix(m)[[1, 2, 3, 0]]])
        for name, m in matrices.items()
    }


def joint_positions(path: Path, poses: Mapping[str, np.ndarray]) -> dict[str, float]:
    """Joint positions within the limits [m or rad] at which bodies are where they are seen: :func:`link_poses` back.

    Args:
        path: The asset.
        poses: Poses of bodies in the asset frame, shape (4, 4). Joints of bodies that are not given are at zero, and
            left out.
    """
    found: dict[str, float] = {}
    known = dict.fromkeys(["", root_body(path)], np.eye(4))
    for joint in joints(path):
        frame, out = known[joint.parent] @ _matrix(joint.in_parent), _matrix(joint.in_child)
        if joint.child in poses and joint.kind != "fixed":
            motion = np.linalg.inv(frame) @ poses[joint.child] @ out
            found[joint.name] = float(np.clip(_position(joint, motion), *joint.limits))
        known[joint.child] = frame @ _motion(joint, found.get(joint.name, 0.0)) @ np.linalg.inv(out)
    return found


def _free_bodies(path: Path, chain: Iterable[Joint]) -> set[str]:
    """Bodies that hang on none of the joints of a chain."""
    return set(body_names(path)) - {joint.child for joint in chain}


def _prims(path: Path, link: str = "") -> Iterator[tuple[Usd.Prim, np.ndarray]]:
    """Every prim of a body, or of the whole asset, and its transform into that body's frame, shape (4, 4)."""
    stage = Usd.Stage.Open(str(path))  # prims do not outlive their stage
    body = stage.GetDefaultPrim()
    if link:
        body = body.GetChild(link)
    transforms = UsdGeom.XformCache()
    for prim in Usd.PrimRange(body):
        yield prim, np.array(transforms.ComputeRelativeTransform(prim, body)[0]).T


def _joint(prim: Usd.Prim) -> Joint:
    joint = UsdPhysics.Joint(prim)
    parents = joint.GetBody0Rel().GetTargets()
    fixed, prismatic = prim.IsA(UsdPhysics.FixedJoint), prim.IsA(UsdPhysics.PrismaticJoint)
    schema = UsdPhysics.PrismaticJoint(prim) if prismatic else UsdPhysics.RevoluteJoint(prim)
    limits = (0.0, 0.0) if fixed else (schema.GetLowerLimitAttr().Get(), schema.GetUpperLimitAttr().Get())
    unit = float if prismatic else np.radians
    return Joint(
        name=prim.GetName(),
        kind="fixed" if fixed else "prismatic" if prismatic else "revolute",
        parent=parents[0].name if parents else "",
        child=joint.GetBody1Rel().GetTargets()[0].name,
        axis=np.zeros(3) if fixed else np.eye(3)["XYZ".index(schema.GetAxisAttr().Get())],
        in_parent=_pose(joint.GetLocalPos0Attr().Get(), joint.GetLocalRot0Attr().Get()),
        in_child=_pose(joint.GetLocalPos1Attr().Get(), joint.GetLocalRot1Attr().Get()),
        limits=(float(unit(limits[0])), float(unit(limits[1]))),
    )


def _pose(position: Gf.Vec3f, rotation: Gf.Quatf) -> np.ndarray:
    return np.array([*position, *rotation.GetImaginary(), rotation.GetReal()])


def _matrix(pose: np.ndarray) -> np.ndarray:
    matrix = trimesh.transformations.quaternion_matrix(pose[[6, 3, 4, 5]])
    matrix[:3, 3] = pose[:3]
    return matrix


def _motion(joint: Joint, position: float) -> np.ndarray:
    if joint.kind == "fixed":
        return np.eye(4)
    if joint.kind == "prismatic":
        return trimesh.transformations.translation_matrix(joint.axis * position)
    return trimesh.transformations.rotation_matrix(position, joint.axis)


def _position(joint: Joint, motion: np.ndarray) -> float:
    """Joint position whose motion is nearest to one that is seen, shape (4, 4)."""
    axis, turn = joint.axis, motion[:3, :3]
    if joint.kind == "prismatic":
        return float(axis @ motion[:3, 3])
    twice_sine = axis @ (turn[[2, 0, 1], [1, 2, 0]] - turn[[1, 2, 0], [2, 0, 1]])
    return float(np.arctan2(twice_sine, np.trace(turn) - axis @ turn @ axis))
