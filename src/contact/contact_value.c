/*
 * contact_value.c
 *		What stands for a value, in mappings of either direction.
 *
 *	"$.a.b"									an SQL/JSON path: the first thing that it finds
 *	{"$first": [value, ...]}				of some of these, the first that finds something but null
 *	{"$value": path, "theirs": ours}		what it finds, or what stands for that here; null = nothing does
 *	{"$date": path}							YYYY-MM-DD, or --MM-DD, of a date or time as text or
 *											in milliseconds, or of {"year", "month", "day"}
 *	{"$date_parts": path}					and back
 *	{"$join": path, "by": ";"}				all that it finds, or an array of paths do, as one text
 *
 * Any other value stands for itself.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/string.h"
#include "lib/stringinfo.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "contact/contact.h"
#include "contact/contact_value.h"
#include "contact/contact_vcard.h"

/* Programs that cannot leave a year out write this one. */
#define NO_YEAR		"1604"

bool
contact_value_is_path(const JsonbValue *v)
{
	return v->type == jbvString && v->val.string.len > 0 && v->val.string.val[0] == '$';
}

Jsonb *
contact_value_jsonb(const JsonbValue *v)
{
	return JsonbValueToJsonb((JsonbValue *) v);
}

/* Everything a path finds, as a JSON array. */
Jsonb *
contact_value_find_all(const JsonbValue *path, Jsonb *payload)
{
	char	   *text = pnstrdup(path->val.string.val, path->val.string.len);
	Datum		compiled = DirectFunctionCall1(jsonpath_in, CStringGetDatum(text));
	Datum		empty = DirectFunctionCall1(jsonb_in, CStringGetDatum("{}"));

	return DatumGetJsonbP(DirectFunctionCall4(jsonb_path_query_array, JsonbPGetDatum(payload),
											  compiled, empty, BoolGetDatum(true)));
}

/* A chain of plain member names, the common case, needs no path engine. */
static bool
plain_chain(const JsonbValue *path)
{
	const char *p = path->val.string.val;
	int			len = path->val.string.len;

	for (int i = 1; i < len; i++)
	{
		if (p[i] == '.' && i + 1 < len && p[i + 1] != '.')
			continue;
		if (i == 1 || !((p[i] >= 'a' && p[i] <= 'z') || (p[i] >= 'A' && p[i] <= 'Z') ||
						p[i] == '_' || (p[i - 1] != '.' && p[i] >= '0' && p[i] <= '9')))
			return false;
	}
	return true;
}

/* The first thing a path finds; false if there is none. */
bool
contact_map_find(const JsonbValue *path, Jsonb *payload, JsonbValue *result)
{
	if (plain_chain(path))
	{
		const char *p = path->val.string.val + 1;
		const char *end = path->val.string.val + path->val.string.len;
		JsonbContainer *at = &payload->root;
		JsonbValue *found;

		if (p == end || JB_ROOT_IS_SCALAR(payload))
			goto general;
		for (;;)
		{
			const char *dot = memchr(p + 1, '.', end - p - 1);
			const char *stop = dot ? dot : end;

			if (!JsonContainerIsObject(at))
				goto general;	/* lax mode looks into arrays */
			found = getKeyJsonValueFromContainer(at, p + 1, stop - p - 1, NULL);
			if (found == NULL)
				return false;
			if (dot == NULL)
			{
				*result = *found;
				return true;
			}
			if (found->type != jbvBinary)
				return false;
			at = found->val.binary.data;
			p = dot;
		}
	}
general:
	{
		Jsonb	   *all = contact_value_find_all(path, payload);
		JsonbValue *first = getIthJsonbValueFromContainer(&all->root, 0);

		if (first == NULL)
			return false;
		*result = *first;
		return true;
	}
}

/* pushJsonbValue unpacks a nested value only where it is binary. */
void
contact_value_push(JsonbParseState **state, JsonbIteratorToken seq, JsonbValue *v)
{
	if (v->type == jbvArray || v->type == jbvObject)
	{
		Jsonb	   *whole = JsonbValueToJsonb(v);

		v = palloc(sizeof(JsonbValue));
		v->type = jbvBinary;
		v->val.binary.data = &whole->root;
		v->val.binary.len = VARSIZE(whole) - VARHDRSZ;
	}
	(void) pushJsonbValue(state, seq, v);
}

