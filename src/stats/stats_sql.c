/*
 * stats_sql.c
 *		What SQL sees of the counters, and what it counts.
 *
 * Whoever may act for the active tenant sees the lines of that tenant, and those
 * of the database's worker; nobody sees more.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/acl.h"
#include "utils/array.h"
#include "utils/backend_status.h"
#include "utils/builtins.h"
#include "utils/float.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "stats/stats_shared.h"
#include "store/guard.h"

PG_FUNCTION_INFO_V1(stats_counters_sql);
PG_FUNCTION_INFO_V1(stats_histograms_sql);
PG_FUNCTION_INFO_V1(stats_bounds_sql);
PG_FUNCTION_INFO_V1(stats_quantile_sql);
PG_FUNCTION_INFO_V1(stats_count_sql);
PG_FUNCTION_INFO_V1(stats_count_now_sql);
PG_FUNCTION_INFO_V1(stats_forget_source_sql);
PG_FUNCTION_INFO_V1(stats_forget_tenant_sql);
PG_FUNCTION_INFO_V1(stats_reset_sql);
PG_FUNCTION_INFO_V1(stats_name_sql);
PG_FUNCTION_INFO_V1(stats_state_sql);
PG_FUNCTION_INFO_V1(stats_limited_at_sql);
PG_FUNCTION_INFO_V1(stats_oldest_snapshot_sql);

#define STATS_REST	"(others)"	/* stands for those without an entry */

/* A copy of an entry, so that no lock is held while rows are made. */
typedef struct Line
{
	char		source[STATS_NAMELEN];
	bool		of_tenant;		/* else of the worker */
	TimestampTz since;
	StatsNumbers numbers;
} Line;

static void
read_line(Line *line, const StatsEntry *entry)
{
	uint64	   *numbers = (uint64 *) &line->numbers;

	memcpy(line->source, entry->key.source, STATS_NAMELEN);
	line->of_tenant = entry->key.tenant[0] != '\0';
	line->since = entry->since;
	for (int i = 0; i < STATS_NNUMBERS; i++)
		numbers[i] = pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &entry->numbers[i]));
}

/* The lines of the active tenant and the worker. */
static Line *
read_lines(int *nlines)
{
	const char *tenant = guard_current_tenant();
	HASH_SEQ_STATUS status;
	StatsEntry *entry;
	StatsKey	key;
	Line	   *lines = NULL;
	int			n = 0;
	int			max = 0;

	*nlines = 0;
	if (stats_shared == NULL)
		return NULL;
	stats_set_key(&key, MyDatabaseId, tenant, "", 0);
	LWLockAcquire(stats_shared->lock, LW_SHARED);
	hash_seq_init(&status, stats_entries);
	while ((entry = hash_seq_search(&status)) != NULL)
		max += entry->key.database == MyDatabaseId;
	lines = MemoryContextAllocHuge(CurrentMemoryContext, sizeof(Line) * (max + 1));
	hash_seq_init(&status, stats_entries);
	while ((entry = hash_seq_search(&status)) != NULL)
		if (entry->key.database == MyDatabaseId &&
			(entry->key.tenant[0] == '\0' || memcmp(entry->key.tenant, key.tenant, STATS_NAMELEN) == 0))
			read_line(&lines[n++], entry);
	/* it is of all tenants, and so for those alone who watch the server */
	if (stats_shared->full && has_privs_of_role(GetUserId(), ROLE_PG_MONITOR))
	{
		read_line(&lines[n], &stats_shared->rest);
		strcpy(lines[n].source, STATS_REST);
		lines[n++].of_tenant = true;
	}
	LWLockRelease(stats_shared->lock);
	*nlines = n;
	return lines;
}

/* Which of the counters an entry of a kind has. */
static bool
belongs(const Line *line, StatsCounter c)
{
	if (c >= SC_WORKER_STARTS)
		return !line->of_tenant;
	/* refused before it is known whether there is such a source */
	return line->of_tenant &&
		(line->source[0] == '\0') == (c >= SC_CONTACTS_INSERTED || (c >= SC_WEBHOOKS_TOO_LARGE && c <= SC_WEBHOOKS_UNKNOWN));
}

/*
 * _counters() -> setof (source, name, label, label_value, value, since, help)
 */
