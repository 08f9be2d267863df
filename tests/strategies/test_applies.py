"""The field's strategies beside SASRec and LightGCN: an increment of each model under all of them is traced, and the
strategies that it cannot have are refused by name.

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
from tests.applies import trace, trace_all

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
HEADS: dict[str, Callable[[], Any]] = {"sasrec": full_softmax, "lightgcn": lambda: bpr(negatives=2)}


@pytest.mark.parametrize("model", HEADS)
def test_they_apply(model: str) -> None:
    names = [name for name in FIELD if (name, model) not in [*REFUSED, *LONG]]
    trace_all({name: FIELD[name] for name in names}, model, HEADS[model])


@pytest.mark.slow
@pytest.mark.parametrize(("strategy", "model"), LONG)
def test_what_is_long_to_trace_applies(strategy: str, model: str) -> None:
    trace(FIELD[strategy], model, HEADS[model])


@pytest.mark.parametrize(("strategy", "model"), REFUSED)
def test_a_model_is_refused_by_name(strategy: str, model: str) -> None:
    with pytest.raises(UserError, match=rf"strategies\.{strategy}: {REFUSED[strategy, model]}"):
        trace(FIELD[strategy], model, full_softmax)


def test_some_apply_to_compact_rows() -> None:
    some = {name: FIELD[name] for name in ("peso on tables", "asmg", "asmg of a GRU")}
    trace_all(some, "mf", lambda: bpr(negatives=2), rows="compact")


@pytest.mark.parametrize(
    ("strategy", "needs"), [("sa_caisr", "leaves a whole table"), ("graphsail", "reads its"), ("pisa", "reads its")]
)
def test_compact_rows_are_refused_by_name(strategy: str, needs: str) -> None:
    message = rf"training\.rows=compact: strategies\.{strategy} {needs} .*use training\.rows=dense"
    with pytest.raises(UserError, match=message):
        trace(FIELD[strategy], "mf", lambda: bpr(negatives=2), rows="compact", name=strategy)
