/*
 * sync_parts.h
 *		The parts of a source that are read one by one: see sync_parts.c.
 */
#ifndef CONTACTSYNC_SYNC_PARTS_H
#define CONTACTSYNC_SYNC_PARTS_H

#include "sync/sync.h"

typedef struct SyncPart
{
	char	   *id;
	bool		known;			/* named by the cursor: only what changed is read */
	char	   *token;			/* that it is read from; NULL = from its start, or by time */
	char	   *next_token;		/* the next run's */
} SyncPart;

typedef struct SyncParts
{
	int			n;
	int			size;
	SyncPart   *parts;			/* in the order in which they are read */
} SyncParts;

/* The part of an id, which is added if it is new. */
extern SyncPart *sync_part_add(SyncRun *run, SyncParts *parts, const char *id);
extern bool sync_parts_in_cursor(Jsonb *cursor);
/* What the cursor says of the parts; false if it names one that is not there. */
extern bool sync_parts_from_cursor(SyncRun *run, SyncParts *parts, Jsonb *cursor);
/* The parts that an interrupted run had found; false if it had not got that far. */
extern bool sync_parts_from_progress(SyncRun *run, SyncParts *parts, Jsonb *progress);
/* A JSON object with the parts added to it. */
extern Datum sync_parts_to_progress(const SyncParts *parts, Datum object);
extern Datum sync_parts_to_cursor(const SyncParts *parts, bool by_token, Datum object);

#endif							/* CONTACTSYNC_SYNC_PARTS_H */
