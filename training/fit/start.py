"""What a training run starts from: a bundle, an open_clip architecture, or two pretrained towers.

A file is named by its path, or as "package:<package>/<path inside>" where it is installed as a Python package.
Weights files are read without executing anything (safetensors, or a state dict with `weights_only`). This
module knows how towers are put together, not how they are trained.
"""

import importlib.util
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from pydantic import BaseModel, ConfigDict, Field, model_validator
from safetensors.torch import load_file
from torch import nn

from encoders.bundle import TEXT_CONFIG, Bundle, read_files
from encoders.encoder import load_towers
from encoders.images import Preprocessing
from encoders.texts import TOKENIZER_FILES, TokenizerSpec
from encoders.towers import TEXT_FOLDER, TowersConfig, build_towers
from encoders.weights import Encoding
from training.errors import RecipeError
from training.fit.step.loss import LossKind

SIGMOID_BIAS, SIGMOID_SCALE = -10.0, 10.0
"""SigLIP's first bias and scale (Zhai et al. 2023): most pairs are negatives, and count little at first."""


class TowerPair(BaseModel):
    """A timm image tower beside a transformers text tower, each with an MLP head into one space."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    image_model: str
    """timm's name."""
    image_weights: str | None = None
    text_model: str
    """A folder with config.json, tokenizer.json and model.safetensors."""
    text_weights: bool = True
    """False: the text tower starts from random weights."""
    embed_dim: int = Field(default=512, ge=1)
    context_length: int = Field(default=64, ge=3)
    head_dropout: float = Field(default=0.0, ge=0, lt=1)


class Start(BaseModel):
    """Exactly one of the three."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bundle: Path | None = None
    open_clip: str | None = None
    """An architecture's name, with random weights; import pretrained ones with `python -m encoders import`."""
    towers: TowerPair | None = None
    preprocessing: Preprocessing | None = None
    """Needed with `towers`; else it is the bundle's or the architecture's own."""

    @model_validator(mode="after")
    def _exactly_one(self) -> "Start":
        if sum(part is not None for part in (self.bundle, self.open_clip, self.towers)) != 1:
            raise ValueError("[start] takes exactly one of bundle, open_clip, towers")
        return self


@dataclass(frozen=True)
class StartingPoint:
    """Towers with their first weights, and all that a bundle made from them holds besides."""

    towers: TowersConfig
    preprocessing: Preprocessing
    tokenizer: TokenizerSpec
    files: Mapping[str, bytes]
    model: nn.Module
    parent: str | None = None
    """The fingerprint of the bundle it comes from."""
    parent_data: Sequence[Mapping[str, Any]] = ()
    """What that bundle was trained on: its terms go on."""
    weights: Encoding = "fp32"
    """How that bundle stores its matrices."""


def starting_point(start: Start, scratch: Path, *, seed: int, loss: LossKind = "softmax") -> StartingPoint:
    """Build it; `scratch` is a folder of the run's where tokenizer and text configuration are laid out.

    Fresh towers for the sigmoid loss get a logit bias, and begin with SigLIP's.
    Raises RecipeError, BundleError.
    """
    torch.manual_seed(seed)
    if start.bundle is not None:
        return _from_bundle(Bundle.open(start.bundle), start, scratch)
    if start.open_clip is not None:
        return _from_open_clip(start.open_clip, start, scratch, loss)
    assert start.towers is not None  # noqa: S101 - the validator saw to it
    return _from_pair(start.towers, start, scratch, loss)


def preprocessing_of(start: Start) -> Preprocessing:
    """How images become pixels, without building towers. Raises RecipeError, BundleError."""
    if start.preprocessing is not None:
        return start.preprocessing
    if start.bundle is not None:
        return Bundle.open(start.bundle, verify=False).config.preprocessing
    if start.open_clip is not None:
        return _own_preprocessing(_architecture(start.open_clip))
    raise RecipeError("[start.preprocessing] is missing: say how images become pixels for this image tower")


def _from_bundle(bundle: Bundle, start: Start, scratch: Path) -> StartingPoint:
    if bundle.config.adaptation is not None:
        raise RecipeError(
            f"{bundle.path} is adapted to a domain, and training would lose that: start from the bundle it was "
            "made from (python -m training adapt --undo), then adapt what comes out"
        )
    files = read_files(bundle, keep=lambda name: name in bundle.config.embedding_files)
    _lay_out(files, scratch)
    return StartingPoint(
        towers=bundle.config.towers,
        preprocessing=start.preprocessing or bundle.config.preprocessing,
        tokenizer=bundle.config.tokenizer,
        files=files,
        model=load_towers(bundle),
        parent=bundle.fingerprint,
        parent_data=bundle.config.provenance.get("data", []),
        weights=bundle.config.weights,
    )


def _for_loss(towers: TowersConfig, loss: LossKind) -> TowersConfig:
    if loss == "softmax" or towers.init_logit_bias is not None:
        return towers
    first = {"init_logit_bias": SIGMOID_BIAS, "init_logit_scale": math.log(SIGMOID_SCALE)}
    return towers.model_copy(update=first)


