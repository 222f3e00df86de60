/*
 * contact_get.c
 *		Accessors: fields of a contact, and the keys that it is known by.
 *
 * All of them read the fields that they are asked for and no others, through a
 * ContactReader.  They raise no error that depends on what a value holds, so
 * they are LEAKPROOF: row-level security may use indexes on them.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "compat.h"
#include "contact/contact.h"

PG_FUNCTION_INFO_V1(contact_get);
PG_FUNCTION_INFO_V1(contact_get_text);
PG_FUNCTION_INFO_V1(contact_exists);
PG_FUNCTION_INFO_V1(contact_primary);
PG_FUNCTION_INFO_V1(contact_keys);

/* What a key may have, so that an index can hold it. */
#define KEY_MAX_LEN			512

/* Open the field of this name; false if there is no such. */
static bool
open_field(Datum contact, const text *name, ContactReader *r, int *field, bool bytes)
{
	*field = contact_field_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	if (*field < 0)
		return false;
	contact_read(r, contact, CF_BIT(*field), bytes);
	return true;
}

/* A field's items. */
static ContactValue
field_items(const ContactReader *r, ContactField field)
{
	ContactValue v = {0};
	int			end;
	int			i = contact_read_field(r, field, &end);

	v.items = palloc(sizeof(ContactItem) * Max(end - i, 1));
	for (; i < end; i++)
		contact_read_item(r, field, i, &v.items[v.nitems++]);
	return v;
}

static void
push_string(JsonbParseState **state, JsonbIteratorToken token, const char *ptr, int len)
{
	JsonbValue	v;

	v.type = jbvString;
	v.val.string.val = unconstify(char *, ptr);
	v.val.string.len = len;
	(void) pushJsonbValue(state, token, &v);
}

static void
push_member(JsonbParseState **state, const char *name, StrView s)
{
	if (s.len == 0)
		return;
	push_string(state, WJB_KEY, name, strlen(name));
	push_string(state, WJB_VALUE, s.ptr, s.len);
}

static void
push_flag(JsonbParseState **state, const char *name, bool value)
{
	JsonbValue	v;

	v.type = jbvBool;
	v.val.boolean = value;
	push_string(state, WJB_KEY, name, strlen(name));
	(void) pushJsonbValue(state, WJB_VALUE, &v);
}

/* An integer as jsonb prints it, that 64 bits hold. */
static bool
is_integer(StrView json)
{
	int			sign = json.ptr[0] == '-';

	if (json.len - sign > 18)
		return false;
	for (int i = sign; i < json.len; i++)
		if (json.ptr[i] < '0' || json.ptr[i] > '9')
			return false;
	return true;
}

/* A value of metadata, which is kept as JSON text. */
static void
push_json(JsonbParseState **state, StrView json)
{
	Jsonb	   *parsed;
	JsonbValue	v;

	if (json.ptr[0] == '"' && memchr(json.ptr, '\\', json.len) == NULL)
	{
		push_string(state, WJB_VALUE, json.ptr + 1, json.len - 2);
		return;
	}
	if (is_integer(json))
	{
		v.type = jbvNumeric;
		v.val.numeric = int64_to_numeric(strtoll(pnstrdup(json.ptr, json.len), NULL, 10));
		(void) pushJsonbValue(state, WJB_VALUE, &v);
		return;
	}
	parsed = DatumGetJsonbP(DirectFunctionCall1(jsonb_in,
												CStringGetDatum(pnstrdup(json.ptr, json.len))));
	if (!JB_ROOT_IS_SCALAR(parsed) || !JsonbExtractScalar(&parsed->root, &v))
	{
		v.type = jbvBinary;
		v.val.binary.data = &parsed->root;
		v.val.binary.len = VARSIZE(parsed) - VARHDRSZ;
	}
	(void) pushJsonbValue(state, WJB_VALUE, &v);
}

