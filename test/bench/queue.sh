#!/bin/bash
# Fetches end to end, from SQL to their committed results, beside a bare loop on
# libcurl and the same local nginx: queue.sh WORK BIN
#
# WORK is a folder to build and serve in, BIN has the programs of a PostgreSQL that
# contactsync is installed in.  REQUESTS= records are asked for in each of ROUNDS=
# rounds, IN_FLIGHT= at a time; the two take turns.
#
# The clock runs from the first call of fetch_records() until the commit of the last
# result: the record's state in inbox, its line in attempts, and its row gone from
# fetches.  Tables are logged, fsync is on, synchronous_commit too.  Applying what was
# fetched is process()'s work and has its own figures: contactsync.apply is off, but for
# one last round, which ends with the last contact.
set -euo pipefail

src=$(cd "$(dirname "$0")/../.." && pwd)
work=$1/queue
bin=$2
requests=${REQUESTS:-100000}
rounds=${ROUNDS:-5}
in_flight=${IN_FLIGHT:-50}
nginx=$(PATH=$PATH:/usr/sbin command -v nginx) || { echo "left out: nginx is not installed (test/deps.sh)"; exit 0; }

mkdir -p "$work/html" "$work/t"
# 205 bytes of JSON for any of 1,000,000 records
answer='{"id": "$1", "updated_at": "2026-01-01T00:00:00Z", "contact": {"first_name": "Ann", "last_name": "Lovelace", "company": "Analytic", "emails": [{"address": "$1@example.com"}], "note": "filler"}}'
[ "$(printf %s "${answer//\$1/c-000001}" | wc -c)" -eq 205 ] || { printf %s "${answer//\$1/c-000001}" | wc -c; exit 1; }
cat > "$work/nginx.conf" <<END
daemon off;
worker_processes 1;
pid $work/nginx.pid;
error_log $work/error.log;
events { worker_connections 2048; }
http {
	access_log off;
	keepalive_requests 100000000;
	default_type application/json;
	client_body_temp_path $work/t1; proxy_temp_path $work/t2; fastcgi_temp_path $work/t3; uwsgi_temp_path $work/t4; scgi_temp_path $work/t5;
	server {
		listen 127.0.0.1:PORT backlog=2048;
		location ~ "^/contacts/(c-[0-9]+)\$" { return 200 '$answer'; }
	}
}
END
gcc -O2 -D_GNU_SOURCE "$src/test/bench/http_bare.c" -lcurl -o "$work/bare"

server=
psql() { "$bin/psql" -X -q -A -t -h "$work/t" -p 59992 -d postgres -v ON_ERROR_STOP=1 "$@"; }
finish() {
	[ -z "$server" ] || kill "$server" 2>/dev/null || true
	"$bin/pg_ctl" -D "$work/data" -m immediate stop >/dev/null 2>&1 || true
	wait
}
trap finish EXIT
for port in $(shuf -i 20000-32000 -n 20); do
	sed "s/:PORT/:$port/" "$work/nginx.conf" > "$work/nginx.$port.conf"
	"$nginx" -e "$work/error.log" -c "$work/nginx.$port.conf" &
	server=$!
	for ((i = 0; i < 100; i++)); do
		kill -0 "$server" 2>/dev/null || break
		! "$work/bare" "http://127.0.0.1:$port/contacts/c-000001" 1 1 >/dev/null 2>&1 || break 2
		sleep 0.05
	done
	kill "$server" 2>/dev/null || true
	server=
done
[ -n "$server" ] || { cat "$work/error.log"; exit 1; }
url=http://127.0.0.1:$port

rm -rf "$work/data"
"$bin/initdb" -D "$work/data" -A trust -E UTF8 --locale=C.UTF-8 >/dev/null
cat >> "$work/data/postgresql.conf" <<END
listen_addresses = ''
unix_socket_directories = '$work/t'
port = 59992
shared_preload_libraries = 'contactsync'
shared_buffers = 512MB
max_wal_size = 8GB
# when results were committed
track_commit_timestamp = on
contactsync.apply = off
contactsync.http_connections = $in_flight
contactsync.http_host_connections = $in_flight
END
"$bin/pg_ctl" -w -D "$work/data" -l "$work/log" start >/dev/null
psql >/dev/null <<END
CREATE EXTENSION contactsync;
SELECT contactsync.add_source('nginx', 'rest', '{"url": "$url", "poll": false, "rate": false, "allow_http": true, "allow_private": true}');
END

# A round; prints seconds until all were queued, and until all results were committed.
fetch() {
	psql -c 'TRUNCATE contactsync.inbox, contactsync.attempts, contactsync.fetches' -c 'VACUUM contactsync.fetches' -c CHECKPOINT
	psql <<END
SELECT clock_timestamp() AS began \gset
DO \$\$ BEGIN
	FOR n IN 0 .. $requests / 1000 - 1 LOOP
		PERFORM contactsync.fetch_records('nginx', ARRAY(SELECT 'c-' || lpad((n * 1000 + i)::text, 6, '0') FROM generate_series(1, 1000) i));
		COMMIT;
	END LOOP;
END \$\$;
SELECT clock_timestamp() AS queued \gset
DO \$\$ BEGIN
	WHILE EXISTS (SELECT FROM contactsync.fetches) OR (SELECT current_setting('contactsync.apply') = 'on' AND EXISTS (SELECT FROM contactsync.inbox)) LOOP
		COMMIT;
		PERFORM pg_sleep(0.2);
	END LOOP;
END \$\$;
SELECT count(*) = $requests AND bool_and(outcome = 'done') AS complete, max(pg_xact_commit_timestamp(xmin)) AS fetched FROM contactsync.attempts \gset
\if :complete
\else
	\echo not every fetch succeeded
	\quit 3
\endif
SELECT extract(epoch FROM :'queued'::timestamptz - :'began'), extract(epoch FROM :'fetched'::timestamptz - :'began'),
	extract(epoch FROM (SELECT max(pg_xact_commit_timestamp(xmin)) FROM contactsync.contacts) - :'began'::timestamptz);
END
}

fetch >/dev/null
for ((i = 0; i < rounds; i++)); do
	order="bare queue"
	[ $((i % 2)) -eq 0 ] || order="queue bare"
	for who in $order; do
		if [ $who = bare ]; then
			echo "$i bare $("$work/bare" "$url/contacts/c-000001" "$requests" "$in_flight" | awk '{ print $2 }') 0"
		else
			echo "$i queue $(fetch | awk -F'|' '{ print $2, $1 }')"
		fi
	done
done > "$work/rounds"
psql -c 'ALTER SYSTEM SET contactsync.apply = on' -c 'SELECT pg_reload_conf()' >/dev/null
applied=$(fetch | awk -F'|' '{ print $3 }')

awk -v n="$in_flight" -v requests="$requests" -v applied="$applied" '
function median(a, k,  i, j, t) {
	for (i = 2; i <= k; i++) { t = a[i]; for (j = i - 1; j > 0 && a[j] > t; j--) a[j + 1] = a[j]; a[j + 1] = t }
	return k % 2 ? a[(k + 1) / 2] : (a[k / 2] + a[k / 2 + 1]) / 2
}
{ seconds[$2, $1] = $3; queued[$1] = $4; rounds = $1 + 1 }
END {
	for (i = 0; i < rounds; i++) {
		b[i + 1] = requests / seconds["bare", i]; q[i + 1] = requests / seconds["queue", i]; r[i + 1] = q[i + 1] / b[i + 1]; s[i + 1] = queued[i]
	}
	printf "%d records, %d in flight, %d rounds in turn, medians\n", requests, n, rounds
	printf "a bare loop on libcurl   %8.0f requests/s\n", median(b, rounds)
	printf "fetches, SQL to commit   %8.0f requests/s  (all were queued after %.1f s)\n", median(q, rounds), median(s, rounds)
	printf "ratio, of each round     %8.2f (target 0.50, aim 0.70)\n", median(r, rounds)
	printf "fetches, SQL to contact  %8.0f records/s, applied by the same worker\n", requests / applied
}' "$work/rounds"
