/*
 * contact_json.c
 *		JSON to contact and back.
 *
 * What JSON says is read into claims: values, and what they speak about.  A
 * fault of structure is reported with its JSON path and never thrown, so that
 * one event of a batch can fail alone; what merely cannot be recognised, such
 * as a mail address without a domain, is kept as it was spelled.
 *
 * Provenance travels as one reserved member, "_provenance": an object from
 * cell ("title", "emails:ann@example.com") to its stamp.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "contact/contact.h"

#define PROVENANCE		"_provenance"

const char *const contact_address_members[CA_COUNT] = {
	"street", "city", "region", "postal_code", "country"
};

/* The member that holds an element's value, by list field. */
const char *const contact_value_members[CF_COUNT] = {
	[CF_EMAILS] = "address",[CF_PHONES] = "number",[CF_URLS] = "url"
};

static const struct
{
	uint8		flag;
	const char *name;
}			stamp_flags[] =
{
	{CS_ESTIMATE, "estimate"},
	{CS_ENRICHED, "enriched"},
	{CS_DERIVED, "derived"},
	{CS_OVERRIDDEN, "overridden"},
	{CS_VERIFIED, "verified"},
};

/* ---- reading ---- */

typedef struct ClaimsBuilder
{
	ContactItem *items;
	int			nitems;
	int			maxitems;
	ContactItem *elements;
	int			nelements;
	int			maxelements;
	uint32		covers;
	ContactError *error;
	char		path[sizeof(((ContactError *) 0)->path)];
} ClaimsBuilder;

static StrView
jsonb_text(const JsonbValue *v)
{
	StrView		s;

	s.ptr = v->val.string.val;
	s.len = v->val.string.len;
	return s;
}

static bool
fail(ClaimsBuilder *b, const char *member, const char *message)
{
	b->error->message = message;
	snprintf(b->error->path, sizeof(b->error->path), "%s%s%s",
			 b->path, member ? "." : "", member ? member : "");
	return false;
}

static ContactItem *
add_item(ContactItem **items, int *n, int *max, ContactField field)
{
	ContactItem *item;

	if (*n == *max)
	{
		*max = *max ? *max * 2 : 24;
		*items = *items ? repalloc(*items, sizeof(ContactItem) * *max)
			: palloc(sizeof(ContactItem) * *max);
	}
	item = &(*items)[(*n)++];
	memset(item, 0, sizeof(*item));
	item->field = field;
	item->stamp = -1;
	return item;
}

static bool
too_many(ClaimsBuilder *b)
{
	if (b->nitems + b->nelements < CONTACT_MAX_ITEMS)
		return false;
	b->error->limit = true;
	return !fail(b, NULL, "contact has too many values");
}

/* A string member, or nothing at null; false if it is anything else. */
static bool
read_text(ClaimsBuilder *b, const char *member, const JsonbValue *v, StrView *s)
{
	if (v->type == jbvNull)
		return true;
	if (v->type != jbvString)
		return fail(b, member, "expected a string");
	*s = jsonb_text(v);
	return true;
}

static bool
name_is(const JsonbValue *name, const char *expected)
{
	return name->val.string.len == strlen(expected) &&
		memcmp(name->val.string.val, expected, name->val.string.len) == 0;
}

/* A member of a list's element; *known is false if there is no such one. */
static bool
read_element_member(ClaimsBuilder *b, const JsonbValue *name, const JsonbValue *v,
					ContactItem *item, bool *known)
{
	ContactField field = item->field;

	*known = true;
	if (contact_value_members[field] && name_is(name, contact_value_members[field]))
		return read_text(b, contact_value_members[field], v, &item->value);
	if (name_is(name, "type"))
		return read_text(b, "type", v, &item->type);
	if (field == CF_PHONES && name_is(name, "extension"))
		return read_text(b, "extension", v, &item->extension);
	if (field <= CF_PHONES && (name_is(name, "primary") || name_is(name, "verified")))
	{
		bool		primary = name_is(name, "primary");

		if (v->type == jbvNull)
			return true;
		if (v->type != jbvBool)
			return fail(b, primary ? "primary" : "verified", "expected true or false");
		if (primary)
			item->flags |= v->val.boolean ? CI_PRIMARY : 0;
		else
			item->flags |= v->val.boolean ? CI_VERIFIED : CI_UNVERIFIED;
		return true;
	}
	for (int i = 0; field == CF_ADDRESSES && i < CA_COUNT; i++)
		if (name_is(name, contact_address_members[i]))
			return read_text(b, contact_address_members[i], v, &item->part[i]);
	*known = false;
	return true;
}

