"""Images or texts to unit vectors: the only code that training, index and service share.

encoder        images or texts in, unit rows out        staging, passes   its batches of pixels, of texts
images         bytes to images to pixels
texts          texts to token ids
towers         the two towers; causal: their text half on rows cut short; weights: their numbers on disk
bundle         one folder that holds all of it; folders: how it appears at once; default/: the bundled one
adaptation     what a bundle does to its towers' embeddings      query_bank     what tells hubs from answers
calibration    from cosines to relevance, and to "nothing here matches"
golden         inputs whose vectors are known; golden_inputs, reference, verifying, diagnosis: what they say
verdict        what the gate said of a bundle
importing/     published models to bundles
reading        what keeps a file from being read: the file, or the machine
permissions    what to do where the system refuses a file
modalities, extras, errors, __main__

"""

from typing import TYPE_CHECKING

from encoders.lazy import exports

if TYPE_CHECKING:
    from encoders.bundle import DEFAULT_BUNDLE, Bundle
    from encoders.encoder import Encoder, TextEmbeddings
    from encoders.errors import TwinlensError
    from encoders.images import decode_image
    from encoders.importing.run import import_model

__all__ = [
    "DEFAULT_BUNDLE",
    "Bundle",
    "Encoder",
    "TextEmbeddings",
    "TwinlensError",
    "decode_image",
    "import_model",
]

__getattr__ = exports(
    __name__,
    {
        "Bundle": "encoders.bundle",
        "DEFAULT_BUNDLE": "encoders.bundle",
        "Encoder": "encoders.encoder",
        "TextEmbeddings": "encoders.encoder",
        "TwinlensError": "encoders.errors",
        "decode_image": "encoders.images",
        "import_model": "encoders.importing.run",
    },
)
