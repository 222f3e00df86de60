/*
 * contact_vcard_map.c
 *		The properties of a vCard as a contact.
 *
 * What has a field of its own goes there: of a scalar the first that says
 * something.  What is left becomes metadata, in contact_vcard_rest.c.  Empty
 * properties say nothing and are dropped.  Of mapped properties the parameters
 * other than TYPE and PREF are not kept.
 */
#include "postgres.h"

#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/formatting.h"
#include "utils/json.h"
#include "utils/jsonb.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "contact/contact_vcard.h"

/* What is kept of a card, in bytes of JSON. */
#define MAP_BUDGET			(768 * 1024)
#define MAP_ITEM_COST		160
#define MAP_MAX_ITEMS		(CONTACT_MAX_ITEMS / 2)


static StrView
lower_case(StrView s)
{
	return s.len > 0 ? strview_of(asc_tolower(s.ptr, s.len)) : s;
}

StrView
contact_vcard_text(StrView raw)
{
	return contact_text_clean(contact_vcard_unescape(raw));
}

/* Is one of eight bytes a quote, a backslash or a control character? */
static bool
has_escape(uint64 bytes)
{
	const uint64 ones = UINT64CONST(0x0101010101010101);
	uint64		quote = bytes ^ (ones * '"');
	uint64		backslash = bytes ^ (ones * '\\');

	return (((quote - ones) & ~quote) | ((backslash - ones) & ~backslash) |
			((bytes - ones * ' ') & ~bytes)) & (ones << 7);
}

/* Bytes that a string takes in JSON. */
int
contact_vcard_json_cost(StrView s)
{
	int			cost = s.len;
	int			i = 0;

	/* pictures are long, and have nothing to escape */
	for (; i + (int) sizeof(uint64) <= s.len; i += sizeof(uint64))
	{
		uint64		bytes;

		memcpy(&bytes, s.ptr + i, sizeof(bytes));
		if (has_escape(bytes))
			break;
	}
	for (; i < s.len; i++)
		cost += s.ptr[i] == '"' || s.ptr[i] == '\\' ? 1 : (unsigned char) s.ptr[i] < ' ' ? 5 : 0;
	return cost;
}

/* Count what is about to be kept; false if the card has no room for it. */
bool
contact_vcard_afford(VcardMap *m, int cost)
{
	if (m->nitems >= MAP_MAX_ITEMS || cost > MAP_BUDGET - m->cost)
	{
		m->reader->limit = true;
		m->reader->skipped++;
		return false;
	}
	m->cost += cost;
	return true;
}

void
contact_vcard_append(VcardMap *m, const ContactItem *item)
{
	if (m->nitems == m->maxitems)
	{
		m->maxitems = m->maxitems ? m->maxitems * 2 : 16;
		m->items = m->items ? repalloc(m->items, sizeof(ContactItem) * m->maxitems)
			: palloc(sizeof(ContactItem) * m->maxitems);
	}
	m->items[m->nitems] = *item;
	m->items[m->nitems++].stamp = -1;
}

/* Keep an item, made canonical; nothing if nothing is left of it. */
static void
add_item(VcardMap *m, ContactItem *item)
{
	int			cost = MAP_ITEM_COST;

	if (!contact_item_normalize(item))
		return;
	cost += item->field == CF_METADATA ? item->value.len : contact_vcard_json_cost(item->value);
	cost += contact_vcard_json_cost(item->type) + contact_vcard_json_cost(item->extension);
	for (int i = 0; i < CA_COUNT; i++)
		cost += contact_vcard_json_cost(item->part[i]);
	if (contact_vcard_afford(m, cost))
		contact_vcard_append(m, item);
}

/* A scalar's value; false if the field has one already. */
static bool
add_scalar(VcardMap *m, ContactField field, StrView text)
{
	ContactItem item = {0};

	if (contact_text_clean(text).len == 0)
		return true;
	if (m->seen & CF_BIT(field))
		return false;
	m->seen |= CF_BIT(field);
	item.field = field;
	item.value = text;
	add_item(m, &item);
	return true;
}

