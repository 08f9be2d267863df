"""The study's path on a small stream: its commands, what is shared and resumed, its table."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from experiments.ader import study, table
from incremental.errors import UserError

SMALL = [
    "data.history=6",
    "model.width=8",
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


def test_rows_share_a_base_and_a_finished_run_is_not_run_again(periods: Path, tmp_path: Path) -> None:
    small = ("memory.capacity=100", "memory.rows.exact=16")
    planned = study.jobs(read(periods, tmp_path, *small, "++increments=2", "rows=[Dropout, ADER, Finetune]"))
    assert [job.row for job in planned] == ["base-dropout", "Dropout", "ADER", "base-plain", "Finetune"]
    study.run(planned[:3])
    first = [table.prequential(job.directory)["recall@20"] for job in planned[:3]]
    assert list(first[0]) == [1]
    assert list(first[1]) == list(first[2]) == [1, 2]
    assert [job.config["update"]["last"] for job in planned[:2]] == [0, 1]  # period 2 is tested, and not trained on
    assert first[0][1] == first[1][1] == first[2][1]  # one base part
    costs = [json.loads((job.directory / "summary.json").read_text())["cost"] for job in planned[:3]]
    assert all(costs[0]["base_seconds"] <= cost["base_seconds"] for cost in costs)
    assert len({cost["base_examples"] for cost in costs}) == 1 < costs[0]["base_examples"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    study.run(planned[:3])
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}

    found = table.measured([(job.row, job.directory) for job in planned if "base" not in job.row])
    text = table.table(found, ["Finetune", "Dropout", "ADER"])
    assert "| Finetune | not run |" in text
    assert f"| Dropout | 1–2 | 49.59 | {np.mean(list(first[1].values())):.2f} |" in text
    assert f"50.01 / {first[1][2]:.2f}" in text
    assert imread(table.draw(found, tmp_path)).shape[2] == 4


def test_the_ten_rows_are_said_as_the_protocol_has_them(periods: Path, tmp_path: Path) -> None:
    planned = {job.row: job.config for job in study.jobs(read(periods, tmp_path))}
    rows = study.read([f"path={periods}"])["rows"]
    assert sorted(planned) == sorted([*rows, "base-plain", "base-dropout"])
    assert len(rows) == 10 == len({row for row, _ in table.published()})
    for row, config in planned.items():
        assert config["model"]["dropout"] == (0.0 if row in ("Finetune", "EWC", "base-plain") else 0.3)
        assert config["update"]["window"] == (0 if row.startswith("base") else "all" if row == "Joint" else 1)
        assert config["data"]["unseen_items"] == "drop"
        assert config["data"]["cut"] == {
            "_target_": "incremental.data.cutting.given_periods",
            "base": 1,
            "last": 1 if row.startswith("base") else None,
        }
    assert planned["ADER"]["update"]["last"] == planned["Joint"]["update"]["last"] == 15
    parts = {row: config["strategies"] for row, config in planned.items() if config["strategies"]}
    assert {row: next(iter(each)) for row, each in parts.items()} == {
        "EWC": "ewc",
        "ADER": "ader",
        "ADER-equal": "ader",
        "ADER-fix": "ader",
        "ER-herding": "er",
        "ER-random": "er",
        "ER-loss": "er",
    }
    for row, each in parts.items():
        (node,) = each.values()
        if row == "EWC":
            assert (node["decay"], node["samples"]) == (0.0, 1000)
            continue
        assert (node["capacity"], node["weight"], node["spread"]) == (30000, 0.8, True)
        assert node["adaptive"] == (row != "ADER-fix")
        assert node.get("over", "known") == "known"
        assert node["quotas"] == ("uniform" if row == "ADER-equal" else "multinomial")
    assert [parts[f"ER-{name}"]["er"]["selection"] for name in ("herding", "random", "loss")] == [
        "herding",
        "random",
        "least_loss",
    ]


def test_other_data_and_the_fast_variant(periods: Path, tmp_path: Path) -> None:
    more = ("dataset=yoochoose", "variant=fast", "rows=[ADER]", "overrides=[]", "++increments=3", "seeds=[1]")
    base, ader = study.jobs(read(periods, tmp_path, *more))
    assert ader.config["training"]["batch_size"] == 512
    assert ader.config["strategies"]["ader"]["weight"] == 1.0
    assert ader.config["strategies"]["ader"]["over"] == "drawn"
    assert ader.config["head"]["_target_"].endswith("sampled_softmax")
    assert ader.config["data"]["cut"]["last"] == 3
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
    text = table.table({"Dropout": [far], "ADER": [near]}, ["Dropout", "ADER"])
    assert "| 50.01 / 48.40 (**-1.61**) |" in text
    assert "| Dropout | 1–2 | 49.59 | 48.78 | -0.81 | 17.70 | 17.00 | -0.70 |  |  |" in text
    assert "| +0.53 | **+1.34** |" not in text
    assert "| +0.53 | +1.34 |" in text
    assert "ADER > Dropout: holds, +1.34" in text


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "path: a value is needed"),
        (["path=x", "rows=[ADER, nothing]"], "rows: 'nothing' is not one of Finetune, Dropout"),
        (["path=x", "variant=quick"], "variant: 'quick' is not one of exact, fast"),
        (["path=x", "dataset=beauty"], "dataset: 'beauty' is not one of diginetica, yoochoose"),
        (["path=x", "++increments=0"], "increments=0: expected a number of test periods"),
        (["path=x", "period=3"], "experiments/ader/run: Could not override 'period'"),
    ],
)
def test_wrong_settings_are_refused(given: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        study.read(given)
