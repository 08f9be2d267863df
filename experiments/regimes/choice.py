"""What was chosen for a row."""

from typing import NamedTuple


class Choice(NamedTuple):
    """What was chosen for a row in a regime."""

    regime: str
    row: str
    key: str
    means: dict[float, float]
    """of each candidate, over the seeds"""

    @property
    def number(self) -> float:
        """The candidate of the highest mean."""
        return max(self.means, key=self.means.__getitem__)
