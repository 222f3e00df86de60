/*
 * contact_jscontact_write.c
 *		A contact as JSContact (RFC 9553).
 *
 * A member with fields is, in this order: as it stands in the residue, if
 * reading that gives what the contact has; the residue's entries, adapted, and
 * entries for what they lack; made anew.  Members are put together as text,
 * which jsonb then takes apart once.
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/json.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "contact/contact_jscontact.h"

PG_FUNCTION_INFO_V1(contact_to_jscontact);

static const ContactField name_parts[] = {
	CF_LAST_NAME, CF_FIRST_NAME, CF_MIDDLE_NAME, CF_PREFIX, CF_SUFFIX
};

void
contact_js_put_string(StringInfo buf, StrView s)
{
	char	   *text = s.len > 0 ? pnstrdup(s.ptr, s.len) : pstrdup("");

	escape_json(buf, text);
	pfree(text);
}

void
contact_js_put_value(StringInfo buf, const JsonbValue *v)
{
	StrView		s = contact_vcard_json(unconstify(JsonbValue *, v));

	appendBinaryStringInfo(buf, s.ptr, s.len);
}

/* Begin a member of an object: a comma where one is due, and its name. */
static void
put_name(StringInfo buf, StrView name)
{
	if (buf->len > 0 && buf->data[buf->len - 1] != '{')
		appendStringInfoString(buf, ", ");
	contact_js_put_string(buf, name);
	appendStringInfoString(buf, ": ");
}

static void
put_text(StringInfo buf, const char *name, StrView s)
{
	if (s.len == 0)
		return;
	put_name(buf, strview_of(name));
	contact_js_put_string(buf, s);
}

/* ---- the contact's side ---- */

static const ContactItem *
find(const ContactValue *v, ContactField field, const char *key)
{
	int			i = contact_find(v, field, key ? strview_of(key) : strview(NULL, 0));

	return i >= 0 && !(v->items[i].flags & CI_TOMBSTONE) ? &v->items[i] : NULL;
}

static StrView
scalar(const ContactValue *v, ContactField field)
{
	const ContactItem *item = find(v, field, NULL);

	return item ? item->value : strview(NULL, 0);
}

static Jsonb *
parse(StrView json)
{
	return DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(pnstrdup(json.ptr, json.len))));
}

/* A key of metadata that is a string; absent if it is not. */
static StrView
metadata_string(const ContactValue *v, const char *key)
{
	const ContactItem *item = find(v, CF_METADATA, key);
	JsonbValue	value;

	if (item == NULL || item->value.len < 2 || item->value.ptr[0] != '"' ||
		!JsonbExtractScalar(&parse(item->value)->root, &value))
		return strview(NULL, 0);
	return js_string(&value);
}

/* One that is text as reading would leave it. */
static StrView
metadata_text(const ContactValue *v, const char *key)
{
	StrView		s = metadata_string(v, key);

	return strview_same(contact_text_clean(s), s) ? s : strview(NULL, 0);
}

/* A whole name that its parts do not say. */
static StrView
formatted_name(const JsWriter *w)
{
	StrView		text = metadata_text(w->v, "formatted_name");
	StrView		joined = contact_js_joined_name(w->v->items, w->v->nitems);
	StrView		company = scalar(w->v, CF_COMPANY);
	bool		org = contact_vcard_is(w->kind, "org");

	if (joined.len == 0 ? !org || company.len == 0 || strview_same(company, text) : strview_same(joined, text))
		return strview(NULL, 0);
	return text;
}

/* ---- one entry ---- */

/* "home fax" as contexts and features, where they say just that; else a label. */
static void
put_type(StringInfo buf, const ContactItem *item)
{
	static const char *const contexts[] = {"private", "work", "billing", "delivery"};
	static const char *const features[] = {"mobile", "fax", "pager", "main-number"};
	bool		phone = item->field == CF_PHONES;
	int			ncontexts = item->field == CF_ADDRESSES ? 4 : 2;
	int			nfeatures = phone ? lengthof(features) : 0;

	if (item->type.len == 0)
		return;
	for (int c = 0; c <= ncontexts; c++)
	{
		for (int f = 0; f <= nfeatures; f++)
		{
			const char *context = c < ncontexts ? contexts[c] : NULL;
			const char *feature = f < nfeatures ? features[f] : NULL;

			if (!strview_same(contact_js_type(phone, context, feature), item->type))
				continue;
			if (context)
			{
				put_name(buf, strview_of("contexts"));
				appendStringInfo(buf, "{\"%s\": true}", context);
			}
			if (feature)
			{
				put_name(buf, strview_of("features"));
				appendStringInfo(buf, "{\"%s\": true}", feature);
			}
			return;
		}
	}
	put_text(buf, item->field == CF_ADDRESSES ? JS_LABEL : "label", item->type);
}

