/*
 * contact_jscontact.c
 *		JSContact (RFC 9553) as a contact.
 *
 * Members of a card that have fields are read by one function each.  They are
 * read again by the writer, from metadata.jscontact, to see whether they still
 * say what the contact says.  A fault of structure in such a member is an
 * error with its JSON path; all other members are kept as they are.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/array.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/numeric.h"

#include "compat.h"
#include "contact/contact_jscontact.h"

PG_FUNCTION_INFO_V1(contact_from_jscontact);

#define JS_MAX_WORDS		16

const char *const contact_js_members[JS_MEMBERS] = {
	"nicknames", "organizations", "titles", "emails", "phones", "addresses", "onlineServices",
	"links", "anniversaries", "notes", "keywords", "media", "name"
};

const JsSlotInfo contact_js_slots[JS_SLOTS] = {
	{JS_NICKNAMES, NULL, NULL, "name", CF_NICKNAME, {"name"}},
	{JS_ORGANIZATIONS, NULL, NULL, NULL, CF_COMPANY, {"name", "units"}},
	{JS_TITLES, "title", "title", "name", CF_TITLE, {"name", "kind"}},
	{JS_TITLES, "role", "title", "name", CF_METADATA, {"name", "kind"}},
	{JS_ANNIVERSARIES, "birth", "", NULL, CF_BIRTHDAY, {"kind", "date", JS_BIRTHDAY}},
	{JS_NOTES, NULL, NULL, "note", CF_NOTE, {"note"}},
	{JS_MEDIA, "photo", "", "uri", CF_PHOTO, {"uri", "kind"}},
};

JsonbValue *
contact_js_get(JsonbContainer *object, const char *name)
{
	return getKeyJsonValueFromContainer(object, name, strlen(name), NULL);
}

static bool
fail(JsReader *r, const char *sub, const char *message)
{
	int			len = r->id.len > 0 ? pg_mbcliplen(r->id.ptr, r->id.len, 40) : 0;

	r->error->message = message;
	snprintf(r->error->path, sizeof(r->error->path), "$%s%s%s%.*s%s%s",
			 r->member ? "." : "", r->member ? r->member : "",
			 len > 0 ? "." : "", len, len > 0 ? r->id.ptr : "",
			 sub ? "." : "", sub ? sub : "");
	return false;
}

static bool
too_large(JsReader *r, const char *message)
{
	r->error->limit = true;
	return fail(r, NULL, message);
}

/* The text of a member; absent if it is not there. */
static bool
read_text(JsReader *r, JsonbContainer *object, const char *name, bool required, StrView *s)
{
	JsonbValue *v = contact_js_get(object, name);

	*s = strview(NULL, 0);
	if (v == NULL && !required)
		return true;
	if (v == NULL || v->type != jbvString)
		return fail(r, name, "expected a string");
	*s = js_string(v);
	return true;
}

/* A number from 0 on; -1 if it is not there. */
static bool
read_number(JsReader *r, JsonbContainer *object, const char *name, int *n)
{
	JsonbValue *v = contact_js_get(object, name);
	bool		error = false;

	*n = -1;
	if (v == NULL)
		return true;
	if (v->type == jbvNumeric && !numeric_is_nan(v->val.numeric) && !numeric_is_inf(v->val.numeric))
		*n = numeric_int4_opt_error(v->val.numeric, &error);
	return *n < 0 || error ? fail(r, name, "expected an unsigned integer") : true;
}

static bool
append(JsReader *r, ContactItem *item)
{
	if (!contact_item_normalize(item))
		return true;
	if (r->nitems >= CONTACT_MAX_ITEMS)
		return too_large(r, "contact has too many values");
	if (r->nitems == r->maxitems)
	{
		r->maxitems = r->maxitems ? r->maxitems * 2 : 16;
		r->items = r->items ? repalloc(r->items, sizeof(ContactItem) * r->maxitems)
			: palloc(sizeof(ContactItem) * r->maxitems);
	}
	item->stamp = -1;
	r->items[r->nitems++] = *item;
	return true;
}

static bool
append_scalar(JsReader *r, ContactField field, StrView text)
{
	ContactItem item = {0};

	item.field = field;
	item.value = text;
	return append(r, &item);
}

/* How deep JSON text, as jsonb prints it, is nested. */
static int
text_nesting(StrView json)
{
	bool		quoted = false;
	int			depth = 0;
	int			most = 0;

	for (int i = 0; i < json.len; i++)
	{
		char		c = json.ptr[i];

		if (c == '"')
			quoted = !quoted;
		else if (quoted)
			i += c == '\\';
		else if (c == '[' || c == '{')
		{
			depth++;
			most = Max(most, depth);
		}
		else if (c == ']' || c == '}')
			depth--;
	}
	return most;
}

