"""What the small network needs of rsl_rl's PPO: a ceiling for the learning rate, the mean of clipped actions, fingers
that explore together."""

import math
from typing import Any

import torch
from isaaclab.utils import configclass
from isaaclab_rl.rsl_rl import RslRlMLPModelCfg, RslRlPpoAlgorithmCfg
from rsl_rl.algorithms import PPO
from rsl_rl.modules.distribution import GaussianDistribution
from torch.distributions import MultivariateNormal

from scaffoldlab.errors import ScaffoldError


class CappedPPO(PPO):
    """PPO whose adaptive learning rate stays at or below ``max_learning_rate``.

    rsl_rl lets it rise to 1e-2, at which the small CPU network loses what it has learned (docs/decisions).
    """

    def __init__(self, *args, max_learning_rate: float, **kwargs):
        self._max_learning_rate = max_learning_rate
        super().__init__(*args, **kwargs)

    @property
    def learning_rate(self) -> float:
        """Learning rate of the optimizer."""
        return self._learning_rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._learning_rate = min(value, self._max_learning_rate)


@configclass
class CappedPpoCfg(RslRlPpoAlgorithmCfg):
    """Configuration of :class:`CappedPPO`."""

    class_name: str = "scaffoldlab.tasks.ppo:CappedPPO"
    max_learning_rate: float = 1e-3


class ClippedGaussian(GaussianDistribution):
    """A Gaussian over actions that the env clips: its deterministic output is the mean of the clipped action.

    The mean of the Gaussian itself is not what was trained: a mean of 2 with a deviation of 1 is carried out as 0.92
    on average, but as 1 without noise (docs/decisions/clipped-mean.md). The first six actions, of the wrist, are
    clipped to -1..1, those of the fingers to 0..1.

    Args:
        output_dim: Number of actions.
        finger_correlation: Correlation of the noise on any two fingers, 0 or more and below 1. Noise on each by itself
            hardly ever closes all of them at a time.
    """

    _root: torch.Tensor

    def __init__(self, output_dim: int, *args: Any, finger_correlation: float = 0.0, **kwargs: Any):
        super().__init__(output_dim, *args, **kwargs)
        if not 0 <= finger_correlation < 1:
            raise ScaffoldError(f"agent: finger_correlation is {finger_correlation}; allowed: 0 or more, and below 1.")
        self._correlated = finger_correlation > 0
        correlation = torch.eye(output_dim)
        correlation[6:, 6:] += finger_correlation * (1 - correlation[6:, 6:])
        self.register_buffer("_root", torch.linalg.cholesky(correlation), persistent=False)

    def sample(self) -> torch.Tensor:
        """Actions before they are clipped, shape (num_envs, action_dim)."""
        return self._joint(*self.params).sample() if self._correlated else super().sample()

    @property
    def entropy(self) -> torch.Tensor:
        """Entropy of the actions together, shape (num_envs,)."""
        return self._joint(*self.params).entropy() if self._correlated else super().entropy

    def log_prob(self, outputs: torch.Tensor) -> torch.Tensor:
        """Log density of actions before they are clipped, shape (num_envs,)."""
        return self._joint(*self.params).log_prob(outputs) if self._correlated else super().log_prob(outputs)

    def kl_divergence(self, old_params: tuple[torch.Tensor, ...], new_params: tuple[torch.Tensor, ...]) -> torch.Tensor:
        """KL(old || new), shape (num_envs,)."""
        if not self._correlated:
            return super().kl_divergence(old_params, new_params)
        return torch.distributions.kl_divergence(self._joint(*old_params), self._joint(*new_params))

    def _joint(self, mean: torch.Tensor, std: torch.Tensor) -> MultivariateNormal:
        return MultivariateNormal(mean, scale_tril=std[..., None] * self._root, validate_args=False)

    def deterministic_output(self, mlp_output: torch.Tensor) -> torch.Tensor:
        """E[clip(a)] of a ~ N(mlp_output, std^2), shape (num_envs, action_dim)."""
        return _clipped_mean(mlp_output, self.std_param.clamp(*self.std_range))

    def as_deterministic_output_module(self) -> torch.nn.Module:
        """The same for an exported policy."""
        return _ClippedMean(self.std_param.detach().clamp(*self.std_range))


class _ClippedMean(torch.nn.Module):
    std: torch.Tensor

    def __init__(self, std: torch.Tensor):
        super().__init__()
        self.register_buffer("std", std.clone())

    def forward(self, mlp_output: torch.Tensor) -> torch.Tensor:
        return _clipped_mean(mlp_output, self.std)


def _clipped_mean(mean: torch.Tensor, std: torch.Tensor) -> torch.Tensor:
    """Mean of a Gaussian clipped to low..high: the two atoms at the ends and the part in between.

    Isaac Lab's ``play`` compiles it to TorchScript, which knows no ``torch.distributions``.
    """
    low = torch.cat([-torch.ones_like(mean[..., :6]), torch.zeros_like(mean[..., 6:])], -1)
    a, b = (low - mean) / std, (1 - mean) / std
    below, above = torch.special.ndtr(a), torch.special.ndtr(-b)
    densities = (torch.exp(-0.5 * a.square()) - torch.exp(-0.5 * b.square())) / math.sqrt(2 * math.pi)
    inside = mean * (1 - below - above) + std * densities
    return low * below + above + inside


@configclass
class ClippedGaussianCfg(RslRlMLPModelCfg.GaussianDistributionCfg):
    """Configuration of :class:`ClippedGaussian`."""

    class_name: str = "scaffoldlab.tasks.ppo:ClippedGaussian"
    finger_correlation: float = 0.0