static StrView
scalar(const VcardMap *m, ContactField field)
{
	for (int i = 0; i < m->nitems; i++)
		if (m->items[i].field == field)
			return m->items[i].value;
	return strview(NULL, 0);
}

StrView
contact_vcard_json(JsonbValue *v)
{
	Jsonb	   *json = JsonbValueToJsonb(v);

	return strview_of(JsonbToCString(NULL, &json->root, VARSIZE(json)));
}

void
contact_vcard_add_metadata(VcardMap *m, StrView key, StrView text)
{
	ContactItem item = {0};
	StringInfoData json;

	if (text.len == 0)
		return;
	initStringInfo(&json);
	if (contact_vcard_json_cost(text) == text.len)
	{
		/* nothing to escape */
		appendStringInfoChar(&json, '"');
		appendBinaryStringInfo(&json, text.ptr, text.len);
		appendStringInfoChar(&json, '"');
	}
	else
		escape_json(&json, pnstrdup(text.ptr, text.len));
	item.field = CF_METADATA;
	item.key = key;
	item.value = strview(json.data, json.len);
	add_item(m, &item);
}

/*
 * Take a structured value apart at its unescaped separators.  Components
 * behind the last wanted one are ignored.
 */
static int
split(StrView raw, char separator, StrView *parts, int maxparts)
{
	int			n = 0;
	int			start = 0;

	for (int i = 0; i <= raw.len && n < maxparts; i++)
	{
		if (i < raw.len && raw.ptr[i] == '\\')
			i++;
		else if (i == raw.len || raw.ptr[i] == separator)
		{
			parts[n++] = strview(raw.ptr + start, i - start);
			start = i + 1;
		}
	}
	if (n < maxparts && start < raw.len)
		parts[n++] = strview(raw.ptr + start, raw.len - start);	/* ends in a backslash */
	return n;
}

/* Parts that say something, with ", " between them. */
StrView
contact_vcard_join(const StrView *parts, int n, const char *separator)
{
	StringInfoData buf;

	initStringInfo(&buf);
	for (int i = 0; i < n; i++)
	{
		if (parts[i].len == 0)
			continue;
		if (buf.len > 0)
			appendStringInfoString(&buf, separator);
		appendBinaryStringInfo(&buf, parts[i].ptr, parts[i].len);
	}
	return strview(buf.data, buf.len);
}

static StrView
param(const VcardProperty *prop, const char *name)
{
	for (int i = 0; i < prop->nparams; i++)
		if (contact_vcard_is(prop->params[i].name, name))
			return prop->params[i].value;
	return strview(NULL, 0);
}

/* ---- types and labels ---- */

/* Words of TYPE that say nothing about what a value is for. */
static bool
is_idle_word(StrView word)
{
	static const char *const words[] = {
		"pref", "voice", "text", "msg", "video", "textphone", "internet",
		"dom", "intl", "postal", "parcel"
	};

	for (int i = 0; i < lengthof(words); i++)
		if (contact_vcard_is(word, words[i]))
			return true;
	return false;
}

static bool
is_place(StrView word)
{
	return contact_vcard_is(word, "home") || contact_vcard_is(word, "work") ||
		contact_vcard_is(word, "other");
}

StrView
contact_vcard_type(bool phone, const StrView *words, int nwords)
{
	StrView		kept[VCARD_MAX_PARAMS];
	int			n = 0;

	/* "work fax", in whatever order it was said */
	for (int pass = 0; pass < 2; pass++)
	{
		for (int i = 0; i < nwords && n < VCARD_MAX_PARAMS; i++)
		{
			StrView		word = contact_text_clean(words[i]);
			int			j;

			if (phone && contact_vcard_is(word, "cell"))
				word = strview_of("mobile");
			if (word.len == 0 || is_idle_word(word) || is_place(word) != (pass == 0))
				continue;
			for (j = 0; j < n; j++)
				if (kept[j].len == word.len && pg_strncasecmp(kept[j].ptr, word.ptr, word.len) == 0)
					break;
			if (j == n)
				kept[n++] = word;
		}
	}
	return contact_vcard_join(kept, n, " ");
}

