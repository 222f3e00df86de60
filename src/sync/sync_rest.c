/*
 * sync_rest.c
 *		Lists of JSON over HTTP, as a connector's "list" and "item" describe them.
 *
 * The first page of an incremental run asks for what changed since the greatest
 * version that an earlier run saw, less an overlap: stamps of a provider need not
 * become visible in their order, and what comes twice changes nothing.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/memutils.h"
#include "utils/numeric.h"
#include "utils/datetime.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "guc.h"
#include "sync/sync.h"

#define MAX_ITEMS	10000

typedef struct RestState
{
	char	   *since;			/* where the run starts; NULL = from nothing */
	char	   *after;			/* position of the next page; NULL = the first */
	char	   *newest;			/* greatest version seen, the next run's since */
	/* a position that comes again is a loop: one is kept, at ever longer distances */
	char	   *mark;
	int			steps;
	int			distance;
} RestState;

/* A text of the connector's spec, palloc'd; NULL if it has none. */
static char *
spec_text(Jsonb *spec, const char *group, const char *sub, const char *name)
{
	const char *path[] = {group, sub, name};
	JsonbContainer *at = &spec->root;
	JsonbValue *v = NULL;

	for (int i = 0; i < lengthof(path); i++)
	{
		if (path[i] == NULL)
			continue;
		v = getKeyJsonValueFromContainer(at, path[i], strlen(path[i]), NULL);
		if (v == NULL)
			return NULL;
		if (v->type == jbvBinary)
			at = v->val.binary.data;
	}
	return v && v->type == jbvString ? pnstrdup(v->val.string.val, v->val.string.len) : NULL;
}

/* What a path of the spec finds; false if nothing, or null. */
static bool
find(const char *path, Jsonb *json, JsonbValue *result)
{
	JsonbValue	p;

	if (path == NULL)
		return false;
	p.type = jbvString;
	p.val.string.val = (char *) path;
	p.val.string.len = strlen(path);
	return contact_map_find(&p, json, result) && result->type != jbvNull;
}

/* A scalar as text; NULL if it is none. */
static char *
scalar_text(const JsonbValue *v)
{
	switch (v->type)
	{
		case jbvString:
			return pnstrdup(v->val.string.val, v->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(v->val.numeric)));
		default:
			return NULL;
	}
}

/* ISO 8601 with a zone, or milliseconds since 1970; false if it is neither. */
static bool
read_time(const JsonbValue *v, TimestampTz *time)
{
	char		work[MAXDATELEN + 1];
	char	   *field[MAXDATEFIELDS];
	int			ftype[MAXDATEFIELDS];
	int			nf;
	int			dtype;
	int			tz;
	struct pg_tm tm;
	fsec_t		fsec;

	if (v->type == jbvNumeric)
	{
		float8		ms = DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(v->val.numeric)));

		*time = (TimestampTz) (ms * 1000.0) - ((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY);
		/* seconds would lie in 1970, microseconds far ahead */
		return ms > 1e10 && ms < 1e14;
	}
	/* neither "now" nor "infinity" */
	if (v->type != jbvString || v->val.string.len > MAXDATELEN ||
		v->val.string.len == 0 || v->val.string.val[0] < '0' || v->val.string.val[0] > '9')
		return false;
	return ParseDateTime(pnstrdup(v->val.string.val, v->val.string.len), work, sizeof(work),
						 field, ftype, MAXDATEFIELDS, &nf) == 0 &&
		decode_date_time(field, ftype, nf, &dtype, &tm, &fsec, &tz) == 0 &&
		dtype == DTK_DATE && tm2timestamp(&tm, fsec, &tz, time) == 0;
}

