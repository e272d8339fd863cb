"""The page in a headless Chromium: what people do with it, and what they do to it."""

from __future__ import annotations

import io
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from PIL import Image

WIDE = {"width": 1280, "height": 900}
PHONE = {"width": 390, "height": 844}


@pytest.fixture
def opened(browser: Any, server: Any) -> Iterator[Callable[..., Any]]:
    """Return what opens the page in a browser of its own; at the end nothing complained or came from elsewhere."""
    contexts, said, asked = [], [], []

    def open_(viewport: dict[str, int] = WIDE, **options: Any) -> Any:
        context = browser.new_context(viewport=viewport, accept_downloads=True, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        page.goto(server.url)
        return page

    yield open_
    for context in contexts:
        context.pages[0].goto("about:blank")  # as a tab that is closed: the page says goodbye
        context.close()
    assert [text for text in said if text not in EXPECTED] == []
    assert {url for url in asked if not url.startswith((server.url, "data:"))} == set()


# Chromium writes a line for each answer that is a refusal, which tests here provoke.
EXPECTED = {"Failed to load resource: the server responded with a status of 400 (Bad Request)"}


@pytest.fixture
def page(opened: Callable[..., Any]) -> Any:
    return opened()


def picture(height: int = 64, width: int = 96, seed: int = 0) -> np.ndarray[Any, Any]:
    grain = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    return cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC)


def jpeg(path: Path, seed: int = 0, **notes: Any) -> Path:
    Image.fromarray(picture(seed=seed)).save(path, quality=92, **notes)
    return path


def slow(path: Path, seed: int = 0) -> Path:
    """Write a photograph whose fifty steps take many seconds."""
    assert cv2.imwrite(str(path), picture(1000, 1400, seed))
    return path


def drop(page: Any, *paths: Path) -> None:
    page.locator("#files").set_input_files([str(path) for path in paths])


def card(page: Any, name: str) -> Any:
    return page.get_by_role("article", name=name, exact=True)


def button(found: Any, name: str) -> Any:
    return found.get_by_role("button", name=name, exact=True)


def until(found: Any, text: str) -> None:
    found.get_by_text(text).first.wait_for(timeout=60_000)


def wait(is_so: Callable[[], bool], seconds: float = 60) -> None:
    """Wait until something is so; the page's policy forbids Playwright's own way."""
    deadline = time.monotonic() + seconds
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def choose(page: Any, label: str, given: str) -> None:
    field = page.locator("#wishes").get_by_label(label)
    if field.evaluate("field => field.tagName") == "SELECT":
        field.select_option(given)
    else:
        field.fill(given)


def deblurred(page: Any, path: Path) -> bytes:
    """Drop a photograph, deblur it and return the bytes that are downloaded, whose name is the photograph's."""
    drop(page, path)
    found = card(page, path.name)
    until(found, "It will take")
    button(found, "Deblur").click()
    until(found, "Done.")
    with page.expect_download() as waiting:
        found.get_by_role("link", name="Download").click()
    assert waiting.value.suggested_filename == re.sub('[<>"]', "_", path.name)  # as Chromium does
    return Path(waiting.value.path()).read_bytes()


def by_command(path: Path, out: Path, weights: Path, *arguments: str) -> bytes:
    """Return what the command makes of a photograph."""
    command = [sys.executable, "-m", "reblur_plugin.deblur", str(path), "-o", str(out), "--weights", str(weights)]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return (out / path.name).read_bytes()


def labels(found: Any) -> list[str]:
    return found.evaluate("card => [...card.querySelectorAll('.layer img')].map(one => one.alt)")


