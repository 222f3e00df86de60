/*
 * sync_template.c
 *		From templates to texts, and from a provider's JSON to values.
 *
 * A template is a text with variables in braces: {since}, {now}, {after}, {token},
 * {id}, {id_path}, {partition}, and what the connector or the source defines as "parameters".  Other braces
 * stand for themselves.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/numeric.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "sync/sync.h"

#define UNIX_EPOCH_US	((int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY)

/* ---- values ---- */

bool
sync_find(const char *path, Jsonb *json, JsonbValue *result)
{
	JsonbValue	p;

	if (path == NULL)
		return false;
	p.type = jbvString;
	p.val.string.val = (char *) path;
	p.val.string.len = strlen(path);
	return contact_map_find(&p, json, result) && result->type != jbvNull;
}

char *
sync_scalar_text(const JsonbValue *v)
{
	switch (v->type)
	{
		case jbvString:
			return pnstrdup(v->val.string.val, v->val.string.len);
		case jbvNumeric:
			return DatumGetCString(DirectFunctionCall1(numeric_out, NumericGetDatum(v->val.numeric)));
		default:
			return NULL;
	}
}

bool
sync_read_time(const JsonbValue *v, TimestampTz *time)
{
	char		work[MAXDATELEN + 1];
	char	   *field[MAXDATEFIELDS];
	int			ftype[MAXDATEFIELDS];
	int			nf;
	int			dtype;
	int			tz;
	struct pg_tm tm;
	fsec_t		fsec;

	if (v->type == jbvNumeric)
	{
		float8		ms = DatumGetFloat8(DirectFunctionCall1(numeric_float8, NumericGetDatum(v->val.numeric)));

		/* seconds would lie in 1970, microseconds far ahead */
		if (!(ms > 1e10 && ms < 1e14))
			return false;
		*time = (TimestampTz) (ms * 1000.0) - UNIX_EPOCH_US;
		return true;
	}
	/* neither "now" nor "infinity" */
	if (v->type != jbvString || v->val.string.len > MAXDATELEN ||
		v->val.string.len == 0 || v->val.string.val[0] < '0' || v->val.string.val[0] > '9')
		return false;
	return ParseDateTime(pnstrdup(v->val.string.val, v->val.string.len), work, sizeof(work),
						 field, ftype, MAXDATEFIELDS, &nf) == 0 &&
		decode_date_time(field, ftype, nf, &dtype, &tm, &fsec, &tz) == 0 &&
		dtype == DTK_DATE && tm2timestamp(&tm, fsec, &tz, time) == 0;
}

TimestampTz
sync_parse_time(const char *s)
{
	return DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(s),
												   ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
}

/* In UTC, whatever the session's zone: it is stored, and sent. */
char *
sync_time_text(TimestampTz t, SyncTimeFormat format)
{
	struct pg_tm tm;
	fsec_t		fsec;

	if (format == SYNC_TIME_SECONDS)
		return psprintf(INT64_FORMAT, (t + UNIX_EPOCH_US) / USECS_PER_SEC);
	if (format == SYNC_TIME_MS)
		return psprintf(INT64_FORMAT, (t + UNIX_EPOCH_US) / 1000);
	if (timestamp2tm(t, NULL, &tm, &fsec, NULL, NULL) != 0)
		ereport(ERROR, (errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE), errmsg("timestamp out of range")));
	if (format == SYNC_TIME_ISO_SECONDS)
		return psprintf("%04d-%02d-%02dT%02d:%02d:%02dZ", tm.tm_year, tm.tm_mon, tm.tm_mday, tm.tm_hour, tm.tm_min, tm.tm_sec);
	return psprintf("%04d-%02d-%02dT%02d:%02d:%02d.%06dZ", tm.tm_year, tm.tm_mon, tm.tm_mday,
					tm.tm_hour, tm.tm_min, tm.tm_sec, (int) fsec);
}

/* The code point of "\\uXXXX"; -1 if that does not stand there. */
static int
escaped(const char *p)
{
	int			code = 0;

	if (p[0] != '\\' || p[1] != 'u')
		return -1;
	for (int i = 2; i < 6; i++)
	{
		char		c = p[i];
		int			digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 :
			c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;

		if (digit < 0)
			return -1;
		code = code * 16 + digit;
	}
	return code;
}

/*
 * Half a surrogate pair, as where a text in UTF-16 was cut, and U+0000 cannot be
 * stored: one such character must not cost the page.
 */
static void
mend_escapes(char *p)
{
	while ((p = strchr(p, '\\')) != NULL)
	{
		int			code = escaped(p);
		int			next;

		if (code < 0)
		{
			p += p[1] ? 2 : 1;
			continue;
		}
		next = code >= 0xD800 && code < 0xDC00 ? escaped(p + 6) : -1;
		if (next >= 0xDC00 && next < 0xE000)
			p += 6;
		else if (code == 0 || (code >= 0xD800 && code < 0xE000))
			memcpy(p + 2, "fffd", 4);
		p += 6;
	}
}

Jsonb *
sync_parse_json(char *body, size_t len)
{
	if (strlen(body) != len || !pg_verify_mbstr(PG_UTF8, body, len, true))
		return NULL;
	mend_escapes(body);
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(pg_any_to_server(body, len, PG_UTF8))));
}