static void
put_flags(StringInfo buf, const ContactItem *item)
{
	if (item->flags & CI_PRIMARY)
	{
		put_name(buf, strview_of("pref"));
		appendStringInfoChar(buf, '1');
	}
	if (item->flags & (CI_VERIFIED | CI_UNVERIFIED))
	{
		put_name(buf, strview_of(JS_VERIFIED));
		appendStringInfoString(buf, item->flags & CI_VERIFIED ? "true" : "false");
	}
}

static void
put_address(StringInfo buf, const ContactItem *item)
{
	static const char *const kinds[CA_COUNT] = {"name", "locality", "region", "postcode", "country"};
	const char *separator = "[";

	put_name(buf, strview_of("components"));
	for (int i = 0; i < CA_COUNT; i++)
	{
		if (item->part[i].len == 0)
			continue;
		appendStringInfo(buf, "%s{\"kind\": \"%s\", \"value\": ", separator, kinds[i]);
		contact_js_put_string(buf, item->part[i]);
		appendStringInfoChar(buf, '}');
		separator = ", ";
	}
	appendStringInfoChar(buf, ']');
}

/*
 * A number with its extension: a URI, if it has the form of a global number.
 * What would read back as something else has its extension apart.
 */
static void
put_number(StringInfo buf, const ContactItem *item)
{
	bool		uri = item->value.len > 1 && item->value.ptr[0] == '+';
	StrView		parts[4];
	StrView		text = item->value;
	ContactItem again = {0};

	for (int i = 1; i < item->value.len && uri; i++)
		uri = isdigit((unsigned char) item->value.ptr[i]) || strchr("-.()", item->value.ptr[i]) != NULL;
	parts[0] = strview_of(uri ? "tel:" : "");
	parts[1] = item->value;
	parts[2] = strview_of(";ext=");
	parts[3] = item->extension;
	if (item->extension.len > 0)
		text = contact_vcard_join(parts, 4, "");
	again.field = CF_PHONES;
	contact_vcard_read_phone(text, &again);
	if (contact_item_normalize(&again) && strview_same(again.value, item->value) &&
		strview_same(again.extension, item->extension))
	{
		put_text(buf, "number", text);
		return;
	}
	put_text(buf, "number", item->value);
	put_name(buf, strview_of(JS_EXTENSION));
	contact_js_put_string(buf, item->extension);
}

/* Members of an entry of a list, without braces; value aside if it has not changed. */
static void
put_element(StringInfo buf, const ContactItem *item, bool value)
{
	if (value && item->field == CF_EMAILS)
		put_text(buf, "address", item->value);
	else if (value && item->field == CF_PHONES)
		put_number(buf, item);
	else if (value && item->field == CF_ADDRESSES)
		put_address(buf, item);
	else if (value)
		put_text(buf, "uri", item->value);
	put_type(buf, item);
	put_flags(buf, item);
}

/* A date of ours as a PartialDate. */
static void
put_date(StringInfo buf, StrView s)
{
	char	   *text = pnstrdup(s.ptr, s.len);
	int			year = -1;
	int			month = -1;
	int			day = -1;
	const char *again;

	if (sscanf(text, "--%2d-%2d", &month, &day) != 2)
		(void) sscanf(text, "%4d-%2d-%2d", &year, &month, &day);
	again = year < 0 ? psprintf("--%02d-%02d", month, day) :
		day >= 0 ? psprintf("%04d-%02d-%02d", year, month, day) :
		month >= 0 ? psprintf("%04d-%02d", year, month) : psprintf("%04d", year);
	if (strcmp(again, text) != 0 || month == 0 || month > 12 || day == 0 || day > 31)
	{
		put_text(buf, JS_BIRTHDAY, s);
		return;
	}
	put_name(buf, strview_of("date"));
	appendStringInfoChar(buf, '{');
	if (year >= 0)
		appendStringInfo(buf, "\"year\": %d", year);
	if (month >= 0)
		appendStringInfo(buf, "%s\"month\": %d", year >= 0 ? ", " : "", month);
	if (day >= 0)
		appendStringInfo(buf, ", \"day\": %d", day);
	appendStringInfoChar(buf, '}');
}