/* Spaces at the ends only: contact_text_clean looks at all of a text. */
static StrView
cut_blanks(StrView s)
{
	while (s.len > 0 && s.ptr[0] == ' ')
		s = strview(s.ptr + 1, s.len - 1);
	while (s.len > 0 && s.ptr[s.len - 1] == ' ')
		s.len--;
	return s;
}

/* A label as Apple writes it: _$!<Mobile>!$_ is "mobile". */
static StrView
label_text(const VcardProperty *prop)
{
	StrView		s = contact_vcard_text(prop->value);

	while (s.len >= 8 && memcmp(s.ptr, "_$!<", 4) == 0 && memcmp(s.ptr + s.len - 4, ">!$_", 4) == 0)
		s = cut_blanks(strview(s.ptr + 4, s.len - 8));
	s = contact_text_clean(s);
	if (contact_vcard_is(s, "homefax"))
		return strview_of("home fax");
	if (contact_vcard_is(s, "workfax"))
		return strview_of("work fax");
	if (contact_vcard_is(s, "otherfax"))
		return strview_of("other fax");
	return s;
}

bool
contact_vcard_is_label(const VcardProperty *prop)
{
	return prop->group.len > 0 && contact_vcard_is(prop->name, "X-ABLABEL");
}

/* The first label of a group, or -1. */
int
contact_vcard_find_label(const VcardMap *m, StrView group)
{
	for (int i = 0; i < m->nprops && group.len > 0; i++)
		if (contact_vcard_is_label(&m->props[i]) && strview_same(m->props[i].group, group))
			return i;
	return -1;
}

/* What TYPE, PREF and a label say of an element. */
static void
set_type(const VcardMap *m, const VcardProperty *prop, ContactItem *item)
{
	StrView		words[VCARD_MAX_PARAMS];
	int			n = 0;
	int			label = contact_vcard_find_label(m, prop->group);

	for (int i = 0; i < prop->nparams; i++)
	{
		VcardParam *p = &prop->params[i];

		if (contact_vcard_is(p->name, "TYPE"))
		{
			words[n++] = p->value;
			if (contact_vcard_is(contact_text_clean(p->value), "pref"))
				item->flags |= CI_PRIMARY;
		}
		else if (contact_vcard_is(p->name, "PREF") && contact_vcard_is(contact_text_clean(p->value), "1"))
			item->flags |= CI_PRIMARY;
	}
	/* only these lists have a primary element */
	if (item->field > CF_PHONES)
		item->flags = 0;
	if (label >= 0)
		item->type = label_text(&m->props[label]);
	if (item->type.len == 0)
		item->type = contact_vcard_type(item->field == CF_PHONES, words, n);
}

/* ---- properties with a field; false: not taken, keep it as metadata ---- */

static bool
take_name(VcardMap *m, const VcardProperty *prop)
{
	static const ContactField fields[5] = {
		CF_LAST_NAME, CF_FIRST_NAME, CF_MIDDLE_NAME, CF_PREFIX, CF_SUFFIX
	};
	StrView		parts[5];
	int			n = split(prop->value, ';', parts, 5);
	bool		empty = true;

	for (int i = 0; i < n; i++)
	{
		parts[i] = contact_vcard_text(parts[i]);
		empty &= parts[i].len == 0;
	}
	if (empty || m->has_name)
		return empty;
	m->has_name = true;
	for (int i = 0; i < n; i++)
		(void) add_scalar(m, fields[i], parts[i]);
	return true;
}

static bool
take_formatted(VcardMap *m, const VcardProperty *prop)
{
	StrView		text = contact_vcard_text(prop->value);

	if (text.len > 0 && m->formatted.len > 0)
		return false;
	if (text.len > 0)
		m->formatted = text;
	return true;
}

