"""Captures whose truth is known: objects on a table, seen by cameras with the faults of real ones, in every layout."""

import json
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import lzfse
import numpy as np
import OpenEXR
import trimesh
import yaml
from PIL import Image
from scipy.spatial.transform import Rotation

from scaffoldlab.camera import Camera
from scaffoldlab.scan.o3d import open3d
from shapes import SHAPES, textured

TABLE = "table"
"""Name of the table in :meth:`SceneTruth.render`; it has no mask on disk."""

DEPTH_UNITS = {"mm": 1e-3, "tum": 1 / 5000, "0.1mm": 1e-4, "npy": 1.0, "exr": 1.0, "half": 1.0}
"""Metres per unit of each way to write depth."""

Failure = Literal["identity", "nan", "jump", "missing"]


@dataclass(frozen=True)
class Faults:
    """What a real camera and a real segmentation do.

    Attributes:
        sigma: Standard deviation of the depth at 1 m [m]; it grows with the square of the depth.
        dropout: Share of pixels without depth.
        edge: Half width of the band without depth along edges [px].
        mask_growth: Pixels by which masks are too large, or too small if negative.
        mask_hole: Radius of a hole in the middle of each mask [px].
    """

    sigma: float = 0.0
    dropout: float = 0.0
    edge: int = 0
    mask_growth: int = 0
    mask_hole: int = 0


NO_FAULTS = Faults()
REAL_FAULTS = Faults(sigma=0.002, dropout=0.02, edge=2, mask_growth=1)
"""About a RealSense D435 at table distance."""


@dataclass
class Picture:
    """A rendered picture: rgb (H, W, 3) uint8, depth (H, W) [m] with 0 for nothing, masks (H, W) bool by object."""

    rgb: np.ndarray
    depth: np.ndarray
    masks: dict[str, np.ndarray]


@dataclass
class SceneTruth:
    """Objects on a table and the cameras that see them, all in the capture's world frame w.

    Attributes:
        objects: Mesh in its own frame and pose_wb, object to world, shape (4, 4).
        table: Mesh in the world frame, a flat rectangle.
        table_normal: Unit normal of the table, against gravity, shape (3,).
        table_height: Points p of the table have p . normal = height [m].
        pose_we: Level env frame (table at z = 0, z up) to the world, shape (4, 4).
        cameras: In order; their ``pose_ec`` is camera to world.
        camera_names: Name of the device of each picture; all the same for one moving camera.
    """

    objects: dict[str, tuple[trimesh.Trimesh, np.ndarray]]
    table: trimesh.Trimesh
    table_normal: np.ndarray
    table_height: float
    pose_we: np.ndarray
    cameras: list[Camera]
    camera_names: list[str]
    _caster: object = field(default=None, repr=False)

    def render(self, camera: Camera, faults: Faults = NO_FAULTS, seed: int = 0) -> Picture:
        """What a camera sees; masks are those of visible pixels."""
        o3d = open3d()
        meshes = [(TABLE, self.table), *((n, m.copy().apply_transform(p)) for n, (m, p) in self.objects.items())]
        if self._caster is None:
            self._caster = o3d.t.geometry.RaycastingScene()
            for _, mesh in meshes:
                self._caster.add_triangles(mesh.vertices.astype(np.float32), mesh.faces.astype(np.uint32))
        rotation_pixels = camera.pose_ec[:3, :3] @ np.linalg.inv(camera.intrinsics)
        rays = np.empty((camera.height, camera.width, 6), np.float32)
        rays[..., :3] = camera.pose_ec[:3, 3]
        rays[..., 3:] = (
            (np.arange(camera.width) + 0.5)[None, :, None] * rotation_pixels[:, 0]
            + (np.arange(camera.height) + 0.5)[:, None, None] * rotation_pixels[:, 1]
            + rotation_pixels[:, 2]
        )
        hits = {k: v.numpy() for k, v in self._caster.cast_rays(o3d.core.Tensor(rays)).items()}
        depth = np.where(np.isfinite(hits["t_hit"]), hits["t_hit"], 0).astype(float)  # the rays have z = 1
        rgb = np.full((*depth.shape, 3), 200, np.uint8)
        masks = {}
        for index, (name, mesh) in enumerate(meshes):
            masks[name] = hits["geometry_ids"] == index
            seen = masks[name]
            rgb[seen] = _colours(mesh, hits["primitive_ids"][seen], hits["primitive_uvs"][seen])
            shade = 0.6 + 0.4 * np.abs(hits["primitive_normals"][seen] @ self.table_normal)
            rgb[seen] = (rgb[seen] * shade[:, None]).astype(np.uint8)
        del masks[TABLE]
        rng = np.random.default_rng((seed, 7))
        return Picture(rgb, _spoil_depth(depth, faults, rng), {n: _spoil_mask(m, faults) for n, m in masks.items()})

    def picture(self, index: int, faults: Faults = NO_FAULTS, seed: int = 0) -> Picture:
        """What the camera of one picture sees."""
        return self.render(self.cameras[index], faults, seed + index)

    def distance(self, points_w: np.ndarray) -> np.ndarray:
        """Distance of points from the nearest true surface [m], shape (N, 3) -> (N,)."""
        self.render(self.cameras[0])
        tensor = open3d().core.Tensor(np.asarray(points_w, np.float32))
        return self._caster.compute_distance(tensor).numpy()