/* What is stored must be readable again: as deep as contact_json.c takes it. */
static bool
append_metadata(JsReader *r, StrView key, StrView json)
{
	ContactItem item = {0};

	if (text_nesting(json) > CONTACT_MAX_NESTING)
		return too_large(r, "metadata is nested too deeply");
	item.field = CF_METADATA;
	item.key = key;
	item.value = json;
	return append(r, &item);
}

static bool
append_metadata_text(JsReader *r, const char *key, StrView text)
{
	StringInfoData buf;

	if (text.len == 0)
		return true;
	initStringInfo(&buf);
	contact_js_put_string(&buf, text);
	return append_metadata(r, strview_of(key), strview(buf.data, buf.len));
}

/* ---- scalars out of maps ---- */

typedef bool (*EntryReader) (JsReader *r, JsMember member, JsonbContainer *entry, void *arg);

static bool
each_entry(JsReader *r, JsMember member, JsonbValue *map, EntryReader read, void *arg)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	v;

	if (!js_is_object(map))
		return fail(r, NULL, "expected an object");
	it = JsonbIteratorInit(map->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &v, true);
		r->id = js_string(&name);
		if (!js_is_object(&v))
			return fail(r, NULL, "expected an object");
		if (!read(r, member, v.val.binary.data, arg))
			return false;
	}
	r->id = strview(NULL, 0);
	return true;
}

/* The most preferred entry of a kind, so far. */
typedef struct Choice
{
	const JsSlotInfo *slot;
	JsonbContainer *entry;
	StrView		id;
	StrView		value;
	int			pref;
} Choice;

static bool
choose(JsReader *r, JsMember member, JsonbContainer *entry, void *arg)
{
	Choice	   *c = arg;
	StrView		kind;
	StrView		value = {NULL, 0};
	JsonbValue *v;
	int			pref;

	if (c->slot->kind)
	{
		if (!read_text(r, entry, "kind", false, &kind))
			return false;
		if (kind.len == 0)
			kind = strview_of(c->slot->default_kind);
		if (!strview_same(kind, strview_of(c->slot->kind)))
			return true;
	}
	if (!read_number(r, entry, "pref", &pref))
		return false;
	if (c->slot->value)
	{
		v = contact_js_get(entry, c->slot->value);
		if (r->residue && v && v->type == jbvNull)
			pref = 0;			/* the place of the field's own value */
		/* JMAP has media without uri */
		else if (!read_text(r, entry, c->slot->value, member != JS_MEDIA, &value))
			return false;
		else if (contact_text_clean(value).len == 0)
			return true;
	}
	else if (member == JS_ORGANIZATIONS && contact_js_get(entry, "name") == NULL &&
			 contact_js_get(entry, "units") == NULL)
		return true;
	if (pref < 0)
		pref = 101;
	if (c->entry && pref >= c->pref)
		return true;
	c->entry = entry;
	c->id = r->id;
	c->value = value;
	c->pref = pref;
	return true;
}

static bool
find_choice(JsReader *r, JsSlot slot, JsonbValue *map, Choice *c)
{
	memset(c, 0, sizeof(*c));
	c->slot = &contact_js_slots[slot];
	if (!each_entry(r, c->slot->member, map, choose, c))
		return false;
	r->chosen[slot] = c->id;
	return true;
}

static bool
read_slot(JsReader *r, JsSlot slot, JsonbValue *map)
{
	Choice		c;

	if (!find_choice(r, slot, map, &c))
		return false;
	if (c.entry == NULL || c.value.len == 0)
		return true;
	if (slot == JS_SLOT_ROLE)
		return append_metadata_text(r, "role", contact_text_clean(c.value));
	return append_scalar(r, c.slot->field, c.value);
}

static bool
read_organization(JsReader *r, JsonbValue *map)
{
	Choice		c;
	StrView		name;
	StrView		units[32];
	JsonbValue *v;
	int			n = 0;

	if (!find_choice(r, JS_SLOT_ORGANIZATION, map, &c))
		return false;
	if (c.entry == NULL)
		return true;
	r->id = c.id;
	if (!read_text(r, c.entry, "name", false, &name))
		return false;
	v = contact_js_get(c.entry, "units");
	if (v && !js_is_array(v))
		return fail(r, "units", "expected an array");
	for (int i = 0; v && i < JsonContainerSize(v->val.binary.data) && n < lengthof(units); i++)
	{
		JsonbValue *unit = getIthJsonbValueFromContainer(v->val.binary.data, i);

		if (!js_is_object(unit))
			return fail(r, "units", "expected objects");
		if (!read_text(r, unit->val.binary.data, "name", true, &units[n]))
			return fail(r, "units", "expected objects with a name");
		units[n] = contact_text_clean(units[n]);
		n++;
	}
	r->id = strview(NULL, 0);
	return append_scalar(r, CF_COMPANY, name) &&
		append_scalar(r, CF_DEPARTMENT, contact_vcard_join(units, n, ", "));
}

