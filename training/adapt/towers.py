"""The towers of a candidate, with the embeddings they were asked for; and new towers made of them.

Parts are named "target", "source", "queries", "target choose", "source measure" and so on. Embeddings are those
of the towers alone, kept for as long as the towers are.
"""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch

from encoders.encoder import Encoder, normaliser
from training.adapt.batchnorm import reestimate
from training.adapt.heads import BATCH, STEPS, Pairing, mutual_neighbours, train_heads
from training.adapt.sets import Domain
from training.data.pairs import MissingImage, PairSet
from training.errors import AdaptationError
from training.evaluation.decoding import decoded_pixels
from training.evaluation.embedding import EmbeddedPairs, OnProgress, embed_pairs, silent
from training.evaluation.ranks import Floats

STATISTICS_BATCH = 32


@dataclass(frozen=True, eq=False)
class Towers:
    encoder: Encoder
    domain: Domain
    on_progress: OnProgress = silent
    cache: Path | None = None
    """A folder for embeddings by the bundle's own towers; changed ones have its name and other vectors."""
    _kept: dict[str, Any] = field(default_factory=dict)

    @property
    def model(self) -> torch.nn.Module:
        return self.encoder.model

    @property
    def parts(self) -> Mapping[str, PairSet]:
        target, source = self.domain.target, self.domain.source
        return {
            "target": target.learn,
            "target choose": target.choose,
            "target measure": target.measure,
            "source": source.learn,
            "source choose": source.choose,
            "source measure": source.measure,
            "shots": self.domain.shots,
        }

    def embedded(self, part: str) -> EmbeddedPairs:
        """A part's images and captions. Raises EvaluationError where nothing decodes."""
        if part not in self._kept:
            pairs = self.parts[part]
            named = PairSet(f"{part} ({pairs.name})", pairs.spec, pairs.images)
            batch = self.encoder.max_batch
            self._kept[part] = embed_pairs(
                self.encoder, named, batch=batch, cache=self.cache, on_progress=self.on_progress
            )
        return cast("EmbeddedPairs", self._kept[part])

    def images(self, part: str) -> Floats:
        return self.embedded(part).image_vectors

    def texts(self, part: str) -> Floats:
        if part != "queries":
            return self.embedded(part).caption_vectors
        if part not in self._kept:
            queries = self.domain.queries
            made = self.encoder.encode_texts(queries).vectors
            if not np.isfinite(made).all():
                row = int(np.argmin(np.isfinite(made).all(axis=1)))
                raise AdaptationError(f"the encoder's vector of the query {queries[row]!r} is not finite")
            self._kept[part] = made
        return cast("Floats", self._kept[part])

    def with_statistics(self, strength: float) -> "Towers":
        """AdaBN on the target's images."""
        twin = self._twin()
        open_model = cast("Any", twin.model)
        normalise = normaliser(twin.encoder.preprocessing, twin.encoder.device)

        def run(pixels: torch.Tensor) -> object:
            return open_model.encode_image(normalise(pixels.to(twin.encoder.device)))

        reestimate(open_model.visual, twin._batches(), run=run, strength=strength)
        return twin

    def with_pseudo_pairs(self, strength: float) -> "Towers":
        """Heads trained on target images and queries that are each other's nearest."""
        queries = self.texts("queries")
        if not len(queries):
            raise AdaptationError("pseudo needs --queries: texts that some of the images may be about")
        images, texts = mutual_neighbours(self.images("target"), queries)
        if len(images) < 2:
            raise AdaptationError(f"pseudo found {len(images)} sure pairs of images and queries: too few")
        learned = [self.domain.target.learn.images[row] for row in self._kept_rows("target")[images]]
        named = [self.domain.queries[int(row)] for row in texts]
        return self._trained(list(zip(learned, named, strict=True)), strength)

    def with_shots(self, strength: float) -> "Towers":
        """Heads trained on the target's captioned images."""
        pairs = [(image, caption) for image in self.domain.shots.images for caption in image.captions]
        if len(pairs) < 2:
            raise AdaptationError(
                "few-shot needs captioned images: give a --target with captions and --shots N"
            )
        return self._trained(pairs, strength)

    def _trained(self, pairs: list[tuple[Any, str]], strength: float) -> "Towers":
        twin = self._twin()
        replay = [(image, image.captions[0]) for image in self.domain.source.learn.images[: STEPS * BATCH]]
        train_heads(
            twin.encoder, Pairing(pairs), Pairing(replay), strength=strength, on_progress=self.on_progress
        )
        return twin

    def _kept_rows(self, part: str) -> Any:
        """Rows of the part's images that decoded, as its vectors have them."""
        ids = {image.image_id: row for row, image in enumerate(self.parts[part].images)}
        return np.array([ids[each] for each in self.embedded(part).image_ids])

    def _twin(self) -> "Towers":
        """The same towers to be changed, with nothing embedded yet."""
        old = self.encoder
        encoder = Encoder(
            old.bundle,
            copy.deepcopy(self.model),
            device=old.device,
            precision=old.precision,
            max_batch=old.max_batch,
        )
        return Towers(encoder, self.domain, self.on_progress)

    def _batches(self) -> Iterator[torch.Tensor]:
        """The target's images in batches of like size."""
        images = self.domain.target.learn.images
        count = max(1, round(len(images) / STATISTICS_BATCH))
        done = 0
        for rows in np.array_split(np.arange(len(images)), count):
            chunk = [images[row] for row in rows]
            made = decoded_pixels(chunk, self.encoder.preprocessing, window=STATISTICS_BATCH)
            pixels = [each for each in made if not isinstance(each, MissingImage)]
            done += len(chunk)
            self.on_progress("BatchNorm statistics", done, len(images))
            if pixels:
                yield torch.from_numpy(np.stack(pixels))
