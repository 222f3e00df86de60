/*
 * contact_vcard_write.c
 *		A contact as a vCard of version 3.0 or 4.0.
 *
 * The inverse of contact_vcard_map.c: what was read from a card, written here
 * and read again is equal, in both versions, as long as the reader's caps are
 * not met.  Of other contacts vCard has no place for "verified", for types of
 * tags and scalars, and for JSON in metadata that is not a string, which is
 * written as its text; of metadata's keys those of [a-z0-9_] come back.
 *
 * Version 3.0 has no date without a year (written with the year 1604 and
 * X-APPLE-OMIT-YEAR, as Apple does), no data: URI for pictures (ENCODING=b
 * instead), no PREF (TYPE=pref), and does not know the properties that came
 * with 4.0, such as KIND and GENDER: they are written in it by their names
 * nevertheless.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/fmgrprotos.h"
#include "utils/formatting.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "contact/contact_vcard.h"

#define FOLD_OCTETS			75
#define TAGS_PER_LINE		2000	/* octets after which a new line begins */

typedef struct Writer
{
	StringInfo	out;
	StringInfoData line;		/* the line at work, not folded */
	const ContactValue *v;
	int			version;
	int			group;			/* last number of item<n> in use */
	JsonbContainer *bag;		/* metadata.vcard, or NULL */
} Writer;

/* Properties without a field that are named without X-. */
static const struct
{
	const char *name;
	VcardEscape how;
}			known[] =
{
	{"AGENT", VCARD_TEXT},
	{"ANNIVERSARY", VCARD_TEXT},
	{"BIRTHPLACE", VCARD_TEXT},
	{"CALADRURI", VCARD_RAW},
	{"CALURI", VCARD_RAW},
	{"CLASS", VCARD_TEXT},
	{"CLIENTPIDMAP", VCARD_RAW},
	{"CONTACT-URI", VCARD_RAW},
	{"CREATED", VCARD_TEXT},
	{"DEATHDATE", VCARD_TEXT},
	{"DEATHPLACE", VCARD_TEXT},
	{"EXPERTISE", VCARD_TEXT},
	{"FBURL", VCARD_RAW},
	{"GENDER", VCARD_RAW},
	{"GEO", VCARD_RAW},
	{"GRAMGENDER", VCARD_TEXT},
	{"HOBBY", VCARD_TEXT},
	{"IMPP", VCARD_RAW},
	{"INTEREST", VCARD_TEXT},
	{"JSPROP", VCARD_TEXT},
	{"KEY", VCARD_RAW},
	{"KIND", VCARD_TEXT},
	{"LABEL", VCARD_TEXT},
	{"LANG", VCARD_TEXT},
	{"LANGUAGE", VCARD_TEXT},
	{"LOGO", VCARD_RAW},
	{"MAILER", VCARD_TEXT},
	{"MEMBER", VCARD_RAW},
	{"NAME", VCARD_TEXT},
	{"ORG-DIRECTORY", VCARD_RAW},
	{"PROFILE", VCARD_TEXT},
	{"PRONOUNS", VCARD_TEXT},
	{"RELATED", VCARD_RAW},
	{"ROLE", VCARD_TEXT},
	{"SOCIALPROFILE", VCARD_RAW},
	{"SORT-STRING", VCARD_TEXT},
	{"SOUND", VCARD_RAW},
	{"SOURCE", VCARD_RAW},
	{"TZ", VCARD_RAW},
	{"XML", VCARD_TEXT},
};

StrView
contact_vcard_property_of(StrView key, VcardEscape *how)
{
	char	   *buf = palloc(key.len + 3);
	char	   *name = buf + 2;

	for (int i = 0; i < key.len; i++)
	{
		unsigned char c = key.ptr[i];

		/* anything that a property's name cannot have is a hyphen */
		name[i] = c < 0x80 && isalnum(c) ? pg_ascii_toupper(c) : '-';
	}
	*how = VCARD_TEXT;
	for (int i = 0; i < lengthof(known); i++)
	{
		if (key.len == strlen(known[i].name) && memcmp(name, known[i].name, key.len) == 0)
		{
			*how = known[i].how;
			return strview(name, key.len);
		}
	}
	memcpy(buf, "X-", 2);
	return strview(buf, key.len + 2);
}

