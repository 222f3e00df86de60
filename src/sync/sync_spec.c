/*
 * sync_spec.c
 *		A connector's description as structs.
 *
 * That it is well formed was checked by _check_connector(); what is missing here
 * is missing there on purpose, and stays NULL.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "sync/sync.h"

/* Where a member is kept; group NULL = a member of the step itself. */
typedef struct TextMember
{
	const char *group;
	const char *name;
	size_t		offset;
} TextMember;

static const TextMember step_texts[] = {
	{NULL, "method", offsetof(SyncStep, method)},
	{NULL, "path", offsetof(SyncStep, path)},
	{NULL, "items", offsetof(SyncStep, items)},
	{NULL, "end", offsetof(SyncStep, end)},
	{NULL, "total", offsetof(SyncStep, total)},
	{"page", "param", offsetof(SyncStep, page_param)},
	{"page", "next", offsetof(SyncStep, page_next)},
	{"page", "key", offsetof(SyncStep, page_key)},
	{"page", "start", offsetof(SyncStep, page_start)},
	{"since", "param", offsetof(SyncStep, since_param)},
	{"since", "overlap", offsetof(SyncStep, since_overlap)},
	{"since", "covered", offsetof(SyncStep, covered)},
	{"since", "available_from", offsetof(SyncStep, available_from)},
	{"token", "next", offsetof(SyncStep, token_next)},
	{"fetch", "path", offsetof(SyncStep, fetch_path)},
	{"fetch", "unless", offsetof(SyncStep, fetch_unless)},
};

static const TextMember item_texts[] = {
	{"item", "id", offsetof(SyncItem, id)},
	{"item", "version", offsetof(SyncItem, version)},
	{"item", "created", offsetof(SyncItem, created)},
	{"item", "modified", offsetof(SyncItem, modified)},
	{"item", "deleted", offsetof(SyncItem, deleted)},
	{"item", "into", offsetof(SyncItem, into)},
	{"item", "payload", offsetof(SyncItem, payload)},
	{"item", "replaces", offsetof(SyncItem, replaces)},
	{"item", "history", offsetof(SyncItem, history)},
};

/* A member of an object, or of an object in it; NULL if there is none. */
static JsonbValue *
member(JsonbContainer *object, const char *group, const char *name)
{
	JsonbValue *v;

	if (object == NULL || !JsonContainerIsObject(object))
		return NULL;
	v = getKeyJsonValueFromContainer(object, group ? group : name, strlen(group ? group : name), NULL);
	if (group == NULL || v == NULL)
		return v;
	return v->type == jbvBinary ? member(v->val.binary.data, NULL, name) : NULL;
}

static char *
text_member(JsonbContainer *object, const char *group, const char *name)
{
	JsonbValue *v = member(object, group, name);

	return v ? sync_scalar_text(v) : NULL;
}

static JsonbContainer *
object_member(JsonbContainer *object, const char *group, const char *name)
{
	JsonbValue *v = member(object, group, name);

	return v && v->type == jbvBinary && JsonContainerIsObject(v->val.binary.data) ? v->val.binary.data : NULL;
}

static JsonbContainer *
array_member(Jsonb *json, const char *group, const char *name)
{
	JsonbValue *v = member(&json->root, group, name);

	return v && v->type == jbvBinary && JsonContainerIsArray(v->val.binary.data) ? v->val.binary.data : NULL;
}

static void
read_texts(JsonbContainer *from, const TextMember *members, int n, void *to)
{
	for (int i = 0; i < n; i++)
	{
		char	   *text = text_member(from, members[i].group, members[i].name);

		if (text)
			*(char **) ((char *) to + members[i].offset) = text;
	}
}

static bool
is_true(JsonbContainer *object, const char *name)
{
	JsonbValue *v = member(object, NULL, name);

	return v && v->type == jbvBool && v->val.boolean;
}

/* Which of some words a member is; the first if it is missing. */
static int
word_member(JsonbContainer *object, const char *group, const char *name, const char *const *words, int n)
{
	char	   *text = text_member(object, group, name);

	for (int i = 0; text && i < n; i++)
		if (strcmp(text, words[i]) == 0)
			return i;
	return 0;
}

SyncRate
sync_read_rate(Jsonb *json, const char *group)
{
	JsonbContainer *rate = object_member(&json->root, group, "rate");
	char	   *requests = rate ? text_member(rate, NULL, "requests") : NULL;
	char	   *per = rate ? text_member(rate, NULL, "per") : NULL;
	SyncRate	result = {0};

	if (requests == NULL)
		return result;
	result.requests = pg_strtoint32(requests);
	result.per_us = USECS_PER_SEC;
	if (per)
	{
		Interval   *span = DatumGetIntervalP(DirectFunctionCall3(interval_in, CStringGetDatum(per),
																 ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));

		result.per_us = Max(span->time + span->day * USECS_PER_DAY, 1);
	}
	return result;
}

