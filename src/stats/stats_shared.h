/*
 * stats_shared.h
 *		What the files of this module share.
 */
#ifndef CONTACTSYNC_STATS_SHARED_H
#define CONTACTSYNC_STATS_SHARED_H

#include "port/atomics.h"
#include "storage/lwlock.h"
#include "utils/hsearch.h"

#include "stats/stats.h"

#define STATS_NAMELEN	128

/* Padded with zeros.  A name that is longer is shortened: see stats_set_name(). */
typedef struct StatsKey
{
	Oid			database;
	char		tenant[STATS_NAMELEN];
	char		source[STATS_NAMELEN];
} StatsKey;

/* All that is counted, as numbers. */
typedef struct StatsNumbers
{
	uint64		counters[STATS_NCOUNTERS];
	uint64		buckets[STATS_NHISTOGRAMS][STATS_NBUCKETS];
	uint64		sums[STATS_NHISTOGRAMS];	/* us */
} StatsNumbers;

#define STATS_NNUMBERS	(sizeof(StatsNumbers) / sizeof(uint64))

typedef struct StatsEntry
{
	StatsKey	key;
	TimestampTz since;			/* when it began to count, or was reset */
	TimestampTz limited_at;		/* when its provider last limited requests; not kept through a restart */
	pg_atomic_uint64 numbers[STATS_NNUMBERS];	/* a StatsNumbers */
} StatsEntry;

typedef struct StatsShared
{
	LWLock	   *lock;
	pg_atomic_uint64 changes;	/* ever made: tells whether there is something to save */
	bool		full;			/* something was counted in rest */
	bool		said;			/* and that was said */
	StatsEntry	rest;			/* of all for whom there was no entry */
} StatsShared;

/* NULL where the library is not preloaded. */
extern StatsShared *stats_shared;
extern HTAB *stats_entries;

/* ---- stats_names.c ---- */

typedef struct StatsName
{
	const char *name;
	const char *label;			/* NULL = it has none */
	const char *value;
	const char *help;
} StatsName;

extern const StatsName stats_counter_names[STATS_NCOUNTERS];
extern const StatsName stats_histogram_names[STATS_NHISTOGRAMS];
extern int	stats_bucket(int64 us);
/* Names and bounds as a number: that of a file must be the same. */
extern uint64 stats_layout(void);

/* ---- stats_shmem.c ---- */

extern void stats_set_name(char *to, const char *name, int len);
extern void stats_set_key(StatsKey *key, Oid database, const char *tenant, const char *source, int len);
/* Add to an entry, which is made if there is none. */
extern void stats_add_numbers(const StatsKey *key, const uint64 *numbers);
/* Under the exclusive lock: an entry, made if there is none, or the rest. */
extern StatsEntry *stats_make_entry(const StatsKey *key, TimestampTz since);
/* NULL = any tenant, any source; forget or, if there is a time, reset. */
extern void stats_drop(Oid database, const char *tenant, const char *source, TimestampTz reset);

/* ---- stats_pending.c, stats_file.c ---- */

extern void stats_pending_init(void);
extern void stats_load(void);	/* at start, before anybody counts */
extern void stats_save(void);

#endif							/* CONTACTSYNC_STATS_SHARED_H */
