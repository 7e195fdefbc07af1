"""A pinhole camera and one RGB-D image of it: pixels to points and back."""

from dataclasses import dataclass
from typing import Self

import numpy as np

from scaffoldlab.errors import ScaffoldError


@dataclass(frozen=True)
class Camera:
    """A pinhole camera without distortion.

    Attributes:
        intrinsics: K, shape (3, 3), pixels; the centre of the top left pixel is (0.5, 0.5).
        pose_ec: Camera to env frame, shape (4, 4), OpenCV axes (x right, y down, z forward) [m].
        width: Image width [px].
        height: Image height [px].
    """

    intrinsics: np.ndarray
    pose_ec: np.ndarray
    width: int
    height: int

    @classmethod
    def look_at(
        cls,
        eye_e: np.ndarray | tuple[float, float, float],
        target_e: np.ndarray | tuple[float, float, float],
        *,
        width: int,
        height: int,
        fov_deg: float,
        up_e: tuple[float, float, float] = (0.0, 0.0, 1.0),
    ) -> Self:
        """The camera at one point that looks at another, with square pixels and a centred axis.

        Args:
            eye_e: Optical centre in the env frame [m], shape (3,).
            target_e: Point that appears in the middle of the image [m], shape (3,).
            width: Image width [px].
            height: Image height [px].
            fov_deg: Horizontal field of view [deg], between 0 and 180.
            up_e: Direction that points up in the image, e.g. (1, 0, 0) for a view from straight above.

        Raises:
            ScaffoldError: The view has no direction, or looks along ``up_e``, or the field of view is impossible.
        """
        if not 0 < fov_deg < 180:
            raise ScaffoldError(f"camera: the field of view is {fov_deg} deg; allowed: between 0 and 180 deg.")
        eye = np.asarray(eye_e, float)
        forward = np.asarray(target_e, float) - eye
        right = np.cross(forward, up_e)
        if np.linalg.norm(right) <= 1e-9 * np.linalg.norm(forward):
            raise ScaffoldError(
                f"camera: the view from {eye_e} to {target_e} has no length or runs along up_e = {up_e}, which leaves "
                "the image's up undefined. Give two different points and an up_e across the view."
            )
        forward, right = forward / np.linalg.norm(forward), right / np.linalg.norm(right)
        pose_ec = np.eye(4)
        pose_ec[:3] = np.stack((right, np.cross(forward, right), forward, eye), -1)
        focal = width / (2 * np.tan(np.deg2rad(fov_deg) / 2))
        intrinsics = np.array(((focal, 0, width / 2), (0, focal, height / 2), (0, 0, 1)))
        return cls(intrinsics, pose_ec, width, height)

    def project(self, points_e: np.ndarray) -> np.ndarray:
        """Pixels (u, v) of points in the env frame [m], shape (..., 3) -> (..., 2); NaN where not before the camera.

        Points that fall beside the image keep their pixel; whether another surface hides them is not looked at.
        """
        points_c = (np.asarray(points_e, float) - self.pose_ec[:3, 3]) @ self.pose_ec[:3, :3]
        depth = np.where(points_c[..., 2:] > 0, points_c[..., 2:], np.nan)
        return (points_c / depth) @ self.intrinsics[:2].T


@dataclass(frozen=True)
class RgbdImage:
    """One picture of the scene.

    Attributes:
        rgb: Colours, shape (height, width, 3), uint8.
        depth: Distance along the optical axis [m], shape (height, width); 0 where nothing was hit.
        camera: The camera that took it.
    """

    rgb: np.ndarray
    depth: np.ndarray
    camera: Camera

    def __post_init__(self) -> None:
        size = (self.camera.height, self.camera.width)
        if self.depth.shape != size or self.rgb.shape != (*size, 3):
            raise ScaffoldError(
                f"RGB-D image: got depth of shape {self.depth.shape} and colours of shape {self.rgb.shape}; the camera "
                f"has height and width {size}, so {size} and {(*size, 3)} are expected."
            )

    def lift(self, pixels_uv: np.ndarray) -> np.ndarray:
        """Points of the env frame that pixels show [m], shape (K, 2) -> (K, 3) (Scaffolds, section 3.1).

        A point lies on the ray through its (u, v), at the depth of the pixel that contains it; the right and the
        lower border belong to the last pixel.

        Raises:
            ScaffoldError: A pixel lies outside the image, or nothing was hit there.
        """
        camera = self.camera
        uv = np.asarray(pixels_uv, float)
        size = np.array((camera.width, camera.height))
        inside = ((uv >= 0) & (uv <= size)).all(-1)
        if not inside.all():
            raise ScaffoldError(
                f"lift: pixel (u, v) = {_pixel(uv[~inside][0])} of point {np.argmin(inside)} is outside the image; "
                f"allowed: u in 0..{camera.width}, v in 0..{camera.height}. Check the order (u right, v down) and the "
                "scale: a model's 0..1000 must be multiplied by width / 1000 and height / 1000."
            )
        column, row = np.minimum(uv.astype(int), size - 1).T
        depth = np.asarray(self.depth[row, column], float)
        hit = np.isfinite(depth) & (depth > 0)
        if not hit.all():
            raise ScaffoldError(
                f"lift: pixel (u, v) = {_pixel(uv[~hit][0])} of point {np.argmin(hit)} has depth {depth[~hit][0]:g} m: "
                "nothing was hit there. Point at a visible surface, or ask the model again."
            )
        rays_c = np.column_stack((uv, np.ones(len(uv)))) @ np.linalg.inv(camera.intrinsics).T
        return (rays_c * depth[:, None]) @ camera.pose_ec[:3, :3].T + camera.pose_ec[:3, 3]


def _pixel(uv: np.ndarray) -> str:
    return f"({uv[0]:g}, {uv[1]:g})"
