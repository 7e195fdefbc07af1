"""Plan libraries: what is saved comes back exactly, and nothing else is ever loaded."""

import hashlib
import io
import json
import re
import zipfile

import numpy as np
import pytest

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.keypoints.keypoint import Keypoint
from scaffoldlab.plans import library as library_module
from scaffoldlab.plans.library import PlanLibrary
from scaffoldlab.plans.plan import Plan


def make_plan(
    index, *, task="move_apple", n=4, names=("apple", "board"), bodies=("apple", "cutting_board"), state=("apple",)
):
    rng = np.random.default_rng(index)
    return Plan(
        task=task,
        keypoints=tuple(
            Keypoint(name, body, tuple(rng.normal(size=3).tolist())) for name, body in zip(names, bodies, strict=True)
        ),
        keypoints_e=rng.normal(size=(n, len(names), 3)),
        wrist_e=rng.uniform(-1, 1, (n, 6)),
        initial_state={"hand": rng.normal(size=6)} | {name: rng.normal(size=7) for name in state},
        provenance={"index": index, "planner": "scripted", "nested": {"tokens": [1, 2.5, None, "\u00e4"]}},
    )


@pytest.fixture
def library():
    return PlanLibrary(tuple(make_plan(i) for i in range(3)), {"seed": 7, "planner": "scripted"})


@pytest.fixture
def file(library, tmp_path):
    return library.save(tmp_path / "apple.plans.npz")


def assert_same(got, expected):
    assert (got.header, len(got)) == (expected.header, len(expected))
    for a, b in zip(got.plans, expected.plans, strict=True):
        assert (a.task, a.keypoints, a.provenance) == (b.task, b.keypoints, b.provenance)
        np.testing.assert_array_equal(a.keypoints_e, b.keypoints_e, strict=True)
        np.testing.assert_array_equal(a.wrist_e, b.wrist_e, strict=True)
        assert set(a.initial_state) == set(b.initial_state)
        for name, value in b.initial_state.items():
            np.testing.assert_array_equal(a.initial_state[name], value, strict=True)


# --- what is saved comes back -----------------------------------------------------------------------------------------


def test_loaded_library_is_the_saved_one(library, file):
    assert_same(PlanLibrary.load(file), library)
    assert_same(PlanLibrary.load(str(file), task="move_apple"), library)


def test_same_content_gives_the_same_bytes_whenever_it_is_saved(library, file, tmp_path, monkeypatch):
    monkeypatch.setattr("time.time", lambda: 2e9)
    monkeypatch.setattr("time.localtime", lambda *_: (2033, 5, 18, 3, 33, 20, 2, 138, 0))
    again = PlanLibrary(tuple(make_plan(i) for i in range(3)), {"planner": "scripted", "seed": 7})
    assert again.save(tmp_path / "again.plans.npz").read_bytes() == file.read_bytes()
    assert PlanLibrary.load(file).save(tmp_path / "third.plans.npz").read_bytes() == file.read_bytes()


def test_bytes_of_the_format_are_pinned():
    """Changes on purpose only, together with the format version: results must stay reproducible bit by bit."""
    plan = Plan(
        task="t",
        keypoints=(Keypoint("k", "b", (1.0, 2.0, 3.0)),),
        keypoints_e=np.arange(6.0).reshape(2, 1, 3),
        wrist_e=np.arange(12.0).reshape(2, 6) / 8,
        initial_state={"hand": np.zeros(6)},
        provenance={"index": 0},
    )
    assert PlanLibrary((plan,)).digest == "8b616d6b01950370d8c7ac8104e0a52e72187af3360e36f85ea68e323f14cba5"


def test_digest_is_the_seal_of_the_file_and_of_the_content(library, file):
    data = file.read_bytes()
    assert library.digest == hashlib.sha256(data[:-64]).hexdigest() == data[-64:].decode()
    assert library.digest != library.subset([0, 1]).digest


def test_file_is_an_npz_that_numpy_reads(library, file):
    with np.load(file, allow_pickle=False) as entries:
        assert entries["keypoints_e"].shape == (3, 4, 2, 3)
        assert json.loads(entries["scaffoldlab-plans.json"])["task"] == "move_apple"


