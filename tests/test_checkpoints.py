"""Checkpoints: written whole or not at all, read without running anything, and refused with a reason."""

from __future__ import annotations

import errno
import io
import os
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import reblur_plugin
from reblur_plugin import checkpoints
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet
from reblur_plugin.checkpoints import CheckpointError, load, load_weights, origin, save, state_dict
from reblur_plugin.files import FileError
from reblur_plugin.host import build_model


class Payload:
    """Unpickled by Python itself it makes a folder."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.target),)


def weights(value: float = 1.0) -> dict[str, Tensor]:
    """Return weights that fit `nn.Linear(2, 3)`."""
    return {"weight": torch.full((3, 2), value), "bias": torch.full((3,), value)}


def stored(content: object, zipped: bool = True) -> bytes:
    file = io.BytesIO()
    torch.save(content, file, _use_new_zipfile_serialization=zipped)
    return file.getvalue()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "net.pth"


@pytest.fixture
def network() -> nn.Linear:
    return nn.Linear(2, 3)


class TestSave:
    def test_torch_reads_what_was_written(self, tmp_path: Path) -> None:
        content = {"params": weights(), "iter": 7, "betas": (0.9, 0.999), "name": "a"}
        save(content, tmp_path / "deep" / "folder" / "net.pth")
        found = torch.load(tmp_path / "deep" / "folder" / "net.pth", weights_only=True)
        assert found.keys() == content.keys()
        assert found["betas"] == (0.9, 0.999)
        assert torch.equal(found["params"]["weight"], torch.ones(3, 2))

    def test_an_older_file_is_replaced_and_nothing_else_is_left(self, path: Path) -> None:
        for number in (1, 2):
            save({"iter": number}, path)
        assert torch.load(path, weights_only=True) == {"iter": 2}
        assert [file.name for file in path.parent.iterdir()] == [path.name]

    @pytest.mark.parametrize(
        "error",
        [
            OSError(errno.ENOSPC, "No space left on device"),
            RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 64 vs 0"),  # torch's disk full
        ],
        ids=["OSError", "RuntimeError"],
    )
    def test_a_full_disk_leaves_the_older_file_and_no_part(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
    ) -> None:
        def full(content: object, file: io.BufferedWriter) -> None:
            file.write(b"half of it")
            raise error

        save({"iter": 1}, path)
        monkeypatch.setattr(torch, "save", full)
        with pytest.raises(FileError, match=rf"{path}: can't be written \(.*(No space|enforce fail).*\); free"):
            save({"iter": 2}, path)
        assert [file.name for file in path.parent.iterdir()] == [path.name]
        assert torch.load(path, weights_only=True) == {"iter": 1}

    @pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, MemoryError])
    def test_a_process_ended_midway_leaves_the_older_file_and_no_other_of_its_kind(
        self, path: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
    ) -> None:
        def killed(content: object, file: io.BufferedWriter) -> None:
            file.write(b"half of it")
            raise error

        save({"iter": 1}, path)
        monkeypatch.setattr(torch, "save", killed)
        for target in (path, path.with_name("new.pth")):
            with pytest.raises(error):
                save({"iter": 2}, target)
        assert [file.name for file in path.parent.glob("*.pth")] == [path.name]
        assert torch.load(path, weights_only=True) == {"iter": 1}

    def test_a_file_gets_its_name_only_when_the_disk_has_it(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        synced = []
        fsync = os.fsync

        def recorded(number: int) -> None:
            synced.append((path.exists(), os.fstat(number).st_size))
            fsync(number)

        monkeypatch.setattr(os, "fsync", recorded)
        save({"params": weights()}, path)
        assert synced == [(False, path.stat().st_size)]

    def test_a_folder_of_that_name_is_named_and_no_part_left(self, path: Path) -> None:
        path.mkdir()
        with pytest.raises(FileError, match=rf"{path}: can't be written \("):
            save({}, path)
        assert list(path.parent.iterdir()) == [path]

    def test_a_file_in_the_folders_place_is_named(self, path: Path) -> None:
        path.write_text("a file")
        with pytest.raises(FileError, match=rf"{path}/net\.pth: can't be written \("):
            save({}, path / "net.pth")


class TestLoad:
    def test_everything_comes_to_the_cpu_as_it_was(self, path: Path) -> None:
        torch.save({"params": weights(2), "iter": 3, "lrs": [1e-4], "rng": torch.get_rng_state()}, path)
        content = load(str(path))
        assert content["iter"] == 3
        assert content["lrs"] == [1e-4]
        assert content["params"]["bias"].device.type == "cpu"
        assert torch.equal(content["params"]["bias"], torch.full((3,), 2.0))

    def test_the_home_folder_is_understood(self, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("HOME", str(path.parent))
        torch.save({"iter": 1}, path)
        assert load("~/net.pth") == {"iter": 1}

    def test_a_missing_file_and_a_folder_are_named(self, path: Path) -> None:
        for wrong in (path, path.parent):
            with pytest.raises(CheckpointError, match=rf"^{wrong}: no such checkpoint; check the path$"):
                load(wrong)

    @pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
    def test_a_file_that_would_run_code_is_named_and_nothing_runs(self, path: Path, kind: str) -> None:
        content = {"params": weights(), "extra": Payload(path.parent / "made")}
        path.write_bytes(pickle.dumps(content, protocol=2) if kind == "pickle" else stored(content, kind == "zip"))
        with pytest.raises(
            CheckpointError,
            match=rf"^{path}: expected tensors and plain values only, got a file that holds other objects or none; "
            "only weights are loaded, since anything else could run code$",
        ):
            load(path)
        assert list(path.parent.iterdir()) == [path]
        pickle.loads(pickle.dumps(Payload(path.parent / "made")))  # noqa: S301 - the payload does work
        assert (path.parent / "made").is_dir()

    def test_a_whole_network_is_no_checkpoint(self, path: Path, network: nn.Linear) -> None:
        torch.save(network, path)
        with pytest.raises(CheckpointError, match=rf"^{path}: expected tensors and plain values only"):
            load(path)

    @pytest.mark.parametrize("zipped", [True, False], ids=["zip", "legacy"])
    def test_a_file_cut_short_anywhere_is_named(self, path: Path, zipped: bool) -> None:
        content = stored({"params": weights(), "iter": 3}, zipped)
        steps = 40
        for length in range(0, len(content) - 1, len(content) // steps):
            path.write_bytes(content[:length])
            with pytest.raises(
                CheckpointError,
                match=rf"^{path}: (damaged or no checkpoint of PyTorch; copy or download it again|expected tensors )",
            ):
                load(path)

    @pytest.mark.parametrize(
        "content", [b"<html>404 Not Found</html>", b"version https://git-lfs", b"\x89PNG\r\n", b""]
    )
    def test_a_file_of_another_kind_is_named(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=rf"^{path}: (damaged or no checkpoint|expected tensors and plain)"):
            load(path)

    @pytest.mark.parametrize("content", [torch.ones(2), [1, 2], 5])
    def test_what_is_no_dictionary_is_named_with_its_kind(self, path: Path, content: object) -> None:
        torch.save(content, path)
        with pytest.raises(
            CheckpointError, match=rf"^{path}: expected a dictionary of weights, got {type(content).__name__}$"
        ):
            load(path)


class TestNumpysNumbers:
    """Metrics are often stored as NumPy's numbers, beside the weights."""

    @pytest.mark.parametrize("number", [np.float64(31.2), np.float32(0.5), np.int64(3), np.bool_(True)], ids=type)
    def test_are_read(self, path: Path, number: Any) -> None:
        torch.save({"params": weights(), "best": number}, path)
        assert load(path)["best"] == number

    def test_are_read_as_numpy_before_version_2_wrote_them(self, path: Path) -> None:
        torch.save({"params": weights(), "best": np.float64(31.2)}, path, _use_new_zipfile_serialization=False)
        path.write_bytes(path.read_bytes().replace(b"numpy._core.multiarray", b"numpy.core.multiarray"))
        assert load(path)["best"] == 31.2

    @pytest.mark.parametrize(
        "value", [np.zeros(1, [("a", "O")])[0], np.zeros(1, "V8")[0], np.array([object], "O"), np.ones(2)]
    )
    def test_of_other_kinds_are_refused(self, path: Path, value: Any) -> None:
        # a number of fields may hold what is taken for an object's address
        torch.save({"params": weights(), "best": value}, path)
        with pytest.raises(CheckpointError, match=rf"^{path}: expected tensors and plain values only"):
            load(path)


