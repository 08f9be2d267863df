"""Whole runs in small: their files, what they refuse, what is read from them."""

import json
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest
from omegaconf import OmegaConf

from incremental.app.assemble import assemble
from incremental.app.bases import Store
from incremental.app.experiment import execute
from incremental.app.rundir import identity
from incremental.app.tracking import Tracker, tracked
from incremental.core.strategy import Strategy
from incremental.core.types import Problem
from incremental.errors import UserError
from incremental.report import read_runs
from incremental.run import loop
from incremental.run.progress import Cost, Epoch, EpochDone, Progress, Record, Resumed, Trained
from incremental.serve.export import export
from incremental.serve.model import load
from tests.app.small import BOTH, composed, only

pytestmark = pytest.mark.usefixtures("one_program")


def test_a_run_leaves_its_config_summary_evaluations_and_checkpoint(finished: Path) -> None:
    summary = json.loads((finished / "summary.json").read_text())
    assert summary["row"] == "memory+anchor"
    assert summary["increments"] == 2
    assert 0 < summary["metrics"]["ndcg@10"]["prequential"] < 1
    assert summary["metrics"]["ndcg@10"]["forgetting"] is not None  # the matrix was asked for
    assert summary["cost"]["examples"] > 0
    assert summary["cost"]["memory_bytes"] > 0
    assert (finished / "evaluations.csv").read_text().startswith("trained_until,evaluated_on,metric,value,count\n-1,0,")
    assert OmegaConf.load(finished / "config.yaml").strategies.anchor.samples == 16
    assert len(read_runs([finished]).finished[0].evaluations) > 0


def test_a_run_leaves_a_row_of_losses_and_validation_for_each_epoch(finished: Path) -> None:
    epochs = pl.read_csv(finished / "epochs.csv")
    assert epochs.columns == ["increment", "epoch", "loss", "validation", "term/data", "term/anchor"]
    summary = json.loads((finished / "summary.json").read_text())
    assert epochs.filter(pl.col("increment") > 0).height * 2 >= summary["increments"]
    assert epochs.select("increment", "epoch").is_duplicated().sum() == 0
    anchor = epochs["term/anchor"].fill_null(0.0)  # the base part is plain training
    np.testing.assert_allclose(epochs["loss"], epochs["term/data"] + anchor, rtol=1e-5)
    anchored = epochs.group_by("increment", maintain_order=True).agg(pl.col("term/anchor").max())["term/anchor"]
    assert anchored[0] is None
    assert min(anchored[1:]) > 0.0


def test_the_curves_of_epochs_and_increments_have_axes_of_their_own() -> None:
    """A run of two updates, of two epochs and one, stopped in a third; then the same again by `resumed`."""
    costs = [Cost(t, 1.0, 0.0, 0.0, 1.5, 8, 2 - t, 3, 0) for t in range(2)]
    ran = [Epoch(0, 1, 2.0, 0.1, {"data": 2.0}, {}), Epoch(0, 2, 1.0, None, {"data": 1.0}, {}),
           Epoch(1, 1, 3.0, 0.2, {"data": 2.5, "ewc": 0.5}, {"gpm/left_out": 4.0}), Epoch(2, 1)]  # fmt: skip
    tested = Record(0, 1, "ndcg@10", 0.3, 9)
    told: list[list[Any]] = [[], []]
    first, again = (
        tracked([Tracker(lambda *point, points=points: points.append(point), lambda _: None)]) for points in told
    )
    for epoch in ran[:2]:
        first(EpochDone(0, epoch))
    first(Trained(0, costs[0], ()))
    first(EpochDone(0, ran[2]))
    first(Trained(0, costs[1], (tested,)))
    first(EpochDone(0, ran[3]))
    again(Resumed(0, Progress(2, True, records=(tested,), costs=tuple(costs), epochs=tuple(ran))))
    assert told[0] == told[1]
    assert [(step, axis, values[axis]) for step, axis, values in told[0]] == [
        (0, "epoch", 1.0),
        (1, "epoch", 2.0),
        (2, "increment", 0.0),
        (3, "epoch", 3.0),
        (4, "increment", 1.0),
        (5, "epoch", 4.0),
    ]
    assert told[0][3][2] == {
        "epoch": 3.0,
        "train/loss": 3.0,
        "train/validation": 0.2,
        "train/term/data": 2.5,
        "train/term/ewc": 0.5,
        "report/gpm/left_out": 4.0,
    }
    assert told[0][4][2]["ndcg@10"] == 0.3
    assert told[0][4][2]["cost/examples"] == 8.0
    assert told[0][1][2].keys() == {"epoch", "train/loss", "train/term/data"}


