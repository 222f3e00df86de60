/*
 * stats_shmem.c
 *		The shared memory: a hash table of entries that has a fixed size, and one
 *		entry for the rest.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "storage/ipc.h"
#include "storage/shmem.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "stats/stats_shared.h"

StatsShared *stats_shared = NULL;
HTAB	   *stats_entries = NULL;

static shmem_request_hook_type next_shmem_request = NULL;
static shmem_startup_hook_type next_shmem_startup = NULL;

static void
save_at_exit(int code, Datum arg)
{
	/* what an error left behind may be half of something */
	if (code == 0)
		stats_save();
}

static void
shmem_request(void)
{
	if (next_shmem_request)
		next_shmem_request();
	RequestAddinShmemSpace(MAXALIGN(sizeof(StatsShared)));
	RequestAddinShmemSpace(hash_estimate_size(guc_max_counted_sources, sizeof(StatsEntry)));
	RequestNamedLWLockTranche("contactsync counters", 1);
}

static void
init_numbers(StatsEntry *entry, TimestampTz since)
{
	entry->since = since;
	entry->limited_at = 0;
	for (int i = 0; i < STATS_NNUMBERS; i++)
		pg_atomic_init_u64(&entry->numbers[i], 0);
}

static void
shmem_startup(void)
{
	bool		found;
	HASHCTL		info = {0};

	if (next_shmem_startup)
		next_shmem_startup();
	LWLockAcquire(AddinShmemInitLock, LW_EXCLUSIVE);
	stats_shared = ShmemInitStruct("contactsync counters", sizeof(StatsShared), &found);
	if (!found)
	{
		memset(stats_shared, 0, sizeof(StatsShared));
		stats_shared->lock = &GetNamedLWLockTranche("contactsync counters")->lock;
		pg_atomic_init_u64(&stats_shared->changes, 0);
		init_numbers(&stats_shared->rest, GetCurrentTimestamp());
	}
	info.keysize = sizeof(StatsKey);
	info.entrysize = sizeof(StatsEntry);
	stats_entries = ShmemInitHash("contactsync counter entries", guc_max_counted_sources, guc_max_counted_sources,
								  &info, HASH_ELEM | HASH_BLOBS);
	LWLockRelease(AddinShmemInitLock);

	/* in the postmaster: once, at the start and after a crash */
	if (!IsUnderPostmaster)
		on_shmem_exit(save_at_exit, (Datum) 0);
	if (!found)
		stats_load();
}

void
stats_init(void)
{
	stats_pending_init();
	if (!process_shared_preload_libraries_in_progress)
		return;
	next_shmem_request = shmem_request_hook;
	shmem_request_hook = shmem_request;
	next_shmem_startup = shmem_startup_hook;
	shmem_startup_hook = shmem_startup;
}

/* A name that has no room is cut, and told from others by a hash of all of it. */
void
stats_set_name(char *to, const char *name, int len)
{
	memset(to, 0, STATS_NAMELEN);
	if (len < STATS_NAMELEN)
		memcpy(to, name, len);
	else
	{
		int			kept = pg_mbcliplen(name, len, STATS_NAMELEN - 18);

		memcpy(to, name, kept);
		snprintf(to + kept, STATS_NAMELEN - kept, "~%016llx",
				 (unsigned long long) hash_bytes_extended((const unsigned char *) name, len, 0));
	}
}

void
stats_set_key(StatsKey *key, Oid database, const char *tenant, const char *source, int len)
{
	memset(key, 0, sizeof(*key));
	key->database = database;
	stats_set_name(key->tenant, tenant, strlen(tenant));
	stats_set_name(key->source, source, len);
}

StatsEntry *
stats_make_entry(const StatsKey *key, TimestampTz since)
{
	StatsEntry *entry;
	bool		found = false;

	entry = hash_search(stats_entries, key, HASH_FIND, NULL);
	if (entry)
		return entry;
	/* the table could take more, from what others have left of the shared memory */
	if (hash_get_num_entries(stats_entries) < guc_max_counted_sources)
		entry = hash_search(stats_entries, key, HASH_ENTER_NULL, &found);
	if (entry == NULL)
	{
		stats_shared->full = true;
		return &stats_shared->rest;
	}
	init_numbers(entry, since);
	return entry;
}

/* Take the lock so that an entry can be added to, whether there was one or not. */
static StatsEntry *
lock_entry(const StatsKey *key)
{
	StatsEntry *entry;

	LWLockAcquire(stats_shared->lock, LW_SHARED);
	entry = hash_search(stats_entries, key, HASH_FIND, NULL);
	if (entry == NULL && stats_shared->full &&
		hash_get_num_entries(stats_entries) >= guc_max_counted_sources)
		entry = &stats_shared->rest;
	if (entry == NULL)
	{
		LWLockRelease(stats_shared->lock);
		LWLockAcquire(stats_shared->lock, LW_EXCLUSIVE);
		entry = stats_make_entry(key, GetCurrentTimestamp());
	}
	return entry;
}

