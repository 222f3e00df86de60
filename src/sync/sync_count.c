/*
 * sync_count.c
 *		What is counted of answers and pages.
 */
#include "postgres.h"

#include "utils/timestamp.h"

#include "stats/stats.h"
#include "sync/sync.h"

void
sync_count_answer(SyncRun *run, HttpExchange *x, SyncClass class, bool for_token)
{
	int			family = x->fault == HTTP_ANSWERED && x->status >= 100 && x->status < 600 ? x->status / 100 : 0;

	StaticAssertStmt(SC_REQUESTS_FINE + SYNC_PERMANENT == SC_REQUESTS_PERMANENT, "classes are counted in their order");
	/* one that was never sent took no time */
	stats_answer_now(run->tenant, run->source, SC_REQUESTS_FINE + class, SC_RESPONSES_NONE + family, x->wire_bytes,
					 x->fault == HTTP_REFUSED ? -1 : x->elapsed_us);
	if (class == SYNC_RATE)
		stats_note_limit(run->tenant, run->source);
	if (for_token)
		stats_add_now(run->tenant, run->source, family == 2 ? SC_TOKENS_GRANTED : SC_TOKENS_REFUSED, 1);
}

void
sync_count_page(SyncRun *run, SyncPage *page, TimestampTz begun)
{
	StatsPending *pending = stats_of(run->source, strlen(run->source));
	TimestampTz now = GetCurrentTimestamp();

	stats_add(pending, SC_PAGES, 1);
	stats_time(pending, SH_PAGE, now - begun);
	for (int i = 0; i < page->faults.n; i++)
		stats_add(pending, SC_EVENTS_REJECTED, !page->faults.nulls[i]);
	if (run->request != NULL)
		return;
	stats_add(pending, SC_RUNS_SUCCEEDED, 1);
	stats_time(pending, SH_RUN, now - run->stamp);
}