/*
 * One element of a list field: a bare string, or an object.  What else the
 * object says is in *rest, NULL if nothing; *unknown is its first member.
 */
static bool
read_element(ClaimsBuilder *b, JsonbValue *v, ContactItem *item,
			 Jsonb **rest, char **unknown)
{
	ContactField field = item->field;
	JsonbParseState *state = NULL;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	member;

	*rest = NULL;
	if (v->type == jbvString && field != CF_ADDRESSES)
	{
		item->value = jsonb_text(v);
		return true;
	}
	if (v->type != jbvBinary || !JsonContainerIsObject(v->val.binary.data) || field == CF_TAGS)
		return fail(b, NULL, field == CF_TAGS ? "expected a string" :
					field == CF_ADDRESSES ? "expected an object" : "expected an object or a string");

	it = JsonbIteratorInit(v->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		bool		known;

		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &member, true);
		if (!read_element_member(b, &name, &member, item, &known))
			return false;
		if (known || member.type == jbvNull)
			continue;
		if (state == NULL)
		{
			pushJsonbValue(&state, WJB_BEGIN_OBJECT, NULL);
			*unknown = pnstrdup(name.val.string.val,
								pg_mbcliplen(name.val.string.val, name.val.string.len, 40));
		}
		pushJsonbValue(&state, WJB_KEY, &name);
		pushJsonbValue(&state, WJB_VALUE, &member);
	}
	if (state)
		*rest = JsonbValueToJsonb(pushJsonbValue(&state, WJB_END_OBJECT, NULL));
	return true;
}

/* How deep a value is nested, but no deeper than the cap. */
static int
nesting(JsonbContainer *container)
{
	JsonbIterator *it = JsonbIteratorInit(container);
	JsonbIteratorToken token;
	JsonbValue	v;
	int			depth = 0;
	int			most = 0;

	while ((token = JsonbIteratorNext(&it, &v, false)) != WJB_DONE)
	{
		if (token == WJB_BEGIN_ARRAY || token == WJB_BEGIN_OBJECT)
		{
			depth++;
			most = Max(most, depth);
		}
		else if (token == WJB_END_ARRAY || token == WJB_END_OBJECT)
			depth--;
		if (most > CONTACT_MAX_NESTING)
			break;
	}
	return most;
}

/* One metadata key; null, and what is empty, clears it. */
static bool
read_metadata(ClaimsBuilder *b, StrView key, JsonbValue *v, bool element)
{
	ContactItem *item;
	bool		empty = v->type == jbvNull ||
		(v->type == jbvString && v->val.string.len == 0) ||
		(v->type == jbvBinary && JsonContainerSize(v->val.binary.data) == 0);

	if (too_many(b))
		return false;
	if (v->type == jbvBinary && nesting(v->val.binary.data) > CONTACT_MAX_NESTING)
	{
		b->error->limit = true;
		return fail(b, NULL, "metadata is nested too deeply");
	}
	if (key.len == 0)
		return true;
	if (!empty)
	{
		Jsonb	   *json = JsonbValueToJsonb(v);

		item = add_item(&b->items, &b->nitems, &b->maxitems, CF_METADATA);
		item->key = key;
		item->value.ptr = JsonbToCString(NULL, &json->root, VARSIZE(json));
		item->value.len = strlen(item->value.ptr);
	}
	if (element)
	{
		item = add_item(&b->elements, &b->nelements, &b->maxelements, CF_METADATA);
		item->key = key;
		item->flags = empty ? CI_TOMBSTONE : 0;
	}
	return true;
}

/*
 * What an element says beyond what a contact keeps of it goes to metadata, as
 * a whole under the name that the element has in provenance.
 */
static bool
read_rest(ClaimsBuilder *b, const ContactItem *item, Jsonb *rest)
{
	StringInfoData name;
	StrView		key;
	JsonbValue	v;

	initStringInfo(&name);
	appendStringInfo(&name, "%s:", contact_field_names[item->field]);
	appendBinaryStringInfo(&name, item->key.ptr, item->key.len);
	key.ptr = name.data;
	key.len = name.len;
	v.type = jbvBinary;
	v.val.binary.data = &rest->root;
	v.val.binary.len = VARSIZE(rest) - VARHDRSZ;
	return read_metadata(b, key, &v, true);
}