class TestOnePhotograph:
    def test_it_is_seen_deblurred_and_taken_away_as_the_command_gives_it(
        self, page: Any, tmp_path: Path, tiny_weights: Path
    ) -> None:
        notes = Image.Exif()
        notes[0x0112], notes[0x010F] = 6, "A camera"  # lies on its side
        path = jpeg(tmp_path / "Ferien & Meer (1).jpg", exif=notes)
        content = deblurred(page, path)
        assert content == by_command(path, tmp_path / "out", tiny_weights)
        assert Image.open(io.BytesIO(content)).getexif()[0x010F] == "A camera"
        found = card(page, path.name)
        assert labels(found) == ["blurry", "adapted", "deblurred"]
        until(found, "64x96")  # upright
        until(found, "Deblurring changed it by")
        assert re.search(r"5 steps of adaptation by [\d.]+\.$", found.inner_text(), re.MULTILINE)

    def test_sixteen_bits_with_alpha_stay(self, page: Any, tmp_path: Path, tiny_weights: Path) -> None:
        rng = np.random.default_rng(0)
        path = tmp_path / "deep.png"
        assert cv2.imwrite(str(path), rng.integers(0, 65536, (40, 56, 4), dtype=np.uint16))
        content = deblurred(page, path)
        assert content == by_command(path, tmp_path / "out", tiny_weights)
        result = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        assert (result.dtype, result.shape) == (np.uint16, (40, 56, 4))
        assert np.array_equal(result[..., 3], cv2.imread(str(path), cv2.IMREAD_UNCHANGED)[..., 3])

    def test_choices_are_the_command_s(self, page: Any, tmp_path: Path, tiny_weights: Path) -> None:
        path = jpeg(tmp_path / "a.jpg")
        choose(page, "Steps of adaptation", "2")
        choose(page, "Precision", "bf16")
        choose(page, "Memory", "3G")
        content = deblurred(page, path)
        assert content == by_command(
            path, tmp_path / "out", tiny_weights, "--steps", "2", "--amp", "bf16", "--max-memory", "3G"
        )
        assert content != by_command(path, tmp_path / "other", tiny_weights)

    def test_the_slider_moves_over_the_pictures(self, page: Any, tmp_path: Path) -> None:
        path = jpeg(tmp_path / "a.jpg")
        deblurred(page, path)
        viewer = card(page, "a.jpg").get_by_role("group", name="Pictures of a.jpg")
        viewer.scroll_into_view_if_needed()
        box = viewer.bounding_box()
        shown = (
            "viewer => [...viewer.querySelectorAll('.layer')]"
            ".filter(one => one.style.visibility !== 'hidden').map(one => one.firstChild.alt)"
        )
        slider = card(page, "a.jpg").get_by_label("Which pictures")
        assert slider.input_value() == "0.5"
        assert viewer.evaluate(shown) == ["blurry", "adapted"]

        def drag(part: float) -> None:
            page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
            page.mouse.down()
            page.mouse.move(box["x"] + box["width"] * (0.5 + part), box["y"] + 20, steps=5)
            page.mouse.up()

        drag(0.25)
        assert float(slider.input_value()) == pytest.approx(0.25, abs=0.02)
        for _ in range(3):
            drag(-0.4)
        assert viewer.evaluate(shown) == ["adapted", "deblurred"]
        slider.focus()
        page.keyboard.press("Home")
        page.keyboard.press("ArrowRight")
        assert slider.input_value() == "0.1"
        assert slider.get_attribute("aria-valuetext") == "blurry and, from the right, 10 % of adapted"
        natural = viewer.evaluate("viewer => [...viewer.querySelectorAll('img')].map(one => one.naturalWidth)")
        assert natural == [96, 96, 96]  # all were loaded

    def test_steps_come_one_by_one_and_can_be_looked_at(self, page: Any, tmp_path: Path) -> None:
        path = slow(tmp_path / "large.png")
        choose(page, "Steps of adaptation", "4")
        drop(page, path)
        found = card(page, "large.png")
        until(found, "It will take")
        button(found, "Deblur").click()
        until(found, "Adapted by 1 step")
        assert labels(found) == ["blurry", "adapted, step 1", "deblurred"]
        assert "left" in found.inner_text()
        until(found, "Done.")
        group = found.get_by_role("group", name="Steps of adaptation")
        assert group.get_by_role("button").all_inner_texts() == ["Step 1", "Step 2", "Step 3", "Step 4"]
        sources = "card => card.querySelectorAll('.layer img')[1].getAttribute('src')"
        newest = found.evaluate(sources)
        button(group, "Step 2").click()
        assert found.evaluate(sources) != newest
        assert labels(found)[1] == "adapted, step 2"
        until(found, "2 steps of adaptation by")

    def test_where_blur_is_left_is_a_heat_map(self, page: Any, tmp_path: Path) -> None:
        path = jpeg(tmp_path / "a.jpg")
        deblurred(page, path)
        found = card(page, "a.jpg")
        heat = button(found, "Show where blur is left")
        heat.click()
        assert heat.get_attribute("aria-pressed") == "true"
        assert labels(found) == ["blurry", "blur in adapted", "blur in deblurred"]
        assert re.search(
            r"M_R would change the deblurred one by [\d.]+, the adapted one by [\d.]+\.", found.inner_text()
        )
        loaded = (
            "card => { const one = card.querySelectorAll('.layer img')[1]; return one.complete && one.naturalWidth }"
        )
        wait(lambda: found.evaluate(loaded))
        heat.click()
        assert labels(found) == ["blurry", "adapted", "deblurred"]

    def test_what_is_dropped_at_once_waits_until_the_server_knows_the_page(
        self, browser: Any, server: Any, tmp_path: Path
    ) -> None:
        context = browser.new_context()
        page = context.new_page()
        page.route("**/visits", lambda route: (time.sleep(1), route.continue_()))
        page.goto(server.url)
        drop(page, jpeg(tmp_path / "a.jpg"))
        button(page, "parked cars").click()
        for name in ("a.jpg", "cars.jpg"):
            until(card(page, name), "It will take")
        page.goto("about:blank")
        context.close()

    def test_an_example_is_one_click(self, page: Any) -> None:
        button(page, "parked cars").click()
        until(card(page, "cars.jpg"), "640x480")

    def test_steps_of_none_deblur_alone(self, page: Any, tmp_path: Path, tiny_weights: Path) -> None:
        choose(page, "Steps of adaptation", "0")
        path = jpeg(tmp_path / "a.jpg")
        assert deblurred(page, path) == by_command(path, tmp_path / "out", tiny_weights, "--steps", "0")
        assert labels(card(page, "a.jpg")) == ["blurry", "deblurred"]


