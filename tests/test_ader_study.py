"""The study's path on a small stream: its commands, what is shared and resumed, its table."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.image import imread

from experiments import running
from experiments.ader import study, table
from incremental.app.tracking import Curves
from incremental.errors import UserError
from incremental.run import checkpoint as saves

SMALL = [
    "data.history=6",
    "model.width=8",
    "model.blocks=1",
    "training.batch_size=32",
    "training.epochs=2",
    "training.patience=1",
    "evaluation.metrics=[recall@20, mrr@20]",
]


@pytest.fixture(scope="module")
def periods(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four periods of forty sessions; an item is followed by one of its two neighbours."""
    folder, rng = tmp_path_factory.mktemp("periods"), np.random.default_rng(0)
    number: dict[int, int] = {}
    for period in range(4):
        lines = []
        for session in range(40):
            item = int(rng.integers(30 + 5 * period))
            for _ in range(int(rng.integers(2, 6))):
                lines.append(f"{session} {number.setdefault(item, len(number) + 1)}")
                item = (item + int(rng.choice([1, 2]))) % (30 + 5 * period)
        (folder / f"period_{period}.txt").write_text("\n".join(lines) + "\n")
    return folder


def read(periods: Path, runs: Path, *more: str) -> dict[str, Any]:
    return study.read([f"path={periods}", f"runs={runs}", f"overrides={json.dumps(SMALL)}", *more])


@pytest.fixture(scope="module")
def rows(periods: Path) -> list[running.Job]:
    """All rows, as they are published."""
    return study.jobs(read(periods, periods / "runs", "overrides=[]"))


@pytest.mark.usefixtures("shared_store")
def test_rows_share_a_base_and_a_finished_run_is_not_run_again(periods: Path, tmp_path: Path) -> None:
    small = ("memory.capacity=100", "memory.rows.exact=16")
    planned = study.jobs(read(periods, tmp_path, *small, "++increments=2", "rows=[Dropout, ADER, Finetune]"))
    assert [job.row for job in planned] == ["base-dropout", "Dropout", "ADER", "base-plain", "Finetune"]
    running.run(planned[:3])
    first = [table.prequential(job.directory)["recall@20"] for job in planned[:3]]
    assert list(first[0]) == [1]
    assert list(first[1]) == list(first[2]) == [1, 2]
    assert [job.config["update"]["last"] for job in planned[:2]] == [0, 1]  # period 2 is tested, and not trained on
    assert first[0][1] == first[1][1] == first[2][1]  # one base part
    costs = [json.loads((job.directory / "summary.json").read_text())["cost"] for job in planned[:3]]
    assert all(costs[0]["base_seconds"] <= cost["base_seconds"] for cost in costs)
    assert len({cost["base_examples"] for cost in costs}) == 1 < costs[0]["base_examples"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    running.run(planned[:3])
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}

    found = table.measured([(job.row, job.directory) for job in planned if "base" not in job.row])
    text = table.table(found, ["Finetune", "Dropout", "ADER"], table.published(), table.Asked(1, 2))
    assert "| Finetune | not run |" in text
    assert f"| Dropout | 1–2 | 49.59 | {np.mean(list(first[1].values())):.2f} |" in text
    assert f"50.01 / {first[1][2]:.2f}" in text
    assert imread(table.draw(found, tmp_path, table.published())).shape[2] == 4


