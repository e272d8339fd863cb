"""All trainings and tests of a scale, seed by seed, and those that a choice of claims needs."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from reproduction import recipes
from reproduction.claims import DHN_SHIPPED, Claim
from reproduction.jobs import Job
from reproduction.recipes import Length, Options, Reblurring, Sharp, Weights, pairs_in
from reproduction.scales import Scale

_ARMS: dict[str, Reblurring | None] = {
    "l1": None,
    "n1": Reblurring(blocks=1),
    "n2": Reblurring(),
    "n2_none": Reblurring(sharp="none"),
    "n2_real": Reblurring(sharp="real"),
    "adv": None,
    "adv_n2": Reblurring(),
}
_WIDE = Reblurring(channels=32)
SHIPPED = {
    "small": Weights("small", "weights/net_g_resunet-small.pth", _WIDE, "weights/net_r_resunet-small.pth"),
    "dhn": Weights("dhn", "weights/dmphn_1_2_4_8.pth", _WIDE, "weights/net_r_dhn-official.pth"),
}
# Learning rates of adaptation: narrow networks take larger steps than the paper's 3e-6 (D12)
_RATES = {"narrow": 3e-5, "small": 3e-5, "dhn": 3e-6, "unet": 3e-6}


@dataclass(frozen=True)
class Sources:
    """What is tested on.

    Attributes:
        whole, centre, small: folders of pairs: whole images, those that weights adapt to, those that M_R is judged on.
        sharp: pairs (S, S) of the size of `small`.
        photographs: a folder of photographs without ground truth; None: there are none.
        pixels: thousands of pixels of all images by folder.
        metrics: option blocks by name.
    """

    whole: str
    centre: str
    small: str
    sharp: str
    photographs: str | None
    pixels: dict[str, float]
    metrics: Options


class Plan:
    """The jobs of a scale."""

    def __init__(self, scale: Scale, sources: Sources) -> None:
        self.scale, self.sources = scale, sources

    def jobs(self, claims: Sequence[Claim]) -> list[Job]:
        """Return the jobs that these claims read, each after those that it needs."""
        found = {job.name: job for job in self._all()}
        waiting = [reading.test for claim in claims for part in claim.parts for reading in (part.before, part.after)]
        waiting = [test.format(seed=f"s{number}") for test in waiting for number in range(self.scale.seeds)]
        wanted: set[str] = set()
        while waiting:
            name = waiting.pop()
            if name not in wanted:
                wanted.add(name)
                waiting += found[name].needs
        return [job for name, job in found.items() if name in wanted]

    def _all(self) -> Iterator[Job]:
        yield from self._of_official_weights()
        for number in range(self.scale.seeds):
            seed = f"s{number}"
            yield from self._of_frozen(number, seed)
            yield from self._from_scratch(number, seed)
            yield from self._of_dhn(number, seed)
            yield from self._of_unet(number, seed)

    def _of_official_weights(self) -> Iterator[Job]:
        """Yield tests of weights that are there: of them there is one training."""
        for name, network in (("whole", "dhn"), ("patchwise", "dmphn")):
            yield self._test(name, Weights(network, SHIPPED["dhn"].deblurring), self.sources.whole)
        for name, network in (("adapted_small_shipped", "small"), (DHN_SHIPPED, "dhn")):
            yield self._test(name, SHIPPED[network], self.sources.centre, adapts=True)
        if folder := self.sources.photographs:
            sets = {"photographs": {"layout": "photographs", "dataroot": folder}}
            metrics = {"niqe": self.sources.metrics["niqe"]}
            tta = {"steps": 5, "lr": _RATES["small"]}
            yield recipes.test("photographs", SHIPPED["small"], sets, self.sources.pixels[folder], metrics, tta)

    def _of_frozen(self, number: int, seed: str) -> Iterator[Job]:
        """Yield M_R on frozen networks: by L_Blur alone, then three arms that go on from there."""
        scale, shipped = self.scale, SHIPPED["small"].deblurring
        if not scale.reblur:
            return
        length = Length(number, scale.reblur, *scale.patches)
        narrow = f"narrow_{seed}"
        yield recipes.joint(narrow, Weights("narrow"), replace(length, iterations=scale.narrow), 8e-4)
        alone = Reblurring(sharp="none")
        starts = {
            "narrow": Weights("narrow", _file(narrow, "g"), alone, needs=(narrow,)),
            "small": Weights("small", shipped, alone),
            "dhn": Weights("dhn", SHIPPED["dhn"].deblurring, alone),
        }
        for network in scale.deblurrers():
            name, start = f"reblur_{network}_{seed}", starts[network]
            yield recipes.reblur_alone(name, start, length)
            yield self._judge(f"reblurred_{network}_{seed}", _trained(start, name))
        first = f"reblur_small_{seed}"
        sharps: tuple[Sharp, ...] = ("none", "pseudo", "real")
        for sharp in sharps:
            name, start = f"reblur_{sharp}_{seed}", _trained(Weights("small", shipped, Reblurring(sharp=sharp)), first)
            yield recipes.reblur_alone(name, start, replace(length, iterations=scale.reblur_arm))
            yield self._judge(f"reblurred_{sharp}_{seed}", _trained(start, name))
        weights = _trained(Weights("small", shipped, Reblurring()), f"reblur_pseudo_{seed}")
        yield self._test(f"adapted_small_{seed}", weights, self.sources.centre, adapts=True)
        yield self._test(f"unmatched_small_{seed}", weights, self.sources.centre, adapts=True, histogram="none")

    def _from_scratch(self, number: int, seed: str) -> Iterator[Job]:
        """Yield arms of a narrow U-Net that go on, with equal budgets, from what L1 has reached for this seed."""
        scale, base = self.scale, f"scratch_base_{seed}"
        if not scale.base:
            return
        length = Length(number, scale.base, *scale.patches)
        yield recipes.joint(base, Weights("narrow"), length, 8e-4)
        for arm, reblurring in _ARMS.items():
            name = f"scratch_{arm}_{seed}"
            start = Weights("narrow", _file(base, "g"), reblurring, needs=(base,))
            yield recipes.joint(name, start, replace(length, iterations=scale.arm), 4e-4, arm.startswith("adv"))
            yield from self._tests_of(name, start, self.sources.whole)

    def _of_dhn(self, number: int, seed: str) -> Iterator[Job]:
        """Yield M_R for the official weights, adaptation by it, and arms that fine-tune them both."""
        scale, official = self.scale, SHIPPED["dhn"].deblurring
        if not scale.reblur_dhn:
            return
        trained = {"l1": Weights("dhn", official)}
        for arm in scale.dhn_arms[1:]:
            name, start = f"reblur_dhn_{arm}_{seed}", Weights("dhn", official, _ARMS[arm])
            if arm == "n2" and scale.reblur:
                start = _trained(start, f"reblur_dhn_{seed}")
            yield recipes.reblur_alone(name, start, Length(number, scale.reblur_dhn, 2, 64))
            trained[arm] = _trained(start, name)
        yield self._judge(f"reblurred_dhn_n2_{seed}", trained["n2"])
        yield self._test(f"adapted_dhn_{seed}", trained["n2"], self.sources.centre, adapts=True)
        for arm, start in trained.items() if scale.dhn else ():
            name = f"dhn_{arm}_{seed}"
            yield recipes.joint(name, start, Length(number, scale.dhn, 2, 96), 2e-5)
            yield from self._tests_of(name, start, self.sources.centre)

    def _of_unet(self, number: int, seed: str) -> Iterator[Job]:
        """Yield arms of the paper's U-Net from scratch."""
        length = Length(number, self.scale.unet, *self.scale.patches)
        for arm, narrow in _ARMS.items() if self.scale.unet else ():
            if arm.startswith("adv"):
                continue
            start = Weights("unet", "", narrow and Reblurring(narrow.blocks, 64, narrow.sharp, global_skip=False))
            name = f"unet_{arm}_{seed}"
            yield recipes.joint(name, start, length, 1e-4)
            yield from self._tests_of(name, start, self.sources.whole)

    def _judge(self, name: str, weights: Weights) -> Job:
        """Return the test of what an M_R does to L, S and S_hat."""
        sources = self.sources
        sets = {"test": pairs_in(sources.small), "sharp": pairs_in(sources.sharp)}
        return recipes.test(name, weights, sets, 2 * sources.pixels[sources.small], {"psnr": sources.metrics["psnr"]})

    def _test(self, name: str, weights: Weights, folder: str, adapts: bool = False, histogram: str = "skimage") -> Job:
        tta = {"steps": 5, "lr": _RATES[weights.network], "histogram": histogram} if adapts else None
        sets = {"test": pairs_in(folder)}
        return recipes.test(name, weights, sets, self.sources.pixels[folder], self.sources.metrics, tta)

    def _tests_of(self, training: str, start: Weights, folder: str) -> Iterator[Job]:
        """Yield the test of a joint training, and that of adaptation by its own M_R."""
        own = Weights(start.network, _file(training, "g"), needs=(training,))
        if start.reblurring:
            own = replace(own, reblurring=start.reblurring, reblurring_file=_file(training, "r"))
            yield self._test(f"{training}_adapted", own, self.sources.centre, adapts=True)
        yield self._test(f"{training}_test", own, folder)


def _file(training: str, network: str) -> str:
    return f"experiments/{training}/models/net_{network}_latest.pth"


def _trained(weights: Weights, training: str) -> Weights:
    """Return weights with the M_R of a training."""
    return replace(weights, reblurring_file=_file(training, "r"), needs=(*weights.needs, training))
