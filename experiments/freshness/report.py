"""What the finished runs say: a table and a curve, quality against the time between updates, with what it cost."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.freshness.measured import Measured
from experiments.regimes.report import END, published
from incremental.errors import UserError
from incremental.report.numbers import interval, p_value, seconds, whole
from incremental.report.statistics import estimate, holm, paired_p

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Found = Mapping[tuple[str, str], Sequence[Measured]]
"""by stream and row, one a seed, in one order"""

HERE = Path(__file__).parent
BEGIN = "<!-- the table: experiments/freshness/run publish=true -->"
FRESH, OLD, BESIDE, SEED = "#0072B2", "#D55E00", "#009E73", "#bbbbbb"


def comparable(found: Found) -> None:
    """Refuses rows of one stream and seed that were tested on different numbers of events."""
    events: dict[tuple[str, int], dict[str, int]] = {}
    for (stream, row), own in found.items():
        for place, one in enumerate(own):
            events.setdefault((stream, place), {})[row] = one.events
    for (stream, _), counts in events.items():
        if len({*counts.values()}) > 1:
            said = ", ".join(f"{row} {count:,}" for row, count in counts.items())
            raise UserError(f"{stream}: the rows were not tested on the same events ({said}); they cannot be compared")


Difference = tuple[str, float, float | None]
"""the other row, the mean difference to it over the seeds, and p"""


def over(study: Mapping[str, Any], found: Found, stream: str) -> dict[str, Difference]:
    """Each row's difference to the next, or to the row that it is `against` (paired t-test, Holm)."""
    metric, named = study["metrics"][0], {row: study["table"][row].get("against") for row in study["rows"]}
    pairs = list(pairwise(row for row in named if not named[row]))
    pairs += [(row, other) for row, other in named.items() if other in named]
    differences = [
        [a.quality[metric] - b.quality[metric] for a, b in zip(found[stream, one], found[stream, other], strict=True)]
        for one, other in pairs
    ]
    corrected = holm([paired_p(each) for each in differences])
    return {
        one: (other, mean(each), p) for (one, other), each, p in zip(pairs, differences, corrected, strict=True) if each
    }


def lines_of(study: Mapping[str, Any], found: Found, stream: str) -> list[str]:
    """The table of a stream, a line a row."""
    first, *others = study["metrics"]
    heads = ["time between updates", first, "difference", "p", *others]
    heads += ["updates", "events between", "examples trained", "parameters written", "seconds"]
    lines = [f"| {' | '.join(heads)} |", "|---|" + "---:|" * (len(heads) - 1)]
    steps = over(study, found, stream)
    for row in study["rows"]:
        own = found[stream, row]
        quality = [interval(estimate([one.quality[metric] for one in own])) for metric in study["metrics"]]
        step = ["", ""]
        if row in steps:
            other, difference, p = steps[row]
            told = f"**{difference:+.4f}**" if p is not None and p < 0.05 else f"{difference:+.4f}"
            step = [f"{told} to {study['table'][other]['label']}", "–" if p is None else p_value(p)]
        cost = ["0", "", "0", "0", "0"]
        if own[0].updates:
            cost = [whole(mean([one.updates for one in own])), whole(mean([one.between for one in own]))]
            cost += [whole(mean([one.examples for one in own])), whole(mean([one.written for one in own]))]
            cost += [seconds(mean([one.seconds for one in own]))]
        cells = [study["table"][row]["label"], quality[0], *step, *quality[1:], *cost]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


Choices = Mapping[str, Mapping[Any, float]]
"""by stream the mean of each pair of a rate and a number of epochs, the best one first"""


def markdown(study: Mapping[str, Any], choices: Choices, found: Found) -> str:
    """A table for each stream, what holds for all, and what was chosen."""
    parts = []
    for stream in study["streams"]:
        if own := found[stream, study["rows"][0]]:
            tested = f"{whole(mean([one.events for one in own]))} tested events, {len(own)} seeds"
            parts.append(f"**{stream}**: {tested}\n\n" + "\n".join(lines_of(study, found, stream)) + "\n")
    first = study["metrics"][0]
    parts.append(
        "- Quality is the mean over all tested events, each before any training on it; all rows of a stream are tested "
        "on the same ones. Mean over the seeds ± half-width of the 95 % t-interval.\n"
        f"- Differences are in {first}, to the row that updates more rarely (a day: to about as many events); bold "
        "where p < 0.05 (paired t-test over the seeds, Holm's correction over the differences of a stream).\n"
        "- Costs are sums over all updates, means over the seeds; seconds without compilation, tests and saves.\n"
    )
    at = ", ".join(study["table"][row]["label"] for row in study["tuning"]["rows"])
    parts.append(f"Chosen, by {first} with an update at {at} (bold: the best of a stream):\n")
    parts.append("\n".join(lines_of_choices(choices)) + "\n")
    return "\n".join(parts)


