"""How a request is refused: a status, a sentence, and what it is about."""

from __future__ import annotations

import re
from collections.abc import Collection
from typing import Any

KINDS = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    408: "timeout_error", 409: "conflict_error", 429: "rate_limit_error", 500: "server_error",
    503: "server_error",
}  # fmt: skip

LEADING = re.compile(r"(\w+)(?:\[\d+\])?(?:\.\S+)?(?=: | = )|(aim) ")
"""What an error of the library is about, where it begins with that."""


class Refusal(Exception):
    """Ends a request with a status of 400 or more."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        retry: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry = retry

    @classmethod
    def of(cls, message: str, fields: Collection[str]) -> Refusal:
        """What the library says of a request, which names the field that it is about first."""
        found = LEADING.match(message)
        if found is None or (found[2] is None and found[1] not in fields):
            return cls(400, message)
        return cls(400, message, param="aims" if found[2] else found[0])

    @property
    def body(self) -> dict[str, Any]:
        """As clients of the OpenAI API read it."""
        kind = KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param,
                          "code": self.code}}  # fmt: skip

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry is None else {"Retry-After": str(self.retry)}
