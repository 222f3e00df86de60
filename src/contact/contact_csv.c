/*
 * contact_csv.c
 *		A line of an address book exported as CSV, as a contact.
 *
 * What a column means is read off its name, case aside: those of Google (the
 * old form and that of 2024), Outlook (desktop in English and German, and web)
 * and Thunderbird, and plain ones.  Where one name means two things, the other
 * columns decide: Outlook's "Title" is a prefix, but only beside "Job Title".
 * A value that has no field, or whose field has one already, becomes metadata
 * under its column's name; what merely repeats other columns, and the defaults
 * that Outlook writes into every line, are dropped.
 */
#include "postgres.h"

#include "mb/pg_wchar.h"
#include "utils/jsonb.h"

#include "compat.h"
#include "contact/contact_csv.h"
#include "contact/contact_vcard.h"

#define CSV_MAX_GROUPS		64

/* groups of columns that belong together but have no number */
#define GROUP_HOME			61
#define GROUP_WORK			62
#define GROUP_OTHER			63

/* Parts of an address, in the order in which a street is put together. */
enum
{
	PART_POBOX, PART_EXTENDED, PART_STREET, PART_STREET2, PART_STREET3,
	PART_CITY, PART_REGION, PART_POSTAL_CODE, PART_COUNTRY, PART_FULL,
	PART_COUNT
};

typedef struct CsvName
{
	const char *name;			/* folded */
	uint8		what;			/* CSV_* */
	uint8		sub;
	int8		group;
	const char *type;
} CsvName;