static bool
take_org(VcardMap *m, const VcardProperty *prop)
{
	StrView		units[32];
	StrView		department;
	int			n = split(prop->value, ';', units, lengthof(units));

	for (int i = 0; i < n; i++)
		units[i] = contact_vcard_text(units[i]);
	department = n > 1 ? contact_vcard_join(units + 1, n - 1, ", ") : strview(NULL, 0);
	if (n == 0 || (units[0].len == 0 && department.len == 0))
		return true;
	if (m->has_org)
		return false;
	m->has_org = true;
	(void) add_scalar(m, CF_COMPANY, units[0]);
	(void) add_scalar(m, CF_DEPARTMENT, department);
	return true;
}

/* Two digits at p, or -1. */
static int
two_digits(const char *p)
{
	return isdigit((unsigned char) p[0]) && isdigit((unsigned char) p[1]) ?
		(p[0] - '0') * 10 + (p[1] - '0') : -1;
}

/*
 * A date of whatever shape as YYYY-MM-DD, or --MM-DD without a year; as it is
 * if it is not one.  A time behind it is cut off.
 */
StrView
contact_vcard_date(StrView s, StrView omitted_year)
{
	char		p[11] = {0};
	int			year = 4;
	int			dash;
	int			month;
	int			day;
	int			used;

	memcpy(p, s.ptr, Min(s.len, 10));
	if (strncmp(p, "--", 2) == 0)
		year = 2;
	else if (two_digits(p) < 0 || two_digits(p + 2) < 0)
		return s;
	dash = p[year] == '-' ? 1 : 0;
	month = two_digits(p + year + dash);
	if (month < 1 || month > 12 || (year == 4 && dash && p[7] != '-'))
		return s;
	used = year + dash + 2;
	if (p[used] == '-')
		used++;
	day = used <= 8 ? two_digits(p + used) : -1;
	used += 2;
	if (day < 1 || day > 31)
		return s;
	if (s.len > used && ((s.ptr[used] != 'T' && s.ptr[used] != ' ') || s.len == used + 1 ||
						 !isdigit((unsigned char) s.ptr[used + 1])))
		return s;
	if (year == 2 || (omitted_year.len == 4 && memcmp(omitted_year.ptr, p, 4) == 0))
		return strview_of(psprintf("--%02d-%02d", month, day));
	return strview_of(psprintf("%.4s-%02d-%02d", p, month, day));
}

static bool
take_birthday(VcardMap *m, const VcardProperty *prop)
{
	StrView		text = contact_vcard_text(prop->value);

	if (text.len > 0)
		text = contact_vcard_date(text, param(prop, "X-APPLE-OMIT-YEAR"));
	return add_scalar(m, CF_BIRTHDAY, text);
}

/* "scheme:", but not the drive of a Windows path. */
bool
contact_vcard_is_uri(StrView s)
{
	int			i = 0;

	while (i < s.len && (isalnum((unsigned char) s.ptr[i]) || s.ptr[i] == '+' ||
						 s.ptr[i] == '-' || s.ptr[i] == '.'))
		i++;
	return i > 1 && i + 1 < s.len && s.ptr[i] == ':' && isalpha((unsigned char) s.ptr[0]);
}

/* The media type of an inline picture: as TYPE says, else as its bytes begin. */
static const char *
media_type(const VcardProperty *prop)
{
	StrView		type = contact_text_clean(param(prop, "MEDIATYPE"));

	if (type.len == 0)
		type = contact_text_clean(param(prop, "TYPE"));
	for (int i = 0; i < type.len; i++)
		if (!isalnum((unsigned char) type.ptr[i]) && strchr("/+-.", type.ptr[i]) == NULL)
			type.len = 0;
	if (type.len > 0)
		return psprintf("%s%s", memchr(type.ptr, '/', type.len) ? "" : "image/",
						asc_tolower(type.ptr, type.len));
	if (prop->value.len > 5 && memcmp(prop->value.ptr, "iVBOR", 5) == 0)
		return "image/png";
	if (prop->value.len > 5 && memcmp(prop->value.ptr, "R0lGO", 5) == 0)
		return "image/gif";
	return "image/jpeg";
}