def test_folder_with_one_library_is_that_library(library, file):
    (file.parent / "preview.png").touch()
    assert_same(PlanLibrary.load(file.parent), library)


def test_same_content_in_other_memory_layouts_gives_the_same_bytes(library):
    plan = library.plans[0]
    turned = Plan(
        **{name: getattr(plan, name) for name in ("task", "keypoints", "initial_state", "provenance")},
        keypoints_e=np.asfortranarray(plan.keypoints_e),
        wrist_e=plan.wrist_e.astype(">f8"),
    )
    assert PlanLibrary((turned,)).digest == PlanLibrary((plan,)).digest


# --- nothing else is loaded -------------------------------------------------------------------------------------------


def refuse(path, message, task=None):
    with pytest.raises(ScaffoldError, match=message) as caught:
        PlanLibrary.load(path, task)
    assert str(path) in str(caught.value)
    return str(caught.value)


def test_every_flipped_bit_is_refused(file):
    data = file.read_bytes()
    rng = np.random.default_rng(0)
    positions = {0, 30, 60, len(data) - 1, len(data) - 65, len(data) - 90, *rng.integers(0, len(data), 300).tolist()}
    for position in sorted(positions):
        for bit in (0, 5, 7):
            flipped = bytearray(data)
            flipped[position] ^= 1 << bit
            file.write_bytes(flipped)
            refuse(file, "a damaged plan library|a truncated plan library|not a plan library")


def test_flipped_bit_of_a_number_is_called_damage(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert "scaffoldlab plan --task TASK --out plans/" in refuse(file, "a damaged plan library: .* SHA-256 checksum")


def test_truncated_library_is_refused_at_every_length(file):
    data = file.read_bytes()
    for length in (0, 1, 29, 51, *range(52, len(data), 97), len(data) - 64, len(data) - 1):
        file.write_bytes(data[:length])
        refuse(file, "a truncated plan library" if length >= 52 else "not a plan library")


def test_appended_bytes_are_refused(file):
    file.write_bytes(file.read_bytes() + b"\0")
    refuse(file, "a truncated plan library")


def test_what_is_no_plan_library_is_named(tmp_path):
    np.savez(tmp_path / "random.plans.npz", a=np.zeros(100))
    (tmp_path / "text.plans.npz").write_text("plans: 3\n" * 20)
    (tmp_path / "empty.plans.npz").touch()
    for name in ("random", "text", "empty"):
        refuse(
            tmp_path / f"{name}.plans.npz", r"not a plan library .*allowed: a \.plans\.npz file that ScaffoldLab wrote"
        )


def test_nothing_is_unpickled(tmp_path):
    np.savez(tmp_path / "evil.plans.npz", **{"scaffoldlab-plans.json": np.array([print], dtype=object)})
    refuse(tmp_path / "evil.plans.npz", "plan library")


def test_other_task_is_named(file):
    message = refuse(file, "a plan library of task 'move_apple'; allowed here: 'open_drawer'", task="open_drawer")
    assert "scaffoldlab plan --task open_drawer --out plans/" in message


def test_other_version_is_named(library, file, monkeypatch):
    monkeypatch.setattr(library_module, "_VERSION", 2)
    library.save(file)
    monkeypatch.undo()
    refuse(file, "of format version 2; ScaffoldLab .* reads version 1")


def test_sealed_nonsense_is_refused(file):
    for content in (
        b"{}",
        b"[]",
        b"no json",
        b'{"version": 1}',
        b'{"version": 1, "task": "t", "header": {}, "bodies": []}',
    ):
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.comment = b"sha256:" + b"0" * 64
            archive.writestr("scaffoldlab-plans.json", content)
        body = buffer.getvalue()[:-64]
        file.write_bytes(body + hashlib.sha256(body).hexdigest().encode())
        with pytest.raises(ScaffoldError):
            PlanLibrary.load(file)


def test_missing_library_says_which_command_makes_one(tmp_path):
    command = re.escape("scaffoldlab plan --task move_apple --out plans/")
    refuse(tmp_path / "none.plans.npz", f"no such plan library.*{command}", task="move_apple")
    refuse(tmp_path, rf"0 plan libraries \(none\).*{command}", task="move_apple")


def test_folder_with_several_libraries_lists_them(library, file):
    library.save(file.parent / "other.plans.npz")
    refuse(file.parent, r"2 plan libraries \(apple.plans.npz, other.plans.npz\); allowed: one, or a file. Name the one")


def test_save_refuses_other_suffixes(library, tmp_path):
    with pytest.raises(ScaffoldError, match=r"apple\.npz; allowed: a name ending in \.plans\.npz"):
        library.save(tmp_path / "apple.npz")


@pytest.mark.parametrize("value", [float("nan"), np.float32(1), {1, 2}, object()])
def test_save_refuses_provenance_that_is_not_json(library, tmp_path, value):
    library.plans[1].provenance["value"] = value
    with pytest.raises(ScaffoldError, match="provenance is not JSON"):
        library.save(tmp_path / "a.plans.npz")
    assert not list(tmp_path.iterdir())


# --- one kind of plan -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "open_drawer"}, "task of plan 1 is 'open_drawer', of plan 0 'move_apple'"),
        ({"n": 5}, "waypoint count of plan 1 is 5, of plan 0 4"),
        ({"names": ("board", "apple")}, "keypoint names of plan 1 is"),
        ({"names": ("apple",), "bodies": ("apple",)}, "keypoint names of plan 1 is"),
        ({"state": ()}, "initial state of plan 1 is"),
    ],
)
def test_plans_of_a_library_are_alike(changes, message):
    with pytest.raises(ScaffoldError, match=message):
        PlanLibrary((make_plan(0), make_plan(1, **changes)))


