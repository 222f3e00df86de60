/*
 * store_parallel.c
 *		A comparison of all contacts, with the help of parallel workers.
 *
 * The contacts are cut into parts of about equal size, by id, which are handed
 * out by a counter in shared memory.  Workers are inside the guard as their leader is, read under its
 * snapshot, and send what they find through a queue each; the leader works on
 * parts of its own, and empties the queues between batches.
 */
#include "postgres.h"

#include "access/parallel.h"
#include "access/table.h"
#include "access/xact.h"
#include "catalog/namespace.h"
#include "catalog/pg_type.h"
#include "executor/spi.h"
#include "miscadmin.h"
#include "optimizer/optimizer.h"
#include "optimizer/paths.h"
#include "port/atomics.h"
#include "storage/proc.h"
#include "storage/bufmgr.h"
#include "storage/shm_mq.h"
#include "utils/lsyscache.h"
#include "utils/rel.h"

#include "compat.h"
#include "contactsync.h"
#include "store/guard.h"
#include "store/store_verify.h"

#define KEY_SHARED		UINT64CONST(0xC0DE000000000001)
#define KEY_TENANT		UINT64CONST(0xC0DE000000000002)
#define KEY_POLICY		UINT64CONST(0xC0DE000000000003)
#define KEY_QUEUES		UINT64CONST(0xC0DE000000000004)
#define QUEUE_SIZE		65536
#define MAX_PARTS		64

typedef struct Shared
{
	pg_atomic_uint32 next;		/* part to be taken next */
	Oid			caller;
	bool		has_policy;
	bool		own_policy;
	int			nparts;
	pg_uuid_t	bounds[MAX_PARTS + 1];	/* of part i: after the i-th, up to the next */
} Shared;

/* A difference on its way through a queue: this, and the texts with their ends. */
typedef struct Message
{
	StoreDifferenceKind kind;
	pg_uuid_t	contact;
	int64		record;
	int			length[3];		/* of field, stored, computed; -1 = NULL */
} Message;

typedef struct Leader
{
	StoreComparison *comparison;	/* what the caller asked for */
	int			nqueues;
	shm_mq_handle **queues;		/* NULL = at its end */
} Leader;

extern PGDLLEXPORT void store_parallel_worker(dsm_segment *seg, shm_toc *toc);

static void
compare_parts(StoreComparison *c, Shared *shared)
{
	int			part;

	while ((part = pg_atomic_fetch_add_u32(&shared->next, 1)) <= shared->nparts)
	{
		if (part < shared->nparts)
			store_compare_range(c, &shared->bounds[part], &shared->bounds[part + 1]);
		else if (c->policy == NULL)
			store_compare_unlinked(c);
	}
}

/* Cut the contacts into parts. */
static void
cut_parts(Shared *shared)
{
	StoreArray	nparts;
	uint64		n;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	store_array_init(&nparts, INT4OID);
	store_array_add(&nparts, Int32GetDatum(MAX_PARTS), false);
	n = store_run("SELECT pg_catalog.max(c.id::pg_catalog.text)::pg_catalog.uuid FROM (SELECT t.id, "
				  "pg_catalog.ntile(($1)[1]) OVER (ORDER BY t.id) AS part FROM contactsync.contacts t "
				  "WHERE t.tenant_id = contactsync.current_tenant()) c GROUP BY c.part ORDER BY c.part",
				  1, (StoreArray *[]) {&nparts});
	memset(&shared->bounds[0], 0, sizeof(pg_uuid_t));
	for (uint64 i = 0; i < n; i++)
	{
		bool		isnull;

		shared->bounds[i + 1] = *DatumGetUUIDP(store_value(i, 1, &isnull));
	}
	shared->nparts = Max(n, 1);
	/* beyond the last contact may be records that say they belong to one */
	memset(&shared->bounds[shared->nparts], 0xFF, sizeof(pg_uuid_t));
	SPI_finish();
}

