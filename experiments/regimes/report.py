"""What the finished runs say: a table regimes by strategies, one page, and a picture."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.regimes.choice import Choice
from incremental.report import Table, read_runs, table
from incremental.report.comparison import is_bound
from incremental.report.differences import differences, explained
from incremental.report.formats import markdown_grid
from incremental.report.front import front, point
from incremental.report.page import page
from incremental.report.pictures import draw_differences
from incremental.report.pictures.naming import Name, name_points
from incremental.report.settings import read_config

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BASELINE, FRONT, OTHER = "#D55E00", "#0072B2", "#999999"
HERE = Path(__file__).parent
BEGIN, END = "<!-- the table: experiments/regimes/run publish=true -->", "<!-- the table's end -->"


def compared(study: dict[str, Any], runs: Sequence[tuple[str, Path]]) -> Table:
    """The (regime, run directory) pairs as a table with a column for each regime."""
    found = [
        replace(run, config={**read_config(directory / "config.yaml"), "regime": regime})
        for regime, directory in runs
        for run in read_runs([directory]).finished
    ]
    made = table(
        found,
        metrics=[study["metric"]],
        baseline=study["baseline"],
        columns=["regime"],
        after=study["tuning"]["increments"],
    )
    return replace(made, columns=[regime for regime in study["regimes"] if regime in made.columns])


def lines_of_choices(study: dict[str, Any], choices: Sequence[Choice]) -> list[str]:
    """A line a row: what was chosen in each regime; in bold where it is the first or last candidate."""
    lines = [f"| chosen | {' | '.join(study['regimes'])} |", "|---|" + "---:|" * len(study["regimes"])]
    for row in dict.fromkeys(each.row for each in choices):
        own = {each.regime: each for each in choices if each.row == row}
        candidates = study["table"][row]["search"]["values"]
        cells = [f"{own[regime].number:g}" for regime in study["regimes"]]
        edge = [own[regime].number in (candidates[0], candidates[-1]) for regime in study["regimes"]]
        told = " | ".join(f"**{text}**" if at else text for text, at in zip(cells, edge, strict=True))
        lines.append(f"| {row}: {own[study['regimes'][0]].key.rpartition('.')[2]} | {told} |")
    return lines


def markdown(study: dict[str, Any], made: Table, choices: Sequence[Choice]) -> str:
    """The table of differences, what holds for it, and what was chosen."""
    notes = [explained(made, study["metric"]), *made.notes]
    parts = [
        markdown_grid(differences(made, study["metric"])),
        "".join(f"- {note}\n" for note in notes),
        f"Chosen on the first {study['tuning']['increments']} increments (bold: the first or last candidate):\n",
        "\n".join(lines_of_choices(study, choices)) + "\n",
    ]
    return "\n".join(parts)


def picture(made: Table, metric: str) -> "Figure":
    """The differences as a coloured table, and beside it the front of quality against cost in each regime."""
    from matplotlib.figure import Figure

    across = -(-len(made.columns) // 2)
    figure = Figure(figsize=(10, 1.2 + 0.27 * max(len(made.labels), 14)), layout="constrained", dpi=200)
    halves: Any = figure.subfigures(1, 2, width_ratios=(1.0, 1.05))
    left, right = halves
    axes = left.subplots()
    draw_differences(axes, made, metric)
    left.suptitle(f"{metric}, difference to {made.baseline} (* p < .05, Holm)", fontsize=10)
    panels = right.subplots(across, min(len(made.columns), 2), squeeze=False, sharex=True)
    right.suptitle(f"{metric} against seconds an increment (at the left edge: none)", fontsize=10)
    names = [draw_front(panel, made, metric, each) for panel, each in zip(panels.flat, made.columns, strict=False)]
    for panel in panels.flat[len(made.columns) :]:
        panel.set_visible(False)
    for panel, own in zip(panels.flat, names, strict=False):
        name_points(figure, panel, own)
    return figure


def draw_front(axes: "Axes", made: Table, metric: str, column: str) -> list[Name]:
    """Every row that is no bound as a point, one without cost at the left edge; the names of baseline and front."""
    from matplotlib.ticker import FuncFormatter, NullFormatter

    rows = [row for row in made.of(column) if not is_bound(row.runs[0])]
    points = [found for row in rows if (found := point(row, metric)) is not None]
    best = front(rows, metric)
    least = min((one.cost for one in points if one.cost), default=1.0) / 2
    axes.set_xscale("log")
    if best:
        x, y = [one.cost or least for one in best], [one.quality for one in best]
        most = max(one.cost for one in points)
        axes.step([*x, max(most, x[-1])], [*y, y[-1]], where="post", color="#999999", linewidth=4, alpha=0.35)
    for one in points:
        colour = BASELINE if one.row.label == made.baseline else FRONT if one in best else OTHER
        axes.plot(one.cost or least, one.quality, "o", color=colour, markersize=3.5 if colour == OTHER else 5)
    axes.margins(x=0.18, y=0.18)
    axes.set_title(column, fontsize=9)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(color="#e5e5e5", linewidth=0.8)
    axes.set_axisbelow(True)
    own = [one for one in points if one.row.label == made.baseline]
    return [
        Name(one.row.label, one.cost or least, one.quality, BASELINE if one in own else FRONT, on_line=False)
        for one in [*own, *(one for one in best if one not in own)]
    ]


def write(study: dict[str, Any], choices: Sequence[Choice], runs: Sequence[tuple[str, Path]]) -> None:
    """Prints the table; writes it, the page and the picture beside the runs and, if asked for, into the documents."""
    made = compared(study, runs)
    text = markdown(study, made, choices)
    print(f"\n{text}")
    folder = Path(study["runs"])
    (folder / "table.md").write_text(text, encoding="utf-8")
    chosen = ["Chosen: " + line.strip("| ").replace("**", "") for line in lines_of_choices(study, choices)[2:]]
    title = "Which update strategy pays, where, at what cost"
    (folder / "report.html").write_text(page(made, title=title, notes=chosen), encoding="utf-8")
    drawn = picture(made, study["metric"])
    places = [folder / "regimes.png", *([HERE.parents[1] / "docs" / "regimes.png"] if study["publish"] else [])]
    for place in places:
        drawn.savefig(place, metadata={"Software": None})
    if study["publish"]:
        published(HERE / "README.md", text)
    print(f"written: {folder / 'report.html'}, {folder / 'table.md'}, {', '.join(map(str, places))}")


def published(readme: Path, text: str, begin: str = BEGIN, end: str = END) -> None:
    """Puts the table in its place in the README, between these lines."""
    before, first, rest = readme.read_text(encoding="utf-8").partition(begin)
    _, last, after = rest.partition(end)
    if not (first and last):
        raise ValueError(f"{readme}: expected the lines {begin} and {end}")
    readme.write_text(f"{before}{begin}\n\n{text}\n{end}{after}", encoding="utf-8")
