/*
 * queue.c
 *		The pipeline: from claimed jobs to answers, outside of transactions.
 *
 * All of its state is the worker's own.  Only queue_turn() works on the database;
 * what it did to the state here takes effect in queue_turned(), once the transaction
 * has ended, so that an abort leaves nothing half done.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/pg_prng.h"
#include "utils/builtins.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "postmaster/postmaster.h"
#include "queue/queue.h"
#include "store/guard.h"

#define REOPEN_FIRST_MS		1000	/* a target whose session cannot be opened */
#define REOPEN_LONGEST_MS	60000
#define LOCKED_MS			1000	/* somebody holds rows of ours */
#define RATE_MS				1000	/* a limit is reached, and nobody says until when */
#define RATE_LONGEST_MS		60000	/* a job waits no longer in memory */
#define AHEAD_S				5		/* of what a rate allows */
#define LOOK_MS				100		/* for other targets, while there is something to send */

int64		queue_lease;
MemoryContext queue_context = NULL;
static MemoryContext scratch = NULL;	/* of one request */
static QueueTenant *tenants = NULL;
static int	nsent = 0;
static QueueTurn turn;

void
queue_start(int worker)
{
	if (queue_context == NULL)
	{
		queue_context = AllocSetContextCreate(TopMemoryContext, "contactsync queue", ALLOCSET_DEFAULT_SIZES);
		scratch = AllocSetContextCreate(queue_context, "contactsync queue scratch", ALLOCSET_SMALL_SIZES);
	}
	/* no two starts of a server are as close as that */
	queue_lease = PgStartTime + worker;
}

void
queue_append(QueueList *list, QueueJob *job)
{
	job->next = NULL;
	if (list->last)
		list->last->next = job;
	else
		list->first = job;
	list->last = job;
	list->n++;
}

static QueueJob *
take_first(QueueList *list)
{
	QueueJob   *job = list->first;

	if (job)
	{
		list->first = job->next;
		if (list->first == NULL)
			list->last = NULL;
		list->n--;
	}
	return job;
}

static void
put_first(QueueList *list, QueueJob *job)
{
	job->next = list->first;
	list->first = job;
	if (list->last == NULL)
		list->last = job;
	list->n++;
}

/* Behind those that are as urgent. */
static void
put_by_priority(QueueList *list, QueueJob *job)
{
	QueueJob  **p = &list->first;

	if (list->last == NULL || list->last->priority <= job->priority)
	{
		queue_append(list, job);
		return;
	}
	while ((*p)->priority <= job->priority)
		p = &(*p)->next;
	job->next = *p;
	*p = job;
	list->n++;
}

static void
free_job(QueueJob *job)
{
	if (job->answer)
		http_free(job->answer);
	if (job->refusal)
		pfree(job->refusal);
	pfree(job);
}

static void
free_jobs(QueueList *list)
{
	QueueJob   *job;

	while ((job = take_first(list)) != NULL)
		free_job(job);
}

static QueueTenant *
find_tenant(const char *name)
{
	QueueTenant *t;

	for (t = tenants; t; t = t->next)
		if (strcmp(t->name, name) == 0)
			return t;
	t = MemoryContextAllocZero(queue_context, sizeof(QueueTenant));
	t->name = MemoryContextStrdup(queue_context, name);
	t->next = tenants;
	tenants = t;
	return t;
}

QueueTarget *
queue_target(QueueTenant *tenant, const char *name)
{
	QueueTarget *t;

	for (t = tenant->targets; t; t = t->next)
		if (strcmp(t->name, name) == 0)
			return t;
	t = MemoryContextAllocZero(queue_context, sizeof(QueueTarget));
	t->name = MemoryContextStrdup(queue_context, name);
	t->tenant = tenant;
	t->next_due = DT_NOEND;
	t->from_run_at = DT_NOBEGIN;
	t->next = tenant->targets;
	tenant->targets = t;
	return t;
}

void
queue_look(const char *tenant)
{
	find_tenant(tenant)->look = true;
}

