/*
 * worker_main.c
 *		The worker of one database: applies what is due, and drives the runs.
 *
 * It connects as bootstrap superuser, because a background worker cannot log in
 * as a role without LOGIN, and in each transaction goes over to
 * contactsync_worker, under restrictions that no user code can leave.  What it
 * does for a tenant it does inside the guard.
 *
 * Nothing waits inside a transaction.  A fault costs the item it came with: the
 * transaction is aborted, the run is recorded as failed, the loop goes on.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_type.h"
#include "commands/extension.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/lock.h"
#include "storage/procsignal.h"
#include "tcop/tcopprot.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/guc.h"
#include "utils/memutils.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "guc.h"
#include "http/http.h"
#include "stats/stats.h"
#include "queue/queue.h"
#include "store/guard.h"
#include "store/store.h"
#include "sync/sync.h"
#include "worker/worker.h"

#define IDLE_MS			60000L	/* look again, though nobody woke us */
#define ERROR_PAUSE_MS	1000L
#define PRUNE_MS		3600000 /* forget what has had its time */
#define EVENTS_AT_A_TIME 5000
#define LOCK_TIMEOUT	"1s"
#define WORKER_AT_WORK	3		/* classes of locks, for workers on demand; SQL */
#define WORKER_WAITING	4		/* functions take 1 and 2 */

/* Work of one tenant, as it looked when it was searched for. */
typedef struct Work
{
	char	   *tenant;
	bool		events;
	bool		runs;
	bool		fetches;
} Work;

static Oid	my_database;
static int	my_slot = 0;			/* of the workers that the server has */
static uint32 wakes_seen = 0;

static bool take_answers(MemoryContext context, HttpEngine *engine);

static void
worker_exit(int code, Datum arg)
{
	WorkerSlot *slot;

	if (worker_shared == NULL)
		return;
	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	slot = worker_slot(my_database, false);
	if (slot && slot->pid == MyProcPid)
	{
		slot->pid = 0;
		slot->proc = NULL;
		if (slot->listener)
			(void) kill(slot->listener, SIGTERM);
	}
	worker_wake_launcher();
	LWLockRelease(worker_shared->lock);
}

/* Take the database's slot; false if another worker has it, or it is held. */
static bool
take_slot(void)
{
	WorkerSlot *slot;
	bool		ours;

	if (worker_shared == NULL)
		return true;
	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	slot = worker_slot(my_database, true);
	ours = slot && slot->pid == 0 && slot->held == 0;
	if (ours)
	{
		slot->pid = MyProcPid;
		slot->proc = MyProc;
		slot->state = WS_STARTED;
		slot->seen_at = GetCurrentTimestamp();
		slot->refused = false;
		my_slot = slot - worker_shared->slots;
		wakes_seen = slot->wakes;
	}
	LWLockRelease(worker_shared->lock);
	return ours;
}

/* Has a commit brought work since this was last asked? */
static bool
woken(void)
{
	WorkerSlot *slot;
	bool		result = false;

	if (worker_shared == NULL)
		return false;
	LWLockAcquire(worker_shared->lock, LW_SHARED);
	slot = worker_slot(my_database, false);
	if (slot)
	{
		slot->seen_at = GetCurrentTimestamp();
		result = slot->wakes != wakes_seen;
		wakes_seen = slot->wakes;
	}
	LWLockRelease(worker_shared->lock);
	return result;
}

static void
set_absent(void)
{
	WorkerSlot *slot;

	if (worker_shared == NULL)
		return;
	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	slot = worker_slot(my_database, false);
	if (slot && slot->pid == MyProcPid)
		/* an extension may have been made since we looked */
		slot->state = slot->wakes != wakes_seen ? WS_WANTED : WS_ABSENT;
	LWLockRelease(worker_shared->lock);
}

static void
begin(void)
{
	SetCurrentStatementStartTimestamp();
	StartTransactionCommand();
	PushActiveSnapshot(GetTransactionSnapshot());
}

/* Go over to contactsync_worker, for the rest of the transaction. */
static void
step_down(void)
{
	SetUserIdAndSecContext(guard_worker(), SECURITY_LOCAL_USERID_CHANGE | SECURITY_RESTRICTED_OPERATION);
}

static void
commit(void)
{
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, 0);
	PopActiveSnapshot();
	CommitTransactionCommand();
	pgstat_report_stat(false);
	pgstat_report_activity(STATE_IDLE, NULL);
}

