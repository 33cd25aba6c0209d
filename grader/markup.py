"""Strangers' Markdown and HTML as HTML that runs nothing, loads nothing and leads nowhere.

Nothing here asks who wrote a text. Raw HTML in Markdown is shown as it was typed, links as text with their address
beside it, pictures only where they are part of the text (data:), formulas as MathML made when the page is made: no
script is needed to show them. Of HTML only what the course's cards are built from is left.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import cache
from html import escape, unescape
from typing import Any
from xml.etree import ElementTree

from lessonlib.classroom import cards

LONGEST = 2_000  # characters of one formula
TAGS = frozenset(
    str.split(
        "section div p span pre code b strong i em h3 h4 ul ol li table caption thead tbody tr th td details summary "
        "blockquote br hr sub sup"
    )
)
_CLASS = re.compile(r"(lesson-[a-z-]+ ?)+")
_PLAIN = frozenset({"scope", "aria-label", "aria-hidden"})
_WIDTH = re.compile(r"width: ?\d{1,4}px;?")
_STYLE = re.compile(r"<style>[^<]*</style>")

_MATHML = frozenset(
    str.split(
        "math mrow mi mn mo mtext mspace mfrac msqrt mroot msub msup msubsup munder mover munderover mmultiscripts "
        "mprescripts none mtable mtr mtd mpadded mphantom mstyle menclose"
    )
)
_MATHML_LOOKS = frozenset(
    str.split(
        "display displaystyle scriptlevel mathvariant stretchy fence form separator accent accentunder movablelimits "
        "minsize maxsize linethickness columnalign rowspacing columnspacing lspace rspace width height depth"
    )
)


def markdown(source: str) -> str:
    """Markdown as HTML: CommonMark, tables, strikethrough, formulas between dollars."""
    return str(_renderer().render(source))


def clean(html: str, style: bool = True) -> str:
    """What is left of HTML (a card, as a rule); ``style``: with the cards' own style sheet in front of a card."""
    import bleach
    from bleach.css_sanitizer import CSSSanitizer

    kept = bleach.clean(
        _STYLE.sub("", html),
        tags=TAGS,
        attributes=_allowed,
        strip=True,
        css_sanitizer=CSSSanitizer(allowed_css_properties=["width"]),
    )
    return (cards.style() if style and "lesson-card" in kept else "") + kept


def maths(tex: str, display: bool = False) -> str:
    """A formula as MathML; as it was typed where it cannot be read."""
    from latex2mathml.converter import convert_to_element

    try:
        if len(tex) > LONGEST:
            raise ValueError("too long")
        found = _rebuilt(convert_to_element(tex, display="block" if display else "inline"))
        return ElementTree.tostring(found, encoding="unicode", short_empty_elements=False)
    except Exception:  # whatever the library does with what a stranger wrote
        return f"<code>{escape(tex)}</code>"


def _allowed(tag: str, name: str, value: str) -> bool:
    if name == "class":
        return bool(_CLASS.fullmatch(value))
    if name == "style":
        return bool(_WIDTH.fullmatch(value))
    return name in _PLAIN


def _rebuilt(element: ElementTree.Element) -> ElementTree.Element:
    """The same tree, if it is nothing but MathML: names and looks from the lists, no links, no scripts."""
    if element.tag not in _MATHML:
        raise ValueError(f"{element.tag} is not for formulas")
    looks = {name: value for name, value in element.attrib.items() if name in _MATHML_LOOKS}
    copy = ElementTree.Element(element.tag, looks)
    copy.text, copy.tail = unescape(element.text or ""), element.tail  # the library writes signs as &#x0003D;
    copy.extend(_rebuilt(child) for child in element)
    return copy


@cache
def _renderer() -> Any:
    from markdown_it import MarkdownIt
    from mdit_py_plugins.dollarmath import dollarmath_plugin

    renderer = MarkdownIt("commonmark", {"html": False}).enable(["table", "strikethrough"])
    renderer.use(
        dollarmath_plugin,
        allow_labels=False,
        allow_space=False,
        allow_digits=False,  # "$5 and $6" is money
        double_inline=True,
        renderer=lambda tex, options: maths(tex, options["display_mode"]),
    )
    renderer.add_render_rule("link_open", _link_open)
    renderer.add_render_rule("link_close", _link_close)
    renderer.add_render_rule("image", _image)
    return renderer


def _link_open(self: Any, tokens: Any, at: int, options: Any, env: Mapping[str, Any]) -> str:
    return "<span>"


def _link_close(self: Any, tokens: Any, at: int, options: Any, env: Mapping[str, Any]) -> str:
    """Behind its text, the address of the link, unless the text is the address."""
    depth, start = 1, at
    while depth:
        start -= 1
        depth += {"link_open": -1, "link_close": 1}.get(tokens[start].type, 0)
    address = tokens[start].attrGet("href") or ""
    text = "".join(token.content for token in tokens[start + 1 : at])
    return "</span>" if text == address else f" (<code>{escape(address)}</code>)</span>"


def _image(self: Any, tokens: Any, at: int, options: Any, env: Mapping[str, Any]) -> str:
    """A picture that is part of the text; of any other one, what it is called."""
    source = tokens[at].attrGet("src") or ""
    called = escape(self.renderInlineAsText(tokens[at].children or [], options, env))
    if source.startswith(("data:image/png;base64,", "data:image/jpeg;base64,")):
        return f'<img src="{escape(source)}" alt="{called}">'
    return f"<span>[picture: {called} (<code>{escape(source[:200])}</code>)]</span>"
