#!/usr/bin/env bash
# Sets up what is missing, then runs the tests: scripts/test.sh [pytest arguments]
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$("$root/scripts/setup.sh")
cd "$root"
exec "$python" -m pytest "$@"
