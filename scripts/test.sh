#!/usr/bin/env bash
# Sets up what is missing, then runs the tests on all cores: scripts/test.sh [pytest arguments]
# One process: scripts/test.sh -n 0 [pytest arguments]
set -euo pipefail
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}       # each core has a process of its own
export OMP_WAIT_POLICY=${OMP_WAIT_POLICY:-passive} # threads that wait leave the cores to others

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=$("$root/scripts/setup.sh")
cd "$root"
# worksteal: neighbours in a file stay together, so that what they share is made once
exec "$python" -m pytest -n auto --dist worksteal "$@"
