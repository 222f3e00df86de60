/*
 * store_audit.c
 *		Audit rows of contacts.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"

#include "compat.h"
#include "stats/stats.h"
#include "store/store.h"

void
store_audit_init(StoreRows *rows)
{
	static const StoreColumn columns[] = {
		{"cause", TEXTOID}, {"cause_id", INT8OID}, {"operation", TEXTOID}, {"id", UUIDOID}, {"changed", JSONBOID},
		{"secret", BYTEAOID}
	};

	store_rows_init(rows, columns, lengthof(columns));
}

static void
put_string(StoreRows *rows, const char *s)
{
	StrView		v = {s, strlen(s)};

	store_put_text(rows, v);
}

/* cause_id 0 = none */
void
store_audit_add(StoreRows *rows, const char *cause, int64 cause_id, const char *operation, const pg_uuid_t *id,
				const Jsonb *changed)
{
	char		secret[VARHDRSZ + 16];

	stats_add(stats_of_tenant(), strcmp(operation, "insert") == 0 ? SC_CONTACTS_INSERTED : strcmp(operation, "update") == 0 ? SC_CONTACTS_UPDATED :
			  strcmp(operation, "delete") == 0 ? SC_CONTACTS_DELETED : SC_CONTACTS_MERGED, 1);
	SET_VARSIZE(secret, sizeof(secret));
	if (!pg_strong_random(VARDATA(secret), 16))
		ereport(ERROR,
				(errcode(ERRCODE_INTERNAL_ERROR),
				 errmsg("could not generate random values")));
	put_string(rows, cause);
	if (cause_id != 0)
		store_put(rows, Int64GetDatum(cause_id));
	else
		store_put_null(rows);
	put_string(rows, operation);
	store_put(rows, UUIDPGetDatum(id));
	store_put(rows, JsonbPGetDatum(changed));
	store_put(rows, PointerGetDatum(secret));
}

void
store_audit_write(StoreRows *rows)
{
	if (rows->n > 0)
		store_run("SELECT contactsync._audit_partition(pg_catalog.clock_timestamp())", 0, NULL);
	store_run_rows("INSERT INTO contactsync.audit_log (id, at, xact, system_identifier, session_role, \"current_role\", "
				   "application_name, client_address, cause, cause_id, relation, operation, row_key, changed, secret) "
				   "SELECT pg_catalog.nextval('contactsync.audit_log_id_seq'), pg_catalog.clock_timestamp(), "
				   "pg_catalog.pg_current_xact_id(), (SELECT system_identifier FROM pg_catalog.pg_control_system()), "
				   "session_user, (SELECT contactsync._caller()), (SELECT pg_catalog.current_setting('application_name')), "
				   "pg_catalog.inet_client_addr(), u.cause, u.cause_id, 'contacts', u.operation, u.id::pg_catalog.text, "
				   "u.changed, u.secret FROM u", rows);
}
