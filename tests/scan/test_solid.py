"""make_solid and inertia_of: volume and inertia of known shapes, through all that scanners do to a mesh."""

import numpy as np
import pytest
import trimesh

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.objects.inertia import inertia_of
from scaffoldlab.scan.objects.rays import distances, inside_of
from scaffoldlab.scan.objects.solid import decimate, make_solid
from shapes import SHAPES, cup, mug

ROTATION = trimesh.transformations.random_rotation_matrix(np.array((0.3, 0.8, 0.2)))
AWAY = trimesh.transformations.translation_matrix((0.5, -2.0, 1.5)) @ ROTATION
"""Scanners put their origin anywhere."""


def solid_of(mesh, away=True):
    mesh = mesh.copy().apply_transform(AWAY) if away else mesh
    return make_solid(mesh.vertices, mesh.faces, "scan.obj")


def fine(mesh, edge=0.01):
    """The shape with faces as small as those of a scan."""
    return trimesh.Trimesh(*trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, edge)).process()


def welded(mesh):
    return trimesh.Trimesh(mesh.vertices, mesh.faces)


def severities(solid, check):
    return [f.severity for f in solid.findings if f.check == check]


def noisy(mesh):
    mesh = fine(mesh)
    rng = np.random.default_rng(1)
    mesh.vertices += mesh.vertex_normals * rng.normal(0, 0.0004, (len(mesh.vertices), 1))
    return mesh


def holed(mesh):
    """Without 1 % of the faces."""
    mesh = fine(mesh)
    mesh.update_faces(np.random.default_rng(2).random(len(mesh.faces)) > 0.01)
    return mesh


def with_debris(mesh):
    bits = [trimesh.creation.icosphere(1, 0.004).apply_translation(mesh.bounds[1] + d) for d in (0.02, 0.05, -0.05)]
    return trimesh.util.concatenate([mesh, *bits])


def double(mesh):
    return trimesh.Trimesh(mesh.vertices, np.concatenate((mesh.faces, mesh.faces[::3], mesh.faces[::5, ::-1])))


def flipped(mesh):
    mesh = mesh.copy()
    mesh.faces[::4] = mesh.faces[::4, ::-1]
    return mesh


def inside_out(mesh):
    return trimesh.Trimesh(mesh.vertices, mesh.faces[:, ::-1])


def with_nan(mesh):
    mesh = fine(mesh)
    mesh.vertices[::400] = np.nan
    mesh.vertices[7] = np.inf
    return mesh


def with_absurd(mesh):
    """With numbers that a broken exporter leaves: finite, and further away than anything."""
    mesh = fine(mesh)
    mesh.vertices[::400] = 1e300
    mesh.vertices[7] = (-2e6, 0, 0)
    return mesh


def split_seams(mesh):
    """Every face with vertices of its own, as along the seams of a texture, and as an stl has it."""
    return trimesh.Trimesh(mesh.triangles.reshape(-1, 3), np.arange(3 * len(mesh.faces)).reshape(-1, 3), process=False)


DAMAGES = {
    f.__name__: f
    for f in (fine, noisy, holed, with_debris, double, flipped, inside_out, with_nan, with_absurd, split_seams)
}


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("damage", DAMAGES)
def test_volume_and_center_survive(shape, damage):
    truth = welded(SHAPES[shape]())
    solid = solid_of(DAMAGES[damage](welded(truth)))
    assert solid.watertight
    inertia = inertia_of(solid, density=1000)
    assert inertia.volume == pytest.approx(truth.volume, rel=0.03)
    assert inertia.mass == pytest.approx(1000 * truth.volume, rel=0.03)
    center = trimesh.transform_points(truth.center_mass[None], AWAY)[0]
    assert inertia.center == pytest.approx(center, abs=0.01 * truth.scale)


