"""Charts as SVG in the page's own colours: `var(--b0)` is the first bundle's, in light and in dark.

Each chart is drawn on a canvas of a few hundred units and grows with its column. Knows numbers and names; no
report.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from training.evaluation.metrics import Estimate
from training.page.markup import Markup, element, joined

PALETTE = 6
BAR_CANVAS, BAR_LEFT, BAR_RIGHT = 340, 50, 40
BAR_PITCH, BAR_THICKNESS, GROUP_GAP = 17, 12, 10
TICK_HEIGHT = 18


@dataclass(frozen=True)
class Line:
    """Points (x, estimate from 0 to 1); `place` picks the colour, a dashed line has hollow marks."""

    label: str
    place: int
    dashed: bool
    points: Sequence[tuple[float, Estimate]]


@dataclass(frozen=True)
class Frame:
    """A plot's area within its canvas: x from `first` to `last`, y from 0 to `top`."""

    first: float
    last: float
    top: float = 1.0
    width: int = 280
    height: int = 180
    left: int = 36
    right: int = 12
    above: int = 10
    below: int = 26

    def x(self, value: float) -> float:
        share = (value - self.first) / (self.last - self.first) if self.last > self.first else 0.5
        return round(self.left + (self.width - self.left - self.right) * share, 1)

    def y(self, value: float) -> float:
        share = min(max(value / self.top, 0.0), 1.0)
        return round(self.above + (self.height - self.above - self.below) * (1 - share), 1)


def bars(groups: Sequence[tuple[str, Sequence[Estimate | None]]], *, label: str) -> Markup:
    """Horizontal bars from 0 to 100%, one a bundle in each named group, whiskers for intervals."""
    parts: list[Markup] = []
    y = 6
    for name, estimates in groups:
        middle = y + BAR_PITCH * len(estimates) / 2 + 3
        parts.append(_text(name, BAR_LEFT - 8, middle, anchor="end"))
        for place, estimate in enumerate(estimates):
            parts += _bar(estimate, y=y, place=place) if estimate else ()
            y += BAR_PITCH
        y += GROUP_GAP
    end = y - GROUP_GAP + 4
    grid = [_rule(_across(s), 0, _across(s), end) for s in (0, 0.25, 0.5, 0.75, 1)]
    ticks = [_text(f"{s:.0%}", _across(s), end + 13, kind="tick") for s in (0, 0.5, 1)]
    return _canvas(joined(*grid, *parts, *ticks), width=BAR_CANVAS, height=end + TICK_HEIGHT, label=label)


def curves(lines: Sequence[Line], *, xs: Sequence[tuple[float, str]], label: str, top: float = 1.0) -> Markup:
    """Lines over named places of x, shares from 0 to `top`; whiskers for intervals."""
    frame = Frame(first=xs[0][0], last=xs[-1][0], top=top)
    end = frame.width - frame.right
    parts: list[Markup] = []
    for level in (0, 0.25, 0.5, 0.75, 1):
        y = frame.y(level * top)
        parts.append(_rule(frame.left, y, end, y))
        parts.append(_text(f"{100 * level * top:.3g}%", frame.left - 6, y + 3.5, anchor="end", kind="tick"))
    parts += [_text(name, frame.x(x), frame.height - 8, kind="tick") for x, name in xs]
    for line in lines:
        parts += _line(line, frame)
    return _canvas(joined(*parts), width=frame.width, height=frame.height, label=label)


def reliability(curve: Sequence[tuple[float, float]], *, label: str) -> Markup:
    """How often hits of a stated relevance fit: (stated, observed) a bin; the diagonal is honest."""
    frame = Frame(first=0, last=1, width=300, height=280, left=40, below=34)
    parts = [_rule(frame.x(0), frame.y(0), frame.x(1), frame.y(1), kind="diagonal")]
    for level in (0, 0.25, 0.5, 0.75, 1):
        parts.append(_rule(frame.x(0), frame.y(level), frame.x(1), frame.y(level)))
        parts.append(_text(f"{level:.0%}", frame.left - 6, frame.y(level) + 3.5, anchor="end", kind="tick"))
        parts.append(_text(f"{level:.0%}", frame.x(level), frame.height - 20, kind="tick"))
    parts.append(_text("stated relevance", frame.x(0.5), frame.height - 5, kind="tick"))
    points = " ".join(f"{frame.x(stated)},{frame.y(observed)}" for stated, observed in curve)
    parts.append(element("polyline", points=points, fill="none", stroke=colour(0), stroke_width=2))
    for stated, observed in curve:
        title = element("title", f"stated {stated:.0%}, fits {observed:.0%}")
        parts.append(element("circle", title, cx=frame.x(stated), cy=frame.y(observed), r=4, fill=colour(0)))
    return _canvas(joined(*parts), width=frame.width, height=frame.height, label=label)


