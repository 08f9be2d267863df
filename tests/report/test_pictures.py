import base64
import math
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from incremental.report import Run, Table, pictures, read_runs, table

NDCG = "ndcg@10"


@pytest.fixture
def compared(study: Path) -> Table:
    return table(read_runs([study]).finished)


def test_curves_are_means_with_a_band(compared: Table) -> None:
    figure = pictures.quality_over_time(compared, NDCG)
    assert figure is not None
    axes = figure.axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) == {"replay", "finetune", "static"}
    np.testing.assert_allclose(np.asarray(lines["finetune"].get_xdata(), float), [1.0, 2.0])
    np.testing.assert_allclose(np.asarray(lines["finetune"].get_ydata(), float), [0.22, 0.18])
    band = np.asarray(axes.collections[1].get_paths()[0].vertices, float)[:, 1]
    half = 4.302652729911275 * 0.02 / math.sqrt(3)
    assert (band.min(), band.max()) == pytest.approx((0.18 - half, 0.22 + half))
    assert axes.get_ylabel() == NDCG
    assert "increment" in axes.get_xlabel()
    # The legend stands below the axes, not on the data.
    figure.draw_without_rendering()
    assert figure.legends[0].get_window_extent().y1 <= axes.get_window_extent().y0


def test_cost_is_logarithmic_and_every_row_is_named_apart(compared: Table) -> None:
    figure = pictures.quality_against_cost(compared, NDCG)
    assert figure is not None
    axes = figure.axes[0]
    assert axes.get_xscale() == "log"
    assert "seconds" in axes.get_xlabel()
    names = {text.get_text(): text.get_window_extent() for text in axes.texts}
    assert set(names) == {"replay", "finetune", "static"}
    dotted = [line for line in axes.lines if line.get_linestyle() == ":"]
    assert [line.get_ydata()[0] for line in dotted] == pytest.approx([0.08])  # type: ignore[index]


def test_one_row_that_costs_beside_one_that_does_not() -> None:
    """An axis of one cost has a width before a line is drawn across it: matplotlib warned of this cost."""
    cost = 0.054152678001628374
    rows = ("finetune", 0.22, cost), ("static", 0.21, 0.0)
    runs = [Run(row, 0, {NDCG: {"prequential": value}}, {"seconds_per_update": one}) for row, value, one in rows]
    figure = pictures.quality_against_cost(table(runs), NDCG)
    assert figure is not None
    assert figure.axes[0].get_xlim() == pytest.approx((cost / 2, 2 * cost))


def test_a_row_without_cost_is_drawn_across_an_axis_that_has_a_width() -> None:
    rows = ("slow", 0.3, 0.054152678001628374), ("static", 0.2, 0.0), ("finetune", 0.1, 1.0)
    runs = [Run(row, 0, {NDCG: {"prequential": value}}, {"seconds_per_update": one}) for row, value, one in rows]
    assert pictures.quality_against_cost(table(runs), NDCG) is not None  # matplotlib warned, and a warning is an error


def test_the_front_is_a_stair_through_its_points(compared: Table) -> None:
    figure = pictures.quality_against_cost(compared, NDCG)
    assert figure is not None
    axes = figure.axes[0]
    (stair,) = [line for line in axes.lines if line.get_drawstyle() == "steps-post"]
    left, right = axes.get_xlim()
    # Static costs nothing, replay is better at the cost of finetune.
    np.testing.assert_allclose(np.asarray(stair.get_xdata(), float), [left, 1.5, right])
    np.testing.assert_allclose(np.asarray(stair.get_ydata(), float), [0.08, 0.31, 0.31])


def crowd(rows: int) -> Table:
    runs = [
        Run(f"strategy-{i}", 0, {NDCG: {"prequential": 0.1 + 0.001 * i}}, {"seconds_per_update": 1.0 + 0.001 * i})
        for i in range(rows)
    ]
    return table(runs)


def test_a_row_without_room_for_its_name_is_in_the_legend() -> None:
    figure = pictures.quality_against_cost(crowd(40), NDCG)
    assert figure is not None
    named = {text.get_text() for text in figure.axes[0].texts}
    in_legend = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named | in_legend == {f"strategy-{i}" for i in range(40)}
    assert not named & in_legend
    # The baseline is named first.
    assert "strategy-0" in named
    figure.draw_without_rendering()
    boxes = [text.get_window_extent() for text in figure.legends[0].get_texts()]
    width = figure.get_size_inches()[0] * figure.dpi
    assert all(box.x0 >= 0 and box.x1 <= width for box in boxes)
    assert not any(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[:i])


