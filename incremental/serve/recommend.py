"""The `incremental-recommend` command."""

import argparse
import json
import sys
import unicodedata
from collections.abc import Sequence
from functools import partial

from incremental.shell import enter, status


def add_options(parser: argparse.ArgumentParser) -> None:
    """Those of commands that read a run: where its data goes on, and what its factories may be imported from."""
    parser.add_argument(
        "--data",
        metavar="PATH",
        help="the run's data with the events that have come since, which histories end with (default: what the run "
        "directory holds; the data itself is not needed)",
    )
    parser.add_argument(
        "--plugin",
        action="append",
        default=[],
        metavar="PACKAGE",
        help="a package of yours that the run's factories are imported from; may be repeated",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the k best items for a user of a run."""
    parser = argparse.ArgumentParser(
        prog="incremental-recommend", description="Recommend items to a user with the model of a run."
    )
    parser.add_argument("run", help="a run directory, as `incremental` wrote it")
    parser.add_argument("--user", required=True, help="the user's (or session's) id in the data")
    parser.add_argument("-k", type=int, default=10, help="how many items (default 10)")
    parser.add_argument("--include-seen", action="store_true", help="recommend items again that the user had")
    add_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")
    enter()
    options = parser.parse_args(joined(sys.argv[1:] if arguments is None else arguments))
    return status(partial(recommend, options))


def recommend(options: argparse.Namespace) -> None:
    """What the command does."""
    from incremental.serve.model import load

    model = load(options.run, plugins=options.plugin, data=options.data)
    found = model.recommend(options.user, options.k, exclude_seen=not options.include_seen)
    if said := remark(options.user, len(found), options.k, include_seen=options.include_seen):
        print(said, file=sys.stderr)
    if options.json:
        whole = (sys.stdout.encoding or "utf-8").lower().startswith("utf")  # else \u00fc stands for what it lacks
        print(json.dumps([each._asdict() for each in found], ensure_ascii=not whole, indent=1))
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    titled = any(each.title for each in found)
    table = Table("rank", "item", *["title"] * titled, "score", title=Text(f"user {options.user}"), box=None)
    for rank, each in enumerate(found, 1):
        cells = str(rank), each.item, *[each.title] * titled, f"{each.score:.3f}"
        table.add_row(*(Text(one_line(cell)) for cell in cells))  # data is no markup
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def joined(arguments: Sequence[str]) -> list[str]:
    """The arguments with `--user ID` as `--user=ID`: an id that begins with a dash is no option.

    >>> joined(["RUN", "--user", "-0Ji", "-k", "3"])
    ['RUN', '--user=-0Ji', '-k', '3']
    """
    found: list[str] = []
    for argument in arguments:
        if found and found[-1] == "--user":
            found[-1] = f"--user={argument}"
        else:
            found.append(argument)
    return found


def remark(user: str, found: int, k: int, *, include_seen: bool) -> str:
    """Why there is nothing, or less than was asked for; "" where there is all."""
    if found >= k:
        return ""
    if include_seen:
        return f"user {user}: the model knows {found} items, fewer than -k {k}"
    again = "--include-seen recommends those too that the user had"
    if found:
        return f"user {user}: {found} items are left that the user has not had, fewer than -k {k}; {again}"
    return f"user {user}: nothing to recommend, the user has had every item that the model knows; {again}"


def one_line(text: str) -> str:
    """A text without what moves a terminal's cursor or colours it."""
    return "".join(" " if unicodedata.category(char) in ("Cc", "Zl", "Zp") else char for char in text)
