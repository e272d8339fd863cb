"""Joint training of M_D and M_R (section 3.2) as a BasicSR model.

| paper     | BasicSR               |   | paper           | option key                         |
|-----------|-----------------------|---|-----------------|------------------------------------|
| M_D       | `net_g`               |   | L_1             | `train: pixel_opt`                 |
| M_R       | `net_r`               |   | lambda L_Reblur | `train: reblur_opt`                |
| (GAN's D) | `net_d`               |   | 0.3 L_VGG       | `train: perceptual_opt`            |
| B, S      | `lq`, `gt`            |   | 0.001 L_Adv     | `train: gan_opt`, with `network_d` |
| L         | `finest(self.output)` |   | Algorithm 1     | `val: tta`                         |

Without `network_r` M_D is trained by L_1 (and VGG, Adv) alone. All networks have an optimiser (`optim_g`, `optim_r`,
`optim_d`), a scheduler (`scheduler`, or `scheduler_r` for its own) and a gradient scaler of their own (`Updater`).
"""

from __future__ import annotations

import copy
import os
import shlex
import shutil
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from reblur_plugin import checkpoints
from reblur_plugin.core.adapt import Adaptation, AdaptConfig, adapt
from reblur_plugin.core.device import has_fast_bf16
from reblur_plugin.core.memory import Costs
from reblur_plugin.core.objectives import finest
from reblur_plugin.core.plan import Plan
from reblur_plugin.evaluation.validation import validate
from reblur_plugin.host import build_network, get_root_logger
from reblur_plugin.models.criteria import Criteria, built
from reblur_plugin.models.joint_training import JointlyTrainedModel
from reblur_plugin.models.updater import ReblurModelError, Updater
from reblur_plugin.models.watch import CollapseWatch, FiniteWatch

_COMPILERS = {"darwin": "clang++", "win32": "cl"}  # that PyTorch takes where the environment names none as CXX
_AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}


