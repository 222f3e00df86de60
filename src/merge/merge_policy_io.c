/*
 * merge_policy_io.c
 *		The type merge_policy: JSON in and out.
 *
 * A stored policy is the jsonb of its canonical form, so that a cast to jsonb
 * costs nothing, output and comparison are those of jsonb, and whatever comes
 * in, as text or binary, goes through one reader.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "merge/merge.h"

PG_FUNCTION_INFO_V1(merge_policy_in);
PG_FUNCTION_INFO_V1(merge_policy_recv);
PG_FUNCTION_INFO_V1(merge_policy_of_jsonb);
PG_FUNCTION_INFO_V1(merge_policy_unit);

/* NULL on a soft error. */
static Jsonb *
policy_of_jsonb(const Jsonb *json, struct Node *escontext)
{
	MergePolicy policy;
	ContactError error;

	if (!JB_ROOT_IS_OBJECT(json))
		ereturn(escontext, NULL,
				(errcode(ERRCODE_INVALID_TEXT_REPRESENTATION),
				 errmsg("invalid merge policy: expected an object"),
				 errdetail("JSON path: $")));
	if (!merge_policy_from_jsonb(json, &policy, &error))
		ereturn(escontext, NULL,
				(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
				 errmsg("invalid merge policy: %s", error.message),
				 errdetail("JSON path: %s", error.path),
				 errhint("Members are fields of a contact, the groups name and job, metadata.<key>, emails.primary and phones.primary; "
						 "rules are last_write_wins, source_priority, manual_review, most_frequent, verified_first, oldest, most_complete and union.")));
	return merge_policy_to_jsonb(&policy);
}

/*
 * merge_policy_in(cstring) -> merge_policy
 */
Datum
merge_policy_in(PG_FUNCTION_ARGS)
{
	char	   *text = PG_GETARG_CSTRING(0);
	Jsonb	   *result;
	Datum		json;

	if (!direct_input(jsonb_in, text, fcinfo->context, &json))
		PG_RETURN_NULL();
	result = policy_of_jsonb(DatumGetJsonbP(json), fcinfo->context);
	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(result);
}

/*
 * merge_policy_recv(internal) -> merge_policy
 */
Datum
merge_policy_recv(PG_FUNCTION_ARGS)
{
	Datum		json = DirectFunctionCall1(jsonb_recv, PG_GETARG_DATUM(0));

	PG_RETURN_JSONB_P(policy_of_jsonb(DatumGetJsonbP(json), NULL));
}

/*
 * jsonb -> merge_policy
 */
Datum
merge_policy_of_jsonb(PG_FUNCTION_ARGS)
{
	Jsonb	   *result = policy_of_jsonb(PG_GETARG_JSONB_P(0), fcinfo->context);

	if (result == NULL)
		PG_RETURN_NULL();
	PG_RETURN_JSONB_P(result);
}

void
merge_policy_read(const Jsonb *stored, MergePolicy *p)
{
	ContactError error;

	if (!merge_policy_from_jsonb(stored, p, &error))
		ereport(ERROR,
				(errcode(ERRCODE_DATA_CORRUPTED),
				 errmsg("stored policy is invalid: %s", error.message),
				 errdetail("JSON path: %s", error.path)));
}

/*
 * merge_policy_unit(merge_policy, field text) -> text
 *		The name under which a policy keeps the rule of a field.
 */
Datum
merge_policy_unit(PG_FUNCTION_ARGS)
{
	text	   *name = PG_GETARG_TEXT_PP(1);
	int			field = contact_field_lookup(VARDATA_ANY(name), VARSIZE_ANY_EXHDR(name));
	MergePolicy policy;
	StrView		unit;

	if (field < 0)
		PG_RETURN_TEXT_P(name);
	merge_policy_read(DatumGetMergePolicyP(PG_GETARG_DATUM(0)), &policy);
	unit = merge_unit_of(&policy, field)->name;
	PG_RETURN_TEXT_P(cstring_to_text_with_len(unit.ptr, unit.len));
}
