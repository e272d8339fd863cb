"""How much of each claim is run: from minutes on two cores to hours on a GPU."""

from __future__ import annotations

from dataclasses import dataclass

from reproduction.data import Size


@dataclass(frozen=True)
class Scale:
    """The lengths of all trainings and tests.

    Attributes:
        claims: that it runs, by the numbers of docs/reproduction.md.
        seeds: trainings of each arm.
        training_pairs, test_pairs: at most so many, spread over the sequences; None: all.
        centre, small: centres of the test images, where weights adapt, and where M_R is judged; None: all.
        patches: patches of a batch, and pixels on a side of each (where DHN is fine-tuned: 2 of 96).
        narrow: iterations of the weakest M_D of claim 1; 0: none.
        reblur: iterations of each M_R on a frozen M_D by L_Blur alone; 0: none.
        reblur_arm: iterations of each arm of claim 2 after that.
        reblur_dhn: iterations of an M_R on DHN with L_Sharp, after those by L_Blur alone if there are some; 0: none.
        base: iterations by L1 from scratch, from which the arms of claims 2 to 4 go on; 0: none.
        arm: iterations of each arm after that.
        dhn, dhn_arms: iterations by which arms of claim 3 fine-tune DHN (0: none), and which arms.
        unet: iterations of the arms of the paper's U-Net from scratch; 0: none.
        has_dmphn: whether the official weights are at hand.
        all_arms: whether there are the arms of Table 4 and of L_Adv, too (claims 2 and 4).
    """

    claims: tuple[int, ...]
    seeds: int = 3
    training_pairs: int | None = 200
    test_pairs: int | None = None
    centre: Size | None = None
    small: Size | None = (288, 192)
    patches: tuple[int, int] = (4, 64)
    narrow: int = 0
    reblur: int = 0
    reblur_arm: int = 0
    reblur_dhn: int = 0
    base: int = 0
    arm: int = 0
    dhn: int = 0
    dhn_arms: tuple[str, ...] = ("l1", "n2")
    unet: int = 0
    all_arms: bool = False
    has_dmphn: bool = True

    def deblurrers(self) -> list[str]:
        """Return the networks of claim 1, from the weakest to the strongest."""
        is_there = {"narrow": bool(self.narrow), "small": True, "dhn": self.has_dmphn}
        return [name for name, there in is_there.items() if there and self.reblur]


SCALES = {
    "minutes": Scale(
        claims=(1, 2, 5, 6, 7),
        test_pairs=3,
        centre=(384, 192),
        patches=(2, 64),
        reblur=250,
        reblur_arm=500,
    ),
    "hour": Scale(
        claims=(1, 2, 3, 5, 6, 7),
        test_pairs=4,
        centre=(384, 288),
        narrow=800,
        reblur=400,
        reblur_arm=400,
        reblur_dhn=250,
        base=1200,
        arm=600,
        dhn=50,
    ),
    "night": Scale(
        claims=(2, 3, 4),
        seeds=5,
        test_pairs=20,
        centre=(960, 576),
        reblur_dhn=1200,
        base=3000,
        arm=2000,
        dhn=200,
        dhn_arms=("l1", "n1", "n2"),
        all_arms=True,
    ),
    "gpu": Scale(
        claims=(2, 3, 5),
        training_pairs=2500,
        test_pairs=100,
        patches=(16, 256),
        unet=20000,
        all_arms=True,
    ),
}
