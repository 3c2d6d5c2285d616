#!/bin/sh
# Installs, upgrades or removes the module for a Synapse that came as a Debian package.
# docs/installing.rst explains it.
set -eu

usage() {
    cat <<'END'
usage: contrib/systemd/install-module.sh [--extras LIST] [--python PROGRAM] [--source PATH]
       contrib/systemd/install-module.sh --remove

Installs the module as root into /opt/synapse-login-module, with those of its libraries that Synapse
does not have, and tells systemd to start Synapse with that folder. Synapse's own files stay as they
are. An upgrade is the same command again.

  --extras LIST     what to install besides, as ldap
  --python PROGRAM  Synapse's Python, in place of the one that its package brings
  --source PATH     a checkout or a wheel, in place of the checkout that holds this script
  --root DIR        a folder in place of /; systemd is told nothing there
  --remove          removes the module
END
}

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=contrib/systemd/common.sh
. "$here/common.sh"

root='' extras='' python='' source=$(dirname "$(dirname "$here")") action=install
while [ $# -gt 0 ]; do
    case $1 in
        --extras | --python | --source | --root)
            [ $# -gt 1 ] || fail "$1 needs a value"
            case $1 in
                --extras) extras=$2 ;;
                --python) python=$(find_program "$2") ;;
                --source) source=$(realpath -m "$2") ;;
                --root) root=$(realpath -m "$2") root=${root%/} ;;
            esac
            shift
            ;;
        --remove) action=remove ;;
        --help)
            usage
            exit 0
            ;;
        *)
            usage >&2
            exit 2
            ;;
    esac
    shift
done
[ "$(id -u)" = 0 ] || fail "run it as root"
cd /

place=$root/opt/synapse-login-module
units=$root/etc/systemd/system
services='matrix-synapse.service matrix-synapse-worker@.service'
scratch=''
trap 'rm -rf "$place.new" ${scratch:+"$scratch"}' EXIT

reload() {
    if [ -z "$root" ] && [ -d /run/systemd/system ]; then
        systemctl daemon-reload
    fi
}

find_python() {
    [ -z "$python" ] || return 0
    python=$root/opt/venvs/matrix-synapse/bin/python # the packages of matrix.org
    [ -x "$python" ] || python=$root/usr/bin/python3 # Debian's own package
}

# Writes a line NAME==VERSION for each library that Synapse's Python lacks. One that it has in a
# version too old is a failure: the module must not bring another one for all of Synapse.
list_missing() {
    "$python" -I -m pip list --format=freeze --disable-pip-version-check |
        grep -v "^synapse-login-module==" >"$scratch/installed"
    "$python" -I -m pip install --root-user-action=ignore --dry-run \
        --constraint "$scratch/installed" --report "$scratch/report" \
        "$source${extras:+[$extras]}" >"$scratch/log" 2>&1 || {
        cat "$scratch/log" >&2
        fail "a library of this Synapse does not go with the module: see above"
    }
    "$python" -I - "$scratch/report" <<'END'
import json
import sys

with open(sys.argv[1], encoding="utf-8") as file:
    found = [each["metadata"] for each in json.load(file)["install"]]
for each in found:
    if each["name"] != "synapse-login-module":
        print(f"{each['name']}=={each['version']}")
END
}

install_module() {
    find_python
    "$python" -I -c 'import synapse' 2>/dev/null || fail "$python: there is no Synapse"
    "$python" -I -m pip --version >/dev/null 2>&1 ||
        fail "$python: there is no pip (Debian's package of it is python3-pip)"
    scratch=$(mktemp -d)
    if [ -d "$source" ]; then
        copy_checkout "$source" "$scratch/checkout"
        source=$scratch/checkout
    fi
    list_missing >"$scratch/missing"
    rm -rf "$place.new"
    "$python" -I -m pip install --quiet --root-user-action=ignore --no-deps --target "$place.new" \
        --requirement "$scratch/missing" "$source"
    # What Synapse will do, before anything is changed.
    PYTHONPATH=$place.new "$python" -c \
        'from synapse_login_module import SynapseLoginModule as m; m.parse_config'
    # Not with PYTHONPATH and -m: Python would import from the folder that it is started in.
    cat >"$place.new/bin/synapse-login-module" <<END
#!$python -I
import sys

sys.path.insert(0, "$place")
from synapse_login_module.cli import main

main()
END
    rm -rf "$place"
    mv "$place.new" "$place"
    for service in $services; do
        install -D --mode=0644 "$here/matrix-synapse.conf" \
            "$units/$service.d/synapse-login-module.conf"
    done
    reload
    echo "restart Synapse when it suits: systemctl restart matrix-synapse.service"
}

remove() {
    rm -rf "$place"
    for service in $services; do
        rm -f "$units/$service.d/synapse-login-module.conf"
        rmdir "$units/$service.d" 2>/dev/null || true
    done
    reload
}

case $action in
    install) install_module ;;
    remove) remove ;;
esac
