"""HTML, parsed with every tag closed, and a table to write."""

from html.parser import HTMLParser

from pandas import DataFrame

VOID = {"meta", "link", "br", "img"}
FRAME = DataFrame(
    {"source": [" <b>", "a&\n"], "outs": [[("</td>", 2.0), (" x", -1.0)], [("\t", 0.0)]],
     "score": [4.0, 2.0]}
)  # fmt: skip


class Balanced(HTMLParser):
    """Fails at a tag that closes another than the last one open."""

    def __init__(self):
        super().__init__()
        self.open, self.words = [], []

    def handle_starttag(self, tag, attrs):
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open and self.open.pop() == tag, tag

    def handle_data(self, data):
        self.words.append(data)


def parsed(html: str) -> Balanced:
    page = Balanced()
    page.feed(html)
    page.close()
    assert page.open == []
    return page
