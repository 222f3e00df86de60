/*
 * stats.h
 *		Counters and histograms in shared memory.
 *
 *	stats_names.c	what is counted, and under which name
 *	stats_shmem.c	the shared memory: an entry for each source
 *	stats_pending.c	what a transaction counts, until it commits
 *	stats_file.c	how it survives a restart
 *	stats_sql.c		what SQL sees of it
 *
 * There are two ways to count.  An *attempt* (a request that was sent, a webhook
 * that was refused) counts at once, whatever becomes of the transaction.  An
 * *effect* (an event that was applied, a run that ended) is added up in the
 * backend, subtransaction by subtransaction, and enters the shared memory when
 * the transaction has committed; so what was rolled back was never counted, and
 * an event costs an addition in local memory.  What a prepared transaction does
 * is not counted.
 *
 * An entry belongs to a source of a tenant of a database; without a source it
 * holds what is the tenant's, and without a tenant what is the worker's.  When
 * all entries are taken, what comes later is counted in one more, for all.
 * Adding takes the lock in shared mode, and then is atomic; only a first sight,
 * a reset and a removal take it exclusively.
 *
 * Where the library is not preloaded nothing is counted.
 */
#ifndef CONTACTSYNC_STATS_H
#define CONTACTSYNC_STATS_H

#include "datatype/timestamp.h"
#include "nodes/pg_list.h"

typedef enum StatsCounter
{
	/* of a source, effects */
	SC_EVENTS_APPLIED,
	SC_EVENTS_UNCHANGED,
	SC_EVENTS_LATE,
	SC_EVENTS_REJECTED,
	SC_REFOLDS,
	SC_PAGES,
	SC_RUNS_SUCCEEDED,
	SC_RUNS_FAILED,
	SC_RUNS_RESTARTED,
	SC_WEBHOOKS_ACCEPTED,
	SC_WEBHOOKS_DUPLICATE,
	SC_FETCHES_DONE,
	SC_FETCHES_GONE,
	SC_FETCHES_UNPROVEN,
	SC_FETCHES_RETRY,
	SC_FETCHES_DEAD,
	/* of a source, attempts */
	SC_WEBHOOKS_NO_SIGNATURE,
	SC_WEBHOOKS_OUTSIDE_WINDOW,
	SC_WEBHOOKS_NO_SECRET,
	SC_WEBHOOKS_BAD_SIGNATURE,
	SC_WEBHOOKS_NOT_JSON,
	SC_WEBHOOKS_TOO_LARGE,
	SC_WEBHOOKS_METHOD,
	SC_WEBHOOKS_UNKNOWN,
	SC_REQUESTS_FINE,			/* in the order of SyncClass */
	SC_REQUESTS_LOST,
	SC_REQUESTS_TRANSIENT,
	SC_REQUESTS_RATE,
	SC_REQUESTS_AUTH,
	SC_REQUESTS_PERMANENT,
	SC_RESPONSES_NONE,			/* by the first digit of the status */
	SC_RESPONSES_1XX,
	SC_RESPONSES_2XX,
	SC_RESPONSES_3XX,
	SC_RESPONSES_4XX,
	SC_RESPONSES_5XX,
	SC_REQUEST_RETRIES,
	SC_RECEIVED_BYTES,
	SC_TOKENS_GRANTED,
	SC_TOKENS_REFUSED,
	/* of a tenant, effects */
	SC_CONTACTS_INSERTED,
	SC_CONTACTS_UPDATED,
	SC_CONTACTS_DELETED,
	SC_CONTACTS_MERGED,
	SC_CONTACTS_RESOLVED,
	SC_DISAGREEMENTS,			/* and the following, in the order of MergeRuleKind */
	SC_DISAGREEMENTS_LAST = SC_DISAGREEMENTS + 7,
	SC_CONFLICTS_OPENED,
	SC_CONFLICTS_RESOLVED,
	SC_CONFLICTS_SUPERSEDED,
	/* of the worker, attempts */
	SC_WORKER_STARTS,
	SC_WORKER_WAKEUPS,
	SC_WORKER_ERRORS,
	STATS_NCOUNTERS
} StatsCounter;

typedef enum StatsHistogram
{
	SH_REQUEST,					/* attempt */
	SH_PAGE,
	SH_RUN,
	SH_QUEUE_WAIT,
	SH_EVENT_LAG,
	STATS_NHISTOGRAMS
} StatsHistogram;

/* The upper bounds of a histogram's buckets, in us; the last bucket has none. */
#define STATS_NBUCKETS	24
extern const int64 stats_bounds[STATS_NBUCKETS - 1];

/* What a transaction has counted of one source; NULL where nothing is counted. */
typedef struct StatsPending StatsPending;

extern void stats_init(void);	/* from _PG_init */

/*
 * Effects, of the active tenant.  What stats_of() gives is good until a
 * subtransaction begins or ends.  NULL = no source.
 */
extern StatsPending *stats_of(const char *source, int len);
extern StatsPending *stats_of_tenant(void);
extern void stats_add(StatsPending *pending, StatsCounter counter, int64 n);
extern void stats_time(StatsPending *pending, StatsHistogram histogram, int64 us);

/* Attempts.  "" = no tenant, no source. */
extern void stats_add_now(const char *tenant, const char *source, StatsCounter counter, int64 n);

/* An answer of a source's provider.  us < 0 = it was not even sent. */
extern void stats_answer_now(const char *tenant, const char *source, StatsCounter class, StatsCounter response, int64 bytes, int64 us);
/* The provider of a source asked for fewer requests, just now. */
extern void stats_note_limit(const char *tenant, const char *source);

/* At commit: forget a source of the active tenant, or all of a tenant. */
extern void stats_forget_source(const char *source);
extern void stats_forget_tenant(const char *tenant);
/* At once, or at commit: forget a database. */
extern void stats_forget_database(Oid database);
extern void stats_forget_database_at_commit(void);

/* For the launcher: the databases of which something is counted. */
extern List *stats_databases(void);
/* For the launcher: write the file if it is time; the milliseconds until it is again. */
extern long stats_save_if_due(void);

#endif							/* CONTACTSYNC_STATS_H */
