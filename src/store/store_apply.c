/*
 * store_apply.c
 *		process(): what is due in the inbox, batch by batch.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/resowner.h"
#include "utils/uuid.h"

#include "compat.h"
#include "guc.h"
#include "store/guard.h"
#include "store/store.h"

PG_FUNCTION_INFO_V1(store_process_sql);
PG_FUNCTION_INFO_V1(store_process_step_sql);
PG_FUNCTION_INFO_V1(store_apply_event_sql);
PG_FUNCTION_INFO_V1(store_resolve_contacts_sql);
PG_FUNCTION_INFO_V1(store_refold_sql);
PG_FUNCTION_INFO_V1(store_relink_sql);

/* What process() has done, and where it stands in the inbox. */
typedef struct Progress
{
	int64		after;			/* inbox id up to which it has come */
	int			claimed;		/* events taken from the inbox */
	int			applied;
	int			refreshed;		/* contacts resolved anew for a new policy */
} Progress;

/*
 * Link those of a batch's records that something has happened to which decides
 * links.  The others' contacts stay theirs.
 */
static void
link_batch(const StoreRecord *records, int nrecords, StoreArray *contacts, StoreArray *causes)
{
	StoreRecord *relinked = palloc(sizeof(StoreRecord) * nrecords);
	int			n = 0;

	for (int i = 0; i < nrecords; i++)
	{
		const StoreRecord *r = &records[i];

		if (!r->changed || r->alone)
			continue;
		/* a record may be known before anything was said about it: see _app_record() */
		if (r->relink || !r->has_contact)
			relinked[n++] = *r;
		else
		{
			store_array_add(contacts, UUIDPGetDatum(&r->contact_id), false);
			store_array_add(causes, Int64GetDatum(r->cause_id), false);
		}
	}
	if (n > 0)
		store_link(relinked, n, contacts, causes);
}

static void
run_batch(int limit, Progress *p)
{
	StoreRecord *records = NULL;
	StoreArray	contacts;
	StoreArray	causes;
	int			nrecords;
	int			claimed;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	store_array_init(&contacts, UUIDOID);
	store_array_init(&causes, INT8OID);
	p->applied += store_observe(limit, &p->after, &claimed, &records, &nrecords);
	p->claimed += claimed;
	if (nrecords > 0)
	{
		link_batch(records, nrecords, &contacts, &causes);
		store_resolve_batch(&contacts, &causes, records, nrecords);
	}
	SPI_finish();
}

/* Faults that say nothing about the event that met them. */
static bool
is_systemic(int sqlerrcode)
{
	switch (ERRCODE_TO_CATEGORY(sqlerrcode))
	{
		case MAKE_SQLSTATE('2', '5', '0', '0', '0'):	/* transaction state */
		case MAKE_SQLSTATE('4', '0', '0', '0', '0'):	/* serialization */
		case MAKE_SQLSTATE('4', '2', '0', '0', '0'):	/* schema, rights */
		case MAKE_SQLSTATE('5', '3', '0', '0', '0'):	/* resources */
		case MAKE_SQLSTATE('5', '5', '0', '0', '0'):	/* locks */
		case MAKE_SQLSTATE('5', '7', '0', '0', '0'):	/* cancel, shutdown */
		case MAKE_SQLSTATE('5', '8', '0', '0', '0'):	/* disk */
			return true;
		default:
			return false;
	}
}

