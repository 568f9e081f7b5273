#!/bin/sh
# Programs that are no Python packages: Java and Maven for the compatibility kit, nginx as the reference of the benchmark.
# Usage: install_servers.sh java|nginx ...   Does nothing for what is present. Installs with apt-get where it runs as root;
# elsewhere it says what is missing and leaves it to the caller to skip. Exits non-zero only when an installation fails.
set -eu

present() {
    case "$1" in
    java) command -v java >/dev/null && command -v mvn >/dev/null ;;
    nginx) command -v nginx >/dev/null || [ -x /usr/sbin/nginx ] ;;
    *) echo "install_servers.sh: unknown name \`$1\`: it must be java or nginx" >&2 && exit 2 ;;
    esac
}

packages() {
    case "$1" in
    java) echo "default-jre-headless maven" ;;
    nginx) echo "nginx-light" ;;
    esac
}

wanted=""
for name in "$@"; do
    present "$name" || wanted="$wanted $(packages "$name")"
done
[ -n "$wanted" ] || exit 0

if [ "$(id -u)" -ne 0 ] || ! command -v apt-get >/dev/null; then
    echo "not installed, and only root with apt-get could install it here:$wanted"
    exit 0
fi

echo "installing:$wanted"
# Runlevel 1 keeps the packages' scripts from starting a server of their own.
export DEBIAN_FRONTEND=noninteractive RUNLEVEL=1
apt-get update -qq
# shellcheck disable=SC2086  # a list of package names
apt-get install -y -qq --no-install-recommends $wanted >/dev/null
for name in "$@"; do
    present "$name" || { echo "install_servers.sh: \`$name\` is still missing after its installation" >&2; exit 1; }
done
