"""A sweep's jobs: which share a program, what each leaves behind, and what does not stop the others."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from incremental.app import assemble, bases, board, cli, config, sweep
from incremental.app.bases import Store
from incremental.app.experiment import execute
from incremental.app.sweep import Job
from incremental.core.strategy import Strategy
from incremental.core.types import Problem
from incremental.errors import UserError
from incremental.report.settings import read_config
from incremental.run.feed import Feed
from tests.app.small import SMALL, composed

POPULARITY = {"_target_": "incremental.models.popularity.popularity"}
EWC = ["+strategy@strategies.anchor=ewc", "strategies.anchor.samples=16"]


# -- what may differ ---------------------------------------------------------------------------------------------------


def test_numbers_are_found_by_annotation(tmp_path: Path) -> None:
    values = composed(tmp_path, "model=sasrec", "head=bpr", "optimizer=adamw", "optimizer.clip=1", *EWC)
    found = assemble.floats(values)
    assert found["optimizer.clip"] == 1.0  # float | None, given as an int
    assert isinstance(found["optimizer.clip"], float)
    assert set(found) == {
        *("model.dropout", "model.limit", "head.power", "strategies.anchor.weight"),
        *(f"optimizer.{key}" for key in ("learning_rate", "b1", "b2", "weight_decay", "clip")),
    }


def inner(*, rate: float = 0.5, size: int = 2) -> tuple[float, int]:
    return rate, size


def outer(*, part: Any, either: float | int = 1, scale: float = 1.0) -> tuple[Any, ...]:
    return part, either, scale


def test_numbers_are_found_in_nodes_below_and_where_a_value_may_be_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plugin", SimpleNamespace(inner=inner, outer=outer))
    node = {"_target_": "plugin.outer", "part": {"_target_": "plugin.inner", "rate": 1, "size": 3}, "either": 2}
    assert config.floats({**node, "scale": 3}, "it") == {"it.part.rate": 1.0, "it.scale": 3.0}
    assert config.floats({**node, "either": 2.5}, "it") == {"it.part.rate": 1.0, "it.either": 2.5}


def test_jobs_whose_strategies_have_another_order_or_other_tables_share_no_program(tmp_path: Path) -> None:
    two = [*EWC, "+strategy@strategies.memory=replay"]
    config = composed(tmp_path, *two)
    turned = {**config, "strategies": dict(reversed(config["strategies"].items()))}
    jobs = [config, turned, composed(tmp_path, *two, "devices.tables=whole"), composed(tmp_path, *two, "seed=1")]
    assert [group for group, _ in sweep.grouped(dict(enumerate(jobs)))] == [[0, 3], [1], [2]]


def test_jobs_are_grouped_by_what_is_compiled(tmp_path: Path) -> None:
    plain = composed(tmp_path)
    jobs = [
        plain,
        {**plain, "seed": 1, "name": "other", "row": "other"},
        composed(tmp_path, "optimizer.learning_rate=0.5"),
        composed(tmp_path, "model.width=4"),
        composed(tmp_path, "optimizer.clip=1"),
        composed(tmp_path, "data.seed=1"),
        composed(tmp_path, "training.epochs=4"),
        composed(tmp_path, *EWC),
        composed(tmp_path, *EWC, "strategies.anchor.weight=5"),
        {**plain, "model": POPULARITY},
        composed(tmp_path, "optimizer.learning_rate=0.5"),
        composed(tmp_path, "optimizer.learning_rate=fast"),
        composed(tmp_path, "profile=true", "seed=2"),
        composed(tmp_path, "base=x", "seed=3"),
    ]  # a lane may begin with a base part of its own
    groups = sweep.grouped(dict(enumerate(jobs)))
    assert [group for group, _ in groups] == [[0, 1, 2, 13], [3], [4], [5], [6], [7, 8], [9], [10], [11], [12]]
    reasons = [why for _, why in groups]
    assert reasons[0] is reasons[5] is None
    assert reasons[1:5] == ["no other job has its program"] * 4
    assert str(reasons[6]).split(" ")[0] == POPULARITY["_target_"]
    assert "is an earlier job's" in str(reasons[7])
    assert reasons[8] == ""  # wrong by itself; that is said when it runs
    assert reasons[9] == "profile=True looks at one run"


HEADS = sorted(path.stem for path in (cli.config_folder() / "head").glob("*.yaml"))
MODELS = ("sasrec_small", "gru4rec", "matrix_factorization")
OPTIMIZERS = ("adamw", "sgd", "adagrad")


@pytest.mark.parametrize(
    "n", [0, *(pytest.param(n, marks=pytest.mark.slow) for n in range(1, max(len(HEADS), len(MODELS))))]
)
def test_every_number_of_models_heads_and_optimizers_may_be_traced(n: int, tmp_path: Path) -> None:
    head, model, optimizer = (choices[n % len(choices)] for choices in (HEADS, MODELS, OPTIMIZERS))
    extra = ["optimizer.weight_decay=0.1", "optimizer.clip=1", "training.epochs=1"]
    extra += ["optimizer.momentum=0.9"] if optimizer == "sgd" else []
    values = composed(tmp_path, f"model={model}", f"head={head}", f"optimizer={optimizer}", *extra)
    parts = assemble.assemble(values)
    numbers = assemble.floats(values)
    other = assemble.with_numbers(values, {key: value / 2 for key, value in numbers.items()})
    build, (own, _) = assemble.lanes([values, other], parts.stream)
    assert set(own) == {key for key, value in numbers.items() if value}
    feed, plan = Feed(parts.stream), parts.update.plan(0, [], {}, 0)
    sizes = feed.sizes(0, parts.stream.spec.inputs)
    data, validation, seen = feed.update(build(sizes, own), 0, plan, jax.device_put)  # type: ignore[arg-type]

    def first(numbers: Any) -> Any:
        program = build(sizes, numbers)
        state = program.begin(program.init(jax.random.key(0)), data)
        return program.end(program.validate(program.run_epoch(state, data)[0], validation, seen), data)

    jax.eval_shape(first, {key: jnp.float32(value) for key, value in own.items()})


# -- running -----------------------------------------------------------------------------------------------------------


def command(runs: Path, *overrides: str) -> list[str]:
    """The arguments of a sweep by the packed launcher."""
    return ["incremental", "-m", "hydra/launcher=packed", *SMALL, f"runs={runs}", *overrides]


def launched(monkeypatch: pytest.MonkeyPatch, runs: Path, *overrides: str) -> int:
    """The exit code of a sweep in this process."""
    return called(monkeypatch, *command(runs, *overrides))


def called(monkeypatch: pytest.MonkeyPatch, *line: str) -> int:
    """The exit code of a command line in this process."""
    monkeypatch.setattr(sys, "argv", list(line))
    try:
        cli.main()
    except SystemExit as stopped:
        return int(str(stopped.code or 0))
    return 0


def summaries(runs: Path) -> dict[str, Any]:
    """The finished runs' evaluations by identity."""
    files = runs.glob("*/summary.json")
    return {path.parent.name.rpartition("-")[2]: (path.parent / "evaluations.csv").read_text() for path in files}


