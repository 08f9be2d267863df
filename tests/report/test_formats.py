import csv
import io
from pathlib import Path
from typing import Any

import pytest

from incremental.errors import UserError
from incremental.report import Run, Table, formats, read_runs, table
from incremental.report import text as render
from incremental.report.grid import grid
from incremental.report.page import page
from incremental.report.pictures import drawing

NDCG = "ndcg@10"


@pytest.fixture
def compared(study: Path) -> Table:
    return table(read_runs([study]).finished)


@pytest.fixture
def awkward() -> Table:
    runs = [
        Run(row, seed, {NDCG: {"prequential": value + 0.01 * seed**2, "slope": -0.5}})
        for row, value in {"[bold]a_b|50%": 0.9, "finetune": 0.1}.items()
        for seed in range(2)
    ]
    return table(runs)


def test_columns_without_a_number_are_left_out(compared: Table) -> None:
    cells = grid(compared)
    assert [head.title for head in cells.header] == [
        *["strategy", "seeds", NDCG, f"p ({NDCG})", "slope", "learning acc.", "forgetting"],
        *["newest (LA)", "past (RA)", "H-mean"],
        *["s/update", "examples", "memory"],
    ]
    by_label = {row[0].text: [cell.text for cell in row] for row in cells.rows}
    assert by_label["finetune"][2:7] == ["0.2000 ± 0.0497", "baseline", "-0.0400 ± 0.0000", "–", "–"]
    assert by_label["finetune"][10:] == ["1.5", "1,200", "2.0 KiB"]
    assert by_label["static"][10:] == ["0", "–", "–"]
    assert by_label["replay"][6] == "0.1500 ± 0.0000"


def test_the_error_of_sampled_tests_stands_beside_the_first_metric_and_is_explained(compared: Table) -> None:
    runs = [Run("finetune", seed, {NDCG: {"prequential": 0.2, "standard_error": 0.004}}) for seed in range(2)]
    made = table(runs)
    cells = grid(made)
    place = [head.title for head in cells.header].index("s.e. of sample")
    assert cells.rows[0][place].text == "0.0040 ± 0.0000"
    explained = [note for note in made.notes if "evaluation.events" in note]
    assert len(explained) == 1
    assert not any("evaluation.events" in note for note in compared.notes)


def test_best_is_marked_in_every_text_format(compared: Table) -> None:
    assert [row.label for row in compared.rows if row.best] == ["replay"]
    assert "0.3100 ± 0.0745*" in formats.terminal(compared)
    assert "| **0.3100 ± 0.0745** |" in formats.markdown(compared)
    assert r"\textbf{0.3100 $\pm$ 0.0745}" in formats.latex(compared)
    assert formats.terminal(compared).count("*") == 2  # the number, and the note that explains it


def test_plain_terminal_text_is_whole_and_has_no_codes(compared: Table) -> None:
    text = render(compared)
    assert "\x1b" not in text
    assert "…" not in text
    assert "2.0 KiB" in text
    for note in compared.notes:
        assert note in text
    assert "\x1b[1m" in formats.terminal(compared, styled=True)
    narrow = formats.terminal(compared, width=60).split("\n\n")[0]
    assert max(map(len, narrow.splitlines())) <= 60
    assert "…" not in narrow