/* Members of a slot's entry, without braces; nothing if the contact has no value. */
static void
put_slot(const JsWriter *w, JsSlot slot, StringInfo buf)
{
	const JsSlotInfo *info = &contact_js_slots[slot];
	StrView		value = slot == JS_SLOT_ROLE ? metadata_text(w->v, "role") : scalar(w->v, info->field);
	StrView		department = scalar(w->v, CF_DEPARTMENT);

	if (slot == JS_SLOT_ORGANIZATION)
	{
		put_text(buf, "name", value);
		if (department.len == 0)
			return;
		put_name(buf, strview_of("units"));
		appendStringInfoString(buf, "[{\"name\": ");
		contact_js_put_string(buf, department);
		appendStringInfoString(buf, "}]");
		return;
	}
	if (value.len == 0)
		return;
	if (info->kind && strcmp(info->kind, info->default_kind) != 0)
		put_text(buf, "kind", strview_of(info->kind));
	if (slot == JS_SLOT_BIRTHDAY)
		put_date(buf, value);
	else
		put_text(buf, info->value, value);
}

/* ---- a member: what the residue has of it ---- */

static JsonbValue *
residue_of(const JsWriter *w, JsMember member)
{
	if (w->residue == NULL || (w->dropped & (1 << member)))
		return NULL;
	return contact_js_get(w->residue, contact_js_members[member]);
}

/* What reading a member of the residue gives; false if it cannot be read. */
static bool
read_again(const JsWriter *w, JsMember member, JsonbValue *v, JsReader *r, ContactValue *items)
{
	ContactError *error = palloc0(sizeof(ContactError));

	memset(r, 0, sizeof(*r));
	memset(items, 0, sizeof(*items));
	r->context = w->v;
	r->kind = w->kind;
	r->residue = true;
	r->error = error;
	if (!contact_js_read(r, member, v))
		return false;
	items->items = r->items;
	items->nitems = r->nitems;
	contact_sort(items);
	return true;
}

static int
item_cmp(const void *a, const void *b)
{
	return contact_item_cmp(a, b);
}

/* Is this item of the contact for this member to say? */
static bool
belongs(const JsWriter *w, JsMember member, const ContactItem *item, const ContactValue *elsewhere)
{
	static const uint32 fields[JS_MEMBERS] = {
		[JS_NICKNAMES] = CF_BIT(CF_NICKNAME),
		[JS_ORGANIZATIONS] = CF_BIT(CF_COMPANY) | CF_BIT(CF_DEPARTMENT),
		[JS_TITLES] = CF_BIT(CF_TITLE),[JS_EMAILS] = CF_BIT(CF_EMAILS),
		[JS_PHONES] = CF_BIT(CF_PHONES),[JS_ADDRESSES] = CF_BIT(CF_ADDRESSES),
		[JS_SERVICES] = CF_BIT(CF_URLS),[JS_LINKS] = CF_BIT(CF_URLS),
		[JS_ANNIVERSARIES] = CF_BIT(CF_BIRTHDAY),[JS_NOTES] = CF_BIT(CF_NOTE),
		[JS_KEYWORDS] = CF_BIT(CF_TAGS),[JS_MEDIA] = CF_BIT(CF_PHOTO),
		[JS_NAME] = CF_BIT(CF_FIRST_NAME) | CF_BIT(CF_MIDDLE_NAME) | CF_BIT(CF_LAST_NAME) |
		CF_BIT(CF_PREFIX) | CF_BIT(CF_SUFFIX)
	};

	if (item->flags & CI_TOMBSTONE)
		return false;
	if (item->field == CF_METADATA)
		return (member == JS_TITLES && contact_vcard_is(item->key, "role") && metadata_text(w->v, "role").len > 0) ||
			(member == JS_NAME && contact_vcard_is(item->key, "formatted_name") && formatted_name(w).len > 0);
	if (!(fields[member] & CF_BIT(item->field)))
		return false;
	/* an url that onlineServices say is not a link, too */
	return elsewhere->nitems == 0 ||
		bsearch(item, elsewhere->items, elsewhere->nitems, sizeof(ContactItem), item_cmp) == NULL;
}

