/*
 * sync_spec.h
 *		A connector's description, and the texts that are made of its templates.
 *
 * A description says how to read everything ("list") and, where that differs, how
 * to read what changed ("changes", one or several).  Each of them is a step: a
 * request, how its answer is paged, where the items are and what they mean.  Where
 * the items lie in folders or the like, "partitions" lists these.  "get" is one for a
 * single record.
 */
#ifndef CONTACTSYNC_SYNC_SPEC_H
#define CONTACTSYNC_SYNC_SPEC_H

#include "datatype/timestamp.h"
#include "http/http.h"
#include "utils/jsonb.h"

/* How an answer says where the next page is. */
typedef enum SyncPaging
{
	SYNC_PAGE_NONE,				/* one page is all */
	SYNC_PAGE_CURSOR,			/* a position in the body goes into the next request */
	SYNC_PAGE_URL,				/* the body holds the URL of the next page */
	SYNC_PAGE_LINK,				/* the header Link does (RFC 8288) */
	SYNC_PAGE_OFFSET,			/* how many items came so far, from page.start on */
	SYNC_PAGE_KEYSET			/* the key of the last item, until a page is empty */
} SyncPaging;

typedef enum SyncTimeFormat
{
	SYNC_TIME_ISO,				/* 2026-01-02T03:04:05.678901Z */
	SYNC_TIME_ISO_SECONDS,		/* 2026-01-02T03:04:05Z */
	SYNC_TIME_SECONDS,			/* since 1970 */
	SYNC_TIME_MS
} SyncTimeFormat;

/* At most this many requests in a time. */
typedef struct SyncRate
{
	int			requests;		/* 0 = no limit */
	int64		per_us;
} SyncRate;

typedef struct SyncItem
{
	char	   *id;				/* paths into an item; NULL = not said */
	char	   *version;
	char	   *created;
	char	   *modified;
	char	   *deleted;
	char	   *into;			/* of one that is deleted since it was merged into another */
	char	   *payload;
	char	   *replaces;
	char	   *history;
} SyncItem;

typedef struct SyncStep
{
	char	   *method;
	char	   *path;
	JsonbContainer *query;		/* objects of templates; NULL = none */
	JsonbContainer *headers;
	JsonbValue *body;			/* a template of JSON; NULL = none */
	char	   *items;
	bool		only_known;		/* what is deleted counts only where the item is known */
	SyncPaging	paging;
	char	   *page_param;
	char	   *page_next;
	char	   *page_key;
	char	   *page_start;
	char	   *end;			/* must find something on the last page */
	char	   *total;			/* how many items all pages have */
	char	   *since_param;
	char	   *since_overlap;
	SyncTimeFormat since_format;
	char	   *covered;		/* up to when the answer is complete */
	char	   *available_from; /* since when the answer is complete */
	char	   *token_next;
	bool		token_is_url;
	char	   *fetch_path;		/* of items that are not whole */
	JsonbContainer *fetch_query;
	char	   *fetch_unless;
	SyncItem	item;
} SyncStep;

typedef struct SyncSpec
{
	Jsonb	   *json;
	SyncStep	list;
	int			nchanges;
	SyncStep   *changes;
	bool		partitioned;
	SyncStep	partitions;		/* lists them */
	char	   *partition_id;	/* path into an item of that list */
	char	   *nested;			/* path of the list of those within one; NULL = there are none */
	char	   *only;			/* template; the one that is read where it stands for something */
	JsonbContainer *fixed;		/* those that no list names */
	bool		has_get;
	SyncStep	get;			/* of one record */
	JsonbContainer *gone;		/* how its answer says that there is no such record; NULL = by 404 and 410 */
	char	   *gone_path;		/* or in an answer of status 200 */
	bool		changes_by_since;	/* an incremental run starts from a time ... */
	bool		changes_by_token;	/* ... or from a token */
} SyncSpec;

/* What the variables of templates stand for; NULL = nothing. */
typedef struct SyncVars
{
	const char *since;
	const char *now;
	const char *after;
	const char *token;
	const char *id;
	const char *partition;
	Jsonb	   *known;			/* others, by name; NULL = there are none */
	Jsonb	   *parameters;		/* of the connector, and of the source */
	Jsonb	   *own_parameters;
} SyncVars;

/* The rate of an object's member "rate". */
extern SyncRate sync_read_rate(Jsonb *json, const char *group);
/* Palloc'd, and pointing into json. */
extern void sync_read_spec(Jsonb *json, SyncSpec *spec);
/* Does a status or a text in an answer's body belong to what "lost" or "limits" lists? */
extern bool sync_answer_listed(Jsonb *spec, const char *group, int status, const char *body, size_t len);

/* Does an answer to "get" say that there is no such record? */
extern bool sync_answer_gone(const SyncSpec *spec, const HttpExchange *x);

/* A template with its variables filled in, palloc'd; NULL if one stands for nothing. */
extern char *sync_expand(const char *template, const SyncVars *vars, bool in_path);
/* Of JSON: members and elements of which a variable stands for nothing are left out. */
extern char *sync_expand_json(JsonbValue *template, const SyncVars *vars);
/* Members of an object of templates, one by one; the value is NULL where it stands for nothing. */
extern bool sync_next_member(JsonbIterator **it, const SyncVars *vars, char **name, char **value);

/* What a path finds; false if nothing, or null, or there is no path. */
extern bool sync_find(const char *path, Jsonb *json, JsonbValue *result);
/* A scalar as text; NULL if it is none. */
extern char *sync_scalar_text(const JsonbValue *v);
/* ISO 8601 with a zone, or milliseconds since 1970; false if it is neither. */
extern bool sync_read_time(const JsonbValue *v, TimestampTz *time);
extern char *sync_time_text(TimestampTz t, SyncTimeFormat format);
extern TimestampTz sync_parse_time(const char *s);
/* A body as jsonb, with what cannot be stored replaced; NULL if it is not UTF-8. */
extern Jsonb *sync_parse_json(char *body, size_t len);

#endif							/* CONTACTSYNC_SYNC_SPEC_H */
