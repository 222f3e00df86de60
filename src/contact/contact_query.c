/*
 * contact_query.c
 *		Operators that look into contacts or make one of two.
 *
 * All of them see values only: tombstones are nothing.  What is taken into a
 * result keeps its stamp.  @> and && are LEAKPROOF, and so may raise no error
 * that depends on what a value holds.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgroids.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/selfuncs.h"

#include "compat.h"
#include "contact/contact.h"

PG_FUNCTION_INFO_V1(contact_contains);
PG_FUNCTION_INFO_V1(contact_contained);
PG_FUNCTION_INFO_V1(contact_has_any_key);
PG_FUNCTION_INFO_V1(contact_keysel);
PG_FUNCTION_INFO_V1(contact_concat);
PG_FUNCTION_INFO_V1(contact_delete);
PG_FUNCTION_INFO_V1(contact_delete_array);

/*
 * Is all that the right says in the left?  Scalars and metadata by their
 * value, elements of lists by their key: how an address is spelled and
 * labelled does not make it another one.
 */
static bool
contains(Datum left, Datum right)
{
	ContactReader l;
	ContactReader r;
	bool		result = true;

	contact_read(&r, right, ~((uint32) 0), true);
	contact_read(&l, left, r.map, true);
	for (ContactField field = 0; field < CF_COUNT; field++)
	{
		int			end;

		for (int i = contact_read_field(&r, field, &end); i < end && result; i++)
		{
			ContactItem said;
			ContactItem found;

			contact_read_item(&r, field, i, &said);
			if (said.flags & CI_TOMBSTONE)
				continue;
			result = contact_read_find(&l, field, said.key, &found);
			if (result && (!CF_IS_LIST(field) || field == CF_METADATA))
				result = strview_cmp(found.value, said.value) == 0;
		}
	}
	if (l.copy)
		pfree(l.copy);
	if (r.copy)
		pfree(r.copy);
	return result;
}

/*
 * contact @> contact
 */
Datum
contact_contains(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(contains(PG_GETARG_DATUM(0), PG_GETARG_DATUM(1)));
}

/*
 * contact <@ contact
 */
Datum
contact_contained(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(contains(PG_GETARG_DATUM(1), PG_GETARG_DATUM(0)));
}

/*
 * contact && text[]: whether any of these is among its contact_keys
 */
Datum
contact_has_any_key(PG_FUNCTION_ARGS)
{
	ArrayType  *array = PG_GETARG_ARRAYTYPE_P(1);
	ContactReader r;
	Datum	   *keys;
	bool	   *nulls;
	int			nkeys;
	bool		result = false;

	contact_read(&r, PG_GETARG_DATUM(0), CF_BIT(CF_EMAILS) | CF_BIT(CF_PHONES), true);
	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &keys, &nulls, &nkeys);
	for (int i = 0; i < nkeys && !result; i++)
	{
		ContactField field;
		StrView		key;
		ContactItem found;

		if (!nulls[i] && contact_key_of_text(DatumGetTextPP(keys[i]), &field, &key))
			result = contact_read_find(&r, field, key, &found) &&
				contact_key_recognises(field, key);
	}
	pfree(keys);
	pfree(nulls);
	if (r.copy)
		pfree(r.copy);
	PG_FREE_IF_COPY(array, 1);
	PG_RETURN_BOOL(result);
}

/* Contacts that share a key, where it is not a person's own. */
#define ROWS_PER_KEY		2

/*
 * Selectivity of contact && text[].  A key belongs to hardly more than one
 * contact, so a sample knows nothing of it and its size says all.
 */
Datum
contact_keysel(PG_FUNCTION_ARGS)
{
	PlannerInfo *root = (PlannerInfo *) PG_GETARG_POINTER(0);
	List	   *args = (List *) PG_GETARG_POINTER(2);
	int			relation = PG_GETARG_INT32(3);
	VariableStatData contacts;
	Node	   *keys;
	bool		left;
	double		nkeys = 1;
	double		rows = 0;

	if (!get_restriction_variable(root, args, relation, &contacts, &keys, &left))
		PG_RETURN_FLOAT8(DEFAULT_MATCHING_SEL);
	if (IsA(keys, Const) && ((Const *) keys)->constisnull)
		nkeys = 0;
	else if (left)
		nkeys = estimate_array_length_in(root, keys);
	if (contacts.rel)
		rows = contacts.rel->tuples;
	ReleaseVariableStats(contacts);
	PG_RETURN_FLOAT8(Min(1.0, nkeys * ROWS_PER_KEY / Max(rows, 100.0)));
}

