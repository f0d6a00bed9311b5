#!/bin/sh
# Installs edge-agent as a service on a line PC (Debian or Ubuntu, as root), from a checkout or an offline bundle.
#
#   deploy/install.sh [--wheels DIR] [--python PATH] [--root DIR]     install, or upgrade: the same
#   deploy/install.sh --rollback [--root DIR]                         back to the version before
#   deploy/install.sh --remove [--purge] [--root DIR]                 program off; --purge: configuration, data, user too
#
#   --wheels DIR   take every package from DIR, nothing from the network (a bundle finds its own)
#   --python PATH  the interpreter; default /usr/bin/python3
#   --root DIR     install below DIR, to build an image: nothing of this machine is touched or started
#
# What goes where:
#   /opt/edge-agent/<version>-<digest>/   one virtual environment a version, with its service files; the digest is
#                                         of the program, its lock and these files
#   /opt/edge-agent/current, previous     links; an upgrade moves them, a rollback swaps them
#   /usr/local/bin/edge-agent             the command
#   /etc/edge-agent/config.yaml           written once, never overwritten; secrets/ beside it
#   /etc/systemd/system, /etc/udev/rules.d, /etc/sysusers.d, /etc/tmpfiles.d      one file each
#   /var/lib/edge-agent                   the data, made by systemd; never touched here but by --purge
#
# Running it again changes nothing, or repairs. A version is switched to only if its `edge-agent check` accepts the
# configuration of this PC, and is switched back from if the service does not come up. A configuration that is still
# the sample is not started.
set -eu
umask 022

say() { printf '%s\n' "$@"; }
fail() { # message, then lines of what to do
    printf 'install.sh: %s\n' "$1" >&2
    shift
    [ $# -eq 0 ] || printf '  -> %s\n' "$@" >&2
    exit 1
}
usage() {
    sed -n '2,/^set -eu/{/^#/s/^# \{0,1\}//p;}' "$0"
}

source_dir=$(cd "$(dirname "$0")/.." && pwd)
root='' wheels='' python=/usr/bin/python3 action=install purge=no
[ -d "$source_dir/wheels" ] && wheels=$source_dir/wheels
while [ $# -gt 0 ]; do
    case $1 in
        --root | --wheels | --python)
            [ $# -ge 2 ] || fail "$1 needs a value"
            case $1 in
                --root) root=${2%/} ;;
                --wheels) wheels=$2 ;;
                --python) python=$2 ;;
            esac
            shift ;;
        --remove) action=remove ;;
        --rollback) action=rollback ;;
        --purge) purge=yes ;;
        -h | --help) usage; exit 0 ;;
        *) fail "unknown option: $1" "deploy/install.sh --help" ;;
    esac
    shift
