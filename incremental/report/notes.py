"""What a reader must know to read the table, and what is unusual about these runs."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

from incremental.report.comparison import BOUNDS, SIGNIFICANT, TIMES, Row, Table, prequential
from incremental.report.direction import direction, is_quality
from incremental.report.factors import Group, mixed
from incremental.report.front import front
from incremental.report.grid import APART, COSTS, EXPLAINED_BY
from incremental.report.runs import Run
from incremental.report.settings import differing, shown
from incremental.report.statistics import Estimate

RULES = (
    *("data.task", "data.targets", "data.unseen_items", "data.minimum_history", "data.exclude_seen", "data.ties"),
    *("data.validate_on", "evaluation.events", "evaluation.new_users"),
)
"""the keys that say which events are tested, and against what"""
TRAINED = ("data.heldout", "data.validation", "data.history", "data.features", "data.roles")
"""the keys beside these that say which examples are trained on; features and roles are nodes"""
LEARNING = ("model", "head", "optimizer", "training")
"""the nodes that say what is trained by gradients, and how; a baseline without gradients has no use for them"""
OVER = {
    "the mean of": ("seconds_per_update", "waited_per_update", "wall_per_update", "parameters_written"),
    "the sum of": ("examples",),
    "the most of": ("memory_bytes",),
}
"""what of a run's updates stands in a column of costs"""
SEED = "data.seed"
NAMED = 5  # rows of one value; of more their number is told

NONE = Estimate(None, None, 0)
AHEAD = {
    "data.cleaning.duplicates": "last",
    "data.cut": "leave_one_out",
    "data.unseen_items": "known",
    "data.validate_on": "next",
}
"""the keys by which a run looks into the future, and the values that do; beside a count above 1 of `CORES`"""
CORES = ("data.cleaning.k_core", "data.cleaning.minimum_session")


