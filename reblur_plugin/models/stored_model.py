"""What a model writes to disk and takes up again: networks, then the training state that belongs to them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from reblur_plugin import checkpoints
from reblur_plugin.host import BaseModel, get_root_logger
from reblur_plugin.models.updater import ReblurModelError, Updater


class StoredModel(BaseModel):
    """BasicSR's contract of files for a model whose networks are moved by `updaters`."""

    updaters: dict[str, Updater]
    iteration: int
    net_g: nn.Module
    net_r: Any
    net_d: Any

    def check(self) -> None:
        """Raise unless the weights are worth saving."""
        raise NotImplementedError

    def save(self, epoch: int, current_iter: int) -> None:
        """Write the networks, then the training state. Iteration -1 is BasicSR's word for the end of training.

        Raises:
            ReblurModelError: if weights aren't finite; nothing is written then.
            CheckpointError: if the disk refuses.
        """
        self.check()
        if self.opt["rank"] == 0:
            self.save_networks("latest" if current_iter == -1 else current_iter)
        self.save_training_state(epoch, current_iter)

    def save_networks(self, name: int | str) -> None:
        """Write net_g_NAME.pth, net_r_NAME.pth, ...; each carries the options, versions and seed it comes from."""
        averaged = [self.net_g_ema] if hasattr(self, "net_g_ema") else []
        if "g" in self.updaters:
            self.save_network([self.net_g, *averaged], "net_g", name, ["params", "params_ema"][: 1 + len(averaged)])
        for label, network in (("r", self.net_r), ("d", self.net_d)):
            if network is not None:
                self.save_network(network, f"net_{label}", name)

    def save_network(
        self, net: nn.Module | Sequence[nn.Module], net_label: str, current_iter: int | str, param_key: Any = "params"
    ) -> None:
        """Write one checkpoint, whole or not at all."""
        networks = [net] if isinstance(net, nn.Module) else list(net)
        keys = [param_key] if isinstance(param_key, str) else list(param_key)
        content: dict[str, Any] = {
            key: {name: value.detach().cpu() for name, value in self.get_bare_model(network).state_dict().items()}
            for key, network in zip(keys, networks, strict=True)
        }
        content["origin"] = checkpoints.origin(self.opt, self.iteration)
        checkpoints.save(content, Path(self.opt["path"]["models"]) / f"{net_label}_{current_iter}.pth")

    def save_training_state(self, epoch: int, current_iter: int) -> None:
        """Write all that a resumed run needs, after the networks that belong to it; forget states beyond those kept."""
        if current_iter == -1 or self.opt["rank"] != 0:
            return
        state = {
            "epoch": epoch,
            "iter": current_iter,
            "draws": self.opt.get("draws", 0),
            "to_validate": self.opt.get("to_validate", False),
            "updaters": {label: updater.state_dict() for label, updater in self.updaters.items()},
            "best": getattr(self, "best_metric_results", {}),
            "origin": checkpoints.origin(self.opt, current_iter),
        }
        states = Path(self.opt["path"]["training_states"])
        checkpoints.save(state, states / f"{current_iter}.state")
        keep = self.opt.get("logger", {}).get("keep_checkpoints")
        if keep:
            checkpoints.forget(states, Path(self.opt["path"]["models"]), keep)

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
        for label, updater in self.updaters.items():
            for change in updater.load_state_dict(saved[label]):
                get_root_logger().warning(change)
        if resume_state["best"]:
            self.best_metric_results = resume_state["best"]
        self.iteration = resume_state["iter"]
