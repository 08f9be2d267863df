"""The field's strategies beside SASRec and LightGCN: an increment of each pair is traced, or refused by name.

Beside matrix factorisation each of them trains under the kit, in its own test.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from incremental.core.strategy import Strategy
from incremental.errors import UserError
from incremental.heads.bpr import bpr
from incremental.heads.full_softmax import full_softmax
from tests import lab
from tests.applies import trace

FIELD: dict[str, Callable[[Any], Strategy]] = {
    **{
        name: lab.configured(name) for name in ("incctr", "spmf", "peso", "sa_caisr", "sml", "ccd", "graphsail", "pisa")
    },
    "peso on tables": partial(lab.configured("peso"), tables=True),
    "asmg": partial(lab.configured("asmg"), mode="linear"),
    "asmg of a GRU": partial(lab.configured("asmg"), sets=2),
}
USERS_ALONE = "the model reads history, .*choose model=matrix_factorization or model=lightgcn"
REFUSED = {
    ("graphsail", "sasrec"): USERS_ALONE,
    ("pisa", "sasrec"): USERS_ALONE,
    ("peso", "lightgcn"): r"the model has neither LoRA matrices nor dense kernels.*set strategies\.peso\.tables=true",
}
LONG = [("asmg of a GRU", "sasrec")]  # a GRU for each of many weights; "asmg" shows the same hooks
PAIRS = [
    pytest.param(name, model, marks=pytest.mark.slow if (name, model) in LONG else ())
    for name in FIELD
    for model in ("sasrec", "lightgcn")
    if (name, model) not in REFUSED
]


@pytest.mark.parametrize(("strategy", "model"), PAIRS)
def test_it_applies(strategy: str, model: str) -> None:
    trace(FIELD[strategy], model, full_softmax if model == "sasrec" else lambda: bpr(negatives=2))


@pytest.mark.parametrize(("strategy", "model"), REFUSED)
def test_a_model_is_refused_by_name(strategy: str, model: str) -> None:
    with pytest.raises(UserError, match=rf"strategies\.{strategy}: {REFUSED[strategy, model]}"):
        trace(FIELD[strategy], model, full_softmax)


@pytest.mark.parametrize("strategy", ["peso on tables", "asmg", "asmg of a GRU"])
def test_it_applies_to_compact_rows(strategy: str) -> None:
    trace(FIELD[strategy], "mf", lambda: bpr(negatives=2), rows="compact")


@pytest.mark.parametrize(("strategy", "read"), [("sa_caisr", "the scores"), ("graphsail", "its"), ("pisa", "its")])
def test_compact_rows_are_refused_by_name(strategy: str, read: str) -> None:
    message = rf"training\.rows=compact: strategies\.{strategy} reads {read} .*use training\.rows=dense"
    with pytest.raises(UserError, match=message):
        trace(FIELD[strategy], "mf", lambda: bpr(negatives=2), rows="compact", name=strategy)