class TestSeveral:
    def test_all_are_deblurred_also_those_that_are_not_checked_yet(self, page: Any, tmp_path: Path) -> None:
        paths = [slow(tmp_path / "large.png"), *(jpeg(tmp_path / f"{number}.jpg", number) for number in range(3))]
        choose(page, "Steps of adaptation", "1")
        page.wait_for_timeout(500)
        drop(page, *paths)
        wait(lambda: page.locator(".card").count() == 4)
        button(page, "Deblur all").click()
        for path in paths:
            until(card(page, path.name), "Done.")

    def test_other_choices_reach_all_that_wait_to_be_checked(self, page: Any, tmp_path: Path) -> None:
        paths = [slow(tmp_path / "large.png"), *(jpeg(tmp_path / f"{number}.jpg", number) for number in range(3))]
        drop(page, *paths)
        wait(lambda: page.locator(".card").count() == 4)
        choose(page, "Steps of adaptation", "2")
        button(card(page, "0.jpg"), "Deblur").click()
        until(card(page, "0.jpg"), "Done.")
        for path in (paths[0], *paths[2:]):
            until(card(page, path.name), "It will take")

    def test_a_second_click_where_deblur_was_does_nothing(self, page: Any, tmp_path: Path) -> None:
        choose(page, "Steps of adaptation", "50")
        drop(page, slow(tmp_path / "large.png"))
        found = card(page, "large.png")
        until(found, "It will take")
        button(found, "Deblur").dblclick()
        until(found, "Adapted by 1 step")
        box = button(found, "Deblur").bounding_box()
        page.mouse.click(box["x"] + 5, box["y"] + 5)
        until(found, "Adapted by 2 steps")
        button(found, "Remove").click()
        wait(lambda: page.locator(".card").count() == 0)

    def test_a_second_run_is_seen_whatever_was_looked_at_before(self, page: Any, server: Any, tmp_path: Path) -> None:
        deblurred(page, jpeg(tmp_path / "a.jpg"))
        found = card(page, "a.jpg")
        button(found, "blurry").click()
        found.get_by_role("group", name="Steps of adaptation").get_by_role("button", name="Step 1").click()
        assert found.get_by_role("link", name="Download the result of 5 steps").is_visible()
        button(found, "Deblur again").click()
        wait(lambda: labels(found) == ["blurry", "adapted", "deblurred"])
        assert found.get_by_label("Which pictures").input_value() == "0.5"
        own = [path for path in server.kept if page.evaluate("visit").rpartition("/")[2] in path.parts]
        assert [path.name for path in own].count("result.jpg") == 1  # the earlier run's files have gone

    def test_a_result_that_was_not_taken_is_not_removed_without_a_question(self, page: Any, tmp_path: Path) -> None:
        drop(page, jpeg(tmp_path / "a.jpg"))
        found = card(page, "a.jpg")
        until(found, "It will take")
        button(found, "Deblur").click()
        until(found, "Done.")
        asked = []
        page.once("dialog", lambda dialog: (asked.append(dialog.message), dialog.dismiss()))
        button(found, "Remove").click()
        assert asked == ["Remove a.jpg? Its result was not downloaded."]
        assert found.is_visible()
        page.once("dialog", lambda dialog: dialog.accept())
        button(found, "Remove").click()
        wait(lambda: page.locator(".card").count() == 0)

    def test_what_is_dropped_is_looked_at(self, page: Any, tmp_path: Path, tiny_weights: Path) -> None:
        def dropped(*files: tuple[str, bytes]) -> None:
            page.evaluate(
                """files => {
                    const data = new DataTransfer();
                    for (const [name, bytes] of files) data.items.add(new File([new Uint8Array(bytes)], name));
                    if (files.length === 0) data.setData("text/plain", "a word");
                    const options = { dataTransfer: data, bubbles: true, cancelable: true };
                    document.body.dispatchEvent(new DragEvent("drop", options));
                }""",
                [[name, list(content)] for name, content in files],
            )

        dropped()
        until(page, "what was dropped is no file; save the picture first, then drop it")
        dropped(("a.jpg", jpeg(tmp_path / "a.jpg").read_bytes()), ("other.pth", tiny_weights.read_bytes()))
        until(card(page, "a.jpg"), "64")
        wait(lambda: page.evaluate("form.elements.weights.value === 'other.pth'"))
        assert page.locator(".card").count() == 1


