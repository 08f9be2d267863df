"""The study's path on a small file: its commands, what is shared and resumed, its table by hand."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments import running
from experiments.time_to_split import study, table
from incremental.app.assemble import assemble
from incremental.app.experiment import bases_of, check_parts
from incremental.errors import UserError

SMALL = [
    "data.history=6",
    "data.roles.users=8",
    "model.width=8",
    "training.batch_size=8",
    "training.epochs=2",
    "evaluation.metrics=[ndcg@10,{_target_:incremental.metrics.per_user.per_user,of:ndcg@10}]",
]


@pytest.fixture(scope="module")
def reviews(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Forty users of 5 to 8 events, each on the item after the one before."""
    folder, rng = tmp_path_factory.mktemp("reviews"), np.random.default_rng(0)
    lines = ["user_id,item_id,timestamp"]
    for user in range(40):
        day, item = int(rng.integers(12_000, 12_050)), int(rng.integers(30))
        for _ in range(int(rng.integers(5, 9))):
            lines.append(f"{user},{item},{day * 86_400}")
            day, item = day + int(rng.integers(0, 5)), (item + 1) % 30
    (folder / "interactions.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    items = ["item_id,asin,text", *(f"{item},a{item},thing {item}" for item in range(30))]
    (folder / "items.csv").write_text("\n".join(items) + "\n", encoding="utf-8")
    return folder


def read(reviews: Path, runs: Path, *more: str) -> dict[str, Any]:
    return study.read([f"path={reviews}", f"runs={runs}", f"overrides={json.dumps(SMALL)}", "seeds=[0]", *more])


@pytest.mark.usefixtures("shared_store")
def test_updates_begin_with_the_rows_base_part_and_a_finished_run_is_not_run_again(
    reviews: Path, tmp_path: Path
) -> None:
    more = ("splits=[last_train_item,leave_one_out]", "rows=[gru4rec-32]", "updates=[finetune]", "increments=2")
    planned = study.jobs(read(reviews, tmp_path, *more))
    assert [(job.row.split, job.row.update) for job in planned] == [
        ("last_train_item", "static"),
        ("last_train_item", "finetune"),
        ("leave_one_out", "static"),
    ]
    assert planned[1].config["base"] == str(planned[0].directory)
    assert planned[1].config["update"]["last"] == 1  # increment 2 is tested, and not trained on
    running.run(planned[:2])
    static, updated = (table.measured(job.directory) for job in planned[:2])
    assert static is not None
    assert updated is not None
    assert {"ndcg@10", "users-ndcg@10"} <= {*static}
    assert "users-ndcg@10" not in updated  # of single increments only
    costs = [json.loads((job.directory / "summary.json").read_text())["cost"] for job in planned[:2]]
    assert costs[0]["base_examples"] == costs[1]["base_examples"] > 0
    assert [cost["updates"] for cost in costs] == [0, 1]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    running.run(planned[:2])
    assert before == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.*")}
    other = study.job(
        read(reviews, tmp_path), table.Run("by_time", "gru4rec-32", "static"), 0, f"base={planned[0].directory}"
    )
    with pytest.raises(UserError, match=r"its data\.roles is another"):  # of the same events
        running.run([other])

    policies = study.jobs(read(reviews, tmp_path, *more[:2], "updates=[retrain,replay]", "increments=2"))[1:3]
    assert [job.row.update for job in policies] == ["retrain", "replay"]
    for job in policies:  # with this base part they may begin
        parts = assemble(job.config)
        check_parts(parts, bases_of(job.config, parts.stream, None))

    runs = [(job.row, job.directory) for job in planned]
    text = table.table(runs, table.published_of(reviews), "item")
    assert table.published_of(reviews) == {}  # another file than the published one
    assert f"| last_train_item | gru4rec-32 | finetune | 1 |  |  |  | {static['ndcg@10']:.4f} |" in text
    assert "1 of 3 runs are not finished" in text


def written(folder: Path, *parts: tuple[dict[str, float], int]) -> Path:
    """A finished run with these metrics of so many events, by increment."""
    folder.mkdir()
    (folder / "summary.json").write_text("{}", encoding="utf-8")
    lines = ["trained_until,evaluated_on,metric,value,count"]
    for t, (values, count) in enumerate(parts, 1):
        lines += [f"{t - 1},{t},{metric},{value},{count}" for metric, value in values.items()]
        lines.append(f"{t - 1},{t},ndcg@10/cold_users,1.0,1")
    (folder / "evaluations.csv").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def test_the_table_has_published_and_measured_numbers_and_what_is_too_far(tmp_path: Path) -> None:
    def of(recall: float, ndcg: float) -> dict[str, float]:
        names = ("last-{}", "first-{}", "users-{}", "{}")
        return {name.format(m): v for name in names for m, v in (("recall@10", recall), ("ndcg@10", ndcg))}

    runs = [
        (table.Run("leave_one_out", "sasrec-29", "static"), written(tmp_path / "a", (of(0.0929, 0.0600), 9))),
        (table.Run("leave_one_out", "sasrec-29", "static"), written(tmp_path / "b", (of(0.0929, 0.0622), 9))),
        (table.Run("by_time", "sasrec-29", "static"), written(tmp_path / "c", (of(0.0419, 0.0300), 9))),
        (table.Run("by_time", "gru4rec-32", "static"), written(tmp_path / "d", (of(0.0500, 0.0111), 9))),
        (
            table.Run("by_time", "sasrec-29", "finetune"),
            written(tmp_path / "e", (of(0.05, 0.03), 10), (of(0.02, 0.06), 30)),
        ),
        (table.Run("by_user", "sasrec-29", "static"), tmp_path / "none"),
    ]
    text = table.table(runs, table.published(), "item")
    line = "| leave_one_out | sasrec-29 | last | 2 | 0.0929 | 0.0929 | +0.0 % | 0.0571 | 0.0611 | **+7.0 %** |"
    assert line in text
    assert "| leave_one_out | sasrec-29 | first |" not in text
    assert "| by_time | sasrec-29 | last | 1 | 0.0399 | 0.0419 | +5.0 % | 0.0228 | 0.0300 | **+31.6 %** |" in text
    assert "| by_time | gru4rec-32 | predictions | 1 | 0.0269 | 0.0500 |" in text
    # Means over events: (10 · .05 + 30 · .02) / 40 and (10 · .03 + 30 · .06) / 40.
    assert "| by_time | sasrec-29 | finetune | 1 | 0.0419 | 0.0275 | -34.4 % | 0.0300 | 0.0525 | +75.0 % |" in text
    assert "- sasrec-29, recall@10: leave_one_out > by_time: holds" in text
    assert "- by_time, ndcg@10: sasrec-29 > gru4rec-32: holds" in text
    assert "- by_time, recall@10: sasrec-29 > gru4rec-32: **reversed**" in text
    assert "1 of 6 runs are not finished" in text


def test_the_published_order_holds_in_the_published_numbers() -> None:
    known = table.published()
    points = [f"sasrec-{number}" for number in range(27, 54)]
    for metric in table.METRICS:
        means = [np.mean([known[split, point, "last", metric] for point in points]) for split in table.ORDER]
        assert means == sorted(means, reverse=True)
        for point in points:
            own = [known[split, point, "last", metric] for split in table.ORDER]
            assert own == sorted(own, reverse=True)
    # The means of the protocol's table.
    means = [np.mean([known[split, point, "last", "ndcg@10"] for point in points]) for split in table.ORDER]
    assert [round(float(value), 4) for value in means] == [0.0560, 0.0340, 0.0277, 0.0216]


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("rows=[sasrec-108]", "no point of the paper's grids"),
        ("rows=[gru4rec-36]", "no point of the paper's grids"),
        ("rows=[bert4rec-1]", "no point of the paper's grids"),
        ("splits=[by_item]", "splits: 'by_item' is not one of leave_one_out, by_time"),
        ("updates=[often]", "updates: 'often' is not one of finetune"),
        ("path=/nowhere", "expected the folder with interactions.csv"),
    ],
)
def test_what_the_study_does_not_know_is_refused(reviews: Path, tmp_path: Path, option: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read(reviews, tmp_path, option)


def test_points_count_the_widths_slowest_and_the_rates_fastest() -> None:
    assert study.point("sasrec-47")[1:] == ["model.width=64", "model.blocks=3", "model.heads=1", "model.dropout=0.5"]
    assert study.point("sasrec-65")[1:] == ["model.width=128", "model.blocks=2", "model.heads=1", "model.dropout=0.5"]
    assert study.point("gru4rec-112") == ["model=gru4rec_tied", "model.width=96", f"model.cell_limit={96**-0.5}"]
