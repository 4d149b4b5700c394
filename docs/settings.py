"""Write docs/settings.md from the settings themselves: `python -m docs.settings`."""

from itertools import groupby
from pathlib import Path

from service.options import Setting, all_settings

PAGE = Path(__file__).with_suffix(".md")
HEAD = """\
# Settings of the service

`python -m service --help` lists the same. Each is an option, `max_images` as `--max-images 64`, and a variable,
`TWINLENS_MAX_IMAGES=64`; the option counts where both are given. A truth value is `true` or `false` as a
variable, `--verify` or `--no-verify` as an option. `image_secret` is a variable only, as others on the
machine can read a command line. A variable `TWINLENS_…` that is no setting is named in the log; a value that
cannot be is told at the start, which ends with status 2. [Compose](operations.md#in-containers) passes all of
them on.

<!-- Written by `python -m docs.settings`: change service/settings.py instead. -->
"""


def page() -> str:
    """The whole page, as Markdown."""
    parts = [HEAD]
    for group, settings in groupby(all_settings(), key=lambda each: each.group):
        rows = "\n".join(_row(each) for each in settings)
        parts.append(f"## {group}\n\n| setting | value | default | |\n|---|---|---|---|\n{rows}\n")
    return "\n".join(parts)


def _row(setting: Setting) -> str:
    kind = " ".join(f"`{each}`" for each in setting.kind.split("|")) if "|" in setting.kind else setting.kind
    default = f"`{setting.default}`" if setting.default else ""
    return f"| `{setting.name}` | {kind} | {default} | {setting.words} |"


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
