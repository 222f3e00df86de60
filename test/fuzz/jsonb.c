/*
 * jsonb.c
 *		As much of jsonb as the parsers use, in trees instead of bytes.
 *
 * A container that callers see is a header of jsonb's own and the number of a
 * tree.  Objects have their members in jsonb's order and each once, the last
 * said.  Numbers are texts: only whole ones are printed as jsonb would.
 */
#include "fuzz.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"

#define MAX_DEPTH		200

typedef struct Box
{
	uint32		header;
	uint32		tree;
} Box;

typedef struct Tree
{
	int			n;
	int			max;
	JsonbValue *keys;			/* of an object */
	JsonbValue *values;
} Tree;

static Tree **trees;
static uint32 ntrees;
static uint32 maxtrees;

static Tree *
new_tree(Box *box)
{
	Tree	   *tree = palloc0(sizeof(Tree));

	if (ntrees == maxtrees)
	{
		maxtrees = maxtrees ? maxtrees * 2 : 1024;
		trees = realloc(trees, maxtrees * sizeof(Tree *));
	}
	box->tree = ntrees;
	return trees[ntrees++] = tree;
}

void
fuzz_reset_jsonb(void)
{
	ntrees = 0;
}

static Tree *
tree_of(const JsonbContainer *container)
{
	const Box  *box = (const Box *) container;

	FUZZ_CHECK(box->tree < ntrees);
	return trees[box->tree];
}

static JsonbValue *
add(Tree *tree)
{
	if (tree->n == tree->max)
	{
		Size		size = (tree->max = tree->max ? tree->max * 2 : 4) * sizeof(JsonbValue);

		tree->keys = tree->keys ? repalloc(tree->keys, size) : palloc(size);
		tree->values = tree->values ? repalloc(tree->values, size) : palloc(size);
	}
	return &tree->values[tree->n++];
}

static int
key_cmp(const JsonbValue *a, const JsonbValue *b)
{
	if (a->val.string.len != b->val.string.len)
		return a->val.string.len < b->val.string.len ? -1 : 1;
	return memcmp(a->val.string.val, b->val.string.val, a->val.string.len);
}

typedef struct Member
{
	JsonbValue	key;
	JsonbValue	value;
	int			at;
} Member;

static int
member_cmp(const void *a, const void *b)
{
	const Member *x = a;
	const Member *y = b;
	int			r = key_cmp(&x->key, &y->key);

	return r != 0 ? r : x->at - y->at;
}

static void
sort_members(Tree *tree)
{
	Member	   *members = palloc(Max(tree->n, 1) * sizeof(Member));
	int			n = 0;

	for (int i = 0; i < tree->n; i++)
	{
		members[i].key = tree->keys[i];
		members[i].value = tree->values[i];
		members[i].at = i;
	}
	qsort(members, tree->n, sizeof(Member), member_cmp);
	for (int i = 0; i < tree->n; i++)
	{
		if (i + 1 < tree->n && key_cmp(&members[i].key, &members[i + 1].key) == 0)
			continue;
		tree->keys[n] = members[i].key;
		tree->values[n++] = members[i].value;
	}
	tree->n = n;
}

/* A finished container as a value. */
static JsonbValue
boxed(Box *box, Tree *tree, bool object)
{
	JsonbValue	v;

	if (object)
		sort_members(tree);
	box->header = (object ? JB_FOBJECT : JB_FARRAY) | tree->n;
	v.type = jbvBinary;
	v.val.binary.data = (JsonbContainer *) box;
	v.val.binary.len = sizeof(Box);
	return v;
}

/* ---- building ---- */

typedef struct State
{
	Box		   *box;
	Tree	   *tree;
	bool		object;
	struct State *next;
} State;

