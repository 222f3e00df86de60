/*
 * contact_parse.c
 *		The usual contact, from JSON text without jsonb between.
 *
 * Most documents hold known fields, plain strings, and no member twice: these
 * are read here, in one pass and in place.  Everything else, and everything
 * that is wrong, is left to jsonb and contact_json.c, which read the usual
 * contact to the same result and can say where a fault is.  So this part may
 * refuse what it likes, but never read anything in another way.
 */
#include "postgres.h"

#include "compat.h"
#include "contact/contact.h"

/* A longer text might be beyond the caps as jsonb. */
#define PARSE_MAX_INPUT		(64 * 1024)

/* Members of an element, as bits; an address's parts from PARSE_PART on. */
#define PARSE_VALUE			0x01
#define PARSE_TYPE			0x02
#define PARSE_EXTENSION		0x04
#define PARSE_PRIMARY		0x08
#define PARSE_VERIFIED		0x10
#define PARSE_PART			0x20

typedef struct Parser
{
	const char *p;				/* what is read next; ends with a zero byte */
	const char *end;			/* that byte */
	ContactItem *items;
	int			nitems;
	int			maxitems;
	int			nmetadata;
} Parser;

static inline char
skip_blanks(Parser *s)
{
	if (*s->p == ' ')
		s->p++;
	if ((unsigned char) *s->p > ' ')
		return *s->p;
	while (*s->p == ' ' || *s->p == '\n' || *s->p == '\t' || *s->p == '\r')
		s->p++;
	return *s->p;
}

/* Go behind this character, if it is the next one but for blanks. */
static inline bool
accept(Parser *s, char c)
{
	if (skip_blanks(s) != c)
		return false;
	s->p++;
	return true;
}

static bool
accept_word(Parser *s, const char *word)
{
	int			n = strlen(word);

	if (strncmp(s->p, word, n) != 0)
		return false;
	s->p += n;
	return true;
}

/* The rest of a string that begins with "from" and has an escape at s->p. */
static bool
parse_escaped(Parser *s, const char *from, StrView *result)
{
	static const char from_chars[] = "\"\\/nrtbf";
	static const char to_chars[] = "\"\\/\n\r\t\b\f";
	const char *end = s->p;
	char	   *buf;
	char	   *out;

	while (*end && *end != '"')
		end += *end == '\\' && end[1] ? 2 : 1;
	buf = palloc(end - from + 1);
	memcpy(buf, from, s->p - from);
	out = buf + (s->p - from);
	for (; *s->p != '"'; s->p++)
	{
		const char *escape;

		if ((unsigned char) *s->p < ' ')
			return false;
		if (*s->p != '\\')
		{
			*out++ = *s->p;
			continue;
		}
		s->p++;
		escape = *s->p ? strchr(from_chars, *s->p) : NULL;
		if (escape == NULL)
			return false;
		*out++ = to_chars[escape - from_chars];
	}
	s->p++;
	result->ptr = buf;
	result->len = out - buf;
	return true;
}

/* In each byte its highest bit, if the byte in the same place is less than n. */
#define ONES				UINT64CONST(0x0101010101010101)
#define LESS_THAN(v_, n_)	(((v_) - ONES * (n_)) & ~(v_) & (ONES * 0x80))

/*
 * The first byte from p on that ends or escapes a string, or is a control.
 * What LESS_THAN says of bytes above the first that is less may be wrong.
 */
static inline const char *
string_end(const char *p, const char *end)
{
	while (end - p >= (int) sizeof(uint64))
	{
		uint64		v;

		memcpy(&v, p, sizeof(v));
		if (LESS_THAN(v, ' ') | LESS_THAN(v ^ (ONES * '"'), 1) | LESS_THAN(v ^ (ONES * '\\'), 1))
			break;
		p += sizeof(v);
	}
	while ((unsigned char) *p >= ' ' && *p != '"' && *p != '\\')
		p++;
	return p;
}