/* Does the residue's member still say what the contact says? */
static bool
is_current(const JsWriter *w, JsMember member, const ContactValue *said, const ContactValue *elsewhere)
{
	int			n = 0;

	for (int i = 0; i < w->v->nitems; i++)
	{
		if (!belongs(w, member, &w->v->items[i], elsewhere))
			continue;
		while (n < said->nitems && !belongs(w, member, &said->items[n], elsewhere))
			n++;
		if (n == said->nitems || !contact_item_same(&said->items[n], &w->v->items[i]))
			return false;
		n++;
	}
	while (n < said->nitems && !belongs(w, member, &said->items[n], elsewhere))
		n++;
	return n == said->nitems;
}

/* Members of an entry of the residue that we do not make ourselves. */
static void
put_unmanaged(StringInfo buf, JsonbContainer *entry, const char *const *managed, int n)
{
	JsonbIterator *it = JsonbIteratorInit(entry);
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	v;

	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		bool		ours = false;

		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &v, true);
		for (int i = 0; i < n; i++)
			ours |= managed[i] && strview_same(js_string(&name), strview_of(managed[i]));
		if (ours)
			continue;
		put_name(buf, js_string(&name));
		contact_js_put_value(buf, &v);
	}
}

/* An id that the residue's map does not have: k1, k2, ... */
static void
put_new_id(StringInfo buf, JsonbValue *map, int *last)
{
	char		id[16];

	do
		snprintf(id, sizeof(id), "k%d", ++*last);
	while (map && contact_js_get(map->val.binary.data, id));
	put_name(buf, strview_of(id));
}

static void
put_entry(StringInfo buf, const StringInfoData *members)
{
	appendStringInfoChar(buf, '{');
	appendBinaryStringInfo(buf, members->data, members->len);
	appendStringInfoChar(buf, '}');
}

/* An entry of the residue, adapted to the contact; nothing if it has gone. */
static void
adapt_entry(JsWriter *w, JsMember member, StringInfo buf, const JsReader *r,
			const JsonbValue *id, JsonbValue *entry)
{
	for (int slot = 0; slot < JS_SLOTS; slot++)
	{
		const JsSlotInfo *info = &contact_js_slots[slot];
		StringInfoData members;

		if (info->member != member || !strview_same(r->chosen[slot], js_string(id)))
			continue;
		initStringInfo(&members);
		put_slot(w, slot, &members);
		if (members.len == 0)
			return;
		put_unmanaged(&members, entry->val.binary.data, info->managed, lengthof(info->managed));
		put_name(buf, js_string(id));
		put_entry(buf, &members);
		return;
	}
	put_name(buf, js_string(id));
	contact_js_put_value(buf, entry);
}

/* A map with scalars in it; map is NULL if the residue has none. */
static void
write_slots(JsWriter *w, JsMember member, StringInfo buf, JsonbValue *map, const JsReader *r)
{
	int			last = 0;

	if (map)
	{
		JsonbIterator *it = JsonbIteratorInit(map->val.binary.data);
		JsonbIteratorToken token;
		JsonbValue	id;
		JsonbValue	entry;

		while ((token = JsonbIteratorNext(&it, &id, true)) != WJB_DONE)
		{
			if (token != WJB_KEY)
				continue;
			(void) JsonbIteratorNext(&it, &entry, true);
			adapt_entry(w, member, buf, r, &id, &entry);
		}
	}
	for (int slot = 0; slot < JS_SLOTS; slot++)
	{
		StringInfoData members;

		if (contact_js_slots[slot].member != member || (map && r->chosen[slot].len > 0))
			continue;
		initStringInfo(&members);
		put_slot(w, slot, &members);
		if (members.len == 0)
			continue;
		put_new_id(buf, map, &last);
		put_entry(buf, &members);
	}
}