class TestStateDict:
    @pytest.mark.parametrize(
        ("content", "key", "value"),
        [
            ({"params": weights(1)}, None, 1),
            ({"params": weights(1), "params_ema": weights(2)}, None, 2),
            ({"params": weights(1), "params_ema": weights(2)}, "params", 1),
            ({"params": weights(1), "params_ema": weights(2)}, "params_ema", 2),
            (weights(3), None, 3),
            ({"params": weights(4), "iter": 3}, None, 4),
            ({"state_dict": {"params": weights(5)}}, "state_dict", 5),
        ],
        ids=["params", "ema first", "params asked", "ema asked", "bare", "beside others", "nested"],
    )
    def test_the_weights_of_one_network_are_found(
        self, path: Path, content: dict[str, Any], key: str | None, value: float
    ) -> None:
        torch.save(content, path)
        found = state_dict(path, key)
        assert found.keys() == {"weight", "bias"}
        assert all(torch.equal(found[name], tensor) for name, tensor in weights(value).items())

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            ({"params": weights(), "iter": 3}, "params"),
            ({"params": weights(), "other": weights()}, "params, other"),
            (weights(), "bare weights"),
        ],
    )
    def test_an_entry_that_is_not_there_is_named_with_those_that_are(
        self, path: Path, content: dict[str, Any], found: str
    ) -> None:
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=rf"^{path}: expected the entry 'params_ema', found {found}$"):
            state_dict(path, "params_ema")

    @pytest.mark.parametrize(
        ("content", "found"),
        [
            ({"optimizers": {"a": 1}, "schedulers": {}, "iter": 3}, "optimizers, schedulers"),
            (
                {"netG": weights(), "netD": weights()},
                "netG, netD; name its entry by param_key_g or param_key_r under path, such as netG",
            ),
            ({"params": {}}, "params"),
            ({"params": {"a": 1}}, "params"),
            ({}, "none"),
            ({"iter": 3}, "none"),
        ],
    )
    def test_a_file_without_weights_is_named_with_its_entries(
        self, path: Path, content: dict[str, Any], found: str
    ) -> None:
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=rf"^{path}: expected the weights of one network, found {found}$"):
            state_dict(path)

    @pytest.mark.parametrize("content", [{"params": 3}, {"params": torch.ones(2)}, {"params": {1: torch.ones(1)}}])
    def test_an_entry_that_holds_no_weights_is_named(self, path: Path, content: dict[str, Any]) -> None:
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=rf"^{path}: expected the weights of one network"):
            state_dict(path, "params")


