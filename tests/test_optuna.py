"""A search by Optuna: what a command line asks for, what a kill leaves, and that the reported part is not read."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import polars as pl
import pytest
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import OmegaConf

from incremental.app import cli
from incremental.data.simulator import simulate
from incremental.report import read_runs
from tests.app.small import SMALL

optuna = pytest.importorskip("optuna")
_core = pytest.importorskip("hydra_plugins.incremental_optuna._core")

CONTEXT: Any = SimpleNamespace(config_loader=SimpleNamespace(load_sweep_config=lambda *_: None))
RATE = "optimizer.learning_rate"
SETTINGS: dict[str, Any] = {"increments": 2, "trials": 7, "generation": 3, "sampler": "TPESampler", "seed": 0}


def test_what_varies_is_searched_and_the_seed_is_averaged_over() -> None:
    params = ["a=1,2,3", f"{RATE}=1", "seed=0,1,2"]
    line = [f"{RATE}=tag(log,interval(0.001,1))", "model.width=int(interval(2,9))", "+b={x:1}", "seed=4,5", "c='d e'"]
    search = _core.searched([*params, *line], CONTEXT)
    assert search.space == {
        "a": optuna.distributions.CategoricalDistribution(["1", "2", "3"]),
        RATE: optuna.distributions.FloatDistribution(0.001, 1.0, log=True),
        "model.width": optuna.distributions.IntDistribution(2, 9),
    }
    jobs = search.jobs({"a": "2", RATE: 0.0123456, "model.width": 3}, increments=4)
    common = ["+b={x:1}", "c='d e'", "a=2", f"{RATE}=0.01235", "model.width=3", "++data.until=4"]
    assert jobs == [[*common, "seed=4"], [*common, "seed=5"]]
    assert _core.searched([*params, "seed=7", f"{RATE}=1,2"], CONTEXT).jobs({}, 1) == [["seed=7", "++data.until=1"]]


class Launcher:
    """Runs no job; the value of each is by its overrides."""

    def __init__(self, value: Callable[[dict[str, str]], float | None], launches: int = 99) -> None:
        self.value, self.launches = value, launches

    def launch(self, jobs: Sequence[Sequence[str]], initial_job_idx: int) -> list[JobReturn]:
        del initial_job_idx
        self.launches -= 1
        if self.launches < 0:
            raise KeyError("killed")
        returns = [JobReturn() for _ in jobs]
        for job, made in zip(jobs, returns, strict=True):
            value = self.value(dict(override.split("=", 1) for override in job))
            made.status = JobStatus.COMPLETED if value is not None else JobStatus.FAILED
            made.return_value = value if value is not None else ValueError("diverged")
        return returns


def quality(job: dict[str, str]) -> float | None:
    """Best at a rate of 0.5; the second seed is better by 1, and fails near 1."""
    rate = float(job[RATE])
    return None if job["seed"] == "1" and rate > 0.9 else float(job["seed"]) - (rate - 0.5) ** 2


def searched(folder: Path, launcher: Any, *arguments: str, **settings: Any) -> dict[str, Any]:
    """The trials by number, after a search of the rate with two seeds."""
    config = OmegaConf.create({"evaluation": {"metrics": ["ndcg@10"]}, "hydra": {"sweep": {"dir": str(folder)}}})
    line = [f"{RATE}=interval(0,1)", "seed=0,1", f"runs={folder}", *arguments]
    _core.sweep(launcher, CONTEXT, config, line, params={}, **{**SETTINGS, **settings})
    return {trial.number: (trial.params, trial.value, trial.state.name) for trial in trials(folder)}


def trials(folder: Path) -> Any:
    storage = optuna.storages.JournalStorage(optuna.storages.journal.JournalFileBackend(str(folder / _core.JOURNAL)))
    return optuna.load_study(study_name="tuning", storage=storage).trials


def test_a_killed_search_goes_on_with_the_same_trials(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    whole = searched(tmp_path / "whole", Launcher(quality))
    assert len(whole) == 7
    assert len({str(params) for params, *_ in whole.values()}) == 7
    for launches in (0, 1, 2):
        with pytest.raises(KeyError):
            searched(tmp_path / str(launches), Launcher(quality, launches))
        assert sum(trial.state.is_finished() for trial in trials(tmp_path / str(launches))) == 3 * launches
        assert searched(tmp_path / str(launches), Launcher(quality)) == whole
    done = Launcher(quality, 0)
    assert searched(tmp_path / "whole", done) == whole  # nothing is left to do
    assert len(searched(tmp_path / "whole", Launcher(quality), trials=9)) == 9
    said = capsys.readouterr().out.splitlines()
    text = (tmp_path / "2" / _core.CHOSEN).read_text().splitlines()
    value, best = max((value, number) for number, (_, value, _) in whole.items() if value is not None)
    assert value == pytest.approx(0.5, abs=0.1)
    about = f"# ndcg@10 {value:.4f} on increments 1 to 2, the mean over seeds 0,1, trial {int(best) + 1} of 7"
    assert text == [about, f"{RATE}={whole[best][0][RATE]:.4g}"]
    assert f"  next: incremental -m hydra/launcher=basic {text[1]} seed=0,1 runs={tmp_path}/2-chosen" in said
    assert f"        incremental-report {tmp_path}/2-chosen --after 2" in said


@pytest.mark.parametrize("killed_at", [1, 3, 4, 6])  # of seven trials, in generations of three
def test_a_search_that_is_killed_while_it_asks_has_all_its_trials(
    killed_at: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    space = "model.width=int(interval(2,9))"
    whole = searched(tmp_path / "whole", Launcher(quality), space)
    suggest, asked = optuna.trial.Trial._suggest, []

    def killed(self: Any, name: str, distribution: Any) -> Any:
        asked.append(name)
        if len(asked) == 2 * killed_at:  # the second value of the trial
            raise KeyError("killed")
        return suggest(self, name, distribution)

    with monkeypatch.context() as patched:
        patched.setattr(optuna.trial.Trial, "_suggest", killed)
        with pytest.raises(KeyError):
            searched(tmp_path / "killed", Launcher(quality), space)
    found = searched(tmp_path / "killed", Launcher(quality), space)
    assert [*whole.values()] == [one for number, one in found.items() if number != killed_at - 1]
    first, second = ((tmp_path / name / _core.CHOSEN).read_text() for name in ("whole", "killed"))
    assert first == second
    assert searched(tmp_path / "killed", Launcher(quality, 0), space) == found  # nothing is left to do


def test_a_search_in_the_current_folder_names_the_next_one_beside_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (here := tmp_path / "my search").mkdir()
    monkeypatch.chdir(here)
    searched(Path(), Launcher(quality), trials=1)
    assert f"        incremental-report '{tmp_path}/my search-chosen' --after 2" in capsys.readouterr().out.splitlines()


def test_a_trial_that_fails_has_no_value_and_stops_no_other(tmp_path: Path) -> None:
    found = searched(tmp_path, Launcher(quality), f"{RATE}=0.95,0.5", sampler="RandomSampler")
    assert {params[RATE] for params, *_ in found.values()} == {"0.5", "0.95"}
    for params, *told in found.values():
        assert told == ([0.5, "COMPLETE"] if params[RATE] == "0.5" else [None, "FAIL"])


@pytest.mark.parametrize(
    ("settings", "arguments", "message"),
    [
        ({"increments": None}, [], "hydra.sweeper.increments=None: expected n, 1 or more: hyper-parameters are chosen"),
        ({"trials": 0}, [], "hydra.sweeper.trials=0: expected 1 or more"),
        ({"sampler": "Best"}, [], "hydra.sweeper.sampler=Best: expected a class of optuna.samplers"),
        ({"sampler": "GridSampler"}, [], "hydra.sweeper.sampler=GridSampler: expected a class of optuna.samplers that"),
        ({}, [f"{RATE}=0.1"], "nothing to search; give a key an interval or several values"),
        ({}, [f"{RATE}=tag(log,interval(0,1))"], "learning_rate=tag(log,interval(0,1)): "),
        ({}, ["+x=1"], "another search is kept there"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], settings: Any, arguments: list[str], message: str
) -> None:
    searched(tmp_path, Launcher(quality), trials=1)
    with pytest.raises(SystemExit):
        searched(tmp_path, Launcher(quality), *arguments, **settings)
    assert message in capsys.readouterr().err


def test_where_no_trial_has_a_value_the_search_stops_and_may_go_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        searched(tmp_path, Launcher(lambda _: None))
    said = capsys.readouterr().err
    assert "no trial gave a value; mend what is wrong and start the same command again, or, where the command" in said
    assert searched(tmp_path, Launcher(quality)) == searched(tmp_path / "other", Launcher(quality))


def written(path: Path, *, spoilt: bool) -> None:
    """2,000 events, half of them in three increments; the last one may be other users' with other items."""
    frame = simulate(users=60, items=80, events=2000, days=20).frame.select("user", "item", "time")
    late = pl.int_range(pl.len()) >= 1667
    if spoilt:
        frame = frame.with_columns(pl.when(late).then(pl.col(key) + "x").otherwise(key) for key in ("user", "item"))
    frame.write_csv(path)