/* A string; in place, if nothing in it is escaped. */
static bool
parse_string(Parser *s, StrView *result)
{
	const char *from;

	if (!accept(s, '"'))
		return false;
	from = s->p;
	s->p = string_end(from, s->end);
	if (*s->p == '\\')
		return parse_escaped(s, from, result);
	if (*s->p != '"')
		return false;
	result->ptr = from;
	result->len = s->p++ - from;
	return true;
}

/* A string, or null, which leaves the result as it is. */
static bool
parse_text(Parser *s, StrView *result)
{
	return skip_blanks(s) == 'n' ? accept_word(s, "null") : parse_string(s, result);
}

static bool
parse_flag(Parser *s, ContactItem *item, uint8 if_true, uint8 if_false)
{
	skip_blanks(s);
	if (accept_word(s, "true"))
		item->flags |= if_true;
	else if (accept_word(s, "false"))
		item->flags |= if_false;
	else
		return accept_word(s, "null");
	return true;
}

static inline bool
name_is(StrView name, const char *expected, int len)
{
	return name.len == len && memcmp(name.ptr, expected, len) == 0;
}

/* The member of that name that an element of the field has; 0 if there is none. */
static int
element_member(ContactField field, StrView name)
{
	if (name_is(name, "type", 4))
		return PARSE_TYPE;
	switch (field)
	{
		case CF_EMAILS:
		case CF_PHONES:
			if (field == CF_EMAILS ? name_is(name, "address", 7) : name_is(name, "number", 6))
				return PARSE_VALUE;
			if (name_is(name, "primary", 7))
				return PARSE_PRIMARY;
			if (name_is(name, "verified", 8))
				return PARSE_VERIFIED;
			return field == CF_PHONES && name_is(name, "extension", 9) ? PARSE_EXTENSION : 0;
		case CF_ADDRESSES:
			for (int i = 0; i < CA_COUNT; i++)
				if (name.len > 1 && name.ptr[1] == contact_address_members[i][1] &&
					name_is(name, contact_address_members[i], strlen(contact_address_members[i])))
					return PARSE_PART << i;
			return 0;
		case CF_URLS:
			return name_is(name, "url", 3) ? PARSE_VALUE : 0;
		default:
			return 0;
	}
}

/* The value of one member of an element. */
static bool
parse_member(Parser *s, ContactItem *item, int member)
{
	switch (member)
	{
		case PARSE_VALUE:
			return parse_text(s, &item->value);
		case PARSE_TYPE:
			return parse_text(s, &item->type);
		case PARSE_EXTENSION:
			return parse_text(s, &item->extension);
		case PARSE_PRIMARY:
			return parse_flag(s, item, CI_PRIMARY, 0);
		case PARSE_VERIFIED:
			return parse_flag(s, item, CI_VERIFIED, CI_UNVERIFIED);
	}
	for (int i = 0; i < CA_COUNT; i++)
		if (member == PARSE_PART << i)
			return parse_text(s, &item->part[i]);
	return false;
}

static bool
parse_element(Parser *s, ContactItem *item)
{
	int			seen = 0;

	if (skip_blanks(s) == '"' && item->field != CF_ADDRESSES)
		return parse_string(s, &item->value);
	if (item->field == CF_TAGS || !accept(s, '{'))
		return false;
	if (accept(s, '}'))
		return true;
	do
	{
		StrView		name;
		int			member;

		if (!parse_string(s, &name) || !accept(s, ':'))
			return false;
		member = element_member(item->field, name);
		if (member == 0 || (seen & member) || !parse_member(s, item, member))
			return false;
		seen |= member;
	} while (accept(s, ','));
	return accept(s, '}');
}

