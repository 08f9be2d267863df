"""Factors of a study: runs grouped by chosen keys of their configuration, so that a group differs only in the seed."""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import NamedTuple

from incremental.errors import UserError
from incremental.report.runs import Run
from incremental.report.settings import Settings, Value, differing, shown

DIGITS, EXACT = 6, 17  # shown of a number where they suffice; by 17 a double is told from any other


class Group(NamedTuple):
    """The runs of one row and column, by seed; ``factors`` has the value of each chosen key that they have."""

    label: str
    column: str
    factors: Settings
    runs: Sequence[Run]


class Factors(NamedTuple):
    """The chosen keys: one row for each combination of values of ``rows``, one column for each of ``columns``.

    Values are what they are, and not what is shown of them: labels have ``digits`` digits, as many as tell them apart.
    """

    rows: Sequence[str]
    columns: Sequence[str]
    digits: int = DIGITS

    def group(self, runs: Sequence[Run]) -> list[Group]:
        """``runs`` by row and column, in order of their seeds."""
        groups: dict[tuple[str, str], list[Run]] = {}
        for run in sorted(runs, key=lambda run: run.seed):
            place = self.label(run.settings, self.rows), self.label(run.settings, self.columns)
            groups.setdefault(place, []).append(run)
        return [Group(row, column, self._of(same[0]), same) for (row, column), same in groups.items()]

    def label(self, settings: Settings, keys: Sequence[str]) -> str:
        """:func:`label` with the digits that these factors need."""
        return label(settings, keys, self.digits)

    def telling_apart(self, runs: Sequence[Run]) -> "Factors":
        """The factors with the fewest digits by which no two values of the ``runs`` share a label."""
        for digits in range(DIGITS, EXACT):
            if all(
                len({label(run.settings, keys, digits) for run in runs})
                == len({label(run.settings, keys, EXACT) for run in runs})
                for keys in (self.rows, self.columns)
            ):
                return self._replace(digits=digits)
        return self._replace(digits=EXACT)

    def _of(self, run: Run) -> Settings:
        return {key: run.settings[key] for key in (*self.rows, *self.columns) if key in run.settings}


def chosen(runs: Sequence[Run], rows: Sequence[str], columns: Sequence[str], sensitivity: str | None) -> Factors:
    """The factors that were asked for, checked; the default row is ``row``, or ``name`` where that tells runs apart."""
    asked = [*rows, *columns, *([sensitivity] if sensitivity else [])]
    _check_keys(runs, asked)
    if sensitivity:
        values = {run.settings[sensitivity] for run in runs if sensitivity in run.settings}
        if wrong := [value for value in values if not is_number(value)]:
            raise UserError(
                f"{sensitivity} is {', '.join(sorted(map(shown, wrong)))} in some runs, and a sensitivity is of "
                f"numbers. For a row each: --rows {','.join(dict.fromkeys(['row', sensitivity]))}"
            )
        if sensitivity in columns:
            raise UserError(f"{sensitivity} is both a column and the sensitivity's hyper-parameter; choose one")
    for by in [list(rows)] if rows else [["row"], ["name"]]:
        by += [sensitivity] if sensitivity and sensitivity not in by else []
        factors = Factors(by, list(columns)).telling_apart(runs)
        if not any(map(_repeated, factors.group(runs))):
            return factors
    factors = Factors([*(rows or ["row"]), *([sensitivity] if sensitivity else [])], list(columns))
    raise _collision(factors.telling_apart(runs), runs)


