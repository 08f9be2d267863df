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