def assert_same_table(one: str, other: str, atol: float = 1e-6) -> None:
    """The same evaluations, up to the order in which a program adds."""
    rows = [[line.split(",") for line in table.splitlines()[1:]] for table in (one, other)]
    assert [row[:3] + row[4:] for row in rows[0]] == [row[:3] + row[4:] for row in rows[1]]
    values = [[float(row[3] or "nan") for row in table] for table in rows]
    np.testing.assert_allclose(values[0], values[1], rtol=1e-4, atol=atol)


KILLED = """
import os, signal
from incremental.run import checkpoint
from incremental.app import cli
from tests import programs

programs.install()
checkpoint.SECONDS_BETWEEN, checkpoint.SHARE = 0.0, 1e9
original, saves = checkpoint.Checkpoints.save, 0

def killed(self, *args):
    global saves
    saves += 1
    if saves == 8:  # the first lane's fourth save is done: it is ahead of the other one
        os.kill(os.getpid(), signal.SIGKILL)
    original(self, *args)

checkpoint.Checkpoints.save = killed
cli.main()
"""


def test_a_killed_sweep_ends_with_the_table_of_the_runs_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    wanted = ["seed=0,1", "optimizer.learning_rate=0.01,1e38"]
    line = [sys.executable, "-c", KILLED, *command(tmp_path / "packed", *wanted)[1:]]
    with monkeypatch.context() as patch:
        patch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parents[2]), *sys.path]))
        assert subprocess.run(line, capture_output=True).returncode == -signal.SIGKILL
    assert not summaries(tmp_path / "packed")
    assert launched(monkeypatch, tmp_path / "packed", *wanted) == 1  # two diverge
    said = capsys.readouterr()
    assert said.out.count("continuing from its checkpoint") == 2
    assert said.err.count("the loss became NaN or infinite at increment 0") >= 2
    assert "checkpoint" not in said.err  # in the base part there may be none
    assert "error: seed=1 optimizer.learning_rate=1e+38" in said.err
    compiled = Store()  # without base parts to share, for each has another seed
    for seed in (0, 1):
        execute(composed(tmp_path / "alone", f"seed={seed}", "optimizer.learning_rate=0.01"), compiled)
    packed, alone = summaries(tmp_path / "packed"), summaries(tmp_path / "alone")
    assert packed.keys() == alone.keys()
    for name, text in alone.items():
        assert_same_table(packed[name], text)
    # What is finished is not run again, and gives its value.
    monkeypatch.setattr(sweep, "pack", None)
    assert launched(monkeypatch, tmp_path / "packed", "seed=0,1", "optimizer.learning_rate=0.01") == 0
    content = json.loads(next((tmp_path / "packed").glob("*/summary.json")).read_text())
    assert content["lanes"] == 4


