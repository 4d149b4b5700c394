"""Templates that make a text of a class name: "a photo of the large {}."."""

from pathlib import Path

from training.data.readers.spec import lines_of
from training.errors import EvaluationError

# The short list of CLIP's notebooks/Prompt_Engineering_for_ImageNet.ipynb, in the order of its choice.
CLIP_TEMPLATES = (
    "itap of a {}.",
    "a bad photo of the {}.",
    "a origami {}.",
    "a photo of the large {}.",
    "a {} in a video game.",
    "art of the {}.",
    "a photo of the small {}.",
)


def read_templates(path: Path) -> tuple[str, ...]:
    """Templates from a file, one a line, {} where the name goes. Raises MissingFile or EvaluationError."""
    templates = tuple(dict.fromkeys(line.strip() for line in lines_of(str(path)) if line.strip()))
    if not templates:
        raise EvaluationError(f"{path}: no template in it; write one a line, as in 'a photo of a {{}}.'")
    for template in templates:
        if template.count("{}") != 1:
            raise EvaluationError(f"{path}: the template {template!r} must have {{}} once, where the name goes")
    return templates
