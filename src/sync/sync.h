/*
 * sync.h
 *		Reading sources: runs, and the drivers that speak to providers.
 *
 *	sync_run.c		a run from its start to its end, whatever the driver
 *	sync_count.c	what is counted of answers and pages
 *	sync_pace.c		when a request may go, and go again
 *	sync_breaker.c	that none goes to a source that does not answer
 *	sync_auth.c		what a request is authenticated with; OAuth 2.0
 *	sync_trust.c	where the credentials may go
 *	sync_rest.c		JSON over HTTP, as a connector describes it
 *	sync_parts.c	folders and the like, each with its own cursor
 *	sync_spec.c		that description
 *	sync_template.c	texts from templates, values from a provider's JSON
 *	sync_page.c		the items of an answer as rows
 *	sync_dav.c		CardDAV: discovery, sync-collection, multiget
 *	sync_single.c	one record at a time, for the queue of fetches
 *	sync_write.c	requests that write, from templates
 *	sync_xml.c		multistatus documents, by libxml2
 *
 * A run lives in the worker's memory and in its row of contactsync.runs.  The
 * row moves on with the page that brought it there, so that a run whose worker
 * died goes on where its last page ended.  A driver sets the next request, which
 * is sent when no transaction is open, and is given the answer inside a
 * transaction.
 */
#ifndef CONTACTSYNC_SYNC_H
#define CONTACTSYNC_SYNC_H

#include "compat.h"
#include "http/http.h"
#include "store/store.h"
#include "sync/sync_spec.h"
#include "utils/jsonb.h"

#define SYNC_MAX_HEADERS	16

/* A page: what one answer brought, row by row. */
typedef struct SyncPage
{
	StoreArray	ids;			/* text */
	StoreArray	kinds;			/* text: snapshot, patch, delete, or where it was known gone: delete, merged: merge */
	StoreArray	versions;		/* timestamptz; NULL = the run's stamp */
	StoreArray	created;		/* timestamptz */
	StoreArray	modified;		/* timestamptz: last modification, where that is not the version */
	StoreArray	payloads;		/* jsonb */
	StoreArray	etags;			/* text */
	StoreArray	faults;			/* text: why the item cannot be applied; NULL = it can */
	const char *part;			/* the partition that it is of; NULL = there are none */
} SyncPage;

struct SyncDriver;
struct SyncAuth;

/* What an answer means for its run. */
typedef enum SyncClass
{
	SYNC_FINE,					/* to be read */
	SYNC_LOST,					/* the provider does not know where we left off */
	SYNC_TRANSIENT,				/* to be asked again */
	SYNC_RATE,					/* to be asked again, but not so soon */
	SYNC_AUTH,					/* the credentials are refused */
	SYNC_PERMANENT				/* asking again would change nothing */
} SyncClass;

typedef struct SyncRun
{
	struct SyncRun *next;
	MemoryContext context;		/* holds all of it */
	const struct SyncDriver *driver;
	void	   *state;			/* the driver's */
	char	   *tenant;
	int64		id;
	char	   *source;
	char	   *url;			/* of the source, without a slash at its end */
	bool		allow_http;
	bool		allow_private;
	struct SyncAuth *auth;
	Jsonb	   *spec;			/* of the connector */
	Jsonb	   *settings;		/* of the source */
	bool		full;			/* reads everything, whatever was read before */
	int64		stamp;			/* when it began */
	int			failures;		/* of the source, since it was last read */
	Jsonb	   *cursor;			/* where it starts; NULL = from nothing */
	Jsonb	   *progress;		/* where an interrupted run stood; NULL = at its start */
	/* the next request */
	const char *method;
	char	   *request;		/* its URL; NULL = the run has ended */
	char	   *body;			/* NULL = none */
	int			nheaders;
	const char *headers[SYNC_MAX_HEADERS];
	MemoryContext header_context;	/* of those of sync_add_header() */
	bool		sent;
	/* when it goes: see sync_pace.c */
	SyncRate	rate;
	TimestampTz not_before;
	int			retries;		/* of this request, so far */
	TimestampTz first_sent;		/* when it went for the first time */
	/* why it failed, until that is stored */
	char	   *fault_code;
	char	   *fault_reason;
	int			retry_after;
} SyncRun;

