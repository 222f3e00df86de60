/*
 * sync_page.c
 *		The items of an answer as the rows of a page.
 *
 * One bad item costs that item: its row says why.  An answer that is no page at
 * all costs the run.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "funcapi.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "sync/sync.h"

#define MAX_ITEMS		10000
#define MAX_HISTORY		1000	/* changes of one item */

PG_FUNCTION_INFO_V1(sync_test_connector_sql);

static void
set_last(StoreArray *column, Datum value)
{
	column->values[column->n - 1] = value;
	column->nulls[column->n - 1] = false;
}

/* Set a column to the time that a path finds; false if there is none. */
static bool
add_time(SyncPage *page, StoreArray *column, const char *path, Jsonb *item, const char *fault, TimestampTz *time)
{
	JsonbValue	v;

	if (!sync_find(path, item, &v))
		return false;
	if (!sync_read_time(&v, time))
	{
		set_last(&page->faults, CStringGetTextDatum(fault));
		return false;
	}
	set_last(column, TimestampTzGetDatum(*time));
	return true;
}

/* A change of an item's history, and where it stands in the document. */
typedef struct Change
{
	TimestampTz at;
	char	   *name;
	Jsonb	   *value;
} Change;

static int
change_cmp(const void *a, const void *b)
{
	const Change *x = a;
	const Change *y = b;

	return x->at != y->at ? (x->at < y->at ? -1 : 1) : strcmp(x->name, y->name);
}

/* {"name": [{"value", "timestamp"}, ...]} as changes. */
static int
read_history(JsonbContainer *history, Change *changes)
{
	JsonbIterator *it = JsonbIteratorInit(history);
	JsonbValue	v;
	int			n = 0;

	(void) JsonbIteratorNext(&it, &v, true);
	while (JsonbIteratorNext(&it, &v, true) == WJB_KEY)
	{
		char	   *name = pnstrdup(v.val.string.val, v.val.string.len);

		(void) JsonbIteratorNext(&it, &v, true);
		if (v.type != jbvBinary || !JsonContainerIsArray(v.val.binary.data))
			continue;
		for (int i = 0; i < JsonContainerSize(v.val.binary.data) && n < MAX_HISTORY; i++)
		{
			JsonbValue *entry = getIthJsonbValueFromContainer(v.val.binary.data, i);
			JsonbValue *value;
			JsonbValue *at;

			if (entry->type != jbvBinary || !JsonContainerIsObject(entry->val.binary.data))
				continue;
			value = getKeyJsonValueFromContainer(entry->val.binary.data, "value", 5, NULL);
			at = getKeyJsonValueFromContainer(entry->val.binary.data, "timestamp", 9, NULL);
			if (value == NULL || at == NULL || !sync_read_time(at, &changes[n].at))
				continue;
			changes[n].name = name;
			changes[n].value = JsonbValueToJsonb(value);
			n++;
		}
	}
	qsort(changes, n, sizeof(Change), change_cmp);
	return n;
}

