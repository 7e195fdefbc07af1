"""The committed JSON Schema of task.yaml is the one that the code has."""

import json

from scaffoldlab.specs.models import TaskSpec
from scaffoldlab.specs.paths import ROOT


def test_committed_schema_is_current():
    committed = json.loads((ROOT / "tasks" / "task.schema.json").read_text())
    assert committed == TaskSpec.model_json_schema(), "run `make assets` to write it again"