class TestLoadWeights:
    def test_all_weights_are_taken(self, path: Path, network: nn.Linear) -> None:
        torch.save({"params": weights(2)}, path)
        load_weights(network, path)
        assert torch.equal(network.weight, torch.full((3, 2), 2.0))
        assert torch.equal(network.bias, torch.full((3,), 2.0))

    # each case: what is taken away, added or changed; what is said between the network and the remedy
    @pytest.mark.parametrize(
        ("changes", "problem"),
        [
            ({"bias": None}, "1 missing (such as bias)"),
            ({"gain": torch.ones(1), "extra": torch.ones(1)}, "2 unknown (such as extra)"),
            (
                {"weight": torch.ones(4, 2)},
                "1 of other shape (such as weight: (3, 2) in the network, (4, 2) in the file)",
            ),
            (
                {"weight": torch.ones(4, 2), "bias": None, "extra": torch.ones(1)},
                "1 of other shape (such as weight: (3, 2) in the network, (4, 2) in the file), "
                "1 missing (such as bias), 1 unknown (such as extra)",
            ),
        ],
        ids=["missing", "unknown", "shape", "all"],
    )
    def test_what_does_not_fit_is_named(
        self, path: Path, network: nn.Linear, changes: dict[str, Tensor | None], problem: str
    ) -> None:
        torch.save({name: value for name, value in (weights() | changes).items() if value is not None}, path)
        before = network.weight.detach().clone()
        message = f"{path}: doesn't fit Linear with 2 tensors: {problem}; check the network's type and options"
        with pytest.raises(CheckpointError, match=f"^{re.escape(message)}$"):
            load_weights(network, path)
        assert torch.equal(network.weight, before)

    @pytest.mark.parametrize("prefix", ["module.", "_orig_mod.", "net_g.", "module._orig_mod.", "model.net_g."])
    def test_prefixes_of_wrappers_are_taken_off(self, path: Path, network: nn.Linear, prefix: str) -> None:
        torch.save({"state_dict": {f"{prefix}{name}": value for name, value in weights(2).items()}}, path)
        load_weights(network, path)
        assert torch.equal(network.weight, torch.full((3, 2), 2.0))

    @pytest.mark.parametrize("wrapped", [False, True])
    def test_a_networks_own_names_may_begin_so(self, path: Path, wrapped: bool) -> None:
        network = nn.Module()
        network.add_module("module", nn.Linear(2, 3))
        prefix = "module.module." if wrapped else "module."
        torch.save({"params": {f"{prefix}{name}": value for name, value in weights(2).items()}}, path)
        load_weights(network, path)
        assert torch.equal(network.module.weight, torch.full((3, 2), 2.0))

    def test_a_prefix_that_some_names_lack_stays(self, path: Path, network: nn.Linear) -> None:
        torch.save({"module.weight": torch.ones(3, 2), "bias": torch.ones(3)}, path)
        with pytest.raises(CheckpointError, match=r"1 missing \(such as weight\), 1 unknown"):
            load_weights(network, path)

    def test_without_strictness_what_fits_is_taken(self, path: Path, network: nn.Linear) -> None:
        bias = network.bias.detach().clone()
        torch.save({"weight": torch.full((3, 2), 5.0), "extra": torch.ones(1)}, path)
        load_weights(network, path, strict=False)
        assert torch.equal(network.weight, torch.full((3, 2), 5.0))
        assert torch.equal(network.bias, bias)

    def test_without_strictness_other_shapes_are_still_refused(self, path: Path, network: nn.Linear) -> None:
        torch.save({"weight": torch.ones(4, 2)}, path)
        with pytest.raises(CheckpointError, match=r"Linear with 2 tensors: 1 of other shape \(such as weight: [^)]*\)"):
            load_weights(network, path, strict=False)

    def test_without_strictness_weights_of_another_network_are_still_refused(
        self, path: Path, network: nn.Linear
    ) -> None:
        torch.save({"conv.weight": torch.ones(1)}, path)
        with pytest.raises(CheckpointError, match=rf"^{path}: doesn't fit Linear"):
            load_weights(network, path, strict=False)