class ReblurModel(JointlyTrainedModel):
    """Trains M_D by L_D (Eq. 6) and M_R by L_R (Eq. 4), alternately on each batch; tests and adapts M_D.

    `train: reblur_opt` holds `loss_weight` (lambda, 1), `sharp_reference` (pseudo | real | none, Table 4),
    `sharp_weight` (1, or a schedule [[iteration, weight], ...]; D10) and `order` (reblur_first | deblur_first, D9 |
    simultaneous, D39). Further keys of `train`: `amp` (bf16, fp16 or auto: bf16 where it is fast), `channels_last`
    (true is faster on most devices), `compile` (by torch.compile; D40), `accumulate` (compute a batch in so many
    parts), `grad_clip` (limits the norm of each network's gradient), `freeze_deblur_net` (train M_R alone: Table 1),
    `ema_decay` as in BasicSR.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        channels_last = (opt.get("train") or {}).get("channels_last", False)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.frozen_g = self.is_train and bool(opt["train"].get("freeze_deblur_net"))
        self.net_g = self._build("g")
        self.net_r: Any = self._build("r") if opt.get("network_r") else None
        self.net_d: Any = self._build("d") if opt.get("network_d") and self.is_train else None
        self.log_dict: dict[str, Tensor] = {}
        self.gt: Any = None
        self.iteration = 0
        self.is_compiled = False
        self.costs: Costs | None = None  # of adaptation within a bound of memory, measured once for all photographs
        if self.is_train:
            self.init_training_settings()
        val = opt.get("val") or {}
        shown = tuple(val.get("adapted_steps") or ())
        self.tta = None if val.get("tta") is None else AdaptConfig(**val["tta"], keep=shown)
        for key, is_asked in (("tta", self.tta is not None), ("reblurred", val.get("reblurred"))):
            if is_asked and self.net_r is None:
                raise ReblurModelError(f"val: {key}: needs M_R; add network_r and path: pretrain_network_r")

    def init_training_settings(self) -> None:
        """Build losses and, for each network, what updates it."""
        train = self.opt["train"]
        self.amp_dtype = self._amp_dtype(train.get("amp"))
        self.ema_decay = train.get("ema_decay", 0)
        if self.ema_decay > 0:
            self._init_average()
        self.criteria = Criteria.build(train, self.device)
        self._check_losses()
        self.is_compiled = bool(train.get("compile"))
        if self.is_compiled:
            self._compile()
        self.finite, self.collapse = FiniteWatch(self.device), CollapseWatch()
        networks = {"g": None if self.frozen_g else self.net_g, "r": self.net_r, "d": self.net_d}
        self.updaters = {
            label: Updater(label, network.train(), train, self.amp_dtype is torch.float16)
            for label, network in networks.items()
            if network is not None
        }
        self.optimizers = [updater.optimizer for updater in self.updaters.values()]
        self.schedulers = [updater.scheduler for updater in self.updaters.values()]

    def _compile(self) -> None:
        """Let torch.compile translate what is trained, in place: names of weights stay as they are (D40).

        Raises:
            ReblurModelError: if there is no C++ compiler, which PyTorch would miss in the first iteration only.
        """
        compiler = shlex.split(os.environ.get("CXX", "")) or [_COMPILERS.get(sys.platform, "g++")]
        if not shutil.which(compiler[0]):
            raise ReblurModelError(
                f"train: compile: expected a C++ compiler, found no {compiler[0]}; install it, or leave the key out"
            )
        for label, network in (("g", self.net_g), ("r", self.net_r), ("d", self.net_d)):
            # Two gradients are taken of one graph of M_R then, and a compiled graph makes all of them each time.
            is_shared = label == "r" and network is not None and self.terms.order == "simultaneous"
            if network is not None and not is_shared:
                self.get_bare_model(network).compile(dynamic=False)

    def _uncompiled(self) -> AbstractContextManager[Any]:
        """Return the context of validation: photographs come in sizes that aren't worth a translation each."""
        return torch.compiler.set_stance("force_eager") if self.is_compiled else nullcontext()

    def _amp_dtype(self, amp: str | None) -> torch.dtype | None:
        """Return the low precision that `train: amp` names; "auto" takes bf16 where the device has units for it."""
        if amp == "auto":
            return torch.bfloat16 if has_fast_bf16(self.device) else None
        if amp is not None and amp not in _AMP:
            raise ReblurModelError(f"train: amp: expected bf16, fp16, auto or nothing, got {amp!r}")
        return None if amp is None else _AMP[amp]

    def _init_average(self) -> None:
        self.net_g_ema = copy.deepcopy(self.get_bare_model(self.net_g)).eval().requires_grad_(False)
        path = self.opt["path"].get("pretrain_network_g")
        if path and "params_ema" in checkpoints.load(path):
            checkpoints.load_weights(self.net_g_ema, path, "params_ema", self.opt["path"].get("strict_load_g", True))

    def _check_losses(self) -> None:
        """Refuse losses without their network, and the other way round."""
        if (self.criteria.gan is None) != (self.net_d is None):
            raise ReblurModelError("train: gan_opt and network_d belong together; give both or none")
        if (self.criteria.reblur is None) != (self.net_r is None):
            raise ReblurModelError("train: reblur_opt and network_r belong together; give both or none")
        if self.frozen_g and (self.net_r is None or not self.opt["path"].get("pretrain_network_g")):
            raise ReblurModelError(
                "train: freeze_deblur_net: trains M_R on a trained M_D; give reblur_opt and path: pretrain_network_g"
            )

    def _build(self, label: str) -> nn.Module:
        network = built(f"network_{label}", build_network, self.opt[f"network_{label}"])
        path = self.opt["path"].get(f"pretrain_network_{label}")
        if path:
            # In training the raw weights go on; a test, and a frozen M_D, take the averaged ones where there are some.
            raw = self.is_train and not (label == "g" and self.frozen_g) and "params" in checkpoints.load(path)
            key = self.opt["path"].get(f"param_key_{label}") or ("params" if raw else None)
            checkpoints.load_weights(network, path, key, self.opt["path"].get(f"strict_load_{label}", True))
            get_root_logger().info(f"Loaded net_{label} from {path} ({key or 'params_ema or params'}).")
        elif not self.is_train:
            raise ReblurModelError(
                f"path: pretrain_network_{label}: missing; a test needs a checkpoint, "
                "which python -m reblur_plugin.train makes"
            )
        count = sum(parameter.numel() for parameter in network.parameters())
        get_root_logger().info(f"net_{label}: {type(network).__name__}, {count:,} parameters.")
        if label == "g" and self.frozen_g:
            network.eval().requires_grad_(False)
        return self.model_to_device(network.to(memory_format=self.memory_format))

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Move a network to the device; under torchrun let its gradients be averaged over the processes."""
        net = net.to(self.device)
        if not (self.opt["dist"] and self.is_train) or not any(p.requires_grad for p in net.parameters()):
            return net
        devices = [torch.cuda.current_device()] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            net,
            device_ids=devices,
            find_unused_parameters=self.opt.get("find_unused_parameters", False),
            gradient_as_bucket_view=True,  # no second copy of the gradient
        )

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch: `lq` and, where there is one, `gt`."""
        self.lq = self._to_device(data["lq"])
        self.gt = self._to_device(data["gt"]) if "gt" in data else None

    def _to_device(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True, memory_format=self.memory_format)

    def get_current_log(self) -> dict[str, float]:
        """Return this iteration's losses (means over the processes), rho, and all learning rates.

        Raises:
            ReblurModelError: if a loss isn't finite or fp16 fails.
        """
        self.check()
        log: dict[str, float] = self.reduce_loss_dict(self.log_dict)
        log |= {f"lr_{label}": updater.lr for label, updater in self.updaters.items()}
        if self.net_r is not None:
            warning = self.collapse.warning()
            if warning:
                get_root_logger().warning(warning)
        skipped = sum(int(updater.skipped) for updater in self.updaters.values() if updater.scaler.is_enabled())
        return log | {"skipped_fp16_steps": skipped} if skipped else log

    def check(self) -> None:
        """Stop before numbers that aren't finite are logged as a result or saved.

        Raises:
            ReblurModelError: with the iteration where it began.
        """
        if self.amp_dtype is not torch.float16:  # fp16 leaves such a step out by itself
            first = self.finite.first()
            if first is not None:
                raise ReblurModelError(
                    f"loss: expected finite numbers, got nan or infinity since iteration {first}; "
                    "use a smaller lr or grad_clip"
                )
        for updater in self.updaters.values():
            updater.check()

    def get_current_learning_rate(self) -> list[float]:
        """Return the learning rates of M_D, M_R and the discriminator."""
        return [updater.lr for updater in self.updaters.values()]

    @property
    def tested_net(self) -> nn.Module:
        """M_D as it is tested: the averaged one where there is one, never a data-parallel wrapper."""
        return self.net_g_ema if hasattr(self, "net_g_ema") else self.get_bare_model(self.net_g)

    def deblur(self, blurry: Tensor) -> Tensor:
        """Return L = M_D(B) in eval mode, `(B, 3, H, W)`, unclamped."""
        network = self.tested_net
        training = network.training
        network.eval()
        with torch.no_grad(), self._uncompiled():
            deblurred = finest(network(blurry.to(self.device)))
        network.train(training)
        if deblurred.shape != blurry.shape:
            raise ReblurModelError(
                f"network_g: expected an image of the input's shape {tuple(blurry.shape)}, got "
                f"{tuple(deblurred.shape)}; {type(network).__name__} can't deblur with these options"
            )
        return deblurred

    def reblur(self, deblurred: Tensor) -> Tensor:
        """Return M_R(L) in eval mode."""
        if self.net_r is None:
            raise ReblurModelError("val: reblurred: needs M_R; add network_r")
        network = self.get_bare_model(self.net_r)
        training = network.training
        network.eval()
        with torch.no_grad(), self._uncompiled():
            reblurred = network(deblurred)
        network.train(training)
        return reblurred

    def adapt(self, blurry: Tensor) -> Adaptation:
        """Return Algorithm 1's result by the choices of `val: tta`."""
        assert self.tta is not None
        blurry = blurry.to(self.device)
        plan = self.plan(blurry)
        with self._uncompiled():
            return adapt(self.tested_net, self.get_bare_model(self.net_r), blurry, self.tta, plan=plan)

    def plan(self, blurry: Tensor) -> Plan | None:
        """Return how a photograph adapts within `val: tta: max_memory`; None, if nothing adapts or there is no bound.

        Raises:
            AdaptError: if nothing fits.
        """
        if self.tta is None or self.tta.max_memory is None:
            return None
        with self._uncompiled():
            if self.costs is None:
                like = blurry[..., :1, :1].to(self.device)
                self.costs = Costs(self.tested_net, self.get_bare_model(self.net_r), like, self.tta)
            height, width = blurry.shape[-2:]
            return self.costs.plan(height, width, self.tta.max_memory)

    def test(self) -> None:
        """Deblur the fed batch: BasicSR's call; the result is `self.output`."""
        self.output = self.deblur(self.lq)

    def validation(self, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool = False) -> None:
        """Score M_D, before and after adaptation, on the data set of a loader; images are shared out to processes."""
        validate(self, dataloader.dataset, current_iter, tb_logger, save_img)

    def get_current_visuals(self) -> dict[str, Tensor]:
        """Return copies of the last images."""
        images = {"lq": self.lq, "result": finest(self.output), "gt": self.gt}
        return {name: image.detach().cpu().clone() for name, image in images.items() if image is not None}