void
contact_vcard_escape(StringInfo buf, StrView s, VcardEscape how)
{
	for (int i = 0; i < s.len; i++)
	{
		char		c = s.ptr[i];
		char		next = i + 1 < s.len ? s.ptr[i + 1] : '\0';

		if (c == '\r' && next == '\n')
			continue;
		if (c == '\n' || c == '\r')
		{
			appendBinaryStringInfo(buf, "\\n", 2);
			continue;
		}
		if (c == '\\' || (c == ';' && how != VCARD_RAW) ||
			(c == ',' && (how == VCARD_TEXT || (how == VCARD_LIST && (next == ' ' || next == '\0')))))
			appendStringInfoCharMacro(buf, '\\');
		appendStringInfoCharMacro(buf, c);
	}
}

/* ---- lines ---- */

static void
begin_line(Writer *w, const char *name)
{
	resetStringInfo(&w->line);
	appendStringInfoString(&w->line, name);
}

/* Write the line out, folded between characters. */
static void
end_line(Writer *w)
{
	int			width = 0;

	for (int i = 0; i < w->line.len;)
	{
		int			n = Min(pg_mblen(w->line.data + i), w->line.len - i);

		if (width + n > FOLD_OCTETS)
		{
			appendBinaryStringInfo(w->out, "\r\n ", 3);
			width = 1;
		}
		appendBinaryStringInfo(w->out, w->line.data + i, n);
		width += n;
		i += n;
	}
	appendBinaryStringInfo(w->out, "\r\n", 2);
}

static void
put_value(Writer *w, StrView s, VcardEscape how)
{
	appendStringInfoChar(&w->line, ':');
	contact_vcard_escape(&w->line, s, how);
	end_line(w);
}

/* A parameter's value: RFC 6868, and quoted where it has to be. */
static void
put_param_value(Writer *w, StrView s)
{
	bool		quote = false;

	for (int i = 0; i < s.len; i++)
		quote |= s.ptr[i] == ':' || s.ptr[i] == ';' || s.ptr[i] == ',';
	if (quote)
		appendStringInfoChar(&w->line, '"');
	for (int i = 0; i < s.len; i++)
	{
		switch (s.ptr[i])
		{
			case '^':
				appendBinaryStringInfo(&w->line, "^^", 2);
				break;
			case '"':
				appendBinaryStringInfo(&w->line, "^'", 2);
				break;
			case '\r':
				break;
			case '\n':
				appendBinaryStringInfo(&w->line, "^n", 2);
				break;
			default:
				appendStringInfoCharMacro(&w->line, s.ptr[i]);
		}
	}
	if (quote)
		appendStringInfoChar(&w->line, '"');
}

/* ---- scalars ---- */

/* The item of a field, or of a key of metadata; NULL if there is none. */
static const ContactItem *
find(const Writer *w, ContactField field, const char *key)
{
	int			at = contact_find(w->v, field, strview(key, key ? strlen(key) : 0));

	return at < 0 || (w->v->items[at].flags & CI_TOMBSTONE) ? NULL : &w->v->items[at];
}

static StrView
scalar(const Writer *w, ContactField field)
{
	const ContactItem *item = find(w, field, NULL);

	return item ? item->value : strview(NULL, 0);
}

/* metadata's value as text: a string's own, any other's JSON. */
static StrView
metadata_text(const ContactItem *item)
{
	char	   *json = pnstrdup(item->value.ptr, item->value.len);
	Jsonb	   *jb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json)));
	JsonbValue	v;

	if (JB_ROOT_IS_SCALAR(jb) && JsonbExtractScalar(&jb->root, &v) && v.type == jbvString)
		return strview(v.val.string.val, v.val.string.len);
	return item->value;
}