def lines_of_choices(choices: Choices) -> list[str]:
    """A line for each candidate, a column a stream."""
    lines = [f"| rate, epochs an update | {' | '.join(choices)} |", "|---|" + "---:|" * len(choices)]
    for rate, epochs in sorted({each for means in choices.values() for each in means}):
        cells = []
        for means in choices.values():
            value, best = means.get((rate, epochs)), next(iter(means)) == (rate, epochs)
            cells.append("–" if value is None else f"**{value:.4f}**" if best else f"{value:.4f}")
        lines.append(f"| {rate:g}, {epochs} | {' | '.join(cells)} |")
    return lines


def mean(values: Sequence[float]) -> float:
    """Over the seeds."""
    return sum(values) / len(values)


# -- the picture -----------------------------------------------------------------------------------------------------


def picture(study: Mapping[str, Any], found: Found) -> "Figure":
    """A column a stream: above quality, below the seconds of all updates, against the events between two updates."""
    from matplotlib.figure import Figure

    streams = [stream for stream in study["streams"] if found[stream, study["rows"][0]]]
    figure = Figure(figsize=(1 + 3.2 * len(streams), 5.2), layout="constrained", dpi=200)
    panels = figure.subplots(2, len(streams), squeeze=False, sharex=True, height_ratios=(1.7, 1))
    for place, stream in enumerate(streams):
        own = {row: found[stream, row] for row in study["rows"]}
        draw_quality(panels[0][place], study, own, stream)
        draw_cost(panels[1][place], study, own)
    panels[0][0].set_ylabel(f"{study['metrics'][0]}, all tested events", fontsize=9)
    panels[1][0].set_ylabel("seconds of all updates", fontsize=9)
    figure.supxlabel("events between two updates", fontsize=9)
    return figure


def points(study: Mapping[str, Any], own: Mapping[str, Sequence[Measured]]) -> tuple[list[str], list[str]]:
    """The rows that update after so many events, which are a line; and those that are a point beside it."""
    there = [row for row in own if any(one.updates for one in own[row])]
    beside = [row for row in there if study["table"][row].get("against")]
    return [row for row in there if row not in beside], beside


def draw_quality(axes: "Axes", study: Mapping[str, Any], own: Mapping[str, Sequence[Measured]], stream: str) -> None:
    """A faint line a seed, the means with their rows' names, and the model that is never updated across."""
    metric = study["metrics"][0]
    line, beside = points(study, own)
    x = {row: mean([one.between for one in own[row]]) for row in (*line, *beside)}
    y = {row: mean([one.quality[metric] for one in own[row]]) for row in own if own[row]}
    for seed in zip(*(own[row] for row in line), strict=True):
        axes.plot([x[row] for row in line], [one.quality[metric] for one in seed], color=SEED, linewidth=0.8)
    axes.plot([x[row] for row in line], [y[row] for row in line], "o-", color=FRESH, markersize=4)
    axes.plot([x[row] for row in beside], [y[row] for row in beside], "s", color=BESIDE, markersize=4)
    for row in (*line, *beside):
        up = 6 if row in line else -11
        label = study["table"][row]["label"].removesuffix(" events")
        axes.annotate(label, (x[row], y[row]), (0, up), textcoords="offset points", fontsize=7, ha="center")
    for row in y:
        if row not in x:
            axes.axhline(y[row], color=OLD, linewidth=1.2, linestyle="--")
            label = study["table"][row]["label"]
            axes.annotate(label, (x[line[0]], y[row]), (0, 3), textcoords="offset points", fontsize=7)
    axes.set_title(stream, fontsize=9)
    axes.set_xscale("log")
    plain(axes)


def draw_cost(axes: "Axes", study: Mapping[str, Any], own: Mapping[str, Sequence[Measured]]) -> None:
    """The seconds of all updates, a point a row."""
    for rows, colour, look in zip(points(study, own), (FRESH, BESIDE), ("o-", "s"), strict=True):
        x = [mean([one.between for one in own[row]]) for row in rows]
        axes.plot(x, [mean([one.seconds for one in own[row]]) for row in rows], look, color=colour, markersize=4)
    axes.set_ylim(bottom=0)
    plain(axes)


def plain(axes: "Axes") -> None:
    """What all panels look like."""
    axes.margins(x=0.16, y=0.12)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)


def write(study: Mapping[str, Any], choices: Choices, found: Found) -> None:
    """Prints the tables; writes them and the picture beside the runs and, if asked for, into this folder."""
    comparable(found)
    text = markdown(study, choices, found)
    print(f"\n{text}")
    folder = Path(study["runs"])
    (folder / "table.md").write_text(text, encoding="utf-8")
    places = [folder / "freshness.png", *([HERE / "freshness.png"] if study["publish"] else [])]
    if any(found.values()):
        drawn = picture(study, found)
        for place in places:
            drawn.savefig(place, metadata={"Software": None})
    if study["publish"]:
        published(HERE / "README.md", text, BEGIN, END)
    print(f"written: {folder / 'table.md'}, {', '.join(map(str, places))}")