/* ---- worker ---- */

static void
send_difference(const StoreDifference *d, void *arg)
{
	const char *texts[3] = {d->field, d->stored, d->computed};
	Message		m;
	shm_mq_iovec iov[4];
	int			n = 1;

	m.kind = d->kind;
	m.contact = d->contact;
	m.record = d->record;
	iov[0].data = (char *) &m;
	iov[0].len = sizeof(m);
	for (int i = 0; i < 3; i++)
	{
		m.length[i] = texts[i] ? strlen(texts[i]) : -1;
		if (texts[i] == NULL)
			continue;
		iov[n].data = texts[i];
		iov[n++].len = m.length[i] + 1;
	}
	/* a leader that is gone has ended this process, too, or will */
	(void) shm_mq_sendv(arg, iov, n, false, false);
}

void
store_parallel_worker(dsm_segment *seg, shm_toc *toc)
{
	Shared	   *shared = shm_toc_lookup(toc, KEY_SHARED, false);
	StoreComparison c = {0};
	shm_mq	   *queue = (shm_mq *) ((char *) shm_toc_lookup(toc, KEY_QUEUES, false) + ParallelWorkerNumber * QUEUE_SIZE);
	shm_mq_handle *handle;

	guard_join(shm_toc_lookup(toc, KEY_TENANT, false), shared->caller);
	shm_mq_set_sender(queue, MyProc);
	handle = shm_mq_attach(queue, seg, NULL);
	c.policy = shared->has_policy ? shm_toc_lookup(toc, KEY_POLICY, false) : NULL;
	c.own_policy = shared->own_policy;
	c.report = send_difference;
	c.arg = handle;
	c.context = CurrentMemoryContext;
	(void) store_set_read_only(true);
	compare_parts(&c, shared);
	shm_mq_detach(handle);
}

/* ---- leader ---- */

static void
receive_difference(StoreComparison *c, const void *data)
{
	Message		m;
	const char *text = (const char *) data + sizeof(m);
	const char *texts[3] = {NULL, NULL, NULL};
	StoreDifference d;

	memcpy(&m, data, sizeof(m));
	for (int i = 0; i < 3; i++)
	{
		if (m.length[i] < 0)
			continue;
		texts[i] = text;
		text += m.length[i] + 1;
	}
	d.kind = m.kind;
	d.contact = m.contact;
	d.record = m.record;
	d.field = texts[0];
	d.stored = texts[1];
	d.computed = texts[2];
	c->report(&d, c->arg);
}

/* Take what lies in the queues; at the end wait for what is still to come. */
static void
empty_queues(Leader *leader, bool wait)
{
	for (int i = 0; i < leader->nqueues; i++)
	{
		while (leader->queues[i])
		{
			Size		len;
			void	   *data;
			shm_mq_result result = shm_mq_receive(leader->queues[i], &len, &data, !wait);

			CHECK_FOR_INTERRUPTS();
			if (result == SHM_MQ_SUCCESS)
				receive_difference(leader->comparison, data);
			else if (result == SHM_MQ_DETACHED)
				leader->queues[i] = NULL;
			else
				break;
		}
	}
}

static void
pass_on(const StoreDifference *d, void *arg)
{
	StoreComparison *c = ((Leader *) arg)->comparison;

	c->report(d, c->arg);
}

static void
look_after_workers(void *arg)
{
	empty_queues(arg, false);
}

/* As many workers as an index build of this size would have. */
static int
workers_wanted(void)
{
	Oid			relid = get_relname_relid("records", get_namespace_oid(CONTACTSYNC_SCHEMA, false));
	Relation	rel;
	BlockNumber blocks;

	if (max_parallel_maintenance_workers == 0 || IsInParallelMode())
		return 0;
	rel = table_open(relid, AccessShareLock);
	blocks = RelationGetNumberOfBlocks(rel);
	table_close(rel, NoLock);
	return blocks < (BlockNumber) min_parallel_table_scan_size ? 0 : max_parallel_maintenance_workers;
}

