"""The rows of the study as runs: each grid point on each split, then with updates from the same base part."""

import re
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiments import running
from experiments.running import Job
from experiments.time_to_split import table
from incremental.app import cli
from incremental.errors import UserError
from incremental.shell import enter, reported

WIDTHS, BLOCKS, HEADS, RATES = (32, 64, 128, 256), (1, 2, 3), (1, 2, 4), (0.1, 0.3, 0.5)
"""the grid of SASRec+, the first changing slowest"""
STATES, LAYERS, GRU_RATES = (16, 32, 64, 128, 256, 512, 48, 96), 4, 4
"""the grid of GRU4Rec: sizes, numbers of layers and of dropout rates"""


def read(arguments: Sequence[str]) -> dict[str, Any]:
    """The study's configuration, checked."""
    config = cli.study(Path(__file__).with_name("study.yaml"), arguments)
    if config.path is None or not (Path(config.path) / "interactions.csv").is_file():
        raise UserError(
            f"path={config.path}: expected the folder with interactions.csv (user_id,item_id,timestamp) and items.csv, "
            f"Amazon Beauty's 5-core of {table.EVENTS:,} reviews: path=FOLDER"
        )
    for key, names in {"splits": config.protocols, "updates": config.policies}.items():
        for name in config[key]:
            if name not in names:
                raise UserError(f"{key}: {name!r} is not one of {', '.join(names)}")
    for row in config.rows:
        point(row)
    return cli.resolved(config)


def point(row: str) -> list[str]:
    """The overrides of a point of the paper's grids: "sasrec-29" is number 29 of SASRec+, "gru4rec-32" of GRU4Rec.

    >>> point("sasrec-29")
    ['model=sasrec_plus', 'model.width=64', 'model.blocks=1', 'model.heads=1', 'model.dropout=0.5']
    >>> point("gru4rec-32")
    ['model=gru4rec_tied', 'model.width=64', 'model.cell_limit=0.125']
    """
    found = re.fullmatch(r"(sasrec|gru4rec)-(\d+)", row)
    number = int(found[2]) if found else -1
    if found and found[1] == "sasrec" and number < 108:
        width, blocks = WIDTHS[number // 27], BLOCKS[number // 9 % 3]
        heads, rate = HEADS[number // 3 % 3], RATES[number % 3]
        own = f"model.width={width} model.blocks={blocks} model.heads={heads} model.dropout={rate}"
        return ["model=sasrec_plus", *own.split()]
    size, layers = divmod(number // GRU_RATES, LAYERS)
    if found and found[1] == "gru4rec" and size < len(STATES) and layers == 0:
        return ["model=gru4rec_tied", f"model.width={STATES[size]}", f"model.cell_limit={STATES[size] ** -0.5}"]
    raise UserError(
        f"rows: {row!r} is no point of the paper's grids; expected sasrec-0 to sasrec-107, or gru4rec-0, 16, 32, … 112 "
        "(one layer; its dropout lies between layers, so the next three are the same)"
    )


def job(study: dict[str, Any], row: table.Run, seed: int, *own: Any) -> Job:
    """A run; later overrides win."""
    given = [study["protocols"][row.split], study["common"], point(row.row), own, study["overrides"]]
    name = f"{row.split}-{row.row}" if row.update == "static" else f"{row.split}-{row.row}-{row.update}"
    return running.job(row, seed, [*given, f"row={name}", f"runs={study['runs']}/{study['ties']}"])


def jobs(study: dict[str, Any]) -> list[Job]:
    """The runs, seed by seed and row by row; those with updates after the one whose base part they begin with."""
    planned = []
    for seed in study["seeds"]:
        for row in study["rows"]:
            for split in study["splits"]:
                static = job(study, table.Run(split, row, "static"), seed)
                planned.append(static)
                for update in study["updates"] if split != "leave_one_out" else []:  # whose test is one increment
                    own = [f"data.cut.increments={study['increments']}", study["policies"][update]]
                    last = f"+update.last={study['increments'] - 1}"  # nothing tests an update after it
                    begun = f"base={static.directory}"
                    planned.append(job(study, table.Run(split, row, update), seed, own, last, begun))
    return planned


def main() -> None:
    """The command line: overrides of study.yaml."""
    enter()
    with reported():
        study = read(sys.argv[1:])
        planned = jobs(study)
        running.run(planned)
        found = [(each.row, each.directory) for each in planned]
        print(table.table(found, table.published_of(Path(study["path"])), study["ties"]))


if __name__ == "__main__":
    main()