void
queue_look_again(void)
{
	for (QueueTenant *t = tenants; t; t = t->next)
		t->look |= t->targets != NULL;
}

/* ---- sending ---- */

/* Is the target tried by one request, after many that failed? */
static bool
is_probed(const QueueTarget *t)
{
	return sync_breaker_is_open(t->session);
}

/* How many claimed jobs it may have waiting. */
static int
capacity(const QueueTarget *t)
{
	if (is_probed(t))
		return 1;
	if (t->session->rate.requests > 0)
		return (int) Min(QUEUE_AHEAD, Max(t->session->rate.requests * AHEAD_S * USECS_PER_SEC / t->session->rate.per_us, 1));
	return QUEUE_AHEAD;
}

int
queue_room(const QueueTarget *t)
{
	return Max(capacity(t) - t->pending.n, 0);
}

static bool
is_usable(const QueueTarget *t)
{
	return t->session && !t->open && !t->closed && !t->stop;
}

/* Should more of its jobs be claimed, if there are? */
static bool
has_room(const QueueTarget *t)
{
	return is_usable(t) && t->pending.n <= capacity(t) / 2;
}

/* Is there a request that waits for nothing but its time? */
static bool
can_send(QueueTarget *t)
{
	if (!is_usable(t) || (is_probed(t) && t->nsent > 0))
		return false;
	if (sync_auth_due(t->session))
		return !t->token_sent && t->token_answer == NULL && sync_auth_may_ask(t->session);
	/* what has no version is ordered by when it was read: one reader at a time */
	return t->pending.first && !(sync_session_is_unversioned(t->session) && sync_is_reading(t->tenant->name, t->name));
}

static void
submit(HttpEngine *engine, QueueTarget *t, void *owner, int tag)
{
	HttpRequest request = {0};

	sync_auth_fill(t->session, &request);
	request.allow_http = t->session->allow_http;
	request.allow_private = t->session->allow_private;
	request.owner = owner;
	request.tag = tag;
	http_submit(engine, &request);
	nsent++;
	t->nsent++;
}

static void
done(QueueJob *job)
{
	QueueTenant *tenant = job->target->tenant;

	job->answered_at = GetCurrentTimestamp();
	if (tenant->done.n == 0)
		tenant->first_done = job->answered_at;
	queue_append(&tenant->done, job);
	job->target->ndone++;
}

static void
send_job(HttpEngine *engine, QueueTarget *t)
{
	QueueJob   *job = take_first(&t->pending);
	volatile bool asked = false;

	job->sent_at = GetCurrentTimestamp();
	job->token = t->token;
	PG_TRY();
	{
		sync_session_ask(t->session, job->key);
		asked = true;
	}
	PG_CATCH();
	{
		ErrorData  *fault;

		MemoryContextSwitchTo(queue_context);
		fault = CopyErrorData();
		FlushErrorState();
		job->sqlstate = MemoryContextStrdup(queue_context, unpack_sql_state(fault->sqlerrcode));
		job->refusal = pstrdup(fault->message);
		FreeErrorData(fault);
	}
	PG_END_TRY();
	if (asked)
		submit(engine, t, job, QUEUE_TAG_JOB);
	else
	{
		sync_breaker_dropped(t->session);
		done(job);
	}
}

/* One request of a target, if it may send one now. */
static bool
send_one(HttpEngine *engine, QueueTarget *t)
{
	if (!can_send(t) || t->not_before > GetCurrentTimestamp())
		return false;
	if (sync_auth_expired(t->session))
	{
		t->open = true;
		return false;
	}
	if (sync_auth_due(t->session))
	{
		if (!sync_may_send(t->session))
			return false;
		submit(engine, t, t, QUEUE_TAG_TOKEN);
		t->token_sent = true;
		return true;
	}
	if (t->pending.first == NULL || !sync_may_send(t->session))
		return false;
	send_job(engine, t);
	return true;
}