def legend(bundles: Sequence[str], *, directions: bool) -> Markup:
    """Which colour is which bundle and, for curves, which line is which direction."""
    swatches = [element("i", class_="swatch", style=f"background:{colour(p)}") for p in range(len(bundles))]
    keys = [joined(swatch, name) for swatch, name in zip(swatches, bundles, strict=True)]
    for dashed, name in ((False, "text → image"), (True, "image → text")) if directions else ():
        sample = joined(*_stroke("0,6 26,6", "currentColor", dashed), _mark(13, 6, "currentColor", dashed))
        keys.append(joined(element("svg", sample, width=26, height=12, aria_hidden="true"), name))
    return element("p", *(element("span", key, class_="key") for key in keys), class_="legend")


def colour(place: int) -> str:
    """The colour of the bundle at that place, as the style sheet has it."""
    return f"var(--b{place % PALETTE})"


def _bar(estimate: Estimate, *, y: float, place: int) -> Iterator[Markup]:
    low, value, high = (_across(each) for each in (estimate.low, estimate.value, estimate.high))
    middle = y + BAR_THICKNESS / 2
    width = max(0.5, round(value - BAR_LEFT, 1))
    yield element("rect", x=BAR_LEFT, y=y, width=width, height=BAR_THICKNESS, rx=1.5, fill=colour(place))
    yield _rule(low, middle, high, middle, kind="whisker")
    yield _text(f"{100 * estimate.value:.1f}", max(value, high) + 5, middle + 4, anchor="start", kind="value")


def _across(share: float) -> float:
    return round(BAR_LEFT + (BAR_CANVAS - BAR_LEFT - BAR_RIGHT) * share, 1)


def _line(line: Line, frame: Frame) -> Iterator[Markup]:
    ink = colour(line.place)
    places = [(frame.x(x), frame.y(each.value)) for x, each in line.points]
    for (x, _), (_, each) in zip(places, line.points, strict=True):
        yield _rule(x, frame.y(each.low), x, frame.y(each.high), kind="interval", stroke=ink)
    yield from _stroke(" ".join(f"{x},{y}" for x, y in places), ink, line.dashed)
    for (x, y), (at, each) in zip(places, line.points, strict=True):
        said = f"{line.label}, {at:g}: {100 * each.value:.1f}% ({100 * each.low:.1f}–{100 * each.high:.1f})"
        yield _mark(x, y, ink, line.dashed, element("title", said))


def _stroke(points: str, ink: str, dashed: bool) -> Iterator[Markup]:
    dashes = "5 3" if dashed else None
    yield element("polyline", points=points, fill="none", stroke=ink, stroke_width=1.8, stroke_dasharray=dashes)


def _mark(x: float, y: float, ink: str, hollow: bool, title: Markup | None = None) -> Markup:
    fill = "var(--paper)" if hollow else ink
    return element("circle", title, cx=x, cy=y, r=2.8, fill=fill, stroke=ink, stroke_width=1.4)


def _rule(
    x1: float, y1: float, x2: float, y2: float, *, kind: str = "grid", stroke: str | None = None
) -> Markup:
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=kind, stroke=stroke)


def _text(text: str, x: float, y: float, *, anchor: str = "middle", kind: str | None = None) -> Markup:
    return element("text", text, x=x, y=y, text_anchor=anchor, class_=kind)


def _canvas(content: Markup, *, width: float, height: float, label: str) -> Markup:
    return element("svg", content, viewBox=f"0 0 {width:g} {height:g}", role="img", aria_label=label)
