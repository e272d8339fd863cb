"""The files in options/: each is in order, builds what it names and holds the paper's numbers, listed here by hand."""

from __future__ import annotations

import copy
import functools
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import reblur_plugin
from reblur_plugin.core.adapt import AdaptConfig
from reblur_plugin.host import build_loss, build_network
from reblur_plugin.options import checks, components
from reblur_plugin.options.reading import Options, in_iterations, override, read

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "options"


class Training(NamedTuple):
    """A row of the paper: M_D with its ResBlocks (0: not varied), ResBlocks of M_R (0: none), further losses."""

    m_d: str
    blocks: int
    m_r: int
    losses: str
    numbers: str  # LPIPS NIQE PSNR SSIM; "-" where v1 isn't legible


TRAININGS = {
    # Tables 2 and S4
    "gopro_unet_l1": Training("ResUNet", 8, 0, "", ".1635 5.996 29.66 .8874"),
    "gopro_unet_n1": Training("ResUNet", 8, 1, "", ".1365 5.629 29.58 .8869"),
    "gopro_unet_n2": Training("ResUNet", 8, 2, "", ".1238 5.124 29.44 .8824"),
    "gopro_unet_n3": Training("ResUNet", 8, 3, "", ".1386 5.448 29.38 .8819"),
    "gopro_unet_n4": Training("ResUNet", 8, 4, "", ".1415 5.513 29.25 .8789"),
    "gopro_srn_l1": Training("SRN", 0, 0, "", ".1246 5.252 30.62 .9078"),
    "gopro_srn_n1": Training("SRN", 0, 1, "", ".1140 5.136 30.74 .9104"),
    "gopro_srn_n2": Training("SRN", 0, 2, "", ".1037 4.887 30.57 .9074"),
    "gopro_srn_n3": Training("SRN", 0, 3, "", ".1091 4.875 30.50 .9060"),
    "gopro_srn_n4": Training("SRN", 0, 4, "", ".1155 5.041 30.53 .9056"),
    "gopro_dhn_l1": Training("DHN", 0, 0, "", ".1179 5.490 31.53 .9207"),
    "gopro_dhn_n1": Training("DHN", 0, 1, "", ".0975 5.472 31.53 .9217"),
    "gopro_dhn_n2": Training("DHN", 0, 2, "", ".0837 5.076 31.34 .9177"),
    "gopro_dhn_n3": Training("DHN", 0, 3, "", ".0845 4.963 31.26 .9159"),
    "gopro_dhn_n4": Training("DHN", 0, 4, "", ".0861 5.041 31.19 .9149"),
    # Table 3; its PSNR is lost for all rows with L_Reblur, and two of them are in Table 7
    "reds_unet_l1": Training("ResUNet", 8, 0, "", ".1486 3.649 30.80 .8772"),
    "reds_unet_n1": Training("ResUNet", 8, 1, "", ".1435 3.487 - .8776"),
    "reds_unet_n2": Training("ResUNet", 8, 2, "", ".1252 2.918 30.46 .8717"),
    "reds_srn_l1": Training("SRN", 0, 0, "", ".1148 3.392 31.89 .8999"),
    "reds_srn_n1": Training("SRN", 0, 1, "", ".1071 3.305 - .9044"),
    "reds_srn_n2": Training("SRN", 0, 2, "", ".0947 2.875 - .9026"),
    "reds_dhn_l1": Training("DHN", 0, 0, "", ".0942 3.288 32.65 .9152"),
    "reds_dhn_n1": Training("DHN", 0, 1, "", ".0931 3.248 - .9143"),
    "reds_dhn_n2": Training("DHN", 0, 2, "", ".0805 2.830 32.44 .9122"),
    # Table 4
    "gopro_unet_n2_sharp_none": Training("ResUNet", 8, 2, "", ".1301 5.132 29.47 .8839"),
    "gopro_unet_n2_sharp_real": Training("ResUNet", 8, 2, "", ".1410 5.307 29.15 .8694"),
    # Tables 5 and S5
    "gopro_srn_vgg": Training("SRN", 0, 0, "vgg", ".1037 4.945 30.60 .9074"),
    "gopro_srn_vgg_n2": Training("SRN", 0, 2, "vgg", ".0928 4.671 30.64 .9079"),
    "gopro_srn_adv": Training("SRN", 0, 0, "adv", ".1141 4.960 30.53 .9068"),
    "gopro_srn_adv_n2": Training("SRN", 0, 2, "adv", ".1014 4.811 30.56 .9075"),
    "gopro_dhn_vgg": Training("DHN", 0, 0, "vgg", ".0994 5.022 31.48 .9195"),
    "gopro_dhn_vgg_n2": Training("DHN", 0, 2, "vgg", ".0773 4.897 31.28 .9161"),
    "gopro_dhn_adv": Training("DHN", 0, 0, "adv", ".0969 5.026 31.46 .9188"),
    "gopro_dhn_adv_n2": Training("DHN", 0, 2, "adv", ".0835 4.799 31.28 .9162"),
    # Table S6
    "reds_srn_vgg": Training("SRN", 0, 0, "vgg", ".1000 3.256 31.86 .9001"),
    "reds_srn_vgg_n2": Training("SRN", 0, 2, "vgg", ".0868 2.835 31.83 .9015"),
    "reds_dhn_vgg": Training("DHN", 0, 0, "vgg", ".0812 3.171 32.61 .9146"),
    "reds_dhn_vgg_n2": Training("DHN", 0, 2, "vgg", ".0723 2.821 32.48 .9133"),
    # Table S2
    "gopro_dmphn_l1": Training("DMPHN", 0, 0, "", ".1184 5.542 31.42 .9191"),
    # Table 1: PSNR alone
    "gopro_unet4_l1": Training("ResUNet", 4, 0, "", "28.17"),
    "gopro_unet16_l1": Training("ResUNet", 16, 0, "", "30.78"),
    "gopro_unet32_l1": Training("ResUNet", 32, 0, "", "31.48"),
    "gopro_reblur_on_unet4": Training("ResUNet", 4, 2, "alone", "34.29"),
    "gopro_reblur_on_unet8": Training("ResUNet", 8, 2, "alone", "32.66"),
    "gopro_reblur_on_unet16": Training("ResUNet", 16, 2, "alone", "31.90"),
    "gopro_reblur_on_unet32": Training("ResUNet", 32, 2, "alone", "31.48"),
}
# Tables 6 and 7, Fig. 9: the training, numbers after 5 steps of adaptation ("" where v1 isn't legible)
ADAPTATIONS = {
    "gopro_unet_n1_tta": ("gopro_unet_n1", ".1327 5.599 29.52 .8878"),
    "gopro_unet_n2_tta": ("gopro_unet_n2", ""),
    "gopro_srn_n1_tta": ("gopro_srn_n1", ""),
    "gopro_srn_n2_tta": ("gopro_srn_n2", ".0983 4.730 30.44 .9067"),
    "gopro_dhn_n1_tta": ("gopro_dhn_n1", ""),
    "gopro_dhn_n2_tta": ("gopro_dhn_n2", ""),
    "reds_unet_n2_tta": ("reds_unet_n2", ".1226 2.849 30.25 .8701"),
    "reds_srn_n2_tta": ("reds_srn_n2", ""),
    "reds_dhn_n2_tta": ("reds_dhn_n2", ".0763 2.761 32.17 .9110"),
    "lai_dhn_n2_tta": ("gopro_dhn_n2", ""),
}
# Table 6 has two more steps of one of them
STEPS = {"gopro_srn_n1_tta": {1: ".1129 5.125 30.74 .9107", 3: ".1112 5.101 30.70 .9108"}}
PHOTOGRAPHS = {"lai_dhn_l1": "gopro_dhn_l1", "lai_dhn_n2": "gopro_dhn_n2", "lai_dhn_n2_tta": "gopro_dhn_n2"}
# A training that Table 6 or 7 adapts is tested there, all others by themselves
PLAIN_TESTS = {f"{name}_test": name for name in TRAININGS if f"{name}_tta" not in ADAPTATIONS}
TESTED = PLAIN_TESTS | {name: training for name, (training, _) in ADAPTATIONS.items()} | PHOTOGRAPHS
OTHERS = {"demo", "demo_tta", "gopro_dhn_official_test", "gopro_dhn_official_reblur", "gopro_dhn_official_tta"}
SHIPPED = {"resunet_small_l1", "resunet_small_n2", "resunet_small_tta"}
OTHERS |= SHIPPED | {"spandrel_reblur"}

