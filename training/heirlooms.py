"""What of a parent's files a bundle made from it does not have, told so that nothing goes without a word.

They speak of the parent's embeddings or ranking alone. It makes none of them.
"""

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from encoders.bundle import Bundle
from encoders.calibration import CALIBRATION
from encoders.query_bank import QUERY_BANK
from encoders.short_queries import SHORT_QUERIES
from encoders.verdict import VERDICT
from training.card import REPORT

MADE_BY: Mapping[str, str] = MappingProxyType(
    {
        QUERY_BANK: "bank --in-place",
        SHORT_QUERIES: "short-queries --in-place",
        CALIBRATION: "calibrate --in-place",
        REPORT: "evaluate --store",
        VERDICT: "gate",
    }
)
"""Each with the command that makes a bundle its own."""


def left_behind(parents: Sequence[Bundle], child: Bundle) -> str | None:
    """What to tell, in a line; None where the child has all that its parents have."""
    held = {name for parent in parents for name in parent.config.files}
    missing = [name for name in MADE_BY if name in held and name not in child.config.files]
    if not missing:
        return None
    names = " and ".join(dict.fromkeys(parent.name for parent in parents))
    commands = ", ".join(MADE_BY[name] for name in missing)
    return (
        f"{', '.join(missing)} of {names} hold for no other bundle and stay behind; {child.name} gets its own "
        f"by python -m training {commands}"
    )