static void
unlock_entry(void)
{
	bool		say = stats_shared->full && !stats_shared->said;

	/* two may say it */
	if (say)
		stats_shared->said = true;
	pg_atomic_fetch_add_u64(&stats_shared->changes, 1);
	LWLockRelease(stats_shared->lock);
	if (say)
		ereport(LOG,
				(errmsg("contactsync counts no more than %d sources one by one", guc_max_counted_sources),
				 errhint("Raise contactsync.max_counted_sources; what comes beyond it is counted together.")));
}

void
stats_add_numbers(const StatsKey *key, const uint64 *numbers)
{
	StatsEntry *entry = lock_entry(key);

	for (int i = 0; i < STATS_NNUMBERS; i++)
		if (numbers[i] != 0)
			pg_atomic_fetch_add_u64(&entry->numbers[i], numbers[i]);
	unlock_entry();
}

/* Where in numbers they are. */
#define COUNTER_AT(counter_)	(offsetof(StatsNumbers, counters) / sizeof(uint64) + (counter_))
#define BUCKET_AT(histogram_, us_) \
	(offsetof(StatsNumbers, buckets) / sizeof(uint64) + (histogram_) * STATS_NBUCKETS + stats_bucket(us_))
#define SUM_AT(histogram_)		(offsetof(StatsNumbers, sums) / sizeof(uint64) + (histogram_))

void
stats_add_now(const char *tenant, const char *source, StatsCounter counter, int64 n)
{
	StatsKey	key;

	if (stats_shared == NULL)
		return;
	stats_set_key(&key, MyDatabaseId, tenant, source, strlen(source));
	pg_atomic_fetch_add_u64(&lock_entry(&key)->numbers[COUNTER_AT(counter)], n);
	unlock_entry();
}

void
stats_answer_now(const char *tenant, const char *source, StatsCounter class, StatsCounter response, int64 bytes, int64 us)
{
	StatsKey	key;
	StatsEntry *entry;

	if (stats_shared == NULL)
		return;
	stats_set_key(&key, MyDatabaseId, tenant, source, strlen(source));
	entry = lock_entry(&key);
	pg_atomic_fetch_add_u64(&entry->numbers[COUNTER_AT(class)], 1);
	pg_atomic_fetch_add_u64(&entry->numbers[COUNTER_AT(response)], 1);
	pg_atomic_fetch_add_u64(&entry->numbers[COUNTER_AT(SC_RECEIVED_BYTES)], bytes);
	if (us >= 0)
	{
		pg_atomic_fetch_add_u64(&entry->numbers[BUCKET_AT(SH_REQUEST, us)], 1);
		pg_atomic_fetch_add_u64(&entry->numbers[SUM_AT(SH_REQUEST)], us);
	}
	unlock_entry();
}

void
stats_note_limit(const char *tenant, const char *source)
{
	StatsKey	key;

	if (stats_shared == NULL)
		return;
	stats_set_key(&key, MyDatabaseId, tenant, source, strlen(source));
	/* it is the one worker's to set */
	lock_entry(&key)->limited_at = GetCurrentTimestamp();
	unlock_entry();
}

void
stats_drop(Oid database, const char *tenant, const char *source, TimestampTz reset)
{
	HASH_SEQ_STATUS status;
	StatsEntry *entry;
	StatsKey	key;

	if (stats_shared == NULL)
		return;
	stats_set_key(&key, database, tenant ? tenant : "", source ? source : "", source ? strlen(source) : 0);
	LWLockAcquire(stats_shared->lock, LW_EXCLUSIVE);
	hash_seq_init(&status, stats_entries);
	while ((entry = hash_seq_search(&status)) != NULL)
	{
		if (entry->key.database != database ||
			(tenant && memcmp(entry->key.tenant, key.tenant, STATS_NAMELEN) != 0) ||
			(source && memcmp(entry->key.source, key.source, STATS_NAMELEN) != 0))
			continue;
		if (reset != 0)
			init_numbers(entry, reset);
		else
			(void) hash_search(stats_entries, &entry->key, HASH_REMOVE, NULL);
	}
	pg_atomic_fetch_add_u64(&stats_shared->changes, 1);
	LWLockRelease(stats_shared->lock);
}

void
stats_forget_database(Oid database)
{
	stats_drop(database, NULL, NULL, 0);
}

List *
stats_databases(void)
{
	HASH_SEQ_STATUS status;
	StatsEntry *entry;
	List	   *result = NIL;

	LWLockAcquire(stats_shared->lock, LW_SHARED);
	hash_seq_init(&status, stats_entries);
	while ((entry = hash_seq_search(&status)) != NULL)
		result = list_append_unique_oid(result, entry->key.database);
	LWLockRelease(stats_shared->lock);
	return result;
}