/* Run a batch in a subtransaction; NULL if it went well, else what happened. */
static ErrorData *
try_batch(int limit, Progress *p)
{
	MemoryContext context = CurrentMemoryContext;
	ResourceOwner owner = CurrentResourceOwner;
	Progress	before = *p;
	ErrorData  *volatile fault = NULL;

	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(context);
	PG_TRY();
	{
		run_batch(limit, p);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		fault = CopyErrorData();
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	CurrentResourceOwner = owner;
	if (fault)
		*p = before;
	return fault;
}

/* The due event after this one. */
static int64
next_event(int64 after)
{
	StoreArray	position;
	int64		id;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	store_array_init(&position, INT8OID);
	store_array_add(&position, Int64GetDatum(after), false);
	id = store_run("SELECT id FROM contactsync.inbox WHERE tenant_id = contactsync.current_tenant() "
				   "AND failed_at IS NULL AND id > ($1)[1] ORDER BY id LIMIT 1",
				   1, (StoreArray *[]) {&position}) ? store_int8(0, 1) : 0;
	SPI_finish();
	return id;
}

static void
reject_event(int64 id, ErrorData *fault)
{
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	store_reject(id, unpack_sql_state(fault->sqlerrcode), fault->message);
	SPI_finish();
}

/*
 * One batch of events; false if there was none.  An event that cannot be
 * applied must not take its batch with it: after a fault the same events are
 * tried one by one, and those that fail again stay in the inbox with the reason.
 */
static bool
apply_batch(int limit, Progress *p)
{
	int			claimed = p->claimed;
	ErrorData  *fault = try_batch(limit, p);

	if (fault == NULL)
		return p->claimed > claimed;
	if (is_systemic(fault->sqlerrcode))
		ReThrowError(fault);
	for (int i = 0; i < limit; i++)
	{
		int64		id = next_event(p->after);

		CHECK_FOR_INTERRUPTS();
		if (id == 0)
			break;
		/* this one, though one before it may have been committed meanwhile */
		p->after = id - 1;
		if ((fault = try_batch(1, p)) == NULL)
			continue;
		if (is_systemic(fault->sqlerrcode))
			ReThrowError(fault);
		reject_event(id, fault);
		p->after = id;
		p->claimed++;
	}
	return true;
}

/* Certificates of runs whose events are all applied; true if that made new ones. */
static bool
apply_certificates(void)
{
	bool		more;
	bool		isnull;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	if (store_run("SELECT contactsync._apply_certificates() WHERE EXISTS (SELECT FROM contactsync.runs r "
				  "WHERE r.tenant_id = contactsync.current_tenant() AND r.certified AND NOT r.certificate_applied)",
				  0, NULL) == 0)
		more = false;
	else
		more = DatumGetBool(store_value(0, 1, &isnull));
	SPI_finish();
	return more;
}

/*
 * Resolve a batch of contacts by a policy that is new; how many there were.  What
 * comes meanwhile is resolved by it anyway, and has nothing to change here.
 */
static int
refresh_batch(int limit)
{
	StoreArray	max;
	StoreArray	next;
	StoreArray	contacts;
	uint64		n;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	store_array_init(&max, INT4OID);
	store_array_add(&max, Int32GetDatum(limit), false);
	store_array_init(&contacts, UUIDOID);
	store_array_init(&next, UUIDOID);
	/* one more, which is where the next batch starts */
	n = store_run("SELECT c.id FROM (SELECT p.next_contact FROM contactsync.policies p "
				  "WHERE p.tenant_id = contactsync.current_tenant() ORDER BY p.version DESC LIMIT 1) AS p "
				  "CROSS JOIN LATERAL (SELECT c.id FROM contactsync.contacts c WHERE c.tenant_id = contactsync.current_tenant() "
				  "AND c.id >= p.next_contact ORDER BY c.id LIMIT ($1)[1] + 1) AS c ORDER BY c.id", 1, (StoreArray *[]) {&max});
	store_array_add(&next, (Datum) 0, true);
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;
		Datum		id = store_value(i, 1, &isnull);

		if (i < (uint64) limit)
			store_array_add(&contacts, id, false);
		else
		{
			next.values[0] = id;
			next.nulls[0] = false;
		}
	}
	store_resolve(&contacts, "policy", NULL);
	store_run("UPDATE contactsync.policies p SET next_contact = ($1)[1] "
			  "WHERE p.tenant_id = contactsync.current_tenant() AND p.next_contact IS NOT NULL", 1, (StoreArray *[]) {&next});
	SPI_finish();
	return contacts.n;
}

static bool
refresh_due(void)
{
	bool		due;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	due = store_run("SELECT FROM contactsync.policies p "
					"WHERE p.tenant_id = contactsync.current_tenant() AND p.next_contact IS NOT NULL LIMIT 1", 0, NULL) > 0;
	SPI_finish();
	return due;
}

/*
 * Link a batch of records by an identity policy that is new; how many there
 * were.  Those that come meanwhile are linked by it anyway.
 */