/* A PartialDate as text; absent if it is not one of ours. */
static bool
read_date(JsReader *r, JsonbContainer *date, StrView *text)
{
	StrView		utc;
	StrView		scale;
	StrView		none = {NULL, 0};
	int			year;
	int			month;
	int			day;

	if (!read_text(r, date, "utc", false, &utc) || !read_text(r, date, "calendarScale", false, &scale) ||
		!read_number(r, date, "year", &year) || !read_number(r, date, "month", &month) ||
		!read_number(r, date, "day", &day))
		return false;
	if (utc.len > 0)
		*text = contact_vcard_date(contact_text_clean(utc), none);
	else if ((scale.len > 0 && !contact_vcard_is(scale, "gregorian")) || year > 9999 ||
			 month == 0 || month > 12 || day == 0 || day > 31)
		*text = none;
	else if (year >= 0 && month > 0 && day > 0)
		*text = strview_of(psprintf("%04d-%02d-%02d", year, month, day));
	else if (year < 0 && month > 0 && day > 0)
		*text = strview_of(psprintf("--%02d-%02d", month, day));
	else if (year >= 0 && month > 0)
		*text = strview_of(psprintf("%04d-%02d", year, month));
	else if (year >= 0 && day < 0)
		*text = strview_of(psprintf("%04d", year));
	else
		*text = none;
	return true;
}

static bool
read_birthday(JsReader *r, JsonbValue *map)
{
	Choice		c;
	StrView		text;
	StrView		none = {NULL, 0};
	JsonbValue *v;

	if (!find_choice(r, JS_SLOT_BIRTHDAY, map, &c))
		return false;
	if (c.entry == NULL)
		return true;
	r->id = c.id;
	if (!read_text(r, c.entry, JS_BIRTHDAY, false, &text))
		return false;
	v = contact_js_get(c.entry, "date");
	if (text.len == 0 && v && v->type == jbvString)
		text = contact_vcard_date(contact_text_clean(js_string(v)), none);	/* as in drafts */
	else if (text.len == 0)
	{
		if (!js_is_object(v))
			return fail(r, "date", "expected an object");
		if (!read_date(r, v->val.binary.data, &text))
			return false;
	}
	r->id = none;
	return append_scalar(r, CF_BIRTHDAY, text);
}

/* ---- lists ---- */

/* The words that a set such as contexts has, as ours; n counts them. */
static bool
read_set(JsReader *r, JsonbContainer *entry, const char *name, StrView *words, int *n)
{
	JsonbValue *set = contact_js_get(entry, name);
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	v;

	if (set == NULL)
		return true;
	if (!js_is_object(set))
		return fail(r, name, "expected an object");
	it = JsonbIteratorInit(set->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &key, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &v, true);
		if (v.type != jbvBool)
			return fail(r, name, "expected values true");
		if (!v.val.boolean || *n == JS_MAX_WORDS)
			continue;
		words[*n] = js_string(&key);
		if (contact_vcard_is(words[*n], "private"))
			words[*n] = strview_of("home");
		else if (contact_vcard_is(words[*n], "main-number"))
			words[*n] = strview_of("main");
		(*n)++;
	}
	return true;
}

/* The label that these make. */
StrView
contact_js_type(bool phone, const char *context, const char *feature)
{
	StrView		words[2];
	int			n = 0;

	if (context)
		words[n++] = strview_of(strcmp(context, "private") == 0 ? "home" : context);
	if (feature)
		words[n++] = strview_of(strcmp(feature, "main-number") == 0 ? "main" : feature);
	return contact_vcard_type(phone, words, n);
}

static bool
read_type(JsReader *r, JsMember member, JsonbContainer *entry, ContactItem *item)
{
	StrView		words[JS_MAX_WORDS];
	StrView		label;
	JsonbValue *v;
	int			n = 0;
	int			pref;

	if (!read_set(r, entry, "contexts", words, &n) ||
		(member == JS_PHONES && !read_set(r, entry, "features", words, &n)) ||
		!read_text(r, entry, "label", false, &label) || !read_number(r, entry, "pref", &pref))
		return false;
	if (label.len == 0 && !read_text(r, entry, JS_LABEL, false, &label))
		return false;
	if (member == JS_EMAILS || member == JS_PHONES)
	{
		v = contact_js_get(entry, JS_VERIFIED);
		if (v && v->type != jbvBool)
			return fail(r, JS_VERIFIED, "expected true or false");
		if (v)
			item->flags |= v->val.boolean ? CI_VERIFIED : CI_UNVERIFIED;
		if (pref == 1)
			item->flags |= CI_PRIMARY;
	}
	item->type = contact_text_clean(label);
	if (item->type.len == 0)
		item->type = contact_vcard_type(member == JS_PHONES, words, n);
	return true;
}

