/*
 * worker.h
 *		Background work: a launcher, and a worker in each database that has the
 *		extension.
 *
 *	worker_shmem.c		what they share: a slot for each database; wake-ups
 *	worker_launcher.c	finds databases, starts and restarts their workers
 *	worker_main.c		one database: applies what is due, drives the runs
 *	worker_listener.c	the listener of a database, as far as its worker cares for it
 *	worker_hook.c		makes way for DROP DATABASE and its kin
 *
 * Where the library is not preloaded there is no launcher, and nobody watches:
 * database work is driven by process(), and sync() starts a worker that goes
 * when it has nothing left to do.
 */
#ifndef CONTACTSYNC_WORKER_H
#define CONTACTSYNC_WORKER_H

#include "datatype/timestamp.h"
#include "storage/lwlock.h"
#include "storage/proc.h"

#define WORKER_MAX_DATABASES	128

typedef enum WorkerState
{
	WS_FREE,					/* no database in this slot */
	WS_WANTED,					/* to be started: it may have the extension */
	WS_STARTED,					/* the launcher has started a worker */
	WS_ABSENT,					/* a worker looked, and there is no extension */
	WS_FAILED					/* the worker died: it is started again later */
} WorkerState;

typedef struct WorkerSlot
{
	Oid			database;
	WorkerState state;
	pid_t		pid;			/* 0 = none */
	pid_t		listener;		/* 0 = none */
	PGPROC	   *proc;			/* for its latch */
	TimestampTz seen_at;		/* when the worker last went round its loop */
	bool		refused;		/* there was no room for a worker */
	int			held;			/* sessions that keep it away: see worker_hook.c */
	uint32		wakes;			/* commits that brought work: a latch alone does not
								 * do, since whoever waits for a lock resets it */
} WorkerSlot;

typedef struct WorkerShared
{
	LWLock	   *lock;
	PGPROC	   *launcher;
	WorkerSlot	slots[WORKER_MAX_DATABASES];
} WorkerShared;

extern WorkerShared *worker_shared; /* NULL where not preloaded */
extern bool worker_is_me;		/* this process is a worker of ours */

extern void worker_init(void);	/* from _PG_init */
extern void worker_hook_init(void);
extern void worker_wake(void);	/* at commit of this transaction */
extern void worker_wake_now(void);
/* The same; where nobody would be woken, start a worker. */
extern void worker_demand(void);
/* The slot of a database, made if create; NULL if there is none.  Under the lock. */
extern WorkerSlot *worker_slot(Oid database, bool create);
extern void worker_wake_launcher(void);
struct BackgroundWorker;
extern void worker_describe(struct BackgroundWorker *worker, Oid database);

/* Fix what a database or a role may have set. */
extern void worker_fix_settings(void);

/* worker_listener.c: for the worker, then for the listener */
extern TimestampTz worker_tend_listener(void);
extern bool worker_listener_here(Oid database);
extern void worker_listener_gone(void);

extern PGDLLEXPORT void worker_launcher_main(Datum arg);
extern PGDLLEXPORT void worker_main(Datum arg);

#endif							/* CONTACTSYNC_WORKER_H */
