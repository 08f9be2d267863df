"""The jobs of a sweep under any launcher: one that cannot be composed stops no other, and the end says which failed."""

import sys
from collections.abc import Sequence
from functools import partial
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.errors import CompactHydraException, HydraException
from omegaconf.errors import OmegaConfBaseException

from incremental.app.refusals import choices, refusal


def launched(launcher: Any, loader: Any, config: Any, jobs: Sequence[list[str]], first: int) -> list[JobReturn]:
    """Runs the jobs by a launcher, and returns what each returned: an error for one that cannot be composed."""
    wrong = {number: error for number, job in enumerate(jobs) if (error := uncomposed(loader, config, job))}
    named = names(jobs)
    for number, error in wrong.items():
        print(f"error: {named[number]}: {error}", file=sys.stderr, flush=True)
    others = [job for number, job in enumerate(jobs) if number not in wrong]
    ran = iter(launcher.launch(others, initial_job_idx=first) if others else ())
    return [failed(job, wrong[n]) if n in wrong else next(ran) for n, job in enumerate(jobs)]


def uncomposed(loader: Any, config: Any, job: list[str]) -> str | None:
    """Why a job's configuration cannot be composed, or None."""
    try:
        loader.load_sweep_config(config, list(job))
    except (HydraException, OmegaConfBaseException, ValueError) as error:  # the last one: of a choice that is no name
        said = refusal(error, job, partial(loader.load_sweep_config, config))
        if choices(error) is None:  # it may be a key that another method of the sweep has
            said += " (methods with keys of their own are rows of a study: study=FILE, docs/sweeps.md)"
        return said
    return None


def failed(job: list[str], error: str) -> JobReturn:
    """What a launcher returns for a job that failed."""
    result = JobReturn()
    result.overrides, result.status = job, JobStatus.FAILED
    result.return_value = CompactHydraException(error)
    return result


def names(jobs: Sequence[Sequence[str]]) -> list[str]:
    """Each job's overrides that not all jobs have."""
    shown = [[one for one in filter_overrides(own) if not one.startswith("label=")] for own in jobs]
    common = set.intersection(*map(set, shown)) if len(shown) > 1 else set()
    return [" ".join(override for override in own if override not in common) or "the job" for own in shown]


def summed_up(jobs: Sequence[Sequence[str]], results: Sequence[JobReturn]) -> None:
    """Says which jobs failed, and ends the program then: exit code 1. An error that is no user's is raised."""
    errors = {n: result._return_value for n, result in enumerate(results) if result.status == JobStatus.FAILED}
    if not errors:
        return
    named = names(jobs)
    print(f"{len(errors)} of {len(jobs)} jobs failed:", file=sys.stderr)
    for number, error in errors.items():
        said = str(error).strip().splitlines() or [type(error).__name__]
        print(f"  {named[number]}: {said[0]}", file=sys.stderr)
    for error in errors.values():
        if not isinstance(error, CompactHydraException):
            raise error
    raise SystemExit(1)
