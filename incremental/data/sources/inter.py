"""RecBole's atomic files: `.inter` with the interactions, `.item` with the items."""

import os
from pathlib import Path

from incremental.data.interactions import Table
from incremental.data.sources import files, parts, reading, titles
from incremental.data.sources.delimited import separator_of
from incremental.data.sources.sheet import require_named
from incremental.errors import UserError


def inter(
    *,
    path: str,
    user: str = "user_id",
    item: str = "item_id",
    time: str = "timestamp",
    rating: str | None = None,
    behaviour: str | None = None,
    time_format: str | None = None,
    time_unit: str | None = None,
    separator: str = "\t",
    encoding: str | None = None,
    items_path: str | None = None,
    text: str | None = None,
) -> Table:
    """Read a tab-separated `.inter` file whose header has `field:type` entries, such as `user_id:token`.

    path:       the file; a folder or a pattern such as ml.*.inter is read as one log
    user … behaviour: the names of the fields, without their types; rating and behaviour are optional
    time_format: how the time is to be read (strftime); None: as numbers or ISO 8601
    time_unit:  what the time counts: s, ms, us or ns since 1970, excel (days of a spreadsheet), or period (the numbers
                of periods, for data.cut); None: found by its values, which then must be from 1990 to tomorrow
    separator:  between the fields, where it is not a tab
    encoding:   of a file that is not UTF-8 and has no byte order mark
    items_path: the `.item` file, absolute or beside the first; None: where `text` is set, the one of the same name
    text:       its field with the title; the field with the id has the name given by `item`

    Raises UserError that names file, row and column for a missing file or field and for unreadable values.
    """
    if items_path is not None and text is None:
        raise UserError(titles.TEXT)
    _refuse_others(files.local(path, files.PATH))
    option = "data.source.separator"
    dialect = parts.Dialect(separator_of(separator, option), encoding=encoding, name=_without_type, option=option)
    sheet = parts.sheet(path, dialect)
    table = reading.table(
        sheet,
        user=user,
        item=item,
        time=time,
        rating=rating,
        behaviour=behaviour,
        time_format=time_format,
        time_unit=time_unit,
    )
    if text is None:
        return table
    key = "data.source.items_path"
    second = str(_beside(Path(path).expanduser())) if items_path is None else files.beside(path, items_path, key)
    items = parts.sheet(second, dialect._replace(option=""), key)
    require_named(items, item=item, text=text)
    table = table._replace(notes=(*table.notes, *items.notes))
    return titles.joined(table, reading.titles(items, item, text), items.origin, key)


def _refuse_others(folder: Path) -> None:
    """A UserError for the folder of a data set, whose other files have no interactions."""
    names = [file.name for file in files.listed(folder) if file.is_file()] if os.path.isdir(folder) else []
    names = [name for name in names if name[0] not in "_."]  # they do not count (parts.sheet)
    found = [name for name in names if ".inter" in name]
    others = [name for name in names if name not in found]
    if found and others:
        one = found[0] if len(found) == 1 else "*.inter"
        raise UserError(
            f"{folder}: {others[0]} beside the .inter file has no interactions; name the .inter file: "
            f"{files.PATH}={folder / one}"
        )


def _without_type(field: str) -> str:
    return field.split(":")[0]


def _beside(file: Path) -> Path:
    """The `.item` file of the same name: ml.item of ml.inter and of ml.inter.gz."""
    name = file.name.split(".inter")[0] if ".inter" in file.name else file.stem
    return files.within(file.parent, f"{name}.item") or file.with_name(f"{name}.item")