def tabletop(
    seed: int = 0,
    *,
    objects: tuple[str, ...] = ("mug", "book"),
    cameras: Literal["orbit", "fixed", "still"] = "orbit",
    count: int = 8,
    width: int = 160,
    height: int = 120,
    fov_deg: float = 60.0,
    distance: float = 0.7,
    level_world: bool = False,
    table_size: tuple[float, float] = (1.2, 1.2),
) -> SceneTruth:
    """Objects of known size (:mod:`shapes`) that stand apart on a table.

    Args:
        seed: Places, colours and the world frame depend on it alone.
        objects: Names in :data:`shapes.SHAPES`.
        cameras: One that moves around the table, several that stand around it, or one that stands still.
        count: Number of pictures; with ``fixed`` the number of cameras with one picture each.
        width: Image width [px].
        height: Image height [px].
        fov_deg: Horizontal field of view [deg].
        distance: Cameras to the middle of the table [m].
        level_world: True for a world whose z is up and whose table is z = 0; else it is turned and shifted anyhow.
        table_size: Length along x and y [m].
    """
    rng = np.random.default_rng(seed)
    pose_we = np.eye(4)
    if not level_world:
        pose_we = trimesh.transformations.random_rotation_matrix(rng.random(3))
        pose_we[:3, 3] = rng.uniform(-2, 2, 3)
    placed = {}
    turn = rng.uniform(0, 2 * np.pi)
    for index, name in enumerate(objects):
        angle = turn + 2 * np.pi * index / len(objects)
        radius = 0.0 if len(objects) == 1 else 0.2
        pose_eb = trimesh.transformations.rotation_matrix(rng.uniform(0, 2 * np.pi), (0, 0, 1))
        mesh = textured(SHAPES[name](), seed + index)
        pose_eb[:3, 3] = radius * np.cos(angle), radius * np.sin(angle), -mesh.bounds[0, 2]
        placed[name] = mesh, pose_we @ pose_eb
    views = []
    for index in range(count):
        share = 0.0 if cameras == "still" else index / count
        angle, lift = 2 * np.pi * share + 0.3, np.deg2rad(40 + 10 * np.sin(6 * np.pi * share))
        eye_e = distance * np.array((np.cos(angle) * np.cos(lift), np.sin(angle) * np.cos(lift), np.sin(lift)))
        view = Camera.look_at(eye_e, (0, 0, 0.03), width=width, height=height, fov_deg=fov_deg)
        views.append(Camera(view.intrinsics, pose_we @ view.pose_ec, width, height))
    names = [f"cam_{i}" if cameras == "fixed" else "cam" for i in range(count)]
    table = _table(table_size, seed).apply_transform(pose_we)
    normal = pose_we[:3, 2]
    return SceneTruth(placed, table, normal, float(normal @ pose_we[:3, 3]), pose_we, views, names)


