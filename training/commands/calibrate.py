"""`python -m training calibrate` and `relevance`: a bundle's calibration from held-out sets, and its figures.

torch is imported only once the sets have been read.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from training.calibrate.absent import DEFAULT_ABSENT, MEASURED_ABSENT, AbsentQuery, read_absent
from training.console import errors_shown, stages_on
from training.data.pairs import PairSet, read_pairs
from training.errors import CalibrationError
from training.short_queries.draw import QueryList, draw, mentions_of
from training.short_queries.lists import read_list

if TYPE_CHECKING:
    from encoders.calibration import Calibration
    from encoders.encoder import Encoder
    from training.calibrate.measure import MeasureOptions, RelevanceReport
    from training.evaluation.embedding import OnProgress

EXIT_NOTHING_KEPT = 4
QUERIES = 200

Batch = Annotated[int, typer.Option(min=1, help="Images the encoder takes at once.")]
Cache = Annotated[Path | None, typer.Option(help="A folder to keep embeddings in, and reuse.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or cuda:N.")]


def calibrate_command(
    bundle: Annotated[Path, typer.Argument(help="The bundle to calibrate.")],
    *,
    data: Annotated[list[str], typer.Option(help="Held-out pairs to fit on (repeatable).")],
    absent: Annotated[Path, typer.Option(help="Captions of what those do not show.")] = DEFAULT_ABSENT,
    out: Annotated[Path | None, typer.Option(help="A folder for calibration.json and reliability.png.")] = None,
    in_place: Annotated[
        bool, typer.Option("--in-place", help="Write it into the bundle, whose fingerprint stays.")
    ] = False,
    cache: Cache = None,
    batch: Batch = 32,
    device: Device = "auto",
) -> None:
    """Fit what makes scores say how relevant a hit is, and when nothing matches.

    Exit status: 0 done; 4 --in-place wrote nothing, for a flat cutoff decides better; 2 a bundle, a set or a
    list cannot be used.
    """
    with errors_shown():
        sets, listed = [read_pairs(spec) for spec in data], read_absent(absent)
        from training.calibrate.calibrate import without_losers
        from training.calibrate.report import figure_lines, fitted_figures, write_calibration_report
        from training.calibrate.run import CalibrationSettings, calibrate_encoder, store_calibration

        settings = CalibrationSettings(batch=batch, cache=cache)
        with stages_on(Console(stderr=True)) as on_progress:
            encoder = _encoder(bundle, device=device, batch=batch)
            fitted = calibrate_encoder(encoder, sets, absent=listed, settings=settings, on_progress=on_progress)
        kept, losers = without_losers(fitted)
        if out is not None:
            write_calibration_report(fitted, out)
        if in_place and kept is not None:
            store_calibration(encoder.bundle, kept)
    for name, figures in fitted_figures(fitted).items():
        typer.echo("\n".join((f"{name}:", *figure_lines(figures))))
    for reason in losers:
        typer.echo(reason)
    if in_place and kept is None:
        raise typer.Exit(EXIT_NOTHING_KEPT)


def relevance_command(
    bundle: Annotated[Path, typer.Argument(help="The bundle whose calibration is measured.")],
    *,
    data: Annotated[
        list[str], typer.Option(help="A set that it was not fitted on, one gallery each (repeatable).")
    ],
    queries: Annotated[
        list[Path] | None,
        typer.Option(help="Short queries of each set, as `queries` draws them; without, they are drawn."),
    ] = None,
    gallery_size: Annotated[
        list[int] | None,
        typer.Option(min=0, help="Images of the galleries for short queries; 0: all (repeatable)."),
    ] = None,
    absent: Annotated[Path, typer.Option(help="Captions of what the sets do not show.")] = MEASURED_ABSENT,
    own_texts: Annotated[
        bool,
        typer.Option("--texts-refit", help="Fit relevance to each gallery by its own texts, as a release."),
    ] = False,
    calibration: Annotated[
        Path | None, typer.Option(help="A calibration.json to measure instead of the bundle's own.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="A folder for relevance.json, relevance.md and reliability.png.")
    ] = None,
    cache: Cache = None,
    batch: Batch = 32,
    device: Device = "auto",
) -> None:
    """Measure how true relevance and "nothing matches" are, by short queries, captions and images.

    Exit status: 0 measured; 2 a bundle, a set or a list cannot be used.
    """
    with errors_shown():
        if queries and len(queries) != len(data):
            raise CalibrationError(
                f"{len(data)} sets and {len(queries)} lists of queries: give a list for each set, or none"
            )
        sets, listed = [read_pairs(spec) for spec in data], read_absent(absent)
        lists = [read_list(path) for path in queries] if queries else [_drawn(pairs) for pairs in sets]
        from training.calibrate.measure import MeasureOptions
        from training.calibrate.report import relevance_markdown, write_relevance_report

        options = MeasureOptions(sizes=tuple(gallery_size or (0,)), own_texts=own_texts)
        encoder = _encoder(bundle, device=device, batch=batch)
        known = _calibration(encoder, calibration)
        with stages_on(Console(stderr=True)) as on_progress:
            reports = [
                _measured(encoder, known, pairs, asked, listed, options, cache, on_progress)
                for pairs, asked in zip(sets, lists, strict=True)
            ]
        if out is not None:
            write_relevance_report(reports, out)
    typer.echo(relevance_markdown(reports))


def _measured(
    encoder: "Encoder",
    calibration: "Calibration",
    pairs: PairSet,
    queries: QueryList,
    absent: Sequence[AbsentQuery],
    options: "MeasureOptions",
    cache: Path | None,
    on_progress: "OnProgress",
) -> "RelevanceReport":
    from training.calibrate.measure import MeasuredSet, RelevanceReport, measure_relevance
    from training.calibrate.run import asker_of
    from training.evaluation.embedding import embed_pairs

    embedded = embed_pairs(encoder, pairs, batch=encoder.max_batch, cache=cache, on_progress=on_progress)
    measured = MeasuredSet(pairs.name, embedded, queries, absent)
    found = measure_relevance(calibration, measured, asker_of(encoder), encoder.short_queries, options)
    return RelevanceReport(
        bundle=encoder.name,
        fingerprint=encoder.fingerprint,
        fitted_on=calibration.fitted_on,
        set=pairs.name,
        spec=pairs.spec,
        digest=pairs.digest,
        own_texts=options.own_texts,
        measured=tuple(found),
    )


def _encoder(path: Path, *, device: str, batch: int) -> "Encoder":
    from encoders.bundle import Bundle
    from encoders.encoder import Encoder

    return Encoder.load(Bundle.open(path), device=device, max_batch=batch)


def _calibration(encoder: "Encoder", path: Path | None) -> "Calibration":
    """The one in the bundle, or another one of the same bundle. Raises CalibrationError, BadCalibration."""
    from encoders.calibration import parse_calibration, read_calibration

    if path is not None:
        return parse_calibration(path.read_bytes(), fingerprint=encoder.fingerprint)
    found = read_calibration(encoder.bundle.path, fingerprint=encoder.fingerprint)
    if found is None:
        raise CalibrationError(
            f"{encoder.bundle.path} carries no calibration: fit one (python -m training calibrate)"
        )
    return found


def _drawn(pairs: PairSet) -> QueryList:
    """What `python -m training queries` draws."""
    mentions = mentions_of([image.captions for image in pairs.images])
    return draw(mentions, count=QUERIES, seed=f"{pairs.name} 0")
