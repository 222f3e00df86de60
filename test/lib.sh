# What test/run and test/sandbox/run share: a folder of their own with the built
# extension in a private copy of the PostgreSQL tree.  The caller sets $here, the
# top of the sources, and may set $cflags.
#
# The folder lies under TMPDIR (or /tmp) and is removed at the end; no cluster of
# this machine is touched.  Servers refuse to run as root, so as root everything
# in the folder runs as the user postgres.

major=${PG_MAJOR:-15}
pg_lib=/usr/lib/postgresql/$major
pg_share=/usr/share/postgresql/$major
cflags=

say() { printf '== %s\n' "$*"; }

set_work() {
	work=$1
	prefix=$work/pg
	bin=$prefix$pg_lib/bin
}

# End processes by a signal, after 5 s by KILL.  One that nobody has waited for yet has no exe.
end_processes() {
	local signal=$1 pid i
	shift
	[ $# -eq 0 ] || kill "-$signal" "$@" 2>/dev/null || true
	for pid in "$@"; do
		for ((i = 0; i < 100; i++)); do
			[ -e "/proc/$pid/exe" ] || continue 2
			sleep 0.05
		done
		kill -KILL "$pid" 2>/dev/null || true
	done
}

cleanup() {
	local pid servers=() others=()
	# what the sandbox started says so in a file; a pid that is somebody else's by now has another command line
	for pid in $(cat "$work/pids" 2>/dev/null | grep -x '[0-9]\{2,\}' || true); do
		! grep -qaF "$work/" "/proc/$pid/cmdline" 2>/dev/null || others+=("$pid")
	done
	# a server that a suite could not stop
	for pid in $(cat "$work"/src/*/data/postmaster.pid "$work"/src/tmp_check*/data/postmaster.pid "$work/data/postmaster.pid" "$work/bench/postmaster.pid" 2>/dev/null | grep -x '[0-9]\{2,\}' || true); do
		[ "$(readlink "/proc/$pid/exe" 2>/dev/null)" != "$bin/postgres" ] || servers+=("$pid")
	done
	end_processes TERM "${others[@]}"
	end_processes QUIT "${servers[@]}"
	[ -n "${KEEP_FILES:-}" ] && say "kept $work" || rm -rf "$work"
}

# Run as the user that owns the work folder, in the sources' copy.
as_user() {
	if [ "$(id -u)" -eq 0 ]; then
		runuser -u postgres -- env HOME="$work" LC_ALL=C.UTF-8 PATH="$bin:$PATH" TMPDIR="$work/t" "$@"
	else
		env HOME="$work" LC_ALL=C.UTF-8 PATH="$bin:$PATH" TMPDIR="$work/t" "$@"
	fi
}

prepare() {
	sh "$here/test/deps.sh"
	set_work "$(mktemp -d "${TMPDIR:-/tmp}/cs.XXXXXX")"
	trap cleanup EXIT
	trap 'exit 130' HUP INT TERM

	mkdir -p "$work/src" "$work/t" "$prefix$pg_lib" "$prefix$pg_share"
	(cd "$here" && tar -cf - --exclude=./.git --exclude=./build .) | tar -xf - -C "$work/src"
	cp -a "$pg_lib/." "$prefix$pg_lib/"
	cp -aL "$pg_share/." "$prefix$pg_share/"
	[ "$(id -u)" -ne 0 ] || chown -R postgres "$work"
	chmod 755 "$work"
	cd "$work/src"
}

build() {
	say "building for PostgreSQL $major"
	as_user make -s clean PG_CONFIG="$pg_lib/bin/pg_config" >/dev/null
	as_user make -s -j"$(nproc)" PG_CONFIG="$pg_lib/bin/pg_config" COPT="$cflags"
	cp contactsync.so "$prefix$pg_lib/lib/"
	cp contactsync.control contactsync--*.sql "$prefix$pg_share/extension/"
}