static const CsvName csv_names[] = {
	/* names */
	{"first name", CSV_SCALAR, CF_FIRST_NAME, 0, NULL}, {"given name", CSV_SCALAR, CF_FIRST_NAME, 0, NULL},
	{"firstname", CSV_SCALAR, CF_FIRST_NAME, 0, NULL}, {"first_name", CSV_SCALAR, CF_FIRST_NAME, 0, NULL},
	{"vorname", CSV_SCALAR, CF_FIRST_NAME, 0, NULL},
	{"middle name", CSV_SCALAR, CF_MIDDLE_NAME, 0, NULL}, {"additional name", CSV_SCALAR, CF_MIDDLE_NAME, 0, NULL},
	{"middle_name", CSV_SCALAR, CF_MIDDLE_NAME, 0, NULL}, {"weitere vornamen", CSV_SCALAR, CF_MIDDLE_NAME, 0, NULL},
	{"last name", CSV_SCALAR, CF_LAST_NAME, 0, NULL}, {"family name", CSV_SCALAR, CF_LAST_NAME, 0, NULL},
	{"lastname", CSV_SCALAR, CF_LAST_NAME, 0, NULL}, {"last_name", CSV_SCALAR, CF_LAST_NAME, 0, NULL},
	{"surname", CSV_SCALAR, CF_LAST_NAME, 0, NULL}, {"nachname", CSV_SCALAR, CF_LAST_NAME, 0, NULL},
	{"name prefix", CSV_SCALAR, CF_PREFIX, 0, NULL}, {"anrede", CSV_SCALAR, CF_PREFIX, 0, NULL},
	{"prefix", CSV_SCALAR, CF_PREFIX, 0, NULL},
	{"name suffix", CSV_SCALAR, CF_SUFFIX, 0, NULL}, {"suffix", CSV_SCALAR, CF_SUFFIX, 0, NULL},
	{"nickname", CSV_SCALAR, CF_NICKNAME, 0, NULL}, {"spitzname", CSV_SCALAR, CF_NICKNAME, 0, NULL},
	{"name", CSV_NAME, 0, 0, NULL}, {"full name", CSV_NAME, 0, 0, NULL},
	{"display name", CSV_NAME, 0, 0, NULL},
	{"title", CSV_SCALAR, CF_TITLE, 0, NULL},

	/* work */
	{"company", CSV_SCALAR, CF_COMPANY, 0, NULL}, {"organization", CSV_SCALAR, CF_COMPANY, 0, NULL},
	{"organisation", CSV_SCALAR, CF_COMPANY, 0, NULL}, {"organization name", CSV_SCALAR, CF_COMPANY, 0, NULL},
	{"organization 1 - name", CSV_SCALAR, CF_COMPANY, 0, NULL}, {"firma", CSV_SCALAR, CF_COMPANY, 0, NULL},
	{"department", CSV_SCALAR, CF_DEPARTMENT, 0, NULL}, {"organization department", CSV_SCALAR, CF_DEPARTMENT, 0, NULL},
	{"organization 1 - department", CSV_SCALAR, CF_DEPARTMENT, 0, NULL}, {"abteilung", CSV_SCALAR, CF_DEPARTMENT, 0, NULL},
	{"job title", CSV_SCALAR, CF_TITLE, 0, NULL}, {"organization title", CSV_SCALAR, CF_TITLE, 0, NULL},
	{"organization 1 - title", CSV_SCALAR, CF_TITLE, 0, NULL}, {"position", CSV_SCALAR, CF_TITLE, 0, NULL},

	{"birthday", CSV_SCALAR, CF_BIRTHDAY, 0, NULL}, {"date of birth", CSV_SCALAR, CF_BIRTHDAY, 0, NULL},
	{"geburtstag", CSV_SCALAR, CF_BIRTHDAY, 0, NULL},
	{"birth year", CSV_BIRTH, 0, 0, NULL}, {"birth month", CSV_BIRTH, 1, 0, NULL},
	{"birth day", CSV_BIRTH, 2, 0, NULL},
	{"notes", CSV_SCALAR, CF_NOTE, 0, NULL}, {"note", CSV_SCALAR, CF_NOTE, 0, NULL},
	{"notizen", CSV_SCALAR, CF_NOTE, 0, NULL},
	{"photo", CSV_SCALAR, CF_PHOTO, 0, NULL},
	{"group membership", CSV_TAGS, 0, 0, NULL}, {"labels", CSV_TAGS, 0, 0, NULL},
	{"categories", CSV_TAGS, 0, 0, NULL},
	{"tags", CSV_TAGS, 0, 0, NULL}, {"kategorien", CSV_TAGS, 0, 0, NULL},

	/* mail */
	{"e-mail address", CSV_EMAIL, 0, 0, NULL}, {"e-mail 2 address", CSV_EMAIL, 0, 0, NULL},
	{"e-mail 3 address", CSV_EMAIL, 0, 0, NULL},
	{"email address", CSV_EMAIL, 0, 0, NULL}, {"email", CSV_EMAIL, 0, 0, NULL},
	{"e-mail", CSV_EMAIL, 0, 0, NULL},
	{"e-mail-adresse", CSV_EMAIL, 0, 0, NULL}, {"e-mail 2: adresse", CSV_EMAIL, 0, 0, NULL},
	{"e-mail 3: adresse", CSV_EMAIL, 0, 0, NULL},
	{"primary email", CSV_EMAIL, 1, 0, NULL}, {"secondary email", CSV_EMAIL, 0, 0, NULL},

	/* phones */
	{"phone", CSV_PHONE, 0, 0, NULL}, {"phone number", CSV_PHONE, 0, 0, NULL},
	{"telefon", CSV_PHONE, 0, 0, NULL},
	{"primary phone", CSV_PHONE, 1, 0, NULL}, {"haupttelefon", CSV_PHONE, 1, 0, NULL},
	{"business phone", CSV_PHONE, 0, 0, "work"}, {"business phone 2", CSV_PHONE, 0, 0, "work"},
	{"work phone", CSV_PHONE, 0, 0, "work"},
	{"telefon geschäftlich", CSV_PHONE, 0, 0, "work"}, {"telefon geschäftlich 2", CSV_PHONE, 0, 0, "work"},
	{"telefon (geschäftlich)", CSV_PHONE, 0, 0, "work"}, {"telefon (geschäftlich 2)", CSV_PHONE, 0, 0, "work"},
	{"home phone", CSV_PHONE, 0, 0, "home"}, {"home phone 2", CSV_PHONE, 0, 0, "home"},
	{"telefon privat", CSV_PHONE, 0, 0, "home"}, {"telefon privat 2", CSV_PHONE, 0, 0, "home"},
	{"telefon (privat)", CSV_PHONE, 0, 0, "home"}, {"telefon (privat 2)", CSV_PHONE, 0, 0, "home"},
	{"mobile phone", CSV_PHONE, 0, 0, "mobile"}, {"mobile number", CSV_PHONE, 0, 0, "mobile"},
	{"mobile", CSV_PHONE, 0, 0, "mobile"}, {"mobiltelefon", CSV_PHONE, 0, 0, "mobile"},
	{"mobiltelefon 2", CSV_PHONE, 0, 0, "mobile"},
	{"car phone", CSV_PHONE, 0, 0, "car"}, {"autotelefon", CSV_PHONE, 0, 0, "car"},
	{"other phone", CSV_PHONE, 0, 0, "other"}, {"weiteres telefon", CSV_PHONE, 0, 0, "other"},
	{"company main phone", CSV_PHONE, 0, 0, "main"}, {"telefon firma", CSV_PHONE, 0, 0, "main"},
	{"pager", CSV_PHONE, 0, 0, "pager"}, {"pager number", CSV_PHONE, 0, 0, "pager"},
	{"callback", CSV_PHONE, 0, 0, "callback"}, {"rückmeldung", CSV_PHONE, 0, 0, "callback"},
	{"radio phone", CSV_PHONE, 0, 0, "radio"}, {"funktelefon", CSV_PHONE, 0, 0, "radio"},
	{"isdn", CSV_PHONE, 0, 0, "isdn"}, {"telex", CSV_PHONE, 0, 0, "telex"},
	{"tty/tdd phone", CSV_PHONE, 0, 0, "tty"}, {"telefon für hörbehinderte", CSV_PHONE, 0, 0, "tty"},
	{"assistant's phone", CSV_PHONE, 0, 0, "assistant"}, {"telefon assistent", CSV_PHONE, 0, 0, "assistant"},
	{"business fax", CSV_PHONE, 0, 0, "work fax"}, {"fax geschäftlich", CSV_PHONE, 0, 0, "work fax"},
	{"home fax", CSV_PHONE, 0, 0, "home fax"}, {"fax privat", CSV_PHONE, 0, 0, "home fax"},
	{"other fax", CSV_PHONE, 0, 0, "other fax"}, {"weiteres fax", CSV_PHONE, 0, 0, "other fax"},
	{"fax number", CSV_PHONE, 0, 0, "fax"}, {"fax", CSV_PHONE, 0, 0, "fax"},

	/* addresses; English ones are made up of "business", "home", "other" and a part */
	{"strasse geschäftlich", CSV_ADDRESS, PART_STREET, GROUP_WORK, NULL},
	{"strasse geschäftlich 2", CSV_ADDRESS, PART_STREET2, GROUP_WORK, NULL},
	{"strasse geschäftlich 3", CSV_ADDRESS, PART_STREET3, GROUP_WORK, NULL},
	{"postfach geschäftlich", CSV_ADDRESS, PART_POBOX, GROUP_WORK, NULL},
	{"ort geschäftlich", CSV_ADDRESS, PART_CITY, GROUP_WORK, NULL},
	{"region geschäftlich", CSV_ADDRESS, PART_REGION, GROUP_WORK, NULL},
	{"bundesland/kanton geschäftlich", CSV_ADDRESS, PART_REGION, GROUP_WORK, NULL},
	{"postleitzahl geschäftlich", CSV_ADDRESS, PART_POSTAL_CODE, GROUP_WORK, NULL},
	{"land/region geschäftlich", CSV_ADDRESS, PART_COUNTRY, GROUP_WORK, NULL},
	{"strasse privat", CSV_ADDRESS, PART_STREET, GROUP_HOME, NULL},
	{"strasse privat 2", CSV_ADDRESS, PART_STREET2, GROUP_HOME, NULL},
	{"strasse privat 3", CSV_ADDRESS, PART_STREET3, GROUP_HOME, NULL},
	{"postfach privat", CSV_ADDRESS, PART_POBOX, GROUP_HOME, NULL},
	{"ort privat", CSV_ADDRESS, PART_CITY, GROUP_HOME, NULL},
	{"region privat", CSV_ADDRESS, PART_REGION, GROUP_HOME, NULL},
	{"bundesland/kanton privat", CSV_ADDRESS, PART_REGION, GROUP_HOME, NULL},
	{"postleitzahl privat", CSV_ADDRESS, PART_POSTAL_CODE, GROUP_HOME, NULL},
	{"land/region privat", CSV_ADDRESS, PART_COUNTRY, GROUP_HOME, NULL},
	{"weitere strasse", CSV_ADDRESS, PART_STREET, GROUP_OTHER, NULL},
	{"weitere strasse 2", CSV_ADDRESS, PART_STREET2, GROUP_OTHER, NULL},
	{"weitere strasse 3", CSV_ADDRESS, PART_STREET3, GROUP_OTHER, NULL},
	{"weiteres postfach", CSV_ADDRESS, PART_POBOX, GROUP_OTHER, NULL},
	{"weiterer ort", CSV_ADDRESS, PART_CITY, GROUP_OTHER, NULL},
	{"weitere region", CSV_ADDRESS, PART_REGION, GROUP_OTHER, NULL},
	{"weiteres/r bundesland/kanton", CSV_ADDRESS, PART_REGION, GROUP_OTHER, NULL},
	{"weitere postleitzahl", CSV_ADDRESS, PART_POSTAL_CODE, GROUP_OTHER, NULL},
	{"weiteres/e land/region", CSV_ADDRESS, PART_COUNTRY, GROUP_OTHER, NULL},
	{"weiteres land/region", CSV_ADDRESS, PART_COUNTRY, GROUP_OTHER, NULL},
	{"street", CSV_ADDRESS, PART_STREET, 0, NULL}, {"address", CSV_ADDRESS, PART_FULL, 0, NULL},
	{"city", CSV_ADDRESS, PART_CITY, 0, NULL}, {"state", CSV_ADDRESS, PART_REGION, 0, NULL},
	{"postal code", CSV_ADDRESS, PART_POSTAL_CODE, 0, NULL}, {"zip", CSV_ADDRESS, PART_POSTAL_CODE, 0, NULL},
	{"country", CSV_ADDRESS, PART_COUNTRY, 0, NULL},
	{"strasse", CSV_ADDRESS, PART_STREET, 0, NULL}, {"plz", CSV_ADDRESS, PART_POSTAL_CODE, 0, NULL},

	/* web */
	{"web page", CSV_URL, 0, 0, NULL}, {"webseite", CSV_URL, 0, 0, NULL},
	{"website", CSV_URL, 0, 0, NULL}, {"url", CSV_URL, 0, 0, NULL},
	{"web page 1", CSV_URL, 0, 0, "work"}, {"web page 2", CSV_URL, 0, 0, "home"},
	{"personal web page", CSV_URL, 0, 0, "home"},

	/* what says nothing by default */
	{"priority", CSV_QUIET, 0, 0, NULL}, {"sensitivity", CSV_QUIET, 0, 0, NULL},
	{"private", CSV_QUIET, 0, 0, NULL}, {"gender", CSV_QUIET, 0, 0, NULL},
	{"e-mail type", CSV_QUIET, 0, 0, NULL}, {"e-mail 2 type", CSV_QUIET, 0, 0, NULL},
	{"e-mail 3 type", CSV_QUIET, 0, 0, NULL},
	{"priorität", CSV_QUIET, 0, 0, NULL}, {"vertraulichkeit", CSV_QUIET, 0, 0, NULL},
	{"privat", CSV_QUIET, 0, 0, NULL}, {"geschlecht", CSV_QUIET, 0, 0, NULL},
	{"e-mail-typ", CSV_QUIET, 0, 0, NULL}, {"e-mail 2: typ", CSV_QUIET, 0, 0, NULL},
	{"e-mail 3: typ", CSV_QUIET, 0, 0, NULL},

	/* shown names: repeated elsewhere, as a rule */
	{"file as", CSV_REPEATED, 0, 0, NULL},
	{"e-mail display name", CSV_REPEATED, 0, 0, NULL}, {"e-mail 2 display name", CSV_REPEATED, 0, 0, NULL},
	{"e-mail 3 display name", CSV_REPEATED, 0, 0, NULL}, {"e-mail: angezeigter name", CSV_REPEATED, 0, 0, NULL},
	{"e-mail 2: angezeigter name", CSV_REPEATED, 0, 0, NULL}, {"e-mail 3: angezeigter name", CSV_REPEATED, 0, 0, NULL},
};

