#!/bin/bash
# The HTTP engine beside a bare loop on libcurl, and a local nginx: http.sh WORK
#
# WORK is a folder to build and serve in.  Rounds of the two take turns; REQUESTS=
# in each, ROUNDS= of them, IN_FLIGHT= at a time.  Prints medians, and the median of
# the rounds' ratios.
set -euo pipefail

src=$(cd "$(dirname "$0")/../.." && pwd)
work=$1/http
requests=${REQUESTS:-30000}
rounds=${ROUNDS:-15}
in_flight=${IN_FLIGHT:-50}
nginx=$(PATH=$PATH:/usr/sbin command -v nginx) || { echo "left out: nginx is not installed (test/deps.sh)"; exit 0; }
pg_config=${PG_CONFIG:-/usr/lib/postgresql/${PG_MAJOR:-15}/bin/pg_config}

mkdir -p "$work/html"
# 205 bytes of JSON
printf '{"id": "c-000001", "first_name": "Ann", "last_name": "Lovelace", "email": "ann@example.com", "phone": "+15551234567", "company": "Analytical Engines", "updated_at": "2026-01-01T00:00:00Z", "note": "%4s"}\n' "" > "$work/html/contact.json"
[ "$(wc -c < "$work/html/contact.json")" -eq 205 ]
cat > "$work/nginx.conf" <<END
daemon off;
worker_processes 1;
pid $work/nginx.pid;
error_log $work/error.log;
events { worker_connections 2048; }
http {
	access_log off;
	keepalive_requests 100000000;
	types { application/json json; }
	client_body_temp_path $work/t1; proxy_temp_path $work/t2; fastcgi_temp_path $work/t3; uwsgi_temp_path $work/t4; scgi_temp_path $work/t5;
	open_file_cache max=10;
	server { listen 127.0.0.1:PORT backlog=2048; root $work/html; }
}
END
flags="-O2 -D_GNU_SOURCE"
engine_flags="-I$src/src -I$("$pg_config" --includedir-server)"
# shellcheck disable=SC2086
gcc $flags "$src/test/bench/http_bare.c" -lcurl -o "$work/bare"
# shellcheck disable=SC2086
gcc $flags $engine_flags "$src/test/bench/http_engine.c" "$src/test/http/server.c" "$src"/src/http/http_{address,answer,engine,socket,transfer}.c \
	"$(dirname "$("$pg_config" --pkglibdir)")/lib/libpgport.a" -lcurl -o "$work/engine"

# a port that is free: nginx does not say which one it got
server=
trap '[ -z "$server" ] || kill "$server" 2>/dev/null || true; wait' EXIT
for port in $(shuf -i 20000-32000 -n 20); do
	sed "s/:PORT/:$port/" "$work/nginx.conf" > "$work/nginx.$port.conf"
	"$nginx" -e "$work/error.log" -c "$work/nginx.$port.conf" &
	server=$!
	for ((i = 0; i < 100; i++)); do
		kill -0 "$server" 2>/dev/null || break
		! "$work/bare" "http://127.0.0.1:$port/contact.json" 1 1 >/dev/null 2>&1 || break 2
		sleep 0.05
	done
	kill "$server" 2>/dev/null || true
	server=
done
[ -n "$server" ] || { cat "$work/error.log"; exit 1; }
url=http://127.0.0.1:$port/contact.json

for ((i = 0; i < rounds; i++)); do
	# whoever is second finds a warmer server: they take turns
	order="bare engine"
	[ $((i % 2)) -eq 0 ] || order="engine bare"
	for who in $order; do
		echo "$i $who $("$work/$who" "$url" "$requests" "$in_flight")"
	done
done > "$work/rounds"

awk -v n="$in_flight" '
function median(a, k,  i, j, t) {
	for (i = 2; i <= k; i++) { t = a[i]; for (j = i - 1; j > 0 && a[j] > t; j--) a[j + 1] = a[j]; a[j + 1] = t }
	return k % 2 ? a[(k + 1) / 2] : (a[k / 2] + a[k / 2 + 1]) / 2
}
{ rate[$2, $1] = $3 / $4; cpu[$2, $1] = $5 / $3 * 1e6; rounds = $1 + 1 }
END {
	for (i = 0; i < rounds; i++) {
		b[i + 1] = rate["bare", i]; e[i + 1] = rate["engine", i]; r[i + 1] = e[i + 1] / b[i + 1]
		bc[i + 1] = cpu["bare", i]; ec[i + 1] = cpu["engine", i]; rc[i + 1] = bc[i + 1] / ec[i + 1]
	}
	printf "%d in flight, %d rounds in turn, medians\n", n, rounds
	printf "a bare loop on libcurl   %8.0f requests/s  %6.1f us of CPU each\n", median(b, rounds), median(bc, rounds)
	printf "the HTTP engine          %8.0f requests/s  %6.1f us of CPU each\n", median(e, rounds), median(ec, rounds)
	printf "ratio, of each round     %8.2f (target 0.90)   %.2f by CPU\n", median(r, rounds), median(rc, rounds)
}' "$work/rounds"
