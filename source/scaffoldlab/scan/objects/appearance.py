"""What cameras see of a scan: fewer faces, and the texture where it was."""

from __future__ import annotations

import numpy as np
import trimesh

from scaffoldlab.scan.o3d import open3d
from scaffoldlab.scan.objects.reading import Scan
from scaffoldlab.scan.objects.solid import decimate

INWARDS = 0.05
"""A corner's texture is looked up this far on its way to the middle of its face, so that seams stay apart."""


def make_visual(scan: Scan, solid: trimesh.Trimesh, scale: float, faces: int) -> trimesh.Trimesh:
    """The surface with at most ``faces`` faces, each corner with the UV that the scan has there.

    Args:
        scan: The scan with its texture.
        solid: Its cleaned surface [m], in the axes of the file.
        scale: Metres that a length of 1 in the scan stands for.
        faces: Budget of faces.

    Returns:
        A mesh in the axes of the file [m]; without texture if the scan has none.
    """
    mesh = decimate(solid, faces)
    if scan.texture is None:
        return mesh
    source = scan.mesh
    o3d = open3d()
    scene = o3d.t.geometry.RaycastingScene()
    scene.add_triangles((source.vertices * scale).astype(np.float32), source.faces.astype(np.uint32))
    corners = mesh.triangles  # (F, 3, 3)
    middles = corners.mean(1, keepdims=True)
    at_middle = _closest_face(scene, middles[:, 0])
    at_corner = _closest_face(scene, (corners + INWARDS * (middles - corners)).reshape(-1, 3)).reshape(-1, 3)
    chart = _charts(source)
    # Across a seam the texture jumps: there the face of the middle goes on beyond its edge.
    at_corner = np.where(chart[at_corner] == chart[at_middle][:, None], at_corner, at_middle[:, None])
    uv = _extrapolate(source, scale, at_corner.reshape(-1), corners.reshape(-1, 3))
    visual = trimesh.visual.TextureVisuals(uv=uv, image=scan.texture)
    textured = trimesh.Trimesh(
        corners.reshape(-1, 3), np.arange(3 * len(corners)).reshape(-1, 3), visual=visual, process=False
    )
    textured.merge_vertices(digits_vertex=6, digits_uv=4, merge_norm=True)
    return textured


def _closest_face(scene, points: np.ndarray) -> np.ndarray:
    return scene.compute_closest_points(points.astype(np.float32))["primitive_ids"].numpy().astype(np.int64)


def _charts(mesh: trimesh.Trimesh) -> np.ndarray:
    """Which connected piece of the texture each face is in: faces that share a position and a UV, shape (F,)."""
    key = np.c_[np.round(mesh.vertices / max(mesh.scale, 1e-12), 7), np.round(_uv(mesh), 6)]
    _, same = np.unique(key, axis=0, return_inverse=True)
    welded = trimesh.Trimesh(np.zeros((same.max() + 1, 3)), same.reshape(-1)[mesh.faces], process=False)
    return trimesh.graph.connected_component_labels(welded.face_adjacency, node_count=len(mesh.faces))


def _uv(mesh: trimesh.Trimesh) -> np.ndarray:
    """Of a mesh that has a texture, shape (V, 2)."""
    return np.asarray(getattr(mesh.visual, "uv", None))


def _extrapolate(mesh: trimesh.Trimesh, scale: float, faces: np.ndarray, points: np.ndarray) -> np.ndarray:
    """UVs of points in the planes of faces, also somewhat beyond their edges, shape (P, 3) -> (P, 2)."""
    triangles = mesh.vertices[mesh.faces[faces]] * scale
    weights = trimesh.triangles.points_to_barycentric(triangles, points).clip(-0.5, 1.5)
    weights = np.where(np.isfinite(weights).all(1, keepdims=True), weights, 1 / 3)
    weights /= weights.sum(1, keepdims=True)
    return (weights[:, :, None] * _uv(mesh)[mesh.faces[faces]]).sum(1)