done
[ $purge = no ] || [ $action = remove ] || fail "--purge goes with --remove only"
case $root in '' | /*) ;; *) root=$(pwd)/$root ;; esac
[ -n "$root" ] || [ "$(id -u)" -eq 0 ] || fail "must run as root" "sudo $0"

opt=$root/opt/edge-agent
config=$root/etc/edge-agent/config.yaml

live() { # are we changing this machine, and does systemd run on it?
    [ -z "$root" ] && [ -d /run/systemd/system ]
}
link() { # link NAME TARGET: replaced in one step, so that NAME always leads somewhere
    ln -sfn "$2" "$1.new"
    mv -fT "$1.new" "$1"
}
place() { # place FILE TARGET: as root's, readable, replaced in one step
    mkdir -p "$(dirname "$root$2")"
    install -m 644 "$1" "$root$2.new"
    mv -f "$root$2.new" "$root$2"
}
target_of() { # the version that the link current or previous leads to
    readlink "$opt/$1" 2>/dev/null || :
}

check_python() {
    [ -x "$python" ] || fail "no Python at $python" "sudo apt-get install python3 python3-venv" "$0 --python PATH"
    "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
        fail "needs Python 3.11 or newer; $python is $("$python" -V)" "$0 --python /usr/bin/python3.12"
    "$python" -c 'import ensurepip, venv' 2>/dev/null ||
        fail "$python cannot make virtual environments" "sudo apt-get install python3-venv"
    case $("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))') in
        /root/* | /home/*) fail "$python is in somebody's home, where the service may not look" "$0 --python /usr/bin/python3" ;;
    esac
}

build_wheel() { # build_wheel DIR: the project's wheel, with a build backend that the lock pins and nobody keeps
    "$python" -m venv "$1/venv"
    "$1/venv/bin/pip" --quiet install --require-hashes -r "$source_dir/deploy/build.lock"
    "$1/venv/bin/pip" --quiet wheel --no-deps --no-build-isolation --wheel-dir "$1" "$source_dir"
}

make_version() { # make_version: fills $version with a complete /opt/edge-agent/<version>
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    if [ -n "$wheels" ]; then
        [ -d "$wheels" ] || fail "no such folder: $wheels"
        wheels=$(cd "$wheels" && pwd)
        set -- "$wheels"/edge_agent-*.whl
    else
        say "building edge-agent"
        build_wheel "$work"
        set -- "$work"/edge_agent-*.whl
    fi
    if [ $# -ne 1 ] || [ ! -f "$1" ]; then
        fail "expected exactly one edge_agent-*.whl, found: $*"
    fi
    deploy=$source_dir/deploy
    set -- "$1" "$source_dir/systemd/edge-agent.service" "$deploy/udev/70-edge-agent.rules" "$deploy/sysusers.conf" \
        "$deploy/tmpfiles.conf" "$deploy/sample.yaml"
    digest=$(cat "$@" "$deploy/requirements.lock" | sha256sum | cut -c 1-8)
    version=$(basename "$1" | cut -d - -f 2)-$digest
    [ ! -e "$opt/$version/.complete" ] || return 0

    say "installing edge-agent $version"
    rm -rf "${opt:?}/$version" # what an interrupted run left
    "$python" -m venv "$opt/$version"
    pip() { "$opt/$version/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
    if [ -n "$wheels" ]; then
        pip install --no-index --find-links "$wheels" --require-hashes -r "$deploy/requirements.lock"
    else
        pip install --require-hashes -r "$deploy/requirements.lock"
    fi
    pip install --no-index --no-deps "$1"
    if [ -n "$root" ]; then # scripts name their interpreter; in the image it is without the root
        grep -rlIF "$root/opt" "$opt/$version/bin" "$opt/$version/pyvenv.cfg" | xargs -r sed -i "s|$root/opt|/opt|g"
    fi
    shift
    install -m 644 -D -t "$opt/$version/system" "$@"
    : >"$opt/$version/.complete"
}

switch_to() { # switch_to VERSION PREVIOUS: the links, and the service files that came with the version
    link "$opt/current" "$1"
    if [ -n "$2" ]; then link "$opt/previous" "$2"; else rm -f "$opt/previous"; fi
    place "$opt/$1/system/edge-agent.service" /etc/systemd/system/edge-agent.service
    place "$opt/$1/system/70-edge-agent.rules" /etc/udev/rules.d/70-edge-agent.rules
    if live; then
        udevadm control --reload 2>/dev/null || :
        udevadm trigger --subsystem-match=tty 2>/dev/null || :
        systemctl daemon-reload
    fi
}

accepts() { # accepts VERSION: would it run with this PC's configuration, as its user? Says why not.
    set -- "$opt/$1/bin/python" -m edge_agent --config "$config" check
    if [ -z "$root" ]; then set -- runuser -u edge-agent -- "$@"; fi
    verdict=$("$@" 2>&1) || { printf '%s\n' "$verdict" >&2; return 1; }
}

restart() { # Type=notify: returns when the agent says that it is ready, or fails
    systemctl restart edge-agent.service
}

prepare() { # account, folders, the sample: what a version needs to judge the configuration
    place "$opt/$version/system/sysusers.conf" /etc/sysusers.d/edge-agent.conf
    place "$opt/$version/system/tmpfiles.conf" /etc/tmpfiles.d/edge-agent.conf
    mkdir -p "$root/usr/local/bin"
    install -d -m 750 "$root/etc/edge-agent" "$root/etc/edge-agent/secrets"
    place "$opt/$version/system/sample.yaml" /etc/edge-agent/config.sample.yaml
    [ -e "$config" ] || install -m 640 "$opt/$version/system/sample.yaml" "$config"
    if [ -z "$root" ]; then
        systemd-sysusers /etc/sysusers.d/edge-agent.conf
        systemd-tmpfiles --create /etc/tmpfiles.d/edge-agent.conf
    fi
}

do_install() {
    check_python
    [ -n "$root" ] || command -v systemd-sysusers >/dev/null || fail "needs systemd" "sudo apt-get install systemd"
    make_version
    prepare
    before=$(target_of current)
    older=$(target_of previous)
    if [ "$before" = "$version" ]; then
        before=$older # nothing new: the links stay, the service files are repaired
    elif [ -n "$before" ] && ! accepts "$version"; then
        fail "edge-agent $version does not accept $config; $before stays" "correct the file, then run this again"
    fi
    switch_to "$version" "$before"
    link "$root/usr/local/bin/edge-agent" /opt/edge-agent/current/bin/edge-agent
    start_service
    for old in "$opt"/*/; do # what neither link leads to
        old=$(basename "$old")
        case $old in current | previous | "$version" | "$before") ;; *) rm -rf "${opt:?}/$old" ;; esac
    done
    say "edge-agent $version is installed"
}

