/*
 * contact_map.c
 *		A provider's JSON to ours, by a mapping that is data.
 *
 * A mapping has the shape of a contact.  A string that starts with "$" is an
 * SQL/JSON path into the payload, any other value stands for itself; an array for
 * a single field holds paths, of which the first counts that finds something.  A
 * list holds templates of elements, and a template with "$each" is repeated for
 * every item that this path finds, which is then the "$" of its other members;
 * with "$split", for every part of a text.
 *
 * A mapped snapshot speaks only about the fields that its mapping names.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "compat.h"
#include "contact/contact.h"

static bool
is_path(const JsonbValue *v)
{
	return v->type == jbvString && v->val.string.len > 0 && v->val.string.val[0] == '$';
}

static Jsonb *
as_jsonb(const JsonbValue *v)
{
	return JsonbValueToJsonb((JsonbValue *) v);
}

/* Everything a path finds, as a JSON array. */
static Jsonb *
find_all(const JsonbValue *path, Jsonb *payload)
{
	char	   *text = pnstrdup(path->val.string.val, path->val.string.len);
	Datum		compiled = DirectFunctionCall1(jsonpath_in, CStringGetDatum(text));
	Datum		empty = DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));

	return DatumGetJsonbP(DirectFunctionCall4(jsonb_path_query_array, JsonbPGetDatum(payload),
											  compiled, empty, BoolGetDatum(true)));
}

/* A chain of plain member names, the common case, needs no path engine. */
static bool
plain_chain(const JsonbValue *path)
{
	const char *p = path->val.string.val;
	int			len = path->val.string.len;

	for (int i = 1; i < len; i++)
	{
		if (p[i] == '.' && i + 1 < len && p[i + 1] != '.')
			continue;
		if (i == 1 || !((p[i] >= 'a' && p[i] <= 'z') || (p[i] >= 'A' && p[i] <= 'Z') ||
						p[i] == '_' || (p[i - 1] != '.' && p[i] >= '0' && p[i] <= '9')))
			return false;
	}
	return true;
}

/* The first thing a path finds; false if there is none. */
bool
contact_map_find(const JsonbValue *path, Jsonb *payload, JsonbValue *result)
{
	if (plain_chain(path))
	{
		const char *p = path->val.string.val + 1;
		const char *end = path->val.string.val + path->val.string.len;
		JsonbContainer *at = &payload->root;
		JsonbValue *found;

		if (p == end || JB_ROOT_IS_SCALAR(payload))
			goto general;
		for (;;)
		{
			const char *dot = memchr(p + 1, '.', end - p - 1);
			const char *stop = dot ? dot : end;

			if (!JsonContainerIsObject(at))
				goto general;	/* lax mode looks into arrays */
			found = getKeyJsonValueFromContainer(at, p + 1, stop - p - 1, NULL);
			if (found == NULL)
				return false;
			if (dot == NULL)
			{
				*result = *found;
				return true;
			}
			if (found->type != jbvBinary)
				return false;
			at = found->val.binary.data;
			p = dot;
		}
	}
general:
	{
		Jsonb	   *all = find_all(path, payload);
		JsonbValue *first = getIthJsonbValueFromContainer(&all->root, 0);

		if (first == NULL)
			return false;
		*result = *first;
		return true;
	}
}

/* pushJsonbValue unpacks a nested value only where it is binary. */
static void
push(JsonbParseState **state, JsonbIteratorToken seq, JsonbValue *v)
{
	if (v->type == jbvArray || v->type == jbvObject)
	{
		Jsonb	   *whole = JsonbValueToJsonb(v);

		v = palloc(sizeof(JsonbValue));
		v->type = jbvBinary;
		v->val.binary.data = &whole->root;
		v->val.binary.len = VARSIZE(whole) - VARHDRSZ;
	}
	(void) pushJsonbValue(state, seq, v);
}

/* Numbers where a contact has text: telephone numbers and ids, mostly. */
static void
to_text(JsonbValue *v)
{
	if (v->type == jbvNumeric)
	{
		char	   *s = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(v->val.numeric)));

		v->type = jbvString;
		v->val.string.val = s;
		v->val.string.len = strlen(s);
	}
}

static bool
key_is(const JsonbValue *key, const char *name)
{
	return key->val.string.len == strlen(name) && memcmp(key->val.string.val, name, key->val.string.len) == 0;
}

