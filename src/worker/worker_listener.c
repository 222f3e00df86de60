/*
 * worker_listener.c
 *		The listener of a database: its worker starts it, and takes it along when
 *		it goes.
 *
 * So a listener needs no launcher, and whoever makes a worker go, makes both go.
 * Where it is to listen may be set for each database by itself.
 */
#include "postgres.h"

#include <signal.h>

#include "miscadmin.h"
#include "postmaster/bgworker.h"
#include "storage/latch.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "worker/worker.h"

#define FIRST_PAUSE_MS		1000
#define LONGEST_PAUSE_MS	60000

/* ---- the worker ---- */

static BackgroundWorkerHandle *handle = NULL;
static TimestampTz started;
static TimestampTz not_before = 0;
static int	pause_ms = 0;

static void
start_listener(void)
{
	static bool told = false;
	BackgroundWorker worker;
	MemoryContext old;
	bool		done;

	worker_describe(&worker, MyDatabaseId);
	worker.bgw_notify_pid = MyProcPid;
	strlcpy(worker.bgw_function_name, "webhook_listener_main", sizeof(worker.bgw_function_name));
	strlcpy(worker.bgw_name, "contactsync listener", sizeof(worker.bgw_name));
	strlcpy(worker.bgw_type, "contactsync listener", sizeof(worker.bgw_type));
	started = GetCurrentTimestamp();
	old = MemoryContextSwitchTo(TopMemoryContext);
	done = RegisterDynamicBackgroundWorker(&worker, &handle);
	MemoryContextSwitchTo(old);
	if (done)
		return;
	handle = NULL;
	not_before = started + LONGEST_PAUSE_MS * INT64CONST(1000);
	if (!told)
		ereport(WARNING,
				(errmsg("contactsync could not start its listener"),
				 errhint("Raise max_worker_processes: a database that listens needs two, and the launcher one.")));
	told = true;
}

/* See to it that there is a listener if there is to be one; when to look again. */
TimestampTz
worker_tend_listener(void)
{
	TimestampTz now = GetCurrentTimestamp();
	WorkerSlot *slot;
	pid_t		pid;
	bool		present;

	if (worker_shared == NULL)
		return DT_NOEND;
	if (handle && GetBackgroundWorkerPid(handle, &pid) == BGWH_STOPPED)
	{
		pfree(handle);
		handle = NULL;
		/* one that cannot listen where it is to is not to try without a pause */
		pause_ms = now - started > LONGEST_PAUSE_MS * INT64CONST(1000) ? 0 : Min(Max(pause_ms * 2, FIRST_PAUSE_MS), LONGEST_PAUSE_MS);
		not_before = now + pause_ms * INT64CONST(1000);
	}
	if (handle || guc_listen[0] == '\0')
		return DT_NOEND;
	LWLockAcquire(worker_shared->lock, LW_SHARED);
	slot = worker_slot(MyDatabaseId, false);
	present = slot == NULL || slot->listener != 0;
	LWLockRelease(worker_shared->lock);
	if (present)
		return DT_NOEND;
	if (not_before > now)
		return not_before;
	start_listener();
	return handle ? DT_NOEND : not_before;
}

/* ---- the listener ---- */

static Oid	listener_database = InvalidOid;

/* Take the listener's place in a database's slot; false if it is taken, or not to be. */
bool
worker_listener_here(Oid database)
{
	WorkerSlot *slot;
	bool		ours;

	if (worker_shared == NULL)
		return false;
	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	slot = worker_slot(database, false);
	/* without its worker nobody would end it */
	ours = slot && slot->listener == 0 && slot->held == 0 && slot->pid != 0;
	if (ours)
		slot->listener = MyProcPid;
	LWLockRelease(worker_shared->lock);
	if (ours)
		listener_database = database;
	return ours;
}

void
worker_listener_gone(void)
{
	WorkerSlot *slot;

	if (!OidIsValid(listener_database))
		return;
	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	slot = worker_slot(listener_database, false);
	if (slot && slot->listener == MyProcPid)
	{
		slot->listener = 0;
		if (slot->proc)
			SetLatch(&slot->proc->procLatch);
	}
	LWLockRelease(worker_shared->lock);
}
