"""Find and read run directories."""

import csv
import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from incremental.errors import UserError
from incremental.metrics.continual import HELD_OUT, Evaluation, summarise
from incremental.report.settings import Settings, flat, read_config
from incremental.run.progress import Result, total_cost
from incremental.shell import translated

SUMMARY = "summary.json"
ERROR = "error.txt"
EVALUATIONS = "evaluations.csv"
EPOCHS = "epochs.csv"
CONFIG = "config.yaml"
DATA = "data/data.json"
COLUMNS = ["trained_until", "evaluated_on", "metric", "value", "count"]

Numbers = Mapping[str, float | None]


@dataclass(frozen=True)
class Run:
    """One finished run. ``metrics`` and ``cost`` are as in ``summary.json``; None is *not measured*.

    ``row`` is the label that its seeds share in the table. ``cost`` is in seconds, examples, numbers written
    and bytes; ``lanes`` runs shared the seconds. ``early`` are the strategies that acted in the base part.
    ``config`` is the nested configuration, by default that of the directory. Of the evaluations those on
    increments up to ``past`` are left out.
    """

    row: str
    seed: int
    metrics: Mapping[str, Numbers]
    cost: Numbers = field(default_factory=dict)
    name: str = ""
    increments: int | None = None
    lanes: int = 1
    early: Sequence[str] = ()
    directory: Path | None = None
    config: Mapping[str, Any] | None = None
    past: int = 0

    @classmethod
    def of(cls, row: str, seed: int, result: Result) -> "Run":
        """One seed of a row, from the result of a run in this process."""
        increments, lanes = len(result.costs) - 1, max(cost.lanes for cost in result.costs)
        found = summarise(result.records), total_cost(result)
        return cls(row, seed, *found, increments=increments, lanes=lanes, early=result.early)

    @cached_property
    def settings(self) -> Settings:
        """The configuration by dotted key, ``row``, ``name`` and ``seed`` included; read when first asked for."""
        config = self.config
        if config is None:
            config = {} if self.directory is None else read_config(self.directory / CONFIG)
        named = {"name": self.name} if self.name else {}
        return {**flat(config), "row": self.row, "seed": self.seed, **named}

    @cached_property
    def evaluations(self) -> list[Evaluation]:
        """The rows of ``evaluations.csv``, read when first asked for; none without a directory."""
        found = [] if self.directory is None else read_evaluations(self.directory / EVALUATIONS)
        return [row for row in found if row[1] > self.past] if self.past else found

    @cached_property
    def data(self) -> list[str]:
        """What stands for the events of each part of the stream, the base part first; empty where it is not known."""
        if self.directory is None:
            return []
        try:
            return [part["digest"] for part in json.loads((self.directory / DATA).read_text(encoding="utf-8"))["parts"]]
        except (OSError, ValueError, KeyError, TypeError):  # of an older version
            return []

    @cached_property
    def epochs(self) -> list[dict[str, float]]:
        """The rows of ``epochs.csv`` by column, without the empty cells; none without the file."""
        path = None if self.directory is None else self.directory / EPOCHS
        return [] if path is None or not path.exists() else read_epochs(path)

    def after(self, increment: int) -> "Run":
        """The run with its qualities measured again, on the increments after this one; its costs stay those of all.

        Of the matrix R the rows and columns of those increments count, as if the first of them were the base part.
        """
        rest = replace(self, past=increment)
        if not rest.evaluations:
            has = "" if self.increments is None else f"; the run has {self.increments} increments"
            raise UserError(f"{self.directory}: nothing was evaluated after increment {increment}{has}")
        return replace(rest, metrics=summarise(self.evaluations, after=increment))


class Unfinished(NamedTuple):
    """A run directory that cannot be reported, and why."""

    directory: Path
    why: str


class Runs(NamedTuple):
    """What :func:`read_runs` found."""

    finished: list[Run]
    unfinished: list[Unfinished]


