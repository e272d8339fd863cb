"""Reading, pairing and augmenting images; the data set class is registered by `reblur_plugin.register()`."""
