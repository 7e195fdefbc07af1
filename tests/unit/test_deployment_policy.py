"""The exported policy: the same actions as torch, what the file says about itself, and what is refused."""

import json
from types import SimpleNamespace
from typing import cast

import numpy as np
import onnx
import pytest
import torch
from rsl_rl.algorithms import PPO
from rsl_rl.models import MLPModel
from rsl_rl.runners import OnPolicyRunner
from tensordict import TensorDict

from deployments import metadata_of
from scaffoldlab.deployment.export import export_policy
from scaffoldlab.deployment.policy import OnnxPolicy, PolicyMetadata
from scaffoldlab.errors import ScaffoldError


@pytest.fixture(scope="module")
def metadata():
    return metadata_of("move_apple")


@pytest.fixture(
    scope="module",
    params=["rsl_rl.modules.distribution:GaussianDistribution", "scaffoldlab.tasks.ppo:ClippedGaussian"],
    ids=["gaussian", "clipped"],
)
def actor(metadata, request):
    """An untrained policy whose observation normalisation is far from the identity."""
    torch.manual_seed(0)
    size = metadata.observation_size
    distribution = {"class_name": request.param, "init_std": 1.0}
    model = MLPModel(
        TensorDict({"policy": torch.zeros(1, size)}, [1]), {"actor": ["policy"]}, "actor", 7,
        hidden_dims=[128, 128], obs_normalization=True, distribution_cfg=distribution,
    )  # fmt: skip
    spread = torch.linspace(0.01, 30, size)
    model.train()
    model.update_normalization(TensorDict({"policy": 5 + spread * torch.randn(512, size)}, [512]))
    return model.eval()


@pytest.fixture(scope="module")
def path(actor, metadata, tmp_path_factory):
    path = tmp_path_factory.mktemp("policy") / "policy.onnx"
    runner = OnPolicyRunner.__new__(OnPolicyRunner)  # without an env: exporting reads the actor only
    runner.alg = cast("PPO", SimpleNamespace(get_policy=lambda: actor))
    export_policy(runner, metadata, path)
    return path


def torch_actions(actor, observations):
    with torch.inference_mode():
        return actor(TensorDict({"policy": torch.as_tensor(observations)}, [len(observations)])).numpy()


def test_actions_are_those_of_torch(path, actor, metadata):
    pytest.importorskip("onnxruntime")
    policy = OnnxPolicy(path)
    observations = np.random.default_rng(1).normal(3, 10, (64, metadata.observation_size)).astype(np.float32)
    expected = torch_actions(actor, observations)
    assert np.ptp(expected, axis=0).min() > 0.05  # they depend on what is observed
    np.testing.assert_allclose([policy(row) for row in observations], expected, atol=1e-5)


def test_file_alone_gives_the_actions_of_torch_to_another_runtime(path, actor, metadata):
    """ONNX's own reference evaluator; the weights are inside the file, and the normalisation is part of the graph."""
    from onnx.reference import ReferenceEvaluator

    assert [p.name for p in path.parent.iterdir()] == ["policy.onnx"]
    session = ReferenceEvaluator(str(path))
    observations = np.random.default_rng(2).normal(3, 10, (8, metadata.observation_size)).astype(np.float32)
    got = np.concatenate([session.run(None, {"obs": row[None]})[0] for row in observations])
    np.testing.assert_allclose(got, torch_actions(actor, observations), atol=1e-5)


def test_file_says_what_is_needed_to_run_it(path):
    entries = {p.key: json.loads(p.value) for p in onnx.load(path).metadata_props}
    assert entries["task"] == "move_apple" and entries["robot"] == "allegro_floating"
    assert entries["joint_names"][:7] == [f"wrist_{n}" for n in ("x", "y", "z", "roll", "pitch", "yaw")] + ["index_0"]
    assert entries["quaternion_order"] == "xyzw" and entries["position_frame"].startswith("env: x forward, y left")
    assert entries["control_rate_hz"] == 60 and entries["action_average"] == 0.9
    assert (entries["position_limit"], entries["rotation_limit"], entries["action_clip"]) == (0.05, 0.3, [-1, 1])
    assert entries["horizon_offsets"][-5:] == [20, 30, 40, 50, 60] and entries["episode_steps"] == 200
    assert list(entries["observation_terms"].items())[:2] == [("joint_positions", 22), ("joint_velocities", 22)]
    assert sum(entries["observation_terms"].values()) == 292  # docs/conventions.md, K = 2


def test_metadata_survive_the_file(path, metadata):
    properties = {p.key: p.value for p in onnx.load(path).metadata_props}
    assert PolicyMetadata.read(properties, "here") == metadata


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"quaternion_order": '"wxyz"'}, ["policy.onnx", "'quaternion_order'", "xyzw", "scaffoldlab export"]),
        ({"action_average": "1.5"}, ["'action_average'", "less than 1"]),
        ({"format_version": "2"}, ["'format_version'"]),
        ({"joint_names": None}, ["'joint_names'", "required"]),
    ],
)
def test_metadata_of_another_kind_are_refused_by_entry(metadata, change, words):
    properties = {k: v for k, v in (metadata.properties() | change).items() if v is not None}
    with pytest.raises(ScaffoldError) as error:
        PolicyMetadata.read(properties, "policy.onnx")
    assert all(word in str(error.value) for word in words), error.value


def test_file_that_is_missing_broken_or_of_other_sizes_is_refused(path, metadata, tmp_path):
    pytest.importorskip("onnxruntime")
    with pytest.raises(ScaffoldError, match="no such file"):
        OnnxPolicy(tmp_path / "none.onnx")
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(ScaffoldError, match="not a readable ONNX file"):
        OnnxPolicy(broken)
    model = onnx.load(path)
    sizes = metadata.observation_terms | {"wrist": 7}
    onnx.helper.set_model_props(model, metadata.model_copy(update={"observation_terms": sizes}).properties())
    onnx.save(model, broken)
    with pytest.raises(ScaffoldError, match=r"292 numbers to 7, its metadata say 293 to 7"):
        OnnxPolicy(broken)
