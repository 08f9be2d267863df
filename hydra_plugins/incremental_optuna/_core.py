"""Optuna's trials as jobs of a launcher, a generation at a time; what is kept in the folder lets a search go on."""

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext
from omegaconf import DictConfig, OmegaConf

from incremental.app.jobs import launched
from incremental.errors import UserError
from incremental.report.direction import is_quality
from incremental.shell import reported

try:
    import optuna
    from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
    from optuna.storages import JournalStorage
    from optuna.storages.journal import JournalFileBackend
    from optuna.trial import TrialState
except ModuleNotFoundError as error:
    raise UserError(f'hydra/sweeper=optuna: {error}; pip install -e ".[optuna]"') from None

JOURNAL, CHOSEN = "tuning.journal", "chosen.txt"


class Search(NamedTuple):
    """What a command line asks for."""

    space: dict[str, BaseDistribution]  # by key
    fixed: dict[str, str]  # overrides that all jobs have, by key
    seeds: list[str]  # each trial runs with all of them; none: with the config's

    def jobs(self, params: Mapping[str, Any], increments: int) -> list[list[str]]:
        """The overrides of one trial's jobs, one a seed."""
        common = [*self.fixed.values(), *overrides(params), f"++data.until={increments}"]
        return [[*common, f"seed={seed}"] for seed in self.seeds] or [common]

    def identity(self, **settings: Any) -> str:
        """What must be the same when a search goes on."""
        space = {key: repr(distribution) for key, distribution in self.space.items()}
        return json.dumps([space, {**self.fixed, "runs": None}, self.seeds, settings], sort_keys=True)


def searched(arguments: Sequence[str], context: HydraContext) -> Search:
    """Reads a command line: what varies is searched, but for the seed."""
    search = Search({}, {}, [])
    for override in OverridesParser.create(config_loader=context.config_loader).parse_overrides(list(arguments)):
        key = override.get_key_element()
        search.space.pop(key, None)  # the last one counts
        search.fixed.pop(key, None)
        if key == "seed":
            search.seeds.clear()
        if override.is_interval_sweep():
            search.space[key] = interval(override)
        elif not override.is_sweep_override():
            search.fixed[key] = f"{key}={override.get_value_element_as_str()}"
        elif key == "seed":
            search.seeds.extend(override.sweep_string_iterator())
        else:
            search.space[key] = CategoricalDistribution(list(override.sweep_string_iterator()))
    if not search.space:
        raise UserError(
            "hydra/sweeper=optuna: nothing to search; give a key an interval or several values, such as "
            "'optimizer.learning_rate=tag(log,interval(0.0001,0.01))'"
        )
    return search


def interval(override: Override) -> BaseDistribution:
    """A range of numbers: of whole ones for `int(interval(…))`, logarithmic for `tag(log,interval(…))`."""
    value: Any = override.value()
    whole = isinstance(value.start, int) and isinstance(value.end, int)
    make = IntDistribution if whole else FloatDistribution
    try:
        return make(value.start, value.end, log="log" in value.tags)
    except ValueError as error:
        raise UserError(f"{override.input_line}: {error}") from None


def overrides(params: Mapping[str, Any]) -> list[str]:
    """A trial's values on the command line, numbers with four digits."""
    return [f"{key}={value:.4g}" if isinstance(value, float) else f"{key}={value}" for key, value in params.items()]


def sweep(
    launcher: Launcher,
    context: HydraContext,
    config: DictConfig,
    arguments: Sequence[str],
    *,
    increments: int | None,
    trials: int,
    generation: int,
    sampler: str,
    seed: int,
    params: Mapping[str, str],
) -> dict[str, Any]:
    """Runs the search to its end, from where it stands, and says what was chosen and what to run with it."""
    with reported():
        metric = check(config, increments, trials, generation, sampler)
        search = searched([*(f"{key}={value}" for key, value in params.items()), *arguments], context)
        folder = Path(str(config.hydra.sweep.dir))
        study = opened(folder, search.identity(increments=increments, sampler=sampler, seed=seed))
        for first in range(0, trials, generation):
            last = min(first + generation, trials)
            asked = ask(study, search, range(first, last), sampler, seed)
            if asked:
                print(f"trials {first + 1} to {last} of {trials}", flush=True)
                launch = partial(launched, launcher, context.config_loader, config)
                tell(study, asked, search, launch, int(increments or 0))
                best = study.best_trial
                print(f"best so far: {metric} {best.value:.4f} ({' '.join(overrides(best.params))})", flush=True)
        choices = OmegaConf.select(config, "hydra.runtime.choices") or {}
        return chosen(study, search, folder, metric, int(increments or 0), str(choices.get("hydra/launcher", "basic")))


def check(config: DictConfig, increments: int | None, trials: int, generation: int, sampler: str) -> str:
    """Refuses settings that make no search; returns the metric that is maximised."""
    if increments is None or increments < 1:
        raise UserError(
            f"hydra.sweeper.increments={increments}: expected n, 1 or more: hyper-parameters are chosen on the first n "
            "increments, and the report begins after them"
        )
    for name, value in (("trials", trials), ("generation", generation)):
        if value < 1:
            raise UserError(f"hydra.sweeper.{name}={value}: expected 1 or more")
    try:
        getattr(optuna.samplers, sampler)(seed=0)
    except (AttributeError, TypeError):
        raise UserError(
            f"hydra.sweeper.sampler={sampler}: expected a class of optuna.samplers that needs no more than a seed, "
            "such as TPESampler"
        ) from None
    metric = str(config.evaluation.metrics[0])
    if not is_quality(metric):
        raise UserError(f"evaluation.metrics: the first, {metric}, is maximised, but more of it is not better")
    return metric


