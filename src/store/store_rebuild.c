/*
 * store_rebuild.c
 *		rebuild(), verify() and what_if(): what the facts, or another policy, would give.
 *
 * They read under one snapshot, and so take no lock; a repair takes the tenant's.
 * It goes through the code by which the state is kept up to date otherwise, and
 * so leaves the same audit rows.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/snapmgr.h"
#include "utils/tuplestore.h"

#include "compat.h"
#include "store/guard.h"
#include "store/store_verify.h"

PG_FUNCTION_INFO_V1(store_rebuild_sql);
PG_FUNCTION_INFO_V1(store_verify_sql);
PG_FUNCTION_INFO_V1(store_what_if_sql);

#define REPAIR_BATCH	500

typedef enum RebuildMode
{
	MODE_DRY_RUN,
	MODE_REPAIR,
	MODE_VERIFY,
	MODE_WHAT_IF
} RebuildMode;

typedef struct Findings
{
	ReturnSetInfo *rsinfo;
	MemoryContext scratch;		/* for one row */
	RebuildMode		mode;
	StoreArray	records;		/* of MODE_REPAIR: what is to be put right */
	StoreArray	contacts;
	StoreArray	decisions;
} Findings;

static Datum
jsonb_datum(const char *text, bool *isnull)
{
	*isnull = text == NULL;
	return text ? DirectFunctionCall1(jsonb_in, CStringGetDatum(text)) : (Datum) 0;
}

/* The names of an object's members, as a list. */
static char *
member_names(const char *object)
{
	Jsonb	   *json = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(object)));
	JsonbIterator *it = JsonbIteratorInit(&json->root);
	JsonbIteratorToken token;
	JsonbValue	v;
	StringInfoData buf;

	initStringInfo(&buf);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
		if (token == WJB_KEY)
			appendStringInfo(&buf, "%s%.*s", buf.len ? ", " : "", v.val.string.len, v.val.string.val);
	return buf.data;
}

/* What is wrong, without the values: those are for rebuild() to show. */
static char *
problem(const StoreDifference *d)
{
	switch (d->kind)
	{
		case SD_RECORD:
			return psprintf("%s: stored values of %s differ from what its facts give", d->field, member_names(d->stored));
		case SD_FIELD:
			return psprintf("stored value of %s differs from what its records give", d->field);
		case SD_MISSING:
			return pstrdup("the contact of these records is missing");
		case SD_ORPHAN:
			return pstrdup("the contact has no records");
		case SD_CONFLICT:
			return psprintf(d->stored == NULL ? "%s is missing" :
							d->computed == NULL ? "%s is stored, and is none" : "stored %s differs from what its records give",
							d->field);
		case SD_DECISION:
			return psprintf("%s: stored undone_by differs from what the decisions give", d->field);
	}
	return NULL;				/* keep the compiler quiet */
}

static bool
is_nil(const pg_uuid_t *id)
{
	static const pg_uuid_t nil;

	return memcmp(id, &nil, UUID_LEN) == 0;
}

static void
put_difference(const StoreDifference *d, void *arg)
{
	Findings	   *r = arg;
	Datum		values[4] = {0};
	bool		nulls[4] = {false};
	MemoryContext old;

	if (r->mode == MODE_REPAIR)
	{
		if (d->kind == SD_RECORD)
			store_array_add(&r->records, Int64GetDatum(d->record), false);
		else if (d->kind == SD_DECISION)
			store_array_add(&r->decisions, Int64GetDatum(d->record), false);
		if (!is_nil(&d->contact))
		{
			pg_uuid_t  *id = MemoryContextAlloc(r->rsinfo->econtext->ecxt_per_query_memory, sizeof(pg_uuid_t));

			*id = d->contact;
			if (r->contacts.n == 0 ||
				memcmp(DatumGetUUIDP(r->contacts.values[r->contacts.n - 1]), id, UUID_LEN) != 0)
				store_array_add(&r->contacts, UUIDPGetDatum(id), false);
		}
	}
	old = MemoryContextSwitchTo(r->scratch);
	values[0] = UUIDPGetDatum(&d->contact);
	nulls[0] = is_nil(&d->contact);
	if (r->mode == MODE_VERIFY)
		values[1] = CStringGetTextDatum(problem(d));
	else
	{
		values[1] = CStringGetTextDatum(d->field);
		values[2] = jsonb_datum(d->stored, &nulls[2]);
		values[3] = jsonb_datum(d->computed, &nulls[3]);
	}
	tuplestore_putvalues(r->rsinfo->setResult, r->rsinfo->setDesc, values, nulls);
	MemoryContextSwitchTo(old);
	MemoryContextReset(r->scratch);
}

/* undone_by of every decision that an undo may reach. */
static void
compare_decisions(Findings *r)
{
	bool		read_only = store_set_read_only(true);

	PG_TRY();
	{
		uint64		n;

		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "could not connect to SPI");
		n = store_run("SELECT d.id, d.undone_by, u.undone_by, (SELECT r.contact_id FROM contactsync.records r "
					  "WHERE r.tenant_id = d.tenant_id AND r.id = d.records[1]) FROM contactsync.decisions d "
					  "CROSS JOIN LATERAL contactsync._undone_by(d.id) AS u (undone_by) "
					  "WHERE d.tenant_id = contactsync.current_tenant() AND (d.undone_by IS NOT NULL OR d.part_of IS NOT NULL "
					  "OR d.id IN (SELECT t.target FROM contactsync.decisions t WHERE t.tenant_id = contactsync.current_tenant() "
					  "AND t.target IS NOT NULL)) AND d.undone_by IS DISTINCT FROM u.undone_by", 0, NULL);
		for (uint64 i = 0; i < n; i++)
		{
			StoreDifference d = {0};
			bool		none;
			bool		isnull;
			Datum		contact = store_value(i, 4, &none);

			d.kind = SD_DECISION;
			d.record = store_int8(i, 1);
			if (!none)
				d.contact = *DatumGetUUIDP(contact);
			d.field = psprintf("decision:" INT64_FORMAT, d.record);
			(void) store_value(i, 2, &isnull);
			d.stored = isnull ? NULL : psprintf("{\"undone_by\": " INT64_FORMAT "}", store_int8(i, 2));
			(void) store_value(i, 3, &isnull);
			d.computed = isnull ? NULL : psprintf("{\"undone_by\": " INT64_FORMAT "}", store_int8(i, 3));
			put_difference(&d, r);
		}
		SPI_finish();
	}
	PG_FINALLY();
	{
		(void) store_set_read_only(read_only);
	}
	PG_END_TRY();
}