static void
compare_in_parallel(StoreComparison *c, int nworkers)
{
	const char *tenant = guard_current_tenant();
	ParallelContext *pcxt;
	Leader		leader = {c, 0, NULL};
	StoreComparison own = *c;
	Shared	   *shared;
	char	   *text;
	char	   *queues;
	Shared	   *parts = palloc(sizeof(Shared));

	cut_parts(parts);
	EnterParallelMode();
	pcxt = CreateParallelContext("contactsync", "store_parallel_worker", nworkers);
	shm_toc_estimate_chunk(&pcxt->estimator, sizeof(Shared));
	shm_toc_estimate_chunk(&pcxt->estimator, strlen(tenant) + 1);
	shm_toc_estimate_chunk(&pcxt->estimator, c->policy ? strlen(c->policy) + 1 : 1);
	shm_toc_estimate_chunk(&pcxt->estimator, mul_size(QUEUE_SIZE, nworkers));
	shm_toc_estimate_keys(&pcxt->estimator, 4);
	InitializeParallelDSM(pcxt);

	shared = shm_toc_allocate(pcxt->toc, sizeof(Shared));
	memcpy(shared, parts, sizeof(Shared));
	pg_atomic_init_u32(&shared->next, 0);
	shared->caller = guard_caller();
	shared->has_policy = c->policy != NULL;
	shared->own_policy = c->own_policy;
	shm_toc_insert(pcxt->toc, KEY_SHARED, shared);
	text = shm_toc_allocate(pcxt->toc, strlen(tenant) + 1);
	strcpy(text, tenant);
	shm_toc_insert(pcxt->toc, KEY_TENANT, text);
	text = shm_toc_allocate(pcxt->toc, c->policy ? strlen(c->policy) + 1 : 1);
	strcpy(text, c->policy ? c->policy : "");
	shm_toc_insert(pcxt->toc, KEY_POLICY, text);
	queues = shm_toc_allocate(pcxt->toc, mul_size(QUEUE_SIZE, nworkers));
	shm_toc_insert(pcxt->toc, KEY_QUEUES, queues);

	leader.queues = palloc0(sizeof(shm_mq_handle *) * nworkers);
	for (int i = 0; i < pcxt->nworkers; i++)
	{
		shm_mq	   *queue = shm_mq_create(queues + i * QUEUE_SIZE, QUEUE_SIZE);

		shm_mq_set_receiver(queue, MyProc);
		leader.queues[i] = shm_mq_attach(queue, pcxt->seg, NULL);
	}
	LaunchParallelWorkers(pcxt);
	leader.nqueues = pcxt->nworkers_launched;
	for (int i = 0; i < pcxt->nworkers_launched; i++)
		shm_mq_set_handle(leader.queues[i], pcxt->worker[i].bgwhandle);

	own.report = pass_on;
	own.arg = &leader;
	own.idle = look_after_workers;
	compare_parts(&own, shared);
	empty_queues(&leader, true);
	WaitForParallelWorkersToFinish(pcxt);
	DestroyParallelContext(pcxt);
	ExitParallelMode();
}

void
store_compare(StoreComparison *c)
{
	int			nworkers = workers_wanted();
	bool		read_only = store_set_read_only(true);

	c->context = CurrentMemoryContext;
	PG_TRY();
	{
		static const pg_uuid_t nil;
		pg_uuid_t	last;

		memset(&last, 0xFF, sizeof(last));
		if (nworkers > 0)
			compare_in_parallel(c, nworkers);
		else
		{
			store_compare_range(c, &nil, &last);
			if (c->policy == NULL)
				store_compare_unlinked(c);
		}
	}
	PG_FINALLY();
	{
		(void) store_set_read_only(read_only);
	}
	PG_END_TRY();
}
