"""What is in folders: one order, one rule of what is hidden, through links; lists of any editor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from reblur_plugin.data.listing import gaps, images_in, in_order, list_images, read_lines, subfolders
from reblur_plugin.data.pairs import DatasetError


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def found(root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in images_in(root)]


class TestOrder:
    def test_numbers_count_by_value(self, tmp_path: Path) -> None:
        touch(tmp_path, "10.png", "9.png", "1.png", "s2/1.png", "s10/1.png", "s1_9/a.png", "s1_10/a.png")
        expected = ["1.png", "9.png", "10.png", "s1_9/a.png", "s1_10/a.png", "s2/1.png", "s10/1.png"]
        assert found(tmp_path) == expected
        assert list(list_images(tmp_path)) == [name.removesuffix(".png") for name in expected]
        assert [folder.name for folder in subfolders(tmp_path)] == ["s1_9", "s1_10", "s2", "s10"]

    def test_names_of_numbers_of_one_width_keep_the_order_of_letters(self) -> None:
        # that of published data sets, by which seeds draw images
        names = [f"GOPR{camera:04d}_11_{take:02d}" for camera in (372, 384, 1085) for take in range(12)]
        names += [f"{number:06d}" for number in (0, 1, 9, 10, 99, 100)] + ["a-1", "a1", "a_1", "a1b", "ab", "A1"]
        assert sorted(names, key=in_order) == sorted(names)


class TestHidden:
    @pytest.mark.parametrize("name", [".thumbnails", "@eaDir", "__MACOSX", "#recycle", "$RECYCLE.BIN", ".Trash-1000"])
    def test_what_systems_make_for_themselves_is_passed_over(self, tmp_path: Path, name: str) -> None:
        touch(tmp_path, "a.png", f"{name}/t.png", f"s/{name}/x/b.png", "s/c.png", ".a.png")
        assert found(tmp_path) == ["a.png", "s/c.png"]
        assert [folder.name for folder in subfolders(tmp_path)] == ["s"]

    def test_a_folder_named_as_a_picture_is_a_folder(self, tmp_path: Path) -> None:
        touch(tmp_path, "a.png/b.png")
        assert found(tmp_path) == ["a.png/b.png"]


@pytest.mark.skipif(not hasattr(os, "symlink"), reason="no links")
class TestLinks:
    def test_links_to_folders_and_files_are_followed(self, tmp_path: Path) -> None:
        touch(tmp_path, "store/1.png", "data/a/0.png")
        (tmp_path / "data" / "b").symlink_to(tmp_path / "store")
        (tmp_path / "data" / "c").symlink_to("../store")
        (tmp_path / "data" / "2.png").symlink_to("../store/1.png")
        assert found(tmp_path / "data") == ["2.png", "a/0.png", "b/1.png", "c/1.png"]
        assert [folder.name for folder in subfolders(tmp_path / "data")] == ["a", "b", "c"]

    @pytest.mark.parametrize("target", [".", "..", "../.."])
    def test_a_link_that_leads_back_is_named(self, tmp_path: Path, target: str) -> None:
        touch(tmp_path, "data/s/0.png")
        (tmp_path / "data" / "s" / "again").symlink_to(target)
        with pytest.raises(DatasetError, match=r"again.*: leads back to a folder that holds it; remove this link"):
            images_in(tmp_path / "data")

    def test_one_that_leads_to_itself_or_nowhere_is_no_folder(self, tmp_path: Path) -> None:
        (tmp_path / "a.png").symlink_to(tmp_path / "a.png")
        (tmp_path / "b.png").symlink_to(tmp_path / "none")
        assert found(tmp_path) == ["a.png", "b.png"]  # reading them says what is wrong
        assert subfolders(tmp_path) == []


class TestGaps:
    @pytest.mark.parametrize(
        ("names", "missing"),
        [
            (["1", "2", "3"], []),
            (["8", "9", "11", "15"], ["10", "12-14"]),
            (["000002", "000004", "000008"], ["6"]),
            (["frame_1_a", "frame_3_a", "frame_4_a"], ["2"]),
            (["a1", "b7"], []),
            (["cover", "1", "3"], []),
            (["7"], []),
            ([], []),
        ],
    )
    def test_are_the_numbers_that_are_missing(self, names: list[str], missing: list[str]) -> None:
        assert gaps(names) == missing


class TestLists:
    @pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
    def test_any_editors_unicode_is_read(self, tmp_path: Path, encoding: str) -> None:
        mark = {"utf-16-le": "\ufeff", "utf-16-be": "\ufeff"}.get(encoding, "")
        (tmp_path / "list").write_bytes(f"{mark}gt/sc\u00e8ne.png blur/1.png\r\n".encode(encoding))
        assert read_lines(tmp_path / "list") == ["gt/sc\u00e8ne.png blur/1.png"]

    def test_another_encoding_is_named(self, tmp_path: Path) -> None:
        (tmp_path / "list").write_bytes(b"gt/sc\xe8ne.png blur/1.png\n")
        with pytest.raises(
            DatasetError, match=r"list: expected a list in UTF-8, got another encoding at byte 5; save it"
        ):
            read_lines(tmp_path / "list")