static StrView
metadata(const Writer *w, const char *key)
{
	const ContactItem *item = find(w, CF_METADATA, key);

	return item ? metadata_text(item) : strview(NULL, 0);
}

static void
put_scalar(Writer *w, const char *name, StrView s, VcardEscape how)
{
	if (s.len > 0)
	{
		begin_line(w, name);
		put_value(w, s, how);
	}
}

/* The first live value of a list. */
static StrView
first_of(const Writer *w, ContactField field)
{
	for (int i = 0; i < w->v->nitems; i++)
		if (w->v->items[i].field == field && !(w->v->items[i].flags & CI_TOMBSTONE))
			return w->v->items[i].value;
	return strview(NULL, 0);
}

/*
 * N, and FN, which must be there: as it was said, else the names, else what
 * shows who this is.  The reader knows the latter from a name.
 */
static void
put_names(Writer *w)
{
	static const ContactField shown[] = {CF_PREFIX, CF_FIRST_NAME, CF_MIDDLE_NAME, CF_LAST_NAME, CF_SUFFIX};
	static const ContactField stored[] = {CF_LAST_NAME, CF_FIRST_NAME, CF_MIDDLE_NAME, CF_PREFIX, CF_SUFFIX};
	static const ContactField instead[] = {CF_COMPANY, CF_NICKNAME, CF_EMAILS, CF_PHONES};
	StrView		text = metadata(w, "formatted_name");
	StringInfoData joined;

	initStringInfo(&joined);
	for (int i = 0; i < lengthof(shown) && text.len == 0; i++)
	{
		StrView		part = scalar(w, shown[i]);

		if (part.len > 0)
			appendStringInfo(&joined, "%s%.*s", joined.len > 0 ? " " : "", part.len, part.ptr);
	}
	if (text.len == 0)
		text = strview(joined.data, joined.len);
	for (int i = 0; i < lengthof(instead) && text.len == 0; i++)
		text = first_of(w, instead[i]);
	begin_line(w, "FN");
	put_value(w, text, VCARD_TEXT);

	begin_line(w, "N:");
	for (int i = 0; i < lengthof(stored); i++)
	{
		if (i > 0)
			appendStringInfoChar(&w->line, ';');
		contact_vcard_escape(&w->line, scalar(w, stored[i]), VCARD_LIST);
	}
	end_line(w);
}

static void
put_org(Writer *w)
{
	StrView		company = scalar(w, CF_COMPANY);
	StrView		department = scalar(w, CF_DEPARTMENT);

	if (company.len == 0 && department.len == 0)
		return;
	begin_line(w, "ORG:");
	contact_vcard_escape(&w->line, company, VCARD_TEXT);
	if (department.len > 0)
	{
		appendStringInfoChar(&w->line, ';');
		contact_vcard_escape(&w->line, department, VCARD_TEXT);
	}
	end_line(w);
}

/* Is s a date of this shape, that ends in MM-DD?  0 is a digit. */
static bool
is_date(StrView s, const char *shape)
{
	int			month;
	int			day;

	if (s.len != strlen(shape))
		return false;
	for (int i = 0; i < s.len; i++)
		if (shape[i] == '0' ? !isdigit((unsigned char) s.ptr[i]) : s.ptr[i] != shape[i])
			return false;
	month = (s.ptr[s.len - 5] - '0') * 10 + s.ptr[s.len - 4] - '0';
	day = (s.ptr[s.len - 2] - '0') * 10 + s.ptr[s.len - 1] - '0';
	return month >= 1 && month <= 12 && day >= 1 && day <= 31;
}

