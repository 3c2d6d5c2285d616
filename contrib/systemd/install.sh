#!/bin/sh
# Installs, upgrades or removes the login service under systemd. docs/installing.rst explains it.
set -eu

usage() {
    cat <<'END'
usage: contrib/systemd/install.sh [--extras LIST] [--python PROGRAM] [--port N] [--source PATH]
       contrib/systemd/install.sh --remove | --purge

Installs the service as root, or upgrades it. What is there already stays as it is: /etc/synapse-login,
the sessions in /var/lib/synapse-login, and drop-ins of "systemctl edit".

  --extras LIST     what to install besides, as ldap,phone,postgres (the default)
  --python PROGRAM  the Python for a new virtual environment (python3)
  --port N          the port of 127.0.0.1 that systemd listens on, in place of 8008
  --source PATH     a checkout or a wheel, in place of the checkout that holds this script
  --root DIR        a folder in place of /; nothing is started there
  --remove          removes the program, and keeps configuration, sessions and user
  --purge           removes those too
END
}

here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source=contrib/systemd/common.sh
. "$here/common.sh"

root='' extras=ldap,phone,postgres python=python3 port='' source=$(dirname "$(dirname "$here")")
action=install
while [ $# -gt 0 ]; do
    case $1 in
        --extras | --python | --port | --source | --root)
            [ $# -gt 1 ] || fail "$1 needs a value"
            case $1 in
                --extras) extras=$2 ;;
                --python) python=$(find_program "$2") ;;
                --port) port=$2 ;;
                --source) source=$(realpath -m "$2") ;;
                --root) root=$(realpath -m "$2") root=${root%/} ;;
            esac
            shift
            ;;
        --remove) action=remove ;;
        --purge) action=purge ;;
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
case $port in
    *[!0-9]*) fail "--port: not a number: $port" ;;
esac
[ "$(id -u)" = 0 ] || fail "run it as root"
cd /

program=$root/opt/synapse-login
units=$root/etc/systemd/system
users=$root/etc/sysusers.d/synapse-login.conf
folders=$root/etc/tmpfiles.d/synapse-login.conf
configuration=$root/etc/synapse-login
state=$root/var/lib/synapse-login
port_file=$units/synapse-login.socket.d/port.conf
scratch=''
trap 'rm -rf ${scratch:+"$scratch"}' EXIT

# Whether this machine's systemd is the one to tell.
running() { [ -z "$root" ] && [ -d /run/systemd/system ]; }

put() { # FILE DESTINATION
    install -D --mode=0644 "$here/$1" "$2"
}

install_program() {
    # A virtual environment does not outlive its Python, as after an upgrade of Debian.
    if ! "$program/bin/python" -I -m pip --version >/dev/null 2>&1; then
        rm -rf "$program"
        "$python" -I -m venv "$program"
    fi
    if [ -d "$source" ]; then
        scratch=$(mktemp -d)
        copy_checkout "$source" "$scratch/checkout"
        source=$scratch/checkout
    fi
    "$program/bin/python" -I -m pip install --quiet --root-user-action=ignore --upgrade \
        "$source${extras:+[$extras]}"
    # Lists Twisted's plugins once: the service's user may not write the list.
    "$program/bin/python" -I -c 'from twisted.scripts.twistd import run; run()' --help >/dev/null
}

install_service() {
    put synapse-login.sysusers "$users"
    put synapse-login.tmpfiles "$folders"
    put synapse-login.service "$units/synapse-login.service"
    put synapse-login.socket "$units/synapse-login.socket"
    if [ -n "$port" ]; then
        mkdir -p "$(dirname "$port_file")"
        printf '[Socket]\nListenStream=\nListenStream=127.0.0.1:%s\n' "$port" >"$port_file"
    fi
    systemd-sysusers ${root:+"--root=$root"} "$users"
    systemd-tmpfiles ${root:+"--root=$root"} --create "$folders"
    if [ ! -e "$configuration/login.yaml" ]; then
        # The group by its number: with --root, this machine does not know the name.
        install --mode=0640 --group="$(stat --format=%g "$state")" \
            "$here/login.yaml" "$configuration/login.yaml"
        echo "edit $configuration/login.yaml, then:" \
            "systemctl enable --now synapse-login.socket synapse-login.service"
    fi
    if running; then
        systemctl daemon-reload
        systemctl try-restart synapse-login.service
    fi
}

remove() {
    if running && [ -e "$units/synapse-login.socket" ]; then
        systemctl disable --now synapse-login.socket synapse-login.service
    fi
    rm -rf "$program" "$port_file"
    rm -f "$units/synapse-login.service" "$units/synapse-login.socket" "$users" "$folders"
    rmdir "$(dirname "$port_file")" 2>/dev/null || true
    if running; then
        systemctl daemon-reload
    fi
}

purge() {
    rm -rf "$configuration" "$state"
    rm -rf "$units/synapse-login.service.d" "$units/synapse-login.socket.d"
    if [ -z "$root" ] && getent passwd synapse-login >/dev/null; then
        userdel synapse-login
    fi
}

case $action in
    install)
        install_program
        install_service
        ;;
    remove) remove ;;
    purge)
        remove
        purge
        ;;
esac