/* Append what says something, with a separator before it where need be. */
static void
append_part(StringInfo buf, StrView value, const char *separator)
{
	if (value.len == 0)
		return;
	if (buf->len > 0)
		appendStringInfoString(buf, separator);
	appendBinaryStringInfo(buf, value.ptr, value.len);
}

/* The kind and value of an array's component. */
static bool
read_component(JsReader *r, JsonbContainer *array, int i, StrView *kind, StrView *value)
{
	JsonbValue *component = getIthJsonbValueFromContainer(array, i);

	if (!js_is_object(component))
		return fail(r, "components", "expected objects");
	if (!read_text(r, component->val.binary.data, "kind", true, kind) ||
		!read_text(r, component->val.binary.data, "value", true, value))
		return fail(r, "components", "expected objects of kind and value");
	return true;
}

/* Components of an address that a street is made of stay in their order. */
static bool
read_components(JsReader *r, JsonbContainer *entry, JsonbContainer *array, ContactItem *item)
{
	static const char *const kinds[CA_COUNT] = {"", "locality", "region", "postcode", "country"};
	StringInfoData parts[CA_COUNT];
	StringInfo	street = &parts[CA_STREET];
	StrView		separator;
	bool		ordered;
	bool		joined = true;	/* nothing has to stand before the next part */
	JsonbValue *v = contact_js_get(entry, "isOrdered");

	if (v && v->type != jbvBool)
		return fail(r, "isOrdered", "expected true or false");
	ordered = v && v->val.boolean;
	if (!read_text(r, entry, "defaultSeparator", false, &separator))
		return false;
	if (!ordered || separator.len == 0)
		separator = strview_of(" ");
	for (int i = 0; i < CA_COUNT; i++)
		initStringInfo(&parts[i]);
	for (int i = 0; i < JsonContainerSize(array); i++)
	{
		StrView		kind;
		StrView		value;
		int			part = CA_COUNT - 1;

		if (!read_component(r, array, i, &kind, &value))
			return false;
		while (part > CA_STREET && !contact_vcard_is(kind, kinds[part]))
			part--;
		if (part > CA_STREET)
			append_part(&parts[part], contact_text_clean(value), ", ");
		else if (contact_vcard_is(kind, "separator"))
		{
			/* one before a street says nothing about it */
			if (ordered && street->len > 0)
				appendBinaryStringInfo(street, value.ptr ? value.ptr : "", value.len);
			joined = true;
			continue;
		}
		else
		{
			if (street->len > 0 && !joined)
				appendBinaryStringInfo(street, separator.ptr, separator.len);
			appendBinaryStringInfo(street, value.ptr ? value.ptr : "", value.len);
		}
		joined = false;
	}
	for (int i = 0; i < CA_COUNT; i++)
		item->part[i] = contact_text_clean(strview(parts[i].data, parts[i].len));
	return true;
}

static bool
read_address(JsReader *r, JsonbContainer *entry, ContactItem *item)
{
	JsonbValue *components = contact_js_get(entry, "components");
	StrView		full;
	StrView		country;

	if (components && !js_is_array(components))
		return fail(r, "components", "expected an array");
	if (!read_text(r, entry, "full", false, &full) || !read_text(r, entry, "countryCode", false, &country))
		return false;
	if (components && !read_components(r, entry, components->val.binary.data, item))
		return false;
	if (components == NULL || JsonContainerSize(components->val.binary.data) == 0)
		item->part[CA_STREET] = full;
	if (item->part[CA_COUNTRY].len == 0)
		item->part[CA_COUNTRY] = country;
	return true;
}

/* Something of the web: http or https. */
static bool
is_web(StrView uri)
{
	return (uri.len > 7 && pg_strncasecmp(uri.ptr, "http://", 7) == 0) ||
		(uri.len > 8 && pg_strncasecmp(uri.ptr, "https://", 8) == 0);
}

static bool
read_url(JsReader *r, JsMember member, JsonbContainer *entry, ContactItem *item)
{
	StrView		kind;
	StrView		service;

	if (!read_text(r, entry, "uri", member == JS_LINKS, &item->value))
		return false;
	if (member == JS_LINKS)
	{
		if (!read_text(r, entry, "kind", false, &kind))
			return false;
		if (kind.len > 0)
			item->value = strview(NULL, 0);	/* not a page of the person's */
		return true;
	}
	if (!read_text(r, entry, "service", false, &service))
		return false;
	if (!is_web(item->value))
		item->value = strview(NULL, 0);
	if (item->type.len == 0)
		item->type = contact_text_clean(service);
	return true;
}

