"""`python -m reblur_plugin.schema`: print the JSON Schema of option files, for editors, or the page of all keys."""

from __future__ import annotations

import argparse
import json
import sys

from reblur_plugin import cli
from reblur_plugin.options import page, schema


def main() -> int:
    """Print the schema of one option file, or docs/options.md."""
    parser = argparse.ArgumentParser(
        "python -m reblur_plugin.schema", description="Print the JSON Schema of option files, for editors."
    )
    parser.add_argument("--markdown", action="store_true", help="print docs/options.md instead, a table of all keys")
    if parser.parse_args().markdown:
        sys.stdout.write(page.markdown())
    else:
        sys.stdout.write(json.dumps(schema.for_editors(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(cli.guarded(main))
