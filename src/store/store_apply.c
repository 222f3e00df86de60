/*
 * store_apply.c
 *		process(): what is due in the inbox, batch by batch.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "miscadmin.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/uuid.h"

#include "compat.h"
#include "guc.h"
#include "store/guard.h"
#include "store/store.h"

PG_FUNCTION_INFO_V1(store_process_sql);
PG_FUNCTION_INFO_V1(store_resolve_contacts_sql);
PG_FUNCTION_INFO_V1(store_check_policy_sql);

/* One batch of events; false if there was none. */
static bool
apply_batch(int limit, int *applied)
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
	*applied += store_observe(limit, &claimed, &records, &nrecords);
	if (nrecords > 0)
	{
		store_link(records, nrecords, &contacts, &causes);
		store_resolve(&contacts, "event", &causes);
	}
	SPI_finish();
	return claimed > 0;
}

/* Resolve a batch of contacts that an older policy made; false if there is none. */
static bool
refresh_batch(int limit)
{
	StoreArray	max;
	StoreArray	contacts;
	uint64		n;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	store_array_init(&max, INT4OID);
	store_array_add(&max, Int32GetDatum(limit), false);
	store_array_init(&contacts, UUIDOID);
	n = store_run("SELECT id FROM contactsync.contacts WHERE tenant_id = contactsync.current_tenant() "
				  "AND policy_version < (SELECT pg_catalog.max(p.version) FROM contactsync.policies p "
				  "WHERE p.tenant_id = contactsync.current_tenant()) LIMIT ($1)[1]",
				  1, (StoreArray *[]) {&max});
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		store_array_add(&contacts, store_value(i, 1, &isnull), false);
	}
	store_resolve(&contacts, "policy", NULL);
	SPI_finish();
	return n > 0;
}

static void
apply_due(int max, int *applied)
{
	int			left = max;

	guard_require_active();
	guard_lock_tenant();
	while (left > 0)
	{
		int			before = *applied;

		CHECK_FOR_INTERRUPTS();
		if (!apply_batch(Min(left, guc_batch_size), applied))
			break;
		if (max != PG_INT32_MAX)
			left -= *applied - before;
	}
	while (left > 0 && refresh_batch(guc_batch_size))
		CHECK_FOR_INTERRUPTS();
}

/*
 * Every join of ours goes from a batch to rows by their keys.  Statistics that
 * lag behind a first load would have the planner read whole tables for it, so
 * joins are nested loops in the order written, planned each time, and pages are
 * free: what counts is how many rows a plan touches.
 */
static void
fix_plans(void)
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
apply_guarded(int max, int *applied)
{
	Guard		guard;

	guard_enter(&guard, NULL);
	PG_TRY();
	{
		fix_plans();
		apply_due(max, applied);
	}
	PG_FINALLY();
	{
		guard_leave(&guard);
	}
	PG_END_TRY();
}

/*
 * process(max integer = NULL) -> integer
 *		Events applied; NULL = until the inbox is empty.
 */
Datum
store_process_sql(PG_FUNCTION_ARGS)
{
	int			max = PG_ARGISNULL(0) ? PG_INT32_MAX : PG_GETARG_INT32(0);
	int			applied = 0;

	if (max < 0)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the number of events must not be negative")));
	apply_guarded(max, &applied);
	PG_RETURN_INT32(applied);
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
 * _check_policy(policy jsonb)
 *		Error 22023 if it is not a policy.
 */
Datum
store_check_policy_sql(PG_FUNCTION_ARGS)
{
	MergePolicy policy;
	ContactError error;

	if (!merge_policy_from_jsonb(PG_GETARG_JSONB_P(0), &policy, &error))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid rule for \"%s\": %s", error.path + 2, error.message),
				 errhint("Fields are those of a contact, the groups name and job, metadata.<key>, emails.primary and phones.primary; "
						 "rules are last_write_wins, source_priority, manual_review and union.")));
	PG_RETURN_VOID();
}