bool
contact_js_read_entry(JsReader *r, JsMember member, JsonbContainer *entry,
					  ContactItem *item, bool *taken)
{
	StrView		number;

	memset(item, 0, sizeof(*item));
	item->stamp = -1;
	if (!read_type(r, member, entry, item))
		return false;
	switch (member)
	{
		case JS_EMAILS:
			item->field = CF_EMAILS;
			if (!read_text(r, entry, "address", true, &item->value))
				return false;
			break;
		case JS_PHONES:
			item->field = CF_PHONES;
			if (!read_text(r, entry, "number", true, &number))
				return false;
			if (contact_js_get(entry, JS_EXTENSION))
			{
				item->value = number;
				if (!read_text(r, entry, JS_EXTENSION, true, &item->extension))
					return false;
			}
			else
				contact_vcard_read_phone(contact_text_clean(number), item);
			break;
		case JS_ADDRESSES:
			item->field = CF_ADDRESSES;
			if (!read_address(r, entry, item))
				return false;
			break;
		default:
			item->field = CF_URLS;
			if (!read_url(r, member, entry, item))
				return false;
	}
	*taken = contact_item_normalize(item);
	return true;
}

static bool
read_list_entry(JsReader *r, JsMember member, JsonbContainer *entry, void *arg)
{
	ContactItem item;
	bool		taken;

	return contact_js_read_entry(r, member, entry, &item, &taken) &&
		(!taken || append(r, &item));
}

static bool
read_keywords(JsReader *r, JsonbValue *set)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	key;
	JsonbValue	v;

	if (!js_is_object(set))
		return fail(r, NULL, "expected an object");
	it = JsonbIteratorInit(set->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &key, true)) != WJB_DONE)
	{
		ContactItem item = {0};

		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &v, true);
		if (v.type != jbvBool)
			return fail(r, NULL, "expected values true");
		item.field = CF_TAGS;
		item.value = js_string(&key);
		if (v.val.boolean && !append(r, &item))
			return false;
	}
	return true;
}

/* ---- names ---- */

static const ContactField name_fields[] = {
	CF_PREFIX, CF_FIRST_NAME, CF_MIDDLE_NAME, CF_LAST_NAME, CF_SUFFIX
};

StrView
contact_js_joined_name(const ContactItem *items, int nitems)
{
	StrView		parts[lengthof(name_fields)] = {{NULL, 0}};

	for (int i = 0; i < nitems; i++)
		for (int f = 0; f < lengthof(name_fields); f++)
			if (items[i].field == name_fields[f] && !(items[i].flags & CI_TOMBSTONE))
				parts[f] = items[i].value;
	return contact_vcard_join(parts, lengthof(name_fields), " ");
}

/* Does a whole name only show something else, for lack of a name? */
static bool
repeats_other(const JsReader *r, StrView text)
{
	const ContactItem *items = r->context ? r->context->items : r->items;
	int			n = r->context ? r->context->nitems : r->nitems;

	for (int i = 0; i < n; i++)
	{
		int			f = items[i].field;

		if ((f == CF_COMPANY || f == CF_NICKNAME || f == CF_EMAILS || f == CF_PHONES) &&
			strview_same(items[i].value, text))
			return true;
	}
	return false;
}

static StrView
company_of(const JsReader *r)
{
	const ContactItem *items = r->context ? r->context->items : r->items;
	int			n = r->context ? r->context->nitems : r->nitems;

	for (int i = 0; i < n; i++)
		if (items[i].field == CF_COMPANY)
			return items[i].value;
	return strview(NULL, 0);
}

/* A name that has no components; an organization's is its company. */
static bool
read_full(JsReader *r, StrView text)
{
	int			i = text.len;

	if (contact_vcard_is(r->kind, "org"))
	{
		StrView		company = company_of(r);

		if (company.len == 0 && r->context == NULL)
			return append_scalar(r, CF_COMPANY, text);
		return strview_same(company, text) || append_metadata_text(r, "formatted_name", text);
	}
	if (repeats_other(r, text))
		return true;
	if (r->kind.len == 0 || contact_vcard_is(r->kind, "individual"))
		while (i > 0 && text.ptr[i - 1] != ' ')
			i--;
	else
		i = 0;
	if (i == 0)
		return append_scalar(r, CF_FIRST_NAME, text);
	return append_scalar(r, CF_FIRST_NAME, strview(text.ptr, i)) &&
		append_scalar(r, CF_LAST_NAME, strview(text.ptr + i, text.len - i));
}