# Parameters by hand: a convolution k x k from i to o channels has (k * k * i + 1) * o.
# U-Net: 5x5 3-64, 3x3 64-128, 3x3 128-192, 2n of 3x3 192-192, 3x3 192-512, 3x3 128-256, 5x5 64-3
#   = 4864 + 73,856 + 221,376 + 2n * 331,968 + 885,248 + 295,168 + 4803 = 1,485,315 + n * 663,936
# M_R: 5x5 3-64, 2n of 5x5 64-64, 5x5 64-3 = 4864 + 2n * 102,464 + 4803 = 9667 + n * 204,928
# SRN: encoder 5x5 6-32, 32-64, 64-128 = 4832 + 51,264 + 204,928; three ResBlocks each in encoder and decoder:
#   12 * (25,632 + 102,464 + 409,728); up 3x3 128-256, 3x3 64-128; 5x5 32-3 = 295,168 + 73,856 + 2403
# DHN, DMPHN: four levels of the official encoder, 868,288, and decoder, 939,843
PARAMETERS = {"SRN": 7_086_339, "DHN": 4 * (868_288 + 939_843), "DMPHN": 4 * (868_288 + 939_843)}

SETTINGS = {"type", "lr"}
KEYS: dict[str, set[str]] = {
    "datasets: train": {"type", "layout", "dataroot", "augment", "gt_size", "batch_size_per_gpu", "num_worker_per_gpu"},
    "datasets: val": {"type", "name", "layout", "dataroot"},
    "datasets: test": {"type", "name", "layout", "dataroot"},
    "train": {"total_epoch", "amp", "channels_last", "scheduler", "freeze_deblur_net"}
    | {"optim_g", "optim_r", "optim_d", "pixel_opt", "perceptual_opt", "gan_opt", "reblur_opt"},
    "train: optim_g": SETTINGS,
    "train: optim_r": SETTINGS,
    "train: optim_d": SETTINGS,
    "train: scheduler": {"type", "milestones", "gamma"},
    "train: reblur_opt": {"loss_weight", "sharp_reference", "sharp_weight", "order"},
    "val": {"val_freq", "metrics", "save_img", "comparison", "tta", "adapted_steps", "reblurred"},
    "val: tta": {"steps", "lr"},
    "logger": {"print_freq", "save_checkpoint_freq", "keep_checkpoints", "use_tb_logger"},
    "path": {"pretrain_network_g", "pretrain_network_r"},
}


