"""Says which extra to install when a role's packages are missing; each role's `__init__` asks.

Only looks whether packages can be found, imports none of them.
"""

import sys
from importlib.util import find_spec

from encoders.errors import TwinlensError


class MissingExtra(TwinlensError, ImportError):
    """A role was imported, and the packages of its extra are not installed."""


def require_extra(extra: str, *, packages: tuple[str, ...]) -> None:
    """Raise MissingExtra unless every package can be found; as a command, end with its message alone.

    While `python -m <role>` looks for the role's module, `sys.argv[0]` is "-m": that tells a command from
    an import, and spares a person the traceback.
    """
    missing = [package for package in packages if find_spec(package) is None]
    if not missing:
        return
    message = (
        f"{', '.join(missing)}: not installed here, and the {extra} role needs it. "
        f"Install the extra: pip install 'twinlens[{extra}]' (in a clone: pip install -e '.[{extra}]')"
    )
    if sys.argv[:1] == ["-m"]:
        raise SystemExit(message)
    raise MissingExtra(message)
