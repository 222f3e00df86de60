/*
 * store_decide.c
 *		What decisions on a cell are made of: the cell's name and value in the form
 *		that they are kept in, and what was seen.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "fmgr.h"
#include "funcapi.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "store/store.h"

PG_FUNCTION_INFO_V1(store_cell_sql);
PG_FUNCTION_INFO_V1(store_seen_sql);

static StrView
text_view(Datum d)
{
	text	   *t = DatumGetTextPP(d);

	return strview(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
}

/* Says what is wrong with a cell's name by its field only: what stands behind it may be somebody's address. */
static void
refuse_cell(const char *fault, StrView field)
{
	ereport(ERROR,
			(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
			 errmsg(fault, field.len > 0 ? pg_mbcliplen(field.ptr, field.len, 60) : 0, field.ptr ? field.ptr : ""),
			 errhint("Name a field of contactsync.directory, a group (name, job), metadata.<key>, or an element of a list, as in emails:<address>.")));
}

/* The key of a list's element from its spelling, or as explain() shows it. */
static StrView
element_key(ContactField field, StrView spelling)
{
	ContactItem item = {0};
	const char *ext = NULL;

	for (int i = 0; field == CF_PHONES && i + 5 < spelling.len; i++)
		if (memcmp(spelling.ptr + i, ";ext=", 5) == 0)
			ext = spelling.ptr + i;
	if (field == CF_ADDRESSES)
		return spelling;
	item.field = field;
	item.value = spelling;
	if (ext)
	{
		item.value = strview(spelling.ptr, ext - spelling.ptr);
		item.extension = strview(ext + 5, spelling.len - (ext + 5 - spelling.ptr));
	}
	return contact_item_normalize(&item) ? item.key : strview(NULL, 0);
}

/* The document that says this of the cell. */
static Jsonb *
document(const MergeDecision *cell, bool element, Jsonb *value)
{
	StringInfoData buf;

	if (cell->group)
		return value;
	initStringInfo(&buf);
	appendStringInfo(&buf, "{\"%s\": ", contact_field_names[cell->field]);
	if (cell->field == CF_METADATA)
	{
		appendStringInfoChar(&buf, '{');
		escape_json(&buf, pnstrdup(cell->key.ptr, cell->key.len));
		appendStringInfoString(&buf, ": ");
	}
	else if (element)
		appendStringInfoChar(&buf, '[');
	(void) JsonbToCString(&buf, &value->root, VARSIZE(value));
	appendStringInfoString(&buf, cell->field == CF_METADATA ? "}}" : element ? "]}" : "}");
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(buf.data)));
}

/*
 * _cell(policy merge_policy, name text, value jsonb, OUT field text, OUT element text, OUT value jsonb)
 *		A cell by the name that users give it, and what they say of it as a
 *		contact in canonical form; NULL = decided to be empty.
 */