static void
put_birthday(Writer *w)
{
	StrView		s = scalar(w, CF_BIRTHDAY);

	if (s.len == 0)
		return;
	if (is_date(s, "0000-00-00"))
	{
		begin_line(w, "BDAY:");
		if (w->version == 40)
			appendStringInfo(&w->line, "%.4s%.2s%.2s", s.ptr, s.ptr + 5, s.ptr + 8);
		else
			appendBinaryStringInfo(&w->line, s.ptr, s.len);
	}
	else if (is_date(s, "--00-00"))
	{
		begin_line(w, w->version == 40 ? "BDAY:--" : "BDAY;X-APPLE-OMIT-YEAR=1604:1604-");
		appendStringInfo(&w->line, w->version == 40 ? "%.2s%.2s" : "%.2s-%.2s", s.ptr + 2, s.ptr + 5);
	}
	else
	{
		begin_line(w, "BDAY;VALUE=text:");
		contact_vcard_escape(&w->line, s, VCARD_TEXT);
	}
	end_line(w);
}

/* "data:image/<type>;base64,<data>" as the reader makes it of ENCODING=b. */
static bool
put_inline_photo(Writer *w, StrView s)
{
	static const char prefix[] = "data:image/";
	static const char marker[] = ";base64,";
	int			type = strlen(prefix);
	int			end = type;
	int			data;

	if (s.len <= type || memcmp(s.ptr, prefix, type) != 0)
		return false;
	while (end < s.len && (isdigit((unsigned char) s.ptr[end]) ||
						   (s.ptr[end] >= 'a' && s.ptr[end] <= 'z') || s.ptr[end] == '+' || s.ptr[end] == '-'))
		end++;
	data = end + strlen(marker);
	if (end == type || s.len <= data || memcmp(s.ptr + end, marker, strlen(marker)) != 0 ||
		(s.len - data) % 4 != 0)
		return false;
	for (int i = data; i < s.len; i++)
	{
		char		c = s.ptr[i];

		if (!(((unsigned char) c < 0x80 && isalnum((unsigned char) c)) || c == '+' || c == '/' ||
			  (c == '=' && (i == s.len - 1 || (i == s.len - 2 && s.ptr[s.len - 1] == '=')))))
			return false;
	}
	begin_line(w, "PHOTO;ENCODING=b;TYPE=");
	appendStringInfoString(&w->line, asc_toupper(s.ptr + type, end - type));
	put_value(w, strview(s.ptr + data, s.len - data), VCARD_RAW);
	return true;
}

static void
put_photo(Writer *w)
{
	StrView		s = scalar(w, CF_PHOTO);

	if (s.len == 0 || (w->version == 30 && put_inline_photo(w, s)))
		return;
	begin_line(w, w->version == 30 ? "PHOTO;VALUE=uri" : "PHOTO");
	put_value(w, s, VCARD_RAW);
}

/* ---- lists ---- */

/*
 * Put a type as TYPE words, if the reader makes the same type of them; *words
 * is where they go.  False if it takes a label to say it.
 */
static bool
type_as_words(const ContactItem *item, StringInfo words)
{
	StrView		word[8];
	int			n = 0;
	int			start = 0;

	for (int i = 0; i <= item->type.len; i++)
	{
		if (i < item->type.len && item->type.ptr[i] != ' ')
		{
			unsigned char c = item->type.ptr[i];

			if (c >= 0x80 || (!isalnum(c) && c != '-'))
				return false;
			continue;
		}
		if (n == lengthof(word))
			return false;
		word[n] = strview(item->type.ptr + start, i - start);
		start = i + 1;
		if (item->field == CF_PHONES && contact_vcard_is(word[n], "mobile"))
			word[n] = strview("cell", 4);
		appendStringInfo(words, "%s%.*s", n > 0 ? "," : "", word[n].len, word[n].ptr);
		n++;
	}
	return strview_same(contact_vcard_type(item->field == CF_PHONES, word, n), item->type);
}

/*
 * Begin the line of an element: its name, with a group if a label follows, its
 * type, and that it is the preferred one.  True if the label has to follow.
 */