def test_a_finished_run_is_not_run_again(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}
    config: Any = OmegaConf.to_container(OmegaConf.load(finished / "config.yaml"))
    assert execute({**config, "runs": str(finished.parent)}) is not None
    assert "finished" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.name != ".lock"}


def test_an_unwritable_run_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match=r"file.*cannot write the run's directory .*runs="):
        execute(composed(tmp_path / "file" / "runs"))


def exploding(problem: Problem) -> Strategy:
    """A strategy whose loss is NaN from the second increment on."""
    del problem

    def begin(state: Any, learner: Any, data: Any, key: Any) -> Any:
        del state, data, key
        return learner.increment, learner

    def loss(state: Any, params: Any, batch: Any, outputs: Any) -> Any:
        del params, batch, outputs
        return jnp.where(state >= 2, jnp.nan, 0.0)

    return Strategy(init=lambda _learner: jnp.int32(0), begin=begin, loss=loss)


def test_a_nan_stops_the_run_and_names_increment_step_and_strategy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed(tmp_path)
    monkeypatch.setitem(sys.modules, "plugin", SimpleNamespace(exploding=exploding))
    config["strategies"] = {"bomb": {"_target_": "plugin.exploding"}}
    with pytest.raises(UserError, match=r"increment 2, epoch 1, step 0, in the term\(s\) bomb"):
        execute(config)
    assert list((only(tmp_path) / "checkpoint").iterdir())


def test_a_factory_that_cannot_be_called_is_refused_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def bare(*, weight: float = 1.0) -> Strategy:
        return Strategy(loss=lambda *_: weight)

    def wide(width: int) -> None:
        del width

    monkeypatch.setitem(sys.modules, "plugin", SimpleNamespace(bare=bare, wide=wide))
    config = composed(tmp_path)
    strategies = {"mine": {"_target_": "plugin.bare"}}
    with pytest.raises(UserError, match=r"strategies\.mine: plugin\.bare does not fit here: too many positional"):
        assemble({**config, "strategies": strategies})
    with pytest.raises(UserError, match=r"model: plugin\.wide does not fit here: missing a required argument: 'width'"):
        assemble({**config, "model": {"_target_": "plugin.wide"}})


