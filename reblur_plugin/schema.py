"""`python -m reblur_plugin.schema`: print the JSON Schema of option files, for editors."""

from __future__ import annotations

import json
import sys

from reblur_plugin.options import schema


def main() -> int:
    """Print the schema of one option file."""
    sys.stdout.write(json.dumps(schema.for_editors(), indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