static TimestampTz
parse_time(const char *s)
{
	return DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(s),
												   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

/* In UTC, whatever the session's zone: it is stored. */
static char *
time_text(TimestampTz t)
{
	struct pg_tm tm;
	fsec_t		fsec;

	if (timestamp2tm(t, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	return psprintf("%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", tm.tm_year, tm.tm_mon, tm.tm_mday,
					tm.tm_hour, tm.tm_min, tm.tm_sec, (int) fsec);
}

/* Set the URL of the next page. */
static void
ask(SyncRun *run)
{
	RestState  *state = run->state;
	char	   *path = spec_text(run->spec, "list", NULL, "path");
	char	   *since_param = spec_text(run->spec, "list", "since", "param");
	char	   *after_param = spec_text(run->spec, "list", "page", "param");
	char	   *url = psprintf("%s%s%s", run->url, path[0] == '/' ? "" : "/", path);
	JsonbValue *list = getKeyJsonValueFromContainer(&run->spec->root, "list", 4, NULL);
	JsonbValue *query = getKeyJsonValueFromContainer(list->val.binary.data, "query", 5, NULL);

	if (query && query->type == jbvBinary)
	{
		JsonbIterator *it = JsonbIteratorInit(query->val.binary.data);
		JsonbValue	v;

		(void) JsonbIteratorNext(&it, &v, true);
		while (JsonbIteratorNext(&it, &v, true) == WJB_KEY)
		{
			char	   *name = pnstrdup(v.val.string.val, v.val.string.len);
			char	   *value;

			(void) JsonbIteratorNext(&it, &v, true);
			value = scalar_text(&v);
			if (value)
				url = http_url_add(url, name, value);
		}
	}
	if (state->since && since_param)
	{
		char	   *overlap = spec_text(run->spec, "list", "since", "overlap");
		Interval   *span = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(overlap ? overlap : "1 min"),
																 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
		TimestampTz from = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
																   TimestampTzGetDatum(parse_time(state->since)),
																   IntervalPGetDatum(span)));

		url = http_url_add(url, since_param, time_text(from));
	}
	if (state->after && after_param)
		url = http_url_add(url, after_param, state->after);
	sync_keep(run, &run->request, url);
}

/* The code point of "\\uXXXX"; -1 if that does not stand there. */
static int
escaped(const char *p)
{
	int			code = 0;

	if (p[0] != '\\' || p[1] != 'u')
		return -1;
	for (int i = 2; i < 6; i++)
	{
		char		c = p[i];
		int			digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 :
			c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;

		if (digit < 0)
			return -1;
		code = code * 16 + digit;
	}
	return code;
}

/*
 * Half a surrogate pair, as where a text in UTF-16 was cut, and U+0000 cannot be
 * stored: one such character must not cost the page.
 */
static void
mend_escapes(char *p)
{
	while ((p = strchr(p, '\\')) != NULL)
	{
		int			code = escaped(p);
		int			next;

		if (code < 0)
		{
			p += p[1] ? 2 : 1;
			continue;
		}
		next = code >= 0xD800 && code < 0xDC00 ? escaped(p + 6) : -1;
		if (next >= 0xDC00 && next < 0xE000)
			p += 6;
		else if (code == 0 || (code >= 0xD800 && code < 0xE000))
			memcpy(p + 2, "fffd", 4);
		p += 6;
	}
}

/* The body as jsonb; throws if it is none. */
static Jsonb *
read_json(HttpExchange *x)
{
	/* 'application/json', 'application/problem+json; charset=...' */
	if (strstr(x->content_type, "json") == NULL)
		sync_bad_answer("is not JSON");
	if (strlen(x->body) != x->len || !pg_verify_mbstr(PG_UTF8, x->body, x->len, true))
		sync_bad_answer("is not UTF-8");
	mend_escapes(x->body);
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
											  CStringGetDatum(pg_any_to_server(x->body, x->len, PG_UTF8))));
}

static void
set_last(StoreArray *column, Datum value)
{
	column->values[column->n - 1] = value;
	column->nulls[column->n - 1] = false;
}

