"""make_colliders: a primitive where one fits, else few convex hulls that leave hollows free."""

import io
import subprocess
from pathlib import Path

import numpy as np
import pytest
import trimesh

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.objects import colliders
from scaffoldlab.scan.objects.colliders import MOST_HULL_VERTICES, MOST_HULLS, best_primitive, make_colliders
from scaffoldlab.scan.objects.rays import inside_of
from scaffoldlab.scan.objects.solid import make_solid
from shapes import SHAPES, cup, mug, t_shape

TURN = trimesh.transformations.random_rotation_matrix(np.array((0.2, 0.5, 0.9)))


def solid_of(mesh):
    return make_solid(mesh.vertices, mesh.faces, "scan.obj")


@pytest.fixture(scope="module")
def cache(tmp_path_factory):
    return tmp_path_factory.mktemp("cache")


@pytest.fixture(scope="module")
def hulls_of_a_t(cache):
    return make_colliders(solid_of(t_shape()), cache=cache)


@pytest.fixture(scope="module")
def hulls_of_a_cup(cache):
    return make_colliders(solid_of(cup(sections=16)), cache=cache)


def noisy(mesh, sigma=0.0005):
    mesh = trimesh.Trimesh(*trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, 0.01)).process()
    mesh.vertices += np.random.default_rng(0).normal(0, sigma, mesh.vertices.shape)
    return mesh


@pytest.mark.parametrize("spoil", [lambda m: m, noisy], ids=["clean", "noisy"])
@pytest.mark.parametrize(
    ("kind", "mesh", "size"),
    [
        ("box", trimesh.creation.box((0.12, 0.08, 0.05)), (0.05, 0.08, 0.12)),
        ("sphere", trimesh.creation.icosphere(4, 0.04), (0.04,)),
        ("cylinder", trimesh.creation.cylinder(0.033, 0.12, sections=64), (0.033, 0.12)),
        ("box", SHAPES["book"](), (0.025, 0.148, 0.21)),
    ],
)
def test_primitive_is_found_where_it_is(kind, mesh, size, spoil):
    place = trimesh.transformations.translation_matrix((0.02, -0.01, 0.03)) @ TURN
    mesh = spoil(mesh).apply_transform(place)
    part = best_primitive(mesh, mesh.volume)
    assert part.shape == kind
    assert (sorted(part.size) if kind == "box" else part.size) == pytest.approx(size, rel=0.03)
    assert part.mesh.volume == pytest.approx(mesh.volume, rel=0.04)
    center = trimesh.transform_points(mesh.bounding_box_oriented.center_mass[None], np.eye(4))[0]
    assert part.pose[:3, 3] == pytest.approx(center, abs=0.002)
    points, _ = trimesh.sample.sample_surface(mesh, 500, seed=0)
    assert np.abs(trimesh.proximity.closest_point(part.mesh, points)[1]).max() < 0.005


@pytest.mark.parametrize("shape", ["mug", "cup", "t_shape", "shoe"])
def test_no_primitive_stands_for_what_it_is_not(shape):
    mesh = SHAPES[shape]()
    assert best_primitive(mesh, mesh.volume) is None


def test_primitive_needs_no_decomposition(monkeypatch, cache):
    monkeypatch.setattr(subprocess, "run", None)
    made = make_colliders(solid_of(SHAPES["book"]()), cache=cache)
    assert (made.kind, len(made.parts)) == ("box", 1)
    assert abs(made.volume_error) < 0.02
    assert made.concavity_kept == 1


def test_t_is_two_hulls(hulls_of_a_t):
    assert hulls_of_a_t.kind == "hulls"
    assert len(hulls_of_a_t.parts) == 2
    assert abs(hulls_of_a_t.volume_error) < 0.02
    assert sum(p.mesh.volume for p in hulls_of_a_t.parts) == pytest.approx(t_shape().volume, rel=0.02)
    assert hulls_of_a_t.concavity_kept > 0.9


def test_hulls_are_convex_closed_and_within_the_bounds_of_the_engines(hulls_of_a_t, hulls_of_a_cup):
    for made in (hulls_of_a_t, hulls_of_a_cup):
        assert 1 < len(made.parts) <= MOST_HULLS
        for part in made.parts:
            assert len(part.mesh.vertices) <= MOST_HULL_VERTICES
            assert part.mesh.is_watertight
            assert part.mesh.volume == pytest.approx(part.mesh.convex_hull.volume, rel=1e-6)


def test_hollow_of_a_cup_stays_free(hulls_of_a_cup):
    """Points in a column of 3 cm radius, from above the floor to the rim; the wall is at 3.6 cm."""
    angle, radius, z = np.meshgrid(np.linspace(0, 6, 12), (0, 0.015, 0.03), np.linspace(0.008, 0.085, 8))
    points = np.stack((radius * np.cos(angle), radius * np.sin(angle), z), -1).reshape(-1, 3)
    assert not any(inside_of(part.mesh, points).any() for part in hulls_of_a_cup.parts)
    assert hulls_of_a_cup.concavity_kept > 0.9
    assert abs(hulls_of_a_cup.volume_error) < 0.15