def _architecture(name: str) -> TowersConfig:
    raw = open_clip.get_model_config(name)
    if (
        raw is None
        or "hf_model_name" in raw.get("text_cfg", {})
        or "hf_tokenizer_name" in raw.get("text_cfg", {})
    ):
        raise RecipeError(
            f"open_clip has no architecture {name!r} with CLIP's own tokenizer: import a checkpoint"
        )
    return TowersConfig.model_validate(raw)


def _own_preprocessing(towers: TowersConfig) -> Preprocessing:
    """open_clip's of an architecture."""
    side = towers.vision_cfg.get("image_size", 224)
    return Preprocessing(height=side, width=side, resize="shortest")


def _from_open_clip(name: str, start: Start, scratch: Path, loss: LossKind) -> StartingPoint:
    towers = _for_loss(_architecture(name), loss)
    tokenizer = TokenizerSpec(
        kind="clip_bpe", context_length=towers.text_cfg.get("context_length", 77), pad_to="context"
    )
    vocabulary = Path(open_clip.__file__).parent / "bpe_simple_vocab_16e6.txt.gz"
    files = {TOKENIZER_FILES["clip_bpe"]: vocabulary.read_bytes()}
    _lay_out(files, scratch)
    return StartingPoint(towers, preprocessing_of(start), tokenizer, files, build_towers(towers, scratch))


def _from_pair(pair: TowerPair, start: Start, scratch: Path, loss: LossKind) -> StartingPoint:
    preprocessing = preprocessing_of(start)
    text_folder = resolve(pair.text_model)
    files = {
        TOKENIZER_FILES["tokenizers"]: _file(text_folder / "tokenizer.json"),
        TEXT_CONFIG: _file(text_folder / "config.json"),
    }
    _lay_out(files, scratch)
    towers = TowersConfig(
        embed_dim=pair.embed_dim,
        vision_cfg={
            "timm_model_name": pair.image_model, "timm_pool": "", "timm_proj": "mlp",
            "timm_drop": pair.head_dropout, "image_size": preprocessing.height,
        },
        text_cfg={"hf_model_name": TEXT_FOLDER, "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler"},
    )  # fmt: skip
    towers = _for_loss(towers, loss)
    model: Any = build_towers(towers, scratch)
    if pair.image_weights is not None:
        _fill(model.visual.trunk, read_state(resolve(pair.image_weights)), pair.image_weights)
    if pair.text_weights:
        text_weights = text_folder / "model.safetensors"
        _file(text_weights)
        _fill(model.text.transformer, read_state(text_weights), str(text_weights))
    pad_id = json.loads(files[TEXT_CONFIG]).get("pad_token_id") or 0
    tokenizer = TokenizerSpec(kind="tokenizers", context_length=pair.context_length, pad_id=pad_id)
    return StartingPoint(towers, preprocessing, tokenizer, files, model)


def resolve(name: str) -> Path:
    """A path, or "package:<package>/<path>" inside an installed package. Raises RecipeError."""
    if not name.startswith("package:"):
        path = Path(name).expanduser()
    else:
        package, _, rest = name.removeprefix("package:").partition("/")
        try:
            spec = importlib.util.find_spec(package)
        except ModuleNotFoundError:  # what a dotted name lies in
            spec = None
        if spec is None or not spec.submodule_search_locations:
            raise RecipeError(f"{name}: the Python package {package!r} is not installed: pip install it")
        path = Path(next(iter(spec.submodule_search_locations))) / rest
    if not path.exists():
        raise RecipeError(f"{name}: there is no {path}")
    return path


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Tensors by name, from safetensors or from a pickled state dict read with `weights_only`.

    Raises RecipeError.
    """
    try:
        raw: Any = (
            load_file(path)
            if path.suffix == ".safetensors"
            else torch.load(path, map_location="cpu", weights_only=True)
        )
    except Exception as error:  # torch.load raises whatever the bytes make its readers raise
        raise RecipeError(f"{path} holds no readable weights: {error}") from error
    state = raw.get("state_dict", raw) if isinstance(raw, Mapping) else None
    if not isinstance(state, Mapping) or not all(isinstance(one, torch.Tensor) for one in state.values()):
        raise RecipeError(f"{path} holds no state dict: tensors by name, or those under 'state_dict'")
    return dict(state)


def _fill(module: nn.Module, state: dict[str, torch.Tensor], source: str) -> None:
    """Load by name, or else in order, when names differ but the sequence of shapes agrees.

    A classifier at the end, or buffers that a newer library no longer has, may be left over. Only a pickled
    state dict has the order of its model; safetensors come back sorted by name.
    """
    own = module.state_dict()
    by_name = {name: state[name] for name in own if name in state and state[name].shape == own[name].shape}
    if len(by_name) == len(own):
        module.load_state_dict(by_name)
        return
    given = [] if source.endswith(".safetensors") else list(state.values())
    if len(given) < len(own) or any(a.shape != b.shape for a, b in zip(own.values(), given, strict=False)):
        raise RecipeError(
            f"{source}: its {len(state)} tensors fit the tower's {len(own)} neither by name nor in order"
        )
    module.load_state_dict(dict(zip(own, given, strict=False)))


def _file(path: Path) -> bytes:
    if not path.is_file():
        raise RecipeError(
            f"{path} is missing: a text tower needs config.json, tokenizer.json, model.safetensors"
        )
    return path.read_bytes()


def _lay_out(files: Mapping[str, bytes], folder: Path) -> None:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