/* {"properties": {name: value, ...}}: a part of an item, in the form of an item. */
static Jsonb *
part_of_item(const Change *changes, int n)
{
	JsonbParseState *state = NULL;
	JsonbValue	v;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	v.type = jbvString;
	v.val.string.val = "properties";
	v.val.string.len = 10;
	(void) pushJsonbValue(&state, WJB_KEY, &v);
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < n; i++)
	{
		v.type = jbvString;
		v.val.string.val = changes[i].name;
		v.val.string.len = strlen(changes[i].name);
		(void) pushJsonbValue(&state, WJB_KEY, &v);
		if (!JB_ROOT_IS_SCALAR(changes[i].value) || !JsonbExtractScalar(&changes[i].value->root, &v))
			v.type = jbvNull;
		(void) pushJsonbValue(&state, WJB_VALUE, &v);
	}
	(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/* What an item says of its past: a patch for each moment at which something changed. */
static void
add_history(const SyncStep *step, Jsonb *item, const char *id, SyncPage *page)
{
	JsonbValue	v;
	Change	   *changes;
	int			n;

	if (!sync_find(step->item.history, item, &v) || v.type != jbvBinary || !JsonContainerIsObject(v.val.binary.data))
		return;
	changes = palloc(sizeof(Change) * MAX_HISTORY);
	n = read_history(v.val.binary.data, changes);
	for (int first = 0, next; first < n; first = next)
	{
		for (next = first + 1; next < n && changes[next].at == changes[first].at; next++)
			;
		sync_add_row(page, id, "patch");
		set_last(&page->versions, TimestampTzGetDatum(changes[first].at));
		set_last(&page->payloads, JsonbPGetDatum(part_of_item(&changes[first], next - first)));
	}
}

/* {"into": id} */
static Datum
merged_into(const char *id)
{
	return sync_object(1, (const char *const[]) {"into"}, (const char *const[]) {id});
}

static void
add_merged(SyncPage *page, const char *old, const char *id)
{
	if (old == NULL || old[0] == '\0' || strcmp(old, id) == 0)
		return;
	sync_add_row(page, old, "merged");
	set_last(&page->payloads, merged_into(id));
}

/* Ids that an item had before, or of those that were merged into it: an array, or a text with semicolons. */
static void
add_replaced(const SyncStep *step, Jsonb *item, const char *id, SyncPage *page)
{
	JsonbValue	v;
	char	   *text;

	if (!sync_find(step->item.replaces, item, &v))
		return;
	if (v.type == jbvBinary && JsonContainerIsArray(v.val.binary.data))
	{
		for (int i = 0; i < JsonContainerSize(v.val.binary.data); i++)
			add_merged(page, sync_scalar_text(getIthJsonbValueFromContainer(v.val.binary.data, i)), id);
	}
	else if ((text = sync_scalar_text(&v)) != NULL)
	{
		for (char *next, *at = text; at; at = next)
		{
			next = strchr(at, ';');
			if (next)
				*next++ = '\0';
			add_merged(page, at, id);
		}
	}
}

void
sync_add_item(const SyncStep *step, Jsonb *item, SyncPage *page, TimestampTz *newest)
{
	JsonbValue	v;
	char	   *id;
	char	   *into = NULL;
	bool		deleted;
	TimestampTz time;

	if (!sync_find(step->item.id, item, &v) || (id = sync_scalar_text(&v)) == NULL || id[0] == '\0')
		sync_bad_answer("has an item without an id");
	deleted = sync_find(step->item.deleted, item, &v) && !(v.type == jbvBool && !v.val.boolean);
	if (deleted && sync_find(step->item.into, item, &v) && (into = sync_scalar_text(&v)) != NULL && strcmp(into, id) == 0)
		into = NULL;
	if (!deleted)
	{
		add_history(step, item, id, page);
		add_replaced(step, item, id, page);
	}
	sync_add_row(page, id, !deleted ? "snapshot" : into ? "merged" : step->only_known ? "gone" : "delete");

	if (add_time(page, &page->versions, step->item.version, item, "the version of the item is not a time", &time))
		*newest = Max(*newest, time);
	(void) add_time(page, &page->created, step->item.created, item, "the creation time of the item is not a time", &time);
	(void) add_time(page, &page->modified, step->item.modified, item, "the modification time of the item is not a time", &time);
	if (into)
		set_last(&page->payloads, merged_into(into));
	else if (step->item.payload == NULL || deleted)
		set_last(&page->payloads, JsonbPGetDatum(item));
	else if (sync_find(step->item.payload, item, &v))
		set_last(&page->payloads, JsonbPGetDatum(JsonbValueToJsonb(&v)));
	else
		set_last(&page->faults, CStringGetTextDatum("the item has no payload where the connector looks for it"));
}

JsonbContainer *
sync_page_items(const SyncStep *step, Jsonb *json, bool optional)
{
	JsonbValue	v;

	if (!sync_find(step->items, json, &v))
	{
		/* some leave an empty list out, and the end of all pages is proof enough */
		if (optional)
			return NULL;
		sync_bad_answer("has no list of items where the connector looks for it");
	}
	if (v.type != jbvBinary || !JsonContainerIsArray(v.val.binary.data))
		sync_bad_answer("has no list of items where the connector looks for it");
	if (JsonContainerSize(v.val.binary.data) > MAX_ITEMS)
		sync_bad_answer("has more than 10,000 items on a page");
	return v.val.binary.data;
}

bool
sync_page_ends(const SyncStep *step, Jsonb *json)
{
	JsonbValue	v;

	return sync_find(step->end, json, &v) && !(v.type == jbvBool && !v.val.boolean);
}

/* Is an item all there is to know of it, or has it to be fetched? */
bool
sync_item_is_whole(const SyncStep *step, Jsonb *item)
{
	JsonbValue	v;

	return step->fetch_path == NULL || sync_find(step->fetch_unless, item, &v) ||
		(sync_find(step->item.deleted, item, &v) && !(v.type == jbvBool && !v.val.boolean));
}

/*
 * _test_connector(connector text, sample jsonb, step integer)
 *		What a page becomes: a row for each event, with the payload that is mapped.
 */
Datum
sync_test_connector_sql(PG_FUNCTION_ARGS)
{
	ReturnSetInfo *rsinfo = (ReturnSetInfo *) fcinfo->resultinfo;
	Jsonb	   *json = PG_GETARG_JSONB_P(1);
	int			number = PG_GETARG_INT32(2);
	SyncSpec	spec;
	const SyncStep *step;
	SyncPage	page;
	JsonbContainer *items;
	JsonbValue	next;
	char	   *after = NULL;
	TimestampTz newest = DT_NOBEGIN;
	int			n;

	InitMaterializedSRF(fcinfo, MAT_SRF_USE_EXPECTED_DESC);
	sync_read_spec(PG_GETARG_JSONB_P(0), &spec);
	if (number < (spec.partitioned ? -1 : 0) || number > spec.nchanges)
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("the connector has no step %d", number),
				 errhint("Step 0 is \"list\", those after it are those of \"changes\", and -1 is \"partitions\".")));
	step = number < 0 ? &spec.partitions : number == 0 ? &spec.list : &spec.changes[number - 1];
	if (number < 0)
		spec.partitions.item = (SyncItem) {.id = spec.partition_id};
	sync_page_init(&page);
	items = sync_page_items(step, json, sync_page_ends(step, json));
	n = items ? JsonContainerSize(items) : 0;
	if ((sync_find(step->page_next, json, &next) || sync_find(step->token_next, json, &next)))
		after = sync_scalar_text(&next);
	for (int i = 0; i < n; i++)
	{
		int			first = page.ids.n;
		Jsonb	   *item = JsonbValueToJsonb(getIthJsonbValueFromContainer(items, i));

		sync_add_item(step, item, &page, &newest);
		if (number < 0)
			page.kinds.values[first] = CStringGetTextDatum("partition");
		for (int row = first; row < page.ids.n; row++)
		{
			/* item, source_id, version, kind, payload, fault, next */
			Datum		values[7] = {Int32GetDatum(i + 1), page.ids.values[row], page.versions.values[row],
				page.kinds.values[row], page.payloads.values[row], page.faults.values[row], (Datum) 0};
			bool		nulls[7] = {false, false, page.versions.nulls[row], false, page.payloads.nulls[row],
				page.faults.nulls[row], after == NULL};

			if (after)
				values[6] = CStringGetTextDatum(after);
			if (page.faults.nulls[row] && !sync_item_is_whole(step, item))
			{
				values[5] = CStringGetTextDatum("the item is not whole: it will be fetched");
				nulls[5] = false;
			}
			tuplestore_putvalues(rsinfo->setResult, rsinfo->setDesc, values, nulls);
		}
	}
	return (Datum) 0;
}
