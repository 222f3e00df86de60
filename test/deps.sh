#!/bin/sh
# Install what building and testing needs: the one list of packages.
# Installs only what is missing; as root, or through sudo.  "test/deps.sh fuzz"
# installs what test/fuzz needs besides.
set -eu

PACKAGES="gcc libc6-dev make perl libipc-run-perl postgresql-15 postgresql-server-dev-15 postgresql-15-cron libssl-dev libcurl4-openssl-dev libxml2-dev libidn2-dev libmicrohttpd-dev pkg-config openssl curl python3 python3-radicale xandikos"
# another Node.js than Debian's brings an npm of its own
command -v npm >/dev/null || PACKAGES="$PACKAGES nodejs npm"
[ -x /usr/sbin/nginx ] || PACKAGES="$PACKAGES nginx-light"
[ "${1:-}" != fuzz ] || PACKAGES="$PACKAGES clang libclang-rt-dev"

missing=
for p in $PACKAGES; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q '^install ok installed$' || missing="$missing $p"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" -eq 0 ]; then
	sudo=
elif command -v sudo >/dev/null; then
	sudo=sudo
else
	echo "These packages are missing:$missing" >&2
	echo "Install them, or run this as root or where sudo is." >&2
	exit 1
fi

echo "installing:$missing"
export DEBIAN_FRONTEND=noninteractive
$sudo apt-get -q -q update
# Installing a server would create and start a cluster: tell it not to, unless
# this machine has an opinion of its own already.
if ! dpkg-query -W postgresql-common >/dev/null 2>&1; then
	$sudo apt-get -q -q -y --no-install-recommends install postgresql-common >/dev/null
	$sudo sed -i 's/^#\?create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf
fi
# A web server is for the tests to start: not by itself, now or at the next boot.
policy=/usr/sbin/policy-rc.d
case $missing in *nginx*) [ ! -e $policy ] || policy= ;; *) policy= ;; esac
[ -z "$policy" ] || { printf '#!/bin/sh\nexit 101\n' | $sudo tee $policy >/dev/null; $sudo chmod 755 $policy; }
# Server and headers must be of one minor release, so both are named in the call
# even if only one of them is missing.
$sudo apt-get -q -q -y --no-install-recommends install $PACKAGES >/dev/null
if [ -n "$policy" ]; then
	$sudo rm -f $policy
	! command -v systemctl >/dev/null || $sudo systemctl disable nginx >/dev/null 2>&1 || true
fi