static void
push_item(JsonbParseState **state, const ContactItem *item)
{
	if (item->field == CF_METADATA)
	{
		push_string(state, WJB_KEY, item->key.ptr, item->key.len);
		push_json(state, item->value);
		return;
	}
	if (item->field == CF_TAGS)
	{
		push_string(state, WJB_ELEM, item->value.ptr, item->value.len);
		return;
	}
	(void) pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	if (item->field == CF_ADDRESSES)
	{
		for (int i = 0; i < CA_COUNT; i++)
			push_member(state, contact_address_members[i], item->part[i]);
	}
	else
		push_member(state, contact_value_members[item->field], item->value);
	push_member(state, "type", item->type);
	push_member(state, "extension", item->extension);
	if (item->flags & (CI_VERIFIED | CI_UNVERIFIED))
		push_flag(state, "verified", (item->flags & CI_VERIFIED) != 0);
	if (item->flags & CI_PRIMARY)
		push_flag(state, "primary", true);
	(void) pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/* A list, whose items are these; false and nothing if it has no value. */
static bool
push_list(JsonbParseState **state, ContactField field, const ContactItem *items, int n, JsonbValue **result)
{
	bool		object = field == CF_METADATA;
	int			dead = 0;

	while (dead < n && items[dead].flags & CI_TOMBSTONE)
		dead++;
	if (dead == n)
		return false;
	(void) pushJsonbValue(state, object ? WJB_BEGIN_OBJECT : WJB_BEGIN_ARRAY, NULL);
	for (int i = dead; i < n; i++)
		if (!(items[i].flags & CI_TOMBSTONE))
			push_item(state, &items[i]);
	*result = pushJsonbValue(state, object ? WJB_END_OBJECT : WJB_END_ARRAY, NULL);
	return true;
}

bool
contact_push_items(JsonbParseState **state, const ContactItem *items, int n)
{
	JsonbValue *list;

	if (n > 0 && CF_IS_LIST(items[0].field))
		return push_list(state, items[0].field, items, n, &list);
	if (n == 0 || items[0].flags & CI_TOMBSTONE)
		return false;
	push_string(state, WJB_VALUE, items[0].value.ptr, items[0].value.len);
	return true;
}

Jsonb *
contact_field_jsonb(Datum contact, const text *name)
{
	ContactReader r;
	ContactValue v;
	JsonbParseState *state = NULL;
	JsonbValue	scalar;
	JsonbValue *list;
	int			field;

	if (!open_field(contact, name, &r, &field, true))
		return NULL;
	if (!CF_IS_LIST(field))
	{
		text	   *value = contact_read_scalar(&r, field);

		if (value == NULL)
			return NULL;
		scalar.type = jbvString;
		scalar.val.string.val = VARDATA_ANY(value);
		scalar.val.string.len = VARSIZE_ANY_EXHDR(value);
		return JsonbValueToJsonb(&scalar);
	}
	if (!contact_read_is_live(&r, field))
		return NULL;
	v = field_items(&r, field);
	return push_list(&state, field, v.items, v.nitems, &list) ? JsonbValueToJsonb(list) : NULL;
}

/*
 * contact -> text: a field as jsonb; NULL if it has no value
 */
Datum
contact_get(PG_FUNCTION_ARGS)
{
	Jsonb	   *result = contact_field_jsonb(PG_GETARG_DATUM(0), PG_GETARG_TEXT_PP(1));

	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(result);
}

/*
 * contact ->> text: a field as text; of a list, its JSON
 */
Datum
contact_get_text(PG_FUNCTION_ARGS)
{
	ContactReader r;
	ContactValue v;
	StringInfoData buf;
	int			field;

	if (!open_field(PG_GETARG_DATUM(0), PG_GETARG_TEXT_PP(1), &r, &field, true))
		PG_RETURN_NULL();
	if (!CF_IS_LIST(field))
	{
		text	   *value = contact_read_scalar(&r, field);

		if (value == NULL)
			PG_RETURN_NULL();
		PG_RETURN_TEXT_P(value);
	}
	v = field_items(&r, field);
	initStringInfo(&buf);
	if (!contact_field_to_json(&buf, &v, field))
		PG_RETURN_NULL();
	PG_RETURN_TEXT_P(cstring_to_text_with_len(buf.data, buf.len));
}

/*
 * contact ? text: whether a field has a value
 */
Datum
contact_exists(PG_FUNCTION_ARGS)
{
	ContactReader r;
	int			field;
	bool		found;

	found = open_field(PG_GETARG_DATUM(0), PG_GETARG_TEXT_PP(1), &r, &field, false);
	PG_RETURN_BOOL(found && contact_read_is_live(&r, field));
}

/*
 * contact_primary(contact, field) -> text
 *		The address, number, url or tag of a list's primary element, or of its
 *		first one if none is said to be primary.
 */
Datum
contact_primary(PG_FUNCTION_ARGS)
{
	ContactReader r;
	ContactItem item;
	int			field;
	int			i;
	int			end;
	int			chosen = -1;

	if (!open_field(PG_GETARG_DATUM(0), PG_GETARG_TEXT_PP(1), &r, &field, true) ||
		!contact_read_is_live(&r, field) ||
		!CF_IS_LIST(field) || field == CF_ADDRESSES || field == CF_METADATA)
		PG_RETURN_NULL();
	for (i = contact_read_field(&r, field, &end); i < end; i++)
	{
		uint8		flags = contact_read_flags(&r, i);

		if (flags & CI_TOMBSTONE)
			continue;
		if (chosen < 0 || (flags & CI_PRIMARY))
			chosen = i;
		if (flags & CI_PRIMARY)
			break;
	}
	contact_read_item(&r, field, chosen, &item);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(item.value.ptr, item.value.len));
}

/*
 * "+" and 7 to 20 digits, as some plans have more than E.164's 15: no other key
 * of a number begins with a plus.
 */
static bool
is_e164(StrView key)
{
	if (key.len < 8 || key.len > 21 || key.ptr[0] != '+')
		return false;
	for (int i = 1; i < key.len; i++)
		if (key.ptr[i] < '0' || key.ptr[i] > '9')
			return false;
	return true;
}

/*
 * Whether a folded address is one at the first look, as nearly all are: words
 * of plain characters, and labels with letters at the end.
 */