def is_number(value: Value) -> bool:
    """Whether ``value`` can stand on an axis."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def label(settings: Settings, keys: Sequence[str], digits: int = DIGITS) -> str:
    """The values of ``keys`` in one text: a name by itself, a number with the end of its key.

    >>> label({"row": "ewc", "strategies.anchor.weight": 10.0}, ["row", "strategies.anchor.weight"])
    'ewc weight=10'
    """
    names = short(keys)
    parts = []
    for key in keys:
        if key in settings:
            value = settings[key]
            parts.append(value if isinstance(value, str) and value else f"{names[key]}={shown(value, digits)}")
    return " ".join(parts) or ("–" if keys else "")


def short(keys: Sequence[str]) -> dict[str, str]:
    """The shortest ending of each key that no other key has.

    >>> short(["row", "strategies.anchor.weight", "strategies.memory.weight"])
    {'row': 'row', 'strategies.anchor.weight': 'anchor.weight', 'strategies.memory.weight': 'memory.weight'}
    """

    def endings(key: str) -> list[str]:
        parts = key.split(".")
        return [".".join(parts[-length:]) for length in range(1, len(parts) + 1)]

    others = {key: {ending for other in keys if other != key for ending in endings(other)} for key in keys}
    return {key: next((ending for ending in endings(key) if ending not in others[key]), key) for key in keys}


def order(settings: Settings, keys: Sequence[str]) -> list[tuple[int, float, str]]:
    """What to sort by: absent values first, numbers by size, then texts by alphabet."""

    def place(key: str) -> tuple[int, float, str]:
        if key not in settings:
            return 0, 0.0, ""
        value = settings[key]
        return (1, float(value), "") if isinstance(value, int | float) else (2, 0.0, shown(value))

    return [place(key) for key in keys]


def mixed(groups: Sequence[Group]) -> Mapping[str, Mapping[str, list[str]]]:
    """Groups whose runs differ in more than the seed, by label: the keys and their values.

    Without ``base``: the run whose base part another takes over has the other's seed, so that each seed names its own.
    """
    found = {
        f"{group.label} ({group.column})" if group.column else group.label: differing(
            [{key: value for key, value in run.settings.items() if key != "base"} for run in group.runs]
        )
        for group in groups
    }
    return {where: keys for where, keys in found.items() if keys}


def _check_keys(runs: Sequence[Run], keys: Sequence[str]) -> None:
    known = sorted({key for run in runs for key in run.settings})
    for key in keys:
        if key not in known:
            above = key.rpartition(".")[0]
            near = [other for other in known if other.startswith((f"{key}.", f"{above}." if above else f"{key}."))]
            if key in ("method", "strategy"):  # words of the command line, which a run keeps as its row
                near = ["row"]
            near = near or get_close_matches(key, known, n=5, cutoff=0.5) or known
            more = ", ..." if len(near) > 12 else ""
            raise UserError(f"no run's configuration has the key {key!r}; there is {', '.join(near[:12])}{more}")


def _repeated(group: Group) -> list[Run]:
    """The runs of the first seed that is in the group more than once."""
    seeds = [run.seed for run in group.runs]
    return next(([run for run in group.runs if run.seed == seed] for seed in seeds if seeds.count(seed) > 1), [])


def _collision(factors: Factors, runs: Sequence[Run]) -> UserError:
    """The error for runs that share row, column and seed: in what they differ, and how to tell them apart."""
    groups = factors.group(runs)
    group = next(group for group in groups if _repeated(group))
    same = _repeated(group)
    column = f" of column {group.column!r}" if group.column else ""
    places = " and ".join(str(run.directory or run.name) for run in same[:2])
    text = f"{len(same)} runs are row {group.label!r}{column} with seed {same[0].seed}: {places}"
    text += " and others" * (len(same) > 2)
    keys = differing([run.settings for run in same])
    if not keys:
        return UserError(f"{text}. Their configurations do not differ otherwise; leave one out.")
    differ = ", ".join(f"{key} ({', '.join(values[:6])}{', ...' * (len(values) > 6)})" for key, values in keys.items())
    rows = ",".join([*factors.rows, *keys])
    advice = [f"a row each: --rows {rows}", f"a column each: --columns {','.join([*factors.columns, *keys])}"]
    if len({run.settings.get("runs") for run in same}) == len(same):
        advice.append(f"a column a folder: --columns {','.join([*factors.columns, 'runs'])}")
    numbers = [key for key in keys if all(is_number(run.settings.get(key)) for run in same)]
    if len(numbers) == 1:
        others = [key for key in keys if key not in numbers]
        rows = f"--rows {','.join([*factors.rows, *others])} " if others else ""
        advice.append(f"a curve over the values: {rows}--sensitivity {numbers[0]}")
    return UserError(f"{text}. They differ in {differ}. For {'; for '.join(advice)}.")