/*
 * The elements of a list.  As an edit each is also an element that the
 * document speaks about; removed ones are that only.
 */
static bool
read_list(ClaimsBuilder *b, ContactField field, JsonbValue *v, bool edit, bool removed)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	element;
	char		outer[sizeof(b->path)];
	int			n = 0;

	if (v->type == jbvNull)
		return true;
	if (v->type != jbvBinary || !JsonContainerIsArray(v->val.binary.data))
		return fail(b, NULL, "expected an array");

	strlcpy(outer, b->path, sizeof(outer));
	it = JsonbIteratorInit(v->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &element, true)) != WJB_DONE)
	{
		ContactItem probe;
		ContactItem *item = &probe;
		Jsonb	   *rest;
		char	   *unknown = NULL;

		if (token != WJB_ELEM)
			continue;
		if (too_many(b))
			return false;
		snprintf(b->path, sizeof(b->path), "%s[%d]", outer, n++);
		memset(&probe, 0, sizeof(probe));
		probe.field = field;
		probe.stamp = -1;
		if (!read_element(b, &element, item, &rest, &unknown))
			return false;
		if (!contact_item_normalize(item))
		{
			/* nothing is left of it; a misspelled member must not go unseen */
			if (rest)
				return fail(b, unknown, "unknown member of a list's element");
			continue;
		}
		if (rest && !removed && !read_rest(b, item, rest))
			return false;
		if (!removed)
			*add_item(&b->items, &b->nitems, &b->maxitems, field) = probe;
		if (edit)
		{
			item = add_item(&b->elements, &b->nelements, &b->maxelements, field);
			item->key = probe.key;
			item->flags = removed ? CI_TOMBSTONE : 0;
		}
	}
	strlcpy(b->path, outer, sizeof(b->path));
	return true;
}

/* {"add": [...], "remove": [...]} of a patch. */
static bool
read_edits(ClaimsBuilder *b, ContactField field, JsonbValue *v)
{
	JsonbIterator *it = JsonbIteratorInit(v->val.binary.data);
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	member;
	char		outer[sizeof(b->path)];

	strlcpy(outer, b->path, sizeof(outer));
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		bool		removed;

		if (token != WJB_KEY)
			continue;
		removed = name_is(&name, "remove");
		if (!removed && !name_is(&name, "add"))
			return fail(b, NULL, "expected an array, or an object of \"add\" and \"remove\"");
		(void) JsonbIteratorNext(&it, &member, true);
		snprintf(b->path, sizeof(b->path), "%s.%s", outer, removed ? "remove" : "add");
		if (!read_list(b, field, &member, true, removed))
			return false;
		strlcpy(b->path, outer, sizeof(b->path));
	}
	return true;
}

static bool
read_metadata_object(ClaimsBuilder *b, JsonbValue *v, bool patch)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	member;

	if (v->type == jbvNull)
	{
		b->covers |= CF_BIT(CF_METADATA);
		return true;
	}
	if (v->type != jbvBinary || !JsonContainerIsObject(v->val.binary.data))
		return fail(b, NULL, "expected an object");
	/* a patch speaks about the keys that it names, anything else about all */
	if (!patch)
		b->covers |= CF_BIT(CF_METADATA);
	it = JsonbIteratorInit(v->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &member, true);
		if (!read_metadata(b, jsonb_text(&name), &member, patch))
			return false;
	}
	return true;
}

static bool
read_member(ClaimsBuilder *b, const JsonbValue *name, JsonbValue *v, bool patch)
{
	int			field = contact_field_lookup(name->val.string.val, name->val.string.len);

	if (field < 0)
	{
		strlcpy(b->path, "$", sizeof(b->path));
		return read_metadata(b, jsonb_text(name), v, true);
	}
	snprintf(b->path, sizeof(b->path), "$.%s", contact_field_names[field]);
	if (field == CF_METADATA)
		return read_metadata_object(b, v, patch);
	if (CF_IS_LIST(field))
	{
		if (patch && v->type == jbvBinary && JsonContainerIsObject(v->val.binary.data) &&
			JsonContainerSize(v->val.binary.data) > 0)
			return read_edits(b, field, v);
		b->covers |= CF_BIT(field);
		if (v->type == jbvBinary && JsonContainerIsObject(v->val.binary.data) &&
			JsonContainerSize(v->val.binary.data) == 0)
			return true;
		return read_list(b, field, v, false, false);
	}

	b->covers |= CF_BIT(field);
	if (v->type == jbvString)
	{
		ContactItem *item = add_item(&b->items, &b->nitems, &b->maxitems, field);

		item->value = jsonb_text(v);
		if (!contact_item_normalize(item))
			b->nitems--;
		return true;
	}
	return v->type == jbvNull ? true : fail(b, NULL, "expected a string");
}

