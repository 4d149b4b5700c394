"""What can go wrong in `index`, as one tree under `encoders.errors.TwinlensError`.

    TwinlensError
    ├── GalleryError            the gallery as a whole cannot be read; a bad item is a `Failure`
    ├── BadItem                 one item cannot be taken in; the job turns it into a `Failure`
    ├── ReleaseError            something is wrong with a release, or with the folder that holds them
    │   ├── NoRelease           nothing has been published there yet
    │   ├── UnknownRelease      no release has that id
    │   ├── CorruptRelease      a file is missing, cut or changed; the message names it
    │   ├── UnsupportedRelease  written by a newer version of this program
    │   ├── ReleasesBusy        another process is changing the same folder
    │   ├── PublishRefused      what was built is not fit to be served
    │   ├── DiskFull            no room to write a release; what was current stays
    │   ├── CorruptJournal      changes beside the releases are damaged, or missing; the message says where
    │   ├── UnsupportedJournal  they are in the form of another version
    │   ├── JournalBusy         another process writes changes there
    │   ├── IdempotencyKeyReused  a key that came with another request before
    │   └── JournalFailed       a change could not be made durable; it is not in
    │       └── JournalFull     for want of room on the disk
    ├── UnknownItem             no item has that id
    ├── ImageMissing            an item's original image is gone, or is another one by now
    └── BadQuery                a query that cannot be searched with

`FingerprintMismatch`, which `Release.load` raises too, comes from `encoders.errors`.
"""

from encoders.errors import TwinlensError


class GalleryError(TwinlensError):
    """The gallery as a whole cannot be read."""


class BadItem(TwinlensError):
    """One item cannot be taken in; `code` is the reason in one word, as the failure ledger has it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ReleaseError(TwinlensError):
    """Something is wrong with a release, or with the folder that holds them."""


class NoRelease(ReleaseError):
    """Nothing has been published in the folder yet."""


class UnknownRelease(ReleaseError):
    """No release in the folder has that id."""


class CorruptRelease(ReleaseError):
    """A file of the release is missing, cut or changed; the message names it."""


class UnsupportedRelease(ReleaseError):
    """The release was written by a newer version of this program."""


class ReleasesBusy(ReleaseError):
    """Another process is changing the same folder of releases."""


class PublishRefused(ReleaseError):
    """What was built is not fit to be served, so the release before it stays current."""


class DiskFull(ReleaseError):
    """There is no room to write a release; what was current stays, and nothing half written is left."""


class CorruptJournal(ReleaseError):
    """The changes beside the releases are damaged or missing; nothing of them is dropped in silence."""


class UnsupportedJournal(ReleaseError):
    """The changes beside the releases are in a form that this version does not read."""


class JournalBusy(ReleaseError):
    """Another process writes changes into the same folder of releases."""


class IdempotencyKeyReused(ReleaseError):
    """The idempotency key came with another request before."""


class JournalFailed(ReleaseError):
    """A change could not be made durable, and is not in."""


class JournalFull(JournalFailed):
    """There was no room for a change, which is not in; those before it are untouched."""


class UnknownItem(TwinlensError):
    """No item of the release has that id."""


class ImageMissing(TwinlensError):
    """An item's image cannot be had; `code` is the reason in one word, as the failure ledger has it."""

    def __init__(self, message: str, *, code: str = "missing") -> None:
        super().__init__(message)
        self.code = code


class BadQuery(TwinlensError):
    """Not a finite float matrix of the index's width, or a `k` below one."""
