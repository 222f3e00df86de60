/*
 * contact_gin.c
 *		GIN support: the operator classes contact_ops and contact_key_ops.
 *
 * A contact is indexed under 32-bit integers:
 *
 *	0 to 17			ContactField: the field has a value, for ?
 *	all others		hash of a field, a key and (of scalars and metadata) a value,
 *					for @>; an element's hash serves && as well
 *
 * contact_key_ops has only the hashes that serve &&, and so is smaller.
 *
 * Against texts of the keys this halves the index and its build, and costs a
 * second look at the few rows found.  Hashes must never change: they are on
 * disk.
 */
#include "postgres.h"

#include "access/gin.h"
#include "access/stratnum.h"
#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "utils/array.h"
#include "utils/builtins.h"

#include "compat.h"
#include "contact/contact.h"

PG_FUNCTION_INFO_V1(gin_extract_contact);
PG_FUNCTION_INFO_V1(gin_extract_contact_keys);
PG_FUNCTION_INFO_V1(gin_extract_contact_query);
PG_FUNCTION_INFO_V1(gin_consistent_contact);
PG_FUNCTION_INFO_V1(gin_triconsistent_contact);

/* The numbers that array_ops and jsonb_ops use for operators of these names. */
#define OVERLAP_STRATEGY		1
#define CONTAINS_STRATEGY		7
#define EXISTS_STRATEGY			9

/*
 * What an item is indexed under: never a field's number.
 */
static Datum
item_entry(ContactField field, StrView key, StrView value)
{
	uint32		h = hash_bytes_uint32(field);

	if (CF_IS_LIST(field))
		h = hash_combine(h, hash_bytes((const unsigned char *) key.ptr, key.len));
	if (!CF_IS_LIST(field) || field == CF_METADATA)
		h = hash_combine(h, hash_bytes((const unsigned char *) value.ptr, value.len));
	return UInt32GetDatum(h < CF_COUNT ? h + CF_COUNT : h);
}

/* The entries of a contact's items, and of its fields if they are wanted. */
static Datum *
contact_entries(Datum contact, bool with_fields, int32 *n)
{
	ContactReader r;
	Datum	   *entries;

	contact_read(&r, contact, ~((uint32) 0), true);
	entries = palloc(sizeof(Datum) * (r.nitems + CF_COUNT));
	*n = 0;
	for (ContactField field = 0; field < CF_COUNT; field++)
	{
		int			end;
		bool		live = false;

		for (int i = contact_read_field(&r, field, &end); i < end; i++)
		{
			ContactItem item;

			contact_read_item(&r, field, i, &item);
			if (item.flags & CI_TOMBSTONE)
				continue;
			if (with_fields && !live)
				entries[(*n)++] = UInt32GetDatum(field);
			live = true;
			entries[(*n)++] = item_entry(field, item.key, item.value);
		}
	}
	if (r.copy)
		pfree(r.copy);
	return entries;
}

Datum
gin_extract_contact(PG_FUNCTION_ARGS)
{
	int32	   *nentries = (int32 *) PG_GETARG_POINTER(1);

	PG_RETURN_POINTER(contact_entries(PG_GETARG_DATUM(0), true, nentries));
}

/*
 * Only what && looks for.
 */
Datum
gin_extract_contact_keys(PG_FUNCTION_ARGS)
{
	int32	   *nentries = (int32 *) PG_GETARG_POINTER(1);
	ContactReader r;
	Datum	   *entries;

	contact_read(&r, PG_GETARG_DATUM(0), CF_BIT(CF_EMAILS) | CF_BIT(CF_PHONES), true);
	entries = palloc(sizeof(Datum) * Max(r.nitems, 1));
	*nentries = 0;
	for (ContactField field = CF_EMAILS; field <= CF_PHONES; field++)
	{
		int			end;

		for (int i = contact_read_field(&r, field, &end); i < end; i++)
		{
			ContactItem item;

			contact_read_item(&r, field, i, &item);
			if (!(item.flags & CI_TOMBSTONE) && contact_key_recognises(field, item.key))
				entries[(*nentries)++] = item_entry(field, item.key, item.value);
		}
	}
	if (r.copy)
		pfree(r.copy);
	PG_RETURN_POINTER(entries);
}