static int
element_cmp(const void *a, const void *b)
{
	return contact_item_cmp(a, b);
}

bool
contact_claims_from_jsonb(const Jsonb *json, bool patch,
						  ContactClaims *claims, ContactError *error)
{
	ClaimsBuilder b = {0};
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	member;
	int			n = 0;

	memset(claims, 0, sizeof(*claims));
	memset(error, 0, sizeof(*error));
	b.error = error;
	strcpy(b.path, "$");
	if (!JB_ROOT_IS_OBJECT(json))
		return fail(&b, NULL, "expected an object");

	it = JsonbIteratorInit((JsonbContainer *) &json->root);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &member, true);
		if (name_is(&name, PROVENANCE))
			continue;
		if (!read_member(&b, &name, &member, patch))
			return false;
	}

	claims->value.items = b.items;
	claims->value.nitems = b.nitems;
	contact_sort(&claims->value);
	claims->covers = b.covers;

	/* elements of covered fields are covered already; of two, a value wins */
	if (b.nelements > 0)
		qsort(b.elements, b.nelements, sizeof(ContactItem), element_cmp);
	for (int i = 0; i < b.nelements; i++)
	{
		if (b.covers & CF_BIT(b.elements[i].field))
			continue;
		if (n > 0 && contact_item_cmp(&b.elements[n - 1], &b.elements[i]) == 0)
			b.elements[n - 1].flags &= b.elements[i].flags;
		else
			b.elements[n++] = b.elements[i];
	}
	claims->elements = b.elements;
	claims->nelements = n;
	return true;
}

/* Z, or hours and minutes to the east of it; as the seconds to its west. */
static bool
parse_zone(const char *s, int *zone)
{
	int			hours;
	int			minutes = 0;
	int			used = 0;

	*zone = 0;
	if (strcmp(s, "Z") == 0)
		return true;
	if ((*s != '+' && *s != '-') || s[1] < '0' || s[1] > '9' ||
		sscanf(s + 1, "%2d%n:%2d%n", &hours, &used, &minutes, &used) < 1 || s[1 + used] != '\0' ||
		hours > 15 || minutes < 0 || minutes > 59)
		return false;
	*zone = (*s == '+' ? -1 : 1) * (hours * SECS_PER_HOUR + minutes * SECS_PER_MINUTE);
	return true;
}

/* ISO 8601 with microseconds, as written below. */
static bool
parse_stamp_time(const JsonbValue *v, int64 *result)
{
	char		text[40];
	struct pg_tm tm = {0};
	int			usec = 0;
	int			used = 0;
	int			zone;
	Timestamp	t;

	if (v->type != jbvString || v->val.string.len >= (int) sizeof(text))
		return false;
	memcpy(text, v->val.string.val, v->val.string.len);
	text[v->val.string.len] = '\0';
	if (strcmp(text, "-infinity") == 0)
		*result = PG_INT64_MIN;
	else if (strcmp(text, "infinity") == 0)
		*result = PG_INT64_MAX;
	else
	{
		int			fraction = USECS_PER_SEC / 10;
		char	   *p;

		if (sscanf(text, "%d-%2d-%2d%*1[T ]%2d:%2d:%2d%n", &tm.tm_year, &tm.tm_mon, &tm.tm_mday,
				   &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &used) != 6 || used == 0)
			return false;
		p = text + used;
		if (*p == '.')
		{
			for (p++; *p >= '0' && *p <= '9' && fraction > 0; fraction /= 10)
				usec += (*p++ - '0') * fraction;
		}
		if (!parse_zone(p, &zone) ||
			tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 ||
			tm.tm_mday > day_tab[isleap(tm.tm_year)][tm.tm_mon - 1] ||
			tm.tm_hour < 0 || tm.tm_hour > 23 || tm.tm_min < 0 || tm.tm_min > 59 ||
			tm.tm_sec < 0 || tm.tm_sec > 59 ||
			tm2timestamp(&tm, usec, &zone, &t) != 0)
			return false;
		*result = t;
	}
	return true;
}

