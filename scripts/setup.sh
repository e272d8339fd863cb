#!/usr/bin/env bash
# Installs what the project needs, once, and prints the path of the Python that has it: python=$(scripts/setup.sh)
# It goes into the active virtual environment, else into .venv of this checkout, made from $PYTHON or python3.
# Packages that an active environment already holds are kept where they fit (a CPU build of torch, say).
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)

say() { printf 'setup: %s\n' "$*" >&2; }

fail() {
    say "$*"
    exit 1
}

version_of() { "$1" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' 2>/dev/null; }

require_python() { # interpreter, remedy
    local version
    version=$(version_of "$1") || fail "Python: expected 3.10 or newer, got nothing that runs as '$1'; $2"
    case $version in
        3.[1-9][0-9].*) ;;
        *) fail "Python: expected 3.10 or newer, got $version ('$1'); $2" ;;
    esac
}

active_environment() {
    if [[ -n ${VIRTUAL_ENV:-} ]]; then
        printf '%s\n' "$VIRTUAL_ENV"
    elif [[ ${CONDA_DEFAULT_ENV:-} != base ]]; then # base is conda's own installation: left alone
        printf '%s\n' "${CONDA_PREFIX:-}"
    fi
}

make_venv() {
    local base remedy="install one, or name one that you have: PYTHON=python3.12 $0"
    # None named: what made the .venv that is replaced makes the new one too.
    base=${PYTHON:-$("$python" -c 'import sys; print(sys._base_executable)' 2>/dev/null || echo python3)}
    require_python "$base" "$remedy"
    "$base" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "Python: expected the modules venv and ensurepip, got a '$base' without them;" \
            "install them (Debian, Ubuntu: apt install python3-venv), or name another Python: PYTHON=python3.12 $0"
    say "making .venv with Python $(version_of "$base")"
    rm -rf "$environment"
    mkdir "$environment"
    echo $$ >"$unfinished"
    "$base" -m venv "$environment" >&2 || fail "venv: expected a new .venv, got the error above; $remedy"
}

why_make_venv() { # the reason to start .venv anew, or nothing
    if [[ ! -e $environment ]]; then
        echo "there is no .venv yet"
    elif ! version_of "$python" >/dev/null; then
        echo "the Python of .venv does not run"
    elif [[ -e $unfinished ]]; then # files may be half written, which pip cannot see
        echo "the last set-up did not finish"
    elif [[ -n ${PYTHON:-} && $(version_of "$PYTHON") != "$(version_of "$python")" ]]; then
        echo "PYTHON is another Python than that of .venv"
    fi
}

pip_install() { # the last argument names what is installed
    # PIP_USE_PEP517: left to itself an old pip builds an sdist in a way that may fetch a second torch.
    PIP_USE_PEP517=1 "$python" -m pip install --quiet --no-input --disable-pip-version-check "$@" >&2 ||
        fail "pip: expected to install ${*: -1}, got the error above; cure it and run the same command again"
}

fingerprint() { # of what was asked for; fails where a requirement is not there
    (cd "$root" && "$python" -I - "$root" setup.py pyproject.toml scripts/setup.sh scripts/build_shim/sitecustomize.py) <<'END'
import hashlib, re, sys
from importlib.metadata import distribution, requires
from pathlib import Path

for requirement in requires("reblur_plugin"):
    distribution(re.match(r"[\w.-]+", requirement)[0])
asked = [sys.version.encode(), sys.argv[1].encode(), *(Path(name).read_bytes() for name in sys.argv[2:])]
print(hashlib.sha256(b"\0".join(asked)).hexdigest())
END
}

environment=$(active_environment)
[[ -n $environment ]] || environment=$root/.venv
python=$environment/bin/python
stamp=$environment/reblur_plugin.stamp
unfinished=$environment/reblur_plugin.unfinished # holds the number of the process that installs

if [[ -e $unfinished ]] && kill -0 "$(<"$unfinished")" 2>/dev/null; then
    fail "$environment: expected no other set-up, got process $(<"$unfinished") at work on it;" \
        "wait until it ends, or delete $unfinished if it is something else"
fi
if [[ $environment == "$root/.venv" ]]; then
    [[ -z ${PYTHON:-} ]] || require_python "$PYTHON" "name another: PYTHON=python3.12 $0"
    reason=$(why_make_venv)
    if [[ -n $reason ]]; then
        say "$reason"
        make_venv
    fi
fi
require_python "$python" "leave this environment ('deactivate'), or activate one of a newer Python"

present=$(fingerprint 2>/dev/null) || present=
if [[ -n $present && -e $stamp && $(<"$stamp") == "$present" ]]; then
    printf '%s\n' "$python"
    exit
fi

echo $$ >"$unfinished"
rm -f "$stamp"
say "installing into $environment; later calls skip this"
"$python" -m pip --version >/dev/null 2>&1 || "$python" -m ensurepip >&2 ||
    fail "pip: expected it in $environment, got none; install it there, or leave this environment ('deactivate')"
say "1 of 4: setuptools, wheel"
pip_install wheel 'setuptools>=64'
say "2 of 4: torch, torchvision (the long one: up to several GB)"
pip_install torch torchvision
say "3 of 4: BasicSR"
PYTHONPATH=$root/scripts/build_shim${PYTHONPATH:+:$PYTHONPATH} pip_install --no-deps --no-build-isolation basicsr==1.4.2
say "4 of 4: reblur_plugin and what else it and its tests need"
pip_install --no-build-isolation --editable "${root}[test]"
"$python" -I -c 'import cv2, lpips, skimage, torch, torchvision, yaml' >&2 ||
    fail "$environment: expected its packages to import, got the error above; cure it, or use a new environment"
present=$(fingerprint)
echo "$present" >"$stamp"
rm -f "$unfinished"
say "done"
printf '%s\n' "$python"