@pytest.mark.parametrize(
    ("damage", "check", "word"),
    [
        (holed, "holes", "closed"), (with_debris, "components", "4; kept 1"),
        (flipped, "normals", "the other way round"), (inside_out, "normals", "inside out"),
        (with_nan, "faces", "NaN"), (with_absurd, "faces", "beyond 1e+06 m"), (double, "faces", "double"),
    ],
)  # fmt: skip
def test_damage_is_told_and_mended(damage, check, word):
    solid = solid_of(damage(welded(mug())))
    (finding,) = (f for f in solid.findings if f.check == check)
    assert word in finding.seen
    assert finding.fixed_by


def test_clean_mesh_has_nothing_to_tell():
    assert {f.severity for f in solid_of(welded(cup())).findings} == {"ok"}


# --- parts ----------------------------------------------------------------------------------------------------------


def ring():
    handle = trimesh.creation.torus(0.022, 0.005, major_sections=48, minor_sections=16)
    handle.apply_transform(trimesh.transformations.rotation_matrix(np.pi / 2, (1, 0, 0)))
    return handle.apply_translation((0.0665, 0, 0.045))


@pytest.mark.parametrize("turned", [False, True])
def test_handle_that_is_a_part_of_its_own_is_kept(turned):
    """The ring touches the wall from outside; exporters may wind it the other way round."""
    handle = inside_out(ring()) if turned else ring()
    solid = solid_of(trimesh.util.concatenate([welded(cup()), handle]))
    volume = cup().volume + ring().volume
    assert inertia_of(solid).volume == pytest.approx(volume, rel=0.01)
    assert solid.watertight


def test_cavity_stays_a_cavity():
    """A ball of wax: the inner surface is wound inwards and its room is no wax."""
    outer, inner = trimesh.creation.icosphere(4, 0.04), trimesh.creation.icosphere(4, 0.03)
    solid = solid_of(trimesh.util.concatenate([outer, inside_out(inner)]))
    assert inertia_of(solid).volume == pytest.approx(4 / 3 * np.pi * (0.04**3 - 0.03**3), rel=0.01)


def test_large_part_far_away_is_told():
    far = trimesh.creation.box((0.05, 0.05, 0.05)).apply_translation((0.5, 0, 0))
    solid = solid_of(trimesh.util.concatenate([trimesh.creation.box((0.1, 0.1, 0.1)), far]))
    assert inertia_of(solid).volume == pytest.approx(0.001)
    (finding,) = (f for f in solid.findings if f.check == "components")
    assert finding.severity == "warning"
    assert "connect it" in finding.fix


# --- missing sides --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["t_shape", "shoe", "book", "cup"])
def test_missing_bottom_is_told_and_closed_flat(shape):
    """As a scan on a table leaves it."""
    truth = welded(SHAPES[shape]())
    open_below = fine(truth)
    open_below.update_faces(open_below.triangles_center[:, 2] > 1e-5)
    solid = solid_of(open_below)
    (finding,) = (f for f in solid.findings if f.check == "holes")
    assert finding.severity == "warning"
    assert "open edges" in finding.seen
    assert inertia_of(solid).volume == pytest.approx(truth.volume, rel=0.03)


@pytest.mark.parametrize("turned", [False, True])
def test_open_surface_far_from_the_origin_is_turned_outwards(turned):
    """The signed volume of an open surface depends on where the origin is."""
    box = fine(trimesh.creation.box((0.1, 0.08, 0.05)), 0.02)
    box.update_faces(box.triangles_center[:, 2] > -0.0249)
    box = inside_out(box) if turned else box
    for x in (-3, 3):
        solid = solid_of(box.copy().apply_translation((x, x, x)), away=False)
        assert inertia_of(solid).volume == pytest.approx(4e-4, rel=0.03)
        assert severities(solid, "normals") == ["warning" if turned else "ok"]


# --- nothing solid --------------------------------------------------------------------------------------------------

SHEET = fine(trimesh.Trimesh([(0, 0, 0), (0.1, 0, 0), (0.1, 0.1, 0), (0, 0.1, 0)], [(0, 1, 2), (0, 2, 3)]), 0.02)


