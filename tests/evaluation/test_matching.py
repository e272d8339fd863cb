"""Results find their sharp images whatever their names; each answer says how, and what was left out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from reblur_plugin.data.images import ImageError
from reblur_plugin.evaluation.matching import BLURRY, SHARP, Matched, match, named_images

SEQUENCES = ("GOPR0384_11_00", "GOPR0410_11_00")
FOUR = [f"{sequence}/{frame}" for sequence in SEQUENCES for frame in ("000001", "000002")]
GOPRO = [
    f"{Path(name).parent}/{kind}/{Path(name).name}.png" for name in FOUR for kind in ("sharp", "blur", "blur_gamma")
]
Matching = Callable[..., Matched]


def touch(folder: Path, names: Sequence[str]) -> Path:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"a picture")
    return folder


@pytest.fixture
def matching(tmp_path: Path) -> Matching:
    """Return what matches results against sharp images, both given by their files' names."""

    def found(sharp: Sequence[str], results: Sequence[str], by_order: bool = False) -> Matched:
        names = named_images(touch(tmp_path / "sharp", sharp), SHARP)[0]
        return match(touch(tmp_path / "results", results), names, by_order)

    return found


def files(matched: Matched) -> dict[str, dict[str, str]]:
    return {
        stage: {name: path.relative_to(matched.folder).as_posix() for name, path in found.items()}
        for stage, found in matched.stages.items()
    }


class TestSharpImages:
    def test_of_a_data_sets_root_those_of_one_kind_are_taken(self, tmp_path: Path) -> None:
        root = touch(tmp_path, GOPRO)
        sharp, kind = named_images(root, SHARP)
        assert list(sharp) == FOUR
        assert kind == "sharp"
        assert all("sharp" in path.parts for path in sharp.values())
        blurry, kind = named_images(root, BLURRY)
        assert list(blurry) == FOUR
        assert kind == "blur_gamma"  # before blur: D11

    def test_a_folder_without_kinds_is_taken_whole(self, tmp_path: Path) -> None:
        found, kind = named_images(touch(tmp_path / "somewhere", ["b/2.png", "a/1.jpg"]), SHARP)
        assert list(found) == ["a/1", "b/2"]
        assert kind == ""

    def test_the_folder_itself_may_be_of_the_kind(self, tmp_path: Path) -> None:
        assert named_images(touch(tmp_path / "GT", ["1.png"]), SHARP) == ({"1": tmp_path / "GT" / "1.png"}, "gt")

    def test_two_of_one_name_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(ImageError, match=r"1\.png: a second image named '1' beside .*1\.jpg"):
            named_images(touch(tmp_path, ["1.jpg", "1.png"]), SHARP)

    def test_names_that_no_result_could_tell_apart_are_refused(self, matching: Matching) -> None:
        with pytest.raises(ImageError, match="--gt: expected names that differ in words or numbers, got a-1 and a_1"):
            matching(["a_1.png", "a-1.png"], ["a_1.png"])


