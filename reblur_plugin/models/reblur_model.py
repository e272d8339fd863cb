"""Joint training of M_D and M_R (section 3.2) as a BasicSR model.

| paper     | BasicSR               |   | paper           | option key                         |
|-----------|-----------------------|---|-----------------|------------------------------------|
| M_D       | `net_g`               |   | L_1             | `train: pixel_opt`                 |
| M_R       | `net_r`               |   | lambda L_Reblur | `train: reblur_opt`                |
| (GAN's D) | `net_d`               |   | 0.3 L_VGG       | `train: perceptual_opt`            |
| B, S      | `lq`, `gt`            |   | 0.001 L_Adv     | `train: gan_opt`, with `network_d` |
| L         | `output`              |   | Algorithm 1     | `val: tta`                         |

Without `network_r` M_D is trained by L_1 (and VGG, Adv) alone. All networks have an optimiser (`optim_g`,
`optim_r`, `optim_d`), a learning rate (`scheduler`, or `scheduler_r` for its own) and a gradient scaler of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from reblur_plugin import checkpoints, training_states
from reblur_plugin.core.adapt import Adaptation, AdaptConfig, Adapter
from reblur_plugin.core.boundary import bare, evaluated
from reblur_plugin.core.device import as_written
from reblur_plugin.core.parts import Plan
from reblur_plugin.core.updater import Updater
from reblur_plugin.evaluation import output
from reblur_plugin.evaluation.request import Request
from reblur_plugin.evaluation.scores import Scores
from reblur_plugin.evaluation.scoring import first_set
from reblur_plugin.evaluation.validation import evaluate
from reblur_plugin.host import BaseModel, get_root_logger
from reblur_plugin.models import best, building, optimisers
from reblur_plugin.models.criteria import Criteria, ReblurModelError
from reblur_plugin.models.watch import CollapseWatch, FiniteWatch

# What JointStep calls its losses -> BasicSR's names for logs and curves; those of `Criteria` have them already.
_LOGGED = {"l_blur": "l_r_blur", "l_sharp": "l_r_sharp", "l_reblur": "l_g_reblur"}
_LOGGED |= {"l_real": "l_d_real", "l_fake": "l_d_fake"}


class ReblurModel(BaseModel):
    """BasicSR's contract around `JointStep` and `Adapter`: options (docs/options.md), batches, validation, files."""

    def __init__(self, opt: dict[str, Any]) -> None:
        super().__init__(opt)
        train, val = opt.get("train") or {}, opt.get("val") or {}
        self.memory_format = torch.channels_last if train.get("channels_last") else torch.contiguous_format
        self.frozen_g = self.is_train and bool(train.get("freeze_deblur_net"))
        self.net_g = self._build("g")
        self.net_r: Any = self._build("r") if opt.get("network_r") else None
        self.net_d: Any = self._build("d") if opt.get("network_d") and self.is_train else None
        self.updaters: dict[str, Updater] = {}
        self.log_dict: dict[str, Tensor] = {}
        self.gt: Any = None
        self.best_metric_results: dict[str, Any] = {}  # by data set
        self.iteration = 0
        self.is_compiled = False
        if self.is_train:
            self.init_training_settings()
        shown = tuple(val.get("adapted_steps") or ())
        self.tta = None if val.get("tta") is None else AdaptConfig(**val["tta"], keep=shown)
        for key, is_asked in (("tta", self.tta is not None), ("reblurred", val.get("reblurred"))):
            if is_asked and self.net_r is None:
                raise ReblurModelError(f"val: {key}: needs M_R; add network_r and path: pretrain_network_r")
        if self.tta is not None and self.net_r is not None:
            self.adapter = Adapter(self.tested_net, bare(self.net_r), self.tta, decay=0)

    def _build(self, label: str) -> nn.Module:
        is_frozen = label == "g" and self.frozen_g
        network = building.network(self.opt, label, raw=self.is_train and not is_frozen)
        if is_frozen:
            network.eval().requires_grad_(False)
        return self.model_to_device(network.to(memory_format=self.memory_format))

    def model_to_device(self, net: nn.Module) -> nn.Module:
        """Move a network to the device; under torchrun let its gradients be averaged over the processes."""
        net = net.to(self.device)
        if not (self.opt["dist"] and self.is_train):
            return net
        return building.parallel(net, self.device, self.opt.get("find_unused_parameters", False))

    def init_training_settings(self) -> None:
        """Build the losses, each network's updater and the step that they take together."""
        train = self.opt["train"]
        self.amp_dtype = building.autocast_type(train.get("amp"), self.device)
        self.ema_decay = train.get("ema_decay", 0)
        if self.ema_decay > 0:
            self.net_g_ema = building.average(self.net_g, self.opt)
        self.criteria = Criteria.build(train, self.device)
        self.criteria.check(self.net_r is not None, self.net_d is not None)
        if self.frozen_g and (self.net_r is None or not building.is_trained(self.opt)):
            raise ReblurModelError(
                "train: freeze_deblur_net: trains M_R on a trained M_D; give reblur_opt and path: pretrain_network_g"
            )
        networks = {"g": self.net_g, "r": self.net_r, "d": self.net_d}
        self.is_compiled = bool(train.get("compile"))
        if self.is_compiled:
            building.require_compiler()
            for network in filter(None, networks.values()):
                bare(network).compile(dynamic=False)  # in place: names of weights stay as they are
        moved = {label: net for label, net in networks.items() if net and not (label == "g" and self.frozen_g)}
        self.updaters = {
            label: optimisers.updater(label, network.train(), train, self.amp_dtype) for label, network in moved.items()
        }
        self.rates = {label: optimisers.learning_rate(label, made, train) for label, made in self.updaters.items()}
        self.optimizers = [updater.optimizer for updater in self.updaters.values()]
        self.finite, self.collapse = FiniteWatch(self.device), CollapseWatch()
        deblur = self.updaters.get("g") or Updater(self.net_g, precision=self.amp_dtype)
        accumulate = train.get("accumulate", 1)
        self.step = self.criteria.step(deblur, self.updaters.get("r"), self.updaters.get("d"), accumulate)

    def feed_data(self, data: dict[str, Any]) -> None:
        """Take a batch: `lq` and, where there is one, `gt`."""
        keys = [key for key in ("lq", "gt") if key in data]
        moved = {key: data[key].to(self.device, non_blocking=True, memory_format=self.memory_format) for key in keys}
        self.lq, self.gt = moved["lq"], moved.get("gt")

    def update_learning_rate(self, current_iter: int, warmup_iter: int = -1) -> None:
        """Set each network's learning rate for this iteration."""
        for label, updater in self.updaters.items():
            updater.lr = self.rates[label](current_iter, warmup_iter)

    def optimize_parameters(self, current_iter: int) -> None:
        """Update M_D and M_R (and the discriminator) once, by the batch at hand."""
        self.iteration, self.step.iteration = current_iter, current_iter - 1
        losses = self.step(self.lq, self.gt)
        self.finite.add(losses, current_iter)
        if "rho" in losses:
            self.collapse.add(losses["rho"])
        self.log_dict = {_LOGGED.get(name, name): loss for name, loss in losses.items()}
        if self.ema_decay > 0:
            self.model_ema(self.ema_decay)

    def model_ema(self, decay: float = 0.999) -> None:
        """Move the averaged M_D towards M_D; buffers are copied."""
        building.move_average(self.net_g_ema, bare(self.net_g), decay)

    def get_current_log(self) -> dict[str, float]:
        """Return this iteration's losses (means over the processes), rho, and all learning rates.

        Raises:
            ReblurError: if a loss isn't finite or fp16 fails.
        """
        self.check()
        log: dict[str, float] = self.reduce_loss_dict(self.log_dict)
        log |= {f"lr_{label}": updater.lr for label, updater in self.updaters.items()}
        warning = self.collapse.warning()
        if warning:
            get_root_logger().warning(warning)
        skipped = sum(int(updater.skipped) for updater in self.updaters.values() if updater.scaler.is_enabled())
        return log | {"skipped_fp16_steps": skipped} if skipped else log

    def check(self) -> None:
        """Stop before numbers that aren't finite are logged as a result or saved.

        Raises:
            ReblurError: with the iteration where it began.
        """
        if self.amp_dtype is not torch.float16:  # fp16 leaves such a step out by itself
            self.finite.check()
        for updater in self.updaters.values():
            updater.check()

    def get_current_learning_rate(self) -> list[float]:
        """Return the learning rates of M_D, M_R and the discriminator."""
        return [updater.lr for updater in self.updaters.values()]

    @property
    def tested_net(self) -> nn.Module:
        """M_D as it is tested: the averaged one where there is one, never a data-parallel wrapper."""
        return self.net_g_ema if hasattr(self, "net_g_ema") else bare(self.net_g)

    def deblur(self, blurry: Tensor) -> Tensor:
        """Return L = M_D(B) in eval mode, `(B, 3, H, W)`, unclamped."""
        network = self.tested_net
        with as_written(self.is_compiled):
            return evaluated(network, blurry.to(self.device), f"network_g: {type(network).__name__}")

    def reblur(self, deblurred: Tensor) -> Tensor:
        """Return M_R(L) in eval mode."""
        if self.net_r is None:
            raise ReblurModelError("val: reblurred: needs M_R; add network_r")
        network = bare(self.net_r)
        with as_written(self.is_compiled):
            return evaluated(network, deblurred, f"network_r: {type(network).__name__}")

    def adapt(self, blurry: Tensor) -> Adaptation:
        """Return Algorithm 1's result by the choices of `val: tta`."""
        with as_written(self.is_compiled):
            return self.adapter(blurry.to(self.device))

    def plan(self, blurry: Tensor) -> Plan | None:
        """Return how a photograph adapts within `val: tta: max_memory`; None, if nothing adapts or there is no bound.

        Raises:
            AdaptError: if nothing fits.
        """
        if self.tta is None or self.tta.max_memory is None:
            return None
        with as_written(self.is_compiled):
            return self.adapter.plan(blurry.to(self.device))

    def test(self) -> None:
        """Deblur the fed batch: BasicSR's call; the result is `self.output`."""
        self.output = self.deblur(self.lq)

    def validation(self, dataloader: Any, current_iter: int | str, tb_logger: Any, save_img: bool = False) -> None:
        """Score M_D, before and after adaptation, on the data set of a loader; images are shared out to processes."""
        name = dataloader.dataset.opt["name"]
        request = Request.of(self.opt, name, current_iter if save_img else None)
        with as_written(self.is_compiled):
            scores = evaluate(self, dataloader.dataset, request, None if self.net_r is None else bare(self.net_r))
        found = self._keep_best(name, scores, request, current_iter) if self.is_train and request.metrics else {}
        output.log_means(name, scores, found, request.metrics)
        output.add_to_curves(name, scores, current_iter, tb_logger)
        if not self.is_train and request.rank == 0:
            output.write_tables(name, scores, request.metrics, Path(self.opt["path"]["log"]))

    def _keep_best(self, set_name: str, scores: Scores, request: Request, current_iter: int | str) -> dict[str, Any]:
        """Return the best means of a data set so far; save the networks where they are the best by `val: best`."""
        found = best.updated(self.best_metric_results.get(set_name, {}), scores, request.metrics, current_iter)
        self.best_metric_results[set_name] = found
        chosen = self.opt["val"].get("best")
        is_best = chosen in found and found[chosen]["iter"] == current_iter and set_name == first_set(self.opt)
        if is_best and request.rank == 0:
            self.save_networks("best")
        return found

    def get_current_visuals(self) -> dict[str, Tensor]:
        """Return copies of the last images."""
        images = {"lq": self.lq, "result": self.output, "gt": self.gt}
        return {name: image.detach().cpu().clone() for name, image in images.items() if image is not None}

    def save(self, epoch: int, current_iter: int) -> None:
        """Write the networks, then the training state. Iteration -1 is BasicSR's word for the end of training.

        Raises:
            ReblurError: if weights aren't finite (nothing is written then) or the disk refuses.
        """
        self.check()
        if self.opt["rank"] == 0:
            self.save_networks("latest" if current_iter == -1 else current_iter)
        self.save_training_state(epoch, current_iter)

    def save_networks(self, name: int | str) -> None:
        """Write net_g_NAME.pth, net_r_NAME.pth, ..., but a frozen M_D."""
        averaged = [self.net_g_ema] if hasattr(self, "net_g_ema") else []
        for label, updater in self.updaters.items():
            networks = [updater.network, *(averaged if label == "g" else [])]
            self.save_network(networks, f"net_{label}", name, ["params", "params_ema"][: len(networks)])

    def save_network(
        self, net: nn.Module | Sequence[nn.Module], net_label: str, current_iter: int | str, param_key: Any = "params"
    ) -> None:
        """Write one checkpoint, whole or not at all."""
        networks = [net] if isinstance(net, nn.Module) else list(net)
        keys = [param_key] if isinstance(param_key, str) else list(param_key)
        origin = checkpoints.origin(self.opt, self.iteration)
        path = Path(self.opt["path"]["models"]) / f"{net_label}_{current_iter}.pth"
        checkpoints.save_network(dict(zip(keys, networks, strict=True)), origin, path)

    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Write all that a resumed run needs, after the networks that belong to it; forget states beyond those kept."""
        if current_iter == -1 or self.opt["rank"] != 0:
            return
        state = training_states.content(self.opt, epoch, current_iter, self.updaters, self.best_metric_results)
        states = Path(self.opt["path"]["training_states"])
        checkpoints.save(state, states / f"{current_iter}.state")
        training_states.forget(
            states, Path(self.opt["path"]["models"]), self.opt.get("logger", {}).get("keep_checkpoints")
        )

    def resume_training(self, resume_state: dict[str, Any]) -> None:
        """Take up a training state; where the options differ from it they hold, and the log says so.

        Raises:
            ReblurModelError: if it belongs to other networks.
        """
        saved = resume_state.get("updaters", {})
        if saved.keys() != self.updaters.keys():
            raise ReblurModelError(
                f"resume: expected a training state of ReblurModel for net_{', net_'.join(self.updaters)}, "
                f"got one for {', '.join(f'net_{label}' for label in saved) or 'another model'}"
            )
        self.iteration = resume_state["iter"]
        for label, updater in self.updaters.items():
            for key, (own, old) in updater.load_state_dict(saved[label]).items():
                anew = ", and it begins with new ones" if key == "moments" else ""
                get_root_logger().warning(
                    f"optim_{label}: {key}: {own} in the options, {old} in the saved state; the options hold{anew}"
                )
            updater.lr = self.rates[label](self.iteration)
        before, now = resume_state.get("judged") or {}, training_states.judged(self.opt)
        self.best_metric_results, notes = best.comparable(resume_state["best"], before, now)
        for note in notes:
            get_root_logger().warning(note)