/* ---- repair ---- */

/* Part of an array, as an array. */
static StoreArray
slice(const StoreArray *a, int from)
{
	StoreArray	s = *a;

	s.values += from;
	s.nulls += from;
	s.n = Min(a->n - from, REPAIR_BATCH);
	return s;
}

static void
repair_decisions(const StoreArray *decisions)
{
	StoreArray	ids = *decisions;

	if (ids.n == 0)
		return;
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	store_run("UPDATE contactsync.decisions d SET undone_by = contactsync._undone_by(d.id) "
			  "WHERE d.tenant_id = contactsync.current_tenant() AND d.id = ANY ($1)", 1, (StoreArray *[]) {&ids});
	store_run("SELECT contactsync._apply_decisions($1, 0)", 1, (StoreArray *[]) {&ids});
	SPI_finish();
}

/* Fold records anew, or link and resolve what was folded anew. */
static void
repair_records(const StoreArray *records, bool link)
{
	for (int from = 0; from < records->n; from += REPAIR_BATCH)
	{
		StoreArray	ids = slice(records, from);
		StoreArray	contacts;
		StoreArray	causes;
		StoreRecord *folded;
		int			n;

		CHECK_FOR_INTERRUPTS();
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "could not connect to SPI");
		store_refold(&ids, 0, true, &folded, &n);
		if (link)
		{
			store_array_init(&contacts, UUIDOID);
			store_array_init(&causes, INT8OID);
			store_link(folded, n, &contacts, &causes);
			for (int i = 0; i < n; i++)
				if (folded[i].has_contact)
					store_array_add(&contacts, UUIDPGetDatum(&folded[i].contact_id), false);
			store_resolve(&contacts, "rebuild", NULL);
		}
		SPI_finish();
	}
}

static void
repair_contacts(const StoreArray *contacts)
{
	for (int from = 0; from < contacts->n; from += REPAIR_BATCH)
	{
		StoreArray	ids = slice(contacts, from);

		CHECK_FOR_INTERRUPTS();
		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "could not connect to SPI");
		store_resolve(&ids, "rebuild", NULL);
		SPI_finish();
	}
}

/* ---- the functions ---- */

static void
compare_all(Findings *r, const char *policy)
{
	StoreComparison c = {0};

	c.policy = policy;
	c.own_policy = r->mode == MODE_VERIFY;
	c.report = put_difference;
	c.arg = r;
	/* all of it under one snapshot, taken after the lock if there is one */
	CommandCounterIncrement();
	PushActiveSnapshot(GetTransactionSnapshot());
	if (r->mode != MODE_WHAT_IF)
		compare_decisions(r);
	store_compare(&c);
	PopActiveSnapshot();
}

static void
run(FunctionCallInfo fcinfo, RebuildMode mode, const char *policy)
{
	Findings		r = {0};
	Guard		guard;

	InitMaterializedSRF(fcinfo, 0);
	r.rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	r.scratch = AllocSetContextCreate(CurrentMemoryContext, "difference", ALLOCSET_SMALL_SIZES);
	r.mode = mode;
	store_array_init(&r.records, INT8OID);
	store_array_init(&r.contacts, UUIDOID);
	store_array_init(&r.decisions, INT8OID);

	guard_enter(&guard, NULL);
	PG_TRY();
	{
		store_fix_plans();
		if (mode == MODE_REPAIR)
		{
			guard_require_active();
			guard_lock_tenant();
		}
		compare_all(&r, policy);
		if (mode == MODE_REPAIR)
		{
			repair_decisions(&r.decisions);
			/* all of them before any is used: a contact may be made of several */
			repair_records(&r.records, false);
			repair_records(&r.records, true);
			repair_contacts(&r.contacts);
		}
	}
	PG_FINALLY();
	{
		guard_leave(&guard);
	}
	PG_END_TRY();
}

/*
 * rebuild(dry_run boolean = true) -> setof (contact_id, field, stored, computed)
 */
Datum
store_rebuild_sql(PG_FUNCTION_ARGS)
{
	run(fcinfo, PG_GETARG_BOOL(0) ? MODE_DRY_RUN : MODE_REPAIR, NULL);
	return (Datum) 0;
}

/*
 * verify() -> setof (contact_id, problem)
 */
Datum
store_verify_sql(PG_FUNCTION_ARGS)
{
	run(fcinfo, MODE_VERIFY, NULL);
	return (Datum) 0;
}

/*
 * what_if(policy merge_policy) -> setof (contact_id, field, current, proposed)
 */
Datum
store_what_if_sql(PG_FUNCTION_ARGS)
{
	Jsonb	   *policy = PG_GETARG_JSONB_P(0);	/* as which it is stored */

	run(fcinfo, MODE_WHAT_IF, JsonbToCString(NULL, &policy->root, VARSIZE(policy)));
	return (Datum) 0;
}