@pytest.fixture(autouse=True)
def registered() -> None:
    reblur_plugin.register()


read_once = functools.cache(read)


def options(name: str) -> Options:
    return copy.deepcopy(read_once(FOLDER / f"{name}.yml"))


def header(name: str) -> list[str]:
    lines = (FOLDER / f"{name}.yml").read_text(encoding="utf-8").splitlines()
    return lines[: next(number for number, line in enumerate(lines) if not line.startswith("#"))]


def is_training(name: str) -> bool:
    return name in TRAININGS or (name in OTHERS and not name.endswith(("_test", "_tta")))


def of_each(cases: Iterable[Any]) -> Callable[[Callable[..., None]], Callable[[Any], None]]:
    """Turn a fact about one file into a test of all, which fails with the names of the files that break it."""

    def decorate(fact: Callable[..., None]) -> Callable[[Any], None]:
        def holds_for_each(self: Any) -> None:
            failures = []
            for case in cases:
                case = case if isinstance(case, tuple) else (case,)
                try:
                    fact(self, *case)
                except Exception as error:
                    failures.append(f"{case[0]}: {type(error).__name__}: {error}")
            assert not failures, "\n\n".join(failures)

        holds_for_each.__name__ = fact.__name__
        return holds_for_each

    return decorate


def blocks(part: Any, where: str = "") -> list[tuple[str, Options]]:
    """Return all blocks in resolved options with the keys that lead to them."""
    if not isinstance(part, dict):
        return []
    inner = [blocks(value, f"{where}: {key}" if where else str(key)) for key, value in part.items()]
    return [(where, part), *(found for items in inner for found in items)]


