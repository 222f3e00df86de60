/*
 * stats_file.c
 *		How what was counted survives a restart.
 *
 * The launcher writes all of it to a file, now and then where something was
 * counted, and the postmaster does at its end; at the start, and after a crash,
 * it is read.  So a crash costs what was counted since the file was written.  A
 * file that is damaged, of another version, or of another data directory (it came
 * with a base backup: a standby, say) is left alone, and counting begins anew.
 */
#include "postgres.h"

#include <sys/stat.h>
#include <unistd.h>

#include "access/xlog.h"
#include "miscadmin.h"
#include "pgstat.h"
#include "port/pg_crc32c.h"
#include "storage/fd.h"
#include "storage/proc.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "guc.h"
#include "stats/stats_shared.h"

#define STATS_FILE		PGSTAT_STAT_PERMANENT_DIRECTORY "/contactsync.stat"
#define STATS_MAGIC		0x43534354
#define STATS_VERSION	1

typedef struct FileHeader
{
	uint32		magic;
	uint32		version;
	uint64		layout;			/* what is counted, and in which order */
	uint64		system_identifier;
	uint64		directory;		/* inode of the data directory: a copy has another one */
	int64		saved_at;
	uint32		nentries;		/* of which the last is the rest */
	pg_crc32c	crc;			/* of all of the file, with 0 here */
} FileHeader;

typedef struct FileEntry
{
	StatsKey	key;
	TimestampTz since;
	StatsNumbers numbers;
} FileEntry;

static uint64
directory_inode(void)
{
	struct stat st;

	return stat(DataDir, &st) == 0 ? (uint64) st.st_ino : 0;
}

static void
set_header(FileHeader *h)
{
	memset(h, 0, sizeof(*h));
	h->magic = STATS_MAGIC;
	h->version = STATS_VERSION;
	h->layout = stats_layout();
	h->system_identifier = GetSystemIdentifier();
	h->directory = directory_inode();
}

static pg_crc32c
checksum(const FileHeader *header, const FileEntry *entries)
{
	FileHeader	h = *header;
	pg_crc32c	crc;

	h.crc = 0;
	INIT_CRC32C(crc);
	COMP_CRC32C(crc, &h, sizeof(h));
	COMP_CRC32C(crc, entries, sizeof(FileEntry) * h.nentries);
	FIN_CRC32C(crc);
	return crc;
}

/* ---- writing ---- */

static void
copy_entry(FileEntry *to, const StatsEntry *entry)
{
	uint64	   *numbers = (uint64 *) &to->numbers;

	to->key = entry->key;
	to->since = entry->since;
	for (int i = 0; i < STATS_NNUMBERS; i++)
		numbers[i] = pg_atomic_read_u64(unconstify(pg_atomic_uint64 *, &entry->numbers[i]));
}

static bool
write_file(const char *path, const FileHeader *header, const FileEntry *entries)
{
	FILE	   *file = AllocateFile(path, PG_BINARY_W);
	bool		ok;

	if (file == NULL)
		return false;
	ok = fwrite(header, sizeof(*header), 1, file) == 1 &&
		fwrite(entries, sizeof(FileEntry), header->nentries, file) == header->nentries;
	return FreeFile(file) == 0 && ok;
}

void
stats_save(void)
{
	HASH_SEQ_STATUS status;
	StatsEntry *entry;
	FileHeader	header;
	FileEntry  *entries;

	if (stats_shared == NULL)
		return;
	set_header(&header);
	header.saved_at = GetCurrentTimestamp();
	entries = MemoryContextAllocExtended(CurrentMemoryContext, sizeof(FileEntry) * (guc_max_counted_sources + 1),
										 MCXT_ALLOC_HUGE | MCXT_ALLOC_ZERO);
	if (MyProc != NULL)
		LWLockAcquire(stats_shared->lock, LW_SHARED);
	else if (!LWLockConditionalAcquire(stats_shared->lock, LW_SHARED))
	{
		/* the postmaster, and somebody was shot while he had it: then nothing can be trusted */
		pfree(entries);
		return;
	}
	hash_seq_init(&status, stats_entries);
	while ((entry = hash_seq_search(&status)) != NULL)
		copy_entry(&entries[header.nentries++], entry);
	copy_entry(&entries[header.nentries++], &stats_shared->rest);
	LWLockRelease(stats_shared->lock);
	header.crc = checksum(&header, entries);
	if (!write_file(STATS_FILE ".tmp", &header, entries))
	{
		ereport(LOG,
				(errcode_for_file_access(),
				 errmsg("could not write file \"%s\": %m", STATS_FILE ".tmp")));
		(void) unlink(STATS_FILE ".tmp");
	}
	else
		(void) durable_rename(STATS_FILE ".tmp", STATS_FILE, LOG);
	pfree(entries);
}

