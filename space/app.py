"""Serves the page to everybody, at the port that a Space shows."""

import sys

from reblur_plugin import cli
from reblur_plugin.app.__main__ import main

sys.argv[1:] = ["--host", "0.0.0.0", "--port", "7860", "--open-to-all", "--max-megapixels", "8", "--max-upload", "40M"]
sys.exit(cli.guarded(main))
