"""HTML and SVG elements. Text is escaped unless it is Markup, so a caption can never become an element."""

from html import escape
from typing import TypeAlias


class Markup(str):
    """Text that is HTML already; only `element`, `joined` and this package's constants make it."""

    __slots__ = ()


Content: TypeAlias = "str | int | float | Markup | None"
_VOID = frozenset({"img", "br", "meta", "line", "circle", "rect", "path", "polyline", "polygon"})


def element(tag: str, *content: Content, **attributes: Content) -> Markup:
    """`<tag …>content</tag>`; the attribute `class_` is class, `aria_label` aria-label, None is left out."""
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(str(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    if tag in _VOID and not content:
        return Markup(f"<{tag}{shown}/>")
    return Markup(f"<{tag}{shown}>{joined(*content)}</{tag}>")


def joined(*content: Content) -> Markup:
    """The parts one after the other, text escaped."""
    return Markup(
        "".join(part if isinstance(part, Markup) else escape(str(part)) for part in content if part is not None)
    )