def notes(table: Table, show: Sequence[str] = ()) -> list[str]:
    """The notes of a table, one sentence or two each; with ``show`` without those on other columns than these."""
    rows, baseline, sensitivity = table.rows, table.baseline, table.sensitivity

    def stands(name: str) -> bool:
        return not show or name in show

    metrics = [metric for metric in table.metrics if stands(metric)]
    measures = [name for name in EXPLAINED_BY if stands(name)]
    columns = list(dict.fromkeys(row.column for row in rows))
    first = table.title(table.metrics[0])
    ordered = f"by {first}{', its mean over the columns' * (len(columns) > 1)}, highest first"
    if sensitivity:
        ordered += f", those that differ in {sensitivity} alone together, by its value"
    named = f"{', '.join(map(table.title, metrics))}: prequential, tested on each increment before training on it. "
    found = [f"{named * bool(metrics)}Mean over seeds ± half-width of the 95 % t-interval; rows ordered {ordered}."]
    if len(table.metrics) > 1 and len(columns) == 1 and measures:
        found.append(f"What is not named after a metric, such as the slope, is of {first}.")
    if any("standard_error" in row.quality[metric] for row in rows for metric in table.metrics):
        found.append(
            "Tests are samples of each increment's events (evaluation.events), the same for all runs of one stream and "
            "one data.seed."
        )
        if stands("standard_error"):
            found[-1] += (
                f" {table.titles.get('standard_error', EXPLAINED_BY['standard_error'])}: the standard error of a run's "
                "mean, against the mean over all events. Where all runs have one data.seed, the interval over seeds "
                "does not contain it. Differences of runs of one data.seed are on the same events: most of it is not "
                "in them."
            )
    if single := [_name(row) for row in rows if len(row.runs) == 1]:
        found.append(f"One seed, so no interval{' and no test (–)' * stands('p')}: {', '.join(single)}.")
    for metric in metrics:
        title = table.title(metric)
        empty: dict[bool, list[str]] = {True: [], False: []}  # by whether a run of the row measured it
        for row in rows:
            if prequential(row, metric) is None:
                empty[any(metric in run.metrics for run in row.runs)].append(_name(row))
        if unasked := empty[False]:
            found.append(f"No {title} (–): {', '.join(unasked)}. These runs did not measure it (evaluation.metrics).")
        if silent := empty[True]:
            why, group = "when the metric says nothing of an event, its docstring tells", metric.partition("/")[2]
            if is_quality(metric) and group:
                why = f"there was none of {group}{', or no other' * metric.startswith('auc/')}"
            elif is_quality(metric):
                why = "of none was the item known before (data.unseen_items=drop leaves these out, miss counts them)"
            found.append(f"No {title} (–): {', '.join(silent)}. No test event counted: {why}.")
        measured = {_name(row): (row.quality[metric].get("prequential", NONE).n, len(row.runs)) for row in rows}
        if fewer := [f"{name} {n} of {runs}" for name, (n, runs) in measured.items() if 0 < n < runs]:
            found.append(f"{title} is a mean over fewer runs than the row has: {', '.join(fewer)} measured it.")
    if len({tuple(run.seed for run in row.runs) for row in rows}) > 1:
        tested = ", a test over the shared ones" * stands("p")
        found.append(f"The rows do not all have the same seeds: a mean is over the row's own{tested}.")
    tests: dict[str, list[str]] = {}
    fronts: dict[str, list[str]] = {}
    for metric in table.metrics:
        for column in columns:
            where = f"{table.title(metric)}, {column}" if column else table.title(metric)
            of = [row for row in rows if row.column == column]
            for note in _tests(of, metric, baseline):
                tests.setdefault(note, []).append(where)
            names = ", ".join(point.row.label for point in front(of, metric))
            if names and metric in metrics:
                fronts.setdefault(names, []).append(where)
    without = [column for column in columns if baseline not in {row.label for row in table.of(column)}]
    if stands("p"):
        found += [f"{table.title('p')} ({'; '.join(of)}): {note}" for note, of in tests.items()]
        if without:
            found.append(f"No tests in {', '.join(without)}: the baseline {baseline} is not there.")
    if tests and (stands("p") or any(row.best & {*metrics} for row in rows)):
        found += _best(table, metrics)
    if stands(TIMES[0]):
        found += [
            f"Front of {'; '.join(of)} against seconds an increment (by the means): {names}. Every other row whose "
            "quality and seconds can be compared has one of these that is at least as good and costs no more; bounds "
            f"({', '.join(sorted(BOUNDS))}) apart."
            for names, of in fronts.items()
        ]
    early = {name: None for row in rows for run in row.runs for name in run.early}
    if early:
        found.append(
            f"The rows of {', '.join(early)} do not start level: by its nature it acts in the base part too, which is "
            "plain training for all others."
        )
    found += _costs(table, stands)
    if len({run.increments for row in rows for run in row.runs}) > 1:
        lengths = [f"{_name(row)} {'/'.join(_lengths(row))}" for row in rows]
        found.append(f"The runs do not have the same number of increments: {', '.join(lengths)}.")
    found += _ahead(rows)
    for column in columns:
        of = [row for row in rows if row.column == column]
        found += _made_otherwise(of, baseline, table.row_factors, {metric: table.title(metric) for metric in metrics})
    groups = [Group(row.label, row.column, row.factors, row.runs) for row in rows]
    for label, keys in mixed(groups).items():
        differ = "; ".join(f"{key} ({', '.join(values)})" for key, values in keys.items())
        found.append(f"{label} is a mean over runs that differ in more than the seed: {differ}.")
    if table.after:
        found.append(f"Only increments after {table.after} count.")
        if {name for row in rows for name in row.quality[table.metrics[0]]} & {*measures} - {"standard_error", "slope"}:
            found[-1] += (
                " What is of the matrix R (forgetting, transfer) is of the part of it that begins with increment "
                f"{table.after + 1}."
            )
        if any(map(stands, COSTS)):
            found[-1] += " Seconds, examples and memory are of all updates."
    return found


def _name(row: Row) -> str:
    return f"{row.label} ({row.column})" if row.column else row.label


