"""The seven claims as comparisons of tests: what is read from which test, and which direction the paper claims."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any, Literal

from reproduction.scales import Scale

Better = Literal["higher", "lower"]


@dataclass(frozen=True)
class Reading:
    """A metric of a test at a stage, by image; `{seed}` in the test's name stands for the training's.

    Attributes:
        test: its name.
        metric, stage, data: of its records.
        less: another stage and set, whose values are subtracted.
    """

    test: str
    metric: str
    stage: str = "deblurred"
    data: str = "test"
    less: tuple[str, str] | None = None


@dataclass(frozen=True)
class Part:
    """A comparison.

    Attributes:
        text: what is compared, for people.
        metric: what its numbers are, for people.
        before, after: the two arms.
        better: the direction that the paper claims for the second arm.
        margin: see `verdicts.judge`.
        counts: whether it belongs to the claim; else it is told beside it.
    """

    text: str
    metric: str
    before: Reading
    after: Reading
    better: Better
    margin: float = 0.0
    counts: bool = True


@dataclass(frozen=True)
class Claim:
    """A claim, where the paper makes it, and the comparisons that show it at a scale."""

    number: int
    title: str
    paper: str
    parts: list[Part]


# What each metric is called, and its better direction
_METRICS: dict[str, tuple[str, Better]] = {
    "lpips": ("LPIPS", "lower"),
    "niqe": ("NIQE", "lower"),
    "sharpness": ("sharpness", "higher"),
    "psnr": ("PSNR (dB)", "higher"),
    "ssim": ("SSIM", "higher"),
    "brightness": ("brightness off S (grey levels)", "lower"),
    "left": ("change by M_R (grey levels)", "lower"),
}
_PERCEPTUAL = ("lpips", "niqe", "sharpness")
DHN_SHIPPED = "adapted_dhn_shipped"
_PRICE = 0.3  # dB; in Tables 2 and 3 L_Reblur n2 costs .05 to .34
_STEPS = {0: "deblurred", 1: "adapted_1", 3: "adapted_3", 5: "adapted"}
_REBLURRED = {"narrow": "narrow U-Net", "small": "resunet-small", "dhn": "DHN (official weights)"}
_MATCHING = ("unmatched", "adapted")
_FAMILIES = {"scratch": "narrow U-Net from scratch", "dhn": "DHN fine-tuned", "unet": "U-Net from scratch"}


def claims(scale: Scale, has_photographs: bool) -> list[Claim]:
    """Return the claims of a scale with the comparisons that it makes, as far as there are weights and photographs."""
    made: dict[int, Callable[[Scale], Claim]] = {
        1: _reblurring,
        2: _sharp_loss,
        3: _loss,
        4: _with_others,
        5: _adaptation,
        6: _patches,
        7: _photographs,
    }
    left_out = ({6} if not scale.has_dmphn else set()) | ({7} if not has_photographs else set())
    return [make(scale) for number, make in made.items() if number in scale.claims and number not in left_out]


def compare(text: str, before: Reading, after: Reading, **others: Any) -> Part:
    """Return the comparison of one metric, better in its usual direction unless told otherwise."""
    metric, better = _METRICS[after.metric]
    return Part(text, metric, before, after, **{"better": better, **others})


def _alive(test: str, who: str) -> Part:
    """Return what tells M_R from the identity, with which all else could be had for nothing."""
    given = Reading(test, "psnr", "unchanged"), Reading(test, "psnr", "reblurred")
    return compare(f"to B, L -> M_R(L), {who} (M_R isn't the identity)", *given)


def _reblurring(scale: Scale) -> Claim:
    parts = [_alive(f"reblurred_{name}_{{seed}}", _REBLURRED[name]) for name in scale.deblurrers()]
    for weak, strong in pairwise(scale.deblurrers()):
        pair = f"{_REBLURRED[weak]} -> {_REBLURRED[strong]}"
        tests = f"reblurred_{weak}_{{seed}}", f"reblurred_{strong}_{{seed}}"
        for stage, text, better, counts in (
            ("deblurred", "L to S, {} (deblurs better)", "higher", True),
            ("reblurred", "M_R(L) to B, {} (harder to reblur)", "lower", True),
            ("unchanged", "L to B, {} (what is trivial of it)", "lower", False),
        ):
            given = (Reading(test, "psnr", stage) for test in tests)
            parts.append(compare(text.format(pair), *given, better=better, counts=counts))
        gains = (Reading(test, "psnr", "reblurred", less=("unchanged", "test")) for test in tests)
        parts.append(compare(f"M_R(L) to B less L to B, {pair} (gain)", *gains, better="lower", counts=False))
    judged = {"reblurred_pseudo_{seed}": "small"} | ({"reblurred_dhn_n2_{seed}": "dhn"} if scale.reblur_dhn else {})
    for test, network in judged.items():
        sharp, deblurred = (Reading(test, "left", data=data) for data in ("sharp", "test"))
        text = f"S_hat -> L, {_REBLURRED[network]} (M_R changes L more)"
        parts.append(compare(text, sharp, deblurred, better="higher"))
    return Claim(1, "Clean images are hard to reblur", "Sec. 3.1, Table 1", parts)


def _sharp_loss(scale: Scale) -> Claim:
    parts = _sharp_loss_of_frozen() if scale.reblur else []
    for family in _families(scale) if scale.all_arms else ():
        if family == "dhn":
            continue
        after = Reading(f"{family}_n2_{{seed}}_test", "lpips")
        parts.append(_alive(after.test, f"{_FAMILIES[family]}, n2"))
        for arm, text in (("none", "M_R without L_Sharp"), ("real", "with S")):
            before = Reading(f"{family}_n2_{arm}_{{seed}}_test", "lpips")
            parts.append(compare(f"L by n2, {_FAMILIES[family]}, {text} -> with S_hat (Table 4)", before, after))
    return Claim(2, "L_Sharp keeps M_R from blurring sharp images", "Sec. 4.2, Table 4", parts)


def _sharp_loss_of_frozen() -> list[Part]:
    none, pseudo, real = (f"reblurred_{arm}_{{seed}}" for arm in ("none", "pseudo", "real"))

    def of_s(test: str) -> Reading:
        return Reading(test, "left", "blurry", "sharp")

    def of_pseudo_sharp(test: str) -> Reading:
        return Reading(test, "left", data="sharp")

    def selective(test: str) -> Reading:
        return Reading(test, "left", less=("deblurred", "sharp"))

    return [
        compare("S, without L_Sharp -> with S_hat", of_s(none), of_s(pseudo)),
        compare("S_hat, without L_Sharp -> with S_hat", of_pseudo_sharp(none), of_pseudo_sharp(pseudo)),
        compare("L less S_hat, without L_Sharp -> with S_hat", selective(none), selective(pseudo), better="higher"),
        _alive(pseudo, "with S_hat"),
        compare("S_hat, S -> S_hat", of_pseudo_sharp(real), of_pseudo_sharp(pseudo), counts=False),
        compare("L less S_hat, S -> S_hat", selective(real), selective(pseudo), better="higher", counts=False),
    ]


def _loss(scale: Scale) -> Claim:
    parts: list[Part] = []
    for family in _families(scale):
        l1, n1, n2 = (f"{family}_{arm}_{{seed}}_test" for arm in ("l1", "n1", "n2"))
        where = _FAMILIES[family]
        parts.append(_alive(n2, f"{where}, n2"))
        for metric in _PERCEPTUAL:
            parts.append(compare(f"{where}, L1 -> L1 + L_Reblur n2", Reading(l1, metric), Reading(n2, metric)))
        price = f"{where}, L1 -> L1 + L_Reblur n2 (a price below {_PRICE} dB)"
        parts.append(compare(price, Reading(l1, "psnr"), Reading(n2, "psnr"), margin=_PRICE))
        if family == "dhn" and "n1" not in scale.dhn_arms:
            continue
        parts.append(compare(f"{where}, L1 -> L1 + L_Reblur n1", Reading(l1, "lpips"), Reading(n1, "lpips")))
        parts.append(compare(f"{where}, n1 -> n2", Reading(n1, "lpips"), Reading(n2, "lpips")))
    return Claim(3, "L1 + L_Reblur beats L1 at equal budget, n2 more than n1", "Tables 2, S4", parts)


def _with_others(scale: Scale) -> Claim:
    adversarial, both = (f"scratch_{arm}_{{seed}}_test" for arm in ("adv", "adv_n2"))
    text = f"{_FAMILIES['scratch']}, L1 + L_Adv -> L1 + L_Adv + L_Reblur n2"
    parts = [compare(text, Reading(adversarial, metric), Reading(both, metric)) for metric in _PERCEPTUAL]
    parts.append(_alive(both, "L1 + L_Adv + L_Reblur n2"))
    title = "L_Reblur adds to perceptual losses (L_Adv alone)"
    return Claim(4, title, "Tables 5, S5, S6", parts if scale.all_arms else [])


def _adaptation(scale: Scale) -> Claim:
    parts: list[Part] = []
    for test, who, counts in _adapting(scale):
        parts.append(replace(_alive(test, who), counts=counts))
        for (first, before), (last, after) in pairwise(_STEPS.items()):
            given = Reading(test, "lpips", before), Reading(test, "lpips", after)
            parts.append(compare(f"{who}, step {first} -> {last}", *given, counts=counts))
        for metric in ("niqe", "sharpness", "psnr"):
            given = Reading(test, metric), Reading(test, metric, "adapted")
            trade: dict[str, Any] = {"better": "lower"} if metric == "psnr" else {}
            parts.append(compare(f"{who}, step 0 -> 5", *given, counts=counts, **trade))
    if scale.reblur:
        for metric in ("brightness", "psnr"):
            unmatched, matched = (Reading(f"{kind}_small_{{seed}}", metric, "adapted") for kind in _MATCHING)
            parts.append(compare("adapted, without -> with histogram matching", unmatched, matched))
    title = "Adaptation improves LPIPS, NIQE and sharpness step by step and trades PSNR"
    return Claim(5, title, "Tables 6, 7, Fig. 6", parts)


def _adapting(scale: Scale) -> list[tuple[str, str, bool]]:
    """Return the tests that adapt, what they are, and whether they count: shipped weights are one training."""
    found = []
    if scale.reblur:
        found += [("adapted_small_{seed}", "resunet-small, M_R trained here", True)]
        found += [("adapted_small_shipped", "resunet-small, shipped M_R", False)]
    if scale.reblur and scale.has_dmphn:
        found += [(DHN_SHIPPED, "DHN (official weights), shipped M_R", False)]
    if scale.reblur_dhn:
        found += [("adapted_dhn_{seed}", "DHN (official weights), M_R trained here", True)]
    for family in _families(scale):
        if family != "dhn":
            found += [(f"{family}_n2_{{seed}}_adapted", f"{_FAMILIES[family]}, its own M_R", True)]
    return found


def _patches(scale: Scale) -> Claim:
    text = "official weights, patch-wise DMPHN -> DHN on the whole image"
    metrics = ("lpips", "niqe", "psnr", "ssim")
    parts = [compare(text, Reading("patchwise", one), Reading("whole", one)) for one in metrics]
    return Claim(6, "DHN without patches is better than patch-wise DMPHN", "Table S2", parts)


def _photographs(scale: Scale) -> Claim:
    def reading(stage: str) -> Reading:
        return Reading("photographs", "niqe", stage, "photographs")

    parts = [
        compare("photographs without ground truth, blurry -> deblurred", reading("blurry"), reading("deblurred")),
        compare("photographs without ground truth, step 0 -> 5", reading("deblurred"), reading("adapted")),
    ]
    return Claim(7, "It carries over to real photographs", "Fig. 9", parts)


def _families(scale: Scale) -> list[str]:
    """Return the families of joint trainings at a scale."""
    return [name for name, count in (("scratch", scale.base), ("dhn", scale.dhn), ("unet", scale.unet)) if count]