/* An entry of a list in the residue; used marks the contact's items that it says. */
static void
adapt_element(JsWriter *w, JsMember member, StringInfo buf, const JsonbValue *id, JsonbValue *entry,
			  bool *used, const ContactValue *elsewhere)
{
	static const char *const managed[] = {
		"contexts", "features", "label", "pref", JS_LABEL, JS_VERIFIED,
		"address", "number", "uri", JS_EXTENSION
	};
	ContactError error;
	JsReader	r = {0};
	ContactItem item;
	StringInfoData members;
	bool		taken;
	int			at;

	r.error = &error;
	if (!contact_js_read_entry(&r, member, entry->val.binary.data, &item, &taken))
		return;
	at = taken ? contact_find(w->v, item.field, item.key) : -1;
	if (taken && (at < 0 || (w->v->items[at].flags & CI_TOMBSTONE)))
		return;					/* the contact no longer has it */
	put_name(buf, js_string(id));
	if (at >= 0)
		used[at] = true;
	if (at < 0 || contact_item_same(&item, &w->v->items[at]) ||
		!belongs(w, member, &w->v->items[at], elsewhere))
	{
		contact_js_put_value(buf, entry);
		return;
	}
	/* an address, once it is the same one, keeps its components */
	initStringInfo(&members);
	put_element(&members, &w->v->items[at], member != JS_ADDRESSES);
	put_unmanaged(&members, entry->val.binary.data, managed,
				  member == JS_ADDRESSES ? 6 : lengthof(managed));
	put_entry(buf, &members);
}

static void
write_list(JsWriter *w, JsMember member, StringInfo buf, JsonbValue *map, const ContactValue *elsewhere)
{
	bool	   *used = palloc0(sizeof(bool) * Max(w->v->nitems, 1));
	int			last = 0;

	if (map)
	{
		JsonbIterator *it = JsonbIteratorInit(map->val.binary.data);
		JsonbIteratorToken token;
		JsonbValue	id;
		JsonbValue	entry;

		while ((token = JsonbIteratorNext(&it, &id, true)) != WJB_DONE)
		{
			if (token != WJB_KEY)
				continue;
			(void) JsonbIteratorNext(&it, &entry, true);
			adapt_element(w, member, buf, &id, &entry, used, elsewhere);
		}
	}
	/* what is no service of the card's is a link */
	for (int i = 0; i < w->v->nitems && member != JS_SERVICES; i++)
	{
		StringInfoData members;

		if (used[i] || !belongs(w, member, &w->v->items[i], elsewhere))
			continue;
		initStringInfo(&members);
		put_element(&members, &w->v->items[i], true);
		put_new_id(buf, map, &last);
		put_entry(buf, &members);
	}
	pfree(used);
}

static void
write_keywords(JsWriter *w, StringInfo buf)
{
	for (int i = 0; i < w->v->nitems; i++)
	{
		const ContactItem *item = &w->v->items[i];

		if (item->field != CF_TAGS || (item->flags & CI_TOMBSTONE))
			continue;
		put_name(buf, item->value);
		appendStringInfoString(buf, "true");
	}
}

static bool
is_generation(StrView s)
{
	static const char *const words[] = {"Jr", "Jr.", "Sr", "Sr.", "II", "III", "IV"};

	for (int i = 0; i < lengthof(words); i++)
		if (contact_vcard_is(s, words[i]))
			return true;
	return false;
}

static void
write_name(JsWriter *w, StringInfo buf)
{
	static const char *const kinds[] = {"surname", "given", "given2", "title", "credential"};
	const char *separator = "[";

	if (contact_js_joined_name(w->v->items, w->v->nitems).len > 0)
	{
		put_name(buf, strview_of("components"));
		for (int i = 0; i < lengthof(name_parts); i++)
		{
			StrView		s = scalar(w->v, name_parts[i]);

			if (s.len == 0)
				continue;
			appendStringInfo(buf, "%s{\"kind\": \"%s\", \"value\": ", separator,
							 name_parts[i] == CF_SUFFIX && is_generation(s) ? "generation" : kinds[i]);
			contact_js_put_string(buf, s);
			appendStringInfoChar(buf, '}');
			separator = ", ";
		}
		appendStringInfoChar(buf, ']');
	}
	put_text(buf, "full", formatted_name(w));
}

