"""Incremental learning for recommender systems: `import incremental as inc`.

A stream of interactions, a model, a head and update strategies become one compiled program; `run` tests it on each
increment and then trains it. docs/python.md is a walk through these names, docs/extending.md says how to add to them.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from incremental.core.gradient import make as make
    from incremental.core.gradient import training as training
    from incremental.core.optimizers import adagrad as adagrad
    from incremental.core.optimizers import adam as adam
    from incremental.core.optimizers import sgd as sgd
    from incremental.core.problem import Head as Head
    from incremental.core.problem import Model as Model
    from incremental.core.problem import problem as problem
    from incremental.core.program import Program as Program
    from incremental.core.spec import Input as Input
    from incremental.core.spec import Sizes as Sizes
    from incremental.core.spec import Spec as Spec
    from incremental.core.strategy import Strategy as Strategy
    from incremental.core.strategy import chain as chain
    from incremental.core.types import Anchor as Anchor
    from incremental.core.types import Batch as Batch
    from incremental.core.types import Data as Data
    from incremental.core.types import Learner as Learner
    from incremental.core.types import Memory as Memory
    from incremental.core.types import Outputs as Outputs
    from incremental.core.types import Problem as Problem
    from incremental.core.types import State as State
    from incremental.core.types import Step as Step
    from incremental.core.types import Teacher as Teacher
    from incremental.data.cutting import equal_counts as equal_counts
    from incremental.data.features import Feature as Feature
    from incremental.data.simulator import simulate as simulate
    from incremental.data.sources.columns import columns as columns
    from incremental.data.stream import make_stream as make_stream
    from incremental.errors import UserError as UserError
    from incremental.heads.full_softmax import full_softmax as full_softmax
    from incremental.heads.sampled_softmax import sampled_softmax as sampled_softmax
    from incremental.metrics.metric import Metric as Metric
    from incremental.models.gru4rec import gru4rec as gru4rec
    from incremental.models.matrix_factorization import matrix_factorization as matrix_factorization
    from incremental.models.sasrec import sasrec as sasrec
    from incremental.report.runs import Run as Run
    from incremental.report.tables import table as table
    from incremental.report.tables import text as text
    from incremental.run.executor import Executor as Executor
    from incremental.run.feed import Feed as Feed
    from incremental.run.loop import finished as finished
    from incremental.run.loop import run_stream as run_stream
    from incremental.run.policy import update as update
    from incremental.serve.model import load as load
    from incremental.strategies.ewc import ewc as ewc
    from incremental.strategies.replay import replay as replay
    from incremental.testing import check_strategy as check_strategy

PLACES = {
    "adagrad": "incremental.core.optimizers",
    "adam": "incremental.core.optimizers",
    "Anchor": "incremental.core.types",
    "Batch": "incremental.core.types",
    "chain": "incremental.core.strategy",
    "check_strategy": "incremental.testing",
    "columns": "incremental.data.sources.columns",
    "Data": "incremental.core.types",
    "equal_counts": "incremental.data.cutting",
    "ewc": "incremental.strategies.ewc",
    "Executor": "incremental.run.executor",
    "Feature": "incremental.data.features",
    "Feed": "incremental.run.feed",
    "finished": "incremental.run.loop",
    "full_softmax": "incremental.heads.full_softmax",
    "gru4rec": "incremental.models.gru4rec",
    "Head": "incremental.core.problem",
    "Input": "incremental.core.spec",
    "Learner": "incremental.core.types",
    "load": "incremental.serve.model",
    "make": "incremental.core.gradient",
    "make_stream": "incremental.data.stream",
    "matrix_factorization": "incremental.models.matrix_factorization",
    "Memory": "incremental.core.types",
    "Metric": "incremental.metrics.metric",
    "Model": "incremental.core.problem",
    "Outputs": "incremental.core.types",
    "problem": "incremental.core.problem",
    "Problem": "incremental.core.types",
    "Program": "incremental.core.program",
    "replay": "incremental.strategies.replay",
    "Run": "incremental.report.runs",
    "run_stream": "incremental.run.loop",
    "sampled_softmax": "incremental.heads.sampled_softmax",
    "sasrec": "incremental.models.sasrec",
    "sgd": "incremental.core.optimizers",
    "simulate": "incremental.data.simulator",
    "Sizes": "incremental.core.spec",
    "Spec": "incremental.core.spec",
    "State": "incremental.core.types",
    "Step": "incremental.core.types",
    "Strategy": "incremental.core.strategy",
    "table": "incremental.report.tables",
    "Teacher": "incremental.core.types",
    "text": "incremental.report.tables",
    "training": "incremental.core.gradient",
    "update": "incremental.run.policy",
    "UserError": "incremental.errors",
}
"""where each public name is defined; it is imported when it is first asked for"""

__all__ = [*PLACES]


def __getattr__(name: str) -> Any:
    if name not in PLACES:
        raise AttributeError(f"module 'incremental' has no attribute {name!r}; it has {', '.join(PLACES)}")
    return getattr(importlib.import_module(PLACES[name]), name)


def __dir__() -> list[str]:
    return [*PLACES]