typedef struct SyncDriver
{
	const char *name;
	/* Set the first request of a run, by its cursor and progress.  False: the cursor is of no use. */
	bool		(*begin) (SyncRun *run);
	SyncClass	(*classify) (SyncRun *run, HttpExchange *x);
	/*
	 * Read an answer, of whatever kind, into a page and set the next request, if
	 * there is one.  False: the cursor is lost, and the run must read everything.
	 */
	bool		(*read) (SyncRun *run, HttpExchange *x, SyncPage *page);
	/* Where the run stands, and at its end where the next one starts; (Datum) 0 = NULL. */
	Datum		(*progress) (SyncRun *run);
	Datum		(*cursor) (SyncRun *run);
} SyncDriver;

extern const SyncDriver sync_rest;
extern const SyncDriver sync_dav;

/* ---- for the worker ---- */

/*
 * In a transaction: take over a tenant's queued runs, as far as there is room.
 * After its commit sync_prepare() each of sync_next_started(), or after an abort
 * sync_forget() them.
 */
extern void sync_start_runs(const char *tenant);
extern SyncRun *sync_next_started(void);
extern void sync_forget(void);
/* In a transaction: make a run ready to be sent.  Throws what makes it fail. */
extern void sync_prepare(SyncRun *run);
/* In a transaction: an answer for a run.  Throws what makes the run fail. */
extern void sync_answer(SyncRun *run, HttpExchange *x);
/* Outside of transactions: send what is to be sent, and drop what has ended. */
extern void sync_proceed(HttpEngine *engine);
extern bool sync_idle(void);	/* no run is under way */
extern bool sync_is_reading(const char *tenant, const char *source);	/* a run of it is */
extern TimestampTz sync_next_send(void);	/* when sync_proceed() has something to send; DT_NOEND = nothing waits */
/* A run has failed; then, in a transaction: store that. */
extern void sync_give_up(SyncRun *run, const char *code, const char *reason, int retry_after);
extern void sync_fail(SyncRun *run);
extern void sync_failed(SyncRun *run);	/* that is committed */
extern SyncRun *sync_next_failure(SyncRun *run);	/* that is not stored; NULL begins and ends */

/* ---- sync_pace.c ---- */

/* Outside of transactions: may a request of the run go?  If not, not_before says when. */
extern bool sync_may_send(SyncRun *run);
/* Let a request go again later; false if it has been tried often enough. */
extern bool sync_try_later(SyncRun *run, HttpExchange *x, bool rate);
/* The provider says how many requests are left. */
extern void sync_note_limits(SyncRun *run, HttpExchange *x);

/* ---- sync_breaker.c ---- */

extern void sync_breaker_prepare(SyncRun *run);	/* in a transaction, before all others */
extern bool sync_breaker_is_open(SyncRun *run);	/* or half-open: one request at a time, if any */
extern TimestampTz sync_breaker_wait(SyncRun *run);
extern void sync_breaker_sent(SyncRun *run);
extern void sync_breaker_dropped(SyncRun *run);
extern void sync_breaker_note(SyncRun *run, const HttpExchange *x); /* every answer */
extern void sync_breaker_store(SyncRun *run, bool again);

/* ---- sync_auth.c ---- */

/* In a transaction: find out what to authenticate with, and with what. */
extern void sync_auth_prepare(SyncRun *run);
extern void sync_auth_free(SyncRun *run);
/* In a transaction: see to it that the next request has a token that lives. */
extern void sync_auth_renew(SyncRun *run);
/* Is a token to be asked for, before anything else? */
extern bool sync_auth_due(SyncRun *run);
/* In a transaction: an answer to that. */
extern SyncClass sync_auth_classify(SyncRun *run, HttpExchange *x);
extern void sync_auth_answer(SyncRun *run, HttpExchange *x);
/* The token was refused; false if there is no way to another one. */
extern bool sync_auth_refused(SyncRun *run);
extern void sync_auth_accepted(SyncRun *run);
/* Has the token expired, and none is being asked for? */
extern bool sync_auth_expired(SyncRun *run);
/*
 * May the token that is due be asked for now?  Not while another run or session of
 * the source asks for one; once that has got it, this one has it too, and none is due.
 */
extern bool sync_auth_may_ask(SyncRun *run);
/* The request that is due: for a token, or of the driver with its credentials. */
extern void sync_auth_fill(SyncRun *run, HttpRequest *request);

/* ---- sync_count.c ---- */

