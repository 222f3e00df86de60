/*
 * sync_parts.c
 *		The parts of a source: folders, books, sites, each with a cursor of its own.
 *
 * Where a connector has "partitions", a run first finds out which there are, and
 * then reads one after the other.  The cursor of such a source names the parts
 * that it is the cursor of.  A part that it does not name is read from its start;
 * one that is no longer there makes the run a full one, since nothing will say
 * of its items that they have gone.
 */
#include "postgres.h"

#include "utils/fmgrprotos.h"

#include "compat.h"
#include "sync/sync_parts.h"

#define MAX_PARTS		1000

static SyncPart *
find_part(SyncParts *parts, const char *id)
{
	for (int i = 0; i < parts->n; i++)
		if (strcmp(parts->parts[i].id, id) == 0)
			return &parts->parts[i];
	return NULL;
}

SyncPart *
sync_part_add(SyncRun *run, SyncParts *parts, const char *id)
{
	SyncPart   *part = find_part(parts, id);
	MemoryContext old;

	if (part)
		return part;
	if (parts->n == MAX_PARTS)
		ereport(ERROR,
				(errcode(ERRCODE_PROGRAM_LIMIT_EXCEEDED),
				 errmsg("the source has more than %d partitions", MAX_PARTS),
				 errhint("Let a source read one of them, by its parameters.")));
	old = MemoryContextSwitchTo(run->context);
	if (parts->n == parts->size)
	{
		parts->size = Max(8, parts->size * 2);
		parts->parts = parts->parts ? repalloc(parts->parts, sizeof(SyncPart) * parts->size) : palloc(sizeof(SyncPart) * parts->size);
	}
	part = &parts->parts[parts->n++];
	memset(part, 0, sizeof(*part));
	part->id = pstrdup(id);
	MemoryContextSwitchTo(old);
	return part;
}

static JsonbContainer *
parts_member(Jsonb *json)
{
	JsonbValue *v = json && JB_ROOT_IS_OBJECT(json) ? getKeyJsonValueFromContainer(&json->root, "partitions", 10, NULL) : NULL;

	return v && v->type == jbvBinary ? v->val.binary.data : NULL;
}

bool
sync_parts_in_cursor(Jsonb *cursor)
{
	JsonbContainer *of = parts_member(cursor);

	return of && JsonContainerIsObject(of);
}

bool
sync_parts_from_cursor(SyncRun *run, SyncParts *parts, Jsonb *cursor)
{
	JsonbContainer *of = parts_member(cursor);
	JsonbIterator *it;
	JsonbValue	v;

	if (of == NULL || !JsonContainerIsObject(of))
		return true;
	it = JsonbIteratorInit(of);
	(void) JsonbIteratorNext(&it, &v, true);
	while (JsonbIteratorNext(&it, &v, true) == WJB_KEY)
	{
		SyncPart   *part = find_part(parts, pnstrdup(v.val.string.val, v.val.string.len));

		(void) JsonbIteratorNext(&it, &v, true);
		if (part == NULL)
			return false;
		part->known = true;
		if (v.type == jbvString && v.val.string.len > 0)
			sync_keep(run, &part->token, pnstrdup(v.val.string.val, v.val.string.len));
	}
	return true;
}

bool
sync_parts_from_progress(SyncRun *run, SyncParts *parts, Jsonb *progress)
{
	JsonbContainer *of = parts_member(progress);

	if (of == NULL || !JsonContainerIsArray(of))
		return false;
	for (int i = 0; i < JsonContainerSize(of); i++)
	{
		JsonbValue *pair = getIthJsonbValueFromContainer(of, i);
		char	   *id = sync_scalar_text(getIthJsonbValueFromContainer(pair->val.binary.data, 0));
		char	   *token = sync_scalar_text(getIthJsonbValueFromContainer(pair->val.binary.data, 1));

		sync_keep(run, &sync_part_add(run, parts, id)->next_token, token);
	}
	return true;
}

/* object || {"partitions": ...} */
static Datum
with_parts(Datum object, JsonbValue *parts)
{
	JsonbParseState *outer = NULL;
	Jsonb	   *inner = JsonbValueToJsonb(parts);
	JsonbValue	v;

	(void) pushJsonbValue(&outer, WJB_BEGIN_OBJECT, NULL);
	v.type = jbvString;
	v.val.string.val = "partitions";
	v.val.string.len = 10;
	(void) pushJsonbValue(&outer, WJB_KEY, &v);
	v.type = jbvBinary;
	v.val.binary.data = &inner->root;
	v.val.binary.len = VARSIZE(inner) - VARHDRSZ;
	(void) pushJsonbValue(&outer, WJB_VALUE, &v);
	return DirectFunctionCall2(jsonb_concat, object,
							   JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&outer, WJB_END_OBJECT, NULL))));
}

static JsonbValue
text_value(const char *s)
{
	JsonbValue	v;

	v.type = s ? jbvString : jbvNull;
	v.val.string.val = (char *) s;
	v.val.string.len = s ? strlen(s) : 0;
	return v;
}

Datum
sync_parts_to_progress(const SyncParts *parts, Datum object)
{
	JsonbParseState *state = NULL;
	JsonbValue	v;

	(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
	for (int i = 0; i < parts->n; i++)
	{
		(void) pushJsonbValue(&state, WJB_BEGIN_ARRAY, NULL);
		v = text_value(parts->parts[i].id);
		(void) pushJsonbValue(&state, WJB_ELEM, &v);
		v = text_value(parts->parts[i].next_token);
		(void) pushJsonbValue(&state, WJB_ELEM, &v);
		(void) pushJsonbValue(&state, WJB_END_ARRAY, NULL);
	}
	return with_parts(object, pushJsonbValue(&state, WJB_END_ARRAY, NULL));
}

Datum
sync_parts_to_cursor(const SyncParts *parts, bool by_token, Datum object)
{
	JsonbParseState *state = NULL;
	JsonbValue	v;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < parts->n; i++)
	{
		const SyncPart *part = &parts->parts[i];

		/* without a token it is read from its start again, as if it were new */
		if (by_token && part->next_token == NULL)
			continue;
		v = text_value(part->id);
		(void) pushJsonbValue(&state, WJB_KEY, &v);
		v = text_value(part->next_token ? part->next_token : "");
		(void) pushJsonbValue(&state, WJB_VALUE, &v);
	}
	return with_parts(object, pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}
