"""resting_pose: scans are turned upright, their long side along x, their centre of mass to the origin."""

import numpy as np
import pytest
import trimesh

from captures import write_bundlesdf_out
from meshfiles import Y_UP
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.objects.inertia import inertia_of
from scaffoldlab.scan.objects.reading import read_scan
from scaffoldlab.scan.objects.resting import resting_pose
from scaffoldlab.scan.objects.solid import make_solid
from shapes import SHAPES, book, cup, mug, t_shape


def rotation(degrees, axis):
    return trimesh.transformations.rotation_matrix(np.radians(degrees), axis)


def rest(mesh, before=None, **options):
    """Body frame of a mesh that was turned before, and the pose from its true upright axes to there."""
    before = np.eye(4) if before is None else before
    solid = make_solid(mesh.copy().apply_transform(before).vertices, mesh.faces, "scan.obj")
    center = inertia_of(solid).center
    pose, finding = resting_pose(solid.mesh, center, **options)
    assert pose[:3, :3] @ pose[:3, :3].T == pytest.approx(np.eye(3), abs=1e-9)
    assert np.linalg.det(pose[:3, :3]) == pytest.approx(1)
    assert trimesh.transform_points(center[None], pose)[0] == pytest.approx(np.zeros(3), abs=1e-9)
    return solid.mesh.copy().apply_transform(pose), pose @ before, finding


def tilt_deg(pose):
    """Between the true z and that of the body."""
    return float(np.degrees(np.arccos(np.clip(pose[2, 2], -1, 1))))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("axis", [(1, 0, 0), (0, 1, 0), (1, -2, 0.5)])
def test_tilted_scan_is_turned_upright(shape, axis):
    mesh, pose, finding = rest(SHAPES[shape](), rotation(4, axis))
    assert tilt_deg(pose) < 0.5
    assert finding.severity == "ok"
    lowest = mesh.vertices[:, 2].min()
    assert (mesh.vertices[:, 2] < lowest + 2e-4).sum() >= 3


def test_noisy_scan_is_turned_upright_too():
    fine = trimesh.Trimesh(*trimesh.remesh.subdivide_to_size(cup().vertices, cup().faces, 0.004)).process()
    fine.vertices += np.random.default_rng(0).normal(0, 0.0003, fine.vertices.shape)
    _, pose, _ = rest(fine, rotation(5, (1, 1, 0)))
    assert tilt_deg(pose) < 0.5


@pytest.mark.parametrize("shape", ["mug", "cup"])
def test_file_with_y_up_is_turned_upright(shape):
    _, pose, _ = rest(SHAPES[shape](), Y_UP @ rotation(3, (1, 0.5, 0)))
    assert tilt_deg(pose) < 0.5


def test_axis_that_the_format_says_goes_first():
    """A book on its long edge: both axes are stable."""
    on_edge = rotation(90, (1, 0, 0))
    assert tilt_deg(rest(book(), on_edge)[1]) == pytest.approx(90)
    assert "--up y too" in rest(book(), on_edge)[2].seen
    _, pose, finding = rest(book(), on_edge, hint="y")
    assert abs(pose[2, 2]) == pytest.approx(1)
    assert finding.seen.startswith("y of the file")


@pytest.mark.parametrize(("up", "turn"), [("x", rotation(90, (0, 1, 0))), ("-y", rotation(90, (1, 0, 0))),
                                          ("-z", rotation(180, (1, 0, 0))), ("z", np.eye(4))])  # fmt: skip
def test_axis_that_the_user_says_comes_first(up, turn):
    _, pose, finding = rest(mug(), turn @ rotation(2, (1, 1, 0)), up=up)
    assert tilt_deg(pose) < 0.5
    assert finding.severity == "ok"
    assert finding.seen.startswith(f"{up} of the file")


def test_axis_that_it_cannot_stand_on_is_taken_and_told():
    pin = trimesh.creation.cone(0.03, 0.12)
    _, pose, finding = rest(pin, rotation(180, (1, 0, 0)), up="z")
    assert tilt_deg(pose) == pytest.approx(180)
    assert finding.severity == "warning"
    assert "tip over" in finding.seen
    assert "--up" in finding.fix