/* Parts of "Home Street" and its like, and of "Address 1 - Street". */
static const struct
{
	const char *name;
	uint8		part;
}			address_names[] =
{
	{"street", PART_STREET}, {"street 2", PART_STREET2}, {"street 3", PART_STREET3},
	{"address po box", PART_POBOX}, {"po box", PART_POBOX}, {"extended address", PART_EXTENDED},
	{"city", PART_CITY}, {"state", PART_REGION}, {"region", PART_REGION},
	{"postal code", PART_POSTAL_CODE}, {"zipcode", PART_POSTAL_CODE},
	{"country", PART_COUNTRY}, {"country/region", PART_COUNTRY},
	{"address", PART_FULL}, {"address 2", PART_STREET2}, {"formatted", PART_FULL},
};

/* ---- what the columns are ---- */

/*
 * A column's name to look it up by: in UTF-8, lower case (as far as Latin-1
 * goes), blanks collapsed, without a byte order mark, with ss for sharp s.
 */
static StrView
fold_name(StrView name)
{
	StrView		clean = contact_name_key(name);
	const char *utf8;
	char	   *buf;
	int			len;

	if (clean.len == 0)
		return clean;
	utf8 = pg_server_to_any(clean.ptr, clean.len, PG_UTF8);
	len = utf8 == clean.ptr ? clean.len : strlen(utf8);
	buf = palloc(len);
	for (int i = 0; i < len; i++)
	{
		unsigned char c = utf8[i];
		unsigned char last = i > 0 ? utf8[i - 1] : 0;

		if (last == 0xC3 && c == 0x9F)
			buf[i - 1] = buf[i] = 's';	/* as the Swiss write it */
		else if (last == 0xC3 && c >= 0x80 && c <= 0x9E && c != 0x97)
			buf[i] = c + 0x20;
		else
			buf[i] = c;
	}
	return strview(buf, len);
}

