"""From a capture of a tabletop to a scene that a task can name: files, checks and a report, all of it or nothing."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from scaffoldlab.camera import Camera
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.files import refuse_existing, write_atomic, write_folder
from scaffoldlab.scan.captures.checks import usable_poses
from scaffoldlab.scan.captures.overlap import spread
from scaffoldlab.scan.captures.view_checks import lost_frames
from scaffoldlab.scan.findings import Finding
from scaffoldlab.scan.keypoint_candidates import object_keypoints, static_keypoints
from scaffoldlab.scan.render import Renderer, renderer_of
from scaffoldlab.scan.scenes.background import Background
from scaffoldlab.scan.scenes.background_cache import cached
from scaffoldlab.scan.scenes.checks import scene_findings
from scaffoldlab.scan.scenes.cloud import read_cloud
from scaffoldlab.scan.scenes.files import BACKGROUND, scene_spec, write_background, write_stage
from scaffoldlab.scan.scenes.fusion import DEPTH_MAX, FRAMES_MAX, fuse
from scaffoldlab.scan.scenes.object_frame import in_body_frame
from scaffoldlab.scan.scenes.objects import ObjectFile, refuse_unknown
from scaffoldlab.scan.scenes.overlay import Reprojection, reprojection
from scaffoldlab.scan.scenes.placement import (
    FoundationPoseFolder,
    IcpTracker,
    Placement,
    masked_points,
    place,
    seen_mask,
)
from scaffoldlab.scan.scenes.solids import Solids, find_solids
from scaffoldlab.scan.scenes.standing import set_down
from scaffoldlab.scan.scenes.support import Table, find_table
from scaffoldlab.scan.scenes.yaml_text import scene_text
from scaffoldlab.specs.models import SceneSpec

if TYPE_CHECKING:
    from scaffoldlab.scan.captures.capture import Capture
    from scaffoldlab.scan.captures.frame import Frame

UNNAMED = "object"
"""What a capture calls an object whose masks are in no folder of its name."""
MEASURED_MAX = 40
"""Frames in which the reprojection is measured at most."""


@dataclass(frozen=True, kw_only=True)
class SceneSettings:
    """What a scan of a scene may be told.

    Attributes:
        up: Direction against gravity in the capture's world, shape (3,); None: the table's normal.
        cloud: Point cloud of the background in the capture's world, instead of the depth pictures.
        table_height: Height of the table above the floor, which a capture seldom shows [m].
        voxel: Side of a voxel of the fused background [m].
        depth_max: Depth beyond which nothing is believed [m].
        frames_max: Frames that are fused at most.
        without: Objects of the capture to leave out.
    """

    up: np.ndarray | None = None
    cloud: Path | None = None
    table_height: float = 0.75
    voxel: float = 0.005
    depth_max: float = DEPTH_MAX
    frames_max: int = FRAMES_MAX
    without: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class ScannedScene:
    """What a scan has found, before anything is written.

    Attributes:
        frames: Frames that were used.
        reference: The frame whose camera becomes the scene's.
        objects: The objects' files by name.
        table: The table, with the way from the capture's world to the env frame.
        solids: What else is solid.
        background: All that was seen, in the env frame.
        placements: The objects in the env frame.
        reprojection: Error of each object that there are masks of.
        settled: Displacement [m] and tilt [deg] of each object that was let fall; empty if none was.
        findings: What was found, for the report.
    """

    frames: Sequence["Frame"]
    reference: "Frame"
    objects: Mapping[str, ObjectFile]
    table: Table
    solids: Solids
    background: Background
    placements: Sequence[Placement]
    reprojection: Mapping[str, Reprojection]
    settled: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    findings: Sequence[Finding] = ()

    @property
    def files(self) -> dict[str, Path]:
        """USD file of each object."""
        return {name: found.path for name, found in self.objects.items()}

    def camera_e(self, frame: "Frame") -> Camera:
        """The camera of a frame, in the env frame."""
        return replace(frame.camera, pose_ec=self.table.pose_ew @ frame.camera.pose_ec)


def scan_scene(
    capture: "Capture",
    objects: Mapping[str, ObjectFile],
    settings: SceneSettings | None = None,
    *,
    checks: Sequence[Finding] = (),
    on_step: Callable[[str, int, int], object] = lambda step, done, total: None,
) -> ScannedScene:
    """Finds the table and the objects of a capture, and measures how well they fit the pictures.

    Args:
        capture: The capture.
        objects: The objects' files by name; those that the capture does not show are left out.
        settings: What the scan is told.
        checks: What an examination of the capture has found; it leads the findings.
        on_step: Called with the name of a step, and how much of it is done.

    Raises:
        ScaffoldError: The capture shows an object of no file, an object has neither poses nor masks, there is no table,
            or an object is not on it.
    """
    settings = settings or SceneSettings()
    capture = replace(capture, frames=[_named(frame, list(objects)) for frame in capture.frames])
    frames = _usable(capture)
    shown = capture.object_names
    wanted = refuse_unknown(capture.folder, shown, objects, settings.without)
    tracked = {n: found for n, o in wanted.items() if (found := _tracked(n, o.path, capture, frames))}
    background, kept = _background(capture, frames, shown, wanted, tracked, settings, on_step)
    reference = _reference(frames, list(wanted))
    on_step("table", 0, 1)
    table = find_table(
        background,
        cameras=np.array([frame.camera.pose_ec[:3, 3] for frame in frames]),
        forward=reference.camera.pose_ec[:3, 2],
        things=_things(frames, list(wanted), tracked),
        up=settings.up,
        height=settings.table_height,
    )
    background = background.moved(table.pose_ew)
    solids = find_solids(background, table)
    files = {name: found.path for name, found in wanted.items()}
    on_step("objects", 0, len(wanted))
    fitted = IcpTracker(spread(frames, 20), files, table.pose_ew[2, :3])
    placements = [_placed(name, tracked, fitted, capture.folder) for name in wanted]
    placements = set_down(placements, files, table, solids)
    on_step("overlay", 0, 1)
    in_world = {p.name: np.linalg.inv(table.pose_ew) @ p.pose for p in placements}
    errors = reprojection(spread(frames, MEASURED_MAX), renderer_of(files, in_world), list(wanted))
    scene = ScannedScene(
        frames=frames,
        reference=reference,
        objects=wanted,
        table=table,
        solids=solids,
        background=background,
        placements=placements,
        reprojection=errors,
    )
    fused = 0 if settings.cloud else min(len(frames), settings.frames_max)
    return replace(scene, findings=[*checks, *scene_findings(capture, scene, fused=fused, kept=kept)])


def write_scene(scene: ScannedScene, out: Path, *, name: str, usd_folder: str, overwrite: bool = False) -> SceneSpec:
    """Writes everything of a scanned scene: USD files, scene.yaml, and the report; all of it or nothing.

    Args:
        scene: What was found.
        out: Folder to write.
        name: Name of the scene.
        usd_folder: The folder as scene files name it, below assets/, e.g. ``scenes/desk``.
        overwrite: Whether a folder that is there is replaced.

    Raises:
        ScaffoldError: The folder is taken, or the disk is full; nothing is left behind.
    """
    from scaffoldlab.scan.scenes.report import write_scene_report

    refuse_existing(out, overwrite=overwrite)
    keypoints = [point for p in scene.placements for point in object_keypoints(p.name, scene.files[p.name])]
    keypoints += static_keypoints(BACKGROUND, scene.table, scene.solids, scene.placements, scene.files)
    usd = {BACKGROUND: f"{usd_folder}/{BACKGROUND}.usda"} | {n: o.usd for n, o in scene.objects.items()}
    things = ", ".join(p.name.replace("_", " ") for p in scene.placements) or "nothing"
    spec = scene_spec(
        description=f"A scanned tabletop with {things}.",
        placements=scene.placements,
        kinds={n: o.kind for n, o in scene.objects.items()},
        usd=usd,
        table=scene.table,
        camera=scene.camera_e(scene.reference),
        keypoints=keypoints,
    )
    with write_folder(out, overwrite=overwrite) as folder:
        write_background(folder / f"{BACKGROUND}.usda", scene.background, scene.table, scene.solids)
        write_stage(folder / "scene.usda", scene.placements, scene.files, out.resolve())
        write_scene_report(folder / "report", scene, spec, name=name, background=folder / f"{BACKGROUND}.usda")
        write_atomic(folder / "scene.yaml", scene_text(spec))  # last: from now on the folder looks like a scene
    return spec


def _usable(capture: "Capture") -> list["Frame"]:
    """The frames whose cameras are known, with those object poses that are no failures."""
    lost = lost_frames(capture) if capture.posed else []
    frames = [f for f in capture.frames if f.name not in lost] if capture.posed else capture.frames[:1]
    tracked = {name for frame in frames for name in frame.object_poses}
    known = replace(capture, frames=frames)
    good = {name: usable_poses(known, name) for name in tracked}
    return [
        replace(f, object_poses={name: poses[f.name] for name, poses in good.items() if f.name in poses})
        for f in frames
    ]


def _named(frame: "Frame", names: Sequence[str]) -> "Frame":
    """The frame with masks and poses of an object without a name under the only name there is."""
    if len(names) != 1 or {*frame.masks, *frame.object_poses} != {UNNAMED}:
        return frame
    parts = {"masks": frame.masks, "object_poses": frame.object_poses}
    return replace(frame, **{part: dict.fromkeys(names, *held.values()) for part, held in parts.items() if held})


def _background(
    capture: "Capture",
    frames: Sequence["Frame"],
    shown: Sequence[str],
    objects: Mapping[str, ObjectFile],
    tracked: Mapping[str, Placement],
    settings: SceneSettings,
    on_step: Callable[[str, int, int], object],
) -> tuple[Background, bool]:
    """The background in the capture's world, and whether it was made before."""
    placed = renderer_of({n: objects[n].path for n in tracked}, {n: p.pose for n, p in tracked.items()})
    if settings.cloud:
        cloud = read_cloud(settings.cloud, seen_from=np.mean([f.camera.pose_ec[:3, 3] for f in frames], axis=0))
        return _without_objects(cloud, placed), False
    used = spread(frames, settings.frames_max)
    known: dict[str, Any] = {"voxel": settings.voxel, "depth_max": settings.depth_max, "shown": list(shown)}
    known |= {"frames": [f.name for f in used], "unit": capture.depth_unit, "version": 1}
    known |= {"tracked": {name: p.pose.round(6).tolist() for name, p in tracked.items()}}

    def make() -> Background:
        return fuse(
            used,
            shown,
            placed=placed,
            voxel=settings.voxel,
            depth_max=settings.depth_max,
            on_frame=lambda done: on_step("fusion", done, len(used)),
        )

    return cached(capture.folder, known, make)