static void
read_step(JsonbContainer *json, const SyncSpec *spec, SyncStep *step)
{
	static const char *const styles[] = {"none", "cursor", "url", "link", "offset", "keyset"};
	static const char *const formats[] = {"iso", "iso_seconds", "seconds", "ms"};
	static const char *const tokens[] = {"value", "url"};

	memset(step, 0, sizeof(*step));
	read_texts(json, step_texts, lengthof(step_texts), step);
	/* an item is described for all steps, and for one of them otherwise */
	read_texts(&spec->json->root, item_texts, lengthof(item_texts), &step->item);
	read_texts(json, item_texts, lengthof(item_texts), &step->item);
	step->query = object_member(json, NULL, "query");
	step->headers = object_member(json, NULL, "headers");
	step->body = member(json, NULL, "body");
	step->fetch_query = object_member(json, "fetch", "query");
	step->only_known = is_true(json, "only_known");
	step->paging = word_member(json, "page", "style", styles, lengthof(styles));
	if (step->paging == SYNC_PAGE_NONE && step->page_next)
		step->paging = SYNC_PAGE_CURSOR;
	step->since_format = word_member(json, "since", "format", formats, lengthof(formats));
	step->token_is_url = word_member(json, "token", "style", tokens, lengthof(tokens)) == 1;
	if (step->method == NULL)
		step->method = step->body ? "POST" : "GET";
	if (step->since_overlap == NULL)
		step->since_overlap = "1 min";
}

void
sync_read_spec(Jsonb *json, SyncSpec *spec)
{
	JsonbValue *list = member(&json->root, NULL, "list");
	JsonbValue *changes = member(&json->root, NULL, "changes");
	JsonbContainer *partitions = object_member(&json->root, NULL, "partitions");
	JsonbContainer *get = object_member(&json->root, NULL, "get");

	memset(spec, 0, sizeof(*spec));
	spec->json = json;
	read_step(list->val.binary.data, spec, &spec->list);
	if (partitions)
	{
		spec->partitioned = true;
		read_step(partitions, spec, &spec->partitions);
		spec->partition_id = text_member(partitions, NULL, "id");
		spec->nested = text_member(partitions, NULL, "nested");
		spec->only = text_member(partitions, NULL, "only");
		spec->fixed = array_member(json, "partitions", "fixed");
	}
	if (changes)
	{
		spec->nchanges = JsonContainerSize(changes->val.binary.data);
		spec->changes = palloc0(sizeof(SyncStep) * Max(spec->nchanges, 1));
		for (int i = 0; i < spec->nchanges; i++)
			read_step(getIthJsonbValueFromContainer(changes->val.binary.data, i)->val.binary.data, spec, &spec->changes[i]);
		/* what changed is always asked for by time, unless a token says more */
		spec->changes_by_token = spec->list.token_next != NULL;
		spec->changes_by_since = !spec->changes_by_token;
	}
	else
	{
		spec->changes_by_token = spec->list.token_next != NULL;
		spec->changes_by_since = member(list->val.binary.data, NULL, "since") != NULL;
	}
	if (get)
	{
		spec->has_get = true;
		read_step(get, spec, &spec->get);
		spec->gone = object_member(get, NULL, "gone");
		spec->gone_path = text_member(get, "gone", "path");
	}
}

/*
 * Does a text stand in a body as a JSON string, or at the beginning of one?  The
 * body of an error need not be JSON, and providers nest their codes as they like.
 */
static bool
body_has(const char *body, size_t len, const char *text, bool prefix)
{
	size_t		n = strlen(text);

	for (const char *p = body; (p = memchr(p, '"', body + len - p)) != NULL; p++)
		if ((size_t) (body + len - p) > n + 1 && pg_strncasecmp(p + 1, text, n) == 0 && (prefix || p[n + 1] == '"'))
			return true;
	return false;
}

bool
sync_answer_listed(Jsonb *spec, const char *group, int status, const char *body, size_t len)
{
	static const char *const names[] = {"status", "codes", "messages"};

	for (int i = 0; i < lengthof(names); i++)
	{
		JsonbContainer *array = array_member(spec, group, names[i]);

		for (int j = 0; array && j < JsonContainerSize(array); j++)
		{
			char	   *listed = sync_scalar_text(getIthJsonbValueFromContainer(array, j));

			if (i == 0 ? atoi(listed) == status :
				status >= 400 && status < 500 && body_has(body, Min(len, 65536), listed, i == 2))
				return true;
		}
	}
	return false;
}

/* Where nothing is listed, 404 and 410, unless they come with a page for people. */
bool
sync_answer_gone(const SyncSpec *spec, const HttpExchange *x)
{
	JsonbValue *status = member(spec->gone, NULL, "status");
	JsonbValue *codes = member(spec->gone, NULL, "codes");
	bool		found = status == NULL && (x->status == 404 || x->status == 410);

	for (int i = 0; status && i < JsonContainerSize(status->val.binary.data); i++)
		found |= atoi(sync_scalar_text(getIthJsonbValueFromContainer(status->val.binary.data, i))) == x->status;
	if (!found)
		return false;
	if (codes == NULL)
		return status != NULL || strstr(x->content_type, "html") == NULL;
	for (int i = 0; i < JsonContainerSize(codes->val.binary.data); i++)
		if (body_has(x->body, Min(x->len, 65536), sync_scalar_text(getIthJsonbValueFromContainer(codes->val.binary.data, i)), false))
			return true;
	return false;
}
