"""The paper's losses as modules for option files; `reblur_plugin.register()` makes them known to BasicSR."""