@pytest.mark.parametrize("apart", [0.0, 0.1])
def test_names_cover_neither_each_other_nor_points(apart: float) -> None:
    places = [(1 + apart * i, 0.1) for i in range(5)] + [(9.0, 0.2)]
    runs = [
        Run(f"strategy-{i}", 0, {NDCG: {"prequential": quality}}, {"seconds_per_update": cost})
        for i, (cost, quality) in enumerate(places)
    ]
    figure = pictures.quality_against_cost(table(runs), NDCG)
    assert figure is not None
    figure.draw_without_rendering()
    axes = figure.axes[0]
    boxes = [text.get_window_extent() for text in axes.texts]
    assert len(boxes) == 6
    assert not any(box.overlaps(other) for i, box in enumerate(boxes) for other in boxes[:i])
    assert not any(box.contains(*axes.transData.transform(place)) for box in boxes for place in places)


def test_many_rows_have_a_panel_each(write_run: Any, tmp_path: Path) -> None:
    for i in range(14):
        write_run("finetune" if i == 3 else f"row-{i}", 0, [0.1 + 0.01 * i, 0.2])
    compared = table(read_runs([tmp_path]).finished)
    figure = pictures.quality_over_time(compared, NDCG)
    assert figure is not None
    assert [axes.get_title() for axes in figure.axes] == compared.labels
    for axes, row in zip(figure.axes, compared.rows, strict=True):
        (own,) = [line for line in axes.lines if line.get_linewidth() == 1.8]
        first = 0.13 if row.label == "finetune" else 0.1 + 0.01 * int(row.label.removeprefix("row-"))
        np.testing.assert_allclose(np.asarray(own.get_ydata(), float), [first, 0.2])
        black = [np.asarray(line.get_ydata(), float) for line in axes.lines if line.get_color() == "black"]
        np.testing.assert_allclose(black[0], [0.13, 0.2])
    figure.draw_without_rendering()
    titles = [axes.title.get_window_extent() for axes in figure.axes]
    assert not any(box.overlaps(other) for i, box in enumerate(titles) for other in titles[:i])


WEIGHT = "strategies.anchor.weight"


def test_sensitivity_is_a_line_for_each_label_and_a_level_for_the_others(sweep: list[Run]) -> None:
    compared = table(sweep, sensitivity=WEIGHT, columns=["model"])
    figure = pictures.sensitivity(compared, NDCG, "sasrec")
    assert figure is not None
    axes = figure.axes[0]
    lines = {line.get_label(): line for line in axes.lines}
    assert set(lines) == {"ewc", "finetune"}
    estimates = [row.quality[NDCG]["prequential"] for row in compared.of("sasrec") if row.line == "ewc"]
    np.testing.assert_allclose(np.asarray(lines["ewc"].get_xdata(), float), [0.1, 1.0, 10.0])
    np.testing.assert_allclose(
        np.asarray(lines["ewc"].get_ydata(), float), np.array([e.mean for e in estimates], float)
    )
    level = np.asarray(lines["finetune"].get_ydata(), float)
    np.testing.assert_allclose(level, [0.2 + 0.01 + 0.002 / 3] * 2)
    band = np.asarray(axes.collections[0].get_paths()[0].vertices, float)
    assert band[:, 1].max() == pytest.approx(max((e.mean or 0) + (e.half_width or 0) for e in estimates))
    assert axes.get_xlabel() == WEIGHT
    assert axes.get_xscale() == "log"
    assert pictures.sensitivity(table(sweep, rows=["name", WEIGHT]), NDCG) is None


@pytest.mark.parametrize(
    ("values", "scale"),
    [
        ([0.1, 1.0], "log"),
        ([1.0, 2.0, 3.0], "linear"),
        ([0.0, 0.1, 10.0], "symlog"),
        ([0.0, 0.5, 1.0], "linear"),
        ([4], "linear"),
    ],
)
def test_the_axis_is_logarithmic_where_values_span_a_decade(values: list[float], scale: str) -> None:
    runs = [Run("ewc", 0, {NDCG: {"prequential": 0.1}}, config={"weight": value}) for value in values]
    figure = pictures.sensitivity(table(runs, sensitivity="weight"), NDCG)
    assert figure is not None
    axes = figure.axes[0]
    assert axes.get_xscale() == scale
    assert [tick.get_text() for tick in axes.get_xticklabels()] == [f"{value:g}" for value in values]


