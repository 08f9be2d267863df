"""The rows of the table: the strategies and settings that stand for them here."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from experiments.permuted_mnist.variants import last_mas, ring_agem, running_ewc
from incremental.core.strategy import Strategy
from incremental.core.types import Problem

TASKS, IMAGES = 17, 55_000

Factories = Mapping[str, Callable[[Problem], Strategy]]


class Method(NamedTuple):
    """A row."""

    rate: float
    """of plain SGD"""
    strategies: Factories
    joint: bool = False
    """all tasks at once, as one"""


METHODS = {
    "VAN": Method(0.03, {}),
    "EWC": Method(0.03, {"ewc": partial(running_ewc, weight=10.0)}),
    "MAS": Method(0.1, {"mas": partial(last_mas, weight=0.1, samples=IMAGES)}),
    "A-GEM": Method(0.1, {"agem": partial(ring_agem, tasks=TASKS, each=25, rows=256)}),
    "all at once": Method(0.1, {}, joint=True),
}