JsonbValue *
pushJsonbValue(JsonbParseState **pstate, JsonbIteratorToken token, JsonbValue *v)
{
	State	   *s = (State *) *pstate;
	State	   *outer;
	JsonbValue *result;

	switch (token)
	{
		case WJB_BEGIN_ARRAY:
		case WJB_BEGIN_OBJECT:
			outer = s;
			s = palloc(sizeof(State));
			s->box = palloc(sizeof(Box));
			s->tree = new_tree(s->box);
			s->object = token == WJB_BEGIN_OBJECT;
			s->next = outer;
			*pstate = (JsonbParseState *) s;
			return NULL;
		case WJB_KEY:
			FUZZ_CHECK(s->object && v->type == jbvString);
			add(s->tree);
			s->tree->keys[s->tree->n - 1] = *v;
			return NULL;
		case WJB_VALUE:
			FUZZ_CHECK(s->object);
			s->tree->values[s->tree->n - 1] = *v;
			return NULL;
		case WJB_ELEM:
			FUZZ_CHECK(!s->object);
			*add(s->tree) = *v;
			return NULL;
		case WJB_END_ARRAY:
		case WJB_END_OBJECT:
			FUZZ_CHECK(s->object == (token == WJB_END_OBJECT));
			result = palloc(sizeof(JsonbValue));
			*result = boxed(s->box, s->tree, s->object);
			outer = s->next;
			*pstate = (JsonbParseState *) outer;
			if (outer && outer->object)
				outer->tree->values[outer->tree->n - 1] = *result;
			else if (outer)
				*add(outer->tree) = *result;
			return result;
		default:
			FUZZ_CHECK(false);
	}
}

Jsonb *
JsonbValueToJsonb(JsonbValue *v)
{
	Jsonb	   *json = palloc(VARHDRSZ + sizeof(Box));
	Box		   *box = (Box *) &json->root;

	SET_VARSIZE(json, VARHDRSZ + sizeof(Box));
	if (v->type == jbvBinary)
		*box = *(Box *) v->val.binary.data;
	else
	{
		*add(new_tree(box)) = *v;
		box->header = JB_FARRAY | JB_FSCALAR | 1;
	}
	return json;
}

/* ---- looking ---- */

bool
JsonbExtractScalar(JsonbContainer *container, JsonbValue *result)
{
	if (!JsonContainerIsScalar(container))
		return false;
	*result = tree_of(container)->values[0];
	return true;
}

JsonbValue *
getIthJsonbValueFromContainer(JsonbContainer *container, uint32 i)
{
	Tree	   *tree = tree_of(container);
	JsonbValue *result;

	FUZZ_CHECK(JsonContainerIsArray(container));
	if (i >= tree->n)
		return NULL;
	result = palloc(sizeof(JsonbValue));
	*result = tree->values[i];
	return result;
}

JsonbValue *
findJsonbValueFromContainer(JsonbContainer *container, uint32 flags, JsonbValue *key)
{
	Tree	   *tree = tree_of(container);

	FUZZ_CHECK(flags == JB_FOBJECT);
	if (!JsonContainerIsObject(container))
		return NULL;
	for (int i = 0; i < tree->n; i++)
	{
		if (key_cmp(&tree->keys[i], key) == 0)
		{
			JsonbValue *result = palloc(sizeof(JsonbValue));

			*result = tree->values[i];
			return result;
		}
	}
	return NULL;
}

JsonbValue *
getKeyJsonValueFromContainer(JsonbContainer *container, const char *key, int len, JsonbValue *result)
{
	JsonbValue	wanted;

	FUZZ_CHECK(JsonContainerIsObject(container) && result == NULL);
	wanted.type = jbvString;
	wanted.val.string.val = unconstify(char *, key);
	wanted.val.string.len = len;
	return findJsonbValueFromContainer(container, JB_FOBJECT, &wanted);
}

/* An iterator is jsonb's by name only. */
typedef struct Walk
{
	JsonbContainer *container;
	Tree	   *tree;
	int			at;				/* -1 = before the beginning */
	bool		key_said;
	struct Walk *outer;
} Walk;

static Walk *
new_walk(JsonbContainer *container, Walk *outer)
{
	Walk	   *walk = palloc(sizeof(Walk));

	walk->container = container;
	walk->tree = tree_of(container);
	walk->at = -1;
	walk->key_said = false;
	walk->outer = outer;
	return walk;
}

JsonbIterator *
JsonbIteratorInit(JsonbContainer *container)
{
	return (JsonbIterator *) new_walk(container, NULL);
}

JsonbIteratorToken
JsonbIteratorNext(JsonbIterator **it, JsonbValue *v, bool skip_nested)
{
	Walk	   *w = (Walk *) *it;
	bool		object;

	if (w == NULL)
		return WJB_DONE;
	object = JsonContainerIsObject(w->container);
	memset(v, 0x7E, sizeof(*v));
	if (w->at < 0)
	{
		w->at = 0;
		if (object)
		{
			v->type = jbvObject;
			v->val.object.nPairs = w->tree->n;
			return WJB_BEGIN_OBJECT;
		}
		v->type = jbvArray;
		v->val.array.nElems = w->tree->n;
		v->val.array.rawScalar = JsonContainerIsScalar(w->container);
		return WJB_BEGIN_ARRAY;
	}
	if (w->at == w->tree->n)
	{
		*it = (JsonbIterator *) w->outer;
		return object ? WJB_END_OBJECT : WJB_END_ARRAY;
	}
	if (object && !w->key_said)
	{
		w->key_said = true;
		*v = w->tree->keys[w->at];
		return WJB_KEY;
	}
	w->key_said = false;
	*v = w->tree->values[w->at++];
	if (v->type == jbvBinary && !skip_nested)
	{
		*it = (JsonbIterator *) new_walk(v->val.binary.data, w);
		return JsonbIteratorNext(it, v, false);
	}
	return object ? WJB_VALUE : WJB_ELEM;
}