/* After an error: nothing of the transaction is left. */
static void
recover(void)
{
	SetUserIdAndSecContext(BOOTSTRAP_SUPERUSERID, 0);
	AbortCurrentTransaction();
	pgstat_report_activity(STATE_IDLE, NULL);
}

/*
 * Take an advisory lock of this session, if nobody has it: of a class that no
 * SQL function takes, so that nobody else can.
 */
static bool
take_lock(uint16 class)
{
	LOCKTAG		tag;
	bool		taken;

	StartTransactionCommand();
	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0x636f6e74, 0x61637473, class);
	taken = LockAcquire(&tag, ExclusiveLock, true, true) != LOCKACQUIRE_NOT_AVAIL;
	CommitTransactionCommand();
	return taken;
}

static void
release_lock(uint16 class)
{
	LOCKTAG		tag;

	SET_LOCKTAG_ADVISORY(tag, MyDatabaseId, 0x636f6e74, 0x61637473, class);
	(void) LockRelease(&tag, ExclusiveLock, true);
}

/*
 * Without slots, a lock sees to it that there is one worker at a time, and one
 * that waits for it to go; a third has nothing to do.
 */
static void
wait_for_turn(void)
{
	bool		waiting = false;

	while (!take_lock(WORKER_AT_WORK))
	{
		if (!waiting && !take_lock(WORKER_WAITING))
			proc_exit(0);
		waiting = true;
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 100, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
	}
	if (waiting)
		release_lock(WORKER_WAITING);
}

/* Is there the extension, and is this database not somebody's copy? */
static bool
is_installed(bool *active)
{
	bool		installed;
	bool		isnull;

	*active = false;
	begin();
	installed = OidIsValid(get_extension_oid("contactsync", true));
	if (installed)
	{
		Guard		guard;

		step_down();
		guard_enter(&guard, "default");
		SPI_connect();
		if (SPI_execute("SELECT contactsync._is_activated()", true, 1) == SPI_OK_SELECT && SPI_processed == 1)
			*active = DatumGetBool(SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull));
		SPI_finish();
		guard_leave(&guard);
	}
	commit();
	return installed;
}

#define ANY_OF(table_, condition_) \
	"(SELECT true FROM contactsync." table_ " x WHERE x.tenant_id = t.tenant_id AND " condition_ " LIMIT 1) IS NOT NULL "

/* Which tenants have something due, and when the next poll is; allocated in context. */
static List *
find_work(MemoryContext context, TimestampTz *next_poll)
{
	List	   *result = NIL;
	bool		isnull;
	Datum		next;

	begin();
	step_down();
	SPI_connect();
	/* scalar subqueries: EXISTS may be planned as a hash of all rows */
	(void) store_run("SELECT * FROM (SELECT t.tenant_id, "
					 ANY_OF("inbox", "x.failed_at IS NULL")
					 "OR " ANY_OF("runs", "x.certified AND NOT x.certificate_applied")
					 "OR " ANY_OF("policies", "x.next_contact IS NOT NULL")
					 "OR " ANY_OF("identity_policies", "x.next_record IS NOT NULL") "AS events, "
					 ANY_OF("runs", "x.state = 'queued'")
					 "OR " ANY_OF("sources", "x.state IN ('active', 'failing') AND x.next_poll_at <= pg_catalog.clock_timestamp()")
					 "OR " ANY_OF("schedules", "x.next_at <= pg_catalog.clock_timestamp()") "AS runs, "
					 ANY_OF("fetches", "x.priority >= 0 AND x.lease IS NULL AND x.run_at <= pg_catalog.clock_timestamp()") "AS fetches "
					 "FROM contactsync.tenants t) w WHERE events OR runs OR fetches ORDER BY tenant_id", 0, NULL);
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);
		Work	   *work = palloc(sizeof(Work));
		HeapTuple	row = SPI_tuptable->vals[i];
		TupleDesc	desc = SPI_tuptable->tupdesc;

		work->tenant = TextDatumGetCString(SPI_getbinval(row, desc, 1, &isnull));
		work->events = DatumGetBool(SPI_getbinval(row, desc, 2, &isnull));
		work->runs = DatumGetBool(SPI_getbinval(row, desc, 3, &isnull));
		work->fetches = DatumGetBool(SPI_getbinval(row, desc, 4, &isnull));
		result = lappend(result, work);
		MemoryContextSwitchTo(old);
	}
	(void) store_run("SELECT LEAST((SELECT pg_catalog.min(s.next_poll_at) FROM contactsync.sources s "
					 "WHERE s.state IN ('active', 'failing')), "
					 "(SELECT pg_catalog.min(s.next_at) FROM contactsync.schedules s))", 0, NULL);
	next = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, 1, &isnull);
	*next_poll = isnull ? DT_NOEND : DatumGetTimestampTz(next);
	SPI_finish();
	commit();
	return result;
}

