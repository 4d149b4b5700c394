"""A CLIP of ViT-B/32's size with random weights, in transformers' form: `python clip_folder.py FOLDER MERGES`.

Speed does not hang on what weights are, and none can be downloaded where this is to run. Runs in the peer's
environment, with transformers alone.
"""

import gzip
import json
import sys
from pathlib import Path

import torch
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPProcessor, CLIPTokenizer
from transformers.models.clip.tokenization_clip import bytes_to_unicode

MERGES = 49152 - 256 - 2  # CLIP's vocabulary: bytes twice, merges, and two marks
CONTEXT_LENGTH = 77


def write_tokenizer(folder: Path, merges_gz: Path) -> CLIPTokenizer:
    """vocab.json and merges.txt from the merges that CLIP was published with."""
    merges = gzip.decompress(merges_gz.read_bytes()).decode().split("\n")[1 : MERGES + 1]
    letters = list(bytes_to_unicode().values())
    pieces = [*letters, *(f"{letter}</w>" for letter in letters)]
    pieces += [merge.replace(" ", "") for merge in merges] + ["<|startoftext|>", "<|endoftext|>"]
    (folder / "vocab.json").write_text(json.dumps({piece: index for index, piece in enumerate(pieces)}))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(merges) + "\n")
    return CLIPTokenizer(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=CONTEXT_LENGTH
    )


def main(folder: Path, merges_gz: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = write_tokenizer(folder, merges_gz)
    torch.manual_seed(0)
    CLIPModel(CLIPConfig()).eval().save_pretrained(folder)
    CLIPProcessor(CLIPImageProcessor(), tokenizer).save_pretrained(folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
