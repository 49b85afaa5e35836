"""The page about a run in a real browser, wide and narrow."""

import shutil
from pathlib import Path

import pytest

from pyrovae.cli import main

configs = Path(__file__).parents[2] / "configs"
sizes = [pytest.param((1280, 900), id="1280x900"), pytest.param((390, 844), marks=pytest.mark.slow, id="390x844")]
small = [
    *("--config", str(configs / "digits.yaml"), "--training.epochs", "3", "--evaluation.num_samples", "200"),
    *("--model.encoder.hidden", "[16]", "--model.decoder.hidden", "[16]", "--model.latent_dim", "3"),
]

drawn = "return Bokeh.documents.length === 1 && Bokeh.documents[0].is_idle"
place = """
const model = Bokeh.documents[0].roots().find(root => document.getElementById(arguments[0])
  .querySelector(`[data-root-id="${root.id}"]`));
const figure = Bokeh.index.get_one(model);
figure.el.scrollIntoView({block: "center", behavior: "instant"});
const points = model.renderers.find(renderer => renderer.glyph.type === "Scatter");
const row = points.view.filter.indices[0], {x, y} = points.glyph;
const at = name => points.data_source.data[name.field][row];
const frame = figure.frame, box = figure.canvas.el.getBoundingClientRect();
return [box.x + frame.x_scale.compute(at(x)), box.y + frame.y_scale.compute(at(y))];
"""
tooltip = """
const seen = [];
const walk = node => {
  for (const child of node.children) {
    if (child.matches(".bk-Tooltip")) seen.push(child);
    if (child.shadowRoot) walk(child.shadowRoot);
    walk(child);
  }
};
walk(document.body);
const inside = seen.filter(element => element.getBoundingClientRect().width > 0)
  .flatMap(element => [...element.shadowRoot.querySelectorAll("img")].map(image => [image.src, image.naturalWidth,
    image.parentElement.innerText]));
return inside;
"""
canvases = """
const found = [];
const walk = node => {
  for (const child of node.children) {
    if (child.tagName === "CANVAS") found.push(child.width * child.height);
    if (child.shadowRoot) walk(child.shadowRoot);
    walk(child);
  }
};
walk(document.getElementById(arguments[0]));
return Math.max(0, ...found);
"""


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    path = tmp_path_factory.mktemp("runs") / "digits"
    assert main(["train", *small, "--run", str(path)]) == 0
    assert main(["report", str(path)]) == 0
    return path / "report.html"


@pytest.fixture(scope="module")
def browser():
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    found = {name: shutil.which(name) for name in ("chromium", "chromedriver")}
    if missing := [name for name, path in found.items() if path is None]:
        pytest.skip(f"no {' and no '.join(missing)} on the path: install Debian's chromium and chromium-driver")
    options = webdriver.ChromeOptions()
    options.binary_location = found["chromium"]
    for flag in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(found["chromedriver"]))
    yield driver
    driver.quit()


@pytest.fixture(scope="module", params=sizes)
def opened(request, browser, page):
    """The browser with the page, at one size, when all is drawn; console messages of other pages are gone."""
    from selenium.webdriver.support.wait import WebDriverWait

    width, height = request.param
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    browser.get_log("browser")
    browser.get(page.as_uri())
    WebDriverWait(browser, 60).until(lambda driver: driver.execute_script(drawn))
    return browser


def test_nothing_goes_wrong_and_nothing_is_cut_off(opened):
    assert [entry for entry in opened.get_log("browser") if entry["level"] not in ("INFO", "DEBUG")] == []
    scrolled, visible = opened.execute_script(
        "return [document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )
    assert scrolled <= visible
    wide = "return [...document.querySelectorAll('section *')].filter(e => !e.closest('pre') && "
    wide += "e.getBoundingClientRect().right > document.documentElement.clientWidth).length"
    assert opened.execute_script(wide) == 0


@pytest.mark.parametrize("name", ["bounds", "training", "k_hats", "latent_map"])
def test_figures_are_drawn(opened, name):
    assert opened.execute_script(canvases, name) > 200 * 200


@pytest.mark.parametrize("name", ["k_hats", "latent_map"])
def test_the_mouse_shows_the_datum(opened, name):
    from selenium.webdriver.support.wait import WebDriverWait

    x, y = opened.execute_script(place, name)
    for step in (40, 0):
        move = {"type": "mouseMoved", "x": x - step, "y": y, "button": "none"}
        opened.execute_cdp_cmd("Input.dispatchMouseEvent", move)
    found = WebDriverWait(opened, 20).until(lambda driver: driver.execute_script(tooltip))
    address, width, text = found[0]
    assert address.startswith("data:image/png;base64,")
    assert width == 8
    assert all(word in text for word in ("datum", "label", "log p(x)", "k-hat"))