def test_a_sweep_trains_each_base_part_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lanes leave theirs for lanes and for jobs alone; all rows then begin with one model, bit for bit."""
    kept: list[str] = []

    def keep(self: Any, base: Any) -> None:
        kept.append(self.key)
        self.store.kept[self.key] = base

    monkeypatch.setattr(bases.Shared, "keep", keep)
    rows: dict[str, list[str]] = {
        "finetune": [],
        "ewc": EWC,
        "window": ["update.window=2"],
        "replay": ["+strategy@strategies.memory=replay"],
    }
    short = ["optimizer=sgd", "optimizer.momentum=0.9", "training.patience=0"]  # programs of fewer parts
    jobs = [
        Job(f"{row} {seed}", composed(tmp_path, f"seed={seed}", f"row={row}", f"name={row}", *short, *line))
        for row, line in rows.items()
        for seed in ((0, 1) if row in ("finetune", "window") else (0,))
    ]
    outcomes = dict(zip([job.name for job in jobs], sweep.run(jobs), strict=True))
    assert len(kept) == len(set(kept)) == 2  # one a seed
    assert re.search(r"2 lanes on \d device\(s\), finetune: seed", capsys.readouterr().out)
    costs = {name: outcome["cost"] for name, outcome in outcomes.items()}  # type: ignore[index]
    for name in ("ewc 0", "window 0"):
        assert costs[name]["base_examples"] == costs["finetune 0"]["base_examples"]
    tested = {
        path.parent.name: [line for line in path.read_text().splitlines() if line.startswith("0,1,")]
        for path in tmp_path.glob("*-seed0-*/evaluations.csv")
    }
    assert len(tested) == len(rows)
    assert all(
        lines == next(iter(tested.values())) for lines in tested.values()
    )  # replay's too, which follows the steps


def test_a_baseline_goes_on_from_a_shared_base_part(tmp_path: Path) -> None:
    rows = {"finetune": 1, "static": 0}
    jobs = [
        Job(row, {**composed(tmp_path, f"update.window={window}"), "model": POPULARITY, "name": row, "row": row})
        for row, window in rows.items()
    ]
    assert all(isinstance(outcome, dict) for outcome in sweep.run(jobs))
    one, other = ((path / "evaluations.csv").read_text().splitlines() for path in sorted(tmp_path.iterdir()))
    assert [line for line in one if line.startswith("0,1,")] == [line for line in other if line.startswith("0,1,")]


def late_branching(problem: Problem, *, weight: float = 1.0) -> Strategy:
    """A hook that asks for a float's value; the base part does not call it."""
    del problem
    return Strategy(loss=lambda *_: weight if weight > 1.0 else 0.0)


def branching(problem: Problem, *, weight: float = 1.0) -> Strategy:
    """A factory that asks for a float's value."""
    del problem
    return Strategy() if weight > 1.0 else Strategy(loss=lambda *_: weight)


