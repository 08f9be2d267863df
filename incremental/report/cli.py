"""``incremental-report``: read run directories; print a table and write a page of pictures."""

import argparse
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from incremental.errors import UserError
from incremental.shell import enter, path, status

# What to import is decided inside the functions: --help needs none of it.
FORMATS = ["terminal", "markdown", "latex", "csv"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 0, or 2 after a user's mistake, which is explained on stderr."""
    enter()
    options = _parser().parse_args(arguments)
    return status(partial(_report, options), "incremental-report")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="incremental-report",
        description="Compare finished runs: a table with intervals over seeds and tests against a baseline, "
        "and an HTML page with pictures.",
    )
    parser.add_argument(
        "directories",
        nargs="+",
        type=Path,
        metavar="DIR",
        help="run directories, or folders above some",
    )
    parser.add_argument(
        "--metric",
        action="append",
        default=[],
        metavar="NAME",
        help="compare by this metric, such as recall@20; may be repeated (default: ndcg@10, or the first)",
    )
    parser.add_argument(
        "--baseline",
        metavar="ROW",
        help="the row that the others are tested against (default: finetune, or the row of the first run)",
    )
    parser.add_argument(
        "--rows",
        type=_keys,
        default=[],
        metavar="KEY,...",
        help="what makes a row: row, name, or dotted keys of the runs' config.yaml, such as "
        "row,optimizer.learning_rate (default: row)",
    )
    parser.add_argument(
        "--columns",
        type=_keys,
        default=[],
        metavar="KEY,...",
        help="a group of columns for each value of these keys, such as model or data.source; tests are within each",
    )
    parser.add_argument(
        "--sensitivity",
        metavar="KEY",
        help="also draw the metrics against this number of the config, such as strategies.anchor.weight; "
        "each of its values is a row",
    )
    parser.add_argument(
        "--after",
        type=int,
        default=0,
        metavar="N",
        help="leave increments 1 to N out of the qualities: those that hyper-parameters were chosen on",
    )
    parser.add_argument(
        "--show",
        type=_keys,
        default=[],
        metavar="NAME,...",
        help="what stands in the table, in this order: metrics, p, seeds, measures by their names in the CSV, such as "
        "ndcg@10,p,slope,seconds_per_update",
    )
    parser.add_argument(
        "--label",
        action="append",
        type=_label,
        default=[],
        metavar="OLD=NEW",
        help="another name for a row, a column, a metric or a measure, in table, page and figures; may be repeated",
    )
    parser.add_argument(
        "--format",
        choices=FORMATS,
        default="terminal",
        help="how to print the table (default: terminal)",
    )
    parser.add_argument("--output", type=path, metavar="FILE", help="write the table here, not to stdout")
    parser.add_argument(
        "--figures",
        type=path,
        metavar="FOLDER",
        help="also write every picture of the page into this folder, as a file",
    )
    parser.add_argument(
        "--figure-format", choices=["pdf", "svg", "png"], default="pdf", help="of these files (default: pdf)"
    )
    page = parser.add_mutually_exclusive_group()
    page.add_argument(
        "--html",
        type=path,
        metavar="FILE",
        help="where to write the page (default: report.html in the first DIR)",
    )
    page.add_argument("--no-html", action="store_true", help="write no page")
    return parser


def _report(options: argparse.Namespace) -> None:
    from incremental.report import read_runs, table, text

    found = read_runs(options.directories)
    left_out = [f"Left out: {directory} ({why})." for directory, why in found.unfinished]
    if not found.finished:
        places = ", ".join(map(str, options.directories))
        raise UserError(
            "\n".join(
                [
                    f"no finished runs in {places}. Name the folder that your runs were written to; "
                    "the command incremental starts one.",
                    *left_out,
                ]
            )
        )
    compared = table(
        found.finished,
        metrics=options.metric,
        baseline=options.baseline,
        rows=options.rows,
        columns=options.columns,
        sensitivity=options.sensitivity,
        after=options.after,
        labels=dict(options.label),
    )
    for line in left_out:
        print(line, file=sys.stderr)

    on_screen = options.output is None and sys.stdout.isatty()
    made = text(compared, options.format, show=options.show, width=_width() if on_screen else None, bold=on_screen)
    if options.output is None:
        sys.stdout.write(made)
    else:
        _write(options.output, made)

    if options.figures:
        from incremental.report.figures import write

        files = write(compared, options.figures, options.figure_format)
        print(f"figures: {len(files)} files in {options.figures}", file=sys.stderr)
    if not options.no_html:
        from incremental.report.page import page

        place = options.html or options.directories[0] / "report.html"
        _write(place, page(compared, notes=left_out))
        print(f"page with pictures: {place}", file=sys.stderr)


def _keys(text: str) -> list[str]:
    return [key.strip() for key in text.split(",") if key.strip()]


def _label(text: str) -> tuple[str, str]:
    old, _, new = text.rpartition("=")  # a row's own name may have one: "ewc weight=10"
    if not (old and new):
        raise argparse.ArgumentTypeError(f"expected OLD=NEW, got {text!r}")
    return old, new


def _width() -> int:
    import shutil

    return shutil.get_terminal_size().columns


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8", errors="replace")  # a folder's name may be no UTF-8
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror}); choose another place with --html and --output, or --no-html"
        ) from error


if __name__ == "__main__":
    sys.exit(main())