/* An answer, whatever becomes of it; and a page that is stored, with its run if that ended with it. */
extern void sync_count_answer(SyncRun *run, HttpExchange *x, SyncClass class, bool for_token);
extern void sync_count_page(SyncRun *run, SyncPage *page, TimestampTz begun);

/* ---- sync_trust.c ---- */

/* May the source's credentials go there? */
extern bool sync_trusts(SyncRun *run, const char *url);
/* The URL that an answer leads to, palloc'd; throws if they may not. */
extern char *sync_follow(SyncRun *run, const char *reference);

/* ---- sync_page.c ---- */

extern void sync_page_init(SyncPage *page);
/* The array of items; NULL if there is none and that is allowed. */
extern JsonbContainer *sync_page_items(const SyncStep *step, Jsonb *json, bool optional);
extern bool sync_page_ends(const SyncStep *step, Jsonb *json);
extern bool sync_item_is_whole(const SyncStep *step, Jsonb *item);
extern void sync_add_item(const SyncStep *step, Jsonb *item, SyncPage *page, TimestampTz *newest);

/* ---- sync_single.c: single records; a session is a SyncRun that reads no list ---- */

typedef enum SyncSingle
{
	SYNC_SINGLE_HERE,			/* the page has what it holds */
	SYNC_SINGLE_GONE,			/* the provider has no such record */
	SYNC_SINGLE_UNKNOWN			/* the answer proves nothing */
} SyncSingle;

/* In a transaction: a session that lives until it is closed.  collection: where CardDAV's address book is, or NULL. */
extern SyncRun *sync_session_open(const char *tenant, const char *source, Jsonb *settings, Jsonb *spec, const char *collection);
extern void sync_session_close(SyncRun *session);
/* Does the source give its records no versions? */
extern bool sync_session_is_unversioned(SyncRun *session);
/* Set the next request.  Throws where the record cannot be asked for. */
extern void sync_session_ask(SyncRun *session, const char *id);
extern SyncClass sync_session_classify(SyncRun *session, HttpExchange *x);
/* Read an answer that has come; if nothing is known by it, *fault says why. */
extern SyncSingle sync_session_read(SyncRun *session, const char *id, HttpExchange *x, SyncPage *page, const char **fault);

/* sync_rest.c, sync_dav.c: what it needs of them */
extern void sync_rest_ask(SyncRun *session, SyncStep *step, const SyncVars *vars);
extern void sync_dav_add_card(SyncPage *page, const char *id, char *card);

/* ---- for drivers ---- */

/* By status alone. */
extern SyncClass sync_classify(HttpExchange *x);
/* The connector's and the source's parameters. */
extern void sync_parameters(SyncRun *run, SyncVars *vars);
/* Headers of the next request: the first ends those of the last. */
extern void sync_add_header(SyncRun *run, const char *header);

/* Throws unless there is an answer, and then unless it has this status. */
extern void sync_check_answered(HttpExchange *x);
extern void sync_check_status(HttpExchange *x, int expected);
/* Throws: the provider's answer is not what it should be. */
pg_noreturn extern void sync_bad_answer(const char *what);
/* A member of an object that is a text, palloc'd; NULL if it is none, or json is NULL. */
extern char *sync_member(Jsonb *json, const char *name);
/* {name: value, ...}, without those that are NULL. */
extern Datum sync_object(int n, const char *const *names, const char *const *values);
/* Set a text that lives with the run; value may be NULL. */
extern void sync_keep(SyncRun *run, char **field, const char *value);
/* Add a row to a page; what is not said is NULL. */
extern void sync_add_row(SyncPage *page, const char *id, const char *kind);

/* ---- sync_xml.c ---- */

typedef struct DavResponse
{
	char	   *href;
	int			status;			/* of the response itself; 0 = it has properties */
	char	   *etag;			/* properties found, else NULL */
	char	   *address_data;
	int			prop_status;	/* worst status of address-data, if it was not found */
	char	   *principal;		/* hrefs of current-user-principal, addressbook-home-set */
	char	   *home;
	bool		is_addressbook;
} DavResponse;

typedef struct DavDocument
{
	int			nresponses;
	DavResponse *responses;
	char	   *sync_token;
	char	   *error;			/* local name of a precondition in DAV:error */
} DavDocument;

/* Parse a body; palloc'd.  False if it is not XML of these two kinds. */
extern bool sync_xml_parse(const char *body, size_t len, DavDocument *doc);

#endif							/* CONTACTSYNC_SYNC_H */