/* In all tenants, queue the runs that a crash cut short. */
static void
requeue_runs(void)
{
	List	   *tenants = NIL;
	ListCell   *cell;
	bool		isnull;

	begin();
	step_down();
	SPI_connect();
	if (SPI_execute("SELECT DISTINCT r.tenant_id FROM contactsync.runs r WHERE r.state = 'running'", true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for runs");
	for (uint64 i = 0; i < SPI_processed; i++)
		tenants = lappend(tenants, TextDatumGetCString(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)));
	foreach(cell, tenants)
	{
		Guard		guard;

		guard_enter(&guard, lfirst(cell));
		if (SPI_execute("SELECT contactsync._requeue_runs()", false, 0) != SPI_OK_SELECT)
			elog(ERROR, "could not queue interrupted runs");
		guard_leave(&guard);
	}
	SPI_finish();
	commit();
}

/* What may go wrong with an item: a tenant's work, a run, an answer. */
typedef void (*ItemFunction) (void *item, void *arg);

/* Do something for an item in a transaction of its own; NULL, or what went wrong. */
static ErrorData *
try_item(MemoryContext context, ItemFunction function, void *item, void *arg)
{
	ErrorData  *volatile fault = NULL;

	PG_TRY();
	{
		begin();
		step_down();
		function(item, arg);
		commit();
	}
	PG_CATCH();
	{
		MemoryContextSwitchTo(context);
		fault = CopyErrorData();
		FlushErrorState();
		recover();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(context);
	return fault;
}

static void
do_events(void *work, void *more)
{
	pgstat_report_activity(STATE_RUNNING, "contactsync: applying events");
	*(bool *) more |= store_process(((Work *) work)->tenant, EVENTS_AT_A_TIME);
}

static void
do_prune(void *tenant, void *arg)
{
	Guard		guard;

	guard_enter(&guard, tenant);
	SPI_connect();
	if (SPI_execute("SELECT contactsync._prune()", false, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not prune");
	SPI_finish();
	guard_leave(&guard);
}

static void
do_start_runs(void *work, void *arg)
{
	sync_start_runs(((Work *) work)->tenant);
}

static void
do_prepare(void *run, void *arg)
{
	sync_prepare(run);
}

static void
do_answer(void *run, void *exchange)
{
	sync_answer(run, exchange);
}

static void
do_turn(void *turn, void *arg)
{
	queue_turn(turn);
}

static void
do_recover(void *tenant, void *arg)
{
	queue_recover(tenant);
}

static void
do_fail(void *run, void *arg)
{
	sync_fail(run);
}

/* A run cannot go on: store why, now or, if somebody holds the rows, later. */
static void
fail_run(MemoryContext context, SyncRun *run, ErrorData *fault, int retry_after)
{
	sync_give_up(run, unpack_sql_state(fault->sqlerrcode), fault->message, retry_after);
	if (try_item(context, do_fail, run, NULL) == NULL)
		sync_failed(run);
}

/* Store the failures that could not be; true if some are still waiting. */
static bool
fail_runs(MemoryContext context)
{
	SyncRun    *run;
	bool		waiting = false;

	for (run = sync_next_failure(NULL); run; run = sync_next_failure(run))
	{
		if (try_item(context, do_fail, run, NULL) == NULL)
			sync_failed(run);
		else
			waiting = true;
	}
	return waiting;
}

static void
report(const ErrorData *fault)
{
	/* that somebody holds a lock is no news each second */
	if (fault)
		stats_add_now("", "", SC_WORKER_ERRORS, 1);
	if (fault && fault->sqlerrcode != ERRCODE_LOCK_NOT_AVAILABLE)
		ereport(LOG,
				(errcode(fault->sqlerrcode),
				 /* a data exception may quote what somebody is called */
				 errmsg("contactsync worker: %s",
						ERRCODE_TO_CATEGORY(fault->sqlerrcode) == ERRCODE_DATA_EXCEPTION ?
						psprintf("data exception %s", unpack_sql_state(fault->sqlerrcode)) : fault->message),
				 errhint("It will be tried again.")));
}

/* One tenant's work; false if something went wrong with it. */
static bool
do_tenant(MemoryContext context, HttpEngine *engine, Work *w, bool *more)
{
	ErrorData  *fault = NULL;
	ErrorData  *run_fault;
	SyncRun    *run;

	if (w->fetches)
		queue_look(w->tenant);
	if (w->events && guc_apply)
	{
		fault = try_item(context, do_events, w, more);
		/* what a run did not show may have to be asked for */
		if (!*more)
			queue_look(w->tenant);
	}
	if (w->runs && fault == NULL && (fault = try_item(context, do_start_runs, w, NULL)) != NULL)
		sync_forget();
	while ((run = sync_next_started()) != NULL)
		if ((run_fault = try_item(context, do_prepare, run, NULL)) != NULL)
			fail_run(context, run, run_fault, -1);
	sync_proceed(engine);
	report(fault);
	return fault == NULL;
}

/* Do something for each tenant that a query finds, each in a transaction of its own. */
static void
for_tenants(MemoryContext context, const char *query, ItemFunction function)
{
	List	   *tenants = NIL;
	ListCell   *cell;
	bool		isnull;

	begin();
	step_down();
	SPI_connect();
	if (SPI_execute(query, true, 0) != SPI_OK_SELECT)
		elog(ERROR, "could not look for tenants");
	for (uint64 i = 0; i < SPI_processed; i++)
	{
		MemoryContext old = MemoryContextSwitchTo(context);

		tenants = lappend(tenants, TextDatumGetCString(SPI_getbinval(SPI_tuptable->vals[i], SPI_tuptable->tupdesc, 1, &isnull)));
		MemoryContextSwitchTo(old);
	}
	SPI_finish();
	commit();
	foreach(cell, tenants)
	{
		CHECK_FOR_INTERRUPTS();
		report(try_item(context, function, lfirst(cell), NULL));
	}
}

/* What the queue has to do in transactions; true if it stored something that may have to be applied. */
static bool
do_queue(MemoryContext context, HttpEngine *engine)
{
	QueueTurn  *turn;
	bool		any = false;

	queue_send(engine);
	while ((turn = queue_due()) != NULL)
	{
		ErrorData  *fault;

		any |= turn->kind == QUEUE_TURN_STORE && turn->tenant->done.n > 0;
		fault = try_item(context, do_turn, turn, NULL);
		report(fault);
		queue_turned(turn, fault);
		queue_send(engine);
		CHECK_FOR_INTERRUPTS();
	}
	return any;
}

/* Do all that is due now; true if there is more to do at once. */
static bool
do_work(MemoryContext context, HttpEngine *engine, TimestampTz *next_poll)
{
	List	   *work = find_work(context, next_poll);
	ListCell   *cell;
	bool		more = false;

	queue_look_again();
	foreach(cell, work)
	{
		CHECK_FOR_INTERRUPTS();
		(void) take_answers(context, engine);
		/* whatever it is, do not meet it in a loop */
		if (!do_tenant(context, engine, lfirst(cell), &more))
			*next_poll = Min(*next_poll, GetCurrentTimestamp() + ERROR_PAUSE_MS * 1000);
	}
	return more;
}

/* Hand the answers that have come to their runs; true if there were any. */
static bool
take_answers(MemoryContext context, HttpEngine *engine)
{
	HttpExchange *x;
	bool		any = false;

	http_poll(engine);
	while ((x = http_next(engine)) != NULL)
	{
		ErrorData  *fault;

		if (x->tag != 0)
		{
			queue_take(x);
			continue;
		}
		fault = try_item(context, do_answer, x->owner, x);
		any = true;
		if (fault)
			fail_run(context, x->owner, fault, x->retry_after);
		http_free(x);
		sync_proceed(engine);
	}
	return any;
}

static void
wait_for_something(HttpEngine *engine, TimestampTz next_poll)
{
	long		wait = http_deadline(engine);
	TimestampTz now = GetCurrentTimestamp();

	if (wait < 0 || wait > IDLE_MS)
		wait = IDLE_MS;
	if (next_poll <= now)
		wait = 0;
	else if (next_poll - now < wait * INT64CONST(1000))
		wait = (next_poll - now) / 1000 + 1;
	(void) WaitLatchOrSocket(MyLatch, WL_LATCH_SET | WL_SOCKET_READABLE | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH,
							 http_fd(engine), wait, PG_WAIT_EXTENSION);
}

/*
 * What the database or a role may have set must not change what statements
 * mean, nor stop the worker; and nobody who holds a lock in one tenant is to
 * hold up the others.
 */
void
worker_fix_settings(void)
{
	static const char *const settings[][2] = {
		{"search_path", "pg_catalog, pg_temp"},
		{"default_transaction_isolation", "read committed"},
		{"default_transaction_read_only", "off"},
		{"statement_timeout", "0"},
		{"idle_in_transaction_session_timeout", "0"},
		{"lock_timeout", LOCK_TIMEOUT},
		/* its statements are short, whatever the planner thinks of them */
		{"jit", "off"},
	};

	for (int i = 0; i < lengthof(settings); i++)
		SetConfigOption(settings[i][0], settings[i][1], PGC_SUSET, PGC_S_OVERRIDE);
}

void
worker_main(Datum arg)
{
	MemoryContext context;
	HttpEngine *engine;
	TimestampTz next_poll = DT_NOEND;
	TimestampTz listener_due;
	TimestampTz looked = 0;
	TimestampTz pruned = 0;
	bool		look = true;
	bool		active = false;
	bool		begun = false;

	my_database = DatumGetObjectId(arg);
	worker_is_me = true;
	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, die);
	BackgroundWorkerUnblockSignals();
	before_shmem_exit(worker_exit, (Datum) 0);
	if (!take_slot())
		proc_exit(0);
	BackgroundWorkerInitializeConnectionByOid(my_database, InvalidOid, 0);
	worker_fix_settings();
	pgstat_report_appname("contactsync worker");
	context = AllocSetContextCreate(TopMemoryContext, "contactsync worker", ALLOCSET_DEFAULT_SIZES);
	MemoryContextSwitchTo(context);

	if (!is_installed(&active))
	{
		set_absent();
		proc_exit(0);
	}
	if (worker_shared == NULL)
		wait_for_turn();
	stats_add_now("", "", SC_WORKER_STARTS, 1);
	engine = http_create();
	queue_start(my_slot);

	for (;;)
	{
		ResetLatch(MyLatch);
		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (!guc_enabled)
			proc_exit(0);
		if (look)
		{
			stats_add_now("", "", SC_WORKER_WAKEUPS, 1);
			if (!is_installed(&active))
			{
				stats_forget_database(my_database);
				set_absent();
				proc_exit(0);
			}
			next_poll = DT_NOEND;
			look = false;
			looked = GetCurrentTimestamp();
			if (active)
			{
				if (!begun)
				{
					requeue_runs();
					/* whoever held leases is no more */
					for_tenants(context, "SELECT DISTINCT f.tenant_id FROM contactsync.fetches f WHERE f.lease IS NOT NULL", do_recover);
				}
				begun = true;
				look = do_work(context, engine, &next_poll);
				if (fail_runs(context))
					next_poll = Min(next_poll, GetCurrentTimestamp() + ERROR_PAUSE_MS * 1000);
				sync_proceed(engine);
				if (!look && TimestampDifferenceExceeds(pruned, looked, PRUNE_MS))
				{
					for_tenants(context, "SELECT t.tenant_id FROM contactsync.tenants t", do_prune);
					pruned = looked;
				}
			}
			MemoryContextReset(context);
		}
		/* what a page brought is applied at once */
		look |= take_answers(context, engine);
		sync_proceed(engine);
		look |= do_queue(context, engine) && guc_apply;
		if (woken())
			look = true;
		listener_due = active ? worker_tend_listener() : DT_NOEND;
		if (look)
			continue;
		if (worker_shared == NULL && (begun || !active) && sync_idle() && queue_idle())
			proc_exit(0);
		wait_for_something(engine, Min(Min(next_poll, listener_due), Min(sync_next_send(), queue_next())));
		look = woken() || next_poll <= GetCurrentTimestamp() || TimestampDifferenceExceeds(looked, GetCurrentTimestamp(), IDLE_MS);
	}
}
