"""The board and the console show names as they are, and what was not measured as that."""

import io
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console as Terminal

from incremental.app import cli, console, sweep
from incremental.app.bases import Store
from incremental.app.board import Board
from incremental.app.console import Console
from incremental.app.sweep import Job
from incremental.errors import UserError
from incremental.run.progress import Cost, Epoch, EpochDone, Progress, Record, Resumed, Trained
from tests.app.small import composed

POPULARITY = {"_target_": "incremental.models.popularity.popularity"}


def trained(value: float) -> Trained:
    return Trained(0, Cost(1, 1.0, 0.0, 0.0, 1.5, 10, 1, 5, 0), (Record(0, 1, "ndcg@10", value, 0),))


def test_names_are_no_markup_on_the_board() -> None:
    board = Board(["row=[/b]", "row=[red]x"])
    group = board.open("2 lanes: [/bold] :smile:", [0, 1], [10, 10], "ndcg@10")
    consume = board.seats(group)
    consume(trained(math.nan))
    assert board.best(group) == ""  # nothing was measured
    consume(trained(0.5))
    out = io.StringIO()
    Terminal(file=out, width=200).print(board.table())
    assert "[/bold] :smile:" in out.getvalue()
    assert "ndcg@10 0.5000 (row=[/b])" in out.getvalue()


def test_the_best_is_called_a_mean_for_it_may_fall(capsys: pytest.CaptureFixture[str]) -> None:
    board = Board(["row=a"])
    consume = board.seats(board.open("1 lane", [0], [10, 10], "ndcg@10"))
    consume(trained(0.5))
    consume(trained(0.3))
    first, second = [line for line in capsys.readouterr().out.splitlines() if "best" in line]
    assert "best mean so far ndcg@10 0.5000 (row=a);" in first
    assert "best mean so far ndcg@10 0.4000 (row=a);" in second
    out = io.StringIO()
    Terminal(file=out, width=200).print(board.table())
    assert "best mean so far" in out.getvalue()


def test_a_test_before_the_checkpoint_counts_once() -> None:
    """A run that goes on in the middle of an increment's training tells that increment's test again at its end."""
    board = Board(["row=a"])
    group = board.open("1 lane", [0], [10, 10, 10], "ndcg@10")
    consume = board.seats(group)
    tests = tuple(Record(t - 1, t, "ndcg@10", value, 10) for t, value in ((1, 0.1), (2, 0.4)))
    consume(Resumed(0, Progress(2, begun=True, records=tests)))
    assert board.best(group) == "ndcg@10 0.1000 (row=a)"
    consume(Trained(0, Cost(2, 1.0, 0.0, 0.0, 1.5, 10, 1, 5, 0), tests[1:]))
    assert board.best(group) == "ndcg@10 0.2500 (row=a)"


def test_a_quality_that_was_not_measured_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    Console(2, 1, "ndcg@10")(trained(math.nan))
    said = capsys.readouterr().out
    assert "increment 1/2: ndcg@10 not measured before its update; trained 10 examples in 1 epoch, 1.0 s" in said
    config: Any = {"evaluation": {"metrics": ["ndcg@10"]}}
    assert cli.headline(config, {"metrics": {"ndcg@10": {"prequential": None}}}) is None


def test_an_epoch_says_what_there_is_of_it(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", -1.0)
    shown = Console(2, 1, "ndcg@10")
    shown(EpochDone(0, Epoch(0, 1)))  # without gradients there is no loss
    shown(EpochDone(0, Epoch(1, 1, 0.5, 0.25)))
    first, second = capsys.readouterr().out.splitlines()
    assert first == "    base part, epoch 1 of at most 1"
    assert second == "    increment 1/2, epoch 1 of at most 1: loss 0.5000, validation 0.2500"


def test_a_run_that_was_killed_after_its_last_save_goes_on_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    shown = Console(2, 1, "ndcg@10")
    for progress in (Progress(2), Progress(2, begun=True), Progress(3)):
        shown(Resumed(0, progress))
    first, second, third = capsys.readouterr().out.splitlines()
    assert first == "  continuing from the checkpoint: increment 2/2"
    assert second == "  continuing from the checkpoint: increment 2/2 (in its training)"
    assert third == "  continuing from the checkpoint: its end"


def test_what_the_disk_refuses_one_job_does_not_stop_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def execute(config: Any, _store: Store) -> dict[str, Any]:
        if config["seed"] == 0:
            raise OSError(28, "No space left on device", "checkpoint")
        return {"seed": config["seed"]}

    monkeypatch.setattr(sweep, "execute", execute)
    jobs = [Job(f"seed={seed}", {**composed(tmp_path), "model": POPULARITY, "seed": seed}) for seed in (0, 1)]
    first, second = sweep.run(jobs)
    assert isinstance(first, UserError)
    assert second == {"seed": 1}
    assert "error: seed=0: checkpoint: the disk is full" in capsys.readouterr().err


def test_the_jobs_of_a_sweep_say_a_note_once() -> None:
    store = Store()
    assert store.unsaid(["a", "b"]) == ["a", "b"]
    assert store.unsaid(["b", "c"]) == ["c"]


def test_a_broken_compilation_cache_is_one_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], documented: Callable[[str, object], None]
) -> None:
    monkeypatch.setattr("jax.config.update", lambda *_: None)
    said = []
    for verb in ("reading", "writing"):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            cli.compilation_cache()
            cli.compilation_cache()  # of the second run of a process
            for name in ("jit_f", "jit_g", "jit_f"):
                text = f"Error {verb} persistent compilation cache entry for '{name}': OSError: cut off"
                warnings.warn(text, stacklevel=1)
            with pytest.raises(UserWarning, match="another"):
                warnings.warn("another", stacklevel=1)
        said.append(capsys.readouterr().err)
        assert said[-1].count("\n") == 1
    read, written = (re.sub(r"cache \S+ cannot", "cache FOLDER cannot", text) for text in said)
    documented("a compilation cache with broken entries", read)
    documented("a compilation cache that cannot be written", written)