void
queue_send(HttpEngine *engine)
{
	MemoryContext old;
	bool		any = tenants != NULL;

	if (!any)
		return;
	old = MemoryContextSwitchTo(scratch);
	/* one of each in turn, until there is no connection left, or nothing to send */
	while (any && nsent < guc_http_connections)
	{
		any = false;
		for (QueueTenant *tenant = tenants; tenant; tenant = tenant->next)
			for (QueueTarget *t = tenant->targets; t && nsent < guc_http_connections; t = t->next)
				any |= send_one(engine, t);
		MemoryContextReset(scratch);
	}
	MemoryContextSwitchTo(old);
}

/* ---- answers ---- */

/* Full jitter: any part of a pause that doubles. */
static TimestampTz
after_pause(int64 first_ms, int64 longest_ms, int n)
{
	int64		pause = Min(first_ms << Min(n, 20), longest_ms);

	return GetCurrentTimestamp() + (TimestampTz) (pg_prng_double(&pg_global_prng_state) * pause * 1000);
}

/* A person has to give other credentials. */
static void
set_stop(QueueTarget *t, const char *reason)
{
	t->stop = true;
	if (t->stop_reason == NULL)
		t->stop_reason = MemoryContextStrdup(queue_context, reason);
}

/* The credentials were refused: the job goes again, with others. */
static bool
is_refused(QueueTarget *t, QueueJob *job)
{
	/* it was sent before the last refusal was known */
	if (t->open || sync_auth_due(t->session) || job->token != t->token)
		return true;
	if (t->refusals++ == 0 && sync_auth_refused(t->session))
	{
		t->token++;
		t->open = true;
		return true;
	}
	set_stop(t, "the provider refused the credentials with status 401");
	return true;
}

/* Is the job to be sent again, as soon as its target may? */
static bool
goes_again(QueueTarget *t, QueueJob *job, HttpExchange *x, SyncClass class)
{
	int64		pause;

	if (class == SYNC_AUTH)
		return is_refused(t, job);
	if (class != SYNC_RATE)
		return false;
	pause = x->retry_after >= 0 ? x->retry_after * INT64CONST(1000) : x->limit_reset_ms > 0 ? x->limit_reset_ms : RATE_MS;
	t->not_before = Max(t->not_before, GetCurrentTimestamp() + Min(pause, RATE_LONGEST_MS) * 1000);
	return pause <= RATE_LONGEST_MS;
}

void
queue_take(HttpExchange *x)
{
	MemoryContext old = MemoryContextSwitchTo(scratch);
	QueueJob   *job = x->owner;
	QueueTarget *t;
	SyncClass	class;

	nsent--;
	if (x->tag == QUEUE_TAG_TOKEN)
	{
		t = x->owner;
		t->nsent--;
		t->token_sent = false;
		sync_breaker_note(t->session, x);
		t->not_before = Max(t->not_before, sync_breaker_wait(t->session));
		t->token_answer = x;
		sync_count_answer(t->session, x, sync_auth_classify(t->session, x), true);
		MemoryContextSwitchTo(old);
		return;
	}
	t = job->target;
	t->nsent--;
	class = sync_session_classify(t->session, x);
	sync_count_answer(t->session, x, class, false);
	sync_note_limits(t->session, x);
	sync_breaker_note(t->session, x);
	t->not_before = Max(t->not_before, sync_breaker_wait(t->session));
	if (class == SYNC_FINE || class == SYNC_PERMANENT)
	{
		t->refusals = 0;
		sync_auth_accepted(t->session);
	}
	if (goes_again(t, job, x, class))
	{
		put_first(&t->pending, job);
		http_free(x);
	}
	else
	{
		job->answer = x;
		done(job);
	}
	MemoryContextSwitchTo(old);
	MemoryContextReset(scratch);
}

/* ---- when there is something to do in a transaction ---- */

static bool
wants_jobs(const QueueTarget *t, TimestampTz now)
{
	return has_room(t) && t->not_before <= now && (t->more || t->next_due <= now);
}