static int
relink_batch(int limit)
{
	StoreArray	max;
	StoreArray	ids;
	StoreArray	next;
	StoreArray	contacts;
	StoreArray	causes;
	StoreRecord *records;
	int			nrecords = 0;
	uint64		n;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	store_array_init(&max, INT4OID);
	store_array_add(&max, Int32GetDatum(limit), false);
	store_array_init(&ids, INT8OID);
	store_array_init(&next, INT8OID);
	store_array_init(&contacts, UUIDOID);
	store_array_init(&causes, INT8OID);
	n = store_run("SELECT r.id FROM (SELECT p.next_record FROM contactsync.identity_policies p "
				  "WHERE p.tenant_id = contactsync.current_tenant() ORDER BY p.version DESC LIMIT 1) AS p "
				  "CROSS JOIN LATERAL (SELECT r.id FROM contactsync.records r WHERE r.tenant_id = contactsync.current_tenant() "
				  "AND r.id >= p.next_record ORDER BY r.id LIMIT ($1)[1]) AS r ORDER BY r.id", 1, (StoreArray *[]) {&max});
	for (uint64 i = 0; i < n; i++)
		store_array_add(&ids, Int64GetDatum(store_int8(i, 1)), false);
	if (n > 0)
	{
		store_refold(&ids, 0, true, &records, &nrecords);
		store_link(records, nrecords, &contacts, &causes);
		store_resolve(&contacts, "policy", NULL);
	}
	store_array_add(&next, n > 0 ? Int64GetDatum(DatumGetInt64(ids.values[n - 1]) + 1) : (Datum) 0, n < (uint64) limit);
	store_run("UPDATE contactsync.identity_policies p SET next_record = ($1)[1] "
			  "WHERE p.tenant_id = contactsync.current_tenant() AND p.next_record IS NOT NULL", 1, (StoreArray *[]) {&next});
	SPI_finish();
	return n;
}

static bool
relink_due(void)
{
	bool		due;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	due = store_run("SELECT FROM contactsync.identity_policies p "
					"WHERE p.tenant_id = contactsync.current_tenant() AND p.next_record IS NOT NULL LIMIT 1", 0, NULL) > 0;
	SPI_finish();
	return due;
}

/* True if more may be due: max bounds what one transaction does. */
static bool
apply_due(int max, Progress *p)
{
	guard_require_active();
	guard_lock_tenant();
	do
	{
		/* whoever commits late may bring ids below the position: start again */
		for (p->after = 0; p->claimed < max; )
		{
			CHECK_FOR_INTERRUPTS();
			if (!apply_batch(Min(max - p->claimed, guc_batch_size), p))
				break;
		}
	} while (p->claimed < max && apply_certificates());
	while (p->claimed + p->refreshed < max && relink_due())
	{
		CHECK_FOR_INTERRUPTS();
		p->refreshed += relink_batch(Min(max - p->claimed - p->refreshed, guc_batch_size));
	}
	while (p->claimed + p->refreshed < max && refresh_due())
	{
		CHECK_FOR_INTERRUPTS();
		p->refreshed += refresh_batch(Min(max - p->claimed - p->refreshed, guc_batch_size));
	}
	return p->claimed + p->refreshed >= max;
}

/*
 * Every join of ours goes from a batch to rows by their keys.  Statistics that
 * lag behind a first load would have the planner read whole tables for it, so
 * joins are nested loops in the order written, planned each time, and pages are
 * free: what counts is how many rows a plan touches.
 */
void
store_fix_plans(void)
{
	static const char *const settings[][2] = {
		{"join_collapse_limit", "1"},
		{"enable_hashjoin", "off"},
		{"enable_mergejoin", "off"},
		{"enable_seqscan", "off"},
		{"enable_material", "off"},
		{"seq_page_cost", "0"},
		{"random_page_cost", "0"},
		{"plan_cache_mode", "force_custom_plan"},
		{"jit", "off"},
	};

	for (int i = 0; i < lengthof(settings); i++)
		(void) set_config_option(settings[i][0], settings[i][1], PGC_USERSET, PGC_S_SESSION,
								 GUC_ACTION_SAVE, true, 0, false);
}

static void
apply_guarded(const char *tenant, int max, Progress *p, bool *more)
{
	Guard		guard;

	guard_enter(&guard, tenant);
	PG_TRY();
	{
		store_fix_plans();
		*more = apply_due(max, p);
	}
	PG_FINALLY();
	{
		guard_leave(&guard);
	}
	PG_END_TRY();
}

bool
store_process(const char *tenant, int max)
{
	Progress	p = {0};
	bool		more = false;

	apply_guarded(tenant, max, &p, &more);
	return more;
}

