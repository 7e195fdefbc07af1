"""Pictures of meshes without a simulator: rays on the CPU, each body with its own colours, silhouettes included."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import numpy as np

from scaffoldlab.camera import Camera
from scaffoldlab.scan.o3d import open3d
from scaffoldlab.usd.reader import VisualPart, visual_parts

PAPER = (246, 247, 249)
"""Colour where nothing is hit."""


@dataclass(frozen=True)
class Render:
    """One rendered picture.

    Attributes:
        rgb: Colours, shape (height, width, 3), uint8.
        depth: Distance along the optical axis [m], shape (height, width); 0 where nothing was hit.
        body: Index of the body that is seen, shape (height, width); -1 where there is none.
    """

    rgb: np.ndarray
    depth: np.ndarray
    body: np.ndarray


class Renderer:
    """Bodies at rest, seen from any camera.

    Args:
        bodies: Parts of each body, in its frame.
        poses: Pose of each body in the frame of the cameras' poses, shape (4, 4).
    """

    def __init__(self, bodies: Mapping[str, tuple[VisualPart, ...]], poses: Mapping[str, np.ndarray]):
        o3d = open3d()
        self.names = list(bodies)
        self._scene, self._parts, self._body = o3d.t.geometry.RaycastingScene(), [], []
        for index, (name, parts) in enumerate(bodies.items()):
            for part in parts:
                vertices = part.vertices @ poses[name][:3, :3].T + poses[name][:3, 3]
                self._scene.add_triangles(vertices.astype(np.float32), part.faces.astype(np.uint32))
                self._parts.append(part)
                self._body.append(index)

    def render(self, camera: Camera, *, smooth: int = 1) -> Render:
        """The picture of a camera, lit from where the camera is.

        Args:
            camera: The camera.
            smooth: Rays along each side of a pixel; colours are their mean, depth and bodies those of one of them.
        """
        if smooth > 1:
            fine = self.render(scaled(camera, smooth))
            rgb = fine.rgb.reshape(camera.height, smooth, camera.width, smooth, 3).mean((1, 3)).round()
            middle = slice(smooth // 2, None, smooth)
            return Render(rgb.astype(np.uint8), fine.depth[middle, middle], fine.body[middle, middle])
        origins, directions_c, directions = _rays(camera)
        hits = self._scene.cast_rays(np.concatenate((origins, directions), -1).astype(np.float32))
        distance = hits["t_hit"].numpy()
        hit = np.isfinite(distance)
        part = np.where(hit, hits["geometry_ids"].numpy().astype(np.int64), -1)
        normals = hits["primitive_normals"].numpy()
        facing = np.abs((normals * directions).sum(-1)) / np.linalg.norm(directions, axis=-1)
        triangles, barycentric = hits["primitive_ids"].numpy(), hits["primitive_uvs"].numpy()
        color = np.empty((*hit.shape, 3))
        color[:] = PAPER
        for index in np.unique(part[hit]):
            seen = part == index
            albedo = _albedo(self._parts[index], triangles[seen], barycentric[seen])
            color[seen] = albedo * (0.5 + 0.5 * facing[seen])[:, None]
        bodies = np.array([*self._body, -1])[part]
        depth = np.where(hit, distance, 0.0) * directions_c[..., 2]
        return Render(color.clip(0, 255).round().astype(np.uint8), depth, bodies)

    def alone(self, name: str, camera: Camera) -> np.ndarray:
        """Where one body would be seen if nothing hid it, shape (height, width), bool."""
        origins, _, directions = _rays(camera)
        rays = np.concatenate((origins, directions), -1).astype(np.float32)
        hits = self._scene.list_intersections(rays)
        body = np.array(self._body)[hits["geometry_ids"].numpy().astype(np.int64)]
        seen = np.zeros(camera.height * camera.width, bool)
        seen[hits["ray_ids"].numpy()[body == self.names.index(name)]] = True
        return seen.reshape(camera.height, camera.width)

    def distance(self, points: np.ndarray) -> np.ndarray:
        """Distance of points from the nearest surface [m], shape (P, 3) -> (P,)."""
        return self._scene.compute_distance(points.astype(np.float32)).numpy()


def renderer_of(paths: Mapping[str, Path], poses: Mapping[str, np.ndarray]) -> Renderer:
    """A renderer of USD assets by name, each at its pose, shape (4, 4)."""
    return Renderer({name: visual_parts(path) for name, path in paths.items()}, poses)


def scaled(camera: Camera, factor: float) -> Camera:
    """The same camera with more pixels, or fewer."""
    intrinsics = camera.intrinsics.copy()
    intrinsics[:2] *= factor
    size = round(camera.width * factor), round(camera.height * factor)
    return replace(camera, intrinsics=intrinsics, width=size[0], height=size[1])


def _rays(camera: Camera) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Origins and directions of the rays through pixel centres, in the camera and outside, (height, width, 3) each."""
    u, v = np.meshgrid(np.arange(camera.width) + 0.5, np.arange(camera.height) + 0.5)
    directions_c = np.stack((u, v, np.ones_like(u)), -1) @ np.linalg.inv(camera.intrinsics).T
    directions = directions_c @ camera.pose_ec[:3, :3].T
    return np.broadcast_to(camera.pose_ec[:3, 3], directions.shape), directions_c, directions


def _albedo(part: VisualPart, faces: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
    """Colours of points on a part in 0..255, shapes (N,) and (N, 2) -> (N, 3)."""
    if part.texture is None or part.uv is None:
        return np.broadcast_to(255 * part.color.clip(0, 1) ** (1 / 2.2), (len(faces), 3))
    picture = _picture(part.texture)
    second, third = barycentric.T[..., None]
    corners = part.uv[part.faces[faces]]
    uv = (1 - second - third) * corners[:, 0] + second * corners[:, 1] + third * corners[:, 2]
    u, v = np.where(np.abs(uv - 1) < 1e-5, 1.0, uv % 1.0).T  # 1 is the far edge of the picture, not the near one
    rows = ((1 - v) * len(picture)).astype(int).clip(0, len(picture) - 1)
    return picture[rows, (u * picture.shape[1]).astype(int).clip(0, picture.shape[1] - 1)]


@cache
def _picture(path: Path) -> np.ndarray:
    from PIL import Image

    return np.asarray(Image.open(path).convert("RGB"), float)
