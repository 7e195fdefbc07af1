"""The fused keypoint kernel agrees with its torch twin and with numbers made by hand."""

import math

import pytest
import torch

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.keypoints.distance import KeypointDistance, keypoint_distance_torch

DEVICES = [
    "cpu",
    pytest.param("cuda:0", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")),
]
OUTPUTS = ("position", "distance", "error", "reward", "exceeded")


def by_hand(device: str = "cpu", **options) -> KeypointDistance:
    """One env: a body yawed by 90 deg at (1, 2, 3) and one at the origin; distances 3 cm and 7 cm."""
    fused = KeypointDistance(num_envs=1, num_keypoints=2, num_bodies=2, delta=0.06, device=device, **options)
    half = math.sqrt(0.5)
    fused.body_poses[0, 0] = torch.tensor((1, 2, 3, 0, 0, half, half))
    fused.body_index[0] = torch.tensor((0, 1))
    fused.point_b[0] = torch.tensor(((0.5, 0, 0.1), (0.2, 0.3, 0.4)))
    fused.target[0] = torch.tensor(((1, 2.53, 3.1), (0.2, 0.3, 0.47)))
    return fused


def random(num_envs: int, num_keypoints: int, num_bodies: int, device: str, **options) -> KeypointDistance:
    fused = KeypointDistance(
        num_envs=num_envs, num_keypoints=num_keypoints, num_bodies=num_bodies, delta=0.1, device=device, **options
    )
    generator = torch.Generator(device).manual_seed(num_envs + num_keypoints)
    for buffer in (fused.body_poses, fused.point_b, fused.target):
        buffer.normal_(std=0.1, generator=generator)
    fused.body_poses[..., 3:] /= fused.body_poses[..., 3:].norm(dim=-1, keepdim=True)
    fused.body_index.random_(num_bodies, generator=generator)
    return fused


@pytest.mark.parametrize("device", DEVICES)
def test_rotated_body_by_hand(device):
    fused = by_hand(device)
    fused.compute()
    expected = torch.tensor((((1, 2.5, 3.1), (0.2, 0.3, 0.4)),), device=device)
    torch.testing.assert_close(fused.position, expected)
    torch.testing.assert_close(fused.distance, torch.tensor(((0.03, 0.07),), device=device), atol=1e-6, rtol=0)
    assert fused.error.item() == pytest.approx(0.05, abs=1e-6)
    assert fused.reward.item() == pytest.approx(math.exp(-1), abs=1e-5)  # beta 20 times 5 cm
    assert not fused.exceeded.item()


def test_any_keypoint_can_end_an_episode_that_the_mean_would_not():
    fused = by_hand(reduction="any")
    fused.compute()
    assert fused.error.item() == pytest.approx(0.07, abs=1e-6)
    assert fused.exceeded.item()
    assert fused.reward.item() == pytest.approx(math.exp(-1), abs=1e-5)  # the reward keeps the mean


def test_beta_sharpens_the_reward():
    fused = by_hand(beta=10.0)
    fused.compute()
    assert fused.reward.item() == pytest.approx(math.exp(-0.5), abs=1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("reduction", ["mean", "any"])
@pytest.mark.parametrize(("num_envs", "num_keypoints", "num_bodies"), [(1, 1, 1), (3, 2, 5), (257, 3, 2), (5, 20, 3)])
def test_kernel_agrees_with_its_twin(num_envs, num_keypoints, num_bodies, reduction, device):
    fused = random(num_envs, num_keypoints, num_bodies, device, reduction=reduction)
    fused.delta.fill_(0.25)
    fused.compute()
    twin = keypoint_distance_torch(
        fused.body_poses, fused.body_index, fused.point_b, fused.target, fused.delta, reduction=reduction
    )
    for name in OUTPUTS:
        torch.testing.assert_close(getattr(fused, name), getattr(twin, name), msg=lambda text, name=name: name + text)
    assert num_envs < 100 or 0 < fused.exceeded.sum() < num_envs


@pytest.mark.parametrize("device", DEVICES)
def test_reward_is_one_on_the_plan(device):
    fused = random(16, 4, 2, device)
    fused.compute()
    fused.target.copy_(fused.position)
    fused.compute()
    assert (fused.reward == 1).all() and (fused.error == 0).all() and not fused.exceeded.any()


@pytest.mark.parametrize("device", DEVICES)
def test_new_delta_counts_from_the_next_compute(device):
    fused = by_hand(device)
    fused.compute()
    fused.delta.fill_(0.04)
    assert not fused.exceeded.item()
    fused.compute()
    assert fused.exceeded.item()


def test_compute_writes_into_the_same_tensors():
    fused = random(4, 2, 2, "cpu")
    before = {name: getattr(fused, name).data_ptr() for name in OUTPUTS}
    views = {name: getattr(fused, name)[1:] for name in OUTPUTS}
    fused.compute()
    assert before == {name: getattr(fused, name).data_ptr() for name in OUTPUTS}
    assert (views["reward"] > 0).all()


@pytest.mark.parametrize("reduction", ["mean", "any"])
@pytest.mark.parametrize("keypoint", [0, 1])
def test_body_that_became_nan_ends_its_own_episode_only(reduction, keypoint):
    fused = random(3, 2, 2, "cpu", reduction=reduction)
    fused.body_index.copy_(torch.tensor((0, 1)))
    fused.delta.fill_(10.0)
    fused.body_poses[1, keypoint, 0] = math.nan
    fused.compute()
    assert fused.exceeded.tolist() == [False, True, False]
    assert fused.error.isnan().tolist() == [False, True, False]


def test_bodies_start_at_the_identity():
    fused = KeypointDistance(num_envs=2, num_keypoints=1, num_bodies=1, delta=0.1)
    fused.point_b.copy_(torch.tensor((0.1, 0.2, 0.3)))
    fused.compute()
    torch.testing.assert_close(fused.position, fused.point_b)


def test_unknown_reduction_is_named():
    with pytest.raises(ScaffoldError, match=r"unknown reduction 'max'.*Allowed: any, mean"):
        KeypointDistance(num_envs=1, num_keypoints=1, num_bodies=1, delta=0.1, reduction="max")


def test_a_size_of_zero_is_refused():
    with pytest.raises(ScaffoldError, match=r"'num_keypoints': 0.*1 or more"):
        KeypointDistance(num_envs=1, num_keypoints=0, num_bodies=1, delta=0.1)