class TestOrigin:
    def test_it_tells_of_options_versions_seed_data_and_iteration(self) -> None:
        resolved = {"name": "a", "train": {"lr": 1e-4, "list": (1, None)}}
        data = {"data_fingerprint": "abc", "blur_kind": "blur"}
        found = origin({"manual_seed": 3, **data, "rank": 0, "resolved": resolved}, 7)
        assert found["options"] == {"name": "a", "train": {"lr": 1e-4, "list": [1, None]}}
        assert (found["seed"], found["data"], found["blur_kind"], found["iteration"]) == (3, "abc", "blur", 7)
        assert found["versions"] == {"reblur_plugin": reblur_plugin.__version__, "torch": torch.__version__}

    def test_of_unresolved_options_it_tells_those_that_matter_elsewhere(self) -> None:
        opt = {"name": "a", "network_g": {"type": "SRN"}, "val": {"tta": None}, "path": {"models": "/m"}, "rank": 0}
        assert origin(opt, 7)["options"] == {"name": "a", "network_g": {"type": "SRN"}, "val": {"tta": None}}

    def test_it_loads_without_running_code(self, path: Path) -> None:
        # paths, dtypes, sets and PyTorch's own version aren't plain values
        save({"origin": origin({"resolved": {"root": Path("a/b"), "dtype": torch.bfloat16, 1: {2}}}, 1)}, path)
        assert load(path)["origin"]["options"] == {"root": "a/b", "dtype": "torch.bfloat16", "1": "{2}"}