static void
add_item(SyncRun *run, Jsonb *item, SyncPage *page, TimestampTz *newest)
{
	JsonbValue	v;
	char	   *id;
	bool		deleted;
	TimestampTz time;
	char	   *payload_path = spec_text(run->spec, "item", NULL, "payload");

	if (!find(spec_text(run->spec, "item", NULL, "id"), item, &v) ||
		(id = scalar_text(&v)) == NULL || id[0] == '\0')
		sync_bad_answer("has an item without an id");
	deleted = find(spec_text(run->spec, "item", NULL, "deleted"), item, &v) &&
		!(v.type == jbvBool && !v.val.boolean);
	sync_add_row(page, id, deleted ? "delete" : "snapshot");

	if (find(spec_text(run->spec, "item", NULL, "version"), item, &v))
	{
		if (read_time(&v, &time))
		{
			*newest = Max(*newest, time);
			set_last(&page->versions, TimestampTzGetDatum(time));
		}
		else
			set_last(&page->faults, CStringGetTextDatum("the version of the item is not a time"));
	}
	if (find(spec_text(run->spec, "item", NULL, "created"), item, &v))
	{
		if (read_time(&v, &time))
			set_last(&page->created, TimestampTzGetDatum(time));
		else
			set_last(&page->faults, CStringGetTextDatum("the creation time of the item is not a time"));
	}
	if (payload_path == NULL || deleted)
		set_last(&page->payloads, JsonbPGetDatum(item));
	else if (find(payload_path, item, &v))
		set_last(&page->payloads, JsonbPGetDatum(JsonbValueToJsonb(&v)));
	else
		set_last(&page->faults, CStringGetTextDatum("the item has no payload where the connector looks for it"));
}

static void
move_on(SyncRun *run, const char *after)
{
	RestState  *state = run->state;

	if (after && state->mark && strcmp(after, state->mark) == 0)
		sync_bad_answer("repeats the position of an earlier page");
	if (after && ++state->steps >= state->distance)
	{
		sync_keep(run, &state->mark, after);
		state->distance = Max(1, state->distance * 2);
		state->steps = 0;
	}
	sync_keep(run, &state->after, after);
	if (after)
		ask(run);
	else
		sync_keep(run, &run->request, NULL);
}

static void
rest_begin(SyncRun *run)
{
	RestState  *state = palloc0(sizeof(RestState));

	run->state = state;
	run->method = "GET";
	run->nheaders = 1;
	run->headers[0] = "Accept: application/json";
	state->since = sync_member(run->cursor, "since");
	state->after = sync_member(run->progress, "after");
	state->newest = sync_member(run->progress, "newest");
	if (state->newest == NULL)
		sync_keep(run, &state->newest, state->since);
	ask(run);
}

static bool
rest_read(SyncRun *run, HttpExchange *x, SyncPage *page)
{
	RestState  *state = run->state;
	Jsonb	   *json;
	JsonbValue	items;
	JsonbValue	next;
	TimestampTz newest = state->newest ? parse_time(state->newest) : DT_NOBEGIN;
	char	   *after = NULL;
	int			n;

	sync_check_answered(x);
	sync_check_status(x, 200);
	json = read_json(x);
	if (!find(spec_text(run->spec, "list", NULL, "items"), json, &items) ||
		items.type != jbvBinary || !JsonContainerIsArray(items.val.binary.data))
		sync_bad_answer("has no list of items where the connector looks for it");
	n = JsonContainerSize(items.val.binary.data);
	if (n > MAX_ITEMS)
		sync_bad_answer("has more than 10,000 items on a page");
	for (int i = 0; i < n; i++)
		add_item(run, JsonbValueToJsonb(getIthJsonbValueFromContainer(items.val.binary.data, i)), page, &newest);

	if (find(spec_text(run->spec, "list", "page", "next"), json, &next))
		after = scalar_text(&next);
	if (after && after[0] == '\0')
		after = NULL;
	/* a stamp from the future must not make the next run miss what comes before it */
	newest = Min(newest, run->stamp);
	if (!TIMESTAMP_NOT_FINITE(newest))
		sync_keep(run, &state->newest, time_text(newest));
	move_on(run, after);
	return true;
}

static Datum
rest_progress(SyncRun *run)
{
	RestState  *state = run->state;
	const char *names[] = {"after", "newest"};
	const char *values[] = {state->after, state->newest};

	return sync_object(lengthof(names), names, values);
}

static Datum
rest_cursor(SyncRun *run)
{
	RestState  *state = run->state;
	const char *name = "since";
	const char *value = state->newest;

	return sync_object(1, &name, &value);
}

const SyncDriver sync_rest = {"rest", rest_begin, rest_read, rest_progress, rest_cursor};