static bool
starts_with(StrView s, const char *prefix, StrView *rest)
{
	int			n = strlen(prefix);

	if (s.len <= n || memcmp(s.ptr, prefix, n) != 0)
		return false;
	*rest = strview(s.ptr + n, s.len - n);
	return true;
}

static bool
set_part(CsvColumn *column, StrView name, int group)
{
	for (int i = 0; i < lengthof(address_names); i++)
	{
		if (strview_same(name, strview_of(address_names[i].name)))
		{
			column->what = CSV_ADDRESS;
			column->sub = address_names[i].part;
			column->group = group;
			return true;
		}
	}
	return false;
}

/* "E-mail 1 - Value" and its like. */
static bool
resolve_numbered(StrView name, CsvColumn *column)
{
	static const struct
	{
		const char *prefix;
		uint8		what;
	}			kinds[] = {
		{"e-mail ", CSV_EMAIL}, {"phone ", CSV_PHONE}, {"website ", CSV_URL}, {"address ", CSV_ADDRESS},
		{"custom field ", CSV_CUSTOM}
	};
	StrView		rest;
	int			kind;
	int			group = 0;
	int			i;

	for (kind = 0; kind < lengthof(kinds); kind++)
		if (starts_with(name, kinds[kind].prefix, &rest))
			break;
	if (kind == lengthof(kinds))
		return false;
	for (i = 0; i < rest.len && i < 2 && isdigit((unsigned char) rest.ptr[i]); i++)
		group = group * 10 + rest.ptr[i] - '0';
	if (group < 1 || group >= GROUP_HOME || !starts_with(strview(rest.ptr + i, rest.len - i), " - ", &rest))
		return false;
	column->what = kinds[kind].what;
	column->group = group;
	if (contact_vcard_is(rest, "type") || contact_vcard_is(rest, "label"))
	{
		column->sub = column->what;
		column->what = CSV_TYPE;
		return true;
	}
	if (column->what == CSV_ADDRESS)
		return set_part(column, rest, group);
	return contact_vcard_is(rest, "value");
}

