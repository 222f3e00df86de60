/*
 * queue.h
 *		Jobs that the worker does outside of transactions: claimed, sent, stored.
 *
 *	queue.c			targets, the pipeline, and when there is something to do in a
 *					transaction
 *	queue_store.c	that transaction: outcomes are stored, and more is claimed
 *	queue_fetch.c	reads of single records of a source
 *
 * A job is a row of its kind's table (contactsync.fetches) from when it is asked for
 * until its outcome is stored.  The worker claims jobs in batches, ahead of what it
 * sends, by a lease in the row that names the worker, and commits; it sends them, as
 * many at a time as connections and the target's pace allow; and it stores the
 * outcomes of many in one transaction, with all that follows from them, and with the
 * next claim.  So the pipeline does not run dry while there is work, and no request is
 * made for a job whose claim a crash could undo.
 *
 * What a crash takes away are answers that were not stored.  Their leases are void
 * once another worker starts, and the jobs are done again: at least once, in the order
 * of their priority, and one at a time for each key.
 *
 * A target is what has a pace and credentials of its own: a source.  When its requests
 * fail one after the other it is left alone for a while, and then asked by one.  A job
 * that fails for now goes back to the table, after a random part of a pause that
 * doubles; one that fails for good, or too often, becomes a dead letter.
 */
#ifndef CONTACTSYNC_QUEUE_H
#define CONTACTSYNC_QUEUE_H

#include "compat.h"
#include "http/http.h"
#include "storage/itemptr.h"
#include "store/store.h"
#include "sync/sync.h"

/* ---- for the worker ---- */

/* Of HttpExchange.tag: it belongs to the queue. */
#define QUEUE_TAG_JOB	1
#define QUEUE_TAG_TOKEN	2

/* Something that wants a transaction. */
typedef struct QueueTurn QueueTurn;

/* Before the first claim, by worker: the slot of this one. */
extern void queue_start(int worker);
/* In a transaction: leases of workers that are no more are void. */
extern void queue_recover(const char *tenant);
/* The tenant has jobs that are due. */
extern void queue_look(const char *tenant);
/* Something has changed: sources that are asked just now may be paused, dropped, or others. */
extern void queue_look_again(void);
/* An answer has come, with one of the tags above. */
extern void queue_take(HttpExchange *x);
/* Outside of transactions: send what may be sent. */
extern void queue_send(HttpEngine *engine);
/* What wants a transaction now, or NULL; then queue_turn() in it, and queue_turned() after it. */
extern QueueTurn *queue_due(void);
extern void queue_turn(QueueTurn *turn);
/* fault: why it was aborted; NULL = it has committed. */
extern void queue_turned(QueueTurn *turn, ErrorData *fault);
/* When queue_send() or queue_due() have something to do; DT_NOEND = once an answer comes. */
extern TimestampTz queue_next(void);
extern bool queue_idle(void);	/* nothing is in hand */

/* ---- within the module ---- */

#define QUEUE_AHEAD			1000		/* jobs of a target claimed ahead of what is sent */
#define QUEUE_STORE_AT		500		/* outcomes that are stored without further delay */
#define QUEUE_STORE_MS		25		/* an outcome waits so long for others */

typedef enum QueueResult
{
	QUEUE_DONE,
	QUEUE_RETRY,
	QUEUE_DEAD,
	QUEUE_LATER					/* its row is locked: it is to be stored later */
} QueueResult;

struct QueueTarget;

typedef struct QueueJob
{
	struct QueueJob *next;
	struct QueueTarget *target;
	int64		id;
	ItemPointerData place;		/* of its row */
	int			attempt;
	int			priority;
	bool		probe;			/* a run's, not somebody's who waits for it */
	int64		run;			/* that did not show the record; 0 = none */
	uint32		token;			/* which of the target's tokens it was sent with */
	TimestampTz sent_at;
	TimestampTz answered_at;
	HttpExchange *answer;
	const char *sqlstate;		/* why it could not even be sent; NULL = it was */
	char	   *refusal;
	/* what came of it, while that is being stored */
	QueueResult result;
	const char *outcome;		/* as attempts.outcome has it */
	const char *code;
	const char *error;
	int			pause;			/* seconds that the target asks for; -1 = it does not */
	int			first_row;		/* of its rows on the page */
	int			nrows;
	bool		ours;			/* its row was still leased by us */
	char		key[FLEXIBLE_ARRAY_MEMBER];
} QueueJob;

