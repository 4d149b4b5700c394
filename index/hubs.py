"""What a release's manifest says of the correction for hubs that its vectors carry.

Knows banks and manifests; not how penalties are computed (`encoders.query_bank`) or stored (`index.vectors`).
"""

from encoders.modalities import MODALITIES
from encoders.query_bank import ASKED_BY, QueryBank
from index.manifest import HubnessCorrection


def describe_correction(bank: QueryBank | None) -> HubnessCorrection | None:
    """None where the bundle has no bank."""
    if bank is None:
        return None
    queries = {str(m): len(bank.rows[ASKED_BY[m]]) for m in MODALITIES if bank.corrects(m)}
    return HubnessCorrection(alpha=bank.alpha, k=bank.k, bank_queries=queries)
