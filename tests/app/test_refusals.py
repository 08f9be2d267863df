"""What Hydra refuses is told in one line, with what there is and what may be meant."""

import sys
from collections.abc import Callable

import pytest

from incremental.app import cli
from incremental.app.assemble import KEYS


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (
            "modle=sasrec",
            f"modle=sasrec: there is no such key; the configuration has {', '.join(KEYS)}; did you mean model?",
        ),
        (
            "trainng.epochs=2",
            f"trainng.epochs=2: there is no such key; the configuration has {', '.join(KEYS)}; did you mean "
            "training.epochs?",
        ),
        (
            "data.cut.increment=2",
            "data.cut.increment=2: there is no such key; data.cut has increments, base; did you mean "
            "data.cut.increments?",
        ),
        (
            "optimizer.lr=0.1",
            "optimizer.lr=0.1: there is no such key; optimizer has learning_rate, b1, b2, weight_decay, l2, clip, "
            "schedule, warmup, decay, accumulate, span",
        ),
        ("model.path=x", "model.path=x: there is no such key; model has decay"),
        (
            "strategies.teacher.temperature=-1",
            "strategies.teacher: no strategy of this name is chosen, so that strategies.teacher.temperature has no "
            "meaning; add +strategy@strategies.teacher=CHOICE, or leave it out",
        ),
        ("seed.x=1", "seed.x=1: there is no such key"),
        (
            "live.port=9",
            "live.port=9: the configuration has no node live; give experiment=live, or one of yours that has it",
        ),
        (
            "data.cleaning.behaviours=[cart]",
            "data.cleaning.behaviours=[cart]: the configuration leaves this key of its factory out; give it with a "
            "plus: +data.cleaning.behaviours=[cart]",
        ),
        ("+method=ewc", "+method=ewc: one is chosen already; choose another without the plus: method=ewc"),
        ("+model=sasrec", "+model=sasrec: one is chosen already; choose another without the plus: model=sasrec"),
        (
            "strategy=replay",
            "strategy=replay: its place is missing; give it as +strategy@strategies.replay=replay",
        ),
        ("text=encoded", "text=encoded: its place is missing; give it as +text@data.text=encoded"),
        ("feature=times", "feature=times: its place is missing; give it as +feature@data.features.times=times"),
        (
            "evaluation.metrics=ndcg@10",
            "evaluation.metrics: expected list[str or a node whose _target_ makes a Metric], got 'ndcg@10' (str); a "
            "list is given in brackets: 'evaluation.metrics=[ndcg@10]'",
        ),
        (
            "evaluation.metrics=[]",
            "evaluation.metrics=[]: expected one metric or more, such as [ndcg@10]; the first leads",
        ),
        (
            "data/cut=null",
            "data/cut=null: expected a name (at_quantile, counts, daily, fixed, leave_one_out, monthly, "
            "periods, weekly); for the default leave it out",
        ),
        (
            "training=null",
            "training=null: expected a node with _target_ and keys of its own; leave training as it is, "
            "and set its keys",
        ),
        (
            "evaluation.metrics=[1]",
            "evaluation.metrics: expected list[str or a node whose _target_ makes a Metric], got [1] (list)",
        ),
        ("~data.fold", "Could not delete from config. 'data.fold' does not exist"),
        ("hydra.launcher.n_jobs=2", "hydra.launcher.n_jobs=2: there is no such key"),
        ("hydra.sweep.dirr=x", "hydra.sweep.dirr=x: there is no such key; hydra.sweep has dir, subdir"),
        ("hydra/launcher=packd", "hydra/launcher=packd: there is basic, joblib, packed; did you mean packed?"),
    ],
)
def test_one_line_says_what_to_write(
    given: str, said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["incremental", "model=popularity", given])
    monkeypatch.delenv("HYDRA_FULL_ERROR", raising=False)
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert capsys.readouterr().err == f"error: {said}\n"


def test_a_key_within_one_that_is_left_out_is_answered_with_the_plus(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["incremental", "data=columns", "data.source.kinds.category=cat"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err.endswith("give it with a plus: +data.source.kinds.category=cat\n")


@pytest.mark.parametrize(
    ("situation", "given"),
    [
        ("a key that there is not", "training.epoch=2"),
        ("a key that is given with a plus", "data.cleaning.after=x"),
        ("a choice that is given to a key", "data.cut=weekly"),
    ],
)
def test_keys_are_documented(
    situation: str,
    given: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    documented: Callable[[str, object], None],
) -> None:
    monkeypatch.setattr(sys, "argv", ["incremental", given])
    with pytest.raises(SystemExit):
        cli.main()
    documented(situation, capsys.readouterr().err.strip())


def test_a_choice_that_there_is_not(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "argv", ["incremental", "-m", "seed=0,1", "model=sasrecs"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith("error: model=sasrecs: there is ")
    assert said.endswith("did you mean sasrec?\n")


def test_a_key_of_a_strategy_that_is_not_chosen_names_the_close_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["incremental", "method=replay", "strategies.relay.capacity=3"])
    with pytest.raises(SystemExit):
        cli.main()
    assert capsys.readouterr().err == (
        "error: strategies.relay: no strategy of this name is chosen, so that strategies.relay.capacity has no "
        "meaning; add +strategy@strategies.relay=CHOICE, or leave it out; did you mean strategies.replay.capacity?\n"
    )
