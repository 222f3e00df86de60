/*
 * contact_norm.c
 *		Canonical spelling, and the keys by which elements are recognised.
 *
 * A value keeps its spelling but for blanks around it, its Unicode form and
 * what contact_email.c does; what two spellings share is their key.  Nothing
 * here depends on a locale, on a setting or on the clock.  What cannot be
 * recognised as an address or a number is kept and keyed by its folded text:
 * a contact never fails because of one.
 *
 * Normalising is idempotent: the canonical form of a canonical item is itself.
 */
#ifndef FRONTEND
#include "postgres.h"

#include "common/unicode_norm.h"
#else
#include "postgres_fe.h"
#endif
#include "mb/pg_wchar.h"

#include "contact/contact.h"
#include "contact/contact_fold.h"
#include "contact/contact_phone.h"

/* E.164 allows 15 digits; nobody has fewer than 7 after a country code. */
#define PHONE_MIN_DIGITS		7
#define PHONE_MAX_DIGITS		15

/* Longest run of bytes that is brought into NFC; no word comes near it. */
#define NFC_MAX_RUN				512

static inline bool
is_blank(unsigned char c)
{
	return c == ' ' || (c >= '\t' && c <= '\r');
}

static inline bool
is_digit(unsigned char c)
{
	return c >= '0' && c <= '9';
}