/* Bits of the lists in which an element is primary. */
static uint32
primary_lists(const ContactValue *v)
{
	uint32		lists = 0;

	for (int i = 0; i < v->nitems; i++)
		if ((v->items[i].flags & (CI_PRIMARY | CI_TOMBSTONE)) == CI_PRIMARY)
			lists |= CF_BIT(v->items[i].field);
	return lists;
}

/* Next item that is a value, from *i on; NULL at the end. */
static const ContactItem *
next_live(const ContactValue *v, int *i)
{
	while (*i < v->nitems && (v->items[*i].flags & CI_TOMBSTONE))
		(*i)++;
	return *i < v->nitems ? &v->items[*i] : NULL;
}

/*
 * contact || contact
 *		Both of two; where they have a value of one identity, that of the right.
 */
Datum
contact_concat(PG_FUNCTION_ARGS)
{
	ContactValue a;
	ContactValue b;
	ContactValue v = {0};
	uint32		primary;
	const ContactItem *x;
	const ContactItem *y;
	int			i = 0;
	int			j = 0;

	contact_deform(PG_GETARG_CONTACT_P(0), &a);
	contact_deform(PG_GETARG_CONTACT_P(1), &b);
	primary = primary_lists(&b);
	v.items = palloc(sizeof(ContactItem) * Max(a.nitems + b.nitems, 1));
	v.stamps = palloc(sizeof(ContactStamp) * Max(a.nstamps + b.nstamps, 1));
	v.nstamps = a.nstamps + b.nstamps;
	memcpy(v.stamps, a.stamps, sizeof(ContactStamp) * a.nstamps);
	memcpy(v.stamps + a.nstamps, b.stamps, sizeof(ContactStamp) * b.nstamps);

	for (;;)
	{
		ContactItem *into = &v.items[v.nitems];
		int			r;

		x = next_live(&a, &i);
		y = next_live(&b, &j);
		if (!x && !y)
			break;
		r = !x ? 1 : !y ? -1 : contact_item_cmp(x, y);
		*into = r < 0 ? *x : *y;
		if (r < 0 && (primary & CF_BIT(into->field)))
			into->flags &= ~CI_PRIMARY; /* a list has one, and the right names it */
		if (r >= 0 && into->stamp >= 0)
			into->stamp += a.nstamps;
		i += r <= 0;
		j += r >= 0;
		v.nitems++;
	}
	PG_RETURN_CONTACT_P(contact_form(&v));
}

/* The contact without the fields of a mask. */
static Contact *
without(Contact *c, uint32 fields)
{
	ContactValue v;
	int			n = 0;

	contact_deform(c, &v);
	for (int i = 0; i < v.nitems; i++)
		if (!(fields & CF_BIT(v.items[i].field)))
			v.items[n++] = v.items[i];
	v.nitems = n;
	return contact_form(&v);
}

/* Bit of the field that a text names; none of a name that is no field's. */
static uint32
field_bit(const text *name)
{
	int			field = contact_field_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));

	return field < 0 ? 0 : CF_BIT(field);
}

/* Bits of the fields that an array names. */
static uint32
field_bits(ArrayType *array)
{
	Datum	   *names;
	bool	   *nulls;
	int			n;
	uint32		fields = 0;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &names, &nulls, &n);
	for (int i = 0; i < n; i++)
		if (!nulls[i])
			fields |= field_bit(DatumGetTextPP(names[i]));
	return fields;
}

/*
 * contact - text
 *		A literal without a type is taken for a text; as no field's name begins
 *		with a brace, what does is the array that it looks like.
 */
Datum
contact_delete(PG_FUNCTION_ARGS)
{
	text	   *name = PG_GETARG_TEXT_PP(1);
	uint32		fields;

	if (VARSIZE_ANY_EXHDR(name) > 0 && *VARDATA_ANY(name) == '{')
		fields = field_bits(DatumGetArrayTypeP(OidInputFunctionCall(F_ARRAY_IN, text_to_cstring(name), TEXTOID, -1)));
	else
		fields = field_bit(name);
	PG_RETURN_CONTACT_P(without(PG_GETARG_CONTACT_P(0), fields));
}

/*
 * contact - text[]
 */
Datum
contact_delete_array(PG_FUNCTION_ARGS)
{
	PG_RETURN_CONTACT_P(without(PG_GETARG_CONTACT_P(0), field_bits(PG_GETARG_ARRAYTYPE_P(1))));
}