/* One cell's stamp; false if it is not of the form that we write. */
static bool
read_stamp(JsonbValue *v, ContactStamp *stamp, bool *tombstone)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	member;
	int			seen = 0;

	if (v->type != jbvBinary || !JsonContainerIsObject(v->val.binary.data))
		return false;
	it = JsonbIteratorInit(v->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &member, true);
		if (name_is(&name, "source") && member.type == jbvString && member.val.string.len > 0)
		{
			stamp->source = jsonb_text(&member);
			seen |= 1;
		}
		else if (name_is(&name, "as_of") && parse_stamp_time(&member, &stamp->as_of))
			seen |= 2;
		else if (name_is(&name, "changed_at") && parse_stamp_time(&member, &stamp->changed_at))
			seen |= 4;
		else if (name_is(&name, "flags") && member.type == jbvBinary &&
				 JsonContainerIsArray(member.val.binary.data))
		{
			JsonbIterator *fit = JsonbIteratorInit(member.val.binary.data);
			JsonbValue	flag;

			while ((token = JsonbIteratorNext(&fit, &flag, true)) != WJB_DONE)
			{
				bool		known = false;

				if (token != WJB_ELEM)
					continue;
				if (flag.type != jbvString)
					return false;
				if (name_is(&flag, "tombstone"))
					*tombstone = known = true;
				for (int i = 0; i < lengthof(stamp_flags); i++)
				{
					if (name_is(&flag, stamp_flags[i].name))
					{
						stamp->flags |= stamp_flags[i].flag;
						known = true;
					}
				}
				if (!known)
					return false;
			}
		}
		else
			return false;
	}
	return seen == 7;
}

/* Attach the stamps of "_provenance" to the items that they name. */
bool
contact_stamps_from_jsonb(const Jsonb *json, ContactValue *v, ContactError *error)
{
	JsonbValue *provenance;
	JsonbValue	wanted;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	member;
	int			maxitems = v->nitems;
	int			maxstamps;
	int			nsaid = v->nitems;
	ContactValue said = {0};

	wanted.type = jbvString;
	wanted.val.string.val = (char *) PROVENANCE;
	wanted.val.string.len = strlen(PROVENANCE);
	provenance = findJsonbValueFromContainer((JsonbContainer *) &json->root, JB_FOBJECT, &wanted);
	if (provenance == NULL)
		return true;

	strcpy(error->path, "$." PROVENANCE);
	error->message = "expected an object";
	if (provenance->type != jbvBinary || !JsonContainerIsObject(provenance->val.binary.data))
		return false;
	maxstamps = JsonContainerSize(provenance->val.binary.data);
	error->limit = maxstamps > CONTACT_MAX_ITEMS;
	error->message = "contact has too many values";
	if (error->limit)
		return false;
	v->stamps = palloc0(sizeof(ContactStamp) * Max(maxstamps, 1));

	it = JsonbIteratorInit(provenance->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		StrView		cell;
		StrView		key = {NULL, 0};
		const char *colon;
		int			field;
		int			at;
		bool		tombstone = false;

		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &member, true);
		cell = jsonb_text(&name);
		colon = memchr(cell.ptr, ':', cell.len);
		if (colon)
		{
			key.ptr = colon + 1;
			key.len = cell.ptr + cell.len - key.ptr;
			cell.len = colon - cell.ptr;
		}
		snprintf(error->path, sizeof(error->path), "$.%s.%s", PROVENANCE,
				 pnstrdup(cell.ptr, pg_mbcliplen(cell.ptr, cell.len, 40)));
		error->message = "unknown field";
		field = contact_field_lookup(cell.ptr, cell.len);
		if (field < 0 || (!CF_IS_LIST(field) && colon) || (colon && key.len == 0))
			return false;
		error->message = "expected an object of source, as_of, changed_at and flags";
		if (!read_stamp(&member, &v->stamps[v->nstamps], &tombstone))
			return false;

		/* tombstones are added behind what is sorted */
		said.nitems = nsaid;
		said.items = v->items;
		at = contact_find(&said, field, key);
		if (tombstone == (at >= 0))
		{
			error->message = tombstone ? "a value cannot be a tombstone" : "no such value";
			return false;
		}
		if (tombstone)
		{
			ContactItem *item = add_item(&v->items, &v->nitems, &maxitems, field);

			item->key = key;
			item->flags = CI_TOMBSTONE;
			at = v->nitems - 1;
		}
		v->items[at].stamp = v->nstamps++;
	}
	contact_sort(v);
	error->message = NULL;
	return true;
}

