"""Titles that belong to the items of a log: what does not match is counted."""

from collections.abc import Mapping

from incremental.data import interactions
from incremental.data.interactions import Table
from incremental.errors import UserError

TEXT = "data.source.items_path is set; set data.source.text to its column with the titles, or leave both out"
"""what to do where a file with titles is named, and the column with them is not"""


def joined(table: Table, text: Mapping[str, str], origin: str, key: str = "data.source.path") -> Table:
    """The table with the titles of its items; a note where fewer than half of the items have one.

    Raises UserError where no title belongs to an item of the table: then the ids are written differently.
    """
    values = table.frame["item"].alias(table.names.get("item", "item"))
    known, _ = interactions.identities(values, table.origin, table.frame["line"], file=table.file)
    items = known.unique(maintain_order=True).drop_nulls().to_list()
    missing = [item for item in items if item not in text]
    if not text:
        return table._replace(notes=(*table.notes, f"{origin}: it has no titles"))
    example = f"{table.origin} has {missing[0]!r}, {origin} has {next(iter(text))!r}" if missing else ""
    if items and len(missing) == len(items):
        raise UserError(
            f"{origin}: none of its {len(text):,} titles belongs to an item: {example}; "
            f"write the ids in the same way, or set {key} to the file with the titles of these items"
        )
    if 2 * len(missing) > len(items):
        note = (
            f"{origin}: {len(missing):,} of {len(items):,} items have no title there ({example}): are the ids the same?"
        )
        table = table._replace(notes=(*table.notes, note))
    return table._replace(text=text)