static inline bool
is_alpha(unsigned char c)
{
	return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* ASCII, and visible */
static inline bool
is_plain(unsigned char c)
{
	return c > ' ' && c < 0x80;
}

static inline char
ascii_lower(char c)
{
	return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
}

static int
text_encoding(void)
{
#ifndef FRONTEND
	return GetDatabaseEncoding();
#else
	return PG_UTF8;
#endif
}

static bool
utf8_text(void)
{
	return text_encoding() == PG_UTF8;
}

/*
 * Bytes of a blank at p, seen forwards or (p being the end) backwards: ASCII
 * blanks, and in UTF8 no-break space, ideographic space and byte order mark.
 */
static int
blank_after(const char *p, int len, bool utf8)
{
	if (is_blank(p[0]))
		return 1;
	if (utf8 && len >= 2 && memcmp(p, "\xC2\xA0", 2) == 0)
		return 2;
	if (utf8 && len >= 3 && (memcmp(p, "\xE3\x80\x80", 3) == 0 ||
							 memcmp(p, "\xEF\xBB\xBF", 3) == 0))
		return 3;
	return 0;
}

static int
blank_before(const char *end, int len, bool utf8)
{
	if (is_blank(end[-1]))
		return 1;
	if (utf8 && len >= 2 && blank_after(end - 2, 2, true) == 2)
		return 2;
	if (utf8 && len >= 3 && blank_after(end - 3, 3, true) == 3)
		return 3;
	return 0;
}

static StrView
trim(StrView s)
{
	bool		utf8;
	int			n;

	/* nearly always nothing is to be done */
	if (s.len > 0 && is_plain(s.ptr[0]) && is_plain(s.ptr[s.len - 1]))
		return s;
	utf8 = utf8_text();
	while (s.len > 0 && (n = blank_after(s.ptr, s.len, utf8)) > 0)
	{
		s.ptr += n;
		s.len -= n;
	}
	while (s.len > 0 && (n = blank_before(s.ptr + s.len, s.len, utf8)) > 0)
		s.len -= n;
	return strview(s.ptr, s.len);
}

#ifndef FRONTEND

/*
 * Bytes of the character at p, if it neither composes with what stands before
 * it nor changes by itself: ASCII, and the letters of scripts that are written
 * without blanks or with few marks.  0 of any other, and inside a character.
 */
static int
fresh_len(const char *p, int len)
{
	static const uint32 fresh[][2] = {
		{0x00A1, 0x02FF}, {0x0400, 0x0482}, {0x05D0, 0x05EA}, {0x0621, 0x063A},
		{0x0E01, 0x0E30}, {0x0E81, 0x0EB0}, {0x1000, 0x102A}, {0x1780, 0x17B3},
		{0x3001, 0x3029}, {0x3041, 0x3096}, {0x30A1, 0x30FA}, {0x3400, 0x4DBF},
		{0x4E00, 0x9FFF}, {0xAC00, 0xD7A3}, {0xFF01, 0xFF9D}, {0x1F000, 0x1FAFF},
		{0x20000, 0x2A6DF}
	};
	uint32		c;
	int			n;

	if (!IS_HIGHBIT_SET(*p))
		return 1;
	n = pg_utf_mblen((const unsigned char *) p);
	if (n < 2 || n > len)
		return 0;
	c = utf8_to_unicode((const unsigned char *) p);
	for (int i = 0; i < lengthof(fresh) && c >= fresh[i][0]; i++)
		if (c <= fresh[i][1])
			return n;
	return 0;
}

/*
 * NFC of one run of characters, appended to out (which has room for three
 * times its length: no character grows by more).  Runs may be taken apart
 * before every character that fresh_len knows; that, and the cap on a run,
 * keep unicode_normalize, which is quadratic in the number of combining marks,
 * from being fed a hostile text.
 */
static char *
nfc_run(char *out, const char *s, int len)
{
	pg_wchar   *chars;
	pg_wchar   *composed;
	int			n;

	if (len > NFC_MAX_RUN)
	{
		memcpy(out, s, len);
		return out + len;
	}

	chars = palloc((len + 1) * sizeof(pg_wchar));
	n = pg_mb2wchar_with_len(s, chars, len);
	chars[n] = 0;
	if (unicode_is_normalized_quickcheck(UNICODE_NFC, chars) == UNICODE_NORM_QC_YES)
	{
		memcpy(out, s, len);
		out += len;
	}
	else
	{
		composed = unicode_normalize(UNICODE_NFC, chars);
		for (pg_wchar *c = composed; *c; c++)
		{
			unicode_to_utf8(*c, (unsigned char *) out);
			out += pg_utf_mblen((unsigned char *) out);
		}
		pfree(composed);
	}
	pfree(chars);
	return out;
}

static StrView
nfc(StrView s)
{
	char	   *buf;
	char	   *out;
	int			i;

	/* U+02FF is CB BF: with smaller lead bytes only, nothing can change */
	for (i = 0; i + (int) sizeof(uint64) <= s.len; i += sizeof(uint64))
	{
		uint64		bytes;

		memcpy(&bytes, s.ptr + i, sizeof(bytes));
		if (bytes & UINT64CONST(0x8080808080808080))
			break;
	}
	for (; i < s.len; i++)
		if ((unsigned char) s.ptr[i] >= 0xCC)
			break;
	if (i == s.len || !utf8_text())
		return s;

	/* every run begins with the character that its first mark sits on */
	buf = out = palloc(3 * (Size) s.len);
	for (i = 0; i < s.len;)
	{
		int			start = i;
		int			first = fresh_len(s.ptr + i, s.len - i);

		i += Max(first, 1);
		while (i < s.len && fresh_len(s.ptr + i, s.len - i) == 0)
			i++;
		if (i - start > first)
			out = nfc_run(out, s.ptr + start, i - start);
		else
		{
			memcpy(out, s.ptr + start, first);
			out += first;
		}
	}
	return strview(buf, out - buf);
}

#else
#define nfc(s_) (s_)
#endif							/* !FRONTEND */

StrView
contact_text_clean(StrView s)
{
	StrView		composed;

	s = trim(s);
	if (s.len == 0)
		return s;
	composed = nfc(s);
	return composed.ptr == s.ptr ? s : trim(composed);
}

/* Lower case of ASCII, for labels; in a copy, if anything changes. */
static StrView
lower_label(StrView s)
{
	char	   *buf;
	int			i = 0;

	while (i < s.len && !(s.ptr[i] >= 'A' && s.ptr[i] <= 'Z'))
		i++;
	if (i == s.len)
		return s;
	buf = palloc(s.len);
	memcpy(buf, s.ptr, i);
	for (; i < s.len; i++)
		buf[i] = ascii_lower(s.ptr[i]);
	return strview(buf, s.len);
}

/*
 * Write the character at p, which is not ASCII, folded, and move p behind it.
 * In LATIN1, bytes are code points; of other encodings only ASCII is folded.
 */
static char *
put_folded(char *out, const char **p, const char *end, ContactFolding how)
{
	uint32		to[CONTACT_FOLD_MAX];
	uint32		c;
	int			n = 1;
	int			len = 1;

	switch (text_encoding())
	{
		case PG_UTF8:
			len = pg_utf_mblen((const unsigned char *) *p);
			if (len < 2 || len > end - *p)
			{
				*out++ = *(*p)++;
				return out;
			}
			c = utf8_to_unicode((const unsigned char *) *p);
			break;
		case PG_LATIN1:
			c = (unsigned char) **p;
			break;
		default:
			*out++ = *(*p)++;
			return out;
	}

	if (how == CONTACT_FOLD_FULL)
		n = contact_fold_full(c, to);
	else
	{
		to[0] = contact_fold_simple(c);
		if (to[0] < 0x80)
			to[0] = c;
	}
	for (int i = 0; i < n; i++)
	{
		if (to[i] < 0x80)
			*out++ = (char) to[i];
		else if (text_encoding() == PG_LATIN1)
			*out++ = (char) (to[i] < 0x100 ? to[i] : c);
		else
		{
			unicode_to_utf8(to[i], (unsigned char *) out);
			out += pg_utf_mblen((unsigned char *) out);
		}
	}
	*p += len;
	return out;
}

/* Room for what a text becomes when it is folded: no character grows by more. */
#define FOLDED_SIZE(len_)	(CONTACT_FOLD_MAX * (Size) (len_))

StrView
contact_fold(StrView s, ContactFolding how)
{
	char	   *buf;
	char	   *out;
	const char *p = s.ptr;
	const char *end = p + s.len;
	bool		ascii = true;

	while (p < end && !IS_HIGHBIT_SET(*p) && !(*p >= 'A' && *p <= 'Z'))
		p++;
	if (p == end)
		return s;
	buf = out = palloc(FOLDED_SIZE(s.len));
	memcpy(out, s.ptr, p - s.ptr);
	out += p - s.ptr;
	while (p < end)
	{
		if (IS_HIGHBIT_SET(*p))
		{
			ascii = false;
			out = put_folded(out, &p, end, how);
		}
		else
			*out++ = ascii_lower(*p++);
	}
	s = strview(buf, out - buf);
	/* small letters may compose where their capitals do not */
	return ascii ? s : nfc(s);
}

/*
 * Write a clean text folded and with every run of blanks as one space; where
 * that ends.  *ascii becomes false if it is not all ASCII.
 */
static char *
put_name_key(char *out, StrView name, bool *ascii)
{
	bool		utf8 = utf8_text();
	const char *p = name.ptr;
	const char *end = p + name.len;

	while (p < end)
	{
		int			blank = is_plain(*p) ? 0 : blank_after(p, end - p, utf8);

		if (blank == 0 && IS_HIGHBIT_SET(*p))
		{
			*ascii = false;
			out = put_folded(out, &p, end, CONTACT_FOLD_FULL);
		}
		else if (blank == 0)
			*out++ = ascii_lower(*p++);
		else
		{
			/* a clean text does not begin with a blank */
			if (out[-1] != ' ')
				*out++ = ' ';
			p += blank;
		}
	}
	return out;
}

/* The key of a clean text: itself, if nothing changes. */
static StrView
name_key(StrView name)
{
	char	   *buf;
	bool		ascii = true;
	int			i = 0;

	while (i < name.len && name.ptr[i] < 0x7f && !(name.ptr[i] >= 'A' && name.ptr[i] <= 'Z') &&
		   (name.ptr[i] > ' ' || (name.ptr[i] == ' ' && name.ptr[i - 1] != ' ')))
		i++;
	if (i == name.len)
		return name;
	buf = palloc(FOLDED_SIZE(name.len));
	name = strview(buf, put_name_key(buf, name, &ascii) - buf);
	return ascii ? name : nfc(name);
}

/* Folded, and every run of blanks one space. */
StrView
contact_name_key(StrView name)
{
	return name_key(contact_text_clean(name));
}

/* Cut a scheme such as "tel:" off. */
static StrView
cut_scheme(StrView s, const char *scheme)
{
	int			n = strlen(scheme);

	if (s.len > n && pg_strncasecmp(s.ptr, scheme, n) == 0)
		return trim(strview(s.ptr + n, s.len - n));
	return s;
}

/*
 * Phone numbers are read without a region: what a number without a plus means
 * depends on who dials it.  One with a plus is known by its E.164 form, and
 * where the numbering plans know no such number, by its digits.
 */
static bool
phone_international(const ContactPhone *p)
{
	return p->plus && (p->status != CONTACT_PHONE_UNPARSED ||
					   (p->plain && p->ndigits >= PHONE_MIN_DIGITS && p->ndigits <= PHONE_MAX_DIGITS));
}

/* A number as it is kept: without "tel:". */
static StrView
phone_clean(StrView s)
{
	int			len;

	s = contact_text_clean(s);
	do
	{
		len = s.len;
		s = cut_scheme(s, "tel:");
	} while (s.len < len);
	return s;
}

static void
phone_parse(StrView number, ContactPhone *p)
{
	contact_phone_parse(number.ptr, number.len, CONTACT_PHONE_NO_REGION, utf8_text(), p);
}

/* The number, with ";ext=" after it. */
static StrView
phone_key(bool plus, const char *number, int len, StrView extension)
{
	char	   *buf = palloc(1 + len + 5 + extension.len);
	int			n = 0;

	if (plus)
		buf[n++] = '+';
	memcpy(buf + n, number, len);
	n += len;
	if (extension.len > 0)
	{
		memcpy(buf + n, ";ext=", 5);
		n += 5;
		for (int i = 0; i < extension.len; i++)
			buf[n++] = ascii_lower(extension.ptr[i]);
	}
	return strview(buf, n);
}

StrView
contact_phone_key(StrView number, StrView extension)
{
	ContactPhone p;

	phone_parse(phone_clean(number), &p);
	if (!phone_international(&p))
		return strview(NULL, 0);
	extension = contact_text_clean(extension);
	return phone_key(true, p.digits, p.ndigits,
					 extension.len > 0 ? extension : strview(p.extension, p.extension_len));
}

/*
 * The key of any number, be it only its digits or its text, of its clean
 * spelling and what was read in it.
 */
static StrView
phone_element_key(StrView number, const ContactPhone *p, StrView extension)
{
	bool		plus = phone_international(p);

	if (plus || p->plain)
	{
		/* most numbers are spelled as their key */
		if (extension.len == 0 && number.len == plus + p->ndigits &&
			number.ptr[0] == (plus ? '+' : p->digits[0]) &&
			memcmp(number.ptr + plus, p->digits, p->ndigits) == 0)
			return number;
		return phone_key(plus, p->digits, p->ndigits, extension);
	}

	/* words and the like: the text itself */
	number = name_key(number);
	return number.len > 0 ? phone_key(false, number.ptr, number.len, extension) : number;
}

/* The extension that was read in a number's spelling. */
static StrView
phone_extension(const ContactPhone *p)
{
	char	   *buf;

	if (p->extension_len == 0)
		return strview(NULL, 0);
	buf = palloc(p->extension_len);
	memcpy(buf, p->extension, p->extension_len);
	return strview(buf, p->extension_len);
}

/* A URL with its scheme and host in lower case. */
static StrView
url_key(StrView s)
{
	char	   *buf;
	int			end = 0;

	while (end < s.len && (is_alpha(s.ptr[end]) || is_digit(s.ptr[end]) ||
						   s.ptr[end] == '+' || s.ptr[end] == '-' || s.ptr[end] == '.'))
		end++;
	if (end == 0 || end == s.len || s.ptr[end] != ':')
		end = 0;				/* no scheme */
	else if (s.len - end > 2 && s.ptr[end + 1] == '/' && s.ptr[end + 2] == '/')
	{
		int			host = end + 3;

		for (end = host; end < s.len && s.ptr[end] != '/' && s.ptr[end] != '?' && s.ptr[end] != '#'; end++)
			if (s.ptr[end] == '@')
				host = -1;		/* user information keeps its case */
		if (host < 0)
			end = 0;
	}

	for (int i = 0; i < end; i++)
	{
		if (s.ptr[i] < 'A' || s.ptr[i] > 'Z')
			continue;
		buf = palloc(s.len);
		for (int j = 0; j < s.len; j++)
			buf[j] = j < end ? ascii_lower(s.ptr[j]) : s.ptr[j];
		return strview(buf, s.len);
	}
	return s;
}

/* The clean parts, each folded on one line, a line each; absent if all are empty. */
static StrView
address_key(const ContactItem *item)
{
	int			len = 0;
	bool		ascii = true;
	StrView		key;
	char	   *buf;
	char	   *p;

	for (int i = 0; i < CA_COUNT; i++)
		len += item->part[i].len;
	if (len == 0)
		return strview(NULL, 0);
	buf = p = palloc(FOLDED_SIZE(len) + CA_COUNT - 1);
	for (int i = 0; i < CA_COUNT; i++)
	{
		if (i > 0)
			*p++ = '\n';
		p = put_name_key(p, item->part[i], &ascii);
	}
	key = strview(buf, p - buf);
	return ascii ? key : nfc(key);
}

bool
contact_item_normalize(ContactItem *item)
{
	if (item->flags & CI_TOMBSTONE)
		return true;
	if (item->field == CF_METADATA)
		return item->key.len > 0 && item->value.len > 0;
	if (!CF_IS_LIST(item->field))
	{
		item->value = contact_text_clean(item->value);
		item->key = strview(NULL, 0);
		return item->value.len > 0;
	}

	if (item->type.len > 0)
		item->type = lower_label(contact_text_clean(item->type));
	if (item->extension.len > 0)
		item->extension = contact_text_clean(item->extension);
	switch (item->field)
	{
		case CF_EMAILS:
			contact_email_forms(item->value, &item->value, &item->key);
			if (item->key.len == 0)
				item->key = name_key(item->value);
			break;
		case CF_PHONES:
			{
				ContactPhone p;

				item->value = phone_clean(item->value);
				phone_parse(item->value, &p);
				if (item->extension.len == 0)
					item->extension = phone_extension(&p);
				item->key = phone_element_key(item->value, &p, item->extension);
				break;
			}
		case CF_ADDRESSES:
			for (int i = 0; i < CA_COUNT; i++)
				if (item->part[i].len > 0)
					item->part[i] = contact_text_clean(item->part[i]);
			item->key = address_key(item);
			break;
		case CF_URLS:
			item->value = contact_text_clean(item->value);
			item->key = url_key(item->value);
			break;
		default:
			item->value = contact_text_clean(item->value);
			item->key = name_key(item->value);
	}
	return item->key.len > 0;
}