static QueueTurn *
new_turn(QueueTurnKind kind, QueueTenant *tenant, QueueTarget *target)
{
	memset(&turn, 0, sizeof(turn));
	turn.kind = kind;
	turn.tenant = tenant;
	turn.target = target;
	return &turn;
}

static bool
must_store(const QueueTenant *tenant, TimestampTz now)
{
	return tenant->done.n > 0 &&
		(tenant->done.n >= QUEUE_STORE_AT || (nsent == 0 && tenant->care != QUEUE_SKIP_LOCKED) || now >= tenant->first_done + QUEUE_STORE_MS * 1000);
}

/* When to look for targets with jobs that are due, and at those that there are. */
TimestampTz
queue_look_at(const QueueTenant *tenant)
{
	for (QueueTarget *t = tenant->targets; t; t = t->next)
		if (t->pending.n > 0 && is_usable(t))
			return tenant->looked_at + LOOK_MS * 1000;
	return 0;
}

QueueTurn *
queue_due(void)
{
	TimestampTz now = tenants ? GetCurrentTimestamp() : 0;

	for (QueueTenant *tenant = tenants; tenant; tenant = tenant->next)
	{
		bool		wanted = (tenant->look && queue_look_at(tenant) <= now) || must_store(tenant, now);

		if (tenant->not_before > now)
			continue;
		for (QueueTarget *t = tenant->targets; t; t = t->next)
		{
			if (t->token_answer)
				return new_turn(QUEUE_TURN_TOKEN, tenant, t);
			if (t->open && !t->closed && !t->token_sent && t->open_at <= now)
				return new_turn(QUEUE_TURN_OPEN, tenant, t);
			wanted |= t->stop || ((t->closed || t->stop) && t->pending.n > 0) || wants_jobs(t, now);
		}
		if (wanted)
			return new_turn(QUEUE_TURN_STORE, tenant, NULL);
	}
	return NULL;
}

TimestampTz
queue_next(void)
{
	TimestampTz next = DT_NOEND;

	for (QueueTenant *tenant = tenants; tenant; tenant = tenant->next)
	{
		TimestampTz at = DT_NOEND;

		if (tenant->done.n > 0)
			at = tenant->first_done + QUEUE_STORE_MS * 1000;
		if (tenant->look)
			at = Min(at, queue_look_at(tenant));
		for (QueueTarget *t = tenant->targets; t; t = t->next)
		{
			if (t->open && !t->closed && !t->token_sent)
				at = Min(at, t->open_at);
			if (has_room(t))
				at = Min(at, Max(t->more ? 0 : t->next_due, t->not_before));
			if (nsent < guc_http_connections && can_send(t))
				at = Min(at, Max(t->not_before, t->session->not_before));
		}
		next = Min(next, Max(at, tenant->not_before));
	}
	return next;
}

bool
queue_idle(void)
{
	for (QueueTenant *tenant = tenants; tenant; tenant = tenant->next)
	{
		if (tenant->look || tenant->done.n > 0)
			return false;
		for (QueueTarget *t = tenant->targets; t; t = t->next)
			if (t->pending.n > 0 || t->nsent > 0 || (t->open && !t->closed) || t->token_answer)
				return false;
	}
	return true;
}

/* ---- after a transaction ---- */

static void
close_session(QueueTarget *t)
{
	if (t->session)
		sync_session_close(t->session);
	t->session = NULL;
}

/* Targets that nothing belongs to any more. */
static void
forget_targets(QueueTenant *tenant)
{
	for (QueueTarget **p = &tenant->targets; *p;)
	{
		QueueTarget *t = *p;

		if (!t->closed || t->pending.n > 0 || t->nsent > 0 || t->ndone > 0 || t->token_answer)
		{
			p = &t->next;
			continue;
		}
		*p = t->next;
		close_session(t);
		if (t->stop_reason)
			pfree(t->stop_reason);
		pfree(t->name);
		pfree(t);
	}
}

