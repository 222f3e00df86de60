/*
 * worker_launcher.c
 *		Finds the databases that have the extension, and keeps a worker in each.
 *
 * Only a connection shows whether a database has the extension.  So at start
 * each is probed, one at a time, by starting its worker, which goes when there
 * is nothing for it; afterwards the install script's commit, or any commit that
 * brings work, asks for one.  A worker that died is started again after a pause
 * that doubles up to a minute.
 */
#include "postgres.h"

#include "access/genam.h"
#include "access/heapam.h"
#include "access/htup_details.h"
#include "access/table.h"
#include "access/tableam.h"
#include "access/xact.h"
#include "catalog/pg_database.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "postmaster/bgworker.h"
#include "postmaster/interrupt.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "utils/guc.h"
#include "utils/snapmgr.h"
#include "utils/timestamp.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "guc.h"
#include "stats/stats.h"
#include "worker/worker.h"

#define SCAN_INTERVAL_MS	60000	/* a database that was created or dropped */
#define FIRST_PAUSE_MS		1000
#define LONGEST_PAUSE_MS	60000

/* What the launcher alone knows of the slots. */
static struct
{
	Oid			database;
	BackgroundWorkerHandle *handle;
	TimestampTz started;
	int			pause;			/* before the next start, ms */
	TimestampTz not_before;
}			known[WORKER_MAX_DATABASES];

static void
launcher_exit(int code, Datum arg)
{
	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	worker_shared->launcher = NULL;
	LWLockRelease(worker_shared->lock);
}

/* Make a slot for each database that can be connected to, and free the others'. */
static void
scan_databases(void)
{
	static bool full = false;
	Relation	rel;
	TableScanDesc scan;
	HeapTuple	tuple;
	bool		present[WORKER_MAX_DATABASES] = {false};

	List	   *counted;
	ListCell   *cell;

	StartTransactionCommand();
	(void) GetTransactionSnapshot();
	counted = stats_databases();
	rel = table_open(DatabaseRelationId, AccessShareLock);
	scan = table_beginscan_catalog(rel, 0, NULL);
	while (HeapTupleIsValid(tuple = heap_getnext(scan, ForwardScanDirection)))
	{
		Form_pg_database db = (Form_pg_database) GETSTRUCT(tuple);
		WorkerSlot *slot;

		counted = list_delete_oid(counted, db->oid);
		if (!db->datallowconn || db->datistemplate)
			continue;
		LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
		slot = worker_slot(db->oid, true);
		if (slot && slot->state == WS_FREE)
			slot->state = WS_WANTED;
		if (slot)
			present[slot - worker_shared->slots] = true;
		LWLockRelease(worker_shared->lock);
		if (slot == NULL && !full)
		{
			full = true;
			ereport(WARNING,
					(errmsg("contactsync serves no more than %d databases", WORKER_MAX_DATABASES),
					 errhint("Databases beyond that need process() to be called in them.")));
		}
	}
	table_endscan(scan);
	table_close(rel, AccessShareLock);
	foreach(cell, counted)
		stats_forget_database(lfirst_oid(cell));
	CommitTransactionCommand();

	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	for (int i = 0; i < WORKER_MAX_DATABASES; i++)
	{
		WorkerSlot *slot = &worker_shared->slots[i];

		if (!present[i] && slot->database != InvalidOid && slot->pid == 0 && slot->listener == 0 && slot->held == 0 &&
			slot->state != WS_STARTED)
			memset(slot, 0, sizeof(*slot));
	}
	LWLockRelease(worker_shared->lock);
}

static bool
start_worker(int i, Oid database)
{
	BackgroundWorker worker;

	worker_describe(&worker, database);
	worker.bgw_notify_pid = MyProcPid;
	return RegisterDynamicBackgroundWorker(&worker, &known[i].handle);
}

