/*
 * store_verify.h
 *		What is stored, against what the facts give: rebuild(), verify(), what_if().
 *
 *	store_verify.c		a range of contacts, computed from scratch and compared
 *	store_parallel.c	all ranges, by this process and parallel workers
 *	store_rebuild.c		the SQL functions, and repair
 *	store_selftest.c	selftest_convergence(): the same in any order
 */
#ifndef CONTACTSYNC_STORE_VERIFY_H
#define CONTACTSYNC_STORE_VERIFY_H

#include "store/store.h"

typedef enum StoreDifferenceKind
{
	SD_RECORD,					/* a record's fold or link; stored and computed are
								 * objects of what differs */
	SD_FIELD,					/* a field of a contact */
	SD_MISSING,					/* a contact that is not stored */
	SD_ORPHAN,					/* a stored contact that has no records */
	SD_CONFLICT,
	SD_DECISION
} StoreDifferenceKind;

typedef struct StoreDifference
{
	StoreDifferenceKind kind;
	pg_uuid_t	contact;
	int64		record;			/* of SD_RECORD; 0 = none */
	const char *field;
	const char *stored;			/* JSON; NULL = nothing */
	const char *computed;
} StoreDifference;

/* What a comparison is to be, and who is told what it finds. */
typedef struct StoreComparison
{
	/*
	 * Policy as JSON: resolve the stored records by it and compare the contacts'
	 * values and conflicts alone.  NULL: compute everything from the facts.
	 */
	const char *policy;
	/* Let contacts that a newer policy is still to reach be as their own has them. */
	bool		own_policy;
	void		(*report) (const StoreDifference *difference, void *arg);
	void	   *arg;
	void		(*idle) (void *arg);	/* called between batches, or NULL */
	/* within */
	MemoryContext context;
	int			npolicies;
	MergePolicy **policies;		/* read so far, by version */
} StoreComparison;

/*
 * Compare the contacts with ids from after (exclusive) to upto, or the records that
 * have no contact.  Both read under the active snapshot only.
 */
extern void store_compare_range(StoreComparison *comparison, const pg_uuid_t *after, const pg_uuid_t *upto);
extern void store_compare_unlinked(StoreComparison *comparison);

/* Does the fold of a record, with its names, differ from what is stored? */
extern bool store_fold_differs(const StoreRecord *stored, const StoreRecord *computed);

/* store_parallel.c: all parts; parallel workers help where there is much to do. */
extern void store_compare(StoreComparison *comparison);

#endif							/* CONTACTSYNC_STORE_VERIFY_H */
