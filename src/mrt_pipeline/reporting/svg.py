"""Charts as inline SVG, which a page carries with it; colours come from the page's CSS variables."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

WIDTH, HEIGHT = 640, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 12, 44


@dataclass(frozen=True)
class Line:
    """A curve with a band. low, high: its ends at each x, or empty. colour: a CSS colour."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    colour: str = "var(--first)"


def line_chart(lines: Sequence[Line], x_title: str, y_title: str) -> str:
    """Curves over x from 0, with y from 0 to 1."""
    most = max(max(line.x) for line in lines)

    def at(x: float, y: float) -> str:
        across = _LEFT + x / most * (WIDTH - _LEFT - _RIGHT)
        return f"{across:.1f},{_TOP + (1 - y) * (HEIGHT - _TOP - _BOTTOM):.1f}"

    parts = []
    for i in range(6):
        y = i / 5
        left, right = at(0, y), at(most, y)
        (x1, y1), (x2, _) = left.split(","), right.split(",")
        parts.append(f'<line class="grid" x1="{x1}" y1="{y1}" x2="{x2}" y2="{y1}"/>')
        parts.append(f'<text class="tick" x="{_LEFT - 6}" y="{float(y1) + 4:.1f}" text-anchor="end">{y:.1f}</text>')
    for value in ticks(most):
        across, down = at(value, 0).split(",")
        label = f'<text class="tick" x="{across}" y="{float(down) + 16:.1f}" text-anchor="middle">{value:,g}</text>'
        parts.append(label)
    for line in lines:
        if len(line.low):
            band = [at(x, y) for x, y in zip(line.x, line.high, strict=True)]
            band += [at(x, y) for x, y in zip(reversed(line.x), reversed(line.low), strict=True)]
            parts.append(f'<polygon points="{" ".join(band)}" fill="{line.colour}" opacity="0.18"/>')
        points = " ".join(at(x, y) for x, y in zip(line.x, line.y, strict=True))
        parts.append(f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="2.2"/>')
    middle = (HEIGHT - _BOTTOM + _TOP) / 2
    parts.append(f'<text class="title" x="{WIDTH / 2}" y="{HEIGHT - 6}" text-anchor="middle">{escape(x_title)}</text>')
    turned = f'transform="rotate(-90 12 {middle})" text-anchor="middle"'
    parts.append(f'<text class="title" x="12" y="{middle}" {turned}>{escape(y_title)}</text>')
    legend = "".join(
        f'<span class="key"><i style="background:{line.colour}"></i>{escape(line.name)}</span>' for line in lines
    )
    picture = f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(y_title)}">{"".join(parts)}</svg>'
    return f"<figure>{picture}<figcaption>{legend if len(lines) > 1 else ''}</figcaption></figure>"


def stacked_bar(parts: Sequence[tuple[str, float, str]], whole: float = 1.0) -> str:
    """One bar of named parts with their colours, and a legend with their sizes."""
    x, pieces, keys = 0.0, [], []
    for name, size, colour in parts:
        width = 100 * size / whole
        pieces.append(f'<rect x="{x:.3f}" y="0" width="{width:.3f}" height="10" fill="{colour}"/>')
        keys.append(f'<span class="key"><i style="background:{colour}"></i>{escape(name)} {size:.3f}</span>')
        x += width
    bar = f'<svg class="bar" viewBox="0 0 100 10" preserveAspectRatio="none" role="img">{"".join(pieces)}</svg>'
    return f"<figure>{bar}<figcaption>{''.join(keys)}</figcaption></figure>"


def ticks(most: float, about: int = 5) -> list[float]:
    """Round numbers from 0 to `most`."""
    step = 10 ** len(str(int(most / about))) / 10 if most >= about else 1
    step = next(step * factor for factor in (1, 2, 5, 10) if most / (step * factor) <= about + 1)
    return [i * step for i in range(int(most / step) + 1)]