def test_heat_map_is_the_mean_over_seeds_that_measured(write_run: Any, tmp_path: Path) -> None:
    write_run("replay", 0, [0.1], R=[[0.2, math.nan], [0.4, 0.5]])
    write_run("replay", 1, [0.1], R=[[0.4, math.nan], [0.2, math.nan]])
    write_run("static", 0, [0.1])
    compared = table(read_runs([tmp_path]).finished)
    by_label = {row.label: row for row in compared.rows}
    figure = pictures.heat_map(compared, by_label["replay"], NDCG)
    assert figure is not None
    shown = np.asarray(figure.axes[0].images[0].get_array(), float)
    np.testing.assert_allclose(shown, [[0.3, math.nan], [0.3, 0.5]])
    assert {text.get_text() for text in figure.axes[0].texts} == {".300", ".500"}
    assert pictures.heat_map(compared, by_label["static"], NDCG) is None


def test_nothing_measured_is_no_picture() -> None:
    compared = table([Run("replay", 0, {NDCG: {"prequential": 0.1}})])
    assert pictures.quality_over_time(compared, NDCG) is None
    assert pictures.quality_against_cost(compared, NDCG) is None


def test_styles_differ() -> None:
    styles = pictures.styles([f"row-{i}" for i in range(77)])
    assert len({(style.colour, style.marker) for style in styles.values()}) == 77


def test_data_uri_is_the_same_svg_each_time(compared: Table) -> None:
    figures = [pictures.quality_over_time(compared, NDCG) for _ in range(2)]
    one, other = (pictures.data_uri(figure) for figure in figures if figure is not None)
    assert one == other
    head, data = one.split(",")
    assert head == "data:image/svg+xml;base64"
    assert ET.fromstring(base64.b64decode(data)).tag.endswith("svg")


def test_loss_curves_are_a_line_a_seed_and_increment(write_run: Any, tmp_path: Path) -> None:
    header = "increment,epoch,loss,validation,term/data,term/ewc\n"
    write_run("ewc", 0, [0.1], epochs=header + "0,1,3,0.1,3,0\n0,2,2,,2,0\n1,1,4,0.2,3.5,0.5\n")
    write_run("ewc", 1, [0.1], epochs=header + "0,1,5,0.1,5,0\n1,1,6,0.3,5,1\n1,2,5.5,0.3,5,0.5\n")
    write_run("finetune", 0, [0.1], epochs="increment,epoch,loss,validation,term/data\n1,1,7,,7\n")
    write_run("popularity", 0, [0.1])
    made = table(read_runs([tmp_path]).finished)
    figure = pictures.loss_curves(made)
    assert figure is not None
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert panels.keys() == {"ewc", "finetune"}
    named: dict[str, list[list[list[float]]]] = {}
    for line in panels["ewc"].lines[1:]:  # the first is the boundary
        named.setdefault(str(line.get_color()), []).append(np.asarray(line.get_xydata(), float).tolist())
    assert named.pop("black") == [[[1, 3], [2, 2]], [[3, 4]], [[1, 5]], [[3, 6], [4, 5.5]]]
    assert [[[3, 0.5]]] in [[line] for line in named[pictures.styles("ab")["b"].colour]]
    boundary = panels["ewc"].lines[0]
    assert (np.asarray(boundary.get_xdata(), float).tolist(), boundary.get_linestyle()) == ([2.5, 2.5], ":")
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"loss", "data", "ewc"}
    assert [line.get_color() for line in panels["finetune"].lines[1:]] == ["black"]  # its data are its loss
    begins, line = (np.asarray(one.get_xydata(), float)[:, 0].tolist() for one in panels["finetune"].lines)
    assert (begins, line) == ([2.5, 2.5], [3.0])  # after the base part that ewc has the epochs of
    validation = pictures.validation_curves(made)
    assert validation is not None
    assert [axes.get_title() for axes in validation.axes] == ["ewc"]


def test_validation_values_stand_at_their_epochs(write_run: Any, tmp_path: Path) -> None:
    """With training.check_every=2: an axis of validations would have other numbers, and no increment's beginning."""
    lines = "0,1,3,\n0,2,2,0.1\n1,1,4,\n1,2,3,0.2\n1,3,3,\n1,4,3,0.3\n"
    write_run("ewc", 0, [0.1], epochs="increment,epoch,loss,validation\n" + lines)
    figure = pictures.validation_curves(table(read_runs([tmp_path]).finished))
    assert figure is not None
    boundary, base, later = (np.asarray(line.get_xydata(), float).tolist() for line in figure.axes[0].lines)
    assert [x for x, _ in boundary] == [2.5, 2.5]
    assert (base, later) == ([[2, 0.1]], [[4, 0.2], [6, 0.3]])