def write_capture(
    truth: SceneTruth,
    folder: Path,
    *,
    layout: Literal["tree", "moving", "still", "cameras", "foundationpose", "polycam"] = "moving",
    depth: Literal["mm", "tum", "0.1mm", "npy", "exr", "half"] = "mm",
    faults: Faults = NO_FAULTS,
    masks: Literal["each", "one", "none"] = "each",
    failures: dict[str, dict[int, Failure]] | None = None,
    seed: int = 0,
) -> list[str]:
    """Writes what the cameras see.

    Args:
        truth: The scene.
        folder: Made if it is missing.
        layout: ``tree`` has no camera poses; ``moving`` has one per picture, ``still`` one in all; ``cameras`` has a
            folder per camera; ``foundationpose`` is ``moving`` with ``ob_in_cam/OBJECT/``; ``polycam`` is raw data.
        depth: How depth is written.
        faults: Of the camera and of the masks.
        masks: ``masks/OBJECT/``, or ``masks/`` with the first object alone.
        failures: Object to index of picture to how tracking failed there.
        seed: Of the faults.

    Returns:
        The names that the frames should have, in the order of ``truth.cameras``.
    """
    names = []
    assert layout != "cameras" or len(set(truth.camera_names)) == len(truth.cameras), "tabletop(cameras='fixed')"
    for index, (camera, device) in enumerate(zip(truth.cameras, truth.camera_names, strict=True)):
        picture, stem = truth.picture(index, faults, seed), f"{index:06d}"
        if layout == "polycam":
            _write_keyframe(folder / "keyframes", stem, picture, camera)
            names.append(stem)
            continue
        place = folder / device if layout == "cameras" else folder
        names.append(f"{device}/{stem}" if layout == "cameras" else stem)
        write_image(place / "rgb" / f"{stem}.png", picture.rgb)
        write_depth(place / "depth" / stem, picture.depth, depth)
        write_intrinsics(place / "cam_K.txt", camera)
        for number, (name, mask) in enumerate(picture.masks.items()):
            if masks == "each":
                write_image(place / "masks" / name / f"{stem}.png", mask * np.uint8(255))
            elif masks == "one" and number == 0:
                write_image(place / "masks" / f"{stem}.png", mask * np.uint8(255))
        if layout in ("cameras", "still"):
            write_matrix(place / "cam_in_world.txt", camera.pose_ec)
        elif layout in ("moving", "foundationpose"):
            write_matrix(place / "cam_in_world" / f"{stem}.txt", camera.pose_ec)
        if layout == "foundationpose":
            for name, (_, pose_wb) in truth.objects.items():
                pose_cb = np.linalg.inv(camera.pose_ec) @ pose_wb
                failure = (failures or {}).get(name, {}).get(index)
                if failure != "missing":
                    write_matrix(place / "ob_in_cam" / name / f"{stem}.txt", failed_pose(pose_cb, failure))
    return names


@dataclass
class BundleSdfTruth:
    """What :func:`write_bundlesdf_out` wrote.

    Attributes:
        mesh: The object in its own frame b, z up [m].
        pose_ob: Its frame to the object frame o of BundleSDF's files, an arbitrary rotation, shape (4, 4).
        poses_cb: Object (frame b) to camera of every picture, shape (N, 4, 4).
        sc_factor: Scale of the normalised mesh.
        translation: Its shift before the scaling [m], shape (3,).
    """

    mesh: trimesh.Trimesh
    pose_ob: np.ndarray
    poses_cb: np.ndarray
    sc_factor: float
    translation: np.ndarray


