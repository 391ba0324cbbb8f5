#!/bin/sh
# Sets up what is missing for the testbed: Debian packages and an isolated Python environment; with the argument `ryu`,
# the environment of a controller on Ryu in place of that. The same script serves the VM, bare metal (through make) and
# CI. Running it again takes a few hundredths of a second.
set -eu

here=$(cd "$(dirname "$0")/.." && pwd)

# Two at once would make the environment under each other's feet: the second waits, and finds it made.
exec 9<"$here"
flock 9

# package                what for
packages="
mininet                  # mnexec, which puts a process into a host's namespace
openvswitch-switch       # the switches
postgresql               # the shared database
patroni                  # promotes its standby, where it fails over
etcd-server              # says which server takes writes
python3-etcd             # with which Patroni speaks to it
python3-idna             # and what that forgets to ask for
iproute2                 # ip, tc
iputils-ping             # measured round-trip times
net-tools                # ifconfig, which Mininet calls
ethtool                  # checksum offload off where switches run in user space
tcpdump                  # captures
charon-systemd           # strongSwan, for tunnels by IPsec
libcharon-extra-plugins  # its kernel-libipsec, where the kernel has no ESP
libstrongswan-standard-plugins # its elliptic curves and AES-GCM, by OpenSSL
wireguard-tools          # wg, for tunnels by WireGuard
stunnel4                 # TLS under keys of the network
openssh-client           # how home reaches workers on other machines
openssh-server           # machines for the tests of that
wireguard-go             # WireGuard where the kernel has no module
util-linux               # setpriv, unshare
procps                   # ps, for people looking around
curl                     # a client of others, for docs/client.md
make                     # the chores of the Makefile
sudo                     # what runs a network needs root
python-is-python3        # the documentation says python
debootstrap              # fresh systems, in which the tests of the virtual machine's set-up run it
fonts-dejavu-core        # letters for it, where there is no desktop
python3-venv             # the isolated environment
python3-dev              # a part of the SKIP client that the tests try is built here,
gcc                      # from C,
libc6-dev                # with
libssl-dev               # OpenSSL
ca-certificates          # pip over TLS
"

# The browser in which the live view is tested and photographed, and what lets a program drive it. Ubuntu has them as
# snaps only, and a snap does not start everywhere: who wants those tests there brings a Chromium.
if grep -qx 'ID=debian' /etc/os-release; then
    packages="$packages
chromium
chromium-driver"
fi

# A kernel that is a process, for `run.py --vm` and tests; only some Debians have it.
if [ "$(dpkg --print-architecture)" = amd64 ] && grep -qx 'ID=debian' /etc/os-release; then
    packages="$packages
user-mode-linux"
    if grep -qw amx_tile /proc/cpuinfo; then # testbed/virtual_machine/user_mode_linux_xstate.c says why
        xstate="$here/build/uml_xstate.so"
    fi
fi

names=$(printf '%s\n' "$packages" | sed 's/#.*//')
# One question about all of them: it names what it knows nothing of on standard error, and has another status then.
# shellcheck disable=SC2086  # a list of words on purpose
known=$(dpkg-query -W -f='${Package} ${db:Status-Status}\n' $names 2>/dev/null || true)
missing=""
for package in $names; do
    case "
$known
" in
        *"
$package installed
"*) ;;
        *) missing="$missing $package" ;;
    esac
done

if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ]; then
        echo "setup: these packages are missing:$missing" >&2
        echo "setup: run 'sudo make setup' to install them" >&2
        exit 2
    fi
    echo "setup: installing Debian packages:$missing"
    apt-get update -qq
    # shellcheck disable=SC2086  # a list of words on purpose
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >/dev/null
    case "$missing" in
        # Runs start charon themselves, each where it is wanted: the machine's own IKE service was not asked for.
        *charon-systemd*) systemctl disable --now strongswan >/dev/null 2>&1 || true ;;
    esac
    case "$missing" in
        # Tests start it themselves: who had no SSH server did not ask for one.
        *openssh-server*) systemctl disable --now ssh >/dev/null 2>&1 || true ;;
    esac
    case "$missing" in # runs start these two themselves
        *etcd-server*) systemctl disable --now etcd >/dev/null 2>&1 || true ;;
    esac
    case "$missing" in
        *patroni*) systemctl disable --now patroni >/dev/null 2>&1 || true ;;
    esac
fi

if [ -n "${xstate:-}" ] && [ ! "$xstate" -nt "$here/testbed/virtual_machine/user_mode_linux_xstate.c" ]; then
    mkdir -p "$here/build"
    gcc -O2 -Wall -shared -fPIC -o "$xstate.new" "$here/testbed/virtual_machine/user_mode_linux_xstate.c"
    mv "$xstate.new" "$xstate"
fi

# environment FOLDER LOCK: the Python environment FOLDER with what LOCK names, and the project. The stamp names everything
# that it was made from, so that a change makes it anew.
environment() {
    folder="$here/$1" lock="$here/requirements/$2"
    wanted=$(cat "$lock" "$here/setup.py" "$here/vagrant/provision.sh" | sha256sum | cut -d' ' -f1)
    wanted="$wanted $(/usr/bin/python3 -c 'import sys; print(sys.version)' | tr '\n' ' ') $here"
    if [ "$(cat "$folder/stamp" 2>/dev/null || true)" = "$wanted" ]; then return; fi
    echo "setup: making the Python environment in $folder (about half a minute)"
    rm -rf "$folder"
    /usr/bin/python3 -m venv "$folder"
    # The lock also holds for what packages are built with: Ryu needs an old setuptools. Newer pips want that said anew.
    # A relative path, because pip splits these at blanks.
    cd "$here"
    export PIP_CONSTRAINT="requirements/$2" PIP_BUILD_CONSTRAINT="requirements/$2"
    "$folder/bin/pip" install --quiet --disable-pip-version-check --use-pep517 --requirement "$lock"
    "$folder/bin/pip" install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable "$here"
    printf '%s' "$wanted" >"$folder/stamp"
}

case "${1:-}" in
    "") environment .venv lock.txt ;;
    ryu) environment .venv-ryu ryu-lock.txt ;; # only for a controller on Ryu, which nobody needs who does not ask
    prometheus)                                # only for tests, and so without the service that its package would start
        if [ ! -x "$here/build/prometheus/usr/bin/prometheus" ]; then
            echo "setup: fetching Prometheus for the tests"
            mkdir -p "$here/build/prometheus.new"
            cd "$here/build/prometheus.new"
            fetch="apt-get download -qq -o APT::Sandbox::User=root prometheus"
            # A machine may have no list of packages, or an old one.
            $fetch >/dev/null 2>&1 || { apt-get update -qq && $fetch >/dev/null; }
            dpkg-deb -x prometheus_*.deb .
            mv "$here/build/prometheus.new" "$here/build/prometheus"
        fi
        ;;
    *)
        echo "setup: expected nothing, 'ryu' or 'prometheus', got '$1'" >&2
        exit 2
        ;;
esac