/* Numbers where a contact has text: telephone numbers and ids, mostly. */
void
contact_value_to_text(JsonbValue *v)
{
	if (v->type == jbvNumeric)
	{
		char	   *s = DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(v->val.numeric)));

		v->type = jbvString;
		v->val.string.val = s;
		v->val.string.len = strlen(s);
	}
}

/* The member of an object that is a value of one of the kinds above; NULL = none. */
static JsonbValue *
kind_of(const JsonbValue *v, const char **kind)
{
	static const char *const kinds[] = {"$value", "$date", "$date_parts", "$join", "$first"};

	if (v->type != jbvBinary || !JsonContainerIsObject(v->val.binary.data))
		return NULL;
	for (int i = 0; i < lengthof(kinds); i++)
	{
		JsonbValue *path = getKeyJsonValueFromContainer(v->val.binary.data, kinds[i], strlen(kinds[i]), NULL);

		if (path)
		{
			*kind = kinds[i];
			return path;
		}
	}
	return NULL;
}

bool
contact_value_is_found(const JsonbValue *v)
{
	const char *kind;

	return contact_value_is_path(v) || kind_of(v, &kind) != NULL;
}

static void
set_text(JsonbValue *v, char *text)
{
	v->type = jbvString;
	v->val.string.val = text;
	v->val.string.len = strlen(text);
}

/* A member of a date that is a number, or -1. */
static int
date_part(JsonbContainer *date, const char *name)
{
	JsonbValue *v = getKeyJsonValueFromContainer(date, name, strlen(name), NULL);
	double		n = v && v->type == jbvNumeric ? DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(v->val.numeric))) : -1;

	return n >= 0 && n <= 9999 ? (int) n : -1;
}

/* Milliseconds since 1970, as a text or a number, as a date; false if it is none. */
static bool
date_of_ms(const JsonbValue *v, JsonbValue *result)
{
	JsonbValue	text = *v;
	char	   *digits;
	int64		days;
	int			year;
	int			month;
	int			day;

	contact_value_to_text(&text);
	digits = pnstrdup(text.val.string.val, text.val.string.len);
	if (strspn(digits + (digits[0] == '-'), "0123456789") != strlen(digits) - (digits[0] == '-') ||
		strlen(digits) < 9 || strlen(digits) > 14)
		return false;
	days = pg_strtoint64(digits);
	days = (days >= 0 ? days : days - 86399999) / 86400000;
	j2date((int) (days + UNIX_EPOCH_JDATE), &year, &month, &day);
	if (year < 1 || year > 9999)
		return false;
	set_text(result, psprintf("%04d-%02d-%02d", year, month, day));
	return true;
}

static void
as_date(JsonbValue *v)
{
	StrView		text;

	if (v->type == jbvBinary && JsonContainerIsObject(v->val.binary.data))
	{
		int			year = date_part(v->val.binary.data, "year");
		int			month = date_part(v->val.binary.data, "month");
		int			day = date_part(v->val.binary.data, "day");

		if (month >= 1 && day >= 1)
			set_text(v, year > 0 ? psprintf("%04d-%02d-%02d", year, month, day) : psprintf("--%02d-%02d", month, day));
		else if (year > 0)
			set_text(v, month >= 1 ? psprintf("%04d-%02d", year, month) : psprintf("%04d", year));
		else
			v->type = jbvNull;
		return;
	}
	if ((v->type != jbvString && v->type != jbvNumeric) || date_of_ms(v, v) || v->type != jbvString)
		return;
	text = contact_vcard_date(strview(v->val.string.val, v->val.string.len), strview_of(NO_YEAR));
	v->val.string.val = (char *) text.ptr;
	v->val.string.len = text.len;
}

static void
push_number(JsonbParseState **state, const char *name, int n)
{
	JsonbValue	v;

	set_text(&v, pstrdup(name));
	(void) pushJsonbValue(state, WJB_KEY, &v);
	v.type = jbvNumeric;
	v.val.numeric = DatumGetNumeric(DirectFunctionCall1(int4_numeric, Int32GetDatum(n)));
	(void) pushJsonbValue(state, WJB_VALUE, &v);
}

