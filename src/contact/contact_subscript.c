/*
 * contact_subscript.c
 *		Subscripts: c['emails'], c['emails'][0]['address'].  They only read.
 *
 * The first names a field, as -> does; the others lead into its jsonb.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "executor/execExpr.h"
#include "nodes/nodeFuncs.h"
#include "nodes/subscripting.h"
#include "parser/parse_coerce.h"
#include "parser/parse_expr.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "contact/contact.h"

PG_FUNCTION_INFO_V1(contact_subscript);

/* Every subscript is a text; numbers count elements, as in a jsonb path. */
static void
subscript_transform(SubscriptingRef *ref, List *indirection, ParseState *pstate,
					bool slice, bool assignment)
{
	ListCell   *cell;

	if (assignment)
		ereport(ERROR,
				(errcode(ERRCODE_FEATURE_NOT_SUPPORTED),
				 errmsg("subscripts of a contact cannot be assigned to"),
				 errhint("Use contact_patch, or the operators || and -.")));
	foreach(cell, indirection)
	{
		A_Indices  *indices = lfirst_node(A_Indices, cell);
		Node	   *index;
		Node	   *name;

		if (slice || indices->uidx == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("contact does not support slices")));
		index = transformExpr(pstate, indices->uidx, pstate->p_expr_kind);
		name = coerce_to_target_type(pstate, index, exprType(index), TEXTOID, -1,
									 COERCION_ASSIGNMENT, COERCE_IMPLICIT_CAST, -1);
		if (name == NULL)
			ereport(ERROR,
					(errcode(ERRCODE_DATATYPE_MISMATCH),
					 errmsg("subscript of a contact must be text or integer"),
					 parser_errposition(pstate, exprLocation(index))));
		ref->refupperindexpr = lappend(ref->refupperindexpr, name);
	}
	ref->reflowerindexpr = NIL;
	ref->refrestype = JSONBOID;
	ref->reftypmod = -1;
}

/* False if a subscript is NULL, and with it the result. */
static bool
subscript_check(ExprState *state, ExprEvalStep *op, ExprContext *econtext)
{
	SubscriptingRefState *ref = op->d.sbsref_subscript.state;

	for (int i = 0; i < ref->numupper; i++)
	{
		if (ref->upperindexnull[i])
		{
			*op->resnull = true;
			return false;
		}
	}
	return true;
}

static void
subscript_fetch(ExprState *state, ExprEvalStep *op, ExprContext *econtext)
{
	SubscriptingRefState *ref = op->d.sbsref.state;
	Jsonb	   *field = contact_field_jsonb(*op->resvalue, DatumGetTextPP(ref->upperindex[0]));

	*op->resnull = field == NULL;
	if (field == NULL)
		return;
	if (ref->numupper == 1)
		*op->resvalue = JsonbPGetDatum(field);
	else
		*op->resvalue = jsonb_get_element(field, ref->upperindex + 1, ref->numupper - 1,
										  op->resnull, false);
}

static void
subscript_setup(const SubscriptingRef *ref, SubscriptingRefState *state,
				SubscriptExecSteps *methods)
{
	methods->sbs_check_subscripts = subscript_check;
	methods->sbs_fetch = subscript_fetch;
	methods->sbs_assign = NULL;
	methods->sbs_fetch_old = NULL;
}

Datum
contact_subscript(PG_FUNCTION_ARGS)
{
	static const SubscriptRoutines routines = {
		.transform = subscript_transform,
		.exec_setup = subscript_setup,
		.fetch_strict = true,
		.fetch_leakproof = true,
		.store_leakproof = false,
	};

	PG_RETURN_POINTER(&routines);
}