@pytest.mark.parametrize("factory", [branching, late_branching])
def test_a_number_that_python_asks_for_sends_its_jobs_alone(
    factory: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "plugin", SimpleNamespace(branching=factory))
    nodes = [{"mine": {"_target_": "plugin.branching", "weight": weight}} for weight in (0.5, 2.0)]
    configs = dict(enumerate({**composed(tmp_path), "strategies": node} for node in nodes))
    assert [why for _, why in sweep.grouped(configs)] == [None]
    outcomes: dict[int, Any] = {}
    why = sweep.pack(configs, board.Board(["", ""]), outcomes, Store())
    assert outcomes == {}
    assert "a lane's numbers cannot be traced: test_sweep.py:" in str(why)
    assert "boolean conversion" in str(why)


def test_a_job_that_cannot_run_stops_no_other(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    good = {**composed(tmp_path), "model": POPULARITY, "name": "popularity"}
    wrong = composed(tmp_path, "optimizer.learning_rate=fast")
    unread = UserError("strategies.x: no such thing")
    outcomes = sweep.run([Job("a", unread), Job("b", wrong), Job("c", good)])
    assert outcomes[0] is unread
    assert isinstance(outcomes[1], UserError)
    assert isinstance(outcomes[2], dict)
    assert outcomes[2]["status"] == "finished"
    said = capsys.readouterr()
    assert "error: a: strategies.x" in said.err
    assert "error: b: optimizer.learning_rate: expected a number >= 0, got 'fast'" in said.err
    assert "updates without gradients): c" in said.out
    assert "over already" not in said.out
    sweep.run([Job("a", unread), Job("c", good)])
    assert "1 of 2 jobs are over already\n" in capsys.readouterr().out


def test_a_sweep_in_the_current_folder_has_the_folders_name_in_its_tracker(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    source = ["data.source.events=1200", "data.source.users=60", "data.source.items=80", "data.cut.increments=1"]
    line = ["-m", "method=popularity", "seed=0", "runs=.", "tracking.mode=disabled", *source]
    assert called(monkeypatch, "incremental", *line) == 0
    (config,) = tmp_path.glob("popularity-*/config.yaml")
    assert read_config(config)["tracking"]["group"] == tmp_path.name


def test_the_best_so_far_and_the_time_left(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(board.time, "monotonic", lambda: now)
    view = board.Board(["one", "two"])
    group = view.open("both", [0, 1], [60, 20, 20], "ndcg@10")
    view.moved(group, 0, 1)
    group.quality = {0: [0.1, 0.3], 1: [0.4]}
    assert view.best(group) == "ndcg@10 0.4000 (two)"
    now = 131.0  # 0.6 of 2 jobs in 31 s
    assert view.left() == "about 72 s left at the pace so far"
    view.failed(1, UserError("no"))
    assert view.left() == "about 21 s left at the pace so far"  # 0.4 of a job, by 0.6 in 31 s: what failed was not done
    assert group.parts == {0: 1}


@pytest.mark.slow
def test_every_launcher_gives_the_table_of_the_basic_one(tmp_path: Path) -> None:
    pytest.importorskip("hydra_plugins.hydra_joblib_launcher")
    study = [override for override in SMALL if not override.startswith(("model", "name="))]
    study += ["experiment=strategies", "seed=0,1", "method=finetune,ewc,popularity"]
    tables = {}
    for launcher in ("basic", "packed", "joblib"):
        arguments = ["-m", f"hydra/launcher={launcher}", *study, f"runs={tmp_path / launcher}"]
        done = subprocess.run([sys.executable, "-m", "incremental", *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        tables[launcher] = summaries(tmp_path / launcher)
    assert len(tables["basic"]) == 6
    assert tables["joblib"] == tables["basic"]
    assert tables["packed"].keys() == tables["basic"].keys()
    for run, table in tables["basic"].items():
        assert_same_table(tables["packed"][run], table, atol=0.002)  # sums in another order may change a rank


def test_a_job_that_fails_under_the_basic_launcher_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    study = [override for override in SMALL if not override.startswith("model")]
    monkeypatch.setattr(sys, "argv", ["incremental", "-m", *study, "model=popularity", "seed=-x,1", f"runs={tmp_path}"])
    with pytest.raises(SystemExit, match="1"):
        cli.main()
    said = capsys.readouterr().err
    assert said.startswith("error: seed='-x': expected a whole number\n")
    assert "Traceback" not in said
    assert len(summaries(tmp_path)) == 1
