/*
 * store_audit.c
 *		Audit rows of contacts.
 */
#include "postgres.h"

#include "access/xact.h"
#include "access/xlog.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "commands/sequence.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/lsyscache.h"
#include "utils/timestamp.h"
#include "utils/xid8.h"

#include "compat.h"
#include "contactsync.h"
#include "stats/stats.h"
#include "store/store.h"

static StrView
copy_text(StrView s)
{
	return s.ptr ? strview_of(pnstrdup(s.ptr, s.len)) : s;
}

/* Who does it, and when, is the same for all rows of a batch. */
void
store_audit_init(StoreAudit *audit)
{
	static const StoreColumn columns[] = {
		{"id", INT8OID}, {"at", TIMESTAMPTZOID}, {"xact", XID8OID}, {"system_identifier", INT8OID}, {"session_role", NAMEOID},
		{"current_role", NAMEOID}, {"application_name", TEXTOID}, {"client_address", INETOID}, {"cause", TEXTOID},
		{"cause_id", INT8OID}, {"relation", TEXTOID}, {"operation", TEXTOID}, {"row_key", TEXTOID}, {"changed", JSONBOID},
		{"secret", BYTEAOID}
	};
	char	   *partition;

	if (store_run("SELECT t.generation, pg_catalog.clock_timestamp(), contactsync._caller()::pg_catalog.text, session_user::pg_catalog.text, "
				  "pg_catalog.current_setting('application_name'), pg_catalog.inet_client_addr(), "
				  "contactsync._audit_partition(pg_catalog.clock_timestamp()) "
				  "FROM contactsync.tenant_state t WHERE t.tenant_id = contactsync.current_tenant()", 0, NULL) == 0)
		elog(ERROR, "the tenant is not locked");
	audit->generation = store_int8(0, 1);
	audit->now = store_time(0, 2);
	audit->caller = copy_text(store_text(0, 3));
	audit->session_role = copy_text(store_text(0, 4));
	audit->application_name = store_text(0, 5);
	audit->client_address = store_value(0, 6, &audit->no_client_address);
	partition = pnstrdup(store_text(0, 7).ptr, store_text(0, 7).len);
	audit->ids = get_relname_relid("audit_log_id_seq", get_namespace_oid(CONTACTSYNC_SCHEMA, false));
	store_rows_for(&audit->rows, partition, columns, lengthof(columns));
}

static void
put_name(StoreRows *rows, StrView name)
{
	Name		n = MemoryContextAllocZero(rows->scratch, NAMEDATALEN);

	memcpy(NameStr(*n), name.ptr, Min(name.len, NAMEDATALEN - 1));
	store_put(rows, NameGetDatum(n));
}

/* cause_id 0 = none */
void
store_audit_add(StoreAudit *audit, const char *cause, int64 cause_id, const char *operation, const pg_uuid_t *id,
				const Jsonb *changed)
{
	StoreRows  *rows = &audit->rows;
	uint8		secret[16];

	stats_add(stats_of_tenant(), strcmp(operation, "insert") == 0 ? SC_CONTACTS_INSERTED : strcmp(operation, "update") == 0 ? SC_CONTACTS_UPDATED :
			  strcmp(operation, "delete") == 0 ? SC_CONTACTS_DELETED : SC_CONTACTS_MERGED, 1);
	store_random(secret, sizeof(secret));
	store_put(rows, Int64GetDatum(nextval_internal(audit->ids, false)));
	store_put(rows, TimestampTzGetDatum(audit->now));
	store_put(rows, FullTransactionIdGetDatum(GetTopFullTransactionId()));
	store_put(rows, Int64GetDatum((int64) GetSystemIdentifier()));
	put_name(rows, audit->session_role);
	put_name(rows, audit->caller);
	store_put_bytes(rows, audit->application_name.ptr, audit->application_name.len);
	if (audit->no_client_address)
		store_put_null(rows);
	else
		store_put(rows, audit->client_address);
	store_put_text(rows, strview_of(cause));
	if (cause_id != 0)
		store_put(rows, Int64GetDatum(cause_id));
	else
		store_put_null(rows);
	store_put_text(rows, strview_of("contacts"));
	store_put_text(rows, strview_of(operation));
	store_put_text(rows, strview_of(DatumGetCString(DirectFunctionCall1(uuid_out, UUIDPGetDatum(id)))));
	store_put(rows, JsonbPGetDatum(changed));
	store_put_bytes(rows, secret, sizeof(secret));
}

void
store_audit_write(StoreAudit *audit)
{
	store_write(&audit->rows);
}