/* An organization's company is its name, and said there. */
static bool
company_is_name(const JsWriter *w)
{
	JsonbValue *name = residue_of(w, JS_NAME);
	StrView		full;

	if (!contact_vcard_is(w->kind, "org") || !js_is_object(name) || scalar(w->v, CF_DEPARTMENT).len > 0 ||
		contact_js_get(name->val.binary.data, "components"))
		return false;
	full = contact_text_clean(js_string(contact_js_get(name->val.binary.data, "full")));
	return full.len > 0 && strview_same(full, scalar(w->v, CF_COMPANY));
}

bool
contact_js_write(JsWriter *w, JsMember member, StringInfo buf)
{
	JsonbValue *residue = residue_of(w, member);
	StringInfoData members;
	JsReader	r;
	ContactValue said;
	ContactValue elsewhere = {0};

	if (member == JS_LINKS)
	{
		JsonbValue *services = residue_of(w, JS_SERVICES);

		if (services && !read_again(w, JS_SERVICES, services, &r, &elsewhere))
			elsewhere.nitems = 0;
	}
	if (residue && !read_again(w, member, residue, &r, &said))
		residue = NULL;
	if (residue && member == JS_SERVICES)
	{
		/* it says what it names, and of that only what the contact has */
		bool		current = true;

		for (int i = 0; i < said.nitems && current; i++)
		{
			int			at = contact_find(w->v, CF_URLS, said.items[i].key);

			current = at >= 0 && contact_item_same(&said.items[i], &w->v->items[at]);
		}
		if (current)
		{
			contact_js_put_value(buf, residue);
			return true;
		}
	}
	else if (residue && is_current(w, member, &said, &elsewhere) &&
			 !(member == JS_MEDIA && r.chosen[JS_SLOT_PHOTO].len > 0 && said.nitems == 0))
	{
		contact_js_put_value(buf, residue);
		return true;
	}

	initStringInfo(&members);
	if (member == JS_NAME)
		write_name(w, &members);
	else if (member == JS_KEYWORDS)
		write_keywords(w, &members);
	else if (member == JS_ORGANIZATIONS && residue == NULL && company_is_name(w))
		return false;
	else if (member >= JS_EMAILS && member <= JS_LINKS)
		write_list(w, member, &members, residue, &elsewhere);
	else
		write_slots(w, member, &members, residue, &r);
	if (members.len > 0)
		put_entry(buf, &members);
	return members.len > 0;
}

/* ---- a card ---- */

/* A name-based uid, so that a contact without one gives a valid card. */
StrView
contact_js_content_uid(const ContactValue *v)
{
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);
	uint8		h[32];
	bool		ok = pg_cryptohash_init(ctx) == 0;

	for (int i = 0; i < v->nitems && ok; i++)
	{
		StrView		bytes;

		if ((v->items[i].flags & CI_TOMBSTONE) ||
			(v->items[i].field == CF_METADATA && contact_vcard_is(v->items[i].key, "jscontact")))
			continue;
		bytes = contact_item_bytes(&v->items[i]);
		ok = pg_cryptohash_update(ctx, (const uint8 *) bytes.ptr, bytes.len) == 0;
		pfree(unconstify(char *, bytes.ptr));
	}
	ok = ok && pg_cryptohash_final(ctx, h, sizeof(h)) == 0;
	pg_cryptohash_free(ctx);
	if (!ok)
		elog(ERROR, "could not compute the digest of a contact");
	h[6] = (h[6] & 0x0f) | 0x80;	/* UUID version 8, RFC 9562 */
	h[8] = (h[8] & 0x3f) | 0x80;
	return strview_of(psprintf("urn:uuid:%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
							   h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7],
							   h[8], h[9], h[10], h[11], h[12], h[13], h[14], h[15]));
}

/* The properties of metadata.vcard; NULL if it is not an array of some. */
static JsonbContainer *
vcard_properties(const ContactValue *v)
{
	const ContactItem *item = find(v, CF_METADATA, "vcard");
	Jsonb	   *json = item && item->value.ptr[0] == '[' ? parse(item->value) : NULL;

	return json && JB_ROOT_COUNT(json) > 0 ? &json->root : NULL;
}