class TestNames:
    def test_equal_paths_are_partners(self, matching: Matching) -> None:
        found = matching(GOPRO, [f"{name}.png" for name in FOUR])
        assert files(found) == {"": {name: f"{name}.png" for name in FOUR}}
        assert found.how == "4 of 4 by the words of their names (GOPR0384_11_00/000001.png is GOPR0384_11_00/000001)"
        assert found.problems == []

    @pytest.mark.parametrize(
        "form", ["{}-{}.png", "{}_{}_out.png", "visualization/GOPRO_test/{}/{}.png", "{}/blur/{}.jpg", "x/{}__{}.PNG"]
    )
    def test_forms_of_other_repositories(self, matching: Matching, form: str) -> None:
        found = matching(GOPRO, [form.format(*name.split("/")) for name in FOUR])
        (stage,) = files(found).values()
        assert stage == {name: form.format(*name.split("/")) for name in FOUR}
        assert found.problems == []

    def test_numbers_count_by_value(self, matching: Matching) -> None:
        found = matching(["0001.png", "0002.png", "0012.png"], ["1.png", "12.png", "2.png"])
        assert files(found) == {"": {"0001": "1.png", "0002": "2.png", "0012": "12.png"}}

    def test_a_unique_file_name_is_enough_and_the_answer_says_so(self, matching: Matching) -> None:
        found = matching(["a/1.png", "b/2.png"], ["1.png", "2.png"])
        assert files(found) == {"": {"a/1": "1.png", "b/2": "2.png"}}
        assert found.how == "2 of 2 by the words of file names alone (1.png is a/1)"

    def test_a_file_name_of_two_sequences_is_not_enough(self, matching: Matching) -> None:
        with pytest.raises(
            ImageError,
            match=r"expected results named as the sharp images, such as GOPR0384_11_00/000001, got "
            r"000001\.png; give the --gt of their sequence, rename them, or give --match order",
        ):
            matching(GOPRO, ["000001.png"])

    def test_the_longest_name_within_a_result_is_its_own(self, matching: Matching) -> None:
        found = matching(["a.png", "a_1.png"], ["a_1_out.png", "a_out.png"])
        assert files(found) == {"out": {"a_1": "a_1_out.png", "a": "a_out.png"}}


class TestNamesWithNumbersBesides:
    """A name may lie at several places of a result's; the whole folder tells which one is meant."""

    @pytest.mark.parametrize("form", ["{}_v2.png", "v2_{}.png", "{}x4.png", "model3_{}_epoch5.png", "4/{}.png"])
    def test_of_versions_and_scales(self, matching: Matching, form: str) -> None:
        names = [f"{number:04d}" for number in range(1, 7)]
        found = matching([f"{name}.png" for name in names], [form.format(name) for name in names])
        (stage,) = files(found).values()
        assert stage == {name: form.format(name) for name in names}
        assert found.problems == []

    @pytest.mark.parametrize("form", ["v2_{}.png", "4_{}_2x.png"])
    def test_without_zeros_what_fits_most_images_is_meant(self, matching: Matching, form: str) -> None:
        names = [str(number) for number in range(1, 7)]
        (stage,) = files(matching([f"{name}.png" for name in names], [form.format(name) for name in names])).values()
        assert stage == {name: form.format(name) for name in names}

    @pytest.mark.parametrize("form", ["{}_{}.png", "{}_{}_2x.png", "{}/{}_1.png", "{}/{}.png"])
    def test_of_reds(self, matching: Matching, form: str) -> None:
        pairs = [(f"{clip:03d}", f"{frame:08d}") for clip in range(3) for frame in range(4)]
        found = matching([f"{clip}/{frame}.png" for clip, frame in pairs], [form.format(*pair) for pair in pairs])
        (stage,) = files(found).values()
        assert stage == {f"{clip}/{frame}": form.format(clip, frame) for clip, frame in pairs}

    def test_a_version_of_one_image_alone(self, matching: Matching) -> None:
        assert files(matching(["1.png", "2.png"], ["0001_v2.png"])) == {"v_2": {"1": "0001_v2.png"}}

    @pytest.mark.parametrize(("name", "image"), [("v2_0001", "0001"), ("v1_0002", "0002"), ("0001_v2", "0001")])
    def test_one_image_alone_is_the_one_written_out(self, matching: Matching, name: str, image: str) -> None:
        (stage,) = files(matching(["0001.png", "0002.png"], [f"{name}.png"])).values()
        assert stage == {image: f"{name}.png"}

    def test_two_numbers_that_both_run_are_refused(self, matching: Matching) -> None:
        names = [f"{number:04d}" for number in range(10)]
        results = [f"{number:04d}_img{(number + 1) % 10:04d}.png" for number in range(10)]
        with pytest.raises(ImageError, match=r"got 0000_img0001\.png and 0001_img0002\.png, in which several could"):
            matching([f"{name}.png" for name in names], results)

    def test_letters_that_are_digits_elsewhere(self, matching: Matching) -> None:
        found = matching(["a².png", "a③.png"], ["a²_out.png", "a③_out.png"])
        assert files(found) == {"out": {"a²": "a²_out.png", "a③": "a③_out.png"}}