long
stats_save_if_due(void)
{
	static uint64 saved = 0;
	static TimestampTz saved_at = 0;
	TimestampTz now = GetCurrentTimestamp();
	int64		left = saved_at + guc_counter_save_interval * USECS_PER_SEC - now;
	uint64		changes = pg_atomic_read_u64(&stats_shared->changes);

	if (changes == saved)
		return guc_counter_save_interval * 1000L;
	if (left > 0)
		return left / 1000 + 1;
	stats_save();
	saved = changes;
	saved_at = now;
	return guc_counter_save_interval * 1000L;
}

/* ---- reading ---- */

static void
ignore(const char *why)
{
	ereport(LOG,
			(errmsg("ignoring contactsync's counters in file \"%s\": %s", STATS_FILE, why),
			 errdetail("Counting begins anew.")));
}

/* What is wrong with a header; NULL = nothing. */
static const char *
header_fault(const FileHeader *h)
{
	FileHeader	ours;

	set_header(&ours);
	if (h->magic != ours.magic)
		return "it is no such file";
	if (h->version != ours.version || h->layout != ours.layout)
		return "it is of another version";
	if (h->system_identifier != ours.system_identifier || h->directory != ours.directory)
		return "it was written by another server";
	return NULL;
}

static void
load_entry(const FileEntry *from, bool rest)
{
	const uint64 *numbers = (const uint64 *) &from->numbers;
	StatsEntry *entry = rest ? &stats_shared->rest : stats_make_entry(&from->key, from->since);

	if (rest)
		entry->since = from->since;
	for (int i = 0; i < STATS_NNUMBERS; i++)
	{
		pg_atomic_fetch_add_u64(&entry->numbers[i], numbers[i]);
		stats_shared->full |= rest && numbers[i] != 0;
	}
}

void
stats_load(void)
{
	FILE	   *file = AllocateFile(STATS_FILE, PG_BINARY_R);
	FileHeader	header;
	FileEntry  *entries = NULL;
	const char *fault;
	struct stat st;

	if (file == NULL)
	{
		if (errno != ENOENT)
			ereport(LOG,
					(errcode_for_file_access(),
					 errmsg("could not open file \"%s\": %m", STATS_FILE)));
		return;
	}
	if (fread(&header, sizeof(header), 1, file) != 1 || fstat(fileno(file), &st) != 0)
		fault = "it is damaged";
	else if ((fault = header_fault(&header)) == NULL &&
			 (header.nentries < 1 || (uint64) st.st_size != sizeof(header) + sizeof(FileEntry) * (uint64) header.nentries))
		fault = "it is damaged";
	else if (fault == NULL)
	{
		entries = MemoryContextAllocExtended(CurrentMemoryContext, sizeof(FileEntry) * header.nentries,
											 MCXT_ALLOC_HUGE | MCXT_ALLOC_NO_OOM);
		if (entries == NULL)
			fault = "there is not enough memory";
		else if (fread(entries, sizeof(FileEntry), header.nentries, file) != header.nentries ||
				 !EQ_CRC32C(checksum(&header, entries), header.crc))
			fault = "it is damaged";
	}
	FreeFile(file);
	if (fault)
		ignore(fault);
	for (uint32 i = 0; fault == NULL && i < header.nentries; i++)
		load_entry(&entries[i], i == header.nentries - 1);
	if (entries)
		pfree(entries);
}