def opened(folder: Path, identity: str) -> Any:
    """The folder's study, a new one or one that goes on."""
    folder.mkdir(parents=True, exist_ok=True)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(folder / JOURNAL)))
    study = optuna.create_study(storage=storage, study_name="tuning", direction="maximize", load_if_exists=True)
    if study.user_attrs.setdefault("search", identity) != identity:
        raise UserError(
            f"{folder / JOURNAL}: another search is kept there (other keys, values, seeds or settings); choose another "
            "folder with runs=..., or remove this one"
        )
    study.set_user_attr("search", identity)
    return study


def ask(study: Any, search: Search, numbers: range, sampler: str, seed: int) -> list[tuple[int, dict[str, Any]]]:
    """The trials of a generation that have no value yet: number and parameters.

    A trial's draws depend on its place in the search and on what the trials before it have told: a search that was
    killed goes on with the trials that it would have had.
    """
    for torn in study.get_trials(deepcopy=False, states=[TrialState.RUNNING]):
        if torn.params.keys() != search.space.keys():
            study.tell(torn.number, state=TrialState.FAIL)
    known, asked = whole(study, search), []
    for number in numbers:
        if number < len(known):
            trial = known[number]
            if trial.state != TrialState.RUNNING:
                continue
        else:
            own = int(np.random.SeedSequence([seed, number]).generate_state(1)[0])
            study.sampler = getattr(optuna.samplers, sampler)(seed=own)
            trial = study.ask(search.space)
        asked.append((trial.number, dict(trial.params)))
    return asked


def whole(study: Any, search: Search) -> list[Any]:
    """The search's trials in their places. A kill within `ask` leaves one without all its values: it is none, and
    another has its place."""
    return [trial for trial in study.trials if trial.params.keys() == search.space.keys()]


def tell(
    study: Any,
    asked: Sequence[tuple[int, dict[str, Any]]],
    search: Search,
    launch: Callable[[list[list[str]], int], Sequence[JobReturn]],
    increments: int,
) -> None:
    """Launches a generation and tells each trial's mean over its seeds; a trial of which a job failed has none."""
    jobs = [search.jobs(params, increments) for _, params in asked]
    start, each = asked[0][0], len(jobs[0])
    returns = launch([job for own in jobs for job in own], start * each)
    values = [mean(returns[i * each : (i + 1) * each]) for i in range(len(asked))]
    if all(value is None for value in values) and not study.get_trials(deepcopy=False, states=[TrialState.COMPLETE]):
        raise UserError(
            "no trial gave a value; mend what is wrong and start the same command again, or, where the command itself "
            "is wrong, the right one with another runs=..."
        )
    for (number, _), value in zip(asked, values, strict=True):
        study.tell(number, value, state=TrialState.FAIL if value is None else TrialState.COMPLETE)


def mean(returns: Sequence[JobReturn]) -> float | None:
    """The mean of what jobs return, None if one returns no number."""
    values = [job._return_value for job in returns if job.status == JobStatus.COMPLETED]
    numbers = [value for value in values if isinstance(value, float) and np.isfinite(value)]
    return sum(numbers) / len(numbers) if len(numbers) == len(returns) else None


def chosen(study: Any, search: Search, folder: Path, metric: str, increments: int, launcher: str) -> dict[str, Any]:
    """Writes and prints the best trial's values, and the commands that report them on the rest of the stream."""
    best, values = study.best_trial, overrides(study.best_trial.params)
    seeds = f"the mean over seeds {','.join(search.seeds)}, " if search.seeds else ""
    trials = whole(study, search)
    place = 1 + [trial.number for trial in trials].index(best.number)
    where = f"on increments 1 to {increments}, {seeds}trial {place} of {len(trials)}"
    found = f"{metric} {best.value:.4f} {where}"
    (folder / CHOSEN).write_text("\n".join([f"# {found}", *values]) + "\n", encoding="utf-8")
    here = folder if folder.name.strip(".") else folder.resolve()  # "." has no name, and ".." none of its own
    rest = here.with_name(f"{here.name}-chosen")
    fixed = [override for key, override in search.fixed.items() if key not in ("runs", "sweep")]
    seed = [f"seed={','.join(search.seeds)}"] if search.seeds else []
    command = shlex.join(["incremental", "-m", f"hydra/launcher={launcher}", *fixed, *values, *seed, f"runs={rest}"])
    report = shlex.join(["incremental-report", str(rest), "--after", str(increments)])
    print(
        f"chosen: {' '.join(values)}  ({found})\n  written: {folder / CHOSEN}, {folder / JOURNAL} (Optuna's)\n"
        f"  next: {command}\n        {report}",
        flush=True,
    )
    return {"value": best.value, "params": best.params}
