"""What can be wrong with option files, data and checkpoints: one sentence each, exit code 1, and nothing is touched."""

from __future__ import annotations

import os
import pickle
import re
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import yaml

from reblur_plugin import check, cli, test, train
from reblur_plugin.archs.reblur_arch import ReblurNet
from reblur_plugin.archs.resunet_arch import ResUNet

Options = dict[str, Any]
Spoil = Callable[[Path, Options], object]
PROGRAMS = {"train": train.main, "test": test.main, "check": check.main}
IMAGE = "data/train/SEQ_A/blur_gamma/000000.png"
SHOWN = "data/test/SEQ_A/blur_gamma/000000.png"
DAMAGED = "expected an image, got a damaged or unknown file; unzip or download it again"
FOREIGN = "expected tensors and plain values only, got a file that holds other objects or none"


@dataclass(frozen=True)
class Case:
    """What is wrong, and what is said: `message` with "..." for what may differ and {} for the folder."""

    message: str
    force: tuple[str, ...] = ()  # --force_yml
    text: str | bytes | None = None  # the whole option file
    spoil: Spoil | None = None  # changes files and options
    arguments: tuple[str, ...] = ()
    programs: tuple[str, ...] = ("train",)


def forced(entry: str, message: str) -> Case:
    return Case(message, force=(entry,))


def both(case: Case) -> Case:
    return Case(case.message, case.force, case.text, case.spoil, case.arguments, ("train", "test"))


def said(text: str | bytes, message: str) -> Case:
    return Case(message, text=text, programs=("train", "test"))


def spoilt(spoil: Spoil, message: str) -> Case:
    return Case(message, spoil=spoil)


def changed(message: str, change: Callable[[Options], object]) -> Case:
    return Case(message, spoil=lambda _, options: change(options))


# ---- ways to spoil files ---------------------------------------------------------------------------------------------


def removed(path: str) -> Spoil:
    return lambda folder, _: shutil.rmtree(folder / path) if (folder / path).is_dir() else (folder / path).unlink()


def holding(path: str, content: bytes) -> Spoil:
    return lambda folder, _: (folder / path).write_bytes(content)