class TestStages:
    def test_endings_are_stages(self, matching: Matching) -> None:
        names = ["1.png", "1_adapted.png", "1_adapted_3.png", "1_comparison.png"]
        found = matching(["1.png"], names)
        assert files(found) == {"": {"1": "1.png"}, "adapted": {"1": names[1]}, "adapted_3": {"1": names[2]}}
        assert found.how == "1 of 1 by the words of their names, stages result, adapted, adapted_3 (1.png is 1)"

    def test_folders_of_the_same_images_are_stages(self, matching: Matching) -> None:
        found = matching(["1.png", "2.png"], ["all/SRN/1.png", "all/SRN/2.png", "all/DHN/1.png", "all/DHN/2.png"])
        assert files(found) == {
            "dhn": {"1": "all/DHN/1.png", "2": "all/DHN/2.png"},
            "srn": {"1": "all/SRN/1.png", "2": "all/SRN/2.png"},
        }

    def test_folders_of_other_images_are_one_stage(self, matching: Matching) -> None:
        found = matching(["1.png", "2.png"], ["GOPR1/1.png", "GOPR2/2.png"])
        assert files(found) == {"": {"1": "GOPR1/1.png", "2": "GOPR2/2.png"}}


class TestWhatIsLeftOut:
    def test_is_named(self, matching: Matching, tmp_path: Path) -> None:
        found = matching(["1.png", "2.png", "3.png"], ["1_out.png", "1_out.jpg", "2_out.png", "other.png"])
        results = tmp_path / "results"
        assert files(found) == {"out": {"1": "1_out.jpg", "2": "2_out.png"}}
        assert found.problems == [
            f"{results}: other.png: no sharp image has this name; left out",
            f"{results}: 1_out.png: a second result of one image; left out",
            f"{results} (out): no result of 3; scored without",
        ]

    def test_many_are_counted(self, matching: Matching, tmp_path: Path) -> None:
        found = matching([f"{number}.png" for number in range(9)], ["0.png"])
        assert found.problems == [f"{tmp_path / 'results'}: no result of 1, 2, 3 and 5 more; scored without"]

    def test_a_folder_without_pictures_is_one_sentence(self, matching: Matching, tmp_path: Path) -> None:
        (tmp_path / "results").mkdir()
        with pytest.raises(ImageError, match=r"results: expected images \(\.png, .*\), found none"):
            matching(["1.png"], [])

    def test_comparisons_alone_are_no_results(self, matching: Matching) -> None:
        with pytest.raises(ImageError, match="expected results, found only pictures that show comparisons"):
            matching(["1.png"], ["1_comparison.png"])


def test_what_a_report_has_written_is_no_result(tmp_path: Path) -> None:
    names = [f"report/pictures/{'0a' * 10}.webp", "report/figures/crops.png", "report/figures/crops.pdf"]
    folder = touch(tmp_path, ["1.png", "pictures/2.png", "figures/3.png", *names])
    assert list(named_images(folder, SHARP)[0]) == ["1", "figures/3", "pictures/2"]
    assert list(files(match(folder, None))[""]) == ["1", "figures/3", "pictures/2"]


class TestByOrder:
    def test_the_nth_belongs_to_the_nth(self, matching: Matching) -> None:
        found = matching(["10.png", "9.png"], ["b.png", "a.png"], by_order=True)
        assert files(found) == {"": {"9": "a.png", "10": "b.png"}}
        assert found.how == "by their order, whatever their names"

    def test_other_counts_are_refused(self, matching: Matching) -> None:
        with pytest.raises(ImageError, match="expected 2 images, one for each sharp one in their order, got 1"):
            matching(["1.png", "2.png"], ["1.png"], by_order=True)


def test_without_sharp_images_results_have_their_own_names(tmp_path: Path) -> None:
    found = match(touch(tmp_path, ["a/1.png", "2.jpg"]), None)
    assert files(found) == {"": {"a/1": "a/1.png", "2": "2.jpg"}}
