"""Joint training of M_D and M_R (section 3.2) as a BasicSR model.

| paper     | BasicSR               |   | paper           | option key                         |
|-----------|-----------------------|---|-----------------|------------------------------------|
| M_D       | `net_g`               |   | L_1             | `train: pixel_opt`                 |
| M_R       | `net_r`               |   | lambda L_Reblur | `train: reblur_opt`                |
| (GAN's D) | `net_d`               |   | 0.3 L_VGG       | `train: perceptual_opt`            |
| B, S      | `lq`, `gt`            |   | 0.001 L_Adv     | `train: gan_opt`, with `network_d` |
| L         | `finest(self.output)` |   | Algorithm 1     | `val: tta`                         |

Without `network_r` M_D is trained by L_1 (and VGG, Adv) alone. All networks have an optimiser (`optim_g`, `optim_r`,
`optim_d`), a scheduler (`scheduler`, or `scheduler_r` for its own) and a gradient scaler of their own.
"""

from __future__ import annotations

import copy
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reblur_plugin import checkpoints, host
from reblur_plugin.core.adapt import Adaptation, AdaptConfig, adapt
from reblur_plugin.core.objectives import (
    SHARP_REFERENCES,
    SharpReference,
    collapse_indicator,
    deblurring_module_loss,
    finest,
    frozen,
    reblurring_module_loss,
    sharp_reference_image,
)
from reblur_plugin.errors import ReblurError
from reblur_plugin.losses.reblur_loss import BlurLoss, ReblurLoss, SharpLoss
from reblur_plugin.models.collapse import CollapseWatch
from reblur_plugin.models.schedule import MultiStepDecay, PiecewiseLinear
from reblur_plugin.models.validation import validate

host.prepare()

from basicsr.archs import build_network  # noqa: E402 - after host.prepare()
from basicsr.losses import build_loss  # noqa: E402
from basicsr.models.base_model import BaseModel  # noqa: E402
from basicsr.utils import get_root_logger  # noqa: E402

ORDERS = ("reblur_first", "deblur_first")
_AMP = {"bf16": torch.bfloat16, "fp16": torch.float16}
_SCALE = 1024.0  # first loss scale under fp16, as in the first author's code


class ReblurModelError(ReblurError):
    """Options that ReblurModel can't follow; the message names the key."""


