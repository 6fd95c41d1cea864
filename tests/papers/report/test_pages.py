"""The pages of the report: links lead somewhere, words are words, counts are right, and it reads
well in a browser."""

import json
from html.parser import HTMLParser

import pytest

from analyses import figures, report
from analyses.papers.figures import Verdict
from analyses.papers.report import Entry, folder, pages
from tests.browser import chromium
from tests.papers.report.by_hand import NASTY, QUICK, record
from tests.plots.parsing import parsed


class Page(HTMLParser):
    """What a page links to, and what can be linked to in it."""

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.tags = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("href", "src")]
        self.ids += [value for name, value in attrs if name == "id"]


@pytest.fixture(scope="module")
def made(tmp_path_factory, silent):
    """A report with figures, a failure, a table that is far too wide, a page, and nasty words."""
    row = "".join(f"<td>cell_number_{i}</td>" for i in range(20))
    wide = record(
        "framework/wide",
        NASTY,
        NASTY,
        html=f'<table><tr>{row}</tr></table><a href="more.html">more</a>',
        pages={"more.html": "<!doctype html><title>more</title><p>More.</p>"},
    )
    out = tmp_path_factory.mktemp("made") / "report"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(figures.EVERY, "framework/wide", wide)
        patch.setattr(folder, "known", lambda name: name)
        report.write(out, [*QUICK, "framework/wide", "induction/prefix-matching"], silent)
    return out


def test_every_link_of_the_page_leads_somewhere_and_words_are_words(made, silent):
    text = (made / "index.html").read_text()
    page = Page(text)
    assert "script" not in page.tags and "<model>" not in text
    assert text.count("&lt;script&gt;") >= 6 and "&lt;model&gt;" in text
    assert len(set(page.ids)) == len(page.ids)
    beside = [link for link in page.links if not link.startswith(("#", "https://"))]
    assert {"more.html", "framework-copying.svg", "framework-copying.png"} <= set(beside)
    assert all((made / link).is_file() for link in beside)
    assert {link[1:] for link in page.links if link.startswith("#")} <= set(page.ids)
    assert (
        "5 figures: 0 show what the paper found, 3 do not, 1 shows the test of another figure and "
        "1 could not be drawn"
    ) in text
    assert "circuits draw framework/copying --model" in text and "Drawn from" in text


def entry(name, state="holds", here="b") -> Entry:
    verdict = Verdict(state, "a", here) if state else None
    return Entry(name, "", verdict=verdict, error="" if state else "it broke")


def test_identities_and_claims_that_cannot_be_tested_are_counted_apart():
    states = ["holds", "does not hold", "not testable here", ""]
    found = [entry("framework/eigenvalues", state) for state in states]
    apart = [entry("framework/moves", "illustration"), entry("framework/copying")]
    assert [one.kind for one in apart] == ["illustration", "again"]
    assert pages.counts(apart) == (
        "2 figures: 0 show what the paper found, 0 do not, 1 illustrates a drawing of the paper "
        "and 1 shows the test of another figure."
    )
    laws = [entry("framework/erratum"), entry("framework/erratum", "does not hold")]
    assert pages.counts(found[:1]) == "1 figure: 1 shows what the paper found and 0 do not."
    assert pages.counts([*found, *laws]) == (
        "6 figures: 1 shows what the paper found, 2 do not, 1 is an identity, which holds in "
        "every model, 1 cannot be tested here and 1 could not be drawn."
    )


def test_the_six_arguments_are_told_from_the_verdicts_and_what_is_missing_is_said():
    found = [entry("induction/phase-change", here=NASTY),
             entry("induction/smeared-keys", "does not hold")]  # fmt: skip
    page = pages.statement(found)
    words = " ".join(parsed(page).words)
    assert "Argument 1: they come at the same time: held" in words and NASTY in words
    assert "Argument 2: what moves one moves the other: did not hold" in words
    assert "Argument 6: small models tell of large ones: not testable here" in words
    assert "8 more: not in this report." in words and "<script" not in page
    assert words.count("Controls") == words.count("Not tested ") == 6 and "O16" in words


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as driver:
        yield driver


def opened(browser, page, width=1200, scheme="light", media="screen"):
    size = {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    features = [{"name": "prefers-color-scheme", "value": scheme}]
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
    browser.get(page.as_uri())
    return browser.execute_script


def test_the_page_asks_for_nothing_but_files_beside_it_and_says_nothing_amiss(browser, made):
    run = opened(browser, made / "index.html")
    loaded = run("return [...document.images].map(i => i.complete && i.naturalWidth > 0)")
    assert len(loaded) == 4 and all(loaded)
    asked = requests(browser, (made / "index.html").as_uri())
    assert len(asked) >= 5 and all(url.startswith(made.as_uri()) for url in asked), asked
    assert browser.get_log("browser") == []


def requests(browser, page):
    """What a page asked for, itself first; the browser's own pages ask for more."""
    messages = [json.loads(line["message"])["message"] for line in browser.get_log("performance")]
    sent = [m["params"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    return [one["request"]["url"] for one in sent if one["documentURL"] == page]


def test_nothing_is_wider_than_a_telephone_but_scrolls_in_its_own_frame(browser, made):
    run = opened(browser, made / "index.html", width=390)
    assert run("return [document.documentElement.scrollWidth, innerWidth]") == [390, 390]
    frame = "const f = document.querySelector('.fragment'); return f.scrollWidth > f.clientWidth"
    assert run(frame)


def test_print_cuts_no_table_and_is_dark_on_light_for_anyone(browser, made):
    run = opened(browser, made / "index.html", 718, "dark", "print")
    cut = "return [...document.querySelectorAll('.fragment, .picture, table')]"
    wide = "filter(e => e.scrollWidth > e.clientWidth + 1).map(e => e.outerHTML.slice(0, 80))"
    assert run(f"{cut}.{wide}") == []
    assert run("return document.documentElement.scrollWidth <= innerWidth")
    assert luminance(run("return getComputedStyle(document.body).color")) < 60
    assert luminance(run("return getComputedStyle(document.body).backgroundColor")) == 255
    assert run("return getComputedStyle(document.documentElement).colorScheme") == "light"


def test_dark_differs_from_light_and_pictures_stay_on_white(browser, made):
    ink, behind = {}, {}
    for scheme in ("light", "dark"):
        run = opened(browser, made / "index.html", scheme=scheme)
        ink[scheme] = luminance(run("return getComputedStyle(document.body).color"))
        behind[scheme] = luminance(run("return getComputedStyle(document.body).backgroundColor"))
        card = "return getComputedStyle(document.querySelector('.picture')).backgroundColor"
        assert run(card) == "rgb(255, 255, 255)"
    assert behind["light"] - ink["light"] > 150 and ink["dark"] - behind["dark"] > 150


def luminance(colour):
    """Mean of red, green and blue of "rgb(1, 2, 3)"."""
    return sum(int(part.strip(" rgba()")) for part in colour.split(",")[:3]) / 3