/* ---- text ---- */

static void
put_text(StringInfo out, const char *s, int len)
{
	appendStringInfoChar(out, '"');
	for (int i = 0; i < len; i++)
	{
		char		c = s[i];
		const char *name = c ? strchr("\bb\ff\nn\rr\tt\"\"\\\\", c) : NULL;

		if (c == '"' || c == '\\')
			appendStringInfo(out, "\\%c", c);
		else if ((unsigned char) c < ' ' && name)
			appendStringInfo(out, "\\%c", name[1]);
		else if ((unsigned char) c < ' ')
			appendStringInfo(out, "\\u%04x", c);
		else
			appendStringInfoChar(out, c);
	}
	appendStringInfoChar(out, '"');
}

static void
put_string(StringInfo out, const JsonbValue *v)
{
	put_text(out, v->val.string.val, v->val.string.len);
}

void
escape_json(StringInfo buf, const char *str)
{
	put_text(buf, str, strlen(str));
}

static void
put_value(StringInfo out, const JsonbValue *v)
{
	Tree	   *tree;
	bool		object;

	switch (v->type)
	{
		case jbvNull:
			appendStringInfoString(out, "null");
			break;
		case jbvBool:
			appendStringInfoString(out, v->val.boolean ? "true" : "false");
			break;
		case jbvNumeric:
			appendStringInfoString(out, (const char *) v->val.numeric);
			break;
		case jbvString:
			put_string(out, v);
			break;
		case jbvBinary:
			tree = tree_of(v->val.binary.data);
			object = JsonContainerIsObject(v->val.binary.data);
			appendStringInfoChar(out, object ? '{' : '[');
			for (int i = 0; i < tree->n; i++)
			{
				if (i > 0)
					appendStringInfoString(out, ", ");
				if (object)
				{
					put_string(out, &tree->keys[i]);
					appendStringInfoString(out, ": ");
				}
				put_value(out, &tree->values[i]);
			}
			appendStringInfoChar(out, object ? '}' : ']');
			break;
		default:
			FUZZ_CHECK(false);
	}
}

char *
JsonbToCString(StringInfo out, JsonbContainer *container, int estimated)
{
	StringInfoData buf;
	JsonbValue	v;

	FUZZ_CHECK(out == NULL);
	initStringInfo(&buf);
	if (!JsonbExtractScalar(container, &v))
	{
		v.type = jbvBinary;
		v.val.binary.data = container;
	}
	put_value(&buf, &v);
	return buf.data;
}

static void
malformed(void)
{
	ereport(ERROR, errmsg("invalid input syntax for type json"));
}

static void
skip_blanks(const char **p)
{
	*p += strspn(*p, " \t\r\n");
}

static uint32
read_hex(const char **p)
{
	uint32		c = 0;

	for (int i = 0; i < 4; i++, (*p)++)
	{
		if (!isxdigit((unsigned char) **p))
			malformed();
		c = c * 16 + (**p <= '9' ? **p - '0' : (**p | 0x20) - 'a' + 10);
	}
	return c;
}

static void
read_string(const char **p, JsonbValue *v)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for ((*p)++; **p != '"';)
	{
		uint32		c;
		unsigned char utf8[5] = {0};
		const char *name;

		if ((unsigned char) **p < ' ')
			malformed();
		if (**p != '\\')
		{
			appendStringInfoChar(&buf, *(*p)++);
			continue;
		}
		(*p)++;
		if (**p == 'u')
		{
			(*p)++;
			c = read_hex(p);
			if (c >= 0xD800 && c < 0xDC00)
			{
				uint32		low;

				if (strncmp(*p, "\\u", 2) != 0)
					malformed();
				*p += 2;
				low = read_hex(p);
				if (low < 0xDC00 || low > 0xDFFF)
					malformed();
				c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
			}
			else if (c == 0 || (c >= 0xDC00 && c < 0xE000))
				malformed();
			unicode_to_utf8(c, utf8);
			appendBinaryStringInfo(&buf, (char *) utf8, pg_utf_mblen(utf8));
			continue;
		}
		name = **p ? strchr("\"\\/bfnrt", **p) : NULL;
		if (name == NULL)
			malformed();
		appendStringInfoChar(&buf, "\"\\/\b\f\n\r\t"[name - strchr("\"\\/bfnrt", '"')]);
		(*p)++;
	}
	(*p)++;
	v->type = jbvString;
	v->val.string.val = buf.data;
	v->val.string.len = buf.len;
}

