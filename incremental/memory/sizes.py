"""The one check that every strategy with a memory makes of its sizes."""

from incremental.errors import UserError


def refuse_none(strategy: str, **sizes: int) -> None:
    """A memory without slots, or a draw of no rows, would be a strategy that does nothing."""
    for name, value in sizes.items():
        if value < 1:
            raise UserError(f"strategies.{strategy}: {name}={value}: expected at least 1, or leave the strategy out")