Datum
stats_counters_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Line	   *lines;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	lines = read_lines(&n);
	for (int i = 0; i < n; i++)
	{
		for (int c = 0; c < STATS_NCOUNTERS; c++)
		{
			const StatsName *name = &stats_counter_names[c];
			Datum		values[7] = {0};
			bool		nulls[7] = {false};

			if (!belongs(&lines[i], c))
				continue;
			nulls[0] = lines[i].source[0] == '\0';
			if (!nulls[0])
				values[0] = CStringGetTextDatum(lines[i].source);
			values[1] = CStringGetTextDatum(name->name);
			nulls[2] = nulls[3] = name->label == NULL;
			if (name->label)
			{
				values[2] = CStringGetTextDatum(name->label);
				values[3] = CStringGetTextDatum(name->value);
			}
			values[4] = Int64GetDatum((int64) lines[i].numbers.counters[c]);
			values[5] = TimestampTzGetDatum(lines[i].since);
			values[6] = CStringGetTextDatum(name->help);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	PG_RETURN_NULL();
}

/*
 * _histograms() -> setof (source, name, counts bigint[], sum, since, help)
 *		counts: of each bucket for itself; sum in seconds.
 */
Datum
stats_histograms_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Line	   *lines;
	int			n;

	InitMaterializedSRF(fcinfo, 0);
	lines = read_lines(&n);
	for (int i = 0; i < n; i++)
	{
		for (int h = 0; h < STATS_NHISTOGRAMS; h++)
		{
			Datum		counts[STATS_NBUCKETS];
			Datum		values[6] = {0};
			bool		nulls[6] = {false};

			if (!lines[i].of_tenant || lines[i].source[0] == '\0')
				continue;
			for (int b = 0; b < STATS_NBUCKETS; b++)
				counts[b] = Int64GetDatum((int64) lines[i].numbers.buckets[h][b]);
			values[0] = CStringGetTextDatum(lines[i].source);
			values[1] = CStringGetTextDatum(stats_histogram_names[h].name);
			values[2] = PointerGetDatum(construct_array(counts, STATS_NBUCKETS, INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
			values[3] = Float8GetDatum(lines[i].numbers.sums[h] / 1e6);
			values[4] = TimestampTzGetDatum(lines[i].since);
			values[5] = CStringGetTextDatum(stats_histogram_names[h].help);
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	PG_RETURN_NULL();
}

/*
 * _histogram_bounds() -> double precision[]
 *		Upper bounds of the buckets in seconds; that of the last is infinity.
 */
Datum
stats_bounds_sql(PG_FUNCTION_ARGS)
{
	Datum		bounds[STATS_NBUCKETS];

	for (int b = 0; b < STATS_NBUCKETS; b++)
		bounds[b] = Float8GetDatum(b < STATS_NBUCKETS - 1 ? stats_bounds[b] / 1e6 : get_float8_infinity());
	PG_RETURN_ARRAYTYPE_P(construct_array(bounds, STATS_NBUCKETS, FLOAT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE));
}

/*
 * _quantile(counts bigint[], fraction double precision) -> interval
 *		As Prometheus does it: as if the values of a bucket were spread evenly over
 *		it; what lies beyond the last bound counts as that.  NULL if there is nothing.
 */
Datum
stats_quantile_sql(PG_FUNCTION_ARGS)
{
	Datum	   *counts;
	bool	   *nulls;
	int			n;
	double		total = 0;
	double		below = 0;
	double		wanted;
	double		us = 0;
	Interval   *result;

	deconstruct_array(PG_GETARG_ARRAYTYPE_P(0), INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &counts, &nulls, &n);
	for (int b = 0; b < n; b++)
		total += nulls[b] ? 0 : (double) DatumGetInt64(counts[b]);
	if (total <= 0 || n > STATS_NBUCKETS)
		PG_RETURN_NULL();
	wanted = total * Min(Max(PG_GETARG_FLOAT8(1), 0), 1);
	for (int b = 0; b < n; b++)
	{
		double		here = nulls[b] ? 0 : (double) DatumGetInt64(counts[b]);
		double		low = b > 0 ? stats_bounds[b - 1] : 0;

		if (here > 0)
			us = b < STATS_NBUCKETS - 1 ? low + (stats_bounds[b] - low) * Max(wanted - below, 0) / here : low;
		if (here > 0 && below + here >= wanted)
			break;
		below += here;
	}
	result = palloc0(sizeof(Interval));
	result->time = (int64) us;
	PG_RETURN_INTERVAL_P(result);
}

/* A counter by "name" or "name:value of its label". */
static StatsCounter
find_counter(const char *spelled)
{
	for (int c = 0; c < STATS_NCOUNTERS; c++)
	{
		const StatsName *n = &stats_counter_names[c];
		size_t		len = strlen(n->name);

		if (strncmp(spelled, n->name, len) == 0 &&
			(n->value ? spelled[len] == ':' && strcmp(spelled + len + 1, n->value) == 0 : spelled[len] == '\0'))
			return c;
	}
	elog(ERROR, "there is no counter \"%s\"", spelled);
}

/*
 * _count(source text, counter text, n bigint)
 *		An effect; source NULL = of the tenant.
 */
Datum
stats_count_sql(PG_FUNCTION_ARGS)
{
	char	   *source = PG_ARGISNULL(0) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(0));

	if (PG_ARGISNULL(1) || PG_ARGISNULL(2))
		elog(ERROR, "a counter and a number are missing");
	stats_add(stats_of(source, strlen(source)), find_counter(text_to_cstring(PG_GETARG_TEXT_PP(1))), PG_GETARG_INT64(2));
	PG_RETURN_VOID();
}

/*
 * _count_now(source text, counter text)
 *		An attempt; source NULL = of the tenant.
 */
Datum
stats_count_now_sql(PG_FUNCTION_ARGS)
{
	if (PG_ARGISNULL(1))
		elog(ERROR, "a counter is missing");
	stats_add_now(guard_current_tenant(), PG_ARGISNULL(0) ? "" : text_to_cstring(PG_GETARG_TEXT_PP(0)),
				  find_counter(text_to_cstring(PG_GETARG_TEXT_PP(1))), 1);
	PG_RETURN_VOID();
}

/*
 * _forget_counters(source text)
 */
Datum
stats_forget_source_sql(PG_FUNCTION_ARGS)
{
	stats_forget_source(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

/*
 * _forget_tenant_counters(tenant text)
 */
Datum
stats_forget_tenant_sql(PG_FUNCTION_ARGS)
{
	stats_forget_tenant(text_to_cstring(PG_GETARG_TEXT_PP(0)));
	PG_RETURN_VOID();
}

/*
 * _reset_counters(source text = NULL)
 *		Of the active tenant, all or those of a source; at once, as
 *		pg_stat_reset() is.
 */
Datum
stats_reset_sql(PG_FUNCTION_ARGS)
{
	if (stats_shared == NULL)
		ereport(ERROR,
				(errcode(ERRCODE_OBJECT_NOT_IN_PREREQUISITE_STATE),
				 errmsg("nothing is counted, because contactsync is not preloaded"),
				 errhint("Put contactsync into shared_preload_libraries, and restart the server.")));
	stats_drop(MyDatabaseId, guard_current_tenant(),
			   PG_ARGISNULL(0) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(0)), GetCurrentTimestamp());
	PG_RETURN_VOID();
}

/*
 * _counter_name(source text) -> text
 *		A source's name as the counters have it.
 */
Datum
stats_name_sql(PG_FUNCTION_ARGS)
{
	text	   *name = PG_GETARG_TEXT_PP(0);
	char		result[STATS_NAMELEN];

	if (VARSIZE_ANY_EXHDR(name) < STATS_NAMELEN)
		PG_RETURN_TEXT_P(name);
	stats_set_name(result, VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	PG_RETURN_TEXT_P(cstring_to_text(result));
}

/*
 * _counters_state() -> text
 *		counting; full, if there is no entry for some sources; absent, if the
 *		library is not preloaded.
 */
Datum
stats_state_sql(PG_FUNCTION_ARGS)
{
	const char *state = "absent";

	if (stats_shared)
	{
		LWLockAcquire(stats_shared->lock, LW_SHARED);
		state = stats_shared->full && hash_get_num_entries(stats_entries) >= guc_max_counted_sources ? "full" : "counting";
		LWLockRelease(stats_shared->lock);
	}
	PG_RETURN_TEXT_P(cstring_to_text(state));
}

/*
 * _limited_at(source text) -> timestamptz
 *		When the source's provider last limited requests; NULL = it did not since
 *		the server was started.
 */
Datum
stats_limited_at_sql(PG_FUNCTION_ARGS)
{
	text	   *source = PG_GETARG_TEXT_PP(0);
	const char *tenant = guard_current_tenant();
	StatsKey	key;
	StatsEntry *entry;
	TimestampTz at;

	if (stats_shared == NULL)
		PG_RETURN_NULL();
	stats_set_key(&key, MyDatabaseId, tenant, VARDATA_ANY(source), VARSIZE_ANY_EXHDR(source));
	LWLockAcquire(stats_shared->lock, LW_SHARED);
	entry = hash_search(stats_entries, &key, HASH_FIND, NULL);
	at = entry ? entry->limited_at : 0;
	LWLockRelease(stats_shared->lock);
	if (at == 0)
		PG_RETURN_NULL();
	PG_RETURN_TIMESTAMPTZ(at);
}

/*
 * _oldest_snapshot(OUT pid integer, OUT since timestamptz)
 *		Of the sessions of this database that hold a snapshot, whoever they are of,
 *		the one with the oldest transaction: pg_stat_activity shows each but their own.
 */
Datum
stats_oldest_snapshot_sql(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	TimestampTz since = 0;
	int			pid = 0;
	Datum		values[2];
	bool		nulls[2];

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	for (int i = 1; i <= pgstat_fetch_stat_numbackends(); i++)
	{
		LocalPgBackendStatus *local = pgstat_local_backend(i);
		PgBackendStatus *b;

		if (local == NULL)
			continue;
		b = &local->backendStatus;
		if (b->st_databaseid != MyDatabaseId || !TransactionIdIsValid(local->backend_xmin) || b->st_xact_start_timestamp == 0 ||
			(since != 0 && b->st_xact_start_timestamp >= since))
			continue;
		since = b->st_xact_start_timestamp;
		pid = b->st_procpid;
	}
	values[0] = Int32GetDatum(pid);
	values[1] = TimestampTzGetDatum(since);
	nulls[0] = nulls[1] = since == 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