/* The entries of those members of an array that can be keys of contacts. */
static Datum *
array_entries(ArrayType *array, int32 *n)
{
	Datum	   *elements;
	bool	   *nulls;
	int			nelements;

	deconstruct_array(array, TEXTOID, -1, false, TYPALIGN_INT, &elements, &nulls, &nelements);
	*n = 0;
	for (int i = 0; i < nelements; i++)
	{
		ContactField field;
		StrView		key;
		StrView		novalue = {NULL, 0};

		if (!nulls[i] && contact_key_of_text(DatumGetTextPP(elements[i]), &field, &key))
			elements[(*n)++] = item_entry(field, key, novalue);
	}
	return elements;
}

Datum
gin_extract_contact_query(PG_FUNCTION_ARGS)
{
	int32	   *nentries = (int32 *) PG_GETARG_POINTER(1);
	StrategyNumber strategy = PG_GETARG_UINT16(2);
	int32	   *search_mode = (int32 *) PG_GETARG_POINTER(6);
	Datum	   *entries;

	switch (strategy)
	{
		case OVERLAP_STRATEGY:
			entries = array_entries(PG_GETARG_ARRAYTYPE_P(0), nentries);
			break;
		case CONTAINS_STRATEGY:
			entries = contact_entries(PG_GETARG_DATUM(0), false, nentries);
			/* all contacts contain the empty one */
			if (*nentries == 0)
				*search_mode = GIN_SEARCH_MODE_ALL;
			break;
		case EXISTS_STRATEGY:
			{
				text	   *name = PG_GETARG_TEXT_PP(0);
				int			field = contact_field_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));

				entries = palloc(sizeof(Datum));
				*entries = UInt32GetDatum(field);
				*nentries = field >= 0; /* nothing has a field that there is not */
				break;
			}
		default:
			elog(ERROR, "unrecognized strategy number: %d", strategy);
	}
	PG_RETURN_POINTER(entries);
}

Datum
gin_consistent_contact(PG_FUNCTION_ARGS)
{
	bool	   *check = (bool *) PG_GETARG_POINTER(0);
	StrategyNumber strategy = PG_GETARG_UINT16(1);
	int32		nentries = PG_GETARG_INT32(3);
	bool	   *recheck = (bool *) PG_GETARG_POINTER(5);

	*recheck = strategy != EXISTS_STRATEGY;
	/* of && and ?, one entry is enough */
	if (strategy != CONTAINS_STRATEGY)
		PG_RETURN_BOOL(true);
	for (int i = 0; i < nentries; i++)
		if (!check[i])
			PG_RETURN_BOOL(false);
	PG_RETURN_BOOL(true);
}

Datum
gin_triconsistent_contact(PG_FUNCTION_ARGS)
{
	GinTernaryValue *check = (GinTernaryValue *) PG_GETARG_POINTER(0);
	StrategyNumber strategy = PG_GETARG_UINT16(1);
	int32		nentries = PG_GETARG_INT32(3);

	if (strategy == EXISTS_STRATEGY)
		PG_RETURN_GIN_TERNARY_VALUE(check[0]);
	if (strategy == OVERLAP_STRATEGY)
	{
		for (int i = 0; i < nentries; i++)
			if (check[i] != GIN_FALSE)
				PG_RETURN_GIN_TERNARY_VALUE(GIN_MAYBE);
		PG_RETURN_GIN_TERNARY_VALUE(GIN_FALSE);
	}
	for (int i = 0; i < nentries; i++)
		if (check[i] == GIN_FALSE)
			PG_RETURN_GIN_TERNARY_VALUE(GIN_FALSE);
	PG_RETURN_GIN_TERNARY_VALUE(nentries > 0 ? GIN_MAYBE : GIN_TRUE);
}
