"""A request that is not answered as it was asked: what is wrong, what was expected, what to do."""

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.responses import Response


class Refused(Exception):
    """Becomes a response of `status` with a JSON body {error, expected, remedy}.

    Attributes:
        status: of HTTP
        error: what is wrong
        expected: in its place
        remedy: what to do
        after: seconds after which the same request may succeed; None: it will not
    """

    def __init__(self, status: int, error: str, expected: str, remedy: str, after: float | None = None) -> None:
        super().__init__(f"{error}; expected {expected}; {remedy}")
        self.status, self.error, self.expected, self.remedy, self.after = status, error, expected, remedy, after

    def response(self, more: Mapping[str, Any] = {}) -> Response:
        """The answer, whose body has what is `more` too."""
        headers = {} if self.after is None else {"Retry-After": str(max(1, round(self.after + 0.499)))}
        if self.status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        body = {"error": self.error, "expected": self.expected, "remedy": self.remedy}
        return answer({**body, **more}, self.status, headers)


def answer(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A response in JSON."""
    return Response(msgspec.json.encode(content), status, headers, "application/json")