static bool
read_name(JsReader *r, JsonbValue *name)
{
	static const struct
	{
		const char *kind;
		uint8		part;		/* of name_fields */
	}			kinds[] = {
		{"title", 0}, {"given", 1}, {"given2", 2}, {"surname", 3}, {"surname2", 3},
		{"credential", 4}, {"generation", 4}
	};
	StringInfoData parts[lengthof(name_fields)];
	StrView		full;
	JsonbValue *components;
	int			before = r->nitems;

	if (!js_is_object(name))
		return fail(r, NULL, "expected an object");
	components = contact_js_get(name->val.binary.data, "components");
	if (components && !js_is_array(components))
		return fail(r, "components", "expected an array");
	if (!read_text(r, name->val.binary.data, "full", false, &full))
		return false;
	for (int f = 0; f < lengthof(name_fields); f++)
		initStringInfo(&parts[f]);
	for (int i = 0; components && i < JsonContainerSize(components->val.binary.data); i++)
	{
		StrView		kind;
		StrView		value;

		if (!read_component(r, components->val.binary.data, i, &kind, &value))
			return false;
		for (int k = 0; k < lengthof(kinds); k++)
			if (contact_vcard_is(kind, kinds[k].kind))
				append_part(&parts[kinds[k].part], contact_text_clean(value),
							kinds[k].part == 4 ? ", " : " ");
	}
	for (int f = 0; f < lengthof(name_fields); f++)
		if (!append_scalar(r, name_fields[f], strview(parts[f].data, parts[f].len)))
			return false;
	full = contact_text_clean(full);
	if (full.len == 0)
		return true;
	if (r->nitems == before)
		return read_full(r, full);
	if (strview_same(full, contact_js_joined_name(r->items + before, r->nitems - before)))
		return true;
	return append_metadata_text(r, "formatted_name", full);
}

bool
contact_js_read(JsReader *r, JsMember member, JsonbValue *v)
{
	r->member = contact_js_members[member];
	r->id = strview(NULL, 0);
	switch (member)
	{
		case JS_NICKNAMES:
			return read_slot(r, JS_SLOT_NICKNAME, v);
		case JS_ORGANIZATIONS:
			return read_organization(r, v);
		case JS_TITLES:
			return read_slot(r, JS_SLOT_TITLE, v) && read_slot(r, JS_SLOT_ROLE, v);
		case JS_ANNIVERSARIES:
			return read_birthday(r, v);
		case JS_NOTES:
			return read_slot(r, JS_SLOT_NOTE, v);
		case JS_MEDIA:
			return read_slot(r, JS_SLOT_PHOTO, v);
		case JS_KEYWORDS:
			return read_keywords(r, v);
		case JS_NAME:
			return read_name(r, v);
		default:
			return each_entry(r, member, v, read_list_entry, NULL);
	}
}

/* ---- a card ---- */

/* Metadata that we write stands two levels deeper in a card than in a contact. */
#define JS_MAX_NESTING		(CONTACT_MAX_NESTING + 2)

/* How deep a card is nested, but hardly deeper than the cap. */
static int
nesting(JsonbContainer *container)
{
	JsonbIterator *it = JsonbIteratorInit(container);
	JsonbIteratorToken token;
	JsonbValue	v;
	int			depth = 0;
	int			most = 0;

	while ((token = JsonbIteratorNext(&it, &v, false)) != WJB_DONE && most <= JS_MAX_NESTING)
	{
		if (token == WJB_BEGIN_ARRAY || token == WJB_BEGIN_OBJECT)
		{
			depth++;
			most = Max(most, depth);
		}
		else if (token == WJB_END_ARRAY || token == WJB_END_OBJECT)
			depth--;
	}
	return most;
}

static StrView
json_of(const JsonbValue *v)
{
	return contact_vcard_json(unconstify(JsonbValue *, v));
}

/* Would the writer make this member without having it from the residue? */
static bool
is_made_again(JsWriter *w, JsMember member, const JsonbValue *v)
{
	StringInfoData buf;
	Jsonb	   *made;
	StrView		text;

	initStringInfo(&buf);
	w->dropped |= 1 << member;
	if (contact_js_write(w, member, &buf))
	{
		made = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(buf.data)));
		text = json_of(v);
		if (strcmp(JsonbToCString(NULL, &made->root, VARSIZE(made)), text.ptr) == 0)
			return true;
	}
	w->dropped &= ~(1 << member);
	return false;
}