Datum
store_cell_sql(PG_FUNCTION_ARGS)
{
	StrView		name = PG_ARGISNULL(1) ? strview(NULL, 0) : text_view(PG_GETARG_DATUM(1));
	StrView		field = name;
	StrView		element = {NULL, 0};
	const char *mark = NULL;
	MergePolicy policy;
	MergeDecision cell = {0};
	TupleDesc	desc;
	Datum		values[3] = {0};
	bool		nulls[3] = {false, false, true};

	if (get_call_result_type(fcinfo, NULL, &desc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (PG_ARGISNULL(0))
		elog(ERROR, "policy must not be null");
	for (int i = 0; i < name.len && mark == NULL; i++)
		if (name.ptr[i] == ':' || name.ptr[i] == '.')
			mark = name.ptr + i;
	if (mark)
	{
		field = strview(name.ptr, mark - name.ptr);
		element = strview(mark + 1, name.len - (mark + 1 - name.ptr));
	}
	merge_policy_read(DatumGetMergePolicyP(PG_GETARG_DATUM(0)), &policy);
	if (!merge_decision_cell(&policy, field, strview(NULL, 0), &cell))
		refuse_cell("\"%.*s\" is no field that can be decided about", field);
	if (mark && (!CF_IS_LIST(cell.field) || (*mark == '.' && cell.field != CF_METADATA)))
		refuse_cell("\"%.*s\" has no such part", field);
	if (mark && cell.field != CF_METADATA)
		element = element_key(cell.field, element);
	/* metadata is as many cells as it has keys */
	if (element.len == 0 && (mark || (cell.field == CF_METADATA && !PG_ARGISNULL(2))))
		refuse_cell("which part of \"%.*s\" is meant is not said", field);
	cell.key = element;

	if (!PG_ARGISNULL(2))
	{
		Jsonb	   *value = PG_GETARG_JSONB_P(2);
		JsonbValue	scalar;
		ContactClaims claims;
		ContactError error;
		bool		null = JB_ROOT_IS_SCALAR(value) && JsonbExtractScalar(&value->root, &scalar) && scalar.type == jbvNull;

		if (!null && cell.group && !JB_ROOT_IS_OBJECT(value))
			ereport(ERROR,
					(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("the value of a group must be an object"),
					 errhint("Give it the group's fields as members, or decide about one of them.")));
		if (!null && !contact_claims_from_jsonb(document(&cell, mark != NULL, value), false, &claims, &error))
			ereport(ERROR,
					(errcode(error.limit ? ERRCODE_PROGRAM_LIMIT_EXCEEDED : ERRCODE_INVALID_PARAMETER_VALUE),
					 errmsg("invalid value: %s", error.message),
					 errdetail("At %s.", error.path)));
		for (int i = 0; !null && i < claims.value.nitems; i++)
		{
			const ContactItem *item = &claims.value.items[i];

			if (!(cell.fields & CF_BIT(item->field)))
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("the value has members that do not belong to \"%.*s\"", field.len, field.ptr)));
			if (cell.key.len > 0 && strview_cmp(item->key, cell.key) != 0)
				ereport(ERROR,
						(errcode(ERRCODE_INVALID_PARAMETER_VALUE),
						 errmsg("the value is another element of \"%.*s\"", field.len, field.ptr),
						 errhint("Decide that the one is empty, and about the other by its own name.")));
		}
		if (!null && claims.value.nitems > 0)
		{
			StringInfoData buf;

			initStringInfo(&buf);
			contact_to_json(&buf, &claims.value, false);
			values[2] = DirectFunctionCall1(jsonb_in, CStringGetDatum(buf.data));
			nulls[2] = false;
		}
	}
	values[0] = PointerGetDatum(cstring_to_text_with_len(field.ptr, field.len));
	values[1] = PointerGetDatum(cstring_to_text_with_len(cell.key.ptr ? cell.key.ptr : "", cell.key.len));
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(desc), values, nulls)));
}

/*
 * _seen(contact uuid, field text, element text) -> bytea[]
 *		Digests of all that is said of a cell now.
 */
Datum
store_seen_sql(PG_FUNCTION_ARGS)
{
	MergePolicy policy;
	StoreRecord **rows;
	int			nrows;
	MergeInput *inputs = NULL;
	MergeDecision cell = {0};
	StoreArray	contact;
	uint8	  (*seen)[MERGE_DIGEST_LEN];
	Datum	   *values;
	ArrayType  *result;
	pg_uuid_t	id;
	int			ninputs = 0;
	int			nseen;
	MemoryContext caller = CurrentMemoryContext;

	if (SPI_connect() != SPI_OK_CONNECT)
		elog(ERROR, "could not connect to SPI");
	store_policy(&policy);
	if (!merge_decision_cell(&policy, text_view(PG_GETARG_DATUM(1)), text_view(PG_GETARG_DATUM(2)), &cell))
		refuse_cell("\"%.*s\" is no field that can be decided about", text_view(PG_GETARG_DATUM(1)));
	store_array_init(&contact, UUIDOID);
	store_array_add(&contact, PG_GETARG_DATUM(0), false);
	rows = store_records_by_contact(&contact, &nrows);
	if (nrows > 0)
		(void) store_inputs(rows, nrows, 0, &id, &inputs, &ninputs);
	merge_seen(&policy, inputs, ninputs, &cell, &seen, &nseen);

	values = palloc(sizeof(Datum) * Max(nseen, 1));
	for (int i = 0; i < nseen; i++)
	{
		bytea	   *b = palloc(VARHDRSZ + MERGE_DIGEST_LEN);

		SET_VARSIZE(b, VARHDRSZ + MERGE_DIGEST_LEN);
		memcpy(VARDATA(b), seen[i], MERGE_DIGEST_LEN);
		values[i] = PointerGetDatum(b);
	}
	MemoryContextSwitchTo(caller);
	result = construct_array(values, nseen, BYTEAOID, -1, false, TYPALIGN_INT);
	SPI_finish();
	PG_RETURN_ARRAYTYPE_P(result);
}
