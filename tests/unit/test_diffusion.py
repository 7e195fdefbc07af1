"""Diffusion Policy on a problem with a known answer, its windows, its files."""

import numpy as np
import pytest
import torch

from scaffoldlab.imitation.demonstrations import Demonstrations
from scaffoldlab.imitation.diffusion import DiffusionPolicy, DiffusionSettings, controller, train_diffusion


def ramps(episodes=16, steps=40) -> Demonstrations:
    """The observation is a phase and a sign; the action is the sign times the phase."""
    sign = torch.where(torch.arange(episodes) % 2 == 0, 1.0, -1.0)[:, None].expand(-1, steps)
    phase = torch.linspace(0, 1, steps).expand(episodes, -1)
    return Demonstrations(torch.stack([phase, sign], -1), (sign * phase)[..., None])


def test_windows_hold_the_last_observations_and_the_next_actions():
    steps = torch.arange(5.0).view(1, 5, 1)
    seen, chunks = Demonstrations(steps, 10 * steps).windows(history=3, horizon=4)
    assert seen[..., 0].tolist() == [[0, 0, 0], [0, 0, 1], [0, 1, 2], [1, 2, 3], [2, 3, 4]]
    assert chunks[..., 0].tolist()[0] == [0, 10, 20, 30] and chunks[..., 0].tolist()[3] == [30, 40, 40, 40]


@pytest.fixture(scope="module")
def policy() -> DiffusionPolicy:
    return train_diffusion(ramps(), steps=400, batch=128, hidden=128, horizon=8, executed=4, noise_steps=50)


def test_it_learns_to_continue_the_demonstrations(policy):
    data = ramps()
    seen, chunks = data.windows(policy.settings.history, policy.settings.horizon)
    torch.manual_seed(1)
    error = (policy.sample(seen) - chunks).abs().mean()
    assert error < 0.1  # guessing the mean costs 0.5


def test_chunks_are_carried_out_in_turn_and_an_episode_starts_anew(policy):
    class Plan:
        step = torch.zeros(2, dtype=torch.long)

    act, data, plan = controller(policy, start=0.0), ramps(episodes=2), Plan()

    def episode():
        got = []
        for step in range(12):
            plan.step = torch.full((2,), step)
            got.append(act({"policy": data.observations[:, step]}, plan))
        return torch.stack(got, 1)

    first, second = episode(), episode()
    torch.testing.assert_close(first, second)
    np.testing.assert_allclose(first, data.actions[:, :12], atol=0.2)


def test_file_gives_the_same_policy_and_another_file_is_none(policy, tmp_path):
    policy.save(tmp_path / "policy.pt", task="move_apple")
    again = DiffusionPolicy.load(tmp_path / "policy.pt")
    assert again is not None
    seen = torch.rand(3, 2, 2)
    torch.testing.assert_close(again.sample(seen, start=0.0), policy.sample(seen, start=0.0))
    wrong = tmp_path / "wrong.pt"
    wrong.write_bytes(b"nothing")
    torch.save({"model_state_dict": {}}, other := tmp_path / "model.pt")
    assert DiffusionPolicy.load(wrong) is None and DiffusionPolicy.load(other) is None


def test_untrained_policy_stays_within_the_actions_it_was_shown():
    policy = DiffusionPolicy(DiffusionSettings(observation_dim=3, action_dim=2, hidden=8))
    assert policy.sample(torch.randn(100, 2, 3)).abs().max() <= 1