/* One element of a list from its template; nothing if no path of it finds a value. */
static void
map_element(const JsonbValue *template, Jsonb *payload, JsonbParseState **state, bool *spoken)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;
	JsonbValue	keys[16];
	JsonbValue	values[16];
	int			n = 0;
	bool		any = false;

	if (template->type == jbvString)
	{
		JsonbValue	found = *template;
		Jsonb	   *all;

		if (!is_path(template))
		{
			push(state, WJB_ELEM, &found);
			return;
		}
		all = find_all(template, payload);
		for (int i = 0; i < JB_ROOT_COUNT(all); i++)
		{
			found = *getIthJsonbValueFromContainer(&all->root, i);
			*spoken = true;
			if (found.type == jbvNull)
				continue;
			to_text(&found);
			push(state, WJB_ELEM, &found);
		}
		return;
	}
	if (template->type != jbvBinary || !JsonContainerIsObject(template->val.binary.data))
		return;

	it = JsonbIteratorInit(template->val.binary.data);
	token = JsonbIteratorNext(&it, &v, true);
	while ((token = JsonbIteratorNext(&it, &v, true)) == WJB_KEY)
	{
		JsonbValue	key = v;

		(void) JsonbIteratorNext(&it, &v, true);
		if (key_is(&key, "$each") || key_is(&key, "$split") || n == lengthof(keys))
			continue;
		keys[n] = key;
		values[n] = v;
		if (is_path(&v))
		{
			if (!contact_map_find(&v, payload, &values[n]))
				continue;
			*spoken = true;
			if (values[n].type == jbvNull ||
				(values[n].type == jbvString && values[n].val.string.len == 0))
				continue;
			to_text(&values[n]);
			any = true;
		}
		n++;
	}
	if (!any)
		return;
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < n; i++)
	{
		push(state, WJB_KEY, &keys[i]);
		push(state, WJB_VALUE, &values[i]);
	}
	(void) pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/* An element for each part of a text, less the blanks around it. */
static void
map_parts(const JsonbValue *template, const JsonbValue *text, const JsonbValue *separator, JsonbParseState **state, bool *spoken)
{
	const char *p = text->val.string.val;
	const char *end = p + text->val.string.len;

	while (p <= end)
	{
		const char *stop = p;
		JsonbValue	part = {.type = jbvString};

		while (stop < end && (end - stop < separator->val.string.len ||
							  memcmp(stop, separator->val.string.val, separator->val.string.len) != 0))
			stop++;
		part.val.string.val = (char *) p;
		part.val.string.len = stop - p;
		while (part.val.string.len > 0 && part.val.string.val[0] == ' ')
			part.val.string.val++, part.val.string.len--;
		while (part.val.string.len > 0 && part.val.string.val[part.val.string.len - 1] == ' ')
			part.val.string.len--;
		if (part.val.string.len > 0)
			map_element(template, as_jsonb(&part), state, spoken);
		p = stop + separator->val.string.len;
	}
}

/* A list from its templates. */
static JsonbValue *
map_list(const JsonbValue *templates, Jsonb *payload, JsonbParseState **state, bool *spoken)
{
	JsonbIterator *it = JsonbIteratorInit(templates->val.binary.data);
	JsonbIteratorToken token;
	JsonbValue	v;

	(void) pushJsonbValue(state, WJB_BEGIN_ARRAY, NULL);
	(void) JsonbIteratorNext(&it, &v, true);
	while ((token = JsonbIteratorNext(&it, &v, true)) == WJB_ELEM)
	{
		JsonbValue *each = NULL;
		JsonbValue *split = NULL;

		if (v.type == jbvBinary && JsonContainerIsObject(v.val.binary.data))
		{
			each = getKeyJsonValueFromContainer(v.val.binary.data, "$each", 5, NULL);
			split = getKeyJsonValueFromContainer(v.val.binary.data, "$split", 6, NULL);
			if (split && (split->type != jbvString || split->val.string.len == 0))
				split = NULL;
		}
		if (each && each->type == jbvString)
		{
			Jsonb	   *all = find_all(each, payload);
			int			n = JB_ROOT_COUNT(all);

			for (int i = 0; i < n; i++)
			{
				JsonbValue *item = getIthJsonbValueFromContainer(&all->root, i);

				CHECK_FOR_INTERRUPTS();
				*spoken = true;
				if (split && item->type == jbvString)
					map_parts(&v, item, split, state, spoken);
				else
					map_element(&v, as_jsonb(item), state, spoken);
			}
		}
		else
			map_element(&v, payload, state, spoken);
	}
	return pushJsonbValue(state, WJB_END_ARRAY, NULL);
}

static bool
is_list(const JsonbValue *key)
{
	int			field = contact_field_lookup(key->val.string.val, key->val.string.len);

	return field >= 0 && CF_IS_LIST(field);
}