def write_bundlesdf_out(
    folder: Path,
    mesh: trimesh.Trimesh,
    *,
    sc_factor: float = 4.0,
    translation: tuple[float, float, float] = (0.02, -0.03, 0.01),
    count: int = 6,
    width: int = 160,
    height: int = 120,
    faults: Faults = NO_FAULTS,
    floater: bool = True,
    failures: dict[int, Failure] | None = None,
    seed: int = 0,
) -> BundleSdfTruth:
    """Writes BundleSDF's output for one object, given in its own frame in metres with z up.

    ``textured_mesh.obj`` is metric, in an arbitrary frame; ``mesh_cleaned.obj`` is (v + translation) * sc_factor;
    ``mesh/mesh_real_scale.obj`` is metric again and has the floater; ``mesh/mesh_biggest_component.obj`` has not.
    ``cam_K.txt`` is that of a picture whose shorter side is 480 px.
    """
    rng = np.random.default_rng(seed)
    pose_ob = trimesh.transformations.random_rotation_matrix(rng.random(3))
    pose_ob[:3, 3] = -pose_ob[:3, :3] @ mesh.bounds.mean(0) + rng.uniform(-0.01, 0.01, 3)
    if not isinstance(mesh.visual, trimesh.visual.TextureVisuals):
        mesh = textured(mesh, seed)
    real = mesh.copy().apply_transform(pose_ob)
    folder.mkdir(parents=True, exist_ok=True)
    real.visual.material.name = "material_0"
    real.export(folder / "textured_mesh.obj", mtl_name="textured_mesh.mtl")
    bare = trimesh.Trimesh(real.vertices, real.faces, process=False)
    bits = [bare]
    if floater:
        bits.append(trimesh.creation.icosphere(1, 0.004).apply_translation(real.bounds[1] + 0.02))
    normalised = bare.copy()
    normalised.vertices = (bare.vertices + translation) * sc_factor
    normalised.export(folder / "mesh_cleaned.obj")
    (folder / "mesh").mkdir(exist_ok=True)
    trimesh.util.concatenate(bits).export(folder / "mesh" / "mesh_real_scale.obj")
    bare.export(folder / "mesh" / "mesh_biggest_component.obj")
    (folder / "final" / "nerf").mkdir(parents=True, exist_ok=True)
    config = {"sc_factor": float(sc_factor), "translation": [float(t) for t in translation], "datatype": "custom"}
    (folder / "final" / "nerf" / "config.yml").write_text(yaml.safe_dump(config))

    scene = tabletop(seed, objects=(), count=count, width=width, height=height, distance=0.5)
    pose_wb = scene.pose_we @ trimesh.transformations.translation_matrix((0, 0, -mesh.bounds[0, 2]))
    scene.objects["object"] = mesh, pose_wb
    poses_cb = []
    for index, camera in enumerate(scene.cameras):
        picture, stem = scene.picture(index, faults, seed), f"{index:04d}"
        write_image(folder / "color" / f"{stem}.png", picture.rgb)
        write_depth(folder / "depth" / stem, picture.depth, "mm")
        write_image(folder / "mask" / f"{stem}.png", picture.masks["object"] * np.uint8(255))
        write_intrinsics(folder / "cam_K.txt", camera, scale=480 / min(width, height))
        poses_cb.append(np.linalg.inv(camera.pose_ec) @ pose_wb)
        pose_co, failure = poses_cb[-1] @ np.linalg.inv(pose_ob), (failures or {}).get(index)
        if failure != "missing":
            write_matrix(folder / "ob_in_cam" / f"{stem}.txt", failed_pose(pose_co, failure))
    return BundleSdfTruth(mesh, pose_ob, np.array(poses_cb), sc_factor, np.array(translation))