/* metadata that no member of JSContact says. */
static void
put_metadata(JsWriter *w, StringInfo buf, bool vcard)
{
	StringInfoData members;

	initStringInfo(&members);
	for (int i = 0; i < w->v->nitems; i++)
	{
		const ContactItem *item = &w->v->items[i];

		if (item->field != CF_METADATA || (item->flags & CI_TOMBSTONE) ||
			(vcard && contact_vcard_is(item->key, "vcard")) ||
			(w->residue && contact_vcard_is(item->key, "jscontact")) ||
			(contact_vcard_is(item->key, "uid") && metadata_string(w->v, "uid").len > 0) ||
			(contact_vcard_is(item->key, "role") && metadata_text(w->v, "role").len > 0) ||
			(contact_vcard_is(item->key, "formatted_name") && formatted_name(w).len > 0))
			continue;
		put_name(&members, item->key);
		appendBinaryStringInfo(&members, item->value.ptr, item->value.len);
	}
	if (members.len == 0)
		return;
	put_name(buf, strview_of(JS_METADATA));
	put_entry(buf, &members);
}

static bool
is_ours(StrView name, bool vcard)
{
	static const char *const names[] = {"@type", "version", "uid", JS_METADATA, JS_STAMPS};

	for (int i = 0; i < lengthof(names); i++)
		if (strview_same(name, strview_of(names[i])))
			return true;
	for (int m = 0; m < JS_MEMBERS; m++)
		if (strview_same(name, strview_of(contact_js_members[m])))
			return true;
	return vcard && strview_same(name, strview_of("vCard"));
}

/* Members of the residue that have no fields. */
static void
put_others(JsWriter *w, StringInfo buf, bool vcard)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	v;

	if (w->residue == NULL)
		return;
	it = JsonbIteratorInit(w->residue);
	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &v, true);
		if (is_ours(js_string(&name), vcard))
			continue;
		put_name(buf, js_string(&name));
		contact_js_put_value(buf, &v);
	}
}

static void
put_stamps(const ContactValue *v, StringInfo buf)
{
	bool		stamped = false;

	for (int i = 0; i < v->nitems; i++)
		stamped |= v->items[i].stamp >= 0;
	if (!stamped)
		return;
	put_name(buf, strview_of(JS_STAMPS));
	contact_provenance_to_json(buf, v, true);
}

static void
write_card(const ContactValue *v, StringInfo buf)
{
	JsWriter	w = {0};
	const ContactItem *item = find(v, CF_METADATA, "jscontact");
	Jsonb	   *residue = item && item->value.ptr[0] == '{' ? parse(item->value) : NULL;
	JsonbContainer *vcard = vcard_properties(v);
	JsonbValue *version;
	StrView		uid = metadata_string(v, "uid");

	w.v = v;
	w.residue = residue ? &residue->root : NULL;
	w.kind = w.residue ? js_string(contact_js_get(w.residue, "kind")) : strview(NULL, 0);
	version = w.residue ? contact_js_get(w.residue, "version") : NULL;
	/* the residue's own form of vCard says more */
	if (w.residue && contact_js_get(w.residue, "vCard"))
		vcard = NULL;

	appendStringInfoString(buf, "{\"@type\": \"Card\"");
	put_name(buf, strview_of("version"));
	contact_js_put_string(buf, version && version->type == jbvString ? js_string(version) : strview_of("1.0"));
	put_text(buf, "uid", uid.len > 0 ? uid : contact_js_content_uid(v));
	for (int m = 0; m < JS_MEMBERS; m++)
	{
		StringInfoData member;

		initStringInfo(&member);
		if (contact_js_write(&w, m, &member))
		{
			put_name(buf, strview_of(contact_js_members[m]));
			appendBinaryStringInfo(buf, member.data, member.len);
		}
		pfree(member.data);
	}
	if (vcard)
	{
		put_name(buf, strview_of("vCard"));
		appendStringInfo(buf, "{\"properties\": %s}", JsonbToCString(NULL, vcard, 0));
	}
	put_others(&w, buf, vcard != NULL);
	put_metadata(&w, buf, vcard != NULL);
	put_stamps(v, buf);
	appendStringInfoChar(buf, '}');
}

/*
 * to_jscontact(contact) -> jsonb
 */
Datum
contact_to_jscontact(PG_FUNCTION_ARGS)
{
	ContactValue v;
	StringInfoData buf;

	contact_deform(PG_GETARG_CONTACT_P(0), &v);
	initStringInfo(&buf);
	write_card(&v, &buf);
	return DirectFunctionCall1(jsonb_in, CStringGetDatum(buf.data));
}
