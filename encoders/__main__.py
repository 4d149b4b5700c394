"""`python -m encoders`: published models into bundles; bundles shown, verified, given golden inputs."""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from encoders.bundle import DEFAULT_BUNDLE, Bundle
from encoders.errors import ImportFailed, TwinlensError

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, help=__doc__.splitlines()[0])
_console = Console(soft_wrap=True)
_errors = Console(stderr=True, soft_wrap=True)

BundleArgument = Annotated[Path, typer.Argument(help="A bundle's folder; by default the one that ships.")]


@app.command("import")
def import_(
    source: Annotated[
        str,
        typer.Argument(
            help="ARCHITECTURE/TAG of open_clip (ViT-B-32/openai), hf-hub:ORG/NAME, local-dir:FOLDER, "
            "an open_clip checkpoint file (with --model), or a transformers CLIP folder."
        ),
    ],
    out: Annotated[Path, typer.Option(help="The bundle's folder; a bundle that is there is replaced.")],
    name: Annotated[
        str | None, typer.Option(help="The bundle's name; by default made from the source.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="open_clip's architecture, for a checkpoint file.")] = None,
    like: Annotated[
        str | None,
        typer.Option(
            help="For a checkpoint file: the published tag of --model whose preprocessing and activation its "
            "weights were trained with (openai)."
        ),
    ] = None,
    licence: Annotated[
        str | None, typer.Option(help="The weights' licence, where the source names none.")
    ] = None,
    cache: Annotated[Path | None, typer.Option(help="Folder for what is downloaded.")] = None,
) -> None:
    """Turn a published model into a bundle, and prove that it embeds as the original does."""
    from encoders.importing.run import import_model  # it imports the libraries that only importing needs

    with _errors_told():
        started = time.perf_counter()
        _console.print(f"reading {source}")
        bundle = import_model(
            source, out=out, name=name or _name_of(source), architecture=model, like=like, licence=licence,
            cache=cache,
        )  # fmt: skip
        agreement = bundle.config.provenance["agreement"]
        _console.print(
            f"wrote {bundle.path} in {time.perf_counter() - started:.1f} s: {bundle.name}, fingerprint "
            f"{bundle.fingerprint[:12]}; least cosine with the original: images {agreement['images']:.6f}, "
            f"texts {agreement['texts']:.6f}, by {bundle.config.provenance['settings']}"
        )


@app.command()
def show(bundle: BundleArgument = DEFAULT_BUNDLE) -> None:
    """Print what a bundle is: towers, preprocessing, tokenizer, provenance."""
    with _errors_told():
        opened = Bundle.open(bundle, verify=False)
        for key, value in _facts(opened):
            _console.print(f"[bold]{key}[/]: {escape(value)}", highlight=False)


@app.command()
def verify(bundle: BundleArgument = DEFAULT_BUNDLE) -> None:
    """Check every file's SHA-256, embed an image and a text, and the golden inputs where the bundle has some.

    Where golden vectors come out otherwise, say which inputs differ and the likely cause (exit status 1).
    """
    from encoders.verifying import verify_bundle  # torch takes seconds to load: `show` does without

    with _errors_told():
        opened = verify_bundle(bundle)
        _console.print(f"{opened.path}: {opened.name} is sound, fingerprint {opened.fingerprint}")


@app.command()
def golden(
    bundle: Annotated[Path, typer.Argument(help="The bundle that is to carry golden inputs.")],
    reference: Annotated[
        Path | None,
        typer.Option(
            help="The weights before they were rounded for storage: a bundle in fp32, or a .safetensors file "
            "as training keeps it (runs/NAME/best.safetensors)."
        ),
    ] = None,
) -> None:
    """Put golden inputs and their vectors into a bundle, so that parity can be checked later."""
    from encoders.golden import add_golden
    from encoders.reference import read_reference

    with _errors_told():
        opened = Bundle.open(bundle)
        made = add_golden(opened, reference=read_reference(reference, of=opened) if reference else None)
        _console.print(f"{made.path}: {made.name} carries golden inputs now, fingerprint {made.fingerprint}")
        if reference is None and made.config.weights != "fp32":
            _console.print(
                f"their vectors are of the weights as stored ({made.config.weights}): name those before "
                "rounding with --reference, or its gate cannot tell what rounding cost"
            )


def _facts(bundle: Bundle) -> Iterator[tuple[str, str]]:
    config = bundle.config
    yield "name", config.name
    yield "fingerprint", config.fingerprint
    yield "created", config.created.isoformat()
    yield "embedding", f"{config.towers.embed_dim} dimensions, logit scale {config.logit_scale:.2f}"
    yield "image tower", _compact(config.towers.vision_cfg)
    yield "text tower", _compact(config.towers.text_cfg)
    yield "preprocessing", _compact(config.preprocessing.model_dump())
    yield "tokenizer", _compact(config.tokenizer.model_dump())
    yield "weights", config.weights
    for name, record in sorted(config.files.items()):
        yield f"file {name}", f"{record.bytes:,} bytes, SHA-256 {record.sha256[:12]}…"
    for key, value in config.provenance.items():
        yield key, str(value)


def _compact(settings: dict[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in settings.items() if value is not None)


def _name_of(source: str) -> str:
    """A bundle's name from a source: its last parts, in the letters that a name may have."""
    path = Path(source)
    stem = (
        path.resolve().name
        if path.is_dir()
        else path.stem
        if path.is_file()
        else source.partition(":")[2] or source
    )
    return re.sub(r"[^\w.+-]+", "-", stem).strip("-.+")[:100] or "imported"


@contextmanager
def _errors_told() -> Iterator[None]:
    try:
        yield
    except TwinlensError as error:
        _errors.print(f"[bold red]error:[/] {type(error).__name__}: ", end="")
        _errors.print(str(error), markup=False, highlight=False)
        raise typer.Exit(2 if isinstance(error, ImportFailed) else 1) from None


if __name__ == "__main__":
    app()
