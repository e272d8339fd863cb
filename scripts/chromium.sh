#!/usr/bin/env bash
# Prints the path of a headless Chromium for the tests of pages: one that is installed, else one fetched once
# by npm into the environment of scripts/setup.sh. REBLUR_CHROMIUM=$(scripts/chromium.sh) scripts/test.sh tests/report tests/app
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
package=@sparticuz/chromium@147.0.0

if [[ -n ${REBLUR_CHROMIUM:-} ]]; then
    printf '%s\n' "$REBLUR_CHROMIUM"
    exit
fi
for name in chromium-headless-shell chromium chromium-browser google-chrome; do
    if command -v "$name"; then exit; fi
done
command -v npm >/dev/null || {
    echo "chromium: expected an installed Chromium, or npm to fetch one, got neither; install one of them" >&2
    exit 1
}
home=$(dirname "$("$root/scripts/setup.sh")")/../chromium
if [[ ! -x $home/chromium.sh ]]; then
    rm -rf "$home"
    mkdir -p "$home"
    cd "$home"
    npm pack --silent "$package" >/dev/null
    tar xzf ./*.tgz
    node -e '
        const fs = require("fs"), zlib = require("zlib");
        for (const name of ["chromium", "al2023.tar", "swiftshader.tar", "fonts.tar"])
            fs.writeFileSync(name, zlib.brotliDecompressSync(fs.readFileSync(`package/bin/${name}.br`)));'
    for archive in al2023.tar swiftshader.tar fonts.tar; do tar xf "$archive"; done
    rm -rf ./*.tgz ./*.tar package
    chmod +x chromium
    # It brings the libraries and the font that a bare system lacks.
    here=$PWD
    printf '<fontconfig><dir>%s/fonts</dir><dir>/usr/share/fonts</dir></fontconfig>\n' "$here" >fonts.conf
    printf '#!/bin/sh\nLD_LIBRARY_PATH=%q FONTCONFIG_FILE=%q exec %q "$@"\n' \
        "$here:$here/lib" "$here/fonts.conf" "$here/chromium" >chromium.sh
    chmod +x chromium.sh
fi
printf '%s\n' "$(cd "$home" && pwd)/chromium.sh"
