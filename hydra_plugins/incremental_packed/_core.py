"""From Hydra's jobs to `incremental.app.sweep` and back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, configure_log, run_job, setup_globals
from hydra.errors import CompactHydraException
from hydra.types import HydraContext
from omegaconf import DictConfig, open_dict

from incremental.app import cli, sweep
from incremental.app.jobs import names
from incremental.errors import UserError
from incremental.shell import reported


def launch(
    context: HydraContext, config: DictConfig, job_overrides: Sequence[Sequence[str]], first: int
) -> list[JobReturn]:
    """Reads every job as Hydra's basic launcher would start it, runs them together, and returns their values."""
    setup_globals()
    configure_log(config.hydra.hydra_logging, config.hydra.verbose)
    Path(str(config.hydra.sweep.dir)).mkdir(parents=True, exist_ok=True)
    with reported():
        sweep.use_every_core()
        returns = [read(context, config, overrides, first + i) for i, overrides in enumerate(job_overrides)]
        jobs = [sweep.Job(name, value_of(job)) for name, job in zip(names(job_overrides), returns, strict=True)]
        outcomes = sweep.run(jobs)
    for job, made, outcome in zip(jobs, returns, outcomes, strict=True):
        if isinstance(outcome, UserError):
            # Not a SystemExit: a sweeper that searches may go on without this job.
            made.status, made.return_value = JobStatus.FAILED, CompactHydraException(str(outcome))
        else:
            made.status, made.return_value = JobStatus.COMPLETED, cli.headline(job.config, outcome)
    return returns


def read(context: HydraContext, config: DictConfig, overrides: Sequence[str], number: int) -> JobReturn:
    """The job's resolved configuration in place of its return value."""
    job: Any = context.config_loader.load_sweep_config(config, list(overrides))
    with open_dict(job):
        job.hydra.job.id = str(number)
        job.hydra.job.num = number
    return run_job(
        hydra_context=context,
        task_function=cli.read,
        config=job,
        job_dir_key="hydra.sweep.dir",
        job_subdir_key="hydra.sweep.subdir",
    )


def value_of(read: JobReturn) -> Any:
    """The configuration that was read, or the UserError; other errors are raised."""
    found = read._return_value
    if isinstance(found, Exception) and not isinstance(found, UserError):
        raise found
    return found
