#!/usr/bin/env bash
# Writes a folder that works as it is as a Space (Docker): scripts/make_space.sh FOLDER
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
folder=${1:?expected the folder to write, such as build/space}
if [[ -e $folder ]]; then
    echo "make_space: expected a new folder, got '$folder', which is there already; name another" >&2
    exit 1
fi
mkdir -p "$folder/plugin"
cp "$root"/space/* "$folder"
tar -C "$root" --exclude='__pycache__' -cf - LICENSE pyproject.toml setup.py reblur_plugin | tar -C "$folder/plugin" -xf -
echo "$folder"