static void
read_number(const char **p, JsonbValue *v)
{
	const char *from = *p;
	char	   *text;

	*p += **p == '-';
	if (**p == '0')
		(*p)++;
	else if (**p >= '1' && **p <= '9')
		*p += strspn(*p, "0123456789");
	else
		malformed();
	if (**p == '.')
	{
		(*p)++;
		if (!isdigit((unsigned char) **p))
			malformed();
		*p += strspn(*p, "0123456789");
	}
	if (**p == 'e' || **p == 'E')
	{
		(*p)++;
		*p += **p == '-' || **p == '+';
		if (!isdigit((unsigned char) **p))
			malformed();
		*p += strspn(*p, "0123456789");
	}
	text = pnstrdup(from, *p - from);
	v->type = jbvNumeric;
	v->val.numeric = (Numeric) (strcmp(text, "-0") == 0 ? text + 1 : text);
}

static void
read_value(const char **p, JsonbValue *v, int depth)
{
	static const char *const words[] = {"null", "true", "false"};
	bool		object;
	Box		   *box;
	Tree	   *tree;

	if (depth > MAX_DEPTH)
		ereport(ERROR, errmsg("stack depth limit exceeded"));
	skip_blanks(p);
	for (int i = 0; i < lengthof(words); i++)
	{
		if (strncmp(*p, words[i], strlen(words[i])) != 0)
			continue;
		*p += strlen(words[i]);
		v->type = i == 0 ? jbvNull : jbvBool;
		v->val.boolean = i == 1;
		return;
	}
	if (**p == '"')
	{
		read_string(p, v);
		return;
	}
	if (**p != '{' && **p != '[')
	{
		read_number(p, v);
		return;
	}
	object = *(*p)++ == '{';
	box = palloc(sizeof(Box));
	tree = new_tree(box);
	skip_blanks(p);
	while (**p != (object ? '}' : ']'))
	{
		JsonbValue	key;
		JsonbValue	value;

		if (tree->n > 0)
		{
			if (*(*p)++ != ',')
				malformed();
			skip_blanks(p);
		}
		if (object)
		{
			if (**p != '"')
				malformed();
			read_string(p, &key);
			skip_blanks(p);
			if (*(*p)++ != ':')
				malformed();
		}
		read_value(p, &value, depth + 1);
		*add(tree) = value;
		if (object)
			tree->keys[tree->n - 1] = key;
		skip_blanks(p);
	}
	(*p)++;
	*v = boxed(box, tree, object);
}

Jsonb *
fuzz_jsonb(const char *text)
{
	JsonbValue	v;

	read_value(&text, &v, 0);
	skip_blanks(&text);
	if (*text)
		malformed();
	return JsonbValueToJsonb(&v);
}

Datum
jsonb_in(PG_FUNCTION_ARGS)
{
	return PointerGetDatum(fuzz_jsonb(PG_GETARG_CSTRING(0)));
}

Datum
numeric_out(PG_FUNCTION_ARGS)
{
	return PG_GETARG_DATUM(0);
}

/* ---- calls of these ---- */

static Datum
call(PGFunction function, Oid collation, const Datum *arguments, int n)
{
	LOCAL_FCINFO(fcinfo, 4);

	InitFunctionCallInfoData(*fcinfo, NULL, n, collation, NULL, NULL);
	for (int i = 0; i < n; i++)
	{
		fcinfo->args[i].value = arguments[i];
		fcinfo->args[i].isnull = false;
	}
	return function(fcinfo);
}

Datum
DirectFunctionCall1Coll(PGFunction function, Oid collation, Datum a)
{
	return call(function, collation, &a, 1);
}

Datum
DirectFunctionCall4Coll(PGFunction function, Oid collation, Datum a, Datum b, Datum c, Datum d)
{
	Datum		arguments[] = {a, b, c, d};

	return call(function, collation, arguments, 4);
}
