"""Fuses the depth pictures of a capture into its static background (TSDF), the objects left out."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.o3d import open3d
from scaffoldlab.scan.render import Renderer
from scaffoldlab.scan.scenes.background import Background
from scaffoldlab.scan.scenes.placement import seen_mask

if TYPE_CHECKING:
    from scaffoldlab.scan.captures.capture import Frame

FRAMES_MAX = 100
"""Frames that are fused at most: of more, evenly spread ones."""
DEPTH_MAX = 2.5
"""Depth beyond which a depth camera is not believed [m]."""
TRUNCATION = 4.0
"""Voxels before and behind a surface in which a depth picture counts."""
MARGIN = 4
"""Pixels around an object that are left out with it: depth edges are smeared."""


def fuse(
    frames: Sequence["Frame"],
    objects: Sequence[str],
    *,
    placed: Renderer | None = None,
    voxel: float = 0.005,
    depth_max: float = DEPTH_MAX,
    on_frame: Callable[[int], object] | None = None,
) -> Background:
    """The background that several depth pictures agree on, in the capture's world.

    Args:
        frames: Pictures with their cameras, one moving camera or several fixed ones.
        objects: Names of the objects to leave out, by their masks.
        placed: The objects at their poses; it leaves out what a frame has no mask of.
        voxel: Side of a voxel [m]; half of it is about the accuracy of a plane.
        depth_max: Depth beyond which nothing is believed [m].
        on_frame: Called with the number of frames done.

    Raises:
        ScaffoldError: Nothing was seen apart from the objects.
    """
    o3d = open3d()
    core = o3d.core
    real = core.float32
    volume = o3d.t.geometry.VoxelBlockGrid(
        ("tsdf", "weight", "color"), (real, real, real), ((1,), (1,), (3,)), voxel, 8, 20_000
    )
    for number, frame in enumerate(frames, 1):
        image = frame.image()
        depth = np.where(np.isfinite(image.depth) & (image.depth < depth_max), image.depth, 0.0)
        depth[object_pixels(frame, objects, placed)] = 0.0
        depths = o3d.t.geometry.Image(depth.astype(np.float32))
        colors = o3d.t.geometry.Image(image.rgb.astype(np.float32) / 255)
        # A voxel takes the pixel that its projection falls into: pixel centres at halves, as ours.
        k, outside = core.Tensor(image.camera.intrinsics), core.Tensor(np.linalg.inv(frame.camera.pose_ec))
        if depth.any():
            blocks = volume.compute_unique_block_coordinates(depths, k, outside, 1.0, depth_max, TRUNCATION)
            volume.integrate(blocks, depths, colors, k, k, outside, 1.0, depth_max, TRUNCATION)
        if on_frame:
            on_frame(number)
    mesh = volume.extract_triangle_mesh(min(3.0, len(frames) - 1.0)).to_legacy()
    if len(mesh.triangles) < 100:
        raise ScaffoldError(
            f"scan scene: {len(frames)} frames have no surface within {depth_max:g} m apart from the objects. Check "
            "the depth scale (`scaffoldlab scan doctor`) and that the masks do not cover whole pictures."
        )
    mesh.compute_vertex_normals()
    return Background(
        np.asarray(mesh.vertices).copy(),
        np.asarray(mesh.vertex_normals).copy(),
        np.asarray(mesh.vertex_colors).copy(),
        np.asarray(mesh.triangles).astype(int),
    )


def object_pixels(frame: "Frame", objects: Sequence[str], placed: Renderer | None = None) -> np.ndarray:
    """Where any of the objects is in a frame, with a margin, shape (height, width), bool."""
    from scipy.ndimage import binary_dilation

    covered = np.zeros((frame.camera.height, frame.camera.width), bool)
    for name in objects:
        mask = seen_mask(frame, name)
        if mask is not None:
            covered |= mask
        elif placed is not None and name in placed.names:
            covered |= placed.alone(name, frame.camera)
    return binary_dilation(covered, iterations=MARGIN) if covered.any() else covered