/* ---- writing ---- */

static void
put_text(StringInfo buf, const char *ptr, int len)
{
	int			from = 0;

	appendStringInfoCharMacro(buf, '"');
	for (int i = 0; i < len; i++)
	{
		unsigned char c = ptr[i];

		if (c >= ' ' && c != '"' && c != '\\')
			continue;
		/* what needs no escape goes out in one piece */
		appendBinaryStringInfo(buf, ptr + from, i - from);
		from = i + 1;
		switch (c)
		{
			case '"':
				appendBinaryStringInfo(buf, "\\\"", 2);
				break;
			case '\\':
				appendBinaryStringInfo(buf, "\\\\", 2);
				break;
			case '\n':
				appendBinaryStringInfo(buf, "\\n", 2);
				break;
			case '\r':
				appendBinaryStringInfo(buf, "\\r", 2);
				break;
			case '\t':
				appendBinaryStringInfo(buf, "\\t", 2);
				break;
			default:
				appendStringInfo(buf, "\\u%04x", c);
		}
	}
	appendBinaryStringInfo(buf, ptr + from, len - from);
	appendStringInfoCharMacro(buf, '"');
}

static void
put_member(StringInfo buf, bool *first, const char *name)
{
	if (!*first)
		appendBinaryStringInfo(buf, ", ", 2);
	appendStringInfoCharMacro(buf, '"');
	appendBinaryStringInfo(buf, name, strlen(name));
	appendBinaryStringInfo(buf, "\": ", 3);
	*first = false;
}

static void
put_member_text(StringInfo buf, bool *first, const char *name, StrView s)
{
	if (s.len > 0)
	{
		put_member(buf, first, name);
		put_text(buf, s.ptr, s.len);
	}
}

void
contact_item_to_json(StringInfo buf, const ContactItem *item)
{
	bool		first = true;

	if (item->field == CF_METADATA)
		appendBinaryStringInfo(buf, item->value.ptr, item->value.len);
	else if (!CF_IS_LIST(item->field) || item->field == CF_TAGS)
		put_text(buf, item->value.ptr, item->value.len);
	else
	{
		appendStringInfoChar(buf, '{');
		if (item->field == CF_ADDRESSES)
		{
			for (int i = 0; i < CA_COUNT; i++)
				put_member_text(buf, &first, contact_address_members[i], item->part[i]);
		}
		else
			put_member_text(buf, &first, contact_value_members[item->field], item->value);
		put_member_text(buf, &first, "type", item->type);
		put_member_text(buf, &first, "extension", item->extension);
		if (item->flags & (CI_VERIFIED | CI_UNVERIFIED))
		{
			put_member(buf, &first, "verified");
			appendStringInfoString(buf, item->flags & CI_VERIFIED ? "true" : "false");
		}
		if (item->flags & CI_PRIMARY)
		{
			put_member(buf, &first, "primary");
			appendStringInfoString(buf, "true");
		}
		appendStringInfoChar(buf, '}');
	}
}

static void
put_time(StringInfo buf, int64 t)
{
	struct pg_tm tm;
	fsec_t		usec;

	if (t == PG_INT64_MIN)
		appendStringInfoString(buf, "\"-infinity\"");
	else if (t == PG_INT64_MAX)
		appendStringInfoString(buf, "\"infinity\"");
	else if (timestamp2tm(t, NULL, &tm, &usec, NULL, NULL) != 0)
		ereport(ERROR,
				(errcode(ERRCODE_DATETIME_VALUE_OUT_OF_RANGE),
				 errmsg("timestamp out of range")));
	else
		appendStringInfo(buf, "\"%04d-%02d-%02dT%02d:%02d:%02d.%06dZ\"",
						 tm.tm_year, tm.tm_mon, tm.tm_mday,
						 tm.tm_hour, tm.tm_min, tm.tm_sec, (int) usec);
}