@pytest.mark.usefixtures("shared_store")
def test_a_stopped_row_goes_on_and_is_marked_until_then(
    periods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two seeds of a row over two periods: one is stopped when its first update is over, the other is not begun."""
    planned = study.jobs(read(periods, tmp_path, "increments=2", "rows=[Dropout]", "seeds=[0, 1]"))
    assert [(job.row, job.seed) for job in planned] == [
        *(("base-dropout", 0), ("Dropout", 0)),
        *(("base-dropout", 1), ("Dropout", 1)),
    ]
    assert planned[0].directory != planned[2].directory
    running.run(planned[:1])

    def stop(_self: Any, cost: Any, tested: Any) -> None:
        del tested
        if cost.increment == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(saves, "SHARE", math.inf)  # each increment is saved, however short
        patch.setattr(Curves, "increment", stop)
        with pytest.raises(KeyboardInterrupt):
            running.run(planned[1:2])
    runs = [(job.row, job.directory) for job in planned if "base" not in job.row]
    text = table.table(table.measured(runs), ["Finetune", "Dropout"], {}, table.Asked(2, 2))
    assert "| Finetune | not run | | | |" in text
    assert "| Dropout | 1–1 of 2, 1 of 2 seeds |" in text
    checkpoint = planned[1].directory / "checkpoint"
    assert checkpoint.exists()
    running.run(planned[:2])
    text = table.table(table.measured(runs), ["Finetune", "Dropout"], {}, table.Asked(2, 2))
    assert "| Dropout | 1–2, 1 of 2 seeds |" in text


def test_the_rows_are_said_as_the_protocol_has_them(periods: Path, rows: list[running.Job]) -> None:
    planned = {job.row: job.config for job in rows}
    names = study.read([f"path={periods}"])["rows"]
    assert sorted(planned) == sorted([*names, "base-plain", "base-dropout"])
    assert names == list(study.read([f"path={periods}"])["table"])[:11]
    assert len(names) == 11
    assert set(names) == {"SA-CAISR", *(row for row, _ in table.published())}
    for row, config in planned.items():
        assert config["model"]["dropout"] == (0.0 if row in ("Finetune", "EWC", "base-plain") else 0.3)
        assert config["update"]["window"] == (0 if row.startswith("base") else "all" if row == "Joint" else 1)
        assert config["data"]["unseen_items"] == "drop"
        assert config["data"]["cut"] == {
            "_target_": "incremental.data.cutting.given_periods",
            "base": 1,
        }
        assert config["data"]["until"] == (1 if row.startswith("base") else None)
    # Of four files three are tested; nothing tests an update on the last one.
    assert planned["ADER"]["update"]["last"] == planned["Joint"]["update"]["last"] == 2
    parts = {row: config["strategies"] for row, config in planned.items() if config["strategies"]}
    assert {row: next(iter(each)) for row, each in parts.items()} == {
        "EWC": "ewc",
        "ADER": "ader",
        "ADER-equal": "ader",
        "ADER-fix": "ader",
        "ER-herding": "er",
        "ER-random": "er",
        "ER-loss": "er",
        "SA-CAISR": "sa_caisr",
    }
    for row, each in parts.items():
        (node,) = each.values()
        if row == "EWC":
            assert (node["decay"], node["samples"]) == (0.0, 1000)
            continue
        if row == "SA-CAISR":
            assert (node["weight"], node["negatives"], node["temperature"]) == (4.0, 128, 0.07)
            continue
        weight = 0.2 if row.startswith("ER-") else 0.8
        assert (node["capacity"], node["weight"], node["spread"]) == (30000, weight, True)
        assert node["adaptive"] == (row != "ADER-fix")
        assert node.get("over", "known") == "known"
        assert node["quotas"] == ("uniform_seen" if row == "ADER-equal" else "multinomial")
    assert [parts[f"ER-{name}"]["er"]["selection"] for name in ("herding", "random", "loss")] == [
        "herding",
        "random",
        "one",
    ]


def test_every_row_starts_and_drops_as_the_authors_code_does(rows: list[running.Job]) -> None:
    """Glorot's ranges for tables of 43,136 items with the padding and of 50 positions, at width 150."""
    for job in rows:
        model = job.config["model"]
        assert model["limit"] == pytest.approx(np.sqrt(6 / (43_136 + 1 + 150)), rel=1e-3)
        assert model["position_limit"] == pytest.approx(np.sqrt(6 / (50 + 150)), rel=1e-3)
        assert model["dropout_masks"] == "shared"


def test_beside_a_row_of_the_authors_code_stands_the_one_of_the_text(periods: Path, tmp_path: Path) -> None:
    """What differs between the two, and nothing else."""
    pairs = {
        "Dropout": ("Dropout-own-masks", {"model.dropout_masks": "own"}),
        "ADER": ("ADER-own-masks", {"model.dropout_masks": "own"}),
        "ER-loss": ("ER-least-loss", {"strategies.er.selection": "least_loss"}),
        "ADER-equal": ("ADER-equal-present", {"strategies.ader.quotas": "uniform"}),
    }
    rows = ", ".join([*pairs, *(other for other, _ in pairs.values())])
    planned = {job.row: job.config for job in study.jobs(read(periods, tmp_path, f"rows=[{rows}]"))}
    for row, (other, differs) in pairs.items():
        theirs, text = (flattened({**planned[each], "row": None, "name": None, "base": None}) for each in (row, other))
        assert theirs.keys() == text.keys()
        assert {key: text[key] for key in text if text[key] != theirs[key]} == differs


def flattened(config: Any, prefix: str = "") -> dict[str, Any]:
    """By dotted key."""
    found: dict[str, Any] = {}
    for key, value in config.items():
        found |= flattened(value, f"{prefix}{key}.") if isinstance(value, dict) and value else {f"{prefix}{key}": value}
    return found


def test_other_data_and_the_fast_variant(periods: Path, tmp_path: Path) -> None:
    more = ("dataset=yoochoose", "variant=fast", "rows=[ADER]", "overrides=[]", "++increments=3", "seeds=[1]")
    base, ader = study.jobs(read(periods, tmp_path, *more))
    assert ader.config["training"]["batch_size"] == 512
    assert ader.config["strategies"]["ader"]["weight"] == 1.0
    assert ader.config["strategies"]["ader"]["over"] == "drawn"
    assert ader.config["head"]["_target_"].endswith("sampled_softmax")
    assert ader.config["data"]["until"] == 3
    assert base.config["seed"] == ader.config["seed"] == 1
    assert base.directory.parent == ader.directory.parent == tmp_path / "yoochoose" / "fast"


def test_published_means_are_those_of_the_curves() -> None:
    for (row, _), (mean, curve) in table.published().items():
        assert len(curve) in (0, 16)
        assert bool(curve) <= (row in table.CURVES)
        if curve:
            assert np.mean(list(curve.values())) == pytest.approx(mean, abs=0.0051)


def test_what_is_too_far_from_the_paper_is_bold() -> None:
    far = table.Cell("", {"recall@20": {1: 49.17, 2: 48.4}, "mrr@20": {1: 17.0, 2: 17.0}}, None)
    near = table.Cell("", {"recall@20": {1: 49.45, 2: 50.8}, "mrr@20": {1: 17.0, 2: 17.0}}, None)
    text = table.table({"Dropout": [far], "ADER": [near]}, ["Dropout", "ADER"], table.published(), table.Asked())
    assert "| 50.01 / 48.40 (**-1.61**) |" in text
    assert "| Dropout | 1–2 | 49.59 | 48.78 | -0.81 | 17.70 | 17.00 | -0.70 |  |  |" in text
    assert "| +0.53 | **+1.34** |" not in text
    assert "| +0.53 | +1.34 |" in text
    assert "ADER > Dropout: holds, +1.34" in text


def test_published_figures_belong_to_the_files_not_to_a_name(
    periods: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files as large as DIGINETICA's have its figures, in any folder; others have none, under any name."""
    lines = [f"{min(click, 15_075)} {click % 18_569 + 1}" for click in range(70_739)]
    theirs, other = tmp_path / "any", tmp_path / "diginetica"
    for folder, kept in ((theirs, lines), (other, lines[:-1])):
        folder.mkdir()
        (folder / "period_0.txt").write_text("\n".join(kept) + "\n")
    assert table.published_of(str(theirs)) == table.published()
    assert table.published_of(str(other)) == table.published_of(str(periods)) == {}

    cell = table.Cell("", {"recall@20": {1: 49.0, 2: 48.0}, "mrr@20": {1: 17.0, 2: 16.0}}, None)
    found = {"Dropout": [cell], "ADER": [cell]}
    text = table.table(found, ["Finetune", "Dropout", "ADER"], {}, table.Asked(1, 2))
    assert "| row | periods | R@20 | M@20 | R@20 over Dropout |" in text
    assert "| Dropout | 1–2 | 48.50 | 16.50 |  |" in text
    assert "| ADER | 1–2 | 48.50 | 16.50 | +0.00 |" in text
    assert "| recall@20 | 1 | 2 |\n|---|---|---|\n| Dropout | 49.00 | 48.00 |" in text
    assert "published" not in text
    assert "Order" not in text

    figures: list[Figure] = []
    monkeypatch.setattr(Figure, "savefig", lambda figure, *_args, **_options: figures.append(figure))
    table.draw(found, tmp_path, {})
    table.draw(found, tmp_path, table.published())
    bare, compared = ([axes.get_lines() for axes in figure.axes] for figure in figures)
    assert [len(drawn) for drawn in bare] == [2, 2]  # a measured curve a row
    assert [len(drawn) for drawn in compared] == [4, 4]
    assert not any("published" in axes.get_title() for axes in figures[0].axes)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "path: a value is needed"),
        (["path=x", "rows=[ADER, nothing]"], "rows: 'nothing' is not one of Finetune, Dropout"),
        (["path=x", "variant=quick"], "variant: 'quick' is not one of exact, fast"),
        (["path=x", "dataset=beauty"], "dataset: 'beauty' is not one of diginetica, yoochoose"),
        (["path=x", "++increments=0"], "increments=0: expected a number of test periods"),
        (["path=x", "period=3"], "experiments/ader/run: Could not override 'period'; its options are path, dataset"),
    ],
)
def test_wrong_settings_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        study.read(given)
