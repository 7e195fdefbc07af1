"""Reading USD assets: bodies, and points on their surface."""

from functools import cache
from pathlib import Path

import numpy as np
import trimesh
from pxr import Gf, Usd, UsdGeom, UsdPhysics


@cache
def body_names(path: Path) -> list[str]:
    """Names of the rigid bodies below the default prim of an asset."""
    stage = Usd.Stage.Open(str(path))  # prims do not outlive their stage
    root = stage.GetDefaultPrim()
    return [p.GetName() for p in Usd.PrimRange(root) if p.HasAPI(UsdPhysics.RigidBodyAPI) and p != root]


@cache
def joint_names(path: Path) -> list[str]:
    """Names of the joints of an asset that can move."""
    stage = Usd.Stage.Open(str(path))
    joints = (p for p in Usd.PrimRange(stage.GetDefaultPrim()) if p.IsA(UsdPhysics.Joint))
    return [p.GetName() for p in joints if not p.IsA(UsdPhysics.FixedJoint)]


@cache
def joint_limits(path: Path) -> dict[str, tuple[float, float]]:
    """Lower and upper limit of each joint that can move [m or rad]; infinite where the asset sets none."""
    stage = Usd.Stage.Open(str(path))
    limits = {}
    for prim in Usd.PrimRange(stage.GetDefaultPrim()):
        if prim.IsA(UsdPhysics.PrismaticJoint):
            joint, unit = UsdPhysics.PrismaticJoint(prim), 1.0
        elif prim.IsA(UsdPhysics.RevoluteJoint):
            joint, unit = UsdPhysics.RevoluteJoint(prim), np.pi / 180
        else:
            continue
        low, high = joint.GetLowerLimitAttr().Get(), joint.GetUpperLimitAttr().Get()
        limits[prim.GetName()] = (float(low * unit), float(high * unit))
    return limits


@cache
def is_fixed(path: Path) -> bool:
    """Whether a joint ties the asset to the world."""
    stage = Usd.Stage.Open(str(path))
    joints = (UsdPhysics.Joint(p) for p in Usd.PrimRange(stage.GetDefaultPrim()) if p.IsA(UsdPhysics.Joint))
    return any(not joint.GetBody0Rel().GetTargets() for joint in joints)


@cache
def surface_points(path: Path, link: str = "", *, count: int = 10_000) -> np.ndarray:
    """Points spread evenly over the visible surface of a body, in its frame [m], shape (count, 3).

    Args:
        path: The asset.
        link: Body below the default prim, or empty for the whole asset.
        count: Number of samples (10 000 in the code of Scaffolds).
    """
    stage = Usd.Stage.Open(str(path))
    body = stage.GetDefaultPrim()
    if link:
        body = body.GetChild(link)
    cache = UsdGeom.XformCache()
    meshes = []
    for prim in Usd.PrimRange(body):
        if prim.IsA(UsdGeom.Mesh) and UsdGeom.Imageable(prim).ComputePurpose() == UsdGeom.Tokens.default_:
            mesh = UsdGeom.Mesh(prim)
            matrix = np.array(cache.ComputeRelativeTransform(prim, body)[0]).T
            vertices = np.asarray(mesh.GetPointsAttr().Get()) @ matrix[:3, :3].T + matrix[:3, 3]
            faces = np.asarray(mesh.GetFaceVertexIndicesAttr().Get()).reshape(-1, 3)
            meshes.append(trimesh.Trimesh(vertices, faces, process=False))
    whole = trimesh.util.concatenate(meshes)
    points, _ = trimesh.sample.sample_surface(whole, count, seed=0)
    return np.asarray(points)


def link_poses(path: Path, joint_positions: dict[str, float]) -> dict[str, np.ndarray]:
    """Poses of the bodies of an articulation in the asset frame, xyz [m] + quat_xyzw, shape (7,) each.

    Args:
        path: The asset; its joint tree starts with a fixed joint to the world, or at a free body, whose frame is then
            the asset's.
        joint_positions: Joint positions [m or rad]; joints not named are at zero.
    """
    stage = Usd.Stage.Open(str(path))
    root = stage.GetDefaultPrim()
    joints = [UsdPhysics.Joint(p) for p in Usd.PrimRange(root) if p.IsA(UsdPhysics.Joint)]
    children = {_target(joint.GetBody1Rel()) for joint in joints}
    matrices = {name: np.eye(4) for name in body_names(path) if name not in children}
    while len(joints) > 0:
        ready = [j for j in joints if not j.GetBody0Rel().GetTargets() or _target(j.GetBody0Rel()) in matrices]
        for joint in ready:
            parent = matrices[_target(joint.GetBody0Rel())] if joint.GetBody0Rel().GetTargets() else np.eye(4)
            before = _frame(joint.GetLocalPos0Attr().Get(), joint.GetLocalRot0Attr().Get())
            after = _frame(joint.GetLocalPos1Attr().Get(), joint.GetLocalRot1Attr().Get())
            motion = _motion(joint.GetPrim(), joint_positions.get(joint.GetPrim().GetName(), 0.0))
            matrices[_target(joint.GetBody1Rel())] = parent @ before @ motion @ np.linalg.inv(after)
            joints.remove(joint)
    return {
        name: np.concatenate([m[:3, 3], trimesh.transformations.quaternion_from_matrix(m)[[1, 2, 3, 0]]])
        for name, m in matrices.items()
    }


def _target(relationship: Usd.Relationship) -> str:
    return relationship.GetTargets()[0].name


def _frame(position: Gf.Vec3f, rotation: Gf.Quatf) -> np.ndarray:
    matrix = trimesh.transformations.quaternion_matrix([rotation.GetReal(), *rotation.GetImaginary()])
    matrix[:3, 3] = position
    return matrix


def _motion(joint: Usd.Prim, position: float) -> np.ndarray:
    if joint.IsA(UsdPhysics.FixedJoint):
        return np.eye(4)
    prismatic = joint.IsA(UsdPhysics.PrismaticJoint)
    schema = UsdPhysics.PrismaticJoint(joint) if prismatic else UsdPhysics.RevoluteJoint(joint)
    axis = np.eye(3)["XYZ".index(schema.GetAxisAttr().Get())]
    if prismatic:
        return trimesh.transformations.translation_matrix(axis * position)
    return trimesh.transformations.rotation_matrix(position, axis)
