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

/* ---- decisions ---- */

/* What says whether a decision is in force. */
typedef struct Undoable
{
	int64		id;
	int64		undoes;			/* 0 = it is no undo */
	int64		part_of;		/* 0 = it is a whole */
	int64		stored;			/* undone_by; 0 = none */
	int64		computed;
	int64		whole;			/* the one at the top; its own id if it is that */
} Undoable;

static int
undoable_id_cmp(const void *x, const void *y)
{
	int64		a = ((const Undoable *) x)->id;
	int64		b = ((const Undoable *) y)->id;

	return (a > b) - (a < b);
}

/* Undos of a thing are of later wholes than it is, and a part is later than its whole. */
static int
undoable_order_cmp(const void *x, const void *y)
{
	const Undoable *a = *(Undoable *const *) x;
	const Undoable *b = *(Undoable *const *) y;

	if (a->whole != b->whole)
		return a->whole > b->whole ? -1 : 1;
	return (a->id > b->id) - (a->id < b->id);
}

static Undoable *
find_undoable(Undoable *all, int n, int64 id)
{
	Undoable	key = {.id = id};

	return id == 0 ? NULL : bsearch(&key, all, n, sizeof(Undoable), undoable_id_cmp);
}

/* Not by recursion: undos of undos may be many. */
static void
compute_undone(Undoable *all, int n)
{
	Undoable  **order = palloc_extended(sizeof(Undoable *) * Max(n, 1), MCXT_ALLOC_HUGE);

	/* in the order of ids, so that the whole's is known before its parts' */
	for (int i = 0; i < n; i++)
	{
		Undoable   *whole = find_undoable(all, i, all[i].part_of);

		all[i].whole = whole ? whole->whole : all[i].id;
		order[i] = &all[i];
	}
	qsort(order, n, sizeof(Undoable *), undoable_order_cmp);
	for (int i = 0; i < n; i++)
	{
		Undoable   *d = order[i];
		Undoable   *whole = find_undoable(all, n, d->part_of);
		Undoable   *target = find_undoable(all, n, d->undoes);

		if (d->computed == 0 && whole)
			d->computed = whole->computed;
		if (d->computed == 0 && target && (target->computed == 0 || d->id < target->computed))
			target->computed = d->id;
	}
}

static void
report_undone(Findings *r, const Undoable *u)
{
	StoreDifference d = {0};
	StoreArray	id;

	d.kind = SD_DECISION;
	d.record = u->id;
	d.field = psprintf("decision:" INT64_FORMAT, u->id);
	d.stored = u->stored ? psprintf("{\"undone_by\": " INT64_FORMAT "}", u->stored) : NULL;
	d.computed = u->computed ? psprintf("{\"undone_by\": " INT64_FORMAT "}", u->computed) : NULL;
	store_array_init(&id, INT8OID);
	store_array_add(&id, Int64GetDatum(u->id), false);
	if (store_run("SELECT r.contact_id FROM contactsync.decisions d JOIN contactsync.records r ON r.tenant_id = d.tenant_id "
				  "AND r.id = d.records[1] WHERE d.tenant_id = contactsync.current_tenant() AND d.id = ($1)[1] "
				  "AND r.contact_id IS NOT NULL", 1, (StoreArray *[]) {&id}) > 0)
	{
		bool		isnull;

		d.contact = *DatumGetUUIDP(store_value(0, 1, &isnull));
	}
	put_difference(&d, r);
}

/* undone_by of every decision that an undo may reach. */
static void
compare_decisions(Findings *r)
{
	bool		read_only = store_set_read_only(true);

	PG_TRY();
	{
		Undoable   *all;
		uint64		n;

		if (SPI_connect() != SPI_OK_CONNECT)
			elog(ERROR, "could not connect to SPI");
		n = store_run("SELECT d.id, CASE d.kind WHEN 'undo' THEN d.target END, d.part_of, d.undone_by "
					  "FROM contactsync.decisions d WHERE d.tenant_id = contactsync.current_tenant() "
					  "AND (d.undone_by IS NOT NULL OR d.part_of IS NOT NULL OR d.kind = 'undo' "
					  "OR EXISTS (SELECT FROM contactsync.decisions u WHERE u.tenant_id = d.tenant_id AND u.target = d.id) "
					  "OR EXISTS (SELECT FROM contactsync.decisions p WHERE p.tenant_id = d.tenant_id AND p.part_of = d.id)) "
					  "ORDER BY d.id", 0, NULL);
		all = palloc_extended(sizeof(Undoable) * Max(n, 1), MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
		for (uint64 i = 0; i < n; i++)
		{
			all[i].id = store_int8(i, 1);
			all[i].undoes = store_int8(i, 2);
			all[i].part_of = store_int8(i, 3);
			all[i].stored = store_int8(i, 4);
		}
		compute_undone(all, n);
		for (uint64 i = 0; i < n; i++)
			if (all[i].stored != all[i].computed)
				report_undone(r, &all[i]);
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
	store_run("SELECT contactsync._apply_decisions(contactsync._refresh_undone($1), 0)", 1, (StoreArray *[]) {&ids});
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