def test_a_narrow_terminal_has_the_table_in_parts(compared: Table) -> None:
    """Each number is whole, and each part names the rows."""
    whole, narrow = formats.terminal(compared), formats.terminal(compared, width=60)
    assert max(map(len, narrow.partition("\n\nndcg@10: ")[0].splitlines())) <= 60
    cells = grid(compared)
    for row in cells.rows:
        for cell in row[1:]:
            assert cell.text in narrow
    names = [row[0].text for row in cells.rows]
    assert [line.split()[0] for line in whole.splitlines() if line.split()[:1] and line.split()[0] in names] == names
    found = [line.split()[0] for line in narrow.splitlines() if line.split()[:1] and line.split()[0] in names]
    assert found == names * (len(found) // len(names))
    assert len(found) > len(names)


def test_names_are_not_markup(awkward: Table) -> None:
    assert "[bold]a_b|50%" in formats.terminal(awkward)
    assert "[bold]a_b\\|50%" in formats.markdown(awkward)
    assert r"[bold]a\_b$|$50\%" in formats.latex(awkward)


def test_markdown_is_a_table(compared: Table) -> None:
    lines = formats.markdown(compared).splitlines()
    columns = len(grid(compared).header)
    assert lines[1] == "|---|" + "---:|" * (columns - 1)
    assert all(line.count("|") == columns + 1 for line in lines[:5])
    assert lines[6] == f"- {compared.notes[0]}"


def test_latex_is_a_booktabs_tabular(awkward: Table) -> None:
    lines = formats.latex(awkward).splitlines()
    body = [line for line in lines if not line.startswith("%")]
    columns = len(grid(awkward).header)
    assert body[:2] == [rf"\begin{{tabular}}{{l{'r' * (columns - 1)}}}", r"\toprule"]
    assert body[3] == r"\midrule"
    assert body[-2:] == [r"\bottomrule", r"\end{tabular}"]
    assert all(line.endswith(r" \\") and line.count("&") == columns - 1 for line in (body[2], *body[4:-2]))
    assert "$-$0.5000" in body[4]


def test_csv_has_raw_numbers(compared: Table, study: Path) -> None:
    lines = list(csv.DictReader(io.StringIO(formats.csv_table(compared))))
    found = {(line["row"], line["metric"], line["measure"]): line for line in lines}
    replay = found["replay", NDCG, "prequential"]
    expected = compared.rows[0]
    estimate, test = expected.quality[NDCG]["prequential"], expected.comparisons[NDCG]
    assert float(replay["mean"]) == estimate.mean
    assert float(replay["half_width"]) == estimate.half_width
    assert replay["n"] == "3"
    assert float(replay["p"]) == test.p
    assert float(replay["p_holm"]) == test.p_holm
    assert replay["pairs"] == "3"
    assert float(replay["difference"]) == pytest.approx(0.11)
    assert found["finetune", NDCG, "prequential"]["p"] == ""
    assert found["replay", NDCG, "slope"]["p"] == ""
    assert float(found["replay", NDCG, "final_average"]["mean"]) == pytest.approx(0.5)
    assert float(found["replay", "cost", "examples"]["mean"]) == 1200
    assert ("static", "cost", "examples") not in found
    runs = [str(study / f"sasrec-replay-{seed}") for seed in range(3)]
    assert found["replay", NDCG, "slope"]["runs"].split(";") == runs
    assert found["replay", "cost", "examples"]["runs"].split(";") == runs


WEIGHT = "strategies.anchor.weight"


def test_columns_stand_side_by_side(sweep: list[Run]) -> None:
    compared = table(sweep, rows=["row", WEIGHT], columns=["model"])
    cells = grid(compared)
    assert cells.spans == [("", 1), ("gru4rec", 3), ("sasrec", 3)]
    assert [head.title for head in cells.header] == ["row, weight", *[NDCG, "p", "s/update"] * 2]
    for line in cells.rows:
        label = line[0].text
        assert [cell.row and (cell.row.label, cell.row.column) for cell in line[1:]] == [
            (label, column) for column in ("gru4rec", "sasrec") for _ in range(3)
        ]
    assert "| **0.3110 ± 0.0286** |" in formats.markdown(compared)
    assert "| gru4rec: ndcg@10 | gru4rec: p |" in formats.markdown(compared)
    lines = formats.latex(compared).splitlines()
    top = lines.index(r"\toprule")
    assert lines[top + 1] == r" & \multicolumn{3}{c}{gru4rec} & \multicolumn{3}{c}{sasrec} \\"
    assert lines[top + 2] == r"\cmidrule(lr){2-4} \cmidrule(lr){5-7}"
    assert formats.terminal(compared).splitlines()[0].split() == ["gru4rec"] * 3 + ["sasrec"] * 3


def test_a_column_that_lacks_a_row_has_dashes(sweep: list[Run]) -> None:
    kept = [run for run in sweep if run.settings["model"] == "sasrec" or run.row == "finetune"]
    by_label = {line[0].text: line for line in grid(table(kept, rows=["row", WEIGHT], columns=["model"])).rows}
    # gru4rec has one row, so no p and no column of it.
    assert [cell.text for cell in by_label["ewc weight=1"][1:3]] == ["–", "–"]
    assert by_label["ewc weight=1"][3].text.startswith("0.2608")


def test_csv_has_a_column_for_each_factor(sweep: list[Run]) -> None:
    text = formats.csv_table(table(sweep, rows=["row", WEIGHT], columns=["model"]))
    lines = list(csv.DictReader(io.StringIO(text)))
    assert text.startswith(f"row,{WEIGHT},model,metric,")
    found = {(line["row"], line[WEIGHT], line["model"]) for line in lines}
    assert found == {
        (row, weight, model)
        for model in ("sasrec", "gru4rec")
        for row, weight in [("finetune", ""), ("ewc", "0.1"), ("ewc", "1"), ("ewc", "10")]
    }


def test_the_columns_of_a_paper_are_chosen_and_named(compared: Table, study: Path) -> None:
    shown = ["ndcg@10", "forgetting", "p"]
    header = grid(compared, shown).header
    assert [head.title for head in header] == ["strategy", NDCG, "forgetting", f"p ({NDCG})"]
    names = {"finetune": "Fine-tuning", NDCG: "NDCG@10", "forgetting": "F"}
    named = table(read_runs([study]).finished, labels=names)
    assert named.baseline == "Fine-tuning"
    lines = render(named, "markdown", show=shown).splitlines()
    assert lines[0] == "| strategy | NDCG@10 | F | p (NDCG@10) |"
    assert lines[3].startswith("| Fine-tuning | 0.2000 ± 0.0497 | – | baseline |")
    assert "strategy & NDCG@10 & F & p (NDCG@10) \\\\" in render(named, "latex", show=shown)
    written = list(csv.DictReader(io.StringIO(render(named, "csv", show=["ndcg@10", "memory_bytes"]))))
    assert {(line["metric"], line["measure"]) for line in written} == {
        ("NDCG@10", "prequential"),
        ("cost", "memory_bytes"),
    }
    assert {line["row"] for line in written} == {"replay", "Fine-tuning", "static"}
    assert "paired t-test against Fine-tuning" in named.notes[1] + named.notes[2]


def test_notes_are_of_the_columns_that_stand_there_by_their_names(study: Path) -> None:
    labels = {NDCG: "NDCG", "seconds_per_update": "seconds", "memory_bytes": "kept"}
    made = table(read_runs([study]).finished, labels=labels, after=1)

    def comments(*show: str) -> str:
        return "".join(line for line in render(made, "latex", show=show).splitlines(True) if line.startswith("%"))

    whole, few, cost = comments(), comments(NDCG, "seeds"), comments("seconds_per_update")
    for said in ("% p (NDCG): ", "NDCG: prequential", "Front of NDCG", "seconds, examples, kept.", "the most of kept"):
        assert said in whole
    assert NDCG not in whole + few + cost
    assert "NDCG: prequential" in few
    for left_out in ("p (", "Front", "Less is better", "the mean of", "matrix R", "Seconds"):
        assert left_out not in few
    assert "the mean of seconds." in cost
    assert "prequential" not in cost
    assert "Front" not in cost
    assert "Seconds, examples" in cost


def test_unknown_names_and_columns_say_what_there_is(compared: Table, study: Path) -> None:
    with pytest.raises(UserError, match="--show accuracy: no such column; there is seeds, ndcg@10, p, "):
        render(compared, "csv", show=["accuracy"])
    with pytest.raises(
        UserError, match=r"--label plain=\.\.\.: nothing has this name; rows and columns are finetune, rep"
    ):
        table(read_runs([study]).finished, labels={"plain": "x"})
    with pytest.raises(UserError, match="replay would stand for several"):
        table(read_runs([study]).finished, labels={"static": "replay"})


NAMES = ["[bold]a[/bold]", "[/b]", "[a](b)", r"$\frac$", "_first", "*star*", "x|y", "<b>t</b>", "li\nne"]


def test_names_are_no_markup_in_any_format(write_run: Any, tmp_path: Path) -> None:
    """Brackets, formulas, stars, bars, HTML and line breaks, also in the page and its pictures."""
    for number, name in enumerate(NAMES):
        for seed in (0, 1):
            quality = 0.1 + number / 50 + seed / 100 + seed * number / 10_000
            write_run(name, seed, [quality] * 3, folder=str(number), name=name)
    found = table(read_runs([tmp_path]).finished)
    assert {row.label for row in found.rows} == {*NAMES[:-1], "li ne"}
    shown = {style: render(found, style) for style in ("terminal", "markdown", "latex", "csv")}
    for name in NAMES[:-1]:
        assert name in shown["terminal"]
        assert name in shown["csv"]
    for cell in ("[bold]a[/bold]", r"\[a](b)", r"\*star\*", r"x\|y", r"\<b>t\</b>", "**0."):
        assert f"| {cell}" in shown["markdown"]
    for cell in ("{}[bold]a[/bold] &", r"\$\textbackslash{}frac\$ &", "{}*star* &", r"\_first &"):
        assert f"\n{cell}" in shown["latex"]
    made = page(found)
    assert "[bold]a[/bold]" in made
    assert "&lt;b&gt;t&lt;/b&gt;" in made


def test_a_name_is_drawn_as_it_is() -> None:
    figure, axes = drawing.empty(3, 2)
    for name in ("_first", "$\\frac$"):
        axes.plot([1, 2], [1, 2], label=name)
    axes.set_xscale("log")
    drawing.legend(figure, drawing.handles(axes), ["_first", "$\\frac$", "absent"])
    svg = drawing.data_uri(figure)  # a formula would be an error
    assert [one.get_text() for one in figure.legends[0].get_texts()] == ["_first", "$\\frac$"]
    assert svg.startswith("data:image/svg")
