/*
 * queue_store.c
 *		One transaction of the queue: outcomes are stored, and more is claimed.
 *
 * A fixed number of statements for as many outcomes as there are.  Rows are found by
 * their place, and checked by their id and lease: a row that has moved was changed by
 * somebody else, who asked for it again, and one that is not there belongs to a source
 * that was dropped.  Nothing of a job is stored whose row was not ours.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "queue/queue.h"
#include "stats/stats.h"

#define STORE_MOST		1000	/* outcomes of one transaction */
#define FIRST_PAUSE_S	2
#define LONGEST_PAUSE_S	3600

/* ---- what came of a job ---- */

static void
set_result(QueueJob *job, QueueResult result, const char *outcome, int sqlstate, const char *error)
{
	job->result = result;
	job->outcome = outcome;
	job->code = sqlstate ? pstrdup(unpack_sql_state(sqlstate)) : NULL;
	job->error = error;
}

static void
judge(QueueJob *job, SyncPage *page)
{
	HttpExchange *x = job->answer;

	job->pause = x ? x->retry_after : -1;
	job->first_row = page->ids.n;
	job->nrows = 0;
	job->ours = false;
	if (job->sqlstate)
	{
		/* it could not be sent, or its answer not be read, which may be better next time */
		set_result(job, x ? QUEUE_RETRY : QUEUE_DEAD, x ? "retry" : "dead", 0, job->refusal);
		job->code = job->sqlstate;
	}
	else if (x->fault == HTTP_FAILED)
		set_result(job, QUEUE_RETRY, "retry", ERRCODE_CONNECTION_FAILURE, x->error);
	else if (x->fault != HTTP_ANSWERED)
		set_result(job, QUEUE_DEAD, "dead", x->fault == HTTP_TOO_LARGE ? ERRCODE_PROGRAM_LIMIT_EXCEEDED :
				   ERRCODE_SQLSERVER_REJECTED_ESTABLISHMENT_OF_SQLCONNECTION, x->error);
	else
	{
		queue_fetch_read(job, page);
		job->nrows = page->ids.n - job->first_row;
	}
	if (job->result == QUEUE_RETRY && job->attempt >= guc_max_attempts)
	{
		job->result = QUEUE_DEAD;
		job->outcome = "dead";
	}
}

/* Full jitter: a random part of a pause that doubles, or what the target asks for if that is longer. */
static TimestampTz
try_at(const QueueJob *job, TimestampTz now)
{
	double		longest = Min((double) FIRST_PAUSE_S * (1 << Min(job->attempt - 1, 16)), LONGEST_PAUSE_S);

	return now + (TimestampTz) (Max(pg_prng_double(&pg_global_prng_state) * longest, job->pause) * USECS_PER_SEC);
}

/* ---- the rows of jobs ---- */

static const StoreColumn job_columns[] = {
	{"id", INT8OID}, {"place", TIDOID}, {"source", TEXTOID}, {"source_id", TEXTOID},
	{"lease", INT8OID}, {"at", TIMESTAMPTZOID}, {"run_at", TIMESTAMPTZOID}, {"code", TEXTOID}, {"error", TEXTOID}
};