/* YYYY-MM-DD or --MM-DD as an object; false for what is no date. */
static bool
as_date_parts(JsonbValue *v)
{
	JsonbParseState *state = NULL;
	char	   *text;
	int			year = 0;
	int			month;
	int			day;
	char		end;

	if (v->type != jbvString)
		return false;
	text = pnstrdup(v->val.string.val, v->val.string.len);
	if (sscanf(text, "--%2d-%2d%c", &month, &day, &end) != 2 &&
		sscanf(text, "%4d-%2d-%2d%c", &year, &month, &day, &end) != 3)
		return false;
	(void) pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
	if (year > 0)
		push_number(&state, "year", year);
	push_number(&state, "month", month);
	push_number(&state, "day", day);
	*v = *pushJsonbValue(&state, WJB_END_OBJECT, NULL);
	return true;
}

/* All texts and numbers that a path finds, with something between them. */
static void
append_found(StringInfo to, const JsonbValue *path, const JsonbValue *by, Jsonb *payload)
{
	Jsonb	   *all = contact_value_find_all(path, payload);

	for (int i = 0; i < JB_ROOT_COUNT(all); i++)
	{
		JsonbValue	v = *getIthJsonbValueFromContainer(&all->root, i);

		contact_value_to_text(&v);
		if (v.type != jbvString || v.val.string.len == 0)
			continue;
		if (to->len > 0 && by && by->type == jbvString)
			appendBinaryStringInfo(to, by->val.string.val, by->val.string.len);
		appendBinaryStringInfo(to, v.val.string.val, v.val.string.len);
	}
}

static bool
joined(const JsonbValue *paths, const JsonbValue *by, Jsonb *payload, JsonbValue *result)
{
	StringInfoData text;

	initStringInfo(&text);
	if (paths->type == jbvBinary && JsonContainerIsArray(paths->val.binary.data))
	{
		for (int i = 0; i < JsonContainerSize(paths->val.binary.data); i++)
		{
			JsonbValue *path = getIthJsonbValueFromContainer(paths->val.binary.data, i);

			if (contact_value_is_path(path))
				append_found(&text, path, by, payload);
		}
	}
	else if (contact_value_is_path(paths))
		append_found(&text, paths, by, payload);
	set_text(result, text.data);
	return text.len > 0;
}

bool
contact_value_find(const JsonbValue *v, Jsonb *payload, JsonbValue *result)
{
	const char *kind;
	JsonbValue *path;

	if (contact_value_is_path(v))
		return contact_map_find(v, payload, result);
	path = kind_of(v, &kind);
	if (path == NULL)
		return false;
	if (strcmp(kind, "$join") == 0)
		return joined(path, getKeyJsonValueFromContainer(v->val.binary.data, "by", 2, NULL), payload, result);
	if (strcmp(kind, "$first") == 0)
		return path->type == jbvBinary && JsonContainerIsArray(path->val.binary.data) &&
			contact_value_find_first(path->val.binary.data, payload, result);
	if (!contact_value_is_path(path) || !contact_map_find(path, payload, result))
		return false;
	if (strcmp(kind, "$date") == 0)
		as_date(result);
	else if (strcmp(kind, "$date_parts") == 0)
		return as_date_parts(result);
	else if (result->type == jbvString)
	{
		JsonbValue *other = getKeyJsonValueFromContainer(v->val.binary.data, result->val.string.val, result->val.string.len, NULL);

		/* its own name is no value */
		if (other && (result->val.string.len == 0 || result->val.string.val[0] != '$'))
			*result = *other;
	}
	return true;
}

bool
contact_value_find_first(JsonbContainer *values, Jsonb *payload, JsonbValue *result)
{
	bool		any = false;

	for (int i = 0; i < JsonContainerSize(values); i++)
	{
		JsonbValue *v = getIthJsonbValueFromContainer(values, i);
		JsonbValue	found;

		if (!contact_value_is_found(v) || !contact_value_find(v, payload, &found))
			continue;
		if (!any || found.type != jbvNull)
			*result = found;
		any = true;
		if (found.type != jbvNull)
			return true;
	}
	return any;
}

/* ---- whole documents ---- */

typedef struct Filler
{
	const JsonbValue *empty;	/* what stands for nothing; NULL = it is left out */
	JsonbParseState *state;
} Filler;

static void fill_member(Filler *f, JsonbIteratorToken seq, const JsonbValue *template, Jsonb *data, bool *any);

