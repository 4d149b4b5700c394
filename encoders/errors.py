"""Everything Twinlens raises on purpose.

TwinlensError
├── BundleError
│   ├── MissingBundle         no bundle where one was named
│   ├── CorruptBundle         a file is missing, cut, changed, or does not parse
│   ├── UnsupportedBundle     written by a newer Twinlens, or something else altogether
│   ├── ParityLost            it no longer gives the golden vectors that it carries
│   ├── ReferenceMismatch     golden vectors were to be made from weights that are not its own
│   └── GateNotPassed         it was not judged, or did not pass, where only a bundle that passed will do
├── Unreadable                a file is not to be read just now, through no fault of its own
├── ImportFailed              a published model that cannot be turned into a bundle
├── FingerprintMismatch       vectors of one encoder met another encoder
├── ImageError
│   ├── UndecodableImage      not an image, or only part of one
│   └── ImageTooLarge         more pixels than the cap
└── DeviceUnavailable         a device or precision was asked for that is not here

`training`, `index` and `service` derive their own trees from `TwinlensError`.
"""


class TwinlensError(Exception):
    """Root of all errors that carry a message meant for a person."""


class BundleError(TwinlensError):
    """A bundle cannot be used."""


class MissingBundle(BundleError):
    """No bundle lies at the path."""


class CorruptBundle(BundleError):
    """A bundle's files are not those that its manifest names."""


class UnsupportedBundle(BundleError):
    """A bundle of a newer format, or a folder that is no bundle."""


class ParityLost(BundleError):
    """The bundle embeds its golden inputs otherwise than when it was made."""


class ReferenceMismatch(BundleError):
    """The weights given as a reference are not those that the bundle's were stored from."""


class GateNotPassed(BundleError):
    """The bundle has no verdict of its own that says it passed."""


class Unreadable(TwinlensError):
    """The machine lacks what it takes to read a file: descriptors, memory, a right, a disk that answers.

    `errno` is the system's number. Nothing is said against the file, so it may be tried again.
    """

    def __init__(self, message: str, *, errno: int) -> None:
        super().__init__(message)
        self.errno = errno


class ImportFailed(TwinlensError):
    """A published model cannot be turned into a bundle."""


class FingerprintMismatch(TwinlensError):
    """Vectors of one encoder met another encoder."""


class ImageError(TwinlensError):
    """An image cannot be used."""


class UndecodableImage(ImageError):
    """The bytes are no image, or only part of one."""


class ImageTooLarge(ImageError):
    """The image has more pixels than the cap allows."""


class DeviceUnavailable(TwinlensError):
    """The device or precision that was asked for is not here."""


class EngineUnavailable(DeviceUnavailable):
    """The engine that was asked for is not here, or cannot do what these towers do."""
