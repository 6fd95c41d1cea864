"""The explorer's page in a real browser, with the network log as a witness."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from analyses import explorer, logit_effects
from circuits import load
from tests.browser import chromium

EVIL = '</script><script>document.title="gone"</script><b id="evil">&amp;'
TEXT = f"Mr and Mrs Hartley lived here. Mrs Hartley kept {EVIL} and Mrs Hartley"


@pytest.fixture(scope="module")
def opened(tmp_path_factory) -> Iterator[Any]:
    """A driver on the page of a text that holds markup, and what it logged by then."""
    folder = tmp_path_factory.mktemp("explorer")
    file = explorer.page(load("attn-only-2l"), TEXT, title=EVIL).save(folder / "page.html")
    with chromium(folder / "profile", "--window-size=1200,1000") as driver:
        driver.get(file.as_uri())
        ready(driver)
        yield driver


@pytest.fixture
def driver(opened) -> Any:
    """The page as it opens."""
    opened.refresh()
    ready(opened)
    return opened


def ready(driver: Any) -> None:
    from selenium.webdriver.support.ui import WebDriverWait

    WebDriverWait(driver, 20).until(
        lambda d: d.execute_script("return document.body.dataset.ready === 'yes'")
    )


def hover(driver: Any, token: int) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    element = driver.find_element("id", f"token-{token}")
    ActionChains(driver, duration=20).move_to_element(element).perform()


def press(driver: Any, *keys: str) -> None:
    from selenium.webdriver.common.action_chains import ActionChains

    ActionChains(driver).send_keys(*keys).perform()


def state(driver: Any) -> dict:
    return driver.execute_script("return {...state}")


def colours(driver: Any) -> list[str]:
    script = "return [...document.querySelectorAll('#text span')].map(s => s.style.background)"
    return driver.execute_script(script)


def chosen(driver: Any) -> list[str]:
    return [e.get_attribute("id") for e in driver.find_elements("css selector", "#text .chosen")]


def drawn(driver: Any, canvas: str = "large") -> str:
    return driver.execute_script(f"return document.querySelector('{canvas}').toDataURL()")


def status(driver: Any) -> str:
    return driver.find_element("id", "status").text


def test_hovering_a_token_colours_the_text_from_it_or_to_it(driver):
    hover(driver, 5)
    first = colours(driver)
    assert chosen(driver) == ["token-5"] and "(5)" in status(driver)
    hover(driver, 15)
    assert chosen(driver) == ["token-15"] and colours(driver) != first
    assert "From" in status(driver)
    pattern = driver.execute_script("return tokens.map((_, i) => value('raw', state.head, 15, i))")
    best = max(range(len(pattern)), key=pattern.__getitem__)
    assert f"({best})" in status(driver) and f"{pattern[best]:.2f}" in status(driver)
    seen = colours(driver)
    press(driver, "s")
    assert colours(driver) != seen and status(driver).startswith("To")
    press(driver, "d")
    assert colours(driver) == seen


def test_a_head_is_chosen_by_click_and_by_key(driver):
    driver.find_element("id", "head-1").click()
    title = driver.find_element("id", "head-title")
    picture = drawn(driver, "#large")
    assert "L0H1" in title.text
    assert driver.find_element("id", "head-1").get_attribute("aria-pressed") == "true"
    press(driver, "\ue015")  # down
    assert "L0H2" in title.text and drawn(driver, "#large") != picture
    press(driver, "\ue013")  # up
    assert "L0H1" in title.text and drawn(driver, "#large") == picture


def test_the_switch_of_value_weighting_changes_what_is_drawn(driver):
    large, small, text = drawn(driver, "#large"), drawn(driver, "#head-4 canvas"), colours(driver)
    press(driver, "v")
    assert drawn(driver, "#large") != large and drawn(driver, "#head-4 canvas") != small
    assert "value-weighted" in status(driver)
    press(driver, "v")
    assert (drawn(driver, "#large"), colours(driver)) == (large, text)
    driver.find_element("css selector", "[data-view=weighted]").click()
    assert state(driver)["view"] == "weighted"


def test_a_click_holds_a_token_and_escape_releases_it(driver):
    hover(driver, 8)
    driver.find_element("id", "token-8").click()
    hover(driver, 3)
    assert chosen(driver) == ["token-8"] and "(3)" in status(driver)  # the number of the pair
    press(driver, "\ue00c")  # escape
    assert chosen(driver) == [] and "No token chosen" in status(driver)
    hover(driver, 6)
    assert chosen(driver) == ["token-6"]
    press(driver, "\ue014")  # right
    assert chosen(driver) == ["token-7"]


def test_logit_effects_are_those_of_python_and_add_up(driver):
    press(driver, "l")
    shown = driver.execute_script(
        "return heads.map((h, i) => [h.largest, h.effects, tokens.map((_, dest) => "
        "tokens.reduce((sum, _, src) => sum + value('effect', i, dest, src), 0))])"
    )
    model = load("attn-only-2l")
    true = logit_effects.by_source(model, model.to_tokens(TEXT)).sum("src").values
    for (largest, whole, sums), row in zip(shown, true.reshape(-1, true.shape[-1]), strict=True):
        assert whole == pytest.approx(row.tolist(), rel=1e-3, abs=1e-5)
        assert sums == pytest.approx(row.tolist(), abs=len(row) * largest / 254 + 1e-3)
    hover(driver, 15)
    label = state(driver)["head"]
    assert f"{abs(true.reshape(-1, true.shape[-1])[label, 14]):.2f}" in status(driver)
    assert "logit" in status(driver) and len(set(colours(driver))) > 1


def test_markup_in_the_prompt_shows_as_text(driver):
    words = driver.find_element("id", "text").text.replace("␣", " ").replace("\n", "")
    assert EVIL in words
    assert driver.find_element("id", "title").text == EVIL
    assert driver.title != "gone" and not driver.find_elements("id", "evil")
    for token in range(10, 40):  # the status line says tokens too
        driver.execute_script(f"set({{token: {token}}})")
    assert not driver.find_elements("id", "evil")


def test_it_shows_in_the_frame_of_a_notebook(driver, tmp_path):
    page = explorer.page(load("attn-only-2l"), TEXT)
    file = tmp_path / "notebook.html"
    file.write_text(f"<!doctype html><meta charset=utf-8>{page._repr_html_()}", encoding="utf-8")
    driver.get(file.as_uri())
    driver.switch_to.frame(driver.find_element("css selector", "iframe"))
    ready(driver)
    assert chosen(driver)
    driver.switch_to.default_content()
    height = "return document.querySelector('iframe').offsetHeight"
    assert driver.execute_script(height) == 820
    driver.back()
    ready(driver)


def test_the_page_fits_a_phone(driver):
    size = {"width": 390, "height": 800, "deviceScaleFactor": 2, "mobile": True}
    driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    assert driver.execute_script("return document.documentElement.scrollWidth") <= 390
    driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_nothing_leaves_the_page_and_the_console_is_silent(driver):
    """Last, so that it reads what all tests above did."""
    assert driver.get_log("browser") == []
    messages = [json.loads(row["message"])["message"] for row in driver.get_log("performance")]
    urls = [
        message["params"]["request"]["url"]
        for message in messages
        if message["method"] == "Network.requestWillBeSent"
        and not message["params"]["documentURL"].startswith("chrome")  # the empty first tab
    ]
    assert any(url.startswith("file:") for url in urls)  # the witness was awake
    assert [url for url in urls if not url.startswith(("file:", "data:", "about:"))] == []