static bool
begin_element(Writer *w, const char *name, const ContactItem *item)
{
	StringInfoData words;
	bool		label = false;
	bool		primary = (item->flags & CI_PRIMARY) != 0;

	initStringInfo(&words);
	if (item->type.len > 0 && !type_as_words(item, &words))
	{
		label = true;
		resetStringInfo(&words);
	}
	resetStringInfo(&w->line);
	if (label)
		appendStringInfo(&w->line, "item%d.", ++w->group);
	appendStringInfoString(&w->line, name);
	if (primary && w->version == 30)
		appendStringInfo(&words, "%spref", words.len > 0 ? "," : "");
	if (words.len > 0)
		appendStringInfo(&w->line, ";TYPE=%s", words.data);
	if (primary && w->version == 40)
		appendStringInfoString(&w->line, ";PREF=1");
	pfree(words.data);
	return label;
}

static void
put_label(Writer *w, const ContactItem *item)
{
	resetStringInfo(&w->line);
	appendStringInfo(&w->line, "item%d.X-ABLABEL", w->group);
	put_value(w, item->type, VCARD_TEXT);
}

/* Is the extension what the number itself says, in words that stay with it? */
static bool
extension_is_spelled(const ContactItem *item)
{
	ContactItem probe = *item;

	for (int i = 0; i + 5 < item->value.len; i++)
		if (item->value.ptr[i] == ';' && pg_strncasecmp(item->value.ptr + i, ";ext=", 5) == 0)
			return false;
	probe.extension = strview(NULL, 0);
	return contact_item_normalize(&probe) && strview_same(probe.extension, item->extension);
}

static void
put_phone(Writer *w, const ContactItem *item)
{
	bool		uri = w->version == 40;

	if (item->extension.len == 0 || extension_is_spelled(item))
	{
		put_value(w, item->value, VCARD_TEXT);
		return;
	}
	for (int i = 0; i < item->value.len; i++)
		uri &= strchr("+-.()0123456789", item->value.ptr[i]) != NULL;
	for (int i = 0; i < item->extension.len; i++)
		uri &= isdigit((unsigned char) item->extension.ptr[i]) != 0;
	appendStringInfoString(&w->line, uri ? ";VALUE=uri:tel:" : ":");
	contact_vcard_escape(&w->line, item->value, VCARD_TEXT);
	appendStringInfoString(&w->line, ";ext=");
	contact_vcard_escape(&w->line, item->extension, VCARD_TEXT);
	end_line(w);
}

static void
put_address(Writer *w, const ContactItem *item)
{
	appendStringInfoString(&w->line, ":;");
	for (int i = 0; i < CA_COUNT; i++)
	{
		appendStringInfoChar(&w->line, ';');
		contact_vcard_escape(&w->line, item->part[i], VCARD_TEXT);
	}
	end_line(w);
}

static void
put_elements(Writer *w)
{
	for (int i = 0; i < w->v->nitems; i++)
	{
		const ContactItem *item = &w->v->items[i];
		bool		label;

		if ((item->flags & CI_TOMBSTONE) || item->field < CF_EMAILS || item->field > CF_URLS)
			continue;
		label = begin_element(w, item->field == CF_EMAILS ? "EMAIL" :
							  item->field == CF_PHONES ? "TEL" :
							  item->field == CF_ADDRESSES ? "ADR" : "URL", item);
		if (item->field == CF_PHONES)
			put_phone(w, item);
		else if (item->field == CF_ADDRESSES)
			put_address(w, item);
		else
			put_value(w, item->value, item->field == CF_URLS ? VCARD_RAW : VCARD_TEXT);
		if (label)
			put_label(w, item);
	}
}

static void
put_tags(Writer *w)
{
	bool		open = false;

	for (int i = 0; i < w->v->nitems; i++)
	{
		const ContactItem *item = &w->v->items[i];

		if (item->field != CF_TAGS || (item->flags & CI_TOMBSTONE))
			continue;
		if (open && w->line.len > TAGS_PER_LINE)
		{
			end_line(w);
			open = false;
		}
		if (open)
			appendStringInfoChar(&w->line, ',');
		else
			begin_line(w, "CATEGORIES:");
		open = true;
		contact_vcard_escape(&w->line, item->value, VCARD_TEXT);
	}
	if (open)
		end_line(w);
}

