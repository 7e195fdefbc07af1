"""A scanned desk against the truth that its pictures were rendered from, and every bad input by its message."""

import errno
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pxr import Usd, UsdGeom
from scipy.spatial.transform import Rotation

from desks import DESK, OBJECTS, SHELF, make_desk, pose_of
from scaffoldlab.cli import scan_scene as command
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.captures.capture import Capture
from scaffoldlab.scan.o3d import open3d
from scaffoldlab.scan.scenes import scene as pipeline
from scaffoldlab.scan.scenes.background import Background
from scaffoldlab.scan.scenes.background_cache import KEPT, cached
from scaffoldlab.scan.scenes.objects import find_objects
from scaffoldlab.scan.scenes.overlay import silhouette_error
from scaffoldlab.scan.scenes.placement import mesh_of
from scaffoldlab.scan.scenes.scene import SceneSettings, scan_scene, write_scene
from scaffoldlab.scan.scenes.settle import settle_scene
from scaffoldlab.scan.scenes.standing import seating_turn
from scaffoldlab.scan.scenes.support import find_table
from scaffoldlab.specs.models import SceneSpec, read_yaml

NAMES = ("apple", "box", "bottle")


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """No background of another run is found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def captured(tmp_path):
    """A desk as a capture; each is another one to the cache."""

    def make(desk, *, posed=True, **changes):
        folder = tmp_path / "capture"
        folder.mkdir(exist_ok=True)
        (folder / f"{len(list(folder.iterdir()))}.txt").touch()
        frames = [replace(frame, **changes) for frame in desk.frames]
        return Capture(folder, frames, 0.001, "known", posed)

    return make


@pytest.fixture(scope="module")
def desk():
    return make_desk(count=6, size=(320, 240), noise=0.002, shelf=True, pose_noise=(0.003, 0.8))


@pytest.fixture(scope="module")
def objects():
    return find_objects([OBJECTS / name for name in (*NAMES, "hammer")])


@pytest.fixture(scope="module")
def scene(desk, objects, tmp_path_factory):
    return scan_scene(Capture(tmp_path_factory.mktemp("capture"), desk.frames, 0.001, "known", True), objects)


def errors(scene, desk):
    """Distance [m] and angle [deg] of every object from the truth."""
    found = {}
    for p in scene.placements:
        truth = scene.table.pose_ew @ desk.objects[p.name]
        turn = Rotation.from_matrix(p.pose[:3, :3] @ truth[:3, :3].T).magnitude()
        found[p.name] = float(np.linalg.norm(p.pose[:3, 3] - truth[:3, 3])), float(np.degrees(turn))
    return found


def finding(scene, check):
    return next(f for f in scene.findings if f.check == check)


# --- against the truth ----------------------------------------------------------------------------------------------


def test_table_is_within_2_mm_and_half_a_degree(scene, desk):
    top = scene.table.pose_ew @ desk.desk
    assert abs(top[2, 3] - scene.table.height) < 0.002
    assert np.degrees(np.arccos(top[2, 2])) < 0.5
    assert sorted(scene.table.size) == pytest.approx(sorted(DESK[:2]), abs=0.02)
    assert np.abs(top[:2, 3]).max() < 0.01  # the middle of the table is above the origin
    assert (scene.table.pose_ew @ desk.frames[0].camera.pose_ec)[0, 2] > 0.5  # x is away from the first camera


def test_tracked_objects_are_within_3_mm_and_1_degree(scene, desk):
    assert set(errors(scene, desk)) == set(NAMES)
    for name, (distance, angle) in errors(scene, desk).items():
        assert distance < 0.003, name
        assert angle < 1.0, name


def test_outlines_are_within_2_pixels(scene):
    for error in scene.reprojection.values():
        assert error.contour_px < 2 and error.centroid_px < 2 and error.overlap > 0.85


def test_board_is_found_where_it_is(scene, desk):
    (board,) = scene.solids.solids
    size, middle = SHELF
    truth = scene.table.pose_ew @ desk.desk @ np.append(middle, 1)
    assert board.kind == "board"
    assert (board.corners_e.min(0) + board.corners_e.max(0)) / 2 == pytest.approx(truth[:3], abs=0.01)
    assert sorted(np.ptp(board.corners_e, axis=0))[1:] == pytest.approx(sorted(size)[1:], abs=0.02)


def test_everything_of_a_good_capture_is_fine(scene):
    assert [f for f in scene.findings if f.severity != "ok"] == []


def test_objects_without_poses_are_fitted_to_their_masks(desk, objects, captured):
    scene = scan_scene(captured(desk, object_poses={}), objects)
    found = errors(scene, desk)
    assert all(distance < 0.003 for distance, _ in found.values())
    assert found["box"][1] < 1.0  # the others look the same from all sides
    assert {p.tracker for p in scene.placements} == {"ICP stand-in"}


@pytest.mark.parametrize("name", ["desk.ply", "desk.pcd"])
def test_point_cloud_takes_the_place_of_depth(desk, objects, captured, tmp_path, name):
    o3d, rng = open3d(), np.random.default_rng(0)
    points = np.column_stack((rng.uniform(-0.4, 0.4, 20_000), rng.uniform(-0.6, 0.6, 20_000), np.zeros(20_000)))
    points[:, 2] = rng.normal(0, 0.001, 20_000)
    cloud = o3d.geometry.PointCloud(o3d.utility.Vector3dVector(points @ desk.desk[:3, :3].T + desk.desk[:3, 3]))
    o3d.io.write_point_cloud(str(tmp_path / name), cloud)
    scene = scan_scene(captured(desk), objects, SceneSettings(cloud=tmp_path / name))
    assert abs((scene.table.pose_ew @ desk.desk)[2, 3] - scene.table.height) < 0.002
    with pytest.raises(ScaffoldError, match=r"none\.ply: no point cloud; allowed"):
        scan_scene(captured(desk), objects, SceneSettings(cloud=tmp_path / "none.ply"))


def test_cameras_that_stand_around_the_table_make_a_scene(objects, captured):
    desk = make_desk(count=4, size=(160, 120))
    for number, frame in enumerate(desk.frames):
        frame.name = f"cam_{number}/000000"
    scene = scan_scene(captured(desk), objects)
    assert set(errors(scene, desk)) == set(NAMES)
    assert all(distance < 0.003 and angle < 1.0 for distance, angle in errors(scene, desk).values())


def test_given_up_wins_over_the_table(desk, objects, captured):
    lean = Rotation.from_euler("x", 3, degrees=True).as_matrix()
    scene = scan_scene(captured(desk), objects, SceneSettings(up=desk.desk[:3, :3] @ lean[:, 2], table_height=0.9))
    assert scene.table.tilt_deg == pytest.approx(3, abs=0.1) and scene.table.height == 0.9
    assert finding(scene, "table").severity == "warning"
    with pytest.raises(ScaffoldError, match=r"normal is \d+ deg from the given up.*--up x,y,z"):
        scan_scene(captured(desk), objects, SceneSettings(up=desk.desk[:3, 0]))


def test_two_outlines_a_pixel_apart_are_a_pixel_apart():
    area = np.zeros((40, 40), bool)
    area[10:20, 10:30] = True
    assert silhouette_error(area, area) == (0, 0, 1)
    contour, centroid, overlap = silhouette_error(area, np.roll(area, 2, 0))
    assert 0 < contour < 2 and centroid == 2 and overlap == 8 / 12


# --- bad input ------------------------------------------------------------------------------------------------------


def test_one_frame_works_with_a_warning(objects, captured):
    desk = make_desk(count=1, size=(320, 240))
    scene = scan_scene(captured(desk), objects)
    assert all(distance < 0.003 for distance, _ in errors(scene, desk).values())
    assert finding(scene, "frames").severity == "warning" and "one side" in finding(scene, "frames").seen


def test_without_camera_poses_the_first_frame_is_used_with_a_warning(desk, objects, captured):
    scene = scan_scene(captured(desk, posed=False), objects)
    assert len(scene.frames) == 1 and "no camera poses" in finding(scene, "frames").seen


def test_failed_poses_are_left_out(objects, captured):
    desk = make_desk(count=8, size=(160, 120))
    failed = np.eye(4)
    failed[:3, 3] = desk.frames[1].object_poses["box"][:3, 3]
    desk.frames[1].object_poses["box"] = failed
    desk.frames[2].object_poses["box"] = np.full((4, 4), np.nan)
    desk.frames[3].object_poses["box"] = pose_of(0.3, 0.3, 0.1) @ desk.frames[3].object_poses["box"]
    del desk.frames[4].object_poses["box"]
    scene = scan_scene(captured(desk), objects)
    box = next(p for p in scene.placements if p.name == "box")
    assert (box.looks, box.dropped) == (4, 3)
    distance, angle = errors(scene, desk)["box"]
    assert distance < 0.003 and angle < 0.1


def test_frames_of_a_lost_camera_are_left_out(desk, objects, captured):
    capture = captured(desk)
    capture.frames[3] = replace(capture.frames[3], camera=replace(desk.frames[3].camera, pose_ec=np.eye(4)))
    scene = scan_scene(capture, objects)
    assert [f.name for f in scene.frames] == ["0000", "0001", "0002", "0004", "0005"]
    assert {(p.looks, p.dropped) for p in scene.placements} == {(5, 1)}
    assert "6 frames, the background from 5" in finding(scene, "frames").seen
    test_table_is_within_2_mm_and_half_a_degree(scene, desk)


def test_empty_masks_are_no_masks(objects, captured):
    desk = make_desk(count=4, size=(160, 120))
    empty = dict.fromkeys(NAMES, np.zeros((120, 160), bool))
    scene = scan_scene(captured(desk, masks=empty), objects)  # the poses say where the objects are
    assert scene.solids.solids == [] and finding(scene, "box: overlay").severity == "warning"
    with pytest.raises(ScaffoldError, match=r"'apple' has no usable pose.*Track it again.*--without apple"):
        scan_scene(captured(desk, masks=empty, object_poses={}), objects)


@pytest.mark.parametrize(
    ("height", "message"),
    [
        (-0.2, r"'box' is under the table: its lowest point is 2\d\.\d cm below.*allowed: 2 cm.*--up"),
        (1.0, r"'box' is in the air: .* cm above the table.*allowed: 10 cm.*--without"),
    ],
)
def test_object_off_the_table_is_refused(objects, captured, height, message):
    desk = make_desk(count=4, size=(160, 120), names=("apple",), poses={"box": pose_of(0, -0.2, height)})
    with pytest.raises(ScaffoldError, match=message):
        scan_scene(captured(desk), objects)


def test_object_a_little_inside_the_table_is_lifted_out_of_it(objects, captured):
    desk = make_desk(count=4, size=(160, 120))
    for frame in desk.frames:
        down = desk.desk[:3, :3] @ (0, 0, -0.015)
        frame.object_poses["box"][:3, 3] += frame.camera.pose_ec[:3, :3].T @ down
    scene = scan_scene(captured(desk), objects)
    box = next(p for p in scene.placements if p.name == "box")
    assert box.lifted == pytest.approx(0.016, abs=0.003)
    assert errors(scene, desk)["box"][0] < 0.003
    assert "lifted by 1" in finding(scene, "box: rest").seen and finding(scene, "box: rest").severity == "warning"


def test_object_that_was_tracked_askew_stands_flat_and_touches_nothing(objects, captured):
    desk = make_desk(count=4, size=(160, 120))
    tilt = np.eye(4)
    tilt[:3, :3] = Rotation.from_euler("xy", (2.5, -2.0), degrees=True).as_matrix()
    for frame in desk.frames:
        frame.object_poses["box"] = frame.object_poses["box"] @ tilt
    scene = scan_scene(captured(desk), objects)
    box = next(p for p in scene.placements if p.name == "box")
    assert box.turned_deg == pytest.approx(3.2, abs=0.1)
    assert errors(scene, desk)["box"][1] < 0.2
    corners = mesh_of(scene.files["box"]).vertices @ box.pose[:3, :3].T + box.pose[:3, 3]
    assert 0 < corners[:, 2].min() - scene.table.height < 0.003


def test_seat_is_a_side_that_carries_the_body():
    wedge = np.array([(x, y, z) for x, z in ((0, 0), (1, 0), (3, 1), (2, 1)) for y in (0, 1)], float)  # tips over
    assert seating_turn(wedge, np.eye(3), np.array((0.0, 0, 1))).magnitude() == 0
    box = np.array([(x, y, z) for x in (0, 1) for y in (0, 1) for z in (0, 1)], float)
    lean = Rotation.from_euler("y", 4, degrees=True)
    up = np.array((0.0, 0, 1))
    assert (seating_turn(box, lean.as_matrix(), up) * lean).magnitude() == pytest.approx(0, abs=1e-6)
    assert seating_turn(box, Rotation.from_euler("y", 8, degrees=True).as_matrix(), up).magnitude() == 0


def test_clutter_is_no_table():
    points = np.random.default_rng(0).uniform(-0.5, 0.5, (3000, 3))
    nothing = Background(points, np.tile((0.0, 0, 1), (3000, 1)), np.zeros((3000, 3)), np.empty((0, 3), int))
    with pytest.raises(ScaffoldError, match=r"found .*plane.*below every camera.*--up x,y,z"):
        find_table(nothing, cameras=np.array(((0.0, 0, 0.2),)), forward=np.array((1.0, 0, 0)))


def test_object_without_a_file_is_named(desk, objects, captured):
    few = {name: objects[name] for name in ("apple", "hammer")}
    with pytest.raises(ScaffoldError, match=r"unknown object 'bottle'.*Allowed: apple, hammer.*--without bottle"):
        scan_scene(captured(desk), few)
    scene = scan_scene(captured(desk), few, SceneSettings(without=("bottle", "box")))
    assert [p.name for p in scene.placements] == ["apple"]
    assert len(scene.solids.solids) == 1  # what is left out of the scene does not become a part of the table
    with pytest.raises(ScaffoldError, match=r"--without: unknown object 'apples'\. Did you mean 'apple'"):
        scan_scene(captured(desk), objects, SceneSettings(without=("apples",)))


def test_masks_without_a_name_are_those_of_the_only_object(captured):
    desk = make_desk(count=3, size=(160, 120), names=("box",))
    for frame in desk.frames:
        frame.masks, frame.object_poses = {"object": frame.masks["box"]}, {"object": frame.object_poses["box"]}
    scene = scan_scene(captured(desk), find_objects([OBJECTS / "box"]))
    assert [p.name for p in scene.placements] == ["box"]


def test_files_that_are_no_objects_are_refused(tmp_path):
    with pytest.raises(ScaffoldError, match=r"--objects .*none: no object; allowed: a USD file, or a folder NAME"):
        find_objects([OBJECTS / "none"])
    with pytest.raises(ScaffoldError, match="an articulation; allowed: an object without joints"):
        find_objects([OBJECTS / "cabinet"])
    (tmp_path / "ball.usda").write_text('#usda 1.0\n(defaultPrim = "ball")\ndef Sphere "ball" {}\n')
    with pytest.raises(ScaffoldError, match="SCAFFOLDLAB_PATH"):
        find_objects([tmp_path / "ball.usda"])


# --- what is written ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def written(scene, tmp_path_factory):
    out = tmp_path_factory.mktemp("root") / "assets/scenes/desk"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("scaffoldlab.scan.scenes.report.TURN_PICTURES", 3)
        write_scene(scene, out, name="desk", usd_folder="scenes/desk")
    return out


def test_scene_file_says_what_was_found(written, scene):
    spec = read_yaml(written / "scene.yaml", SceneSpec, "desk")
    assert {a.name: a.kind for a in spec.assets} == {"background": "static"} | dict.fromkeys(sorted(NAMES), "rigid")
    for p in scene.placements:
        pose = spec.asset(p.name, "").pose()
        assert pose[:3] == pytest.approx(p.pose[:3, 3], abs=1e-4)
        assert Rotation.from_quat(pose[3:]).as_matrix() == pytest.approx(p.pose[:3, :3], abs=1e-4)
    real, simulated = scene.camera_e(scene.reference), spec.camera.camera()
    assert simulated.pose_ec == pytest.approx(real.pose_ec, abs=2e-4)
    assert simulated.intrinsics == pytest.approx(real.intrinsics)
    low, high = np.array(spec.workspace)
    assert all((low < p.pose[:3, 3]).all() and (p.pose[:3, 3] < high).all() for p in scene.placements)


def test_keypoints_are_on_the_surfaces(written, scene):
    spec = read_yaml(written / "scene.yaml", SceneSpec, "desk")
    for keypoint in spec.keypoints:
        if keypoint.body == "background":
            surface = (
                scene.table.height if keypoint.name.startswith("table") else scene.solids.solids[0].corners_e.max()
            )
            height = keypoint.point[2]
            assert height == pytest.approx(surface, abs=0.03) or keypoint.name.startswith("board")
        elif keypoint.name != keypoint.body:
            mesh = mesh_of(scene.files[keypoint.body])
            assert np.linalg.norm(mesh.vertices - keypoint.point, axis=-1).min() < 0.05
    names = [k.name for k in spec.keypoints]
    assert {"apple", "box +y", "table 1", "board 1 1"} <= set(names) and len(set(names)) == len(names)


def test_stage_refers_to_the_objects_and_places_them(written, scene):
    stage = Usd.Stage.Open(str(written / "scene.usda"))
    for p in scene.placements:
        prim = stage.GetPrimAtPath(f"/scene/{p.name}")
        assert len(prim.GetChildren()) > 1
        matrix = np.array(UsdGeom.Xformable(prim).ComputeLocalToWorldTransform(0)).T
        assert matrix == pytest.approx(p.pose, abs=1e-6)
    assert not list(written.glob("apple*"))  # no copies


def test_background_is_solid_below_the_table_top(written, scene):
    from scaffoldlab.usd.reader import collider_boxes

    boxes = collider_boxes(written / "background.usda")
    center, axes, half = boxes[0]
    assert len(boxes) == 1 + len(scene.solids.solids)
    assert center[2] + half[2] == pytest.approx(scene.table.height, abs=1e-6) and half[2] == pytest.approx(0.02)
    assert np.abs(axes[2, 2]) == pytest.approx(1)


def test_report_says_the_same_and_loads_nothing(written, scene):
    values = json.loads((written / "report/report.json").read_text())
    assert values["objects"]["box"]["reprojection"]["contour_px"] < 2
    assert values["capture_to_env"] == scene.table.pose_ew.round(6).tolist()
    page = (written / "report/index.html").read_text()
    assert "http:" not in page and "https:" not in page
    assert page.count("data:image/webp") == 13 and page.count("data:image/gif") == 1
    for text in ("apple: overlay", f"{100 * scene.table.size[0]:.0f} × ", "objects/box/box.usda", "all fine"):
        assert text in page


def test_full_disk_leaves_nothing(scene, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ScaffoldError, match=r"No space left on device.*Free space"):
        write_scene(scene, tmp_path / "assets/scenes/desk", name="desk", usd_folder="scenes/desk")
    assert list((tmp_path / "assets/scenes").iterdir()) == []


def test_really_full_disk_leaves_nothing(scene, small_disk):
    with pytest.raises(ScaffoldError, match=r"No space left on device.*Free space"):
        write_scene(scene, small_disk / "desk", name="desk", usd_folder="scenes/desk")
    assert list(small_disk.iterdir()) == []


def test_folder_that_is_there_is_kept_unless_told_otherwise(scene, tmp_path, monkeypatch):
    (tmp_path / "desk").mkdir()
    (tmp_path / "desk/mine.txt").touch()
    with pytest.raises(ScaffoldError, match=r"desk: there is a folder with files already.*--overwrite"):
        write_scene(scene, tmp_path / "desk", name="desk", usd_folder="scenes/desk")

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(pipeline, "write_stage", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_scene(scene, tmp_path / "desk", name="desk", usd_folder="scenes/desk", overwrite=True)
    assert [p.name for p in tmp_path.iterdir()] == ["desk"] and (tmp_path / "desk/mine.txt").exists()


def test_interrupted_scan_goes_on_after_the_fusion(objects, captured, monkeypatch):
    capture = captured(make_desk(count=3, size=(160, 120)))

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(pipeline, "find_table", interrupt)
        with pytest.raises(KeyboardInterrupt):
            scan_scene(capture, objects)
    monkeypatch.setattr(pipeline, "fuse", interrupt)  # is not needed again
    assert "kept from the last run" in finding(scan_scene(capture, objects), "frames").seen
    with pytest.raises(KeyboardInterrupt):
        scan_scene(capture, objects, SceneSettings(voxel=0.006))


def test_objects_that_move_when_let_fall_are_reported(scene):
    def drop(bodies):
        assert [body.static for body in bodies] == [True, False, False, False] and Path(bodies[0].usd).is_file()
        start = np.tile((0.0, 0, 0, 0, 0, 0, 1), (3, 1))
        end = start + np.eye(3, 7) * 0.05
        end[2, 3:] = Rotation.from_euler("x", 30, degrees=True).as_quat()
        return np.stack((start, end))

    settled = settle_scene(scene, drop)
    assert settled.settled["apple"] == pytest.approx((0.05, 0))
    assert settled.settled["box"] == pytest.approx((0.05, 30))
    assert finding(settled, "box: settled").severity == "warning"


@pytest.mark.parametrize(
    ("name", "out", "message"),
    [
        (None, None, "give --name"),
        ("desk", "other", "allowed: a folder assets/scenes/NAME"),
        ("my-desk", None, "allowed: letters, digits and underscores"),
    ],
)
def test_scene_must_be_where_tasks_find_it(name, out, message):
    with pytest.raises(ScaffoldError, match=message):
        command._name_and_out(name, out and Path("assets/scenes") / out)


def test_poses_of_the_scanned_mesh_are_those_of_the_body_after_all(objects, captured, monkeypatch):
    to_body = pose_of(0.03, -0.02, 0.05, 70)
    monkeypatch.setattr("scaffoldlab.scan.scenes.object_frame.file_to_body", lambda path: to_body)
    desk = make_desk(count=4, size=(160, 120))
    of_body = scan_scene(captured(desk), objects)
    assert {p.tracker for p in of_body.placements} == {"recorded poses"}
    for frame in desk.frames:
        frame.object_poses = {name: pose @ to_body for name, pose in frame.object_poses.items()}
    of_mesh = scan_scene(captured(desk), objects)
    assert {p.tracker for p in of_mesh.placements} == {"recorded poses of the scanned mesh"}
    for first, second in zip(of_body.placements, of_mesh.placements, strict=True):
        assert first.pose == pytest.approx(second.pose, abs=1e-3)


def test_old_backgrounds_go_and_what_else_is_kept_there_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    hulls = tmp_path / "cache/scaffoldlab/scan/hulls-of-an-object.npz"
    hulls.parent.mkdir(parents=True)
    hulls.touch()
    background = Background(*(np.zeros((1, 3)) for _ in range(3)), np.zeros((0, 3), int))
    (tmp_path / "capture").mkdir()
    for number in range(KEPT + 2):
        cached(tmp_path / "capture", {"number": number}, lambda: background)
    assert hulls.is_file() and len(list(hulls.parent.glob("background-*.npz"))) == KEPT


def test_background_of_an_archive_is_made_anew_when_the_archive_changes(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    background = Background(*(np.zeros((1, 3)) for _ in range(3)), np.zeros((0, 3), int))
    archive = tmp_path / "desk.r3d"
    kept = []
    for content in (b"one", b"one", b"another"):
        if not archive.exists() or archive.read_bytes() != content:
            archive.write_bytes(content)
        kept.append(cached(archive, {}, lambda: background)[1])
    assert kept == [False, True, False]
