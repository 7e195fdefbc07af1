"""A desk with things on it, rendered from known poses: what a perfect scanner and tracker would have recorded."""

from dataclasses import dataclass, field, replace

import numpy as np
import trimesh
from scipy.spatial.transform import Rotation

from conftest import ROOT
from scaffoldlab.camera import Camera, RgbdImage
from scaffoldlab.scan.render import Renderer
from scaffoldlab.usd.reader import VisualPart, collider_points, visual_parts

OBJECTS = ROOT / "assets/objects"
DESK = (0.8, 1.2, 0.04)
"""Sides of the desk [m]; its top is z = 0 in the truth's frame."""
SHELF = (0.30, 0.70, 0.02), (0.20, -0.10, 0.25)
"""Sides of a board, and where its middle is [m]."""
PLACES = {
    "apple": (-0.12, 0.15, 40),
    "box": (0.05, -0.25, -25),
    "bottle": (0.08, 0.30, 10),
    "hammer": (-0.25, -0.30, 60),
    "sponge": (-0.15, -0.05, 15),
}
"""x, y [m] and yaw [deg] of each object."""


def pose_of(x, y, z, yaw_deg=0.0, rotation=None):
    pose = np.eye(4)
    pose[:3, :3] = (Rotation.from_euler("z", yaw_deg, degrees=True) * (rotation or Rotation.identity())).as_matrix()
    pose[:3, 3] = x, y, z
    return pose


def cuboid(size, center, color):
    mesh = trimesh.creation.box(size).apply_translation(center)
    return VisualPart(np.asarray(mesh.vertices), np.asarray(mesh.faces), None, np.asarray(color, float), None)


def resting(name, x, y, yaw_deg):
    """The pose of an object whose colliders stand on z = 0."""
    return pose_of(x, y, -collider_points(OBJECTS / name / f"{name}.usda")[:, 2].min(), yaw_deg)


@dataclass
class Frame:
    """The part of ``scan.capture.Frame`` that the scanner of scenes reads."""

    name: str
    camera: Camera
    rgbd: RgbdImage
    masks: dict = field(default_factory=dict)
    object_poses: dict = field(default_factory=dict)

    def image(self):
        return self.rgbd

    def mask(self, name):
        return self.masks[name]


@dataclass
class Desk:
    """Frames and the truth: poses of the desk (its top's middle) and of the objects in the capture's world."""

    frames: list
    desk: np.ndarray
    objects: dict

    @property
    def files(self):
        return {name: OBJECTS / name / f"{name}.usda" for name in self.objects}


def make_desk(
    *,
    count=6,
    size=(160, 120),
    names=("apple", "box", "bottle"),
    noise=0.0,
    shelf=False,
    pose_noise=(0.0, 0.0),
    seed=0,
    poses=None,
):
    """A desk seen from an arc of cameras, in a capture's world that is turned and moved against gravity.

    Args:
        count: Frames.
        size: Width and height [px].
        names: Objects on the desk.
        noise: Standard deviation of the depth at 1 m [m]; it grows with the square of the distance.
        shelf: Whether a board stands over the desk.
        pose_noise: Standard deviations of the tracked object poses [m], [deg].
        seed: Seed of the noise and of the capture's world.
        poses: Poses of objects in the truth's frame, in place of PLACES.
    """
    rng = np.random.default_rng(seed)
    world = pose_of(0.4, -0.2, 0.9, 0, Rotation.from_euler("xyz", (100, 20, 50), degrees=True))
    places = {name: resting(name, *PLACES[name]) for name in names}
    places |= poses or {}
    truth = {name: world @ pose for name, pose in places.items()}
    bodies = {"desk": (cuboid(DESK, (0, 0, -DESK[2] / 2), (0.5, 0.36, 0.22)),)}
    if shelf:
        bodies["desk"] += (cuboid(*SHELF, (0.2, 0.3, 0.4)),)
    bodies |= {name: visual_parts(OBJECTS / name / f"{name}.usda") for name in places}
    renderer = Renderer(bodies, {"desk": world, **truth})
    frames = []
    for number in range(count):
        angle = np.radians(180 + (0 if count == 1 else np.linspace(-60, 60, count)[number]))
        eye = (1.0 * np.cos(angle), 1.0 * np.sin(angle), 0.75 + 0.1 * (number % 2))
        camera = Camera.look_at(eye, (0, 0, 0), width=size[0], height=size[1], fov_deg=60, up_e=(0.05, 0.1, 1.0))
        camera = replace(camera, pose_ec=world @ camera.pose_ec)
        frames.append(_frame(f"{number:04d}", camera, renderer, truth, noise, pose_noise, rng))
    return Desk(frames, world, truth)


def _frame(name, camera, renderer, truth, noise, pose_noise, rng):
    render = renderer.render(camera)
    depth = render.depth + noise * render.depth**2 * rng.standard_normal(render.depth.shape)
    tracked = {}
    for body, pose in truth.items():
        pose_co = np.linalg.inv(camera.pose_ec) @ pose
        pose_co[:3, 3] += pose_noise[0] * rng.standard_normal(3)
        turn = Rotation.from_rotvec(np.radians(pose_noise[1]) * rng.standard_normal(3))
        pose_co[:3, :3] = turn.as_matrix() @ pose_co[:3, :3]
        tracked[body] = pose_co
    masks = {body: render.body == renderer.names.index(body) for body in truth}
    image = RgbdImage(render.rgb, np.where(render.depth > 0, depth.round(3), 0.0), camera)
    return Frame(name, camera, image, masks, tracked)
