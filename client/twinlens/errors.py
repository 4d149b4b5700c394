"""What can go wrong, one class for each thing a caller would do about it.

TwinlensError
├── ConnectionFailed   no answer came: nobody listens, or the connection broke
├── DeadlineExceeded   the deadline passed, here or (504) there
├── InvalidRequest     4xx that no other class is for: mend the request; `param` names the field
│   ├── Unauthorized   401  a key is required, and missing or unknown
│   ├── Forbidden      403  the key may not do this
│   ├── NotFound       404  no such item, model or path
│   ├── WrongModel     409  a vector of another encoder: embed again
│   └── TooLarge       413  too many bytes, pixels or items: send less at once
├── Overloaded         429  after the retries; `retry_after_seconds` says when there may be room
├── ServerFailed       5xx  the service failed; its log has the request id
│   └── Unavailable    503  after the retries: not ready, or shutting down
├── ItemFailed         one item of several failed, and its vector was asked for
└── BadAnswer          an answer that is not the API's: is this address a Twinlens service?
"""

from collections.abc import Mapping


class TwinlensError(Exception):
    """`status` and `code` are None and "" where no answer came; `request_id` finds the request in the log."""

    def __init__(
        self,
        message: str,
        *,
        status: int | None = None,
        code: str = "",
        param: str | None = None,
        request_id: str = "",
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.status = status
        self.code = code
        self.param = param
        self.request_id = request_id
        self.retry_after_seconds = retry_after_seconds

    def __str__(self) -> str:
        told = " ".join(filter(None, (str(self.status or ""), self.code)))
        about = f" [{told}]" if told else ""
        return f"{self.message}{about}" + (f" (request {self.request_id})" if self.request_id else "")


class ConnectionFailed(TwinlensError):
    pass


class DeadlineExceeded(TwinlensError):
    pass


class InvalidRequest(TwinlensError):
    pass


class Unauthorized(InvalidRequest):
    pass


class Forbidden(InvalidRequest):
    pass


class NotFound(InvalidRequest):
    pass


class WrongModel(InvalidRequest):
    pass


class TooLarge(InvalidRequest):
    pass


class Overloaded(TwinlensError):
    pass


class ServerFailed(TwinlensError):
    pass


class Unavailable(ServerFailed):
    pass


class ItemFailed(TwinlensError):
    pass


class BadAnswer(TwinlensError):
    pass


_BY_STATUS: Mapping[int, type[TwinlensError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: WrongModel,
    413: TooLarge,
    429: Overloaded,
    503: Unavailable,
    504: DeadlineExceeded,
}


def class_for(status: int) -> type[TwinlensError]:
    """The error that an answer of this status is."""
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    return ServerFailed if status >= 500 else InvalidRequest if status >= 400 else BadAnswer
