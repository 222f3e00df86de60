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
#include "sync/sync.h"

#define MAX_ITEMS	10000

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

static void
bad_answer(SyncRun *run, const char *what)
{
	ereport(ERROR,
			(errcode(ERRCODE_PROTOCOL_VIOLATION),
			 errmsg("the provider's answer %s", what)));
}

/* ISO 8601 with a zone, or milliseconds since 1970. */
static TimestampTz
read_time(SyncRun *run, const JsonbValue *v)
{
	TimestampTz result;

	if (v->type == jbvNumeric)
	{
		float8		ms = DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(v->val.numeric)));

		/* seconds would lie in 1970, microseconds far ahead */
		if (!(ms > 1e10 && ms < 1e14))
			bad_answer(run, "has a number for a time that is not milliseconds since 1970");
		return (TimestampTz) (ms * 1000.0) -
			((POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY);
	}
	if (v->type != jbvString || v->val.string.len > MAXDATELEN ||
		v->val.string.len == 0 || v->val.string.val[0] < '0' || v->val.string.val[0] > '9')
		bad_answer(run, "has something else in place of a time");
	result = DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in,
													 CStringGetDatum(pnstrdup(v->val.string.val, v->val.string.len)),
													 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	if (TIMESTAMP_NOT_FINITE(result))
		bad_answer(run, "has something else in place of a time");
	return result;
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
void
sync_rest_begin(SyncRun *run)
{
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
	if (run->since && since_param)
	{
		char	   *overlap = spec_text(run->spec, "list", "since", "overlap");
		Interval   *span = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(overlap ? overlap : "1 min"),
																 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
		TimestampTz from = DatumGetTimestampTz(DirectFunctionCall2(timestamptz_mi_interval,
																   TimestampTzGetDatum(parse_time(run->since)),
																   IntervalPGetDatum(span)));

		url = http_url_add(url, since_param, time_text(from));
	}
	if (run->after && after_param)
		url = http_url_add(url, after_param, run->after);
	run->request = MemoryContextStrdup(run->context, url);
}

/* The body as jsonb; throws if it is none. */
static Jsonb *
read_json(SyncRun *run, HttpExchange *x)
{
	/* 'application/json', 'application/problem+json; charset=...' */
	if (strstr(x->content_type, "json") == NULL)
		bad_answer(run, "is not JSON");
	if (strlen(x->body) != x->len || !pg_verify_mbstr(PG_UTF8, x->body, x->len, true))
		bad_answer(run, "is not UTF-8");
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
											  CStringGetDatum(pg_any_to_server(x->body, x->len, PG_UTF8))));
}

static void
add_item(SyncRun *run, Jsonb *item, SyncPage *page, TimestampTz *newest)
{
	JsonbValue	v;
	char	   *id;
	bool		deleted;
	char	   *payload_path = spec_text(run->spec, "item", NULL, "payload");
	char	   *version_path = spec_text(run->spec, "item", NULL, "version");

	if (!find(spec_text(run->spec, "item", NULL, "id"), item, &v) ||
		(id = scalar_text(&v)) == NULL || id[0] == '\0')
		bad_answer(run, "has an item without an id");
	store_array_add(&page->ids, CStringGetTextDatum(id), false);

	deleted = find(spec_text(run->spec, "item", NULL, "deleted"), item, &v) &&
		!(v.type == jbvBool && !v.val.boolean);
	store_array_add(&page->kinds, CStringGetTextDatum(deleted ? "delete" : "snapshot"), false);

	if (find(version_path, item, &v))
	{
		TimestampTz version = read_time(run, &v);

		*newest = Max(*newest, version);
		store_array_add(&page->versions, TimestampTzGetDatum(version), false);
	}
	else
		store_array_add(&page->versions, (Datum) 0, true);

	if (find(spec_text(run->spec, "item", NULL, "created"), item, &v))
		store_array_add(&page->created, TimestampTzGetDatum(read_time(run, &v)), false);
	else
		store_array_add(&page->created, (Datum) 0, true);

	if (payload_path == NULL || deleted)
		store_array_add(&page->payloads, JsonbPGetDatum(item), false);
	else if (find(payload_path, item, &v))
		store_array_add(&page->payloads, JsonbPGetDatum(JsonbValueToJsonb(&v)), false);
	else
		bad_answer(run, "has an item without a payload");
}

void
sync_rest_read(SyncRun *run, HttpExchange *x, SyncPage *page)
{
	Jsonb	   *json = read_json(run, x);
	JsonbValue	items;
	JsonbValue	next;
	TimestampTz newest = run->newest ? parse_time(run->newest) : DT_NOBEGIN;
	char	   *after = NULL;
	int			n;

	if (!find(spec_text(run->spec, "list", NULL, "items"), json, &items) ||
		items.type != jbvBinary || !JsonContainerIsArray(items.val.binary.data))
		bad_answer(run, "has no list of items where the connector looks for it");
	n = JsonContainerSize(items.val.binary.data);
	if (n > MAX_ITEMS)
		bad_answer(run, "has more than 10,000 items on a page");
	for (int i = 0; i < n; i++)
		add_item(run, JsonbValueToJsonb(getIthJsonbValueFromContainer(items.val.binary.data, i)), page, &newest);

	if (find(spec_text(run->spec, "list", "page", "next"), json, &next))
		after = scalar_text(&next);
	if (after && after[0] == '\0')
		after = NULL;
	if (after && run->after && strcmp(after, run->after) == 0)
		bad_answer(run, "repeats the position of its page");

	if (!TIMESTAMP_NOT_FINITE(newest))
		run->newest = MemoryContextStrdup(run->context, time_text(newest));
	run->after = after ? MemoryContextStrdup(run->context, after) : NULL;
	if (after)
		sync_rest_begin(run);
	else
		run->request = NULL;
}