def write_record3d(
    truth: SceneTruth, path: Path, *, scale: int = 2, exported: bool = False, faults: Faults = NO_FAULTS
) -> None:
    """Writes a recording of Record3D: an archive if its name ends in .r3d, else a folder as it unpacks.

    The confidence is 0 in the 8 columns at the left border, 1 and 2 elsewhere.

    Args:
        truth: The scene.
        path: Archive or folder.
        scale: Pixels of the pictures for each one of the depth; K is of twice the depth's size whatever this is.
        exported: Whether it is the export as EXR and pictures.
        faults: Of the camera.
    """
    folder = path.with_suffix("") if path.suffix == ".r3d" else path
    poses = []
    for index, camera in enumerate(truth.cameras):
        picture = truth.picture(index, faults)
        depth = np.where(picture.depth > 0, picture.depth, np.nan).astype(np.float32)
        confidence = np.where(np.arange(camera.width) < 8, 0, 1 + (picture.depth < 0.7)).astype(np.uint8)
        rgb = folder / ("rgb" if exported else "rgbd") / f"{index}.jpg"
        write_image(rgb, picture.rgb.repeat(scale, 0).repeat(scale, 1))
        if exported:
            write_exr(folder / "depth" / f"{index}.exr", {"R": depth})
        else:
            rgb.with_suffix(".depth").write_bytes(lzfse.compress(depth.tobytes()))
            rgb.with_suffix(".conf").write_bytes(lzfse.compress(confidence.tobytes()))
        pose = arkit_pose(camera)
        poses.append([*Rotation.from_matrix(pose[:3, :3]).as_quat(), *pose[:3, 3]])
    camera = truth.cameras[0]
    (fx, _, cx), (_, fy, cy) = 2 * camera.intrinsics[:2]
    data = {"w": 2 * camera.width, "h": 2 * camera.height, "dw": camera.width, "dh": camera.height, "fps": 60}
    data |= {"K": [fx, 0, 0, 0, fy, 0, cx, cy, 1], "poses": poses, "initPose": [0, 0, 0, 1, 5, 5, 5]}
    (folder / ("metadata.json" if exported else "metadata")).write_text(json.dumps(data))
    if path != folder:
        pack(folder, path)


def pack(folder: Path, path: Path) -> Path:
    """Writes an archive of what is in a folder."""
    with zipfile.ZipFile(path, "w") as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return path


def arkit_pose(camera: Camera) -> np.ndarray:
    """Camera to world as ARKit has them: its world is y up, its camera looks along -z, shape (4, 4)."""
    arkit_from_w = np.array(((1.0, 0, 0, 0), (0, 0, 1, 0), (0, -1, 0, 0), (0, 0, 0, 1)))
    return arkit_from_w @ camera.pose_ec @ np.diag((1.0, -1, -1, 1))


def failed_pose(pose: np.ndarray, failure: Failure | None) -> np.ndarray:
    """What a tracker writes instead of a pose, shape (4, 4)."""
    pose = pose.copy()
    if failure == "identity":  # a failed registration guesses the translation from the mask
        pose[:3, :3] = np.eye(3)
        pose[:3, 3] += 0.02
    elif failure == "nan":
        pose[:] = np.nan
    elif failure == "jump":
        pose[:3, 3] += (0.25, 0.0, 0.1)
    return pose


def write_image(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, compress_level=1)