def read_runs(paths: Iterable[str | os.PathLike[str]]) -> Runs:
    """Read every run directory in ``paths``, each a run directory or a folder above some.

    A run without a summary, whose status is not "finished", or one of whose files is broken, is unfinished: the others
    are read. So is a folder that may not be entered. Hidden folders and those named ``wandb`` are not entered; nor are
    run directories.
    """
    closed: list[Unfinished] = []
    found = Runs([], [])
    for directory in _run_directories(paths, closed):
        try:
            with translated():
                found.finished.append(_finished(directory))
        except UserError as error:
            found.unfinished.append(Unfinished(directory, str(error).removeprefix(f"{directory}{os.sep}")))
    return Runs(found.finished, [*found.unfinished, *closed])


def _finished(directory: Path) -> Run:
    """The run in a directory, all its files read; a UserError says why there is none."""
    if (directory / ERROR).is_file() and not os.path.lexists(directory / SUMMARY):
        raise UserError(f"no {SUMMARY}: {(directory / ERROR).read_text(encoding='utf-8', errors='replace').strip()}")
    if not os.path.lexists(directory / SUMMARY):
        raise UserError(f"no {SUMMARY}: still running, killed, or ended by an error; the same command goes on")
    content = _summary(directory / SUMMARY)
    status = content.get("status", "finished")
    if status != "finished":
        raise UserError(f"status is {status!r}")
    run = _run(directory, content)
    _ = run.settings, run.epochs
    _check_whole(run)
    return run


def _check_whole(run: Run) -> None:
    """Refuses evaluations that end before the run did, as those of a copy that was cut off."""
    places, last = {row[:2] for row in run.evaluations}, run.increments or 0
    ends = [(last - 1, last)] * (last > 0)
    ends += [(last, last)] * any(metric.startswith(HELD_OUT) for _, _, metric, *_ in run.evaluations)
    if not {*ends} <= places:
        raise UserError(f"{EVALUATIONS}: it ends before increment {last}, the run's last one; copy the run again")


def read_evaluations(path: Path) -> list[Evaluation]:
    """Rows (trained_until, evaluated_on, metric, value, count) of an ``evaluations.csv``.

    An empty value is NaN, *not measured*; anything else that cannot be read is a ``UserError`` that names
    file, line and column.
    """
    rows: list[Evaluation] = []
    known: set[tuple[int, int, str]] = set()
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.reader(file)
            header = next(lines, [])
            if header != COLUMNS:
                raise UserError(f"{path}: the header must be {','.join(COLUMNS)}, found {','.join(header)!r}")
            for cells in lines:
                row = _evaluation(cells, f"{path}, line {lines.line_num}")
                if row[:3] in known:
                    raise UserError(f"{path}, line {lines.line_num}: the same evaluation as in an earlier line")
                known.add(row[:3])
                rows.append(row)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error
    return rows