def test_library_has_a_plan():
    with pytest.raises(ScaffoldError, match="got 0 plans; allowed: at least 1"):
        PlanLibrary(())


def test_subset_takes_the_named_plans_in_order(library):
    subset = library.subset(np.array([2, 0]))
    assert [plan.provenance["index"] for plan in subset.plans] == [2, 0]
    assert subset.header == library.header
    for wrong in (3, -1):
        with pytest.raises(ScaffoldError, match=f"got index {wrong}; allowed: 0 to 2"):
            library.subset([0, wrong])


def test_properties_describe_the_plans(library):
    assert (library.task, library.keypoint_names, library.waypoint_count) == ("move_apple", ("apple", "board"), 4)


# --- arrays for training ----------------------------------------------------------------------------------------------


def test_batch_stacks_the_tracks_of_every_plan(library):
    batch = library.batch(11)
    assert (batch.keypoints_e.shape, batch.wrist_e.shape) == ((3, 11, 2, 3), (3, 11, 6))
    for i, plan in enumerate(library.plans):
        keypoints, wrist = plan.tracks(11)
        np.testing.assert_allclose(batch.keypoints_e[i], keypoints, rtol=1e-6)
        np.testing.assert_allclose(batch.wrist_e[i], wrist, rtol=1e-6)
        np.testing.assert_allclose(batch.initial_state["apple"][i], plan.initial_state["apple"], rtol=1e-6)
        np.testing.assert_allclose(batch.point_b[i], [k.point_b for k in plan.keypoints], rtol=1e-6)
    floats = (batch.keypoints_e, batch.wrist_e, batch.point_b, *batch.initial_state.values())
    assert {array.dtype for array in floats} == {np.dtype(np.float32)}
    assert batch.initial_state["hand"].shape == (3, 6)


def test_batch_follows_keypoints_that_sit_on_different_bodies():
    library = PlanLibrary(
        (make_plan(0), make_plan(1, bodies=("counter", "cutting_board")), make_plan(2, bodies=("apple", "apple")))
    )
    batch = library.batch(2)
    assert batch.body_names == ("apple", "counter", "cutting_board")
    np.testing.assert_array_equal(batch.body_index, [[0, 2], [1, 2], [0, 0]])
