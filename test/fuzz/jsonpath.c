/*
 * jsonpath.c
 *		As much of SQL/JSON paths as mappings use, over the trees of jsonb.c:
 *		members, [*] and [n], in lax mode.
 */
#include "fuzz.h"

#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"

/* A compiled path is its text. */
Datum
jsonpath_in(PG_FUNCTION_ARGS)
{
	const char *p = PG_GETARG_CSTRING(0);
	bool		ok = *p == '$';

	for (p++; ok && *p;)
	{
		int			n = *p == '.' ? strspn(p + 1, "abcdefghijklmnopqrstuvwxyz_0123456789") :
			strncmp(p, "[*", 2) == 0 ? 1 : *p == '[' ? strspn(p + 1, "0123456789") : 0;

		ok = n > 0 && n < 6 && (*p == '.' || p[n + 1] == ']');
		p += n + 1 + (*p == '[');
	}
	if (!ok)
		ereport(ERROR, errmsg("syntax error in jsonpath"));
	return PG_GETARG_DATUM(0);
}

/* What the rest of a path finds from v on. */
static void
find(const char *p, JsonbValue *v, JsonbParseState **found)
{
	JsonbContainer *c = v->type == jbvBinary ? v->val.binary.data : NULL;
	bool		array = c && JsonContainerIsArray(c) && !JsonContainerIsScalar(c);

	if (*p == '\0')
		(void) pushJsonbValue(found, WJB_ELEM, v);
	else if (array && (*p == '.' || p[1] == '*'))
	{
		/* a member of an array is one of its elements' */
		for (uint32 i = 0; i < JsonContainerSize(c); i++)
			find(*p == '.' ? p : p + 3, getIthJsonbValueFromContainer(c, i), found);
	}
	else if (*p == '.')
	{
		int			n = strcspn(p + 1, ".[");
		JsonbValue *member = c && JsonContainerIsObject(c) ?
			getKeyJsonValueFromContainer(c, p + 1, n, NULL) : NULL;

		if (member)
			find(p + 1 + n, member, found);
	}
	else
	{
		const char *next = strchr(p, ']') + 1;
		uint32		i = p[1] == '*' ? 0 : strtoul(p + 1, NULL, 10);

		if (array)
			v = getIthJsonbValueFromContainer(c, i);
		if (v && (array || i == 0))
			find(next, v, found);
	}
}

Datum
jsonb_path_query_array(PG_FUNCTION_ARGS)
{
	Jsonb	   *json = (Jsonb *) PG_GETARG_POINTER(0);
	JsonbParseState *found = NULL;
	JsonbValue	root;

	if (!JsonbExtractScalar(&json->root, &root))
	{
		root.type = jbvBinary;
		root.val.binary.data = &json->root;
		root.val.binary.len = VARSIZE(json) - VARHDRSZ;
	}
	(void) pushJsonbValue(&found, WJB_BEGIN_ARRAY, NULL);
	find(PG_GETARG_CSTRING(1) + 1, &root, &found);
	return PointerGetDatum(JsonbValueToJsonb(pushJsonbValue(&found, WJB_END_ARRAY, NULL)));
}
