"""Scanned objects in simulation, on both engines: they rest, stack, and hold what is put into them."""

import numpy as np
import pytest
import trimesh

import shapes
from scaffoldlab.scan.drop import ENGINES, Body, drop
from scaffoldlab.scan.objects.object import ObjectSettings, scan_object

FLAT = (0.0, 0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def scanned(tmp_path_factory):
    """Scans a mesh without dropping it; returns its USD file and its size [m]."""
    folder = tmp_path_factory.mktemp("scans")

    def scan(name, mesh, **settings):
        shapes.textured(mesh).export(folder / f"{name}.glb")
        up = {"up": "z"} | settings  # the shapes stand on z = 0, whatever glTF says
        report = scan_object(folder / f"{name}.glb", name, folder / name, ObjectSettings(engines=(), **up))
        return str(folder / name / f"{name}.usda"), np.array(report["size_m"])

    return scan


BALL, BRICKS = 0.015, 5
"""Radius [m]; how many."""


@pytest.fixture(scope="module")
def things(scanned):
    """A cup, a ball and a brick: their USD files and sizes [m]."""
    brick = trimesh.creation.box((0.12, 0.08, 0.05))
    return scanned("cup", shapes.cup()), scanned("ball", trimesh.creation.icosphere(3, BALL)), scanned("brick", brick)


@pytest.fixture(scope="module", params=ENGINES)
def dropped(request, things):
    """Five seconds of one drop: poses of the cup and the ball above it, and of the bricks, a metre beside."""
    (cup, (*_, cup_height)), (ball, _), (brick, (*_, height)) = things
    bodies = [
        Body("cup", cup, (0, 0, cup_height / 2 + 0.01, *FLAT)),
        Body("ball", ball, (0.005, 0, cup_height + 0.08, *FLAT)),
    ]
    bodies += [Body(f"brick_{n}", brick, (1, 0, float(height * (n + 0.5) + 0.0002 * n), *FLAT)) for n in range(BRICKS)]
    poses = drop(bodies, physics=request.param, seconds=5.0)
    return poses[:, :2], poses[:, 2:]


def test_ball_dropped_into_a_scanned_cup_stays_inside(dropped):
    resting, falling = dropped[0][-1]
    assert np.linalg.norm((falling - resting)[:2]) < 0.04 - 0.004 - BALL + 0.002  # within the wall
    assert falling[2] - BALL < resting[2]  # below the middle of the cup
    assert falling[2] > BALL  # on its bottom, not through it


def test_scanned_boxes_stand_five_high_for_five_seconds(dropped, things):
    height = things[2][1][2]
    bricks = dropped[1][-1]
    np.testing.assert_allclose(bricks[:, 2], height * (np.arange(BRICKS) + 0.5), atol=0.004)
    assert np.abs(bricks[:, :2] - (1, 0)).max() < 0.005


def test_scan_drops_the_object_on_both_engines_and_reports_it(tmp_path):
    shapes.textured(shapes.t_shape()).export(tmp_path / "t.obj")
    report = scan_object(tmp_path / "t.obj", "t", tmp_path / "t")
    for engine in ("ovphysx", "newton"):
        settled = report[f"settle_{engine}"]
        assert settled["settled"] and abs(settled["penetration_m"]) < 0.002 and settled["tilt_deg"] < 1
    assert [f["severity"] for f in report["findings"] if f["check"].startswith("rest on")] == ["ok", "ok"]


def test_object_that_stands_on_its_tip_is_told(tmp_path):
    """A cone scanned upside down, and said to be so: it falls over."""
    cone = trimesh.creation.cone(0.03, 0.1).apply_transform(trimesh.transformations.rotation_matrix(np.pi, (1, 0, 0)))
    cone.apply_transform(trimesh.transformations.rotation_matrix(0.02, (0, 1, 0)))
    cone.export(tmp_path / "cone.stl")
    settings = ObjectSettings(units="m", up="z", engines=("ovphysx",))
    report = scan_object(tmp_path / "cone.stl", "cone", tmp_path / "cone", settings)
    told = {f["check"]: f for f in report["findings"]}
    assert told["up"]["severity"] == "warning" and "will tip over" in told["up"]["seen"]
    assert told["rest on ovphysx"]["severity"] == "warning" and report["settle_ovphysx"]["tilt_deg"] > 10