def read_epochs(path: Path) -> list[dict[str, float]]:
    """Rows of an ``epochs.csv``: increment, epoch, loss, validation, terms and reports, where they were measured."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            lines = csv.DictReader(file)
            if (lines.fieldnames or [])[:2] != ["increment", "epoch"]:
                raise UserError(f"{path}: the header must begin with increment,epoch, found {lines.fieldnames}")
            return [_epoch(cells, f"{path}, line {lines.line_num}") for cells in lines]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error})") from error


def _epoch(cells: Mapping[str, str], where: str) -> dict[str, float]:
    if None in cells:  # where csv puts what is beyond the header
        raise UserError(f"{where}: expected {len(cells) - 1} columns, found more")
    for name in ("increment", "epoch"):
        _whole(cells[name], f"{where}, column {name}", least=0)
    return {name: _number(cell, f"{where}, column {name}") for name, cell in cells.items() if cell}


def _evaluation(cells: list[str], where: str) -> Evaluation:
    if len(cells) != len(COLUMNS):
        raise UserError(f"{where}: expected {len(COLUMNS)} columns, found {len(cells)}")
    trained_until, evaluated_on, metric, value, count = cells
    return (
        _whole(trained_until, f"{where}, column trained_until", least=-1),
        _whole(evaluated_on, f"{where}, column evaluated_on", least=0),
        metric,
        _number(value, f"{where}, column value") if value else math.nan,
        _whole(count, f"{where}, column count", least=0),
    )


def _number(text: str | None, where: str) -> float:
    try:
        return float(text or "")
    except ValueError:
        raise UserError(f"{where}: expected a number, found {text!r}") from None


def _whole(text: str | None, where: str, *, least: int) -> int:
    number = _number(text, where)
    if not number.is_integer() or number < least:
        raise UserError(f"{where}: expected a whole number of at least {least}, found {text!r}")
    return int(number)


def _run_directories(paths: Iterable[str | os.PathLike[str]], closed: list[Unfinished]) -> list[Path]:
    """Run directories in or below ``paths``, each once, in the order of the paths and then of their names.

    ``closed`` gets the folders that may not be entered.
    """
    found: dict[Path, Path] = {}

    def note(error: OSError) -> None:
        closed.append(Unfinished(Path(str(error.filename)), f"cannot be entered: {error.strerror}"))

    for path in map(Path, paths):
        if not path.is_dir():
            what = "a file" if path.is_file() else "no such folder"
            raise UserError(f"{path}: {what}. Name run directories, or a folder above some.")
        for folder, children, files in os.walk(path, onerror=note):
            directory = Path(folder)
            if _is_run(directory, files):
                found.setdefault(directory.resolve(), directory)
                children.clear()
            children[:] = sorted(name for name in children if not name.startswith(".") and name != "wandb")
    return list(found.values())


def _is_run(directory: Path, files: list[str]) -> bool:
    """Whether this is a run directory; a run that was killed early has only its config."""
    if SUMMARY in files or EVALUATIONS in files:
        return True
    return CONFIG in files and not _composes(directory / CONFIG)


def _composes(config: Path) -> bool:
    """Whether a config.yaml is a source with a defaults list, which no run's resolved config has."""
    try:
        lines = config.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return False  # of a run; it is left out
    return any(line.startswith("defaults:") for line in lines)


def _summary(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError(f"{path}: not readable as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: expected an object with row, seed and metrics, found {content!r:.40}")
    return content


def _run(directory: Path, content: dict[str, Any]) -> Run:
    path = directory / SUMMARY
    row = " ".join(_field(content, "row", str, path).splitlines())
    metrics = _field(content, "metrics", dict, path)
    early = _field({"early": []} | content, "early", list, path)
    if not all(isinstance(name, str) for name in early):
        raise UserError(f"{path}: early must be a list of texts, found {early!r:.40}")
    return Run(
        row=row,
        seed=_field(content, "seed", int, path),
        metrics={name: _numbers(part, f"metrics.{name}", path) for name, part in metrics.items()},
        cost=_numbers(content.get("cost", {}), "cost", path),
        name=_field({"name": row} | content, "name", str, path),
        increments=_field(content, "increments", int, path) if "increments" in content else None,
        lanes=_field({"lanes": 1} | content, "lanes", int, path),
        early=early,
        directory=directory,
    )


def _field(content: dict[str, Any], key: str, kind: type, path: Path) -> Any:
    if key not in content:
        raise UserError(f"{path}: {key} is missing. Is this the summary of a run?")
    value = content[key]
    if not isinstance(value, kind) or isinstance(value, bool):
        raise UserError(f"{path}: {key} must be {_KINDS[kind]}, found {value!r:.40}")
    return value


_KINDS = {str: "a text", int: "a whole number", dict: "an object", list: "a list"}


def _numbers(part: Any, key: str, path: Path) -> Numbers:
    """A JSON object of numbers and nulls; NaN and infinities count as not measured."""
    if not isinstance(part, dict):
        raise UserError(f"{path}: {key} must be an object, found {part!r:.40}")
    for name, value in part.items():
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise UserError(f"{path}: {key}.{name} must be a number or null, found {value!r:.40}")
    return {name: value if value is not None and math.isfinite(value) else None for name, value in part.items()}