static bool
take_photo(VcardMap *m, const VcardProperty *prop)
{
	StringInfoData buf;
	StrView		text;

	if (!prop->base64)
	{
		text = contact_vcard_text(prop->value);
		return text.len == 0 || (contact_vcard_is_uri(text) && add_scalar(m, CF_PHOTO, text));
	}
	if (prop->value.len == 0)
		return true;
	if (m->seen & CF_BIT(CF_PHOTO))
		return false;
	initStringInfo(&buf);
	appendStringInfo(&buf, "data:%s;base64,", media_type(prop));
	if (buf.len + prop->value.len > VCARD_MAX_VALUE)
	{
		m->reader->skipped++;
		return true;
	}
	appendBinaryStringInfo(&buf, prop->value.ptr, prop->value.len);
	return add_scalar(m, CF_PHOTO, strview(buf.data, buf.len));
}

/* Cut a scheme off, as often as it is there. */
static StrView
cut_scheme(StrView s, const char *scheme)
{
	int			n = strlen(scheme);

	while (s.len > n && pg_strncasecmp(s.ptr, scheme, n) == 0)
		s = cut_blanks(strview(s.ptr + n, s.len - n));
	return contact_text_clean(s);
}

/*
 * "number;ext=7" and tel: URIs as a number and its extension; what else a URI
 * says stays with the number.
 */
void
contact_vcard_read_phone(StrView s, ContactItem *item)
{
	StrView		parts[3];
	int			at = -1;
	int			end;

	item->value = s = cut_scheme(s, "tel:");
	for (int i = 0; i + 5 < s.len; i++)
		if (s.ptr[i] == ';' && pg_strncasecmp(s.ptr + i, ";ext=", 5) == 0)
			at = i;
	if (at < 0)
		return;
	for (end = at + 5; end < s.len && s.ptr[end] != ';'; end++)
		;
	parts[0] = contact_text_clean(strview(s.ptr, at));
	parts[1] = strview(s.ptr + end, s.len - end);
	parts[2] = contact_text_clean(strview(s.ptr + at + 5, end - at - 5));
	if (parts[0].len == 0 || parts[2].len == 0)
		return;
	item->value = parts[1].len > 0 ? contact_vcard_join(parts, 2, "") : parts[0];
	item->extension = parts[2];
}

static bool
take_element(VcardMap *m, const VcardProperty *prop, ContactField field)
{
	ContactItem item = {0};
	StrView		text = contact_vcard_text(prop->value);

	item.field = field;
	set_type(m, prop, &item);
	if (field == CF_PHONES)
		contact_vcard_read_phone(text, &item);
	else
		item.value = field == CF_EMAILS ? cut_scheme(text, "mailto:") : text;
	add_item(m, &item);
	return true;
}

static bool
take_address(VcardMap *m, const VcardProperty *prop)
{
	ContactItem item = {0};
	StrView		parts[7];
	int			n = split(prop->value, ';', parts, 7);

	for (int i = 0; i < 7; i++)
		parts[i] = i < n ? contact_vcard_text(parts[i]) : strview(NULL, 0);
	item.field = CF_ADDRESSES;
	set_type(m, prop, &item);
	item.part[CA_STREET] = contact_vcard_join(parts, 3, ", ");
	item.part[CA_CITY] = parts[3];
	item.part[CA_REGION] = parts[4];
	item.part[CA_POSTAL_CODE] = parts[5];
	item.part[CA_COUNTRY] = parts[6];
	add_item(m, &item);
	return true;
}

static bool
take_tags(VcardMap *m, const VcardProperty *prop)
{
	StrView		rest = prop->value;

	while (rest.len > 0)
	{
		ContactItem item = {0};
		StrView		tag;

		(void) split(rest, ',', &tag, 1);
		rest = strview(rest.ptr + tag.len + 1, rest.len - tag.len - 1);
		item.field = CF_TAGS;
		item.value = contact_vcard_text(tag);
		add_item(m, &item);
	}
	return true;
}

/* ---- what is about the card ---- */

