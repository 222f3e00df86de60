/*
 * contact_gin.c
 *		GIN support: the operator class contact_ops.
 *
 * A contact is indexed under texts of three kinds, told apart by how they
 * begin:
 *
 *	email:..., tel:...	what contact_keys gives, for &&; they stand for the
 *						element in @> too
 *	?title				a field that has a value, for ?
 *	=xxxxxx				hash of a field, a key and (of scalars and metadata)
 *						a value, for @>
 *
 * Only hashes can be wrong, so only they are looked up again in the table.
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

PG_FUNCTION_INFO_V1(gin_compare_contact);
PG_FUNCTION_INFO_V1(gin_extract_contact);
PG_FUNCTION_INFO_V1(gin_extract_contact_query);
PG_FUNCTION_INFO_V1(gin_consistent_contact);
PG_FUNCTION_INFO_V1(gin_triconsistent_contact);

/* The numbers that array_ops and jsonb_ops use for operators of these names. */
#define OVERLAP_STRATEGY		1
#define CONTAINS_STRATEGY		7
#define EXISTS_STRATEGY			9

#define HASH_MARK				'='
#define FIELD_MARK				'?'
#define HASH_CHARS				6	/* of 6 bits each */

/*
 * Byte order: a locale's would be slower and no better.
 */
Datum
gin_compare_contact(PG_FUNCTION_ARGS)
{
	text	   *a = PG_GETARG_TEXT_PP(0);
	text	   *b = PG_GETARG_TEXT_PP(1);
	int			alen = VARSIZE_ANY_EXHDR(a);
	int			blen = VARSIZE_ANY_EXHDR(b);
	int			r = memcmp(VARDATA_ANY(a), VARDATA_ANY(b), Min(alen, blen));

	if (r == 0)
		r = alen - blen;
	PG_FREE_IF_COPY(a, 0);
	PG_FREE_IF_COPY(b, 1);
	PG_RETURN_INT32(r);
}

static Datum
marked_text(char mark, const char *ptr, int len)
{
	text	   *t = palloc(VARHDRSZ + 1 + len);

	SET_VARSIZE(t, VARHDRSZ + 1 + len);
	*VARDATA(t) = mark;
	memcpy(VARDATA(t) + 1, ptr, len);
	return PointerGetDatum(t);
}

static Datum
field_entry(const char *name, int len)
{
	return marked_text(FIELD_MARK, name, len);
}

/* What an item is indexed under. */
static Datum
item_entry(const ContactItem *item)
{
	static const char digits[] =
	"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_";
	char		chars[HASH_CHARS];
	uint64		h = item->field;

	if (contact_key_recognises(item->field, item->key))
		return PointerGetDatum(contact_key_text(item->field, item->key));
	if (CF_IS_LIST(item->field))
		h = hash_bytes_extended((const unsigned char *) item->key.ptr, item->key.len, h);
	if (!CF_IS_LIST(item->field) || item->field == CF_METADATA)
		h = hash_bytes_extended((const unsigned char *) item->value.ptr, item->value.len, h);
	for (int i = 0; i < HASH_CHARS; i++, h >>= 6)
		chars[i] = digits[h & 63];
	return marked_text(HASH_MARK, chars, HASH_CHARS);
}

/* The entries of a contact's items, and of its fields if they are wanted. */
static Datum *
contact_entries(Datum contact, bool with_fields, int32 *n)
{
	ContactReader r;
	Datum	   *entries;
	int			last = -1;

	contact_read(&r, contact, ~((uint32) 0), true);
	entries = palloc(sizeof(Datum) * (r.nitems + CF_COUNT));
	*n = 0;
	for (int i = 0; i < r.nitems; i++)
	{
		ContactItem item;

		contact_read_item(&r, i, &item);
		if (item.flags & CI_TOMBSTONE)
			continue;
		if (with_fields && item.field != last)
		{
			const char *name = contact_field_names[item.field];

			entries[(*n)++] = field_entry(name, strlen(name));
		}
		last = item.field;
		entries[(*n)++] = item_entry(&item);
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

/* Of an array, the members that can be keys of contacts. */
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

		if (!nulls[i] && contact_key_of_text(DatumGetTextPP(elements[i]), &field, &key))
			elements[(*n)++] = elements[i];
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

				entries = palloc(sizeof(Datum));
				*entries = field_entry(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
				*nentries = 1;
				break;
			}
		default:
			elog(ERROR, "unrecognized strategy number: %d", strategy);
	}
	PG_RETURN_POINTER(entries);
}

static bool
is_hash(Datum entry)
{
	return *VARDATA_ANY(DatumGetPointer(entry)) == HASH_MARK;
}

Datum
gin_consistent_contact(PG_FUNCTION_ARGS)
{
	bool	   *check = (bool *) PG_GETARG_POINTER(0);
	StrategyNumber strategy = PG_GETARG_UINT16(1);
	int32		nentries = PG_GETARG_INT32(3);
	bool	   *recheck = (bool *) PG_GETARG_POINTER(5);
	Datum	   *entries = (Datum *) PG_GETARG_POINTER(6);

	*recheck = false;
	/* of && and ?, one entry is enough */
	if (strategy != CONTAINS_STRATEGY)
		PG_RETURN_BOOL(true);
	for (int i = 0; i < nentries; i++)
	{
		if (!check[i])
			PG_RETURN_BOOL(false);
		*recheck |= is_hash(entries[i]);
	}
	PG_RETURN_BOOL(true);
}

Datum
gin_triconsistent_contact(PG_FUNCTION_ARGS)
{
	GinTernaryValue *check = (GinTernaryValue *) PG_GETARG_POINTER(0);
	StrategyNumber strategy = PG_GETARG_UINT16(1);
	int32		nentries = PG_GETARG_INT32(3);
	Datum	   *entries = (Datum *) PG_GETARG_POINTER(5);
	GinTernaryValue result;

	if (strategy != CONTAINS_STRATEGY)
	{
		result = GIN_FALSE;
		for (int i = 0; i < nentries; i++)
		{
			if (check[i] == GIN_TRUE)
				PG_RETURN_GIN_TERNARY_VALUE(GIN_TRUE);
			if (check[i] == GIN_MAYBE)
				result = GIN_MAYBE;
		}
		PG_RETURN_GIN_TERNARY_VALUE(result);
	}
	result = GIN_TRUE;
	for (int i = 0; i < nentries; i++)
	{
		if (check[i] == GIN_FALSE)
			PG_RETURN_GIN_TERNARY_VALUE(GIN_FALSE);
		if (check[i] == GIN_MAYBE || is_hash(entries[i]))
			result = GIN_MAYBE;
	}
	PG_RETURN_GIN_TERNARY_VALUE(result);
}
