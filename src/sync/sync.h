/*
 * sync.h
 *		Reading sources: runs, and the drivers that speak to providers.
 *
 *	sync_run.c		a run from its start to its end, whatever the driver
 *	sync_rest.c		JSON over HTTP, as a connector describes it
 *
 * A run lives in the worker's memory and in its row of contactsync.runs.  The
 * row moves on with the page that brought it there, so that a run whose worker
 * died goes on where its last page ended.  A driver is asked for the next
 * request, which is sent when no transaction is open, and is given the answer
 * inside a transaction.
 */
#ifndef CONTACTSYNC_SYNC_H
#define CONTACTSYNC_SYNC_H

#include "http/http.h"
#include "store/store.h"
#include "utils/jsonb.h"

/* A page: what one answer brought, row by row. */
typedef struct SyncPage
{
	StoreArray	ids;			/* text */
	StoreArray	kinds;			/* text: snapshot or delete */
	StoreArray	versions;		/* timestamptz; NULL = the run's stamp */
	StoreArray	created;		/* timestamptz */
	StoreArray	payloads;		/* jsonb */
} SyncPage;

typedef struct SyncRun
{
	struct SyncRun *next;
	MemoryContext context;		/* holds all of it */
	char	   *tenant;
	int64		id;
	char	   *source;
	char	   *url;			/* of the source, without a slash at its end */
	bool		allow_http;
	bool		allow_private;
	char	   *username;
	char	   *password;
	char	   *token;
	Jsonb	   *spec;			/* of the connector */
	char	   *since;			/* where it starts; NULL = from nothing */
	char	   *after;			/* position of the next page; NULL = the first */
	char	   *newest;			/* greatest version seen, the next run's since */
	char	   *request;		/* URL to ask next; NULL = it has ended */
	bool		sent;
} SyncRun;

/* ---- for the worker ---- */

/* In a transaction: take over a tenant's queued runs, as far as there is room. */
extern void sync_start_runs(const char *tenant);
/* Outside of transactions: after a commit, send what is to be sent and drop what has ended ... */
extern void sync_proceed(HttpEngine *engine);
/* ... or, after an abort, forget the runs that were being started. */
extern void sync_forget(void);
/* In a transaction: an answer for a run.  Throws what makes the run fail. */
extern void sync_answer(SyncRun *run, HttpExchange *x);
/* In a transaction of its own: the run has failed. */
extern void sync_fail(SyncRun *run, const char *code, const char *reason, int retry_after);

/* ---- for drivers ---- */

/* Values of a run live in its context. */
extern void sync_rest_begin(SyncRun *run);
/* Reads an answer into a page and moves the run on. */
extern void sync_rest_read(SyncRun *run, HttpExchange *x, SyncPage *page);

#endif							/* CONTACTSYNC_SYNC_H */