static ContactItem *
new_item(Parser *s, ContactField field)
{
	ContactItem *item;

	if (s->nitems == CONTACT_MAX_ITEMS)
		return NULL;
	if (s->nitems == s->maxitems)
	{
		s->maxitems *= 2;
		s->items = repalloc(s->items, sizeof(ContactItem) * s->maxitems);
	}
	item = &s->items[s->nitems++];
	memset(item, 0, sizeof(*item));
	item->field = field;
	item->stamp = -1;
	return item;
}

static bool
parse_list(Parser *s, ContactField field)
{
	if (!accept(s, '['))
		return false;
	if (accept(s, ']'))
		return true;
	do
	{
		ContactItem *item = new_item(s, field);

		if (item == NULL || !parse_element(s, item))
			return false;
		if (!contact_item_normalize(item))
			s->nitems--;
	} while (accept(s, ','));
	return accept(s, ']');
}

/* A value that jsonb would print as it stands here. */
static bool
parse_printed(Parser *s, StrView *value)
{
	const char *from;
	int			digits;

	skip_blanks(s);
	from = s->p;
	if (*from == '"')
	{
		StrView		string;

		if (!parse_string(s, &string) || string.ptr != from + 1 || string.len == 0)
			return false;
	}
	else if (!accept_word(s, "true") && !accept_word(s, "false"))
	{
		s->p += *s->p == '-';
		digits = strspn(s->p, "0123456789");
		if (digits == 0 || digits > 18 || (*s->p == '0' && (digits > 1 || s->p > from)))
			return false;
		s->p += digits;
		if (*s->p == '.' || *s->p == 'e' || *s->p == 'E')
			return false;
	}
	value->ptr = from;
	value->len = s->p - from;
	return true;
}

static bool
parse_metadata(Parser *s)
{
	if (!accept(s, '{'))
		return false;
	if (accept(s, '}'))
		return true;
	do
	{
		ContactItem *item = new_item(s, CF_METADATA);

		if (item == NULL || !parse_string(s, &item->key) || item->key.len == 0 ||
			!accept(s, ':') || !parse_printed(s, &item->value))
			return false;
		s->nmetadata++;
	} while (accept(s, ','));
	return accept(s, '}');
}

static bool
parse_scalar(Parser *s, ContactField field)
{
	ContactItem *item;

	if (skip_blanks(s) == 'n')
		return accept_word(s, "null");
	item = new_item(s, field);
	if (item == NULL || !parse_string(s, &item->value))
		return false;
	if (!contact_item_normalize(item))
		s->nitems--;
	return true;
}

static bool
parse_document(Parser *s)
{
	uint32		seen = 0;

	if (!accept(s, '{'))
		return false;
	if (accept(s, '}'))
		return skip_blanks(s) == '\0';
	do
	{
		StrView		name;
		int			field;

		if (!parse_string(s, &name) || !accept(s, ':'))
			return false;
		field = contact_field_lookup(name.ptr, name.len);
		if (field < 0 || (seen & CF_BIT(field)))
			return false;
		seen |= CF_BIT(field);
		if (field == CF_METADATA ? !parse_metadata(s) :
			CF_IS_LIST(field) ? !parse_list(s, field) : !parse_scalar(s, field))
			return false;
	} while (accept(s, ','));
	return accept(s, '}') && skip_blanks(s) == '\0';
}

bool
contact_parse(const char *text, int len, ContactValue *v)
{
	Parser		s = {0};
	int			n = 0;

	if (len > PARSE_MAX_INPUT)
		return false;
	s.p = text;
	s.end = text + len;
	s.maxitems = 24;
	s.items = palloc(sizeof(ContactItem) * s.maxitems);
	memset(v, 0, sizeof(*v));
	if (parse_document(&s))
	{
		v->items = s.items;
		v->nitems = s.nitems;
		contact_sort(v);
		/* of two equal names jsonb has the last, not the first */
		for (int i = v->nitems; i > 0 && v->items[i - 1].field == CF_METADATA; i--)
			n++;
		if (n == s.nmetadata)
			return true;
	}
	pfree(s.items);
	return false;
}