/* ---- metadata ---- */

static void
put_metadata(Writer *w)
{
	for (int i = 0; i < w->v->nitems; i++)
	{
		const ContactItem *item = &w->v->items[i];
		VcardEscape how;
		StrView		name;

		if (item->field != CF_METADATA || (item->flags & CI_TOMBSTONE) || item->key.len == 0 ||
			contact_vcard_is(item->key, "vcard") || contact_vcard_is(item->key, "uid") ||
			contact_vcard_is(item->key, "formatted_name"))
			continue;
		name = contact_vcard_property_of(item->key, &how);
		if (name.len > VCARD_MAX_NAME)
			continue;
		resetStringInfo(&w->line);
		appendBinaryStringInfo(&w->line, name.ptr, name.len);
		put_value(w, metadata_text(item), how);
	}
}

/* metadata.vcard, if it is an array. */
static void
find_bag(Writer *w)
{
	const ContactItem *item = find(w, CF_METADATA, "vcard");
	char	   *json;
	Jsonb	   *jb;

	if (item == NULL)
		return;
	json = pnstrdup(item->value.ptr, item->value.len);
	jb = DatumGetJsonbP(DirectFunctionCall1(jsonb_in, CStringGetDatum(json)));
	if (JB_ROOT_IS_ARRAY(jb) && !JB_ROOT_IS_SCALAR(jb))
		w->bag = &jb->root;
}

static StrView
string_of(const JsonbValue *v)
{
	return v && v->type == jbvString ? strview(v->val.string.val, v->val.string.len) : strview(NULL, 0);
}

/* One parameter; "group" has its own place, and text is never encoded. */
static void
put_param(Writer *w, StrView name, const JsonbValue *v)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	element;
	bool		first = true;

	if (!contact_vcard_is_name(name) || contact_vcard_is(name, "group") ||
		contact_vcard_is(name, "charset") ||
		(contact_vcard_is(name, "encoding") && !contact_vcard_is(string_of(v), "b")))
		return;
	if (v->type != jbvString && !(v->type == jbvBinary && JsonContainerIsArray(v->val.binary.data)))
		return;
	appendStringInfo(&w->line, ";%s=", asc_toupper(name.ptr, name.len));
	if (v->type == jbvString)
	{
		put_param_value(w, string_of(v));
		return;
	}
	it = JsonbIteratorInit(v->val.binary.data);
	while ((token = JsonbIteratorNext(&it, &element, true)) != WJB_DONE)
	{
		if (token != WJB_ELEM || element.type != jbvString)
			continue;
		if (!first)
			appendStringInfoChar(&w->line, ',');
		first = false;
		put_param_value(w, string_of(&element));
	}
}

static void
put_params(Writer *w, JsonbContainer *params)
{
	JsonbIterator *it = JsonbIteratorInit(params);
	JsonbIteratorToken token;
	JsonbValue	name;
	JsonbValue	v;

	while ((token = JsonbIteratorNext(&it, &name, true)) != WJB_DONE)
	{
		if (token != WJB_KEY)
			continue;
		(void) JsonbIteratorNext(&it, &v, true);
		put_param(w, string_of(&name), &v);
	}
}

/* The group that an element of the bag has; absent if it has none. */
static StrView
group_of(const JsonbValue *params)
{
	JsonbValue	key;
	StrView		group;

	if (params == NULL || params->type != jbvBinary || !JsonContainerIsObject(params->val.binary.data))
		return strview(NULL, 0);
	key.type = jbvString;
	key.val.string.val = "group";
	key.val.string.len = strlen("group");
	group = string_of(findJsonbValueFromContainer(params->val.binary.data, JB_FOBJECT, &key));
	return contact_vcard_is_name(group) ? group : strview(NULL, 0);
}

