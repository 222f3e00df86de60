/*
 * queue_fetch.c
 *		Fetches: a record of a source as it is now.
 *
 * What is read is an event like any other, stamped as the source stamps it or by when
 * it was asked for, and a sighting.  A record that the source does not have any more is
 * deleted as one that two certified runs did not show: inferred, so that a later
 * sighting makes the inference void.
 *
 * A server that knows no such requests at all answers as one that knows no such record.
 * So a 404 is believed only of a source of which a fetch has brought some record, by the
 * settings and the connector that it has now (sources.fetched_at).
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "queue/queue.h"

#define UNPROVEN_ATTEMPTS	3

static void
set_result(QueueJob *job, QueueResult result, const char *outcome, int sqlstate, const char *error)
{
	job->result = result;
	job->outcome = outcome;
	job->code = sqlstate ? pstrdup(unpack_sql_state(sqlstate)) : NULL;
	job->error = error;
}

void
queue_fetch_read(QueueJob *job, SyncPage *page)
{
	HttpExchange *x = job->answer;
	SyncRun    *session = job->target->session;
	const char *fault;

	switch (sync_session_read(session, job->key, x, page, &fault))
	{
		case SYNC_SINGLE_HERE:
			set_result(job, QUEUE_DONE, "done", 0, NULL);
			return;
		case SYNC_SINGLE_GONE:
			if (job->target->proven)
			{
				sync_add_row(page, job->key, "gone");
				set_result(job, QUEUE_DONE, "gone", 0, NULL);
			}
			else if (job->probe && job->attempt >= UNPROVEN_ATTEMPTS)
				/* nobody asked for more than what the next certificate will show */
				set_result(job, QUEUE_DONE, "unproven", 0, NULL);
			else
				set_result(job, QUEUE_RETRY, "retry", ERRCODE_PROTOCOL_VIOLATION,
						   "the provider does not know the record, and has not shown that it knows any that is asked for so");
			return;
		case SYNC_SINGLE_UNKNOWN:
			break;
	}
	/* a login page, a proxy, an answer cut short: it may be another one next time */
	if (sync_session_classify(session, x) == SYNC_PERMANENT && x->status != 404 && x->status != 410)
		set_result(job, QUEUE_DEAD, "dead", x->status == 403 ? ERRCODE_INSUFFICIENT_PRIVILEGE : ERRCODE_PROTOCOL_VIOLATION, fault);
	else
		set_result(job, QUEUE_RETRY, "retry", x->status >= 500 || x->status == 429 ? ERRCODE_CONNECTION_FAILURE : ERRCODE_PROTOCOL_VIOLATION, fault);
}

/* Rows of the page that belong to jobs whose outcome counts; u.if_known: only of records that we know as alive. */
static void
put_events(StoreRows *rows, QueueList *jobs, SyncPage *page)
{
	static const StoreColumn columns[] = {
		{"source", TEXTOID}, {"source_id", TEXTOID}, {"kind", TEXTOID}, {"version", TIMESTAMPTZOID}, {"seq", INT8OID},
		{"created", TIMESTAMPTZOID}, {"modified", TIMESTAMPTZOID}, {"payload", JSONBOID}, {"sighted", TIMESTAMPTZOID},
		{"inferred", BOOLOID}, {"run", INT8OID}, {"fault", TEXTOID}
	};

	store_rows_init(rows, columns, lengthof(columns));
	for (QueueJob *job = jobs->first; job; job = job->next)
	{
		if (!job->ours || job->result != QUEUE_DONE)
			continue;
		for (int row = job->first_row; row < job->first_row + job->nrows; row++)
		{
			char	   *kind = TextDatumGetCString(page->kinds.values[row]);
			bool		gone = strcmp(kind, "gone") == 0;
			bool		merged = strcmp(kind, "merged") == 0;
			bool		patch = strcmp(kind, "patch") == 0;
			StoreArray *plain[] = {&page->created, &page->modified, &page->payloads};

			store_put(rows, CStringGetTextDatum(job->target->name));
			store_put(rows, page->ids.values[row]);
			store_put(rows, gone ? CStringGetTextDatum("delete") : merged ? CStringGetTextDatum("merge") : page->kinds.values[row]);
			store_put(rows, page->versions.nulls[row] ? TimestampTzGetDatum(job->sent_at) : page->versions.values[row]);
			/* what changed at a moment comes before the state as of that moment */
			store_put(rows, Int64GetDatum(patch ? -1 : 0));
			for (int i = 0; i < lengthof(plain); i++)
			{
				if (plain[i]->nulls[row])
					store_put_null(rows);
				else
					store_put(rows, plain[i]->values[row]);
			}
			if (gone || merged)
				store_put_null(rows);
			else
				store_put(rows, TimestampTzGetDatum(job->sent_at));
			store_put(rows, BoolGetDatum(gone));
			if (job->run)
				store_put(rows, Int64GetDatum(job->run));
			else
				store_put_null(rows);
			if (page->faults.nulls[row])
				store_put_null(rows);
			else
				store_put(rows, page->faults.values[row]);
		}
	}
}

