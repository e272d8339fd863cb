"""The BasicSR model that trains M_D and M_R together; `reblur_plugin.register()` makes it known to BasicSR."""