class TestNetwork:
    """`network` builds what a checkpoint tells of; the refusals are in tests/metrics/test_reblurability_metric.py."""

    BLOCK: ClassVar = {"type": "ReblurNet", "num_blocks": 1, "num_feat": 4}

    @pytest.fixture(autouse=True)
    def registered(self) -> None:
        reblur_plugin.register()

    def test_a_checkpoint_of_basicsrs_own_pipeline_tells_its_networks(self, tmp_path: Path) -> None:
        # its options are never resolved: they reach the model as BasicSR has read and filled them
        descent = {"type": "SGD", "lr": 0.1}
        opt: dict[str, Any] = {
            "name": "a",
            "model_type": "ReblurModel",
            "is_train": True,
            "dist": False,
            "rank": 0,
            "num_gpu": 0,
            "network_g": {"type": "ResUNet", "num_blocks": 1, "num_feats": [4, 4, 4]},
            "network_r": self.BLOCK,
            "path": {"models": str(tmp_path), "training_states": str(tmp_path)},
            "train": {
                "optim_g": descent,
                "optim_r": descent,
                "scheduler": {"milestones": [9]},
                "pixel_opt": {"type": "MultiScaleL1Loss"},
                "reblur_opt": {},
            },
        }
        model = build_model(opt)
        model.save(0, 3)
        for label, own in (("g", model.net_g), ("r", model.net_r)):
            network = checkpoints.network(tmp_path / f"net_{label}_3.pth", label)
            assert (type(network), network.training) == (type(own), False)
            image = torch.rand(1, 3, 16, 16)
            assert torch.equal(network(image), own.eval()(image))
        found = checkpoints.options(tmp_path / "net_g_3.pth")
        assert found.keys() == {"name", "model_type", "network_g", "network_r", "train"}
        assert "path" not in found  # whose folders are nobody else's business

    @pytest.mark.parametrize("option", ["load_path", "spynet_path"])
    def test_a_stranger_s_file_makes_no_network_read_another_one(self, path: Path, option: str) -> None:
        block = {"type": "SpyNet", option: "/etc/hostname"}
        checkpoints.save({"params": {"a": torch.zeros(1)}, "origin": {"options": {"network_g": block}}}, path)
        message = f"expected a network that reads no other file, got SpyNet with {option}: /etc/hostname; if you trust"
        with pytest.raises(CheckpointError, match=message):
            checkpoints.network(path, "g")
        with pytest.raises(CheckpointError, match="SpyNet can't take the options in it"):  # one's own word counts
            checkpoints.network(path, "g", block)

    def test_averaged_weights_go_before_raw_ones(self, path: Path) -> None:
        networks = {"params": ReblurNet(1, 4), "params_ema": ReblurNet(1, 4)}
        checkpoints.save_network(networks, {"options": {"network_r": self.BLOCK}}, path)
        averaged = networks["params_ema"].state_dict()
        assert all(
            torch.equal(averaged[name], value) for name, value in checkpoints.network(path, "r").state_dict().items()
        )

    def test_a_data_parallel_wrapper_is_taken_off(self, path: Path) -> None:
        checkpoints.save_network({"params": nn.DataParallel(ReblurNet(1, 4))}, {}, path)
        assert checkpoints.load(path)["params"].keys() == ReblurNet(1, 4).state_dict().keys()