@pytest.mark.parametrize("up", ["sideways", "1,2", "a,b,c", "0,0,0", "nan,0,1"])
def test_up_must_be_a_direction(up):
    with pytest.raises(ScaffoldError, match=f"--up is '{up}'; allowed: auto, x, y, z, -x, -y, -z, or three numbers"):
        rest(book(), up=up)


def test_direction_between_the_axes_can_be_up():
    turn = rotation(37, (1, -2, 0.5))
    up = ",".join(f"{3 * c:.4f}" for c in turn[:3, 2])
    _, pose, finding = rest(mug(), turn, up=up)
    assert tilt_deg(pose) < 0.5
    assert finding.seen.startswith(f"{up} of the file")


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("shape", SHAPES)
def test_arbitrary_frame_gives_a_stable_pose(shape, seed):
    """The origin is over the outline of what touches the table."""
    before = trimesh.transformations.random_rotation_matrix(np.random.default_rng(seed).random(3))
    mesh, _, _ = rest(SHAPES[shape](), before)
    lowest = mesh.vertices[:, 2].min()
    touching = mesh.vertices[mesh.vertices[:, 2] < lowest + 5e-4, :2]
    assert len(touching) >= 2
    reach = (touching @ np.stack([(np.cos(a), np.sin(a)) for a in np.linspace(0, 2 * np.pi, 24)]).T).max(0)
    assert reach.min() > -5e-4


def test_bundlesdf_scan_rests_flat(tmp_path):
    write_bundlesdf_out(tmp_path, t_shape(), count=1)
    scan = read_scan(tmp_path)
    mesh, _, _ = rest(trimesh.Trimesh(scan.mesh.vertices, scan.mesh.faces))
    assert sorted(mesh.extents) == pytest.approx([0.03, 0.12, 0.12], abs=1e-3)
    assert mesh.extents[2] == pytest.approx(0.03, abs=1e-3)


@pytest.mark.parametrize("yaw", [0, 20, 45, 77, 110, 163])
def test_long_side_is_along_x(yaw):
    mesh, pose, _ = rest(book(), rotation(yaw, (0, 0, 1)))
    assert mesh.extents == pytest.approx((0.21, 0.148, 0.025), abs=1e-4)
    assert tilt_deg(pose) < 0.1


@pytest.mark.parametrize("yaw", [0, 20, 45, 77, 110, 163])
def test_handle_of_a_mug_is_along_an_axis(yaw):
    _, pose, _ = rest(mug(), rotation(yaw, (0, 0, 1)))
    handle = pose[:3, 0]
    assert np.abs(handle).max() > np.cos(np.radians(3))


def test_mesh_that_was_upright_is_not_turned_about():
    """Turned by less than a quarter about z."""
    _, pose, _ = rest(book())
    assert pose[:3, :3] == pytest.approx(np.eye(3), abs=1e-3)


@pytest.mark.parametrize("before", [np.eye(4), rotation(70, (1, 2, 0))])
def test_ball_stays_as_it_is(before):
    _, pose, finding = rest(trimesh.creation.icosphere(3, 0.04), before)
    assert "round" in finding.seen
    assert finding.severity == "ok"
    assert (pose @ np.linalg.inv(before))[2, :3] == pytest.approx((0, 0, 1), abs=1e-9)


def test_cylinder_stands_or_lies():
    can = trimesh.creation.cylinder(0.033, 0.12, sections=64)
    assert tilt_deg(rest(can, rotation(5, (1, 0, 0)))[1]) < 0.5
    lying, pose, _ = rest(can, rotation(90, (0, 1, 0)))
    assert tilt_deg(pose) == pytest.approx(90, abs=0.5) or tilt_deg(pose) in (pytest.approx(0), pytest.approx(180))
    assert lying.extents.max() == pytest.approx(0.12, abs=1e-3)
