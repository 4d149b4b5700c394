"""The record of a bundle that was made before there was one, from the sets that its provenance names.

A set counts only if its digest is the one in the provenance: ids and captions as they were trained on.
"""

from collections.abc import Sequence

from encoders.bundle import Bundle
from training.data.pairs import read_pairs
from training.errors import SeenError
from training.seen.record import Seen, source_of


def seen_by_provenance(bundle: Bundle, *, sources: Sequence[str] = (), chosen_by: Sequence[str] = ()) -> Seen:
    """Hash what it was trained on: by the specs in its provenance, or by `sources`, which must be those sets.

    Raises SeenError where a set that it was trained on is missing or is not what it was, PairsError.
    """
    data = bundle.config.provenance.get("data", [])
    if not data:
        raise SeenError(f"{bundle.path} names no set that it was trained on: nobody can tell what it has seen")
    wanted = {str(one["sha256"]): one for one in data}
    given = [read_pairs(spec) for spec in sources or dict.fromkeys(str(one["pairs"]) for one in data)]
    found = {pairs.digest: pairs for pairs in given}
    if foreign := next((pairs for digest, pairs in found.items() if digest not in wanted), None):
        expected = ", ".join(f"{one['name']} {digest[:12]}" for digest, one in wanted.items())
        raise SeenError(
            f"{foreign.spec}: its digest is {foreign.digest[:12]}, and {bundle.name} was not trained on this "
            f"set: it was on {expected}"
        )
    if missing := [one["name"] for digest, one in wanted.items() if digest not in found]:
        raise SeenError(f"{bundle.name} was trained on {', '.join(missing)}, too: name that set with --source")
    trained = [source_of(pairs, name=str(wanted[digest]["name"])) for digest, pairs in found.items()]
    chosen = [source_of(read_pairs(spec), role="chosen by") for spec in chosen_by]
    return Seen((*trained, *chosen))