static void
resolve(StrView name, CsvColumn *column)
{
	StrView		rest;

	if (resolve_numbered(name, column))
		return;
	column->what = CSV_UNKNOWN;
	column->group = 0;
	if ((starts_with(name, "home ", &rest) && set_part(column, rest, GROUP_HOME)) ||
		((starts_with(name, "business ", &rest) || starts_with(name, "work ", &rest)) &&
		 set_part(column, rest, GROUP_WORK)) ||
		(starts_with(name, "other ", &rest) && set_part(column, rest, GROUP_OTHER)))
		return;
	for (int i = 0; i < lengthof(csv_names); i++)
	{
		if (!strview_same(name, strview_of(csv_names[i].name)))
			continue;
		column->what = csv_names[i].what;
		column->sub = csv_names[i].sub;
		column->group = csv_names[i].group;
		column->type = csv_names[i].type;
		return;
	}
}

/* The key that a column has in metadata: "Billing Information" is billing_information. */
static StrView
key_of(StrView name, int number)
{
	char	   *buf = palloc(name.len + 16);
	int			n = 0;

	for (int i = 0; i < name.len; i++)
	{
		unsigned char c = name.ptr[i];

		if (IS_HIGHBIT_SET(c) || vcard_is_alnum(c))
			buf[n++] = c;
		else if (n > 0 && buf[n - 1] != '_')
			buf[n++] = '_';
	}
	while (n > 0 && buf[n - 1] == '_')
		n--;
	if (n == 0)
		n = sprintf(buf, "column_%d", number);
	/* these two have a form of their own */
	if ((n == 5 && memcmp(buf, "vcard", 5) == 0) || (n == 9 && memcmp(buf, "jscontact", 9) == 0))
		n += sprintf(buf + n, "_column");
	return strview(buf, n);
}

static int
column_key_cmp(const void *a, const void *b)
{
	const CsvColumn *x = *(CsvColumn *const *) a;
	const CsvColumn *y = *(CsvColumn *const *) b;
	int			r = strview_cmp(x->key, y->key);

	return r != 0 ? r : (x > y) - (x < y);
}

/* No two columns may have one key. */
static void
separate_keys(CsvColumn *columns, int n)
{
	CsvColumn **order = palloc(sizeof(CsvColumn *) * Max(n, 1));
	StrView		last = {NULL, 0};

	for (int i = 0; i < n; i++)
		order[i] = &columns[i];
	qsort(order, n, sizeof(CsvColumn *), column_key_cmp);
	for (int i = 0; i < n; i++)
	{
		CsvColumn  *column = order[i];

		if (strview_same(column->key, last))
			column->key = strview_of(psprintf("%.*s_column_%d", last.len, last.ptr,
											  (int) (column - columns) + 1));
		else
			last = column->key;
	}
	pfree(order);
}

void
contact_csv_resolve(const StrView *names, int n, CsvColumn *columns)
{
	bool		has_title = false;
	bool		has_last = false;
	bool		has_first = false;
	CsvColumn  *title = NULL;
	CsvColumn  *name = NULL;

	for (int i = 0; i < n; i++)
	{
		StrView		folded = fold_name(names[i]);

		memset(&columns[i], 0, sizeof(CsvColumn));
		resolve(folded, &columns[i]);
		columns[i].key = key_of(contact_name_key(names[i]), i + 1);
		if (contact_vcard_is(folded, "title"))
			title = &columns[i];
		else if (contact_vcard_is(folded, "name"))
			name = &columns[i];
		else if (columns[i].what == CSV_SCALAR)
		{
			has_title |= columns[i].sub == CF_TITLE;
			has_last |= columns[i].sub == CF_LAST_NAME;
			has_first |= contact_vcard_is(folded, "vorname");
		}
	}
	if (title && has_title)
		title->sub = CF_PREFIX;
	if (name && has_first && !has_last)
	{
		name->what = CSV_SCALAR;
		name->sub = CF_LAST_NAME;
	}
	separate_keys(columns, n);
}

/* ---- what a line says ---- */

typedef struct CsvAddress
{
	StrView		part[PART_COUNT];
	const CsvColumn *full;		/* the column of PART_FULL */
	bool		any;
} CsvAddress;