def _tests(rows: Sequence[Row], metric: str, baseline: str) -> list[str]:
    """How the rows of a column were tested."""
    compared = {row.label: row.comparisons[metric] for row in rows if row.label != baseline}
    found = []
    if pairs := {label: comparison.pairs for label, comparison in compared.items() if comparison.p is not None}:
        counts = {count: [label for label in pairs if pairs[label] == count] for count in pairs.values()}
        if len(counts) == 1:
            seeds = f"the {next(iter(counts))} shared seeds"
        else:
            seeds = "the shared seeds (" + "; ".join(f"{n}: {', '.join(of)}" for n, of in counts.items()) + ")"
        found.append(
            f"paired t-test against {baseline} over {seeds}, Holm-corrected for {len(pairs)} "
            f"comparison{'s' * (len(pairs) > 1)}."
        )
    if same := [label for label, comparison in compared.items() if comparison.same]:
        found.append(
            f"no test of {', '.join(same)} against {baseline} (–): every seed gives the same difference, as where "
            "neither row draws anything. Such seeds are no sample."
        )
    measured = {row.label: row.quality[metric].get("prequential", NONE).n for row in rows}
    few = [label for label, comparison in compared.items() if comparison.pairs < 2 <= measured[label]]
    if baseline in measured and few:
        found.append(
            f"no test of {', '.join(few)} against {baseline} (–): fewer than two seeds were measured of both. Run both "
            "with the same seeds."
        )
    return found


def _ahead(rows: Sequence[Row]) -> list[str]:
    """What of the runs' protocols reads events that were still to come."""
    looking: dict[str, list[str]] = {}
    for row in rows:
        for key, value in {key: value for run in row.runs for key, value in run.settings.items()}.items():
            if (key in AHEAD and value == AHEAD[key]) or (key in CORES and isinstance(value, int) and value > 1):
                looking.setdefault(f"{key}={value}", []).append(_name(row))
    said = [what if len(of) == len(rows) else f"{what} ({', '.join(of)})" for what, of in looking.items()]
    return [f"The runs look into the future: {', '.join(said)}."] if said else []


def _made_otherwise(rows: Sequence[Row], baseline: str, factors: Sequence[str], titles: Mapping[str, str]) -> list[str]:
    """Which rows of a column have other increments, rules of the tests, examples or settings than the others.

    ``titles`` are those of the metrics.
    """
    first = next((row for row in rows if row.label == baseline), rows[0])

    def otherwise(of: Callable[[Run], Sequence[object]]) -> list[str]:
        theirs = {run.seed: of(run) for run in first.runs}
        for_all = theirs[first.runs[0].seed] if len({*map(tuple, theirs.values())}) == 1 else []  # whatever the seed
        pairs = [(row, zip(of(run), theirs.get(run.seed, for_all), strict=False)) for row in rows for run in row.runs]
        return [*dict.fromkeys(_name(row) for row, pair in pairs if any(own != other for own, other in pair))]

    found = []
    if others := otherwise(lambda run: run.data):
        found.append(
            f"Other data than {_name(first)}'s: {', '.join(others)}. Their increments have other events, so that a "
            "difference to it, and its p, is not of the method alone."
        )
    seeded = [name for name in otherwise(lambda run: [run.settings.get(SEED)]) if name not in others]
    if seeded and SEED not in factors:
        found.append(
            f"Another {SEED} than {_name(first)}'s: {', '.join(seeded)}. It draws the held-out and validation parts "
            "and the samples of tests, so that a difference is not of the method alone."
        )
    for metric, title in titles.items():
        if gaps := [name for name in otherwise(partial(_measured, metric)) if name not in others]:
            found.append(
                f"{title} has values at other increments than in {_name(first)}: {', '.join(gaps)}. A mean is over the "
                "increments that have one, so that a difference is not of the same tests."
            )
    where = f" of {rows[0].column}" if rows[0].column else ""
    if rules := _differ(rows, RULES, factors):
        found.append(f"The rows{where} were not tested by the same rules: {rules}.")
    if examples := _differ(rows, TRAINED, factors):
        found.append(f"The rows{where} did not train on the same examples: {examples}.")
    learned = [row for row in rows if any("loss" in epoch for run in row.runs for epoch in run.epochs)]
    nodes = [node for node in LEARNING if node != "model" or "name" not in factors]  # a run's name has its model
    if settings := _differ(learned, nodes, factors):
        found.append(f"Beside the method the rows{where} differ in {settings}.")
    return found


