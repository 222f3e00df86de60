#!/bin/sh
# Join the pieces of the install script: join.sh PIECE... -- CONNECTOR.json...
# Each shipped connector becomes one call of contactsync._ship_connector.
set -eu
while [ $# -gt 0 ] && [ "$1" != -- ]; do
	printf '/* ---- %s ---- */\n' "${1#*src/}"
	cat "$1"
	printf '\n'
	shift
done
[ $# -gt 0 ] && shift
for f; do
	name=$(basename "$f" .json)
	printf 'SELECT contactsync._ship_connector(%s, $connector$' "'$name'"
	cat "$f"
	printf '$connector$);\n'
done
