"""Item titles as tokens, for a model that reads them itself."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from incremental.domains import Count, checked


@checked
def tokens(*, path: str, length: Count = 16) -> Callable[[Sequence[str]], npt.NDArray[np.int32]]:
    """Titles -> [titles, `length`] int32: 1 + the ids of the tokenizer at `path`, 0 behind a title's last token.

    A title is cut after `length` tokens, its closing token kept; one without words is 0 throughout.
    """

    def encode(titles: Sequence[str]) -> npt.NDArray[np.int32]:
        from incremental.encoders.tokens import check
        from incremental.encoders.top import loaded

        check(titles, name=lambda i: f"data.text: the title of item {i}")
        ids, mask = loaded(path).tokenize(titles, length)
        return np.where(mask, ids + 1, 0).astype(np.int32)

    return encode
