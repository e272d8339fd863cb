"""The training and the test loop behind `python -m reblur_plugin.train` and `python -m reblur_plugin.test`."""
