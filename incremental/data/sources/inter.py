"""RecBole's atomic files: `.inter` with the interactions, `.item` with the items."""

from incremental.data.interactions import Table
from incremental.data.sources import reading


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
    items_path: str | None = None,
    text: str | None = None,
) -> Table:
    """Read a tab-separated `.inter` file whose header has `field:type` entries, such as `user_id:token`.

    user … behaviour: the names of the fields, without their types; rating and behaviour are optional
    time_format: how the time is to be read (strftime); None: as numbers or ISO 8601
    time_unit:  what the time counts: s, ms, us or ns since 1970, excel (days of a spreadsheet), or period (the numbers
                of periods, for data.cut); None: found by its values, which then must be from 1990 to tomorrow
    items_path: the `.item` file, read if `text` is set; None: the one of the same name beside the first
    text:       its field with the title; the field with the id has the name given by `item`

    Raises UserError that names file, row and column for a missing file or field and for unreadable values.
    """
    file = reading.path_to(path, folder=False)
    sheet = _without_types(reading.delimited(file, separator="\t"))
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
    catalogue = reading.path_to(
        items_path or str(file.with_suffix(".item")), folder=False, key="data.source.items_path"
    )
    items = _without_types(reading.delimited(catalogue, separator="\t"))
    reading.require_named(items, item=item, text=text)
    return table._replace(text=reading.titles(items, item, text))


def _without_types(sheet: reading.Sheet) -> reading.Sheet:
    return sheet._replace(frame=sheet.frame.rename(lambda field: field.split(":")[0]))