@pytest.mark.parametrize(
    "mesh",
    [
        SHEET, SHEET.copy().apply_transform(ROTATION), double(SHEET).apply_transform(ROTATION),
        trimesh.Trimesh([(0, 0, 0), (0.1, 0, 0), (0, 0.1, 0)], [(0, 1, 2)]),
        trimesh.Trimesh(np.full((4, 3), np.nan), [(0, 1, 2), (0, 2, 3)], process=False),
        trimesh.Trimesh(np.zeros((4, 3)), [(0, 1, 2), (0, 2, 3), (1, 2, 3), (0, 1, 3)], process=False),
        trimesh.Trimesh([(0, 0, 0), (0.1, 0.1, 0.1), (0.2, 0.2, 0.2), (0.3, 0.3, 0.3)],
                        [(0, 1, 2), (0, 2, 3), (1, 2, 3), (0, 1, 3)], process=False),
        trimesh.creation.box((0.1, 0.1, 0.1)).apply_scale(1e-4),
    ],
    ids=["sheet", "tilted sheet", "double sheet", "triangle", "nan", "point", "line", "dust"],
)  # fmt: skip
def test_what_is_no_solid_is_refused(mesh):
    with pytest.raises(ScaffoldError, match=r"^scan.obj: .*allowed: at least 4 faces.*Scan the object from all sides"):
        make_solid(mesh.vertices, mesh.faces, "scan.obj")


# --- mass and inertia -----------------------------------------------------------------------------------------------


def moments(*values):
    return np.sort(values)


def box_inertia(a, b, c):
    return moments(b * b + c * c, a * a + c * c, a * a + b * b) / 12


@pytest.mark.parametrize(
    ("mesh", "volume", "per_mass"),
    [
        (trimesh.creation.box((0.1, 0.06, 0.03)), 0.1 * 0.06 * 0.03, box_inertia(0.1, 0.06, 0.03)),
        (trimesh.creation.icosphere(4, 0.05), 4 / 3 * np.pi * 0.05**3, np.full(3, 0.4 * 0.05**2)),
        (trimesh.creation.cylinder(0.03, 0.12, sections=96), np.pi * 0.03**2 * 0.12,
         moments(0.03**2 / 2, *[(3 * 0.03**2 + 0.12**2) / 12] * 2)),
    ],
    ids=["box", "sphere", "cylinder"],
)  # fmt: skip
def test_inertia_of_full_bodies(mesh, volume, per_mass):
    inertia = inertia_of(solid_of(mesh), density=500)
    assert inertia.mass == pytest.approx(500 * volume, rel=0.01)
    assert inertia.principal()[0] == pytest.approx(500 * volume * per_mass, rel=0.02)


def test_inertia_of_a_hollow_ball():
    outer, inner = 0.05, 0.046
    volume = 4 / 3 * np.pi * (outer**3 - inner**3)
    inertia = inertia_of(solid_of(trimesh.creation.icosphere(4, outer)), density=900, wall=0.004)
    assert inertia.mass == pytest.approx(900 * volume, rel=0.02)
    per_mass = 0.4 * (outer**5 - inner**5) / (outer**3 - inner**3)
    assert inertia.principal()[0] == pytest.approx(np.full(3, 900 * volume * per_mass), rel=0.02)
    assert inertia.volume == pytest.approx(4 / 3 * np.pi * outer**3, rel=0.01)


def test_inertia_of_a_hollow_box():
    sides = np.array((0.12, 0.09, 0.06))
    within = sides - 2 * 0.003
    volumes = sides.prod(), within.prod()
    inertia = inertia_of(solid_of(trimesh.creation.box(sides)), mass=0.2, wall=0.003)
    both = volumes[0] * box_inertia(*sides) - volumes[1] * box_inertia(*within)
    assert inertia.mass == 0.2
    assert inertia.principal()[0] == pytest.approx(0.2 * both / (volumes[0] - volumes[1]), rel=0.02)