static bool
is_plain_email(StrView key)
{
	const char *p = key.ptr;
	const char *end = key.ptr + key.len;
	const char *word = p;
	int			labels = 0;

	if (key.len > 254)
		return false;
	for (; p < end && *p != '@'; p++)
	{
		bool		plain = (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9');

		if (!plain && *p != '_' && (*p != '.' && *p != '-' && *p != '+'))
			return false;
		if (*p == '.' && (p == word || p[-1] == '.'))
			return false;
	}
	if (p == end || p == word || p - word > 64 || p[-1] == '.')
		return false;
	for (word = ++p; p < end; p++)
	{
		bool		plain = (*p >= 'a' && *p <= 'z') || (*p >= '0' && *p <= '9');

		if (!plain && (p == word || (*p != '-' && *p != '.') || p[-1] == '-'))
			return false;
		if (p - word > 63)
			return false;
		if (*p == '.')
		{
			labels++;
			word = p + 1;
		}
	}
	return labels > 0 && end - word >= 2 && *word >= 'a' && end[-1] >= 'a';
}

bool
contact_key_recognises(ContactField field, StrView key)
{
	StrView		again;

	if (field == CF_PHONES)
		return is_e164(key);
	if (field != CF_EMAILS || key.len == 0 || key.len > KEY_MAX_LEN)
		return false;
	if (is_plain_email(key))
		return true;
	/* the key of a usable address is its own key */
	again = contact_email_key(key);
	return again.len == key.len && memcmp(again.ptr, key.ptr, key.len) == 0;
}

bool
contact_key_of_text(const text *t, ContactField *field, StrView *key)
{
	const char *p = VARDATA_ANY(t);
	int			len = VARSIZE_ANY_EXHDR(t);
	int			n;

	if (len > 6 && memcmp(p, "email:", 6) == 0)
	{
		*field = CF_EMAILS;
		n = 6;
	}
	else if (len > 4 && memcmp(p, "tel:", 4) == 0)
	{
		*field = CF_PHONES;
		n = 4;
	}
	else
		return false;
	key->ptr = p + n;
	key->len = len - n;
	return true;
}

/* The key as text, written where there is room for it; where that ends. */
static char *
put_key(char *p, ContactField field, StrView key)
{
	const char *scheme = field == CF_EMAILS ? "email:" : "tel:";
	int			n = field == CF_EMAILS ? 6 : 4;

	SET_VARSIZE(p, VARHDRSZ + n + key.len);
	memcpy(p + VARHDRSZ, scheme, n);
	memcpy(p + VARHDRSZ + n, key.ptr, key.len);
	return p + VARHDRSZ + n + key.len;
}

static inline Size
key_size(ContactField field, StrView key)
{
	return VARHDRSZ + (field == CF_EMAILS ? 6 : 4) + key.len;
}

text *
contact_key_text(ContactField field, StrView key)
{
	text	   *result = palloc(key_size(field, key));

	(void) put_key((char *) result, field, key);
	return result;
}

/*
 * contact_keys(contact) -> text[]
 *		What the contact can be recognised by: "email:..." and "tel:+...".
 */
Datum
contact_keys(PG_FUNCTION_ARGS)
{
	static const ContactField fields[] = {CF_EMAILS, CF_PHONES};
	ContactReader r;
	StrView		some[16];
	StrView    *keys = some;
	int			nkeys = 0;
	int			nemails = 0;
	Size		size = ARR_OVERHEAD_NONULLS(1);
	ArrayType  *result;
	char	   *p;

	contact_read(&r, PG_GETARG_DATUM(0), CF_BIT(CF_EMAILS) | CF_BIT(CF_PHONES), true);
	if (r.nitems > lengthof(some))
		keys = palloc(sizeof(StrView) * r.nitems);
	for (int f = 0; f < lengthof(fields); f++)
	{
		int			end;

		for (int i = contact_read_field(&r, fields[f], &end); i < end; i++)
		{
			ContactItem item;

			contact_read_item(&r, fields[f], i, &item);
			if ((item.flags & CI_TOMBSTONE) || !contact_key_recognises(fields[f], item.key))
				continue;
			size = INTALIGN(size) + key_size(fields[f], item.key);
			keys[nkeys++] = item.key;
			nemails += fields[f] == CF_EMAILS;
		}
	}
	if (nkeys == 0)
		PG_RETURN_ARRAYTYPE_P(construct_empty_array(TEXTOID));

	/* as construct_array would, without a copy of each key between */
	size = INTALIGN(size);
	result = palloc0(size);
	SET_VARSIZE(result, size);
	result->ndim = 1;
	result->dataoffset = 0;
	result->elemtype = TEXTOID;
	ARR_DIMS(result)[0] = nkeys;
	ARR_LBOUND(result)[0] = 1;
	p = ARR_DATA_PTR(result);
	for (int i = 0; i < nkeys; i++)
		p = (char *) INTALIGN(put_key(p, i < nemails ? CF_EMAILS : CF_PHONES, keys[i]));
	PG_RETURN_ARRAYTYPE_P(result);
}
