"""The deterministic output of a Gaussian policy whose actions the env clips."""

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm

from scaffoldlab.errors import ScaffoldError
from scaffoldlab.tasks.ppo import ClippedGaussian


def make(std: float, actions: int = 7, **options: float) -> ClippedGaussian:
    return ClippedGaussian(actions, init_std=std, **options)


def test_deterministic_output_is_the_mean_of_many_clipped_samples():
    mean = torch.tensor([-3.0, -1.0, -0.2, 0.0, 0.7, 2.0, 0.4])
    got = make(0.8).deterministic_output(mean[None])[0]
    samples = mean + 0.8 * torch.randn(1_000_000, 7, generator=torch.Generator().manual_seed(0))
    samples[:, :6].clamp_(-1, 1)
    samples[:, 6:].clamp_(0, 1)
    np.testing.assert_allclose(got.detach(), samples.mean(0), atol=0.003)


def test_hand_computed_mean_of_an_action_at_its_limit():
    """Half of N(1, 1) lies beyond 1 and counts as 1; below, the part under -1 counts as -1."""
    got = make(1.0).deterministic_output(torch.ones(1, 7))[0].detach()
    between = norm.cdf(0) - norm.cdf(-2) + norm.pdf(-2) - norm.pdf(0)
    np.testing.assert_allclose(got[:6], 0.5 - norm.cdf(-2) + between, atol=1e-6)


def test_without_noise_it_is_the_clipped_mean_itself():
    got = make(1e-6).deterministic_output(torch.tensor([[-2.0, -0.5, 0.0, 0.5, 0.99, 2.0, -1.0]]))
    np.testing.assert_allclose(got.detach(), [[-1, -0.5, 0, 0.5, 0.99, 1, 0]], atol=1e-5)


def test_exported_module_gives_the_same_also_as_torchscript():
    distribution, mean = make(0.6), torch.randn(5, 7)
    module, expected = distribution.as_deterministic_output_module(), distribution.deterministic_output(mean).detach()
    for exported in (module, torch.jit.script(module)):
        torch.testing.assert_close(exported(mean), expected)


# --- fingers that explore together ----------------------------------------------------------------------------------


def test_correlated_fingers_move_together_and_the_wrist_does_not():
    torch.manual_seed(0)
    gaussian = make(0.5, 10, finger_correlation=0.8)
    gaussian.update(torch.arange(10.0).expand(200_000, 10))
    samples = gaussian.sample().numpy()
    np.testing.assert_allclose(samples.mean(0), np.arange(10), atol=0.01)
    expected = np.eye(10)
    expected[6:, 6:] = 0.8 + 0.2 * np.eye(4)
    np.testing.assert_allclose(np.corrcoef(samples.T), expected, atol=0.01)
    np.testing.assert_allclose(samples.std(0), 0.5, atol=0.005)


def test_density_entropy_and_divergence_of_correlated_fingers_are_scipys():
    gaussian, mean = make(0.5, 10, finger_correlation=0.8), torch.linspace(-1, 1, 10)[None]
    gaussian.update(mean)
    correlation = np.eye(10)
    correlation[6:, 6:] = 0.8 + 0.2 * np.eye(4)
    joint = multivariate_normal(mean[0].numpy(), 0.25 * correlation)
    action = torch.randn(5, 10)
    np.testing.assert_allclose(gaussian.log_prob(action).detach(), joint.logpdf(action.numpy()), rtol=1e-4)
    np.testing.assert_allclose(gaussian.entropy.detach(), joint.entropy(), rtol=1e-5)
    # KL of two that differ in their means only: half of the squared Mahalanobis distance.
    offset = torch.full((1, 10), 0.1)
    got = gaussian.kl_divergence((mean, gaussian.std), (mean + offset, gaussian.std))
    d = offset[0].numpy()
    np.testing.assert_allclose(got.detach(), 0.5 * d @ np.linalg.solve(0.25 * correlation, d), rtol=1e-4)


def test_correlation_is_no_part_of_a_checkpoint_and_none_changes_nothing():
    plain, tied = make(0.5, 10), make(0.5, 10, finger_correlation=0.8)
    assert plain.state_dict().keys() == tied.state_dict().keys()
    mean = torch.zeros(3, 10)
    plain.update(mean)
    action = torch.randn(3, 10)
    np.testing.assert_allclose(
        plain.log_prob(action).detach(), norm(scale=0.5).logpdf(action.numpy()).sum(-1), rtol=1e-5
    )
    with pytest.raises(ScaffoldError, match="finger_correlation is 1.0; allowed: 0 or more, and below 1"):
        make(0.5, finger_correlation=1.0)