def _without_objects(cloud: Background, placed: Renderer, margin: float = 0.012) -> Background:
    """The cloud without the points on the objects."""
    return cloud.part(placed.distance(cloud.points) > margin) if placed.names else cloud


def _reference(frames: Sequence["Frame"], names: Sequence[str]) -> "Frame":
    """The first frame that shows the most objects."""
    return max(frames, key=lambda frame: len({*frame.masks, *frame.object_poses} & set(names)))


def _things(frames: Sequence["Frame"], names: Sequence[str], tracked: Mapping[str, Placement]) -> np.ndarray:
    """About where the objects are, in the capture's world, shape (O, 3)."""
    found = [placement.pose[:3, 3] for placement in tracked.values()]
    for name in set(names) - tracked.keys():
        frame = next((f for f in frames if seen_mask(f, name) is not None), None)
        points = masked_points(frame, name) if frame else np.empty((0, 3))
        if len(points):
            found.append(np.median(points, axis=0))
    return np.array(found).reshape(-1, 3)


def _tracked(name: str, path: Path, capture: "Capture", frames: Sequence["Frame"]) -> Placement | None:
    """Where the recorded poses of an object have it; those that are failures count as left out."""
    of_body, of_mesh = in_body_frame(frames, name, path)
    found = place(name, FoundationPoseFolder(of_body))
    recorded = sum(name in frame.object_poses for frame in (capture.frames if capture.posed else capture.frames[:1]))
    if found is None:
        return None
    who = f"{found.tracker} of the scanned mesh" if of_mesh else found.tracker
    return replace(found, tracker=who, dropped=recorded - found.looks)


def _placed(name: str, tracked: Mapping[str, Placement], fitted: IcpTracker, folder: Path) -> Placement:
    """The recorded placement of an object, else the one fitted to its masks."""
    found = tracked.get(name) or place(name, fitted)
    if found is None:
        raise ScaffoldError(
            f"{folder}: {name!r} has no usable pose and no depth inside its masks. Track it again with FoundationPose "
            f"and the mesh of this object, draw its masks again, or leave it out with --without {name}."
        )
    return found
