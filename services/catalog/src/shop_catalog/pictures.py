"""Pictures of articles, drawn from what is known about them: the same article always looks the same.

Called by `api`. The documents have no script and no references, so a page may show them as they are.
"""

import hashlib
from html import escape

from shop_catalog.domain import Article

_CUP = (
    '<path d="M60 90h90v50a40 40 0 0 1-40 40h-10a40 40 0 0 1-40-40z"/>'
    '<path d="M150 100h12a20 20 0 0 1 0 50h-14" {line}/>'
)
_BAG = '<path d="M65 70h80l12 110H53z"/><path d="M85 78v-14a20 20 0 0 1 40 0v14" {line}/>'
_BOX = '<path d="M50 90l55-28 55 28v70l-55 28-55-28z"/><path d="M50 90l55 28 55-28M105 118v70" {edge}/>'
_SHAPES = {"tea": _CUP, "coffee": _BAG, "mugs": _CUP}
_LINE = 'fill="none" stroke="hsl({hue} 45% 32%)" stroke-width="9"'
_EDGE = 'fill="none" stroke="hsl({hue} 50% 88%)" stroke-width="4"'


def picture(article: Article) -> str:
    """Return an SVG document of 210 by 240 units with a title for who cannot see it."""
    hue = int.from_bytes(hashlib.sha256(article.sku.encode()).digest()[:2], "big") % 360
    told = article.description
    shape = _SHAPES.get(told.category, _BOX).format(line=_LINE.format(hue=hue), edge=_EDGE.format(hue=hue))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 210 240" role="img">'
        f"<title>{escape(told.name)}</title>"
        f'<rect width="210" height="240" rx="12" fill="hsl({hue} 50% 88%)"/>'
        f'<g fill="hsl({hue} 45% 32%)">{shape}</g>'
        "</svg>"
    )
