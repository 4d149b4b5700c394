"""Turns a gallery and an encoder's bundle into a release, and reads releases for whoever searches them.

what comes in   gallery, sources/: a stream of items; images: where they lie; journal/: later changes
the job         rebuild: all of it in order; embed, texts: items and texts to vectors; cache: earlier ones;
                staging: the encoder into the release; hubs, gate: what its manifest says of both
a release       vectors: faiss; items: the tables; thumbnails; manifest: what it is, and each file's SHA-256
is it right     recall: against exact search
the folder      catalog: which releases there are; publish: changes of it; history: what was current before;
                release: one, loaded
the command     __main__, console, report        cores, errors: for all

"""

from typing import TYPE_CHECKING

from encoders.extras import require_extra
from encoders.lazy import exports

if TYPE_CHECKING:
    from index.publish import rollback
    from index.rebuilding import RebuildSettings, rebuild
    from index.release import Release
    from index.sources import open_gallery

__all__ = ["RebuildSettings", "Release", "open_gallery", "rebuild", "rollback"]

require_extra("index", packages=("faiss", "pyarrow"))

__getattr__ = exports(
    __name__,
    {
        "RebuildSettings": "index.rebuilding",
        "Release": "index.release",
        "open_gallery": "index.sources",
        "rebuild": "index.rebuilding",
        "rollback": "index.publish",
    },
)