def parameters(block: Options) -> int:
    return _parameters(json.dumps(block))


@functools.cache
def _parameters(block: str) -> int:
    with torch.device("meta"):
        network = build_network(json.loads(block))
    return sum(parameter.numel() for parameter in network.parameters())


ALL = sorted({*TRAININGS, *TESTED, *OTHERS})
PAPERS = sorted({*TRAININGS, *TESTED})


class TestTheFolder:
    def test_holds_the_papers_rows_and_nothing_unknown(self) -> None:
        assert {path.stem for path in FOLDER.glob("*.yml")} == set(ALL)
        # 15 of Table S4 (with 8 blocks of Table 1), 9 of 3, 2 of 4, 8 of S5, 4 of S6, 1 of S2, 3 + 4 of 1
        assert len(TRAININGS) == 15 + 9 + 2 + 8 + 4 + 1 + 3 + 4 == 46

    def test_its_fragments_are_all_used(self) -> None:
        texts = [path.read_text(encoding="utf-8") for path in FOLDER.rglob("*.yml")]
        named = {Path(name).name for text in texts for name in re.findall(r"[\w/]+\.yml", "".join(bases(text)))}
        assert {path.name for path in (FOLDER / "base").iterdir()} <= named

    @of_each(sorted(FOLDER.rglob("*.yml")))
    def test_no_file_uses_anchors(self, path: Path) -> None:
        # BasicSR pops keys out of blocks, and an alias is the same block
        text = re.sub(r"#.*", "", path.read_text(encoding="utf-8"))
        assert not re.search(r"(^|[\s\[{,:])[&*]\w", text)

    @of_each(sorted((FOLDER / "base").glob("*.yml")))
    def test_a_fragment_says_what_it_is(self, path: Path) -> None:
        assert re.match(r"# .+[.]\n", path.read_text(encoding="utf-8"))


def bases(text: str) -> list[str]:
    return re.findall(r"^_base_: (.+)$", text, re.MULTILINE)


class TestHeaders:
    @of_each(ALL)
    def test_three_lines_with_the_command_of_this_very_file(self, name: str) -> None:
        lines = header(name)
        assert len(lines) == 3
        command = f"python -m reblur_plugin.{'train' if is_training(name) else 'test'} -opt options/{name}.yml"
        assert sum(line.endswith(command) for line in lines) == 1
        assert not [line for line in lines if "-opt" in line and command not in line]

    @of_each(PAPERS)
    def test_row_command_and_what_is_open_in_this_order(self, name: str) -> None:
        row, command, left_open = header(name)
        assert re.match(r"# (Tables? S?\d|Fig\. 9)", row)
        assert command.startswith("#   python -m ")
        assert left_open.startswith("# Open in the paper: ")
        assert left_open.endswith(".")
        assert re.search(r"\bD\d+ |what (\w+)\.yml leaves open", left_open)
        for other in re.findall(r"what (\w+)\.yml", left_open):
            assert other in ALL

    @of_each(sorted({*TRAININGS, *PLAIN_TESTS}))
    def test_the_numbers_of_the_row_stand_there(self, name: str) -> None:
        numbers = TRAININGS[PLAIN_TESTS.get(name, name)].numbers
        assert f"= {numbers}" in header(name)[0]
        assert ("not legible in v1" in header(name)[0]) is ("-" in numbers)

    @of_each(sorted(set(ADAPTATIONS) - set(PHOTOGRAPHS)))
    def test_the_numbers_after_adaptation_stand_there_and_those_before(self, name: str) -> None:
        training, numbers = ADAPTATIONS[name]
        row = header(name)[0]
        assert re.search(rf"TTA step 5: .*= {numbers} " if numbers else "TTA step 5: not legible in v1", row)
        assert f"without TTA {TRAININGS[training].numbers}" in row
        for step, found in STEPS.get(name, {}).items():
            assert f"TTA step {step} = {found}" in row

    @of_each(sorted(FOLDER.rglob("*.yml")))
    def test_decisions_that_they_name_exist(self, path: Path) -> None:
        decisions = re.findall(r"^\*\*(D\d+) ", (ROOT / "docs" / "decisions.md").read_text(encoding="utf-8"), re.M)
        assert set(re.findall(r"\bD\d+\b", path.read_text(encoding="utf-8"))) <= set(decisions)


