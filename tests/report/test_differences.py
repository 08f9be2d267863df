"""The table of differences to the baseline, as text, on the page and as a picture."""

import pytest
from matplotlib.figure import Figure

from incremental.report import Run, table
from incremental.report.differences import differences
from incremental.report.page import page
from incremental.report.pictures import draw_differences
from tests.report.conftest import NDCG


def runs(sweep: list[Run]) -> list[Run]:
    """The study of `sweep` at one weight, and an oracle of one model, far above all."""
    kept = [
        run for run in sweep if not (run.config or {})["strategies"] or run.settings["strategies.anchor.weight"] == 10
    ]
    oracle = [Run("oracle", seed, {NDCG: {"prequential": 0.9}}, config={"model": "gru4rec"}) for seed in range(3)]
    return [*kept, *oracle]


def test_each_row_against_the_baseline_in_each_column(sweep: list[Run]) -> None:
    layout = differences(table(runs(sweep), columns=["model"]), NDCG)
    assert list(map(str, layout.header)) == [f"{NDCG}, difference to finetune", "gru4rec", "sasrec"]
    found = {line[0].text: [(cell.text, cell.best) for cell in line[1:]] for line in layout.rows}
    assert found["finetune"] == [("0.2107", False), ("0.2107", False)]
    assert found["ewc"] == [("-0.1505", True), ("+0.1003", True)]  # marked below the baseline too
    assert found["oracle"][1] == ("–", False)


def test_one_seed_has_differences_and_no_mark(sweep: list[Run]) -> None:
    one = [run for run in runs(sweep) if run.seed == 0]
    layout = differences(table(one, columns=["model"]), NDCG)
    assert [(cell.text, cell.best) for line in layout.rows if line[0].text == "ewc" for cell in line[1:]] == [
        ("-0.1500", False),
        ("+0.1000", False),
    ]


@pytest.mark.usefixtures("unrendered")
def test_the_page_begins_with_it_where_there_are_columns(sweep: list[Run]) -> None:
    text = page(table(runs(sweep), columns=["model"]))
    assert text.index("difference to finetune") < text.index("Table of strategies")
    assert "<strong>-0.1505*</strong>" in text
    kept = [run for run in runs(sweep) if run.settings["model"] == "sasrec"]
    assert "difference to finetune" not in page(table(kept))


def test_colours_end_at_the_largest_difference_of_a_competitor(sweep: list[Run]) -> None:
    axes = Figure().subplots()
    draw_differences(axes, table(runs(sweep), columns=["model"]), NDCG)
    assert axes.images[0].get_clim() == pytest.approx((-0.1505, 0.1505), abs=1e-4)
    shown = {text.get_text(): text.get_fontweight() for text in axes.texts}
    assert shown["\N{MINUS SIGN}0.1505*"] == "bold"
    assert shown["0.2107"] == "normal"
