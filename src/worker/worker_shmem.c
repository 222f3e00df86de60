/*
 * worker_shmem.c
 *		What launcher, workers and sessions share, and how a commit wakes a worker.
 *
 * A session that brings work sets a flag; its commit sets the worker's latch:
 * one wake-up for each transaction, no NOTIFY, no polling.  The callback is
 * registered once for each process.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "access/xact.h"
#include "commands/trigger.h"
#include "fmgr.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "storage/shmem.h"

#include "compat.h"
#include "worker/worker.h"

PG_FUNCTION_INFO_V1(worker_wake_trigger);
PG_FUNCTION_INFO_V1(worker_announce_sql);
PG_FUNCTION_INFO_V1(worker_demand_sql);
PG_FUNCTION_INFO_V1(worker_status_sql);

WorkerShared *worker_shared = NULL;
bool		worker_is_me = false;

static bool wake_at_commit = false;
static bool start_at_commit = false;
static shmem_startup_hook_type next_shmem_startup = NULL;
#if PG_VERSION_NUM >= 150000
static shmem_request_hook_type next_shmem_request = NULL;
#endif

static void
shmem_request(void)
{
	if (next_shmem_request)
		next_shmem_request();
	RequestAddinShmemSpace(MAXALIGN(sizeof(WorkerShared)));
	RequestNamedLWLockTranche("contactsync", 1);
}

static void
shmem_startup(void)
{
	bool		found;

	if (next_shmem_startup)
		next_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	worker_shared = ShmemInitStruct("contactsync", sizeof(WorkerShared), &found);
	if (!found)
	{
		memset(worker_shared, 0, sizeof(WorkerShared));
		worker_shared->lock = &GetNamedLWLockTranche("contactsync")->lock;
	}
	LWLockRelease(AddinShmemInitLock);
}

WorkerSlot *
worker_slot(Oid database, bool create)
{
	WorkerSlot *empty = NULL;

	Assert(LWLockHeldByMe(worker_shared->lock));
	for (int i = 0; i < WORKER_MAX_DATABASES; i++)
	{
		WorkerSlot *slot = &worker_shared->slots[i];

		if (slot->database == database)
			return slot;
		if (empty == NULL && slot->database == InvalidOid)
			empty = slot;
	}
	if (!create || empty == NULL)
		return NULL;
	memset(empty, 0, sizeof(*empty));
	empty->database = database;
	return empty;
}

/* The caller holds the lock. */
void
worker_wake_launcher(void)
{
	if (worker_shared->launcher)
		SetLatch(&worker_shared->launcher->procLatch);
}

void
worker_wake_now(void)
{
	WorkerSlot *slot;

	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	slot = worker_slot(MyDatabaseId, true);
	if (slot)
		slot->wakes++;
	if (slot && slot->proc)
		SetLatch(&slot->proc->procLatch);
	else if (slot && (slot->state == WS_FREE || slot->state == WS_ABSENT))
	{
		slot->state = WS_WANTED;
		worker_wake_launcher();
	}
	LWLockRelease(worker_shared->lock);
}

void
worker_describe(BackgroundWorker *worker, Oid database)
{
	memset(worker, 0, sizeof(*worker));
	worker->bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	worker->bgw_start_time = BgWorkerStart_RecoveryFinished;
	worker->bgw_restart_time = BGW_NEVER_RESTART;
	worker->bgw_main_arg = ObjectIdGetDatum(database);
	strlcpy(worker->bgw_library_name, "contactsync", sizeof(worker->bgw_library_name));
	strlcpy(worker->bgw_function_name, "worker_main", sizeof(worker->bgw_function_name));
	strlcpy(worker->bgw_name, "contactsync worker", sizeof(worker->bgw_name));
	strlcpy(worker->bgw_type, "contactsync worker", sizeof(worker->bgw_type));
}

/* Too many at a time do not matter: each does all that is due, one after the other. */
static void
start_now(void)
{
	BackgroundWorker worker;

	worker_describe(&worker, MyDatabaseId);
	if (!RegisterDynamicBackgroundWorker(&worker, NULL))
		ereport(WARNING,
				(errmsg("contactsync could not start a worker"),
				 errhint("Raise max_worker_processes, or put contactsync into shared_preload_libraries.")));
}

