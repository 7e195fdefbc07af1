"""The deterministic output of a Gaussian policy whose actions the env clips."""

import numpy as np
import torch
from scipy.stats import norm

from scaffoldlab.tasks.ppo import ClippedGaussian


def make(std: float) -> ClippedGaussian:
    return ClippedGaussian(7, init_std=std)


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