/*
 * _process_step(max integer) -> boolean
 *		process() for drain(), which commits in between: true if more may be due.
 */
Datum
store_process_step_sql(PG_FUNCTION_ARGS)
{
	Progress	p = {0};
	bool		more = false;

	apply_guarded(NULL, PG_GETARG_INT32(0), &p, &more);
	PG_RETURN_BOOL(more);
}

/*
 * _apply_event(inbox_id bigint)
 *		Apply one event by itself, whatever else is due; inside the guard and under
 *		the tenant's lock.
 */
Datum
store_apply_event_sql(PG_FUNCTION_ARGS)
{
	Progress	p = {0};

	store_fix_plans();
	p.after = PG_GETARG_INT64(0) - 1;
	run_batch(1, &p);
	PG_RETURN_VOID();
}

/*
 * process(max integer = NULL) -> integer
 *		Events applied; NULL = until the inbox is empty.
 */
Datum
store_process_sql(PG_FUNCTION_ARGS)
{
	int			max = PG_ARGISNULL(0) ? PG_INT32_MAX : PG_GETARG_INT32(0);
	Progress	p = {0};
	bool		more = false;

	if (max < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the number of events must not be negative"),
				 errhint("Give a number of events, or leave max out for all.")));
	apply_guarded(NULL, max, &p, &more);
	PG_RETURN_INT32(p.applied);
}

/*
 * _resolve_contacts(contacts uuid[], cause text, cause_id bigint)
 *		Bring contacts up to date, inside the guard and under the tenant's lock.
 */
Datum
store_resolve_contacts_sql(PG_FUNCTION_ARGS)
{
	StoreArray	contacts;
	StoreArray	causes;
	Datum	   *values;
	bool	   *nulls;
	int			n;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	store_array_init(&contacts, UUIDOID);
	store_array_init(&causes, INT8OID);
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), UUIDOID, UUID_LEN, false, TYPALIGN_CHAR,
					  &values, &nulls, &n);
	for (int i = 0; i < n; i++)
	{
		store_array_add(&contacts, values[i], false);
		store_array_add(&causes, PG_GETARG_DATUM(2), false);
	}
	store_resolve(&contacts, text_to_cstring(PG_GETARG_TEXT_PP(1)), &causes);
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * _refold(records bigint[], cause text, cause_id bigint)
 *		Fold records anew, with all that follows; inside the guard and under the
 *		tenant's lock.
 */
Datum
store_refold_sql(PG_FUNCTION_ARGS)
{
	StoreArray	ids;
	StoreArray	contacts;
	StoreArray	causes;
	StoreRecord *records;
	int			nrecords;
	Datum	   *values;
	bool	   *nulls;
	int			n;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, 8, true, TYPALIGN_DOUBLE, &values, &nulls, &n);
	store_array_init(&ids, INT8OID);
	store_array_init(&contacts, UUIDOID);
	store_array_init(&causes, INT8OID);
	for (int i = 0; i < n; i++)
		store_array_add(&ids, values[i], false);
	store_refold(&ids, PG_GETARG_INT64(2), false, &records, &nrecords);
	store_link(records, nrecords, &contacts, &causes);
	store_resolve(&contacts, text_to_cstring(PG_GETARG_TEXT_PP(1)), &causes);
	SPI_finish();
	PG_RETURN_VOID();
}

/*
 * _relink(records bigint[], cause text, cause_id bigint)
 *		Cluster records anew, with all that follows; inside the guard and under
 *		the tenant's lock.
 */
Datum
store_relink_sql(PG_FUNCTION_ARGS)
{
	StoreArray	contacts;
	StoreArray	causes;
	StoreRecord *records;
	Datum	   *values;
	bool	   *nulls;
	int			n;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &values, &nulls, &n);
	store_array_init(&contacts, UUIDOID);
	store_array_init(&causes, INT8OID);
	store_fix_plans();
	records = palloc0(sizeof(StoreRecord) * Max(n, 1));
	for (int i = 0; i < n; i++)
	{
		records[i].id = DatumGetInt64(values[i]);
		records[i].changed = true;
		records[i].cause_id = PG_GETARG_INT64(2);
	}
	store_link(records, n, &contacts, &causes);
	store_resolve(&contacts, text_to_cstring(PG_GETARG_TEXT_PP(1)), &causes);
	SPI_finish();
	PG_RETURN_VOID();
}
