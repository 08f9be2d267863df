"""A job that cannot be composed stops no other, whatever launches them, and the end of a sweep says which failed."""

import sys
from collections.abc import Callable, Sequence
from typing import Any

import hydra
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.core.utils import JobReturn, JobStatus
from hydra.errors import CompactHydraException

from incremental.app import assemble, cli, jobs
from incremental.app.experiment import check_options
from incremental.errors import UserError

GOOD, WRONG, NOWHERE = ["method=ewc", "strategies.ewc.weight=1"], ["strategies.ewc.weight=1"], ["model=nobody"]


class Launcher:
    """Notes what it was given, and returns a value for each job."""

    def __init__(self) -> None:
        self.given: list[Any] = []

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        self.given.append((list(job_overrides), initial_job_idx))
        results = []
        for job in job_overrides:
            result = JobReturn()
            result.overrides, result.status, result.return_value = job, JobStatus.COMPLETED, 0.5
            results.append(result)
        return results


def launched(launcher: Launcher, given: list[list[str]]) -> list[JobReturn]:
    with hydra.initialize_config_dir(str(cli.config_folder()), version_base="1.3"):
        config = hydra.compose("config", return_hydra_config=True)
        return jobs.launched(launcher, GlobalHydra.instance().config_loader(), config, given, 7)


def test_the_others_run_and_each_result_is_its_jobs(capsys: pytest.CaptureFixture[str]) -> None:
    launcher = Launcher()
    results = launched(launcher, [WRONG, GOOD, NOWHERE])
    assert launcher.given == [([GOOD], 7)]
    assert [result.status for result in results] == [JobStatus.FAILED, JobStatus.COMPLETED, JobStatus.FAILED]
    assert [result.overrides for result in results] == [WRONG, GOOD, NOWHERE]
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(": ")[2].partition(":")[0] for line in said] == ["strategies.ewc.weight=1", "model=nobody"]
    assert "strategies.ewc: no strategy of this name is chosen, so that strategies.ewc.weight has no" in said[0]
    assert said[0].endswith(" (methods with keys of their own are rows of a study: study=FILE, docs/sweeps.md)")
    assert "model=nobody: there is association_rules, behaviour, " in said[1]
    nothing = Launcher()
    assert len(launched(nothing, [WRONG])) == 1
    assert nothing.given == []


def test_a_wrong_key_is_told_as_in_a_run_alone(capsys: pytest.CaptureFixture[str]) -> None:
    wrong = [["sed=0"], ["optimizer.learning_rat=0.1"], ["method=ewc", "strategies.ewc.wieght=1"], NOWHERE]
    wrong.append(["method=item_knn", "model.decay=0.5"])
    launched(Launcher(), wrong)
    said = capsys.readouterr().err.splitlines()
    assert said[0].startswith("error: sed=0: sed=0: there is no such key; the configuration has ")
    assert "did you mean seed?" in said[0]
    assert "did you mean optimizer.learning_rate?" in said[1]
    assert "strategies.ewc.wieght=1: there is no such key; strategies.ewc has weight, " in said[2]
    assert "did you mean strategies.ewc.weight?" in said[2]
    assert "study" not in said[3]
    assert "model.decay=0.5: there is no such key; model has " in said[4]
    assert said[4].endswith(" (methods with keys of their own are rows of a study: study=FILE, docs/sweeps.md)")


def test_the_end_says_which_failed(capsys: pytest.CaptureFixture[str]) -> None:
    results = launched(Launcher(), [WRONG, GOOD])
    capsys.readouterr()
    with pytest.raises(SystemExit) as ended:
        jobs.summed_up([WRONG, GOOD], results)
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert said.startswith("1 of 2 jobs failed:\n")
    jobs.summed_up([GOOD], results[1:])
    assert capsys.readouterr().err == ""
    mistake = jobs.failed(WRONG, "")
    mistake.return_value = ZeroDivisionError("by zero")
    with pytest.raises(ZeroDivisionError):  # no user's mistake: its traceback is wanted
        jobs.summed_up([WRONG], [mistake])


@pytest.mark.parametrize("launcher", ["basic", "packed"])
def test_a_whole_sweep_of_such_jobs(
    launcher: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["-m", f"hydra/launcher={launcher}", "method=finetune,retrain", "strategies.ewc.weight=1,2"]
    monkeypatch.setattr(sys, "argv", ["incremental", *given, f"runs={tmp_path}"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 1
    said = capsys.readouterr().err
    assert "4 of 4 jobs failed:" in said
    for method in ("finetune", "retrain"):
        for weight in (1, 2):
            assert f"  method={method} strategies.ewc.weight={weight}: strategies.ewc: no strategy of this name" in said


def test_a_value_for_a_strategy_that_is_not_chosen(documented: Callable[[str, object], None]) -> None:
    values = cli.resolved(cli.composed(["method=replay", "++strategies.ewc.weight=10"])[0])
    with pytest.raises(UserError) as error:
        assemble.refuse_unknown(values)
    assert str(error.value).startswith("strategies.ewc: no strategy of this name is chosen")
    documented("a key of a strategy that is not chosen", error.value)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_that_is_anothers_is_refused(seed: int) -> None:
    values = cli.resolved(cli.composed([f"seed={seed}"])[0])
    with pytest.raises(UserError, match=f"seed={seed}: expected a whole number from 0 to 4294967295"):
        check_options(values)


def test_a_debug_that_a_command_line_reads_as_a_number() -> None:
    for written in ("nan", "NaN", "'nan'"):
        values = assemble.completed(cli.resolved(cli.composed([f"debug={written}"])[0]))
        assert values["debug"].lower() == "nan"
    check_options(assemble.completed(cli.resolved(cli.composed(["debug=nan"])[0])))


def test_a_failure_under_debug_nan_stops_no_other_job(monkeypatch: pytest.MonkeyPatch) -> None:
    def diverged(*_: object) -> None:
        raise FloatingPointError("invalid value (nan) encountered in mul")

    monkeypatch.setattr(cli, "read", diverged)
    monkeypatch.setattr(cli.HydraConfig, "get", lambda: type("Config", (), {"mode": cli.RunMode.MULTIRUN}))
    with pytest.raises(CompactHydraException, match="nan"):
        cli.job.__wrapped__(None)
