"""The paper's networks as plain `torch.nn.Module`s; `reblur_plugin.register()` makes them known to BasicSR."""