/* What the writer itself says, or what would end the card. */
static bool
is_structural(StrView name)
{
	static const char *const names[] = {"BEGIN", "END", "VERSION", "PRODID", "REV", "UID"};

	for (int i = 0; i < lengthof(names); i++)
		if (contact_vcard_is(name, names[i]))
			return true;
	return false;
}

/* An element of the bag as a line; nothing if it is not of the form. */
static void
put_bag_element(Writer *w, JsonbContainer *element)
{
	JsonbValue *member[4];
	StrView		name;
	StrView		group;
	StrView		type;

	for (int i = 0; i < 4; i++)
		member[i] = getIthJsonbValueFromContainer(element, i);
	name = string_of(member[0]);
	type = string_of(member[2]);
	if (!contact_vcard_is_name(name) || is_structural(name) ||
		member[3] == NULL || member[3]->type != jbvString)
		return;
	group = group_of(member[1]);
	resetStringInfo(&w->line);
	if (group.len > 0)
		appendStringInfo(&w->line, "%.*s.", group.len, group.ptr);
	appendStringInfoString(&w->line, asc_toupper(name.ptr, name.len));
	if (member[1] && member[1]->type == jbvBinary && JsonContainerIsObject(member[1]->val.binary.data))
		put_params(w, member[1]->val.binary.data);
	if (contact_vcard_is(type, "unknown"))
	{
		StrView		raw = string_of(member[3]);

		appendStringInfoChar(&w->line, ':');
		for (int i = 0; i < raw.len; i++)
			if (raw.ptr[i] != '\r' && raw.ptr[i] != '\n')
				appendStringInfoCharMacro(&w->line, raw.ptr[i]);
		end_line(w);
	}
	else
		put_value(w, string_of(member[3]), VCARD_TEXT);
}

/*
 * Go over the bag: to write it, or before that to find what groups it has, so
 * that labels do not get into one of them.
 */
static void
walk_bag(Writer *w, bool write)
{
	JsonbIterator *it;
	JsonbIteratorToken token;
	JsonbValue	v;

	if (w->bag == NULL)
		return;
	it = JsonbIteratorInit(w->bag);
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		StrView		group;

		if (token != WJB_ELEM || v.type != jbvBinary || !JsonContainerIsArray(v.val.binary.data))
			continue;
		if (write)
		{
			put_bag_element(w, v.val.binary.data);
			continue;
		}
		group = group_of(getIthJsonbValueFromContainer(v.val.binary.data, 1));
		if (group.len > 4 && group.len <= 10 && pg_strncasecmp(group.ptr, "item", 4) == 0)
			w->group = Max(w->group, atoi(pnstrdup(group.ptr + 4, group.len - 4)));
	}
}

void
contact_to_vcard(StringInfo buf, const ContactValue *v, int version)
{
	Writer		w = {0};

	w.out = buf;
	w.v = v;
	w.version = version;
	initStringInfo(&w.line);
	find_bag(&w);
	walk_bag(&w, false);

	appendStringInfo(buf, "BEGIN:VCARD\r\nVERSION:%s\r\n", version == 40 ? "4.0" : "3.0");
	put_scalar(&w, "UID", metadata(&w, "uid"), VCARD_TEXT);
	put_names(&w);
	put_scalar(&w, "NICKNAME", scalar(&w, CF_NICKNAME), VCARD_LIST);
	put_org(&w);
	put_scalar(&w, "TITLE", scalar(&w, CF_TITLE), VCARD_TEXT);
	put_birthday(&w);
	put_scalar(&w, "NOTE", scalar(&w, CF_NOTE), VCARD_TEXT);
	put_photo(&w);
	put_elements(&w);
	put_tags(&w);
	put_metadata(&w);
	walk_bag(&w, true);
	appendStringInfoString(buf, "END:VCARD\r\n");
	pfree(w.line.data);
}
