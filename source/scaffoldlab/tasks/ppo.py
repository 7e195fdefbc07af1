"""What the small network needs of rsl_rl's PPO: a ceiling for the learning rate, the mean of clipped actions."""

import math

import torch
from isaaclab.utils import configclass
from isaaclab_rl.rsl_rl import RslRlMLPModelCfg, RslRlPpoAlgorithmCfg
from rsl_rl.algorithms import PPO
from rsl_rl.modules.distribution import GaussianDistribution


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
    """

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