def test_wall_that_is_thicker_than_the_body_is_refused():
    with pytest.raises(ScaffoldError, match=r"--hollow 0.06: .*leave it out"):
        inertia_of(solid_of(trimesh.creation.icosphere(3, 0.05)), wall=0.06)


def test_given_mass_overrides_the_density():
    full = inertia_of(solid_of(mug()), density=600)
    heavy = inertia_of(solid_of(mug()), density=600, mass=0.35)
    assert heavy.mass == 0.35
    assert heavy.tensor == pytest.approx(full.tensor * 0.35 / full.mass, rel=1e-6)


@pytest.mark.parametrize("wall", [None, 0.002])
def test_inertia_turns_with_the_body(wall):
    still = inertia_of(solid_of(mug(), away=False), wall=wall)
    turned = inertia_of(solid_of(mug()), wall=wall)
    rotation = AWAY[:3, :3]
    assert turned.center == pytest.approx(rotation @ still.center + AWAY[:3, 3], abs=1e-5)
    expected = rotation @ still.tensor @ rotation.T
    assert np.abs(turned.tensor - expected).max() < 0.01 * np.abs(expected).max()


def test_principal_axes_give_the_tensor_back():
    inertia = inertia_of(solid_of(mug()))
    values, axes = inertia.principal()
    assert np.linalg.det(axes) == pytest.approx(1)
    assert axes @ np.diag(values) @ axes.T == pytest.approx(inertia.tensor, rel=1e-9, abs=1e-15)
    assert values[0] + values[1] > values[2] > 0


def test_surface_with_a_wall_inside_is_weighed_from_outside():
    """Three faces meet along the edges of the wall: what is inside is told by rays."""
    low, high = np.array((-0.05, -0.04, -0.03)), np.array((0.05, 0.04, 0.03))
    halves = [trimesh.creation.box(bounds=b) for b in ((low, (0.02, 0.04, 0.03)), ((0.02, -0.04, -0.03), high))]
    solid = solid_of(fine(trimesh.util.concatenate(halves), 0.02))
    assert not solid.watertight
    assert "could not be closed" in next(f.seen for f in solid.findings if f.check == "holes")
    assert inertia_of(solid).volume == pytest.approx((high - low).prod(), rel=0.1)


# --- surfaces that cross themselves ---------------------------------------------------------------------------------


@pytest.fixture(params=["with manifold3d", "without"])
def manifold(request, monkeypatch):
    def missing(*_, **__):
        raise ImportError("No module named 'manifold3d'")

    if request.param == "without":
        monkeypatch.setattr(trimesh.boolean, "union", missing)
    return request.param == "with manifold3d"


CROSS = ((0.1, 0.04, 0.04), (0.04, 0.1, 0.04))


def crossing_boxes():
    return trimesh.util.concatenate([trimesh.creation.box(sides) for sides in CROSS])


def limacon(b=0.03, height=0.04, count=200):
    """A prism over r = b + 2 b cos(angle), whose inner loop its surface winds twice around: one component."""
    angle = 2 * np.pi * np.arange(count) / count
    ring = (b + 2 * b * np.cos(angle))[:, None] * np.c_[np.cos(angle), np.sin(angle)]
    points = [np.c_[[*ring, (0, 0)], np.full(count + 1, z)] for z in (0, height)]
    i, above = np.arange(count), count + 1
    j, middle = (i + 1) % count, np.full(count, count)
    faces = [(j, i, middle), (i + above, j + above, middle + above), (i, j, j + above), (i, j + above, i + above)]
    return trimesh.Trimesh(np.concatenate(points), np.concatenate([np.stack(f, -1) for f in faces]), process=False)


