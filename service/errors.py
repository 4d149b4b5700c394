"""What can go wrong in a request, and how each is told.

TwinlensError
└── ServiceError
    ├── SettingsError            a TWINLENS_ variable or option that cannot be used (start is refused)
    │   └── KeyFileError         the file of API keys cannot be used
    ├── InvalidJson              400  the body is not JSON
    ├── InvalidForm              400  the body is no multipart form
    ├── InvalidHttp              400  a head that others may read otherwise; the connection is closed
    ├── AllItemsFailed           400  every item of a request is bad, for different reasons
    ├── Unauthorized             401  a key is required and missing, wrong or expired; with www-authenticate
    ├── Forbidden                403  a scope the key lacks; a host name or a site that is not let in
    ├── NotFound                 404  no such path, item or model
    ├── BodyTooSlow              408  the body did not come in time
    ├── WrongModel               409  a vector of another model
    ├── TooLarge                 413  too many bytes or items
    ├── UnsupportedMediaType     415
    ├── InvalidField             422  a field out of range or of the wrong form
    │   └── TextTooLong          422  `truncate: "none"` and the text does not fit
    ├── QueueFull                429  with retry-after; also: cannot be served before its deadline
    │   └── KeyLimit             429  the caller has as many requests running as it may have
    ├── CallerGone               499  nobody is left to answer; seen in metrics only
    ├── EncodingFailed           500  the encoder failed on this very input
    ├── ReloadFailed             500  the new release cannot be served; the old one still is
    ├── StorageFull              507  no room to keep a change; what was there stays
    ├── Unavailable              503  not ready, or shutting down; with retry-after
    └── DeadlineExceeded         504

Errors of encoders/ and index/ have their status in `_FOREIGN`.
"""

from dataclasses import dataclass
from http import HTTPStatus
from typing import TypeVar

from encoders.errors import ImageTooLarge, TwinlensError, UndecodableImage
from index.errors import ImageMissing, UnknownItem

AnyError = TypeVar("AnyError", bound=BaseException)


class ServiceError(TwinlensError):
    """Base of the service's own errors; a subclass fixes the status and the default code."""

    status = 500
    code = "internal_error"

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_seconds: int | None = None,
    ) -> None:
        super().__init__(message)
        self.param = param
        self.code = code or type(self).code
        self.retry_after_seconds = retry_after_seconds


class SettingsError(ServiceError):
    code = "invalid_settings"


class KeyFileError(SettingsError):
    code = "invalid_keys"


class InvalidJson(ServiceError):
    status, code = 400, "invalid_json"


class InvalidForm(ServiceError):
    status, code = 400, "invalid_form"


class InvalidHttp(ServiceError):
    status, code = 400, "invalid_http"


class AllItemsFailed(ServiceError):
    status, code = 400, "all_items_failed"


class Unauthorized(ServiceError):
    status, code = 401, "missing_key"


class Forbidden(ServiceError):
    status, code = 403, "forbidden"


class NotFound(ServiceError):
    status, code = 404, "not_found"


class BodyTooSlow(ServiceError):
    status, code = 408, "body_too_slow"


class WrongModel(ServiceError):
    status, code = 409, "wrong_model"


class TooLarge(ServiceError):
    status, code = 413, "too_large"


class UnsupportedMediaType(ServiceError):
    status, code = 415, "unsupported_media_type"


class InvalidField(ServiceError):
    status, code = 422, "invalid_field"


class TextTooLong(InvalidField):
    code = "text_too_long"


class QueueFull(ServiceError):
    status, code = 429, "queue_full"


class KeyLimit(QueueFull):
    code = "key_limit"


class CallerGone(ServiceError):
    status, code = 499, "caller_gone"


class EncodingFailed(ServiceError):
    status, code = 500, "encoding_failed"


class ReloadFailed(ServiceError):
    status, code = 500, "reload_failed"


class StorageFull(ServiceError):
    status, code = 507, "storage_full"


class Unavailable(ServiceError):
    status, code = 503, "unavailable"


class DeadlineExceeded(ServiceError):
    status, code = 504, "deadline_exceeded"


_FOREIGN: tuple[tuple[type[TwinlensError], int, str], ...] = (
    (UndecodableImage, 400, "undecodable_image"),
    (ImageTooLarge, 413, "image_too_large"),
    (UnknownItem, 404, "unknown_item"),
    (ImageMissing, 404, "image_missing"),
)


@dataclass(frozen=True, slots=True)
class ErrorReport:
    """An error as HTTP tells it; `body()` is the one shape of API.md."""

    status: int
    code: str
    message: str
    param: str | None = None
    retry_after_seconds: int | None = None

    @property
    def type(self) -> str:
        if self.status == HTTPStatus.TOO_MANY_REQUESTS:
            return "rate_limit_error"
        return "server_error" if self.status >= HTTPStatus.INTERNAL_SERVER_ERROR else "invalid_request_error"

    def body(self) -> dict[str, object]:
        fields = {"code": self.code, "message": self.message, "param": self.param, "type": self.type}
        return {"error": fields}


def report(error: TwinlensError) -> ErrorReport:
    """Status, code and words of any error of ours; one that no table knows is a 500."""
    if isinstance(error, ServiceError):
        return ErrorReport(error.status, error.code, str(error), error.param, error.retry_after_seconds)
    for kind, status, code in _FOREIGN:
        if isinstance(error, kind):
            return ErrorReport(status, code, str(error))
    return ErrorReport(500, "internal_error", str(error))


def without_frames(error: AnyError) -> AnyError:
    """The error, which lets go of the frames that it came through: for one that is kept, or was told.

    Where a frame holds the error itself (among its outcomes, by a future), each would keep the other, and both
    the release and the encoder of their request, until the garbage collector comes by: minutes.
    """
    chain: BaseException | None = error
    while chain is not None and chain.__traceback__ is not None:
        chain.__traceback__ = None
        chain = chain.__cause__ or chain.__context__
    return error
