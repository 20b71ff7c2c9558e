"""The report in a real browser: no errors, nothing wider than a phone, a slider that changes the brain.

Needs Debian's chromium (apt-get install --no-install-recommends chromium), or Google's Chrome.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess

import pytest

import nidl_core as nidl
from nidl_neuro import scans
from nidl_neuro.datasets import synthetic_cohort
from nidl_neuro.report import write_report

NAMES = ("chromium", "chromium-browser", "google-chrome")
LONG = "a_column_with_a_name_that_goes_on_and_on_and_never_comes_to_an_end_nor_to_a_space"
LOOK = """
<script>
window.addEventListener("load", function () {
  const wide = document.documentElement.clientWidth, found = {};
  const inside = function (e) { return e.closest(".scroll") || e.closest("svg"); };
  found.width = wide;
  found.scroll = document.documentElement.scrollWidth;
  found.over = Array.from(document.body.querySelectorAll("*")).filter(function (e) {
    return !inside(e) && e.getBoundingClientRect().right > wide + 1;
  }).map(function (e) { return e.tagName + "." + e.className; });
  found.broken = Array.from(document.images).filter(function (i) { return !i.naturalWidth; }).length;
  found.images = document.images.length;
  const card = document.querySelector(".traversal"), input = card.querySelector("input");
  const on = function () {
    const all = Array.from(card.querySelectorAll(".frame"));
    return [all.filter(function (f) { return getComputedStyle(f).display !== "none"; }).length,
            all.findIndex(function (f) { return f.classList.contains("on"); }),
            card.querySelector("output").textContent];
  };
  found.before = on();
  input.value = 4;
  input.dispatchEvent(new Event("input"));
  found.after = on();
  found.text = Math.min.apply(null, Array.from(document.querySelectorAll("svg text")).map(function (t) {
    return t.getBoundingClientRect().height; }).filter(function (h) { return h > 0; }));
  found.paper = getComputedStyle(document.body).backgroundColor;
  parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""
FRAME = """<!DOCTYPE html><html><body style="margin: 0">
<script>
addEventListener("message", function (e) { document.body.setAttribute("data-found", e.data); });
</script>
<iframe src="watched.html" style="border: 0" width="{width}" height="800"></iframe></body></html>
"""  # a window is 500 pixels wide at least


@pytest.fixture(scope="module")
def chromium():
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the PATH")
    return path


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    bids = synthetic_cohort(12, size=16).write(folder / "bids")
    table = (bids / "participants.tsv").read_text().replace("cortical_thickness", LONG)
    (bids / "participants.tsv").write_text(table)
    data = scans(bids, {"mask": "computed"}, cache=folder / "cache")
    small = {"name": "cnn3d", "params": {"widths": [4, 8]}}
    try:
        model = nidl.build(
            "vae",
            encoder=small,
            decoder=small,
            likelihood="normal",
            latent_dim=3,
            max_epochs=2,
            random_state=0,
            enable_progress_bar=False,
            logger=False,
            enable_checkpointing=False,
            accelerator="cpu",
        )
    except nidl.NidlError as err:
        pytest.skip(f"other plugins are not installed: {err}")
    model.fit(data)
    model.fc_mu.weight.data *= 100  # as after a long training: latents that vary
    model.history_ *= 10
    return write_report(model, data, folder / "report.html", title=f"A report of {LONG}")


def run(chromium, page, tmp_path, *options):
    """What the browser prints, and what its pages wrote to the console."""
    done = subprocess.run(
        [
            chromium,
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--enable-logging=stderr",
            "--v=0",
            f"--user-data-dir={tmp_path / 'profile'}",
            "--window-size=1400,900",
            "--hide-scrollbars",
            *options,
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=400,
        check=True,
    )
    return done.stdout, re.findall(r".*CONSOLE.*", done.stderr)


def looked(chromium, page, tmp_path, *options, width=1280):
    """What `LOOK` finds in the page."""
    watched = tmp_path / "watched.html"
    watched.write_text(page.read_text().replace("</body>", f"{LOOK}</body>"))
    frame = tmp_path / "frame.html"
    frame.write_text(FRAME.replace("{width}", str(width)))
    dom, console = run(
        chromium, frame, tmp_path, "--dump-dom", "--virtual-time-budget=4000", *options
    )
    assert console == []
    found = re.search(r'data-found="([^"]*)"', dom)
    return json.loads(found.group(1).replace("&quot;", '"'))


@pytest.mark.parametrize("width", [1280, 768, 360])
def test_nothing_is_wider_than_the_screen_and_every_picture_is_drawn(
    chromium, page, tmp_path, width
):
    found = looked(chromium, page, tmp_path, width=width)
    assert found["width"] == width
    assert found["over"] == []
    assert found["scroll"] <= width
    assert found["broken"] == 0
    assert found["images"] > 20
    assert found["text"] > 9  # pixels, of the smallest text in a chart


def test_a_slider_shows_one_brain_at_a_time(chromium, page, tmp_path):
    found = looked(chromium, page, tmp_path)
    assert found["before"] == [1, 2, "0"]
    assert found["after"] == [1, 4, "+2"]


def test_a_console_error_would_be_noticed(chromium, page, tmp_path):
    broken = tmp_path / "broken.html"
    broken.write_text(page.read_text().replace('"use strict";', "nothing.here();"))
    _, console = run(chromium, broken, tmp_path, "--dump-dom")
    assert "nothing is not defined" in "".join(console)
    outside = tmp_path / "outside.html"
    image = '<img alt="" src="https://example.invalid/a.png">'
    outside.write_text(page.read_text().replace("<main>", f"<main>{image}"))
    _, console = run(chromium, outside, tmp_path, "--dump-dom")
    assert "Content Security Policy" in "".join(console)


def test_without_scripts_all_brains_are_there(chromium, page, tmp_path):
    still = tmp_path / "still.html"
    text = page.read_text()
    still.write_text(text.replace("script-src 'unsafe-inline'", "script-src 'none'"))
    dom, _ = run(chromium, still, tmp_path, "--dump-dom")
    assert 'class="card traversal still"' in dom
    assert ".still .frames .frame { grid-area: auto; display: block; }" in dom


def test_the_page_follows_a_dark_screen(chromium, page, tmp_path):
    light = looked(chromium, page, tmp_path)["paper"]
    dark = looked(chromium, page, tmp_path, "--blink-settings=preferredColorScheme=0")["paper"]
    assert light == "rgb(251, 250, 247)"
    assert dark == "rgb(20, 23, 28)"


def test_it_prints_as_a_document(chromium, page, tmp_path):
    out = tmp_path / "report.pdf"
    run(chromium, page, tmp_path, f"--print-to-pdf={out}", "--no-pdf-header-footer")
    content = out.read_bytes()
    assert content.startswith(b"%PDF")
    assert 4 <= len(re.findall(rb"/Type /Page\b", content)) <= 30