def write_depth(path: Path, depth: np.ndarray, how: str) -> None:
    """Writes ``PATH.png``, ``PATH.npy`` or ``PATH.exr``."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if how == "npy":
        np.save(path.with_suffix(".npy"), depth.astype(np.float32))
    elif how in ("exr", "half"):
        write_exr(path.with_suffix(".exr"), {"Y": depth.astype(np.float32 if how == "exr" else np.float16)})
    else:
        write_image(path.with_suffix(".png"), np.round(depth / DEPTH_UNITS[how]).clip(0, 65535).astype(np.uint16))


def write_exr(path: Path, channels: dict[str, np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with OpenEXR.File({"compression": OpenEXR.ZIP_COMPRESSION, "type": OpenEXR.scanlineimage}, channels) as file:
        file.write(str(path))


def write_matrix(path: Path, matrix: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savetxt(path, matrix)


def write_intrinsics(path: Path, camera: Camera, scale: float = 1.0) -> None:
    """K as OpenCV has it, pixel centres at whole numbers."""
    intrinsics = camera.intrinsics.copy()
    intrinsics[:2, 2] -= 0.5
    intrinsics[:2] *= scale
    write_matrix(path, intrinsics)


def _write_keyframe(folder: Path, stem: str, picture: Picture, camera: Camera) -> None:
    """The picture has twice the pixels of the depth."""
    write_image(folder / "images" / f"{stem}.jpg", picture.rgb.repeat(2, 0).repeat(2, 1))
    write_depth(folder / "depth" / stem, picture.depth, "mm")
    pose = arkit_pose(camera)
    (fx, _, cx), (_, fy, cy) = 2 * camera.intrinsics[:2]
    numbers = dict(fx=fx, fy=fy, cx=cx, cy=cy, width=2 * camera.width, height=2 * camera.height, blur_score=100.0)
    numbers |= {f"t_{row}{column}": pose[row, column] for row in range(3) for column in range(4)}
    (folder / "cameras").mkdir(parents=True, exist_ok=True)
    (folder / "cameras" / f"{stem}.json").write_text(json.dumps(numbers))


def _table(size: tuple[float, float], seed: int) -> trimesh.Trimesh:
    x, y = size[0] / 2, size[1] / 2
    tiles = np.random.default_rng(seed).integers(90, 160, (12, 12, 1), dtype=np.uint8).repeat(3, -1)
    visual = trimesh.visual.TextureVisuals(uv=[(0, 0), (1, 0), (1, 1), (0, 1)], image=Image.fromarray(tiles))
    corners = [(-x, -y, 0), (x, -y, 0), (x, y, 0), (-x, y, 0)]
    return trimesh.Trimesh(corners, [(0, 1, 2), (0, 2, 3)], visual=visual, process=False)


def _colours(mesh: trimesh.Trimesh, triangles: np.ndarray, barycentric: np.ndarray) -> np.ndarray:
    """Colours of points on a textured mesh, shape (N, 3), uint8."""
    texture = np.asarray(mesh.visual.material.image.convert("RGB"))
    size = np.array(texture.shape[1::-1])
    corners = ((mesh.visual.uv * (1, -1) + (0, 1)) * size).astype(np.float32)[mesh.faces]
    a, b, c = corners[triangles].swapaxes(0, 1)
    uv = a + barycentric[:, :1] * (b - a) + barycentric[:, 1:] * (c - a)
    column, row = np.clip(uv.astype(int), 0, size - 1).T
    return texture[row, column]


def _spoil_depth(depth: np.ndarray, faults: Faults, rng: np.random.Generator) -> np.ndarray:
    noisy = depth + rng.normal(size=depth.shape) * faults.sigma * depth**2
    noisy[rng.random(depth.shape) < faults.dropout] = 0
    if faults.edge:
        step = (np.abs(np.diff(depth, axis=0, prepend=depth[:1])) > 0.02) | (
            np.abs(np.diff(depth, axis=1, prepend=depth[:, :1])) > 0.02
        )
        noisy[_grown(step, faults.edge)] = 0
    return np.where(depth > 0, noisy, 0).clip(0)


def _spoil_mask(mask: np.ndarray, faults: Faults) -> np.ndarray:
    mask = _grown(mask, faults.mask_growth) if faults.mask_growth >= 0 else ~_grown(~mask, -faults.mask_growth)
    if faults.mask_hole and mask.any():
        row, column = np.nonzero(mask)
        grid = np.mgrid[: mask.shape[0], : mask.shape[1]] - np.array((row.mean(), column.mean()))[:, None, None]
        mask = mask & (np.linalg.norm(grid, axis=0) > faults.mask_hole)
    return mask


def _grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """The mask and all that is within some pixels of it, along rows and columns."""
    for _ in range(pixels):
        padded = np.pad(mask, 1)
        mask = mask | padded[2:, 1:-1] | padded[:-2, 1:-1] | padded[1:-1, 2:] | padded[1:-1, :-2]
    return mask