class TestCancel:
    def test_it_ends_at_once_and_the_next_one_begins(self, page: Any, server: Any, tmp_path: Path) -> None:
        choose(page, "Steps of adaptation", "50")
        drop(page, slow(tmp_path / "large.png"))
        found = card(page, "large.png")
        until(found, "It will take")
        before = server.workers()
        button(found, "Deblur").click()
        until(found, "Deblurred, adapting to it")
        button(found, "Cancel").click()
        until(found, "cancelled")
        assert found.get_by_role("group", name="Steps of adaptation").get_by_role("button").count() < 40
        page.wait_for_timeout(200)
        assert len(set(before) - set(server.workers())) == 1  # the process has gone, with all its memory
        assert button(found, "Deblur").get_attribute("aria-disabled") == "false"
        assert not found.get_by_role("link", name="Download").is_visible()
        choose(page, "Steps of adaptation", "1")
        button(found, "Deblur").click()
        until(found, "Done.")

    def test_who_waits_can_leave_the_queue(self, page: Any, tmp_path: Path) -> None:
        choose(page, "Steps of adaptation", "50")
        first, second = slow(tmp_path / "first.png"), slow(tmp_path / "second.png", seed=1)
        drop(page, first, second)
        for path in (first, second):
            until(card(page, path.name), "It will take")
        button(page, "Deblur all").click()
        until(card(page, "second.png"), "Waiting: 1 before it.")
        button(card(page, "second.png"), "Cancel").click()
        until(card(page, "second.png"), "cancelled")
        until(card(page, "first.png"), "Adapted by")  # which went on
        button(page, "Remove all").click()
        wait(lambda: page.evaluate("document.querySelectorAll('.card').length === 0"))


