"""The report's page in a headless Chromium: slider, zoom, sorting, keys, touch, 1111 images, no network."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from reblur_plugin.evaluation.commands import Asked
from reblur_plugin.report import writing
from reblur_plugin.report.page import Pictures

MANY = 1111  # GOPRO's test images
ODD = '<img src=x onerror="window.harmed=1">'  # a name that would be markup


def report(out: Path, *runs: Path, title: str = "Report", crops: int = 1) -> Path:
    asked = Asked([str(run) for run in runs], None, None, {}, set(), out / "evaluation", "cpu")
    return writing.write(asked, out, title, crops, Pictures())[0]


@pytest.fixture(scope="module")
def page_file(make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("page")
    runs = make_run(root / "first", "first"), make_run(root / "second", ODD, shift=1.0)
    return report(root / "report", *runs, title=ODD)


@pytest.fixture
def page(browser: Any, page_file: Path) -> Iterator[Any]:
    """The page, opened from the disk; at its end nothing was asked of a network and nothing complained."""
    yield from opened(browser, page_file, {"width": 1000, "height": 900})


def opened(browser: Any, path: Path, viewport: dict[str, int], **options: Any) -> Iterator[Any]:
    context = browser.new_context(viewport=viewport, **options)
    shown = context.new_page()
    said: list[str] = []
    asked: list[str] = []
    shown.on("console", lambda message: said.append(message.text))
    shown.on("pageerror", lambda error: said.append(str(error)))
    shown.on("request", lambda request: asked.append(request.url))
    shown.goto(path.as_uri())
    yield shown
    assert said == []
    assert [url for url in asked if not url.startswith((path.parent.as_uri(), "data:"))] == []
    context.close()


def card(page: Any, number: int = 0) -> Any:
    found = page.locator(".card").nth(number)
    found.scroll_into_view_if_needed()
    found.locator(".layer img").first.wait_for(state="attached")
    found.locator(".pane").first.evaluate("pane => pane.scrollIntoView({ block: 'center' })")
    return found


def visible(found: Any) -> list[str]:
    """Return the labels of the layers that are shown."""
    return found.evaluate(
        "card => [...card.querySelectorAll('.layer')].filter(one => one.style.visibility !== 'hidden')"
        ".map(one => one.firstChild.alt)"
    )


def transforms(found: Any) -> set[str]:
    return set(found.evaluate("card => [...card.querySelectorAll('.layer img')].map(one => one.style.transform)"))


def clip(found: Any) -> list[str]:
    """Return what is cut off at the left of each layer that comes in."""
    clips = found.evaluate("card => [...card.querySelectorAll('.layer')].map(one => one.style.clipPath)")
    return [re.sub(r"[^\d.]+", " ", one).split()[-1] for one in clips if one]


class TestSlider:
    def test_goes_over_all_pictures_from_blurry_to_sharp(self, page: Any) -> None:
        found = card(page)
        slider = found.locator("input[type=range]")
        buttons = found.locator(".controls button").all_inner_texts()
        labels = ["blurry", "first deblurred", "first adapted 1", "first adapted"]
        labels += [f"{ODD} {stage}" for stage in ("deblurred", "adapted 1", "adapted")] + ["sharp"]
        assert buttons[: len(labels)] == labels
        assert slider.get_attribute("max") == str(len(labels) - 1)
        for place in range(len(labels) - 1):
            slider.fill(str(place + 0.25))
            assert visible(found) == labels[place : place + 2]
            assert clip(found) == ["75"]  # a quarter of the next one is shown, at the right

    def test_pictures_are_loaded_when_they_are_shown(self, page: Any) -> None:
        found = card(page)
        loaded = "card => [...card.querySelectorAll('.layer img')].filter(one => one.src).map(one => one.alt)"
        assert found.evaluate(loaded) == ["blurry", "first deblurred"]
        found.get_by_role("button", name="sharp", exact=True).click()
        assert "sharp" in found.evaluate(loaded)
        shown = found.locator("img[alt=sharp]")
        page.wait_for_function("image => image.complete && image.naturalWidth === 128", arg=shown.element_handle())

    def test_a_drag_over_the_picture_moves_it(self, page: Any) -> None:
        found = card(page)
        found.get_by_role("button", name="blurry", exact=True).click()
        box = found.locator(".pane").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.9, box["y"] + 20)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 20, steps=5)
        page.mouse.up()
        assert float(found.locator("input[type=range]").input_value()) == pytest.approx(0.4, abs=0.02)

    def test_keys_go_from_picture_to_picture(self, page: Any) -> None:
        found = card(page)
        found.locator(".viewer").focus()
        places = []
        for key in ("ArrowRight", "ArrowRight", "ArrowLeft", "ArrowLeft", "ArrowLeft"):
            page.keyboard.press(key)
            places.append(float(found.locator("input[type=range]").input_value()))
        assert places == [1, 2, 1, 0, 0]  # it began at 0.5


class TestZoom:
    def test_is_the_same_for_all_pictures_also_side_by_side(self, page: Any) -> None:
        found = card(page)
        found.locator(".viewer").focus()
        for key in ("+", "+", "Shift+ArrowRight", "Shift+ArrowDown"):
            page.keyboard.press(key)
        # 1.5 squared about the middle, then a tenth of the pane to the left and up
        assert transforms(found) == {"translate(-72.5%, -72.5%) scale(2.25)"}
        page.keyboard.press("s")
        assert found.locator(".pane").count() == 8
        assert transforms(found) == {"translate(-72.5%, -72.5%) scale(2.25)"}
        page.keyboard.press("0")
        assert transforms(found) == {"translate(0%, 0%) scale(1)"}

    def test_stays_at_the_point_under_the_wheel_and_within_the_picture(self, page: Any) -> None:
        found = card(page)
        found.locator(".viewer").focus()
        box = found.locator(".pane").bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.25, box["y"] + box["height"] * 0.75)
        page.mouse.wheel(0, -500)  # e to the power of 500 * .002
        page.wait_for_function(
            "card => card.querySelector('.viewer').classList.contains('zoomed')", arg=found.element_handle()
        )
        (transform,) = transforms(found)
        x, y, zoom = map(float, re.findall(r"-?[\d.]+", transform))
        assert zoom == pytest.approx(2.71828, rel=1e-4)
        # what was at a quarter of the width is there still
        assert (0.25 * 100 - x) / zoom == pytest.approx(25, abs=1)
        assert (0.75 * 100 - y) / zoom == pytest.approx(75, abs=1)
        page.mouse.wheel(0, 5000)
        page.wait_for_function(
            "card => !card.querySelector('.viewer').classList.contains('zoomed')", arg=found.element_handle()
        )
        assert transforms(found) == {"translate(0%, 0%) scale(1)"}

    def test_two_fingers_zoom_on_a_phone(self, browser: Any, page_file: Path) -> None:
        for phone in opened(browser, page_file, {"width": 390, "height": 800}, has_touch=True, is_mobile=True):
            found = card(phone)
            assert phone.evaluate("document.documentElement.scrollWidth") <= 390
            box = found.locator(".pane").bounding_box()
            middle = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
            found.locator(".pane").evaluate(
                """(pane, [x, y]) => {
                    const send = (type, id, dx) => pane.dispatchEvent(new PointerEvent(type,
                        { bubbles: true, pointerId: id, pointerType: 'touch', clientX: x + dx, clientY: y }));
                    Element.prototype.setPointerCapture = () => {};
                    send('pointerdown', 1, -20); send('pointerdown', 2, 20);
                    send('pointermove', 1, -40); send('pointermove', 2, 40);
                    send('pointerup', 1, -40); send('pointerup', 2, 40);
                }""",
                middle,
            )
            (transform,) = transforms(found)
            assert float(transform.rpartition("scale(")[2][:-1]) == pytest.approx(2, rel=1e-3)  # 80 pixels from 40


class TestSorting:
    def test_a_click_on_a_heading_sorts_and_a_second_one_turns_the_order(self, page: Any) -> None:
        table = page.locator("#scores table")

        def column() -> list[float]:
            return [float(text.split()[0]) for text in table.locator("tbody td:nth-child(4)").all_inner_texts()]

        head = table.locator("th").nth(3)
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "ascending"
        assert column() == sorted(column())
        head.locator("button").click()
        assert head.get_attribute("aria-sort") == "descending"
        assert column() == sorted(column(), reverse=True)

    def test_images_are_ordered_by_what_adaptation_does_to_them(self, page: Any) -> None:
        page.locator("#order").select_option(label="LPIPS: where first adapted harms most")
        names = page.locator(".card h3").all_inner_texts()
        assert names[0] == "SEQ_1/000001"  # the one that it harms
        page.locator("#order").select_option(label="LPIPS of first deblurred, worst first")
        assert page.locator(".card h3").all_inner_texts() == ["SEQ_0/000002", "SEQ_1/000001", "SEQ_0/000000"]

    def test_names_are_filtered(self, page: Any) -> None:
        page.locator("#filter").fill("seq_1")
        assert page.locator(".card h3").all_inner_texts() == ["SEQ_1/000001"]
        assert page.locator("#count").inner_text() == "1 of 3"


class TestScores:
    def test_each_picture_has_its_own_and_what_changed(self, page: Any) -> None:
        rows = card(page).locator("table tr").all_inner_texts()
        assert [row.split("\t")[0] for row in rows[1:3]] == ["blurry", "first deblurred"]
        # deblurred against blurry: .3 - .5; adapted against deblurred: -.02, 24.8 - 25
        assert "0.3000 \u22120.2000" in rows[2]
        assert "0.2800 \u22120.0200" in rows[4]
        assert "24.80 \u22120.20" in rows[4]

    def test_adaptation_has_a_curve_for_each_metric_and_run(self, page: Any) -> None:
        titles = card(page).locator("svg title").all_text_contents()
        assert len(titles) == 4
        assert titles[0] == "LPIPS, first: 0.3000, 0.2900, 0.2800"


def test_names_of_strangers_are_never_markup(browser: Any, make_run: Any, tmp_path: Path) -> None:
    path = report(tmp_path / "report", make_run(tmp_path / "run", ODD, images=1, sequence=ODD), title=ODD)
    for page in opened(browser, path, {"width": 1000, "height": 900}):
        assert page.locator("h1").inner_text() == ODD
        assert card(page).locator("h3").inner_text() == f"{ODD}_0/000000"
        assert page.evaluate("window.harmed") is None
        assert page.locator("img[src=x]").count() == 0


class TestManyImages:
    @pytest.fixture(scope="class")
    def many(self, make_run: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
        """A report of as many images as GOPRO has; three real pictures stand for all."""
        root = tmp_path_factory.mktemp("many")
        path = report(root / "report", make_run(root / "run", "run"), crops=0)
        text = path.read_text(encoding="utf-8")
        found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text)
        assert found is not None
        data = json.loads(found[1])
        data["images"] = [data["images"][number % 3] | {"name": f"image {number}"} for number in range(MANY)]
        path.write_text(text.replace(found[1], json.dumps(data)), encoding="utf-8")
        return path

    def test_only_those_near_the_view_are_built(self, browser: Any, many: Path) -> None:
        for page in opened(browser, many, {"width": 1000, "height": 900}):
            assert page.locator(".card").count() == MANY
            card(page)
            assert 0 < page.locator(".viewer").count() < 20

    def test_the_last_one_is_there_at_once_and_those_left_behind_are_taken_down(self, browser: Any, many: Path) -> None:
        for page in opened(browser, many, {"width": 1000, "height": 900}):
            card(page)
            last = card(page, MANY - 1)
            assert last.locator("h3").inner_text() == f"image {MANY - 1}"
            page.wait_for_function("document.querySelectorAll('.viewer').length < 20")
            assert page.locator(".card").first.locator(".viewer").count() == 0

    def test_they_are_sorted(self, browser: Any, many: Path) -> None:
        for page in opened(browser, many, {"width": 1000, "height": 900}):
            page.locator("#order").select_option(label="LPIPS of deblurred, worst first", timeout=10_000)
            assert page.locator(".card h3").first.inner_text() == "image 1"  # of SEQ_0/000002