def test_decomposition_is_kept(hulls_of_a_t, cache, monkeypatch):
    def fail(*_, **__):
        raise AssertionError("CoACD ran")

    monkeypatch.setattr(subprocess, "run", fail)
    again = make_colliders(solid_of(t_shape()), cache=cache)
    assert [len(p.mesh.vertices) for p in again.parts] == [len(p.mesh.vertices) for p in hulls_of_a_t.parts]
    with pytest.raises(AssertionError, match="CoACD ran"):
        make_colliders(solid_of(t_shape()), cache=cache, threshold=0.2)


def test_smooth_hull_with_few_corners_keeps_its_volume(tmp_path, monkeypatch):
    """64 points on an egg would lack a tenth of it."""
    egg = trimesh.creation.icosphere(4, 0.04).apply_scale((1, 0.8, 1.3))
    stream = io.BytesIO()
    np.savez(stream, count=1, points_0=egg.vertices)
    monkeypatch.setattr(colliders, "_decompose", lambda *_: stream.getvalue())
    made = make_colliders(solid_of(egg), cache=tmp_path)
    assert len(made.parts[0].mesh.vertices) <= MOST_HULL_VERTICES
    assert abs(made.volume_error) < 0.03


def test_file_of_the_cache_that_is_broken_is_made_anew(hulls_of_a_t, tmp_path, monkeypatch):
    good = make_bytes(hulls_of_a_t)
    monkeypatch.setattr(colliders, "_decompose", lambda *_: good)
    make_colliders(solid_of(t_shape()), cache=tmp_path)
    (path,) = tmp_path.iterdir()
    path.write_bytes(good[:100])
    assert len(make_colliders(solid_of(t_shape()), cache=tmp_path).parts) == 2
    assert path.read_bytes() == good


def test_cache_that_cannot_be_written_costs_nothing_but_time(hulls_of_a_t, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(colliders, "_decompose", lambda *_: make_bytes(hulls_of_a_t))
    assert len(make_colliders(solid_of(t_shape()), cache=tmp_path / "file" / "cache").parts) == 2


def make_bytes(made):
    stream = io.BytesIO()
    np.savez(stream, count=len(made.parts), **{f"points_{i}": p.mesh.vertices for i, p in enumerate(made.parts)})
    return stream.getvalue()


def test_flat_hull_is_left_out(hulls_of_a_t, tmp_path, monkeypatch):
    stream = io.BytesIO()
    points = {f"points_{i}": p.mesh.vertices for i, p in enumerate(hulls_of_a_t.parts)}
    np.savez(stream, count=3, points_2=np.c_[np.random.default_rng(0).random((5, 2)), np.zeros(5)], **points)
    monkeypatch.setattr(colliders, "_decompose", lambda *_: stream.getvalue())
    assert len(make_colliders(solid_of(t_shape()), cache=tmp_path).parts) == 2


def test_time_out_says_what_to_do_and_leaves_nothing(tmp_path, monkeypatch):
    def late(command, **options):
        raise subprocess.TimeoutExpired(command, options["timeout"])

    monkeypatch.setattr(subprocess, "run", late)
    with pytest.raises(ScaffoldError, match=r"did not finish within 7 s on \d+ faces.*--collider-timeout.*threshold"):
        make_colliders(solid_of(mug()), cache=tmp_path, timeout=7)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("code", "why"), [(-11, ""), (1, "Traceback: ModuleNotFoundError: No module named 'coacd'")])
def test_crash_says_what_to_do_and_leaves_nothing(tmp_path, monkeypatch, code, why):
    monkeypatch.setattr(subprocess, "run", lambda c, **_: subprocess.CompletedProcess(c, code, "", why))
    with pytest.raises(ScaffoldError, match=rf"CoACD ended with {code}.*{why}.*--collider-threshold 0.1"):
        make_colliders(solid_of(mug()), cache=tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_surface_that_coacd_crashes_on_is_remeshed(hulls_of_a_t, tmp_path, monkeypatch):
    """As it does on some surfaces that cross themselves."""
    modes = []

    def crash_once(command, **_):
        modes.append(command[-1])
        if command[-1] == "on":
            Path(command[-3]).write_bytes(make_bytes(hulls_of_a_t))
        return subprocess.CompletedProcess(command, 0 if command[-1] == "on" else -11, "", "")

    monkeypatch.setattr(subprocess, "run", crash_once)
    assert len(make_colliders(solid_of(t_shape()), cache=tmp_path).parts) == 2
    assert modes == ["off", "on"]


def test_hulls_may_be_asked_for_where_a_primitive_fits(tmp_path, monkeypatch):
    corners = trimesh.creation.box((0.1, 0.1, 0.1)).vertices
    calls = []
    monkeypatch.setattr(colliders, "_hulls", lambda *a: calls.append(a) or [trimesh.convex.convex_hull(corners)])
    made = make_colliders(solid_of(trimesh.creation.box((0.1, 0.1, 0.1))), cache=tmp_path, primitives=False)
    assert calls
    assert made.kind == "hulls"