typedef struct CsvLine
{
	const CsvColumn *columns;
	int			n;
	bool		month_first;
	ContactItem *items;
	int			nitems;
	int			maxitems;
	StrView		scalar[CF_EMAILS];
	StrView		type[CSV_KINDS][CSV_MAX_GROUPS];
	CsvAddress	address[CSV_MAX_GROUPS];
	StrView		birth[3];
} CsvLine;

static void
add_item(CsvLine *line, ContactItem *item)
{
	if (!contact_item_normalize(item))
		return;
	if (line->nitems == line->maxitems)
	{
		line->maxitems = line->maxitems ? line->maxitems * 2 : 32;
		line->items = line->items ? repalloc(line->items, sizeof(ContactItem) * line->maxitems)
			: palloc(sizeof(ContactItem) * line->maxitems);
	}
	item->stamp = -1;
	line->items[line->nitems++] = *item;
}

static bool
is_word(StrView s, const char *const *words, int n)
{
	for (int i = 0; i < n; i++)
		if (contact_vcard_is(s, words[i]))
			return true;
	return false;
}

/* "0/0/00": a date that was not given. */
static bool
is_zero_date(StrView s)
{
	int			separators = 0;

	for (int i = 0; i < s.len; i++)
	{
		if (s.ptr[i] == '/' || s.ptr[i] == '.' || s.ptr[i] == '-')
			separators++;
		else if (s.ptr[i] != '0')
			return false;
	}
	return separators == 2 && s.len > 2;
}

static void
add_metadata(CsvLine *line, StrView key, StrView text)
{
	ContactItem item = {0};
	JsonbValue	v;

	if (text.len == 0 || is_zero_date(text))
		return;
	v.type = jbvString;
	v.val.string.val = unconstify(char *, text.ptr);
	v.val.string.len = text.len;
	item.field = CF_METADATA;
	item.key = key;
	item.value = contact_vcard_json(&v);
	add_item(line, &item);
}

static int
read_number(StrView s, int *i)
{
	int			n = 0;
	int			start = *i;

	for (; *i < s.len && *i < start + 4 && isdigit((unsigned char) s.ptr[*i]); (*i)++)
		n = n * 10 + s.ptr[*i] - '0';
	return *i > start ? n : -1;
}

/*
 * A date as ours: ISO 8601, day.month.year, or with slashes in an order that
 * shows, or else is as the caller says; as it is if it is none of these.
 */
static StrView
date_text(StrView s, bool month_first)
{
	StrView		none = {NULL, 0};
	int			i = 0;
	int			a = read_number(s, &i);
	char		separator = i < s.len ? s.ptr[i++] : 0;
	int			b = read_number(s, &i);
	int			year;

	if (a < 0 || b < 0 || (separator != '/' && separator != '.') || i >= s.len || s.ptr[i++] != separator)
		return contact_vcard_date(s, none);
	year = read_number(s, &i);
	if (i != s.len || year < 1000)
		return s;
	if (separator == '/' && b <= 12 && (a > 12 || !month_first))
		;						/* day/month */
	else if (separator == '/')
	{
		int			day = b;

		b = a;
		a = day;
	}
	if (a < 1 || a > 31 || b < 1 || b > 12)
		return s;
	return strview_of(psprintf("%04d-%02d-%02d", year, b, a));
}

/* The first value of a field; a further one is metadata, unless it says the same. */
static void
add_scalar(CsvLine *line, const CsvColumn *column, ContactField field, StrView text)
{
	ContactItem item = {0};

	if (field == CF_BIRTHDAY)
	{
		if (is_zero_date(text))
			return;
		text = date_text(text, line->month_first);
	}
	if (line->scalar[field].len > 0)
	{
		if (!strview_same(line->scalar[field], text))
			add_metadata(line, column->key, text);
		return;
	}
	line->scalar[field] = text;
	item.field = field;
	item.value = text;
	add_item(line, &item);
}

/* The next of values that " ::: " separates; false at the end. */
static bool
next_value(StrView *rest, StrView *value)
{
	while (rest->len > 0)
	{
		int			i = 0;

		while (i + 3 <= rest->len && memcmp(rest->ptr + i, ":::", 3) != 0)
			i++;
		if (i + 3 > rest->len)
			i = rest->len;
		*value = contact_text_clean(strview(rest->ptr, i));
		*rest = i < rest->len ? strview(rest->ptr + i + 3, rest->len - i - 3) : strview(NULL, 0);
		if (value->len > 0)
			return true;
	}
	return false;
}

/* Google marks the preferred of several with "* ". */
static StrView
cut_star(StrView s, bool *star)
{
	*star = s.len > 0 && s.ptr[0] == '*' && (s.len == 1 || s.ptr[1] == ' ');
	return *star ? contact_text_clean(strview(s.ptr + 1, s.len - 1)) : s;
}

