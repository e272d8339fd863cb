"""The official DMPHN(1-2-4-8) weights through scripts/convert_dmphn.py, against the authors' own output images."""

from __future__ import annotations

import math
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import reblur_plugin
from reblur_plugin import checkpoints
from reblur_plugin.archs.dmphn_arch import DHN, DMPHN
from reblur_plugin.data.images import read_image, to_tensor


@pytest.fixture(scope="module")
def converted(shared: Path, root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("weights") / "dmphn.pth"
    command = [sys.executable, "scripts/convert_dmphn.py", str(shared / "weights" / "dmphn_1_2_4_8"), str(out)]
    subprocess.run(command, cwd=root, check=True, capture_output=True)
    return out


# The published images agree up to these figures (D18); DHN's layout in DMPHN's place gives 49 to 50.2 dB.
@pytest.mark.parametrize(("frame", "decibel"), [("000001", 56), ("000002", 54), ("000003", 56)])
def test_dmphn_gives_the_authors_images(shared: Path, converted: Path, frame: str, decibel: float) -> None:
    network = DMPHN().eval()
    checkpoints.load_weights(network, converted)
    folder = shared / "data" / "dmphn_oracle"
    with torch.no_grad():
        output = network(to_tensor(read_image(folder / "blur" / f"{frame}.png"))[None])
    cut = (output.clamp(0, 1) * 255).to(torch.uint8)[0].permute(1, 2, 0).numpy().astype(int)
    official = np.round(read_image(folder / "official_output" / f"{frame}.png") * 255).astype(int)
    assert 10 * math.log10(255**2 / ((cut - official) ** 2).mean()) >= decibel


def test_one_file_serves_both_networks(converted: Path) -> None:
    assert checkpoints.load(converted).keys() == {"params", "origin"}
    for network in (DHN(), DMPHN()):
        checkpoints.load_weights(network, converted)
        assert network.state_dict()["decoder_lv3.layer16.weight"].shape == (128, 64, 4, 4)


@pytest.fixture
def official(tmp_path: Path) -> Path:
    """A folder of the eight files as published, with other weights."""
    folder = tmp_path / "official"
    folder.mkdir()
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, value in DMPHN().state_dict().items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    for part, weights in parts.items():
        torch.save(weights, folder / f"{part}.pkl")
    return folder


@pytest.fixture
def convert(root: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """Run the script in this process and return its exit code."""

    def run(*words: object) -> object:
        monkeypatch.setattr(sys, "argv", ["convert_dmphn.py", *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            runpy.run_path(str(root / "scripts" / "convert_dmphn.py"), run_name="__main__")
        return ended.value.code

    return run


def test_the_file_tells_its_network(official: Path, tmp_path: Path, convert: Callable[..., object]) -> None:
    published = torch.load(official / "encoder_lv2.pkl", weights_only=True)
    for arguments, kind in (([], DMPHN), (["--network", "DMPHN"], DMPHN), (["--network", "DHN"], DHN)):
        assert convert(official, tmp_path / "dmphn.pth", *arguments) == 0
        deblur_net, reblur_net = reblur_plugin.load(tmp_path / "dmphn.pth")
        assert type(deblur_net) is kind
        assert reblur_net is None
        assert all(torch.equal(deblur_net.encoder_lv2.state_dict()[name], value) for name, value in published.items())


def test_files_that_do_not_fit_are_one_sentence(
    official: Path, tmp_path: Path, convert: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    torch.save({"weight": torch.ones(1)}, official / "decoder_lv4.pkl")
    assert convert(official, tmp_path / "out.pth") == 1
    assert capsys.readouterr().err.startswith(f"error: {official}/decoder_lv4.pkl: doesn't fit ")
    assert not (tmp_path / "out.pth").exists()


def test_a_folder_without_the_checkpoints_is_one_sentence_and_no_file(
    tmp_path: Path, convert: Callable[..., object], capsys: pytest.CaptureFixture[str]
) -> None:
    assert convert(tmp_path, tmp_path / "out.pth") == 1
    assert capsys.readouterr().err == f"error: {tmp_path / 'encoder_lv1.pkl'}: no such checkpoint; check the path\n"
    assert list(tmp_path.iterdir()) == []