@pytest.mark.parametrize("away", [False, True])
def test_boxes_that_cross_are_weighed_as_one_body(manifold, away):
    """The cube that they share counts once. Its top and bottom lie in each other."""
    solid = solid_of(crossing_boxes(), away)
    assert solid.watertight
    inertia = inertia_of(solid, density=1000)
    assert inertia.mass == pytest.approx(0.256, rel=0.01)
    thin, wide = 0.04**2 + 0.04**2, 0.1**2 + 0.04**2
    expected = np.array([0.16 * (thin + wide) - 0.064 * thin] * 2 + [0.32 * wide - 0.064 * thin]) / 12
    assert inertia.principal()[0] == pytest.approx(expected, rel=0.01)
    (finding,) = (f for f in solid.findings if f.check == "crossings")
    assert finding.severity == "warning"
    assert "crosses itself" in finding.seen
    assert ("joined" if manifold else "lines") in finding.seen
    assert solid.mesh.volume == pytest.approx(2.56e-4 if manifold else 3.2e-4)


def test_part_that_crosses_itself_is_weighed_once():
    solid = solid_of(limacon())
    assert len(solid.mesh.split()) == 1
    # The area of the outer loop; with the inner one it is 3 pi b^2.
    assert inertia_of(solid).volume == pytest.approx(0.04 * 0.03**2 * (2 * np.pi + 1.5 * 3**0.5), rel=0.01)
    assert severities(solid, "crossings") == ["warning"]


def test_cavity_stays_a_cavity_where_another_part_crosses(manifold):
    radius, apart, hole = 0.04, 0.055, 0.01
    balls = [trimesh.creation.icosphere(5, radius).apply_translation((x, 0, 0)) for x in (0, apart)]
    cavity = inside_out(trimesh.creation.icosphere(4, hole))
    solid = solid_of(trimesh.util.concatenate([*balls, cavity]))
    lens = np.pi * (4 * radius + apart) * (2 * radius - apart) ** 2 / 12
    volume = 4 / 3 * np.pi * (2 * radius**3 - hole**3) - lens
    assert inertia_of(solid).volume == pytest.approx(volume, rel=0.01)
    assert severities(solid, "crossings") == ["warning"]


@pytest.mark.parametrize("shape", SHAPES)
def test_shape_that_does_not_cross_itself_is_weighed_by_its_surface(shape):
    solid = solid_of(noisy(welded(SHAPES[shape]())))
    assert severities(solid, "crossings") == []
    assert inertia_of(solid).volume == pytest.approx(solid.mesh.volume, rel=1e-9)


def test_room_that_is_enclosed_twice_is_inside():
    points = np.random.default_rng(0).uniform(-0.06, 0.06, (5000, 3))
    inside = np.array([(np.abs(points) < np.array(sides) / 2).all(1) for sides in CROSS]).any(0)
    assert (inside_of(crossing_boxes(), points) == inside).mean() > 0.999


# --- fewer faces ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", ["t_shape", "mug"])
@pytest.mark.parametrize("damage", [fine, noisy])
def test_fewer_faces_show_the_same_shape(shape, damage):
    """Flat sides too, where the place of a merged vertex is not determined."""
    mesh = solid_of(damage(welded(SHAPES[shape]())), away=False).mesh
    few = decimate(mesh, 800)
    assert len(few.faces) == 800
    assert few.volume == pytest.approx(mesh.volume, rel=0.03)
    assert distances(mesh, few.vertices).max() < 0.0015


def test_mesh_of_a_million_faces_is_thinned_out_first(monkeypatch):
    """As such a mesh is, with a bound of twenty thousand."""
    monkeypatch.setattr("scaffoldlab.scan.objects.solid.MOST_COLLAPSED_FACES", 20_000)
    mesh = fine(trimesh.creation.icosphere(6, 0.05), 1.0)
    few = decimate(mesh, 5_000)
    assert len(few.faces) == 5_000
    assert few.volume == pytest.approx(4 / 3 * np.pi * 0.05**3, rel=0.02)
    assert distances(mesh, few.vertices).max() < 5e-4
