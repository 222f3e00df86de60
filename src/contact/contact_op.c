/*
 * contact_op.c
 *		Comparison and hashing of contacts; patches.
 *
 * Comparison looks at content: stamps and tombstones do not make two contacts
 * different, just as the scale of a numeric does not.  contact_identical is
 * for those who want to know.
 */
#include "postgres.h"

#include "common/hashfn.h"
#include "lib/stringinfo.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "contact/contact.h"

PG_FUNCTION_INFO_V1(contact_cmp);
PG_FUNCTION_INFO_V1(contact_eq);
PG_FUNCTION_INFO_V1(contact_ne);
PG_FUNCTION_INFO_V1(contact_lt);
PG_FUNCTION_INFO_V1(contact_le);
PG_FUNCTION_INFO_V1(contact_ge);
PG_FUNCTION_INFO_V1(contact_gt);
PG_FUNCTION_INFO_V1(contact_hash);
PG_FUNCTION_INFO_V1(contact_hash_extended);
PG_FUNCTION_INFO_V1(contact_identical);
PG_FUNCTION_INFO_V1(contact_patch);
PG_FUNCTION_INFO_V1(contact_provenance);

static void
free_value(ContactValue *v)
{
	pfree(v->items);
	pfree(v->stamps);
}

static int
compare(FunctionCallInfo fcinfo)
{
	Contact    *a = PG_GETARG_CONTACT_P(0);
	Contact    *b = PG_GETARG_CONTACT_P(1);
	ContactValue va;
	ContactValue vb;
	int			r;

	contact_deform(a, &va);
	contact_deform(b, &vb);
	r = contact_value_cmp(&va, &vb);
	free_value(&va);
	free_value(&vb);
	PG_FREE_IF_COPY(a, 0);
	PG_FREE_IF_COPY(b, 1);
	return r;
}

Datum
contact_cmp(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32(compare(fcinfo));
}

Datum
contact_eq(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) == 0);
}

Datum
contact_ne(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) != 0);
}

Datum
contact_lt(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) < 0);
}

Datum
contact_le(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) <= 0);
}

Datum
contact_ge(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) >= 0);
}

Datum
contact_gt(PG_FUNCTION_ARGS)
{
	PG_RETURN_BOOL(compare(fcinfo) > 0);
}

static uint64
hash(FunctionCallInfo fcinfo, uint64 seed)
{
	Contact    *c = PG_GETARG_CONTACT_P(0);
	ContactValue v;
	uint64		h = seed;

	contact_deform(c, &v);
	for (int i = 0; i < v.nitems; i++)
	{
		StrView		bytes;

		if (v.items[i].flags & CI_TOMBSTONE)
			continue;
		bytes = contact_item_bytes(&v.items[i]);
		h = hash_combine64(h, hash_bytes_extended((const unsigned char *) bytes.ptr,
												  bytes.len, seed));
		pfree(unconstify(char *, bytes.ptr));
	}
	free_value(&v);
	PG_FREE_IF_COPY(c, 0);
	return h;
}

Datum
contact_hash(PG_FUNCTION_ARGS)
{
	PG_RETURN_INT32((int32) hash(fcinfo, 0));
}

Datum
contact_hash_extended(PG_FUNCTION_ARGS)
{
	uint64		seed = (uint64) PG_GETARG_INT64(1);
	uint64		h = hash(fcinfo, seed);

	/* at seed 0 the low half is contact_hash, as hash partitioning wants it */
	PG_RETURN_INT64((int64) h);
}

/*
 * contact_identical(a, b) -> boolean
 *		Equal to the byte, stamps and tombstones included.
 */
Datum
contact_identical(PG_FUNCTION_ARGS)
{
	Contact    *a = PG_GETARG_CONTACT_P(0);
	Contact    *b = PG_GETARG_CONTACT_P(1);

	PG_RETURN_BOOL(VARSIZE(a) == VARSIZE(b) &&
				   memcmp(a->data, b->data, VARSIZE(a) - VARHDRSZ) == 0);
}

/*
 * Apply an RFC 7396 merge patch to an object, as part of the JSON being built.
 * target may be NULL.
 */
static void
merge_patch(JsonbParseState **state, JsonbContainer *target, JsonbContainer *patch,
			JsonbValue **result)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	member;

	check_stack_depth();
	pushJsonbValue(state, WJB_BEGIN_OBJECT, NULL);
	if (target)
	{
		it = JsonbIteratorInit(target);
		while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
		{
			if (token != WJB_KEY)
				continue;
			(void) JsonbIteratorNext(&it, &member, true);
			if (findJsonbValueFromContainer(patch, JB_FOBJECT, &name) != NULL)
				continue;
			pushJsonbValue(state, WJB_KEY, &name);
			pushJsonbValue(state, WJB_VALUE, &member);
		}
	}
	it = JsonbIteratorInit(patch);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &member, true);
		if (member.type == jbvNull)
			continue;
		pushJsonbValue(state, WJB_KEY, &name);
		if (member.type == jbvBinary && JsonContainerIsObject(member.val.binary.data))
		{
			JsonbValue *old = target ? findJsonbValueFromContainer(target, JB_FOBJECT, &name) : NULL;
			bool		object = old && old->type == jbvBinary &&
				JsonContainerIsObject(old->val.binary.data);

			merge_patch(state, object ? old->val.binary.data : NULL,
						member.val.binary.data, result);
		}
		else
			pushJsonbValue(state, WJB_VALUE, &member);
	}
	*result = pushJsonbValue(state, WJB_END_OBJECT, NULL);
}

/*
 * contact_patch(contact, jsonb) -> contact
 *		RFC 7396 merge patch; values that it does not change keep their stamps.
 */
Datum
contact_patch(PG_FUNCTION_ARGS)
{
	Jsonb	   *patch = PG_GETARG_JSONB_P(1);
	ContactValue old;
	ContactClaims claims;
	ContactError error;
	StringInfoData buf;
	JsonbParseState *state = NULL;
	JsonbValue *merged;
	Jsonb	   *target;

	if (!JB_ROOT_IS_OBJECT(patch))
		ereport(ERROR,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("a contact's patch must be a JSON object")));

	contact_deform(PG_GETARG_CONTACT_P(0), &old);
	initStringInfo(&buf);
	contact_to_json(&buf, &old, false);
	target = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(buf.data)));
	merge_patch(&state, &target->root, &patch->root, &merged);

	if (!contact_claims_from_jsonb(JsonbValueToJsonb(merged), false, &claims, &error))
		contact_error_report(&error, NULL);
	claims.value.stamps = old.stamps;
	claims.value.nstamps = old.nstamps;
	for (int i = 0; i < claims.value.nitems; i++)
	{
		ContactItem *item = &claims.value.items[i];
		int			was = contact_find(&old, item->field, item->key);

		if (was >= 0 && contact_item_same(&old.items[was], item))
			item->stamp = old.items[was].stamp;
	}
	PG_RETURN_CONTACT_P(contact_form(&claims.value));
}

/*
 * contact_provenance(contact) -> jsonb
 *		{"title": {"source", "as_of", "changed_at", "flags"}, "emails:<key>": ...}
 */
Datum
contact_provenance(PG_FUNCTION_ARGS)
{
	ContactValue v;
	StringInfoData buf;

	contact_deform(PG_GETARG_CONTACT_P(0), &v);
	initStringInfo(&buf);
	contact_provenance_to_json(&buf, &v, false);
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(buf.data));
}