typedef struct QueueList
{
	QueueJob   *first;
	QueueJob   *last;
	int			n;
} QueueList;

typedef struct QueueTarget
{
	struct QueueTarget *next;
	struct QueueTenant *tenant;
	char	   *name;
	SyncRun    *session;		/* NULL = not opened yet */
	int64		version;		/* of what it was opened by */
	bool		open;			/* is to be opened, anew perhaps */
	TimestampTz open_at;		/* not before */
	int			open_failures;	/* one after the other */
	bool		proven;			/* a fetch has brought a record */
	bool		closed;			/* nothing more is to be sent */
	bool		stop;			/* the credentials are refused: to be stored */
	char	   *stop_reason;
	HttpExchange *token_answer;
	bool		token_sent;
	uint32		token;			/* grows with each */
	int			refusals;		/* of tokens, one after the other */
	QueueList	pending;		/* claimed, by priority */
	int			nsent;			/* under way */
	int			ndone;			/* of the tenant's */
	/* the breaker */
	TimestampTz not_before;
	/* where the next claim starts: what lies before it was claimed, and is dead rows now */
	bool		more;			/* the last claim found all that it had room for */
	int			from_priority;
	TimestampTz from_run_at;
	TimestampTz from_start_at;	/* when it last started at the beginning */
	TimestampTz next_due;		/* when a job that failed is due again */
} QueueTarget;

/* What the next transaction is to avoid, after one that failed. */
typedef enum QueueCare
{
	QUEUE_FAST,
	QUEUE_SKIP_LOCKED,			/* somebody holds rows of ours */
	QUEUE_ONE_BY_ONE			/* one of the outcomes cannot be stored */
} QueueCare;

typedef struct QueueTenant
{
	struct QueueTenant *next;
	char	   *name;
	QueueTarget *targets;
	bool		look;			/* for targets with due jobs */
	TimestampTz looked_at;
	QueueList	done;			/* to be stored */
	TimestampTz first_done;
	QueueCare	care;
	int			ncare;			/* outcomes that are still to be stored so */
	TimestampTz not_before;
} QueueTenant;

typedef enum QueueTurnKind
{
	QUEUE_TURN_OPEN,			/* a target's session */
	QUEUE_TURN_TOKEN,			/* an answer of its token endpoint */
	QUEUE_TURN_STORE			/* outcomes of a tenant, and the next claims */
} QueueTurnKind;

struct QueueTurn
{
	QueueTurnKind kind;
	QueueTenant *tenant;
	QueueTarget *target;		/* NULL = of all */
	/* what the transaction did, to be settled when it has ended */
	QueueList	storing;		/* outcomes */
	QueueList	claimed;
	QueueList	released;
	SyncRun    *session;
};

/* Of this worker, in column lease. */
extern int64 queue_lease;
extern MemoryContext queue_context;		/* holds targets and jobs */

/* queue.c */
extern void queue_append(QueueList *list, QueueJob *job);
extern QueueTarget *queue_target(QueueTenant *tenant, const char *name);
extern TimestampTz queue_look_at(const QueueTenant *tenant);
extern int	queue_room(const QueueTarget *target);

/* queue_store.c: in a transaction, inside the guard, with SPI connected */
extern void queue_store_outcomes(QueueTurn *turn);
extern void queue_claim(QueueTurn *turn);

/* queue_fetch.c */

/* What has come of a job, by its answer; rows for inbox go to the page. */
extern void queue_fetch_read(QueueJob *job, SyncPage *page);
/* Take in what was read by jobs that were ours. */
extern void queue_fetch_apply(QueueList *jobs, SyncPage *page);

#endif							/* CONTACTSYNC_QUEUE_H */