def test_a_run_that_diverges_before_its_first_save_leaves_what_happened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = composed(tmp_path)
    found = iter([None, UserError("the loss became NaN")])  # in the second epoch
    with monkeypatch.context() as patched:
        patched.setattr(loop, "divergence", lambda *_: next(found))
        with pytest.raises(UserError, match="the loss became NaN"):
            execute(config)
    directory = only(tmp_path)
    assert (directory / "error.txt").read_text() == "the loss became NaN\n"
    assert [line.split(",")[:2] for line in (directory / "epochs.csv").read_text().splitlines()[1:]] == [["0", "1"]]
    assert (directory / "evaluations.csv").exists()
    ((_, why),) = read_runs([tmp_path]).unfinished
    assert why == "no summary.json: the loss became NaN"
    execute(config)  # where it does not diverge, as on another device
    assert not (directory / "error.txt").exists()
    assert len(read_runs([tmp_path]).finished) == 1


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed=x", "seed='x': expected a whole number"),
        ("debug=inf", "debug=inf: expected null or nan"),
        ("training.batch_size=5000", r"training.batch_size=5000 is larger than the base part \(\d+ training events\)"),
        ("evaluation.metrics=[ndcg@900]", "K=900 is larger than the catalogue"),
        ("evaluation.metrics=[precision@3]", "expected one of recall@K"),
        ("training.epochs=0", "training.epochs=0: expected a whole number >= 1"),
        ("optimizer.learning_rate=fast", "optimizer.learning_rate: expected a number >= 0, got 'fast'"),
        ("data.heldout=1.5", "data.heldout=1.5: expected a number >= 0 and < 1"),
    ],
)
def test_bad_input_is_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        execute(composed(tmp_path, override))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["+strategy=replay"], r"strategy: unknown key; .*; did you mean \+strategy@strategies\.replay=replay\?"),
        (["+text=hashed_words"], r"text: .*; did you mean \+text@data\.text=hashed_words\?"),
        (["+learning_rate=0.1"], r"learning_rate: .*; did you mean optimizer\.learning_rate\?"),
        (["+learning_rte=0.1"], r"learning_rte: .*; did you mean optimizer\.learning_rate\?"),
        (["+epochs=3", "dry_run=true"], r"epochs: .*; did you mean training\.epochs\?"),
        (["+weight_decay=0.1", "optimizer=adamw"], r"did you mean optimizer\.weight_decay\?"),
        (["+sed=1"], r"sed: .*; did you mean seed\?"),
        (["strategies=replay"], r"strategies='replay': .*; did you mean \+strategy@strategies\.replay=replay\?"),
        (["+tracking.bogus=1", "dry_run=true"], r"tracking\.bogus: unknown key"),
    ],
)
def test_keys_that_nothing_reads_are_refused(tmp_path: Path, overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        execute(composed(tmp_path, *overrides))
    assert not list(tmp_path.iterdir())


def test_keys_of_nodes_that_the_run_does_not_use_are_refused_too(tmp_path: Path) -> None:
    config = composed(tmp_path, "+head.bogus=1")
    config["model"] = {"_target_": "incremental.models.popularity.popularity"}
    with pytest.raises(UserError, match=r"head\.bogus: unknown key"):
        execute(config)


def test_what_follows_from_other_keys_stands_in_the_config(tmp_path: Path) -> None:
    plain = composed(tmp_path, "evaluation.metrics=[recall@5,ndcg@10]")
    assert plain["training"]["metric"] == "recall@5"
    assert plain["data"]["heldout"] == 0.0
    said = composed(tmp_path, "evaluation.metrics=[recall@5,ndcg@10]", "training.metric=recall@5", "data.heldout=0.0")
    assert said == plain
    assert identity(said) == identity(plain)
    chosen = composed(tmp_path, "training.metric=mrr@2", "data.heldout=0.2", "evaluation.matrix=true")
    assert (chosen["training"]["metric"], chosen["data"]["heldout"]) == ("mrr@2", 0.2)
    assert composed(tmp_path, "evaluation.matrix=true")["data"]["heldout"] == 0.1


def test_a_metric_of_the_training_that_there_is_not_is_told_with_its_key(tmp_path: Path, documented: Any) -> None:
    with pytest.raises(UserError, match=r"^training\.metric: metric 'recal@5': expected one of recall@K") as error:
        assemble(composed(tmp_path, "training.metric=recal@5"))
    documented("a metric of the training that there is not", error.value)


def test_nothing_is_held_out_where_no_matrix_is_asked_for(tmp_path: Path) -> None:
    streams = [assemble(composed(tmp_path, *matrix)).stream for matrix in ([], ["evaluation.matrix=true"])]
    assert not streams[0].heldout.any()
    assert streams[1].heldout.mean() == pytest.approx(0.1, abs=0.01)


def test_what_decides_the_results_is_a_run_s_identity(tmp_path: Path) -> None:
    config = composed(tmp_path, *BOTH)
    turned = {**config, "strategies": dict(reversed(config["strategies"].items()))}
    whole = {**config, "devices": {**config["devices"], "tables": "whole"}}
    assert len({identity(each) for each in (config, turned, whole)}) == 3
    same = {**config, "runs": "elsewhere", "devices": {**config["devices"], "batch": 2}, "debug": "nan"}
    assert identity(dict(reversed(same.items()))) == identity(config)  # of other keys the order is nothing


def test_strategies_do_not_apply_to_models_without_gradients(tmp_path: Path) -> None:
    config = composed(tmp_path, *BOTH)
    config["model"] = {"_target_": "incremental.models.popularity.popularity"}
    with pytest.raises(UserError, match=r"strategies.anchor: .*popularity updates without gradients"):
        execute(config)


def test_an_anchor_and_a_fresh_start_are_refused(tmp_path: Path) -> None:
    config = composed(tmp_path, *BOTH)
    config["update"] = {"_target_": "incremental.run.policy.update", "window": "all", "start": "afresh"}
    with pytest.raises(UserError, match=r"strategies.anchor pulls towards earlier weights"):
        execute(config)


def test_jobs_share_functions_only_where_new_users_are_ranked_alike(tmp_path: Path) -> None:
    store, found = Store(), []
    for rule in ("popularity", "popularity", "model"):
        config = composed(tmp_path, f"evaluation.new_users={rule}")
        found.append((store.compiled(config, assemble(config)), store.of(config).key))
    assert found[0][0] is found[1][0] is not found[2][0]
    assert found[0][1] == found[1][1] != found[2][1]


def test_a_dry_run_compiles_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert execute(composed(tmp_path, "dry_run=true")) is None
    out = capsys.readouterr().out
    # user and item tables of 1,024 rows of 8, and a bias an item
    assert f"parameters: {1024 * 8 * 2 + 1024:,}" in out
    assert "working memory" in out
    assert not list(tmp_path.iterdir())


def test_a_dry_run_of_a_large_run_times_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a sweep it says two lines."""
    monkeypatch.setattr("incremental.app.experiment.available", lambda _: 1000)
    assert execute(composed(tmp_path, "dry_run=true"), Store()) is None
    head, why = capsys.readouterr().out.splitlines()
    assert head.startswith(f"dry run: {1024 * 8 * 2 + 1024:,} parameters; the state ")
    assert why.startswith("  more than the 1,000 bytes that are free, so that nothing was timed; lower training.batch")


def test_recommendations_leave_out_what_was_seen_and_are_sorted(finished: Path) -> None:
    model = load(finished)
    user = model.stream.interactions.users[1]
    had = {model.items[i] for i in model.stream.items_of(1)}
    found = model.recommend(user, k=20)
    assert len(found) == 20
    assert not had & {each.item for each in found}
    assert [each.score for each in found] == sorted((each.score for each in found), reverse=True)
    assert all(each.title for each in found)
    again = model.recommend(user, k=500, exclude_seen=False)
    assert had <= {each.item for each in again}
    with pytest.raises(UserError, match="user 'nobody' does not occur"):
        model.recommend("nobody")


def test_scores_are_the_models_own(finished: Path) -> None:
    model = load(finished)
    params = model.state.learner.params
    user = model.stream.interactions.users[3]
    expected = params["user"]["embedding"][3] @ params["item"]["embedding"].T + params["item_bias"]
    scores = model.scores([user], exclude_seen=False)[0]
    np.testing.assert_allclose(scores[model.seen], np.asarray(expected)[model.seen], rtol=1e-5)
    assert np.isneginf(scores[~model.seen]).all()
    for asked in (model.scores, model.representations):
        with pytest.raises(UserError, match=r"users='u1': expected a list of users; give \['u1'\]"):
            asked("u1")
        with pytest.raises(UserError, match="users: at most 256 at once, got 257"):
            asked([user] * 257)


def test_export_writes_embeddings_and_scores_and_overwrites_nothing(finished: Path, tmp_path: Path) -> None:
    paths = export(finished, tmp_path / "out", k=5)
    items, users, scores = (pl.read_parquet(path) for path in paths)
    model = load(finished)
    assert items.height == model.seen.sum()
    row = items.row(4, named=True)
    number = model.items.index(row["item"])
    np.testing.assert_array_equal(row["item/embedding"], model.state.learner.params["item"]["embedding"][number])
    assert users.height == len(model.users)
    first = scores.filter(pl.col("user") == users["user"][0])
    assert first["item"].to_list() == [each.item for each in model.recommend(users["user"][0], k=5)]
    with pytest.raises(UserError, match="exists and is not overwritten"):
        export(finished, tmp_path / "out")


def test_not_a_run_directory(tmp_path: Path) -> None:
    for path, why in ((tmp_path, "it has no config.yaml"), (tmp_path / "run-*", "there is no such folder")):
        with pytest.raises(UserError, match=rf"not a run directory \({why}\)"):
            load(path)


def test_a_strategys_factory_in_a_models_place_is_told(tmp_path: Path) -> None:
    config = composed(tmp_path)
    config["model"] = {"_target_": "incremental.strategies.l2_to_last.l2_to_last"}
    with pytest.raises(UserError, match=r"model: .*l2_to_last takes a problem, as a strategy's factory does; give it"):
        execute(config)