/* What the first of some paths finds that finds something; null only if no other does. */
static bool
find_first(JsonbContainer *paths, Jsonb *payload, JsonbValue *result)
{
	bool		any = false;

	for (int i = 0; i < JsonContainerSize(paths); i++)
	{
		JsonbValue *path = getIthJsonbValueFromContainer(paths, i);
		JsonbValue	found;

		if (path->type != jbvString || !is_path(path) || !contact_map_find(path, payload, &found))
			continue;
		if (!any || found.type != jbvNull)
			*result = found;
		any = true;
		if (found.type != jbvNull)
			return true;
	}
	return any;
}

/*
 * The payload as canonical JSON.  In a patch, a field of which no path finds
 * anything is left out: nothing is claimed of it.
 */
Jsonb *
contact_map(Jsonb *map, Jsonb *payload, bool patch)
{
	JsonbParseState *state = NULL;
	JsonbIterator *it = JsonbIteratorInit(&map->root);
	JsonbIteratorToken token;
	JsonbValue	v;

	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	(void) JsonbIteratorNext(&it, &v, true);
	while ((token = JsonbIteratorNext(&it, &v, true)) == WJB_KEY)
	{
		JsonbValue	key = v;
		bool		spoken = false;

		(void) JsonbIteratorNext(&it, &v, true);
		if (v.type == jbvBinary && JsonContainerIsArray(v.val.binary.data) &&
			!is_list(&key))
		{
			JsonbValue	found;

			if (!find_first(v.val.binary.data, payload, &found))
				continue;
			to_text(&found);
			push(&state, WJB_KEY, &key);
			push(&state, WJB_VALUE, &found);
		}
		else if (v.type == jbvBinary && JsonContainerIsArray(v.val.binary.data))
		{
			JsonbParseState *list = NULL;
			JsonbValue *elements = map_list(&v, payload, &list, &spoken);

			if (patch && !spoken)
				continue;
			push(&state, WJB_KEY, &key);
			push(&state, WJB_VALUE, elements);
		}
		else if (v.type == jbvBinary)
		{
			/* metadata: key by key */
			JsonbIterator *members = JsonbIteratorInit(v.val.binary.data);
			JsonbValue	m;

			push(&state, WJB_KEY, &key);
			(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
			(void) JsonbIteratorNext(&members, &m, true);
			while ((token = JsonbIteratorNext(&members, &m, true)) == WJB_KEY)
			{
				JsonbValue	name = m;
				JsonbValue	found;

				(void) JsonbIteratorNext(&members, &m, true);
				found = m;
				if (is_path(&m) && !contact_map_find(&m, payload, &found))
					continue;
				push(&state, WJB_KEY, &name);
				push(&state, WJB_VALUE, &found);
			}
			(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
		}
		else
		{
			JsonbValue	found = v;

			if (is_path(&v))
			{
				if (!contact_map_find(&v, payload, &found))
					continue;
				to_text(&found);
			}
			push(&state, WJB_KEY, &key);
			push(&state, WJB_VALUE, &found);
		}
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

static int
element_cmp(const void *a, const void *b)
{
	return contact_item_cmp(a, b);
}

/* What a mapped snapshot speaks about: covers and elements of *mask. */
void
contact_map_coverage(Jsonb *map, ContactClaims *mask)
{
	JsonbIterator *it = JsonbIteratorInit(&map->root);
	JsonbIteratorToken token;
	JsonbValue	v;

	memset(mask, 0, sizeof(*mask));
	(void) JsonbIteratorNext(&it, &v, true);
	while ((token = JsonbIteratorNext(&it, &v, true)) == WJB_KEY)
	{
		int			field = contact_field_lookup(v.val.string.val, v.val.string.len);

		(void) JsonbIteratorNext(&it, &v, true);
		if (field == CF_METADATA && v.type == jbvBinary && JsonContainerIsObject(v.val.binary.data))
		{
			int			n = JsonContainerSize(v.val.binary.data);
			JsonbIterator *members = JsonbIteratorInit(v.val.binary.data);

			mask->elements = palloc0(sizeof(ContactItem) * Max(n, 1));
			(void) JsonbIteratorNext(&members, &v, true);
			while ((token = JsonbIteratorNext(&members, &v, true)) == WJB_KEY)
			{
				ContactItem *e = &mask->elements[mask->nelements++];

				e->field = CF_METADATA;
				e->key.ptr = v.val.string.val;
				e->key.len = v.val.string.len;
				(void) JsonbIteratorNext(&members, &v, true);
			}
		}
		else if (field >= 0)
			mask->covers |= CF_BIT(field);
	}
	if (mask->nelements > 1)
		qsort(mask->elements, mask->nelements, sizeof(ContactItem), element_cmp);
}
