#!/usr/bin/env bash
# Sets up what is missing, then runs the tests: scripts/test.sh [pytest arguments]
set -euo pipefail
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} # threads that wait leave the cores to others

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$("$root/scripts/setup.sh")
cd "$root"
exec "$python" -m pytest "$@"