/* A time of one of REV's shapes; PG_INT64_MIN if it is none. */
static int64
read_time(StrView s)
{
	char		digits[24];
	int			n = 0;
	int			i = 0;
	int			sign = 0;
	int64		zone = 0;
	int64		fraction = 0;
	int64		t;
	int			f[6] = {0, 1, 1, 0, 0, 0};

	/* the digits of date and time, without what stands between them */
	for (; i < s.len; i++)
	{
		char		c = s.ptr[i];

		if (isdigit((unsigned char) c))
		{
			if (n == 14)
				return PG_INT64_MIN;
			digits[n++] = c;
		}
		else if (!(c == '-' && n < 8) && !(c == ':' && n > 8) &&
				 !((c == 'T' || c == 't' || c == ' ') && n == 8))
			break;
	}
	if (n != 8 && n != 12 && n != 14)
		return PG_INT64_MIN;
	if (i < s.len && (s.ptr[i] == '.' || s.ptr[i] == ','))
	{
		int64		unit = USECS_PER_SEC;

		while (++i < s.len && isdigit((unsigned char) s.ptr[i]))
			fraction += (s.ptr[i] - '0') * (unit /= 10);
	}
	if (i < s.len && (s.ptr[i] == 'Z' || s.ptr[i] == 'z'))
		i++;
	else if (i < s.len && (s.ptr[i] == '+' || s.ptr[i] == '-'))
	{
		sign = s.ptr[i] == '-' ? -1 : 1;
		s = strview(s.ptr + i + 1, s.len - i - 1);
		if (s.len < 2 || two_digits(s.ptr) < 0)
			return PG_INT64_MIN;
		zone = two_digits(s.ptr) * 60;
		i = 2;
		if (s.len > 2 && s.ptr[2] == ':')
			i++;
		if (s.len >= i + 2 && two_digits(s.ptr + i) >= 0)
		{
			zone += two_digits(s.ptr + i);
			i += 2;
		}
	}
	if (i != s.len)
		return PG_INT64_MIN;

	f[0] = two_digits(digits) * 100 + two_digits(digits + 2);
	for (int k = 1; k < 6 && 2 * k + 4 <= n; k++)
		f[k] = two_digits(digits + 2 + 2 * k);
	if (f[0] < 1 || f[1] < 1 || f[1] > 12 || f[2] < 1 || f[2] > 31 ||
		f[3] > 23 || f[4] > 59 || f[5] > 60)
		return PG_INT64_MIN;
	t = (int64) (date2j(f[0], f[1], f[2]) - POSTGRES_EPOCH_JDATE) * SECS_PER_DAY;
	t += f[3] * SECS_PER_HOUR + f[4] * SECS_PER_MINUTE + f[5] - sign * zone * SECS_PER_MINUTE;
	return t * USECS_PER_SEC + fraction;
}

static void
take_kind(VcardMap *m, const VcardProperty *prop)
{
	StrView		kind = contact_vcard_text(prop->value);

	if (kind.len > 0 && m->reader->kind.len == 0)
		m->reader->kind = lower_case(kind);
}