class TestInOrder:
    def test_they_pass_but_for_checkpoints_that_are_not_there_yet(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        failures = {}
        for name in ALL:
            found = options(name)
            (tmp_path / name).mkdir()
            monkeypatch.chdir(tmp_path / name)
            missing = [f"path: {key}: no such file {value}" for key, value in found["path"].items()]
            before = checks.problems(found, is_training(name))
            for file in found["path"].values():
                Path(file).parent.mkdir(parents=True, exist_ok=True)
                Path(file).touch()
            after = checks.problems(found, is_training(name))
            if (found["name"], before, after) != (name, missing, []):
                failures[name] = (found["name"], before, after)
        assert failures == {}

    @of_each(ALL)
    def test_its_components_are_known(self, name: str) -> None:
        assert components.problems(options(name)) == []

    @of_each(PAPERS)
    def test_every_key_is_one_that_is_read(self, name: str) -> None:
        for where, block in blocks(options(name)):
            known = set(KEYS.get(where, block))  # components' own keys: components.problems
            if where.startswith("datasets: ") and block["layout"] == "gopro":
                known |= {"blur_key"}
            assert set(block) <= known, where

    @of_each(sorted(TRAININGS))
    def test_its_losses_are_built(self, name: str) -> None:
        train = options(name)["train"]
        for key in ("pixel_opt", "gan_opt"):  # L_VGG needs VGG19's weights
            if key in train:
                build_loss(copy.deepcopy(train[key]))

    @of_each(ALL)
    def test_its_networks_are_built(self, name: str) -> None:
        for key, block in options(name).items():
            if key.startswith("network_") and "weights" not in block:  # somebody's file, which isn't here
                assert parameters(block) > 0


class TestTrainings:
    @of_each(TRAININGS.items())
    def test_the_networks_are_the_rows(self, name: str, row: Training) -> None:
        found = options(name)
        assert found["model_type"] == "ReblurModel"
        assert found["network_g"]["type"] == row.m_d
        expected = 1_485_315 + row.blocks * 663_936 if row.m_d == "ResUNet" else PARAMETERS[row.m_d]
        assert parameters(found["network_g"]) == expected
        assert found["network_g"].get("num_blocks", 0) == row.blocks
        assert ("network_r" in found) is (row.m_r > 0)
        if row.m_r:
            assert found["network_r"] == {"type": "ReblurNet", "num_blocks": row.m_r}
            assert parameters(found["network_r"]) == 9667 + row.m_r * 204_928
        assert found.get("network_d") == ({"type": "ReblurDiscriminator"} if row.losses == "adv" else None)

    @of_each(TRAININGS.items())
    def test_the_losses_are_the_rows(self, name: str, row: Training) -> None:
        train = options(name)["train"]
        alone = row.losses == "alone"
        assert ("pixel_opt" in train) is ("optim_g" in train) is (not alone)
        if not alone:
            assert train["pixel_opt"] == {"type": "MultiScaleL1Loss", "loss_weight": 1.0}
        assert ("reblur_opt" in train) is ("optim_r" in train) is (row.m_r > 0)
        if row.m_r and not alone:
            reference = {"gopro_unet_n2_sharp_none": "none", "gopro_unet_n2_sharp_real": "real"}.get(name, "pseudo")
            expected = {"loss_weight": 1.0, "sharp_reference": reference, "sharp_weight": 1.0, "order": "reblur_first"}
            assert train["reblur_opt"] == expected
        assert ("perceptual_opt" in train) is (row.losses == "vgg")
        if row.losses == "vgg":
            assert train["perceptual_opt"] == {
                "type": "PerceptualLoss",
                "layer_weights": {"conv5_4": 1.0},
                "vgg_type": "vgg19",
                "perceptual_weight": 0.3,
                "criterion": "l1",
            }
        assert ("gan_opt" in train) is ("optim_d" in train) is (row.losses == "adv")
        if row.losses == "adv":
            assert train["gan_opt"] == {"type": "GANLoss", "gan_type": "vanilla", "loss_weight": 0.001}

    @of_each(sorted(TRAININGS))
    def test_all_share_the_recipe_of_section_s1(self, name: str) -> None:
        found = options(name)
        train = found["train"]
        assert train["total_epoch"] == (4000 if name.startswith("gopro") else 200)
        assert train["scheduler"] == {"type": "MultiStepLR", "milestones": ["50%", "75%", "90%"], "gamma": 0.5}
        optimizers = {key: block for key, block in train.items() if key.startswith("optim")}
        assert optimizers
        assert all(block == {"type": "Adam", "lr": 1e-4} for block in optimizers.values())
        assert train["amp"] == "auto"
        data = found["datasets"]["train"]
        assert (data["gt_size"], data["batch_size_per_gpu"], data["augment"]) == (256, 16, "nah")

    @of_each(sorted(TRAININGS))
    def test_the_data_are_the_rows(self, name: str) -> None:
        blocks = options(name)["datasets"]
        assert set(blocks) == {"train", "val"}
        if name.startswith("gopro"):
            roots = {"train": "datasets/GOPRO_Large/train", "val": "datasets/GOPRO_Large/test"}
        else:
            roots = {"train": "datasets/REDS/train", "val": "datasets/REDS/val"}
        for phase, block in blocks.items():
            assert block["layout"] == name.split("_")[0]
            assert block["dataroot"] == roots[phase]
            assert block.get("blur_key") == ("blur_gamma" if name.startswith("gopro") else None)

    @pytest.mark.parametrize(
        ("name", "images", "total", "milestones"),
        [
            # 2103 // 16 = 131 iterations an epoch; 131 * 4000 = 524,000
            ("gopro_srn_n2", 2103, 524_000, [262_000, 393_000, 471_600]),
            # 24000 // 16 = 1500; 1500 * 200 = 300,000
            ("reds_srn_n2", 24_000, 300_000, [150_000, 225_000, 270_000]),
        ],
    )
    def test_epochs_are_these_iterations_with_the_data_sets_true_length(
        self, name: str, images: int, total: int, milestones: list[int]
    ) -> None:
        converted = in_iterations(options(name), images, 1)
        assert converted["train"]["total_iter"] == total
        assert converted["train"]["scheduler"]["milestones"] == milestones
        assert converted["val"]["val_freq"] * 10 == total
        assert converted["logger"]["save_checkpoint_freq"] * 100 == total

    @of_each([4, 8, 16, 32])
    def test_reblurring_alone_trains_on_table_1s_frozen_network(self, blocks: int) -> None:
        found = options(f"gopro_reblur_on_unet{blocks}")
        deblurring = "gopro_unet_l1" if blocks == 8 else f"gopro_unet{blocks}_l1"
        assert found["train"]["freeze_deblur_net"] is True
        assert found["train"]["reblur_opt"] == {"sharp_reference": "none"}  # L_Blur alone
        assert found["path"] == {"pretrain_network_g": f"experiments/{deblurring}/models/net_g_latest.pth"}
        assert found["network_g"] == options(deblurring)["network_g"]
        assert found["val"]["reblurred"] is True

    @of_each(sorted(name for name in TRAININGS if "reblur_on" not in name))
    def test_all_others_start_afresh(self, name: str) -> None:
        found = options(name)
        assert found["path"] == {}
        assert "freeze_deblur_net" not in found["train"]


class TestTests:
    @of_each(TESTED.items())
    def test_networks_and_checkpoints_are_the_trainings(self, name: str, training: str) -> None:
        found, trained = options(name), options(training)
        # M_R is needed where it is applied
        labels = {"g", "r"} if name in ADAPTATIONS or "reblur_on" in name else {"g"}
        assert {key[-1] for key in found if key.startswith("network_")} == labels
        assert {key: found[key] for key in found if key.startswith("network_")} == {
            f"network_{label}": trained[f"network_{label}"] for label in labels
        }
        # Training M_R alone leaves M_D where it was trained
        source = {"g": training, "r": training}
        if "reblur_on" in name:
            source["g"] = Path(trained["path"]["pretrain_network_g"]).parts[1]
        assert found["path"] == {
            f"pretrain_network_{label}": f"experiments/{source[label]}/models/net_{label}_latest.pth"
            for label in labels
        }

    @of_each(sorted(set(TESTED) - set(PHOTOGRAPHS)))
    def test_the_papers_four_metrics_are_taken_on_the_data_of_training(self, name: str) -> None:
        found = options(name)
        assert set(found["val"]["metrics"]) == {"lpips", "niqe", "psnr", "ssim"}
        assert found["val"]["metrics"]["lpips"] == {"type": "reblur_lpips", "net": "alex"}
        assert found["datasets"] == {"test": options(TESTED[name])["datasets"]["val"]}

    @of_each(sorted(PHOTOGRAPHS))
    def test_photographs_have_niqe_alone(self, name: str) -> None:
        found = options(name)
        assert found["val"]["metrics"] == {"niqe": {"type": "reblur_niqe"}}
        assert found["datasets"]["test"]["layout"] == "photographs"

    @of_each(sorted(TESTED))
    def test_adaptation_is_algorithm_1s(self, name: str) -> None:
        tta = options(name)["val"].get("tta")
        assert tta == ({"steps": 5, "lr": 3e-6} if name in ADAPTATIONS else None)
        assert options(name)["val"].get("adapted_steps") == ([1, 3] if tta else None)
        if tta:
            AdaptConfig(**tta)

    @of_each(sorted(TESTED))
    def test_reblurred_results_are_scored_where_table_1_needs_them(self, name: str) -> None:
        assert options(name)["val"].get("reblurred", False) is ("reblur_on" in name)

    def test_the_official_weights_are_tested_on_the_blur_that_they_know(self) -> None:
        found = options("gopro_dhn_official_test")
        assert found["datasets"]["test"]["blur_key"] == "blur"
        assert found["network_g"] == options("gopro_dhn_l1")["network_g"]


class TestExperimentsPage:
    """docs/experiments.md: a line for each row of the paper."""

    TEXT = (ROOT / "docs" / "experiments.md").read_text(encoding="utf-8")

    def test_names_all_files_and_no_others(self) -> None:
        named = set(re.findall(r"\b(?:gopro|reds|lai)_\w+", self.TEXT))
        assert named == set(ALL) - SHIPPED - {"demo", "demo_tta", "spandrel_reblur"}

    def test_counts_them(self) -> None:
        gopro = sum(name.startswith("gopro") for name in TRAININGS)
        assert f"{len(TRAININGS)} trainings ({gopro} on GOPRO, {len(TRAININGS) - gopro} on REDS" in self.TEXT
        assert f"and {len(TESTED)} tests" in self.TEXT

    @of_each(TRAININGS.items())
    def test_a_training_stands_beside_its_numbers_and_its_test(self, name: str, row: Training) -> None:
        test = f"{name}_test" if f"{name}_test" in PLAIN_TESTS else f"{name}_tta"
        line = f"| {row.numbers.replace(' ', ' | ')} | {name} | {test} |"
        assert line in self.TEXT

    @of_each(sorted(set(ADAPTATIONS) - set(PHOTOGRAPHS)))
    def test_an_adaptation_stands_beside_its_numbers(self, name: str) -> None:
        training, numbers = ADAPTATIONS[name]
        for steps, found in {**STEPS.get(name, {}), 5: numbers}.items():
            line = f"| {steps} | {(found or '- - - -').replace(' ', ' | ')} | {training} | {name} |"
            assert line in self.TEXT


def test_a_number_of_iterations_from_the_command_line_goes_before_the_epochs() -> None:
    found = override(options("gopro_srn_n2"), ["train:total_iter=10000"])
    assert checks.problems(found, is_train=True) == []
    assert in_iterations(found, 2103, 1)["train"]["total_iter"] == 10_000
