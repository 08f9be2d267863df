import pytest

from incremental.errors import UserError
from incremental.memory.buffer import refuse_none


@pytest.mark.parametrize("wrong", [0, -3])
def test_a_size_below_one_is_refused_by_name(wrong: int) -> None:
    with pytest.raises(
        UserError, match=rf"strategies\.mine: rows={wrong}: expected at least 1, or leave the strategy out"
    ):
        refuse_none("mine", capacity=1, rows=wrong)
