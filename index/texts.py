"""The texts of a release: gathered from a stream, each once, embedded by the batch, grouped by its items.

Texts wait on disk, not in memory; what is kept of each is its digest and its items' rows.
"""

import json
from array import array
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from encoders.query_bank import penalty_of
from index.cache import SeenText
from index.embed import Embedder
from index.gallery import Failure, even_text
from index.image_files import digest_of
from index.items import TEXT_SCHEMA, TableWriter, text_row
from index.vectors import VectorWriter

TEXTS_PER_CALL = 256


class TextCollector:
    """Collects texts with the rows of their items; a context manager that cleans up its spool file.

    `failures` are the texts that had to be left out; it is complete once `write` has run.
    """

    def __init__(self, embedder: Embedder, spool: Path) -> None:
        self.vectors = VectorWriter(
            embedder.encoder.dim, penalty=penalty_of(embedder.encoder.query_bank, "texts")
        )
        self.cut = 0
        self.failures: list[Failure] = []
        self._embedder = embedder
        self._spool_path = spool
        self._spool = spool.open("w+", encoding="utf-8")
        self._rows: dict[bytes, int] = {}
        self._left_out: set[bytes] = set()
        self._pending: list[str] = []
        self._pair_texts = array("q")
        self._pair_items = array("q")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._spool.close()
        self._spool_path.unlink(missing_ok=True)

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, text: str, item_row: int | None = None) -> None:
        """Take in a text that was evened out, for the item at a row or for none."""
        digest = digest_of(text.encode())
        if digest not in self._rows:
            self._rows[digest] = len(self._rows)
            self._pending.append(text)
        if item_row is not None:
            self._pair_texts.append(self._rows[digest])
            self._pair_items.append(item_row)
        if len(self._pending) >= TEXTS_PER_CALL:
            self._flush()

    def write(self, *, table: Path, vectors: Path) -> None:
        """Embed what is left and write both files."""
        self._flush()
        self.vectors.write(vectors)
        with TableWriter(table, TEXT_SCHEMA) as writer:
            for digest, text, items in zip(self._rows, self._spooled(), self._groups(), strict=True):
                if digest not in self._left_out:
                    writer.append(text_row(digest, text, items))

    def _flush(self) -> None:
        if not self._pending:
            return
        for text, seen in zip(self._pending, self._embedder.embed_texts(self._pending), strict=True):
            self._take(text, seen)
        self._spool.writelines(json.dumps(text) + "\n" for text in self._pending)
        self._pending = []

    def _take(self, text: str, seen: SeenText) -> None:
        if np.isfinite(seen.vector).all():
            self.vectors.add(seen.vector[np.newaxis])
            self.cut += seen.truncated
        else:
            self._left_out.add(seen.digest)
            self.failures.append(Failure(text[:200], "not_finite", "the encoder's vector for it is not finite"))

    def _spooled(self) -> Iterator[str]:
        self._spool.seek(0)
        for line in self._spool:
            yield json.loads(line)

    def _groups(self) -> Iterator[list[int]]:
        texts = np.array(self._pair_texts, dtype=np.int64)
        order = np.argsort(texts, kind="stable")
        items = np.array(self._pair_items, dtype=np.int64)[order]
        ends = np.searchsorted(texts[order], np.arange(len(self._rows)), side="right")
        start = 0
        for end in ends:
            yield items[start:end].tolist()
            start = end


def read_texts(path: Path) -> Iterator[str | Failure]:
    """One text a line, UTF-8; empty lines are passed over."""
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            try:
                text = even_text(line.removeprefix(b"\xef\xbb\xbf").decode())
            except UnicodeDecodeError as error:
                yield Failure(f"{path.name}:{number}", "bad_text", f"the line is not UTF-8: {error}")
                continue
            if text:
                yield text