class TestTwoVisitors:
    def test_they_wait_for_each_other_and_see_their_own(
        self, opened: Callable[..., Any], server: Any, tmp_path: Path, tiny_weights: Path
    ) -> None:
        path = slow(tmp_path / "same.png")
        first, second = opened(), opened()
        for page in (first, second):  # the same photograph, even
            choose(page, "Steps of adaptation", "3")
            drop(page, path)
            until(card(page, "same.png"), "It will take")
            button(card(page, "same.png"), "Deblur").click()
        until(card(second, "same.png"), "Waiting: 1 before it.")
        for page in (first, second):
            until(card(page, "same.png"), "Done.")
            assert page.locator(".card").count() == 1
        addresses = {page.locator(".layer img").first.evaluate("one => one.src") for page in (first, second)}
        assert len(addresses) == 2
        with second.expect_download() as waiting:
            second.get_by_role("link", name="Download").click()
        expected = by_command(path, tmp_path / "out", tiny_weights, "--steps", "3")
        assert Path(waiting.value.path()).read_bytes() == expected

    def test_a_token_opens_nobody_else_s_photographs(self, opened: Callable[..., Any], tmp_path: Path) -> None:
        first, second = opened(), opened()
        drop(first, jpeg(tmp_path / "a.jpg"))
        until(card(first, "a.jpg"), "It will take")
        theirs = first.locator(".layer img").first.evaluate("one => one.src")
        own = second.evaluate("visit")
        answer = second.evaluate("address => fetch(address).then(one => one.status)", theirs)
        assert answer == 200  # who knows the address may see it: it holds the token
        mixed = re.sub(r"visits/[^/]+", own, theirs)
        assert second.evaluate("address => fetch(address).then(one => one.status)", mixed) == 400

    def test_files_go_when_the_page_is_closed(self, opened: Callable[..., Any], server: Any, tmp_path: Path) -> None:
        page, other = opened(), opened()
        drop(other, jpeg(tmp_path / "other.jpg"))
        until(card(other, "other.jpg"), "It will take")
        before = set(server.kept)
        choose(page, "Steps of adaptation", "50")
        drop(page, slow(tmp_path / "large.png"))
        until(card(page, "large.png"), "It will take")
        button(card(page, "large.png"), "Deblur").click()
        until(card(page, "large.png"), "Deblurred, adapting to it")
        assert len(set(server.kept) - before) > 1
        page.goto("about:blank")
        wait(lambda: set(server.kept) == before, 10)  # the other visitor's are there
        deblurred(other, jpeg(tmp_path / "next.jpg"))  # nobody waits for the one that left

    def test_removing_one_removes_its_files(self, page: Any, server: Any, tmp_path: Path) -> None:
        before = set(server.kept)
        deblurred(page, jpeg(tmp_path / "a.jpg"))
        assert len(set(server.kept) - before) > 3
        button(card(page, "a.jpg"), "Remove").click()
        wait(lambda: page.evaluate("document.querySelectorAll('.card').length === 0"))
        assert set(server.kept) == before


