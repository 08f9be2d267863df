"""What the data says of an example: its inputs, the kinds of ids, how many there are of each. It needs no jax."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np


class Sizes(Mapping[str, int]):
    """Capacity of the id tables of each kind, padding row included; hashable.

    >>> sizes = Sizes(item=9, user=5)
    >>> sizes["user"], sizes.slots, sizes.replace(user=8)
    (5, 9, Sizes(item=9, user=8, labels='item'))
    """

    def __init__(self, *, labels: str = "item", **capacity: int) -> None:
        self.labels = labels
        """the kind of the labels"""
        self._capacity = capacity

    @property
    def slots(self) -> int:
        """V, the capacity of the labels' kind."""
        return self._capacity[self.labels]

    def replace(self, **capacity: int) -> "Sizes":
        """With other capacities of some kinds."""
        return Sizes(labels=self.labels, **{**self._capacity, **capacity})

    def at_least(self, other: Mapping[str, int]) -> "Sizes":
        """Not below the capacities of `other`, where it has the kind."""
        return self.replace(**{kind: max(size, other.get(kind, 0)) for kind, size in self.items()})

    def __getitem__(self, kind: str) -> int:
        return self._capacity[kind]

    def __iter__(self) -> Iterator[str]:
        return iter(self._capacity)

    def __len__(self) -> int:
        return len(self._capacity)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sizes) and (self.labels, self._capacity) == (other.labels, other._capacity)

    def __hash__(self) -> int:
        return hash((self.labels, *sorted(self._capacity.items())))

    def __repr__(self) -> str:
        return f"Sizes({', '.join(f'{kind}={size}' for kind, size in self.items())}, labels={self.labels!r})"


class Input(NamedTuple):
    """What one example holds of an input; or one id of a side table.

    Attributes:
        shape: without the axis of examples or ids
        dtype: of numpy
        kind: whose ids the whole numbers are, or whose side table it is
    """

    shape: tuple[int, ...]
    dtype: Any
    kind: str | None = None


@dataclass(frozen=True)
class Spec:
    """What an example is, as the data says it; hashable.

    Attributes:
        inputs
        labels: the kind of the ids that labels and candidates are
        kinds: of ids that grow; all of them
        side: frozen tables by name: what one id of the kind has
    """

    inputs: Mapping[str, Input]
    labels: str = "item"
    kinds: tuple[str, ...] = ("item", "user")
    side: Mapping[str, Input] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash((*self.inputs.items(), self.labels, self.kinds, *self.side.items()))


def listed(inputs: Iterable[Input]) -> set[str]:
    """The kinds of ids of which an example holds lists."""
    return {each.kind for each in inputs if each.shape and each.kind is not None}


def of_kinds(inputs: Mapping[str, Input], kinds: Collection[str]) -> dict[str, Input]:
    """The inputs that are ids of these kinds; words, pixels and numbers are not."""
    return {name: each for name, each in inputs.items() if each.kind in kinds}


def next_item(history: int) -> Spec:
    """Examples of a user, the items of the last `history` events and the next item, as every log has them; and in
    training the items after it."""
    whole = np.dtype(np.int32)
    items = Input((history,), whole, "item")
    return Spec({"user": Input((), whole, "user"), "history": items, "following": items})
