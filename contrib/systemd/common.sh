# What install.sh and install-module.sh have in common. They read it; it is no program.
#
# Root runs them, in whatever folder: so they leave that folder before any Python starts, and start
# Python with -I. Else it would import a file of that folder in place of a library.
# shellcheck shell=sh

# The service's user has to read what is installed. What is secret gets its mode by name.
umask 022

fail() {
    echo "${0##*/}: $1" >&2
    exit 1
}

# Links stay: the Python of a virtual environment is one.
find_program() { # PATH|NAME
    case $1 in
        /*) echo "$1" ;;
        */*) echo "$PWD/$1" ;;
        *) command -v "$1" || fail "$1: there is no such program" ;;
    esac
}

# Copies what a wheel is built from. A build leaves files behind, which the next one packs again,
# and which root would own in the checkout.
copy_checkout() { # CHECKOUT TARGET
    mkdir "$2"
    for each in setup.py pyproject.toml README.rst LICENSE synapse_login_module twisted; do
        cp -R "$1/$each" "$2"
    done
}