/* The photo is not kept twice: its entry has null in its place. */
static void
put_media(StringInfo buf, const JsReader *r, JsonbContainer *media)
{
	JsonbIterator *it = JsonbIteratorInit(media);
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	v;
	const char *separator = "{";

	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		StrView		text;
		StrView		photo = {NULL, 0};

		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &v, true);
		appendStringInfoString(buf, separator);
		separator = ", ";
		contact_js_put_string(buf, js_string(&name));
		appendStringInfoString(buf, ": ");
		for (int i = 0; i < r->nitems; i++)
			if (r->items[i].field == CF_PHOTO)
				photo = r->items[i].value;
		if (photo.len > 0 && strview_same(js_string(&name), r->chosen[JS_SLOT_PHOTO]) &&
			strview_same(js_string(contact_js_get(v.val.binary.data, "uri")), photo))
		{
			Jsonb	   *entry = JsonbValueToJsonb(&v);
			Datum		path = PointerGetDatum(construct_array((Datum[]) {CStringGetTextDatum("uri")}, 1,
															   TEXTOID, -1, false, TYPALIGN_INT));
			Datum		null = DirectFunctionCall1(jsonb_in, CStringGetDatum("null"));

			entry = DatumGetJsonbP(DirectFunctionCall4(jsonb_set, JsonbPGetDatum(entry), path, null, BoolGetDatum(true)));
			text = strview_of(JsonbToCString(NULL, &entry->root, VARSIZE(entry)));
		}
		else
			text = json_of(&v);
		appendBinaryStringInfo(buf, text.ptr, text.len);
	}
	appendStringInfoString(buf, *separator == '{' ? "{}" : "}");
}

static int
member_of(StrView name)
{
	for (int m = 0; m < JS_MEMBERS; m++)
		if (strview_same(name, strview_of(contact_js_members[m])))
			return m;
	return -1;
}

/* Is a member without fields said elsewhere in the contact? */
static bool
is_said(StrView name, const JsonbValue *v)
{
	JsonbValue *properties;

	if (strview_same(name, strview_of("@type")) || strview_same(name, strview_of("uid")) ||
		strview_same(name, strview_of(JS_METADATA)) || strview_same(name, strview_of(JS_STAMPS)))
		return true;
	if (strview_same(name, strview_of("version")))
		return strview_same(js_string(v), strview_of("1.0"));
	if (!strview_same(name, strview_of("vCard")) || !js_is_object(v) ||
		JsonContainerSize(v->val.binary.data) != 1)
		return false;
	properties = contact_js_get(v->val.binary.data, "properties");
	return js_is_array(properties) && JsonContainerSize(properties->val.binary.data) > 0;
}

/* metadata.jscontact: what of the card is said by nothing else. */
static bool
read_residue(JsReader *r, JsonbContainer *card, const ContactValue *v)
{
	JsWriter	w = {0};
	StringInfoData buf;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	member;

	w.v = v;
	w.residue = card;
	w.kind = r->kind;
	initStringInfo(&buf);
	for (int m = 0; m < JS_MEMBERS; m++)
	{
		JsonbValue *value = contact_js_get(card, contact_js_members[m]);

		if (value)
			(void) is_made_again(&w, m, value);
	}
	it = JsonbIteratorInit(card);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		int			m;

		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &member, true);
		m = member_of(js_string(&name));
		if ((m >= 0 && (w.dropped & (1 << m))) || (m < 0 && is_said(js_string(&name), &member)))
			continue;
		appendStringInfoString(&buf, buf.len == 0 ? "{" : ", ");
		contact_js_put_string(&buf, js_string(&name));
		appendStringInfoString(&buf, ": ");
		if (m == JS_MEDIA)
			put_media(&buf, r, member.val.binary.data);
		else
			contact_js_put_value(&buf, &member);
	}
	if (buf.len == 0)
		return true;
	appendStringInfoChar(&buf, '}');
	r->member = NULL;
	return append_metadata(r, strview_of("jscontact"), strview(buf.data, buf.len));
}

/* What we write of metadata that has no member of its own. */
static bool
read_metadata(JsReader *r, JsonbContainer *card)
{
	JsonbValue *vcard = contact_js_get(card, "vCard");
	JsonbValue *metadata = contact_js_get(card, JS_METADATA);
	JsonbValue *properties = js_is_object(vcard) ? contact_js_get(vcard->val.binary.data, "properties") : NULL;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	v;

	if (js_is_array(properties) && JsonContainerSize(properties->val.binary.data) > 0 &&
		JsonContainerSize(vcard->val.binary.data) == 1 &&
		!append_metadata(r, strview_of("vcard"), json_of(properties)))
		return false;
	if (metadata == NULL)
		return true;
	r->member = JS_METADATA;
	if (!js_is_object(metadata))
		return fail(r, NULL, "expected an object");
	it = JsonbIteratorInit(metadata->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &v, true);
		if (v.type == jbvNull || (v.type == jbvString && v.val.string.len == 0) ||
			(v.type == jbvBinary && JsonContainerSize(v.val.binary.data) == 0))
			continue;			/* as contact_json.c takes them */
		if (!append_metadata(r, js_string(&name), json_of(&v)))
			return false;
	}
	return true;
}

