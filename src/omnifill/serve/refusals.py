"""How a request is refused: a status, a sentence, and what it is about."""

from __future__ import annotations

from typing import Any

KINDS = {
    401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    408: "timeout_error", 409: "conflict_error", 429: "rate_limit_error", 500: "server_error",
    503: "server_error",
}  # fmt: skip


class Refusal(Exception):
    """Ends a request with a status of 400 or more."""

    def __init__(
        self, status: int, message: str, *, param: str | None = None, code: str | None = None,
        retry: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry = retry

    @property
    def body(self) -> dict[str, Any]:
        """As clients of the OpenAI API read it."""
        kind = KINDS.get(self.status, "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param,
                          "code": self.code}}  # fmt: skip

    @property
    def headers(self) -> dict[str, str]:
        return {} if self.retry is None else {"Retry-After": str(self.retry)}