class ReblurModel(BaseModel):
    """Trains M_D by L_D (Eq. 6) and M_R by L_R (Eq. 4), alternately on each batch; tests and adapts M_D.

    `train: reblur_opt` holds `loss_weight` (lambda, 1), `sharp_reference` (pseudo | real | none, Table 4),
    `sharp_weight` (1, or a schedule [[iteration, weight], ...]; D10) and `order` (reblur_first | deblur_first; D9).
    `train: amp` is bf16, fp16 or auto (bf16 where it is fast); `train: channels_last` true is faster on most devices;
    `train: grad_clip` limits the norm of each network's gradient; `train: ema_decay` as in BasicSR.
    """

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        channels_last = (opt.get("train") or {}).get("channels_last", False)
        self.memory_format = torch.channels_last if channels_last else torch.contiguous_format
        self.net_g = self._build("g")
        self.net_r: Any = self._build("r") if opt.get("network_r") else None
        self.net_d: Any = self._build("d") if opt.get("network_d") and self.is_train else None
        self.log_dict: dict[str, Tensor] = {}
        self.gt: Any = None
        if self.is_train:
            self.init_training_settings()
        tta = (opt.get("val") or {}).get("tta")
        self.tta = AdaptConfig(**tta) if tta else None
        if self.tta and self.net_r is None:
            raise ReblurModelError("val: tta: adaptation needs M_R; add network_r and path: pretrain_network_r")

    # ---- set-up ----------------------------------------------------------------------------------------------------

    def init_training_settings(self) -> None:
        """Build losses, optimisers, schedulers and scalers."""
        train = self.opt["train"]
        self.amp_dtype = self._amp_dtype(train.get("amp"))
        self.ema_decay = train.get("ema_decay", 0)
        if self.ema_decay > 0:
            self.net_g_ema = copy.deepcopy(self.get_bare_model(self.net_g)).eval().requires_grad_(False)
            path = self.opt["path"].get("pretrain_network_g")
            if path and "params_ema" in checkpoints.load(path):
                checkpoints.load_weights(
                    self.net_g_ema, path, "params_ema", self.opt["path"].get("strict_load_g", True)
                )
        self._init_losses(train)
        self.setup_optimizers()
        self.setup_schedulers()
        enabled = self.amp_dtype is torch.float16
        self.scalers = {
            label: torch.amp.GradScaler(self.device.type, init_scale=_SCALE, enabled=enabled)
            for label in self.optimizer_of
        }

    def _amp_dtype(self, amp: str | None) -> torch.dtype | None:
        """Return the low precision that `train: amp` names; "auto" takes bf16 where the device has units for it."""
        if amp == "auto":
            fast = torch.cuda.is_bf16_supported() if self.device.type == "cuda" else torch.cpu._is_amx_tile_supported()
            return torch.bfloat16 if fast else None
        if amp is not None and amp not in _AMP:
            raise ReblurModelError(f"train: amp: expected bf16, fp16, auto or nothing, got {amp!r}")
        return None if amp is None else _AMP[amp]

    def _init_losses(self, train: dict[str, Any]) -> None:
        self.cri_pix = self._loss(train, "pixel_opt")
        self.cri_perceptual = self._loss(train, "perceptual_opt")
        self.cri_gan = self._loss(train, "gan_opt")
        if (self.cri_gan is None) != (self.net_d is None):
            raise ReblurModelError("train: gan_opt and network_d belong together; give both or none")
        reblur = train.get("reblur_opt")
        if bool(reblur) != (self.net_r is not None):
            raise ReblurModelError("train: reblur_opt and network_r belong together; give both or none")
        if not any((self.cri_pix, self.cri_perceptual, reblur)):
            raise ReblurModelError("train: no loss for M_D; give pixel_opt (L1), reblur_opt or perceptual_opt")
        if reblur:
            self._init_reblur_losses(dict(reblur))

    def _init_reblur_losses(self, reblur: dict[str, Any]) -> None:
        self.reblur_weight = reblur.pop("loss_weight", 1.0)
        self.cri_reblur, self.cri_blur, self.cri_sharp = ReblurLoss(), BlurLoss(), SharpLoss()
        self.collapse = CollapseWatch()
        self.order = reblur.pop("order", ORDERS[0])
        self.sharp_reference = reblur.pop("sharp_reference", "pseudo")
        for key, value, choices in (
            ("order", self.order, ORDERS),
            ("sharp_reference", self.sharp_reference, SHARP_REFERENCES),
        ):
            if value not in choices:
                raise ReblurModelError(f"train: reblur_opt: {key}: expected one of {', '.join(choices)}, got {value!r}")
        try:
            self.sharp_weight = PiecewiseLinear.parse(reblur.pop("sharp_weight", 1.0))
        except ValueError as error:
            raise ReblurModelError(f"train: reblur_opt: sharp_weight: {error}") from error
        if reblur:
            raise ReblurModelError(
                f"train: reblur_opt: unknown key {', '.join(reblur)}; "
                "expected loss_weight, sharp_reference, sharp_weight, order"
            )

    def _loss(self, train: dict[str, Any], key: str) -> Any:
        return build_loss(train[key]).to(self.device) if train.get(key) else None

    def _build(self, label: str) -> nn.Module:
        network = build_network(self.opt[f"network_{label}"])
        path = self.opt["path"].get(f"pretrain_network_{label}")
        if path:
            # In training the raw weights go on; a test takes the averaged ones where there are some.
            key = self.opt["path"].get(f"param_key_{label}") or self._raw_key(path)
            checkpoints.load_weights(network, path, key, self.opt["path"].get(f"strict_load_{label}", True))
            get_root_logger().info(f"Loaded net_{label} from {path} ({key or 'params_ema or params'}).")
        elif not self.is_train:
            raise ReblurModelError(f"path: pretrain_network_{label}: missing; a test needs a checkpoint")
        count = sum(parameter.numel() for parameter in network.parameters())
        get_root_logger().info(f"net_{label}: {type(network).__name__}, {count:,} parameters.")
        return self.model_to_device(network.to(memory_format=self.memory_format))

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Move a network to the device; under torchrun let its gradients be averaged over the processes."""
        net = net.to(self.device)
        if not self.opt["dist"] or not any(parameter.requires_grad for parameter in net.parameters()):
            return net
        devices = [torch.cuda.current_device()] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(
            net, device_ids=devices, find_unused_parameters=self.opt.get("find_unused_parameters", False)
        )

    def _raw_key(self, path: str) -> str | None:
        return "params" if self.is_train and "params" in checkpoints.load(path) else None

    def setup_optimizers(self) -> None:
        """Build one optimiser for each network, from `optim_g`, `optim_r`, `optim_d`."""
        networks = {"g": self.net_g, "r": self.net_r, "d": self.net_d}
        self.optimizer_of: dict[str, torch.optim.Optimizer] = {}
        for label, network in networks.items():
            if network is None:
                continue
            network.train()
            options = dict(self.opt["train"].get(f"optim_{label}") or {})
            if not options:
                raise ReblurModelError(f"train: optim_{label}: missing; e.g. {{type: Adam, lr: 1e-4}}")
            kind = options.pop("type", "Adam")
            parameters = [parameter for parameter in network.parameters() if parameter.requires_grad]
            self.optimizer_of[label] = self.get_optimizer(kind, parameters, **options)
        self.optimizers = list(self.optimizer_of.values())

    def get_optimizer(self, optim_type: str, params: Any, lr: float, **kwargs: Any) -> torch.optim.Optimizer:
        """Return any of PyTorch's optimisers by its name."""
        kind = getattr(torch.optim, optim_type, None)
        if not (isinstance(kind, type) and issubclass(kind, torch.optim.Optimizer)):
            raise ReblurModelError(f"train: optim: type: PyTorch has no optimiser {optim_type!r}; the paper uses Adam")
        build: Callable[..., torch.optim.Optimizer] = kind
        return build(params, lr=lr, **kwargs)

    def setup_schedulers(self) -> None:
        """Build one scheduler for each optimiser, from `scheduler_g`, `scheduler_r`, `scheduler_d` or `scheduler`."""
        for label, optimizer in self.optimizer_of.items():
            train = self.opt["train"]
            options = dict(train.get(f"scheduler_{label}") or train.get("scheduler") or {})
            if not options:
                raise ReblurModelError(
                    "train: scheduler: missing; e.g. {type: MultiStepLR, milestones: [...], gamma: 0.5}"
                )
            kind = options.pop("type", "MultiStepLR")
            if kind != "MultiStepLR":
                raise ReblurModelError(f"train: scheduler: type: expected MultiStepLR, got {kind!r}")
            decay = MultiStepDecay(tuple(options.pop("milestones", ())), options.pop("gamma", 0.5))
            if options:
                raise ReblurModelError(f"train: scheduler: unknown key {', '.join(options)}")
            self.schedulers.append(torch.optim.lr_scheduler.LambdaLR(optimizer, decay))

    # ---- one iteration ---------------------------------------------------------------------------------------------

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch: `lq` and, where there is one, `gt`."""
        self.lq = self._to_device(data["lq"])
        self.gt = self._to_device(data["gt"]) if "gt" in data else None

    def _to_device(self, images: Tensor) -> Tensor:
        return images.to(self.device, non_blocking=True, memory_format=self.memory_format)

    def optimize_parameters(self, current_iter: int) -> None:
        """Update M_D and M_R (and the discriminator) once, by the batch at hand; L = M_D(B) is computed once."""
        self.log_dict = OrderedDict()
        with self._autocast():
            self.output = self.net_g(self.lq)
        deblurred = finest(self.output).detach()
        opponents: list[Callable[[], None]] = []
        if self.net_r is not None:
            opponents.append(partial(self._update_reblur_net, deblurred, current_iter))
        if self.net_d is not None:
            opponents.append(partial(self._update_discriminator, deblurred))
        updates = [*opponents, self._update_deblur_net]
        if self.net_r is not None and self.order == "deblur_first":
            updates = [self._update_deblur_net, *opponents]
        for update in updates:
            update()
        if self.ema_decay > 0:
            self.model_ema(self.ema_decay)

    def _update_reblur_net(self, deblurred: Tensor, current_iter: int) -> None:
        """Step theta_R along L_R = L_Blur + L_Sharp (Eq. 4); nothing of it reaches theta_D."""
        weight = self.sharp_weight(current_iter)
        reference: SharpReference = self.sharp_reference if weight > 0 else "none"
        with self._autocast():
            preserved = sharp_reference_image(self.get_bare_model(self.net_g), self.gt, reference)
            l_blur = self.cri_blur(self.net_r, deblurred, self.lq)
            l_sharp = None if preserved is None else self.cri_sharp(self.net_r, preserved)
            l_total = reblurring_module_loss(l_blur, l_sharp, weight)
        self._step("r", l_total)
        rho = collapse_indicator(l_blur, deblurred, self.lq)
        self.collapse.add(rho)
        self._log(l_r_blur=l_blur, rho=rho)
        if l_sharp is not None:
            self._log(l_r_sharp=l_sharp)

    def _update_deblur_net(self) -> None:
        """Step theta_D along L_D = L_1 + lambda L_Reblur (Eq. 6) + L_VGG + L_Adv; its opponents are held."""
        deblurred = finest(self.output)
        losses: dict[str, Tensor] = {}
        with ExitStack() as held, self._autocast():
            opponents = {"r": self.net_r, "d": self.net_d}
            bare = {label: self.get_bare_model(network) for label, network in opponents.items() if network is not None}
            for network in bare.values():
                held.enter_context(frozen(network))
            if self.cri_pix:
                losses["l_g_pix"] = self.cri_pix(self.output, self.gt)
            if self.cri_perceptual:
                perceptual, style = self.cri_perceptual(deblurred, self.gt)
                losses |= {"l_g_percep": perceptual} if perceptual is not None else {}
                losses |= {"l_g_style": style} if style is not None else {}
            if "d" in bare:
                losses["l_g_gan"] = self.cri_gan(bare["d"](deblurred), True, is_disc=False)
            l_total = sum(losses.values(), start=deblurred.new_zeros((), dtype=torch.float32))
            if "r" in bare:
                losses["l_g_reblur"] = self.cri_reblur(bare["r"], deblurred, self.gt)
                l_total = deblurring_module_loss(l_total, losses["l_g_reblur"], self.reblur_weight)
            self._step("g", l_total)
        self._log(**losses)

    def _update_discriminator(self, deblurred: Tensor) -> None:
        """Step the discriminator along its cross-entropy on S (real) and L (fake)."""
        with self._autocast():
            l_real = self.cri_gan(self.net_d(self.gt), True, is_disc=True)
            l_fake = self.cri_gan(self.net_d(deblurred), False, is_disc=True)
        self._step("d", l_real + l_fake)
        self._log(l_d_real=l_real, l_d_fake=l_fake)

    def _step(self, label: str, loss: Tensor) -> None:
        """Update one network: backward, clip, optimiser step, all under its own scaler."""
        optimizer, scaler = self.optimizer_of[label], self.scalers[label]
        optimizer.zero_grad(set_to_none=True)
        scaler.scale(loss).backward()
        clip = self.opt["train"].get("grad_clip")
        if clip:
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], clip)
        scaler.step(optimizer)
        scaler.update()

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self.amp_dtype, enabled=self.amp_dtype is not None)

    @torch.no_grad()
    def model_ema(self, decay: float = 0.999) -> None:
        """Move the averaged M_D towards M_D; buffers are copied."""
        network = self.get_bare_model(self.net_g)
        torch._foreach_lerp_(list(self.net_g_ema.parameters()), list(network.parameters()), 1 - decay)
        for averaged, buffer in zip(self.net_g_ema.buffers(), network.buffers(), strict=True):
            averaged.copy_(buffer)

    # ---- what is logged --------------------------------------------------------------------------------------------

    def _log(self, **values: Tensor) -> None:
        self.log_dict |= {name: value.detach() for name, value in values.items()}

    def get_current_log(self) -> dict[str, float]:
        """Return this iteration's losses, rho and M_R's learning rate; warn if M_R has become the identity."""
        log: dict[str, float] = self.reduce_loss_dict(self.log_dict)
        if self.net_r is not None:
            log["lr_r"] = self.optimizer_of["r"].param_groups[0]["lr"]
            warning = self.collapse.warning()
            if warning:
                get_root_logger().warning(warning)
        return log

    def get_current_learning_rate(self) -> list[float]:
        """Return the learning rates of M_D, M_R and the discriminator."""
        return [optimizer.param_groups[0]["lr"] for optimizer in self.optimizers]

    # ---- test and adaptation ---------------------------------------------------------------------------------------

    @property
    def tested_net(self) -> nn.Module:
        """M_D as it is tested: the averaged one where there is one, never a data-parallel wrapper."""
        return self.net_g_ema if hasattr(self, "net_g_ema") else self.get_bare_model(self.net_g)

    def deblur(self, blurry: Tensor) -> Tensor:
        """Return L = M_D(B) in eval mode, `(1, 3, H, W)`, unclamped."""
        network = self.tested_net
        training = network.training
        network.eval()
        with torch.no_grad():
            deblurred = finest(network(blurry.to(self.device)))
        network.train(training)
        return deblurred

    def adapt(self, blurry: Tensor) -> Adaptation:
        """Return Algorithm 1's result by the choices of `val: tta`."""
        return adapt(self.tested_net, self.get_bare_model(self.net_r), blurry.to(self.device), self.tta)

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

    # ---- files -----------------------------------------------------------------------------------------------------

    def save(self, epoch: int, current_iter: int) -> None:
        """Write the networks, then the training state. Iteration -1 is BasicSR's word for the end of training."""
        networks = {"g": self.net_g, "r": self.net_r, "d": self.net_d}
        for label, network in networks.items():
            if network is None:
                continue
            if label == "g" and self.ema_decay > 0:
                self.save_network([network, self.net_g_ema], "net_g", current_iter, ["params", "params_ema"])
            else:
                self.save_network(network, f"net_{label}", current_iter)
        self.save_training_state(epoch, current_iter)

    def save_network(
        self, net: nn.Module | Sequence[nn.Module], net_label: str, current_iter: int, param_key: Any = "params"
    ) -> None:
        """Write one checkpoint, whole or not at all."""
        if self.opt["rank"] != 0:
            return
        networks = [net] if isinstance(net, nn.Module) else list(net)
        keys = [param_key] if isinstance(param_key, str) else list(param_key)
        content = {
            key: {name: value.detach().cpu() for name, value in self.get_bare_model(network).state_dict().items()}
            for key, network in zip(keys, networks, strict=True)
        }
        iteration = "latest" if current_iter == -1 else current_iter
        checkpoints.save(content, Path(self.opt["path"]["models"]) / f"{net_label}_{iteration}.pth")

    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Write optimisers, schedulers and scalers, after the networks that belong to them."""
        if current_iter == -1 or self.opt["rank"] != 0:
            return
        state = {
            "epoch": epoch,
            "iter": current_iter,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "schedulers": [scheduler.state_dict() for scheduler in self.schedulers],
            "scalers": {label: scaler.state_dict() for label, scaler in self.scalers.items()},
            "rng": torch.get_rng_state(),
        }
        checkpoints.save(state, Path(self.opt["path"]["training_states"]) / f"{current_iter}.state")

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Take up optimisers, schedulers and scalers where a training state left them."""
        super().resume_training(resume_state)
        for label, state in resume_state.get("scalers", {}).items():
            self.scalers[label].load_state_dict(state)
        if "rng" in resume_state:
            torch.set_rng_state(resume_state["rng"].cpu())