/* An object or an array whose opening is written by its caller; *any: did a path of it find something? */
static void
fill_container(Filler *f, JsonbContainer *template, Jsonb *data, bool *any)
{
	JsonbIterator *it = JsonbIteratorInit(template);
	JsonbIteratorToken token;
	JsonbValue	v;

	(void) JsonbIteratorNext(&it, &v, true);
	while ((token = JsonbIteratorNext(&it, &v, true)) == WJB_KEY || token == WJB_ELEM)
	{
		if (token == WJB_KEY)
		{
			JsonbValue	key = v;
			JsonbValue	found;

			(void) JsonbIteratorNext(&it, &v, true);
			if (key.val.string.len == 5 && memcmp(key.val.string.val, "$each", 5) == 0)
				continue;
			if (contact_value_is_found(&v))
			{
				if (contact_value_find(&v, data, &found) && found.type != jbvNull)
					*any = true;
				else if (f->empty)
					found = *f->empty;
				else
					continue;
				(void) pushJsonbValue(&f->state, WJB_KEY, &key);
				contact_value_push(&f->state, WJB_VALUE, &found);
				continue;
			}
			(void) pushJsonbValue(&f->state, WJB_KEY, &key);
			fill_member(f, WJB_VALUE, &v, data, any);
		}
		else
			fill_member(f, WJB_ELEM, &v, data, any);
	}
}

/* A filled template as a document of its own. */
static Jsonb *
filled(Filler *f, JsonbContainer *template, Jsonb *data, bool *any)
{
	bool		is_array = JsonContainerIsArray(template);
	Filler		inner = {f->empty, NULL};

	(void) pushJsonbValue(&inner.state, is_array ? WJB_BEGIN_ARRAY : WJB_BEGIN_OBJECT, NULL);
	fill_container(&inner, template, data, any);
	return JsonbValueToJsonb(pushJsonbValue(&inner.state, is_array ? WJB_END_ARRAY : WJB_END_OBJECT, NULL));
}

static void
push_document(Filler *f, JsonbIteratorToken seq, Jsonb *document)
{
	JsonbValue	v;

	v.type = jbvBinary;
	v.val.binary.data = &document->root;
	v.val.binary.len = VARSIZE(document) - VARHDRSZ;
	(void) pushJsonbValue(&f->state, seq, &v);
}

/* A member's value, or an element: of a list, one for each thing that a path finds, and none where nothing is found. */
static void
fill_member(Filler *f, JsonbIteratorToken seq, const JsonbValue *template, Jsonb *data, bool *any)
{
	JsonbValue	v = *template;
	JsonbValue *each = NULL;
	bool		found = false;
	Jsonb	   *document;

	if (seq == WJB_ELEM && contact_value_is_path(template))
	{
		Jsonb	   *all = contact_value_find_all(template, data);

		for (int i = 0; i < JB_ROOT_COUNT(all); i++)
			contact_value_push(&f->state, WJB_ELEM, getIthJsonbValueFromContainer(&all->root, i));
		*any |= JB_ROOT_COUNT(all) > 0;
		return;
	}
	if (template->type != jbvBinary)
	{
		contact_value_push(&f->state, seq, &v);
		return;
	}
	if (seq == WJB_ELEM && JsonContainerIsObject(template->val.binary.data))
		each = getKeyJsonValueFromContainer(template->val.binary.data, "$each", 5, NULL);
	if (each && contact_value_is_path(each))
	{
		Jsonb	   *all = contact_value_find_all(each, data);

		for (int i = 0; i < JB_ROOT_COUNT(all); i++)
		{
			Filler		inner = {NULL, NULL};

			found = false;
			document = filled(&inner, template->val.binary.data, contact_value_jsonb(getIthJsonbValueFromContainer(&all->root, i)), &found);
			if (found)
				push_document(f, WJB_ELEM, document);
			*any |= found;
		}
		return;
	}
	document = filled(f, template->val.binary.data, data, &found);
	*any |= found;
	if (seq == WJB_VALUE || found)
		push_document(f, seq, document);
}

Jsonb *
contact_value_fill(const Jsonb *template, Jsonb *data, const JsonbValue *empty)
{
	Filler		f = {empty, NULL};
	bool		any = false;

	return filled(&f, (JsonbContainer *) &template->root, data, &any);
}
