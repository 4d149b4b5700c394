"""What every section is made of: a heading, notes, charts with captions."""

from training.page.markup import Markup, element

NOTHING = Markup("")


def section(title: str, *content: Markup) -> Markup:
    return element("section", element("h2", title), *content)


def note(*content: str | Markup | None) -> Markup:
    return element("p", *content, class_="note")


def card(title: str | Markup, content: Markup) -> Markup:
    return element("figure", element("figcaption", title), content)