/* A session that could not be opened, or has no token. */
static void
session_failed(QueueTarget *t, ErrorData *fault)
{
	if (fault->sqlerrcode == ERRCODE_INVALID_AUTHORIZATION_SPECIFICATION)
		set_stop(t, fault->message);
	t->open = true;
	t->open_at = after_pause(REOPEN_FIRST_MS, REOPEN_LONGEST_MS, t->open_failures++);
}

static void
outcomes_stored(QueueTenant *tenant, QueueList *jobs)
{
	QueueJob   *job;
	int			later = 0;

	tenant->ncare -= jobs->n;
	while ((job = take_first(jobs)) != NULL)
	{
		if (job->result == QUEUE_LATER)
		{
			queue_append(&tenant->done, job);
			later++;
			continue;
		}
		job->target->ndone--;
		if (job->ours && strcmp(job->outcome, "done") == 0)
			job->target->proven = true;
		free_job(job);
	}
	if (later > 0)
		tenant->ncare = later;
	else if (tenant->ncare <= 0)
		tenant->care = QUEUE_FAST;
	if (tenant->done.n > 0)
		tenant->first_done = later > 0 ? GetCurrentTimestamp() + LOCKED_MS * 1000 : tenant->done.first->answered_at;
}

/* Nothing of it is stored: the outcomes wait, at the head of the others. */
static void
outcomes_not_stored(QueueTurn *t, ErrorData *fault)
{
	QueueTenant *tenant = t->tenant;
	bool		locked = fault->sqlerrcode == ERRCODE_LOCK_NOT_AVAILABLE || fault->sqlerrcode == ERRCODE_T_R_DEADLOCK_DETECTED;
	QueueJob   *job = t->storing.first;

	if (t->storing.n == 1 && tenant->care == QUEUE_ONE_BY_ONE && !locked && job->sqlstate == NULL)
	{
		/* it is this one */
		job->sqlstate = MemoryContextStrdup(queue_context, unpack_sql_state(fault->sqlerrcode));
		job->refusal = MemoryContextStrdup(queue_context, ERRCODE_TO_CATEGORY(fault->sqlerrcode) == ERRCODE_DATA_EXCEPTION ?
										   "the provider's answer cannot be read" : fault->message);
	}
	else
	{
		if (locked && tenant->care == QUEUE_SKIP_LOCKED)
			tenant->not_before = GetCurrentTimestamp() + LOCKED_MS * 1000;
		if (tenant->care == QUEUE_ONE_BY_ONE && t->storing.n <= 1)
			tenant->not_before = GetCurrentTimestamp() + LOCKED_MS * 1000;
		tenant->care = locked ? QUEUE_SKIP_LOCKED : QUEUE_ONE_BY_ONE;
		tenant->ncare = Max(t->storing.n, 1);
	}
	if (t->storing.first)
	{
		t->storing.last->next = tenant->done.first;
		if (tenant->done.last == NULL)
			tenant->done.last = t->storing.last;
		tenant->done.first = t->storing.first;
		tenant->done.n += t->storing.n;
	}
}

static void
store_turned(QueueTurn *t, ErrorData *fault)
{
	QueueTenant *tenant = t->tenant;
	QueueJob   *job;

	if (fault)
	{
		outcomes_not_stored(t, fault);
		while ((job = take_first(&t->released)) != NULL)
			put_by_priority(&job->target->pending, job);
		free_jobs(&t->claimed);
		/* what the claim noted is not so */
		for (QueueTarget *x = tenant->targets; x; x = x->next)
		{
			x->more |= x->session != NULL;
			x->from_priority = 0;
			x->from_run_at = DT_NOBEGIN;
		}
		tenant->look = true;
		return;
	}
	outcomes_stored(tenant, &t->storing);
	free_jobs(&t->released);
	while ((job = take_first(&t->claimed)) != NULL)
		put_by_priority(&job->target->pending, job);
	for (QueueTarget *x = tenant->targets; x; x = x->next)
		if (x->stop)
		{
			x->closed = true;
			x->stop = false;
		}
	forget_targets(tenant);
}