static void
add_elements(CsvLine *line, const CsvColumn *column, ContactField field, StrView text)
{
	StrView		type = column->type ? strview_of(column->type) : line->type[column->what][column->group];
	StrView		value;
	bool		primary;

	if (!column->type)
		type = cut_star(type, &primary);
	else
		primary = false;
	primary |= column->sub == 1;
	while (next_value(&text, &value))
	{
		ContactItem item = {0};

		item.field = field;
		item.type = type;
		if (field == CF_PHONES)
			contact_vcard_read_phone(value, &item);
		else
			item.value = value;
		if (primary && field != CF_URLS)
			item.flags |= CI_PRIMARY;
		primary = false;
		add_item(line, &item);
	}
}

static void
add_tags(CsvLine *line, StrView text)
{
	StrView		value;

	while (next_value(&text, &value))
	{
		int			start = 0;

		/* Outlook separates by semicolons */
		for (int i = 0; i <= value.len; i++)
		{
			ContactItem item = {0};
			bool		star;

			if (i < value.len && value.ptr[i] != ';')
				continue;
			item.field = CF_TAGS;
			item.value = cut_star(contact_text_clean(strview(value.ptr + start, i - start)), &star);
			add_item(line, &item);
			start = i + 1;
		}
	}
}

#define REPEATED_MAX_TEXT	4096
#define REPEATED_MAX_PART	1024

/* Is every word of a text found in these?  Not sought in what is too long. */
static bool
adds_nothing(StrView text, const StrView *parts, int n)
{
	static const char separators[] = " \t\r\n,;.()<>\"'";

	if (text.len > REPEATED_MAX_TEXT)
		return false;
	for (int i = 0; i < text.len;)
	{
		int			start = i;
		bool		found = false;

		while (i < text.len && strchr(separators, text.ptr[i]) == NULL)
			i++;
		for (int p = 0; p < n && i > start && !found; p++)
		{
			if (parts[p].len > REPEATED_MAX_PART)
				continue;
			for (int j = 0; j + i - start <= parts[p].len && !found; j++)
				found = memcmp(parts[p].ptr + j, text.ptr + start, i - start) == 0;
		}
		if (i > start && !found)
			return false;
		if (i == start)
			i++;
	}
	return true;
}

static void
add_address(CsvLine *line, int group)
{
	static const char *const types[] = {"home", "work", "other"};
	CsvAddress *address = &line->address[group];
	ContactItem item = {0};
	bool		star;

	if (!address->any)
		return;
	/* Google's whole address, or what Thunderbird calls a street */
	if (!adds_nothing(address->part[PART_FULL], address->part, PART_FULL))
	{
		if (address->part[PART_STREET].len == 0)
			address->part[PART_STREET] = address->part[PART_FULL];
		else
			add_metadata(line, address->full->key, address->part[PART_FULL]);
	}

	item.field = CF_ADDRESSES;
	item.type = group >= GROUP_HOME ? strview_of(types[group - GROUP_HOME]) :
		cut_star(line->type[CSV_ADDRESS][group], &star);
	item.part[CA_STREET] = contact_vcard_join(address->part, PART_STREET3 + 1, ", ");
	item.part[CA_CITY] = address->part[PART_CITY];
	item.part[CA_REGION] = address->part[PART_REGION];
	item.part[CA_POSTAL_CODE] = address->part[PART_POSTAL_CODE];
	item.part[CA_COUNTRY] = address->part[PART_COUNTRY];
	add_item(line, &item);
}

static void
add_birth(CsvLine *line)
{
	int			n[3];
	StrView		text;
	CsvColumn	column = {0};

	for (int i = 0; i < 3; i++)
	{
		int			used = 0;

		n[i] = read_number(line->birth[i], &used);
		if (used != line->birth[i].len)
			n[i] = -1;
	}
	if (line->birth[0].len == 0 && line->birth[1].len == 0 && line->birth[2].len == 0)
		return;
	column.key = strview_of("birth_date");
	if (n[1] >= 1 && n[1] <= 12 && n[2] >= 1 && n[2] <= 31)
		text = strview_of(n[0] >= 1000 ? psprintf("%04d-%02d-%02d", n[0], n[1], n[2]) :
						  psprintf("--%02d-%02d", n[1], n[2]));
	else
		text = contact_vcard_join(line->birth, 3, "-");
	add_scalar(line, &column, CF_BIRTHDAY, text);
}

/* A name as it is shown: the names, where there are none, else only what is more. */
static void
add_name(CsvLine *line, StrView text)
{
	CsvColumn	column = {0};
	int			i = text.len;

	column.key = strview_of("formatted_name");
	if (adds_nothing(text, line->scalar, CF_BIRTHDAY))
		return;
	if (line->scalar[CF_FIRST_NAME].len > 0 || line->scalar[CF_LAST_NAME].len > 0)
	{
		add_metadata(line, column.key, text);
		return;
	}
	for (int k = 0; k < line->nitems; k++)
		if ((line->items[k].field == CF_EMAILS || line->items[k].field == CF_PHONES) &&
			strview_same(line->items[k].value, text))
			return;
	while (i > 0 && text.ptr[i - 1] != ' ')
		i--;
	add_scalar(line, &column, CF_FIRST_NAME, i == 0 ? text : contact_text_clean(strview(text.ptr, i)));
	if (i > 0)
		add_scalar(line, &column, CF_LAST_NAME, strview(text.ptr + i, text.len - i));
}

