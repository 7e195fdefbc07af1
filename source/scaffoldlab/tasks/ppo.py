"""rsl_rl's PPO with a ceiling for its adaptive learning rate."""

from isaaclab.utils import configclass
from isaaclab_rl.rsl_rl import RslRlPpoAlgorithmCfg
from rsl_rl.algorithms import PPO


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
