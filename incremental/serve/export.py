"""The `incremental-export` command: a run's embeddings and scores as Parquet files."""

import argparse
import io
from collections.abc import Sequence
from pathlib import Path

from incremental.errors import UserError
from incremental.serve.recommend import add_options
from incremental.shell import enter, path, status


def main(arguments: Sequence[str] | None = None) -> int:
    """Writes items.parquet, users.parquet and scores.parquet."""
    parser = argparse.ArgumentParser(
        prog="incremental-export",
        description="Write the embeddings of a run's model (items.parquet, users.parquet) and each user's best items "
        "with their scores (scores.parquet).",
    )
    parser.add_argument("run", help="a run directory, as `incremental` wrote it")
    parser.add_argument("--to", type=path, help="folder for the files (default: RUN/export); must not hold them yet")
    parser.add_argument("-k", type=int, default=100, help="scores of how many items a user (default 100)")
    add_options(parser)
    enter()
    options = parser.parse_args(arguments)

    def work() -> None:
        to = options.to or Path(options.run) / "export"
        for file in export(Path(options.run), to, options.k, options.plugin, options.data):
            print(f"written: {file}{without(file)}")

    return status(work)


def export(run: Path, to: Path, k: int = 100, plugins: Sequence[str] = (), data: str | None = None) -> list[Path]:
    """Writes a run's Parquet files into `to` and returns their paths.

    items: item str, title str, and a column for each of the model's item tables (list of float32, or float32).
    users: user str and its representation at the end of the stream, list of float32 (models without one: no column).
    scores: user str, item str, rank int from 1, score float32: the k best items of each user, seen ones left out.
    """
    import numpy as np
    import polars as pl

    from incremental.serve.model import BATCH, load

    if k < 1:
        raise UserError(f"k={k}: expected at least 1")
    paths = [to / f"{name}.parquet" for name in ("items", "users", "scores")]
    taken = [path for path in paths if path.exists()]
    if taken:
        raise UserError(f"{taken[0]} exists and is not overwritten; choose another folder with --to")
    model = load(run, plugins=plugins, data=data)
    to.mkdir(parents=True, exist_ok=True)  # what the disk refuses is said before the work
    known = np.flatnonzero(model.seen).tolist()
    items = {"item": [model.items[i] for i in known], "title": [model.title(i) for i in known]}
    for name, table in model.program.tables(model.state)["item"].items():
        items[name] = list(np.asarray(table)[known])
    best: list[pl.DataFrame] = []
    vectors: list[np.ndarray] = []
    everyone = list(model.users)
    for first in range(0, len(everyone), BATCH):
        users = everyone[first : first + BATCH]
        scores = model.scores(users)
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        found = np.take_along_axis(scores, order, axis=1)
        real = found > -np.inf
        place = np.nonzero(real)
        best.append(
            pl.DataFrame(
                {
                    "user": [users[i] for i in place[0]],
                    "item": [model.items[i] for i in order[real]],
                    "rank": (place[1] + 1).astype(np.int32),
                    "score": found[real],
                }
            )
        )
        represented = model.representations(users)
        if represented is not None:
            vectors += list(represented)
    people = pl.DataFrame({"user": everyone, **({"representation": vectors} if vectors else {})})
    halves = [path.with_name(f".{path.name}.new") for path in paths]
    for half, frame in zip(halves, (pl.DataFrame(items), people, pl.concat(best)), strict=True):
        frame.write_parquet(content := io.BytesIO())
        # By Python, whose errors name the file; a view of the buffer, kept by such an error, ends Python 3.12.1.
        half.write_bytes(content.getvalue())
    for half, whole in zip(halves, paths, strict=True):
        half.replace(whole)
    return paths


def without(path: Path) -> str:
    """What scores.parquet has not got: rows of the users that had every item."""
    import polars as pl

    if path.name != "scores.parquet":
        return ""
    users = pl.scan_parquet(path.with_name("users.parquet")).select("user")
    absent = users.join(pl.scan_parquet(path).select("user"), on="user", how="anti").collect()["user"]
    if not len(absent):
        return ""
    return f" (without rows of {len(absent)} users who have had every item that the model knows, such as {absent[0]})"
