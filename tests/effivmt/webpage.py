"""A page, parsed as a browser would, and a text that tries to be more than text."""

from html.parser import HTMLParser

HOSTILE = """<script>alert(1)</script>"onload=alert(2) 'onerror=alert(3) --></title></style></svg>{{ 7 * 7 }}&amp;"""
BROKEN_OUT = "</script><img src=x onerror=alert(1)>"
"""The same in few tokens."""
VOID = {"meta", "input", "img", "br", "link"}


class Page(HTMLParser):
    """Elements in document order as (tag, attributes), and the text of each kind of element."""

    def __init__(self, source: str):
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[tuple[str, str]] = []
        self.open: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-1:]}"
        self.open.pop()

    def handle_data(self, data):
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]

    def text_of(self, *tags: str) -> str:
        return "\n".join(text for tag, text in self.texts if tag in tags)


def skeleton(page: Page) -> list[tuple[str, frozenset[str]]]:
    """The elements and the names of their attributes: what no text may change."""
    return [(tag, frozenset(attrs)) for tag, attrs in page.elements]
