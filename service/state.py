"""One release with its encoder and all that is known of them: what a request sees from beginning to end."""

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from encoders.bundle import Bundle
from encoders.choices import Engine
from encoders.encoder import Encoder
from encoders.errors import FingerprintMismatch
from encoders.verdict import Check
from index.cores import available_cores
from index.release import Release
from service.drift.drift import Drift
from service.reports import read_checks, read_report
from service.search.delta import Delta
from service.search.fields import FieldCounts, Once
from service.search.filters import PayloadFilter
from service.search.gallery_view import GalleryView
from service.search.relevance import Judge
from service.settings import Settings


@dataclass(frozen=True, eq=False)
class ServingState:
    """One release and its encoder; they are only ever replaced together."""

    release: Release
    encoder: Encoder
    payload_filter: PayloadFilter  # the search thread's
    report: dict[str, Any] | None  # how well the encoder retrieves, as its evaluation wrote it
    checks: tuple[Check, ...]  # what the gate required of the encoder; none of one that was never judged
    judge: Judge | None  # how relevant hits are; the search thread's
    field_counts: FieldCounts  # what there is to filter by in the release
    drift: Drift  # how far queries and gallery lie from what the encoder was proven on
    delta: Delta  # live changes; each makes a new state, which shares all else
    loaded_at: float = field(default_factory=time.time)  # seconds since the epoch

    @classmethod
    def load(
        cls,
        settings: Settings,
        release_id: str | None = None,
        *,
        engine: Engine | None = None,
        served: "ServingState | None" = None,
    ) -> "ServingState":
        """Load and check; raises TwinlensError (no release, corrupt, another encoder).

        The encoder of `served` goes on where the release holds the same bundle, file for file.
        """
        release = Release.load(
            settings.releases,
            release_id or settings.release,
            verify=settings.verify,
            search_device=settings.search_device,
            search_threads=settings.search_threads or available_cores(),
            gallery_root=settings.gallery_root,
        )
        # Not verified: hashed with the rest of the release, or not wanted.
        bundle = Bundle.open(release.bundle_path, verify=False)
        if served is not None and served.encoder.bundle.config == bundle.config:
            encoder = served.encoder
        else:
            encoder = _load_encoder(bundle, settings, engine)
        if encoder.fingerprint != release.fingerprint:
            raise FingerprintMismatch(
                f"index built with {release.fingerprint}, encoder is {encoder.fingerprint}: "
                "rebuild the release with this encoder"
            )
        judge = Judge.of(release)
        return cls(
            release,
            encoder,
            PayloadFilter(release.items),
            read_report(release.bundle_path),
            read_checks(bundle),
            judge,
            FieldCounts(release.items),
            Drift(release, judge, encoder.query_bank),
            Delta.empty(release, encoder.query_bank, sequence=release.manifest.live_sequence or 0),
        )

    @cached_property
    def view(self) -> GalleryView:
        """What the gallery holds: the release, with the live changes laid over it."""
        return GalleryView(self.release, self.delta)

    @cached_property
    def fields(self) -> Once[dict[str, Any]]:
        """What there is to filter by, live changes included; counted when first asked for."""
        counts, delta = self.field_counts, self.delta  # not this state: a circle would keep its release
        return Once(lambda: counts.report(hidden=delta.hidden_rows(), added=delta.payloads()))


def _load_encoder(bundle: Bundle, settings: Settings, engine: Engine | None) -> Encoder:
    return Encoder.load(
        bundle,
        device=settings.device,
        precision=settings.precision,
        max_batch=max(settings.image_batch, settings.text_batch),
        engine=engine or settings.engine,
        threads=settings.torch_threads or available_cores(),
    )
