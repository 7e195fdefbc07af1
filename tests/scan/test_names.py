"""Names of scanned things: what USD takes, and a proposal for what it does not."""

import shutil

import pytest

from conftest import ROOT
from scaffoldlab.errors import ScaffoldError
from scaffoldlab.scan.names import good_name, refuse_name
from scaffoldlab.scan.scenes.objects import find_objects


@pytest.mark.parametrize(
    ("text", "good"),
    [("my mug", "my_mug"), ("t.v2", "t_v2"), ("../up", "up"), ("7up", "_7up"), ("tässe", "t_sse"), ("..", "object")],
)
def test_nearest_name_is_proposed(text, good):
    refuse_name(good_name(text))
    assert good_name(text) == good
    with pytest.raises(ScaffoldError, match=f"'{good}' would do"):
        refuse_name(text)


@pytest.mark.parametrize("name", ["my mug", "t.v2"])
def test_scene_refuses_an_object_that_usd_cannot_name(extra_root, name):
    folder = extra_root / "assets" / "objects" / name
    folder.mkdir(parents=True)
    shutil.copy(ROOT / "assets/objects/box/box.usda", folder / f"{name}.usda")
    with pytest.raises(ScaffoldError, match=f"--objects .*: the name '{name}': allowed: letters.* would do"):
        find_objects([folder])