/* Look at each slot; returns the milliseconds until one must be looked at again. */
static long
tend_workers(void)
{
	static bool told = false;
	TimestampTz now = GetCurrentTimestamp();
	long		next = SCAN_INTERVAL_MS;
	bool		probing = false;

	for (int i = 0; i < WORKER_MAX_DATABASES; i++)
	{
		WorkerSlot *slot = &worker_shared->slots[i];
		pid_t		pid;
		Oid			start = InvalidOid;

		LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
		if (known[i].database != slot->database)
		{
			memset(&known[i], 0, sizeof(known[i]));
			known[i].database = slot->database;
		}
		if (slot->state == WS_STARTED && slot->pid == 0 &&
			(known[i].handle == NULL || GetBackgroundWorkerPid(known[i].handle, &pid) == BGWH_STOPPED))
		{
			/* it neither said that it has nothing to do here nor was told to go */
			slot->state = WS_FAILED;
			if (now - known[i].started > LONGEST_PAUSE_MS * INT64CONST(1000))
				known[i].pause = 0;
			known[i].pause = known[i].pause ? Min(known[i].pause * 2, LONGEST_PAUSE_MS) : FIRST_PAUSE_MS;
			known[i].not_before = now + known[i].pause * INT64CONST(1000);
			if (known[i].handle)
				pfree(known[i].handle);
			known[i].handle = NULL;
		}
		if (slot->state == WS_STARTED && slot->pid == 0)
			probing = true;
		if (slot->held == 0 && guc_enabled &&
			(slot->state == WS_WANTED || (slot->state == WS_FAILED && known[i].not_before <= now)))
		{
			if (probing)
				next = Min(next, 100);
			else
				start = slot->database;
		}
		else if (slot->state == WS_FAILED && slot->held == 0)
			next = Min(next, (long) ((known[i].not_before - now) / 1000) + 1);
		if (OidIsValid(start))
			slot->state = WS_STARTED;
		LWLockRelease(worker_shared->lock);

		if (!OidIsValid(start))
			continue;
		known[i].started = now;
		if (start_worker(i, start))
		{
			probing = true;
			continue;
		}
		LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
		slot->state = WS_WANTED;
		slot->refused = true;
		LWLockRelease(worker_shared->lock);
		next = Min(next, 5000);
		if (!told)
		{
			told = true;
			ereport(WARNING,
					(errmsg("contactsync could not start a worker"),
					 errhint("Raise max_worker_processes: one is needed for the launcher and one for each database with the extension.")));
		}
	}
	return next;
}

void
worker_launcher_main(Datum arg)
{
	TimestampTz scanned = 0;

	pqsignal(SIGHUP, SignalHandlerForConfigReload);
	pqsignal(SIGTERM, SignalHandlerForShutdownRequest);
	BackgroundWorkerUnblockSignals();
	BackgroundWorkerInitializeConnection(NULL, NULL, 0);

	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	worker_shared->launcher = MyProc;
	/* workers of a launcher that died are not ours to watch: they go by themselves */
	for (int i = 0; i < WORKER_MAX_DATABASES; i++)
		if (worker_shared->slots[i].state == WS_STARTED && worker_shared->slots[i].pid == 0)
			worker_shared->slots[i].state = WS_WANTED;
	LWLockRelease(worker_shared->lock);
	before_shmem_exit(launcher_exit, (Datum) 0);

	while (!ShutdownRequestPending)
	{
		long		wait;

		CHECK_FOR_INTERRUPTS();
		if (ConfigReloadPending)
		{
			ConfigReloadPending = false;
			ProcessConfigFile(PGC_SIGHUP);
		}
		if (TimestampDifferenceExceeds(scanned, GetCurrentTimestamp(), SCAN_INTERVAL_MS))
		{
			scan_databases();
			scanned = GetCurrentTimestamp();
		}
		wait = tend_workers();
		wait = Min(wait, stats_save_if_due());
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, wait, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
	}
	proc_exit(1);
}