void
contact_provenance_to_json(StringInfo buf, const ContactValue *v, bool tombstones)
{
	bool		first = true;

	appendStringInfoChar(buf, '{');
	for (int i = 0; i < v->nitems; i++)
	{
		const ContactItem *item = &v->items[i];
		bool		dead = (item->flags & CI_TOMBSTONE) != 0;
		const ContactStamp *stamp;
		bool		first_flag = true;

		if (item->stamp < 0 || (dead && !tombstones))
			continue;
		stamp = &v->stamps[item->stamp];
		if (!first)
			appendStringInfoString(buf, ", ");
		first = false;
		if (item->key.len > 0)
		{
			StringInfoData cell;

			initStringInfo(&cell);
			appendStringInfo(&cell, "%s:", contact_field_names[item->field]);
			appendBinaryStringInfo(&cell, item->key.ptr, item->key.len);
			put_text(buf, cell.data, cell.len);
			pfree(cell.data);
		}
		else
			appendStringInfo(buf, "\"%s\"", contact_field_names[item->field]);
		appendStringInfoString(buf, ": {\"source\": ");
		put_text(buf, stamp->source.ptr, stamp->source.len);
		appendStringInfoString(buf, ", \"as_of\": ");
		put_time(buf, stamp->as_of);
		appendStringInfoString(buf, ", \"changed_at\": ");
		put_time(buf, stamp->changed_at);
		appendStringInfoString(buf, ", \"flags\": [");
		for (int f = 0; f < lengthof(stamp_flags); f++)
		{
			if (stamp->flags & stamp_flags[f].flag)
			{
				appendStringInfo(buf, "%s\"%s\"", first_flag ? "" : ", ", stamp_flags[f].name);
				first_flag = false;
			}
		}
		if (dead)
			appendStringInfo(buf, "%s\"tombstone\"", first_flag ? "" : ", ");
		appendStringInfoString(buf, "]}");
	}
	appendStringInfoChar(buf, '}');
}

/* The items of one field, from *i on; *i moves behind them. */
static void
put_field(StringInfo buf, const ContactValue *v, int *i)
{
	ContactField field = v->items[*i].field;
	bool		first = true;

	if (CF_IS_LIST(field))
		appendStringInfoChar(buf, field == CF_METADATA ? '{' : '[');
	for (; *i < v->nitems && v->items[*i].field == field; (*i)++)
	{
		const ContactItem *item = &v->items[*i];

		if (item->flags & CI_TOMBSTONE)
			continue;
		if (!first)
			appendStringInfoString(buf, ", ");
		first = false;
		if (field == CF_METADATA)
		{
			put_text(buf, item->key.ptr, item->key.len);
			appendStringInfoString(buf, ": ");
		}
		contact_item_to_json(buf, item);
	}
	if (CF_IS_LIST(field))
		appendStringInfoChar(buf, field == CF_METADATA ? '}' : ']');
}

static bool
field_is_live(const ContactValue *v, int i)
{
	for (int f = v->items[i].field; i < v->nitems && v->items[i].field == f; i++)
		if (!(v->items[i].flags & CI_TOMBSTONE))
			return true;
	return false;
}

void
contact_to_json(StringInfo buf, const ContactValue *v, bool with_provenance)
{
	bool		first = true;
	bool		stamped = false;

	appendStringInfoChar(buf, '{');
	for (int i = 0; i < v->nitems;)
	{
		if (field_is_live(v, i))
		{
			put_member(buf, &first, contact_field_names[v->items[i].field]);
			put_field(buf, v, &i);
		}
		else
		{
			int			field = v->items[i].field;

			while (i < v->nitems && v->items[i].field == field)
				i++;
		}
	}
	for (int i = 0; i < v->nitems; i++)
		stamped |= v->items[i].stamp >= 0;
	if (with_provenance && stamped)
	{
		put_member(buf, &first, PROVENANCE);
		contact_provenance_to_json(buf, v, true);
	}
	appendStringInfoChar(buf, '}');
}

bool
contact_field_to_json(StringInfo buf, const ContactValue *v, ContactField field)
{
	for (int i = 0; i < v->nitems; i++)
	{
		if (v->items[i].field == field)
		{
			if (!field_is_live(v, i))
				return false;
			put_field(buf, v, &i);
			return true;
		}
	}
	return false;
}
