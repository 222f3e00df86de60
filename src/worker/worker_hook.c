/*
 * worker_hook.c
 *		Make way for commands that need a database to themselves.
 *
 * DROP DATABASE, ALTER DATABASE ... RENAME or SET TABLESPACE, and CREATE
 * DATABASE ... TEMPLATE fail while anybody is connected.  Before such a command
 * the database's worker is told to go, and the launcher does not start it again
 * until the command is over.
 */
#include "postgres.h"

#include <signal.h>

#include "access/htup_details.h"
#include "catalog/pg_authid.h"
#include "catalog/pg_database.h"
#include "commands/dbcommands.h"
#include "commands/defrem.h"
#include "commands/extension.h"
#include "miscadmin.h"
#include "nodes/parsenodes.h"
#include "storage/ipc.h"
#include "storage/latch.h"
#include "tcop/utility.h"
#include "utils/acl.h"
#include "utils/syscache.h"
#include "utils/wait_event.h"

#include "compat.h"
#include "stats/stats.h"
#include "worker/worker.h"

#define HOLD_TIMEOUT_MS		5000

static ProcessUtility_hook_type next_utility = NULL;

/* have_createdb_privilege() is not exported by all minor releases of 15. */
static bool
may_create_databases(void)
{
	HeapTuple	tuple = SearchSysCache1(AUTHOID, ObjectIdGetDatum(GetUserId()));
	bool		result = superuser();

	if (HeapTupleIsValid(tuple))
	{
		result |= ((Form_pg_authid) GETSTRUCT(tuple))->rolcreatedb;
		ReleaseSysCache(tuple);
	}
	return result;
}

/* Has the user the rights that the command will ask for? */
static bool
may_have(Node *parsetree, Oid database)
{
	if (object_ownercheck(DatabaseRelationId, database, GetUserId()))
		return true;
	/* a template is everybody's to copy who may make databases */
	return IsA(parsetree, CreatedbStmt) && may_create_databases() &&
		database == get_database_oid("template1", true);
}

/* The database that a command must have to itself; InvalidOid if none. */
static Oid
wanted_database(Node *parsetree)
{
	const char *name = NULL;
	Oid			database = InvalidOid;

	switch (nodeTag(parsetree))
	{
		case T_DropdbStmt:
			name = ((DropdbStmt *) parsetree)->dbname;
			break;
		case T_RenameStmt:
			if (((RenameStmt *) parsetree)->renameType == OBJECT_DATABASE)
				name = ((RenameStmt *) parsetree)->subname;
			break;
		case T_AlterDatabaseStmt:
			{
				AlterDatabaseStmt *stmt = (AlterDatabaseStmt *) parsetree;
				ListCell   *cell;

				foreach(cell, stmt->options)
					if (strcmp(((DefElem *) lfirst(cell))->defname, "tablespace") == 0)
						name = stmt->dbname;
				break;
			}
		case T_CreatedbStmt:
			{
				ListCell   *cell;

				name = "template1";
				foreach(cell, ((CreatedbStmt *) parsetree)->options)
				{
					DefElem    *option = lfirst(cell);

					if (strcmp(option->defname, "template") == 0 && option->arg)
						name = defGetString(option);
				}
				break;
			}
		default:
			break;
	}
	if (name)
		database = get_database_oid(name, true);
	/* whoever may not run the command is not to disturb anybody by trying */
	if (OidIsValid(database) && !may_have(parsetree, database))
		database = InvalidOid;
	return database;
}

/* Keep the database's worker away, and wait until it has gone. */
static bool
hold(Oid database)
{
	bool		held = false;
	pid_t		pid = 0;
	pid_t		listener = 0;

	for (int waited = 0; waited < HOLD_TIMEOUT_MS; waited += 10)
	{
		WorkerSlot *slot;
		bool		starting;

		LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
		slot = worker_slot(database, true);
		if (slot && !held)
			slot->held++;
		held |= slot != NULL;
		pid = slot ? slot->pid : 0;
		listener = slot ? slot->listener : 0;
		starting = slot && slot->state == WS_STARTED && pid == 0;
		LWLockRelease(worker_shared->lock);

		if (pid == 0 && listener == 0 && !starting)
			return held;
		if (pid != 0 && waited % 1000 == 0)
			(void) kill(pid, SIGTERM);
		if (listener != 0 && waited % 1000 == 0)
			(void) kill(listener, SIGTERM);
		(void) WaitLatch(MyLatch, WL_LATCH_SET | WL_TIMEOUT | WL_EXIT_ON_PM_DEATH, 10, PG_WAIT_EXTENSION);
		ResetLatch(MyLatch);
		/* not CHECK_FOR_INTERRUPTS: the hold would stay; five seconds end it */
	}
	return held;
}

static void
release(Oid database, bool dropped)
{
	WorkerSlot *slot;

	LWLockAcquire(worker_shared->lock, LW_EXCLUSIVE);
	slot = worker_slot(database, false);
	if (slot)
	{
		slot->held--;
		if (dropped)
			memset(slot, 0, sizeof(*slot));
		else if (slot->pid == 0 && (slot->state == WS_STARTED || slot->state == WS_FAILED))
			slot->state = WS_WANTED;
		worker_wake_launcher();
	}
	LWLockRelease(worker_shared->lock);
}

static void
release_at_exit(int code, Datum database)
{
	release(DatumGetObjectId(database), false);
}

static void
run_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree, ProcessUtilityContext context,
			ParamListInfo params, QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	if (next_utility)
		next_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
	else
		standard_ProcessUtility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
}

static void
process_utility(PlannedStmt *pstmt, const char *queryString, bool readOnlyTree, ProcessUtilityContext context,
				ParamListInfo params, QueryEnvironment *queryEnv, DestReceiver *dest, QueryCompletion *qc)
{
	Oid			database = worker_shared ? wanted_database(pstmt->utilityStmt) : InvalidOid;
	volatile bool done = false;

	if (!OidIsValid(database))
	{
		run_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
		/* it may be ours that brought work; the commit callback does not come */
		if (worker_shared && IsA(pstmt->utilityStmt, TransactionStmt) &&
			((TransactionStmt *) pstmt->utilityStmt)->kind == TRANS_STMT_COMMIT_PREPARED)
			worker_wake_now();
		/* the worker is to see that its extension is gone */
		if (IsA(pstmt->utilityStmt, DropStmt) &&
			((DropStmt *) pstmt->utilityStmt)->removeType == OBJECT_EXTENSION)
		{
			worker_wake();
			if (!OidIsValid(get_extension_oid("contactsync", true)))
				stats_forget_database_at_commit();
		}
		return;
	}
	if (!hold(database))
	{
		run_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
		return;
	}
	/* a backend that is terminated does not pass PG_FINALLY */
	PG_ENSURE_ERROR_CLEANUP(release_at_exit, ObjectIdGetDatum(database));
	{
		run_utility(pstmt, queryString, readOnlyTree, context, params, queryEnv, dest, qc);
		done = true;
	}
	PG_END_ENSURE_ERROR_CLEANUP(release_at_exit, ObjectIdGetDatum(database));
	if (done && IsA(pstmt->utilityStmt, DropdbStmt))
		stats_forget_database(database);
	release(database, done && IsA(pstmt->utilityStmt, DropdbStmt));
}

void
worker_hook_init(void)
{
	next_utility = ProcessUtility_hook;
	ProcessUtility_hook = process_utility;
}
