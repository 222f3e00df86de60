/*
 * contact_map.c
 *		A provider's JSON to ours, by a mapping that is data.
 *
 * A mapping has the shape of a contact.  What stands for a value is told in
 * contact_value.c; an array for a single field holds such, of which the first counts
 * that finds something.  A list holds templates of elements, and a template with
 * "$each" is repeated for every item that this path finds, which is then the "$" of
 * its other members; with "$split", for every part of a text.  In metadata, "$rest"
 * stands for all members of the payload that it does not except.
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
#include "contact/contact_value.h"

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

		if (!contact_value_is_path(template))
		{
			contact_value_push(state, WJB_ELEM, &found);
			return;
		}
		all = contact_value_find_all(template, payload);
		for (int i = 0; i < JB_ROOT_COUNT(all); i++)
		{
			found = *getIthJsonbValueFromContainer(&all->root, i);
			*spoken = true;
			if (found.type == jbvNull)
				continue;
			contact_value_to_text(&found);
			contact_value_push(state, WJB_ELEM, &found);
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
		if (contact_value_is_found(&v))
		{
			if (!contact_value_find(&v, payload, &values[n]))
				continue;
			*spoken = true;
			if (values[n].type == jbvNull ||
				(values[n].type == jbvString && values[n].val.string.len == 0))
				continue;
			contact_value_to_text(&values[n]);
			any = true;
		}
		n++;
	}
	if (!any)
		return;
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	for (int i = 0; i < n; i++)
	{
		contact_value_push(state, WJB_KEY, &keys[i]);
		contact_value_push(state, WJB_VALUE, &values[i]);
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
			map_element(template, contact_value_jsonb(&part), state, spoken);
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
			Jsonb	   *all = contact_value_find_all(each, payload);
			int			n = JB_ROOT_COUNT(all);

			for (int i = 0; i < n; i++)
			{
				JsonbValue *item = getIthJsonbValueFromContainer(&all->root, i);

				CHECK_FOR_INTERRUPTS();
				*spoken = true;
				if (split && item->type == jbvString)
					map_parts(&v, item, split, state, spoken);
				else
					map_element(&v, contact_value_jsonb(item), state, spoken);
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

/* Nothing that would be worth a key. */
static bool
is_empty(const JsonbValue *v)
{
	return v->type == jbvNull || (v->type == jbvString && v->val.string.len == 0) ||
		(v->type == jbvBinary && JsonContainerSize(v->val.binary.data) == 0);
}

/* All members of an object of the payload, less some, as {prefix}{name}. */
static void
map_rest(JsonbContainer *rest, Jsonb *payload, JsonbParseState **state)
{
	JsonbValue *of = getKeyJsonValueFromContainer(rest, "of", 2, NULL);
	JsonbValue *prefix = getKeyJsonValueFromContainer(rest, "prefix", 6, NULL);
	JsonbValue *except = getKeyJsonValueFromContainer(rest, "except", 6, NULL);
	JsonbIterator *it;
	JsonbValue	object;
	JsonbValue	v;

	if (of)
	{
		if (!contact_map_find(of, payload, &object))
			return;
	}
	else
	{
		object.type = jbvBinary;
		object.val.binary.data = &payload->root;
	}
	if (object.type != jbvBinary || !JsonContainerIsObject(object.val.binary.data))
		return;
	it = JsonbIteratorInit(object.val.binary.data);
	(void) JsonbIteratorNext(&it, &v, true);
	while (JsonbIteratorNext(&it, &v, true) == WJB_KEY)
	{
		JsonbValue	name = v;

		(void) JsonbIteratorNext(&it, &v, true);
		if (is_empty(&v) || (except && findJsonbValueFromContainer(except->val.binary.data, JB_FARRAY, &name)))
			continue;
		if (prefix)
		{
			char	   *text = psprintf("%.*s%.*s", prefix->val.string.len, prefix->val.string.val, name.val.string.len, name.val.string.val);

			name.val.string.val = text;
			name.val.string.len = strlen(text);
		}
		contact_value_push(state, WJB_KEY, &name);
		contact_value_push(state, WJB_VALUE, &v);
	}
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

			if (!contact_value_find_first(v.val.binary.data, payload, &found))
				continue;
			contact_value_to_text(&found);
			contact_value_push(&state, WJB_KEY, &key);
			contact_value_push(&state, WJB_VALUE, &found);
		}
		else if (v.type == jbvBinary && JsonContainerIsArray(v.val.binary.data))
		{
			JsonbParseState *list = NULL;
			JsonbValue *elements = map_list(&v, payload, &list, &spoken);

			if (patch && !spoken)
				continue;
			contact_value_push(&state, WJB_KEY, &key);
			contact_value_push(&state, WJB_VALUE, elements);
		}
		else if (v.type == jbvBinary && key_is(&key, "metadata"))
		{
			/* key by key */
			JsonbIterator *members = JsonbIteratorInit(v.val.binary.data);
			JsonbValue	m;

			contact_value_push(&state, WJB_KEY, &key);
			(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
			(void) JsonbIteratorNext(&members, &m, true);
			while ((token = JsonbIteratorNext(&members, &m, true)) == WJB_KEY)
			{
				JsonbValue	name = m;
				JsonbValue	found;

				(void) JsonbIteratorNext(&members, &m, true);
				if (key_is(&name, "$rest"))
				{
					map_rest(m.val.binary.data, payload, &state);
					continue;
				}
				found = m;
				if (contact_value_is_found(&m) && !contact_value_find(&m, payload, &found))
					continue;
				contact_value_push(&state, WJB_KEY, &name);
				contact_value_push(&state, WJB_VALUE, &found);
			}
			(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
		}
		else
		{
			JsonbValue	found = v;

			if (contact_value_is_found(&v))
			{
				if (!contact_value_find(&v, payload, &found))
					continue;
				contact_value_to_text(&found);
			}
			contact_value_push(&state, WJB_KEY, &key);
			contact_value_push(&state, WJB_VALUE, &found);
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
		/* what "$rest" stands for, nobody can say beforehand: such a snapshot speaks about all of metadata */
		if (field == CF_METADATA && v.type == jbvBinary && JsonContainerIsObject(v.val.binary.data) &&
			getKeyJsonValueFromContainer(v.val.binary.data, "$rest", 5, NULL) == NULL)
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