/* False if the property has no place but metadata. */
static bool
take_property(VcardMap *m, const VcardProperty *prop)
{
	StrView		name = prop->name;

	switch (name.ptr[0])
	{
		case 'A':
			if (contact_vcard_is(name, "ADR"))
				return take_address(m, prop);
			break;
		case 'B':
			if (contact_vcard_is(name, "BDAY"))
				return take_birthday(m, prop);
			if (contact_vcard_is(name, "BEGIN"))
				return true;
			break;
		case 'C':
			if (contact_vcard_is(name, "CATEGORIES"))
				return take_tags(m, prop);
			break;
		case 'E':
			if (contact_vcard_is(name, "EMAIL"))
				return take_element(m, prop, CF_EMAILS);
			if (contact_vcard_is(name, "END"))
				return true;
			break;
		case 'F':
			if (contact_vcard_is(name, "FN"))
				return take_formatted(m, prop);
			break;
		case 'K':
			if (contact_vcard_is(name, "KIND"))
				take_kind(m, prop);
			break;
		case 'N':
			if (contact_vcard_is(name, "N"))
				return take_name(m, prop);
			if (contact_vcard_is(name, "NICKNAME"))
				return add_scalar(m, CF_NICKNAME, contact_vcard_text(prop->value));
			if (contact_vcard_is(name, "NOTE"))
				return add_scalar(m, CF_NOTE, contact_vcard_text(prop->value));
			break;
		case 'O':
			if (contact_vcard_is(name, "ORG"))
				return take_org(m, prop);
			break;
		case 'P':
			if (contact_vcard_is(name, "PHOTO"))
				return take_photo(m, prop);
			return contact_vcard_is(name, "PRODID");
		case 'R':
			if (contact_vcard_is(name, "REV"))
			{
				if (m->reader->rev == PG_INT64_MIN)
					m->reader->rev = read_time(contact_vcard_text(prop->value));
				return true;
			}
			break;
		case 'T':
			if (contact_vcard_is(name, "TEL"))
				return take_element(m, prop, CF_PHONES);
			if (contact_vcard_is(name, "TITLE"))
				return add_scalar(m, CF_TITLE, contact_vcard_text(prop->value));
			break;
		case 'U':
			if (contact_vcard_is(name, "URL"))
				return take_element(m, prop, CF_URLS);
			if (contact_vcard_is(name, "UID"))
			{
				if (m->reader->uid.len == 0)
					m->reader->uid = contact_vcard_text(prop->value);
				return true;
			}
			break;
		case 'V':
			return contact_vcard_is(name, "VERSION");
		case 'X':
			if (contact_vcard_is(name, "X-ADDRESSBOOKSERVER-KIND"))
				take_kind(m, prop);
			break;
	}
	return false;
}

/* ---- names ---- */

static bool
is_display_fallback(const VcardMap *m, StrView text)
{
	for (int i = 0; i < m->nitems; i++)
	{
		const ContactItem *item = &m->items[i];

		if ((item->field == CF_COMPANY || item->field == CF_NICKNAME ||
			 item->field == CF_EMAILS || item->field == CF_PHONES) && strview_same(item->value, text))
			return true;
	}
	return false;
}

/*
 * FN: the names, where N has none, but not where it only shows the company or
 * an address for lack of a name; else metadata, where it is not just N's parts.
 */
static void
map_formatted(VcardMap *m)
{
	StrView		text = m->formatted;
	StrView		parts[5];
	int			i = text.len;

	if (text.len == 0)
		return;
	if (m->has_name)
	{
		parts[0] = scalar(m, CF_PREFIX);
		parts[1] = scalar(m, CF_FIRST_NAME);
		parts[2] = scalar(m, CF_MIDDLE_NAME);
		parts[3] = scalar(m, CF_LAST_NAME);
		parts[4] = scalar(m, CF_SUFFIX);
		if (!strview_same(contact_vcard_join(parts, 5, " "), text))
			contact_vcard_add_metadata(m, strview_of("formatted_name"), text);
		return;
	}
	if (is_display_fallback(m, text))
		return;
	while (i > 0 && text.ptr[i - 1] != ' ')
		i--;
	if (i == 0)
		(void) add_scalar(m, CF_FIRST_NAME, text);
	else
	{
		(void) add_scalar(m, CF_FIRST_NAME, strview(text.ptr, i));
		(void) add_scalar(m, CF_LAST_NAME, strview(text.ptr + i, text.len - i));
	}
}

bool
contact_vcard_next(VcardReader *r, ContactValue *v)
{
	VcardMap		   *m;

	memset(v, 0, sizeof(*v));
	m = palloc0(sizeof(VcardMap));
	m->reader = r;
	if (!contact_vcard_read(r, &m->props, &m->nprops))
		return false;
	for (int i = 0; i < m->nprops; i++)
		m->rest[i] = !take_property(m, &m->props[i]);
	map_formatted(m);
	contact_vcard_map_rest(m);
	if (r->keep_uid)
		contact_vcard_add_metadata(m, strview_of("uid"), r->uid);
	v->items = m->items;
	v->nitems = m->nitems;
	contact_sort(v);
	return true;
}

