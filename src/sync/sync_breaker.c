/*
 * sync_breaker.c
 *		The circuit breaker of a source.
 *
 * Whoever asks a source, a run or the queue, says here what became of it.  After
 * contactsync.breaker_failures requests in a row that brought no answer, or one of
 * 5xx, the breaker opens: no request goes until a pause is over, which begins with
 * contactsync.breaker_pause, doubles each time up to five minutes, and is cut at
 * random, so that what failed together does not come back together.  Then one
 * request goes, to see how things are (half-open).  Any answer of the server closes
 * the breaker, failures of other kinds (429, an address that is not allowed) say
 * nothing about it.  A run that starts asks at once: somebody wants to know.
 *
 * Breakers live in the worker's memory, for a source its tenant's; when one opens
 * or has closed is in sources.breaker_until, too, for people and for the next worker.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "executor/spi.h"
#include "utils/builtins.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "sync/sync.h"

#define LONGEST_PAUSE_MS	300000
#define PROBED_PAUSE_US		1000000 /* how often who waits for somebody else's probe looks */

typedef struct Breaker
{
	struct Breaker *next;
	char	   *tenant;
	char	   *source;
	int			failures;		/* one after the other */
	int			openings;		/* the same */
	TimestampTz until;			/* when it may be tried; 0 = it is closed */
	TimestampTz probed_at;		/* it is being tried since; 0 = it is not */
	TimestampTz stored;			/* until, as the table has it */
} Breaker;

static Breaker *breakers = NULL;

static Breaker *
find_breaker(SyncRun *run)
{
	for (Breaker *b = breakers; b; b = b->next)
		if (strcmp(b->source, run->source) == 0 && strcmp(b->tenant, run->tenant) == 0)
			return b;
	return NULL;
}

/* In a transaction: a run or a session begins. */
void
sync_breaker_prepare(SyncRun *run)
{
	MemoryContext old;
	Breaker    *b = find_breaker(run);
	StoreArray	name;

	if (b == NULL)
	{
		TimestampTz until = 0;

		old = CurrentMemoryContext;
		store_array_init(&name, TEXTOID);
		store_array_add(&name, CStringGetTextDatum(run->source), false);
		if (store_run("SELECT s.breaker_until FROM contactsync.sources s "
					  "WHERE s.tenant_id = contactsync.current_tenant() AND s.name = ($1)[1] AND s.breaker_until IS NOT NULL",
					  1, (StoreArray *[]) {&name}) > 0)
			until = store_time(0, 1);
		MemoryContextSwitchTo(TopMemoryContext);
		b = palloc0(sizeof(Breaker));
		b->tenant = pstrdup(run->tenant);
		b->source = pstrdup(run->source);
		b->until = b->stored = until;
		b->openings = until != 0;
		b->next = breakers;
		breakers = b;
		MemoryContextSwitchTo(old);
	}
	if (run->id != 0 && b->until != 0)
		b->until = Min(b->until, GetCurrentTimestamp());
}

bool
sync_breaker_is_open(SyncRun *run)
{
	Breaker    *b = find_breaker(run);

	return b && b->until != 0;
}

/* When may a request go?  0 = now. */
TimestampTz
sync_breaker_wait(SyncRun *run)
{
	Breaker    *b = find_breaker(run);
	TimestampTz now;

	if (b == NULL || b->until == 0)
		return 0;
	now = GetCurrentTimestamp();
	if (b->until > now)
		return b->until;
	/* a probe that nobody reported is over when its time is */
	if (b->probed_at != 0 && !TimestampDifferenceExceeds(b->probed_at, now, (guc_http_timeout + 1) * 1000))
		return now + PROBED_PAUSE_US;
	return 0;
}

void
sync_breaker_sent(SyncRun *run)
{
	Breaker    *b = find_breaker(run);

	if (b && b->until != 0)
		b->probed_at = GetCurrentTimestamp();
}

/* There will be no answer to what was said to be sent. */
void
sync_breaker_dropped(SyncRun *run)
{
	Breaker    *b = find_breaker(run);

	if (b)
		b->probed_at = 0;
}

void
sync_breaker_note(SyncRun *run, const HttpExchange *x)
{
	Breaker    *b = find_breaker(run);
	int64		pause;

	if (b == NULL)
		return;
	b->probed_at = 0;
	if (x->fault == HTTP_REFUSED || x->status == 429)
		return;
	if (x->fault != HTTP_FAILED && x->status < 500)
	{
		b->failures = b->openings = 0;
		b->until = 0;
		return;
	}
	b->failures++;
	if (guc_breaker_failures == 0 || (b->until == 0 && b->failures < guc_breaker_failures))
		return;
	/* the answers of those that were under way when it opened */
	if (b->until > GetCurrentTimestamp())
		return;
	pause = Min((int64) guc_breaker_pause * 1000 << Min(b->openings, 16), LONGEST_PAUSE_MS);
	b->openings++;
	b->until = GetCurrentTimestamp() + (TimestampTz) ((0.5 + pg_prng_double(&pg_global_prng_state) / 2) * pause * 1000);
}

/* In a transaction: let others see it.  After an abort, again: what was stored is not. */
void
sync_breaker_store(SyncRun *run, bool again)
{
	Breaker    *b = find_breaker(run);
	StoreArray	name;
	StoreArray	until;

	if (b == NULL || (b->until == b->stored && !again))
		return;
	store_array_init(&name, TEXTOID);
	store_array_add(&name, CStringGetTextDatum(run->source), false);
	store_array_init(&until, TIMESTAMPTZOID);
	store_array_add(&until, TimestampTzGetDatum(b->until), b->until == 0);
	store_run("UPDATE contactsync.sources s SET breaker_until = ($2)[1] "
			  "WHERE s.tenant_id = contactsync.current_tenant() AND s.name = ($1)[1]", 2, (StoreArray *[]) {&name, &until});
	b->stored = b->until;
}
