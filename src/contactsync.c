/*
 * contactsync.c
 *		Entry point of the library: settings, hooks, and, where the library is
 *		preloaded, shared memory and the launcher.
 */
#include "postgres.h"

#include "fmgr.h"
#include "miscadmin.h"

#include "compat.h"
#include "contactsync.h"
#include "guc.h"
#include "stats/stats.h"
#include "store/guard.h"
#include "worker/worker.h"

PG_MODULE_MAGIC;

void
_PG_init(void)
{
	guc_init();
	guard_init();
	stats_init();
	worker_init();
}