class TestPublicLoad:
    """`reblur_plugin.load`: M_D and M_R of a training, for anybody's own code."""

    BLOCKS: ClassVar = {
        "network_g": {"type": "ResUNet", "num_blocks": 1, "num_feats": [4, 4, 4]},
        "network_r": {"type": "ReblurNet", "num_blocks": 1, "num_feat": 4},
    }

    @pytest.fixture
    def folder(self, tmp_path: Path) -> Path:
        for label, network in (("g", ResUNet(1, (4, 4, 4))), ("r", ReblurNet(1, 4))):
            checkpoints.save_network(
                {"params": network}, {"options": self.BLOCKS}, tmp_path / f"net_{label}_latest.pth"
            )
        return tmp_path

    def test_gives_both_networks_in_eval_mode(self, folder: Path) -> None:
        deblur_net, reblur_net = reblur_plugin.load(folder / "net_g_latest.pth")
        assert [type(network) for network in (deblur_net, reblur_net)] == [ResUNet, ReblurNet]
        assert not deblur_net.training
        assert not reblur_net.training
        assert reblur_plugin.adapt(deblur_net, reblur_net, torch.rand(1, 3, 16, 16), steps=1).fallback is None

    def test_m_r_may_be_another_file(self, folder: Path) -> None:
        other = ReblurNet(1, 4)
        checkpoints.save_network({"params": other}, {"options": self.BLOCKS}, folder / "mine.pth")
        found = reblur_plugin.load(str(folder / "net_g_latest.pth"), str(folder / "mine.pth")).reblur_net
        assert all(torch.equal(*pair) for pair in zip(found.parameters(), other.parameters(), strict=True))

    def test_without_m_r_there_is_none(self, path: Path) -> None:
        origin = {"options": {"network_g": self.BLOCKS["network_g"]}}
        checkpoints.save_network({"params": ResUNet(1, (4, 4, 4))}, origin, path)
        assert reblur_plugin.load(path).reblur_net is None

    def test_an_m_r_that_is_missing_is_named(self, folder: Path) -> None:
        (folder / "net_r_latest.pth").unlink()
        with pytest.raises(CheckpointError, match=r"net_r_latest\.pth: no such checkpoint; check the path$"):
            reblur_plugin.load(folder / "net_g_latest.pth")

    def test_a_name_that_does_not_lead_to_m_r_is_refused(self, folder: Path) -> None:
        (folder / "net_g_latest.pth").rename(folder / "mine.pth")
        with pytest.raises(
            CheckpointError, match=r"mine\.pth: expected net_g_\*\.pth, whose M_R has the same ending; give"
        ):
            reblur_plugin.load(folder / "mine.pth")
        assert reblur_plugin.load(folder / "mine.pth", folder / "net_r_latest.pth").reblur_net is not None

    def test_registers_by_itself(self, folder: Path) -> None:
        code = "import sys, reblur_plugin; print(type(reblur_plugin.load(sys.argv[1]).deblur_net).__name__)"
        command = [sys.executable, "-W", "ignore", "-c", code, str(folder / "net_g_latest.pth")]
        assert subprocess.run(command, capture_output=True, text=True, check=True).stdout == "ResUNet\n"


def test_files_are_read_by_torchs_safe_unpickler_only(monkeypatch: pytest.MonkeyPatch, path: Path) -> None:
    # PyTorch before 2.6 takes any pickle where it isn't told otherwise
    asked: list[dict[str, Any]] = []
    genuine = torch.load

    def recorded(*arguments: Any, **options: Any) -> Any:
        asked.append(options)
        return genuine(*arguments, **options)

    torch.save({"iter": 1}, path)
    monkeypatch.setattr(checkpoints.torch, "load", recorded)
    load(path)
    assert [options["weights_only"] for options in asked] == [True]