/* ---- templates ---- */

/* What a variable stands for; *own: a parameter, which may bring slashes into a path. */
static const char *
lookup(const char *name, int len, const SyncVars *vars, bool *own)
{
	static const struct
	{
		const char *name;
		size_t		offset;
	}			known[] = {
		{"since", offsetof(SyncVars, since)},
		{"now", offsetof(SyncVars, now)},
		{"after", offsetof(SyncVars, after)},
		{"token", offsetof(SyncVars, token)},
		{"id", offsetof(SyncVars, id)},
		{"partition", offsetof(SyncVars, partition)},
	};
	Jsonb	   *parameters[] = {vars->own_parameters, vars->parameters};

	*own = false;
	for (int i = 0; i < lengthof(known); i++)
		if (strlen(known[i].name) == len && memcmp(known[i].name, name, len) == 0)
			return *(const char *const *) ((const char *) vars + known[i].offset);
	if (vars->known)
	{
		char	   *value = sync_member(vars->known, pnstrdup(name, len));

		if (value)
			return value[0] ? value : NULL;
	}
	*own = true;
	/* an id that is a path, and keeps its slashes */
	if (len == 7 && memcmp(name, "id_path", 7) == 0)
		return vars->id;
	for (int i = 0; i < lengthof(parameters); i++)
	{
		char	   *value = sync_member(parameters[i], pnstrdup(name, len));

		if (value)
			return value[0] ? value : NULL;
	}
	return NULL;
}

/* How long the variable is that starts after a brace; 0 if there is none. */
static int
variable_len(const char *p)
{
	int			n = 0;

	while ((p[n] >= 'a' && p[n] <= 'z') || p[n] == '_')
		n++;
	return p[n] == '}' ? n : 0;
}

/* Into a path: all that would end it or hide it is escaped. */
static void
append_to_path(StringInfo to, const char *value, bool slashes)
{
	for (const char *p = value; *p; p++)
	{
		if ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') ||
			strchr("-._~@:$!*'(),=", *p) || (slashes && *p == '/'))
			appendStringInfoChar(to, *p);
		else
			appendStringInfo(to, "%%%02X", (unsigned char) *p);
	}
}

char *
sync_expand(const char *template, const SyncVars *vars, bool in_path)
{
	StringInfoData result;
	int			len;
	bool		own;

	initStringInfo(&result);
	for (const char *p = template; *p; p++)
	{
		const char *value;

		if (*p != '{' || (len = variable_len(p + 1)) == 0)
		{
			appendStringInfoChar(&result, *p);
			continue;
		}
		value = lookup(p + 1, len, vars, &own);
		if (value == NULL)
			return NULL;
		if (in_path)
			append_to_path(&result, value, own);
		else
			appendStringInfoString(&result, value);
		p += len + 1;
	}
	return result.data;
}

bool
sync_next_member(JsonbIterator **it, const SyncVars *vars, char **name, char **value)
{
	JsonbValue	v;
	char	   *template;

	if (JsonbIteratorNext(it, &v, true) != WJB_KEY)
		return false;
	*name = pnstrdup(v.val.string.val, v.val.string.len);
	(void) JsonbIteratorNext(it, &v, true);
	template = sync_scalar_text(&v);
	*value = template ? sync_expand(template, vars, false) : NULL;
	return true;
}

/* False if it is a template that stands for nothing. */
static bool
append_json(StringInfo to, JsonbValue *v, const SyncVars *vars)
{
	JsonbIterator *it;
	JsonbValue	m;
	JsonbIteratorToken token;
	bool		first = true;
	bool		is_array;

	if (v->type == jbvString)
	{
		char	   *text = sync_expand(pnstrdup(v->val.string.val, v->val.string.len), vars, false);

		if (text)
			escape_json(to, text);
		return text != NULL;
	}
	if (v->type != jbvBinary)
	{
		Jsonb	   *scalar = JsonbValueToJsonb(v);

		(void) JsonbToCString(to, &scalar->root, VARSIZE(scalar));
		return true;
	}
	is_array = JsonContainerIsArray(v->val.binary.data);
	it = JsonbIteratorInit(v->val.binary.data);
	(void) JsonbIteratorNext(&it, &m, true);
	appendStringInfoChar(to, is_array ? '[' : '{');
	while ((token = JsonbIteratorNext(&it, &m, true)) == WJB_KEY || token == WJB_ELEM)
	{
		int			start = to->len;

		if (!first)
			appendStringInfoChar(to, ',');
		if (token == WJB_KEY)
		{
			escape_json(to, pnstrdup(m.val.string.val, m.val.string.len));
			appendStringInfoChar(to, ':');
			(void) JsonbIteratorNext(&it, &m, true);
		}
		if (append_json(to, &m, vars))
			first = false;
		else
		{
			to->len = start;
			to->data[start] = '\0';
		}
	}
	appendStringInfoChar(to, is_array ? ']' : '}');
	return true;
}

char *
sync_expand_json(JsonbValue *template, const SyncVars *vars)
{
	StringInfoData result;

	initStringInfo(&result);
	(void) append_json(&result, template, vars);
	/* JSON is in UTF-8, whatever the database is in */
	return pg_server_to_any(result.data, result.len, PG_UTF8);
}
