"""The few shapes that the documentation's pictures are made of, as SVG. Used by the modules beside it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from html import escape

INK = "#1f2933"
FAINT = "#7b8794"
FILLS = {"plain": "#ffffff", "ours": "#e3f2fd", "good": "#e3f9e5", "wait": "#fff3c4", "bad": "#ffe3e3"}
LETTER = 8.6
"""The mean width of a bold letter in pixels: generous, so that no text leaves its box."""


@dataclass(frozen=True, slots=True)
class Box:
    """A rectangle with lines of text in its middle. Lengths are pixels, `x` and `y` its upper left corner."""

    x: float
    y: float
    width: float
    height: float
    lines: tuple[str, ...]
    fill: str = "plain"

    @property
    def middle(self) -> tuple[float, float]:
        """Return the centre of the box."""
        return self.x + self.width / 2, self.y + self.height / 2

    def edge_towards(self, point: tuple[float, float]) -> tuple[float, float]:
        """Return where a straight line from the centre to `point` leaves the box."""
        cx, cy = self.middle
        dx, dy = point[0] - cx, point[1] - cy
        across = self.width / 2 / abs(dx) if dx else float("inf")
        down = self.height / 2 / abs(dy) if dy else float("inf")
        share = min(across, down, 1.0)
        return cx + dx * share, cy + dy * share


@dataclass
class Drawing:
    """An SVG picture under construction."""

    width: float
    height: float
    title: str
    parts: list[str] = field(default_factory=list)

    def box(self, box: Box) -> None:
        """Draw a box with its text."""
        self.parts.append(
            f'<rect x="{box.x:g}" y="{box.y:g}" width="{box.width:g}" height="{box.height:g}" rx="8" '
            f'fill="{FILLS[box.fill]}" stroke="{INK}"/>'
        )
        cx, cy = box.middle
        top = cy - (len(box.lines) - 1) * 8.5
        for number, line in enumerate(box.lines):
            self.text(cx, top + number * 17 + 4.5, line, bold=number == 0, anchor="middle")

    def text(
        self, x: float, y: float, text: str, *, bold: bool = False, anchor: str = "start", faint: bool = False
    ) -> None:
        """Write one line; `anchor` says which end of it is at `x`: start, middle or end."""
        weight = ' font-weight="600"' if bold else ""
        colour = FAINT if faint else INK
        self.parts.append(
            f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}" fill="{colour}"{weight}>{escape(text)}</text>'
        )

    def line(
        self,
        points: Iterable[tuple[float, float]],
        *,
        arrow: bool = True,
        both: bool = False,
        dashed: bool = False,
        faint: bool = False,
    ) -> None:
        """Draw a line through the points, with an arrow head at its end, or at both ends."""
        path = " L ".join(f"{x:g} {y:g}" for x, y in points)
        self._path(f"M {path}", arrow=arrow, both=both, dashed=dashed, faint=faint)

    def curve(self, start: tuple[float, float], bend: tuple[float, float], end: tuple[float, float]) -> None:
        """Draw a curve from `start` to `end`, drawn towards `bend`, with an arrow head at its end."""
        text = f"M {start[0]:g} {start[1]:g} Q {bend[0]:g} {bend[1]:g} {end[0]:g} {end[1]:g}"
        self._path(text, arrow=True, both=False, dashed=False, faint=False)

    def _path(self, path: str, *, arrow: bool, both: bool, dashed: bool, faint: bool) -> None:
        heads = ' marker-end="url(#head)"' if arrow else ""
        heads += ' marker-start="url(#head)"' if both else ""
        dash = ' stroke-dasharray="5 4"' if dashed else ""
        colour = FAINT if faint else INK
        self.parts.append(f'<path d="{path}" fill="none" stroke="{colour}"{dash}{heads}/>')

    def cross(self, x: float, y: float) -> None:
        """Mark a place where something is lost."""
        self.parts.append(
            f'<path d="M {x - 6:g} {y - 6:g} L {x + 6:g} {y + 6:g} M {x + 6:g} {y - 6:g} L {x - 6:g} {y + 6:g}" '
            'stroke="#ba2525" stroke-width="2.5"/>'
        )

    def svg(self) -> str:
        """Return the whole picture as SVG."""
        head = (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            f'font-family="system-ui, sans-serif" font-size="13.5">\n<title>{escape(self.title)}</title>\n'
            '<defs><marker id="head" viewBox="0 0 10 10" refX="9" refY="5" markerWidth="8" markerHeight="8" '
            f'orient="auto-start-reverse"><path d="M 0 0 L 10 5 L 0 10 z" fill="{INK}"/></marker></defs>\n'
            f'<rect width="{self.width:g}" height="{self.height:g}" fill="#ffffff"/>\n'
        )
        return head + "\n".join(self.parts) + "\n</svg>\n"


def wide_enough(lines: Iterable[str], least: float = 90) -> float:
    """Return the width of a box for these lines."""
    return max([least, *(len(line) * LETTER + 24 for line in lines)])