static bool
is_tombstone(const JsonbValue *stamp)
{
	JsonbValue *flags = js_is_object(stamp) ? contact_js_get(stamp->val.binary.data, "flags") : NULL;

	if (!js_is_array(flags))
		return false;
	for (int i = 0; i < JsonContainerSize(flags->val.binary.data); i++)
		if (strview_same(js_string(getIthJsonbValueFromContainer(flags->val.binary.data, i)), strview_of("tombstone")))
			return true;
	return false;
}

/*
 * Stamps of values that are there; others were left behind by whoever edited
 * the card, and say nothing.
 */
static bool
read_stamps(JsReader *r, JsonbContainer *card, ContactValue *v)
{
	JsonbValue *stamps = contact_js_get(card, JS_STAMPS);
	StringInfoData buf;
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	stamp;
	const char *separator = "";
	char		path[sizeof(r->error->path)];

	if (stamps == NULL)
		return true;
	r->member = JS_STAMPS;
	if (!js_is_object(stamps))
		return fail(r, NULL, "expected an object");
	initStringInfo(&buf);
	appendStringInfoString(&buf, "{\"_provenance\": {");
	it = JsonbIteratorInit(stamps->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		StrView		cell = js_string(&name);
		StrView		key = {NULL, 0};
		const char *colon = cell.len > 0 ? memchr(cell.ptr, ':', cell.len) : NULL;
		int			len = colon ? colon - cell.ptr : cell.len;
		int			field = len > 0 ? contact_field_lookup(cell.ptr, len) : -1;

		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &stamp, true);
		if (colon)
			key = strview(colon + 1, cell.len - len - 1);
		if (field >= 0 && (contact_find(v, field, key) >= 0) == is_tombstone(&stamp))
			continue;
		appendStringInfoString(&buf, separator);
		separator = ", ";
		contact_js_put_string(&buf, cell);
		appendStringInfoString(&buf, ": ");
		contact_js_put_value(&buf, &stamp);
	}
	appendStringInfoString(&buf, "}}");
	if (contact_stamps_from_jsonb(DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(buf.data))), v, r->error))
		return true;
	snprintf(path, sizeof(path), "$.%s%s", JS_STAMPS, r->error->path + strlen("$._provenance"));
	strlcpy(r->error->path, path, sizeof(r->error->path));
	return false;
}

/* The content of a card; false, with *error set, on a fault of structure. */
static bool
read_card(const Jsonb *json, ContactValue *v, ContactError *error)
{
	JsonbContainer *card = unconstify(JsonbContainer *, &json->root);
	JsReader	r = {0};
	StrView		text;
	StrView		uid;

	memset(v, 0, sizeof(*v));
	memset(error, 0, sizeof(*error));
	r.error = error;
	if (!JB_ROOT_IS_OBJECT(json))
		return fail(&r, NULL, "expected an object");
	if (VARSIZE_ANY_EXHDR(json) > CONTACT_MAX_SIZE)
		return too_large(&r, "contact is too large");
	if (nesting(card) > JS_MAX_NESTING)
		return too_large(&r, "contact is nested too deeply");
	if (!read_text(&r, card, "@type", false, &text) || !read_text(&r, card, "version", false, &text) ||
		!read_text(&r, card, "kind", false, &r.kind) || !read_text(&r, card, "uid", false, &uid))
		return false;
	if (!read_text(&r, card, "@type", false, &text) || (text.len > 0 && !contact_vcard_is(text, "Card")))
		return fail(&r, "@type", "expected \"Card\"");
	for (int m = 0; m < JS_MEMBERS; m++)
	{
		JsonbValue *member = contact_js_get(card, contact_js_members[m]);

		if (member && !contact_js_read(&r, m, member))
			return false;
	}
	r.id = strview(NULL, 0);
	if (!read_metadata(&r, card))
		return false;
	v->items = r.items;
	v->nitems = r.nitems;
	contact_sort(v);
	r.items = v->items;
	r.nitems = r.maxitems = v->nitems;
	if (!read_residue(&r, card, v))
		return false;
	v->items = r.items;
	v->nitems = r.nitems;
	contact_sort(v);
	r.items = v->items;
	r.nitems = r.maxitems = v->nitems;
	if (uid.len > 0 && !strview_same(uid, contact_js_content_uid(v)) && !append_metadata_text(&r, "uid", uid))
		return false;
	v->items = r.items;
	v->nitems = r.nitems;
	contact_sort(v);
	return read_stamps(&r, card, v);
}

/*
 * from_jscontact(jsonb) -> contact
 */
Datum
contact_from_jscontact(PG_FUNCTION_ARGS)
{
	ContactValue v;
	ContactError error;

	if (!read_card(PG_GETARG_JSONB_P(0), &v, &error))
		contact_error_report(&error, fcinfo->context);
	PG_RETURN_CONTACT_P(contact_form(&v));
}
