"""The rows of the table: what the paper publishes, and the strategies that stand for it here."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

import optax

from experiments.split_mnist.digits import Scenario
from incremental.core import optimizers
from incremental.core.strategy import Strategy
from incremental.core.types import Problem
from incremental.strategies.ewc import ewc
from incremental.strategies.exemplar_replay import exemplar_replay
from incremental.strategies.gem import gem
from incremental.strategies.l2_to_last import l2_to_last
from incremental.strategies.lwf import lwf
from incremental.strategies.mas import mas
from incremental.strategies.online_ewc import online_ewc
from incremental.strategies.si import si

Factories = Mapping[str, Callable[[Problem], Strategy]]


class Method(NamedTuple):
    """A row; numbers are given for the domain and the class scenario."""

    domain: tuple[float, float]
    """published: mean and standard deviation over ten runs, percent (Hsu et al. 2018, arXiv 1810.12488, table 2)"""
    class_: tuple[float, float]
    strategies: Callable[..., Factories]
    """of the scenario's coefficient λ, where there is one"""
    coefficients: tuple[float, float] | None = None
    optimizer: Callable[[], optax.GradientTransformation] = partial(optimizers.adam, learning_rate=1e-3)
    joint: bool = False
    """all tasks at once"""

    def published(self, scenario: Scenario) -> tuple[float, float]:
        """Mean and standard deviation."""
        return self.domain if scenario == "domain" else self.class_

    def factories(self, scenario: Scenario) -> Factories:
        """The strategies, by name."""
        if self.coefficients is None:
            return self.strategies()
        return self.strategies(self.coefficients[scenario == "class"])


SGD = partial(optimizers.sgd, learning_rate=0.01)
FISHER: Any = {"samples": 2048, "labels": "predicted"}


def memory(capacity: int) -> Callable[[Problem], Strategy]:
    """`capacity` random examples in equal shares of the tasks; as many old rows as new ones in a batch."""
    return partial(
        exemplar_replay, capacity=capacity, rows=128, selection="random", quotas="balanced", groups="increment"
    )


def l2(λ: float) -> Factories:
    """λ Σ (θ - θ*)²; here and in the next two the strategy has the ½ that the paper leaves out."""
    return {"l2": partial(l2_to_last, weight=2 * λ)}


def separate(λ: float) -> Factories:
    """λ Σ_t Σ F_t (θ - θ_t)²."""
    return {"ewc": partial(ewc, weight=2 * λ, **FISHER)}


def accumulated(λ: float) -> Factories:
    """λ Σ F (θ - θ*)², F the sum of all."""
    return {"online_ewc": partial(online_ewc, weight=2 * λ, decay=1.0, **FISHER)}


def intelligence(λ: float) -> Factories:
    """λ Σ Ω (θ - θ*)²."""
    return {"si": partial(si, weight=λ, damping=0.1)}


def aware(λ: float) -> Factories:
    """λ Σ Ω (θ - θ*)², Ω of the mean square of two outputs, where the strategy takes the sum and the ½."""
    return {"mas": partial(mas, weight=λ, samples=12_000, together=128)}


def without_forgetting() -> Factories:
    """Distillation at temperature 2."""
    return {"lwf": partial(lwf, weight=1.0, temperature=2.0)}


def episodic() -> Factories:
    """The memory is projected against, and replayed."""
    return {"gem": partial(gem, increments=4, capacity=275, margin=0.5), "replay": memory(1100)}


METHODS = {
    "plain, Adam": Method((55.16, 1.38), (19.71, 0.08), dict),
    "plain, SGD": Method((63.20, 0.35), (19.46, 0.04), dict, optimizer=SGD),
    "L2": Method((66.00, 3.73), (22.52, 1.08), l2, (0.5, 100.0)),
    "EWC": Method((58.85, 2.59), (19.80, 0.05), separate, (100.0, 600.0)),
    "online EWC": Method((57.33, 1.44), (19.77, 0.04), accumulated, (700.0, 100.0)),
    "SI": Method((64.76, 3.09), (19.67, 0.09), intelligence, (3000.0, 600.0)),
    "MAS": Method((68.57, 6.85), (19.52, 0.29), aware, (10_000.0, 1.0)),
    "LwF": Method((71.02, 1.26), (24.17, 0.33), without_forgetting),
    "GEM": Method((96.16, 0.35), (92.20, 0.12), episodic, optimizer=SGD),
    "replay, 1,100": Method((95.16, 0.49), (90.78, 0.85), lambda: {"replay": memory(1100)}),
    "replay, 4,400": Method((97.11, 0.34), (95.59, 0.49), lambda: {"replay": memory(4400)}),
    "all at once": Method((98.59, 0.15), (97.53, 0.30), dict, joint=True),
}