static void
xact_callback(XactEvent event, void *arg)
{
	if (event == XACT_EVENT_COMMIT && wake_at_commit)
		worker_wake_now();
	if (event == XACT_EVENT_COMMIT && start_at_commit)
		start_now();
	if (event == XACT_EVENT_COMMIT || event == XACT_EVENT_ABORT || event == XACT_EVENT_PREPARE)
		wake_at_commit = start_at_commit = false;
}

void
worker_wake(void)
{
	/* on a worker's own account it goes on anyway */
	if (worker_shared && !worker_is_me)
		wake_at_commit = true;
}

void
worker_demand(void)
{
	worker_wake();
	start_at_commit = worker_shared == NULL && !worker_is_me;
}

void
worker_init(void)
{
	BackgroundWorker launcher = {0};

	RegisterXactCallback(xact_callback, NULL);
	if (!process_shared_preload_libraries_in_progress)
		return;

	next_shmem_request = shmem_request_hook;
	shmem_request_hook = shmem_request;
	next_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
	worker_hook_init();

	/* after recovery: on a standby it starts with the promotion */
	launcher.bgw_flags = BGWORKER_SHMEM_ACCESS | BGWORKER_BACKEND_DATABASE_CONNECTION;
	launcher.bgw_start_time = BgWorkerStart_RecoveryFinished;
	launcher.bgw_restart_time = 5;
	strlcpy(launcher.bgw_library_name, "contactsync", sizeof(launcher.bgw_library_name));
	strlcpy(launcher.bgw_function_name, "worker_launcher_main", sizeof(launcher.bgw_function_name));
	strlcpy(launcher.bgw_name, "contactsync launcher", sizeof(launcher.bgw_name));
	strlcpy(launcher.bgw_type, "contactsync launcher", sizeof(launcher.bgw_type));
	RegisterBackgroundWorker(&launcher);
}

/*
 * _wake() -> trigger
 */
Datum
worker_wake_trigger(PG_FUNCTION_ARGS)
{
	if (!CALLED_AS_TRIGGER(fcinfo))
		ereport(ERROR,
				(errcode(ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED),
				 errmsg("_wake() must be called as a trigger")));
	worker_wake();
	PG_RETURN_POINTER(NULL);
}

/*
 * _demand_worker()
 *		What this transaction brings needs a worker.
 */
Datum
worker_demand_sql(PG_FUNCTION_ARGS)
{
	worker_demand();
	PG_RETURN_VOID();
}

/*
 * _announce()
 *		The install script's: once it has committed there is a database to serve.
 */
Datum
worker_announce_sql(PG_FUNCTION_ARGS)
{
	worker_wake();
	PG_RETURN_VOID();
}

/*
 * _worker_status(OUT preloaded boolean, OUT launcher boolean, OUT pid integer,
 *				  OUT seen_at timestamptz, OUT refused boolean)
 *		Of this database's worker; seen_at: when it last went round its loop.
 */
Datum
worker_status_sql(PG_FUNCTION_ARGS)
{
	TupleDesc	desc;
	WorkerSlot	slot = {0};
	bool		launcher = false;
	Datum		values[5];
	bool		nulls[5] = {false};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (worker_shared)
	{
		WorkerSlot *ours;

		LWLockAcquire(worker_shared->lock, LW_SHARED);
		ours = worker_slot(MyDatabaseId, false);
		if (ours)
			slot = *ours;
		launcher = worker_shared->launcher != NULL;
		LWLockRelease(worker_shared->lock);
	}
	values[0] = BoolGetDatum(worker_shared != NULL);
	values[1] = BoolGetDatum(launcher);
	values[2] = Int32GetDatum(slot.pid);
	values[3] = TimestampTzGetDatum(slot.seen_at);
	values[4] = BoolGetDatum(slot.refused);
	nulls[2] = nulls[3] = slot.pid == 0;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}