def test_the_reported_part_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = ["data=columns", "data.source.path=events.csv", "data.cut.increments=3"]
    line = [override for override in SMALL if not override.startswith(("data", "model"))]
    line += ["data.history=8", "seed=0,1", "model=popularity", "model.decay=tag(log,interval(0.01,1))"]  # soon compiled
    line += ["hydra/sweeper=optuna", "hydra/launcher=packed"]
    line += ["hydra.sweeper.increments=2", "hydra.sweeper.trials=2", "hydra.sweeper.generation=2"]
    found = []
    for spoilt in (False, True):
        written(tmp_path / "events.csv", spoilt=spoilt)
        runs = Path(f"runs-{spoilt}")
        monkeypatch.setattr(sys, "argv", ["incremental", "-m", *source, *line, f"runs={runs}"])
        cli.main()
        finished = read_runs([runs]).finished  # the directories' hashes differ: a file was changed
        tables = {
            (run.seed, run.settings["model.decay"]): Path(run.directory or "", "evaluations.csv").read_text()
            for run in finished
        }
        own = [(trial.params, trial.value, trial.state.name) for trial in trials(runs)]
        found.append((own, tables, (runs / _core.CHOSEN).read_text()))
    assert found[0] == found[1]
    assert len(found[0][1]) == 4
    for run in read_runs(["runs-False"]).finished:
        assert run.increments == 2
        assert max(row[1] for row in run.evaluations) == 2
    # What is chosen is the best by the runs' own summaries, a mean over the seeds.
    by_decay: dict[float, list[float]] = {}
    for run in read_runs(["runs-False"]).finished:
        by_decay.setdefault(float(str(run.settings["model.decay"])), []).append(
            run.metrics["ndcg@10"]["prequential"] or 0.0
        )
    best = max(by_decay, key=lambda decay: sum(by_decay[decay]))
    assert float(found[0][2].splitlines()[1].partition("=")[2]) == best