start_service() {
    if [ -n "$root" ]; then
        systemctl --root="$root" --quiet enable edge-agent.service 2>/dev/null || :
    elif ! live; then
        say "systemd does not run here: the service was not enabled"
    else
        systemctl --quiet enable edge-agent.service
        if cmp -s "$config" /etc/edge-agent/config.sample.yaml || ! accepts "$version"; then
            say "not started: describe this line in $config first, then" \
                "  sudo edge-agent check && sudo systemctl start edge-agent"
        elif ! restart; then
            [ "$before" != "$older" ] || fail "the service does not start" "journalctl -u edge-agent"
            switch_to "$before" "$older"
            restart || :
            fail "edge-agent $version does not start; back to $before" "journalctl -u edge-agent"
        fi
    fi
}

do_rollback() {
    before=$(target_of previous)
    now=$(target_of current)
    if [ -z "$before" ] || [ "$before" = "$now" ] || [ ! -e "$opt/$before/.complete" ]; then
        fail "there is no version before ${now:-this}"
    fi
    switch_to "$before" "$now"
    if live && systemctl --quiet is-enabled edge-agent.service; then
        restart || fail "edge-agent $before does not start" "journalctl -u edge-agent"
    fi
    say "edge-agent $before runs instead of $now (the data stayed as it is)"
}

do_remove() {
    if live; then
        systemctl --quiet disable --now edge-agent.service 2>/dev/null || :
    fi
    rm -f "$root/etc/systemd/system/edge-agent.service" "$root/etc/udev/rules.d/70-edge-agent.rules" \
        "$root/etc/systemd/system/multi-user.target.wants/edge-agent.service" "$root/etc/tmpfiles.d/edge-agent.conf" \
        "$root/etc/sysusers.d/edge-agent.conf" "$root/usr/local/bin/edge-agent"
    rm -rf "$opt"
    if [ $purge = yes ]; then
        rm -rf "$root/etc/edge-agent" "$root/var/lib/edge-agent"
        if [ -z "$root" ] && getent passwd edge-agent >/dev/null; then
            userdel edge-agent
        fi
    fi
    if live; then
        udevadm control --reload 2>/dev/null || :
        systemctl daemon-reload
    fi
    if [ $purge = yes ]; then
        say "edge-agent, its configuration and its data are removed"
    else
        say "edge-agent is removed; /etc/edge-agent and /var/lib/edge-agent stay (--purge removes them)"
    fi
}

"do_$action"
