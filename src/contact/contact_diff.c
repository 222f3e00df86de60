/*
 * contact_diff.c
 *		What differs between two contacts, as the audit log has it.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "contact/contact.h"

PG_FUNCTION_INFO_V1(contact_diff);

/* What a value shows of an item. */
#define SHOWN_FLAGS		(CI_PRIMARY | CI_VERIFIED | CI_UNVERIFIED)

/* The items of a field. */
typedef struct Items
{
	const ContactItem *items;
	int			n;
} Items;

static Items
items_of(const ContactValue *v, ContactField field)
{
	Items		result = {NULL, 0};
	int			i = 0;

	if (v == NULL)
		return result;
	while (i < v->nitems && v->items[i].field != field)
		i++;
	result.items = &v->items[i];
	while (i + result.n < v->nitems && v->items[i + result.n].field == field)
		result.n++;
	return result;
}

/* Do two items look the same?  Keys do not show, but those of metadata. */
static bool
looks_same(const ContactItem *a, const ContactItem *b)
{
	if ((a->flags & SHOWN_FLAGS) != (b->flags & SHOWN_FLAGS) || !strview_same(a->value, b->value) ||
		!strview_same(a->type, b->type) || !strview_same(a->extension, b->extension))
		return false;
	for (int i = 0; a->field == CF_ADDRESSES && i < CA_COUNT; i++)
		if (!strview_same(a->part[i], b->part[i]))
			return false;
	return a->field != CF_METADATA || strview_same(a->key, b->key);
}

/* Where tombstones were, nothing is. */
static bool
all_look_same(Items a, Items b)
{
	int			i = 0;
	int			k = 0;

	for (;;)
	{
		while (i < a.n && a.items[i].flags & CI_TOMBSTONE)
			i++;
		while (k < b.n && b.items[k].flags & CI_TOMBSTONE)
			k++;
		if (i == a.n || k == b.n)
			return i == a.n && k == b.n;
		if (!looks_same(&a.items[i++], &b.items[k++]))
			return false;
	}
}

static void
push_key(JsonbParseState **state, const char *name)
{
	JsonbValue	v;

	v.type = jbvString;
	v.val.string.val = unconstify(char *, name);
	v.val.string.len = strlen(name);
	(void) pushJsonbValue(state, WJB_KEY, &v);
}

static void
push_side(JsonbParseState **state, const char *side, Items items)
{
	push_key(state, side);
	if (!contact_push_items(state, items.items, items.n))
	{
		JsonbValue	null;

		null.type = jbvNull;
		(void) pushJsonbValue(state, WJB_VALUE, &null);
	}
}

Jsonb *
contact_diff_jsonb(const ContactValue *old, const ContactValue *new, bool *differs)
{
	JsonbParseState *state = NULL;

	*differs = false;
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	for (int f = 0; f < CF_COUNT; f++)
	{
		Items		a = items_of(old, f);
		Items		b = items_of(new, f);

		if (all_look_same(a, b))
			continue;
		*differs = true;
		push_key(&state, contact_field_names[f]);
		(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
		push_side(&state, "old", a);
		push_side(&state, "new", b);
		(void) pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	}
	return JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
}

/*
 * contact_diff(old, new) -> jsonb
 *		The fields that differ, as the audit log has them; NULL is no contact.
 */
Datum
contact_diff(PG_FUNCTION_ARGS)
{
	ContactValue v[2];
	ContactValue *side[2] = {NULL, NULL};
	bool		differs;

	for (int i = 0; i < 2; i++)
	{
		if (PG_ARGISNULL(i))
			continue;
		contact_deform(PG_GETARG_CONTACT_P(i), &v[i]);
		side[i] = &v[i];
	}
	PG_RETURN_JSONB_P(contact_diff_jsonb(side[0], side[1], &differs));
}