void
queue_turned(QueueTurn *t, ErrorData *fault)
{
	QueueTarget *target = t->target;

	switch (t->kind)
	{
		case QUEUE_TURN_OPEN:
			if (fault)
			{
				if (t->session)
					sync_session_close(t->session);
				session_failed(target, fault);
				break;
			}
			if (t->session == NULL)
				target->closed = true;	/* there is no such source any more */
			else
			{
				target->open_failures = 0;
				if (target->stop_reason)
					pfree(target->stop_reason);
				target->stop_reason = NULL;
				t->session->not_before = target->session ? target->session->not_before : 0;
				close_session(target);
				target->session = t->session;
				target->more = true;
			}
			target->open = false;
			break;
		case QUEUE_TURN_TOKEN:
			http_free(target->token_answer);
			target->token_answer = NULL;
			if (fault)
				session_failed(target, fault);
			else
				target->token++;
			break;
		case QUEUE_TURN_STORE:
			store_turned(t, fault);
			break;
	}
}

/* ---- in a transaction ---- */

static Jsonb *
column_jsonb(int col)
{
	bool		isnull;
	Datum		d = store_value(0, col, &isnull);

	return isnull ? NULL : DatumGetJsonbPCopy(d);
}

static void
open_session(QueueTurn *t)
{
	StoreArray	name;
	StrView		collection;
	Datum		proven;
	bool		isnull;

	store_array_init(&name, TEXTOID);
	store_array_add(&name, CStringGetTextDatum(t->target->name), false);
	if (store_run("SELECT s.settings, contactsync._connector(s.connector), s.\"cursor\" ->> 'collection', contactsync._source_version(s.*), "
				  "s.fetched_at > (SELECT pg_catalog.max(c.changed_at) FROM contactsync.connectors c "
				  "WHERE c.tenant_id IN (s.tenant_id, '*') AND c.name = s.connector) "
				  "FROM contactsync.sources s WHERE s.tenant_id = contactsync.current_tenant() AND s.name = ($1)[1] "
				  "AND s.state IN ('active', 'failing')", 1, (StoreArray *[]) {&name}) == 0)
		return;
	collection = store_text(0, 3);
	t->target->version = store_int8(0, 4);
	proven = store_value(0, 5, &isnull);
	t->target->proven = !isnull && DatumGetBool(proven);
	t->session = sync_session_open(t->tenant->name, t->target->name, column_jsonb(1), column_jsonb(2),
								   collection.ptr ? pnstrdup(collection.ptr, collection.len) : NULL);
	sync_auth_renew(t->session);
}

void
queue_turn(QueueTurn *t)
{
	Guard		guard;

	guard_enter(&guard, t->tenant->name);
	store_fix_plans();
	/* each plan is made once: none of them depends on what it is given */
	(void) set_config_option("plan_cache_mode", "force_generic_plan", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	/* nor is a claim by reading all that waits, in whatever order */
	(void) set_config_option("enable_sort", "off", PGC_USERSET, PGC_S_SESSION, GUC_ACTION_SAVE, true, 0, false);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	switch (t->kind)
	{
		case QUEUE_TURN_OPEN:
			open_session(t);
			break;
		case QUEUE_TURN_TOKEN:
			sync_auth_answer(t->target->session, t->target->token_answer);
			break;
		case QUEUE_TURN_STORE:
			if (t->tenant->done.n > 0)
				queue_store_outcomes(t);
			queue_claim(t);
			break;
	}
	SPI_finish();
	guard_leave(&guard);
}

void
queue_recover(const char *tenant)
{
	Guard		guard;

	guard_enter(&guard, tenant);
	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	(void) store_run("UPDATE contactsync.fetches f SET lease = NULL "
					 "WHERE f.tenant_id = contactsync.current_tenant() AND f.lease IS NOT NULL", 0, NULL);
	SPI_finish();
	guard_leave(&guard);
}