def _measured(metric: str, run: Run) -> list[bool]:
    """At which increments the run has a prequential value."""
    tests = (value for until, on, name, value, _ in run.evaluations if name == metric and until == on - 1)
    return [math.isfinite(value) for value in tests]


def _differ(rows: Sequence[Row], keys: Sequence[str], factors: Sequence[str]) -> str:
    """In which of the keys, and of those below them, the rows differ, and which rows have which value.

    Without the factors, which the labels show, and without what every row's own name says, as a study's rows do.
    """
    found = []
    for key in differing([run.settings for row in rows for run in row.runs]):
        if key in factors or not any(f"{key}.".startswith(f"{above}.") for above in keys):
            continue
        if all(f" {key.rpartition('.')[2]}=" in run.row for row in rows for run in row.runs):
            continue
        labels: dict[str, list[str]] = {}
        for row in rows:
            for value in {shown(run.settings[key]) if key in run.settings else "absent": None for run in row.runs}:
                labels.setdefault(value, []).append(row.label)
        values = [
            f"{value:.40}: {', '.join(of) if len(of) <= NAMED else f'{len(of)} rows'}" for value, of in labels.items()
        ]
        found.append(f"{key} ({'; '.join(values)})")
    return ", ".join(found)


def _best(table: Table, metrics: Sequence[str]) -> list[str]:
    """What bold means, and for which metrics nothing is bold."""
    of_its_column = " of its column" * (len(table.columns) > 1)
    rule = f"significantly above every other row{of_its_column} (paired t-test, p < {SIGNIFICANT}, Holm)"
    apart = f"; bounds ({', '.join(sorted(BOUNDS))}) apart."
    found = []
    if any(map(is_quality, metrics)):
        marked = any(row.best & {*metrics} for row in table.rows)
        found.append(f"* and bold: {rule}{apart}" if marked else f"No row is marked as best: none is {rule}{apart}")
    if others := [table.title(metric) for metric in metrics if not is_quality(metric)]:
        found.append(f"{', '.join(others)}: more is not better, so no row is marked as best.")
    return found


def _costs(table: Table, stands: Callable[[str], bool]) -> list[str]:
    """What the costs are of, of what less is better, and which seconds cannot be compared."""
    rows, baseline, found = table.rows, table.baseline, []
    measured = {name for row in rows for name in (*row.cost, *row.quality[table.metrics[0]]) if stands(name)}
    titles = {**EXPLAINED_BY, **{name: title for name, (title, _) in COSTS.items()}}
    titles = {name: table.titles.get(name, title) for name, title in titles.items() if name in measured}
    if less := [title for name, title in titles.items() if direction(name) < 0]:
        found.append(f"Less is better: {', '.join(less)}.")
    said = {what: " and ".join(titles[name] for name in names if name in titles) for what, names in OVER.items()}
    if costs := [f"{what} {names}" for what, names in said.items() if names]:
        found.append(f"Over the updates that a run made: {', '.join(costs)}.")
    updates = {_name(row): row.cost["updates"].mean for row in rows if "updates" in row.cost}
    if len({number for number in updates.values() if number}) > 1:
        numbers = ", ".join(f"{name} {number:g}" for name, number in updates.items())
        found.append(f"The runs do not make the same number of updates: {numbers}.")
    if apart := [_name(row) for row in rows if any(map(stands, row.apart))]:
        lanes = ", ".join(f"{_name(row)} {'/'.join(map(str, row.lanes))}" for row in rows)
        there = {row.column for row in rows if row.label == baseline}
        without = dict.fromkeys(row.column for row in rows if row.apart and row.column not in there)
        than = baseline + f" (in {', '.join(without)}, where it is not, than another row)" * bool(without)
        found.append(
            f"{APART}: runs of other lanes than {than}. Seconds are a program's wall time divided by its lanes, so "
            f"these cannot be compared with its seconds and are in no front. Lanes: {lanes}. To compare, run "
            f"{', '.join(dict.fromkeys([*apart, baseline]))} each alone, or all rows with equal lanes."
        )
    return found


def _lengths(row: Row) -> list[str]:
    return [str(length) for length in dict.fromkeys(run.increments for run in row.runs)]