static int
int64_cmp(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

static void
put_string(StoreRows *rows, const char *s)
{
	store_put_text(rows, (StrView) {s, s ? strlen(s) : 0});
}

/* The jobs of a result whose rows were not found yet; how many there are. */
static int
put_jobs(StoreRows *rows, QueueList *jobs, QueueResult result, TimestampTz now)
{
	store_rows_init(rows, job_columns, lengthof(job_columns));
	for (QueueJob *job = jobs->first; job; job = job->next)
	{
		if (job->result != result || job->ours)
			continue;
		store_put(rows, Int64GetDatum(job->id));
		store_put(rows, PointerGetDatum(&job->place));
		put_string(rows, job->target->name);
		put_string(rows, job->key);
		store_put(rows, Int64GetDatum(queue_lease));
		store_put(rows, TimestampTzGetDatum(now));
		store_put(rows, TimestampTzGetDatum(result == QUEUE_RETRY ? try_at(job, now) : now));
		put_string(rows, job->code);
		put_string(rows, job->error);
	}
	return rows->n;
}

/* The statement returned the ids of those that were ours. */
static void
mark_ours(QueueList *jobs, uint64 n)
{
	int64	   *ids = palloc(sizeof(int64) * Max(n, 1));

	for (uint64 row = 0; row < n; row++)
		ids[row] = store_int8(row, 1);
	qsort(ids, n, sizeof(int64), int64_cmp);
	for (QueueJob *job = jobs->first; job && n > 0; job = job->next)
		if (bsearch(&job->id, ids, n, sizeof(int64), int64_cmp))
			job->ours = true;
}

/*
 * The rows of u, by their place; a row that somebody has locked is waited for, or
 * left out.  A join could be planned as a scan of the table for each of u.
 */
#define PLACES_(lock_) \
	"ARRAY(SELECT l.place FROM u AS k CROSS JOIN LATERAL (SELECT x.ctid AS place FROM contactsync.fetches x " \
	"WHERE x.tenant_id = contactsync.current_tenant() AND x.ctid = k.place AND x.id = k.id AND x.lease = k.lease OFFSET 0 " lock_ ") l)"
/* The same by their key, of those that were asked for again: they have moved. */
#define MOVED_(lock_) \
	"ARRAY(SELECT l.place FROM u AS k CROSS JOIN LATERAL (SELECT x.ctid AS place FROM contactsync.fetches x " \
	"WHERE x.tenant_id = contactsync.current_tenant() AND x.source = k.source AND x.source_id = k.source_id " \
	"AND x.id = k.id AND x.lease = k.lease AND x.again OFFSET 0 " lock_ ") l)"
#define WAIT	""
#define SKIP	"FOR UPDATE SKIP LOCKED"
#define OURS_(places_) "f.tenant_id = contactsync.current_tenant() AND f.ctid = ANY (" places_ ") "

/* What a job that failed has to say, by its id. */
#define SAID_(column_) "(SELECT k." column_ " FROM u AS k WHERE k.id = f.id)"
#define RETRY_(lock_) \
	"UPDATE contactsync.fetches f SET lease = NULL, run_at = " SAID_("run_at") ", last_failed_at = " SAID_("at") ", " \
	"last_error_code = " SAID_("code") ", last_error = " SAID_("error") ", " \
	"first_failed_at = coalesce(f.first_failed_at, " SAID_("at") "), first_error_code = coalesce(f.first_error_code, " SAID_("code") "), " \
	"first_error = coalesce(f.first_error, " SAID_("error") ") " \
	"WHERE " OURS_(PLACES_(lock_)) "AND NOT f.again RETURNING f.id"
#define BURY_(lock_) \
	"WITH dead AS MATERIALIZED (DELETE FROM contactsync.fetches f WHERE " OURS_(PLACES_(lock_)) "AND NOT f.again " \
	"RETURNING f.source, f.source_id, f.id, f.cause, f.queued_at, f.attempts, f.first_failed_at, f.first_error_code, f.first_error, " \
	SAID_("at") " AS at, " SAID_("code") " AS code, " SAID_("error") " AS error), " \
	"buried AS (INSERT INTO contactsync.dead_fetches AS d (source, source_id, id, cause, queued_at, attempts, " \
	"first_failed_at, first_error_code, first_error, last_failed_at, last_error_code, last_error) " \
	"SELECT x.source, x.source_id, x.id, x.cause, x.queued_at, x.attempts, coalesce(x.first_failed_at, x.at), " \
	"coalesce(x.first_error_code, x.code), coalesce(x.first_error, x.error), x.at, x.code, x.error FROM dead x " \
	"ON CONFLICT ON CONSTRAINT dead_fetches_pkey DO UPDATE SET id = excluded.id, cause = excluded.cause, " \
	"attempts = d.attempts + excluded.attempts, last_failed_at = excluded.last_failed_at, " \
	"last_error_code = excluded.last_error_code, last_error = excluded.last_error) " \
	"SELECT x.id FROM dead x"

/* What becomes of the rows, by result; of those that are locked nothing, if we are not to wait. */
static const char *const settle[][2] = {
	[QUEUE_DONE] = {
		"DELETE FROM contactsync.fetches f WHERE " OURS_(PLACES_(WAIT)) "AND NOT f.again RETURNING f.id",
		"DELETE FROM contactsync.fetches f WHERE " OURS_(PLACES_(SKIP)) "AND NOT f.again RETURNING f.id"
	},
	[QUEUE_RETRY] = {RETRY_(WAIT), RETRY_(SKIP)},
	[QUEUE_DEAD] = {BURY_(WAIT), BURY_(SKIP)},
};

/* They were asked for once more, whatever came of them now. */
#define AGAIN_(lock_) \
	"UPDATE contactsync.fetches f SET lease = NULL, again = false, attempts = 0, run_at = pg_catalog.clock_timestamp() " \
	"WHERE " OURS_(MOVED_(lock_)) "AND f.again RETURNING f.id"
static const char *const again[] = {AGAIN_(WAIT), AGAIN_(SKIP)};

/* Those that are leased by us still, though they were not found: somebody has them locked. */
static const char still_there[] =
"SELECT k.id FROM u AS k CROSS JOIN LATERAL (SELECT FROM contactsync.fetches x WHERE x.tenant_id = contactsync.current_tenant() "
"AND x.source = k.source AND x.source_id = k.source_id AND x.id = k.id AND x.lease = k.lease OFFSET 0) l";

static void
settle_rows(QueueTurn *t, QueueResult result, TimestampTz now)
{
	bool		skip = t->tenant->care == QUEUE_SKIP_LOCKED;
	StoreRows	rows;

	if (put_jobs(&rows, &t->storing, result, now) == 0)
		return;
	mark_ours(&t->storing, store_run_rows(settle[result][skip], &rows));
	if (put_jobs(&rows, &t->storing, result, now) == 0)
		return;
	mark_ours(&t->storing, store_run_rows(again[skip], &rows));
	if (!skip || put_jobs(&rows, &t->storing, result, now) == 0)
		return;
	/* they come again, with a later transaction */
	for (uint64 n = store_run_rows(still_there, &rows), row = 0; row < n; row++)
		for (QueueJob *job = t->storing.first; job; job = job->next)
			if (job->id == store_int8(row, 1))
				job->result = QUEUE_LATER;
}

/* ---- the log ---- */

static void
count_outcome(const QueueJob *job)
{
	static const char *const outcomes[] = {"done", "gone", "unproven", "retry", "dead"};

	for (int i = 0; i < lengthof(outcomes); i++)
		if (strcmp(job->outcome, outcomes[i]) == 0)
			stats_add(stats_of(job->target->name, strlen(job->target->name)), SC_FETCHES_DONE + i, 1);
}

static void
log_attempts(QueueList *jobs, TimestampTz now)
{
	static const StoreColumn columns[] = {
		{"job", INT8OID}, {"target", TEXTOID}, {"attempt", INT4OID}, {"outcome", TEXTOID}, {"status", INT4OID},
		{"latency", FLOAT4OID}, {"code", TEXTOID}, {"error", TEXTOID}, {"at", TIMESTAMPTZOID}
	};
	StoreRows	rows;
	StoreArray	day;

	store_array_init(&day, TIMESTAMPTZOID);
	store_array_add(&day, TimestampTzGetDatum(now), false);
	(void) store_run("SELECT contactsync._attempts_partition(($1)[1])", 1, (StoreArray *[]) {&day});
	store_rows_init(&rows, columns, lengthof(columns));
	for (QueueJob *job = jobs->first; job; job = job->next)
	{
		if (!job->ours)
			continue;
		count_outcome(job);
		store_put(&rows, Int64GetDatum(job->id));
		put_string(&rows, job->target->name);
		store_put(&rows, Int32GetDatum(job->attempt));
		put_string(&rows, job->outcome);
		if (job->answer && job->answer->status > 0)
			store_put(&rows, Int32GetDatum(job->answer->status));
		else
			store_put_null(&rows);
		if (job->answer)
			store_put(&rows, Float4GetDatum((job->answered_at - job->sent_at) / 1000.0));
		else
			store_put_null(&rows);
		put_string(&rows, job->code);
		put_string(&rows, job->error);
		store_put(&rows, TimestampTzGetDatum(now));
	}
	(void) store_run_rows("INSERT INTO contactsync.attempts (tenant_id, kind, job, target, attempt, outcome, status, latency_ms, error_code, error, at) "
						  "SELECT (SELECT contactsync.current_tenant()), 'fetch', u.job, u.target, u.attempt, u.outcome, u.status, u.latency, u.code, u.error, u.at FROM u", &rows);
}

/* ---- outcomes ---- */

/* Take as many outcomes as this transaction is to store. */
static void
take_outcomes(QueueTurn *t)
{
	QueueList  *done = &t->tenant->done;
	int			most = t->tenant->care == QUEUE_ONE_BY_ONE ? 1 : STORE_MOST;

	while (done->first && t->storing.n < most)
	{
		QueueJob   *job = done->first;

		done->first = job->next;
		if (done->first == NULL)
			done->last = NULL;
		done->n--;
		queue_append(&t->storing, job);
	}
}

void
queue_store_outcomes(QueueTurn *t)
{
	SyncPage	page;
	TimestampTz now = GetCurrentTimestamp();

	take_outcomes(t);
	sync_page_init(&page);
	for (QueueJob *job = t->storing.first; job; job = job->next)
		judge(job, &page);
	for (QueueResult result = QUEUE_DONE; result <= QUEUE_DEAD; result++)
		settle_rows(t, result, now);
	for (QueueJob *job = t->storing.first; job; job = job->next)
		if (job->ours && job->result == QUEUE_RETRY)
			job->target->next_due = Min(job->target->next_due, now);
	queue_fetch_apply(&t->storing, &page);
	log_attempts(&t->storing, now);
}

/* ---- claims ---- */

static void
release(QueueTurn *t, QueueTarget *target)
{
	StoreArray	lease;
	StoreArray	name;
	StoreArray	keys;
	QueueJob   *job;

	if (target->pending.n == 0)
		return;
	store_array_init(&lease, INT8OID);
	store_array_add(&lease, Int64GetDatum(queue_lease), false);
	store_array_init(&name, TEXTOID);
	store_array_add(&name, CStringGetTextDatum(target->name), false);
	store_array_init(&keys, TEXTOID);
	for (job = target->pending.first; job; job = job->next)
		store_array_add(&keys, CStringGetTextDatum(job->key), false);
	(void) store_run("UPDATE contactsync.fetches f SET lease = NULL, attempts = f.attempts - 1 "
					 "WHERE f.tenant_id = contactsync.current_tenant() AND f.source = ($2)[1] "
					 "AND f.source_id = ANY ($3) AND f.lease = ($1)[1]", 3, (StoreArray *[]) {&lease, &name, &keys});
	while ((job = target->pending.first) != NULL)
	{
		target->pending.first = job->next;
		queue_append(&t->released, job);
	}
	target->pending.last = NULL;
	target->pending.n = 0;
}

/* Which targets of the tenant may be asked; those that are new, or not what they were, are opened after this. */
static void
look_at_targets(QueueTenant *tenant)
{
	StoreArray	names;
	StoreArray	look;
	uint64		n;

	store_array_init(&names, TEXTOID);
	for (QueueTarget *t = tenant->targets; t; t = t->next)
		store_array_add(&names, CStringGetTextDatum(t->name), false);
	store_array_init(&look, BOOLOID);
	store_array_add(&look, BoolGetDatum(tenant->look), false);
	n = store_run("SELECT s.name, contactsync._source_version(s.*), d.due FROM contactsync.sources s "
				  "CROSS JOIN LATERAL (SELECT ($2)[1] AND EXISTS (SELECT FROM contactsync.fetches f "
				  "WHERE f.tenant_id = contactsync.current_tenant() AND f.source = s.name AND f.priority >= 0 AND f.lease IS NULL "
				  "AND f.run_at <= pg_catalog.clock_timestamp()) OFFSET 0) AS d (due) "
				  "WHERE s.tenant_id = contactsync.current_tenant() AND s.state IN ('active', 'failing') "
				  "AND (s.name = ANY ($1) OR d.due)", 2, (StoreArray *[]) {&names, &look});
	for (QueueTarget *t = tenant->targets; t; t = t->next)
		t->closed = true;
	for (uint64 row = 0; row < n; row++)
	{
		StrView		name = store_text(row, 1);
		QueueTarget *t = queue_target(tenant, pnstrdup(name.ptr, name.len));
		bool		isnull;

		t->closed = false;
		if (t->session == NULL || t->version != store_int8(row, 2))
			t->open = true;
		if (DatumGetBool(store_value(row, 3, &isnull)))
			t->more = true;
	}
	if (tenant->look)
		tenant->looked_at = GetCurrentTimestamp();
	tenant->look = false;
}

/* When the next job is due that is not now. */
static void
find_next_due(QueueTarget *t)
{
	StoreArray	name;
	int64		at;

	store_array_init(&name, TEXTOID);
	store_array_add(&name, CStringGetTextDatum(t->name), false);
	(void) store_run("SELECT pg_catalog.min(f.run_at) FROM contactsync.fetches f WHERE f.tenant_id = contactsync.current_tenant() "
					 "AND f.source = ($1)[1] AND f.priority >= 0 AND f.lease IS NULL AND f.run_at > pg_catalog.clock_timestamp()",
					 1, (StoreArray *[]) {&name});
	at = store_time(0, 1);
	t->next_due = at == MERGE_TIME_MIN ? DT_NOEND : at;
}

static void
claim_of(QueueTurn *turn, QueueTarget *t, TimestampTz now)
{
	int			room = queue_room(t);
	StoreArray	name;
	StoreArray	numbers;
	StoreArray	times;
	uint64		n;

	if (now - t->from_start_at > USECS_PER_SEC)
	{
		/* what is more urgent may have come, or been committed late */
		t->from_priority = 0;
		t->from_run_at = DT_NOBEGIN;
		t->from_start_at = now;
	}
	store_array_init(&name, TEXTOID);
	store_array_add(&name, CStringGetTextDatum(t->name), false);
	store_array_init(&numbers, INT8OID);
	store_array_add(&numbers, Int64GetDatum(queue_lease), false);
	store_array_add(&numbers, Int64GetDatum(room), false);
	store_array_add(&numbers, Int64GetDatum(t->from_priority), false);
	store_array_init(&times, TIMESTAMPTZOID);
	store_array_add(&times, TimestampTzGetDatum(t->from_run_at), false);
	store_array_add(&times, TimestampTzGetDatum(now), false);
	n = store_run("WITH due AS MATERIALIZED (SELECT f.ctid AS place FROM contactsync.fetches f "
				  "WHERE f.tenant_id = contactsync.current_tenant() AND f.source = ($1)[1] AND f.priority >= 0 AND f.lease IS NULL "
				  "AND (f.priority, f.run_at) >= (($2)[3]::smallint, ($3)[1]) AND f.run_at <= ($3)[2] "
				  "ORDER BY f.priority, f.run_at LIMIT ($2)[2] FOR UPDATE SKIP LOCKED) "
				  "UPDATE contactsync.fetches f SET lease = ($2)[1], attempts = f.attempts + 1 "
				  "WHERE f.tenant_id = contactsync.current_tenant() AND f.ctid = ANY (ARRAY(SELECT d.place FROM due d)) "
				  "RETURNING f.id, f.ctid, f.source_id, f.attempts::bigint, f.priority::bigint, f.run_at, f.run, f.cause = 'absence'",
				  3, (StoreArray *[]) {&name, &numbers, &times});
	for (uint64 row = 0; row < n; row++)
	{
		StrView		key = store_text(row, 3);
		QueueJob   *job = MemoryContextAllocZero(queue_context, offsetof(QueueJob, key) + key.len + 1);
		bool		isnull;

		job->target = t;
		job->id = store_int8(row, 1);
		job->place = *(ItemPointer) DatumGetPointer(store_value(row, 2, &isnull));
		job->attempt = (int) store_int8(row, 4);
		job->priority = (int) store_int8(row, 5);
		job->run = store_int8(row, 7);
		job->probe = DatumGetBool(store_value(row, 8, &isnull));
		memcpy(job->key, key.ptr, key.len);
		queue_append(&turn->claimed, job);
		if (job->priority > t->from_priority || (job->priority == t->from_priority && store_time(row, 6) > t->from_run_at))
		{
			t->from_priority = job->priority;
			t->from_run_at = store_time(row, 6);
		}
	}
	t->more = n == room;
	if (!t->more)
	{
		t->from_priority = 0;
		t->from_run_at = DT_NOBEGIN;
		if (t->next_due <= now)
			find_next_due(t);
	}
}

void
queue_claim(QueueTurn *turn)
{
	QueueTenant *tenant = turn->tenant;
	TimestampTz now = GetCurrentTimestamp();

	for (QueueTarget *t = tenant->targets; t; t = t->next)
	{
		StoreArray	texts;

		if (t->session)
			sync_breaker_store(t->session, false);
		if (!t->stop)
			continue;
		store_array_init(&texts, TEXTOID);
		store_array_add(&texts, CStringGetTextDatum(t->name), false);
		store_array_add(&texts, CStringGetTextDatum(t->stop_reason), false);
		(void) store_run("SELECT contactsync._stop_source(($1)[1], ($1)[2])", 1, (StoreArray *[]) {&texts});
	}
	if (tenant->look && queue_look_at(tenant) <= now)
		look_at_targets(tenant);
	for (QueueTarget *t = tenant->targets; t; t = t->next)
	{
		if (t->closed || t->stop)
			release(turn, t);
		else if (t->session && !t->open && t->not_before <= now && (t->more || t->next_due <= now) && queue_room(t) > 0)
			claim_of(turn, t, now);
	}
}
