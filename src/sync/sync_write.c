/*
 * sync_write.c
 *		Requests that write, from a connector's templates: no network here.
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "funcapi.h"
#include "utils/builtins.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "contact/contact_value.h"
#include "sync/sync.h"

PG_FUNCTION_INFO_V1(sync_fill_sql);
PG_FUNCTION_INFO_V1(sync_render_sql);

/*
 * _fill(template jsonb, data jsonb, empty jsonb) -> jsonb
 *		A template of objects and arrays, its paths looked up in data.  What is not
 *		there is "empty", or left out where that is NULL.
 */
Datum
sync_fill_sql(PG_FUNCTION_ARGS)
{
	JsonbValue	empty;
	bool		has_empty = !PG_ARGISNULL(2);

	if (PG_ARGISNULL(0) || PG_ARGISNULL(1))
		PG_RETURN_NULL();
	if (JB_ROOT_IS_SCALAR(PG_GETARG_JSONB_P(0)))
		PG_RETURN_JSONB_P(PG_GETARG_JSONB_P(0));
	if (has_empty && !JsonbExtractScalar(&PG_GETARG_JSONB_P(2)->root, &empty))
		elog(ERROR, "what stands for nothing must be a scalar");
	PG_RETURN_JSONB_P(contact_value_fill(PG_GETARG_JSONB_P(0), PG_GETARG_JSONB_P(1), has_empty ? &empty : NULL));
}

static JsonbContainer *
object_of(Jsonb *json, const char *name)
{
	JsonbValue *v = getKeyJsonValueFromContainer(&json->root, name, strlen(name), NULL);

	return v && v->type == jbvBinary && JsonContainerIsObject(v->val.binary.data) ? v->val.binary.data : NULL;
}

/* Replace each "{body}" in an expanded text of JSON by the body. */
static char *
put_body(const char *text, const char *body)
{
	static const char mark[] = "\"{body}\"";
	StringInfoData result;
	const char *at;

	initStringInfo(&result);
	while ((at = strstr(text, mark)) != NULL)
	{
		appendBinaryStringInfo(&result, text, at - text);
		appendStringInfoString(&result, body);
		text = at + strlen(mark);
	}
	appendStringInfoString(&result, text);
	return result.data;
}

/*
 * _render(operation jsonb, url text, vars jsonb, parameters jsonb, own jsonb, body text,
 *		   OUT url text, OUT headers jsonb, OUT body text)
 *		The URL is NULL if a variable of its path stands for nothing.
 */
Datum
sync_render_sql(PG_FUNCTION_ARGS)
{
	Jsonb	   *operation;
	Jsonb	   *known;
	char	   *content = PG_ARGISNULL(5) ? NULL : text_to_cstring(PG_GETARG_TEXT_PP(5));
	SyncVars	vars = {0};
	JsonbParseState *headers = NULL;
	JsonbContainer *members;
	JsonbValue *template;
	JsonbIterator *it;
	JsonbValue	v;
	TupleDesc	tupdesc;
	char	   *path;
	char	   *name;
	char	   *value;
	Datum		values[3] = {0};
	bool		nulls[3] = {true, true, true};

	if (get_call_result_type(fcinfo, NULL, &tupdesc) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "return type must be a row type");
	if (PG_ARGISNULL(0) || PG_ARGISNULL(1) || PG_ARGISNULL(2))
		PG_RETURN_NULL();
	operation = PG_GETARG_JSONB_P(0);
	known = PG_GETARG_JSONB_P(2);
	if (!JB_ROOT_IS_OBJECT(operation) || !sync_member(operation, "path"))
		elog(ERROR, "an operation is an object with a path");
	vars.id = sync_member(known, "id");
	vars.known = known;
	vars.parameters = PG_ARGISNULL(3) ? NULL : PG_GETARG_JSONB_P(3);
	vars.own_parameters = PG_ARGISNULL(4) ? NULL : PG_GETARG_JSONB_P(4);
	path = sync_expand(sync_member(operation, "path"), &vars, true);
	if (path)
	{
		char	   *url = text_to_cstring(PG_GETARG_TEXT_PP(1));

		url = psprintf("%s%s%s", url, path[0] == '/' || url[0] == '\0' || url[strlen(url) - 1] == '/' ? "" : "/", path);
		if ((members = object_of(operation, "query")) != NULL)
		{
			it = JsonbIteratorInit(members);
			(void) JsonbIteratorNext(&it, &v, true);
			while (sync_next_member(&it, &vars, &name, &value))
				if (value)
					url = http_url_add(url, name, value);
		}
		values[0] = CStringGetTextDatum(url);
		nulls[0] = false;
	}
	(void) pushJsonbValue(&headers, WJB_BEGIN_OBJECT, NULL);
	if ((members = object_of(operation, "headers")) != NULL)
	{
		it = JsonbIteratorInit(members);
		(void) JsonbIteratorNext(&it, &v, true);
		while (sync_next_member(&it, &vars, &name, &value))
		{
			if (value == NULL)
				continue;
			v.type = jbvString;
			v.val.string.val = name;
			v.val.string.len = strlen(name);
			(void) pushJsonbValue(&headers, WJB_KEY, &v);
			v.val.string.val = value;
			v.val.string.len = strlen(value);
			(void) pushJsonbValue(&headers, WJB_VALUE, &v);
		}
	}
	values[1] = JsonbPGetDatum(JsonbValueToJsonb(pushJsonbValue(&headers, WJB_END_OBJECT, NULL)));
	nulls[1] = false;
	template = getKeyJsonValueFromContainer(&operation->root, "body", 4, NULL);
	if (template && content && template->type == jbvBinary)
		values[2] = CStringGetTextDatum(put_body(sync_expand_json(template, &vars), content));
	else if (content)
		values[2] = CStringGetTextDatum(content);
	nulls[2] = content == NULL;
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(BlessTupleDesc(tupdesc), values, nulls)));
}