class TestBadFiles:
    """The command's own sentences, and the others go on."""

    def refused(self, page: Any, path: Path) -> str:
        drop(page, path)
        found = card(page, path.name)
        problem = found.locator(".problem")
        problem.wait_for(timeout=30_000)
        assert button(found, "Deblur").get_attribute("aria-disabled") == "true"
        return problem.inner_text()

    def said_by_the_command(self, path: Path, out: Path, weights: Path) -> str:
        command = [sys.executable, "-m", "reblur_plugin.deblur", path.name, "-o", str(out), "--weights", str(weights)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=path.parent)
        assert done.returncode != 0
        return done.stderr.strip().removeprefix("error: ")

    def test_a_truncated_one(self, page: Any, tmp_path: Path, tiny_weights: Path) -> None:
        whole = jpeg(tmp_path / "whole.jpg").read_bytes()
        path = tmp_path / "half.jpg"
        path.write_bytes(whole[:300])
        assert self.refused(page, path) == self.said_by_the_command(path, tmp_path / "out", tiny_weights)
        deblurred(page, tmp_path / "whole.jpg")

    def test_a_text_that_is_called_a_picture(self, page: Any, tmp_path: Path, tiny_weights: Path) -> None:
        path = tmp_path / "letter.jpg"
        path.write_text("Dear all, <b>this</b> is no picture.")
        assert self.refused(page, path) == self.said_by_the_command(path, tmp_path / "out", tiny_weights)

    def test_a_name_that_would_be_markup_or_another_folder(self, page: Any, tmp_path: Path) -> None:
        path = jpeg(tmp_path / '<img src=x onerror="window.harmed=1">.jpg')
        deblurred(page, path)
        assert page.evaluate("window.harmed") is None

    def test_one_beyond_the_limit_of_pixels(self, page: Any, tmp_path: Path) -> None:
        path = tmp_path / "large.png"
        assert cv2.imwrite(str(path), np.zeros((2000, 2000, 3), np.uint8))
        assert self.refused(page, path) == (
            "large.png: expected at most 3 megapixels, got 2000x2000; use a smaller picture, or start the page with "
            "a larger --max-megapixels"
        )

    def test_one_beyond_the_limit_of_bytes(self, page: Any, tmp_path: Path) -> None:
        path = tmp_path / "heavy.tif"
        path.write_bytes(bytes(21 * 2**20))
        drop(page, path)
        until(page, "heavy.tif: expected at most 20 MiB, got 21.0; use a smaller file, or start the page with")
        assert page.locator(".card").count() == 0
        button(page, "Close").click()
        assert page.get_by_text("heavy.tif").count() == 0

    def test_one_that_kills_its_process(self, page: Any, server: Any, tmp_path: Path) -> None:
        choose(page, "Steps of adaptation", "50")
        drop(page, slow(tmp_path / "large.png"))
        found = card(page, "large.png")
        until(found, "It will take")
        button(found, "Deblur").click()
        until(found, "Deblurred, adapting to it")
        for number in server.workers():
            os.kill(number, signal.SIGKILL)
        until(found, "the process that deblurs has died (killed, or out of memory?)")
        deblurred(page, jpeg(tmp_path / "next.jpg"))

    def test_memory_that_is_too_little(self, page: Any, tmp_path: Path) -> None:
        choose(page, "Memory", "1M")
        drop(page, jpeg(tmp_path / "a.jpg"))
        until(card(page, "a.jpg"), "max_memory: expected more than")
        choose(page, "Memory", "")
        until(card(page, "a.jpg"), "It will take")

    def test_a_failure_is_said_once_and_goes_with_its_cause(self, page: Any, tmp_path: Path) -> None:
        choose(page, "Memory", "1M")
        drop(page, jpeg(tmp_path / "a.jpg"))
        found = card(page, "a.jpg")
        until(found, "max_memory: expected more than")
        button(found, "Deblur").click()
        until(found, "Deblur again")
        assert found.inner_text().count("max_memory: expected more than") == 1
        choose(page, "Memory", "")
        until(found, "It will take")
        assert "max_memory" not in found.inner_text()

    @pytest.mark.parametrize(
        ("label", "given"),
        [("Memory", "much"), ("Memory", "16"), ("Steps of adaptation", "51"), ("Steps of adaptation", "")],
    )
    def test_choices_that_cannot_be(self, page: Any, tmp_path: Path, label: str, given: str) -> None:
        drop(page, jpeg(tmp_path / "a.jpg"))
        found = card(page, "a.jpg")
        until(found, "It will take")
        choose(page, label, given)
        button(found, "Deblur").click()
        field = page.locator("#wishes").get_by_label(label)
        assert field.evaluate("field => document.activeElement === field && !field.validity.valid")
        page.wait_for_timeout(500)
        assert found.get_by_text("It will take").count() == 1  # nothing has begun
        assert page.locator("#notes li").count() == 0


