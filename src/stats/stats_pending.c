/*
 * stats_pending.c
 *		What a transaction counts, until it commits.
 *
 * A list of blocks, one for each source and level of subtransactions.  What a
 * subtransaction counted goes to its parent when it commits, and is dropped when
 * it is rolled back.  All of it lives as long as the transaction.
 */
#include "postgres.h"

#include "access/xact.h"
#include "miscadmin.h"
#include "utils/memutils.h"

#include "compat.h"
#include "stats/stats_shared.h"
#include "store/guard.h"

struct StatsPending
{
	StatsPending *next;
	int			level;
	bool		forget;			/* at commit, the entry of this source is forgotten first */
	StatsKey	key;
	StatsNumbers numbers;
};

/* To be forgotten at commit, besides single sources. */
typedef struct Forgotten
{
	struct Forgotten *next;
	int			level;
	char	   *tenant;			/* NULL = the database */
} Forgotten;

static StatsPending *pendings = NULL;	/* the deepest level first */
static Forgotten *forgotten = NULL;

static StatsPending *
find_pending(const StatsKey *key)
{
	int			level = GetCurrentTransactionNestLevel();
	StatsPending *p;

	for (p = pendings; p && p->level == level; p = p->next)
		if (memcmp(&p->key, key, sizeof(*key)) == 0)
			return p;
	p = MemoryContextAllocZero(TopTransactionContext, sizeof(StatsPending));
	p->level = level;
	p->key = *key;
	p->next = pendings;
	pendings = p;
	return p;
}

StatsPending *
stats_of(const char *source, int len)
{
	StatsKey	key;

	if (stats_shared == NULL || !IsTransactionState())
		return NULL;
	stats_set_key(&key, MyDatabaseId, guard_current_tenant(), source, len);
	return find_pending(&key);
}

StatsPending *
stats_of_tenant(void)
{
	return stats_of("", 0);
}

void
stats_add(StatsPending *p, StatsCounter counter, int64 n)
{
	if (p)
		p->numbers.counters[counter] += n;
}

void
stats_time(StatsPending *p, StatsHistogram histogram, int64 us)
{
	if (p == NULL)
		return;
	us = Max(us, 0);
	p->numbers.buckets[histogram][stats_bucket(us)]++;
	p->numbers.sums[histogram] += us;
}

void
stats_forget_source(const char *source)
{
	StatsPending *p = stats_of(source, strlen(source));

	if (p == NULL)
		return;
	/* with what this transaction has counted so far */
	memset(&p->numbers, 0, sizeof(p->numbers));
	p->forget = true;
}

static void
forget_at_commit(const char *tenant)
{
	Forgotten  *f;

	if (stats_shared == NULL)
		return;
	f = MemoryContextAllocZero(TopTransactionContext, sizeof(Forgotten));
	f->level = GetCurrentTransactionNestLevel();
	f->tenant = tenant ? MemoryContextStrdup(TopTransactionContext, tenant) : NULL;
	f->next = forgotten;
	forgotten = f;
}

void
stats_forget_tenant(const char *tenant)
{
	forget_at_commit(tenant);
}

void
stats_forget_database_at_commit(void)
{
	forget_at_commit(NULL);
}

static bool
is_forgotten(const StatsPending *p)
{
	for (Forgotten *f = forgotten; f; f = f->next)
	{
		StatsKey	key;

		if (f->tenant == NULL)
			return true;
		stats_set_key(&key, MyDatabaseId, f->tenant, "", 0);
		if (memcmp(key.tenant, p->key.tenant, STATS_NAMELEN) == 0)
			return true;
	}
	return false;
}

/* The transaction has committed: nothing here may throw. */
static void
flush(void)
{
	for (Forgotten *f = forgotten; f; f = f->next)
		stats_drop(MyDatabaseId, f->tenant, NULL, 0);
	for (StatsPending *p = pendings; p; p = p->next)
	{
		const uint64 *numbers = (const uint64 *) &p->numbers;
		bool		any = false;

		if (p->forget)
			stats_drop(MyDatabaseId, p->key.tenant, p->key.source, 0);
		for (int i = 0; i < STATS_NNUMBERS && !any; i++)
			any = numbers[i] != 0;
		if (any && !is_forgotten(p))
			stats_add_numbers(&p->key, numbers);
	}
}

static void
xact_callback(XactEvent event, void *arg)
{
	switch (event)
	{
		case XACT_EVENT_COMMIT:
			if (pendings || forgotten)
				flush();
			pendings = NULL;
			forgotten = NULL;
			break;
		case XACT_EVENT_ABORT:
		case XACT_EVENT_PREPARE:
		case XACT_EVENT_PARALLEL_COMMIT:
		case XACT_EVENT_PARALLEL_ABORT:
			pendings = NULL;
			forgotten = NULL;
			break;
		default:
			break;
	}
}

/* Give what a subtransaction counted to its parent. */
static void
merge_level(int level)
{
	StatsPending *merged = NULL;
	StatsPending *p;

	while (pendings && pendings->level == level)
	{
		p = pendings;
		pendings = p->next;
		p->next = merged;
		merged = p;
	}
	while ((p = merged) != NULL)
	{
		StatsPending *parent;
		const uint64 *from = (const uint64 *) &p->numbers;
		uint64	   *to;

		merged = p->next;
		for (parent = pendings; parent && parent->level == level - 1; parent = parent->next)
			if (memcmp(&parent->key, &p->key, sizeof(StatsKey)) == 0)
				break;
		if (parent == NULL || parent->level != level - 1)
		{
			p->level = level - 1;
			p->next = pendings;
			pendings = p;
			continue;
		}
		to = (uint64 *) &parent->numbers;
		if (p->forget)
			memset(&parent->numbers, 0, sizeof(parent->numbers));
		parent->forget |= p->forget;
		for (int i = 0; i < STATS_NNUMBERS; i++)
			to[i] += from[i];
		pfree(p);
	}
	for (Forgotten *f = forgotten; f && f->level == level; f = f->next)
		f->level--;
}

static void
subxact_callback(SubXactEvent event, SubTransactionId mine, SubTransactionId parent, void *arg)
{
	int			level = GetCurrentTransactionNestLevel();

	if (event == SUBXACT_EVENT_COMMIT_SUB)
		merge_level(level);
	else if (event == SUBXACT_EVENT_ABORT_SUB)
	{
		while (pendings && pendings->level >= level)
		{
			StatsPending *p = pendings;

			pendings = p->next;
			pfree(p);
		}
		while (forgotten && forgotten->level >= level)
			forgotten = forgotten->next;
	}
}

void
stats_pending_init(void)
{
	RegisterXactCallback(xact_callback, NULL);
	RegisterSubXactCallback(subxact_callback, NULL);
}