/* Records that the source does not have, or has again, and what became of the absences of runs. */
static void
put_records(StoreRows *rows, QueueList *jobs, bool (*wanted) (const QueueJob *))
{
	static const StoreColumn columns[] = {{"source", TEXTOID}, {"source_id", TEXTOID}, {"run", INT8OID}};

	store_rows_init(rows, columns, lengthof(columns));
	for (QueueJob *job = jobs->first; job; job = job->next)
	{
		if (!job->ours || job->result != QUEUE_DONE || !wanted(job))
			continue;
		store_put(rows, CStringGetTextDatum(job->target->name));
		store_put(rows, CStringGetTextDatum(job->key));
		store_put(rows, Int64GetDatum(job->run));
	}
}

static bool
is_gone(const QueueJob *job)
{
	return job->outcome[0] == 'g';
}

static bool
is_proof(const QueueJob *job)
{
	return job->outcome[0] != 'u';
}

static bool
is_of_run(const QueueJob *job)
{
	return job->run != 0 && is_proof(job);
}

static bool
is_first(const QueueJob *job)
{
	return !job->target->proven && job->outcome[0] == 'd';
}

void
queue_fetch_apply(QueueList *jobs, SyncPage *page)
{
	StoreRows	rows;

	put_events(&rows, jobs, page);
	(void) store_run_rows("INSERT INTO contactsync.inbox (tenant_id, received_at, tolerance, source, source_id, kind, version, seq, created, source_modified, payload, "
						  "sighted, inferred, run, failed_at, error_code, error) "
						  /* what is the same for all is computed once */
						  "SELECT (SELECT contactsync.current_tenant()), (SELECT pg_catalog.clock_timestamp()), "
						  "(SELECT pg_catalog.current_setting('contactsync.clock_tolerance')::interval), u.source, u.source_id, u.kind, u.version, u.seq, u.created, u.modified, u.payload, u.sighted, u.inferred, u.run, "
						  "CASE WHEN u.fault IS NOT NULL THEN pg_catalog.clock_timestamp() END, "
						  "CASE WHEN u.fault IS NOT NULL THEN '22P02' END, u.fault FROM u WHERE NOT (u.inferred OR u.kind = 'merge') "
						  "OR (SELECT true FROM contactsync.source_items k WHERE k.tenant_id = contactsync.current_tenant() "
						  "AND k.source = u.source AND k.source_id = u.source_id) "
						  "OR (SELECT c.alive FROM contactsync.records c WHERE c.tenant_id = contactsync.current_tenant() "
						  "AND c.source = u.source AND c.source_id = u.source_id)", &rows);
	put_records(&rows, jobs, is_gone);
	(void) store_run_rows("DELETE FROM contactsync.source_items k WHERE k.tenant_id = contactsync.current_tenant() AND k.ctid = ANY (ARRAY("
						  "SELECT l.place FROM u CROSS JOIN LATERAL (SELECT x.ctid AS place FROM contactsync.source_items x "
						  "WHERE x.tenant_id = contactsync.current_tenant() AND x.source = u.source AND x.source_id = u.source_id OFFSET 0) l))", &rows);
	put_records(&rows, jobs, is_first);
	(void) store_run_rows("UPDATE contactsync.sources s SET fetched_at = pg_catalog.clock_timestamp() "
						  "FROM (SELECT DISTINCT u.source FROM u) n WHERE s.tenant_id = contactsync.current_tenant() AND s.name = n.source", &rows);
	put_records(&rows, jobs, is_of_run);
	(void) store_run_rows("UPDATE contactsync.runs x SET missed = GREATEST(x.missed - n.n, 0) "
						  "FROM (SELECT u.run, pg_catalog.count(*) AS n FROM u GROUP BY u.run) n "
						  "WHERE x.tenant_id = contactsync.current_tenant() AND x.id = n.run", &rows);
	if (store_run("SELECT FROM contactsync.dead_fetches d WHERE d.tenant_id = contactsync.current_tenant() LIMIT 1", 0, NULL) > 0)
	{
		put_records(&rows, jobs, is_proof);
		(void) store_run_rows("DELETE FROM contactsync.dead_fetches d WHERE d.tenant_id = contactsync.current_tenant() AND d.ctid = ANY (ARRAY("
							  "SELECT l.place FROM u CROSS JOIN LATERAL (SELECT x.ctid AS place FROM contactsync.dead_fetches x "
							  "WHERE x.tenant_id = contactsync.current_tenant() AND x.source = u.source AND x.source_id = u.source_id OFFSET 0) l))", &rows);
	}
}
