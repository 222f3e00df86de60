/*
 * sync_pace.c
 *		When a request may go, and when it goes again.
 *
 * A source has one run at a time, and a run one request.  How many requests a time
 * may hold is the connector's to say: a bucket of as many tokens for each source,
 * filled evenly, which outlives the run.  What the provider itself says, by
 * Retry-After or X-RateLimit-Reset, goes before that.
 *
 * A request that failed for now is sent again inside of its run, after a random
 * part of a pause that doubles (so that sources that failed together do not come
 * back together), for a minute at most.  When that does not help the run fails, and the source is left
 * alone for a while: see _fail_run(), and sync_breaker.c, which knows of all requests.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "stats/stats.h"
#include "sync/sync.h"

#define FIRST_PAUSE_MS		500
#define LONGEST_PAUSE_MS	30000
#define LONGEST_WAIT_MS		60000	/* because the provider says so, and for a request to succeed */

typedef struct Bucket
{
	struct Bucket *next;
	char	   *tenant;
	char	   *source;
	double		tokens;
	TimestampTz at;
} Bucket;

static Bucket *buckets = NULL;

static Bucket *
find_bucket(SyncRun *run)
{
	Bucket	   *b;
	MemoryContext old;

	for (b = buckets; b; b = b->next)
		if (strcmp(b->source, run->source) == 0 && strcmp(b->tenant, run->tenant) == 0)
			return b;
	old = MemoryContextSwitchTo(TopMemoryContext);
	b = palloc0(sizeof(Bucket));
	b->tenant = pstrdup(run->tenant);
	b->source = pstrdup(run->source);
	b->tokens = run->rate.requests;
	b->at = GetCurrentTimestamp();
	b->next = buckets;
	buckets = b;
	MemoryContextSwitchTo(old);
	return b;
}

bool
sync_may_send(SyncRun *run)
{
	TimestampTz now = GetCurrentTimestamp();
	Bucket	   *b;
	TimestampTz wait;
	double		a_token;		/* how long one takes, in us */

	if (run->not_before > now)
		return false;
	if ((wait = sync_breaker_wait(run)) != 0)
	{
		run->not_before = wait;
		return false;
	}
	if (run->rate.requests == 0)
	{
		sync_breaker_sent(run);
		return true;
	}
	b = find_bucket(run);
	a_token = (double) run->rate.per_us / run->rate.requests;
	if (now > b->at)
		b->tokens = Min(b->tokens + (now - b->at) / a_token, run->rate.requests);
	b->at = now;
	if (b->tokens >= 1)
	{
		sync_breaker_sent(run);
		b->tokens -= 1;
		return true;
	}
	run->not_before = now + (TimestampTz) ((1 - b->tokens) * a_token) + 1;
	return false;
}

bool
sync_try_later(SyncRun *run, HttpExchange *x, bool rate)
{
	int64		pause = Min((int64) FIRST_PAUSE_MS << Min(run->retries, 16), LONGEST_PAUSE_MS);

	if (run->retries >= guc_http_retries || x->retry_after > LONGEST_WAIT_MS / 1000 ||
		TimestampDifferenceExceeds(run->first_sent, Max(GetCurrentTimestamp(), sync_breaker_wait(run)), LONGEST_WAIT_MS))
		return false;
	run->retries++;
	stats_add_now(run->tenant, run->source, SC_REQUEST_RETRIES, 1);
	pause = (int64) (pg_prng_double(&pg_global_prng_state) * pause);
	if (x->retry_after >= 0)
		pause += x->retry_after * INT64CONST(1000);
	else if (rate)
		pause += x->limit_reset_ms > 0 ? Min(x->limit_reset_ms, LONGEST_WAIT_MS) : FIRST_PAUSE_MS;
	run->not_before = GetCurrentTimestamp() + pause * 1000;
	return true;
}

void
sync_note_limits(SyncRun *run, HttpExchange *x)
{
	if (x->requests_left == 0 && x->limit_reset_ms > 0)
		run->not_before = GetCurrentTimestamp() + Min(x->limit_reset_ms, LONGEST_WAIT_MS) * 1000;
}