def cut_short(path: str) -> Spoil:
    def spoil(folder: Path, _: Options) -> None:
        content = (folder / path).read_bytes()
        (folder / path).write_bytes(content[: len(content) // 2])

    return spoil


def picture(path: str, height: int, width: int) -> Spoil:
    return lambda folder, _: cv2.imwrite(str(folder / path), np.zeros((height, width, 3), np.uint8))


def emptied(path: str) -> Spoil:
    def spoil(folder: Path, _: Options) -> None:
        shutil.rmtree(folder / path)
        (folder / path).mkdir()

    return spoil


def file_in_place_of(path: str) -> Spoil:
    def spoil(folder: Path, _: Options) -> None:
        shutil.rmtree(folder / path)
        (folder / path).write_text("x")

    return spoil


def linked_to_itself(path: str) -> Spoil:
    def spoil(folder: Path, _: Options) -> None:
        (folder / path).unlink()
        (folder / path).symlink_to(folder / path)

    return spoil


def folder_in_place_of(path: str) -> Spoil:
    def spoil(folder: Path, _: Options) -> None:
        (folder / path).unlink()
        (folder / path).mkdir()

    return spoil


def copied(path: str, to: str) -> Spoil:
    return lambda folder, _: shutil.copy(folder / path, folder / to)


def float_picture(folder: Path, _: Options) -> None:
    (folder / IMAGE).unlink()
    cv2.imwrite(str((folder / IMAGE).with_suffix(".tif")), np.zeros((32, 40, 3), np.float32))


def two_folders(folder: Path, options: Options) -> None:
    roots = {f"dataroot_{label}": str(folder / "data/train" / name) for label, name in (("lq", "SEQ_A"), ("gt", "x"))}
    (folder / "data/train/x").mkdir()
    copied(IMAGE, "data/train/x/1.png")(folder, options)
    options["datasets"]["train"] |= {"layout": "folders", **roots}


def saved(content: object) -> Spoil:
    return lambda folder, _: torch.save(content, folder / "g.pth")


class Payload:
    """Makes a folder when it is unpickled without care."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, ("made",)


def pickled(folder: Path, _: Options) -> None:
    (folder / "g.pth").write_bytes(pickle.dumps({"params": Payload()}))


def other_checkpoint(folder: Path, options: Options) -> None:
    options["path"]["pretrain_network_g"] = str(folder / "r.pth")


def without_strictness(folder: Path, options: Options) -> None:
    torch.save({"params": {"x": torch.ones(1)}}, folder / "g.pth")
    options["path"]["strict_load_g"] = False


def resumed(content: dict[str, Any] | bytes) -> Spoil:
    def spoil(folder: Path, options: Options) -> None:
        state = folder / "training_states" / "2.state"
        state.parent.mkdir()
        if isinstance(content, bytes):
            state.write_bytes(content)
        else:
            torch.save(content, state)
        options["path"]["resume_state"] = str(state)

    return spoil


def without_reblurring(options: Options) -> None:
    del options["network_r"], options["train"]["reblur_opt"]


def adapting_without_m_r(options: Options) -> None:
    without_reblurring(options)
    options["val"]["tta"] = {"steps": 1, "lr": 1e-5}


def reblurring_without_m_r(options: Options) -> None:
    without_reblurring(options)
    options["val"]["reblurred"] = True


def frozen_without_weights(options: Options) -> None:
    options["path"].clear()
    options["train"]["freeze_deblur_net"] = True


def without_loss(options: Options) -> None:
    without_reblurring(options)
    del options["train"]["pixel_opt"]


def l1_as_adversary(options: Options) -> None:
    options["network_d"] = {"type": "ReblurDiscriminator"}
    options["train"] |= {"gan_opt": {"type": "L1Loss"}, "optim_d": {"lr": 1e-4}}


def enlarging(options: Options) -> None:
    options["path"].clear()
    options["network_g"] = {"type": "SRVGGNetCompact", "upscale": 4}


def named_like_a_phase(options: Options) -> None:
    del options["datasets"]["val"]["name"]
    options["datasets"]["test"] = {**options["datasets"]["val"], "name": "val"}


SEQUENCES = "expected the sequences of GOPRO_Large (SEQUENCE/blur_gamma, SEQUENCE/sharp)"

CASES = {
    # YAML
    "tab": said("name: x\n\tb: 1\n", "{}/o.yml, line 2: expected plain YAML, but found character '\\t' that cannot..."),
    "empty file": said("", "{}/o.yml: expected keys and values, got NoneType; see options/ for examples"),
    "list": said("- a\n", "{}/o.yml: expected keys and values, got list; see options/ for examples"),
    "key twice": said("name: x\nname: y\n", "{}/o.yml, line 2: expected plain YAML, but the key 'name' stands twice"),
    "latin-1": said(
        "name: é".encode("latin-1"), "{}/o.yml: expected an option file in UTF-8, got another encoding at..."
    ),
    "utf-16": said("- a".encode("utf-16"), "{}/o.yml: expected keys and values, got list; see options/ for examples"),
    "control character": said("a: \x01\n", "{}/o.yml: expected plain YAML, but unacceptable character #x0001..."),
    "open quote": said("name: 'x\n", "{}/o.yml, line 2: expected plain YAML, but found unexpected end of stream"),
    "two colons": said("name: a: b\n", "{}/o.yml, line 1: expected plain YAML, but mapping values are not allowed..."),
    "two documents": said("a: 1\n---\nb: 2\n", "{}/o.yml, line 2: expected plain YAML, but found another document"),
    "list as key": said("? [a]\n: b\n", "{}/o.yml, line 1: expected plain YAML, but a key must be a word"),
    "block in itself": said("a: &a\n  b: *a\n", "{}/o.yml: expected plain YAML, but blocks are nested deeper than 40"),
    "deep": said("a: " + 50 * "[" + 50 * "]", "{}/o.yml: expected plain YAML, but blocks are nested deeper than 40"),
    "alias bomb": said(
        "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [{', '.join(9 * [f'*a{n - 1}'])}]\n" for n in range(1, 30)),
        "{}/o.yml: expected plain YAML, but its aliases (*) stand for more than 100,000 values",
    ),
    "unknown alias": said("a: *b\n", "{}/o.yml, line 1: expected plain YAML, but found undefined alias 'b'"),
    "too deep": said("[" * 3000, "{}/o.yml: expected plain YAML, but maximum recursion depth exceeded..."),
    "object": said("a: !!python/object/apply:os.mkdir [made]\n", "{}/o.yml, line 1: expected plain YAML, but could..."),
    "new object": said(
        "a: !!python/object/new:os.mkdir [made]\n", "{}/o.yml, line 1: expected plain YAML, but could..."
    ),
    "missing base": said("_base_: none.yml\n", "{}/none.yml: expected an option file, but it can't be read ([Errno..."),
    "own base": said("_base_: o.yml\n", "{}/o.yml: _base_ leads back to this file; remove one link of the circle"),
    "base is a number": said("_base_: [3]\n", "{}/o.yml: _base_: expected a file's name or a list of them, got [3]"),
    # --force_yml and --import
    "no value": both(forced("name", "--force_yml name: expected block:key=value, e.g. train:total_iter=1000")),
    "no key": both(forced("=3", "--force_yml =3: expected block:key=value, e.g. train:total_iter=1000")),
    "through a value": both(forced("name:x=3", "--force_yml name:x=3: name is a value, not a block")),
    "open list": both(
        forced("name=[1", "--force_yml name=[1, line 1: expected plain YAML, but expected ',' or ']'...")
    ),
    "exec in a key": both(forced("os.mkdir('made')=1", "os.mkdir('made'): unknown key; expected one of datasets, ...")),
    "eval in a value": both(
        forced(
            'name=[__import__("os").mkdir("made")]',
            'name: expected letters, digits, _ . + -, got [\'__import__("os").mkdir("made")\']',
        )
    ),
    "object in a value": both(
        forced(
            "name=!!python/object/apply:os.mkdir [made]",
            "--force_yml name=!!python/object/apply:os.mkdir [made], line 1: expected plain YAML, but could not ...",
        )
    ),
    "missing module": both(
        Case(
            "--import no_such_module: no module named 'no_such_module'; start in your project's folder or install it",
            arguments=("--import", "no_such_module"),
        )
    ),
    "missing module beside a bad name": both(
        Case(
            "name: expected letters, digits, _ . + -, got 3; --import no_such_module: no module named "
            "'no_such_module'; start in your project's folder or install it",
            arguments=("--force_yml", "name=3", "--import", "no_such_module"),
        )
    ),
    # names, keys, types and values
    "name with a slash": both(forced("name=a/b", "name: expected letters, digits, _ . + -, got 'a/b'")),
    "name that leads out": both(forced("name=..", "name: expected letters, digits, _ . + -, got '..'")),
    "name is a number": both(forced("name=3", "name: expected letters, digits, _ . + -, got 3")),
    "unknown section": both(forced("trian={}", "trian: unknown key; did you mean train?")),
    "unknown phase": both(
        forced("datasets:valid={type: DeblurPairDataset}", "datasets: valid: unknown key; did you ...")
    ),
    "pretrained": both(
        forced(
            "path:pretrained_network_g=x.pth",
            "path: pretrained_network_g: unknown key; did you mean pretrain_network_g or pretrain_network_r?",
        )
    ),
    "unknown train key": forced("train:totl_iter=5", "train: totl_iter: unknown key; did you mean total_iter or ..."),
    "unknown data key": forced(
        "datasets:train:use_hflip=true", "datasets: train: use_hflip: unknown key; expected ..."
    ),
    "set name with a slash": both(
        forced("datasets:val:name=a/b", "datasets: val: name: expected letters, digits, _ . + -, got 'a/b'")
    ),
    "suffix with a slash": both(forced("val:suffix=a/b", "val: suffix: expected letters, digits, _ . + -, got 'a/b'")),
    "equal names": both(
        forced(
            "datasets:train:name=tiny_val",
            "datasets: two sets are named 'tiny_val'; give each its own name, they share a folder of results",
        )
    ),
    "equal names by default": both(
        changed(
            "datasets: two sets are named 'val'; give each its own name, they share a folder of results",
            named_like_a_phase,
        )
    ),
    "float as count": forced("train:total_iter=1e5", "train: total_iter: expected a whole number > 0, got 100000.0"),
    "text as count": forced("train:total_iter='10'", "train: total_iter: expected a whole number > 0, got '10'"),
    "learning rate in quotes": forced(
        "train:optim_g:lr='1e-4'", "train: optim_g: lr: expected a number > 0, got '1e-4'"
    ),
    "infinite learning rate": forced("train:optim_g:lr=.inf", "train: optim_g: lr: expected a number > 0, got inf"),
    "clip at nan": forced("train:grad_clip=.nan", "train: grad_clip: expected a number >= 0, got nan"),
    "frequency 0": forced("logger:print_freq=0", "logger: print_freq: expected a whole number > 0, got 0"),
    "validation frequency 0": forced("val:val_freq=0", "val: val_freq: expected a whole number > 0, got 0"),
    "low precision": forced("train:amp=fp8", "train: amp: expected one of bf16, fp16, auto, got 'fp8'"),
    "decay of 1": forced("train:ema_decay=1", "train: ema_decay: expected a number from 0 to below 1, got 1"),
    "too many gpus": both(forced("num_gpu=99", "num_gpu: expected at most ...")),
    "negative gpus": both(forced("num_gpu=-1", "num_gpu: expected auto or a whole number >= 0, got -1")),
    "train is a number": both(forced("train=3", "train: expected a block of keys, got 3")),
    "no paths": both(forced("path=null", "path: missing")),
    # networks, losses, optimisers, schedules
    "unknown model": both(
        forced("model_type=SRModle", "model_type: nothing is registered as 'SRModle'; did you mean SR...")
    ),
    "unknown network": both(
        forced("network_g:type=ResUnet", "network_g: type: nothing is registered as 'ResUnet'; did you mean ResUNet...")
    ),
    "unknown argument": both(
        forced("network_r:num_block=3", "network_r: num_block: unknown key; did you mean num_blocks?")
    ),
    "network without type": both(changed("network_g: type: missing", lambda options: options["network_g"].pop("type"))),
    "text as number of blocks": both(
        forced("network_g:num_blocks=x", "network_g: num_blocks: expected a whole number from 1 to 100,000, got 'x'")
    ),
    "fewer blocks than none": both(
        forced("network_g:num_blocks=-3", "network_g: num_blocks: expected a whole number from 1 to 100,000, got -3")
    ),
    "no feature": both(
        forced("network_r:num_feat=0", "network_r: num_feat: expected a whole number from 1 to 100,000, got 0")
    ),
    "number as flag": both(forced("network_g:global_skip=3", "network_g: global_skip: expected true or false, got 3")),
    "unknown upsampling": both(
        forced(
            "network_g:upsample=bicubic", "network_g: upsample: expected one of pixelshuffle, deconv..., got 'bicubic'"
        )
    ),
    # names that become files
    "data set that leads out": both(
        forced(
            "datasets:val_a/../../../escaped={type: DeblurPairDataset}", "datasets: val_a/../../../escaped: unknown..."
        )
    ),
    "other data set that leads out": both(
        forced("datasets:val:type=PairedImageDataset datasets:val:name=../../escaped", "datasets: val: ...")
    ),
    "name with a line's end": both(forced('name="a\\n"', "name: expected letters, digits, _ . + -, got 'a\\n'")),
    "Windows' device": both(
        forced("name=com1.old", "name: expected a name for files, got 'com1.old': Windows keeps it for a device")
    ),
    "long name": both(forced(f"name={'a' * 300}", f"name: expected letters, digits, _ . + -, got '{'a' * 300}'")),
    # numbers
    "seed beyond 32 bits": both(
        forced("manual_seed=5000000000", "manual_seed: expected at most 4294967295, got 50...")
    ),
    "endless training": forced(f"train:total_iter={10**23}", f"train: total_iter: expected at most {10**12}, got 1..."),
    "steps of 400 digits": both(
        forced(f"val:tta:steps={'9' * 400}", "val: tta: steps: expected a whole number >= 0, got 99...")
    ),
    "rate of 400 digits": forced(
        f"train:optim_g:lr={'9' * 400}", "train: optim_g: lr: expected a number > 0, got 99..."
    ),
    "one beta": forced("train:optim_g:betas=[0.9]", "train: optim_g: Adam can't take these options: ..."),
    "nobody's folder": forced("datasets:train:dataroot=~nobody.here/x", "~nobody.here/x: no such folder; expected ..."),
    # classes that don't belong there
    "adversary as pixel loss": forced(
        "train:pixel_opt={type: GANLoss, gan_type: vanilla}",
        "train: pixel_opt: type: expected a loss of (output, sharp), got GANLoss",
    ),
    "discriminator as M_D": Case(
        "...",
        spoil=lambda _, options: (options["path"].clear(), options.update(network_g={"type": "ReblurDiscriminator"})),
        programs=("train", "check"),
    ),
    "two of three widths": both(
        forced("network_g:num_feats=[4,4]", "network_g: ResUNet can't take these options: not ...")
    ),
    "enlarging network": changed(
        "network_g: SRVGGNetCompact: expected an image of its input's shape (1, 3, 16, 16), got (1, 3, 64, 64); ...",
        enlarging,
    ),
    "unknown loss": forced(
        "train:pixel_opt:type=L2", "train: pixel_opt: type: nothing is registered as 'L2'; expected ..."
    ),
    "heavy loss": forced(
        "train:pixel_opt:loss_weight=heavy", "train: pixel_opt: loss_weight: expected a number >= 0, got 'heavy'"
    ),
    "unknown reduction": forced(
        "train:pixel_opt={type: L1Loss, reduction: all}", "train: pixel_opt: L1Loss can't take these options: Unsup..."
    ),
    "loss of three images": forced(
        "train:pixel_opt={type: ReblurLoss}",
        "train: pixel_opt: type: expected a loss of (output, sharp), got ReblurLoss",
    ),
    "L1 as adversary": changed(
        "train: gan_opt: type: expected a loss of (input, target_is_real, is_disc), got L1Loss", l1_as_adversary
    ),
    "unknown optimiser": forced(
        "train:optim_g:type=Adamm", "train: optim_g: type: PyTorch has no optimiser 'Adamm' ..."
    ),
    "optimiser with closure": forced(
        "train:optim_g:type=LBFGS", "train: optim_g: type: PyTorch has no optimiser 'LBFGS'..."
    ),
    "another optimiser's option": forced(
        "train:optim_g:momentum=0.9", "train: optim_g: Adam can't take these options: ..."
    ),
    "optimiser without rate": changed(
        "train: optim_g: lr: missing", lambda options: options["train"]["optim_g"].pop("lr")
    ),
    "unknown schedule": forced(
        "train:scheduler:type=CosineAnnealingRestartLR",
        "train: scheduler: type: expected one of MultiStepLR, got 'CosineAnnealingRestartLR'",
    ),
    "no schedule": forced(
        "train:scheduler=", "train: scheduler: missing; e.g. {type: MultiStepLR, milestones: [...], gamma: 0.5}"
    ),
    # contradictions
    "two lengths": changed(
        "train: expected one of total_iter and total_epoch, got total_iter and total_epoch",
        lambda options: options["train"].update(total_epoch=1),
    ),
    "no length": changed(
        "train: expected one of total_iter and total_epoch, got none",
        lambda options: options["train"].pop("total_iter"),
    ),
    "late milestone": forced(
        "train:scheduler:milestones=[3]", "train: scheduler: milestones: 3 lies beyond total_iter 2; lower it"
    ),
    "late percentage": forced(
        "train:scheduler:milestones=[120%]", "train: scheduler: milestones: 120% lies beyond total_iter 2; lower it"
    ),
    "uneven parts": forced(
        "train:accumulate=3", "train: accumulate: expected a divisor of batch_size_per_gpu 2, got 3"
    ),
    "too large a batch": forced(
        "datasets:train:batch_size_per_gpu=5",
        "datasets: train: batch_size_per_gpu: expected at most the 4 images there are, got 5 over 1 process; lower it",
    ),
    "too large a patch": forced(
        "datasets:train:gt_size=64", "{}/data/train/SEQ_...blur_gamma/000000.png: 40x32 is smaller ..."
    ),
    "adversary without discriminator": forced(
        "train:gan_opt={type: GANLoss, gan_type: vanilla}",
        "train: gan_opt and network_d belong together; give both or none",
    ),
    "discriminator without adversary": forced(
        "network_d={type: ReblurDiscriminator}", "train: gan_opt and network_d belong together; give both or none"
    ),
    "reblurring without M_R": forced(
        "network_r=", "train: reblur_opt and network_r belong together; give both or none"
    ),
    "M_R without reblurring": forced(
        "train:reblur_opt=", "train: reblur_opt and network_r belong together; give both or none"
    ),
    "adaptation without M_R": both(
        changed("val: tta: needs M_R; add network_r and path: pretrain_network_r", adapting_without_m_r)
    ),
    "reblurred without M_R": both(
        changed("val: reblurred: needs M_R; add network_r and path: pretrain_network_r", reblurring_without_m_r)
    ),
    "frozen without weights": changed(
        "train: freeze_deblur_net: trains M_R on a trained M_D; give reblur_opt and path: pretrain_network_g",
        frozen_without_weights,
    ),
    "no loss at all": changed(
        "train: no loss for M_D; give pixel_opt (L1), reblur_opt or perceptual_opt", without_loss
    ),
    "no training set": changed("datasets: train: missing", lambda options: options["datasets"].pop("train")),
    "no patch size": changed(
        "gt_size: expected the side of a training patch such as 256, got None",
        lambda options: options["datasets"]["train"].pop("gt_size"),
    ),
    "no batch size": changed(
        "datasets: train: batch_size_per_gpu: missing",
        lambda options: options["datasets"]["train"].pop("batch_size_per_gpu"),
    ),
    "unordered weights": forced(
        "train:reblur_opt:sharp_weight=[[5, 1], [2, 1]]",
        "train: reblur_opt: sharp_weight: expected weights >= 0 at increasing iterations, got [[5, 1], [2, 1]]",
    ),
    # metrics
    "best of an unknown metric": both(
        forced("val:best=ssim", "val: best: expected a name under val: metrics; expected one of psnr")
    ),
    "best of no metric": changed(
        "val: best: expected a name under val: metrics, which has none",
        lambda options: options["val"].update(metrics=None, best="psnr"),
    ),
    "unknown metric": both(
        forced("val:metrics:psnr:type=pnsr", "val: metrics: psnr: type: nothing is registered as 'pnsr'; ...")
    ),
    "misspelt border": both(
        forced("val:metrics:psnr:crop_boarder=1", "val: metrics: psnr: crop_boarder: unknown key; did ...")
    ),
    "negative border": both(
        forced(
            "val:metrics:psnr:crop_border=-1", "val: metrics: psnr: crop_border: expected a whole number >= 0, got -1"
        )
    ),
    "nothing within the border": both(
        forced(
            "val:metrics:psnr:crop_border=20",
            "val: metrics: psnr: expected a number, got nan on {}/" + SHOWN + " of 40x32 pixels; lower crop_border ...",
        )
    ),
    "value that the metric refuses": both(
        forced(
            "val:metrics:psnr:input_order=CWH",
            "val: metrics: psnr: calculate_psnr failed on {}/" + SHOWN + ": Wrong input_order CWH. ...",
        )
    ),
    "direction": both(
        forced("val:metrics:psnr:better=up", "val: metrics: psnr: better: expected higher or lower, got 'up'")
    ),
    # data sets
    "unknown layout": both(
        forced(
            "datasets:val:layout=GOPRO",
            "datasets: val: layout: expected one of gopro, reds, hide, realblur, folders, photographs, packed, got "
            "'GOPRO'",
        )
    ),
    "missing folder": both(forced("datasets:val:dataroot=none", "none: no such folder; " + SEQUENCES)),
    "other kind of blur": both(
        forced(
            "datasets:val:blur_key=blur",
            "{}/data/test/SEQ_A: expected a folder 'blur', found blur_gamma; set blur_key to one of them (data set "
            "tiny_val)",
        )
    ),
    "another layout": forced(
        "datasets:train:layout=reds", "{}/data/train: expected one folder train_blur or val_blur, got 0..."
    ),
    "key of another layout": forced(
        "datasets:train:layout=folders", "dataroot_lq: missing; the layout 'folders' needs this folder"
    ),
    "training on photographs": forced(
        "datasets:train:layout=photographs", "layout: training needs sharp images; photographs have none"
    ),
    "BasicSR's data set": changed(
        "datasets: train: PairedImageDataset can't take these options: KeyError('io_backend')",
        lambda options: options["datasets"]["train"].update(type="PairedImageDataset"),
    ),
    "sharp image missing": spoilt(
        removed("data/train/SEQ_A/sharp/000000.png"),
        "{}/" + IMAGE + ": no partner of that name in {}/data/train/SEQ_A/sharp; unzip again or remove it",
    ),
    "blurry image missing": both(
        spoilt(
            copied(SHOWN, "data/test/SEQ_A/sharp/000001.png"),
            "{}/data/test/SEQ_A/sharp/000001.png: no partner of that name in {}/data/test/SEQ_A/blur_gamma; unzip ...",
        )
    ),
    "no sharp folder": both(
        spoilt(removed("data/test/SEQ_A/sharp"), "{}/data/test/SEQ_A/sharp: no such folder; expected images")
    ),
    "sequence without folders": both(
        spoilt(emptied("data/test/SEQ_A"), "{}/data/test/SEQ_A: expected a folder 'blur_gamma', found no other...")
    ),
    "folder without images": spoilt(
        emptied("data/train/SEQ_A/blur_gamma"), "{}/data/train/SEQ_A/blur_gamma: expected images (.png, ..."
    ),
    "empty folder": both(spoilt(emptied("data/test"), "{}/data/test: ...; " + SEQUENCES)),
    "file as folder": both(spoilt(file_in_place_of("data/test"), "{}/data/test: ...; " + SEQUENCES)),
    "one folder too high": spoilt(
        lambda folder, options: options["datasets"]["train"].update(dataroot=str(folder / "data")),
        "{}/data...: expected ...",
    ),
    "one folder too low": spoilt(
        lambda folder, options: options["datasets"]["train"].update(dataroot=str(folder / "data/train/SEQ_A")),
        "{}/data/train/SEQ_A...: expected ...",
    ),
    "stray folder": spoilt(
        lambda folder, _: (folder / "data/train/notes").mkdir(),
        "{}/data/train/notes: expected a folder 'blur_...",
    ),
    "two folders that differ": spoilt(
        two_folders, "{}/" + IMAGE + ": no partner of that name in {}/data/train/x (and ..."
    ),
    "two images of one name": spoilt(
        copied(IMAGE, IMAGE.replace(".png", ".bmp")),
        "{}/" + IMAGE + ": a second image named '000000' beside 000000.bmp; rename one of them",
    ),
    "zero bytes": spoilt(
        holding(IMAGE, b""), "{}/" + IMAGE + ": expected an image, got an empty file; unzip or download it again"
    ),
    "text as picture": spoilt(holding(IMAGE, b"not a picture"), "{}/" + IMAGE + ": " + DAMAGED),
    "picture cut short": spoilt(cut_short(IMAGE), "{}/" + IMAGE + ": " + DAMAGED),
    "sizes differ": spoilt(
        picture(IMAGE, 32, 44), "{}/" + IMAGE + ": expected the size of its sharp partner 40x32, got 44x32..."
    ),
    "picture of floats": spoilt(
        float_picture, "{}/data/train/SEQ_A/blur_gamma/000000.tif: expected 8 or 16 bits a channel..."
    ),
    "unreadable picture": spoilt(
        linked_to_itself(IMAGE),
        "{}/" + IMAGE + ": expected an image, but it can't be read (Too many levels of symbolic...",
    ),
    "folder as picture": spoilt(
        folder_in_place_of(IMAGE),
        "{}/" + IMAGE.replace("blur_gamma", "sharp") + ": no partner of that name in {}/data/train/SEQ_A/blur_gamma...",
    ),
    "zero bytes in validation": both(
        spoilt(
            holding(SHOWN, b""), "{}/" + SHOWN + ": expected an image, got an empty file; unzip or download it again"
        )
    ),
    "validation picture cut short": both(spoilt(cut_short(SHOWN), "{}/" + SHOWN + ": " + DAMAGED)),
    "sizes differ in validation": both(
        spoilt(picture(SHOWN, 32, 44), "{}/" + SHOWN + ": expected the size of its sharp partner 40x32, got 44x32...")
    ),
    # checkpoints
    "missing checkpoint": both(spoilt(removed("g.pth"), "path: pretrain_network_g: no such file {}/g.pth")),
    "folder as checkpoint": both(forced("path:pretrain_network_g=.", "path: pretrain_network_g: no such file .")),
    "checkpoint cut short": both(
        spoilt(cut_short("g.pth"), "{}/g.pth: damaged or no checkpoint of PyTorch; copy or download it again")
    ),
    "empty checkpoint": both(
        spoilt(holding("g.pth", b""), "{}/g.pth: damaged or no checkpoint of PyTorch; copy or download it again")
    ),
    "another network's checkpoint": both(
        spoilt(other_checkpoint, "{}/r.pth: doesn't fit ResUNet with 16 tensors: 2 of ...")
    ),
    "pickled payload": both(spoilt(pickled, "{}/g.pth: " + FOREIGN + "...")),
    "payload in a checkpoint": both(spoilt(saved({"params": Payload()}), "{}/g.pth: " + FOREIGN + "...")),
    "list as checkpoint": both(spoilt(saved([1]), "{}/g.pth: expected a dictionary of weights, got list")),
    "no weights": both(spoilt(saved({}), "{}/g.pth: expected the weights of one network, found none")),
    "weights that fit nowhere": both(
        spoilt(without_strictness, "{}/g.pth: doesn't fit ResUNet with 16 tensors: 16 missing ...")
    ),
    "wrong param_key": both(
        forced("path:param_key_g=params_ema", "{}/g.pth: expected the entry 'params_ema', found params")
    ),
    "test without checkpoint": Case(
        "path: pretrain_network_g: missing; a test needs a checkpoint, which python -m reblur_plugin.train makes",
        spoil=lambda _, options: options["path"].clear(),
        programs=("test",),
    ),
    "test without M_R's checkpoint": Case(
        "path: pretrain_network_r: missing; a test needs a checkpoint, which ...",
        spoil=lambda _, options: options["path"].pop("pretrain_network_r"),
        programs=("test",),
    ),
    "missing state": forced("path:resume_state=none.state", "path: resume_state: no such file none.state"),
    "text as state": Case(
        "{}/training_states/2.state: " + FOREIGN + "...", spoil=resumed(b"no"), programs=("train", "check")
    ),
    "no wandb": Case(
        "logger: wandb: the package wandb isn't installed; pip install wandb",
        force=("logger:use_tb_logger=true", "logger:wandb={project: mine}"),
        programs=("train", "check"),
    ),
    "BasicSR's state": spoilt(
        resumed({"iter": 2, "epoch": 0, "optimizers": [], "schedulers": []}),
        "{}/training_states/2.state: expected a training state of ours, but best is missing",
    ),
    # where results go
    "file in the place of experiments": spoilt(
        file_in_place_of("cwd/experiments"),
        "{}/cwd/experiments/tiny: this folder can't be made (Not a directory); start somewhere else",
    ),
}


@pytest.fixture
def place(tmp_path: Path, tiny_data: Path, tiny_options: Options) -> tuple[Path, Options]:
    """Return a folder with data, checkpoints and, in the working folder, an older experiment; options in order."""
    networks = {"g": ResUNet(num_blocks=1, num_feats=(4, 4, 4)), "r": ReblurNet(num_blocks=1, num_feat=4)}
    for label, network in networks.items():
        torch.save({"params": network.state_dict()}, tmp_path / f"{label}.pth")
        tiny_options["path"][f"pretrain_network_{label}"] = str(tmp_path / f"{label}.pth")
    for older in ("experiments", "results"):
        (tmp_path / "cwd" / older / "tiny").mkdir(parents=True)
        (tmp_path / "cwd" / older / "tiny" / "older").write_text("older")
    return tmp_path, tiny_options


def everything(folder: Path) -> dict[Path, tuple[int, int, int]]:
    """Return all files and folders with what changes when they are moved or written."""
    found = {path: path.lstat() for path in folder.rglob("*")}
    return {path: (stat.st_ino, stat.st_size, stat.st_mtime_ns) for path, stat in found.items()}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_one_sentence_says_what_is_wrong_and_nothing_is_touched(
    place: tuple[Path, Options],
    case: Case,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    folder, options = place
    if case.spoil:
        case.spoil(folder, options)
    content = case.text if case.text is not None else yaml.safe_dump(options)
    (folder / "o.yml").write_bytes(content if isinstance(content, bytes) else content.encode())
    monkeypatch.chdir(folder / "cwd")
    force = ["--force_yml", *case.force] if case.force else []
    parts = case.message.replace("{}", str(folder)).split("...")
    before = everything(folder)
    for program in case.programs:
        monkeypatch.setattr(sys, "argv", [program, "-opt", str(folder / "o.yml"), *case.arguments, *force])
        assert cli.guarded(PROGRAMS[program]) == 1, program
        assert everything(folder) == before
        errors = capfd.readouterr().err
        assert "Traceback" not in errors
        (sentence,) = [line for line in errors.splitlines() if line.startswith("error: ")]
        assert errors.endswith(f"{sentence}\n")
        assert re.fullmatch(".*".join(map(re.escape, parts)), sentence.removeprefix("error: ")), (program, sentence)


@pytest.mark.parametrize("program", PROGRAMS)
def test_the_options_of_these_tests_are_in_order(
    place: tuple[Path, Options], program: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # so that what makes a case fail is the one thing that is wrong in it
    folder, options = place
    (folder / "o.yml").write_text(yaml.safe_dump(options))
    monkeypatch.chdir(folder / "cwd")
    monkeypatch.setattr(sys, "argv", [program, "-opt", str(folder / "o.yml")])
    assert cli.guarded(PROGRAMS[program]) == 0