class TestOwnWeights:
    def test_files_are_used_as_the_command_uses_them(self, page: Any, tmp_path: Path, tiny_weights: Path) -> None:
        other = [tmp_path / "net_g_mine.pth", tmp_path / "net_r_mine.pth"]
        for path in other:
            path.write_bytes(tiny_weights.with_name(path.name.replace("mine", "tiny")).read_bytes())
        page.get_by_label("Other weights, from a file").set_input_files([str(path) for path in other])
        wait(lambda: page.evaluate("document.getElementById('wishes').elements.weights.value === 'net_g_mine.pth'"))
        path = jpeg(tmp_path / "a.jpg")
        assert deblurred(page, path) == by_command(path, tmp_path / "out", other[0])

    def test_an_m_d_alone_says_what_it_lacks(self, page: Any, tmp_path: Path, tiny_weights: Path) -> None:
        path = tmp_path / "net_g_alone.pth"
        path.write_bytes(tiny_weights.read_bytes())
        page.get_by_label("Other weights, from a file").set_input_files(str(path))
        drop(page, jpeg(tmp_path / "a.jpg"))
        until(card(page, "a.jpg"), "net_r_alone.pth: no such checkpoint")
        choose(page, "Steps of adaptation", "0")
        until(card(page, "a.jpg"), "It will take")

    def test_other_objects_are_refused(self, page: Any, tmp_path: Path) -> None:
        path = tmp_path / "harm.pth"
        path.write_bytes(b"cposix\nsystem\n(S'touch /tmp/harmed'\ntR.")
        page.get_by_label("Other weights, from a file").set_input_files(str(path))
        drop(page, jpeg(tmp_path / "a.jpg"))
        until(card(page, "a.jpg"), "harm.pth: ")
        assert not Path("/tmp/harmed").exists()

    def test_other_files_are_not_taken(self, page: Any, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("no weights")
        page.get_by_label("Other weights, from a file").set_input_files(str(path))
        until(page, "notes.txt: expected a file of weights, but it is none of .pth, .pt, .safetensors; rename it")


class TestWithoutAMouse:
    def test_the_keyboard_does_it_all(self, page: Any, tmp_path: Path) -> None:
        def tab_to(text: str) -> None:
            focused = (
                "(document.activeElement.textContent || document.activeElement.getAttribute('aria-label') || '').trim()"
            )
            for _ in range(40):
                page.keyboard.press("Tab")
                if page.evaluate(focused) == text:
                    return
            raise AssertionError(text)

        page.keyboard.press("Tab")
        assert page.evaluate("document.activeElement.id") == "files"
        tab_to("parked cars")
        choose(page, "Steps of adaptation", "1")
        button(page, "parked cars").focus()
        page.keyboard.press("Enter")
        found = card(page, "cars.jpg")
        until(found, "It will take")
        tab_to("Deblur")
        page.keyboard.press("Enter")
        until(found, "Done.")
        viewer = found.get_by_role("group", name="Pictures of cars.jpg")
        viewer.focus()
        page.keyboard.press("ArrowRight")
        assert found.get_by_label("Which pictures").input_value() == "1"
        page.keyboard.press("+")
        assert "scale(1.5)" in found.locator(".layer img").first.get_attribute("style")
        tab_to("Download")
        with page.expect_download():
            page.keyboard.press("Enter")

    def test_the_focus_stays_where_the_work_is(self, page: Any, tmp_path: Path) -> None:
        choose(page, "Steps of adaptation", "50")
        drop(page, slow(tmp_path / "first.png"), jpeg(tmp_path / "second.jpg"))
        found = card(page, "first.png")
        until(found, "It will take")
        button(found, "Deblur").focus()
        page.keyboard.press("Enter")
        until(found, "Deblurred, adapting to it")
        focused = "document.activeElement.textContent"
        assert page.evaluate(focused) == "Deblur"
        button(found, "Cancel").focus()
        page.keyboard.press("Enter")
        until(found, "Cancelled.")
        assert page.evaluate(focused) == "Deblur"
        button(found, "Remove").focus()
        page.keyboard.press("Enter")
        wait(lambda: page.locator(".card").count() == 1)
        assert page.evaluate(focused) == "Remove"
        page.keyboard.press("Enter")
        wait(lambda: page.locator(".card").count() == 0)
        assert page.evaluate("document.activeElement.id") == "files"

    def test_what_happens_is_said_once_with_the_name(self, page: Any, tmp_path: Path) -> None:
        page.evaluate(
            """() => {
                window.spoken = [];
                const watch = new MutationObserver(() => spoken.push(document.getElementById("spoken").textContent));
                watch.observe(document.getElementById("spoken"), { childList: true });
            }"""
        )
        deblurred(page, jpeg(tmp_path / "a.jpg"))
        assert page.evaluate("spoken") == ["a.jpg: ready", "a.jpg: being deblurred", "a.jpg: done"]
        assert page.locator("[role=status], [aria-live]").count() == 1

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    def test_text_stands_out(self, opened: Callable[..., Any], tmp_path: Path, scheme: str) -> None:
        page = opened(color_scheme=scheme)
        deblurred(page, jpeg(tmp_path / "a.jpg"))
        button(card(page, "a.jpg"), "Show where blur is left").click()
        ratios = page.evaluate(
            """() => {
                const canvas = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
                const rgb = (colour, under) => {
                    canvas.fillStyle = under; canvas.fillRect(0, 0, 1, 1);
                    canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
                    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
                };
                const css = (one) => `rgb(${one.join(",")})`;
                const linear = (v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
                const parts = [0.2126, 0.7152, 0.0722];
                const light = (one) => one.reduce((sum, v, i) => sum + linear(v / 255) * parts[i], 0);
                const found = {};
                const probe = document.body.appendChild(document.createElement("i"));
                probe.style.backgroundColor = "Canvas";
                for (const one of document.querySelectorAll("button, a.button, p, label, summary, li, h2")) {
                    if (!one.offsetParent || !one.textContent.trim() || one.closest("[aria-disabled=true]")) continue;
                    let ground = rgb(getComputedStyle(probe).backgroundColor, "white");
                    const parents = []; for (let at = one; at; at = at.parentElement) parents.unshift(at);
                    for (const at of parents) ground = rgb(getComputedStyle(at).backgroundColor, css(ground));
                    const [a, b] = [light(rgb(getComputedStyle(one).color, css(ground))), light(ground)];
                    found[one.textContent.trim().slice(0, 40)] = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                }
                return found;
            }"""
        )
        assert len(ratios) > 15
        assert {text: ratio for text, ratio in ratios.items() if ratio < 4.5} == {}

    def test_a_phone_shows_it_within_its_width(self, opened: Callable[..., Any], tmp_path: Path) -> None:
        page = opened(PHONE, has_touch=True, is_mobile=True)
        page.locator("summary").tap()  # closed at first
        deblurred(page, jpeg(tmp_path / ("a_rather_long_name_of_a_photograph" * 3 + ".jpg")))
        assert page.evaluate("document.documentElement.scrollWidth") <= PHONE["width"]
        small = (
            "[...document.querySelectorAll('.actions button, .actions a, label.button')]"
            ".filter(one => one.offsetParent && one.offsetHeight < 40).length"
        )
        assert page.evaluate(small) == 0


class TestServerGoesAway:
    def test_the_page_says_so(self, browser: Any, started: Any, tiny_weights: Path) -> None:
        with started("--weights", str(tiny_weights)) as running:
            page = browser.new_page()
            page.goto(running.url)
            wait(lambda: page.evaluate("visit !== ''"))
        button(page, "parked cars").click()
        until(page, "the server has ended, or has forgotten this page")
        page.close()