/* A field that the user named: metadata under that name, if it is free. */
static void
add_custom(CsvLine *line, const CsvColumn *column, StrView value)
{
	bool		star;
	StrView		type = cut_star(line->type[CSV_CUSTOM][column->group], &star);
	StrView		key = key_of(contact_name_key(type), 0);
	bool		taken = type.len == 0;

	for (int i = 0; i < line->n && !taken; i++)
		taken = strview_same(line->columns[i].key, key);
	for (int i = 0; i < line->nitems && !taken; i++)
		taken = line->items[i].field == CF_METADATA && strview_same(line->items[i].key, key);
	if (taken && type.len > 0)
		value = contact_vcard_join((StrView[]) {type, value}, 2, ": ");
	add_metadata(line, taken ? column->key : key, value);
}

/* What a name that is shown elsewhere says: nothing, as a rule. */
static void
add_repeated(CsvLine *line, const CsvColumn *column, StrView value)
{
	StrView		parts[CF_BIRTHDAY + 8];
	int			n = CF_BIRTHDAY;

	memcpy(parts, line->scalar, sizeof(StrView) * CF_BIRTHDAY);
	for (int i = 0; i < line->nitems && n < lengthof(parts); i++)
		if (line->items[i].field == CF_EMAILS)
			parts[n++] = line->items[i].value;
	if (!adds_nothing(value, parts, n))
		add_metadata(line, column->key, value);
}

/* What one column says, but for those that wait for others. */
static void
read_column(CsvLine *line, const CsvColumn *column, StrView value)
{
	static const char *const defaults[] = {
		"normal", "false", "falsch", "unspecified", "keine angabe", "smtp"
	};

	switch (column->what)
	{
		case CSV_SCALAR:
			add_scalar(line, column, column->sub, value);
			break;
		case CSV_EMAIL:
			add_elements(line, column, CF_EMAILS, value);
			break;
		case CSV_PHONE:
			add_elements(line, column, CF_PHONES, value);
			break;
		case CSV_URL:
			add_elements(line, column, CF_URLS, value);
			break;
		case CSV_TAGS:
			add_tags(line, value);
			break;
		case CSV_QUIET:
			if (!is_word(value, defaults, lengthof(defaults)))
				add_metadata(line, column->key, value);
			break;
		case CSV_CUSTOM:
			add_custom(line, column, value);
			break;
		case CSV_UNKNOWN:
			add_metadata(line, column->key, value);
			break;
		default:
			break;
	}
}

/* Columns of which others need to know first. */
static void
read_ahead(CsvLine *line, const CsvColumn *column, StrView value)
{
	CsvAddress *address = &line->address[column->group];

	switch (column->what)
	{
		case CSV_TYPE:
			line->type[column->sub][column->group] = value;
			break;
		case CSV_BIRTH:
			line->birth[column->sub] = value;
			break;
		case CSV_ADDRESS:
			if (address->part[column->sub].len > 0)
			{
				add_metadata(line, column->key, value);
				break;
			}
			address->part[column->sub] = value;
			address->any = true;
			if (column->sub == PART_FULL)
				address->full = column;
			break;
		default:
			break;
	}
}

void
contact_csv_map(const CsvColumn *columns, int ncolumns, const StrView *values, int nvalues,
				bool month_first, ContactValue *v)
{
	CsvLine    *line = palloc0(sizeof(CsvLine));
	StrView    *clean = palloc0(sizeof(StrView) * Max(nvalues, 1));
	int			n = Min(ncolumns, nvalues);

	line->columns = columns;
	line->n = n;
	line->month_first = month_first;
	for (int i = 0; i < nvalues; i++)
		clean[i] = contact_text_clean(values[i]);
	for (int i = 0; i < n; i++)
		if (clean[i].len > 0)
			read_ahead(line, &columns[i], clean[i]);
	for (int i = 0; i < n; i++)
		if (clean[i].len > 0)
			read_column(line, &columns[i], clean[i]);
	for (int i = 0; i < CSV_MAX_GROUPS; i++)
		add_address(line, i);
	add_birth(line);
	for (int i = 0; i < n; i++)
		if (clean[i].len > 0 && columns[i].what == CSV_NAME)
			add_name(line, clean[i]);
	for (int i = 0; i < n; i++)
		if (clean[i].len > 0 && columns[i].what == CSV_REPEATED)
			add_repeated(line, &columns[i], clean[i]);
	/* a line longer than the header */
	for (int i = n; i < nvalues; i++)
		add_metadata(line, strview_of(psprintf("column_%d", i + 1)), clean[i]);

	memset(v, 0, sizeof(*v));
	v->items = line->items;
	v->nitems = line->nitems;
	contact_sort(v);
}
