/*
 * contact_email.c
 *		Mail addresses: what is one, how it is kept and how it is compared.
 *
 * An address is a Mailbox of RFC 5321 with the UTF-8 of RFC 6531.  It is kept
 * with its local part in NFC, its case untouched and its quotes gone where they
 * are not needed, and with its domain as A-labels in lower case.  Comments and
 * the obsolete forms of RFC 5322 are none.  Around it, people and programs
 * leave "mailto:", a name, blanks, quotes and trailing commas; that is taken
 * off, and only then.  A canonical address is its own canonical form.
 *
 * A domain that is not ASCII goes through libidn2, which speaks UTF-8, returns
 * codes and allocates with malloc: its result is copied and freed before
 * anything here may throw.  What it knows of Unicode grows with its releases,
 * so a later one may recognise a domain that was kept as text before.  Of the
 * encodings only UTF8 and LATIN1 are known well enough to ask it; elsewhere
 * such an address is kept as it was spelled.
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include <arpa/inet.h>
#include <idn2.h>

#ifndef FRONTEND
#include "fmgr.h"
#include "utils/builtins.h"
#endif
#include "mb/pg_wchar.h"

#ifndef FRONTEND
#include "compat.h"
#endif
#include "contact/contact.h"

/* Octets, by RFC 5321 4.5.3.1 and its erratum 1690. */
#define LOCAL_MAX		64
#define DOMAIN_MAX		255
#define LABEL_MAX		63
#define ADDRESS_MAX		254

/* No more is looked at, with name and all; a U-label is longer than its A-label. */
#define SPELLED_MAX		1024

typedef struct Mailbox
{
	char		text[LOCAL_MAX + 1 + DOMAIN_MAX];	/* canonical */
	int			len;
	int			local;			/* length of the local part */
	bool		unusual;		/* see contact_email_parse */
} Mailbox;

static inline bool
is_digit(unsigned char c)
{
	return c >= '0' && c <= '9';
}

static inline bool
is_alnum(unsigned char c)
{
	return is_digit(c) || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
}

/* What a character may be in the addresses that are usual, as bits. */
#define ADDRESS_ALNUM	0x01
#define ADDRESS_UPPER	0x02
#define ADDRESS_LOCAL	0x04	/* in a local part, without quotes */

static const uint8 address_chars[256] = {
	['0'] = 1,['1'] = 1,['2'] = 1,['3'] = 1,['4'] = 1,['5'] = 1,['6'] = 1,['7'] = 1,['8'] = 1,['9'] = 1,
	['A'] = 3,['B'] = 3,['C'] = 3,['D'] = 3,['E'] = 3,['F'] = 3,['G'] = 3,['H'] = 3,['I'] = 3,['J'] = 3,
	['K'] = 3,['L'] = 3,['M'] = 3,['N'] = 3,['O'] = 3,['P'] = 3,['Q'] = 3,['R'] = 3,['S'] = 3,['T'] = 3,
	['U'] = 3,['V'] = 3,['W'] = 3,['X'] = 3,['Y'] = 3,['Z'] = 3,
	['a'] = 1,['b'] = 1,['c'] = 1,['d'] = 1,['e'] = 1,['f'] = 1,['g'] = 1,['h'] = 1,['i'] = 1,['j'] = 1,
	['k'] = 1,['l'] = 1,['m'] = 1,['n'] = 1,['o'] = 1,['p'] = 1,['q'] = 1,['r'] = 1,['s'] = 1,['t'] = 1,
	['u'] = 1,['v'] = 1,['w'] = 1,['x'] = 1,['y'] = 1,['z'] = 1,
	['!'] = 4,['#'] = 4,['$'] = 4,['%'] = 4,['&'] = 4,['\''] = 4,['*'] = 4,['+'] = 4,['-'] = 4,['/'] = 4,
	['='] = 4,['?'] = 4,['^'] = 4,['_'] = 4,['`'] = 4,['{'] = 4,['|'] = 4,['}'] = 4,['~'] = 4
};

static int
encoding(void)
{
#ifndef FRONTEND
	return GetDatabaseEncoding();
#else
	return PG_UTF8;
#endif
}

/* ---- the local part ---- */

/*
 * Code points that no address should hold: controls, blanks, what turns the
 * direction of writing, private use and non-characters.  The joiners stay:
 * Persian and the scripts of India need them.
 */
static bool
code_point_is_unsafe(uint32 c)
{
	static const uint32 unsafe[][2] = {
		{0x0080, 0x00A0}, {0x00AD, 0x00AD}, {0x061C, 0x061C}, {0x1680, 0x1680},
		{0x180E, 0x180E}, {0x2000, 0x200B}, {0x200E, 0x200F}, {0x2028, 0x202F},
		{0x205F, 0x206F}, {0x3000, 0x3000}, {0xD800, 0xF8FF}, {0xFDD0, 0xFDEF},
		{0xFEFF, 0xFEFF}, {0xFFF0, 0xFFFB}, {0xE0000, 0xE007F}, {0xF0000, 0x10FFFF}
	};

	for (int i = 0; i < lengthof(unsafe); i++)
		if (c >= unsafe[i][0] && c <= unsafe[i][1])
			return true;
	return (c & 0xFFFE) == 0xFFFE;
}

/* Length of the character at p, which is not ASCII; 0 if it cannot be in an address. */
static int
wide_len(const char *p, int len)
{
	int			n;

	switch (encoding())
	{
		case PG_UTF8:
			n = pg_utf_mblen((const unsigned char *) p);
			if (n > len || !pg_utf8_islegal((const unsigned char *) p, n))
				return 0;
			return code_point_is_unsafe(utf8_to_unicode((const unsigned char *) p)) ? 0 : n;
		case PG_LATIN1:
			return code_point_is_unsafe((unsigned char) *p) ? 0 : 1;
		default:
			return 1;
	}
}

/* Length of the atext at p, or 0. */
static int
atext_len(const char *p, int len)
{
	unsigned char c = *p;

	if (IS_HIGHBIT_SET(c))
		return wide_len(p, len);
	return is_alnum(c) || (c != '\0' && strchr("!#$%&'*+-/=?^_`{|}~", c)) ? 1 : 0;
}

/* Length of the dot-string that s begins with, or 0. */
static int
dot_string(StrView s)
{
	bool		after_dot = true;
	int			i = 0;

	while (i < s.len)
	{
		int			n = atext_len(s.ptr + i, s.len - i);

		if (n == 0 && (s.ptr[i] != '.' || after_dot))
			break;
		after_dot = n == 0;
		i += Max(n, 1);
	}
	return after_dot ? 0 : i;
}

/* Length of the quoted string that s begins with, or 0; what it stands for in content. */
static int
quoted_string(StrView s, char *content, int *len)
{
	int			i = 1;

	*len = 0;
	while (i < s.len && s.ptr[i] != '"')
	{
		bool		pair = s.ptr[i] == '\\';
		int			n;

		if (pair && ++i == s.len)
			return 0;
		if (IS_HIGHBIT_SET(s.ptr[i]))
			n = pair ? 0 : wide_len(s.ptr + i, s.len - i);
		else
			n = s.ptr[i] >= ' ' && s.ptr[i] != 0x7f ? 1 : 0;
		if (n == 0 || *len + n > LOCAL_MAX)
			return 0;
		memcpy(content + *len, s.ptr + i, n);
		*len += n;
		i += n;
	}
	return i < s.len ? i + 1 : 0;
}

/* Octets of s in UTF-8, which is what the limits count. */
static int
octets(StrView s)
{
	int			n = s.len;

	if (encoding() == PG_LATIN1)
		for (int i = 0; i < s.len; i++)
			n += IS_HIGHBIT_SET(s.ptr[i]) ? 1 : 0;
	return n;
}

/* Read the local part that s begins with: its length, or 0. */
static int
read_local(StrView s, Mailbox *m)
{
	char		content[LOCAL_MAX];
	int			n;
	int			len;

	m->len = 0;
	if (s.ptr[0] != '"')
	{
		n = dot_string(s);
		if (n == 0 || octets(strview(s.ptr, n)) > LOCAL_MAX)
			return 0;
		memcpy(m->text, s.ptr, n);
		m->len = m->local = n;
		return n;
	}

	n = quoted_string(s, content, &len);
	if (n == 0 || octets(strview(s.ptr, n)) > LOCAL_MAX)
		return 0;
	if (len > 0 && dot_string(strview(content, len)) == len)
	{
		memcpy(m->text, content, len);
		m->len = m->local = len;
		return n;
	}
	m->unusual = true;
	m->text[m->len++] = '"';
	for (int i = 0; i < len; i++)
	{
		if (content[i] == '"' || content[i] == '\\')
			m->text[m->len++] = '\\';
		m->text[m->len++] = content[i];
	}
	m->text[m->len++] = '"';
	m->local = m->len;
	return n;
}

/* ---- the domain ---- */

/* "[192.0.2.1]" or "[IPv6:2001:db8::1]": no other tag was ever registered. */
static bool
read_literal(StrView s, Mailbox *m)
{
	char		text[INET6_ADDRSTRLEN];
	char		canonical[INET6_ADDRSTRLEN];
	unsigned char address[16];
	unsigned	b[4];
	int			used = 0;
	int			groups = 0;
	bool		v6 = s.len > 7 && pg_strncasecmp(s.ptr, "[IPv6:", 6) == 0;
	int			skip = v6 ? 6 : 1;
	int			n = s.len - skip - 1;

	if (s.ptr[s.len - 1] != ']' || n <= 0 || n >= (int) sizeof(text))
		return false;
	memcpy(text, s.ptr + skip, n);
	text[n] = '\0';
	m->unusual = true;
	if (!v6)
	{
		if (strspn(text, "0123456789.") != n ||
			sscanf(text, "%3u.%3u.%3u.%3u%n", &b[0], &b[1], &b[2], &b[3], &used) != 4 ||
			used != n || b[0] > 255 || b[1] > 255 || b[2] > 255 || b[3] > 255)
			return false;
		m->len += sprintf(m->text + m->len, "[%u.%u.%u.%u]", b[0], b[1], b[2], b[3]);
		return true;
	}

	/* "::" stands for two groups at least, which inet_pton does not ask for */
	for (char *p = text; *p; p++)
		if (*p != ':' && (p == text || p[-1] == ':'))
			groups++;
	if (strchr(text, '.'))
		groups++;
	if ((strstr(text, "::") && groups > 6) || inet_pton(AF_INET6, text, address) != 1 ||
		inet_ntop(AF_INET6, address, canonical, sizeof(canonical)) == NULL)
		return false;
	m->len += sprintf(m->text + m->len, "[IPv6:%s]", canonical);
	return true;
}

/*
 * What the keyboards of East Asia make of letters and dots: the ideographic
 * full stop and the block of halfwidth and fullwidth forms.
 */
static bool
has_wide_forms(const char *utf8)
{
	for (const unsigned char *p = (const unsigned char *) utf8; *p; p++)
	{
		if (p[0] == 0xE3 && p[1] == 0x80 && p[2] == 0x82)
			return true;
		if (p[0] == 0xEF && (p[1] == 0xBC || p[1] == 0xBD || p[1] == 0xBE || (p[1] == 0xBF && p[2] < 0xB0)))
			return true;
	}
	return false;
}

/*
 * A domain's A-labels, as far as libidn2 finds any.  It reads wide forms as
 * what is meant by them, but they are no spelling of a domain: that is mending.
 */
static bool
domain_to_ascii(StrView s, bool mend, char *result, int *len)
{
	char		utf8[2 * SPELLED_MAX + 1];
	char	   *p = utf8;
	char	   *ascii = NULL;
	bool		ok;

	for (int i = 0; i < s.len; i++)
	{
		unsigned char c = s.ptr[i];

		if (encoding() == PG_LATIN1 && IS_HIGHBIT_SET(c))
		{
			*p++ = (char) (0xC0 | (c >> 6));
			*p++ = (char) (0x80 | (c & 0x3F));
		}
		else
			*p++ = c;
	}
	*p = '\0';
	if (encoding() != PG_UTF8 && encoding() != PG_LATIN1)
		return false;
	if (!mend && has_wide_forms(utf8))
		return false;

	if (idn2_to_ascii_8z(utf8, &ascii, IDN2_NFC_INPUT | IDN2_NONTRANSITIONAL) != IDN2_OK || ascii == NULL)
		return false;
	*len = strlen(ascii);
	ok = *len > 0 && *len <= DOMAIN_MAX;
	if (ok)
		memcpy(result, ascii, *len);
	idn2_free(ascii);
	return ok;
}

/* Letters, digits and hyphens between dots (STD 3); appended in lower case. */
static bool
read_hostname(StrView s, Mailbox *m)
{
	int			label = 0;		/* start of the current label */
	bool		numeric = true;

	for (int i = 0; i <= s.len; i++)
	{
		if (i < s.len && s.ptr[i] != '.')
		{
			if (!is_alnum(s.ptr[i]) && s.ptr[i] != '-')
				return false;
			numeric = numeric && is_digit(s.ptr[i]);
			m->text[m->len++] = pg_ascii_tolower(s.ptr[i]);
			continue;
		}
		if (i == label || i - label > LABEL_MAX || s.ptr[label] == '-' || s.ptr[i - 1] == '-')
			return false;
		if (i == s.len)
		{
			/* no dot, or a top-level domain that looks like an IPv4 address's end */
			m->unusual |= label == 0 || numeric;
			break;
		}
		m->text[m->len++] = '.';
		label = i + 1;
		numeric = true;
	}
	return true;
}

static bool
read_domain(StrView s, bool mend, Mailbox *m)
{
	char		ascii[DOMAIN_MAX];
	int			len;

	if (s.len > 1 && s.ptr[0] == '[')
		return read_literal(s, m);
	for (int i = 0; i < s.len; i++)
	{
		if (IS_HIGHBIT_SET(s.ptr[i]))
			return domain_to_ascii(s, mend, ascii, &len) && read_hostname(strview(ascii, len), m);
	}
	return s.len > 0 && s.len <= DOMAIN_MAX && read_hostname(s, m);
}

/* ---- the address ---- */

/* Is s, which is in NFC, a mailbox and nothing else? */
static bool
read_mailbox(StrView s, bool mend, Mailbox *m)
{
	int			n;

	m->unusual = false;
	if (s.len == 0 || s.len > SPELLED_MAX)
		return false;
	n = read_local(s, m);
	if (n == 0 || n == s.len || s.ptr[n] != '@')
		return false;
	m->text[m->len++] = '@';
	return read_domain(strview(s.ptr + n + 1, s.len - n - 1), mend, m) &&
		octets(strview(m->text, m->len)) <= ADDRESS_MAX;
}

static int
hex_digit(unsigned char c)
{
	return is_digit(c) ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 :
		c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The address of a mailto URI, without its headers (RFC 6068). */
static StrView
cut_mailto(StrView s)
{
	const char *at;
	const char *end;
	char	   *buf;
	int			n = 0;

	if (s.len <= 7 || pg_strncasecmp(s.ptr, "mailto:", 7) != 0)
		return s;
	s = strview(s.ptr + 7, s.len - 7);
	at = memchr(s.ptr, '@', s.len);
	end = at ? memchr(at, '?', s.ptr + s.len - at) : NULL;
	if (end)
		s.len = end - s.ptr;
	if (memchr(s.ptr, '%', s.len) == NULL)
		return s;

	buf = palloc(s.len);
	for (int i = 0; i < s.len; i++)
	{
		int			c = -1;

		if (s.ptr[i] == '%' && s.len - i > 2 && hex_digit(s.ptr[i + 1]) >= 0 && hex_digit(s.ptr[i + 2]) >= 0)
			c = hex_digit(s.ptr[i + 1]) * 16 + hex_digit(s.ptr[i + 2]);
		if ((c >= 0 && c < ' ') || c == 0x7f)
			return strview(NULL, 0);
		if (c < 0 || (c > 0x7f && encoding() != PG_UTF8))
			c = s.ptr[i];
		else
			i += 2;
		buf[n++] = (char) c;
	}
	if (encoding() == PG_UTF8 && pg_encoding_verifymbstr(PG_UTF8, buf, n) != n)
		return strview(NULL, 0);
	return strview(buf, n);
}

/* The address of "Name <address>"; < inside a quoted string is none. */
static StrView
cut_name(StrView s)
{
	const char *open = NULL;
	bool		quoted = false;

	if (s.len < 2 || s.ptr[s.len - 1] != '>')
		return s;
	for (int i = 0; i < s.len; i++)
	{
		if (s.ptr[i] == '\\' && quoted)
			i++;
		else if (s.ptr[i] == '"')
			quoted = !quoted;
		else if (s.ptr[i] == '<' && !quoted)
			open = s.ptr + i;
	}
	/* a name with one quotation mark hides it */
	for (int i = s.len; i > 0 && quoted && open == NULL; i--)
		if (s.ptr[i - 1] == '<')
			open = s.ptr + i - 1;
	return open ? strview(open + 1, s.ptr + s.len - 1 - (open + 1)) : s;
}

/* Take off what stands around an address. */
static StrView
strip(StrView s)
{
	int			before;

	do
	{
		before = s.len;
		while (s.len > 0 && strchr(",;. \t\r\n", s.ptr[s.len - 1]))
			s.len--;
		s = contact_text_clean(cut_mailto(s));
		if (s.len > 1 && (s.ptr[0] == '"' || s.ptr[0] == '\'') && s.ptr[0] == s.ptr[s.len - 1])
			s = strview(s.ptr + 1, s.len - 2);
		s = contact_text_clean(cut_name(s));
	} while (s.len > 0 && s.len < before);
	return s;
}

/* Does s begin or end with what is trimmed from texts? */
static bool
has_outer_blank(StrView s)
{
	const char *last = s.ptr + s.len - 1;

	if ((unsigned char) s.ptr[0] <= ' ' || (unsigned char) *last <= ' ')
		return true;
	while (last > s.ptr && encoding() == PG_UTF8 && (*last & 0xC0) == 0x80)
		last--;
	return (IS_HIGHBIT_SET(s.ptr[0]) && wide_len(s.ptr, s.len) == 0) ||
		(IS_HIGHBIT_SET(*last) && wide_len(last, s.ptr + s.len - last) == 0);
}

ContactEmailStatus
contact_email_parse(StrView address, StrView *canonical)
{
	StrView		s = contact_text_clean(address);
	Mailbox		m;
	ContactEmailStatus status;
	char	   *text;

	*canonical = strview(NULL, 0);
	if (s.len == 0 || s.len > SPELLED_MAX)
		return CONTACT_EMAIL_INVALID;
	if (read_mailbox(s, false, &m))
		status = has_outer_blank(address) ? CONTACT_EMAIL_REPAIRED :
			m.unusual ? CONTACT_EMAIL_UNUSUAL : CONTACT_EMAIL_VALID;
	else if (read_mailbox(strip(s), true, &m))
		status = CONTACT_EMAIL_REPAIRED;
	else
		return CONTACT_EMAIL_INVALID;

	text = palloc(m.len);
	memcpy(text, m.text, m.len);
	*canonical = strview(text, m.len);
	return status;
}

static bool
is_mailbox(StrView s)
{
	Mailbox		m;

	return read_mailbox(s, false, &m);
}

/*
 * Whether an address is one at the first look, as nearly all are: words of
 * ASCII between dots, and labels, the last of which has a letter.  Such a one
 * is kept as it is, but for capitals in its domain.
 */
static bool
is_usual(StrView s, bool *capitals, bool *domain_capitals)
{
	const char *p = s.ptr;
	const char *end = s.ptr + s.len;
	const char *at;
	const char *label;
	bool		upper = false;
	bool		letter = false;

	*capitals = *domain_capitals = false;
	if (s.len > ADDRESS_MAX)
		return false;
	for (; p < end && *p != '@'; p++)
	{
		uint8		c = address_chars[(uint8) *p];

		if (!(c & (ADDRESS_ALNUM | ADDRESS_LOCAL)) &&
			(*p != '.' || p == s.ptr || p[-1] == '.'))
			return false;
		upper |= (c & ADDRESS_UPPER) != 0;
	}
	if (p == end || p == s.ptr || p - s.ptr > LOCAL_MAX || p[-1] == '.')
		return false;
	*capitals = upper;
	upper = false;
	at = p;
	for (label = ++p; p < end; p++)
	{
		uint8		c = address_chars[(uint8) *p];

		if (c & ADDRESS_ALNUM)
		{
			upper |= (c & ADDRESS_UPPER) != 0;
			letter |= *p > '9';
			continue;
		}
		if (p == label || (*p != '-' && (*p != '.' || p[-1] == '-')))
			return false;
		if (*p == '-')
			letter = true;
		else
		{
			if (p - label > LABEL_MAX)
				return false;
			label = p + 1;
			letter = false;
		}
	}
	*domain_capitals = upper;
	*capitals |= upper;
	return label > at + 1 && p > label && p - label <= LABEL_MAX && p[-1] != '-' && letter;
}

/* s with ASCII letters from "from" on in lower case, in a copy. */
static StrView
lower_from(StrView s, int from)
{
	char	   *text = palloc(s.len);

	memcpy(text, s.ptr, from);
	for (int i = from; i < s.len; i++)
		text[i] = pg_ascii_tolower(s.ptr[i]);
	return strview(text, s.len);
}

void
contact_email_forms(StrView address, StrView *kept, StrView *key)
{
	bool		capitals;
	bool		domain_capitals;

	if (address.len > 0 && is_usual(address, &capitals, &domain_capitals))
	{
		*key = capitals ? lower_from(address, 0) : address;
		*kept = domain_capitals ?
			lower_from(address, (const char *) memchr(address.ptr, '@', address.len) - address.ptr) : address;
	}
	else if (contact_email_parse(address, kept) == CONTACT_EMAIL_INVALID)
	{
		*kept = contact_text_clean(address);
		*key = strview(NULL, 0);
	}
	else
	{
		*key = contact_fold(*kept, CONTACT_FOLD_SIMPLE);
		/* a key is an address too; small letters may have more octets */
		if (key->len > kept->len && !is_mailbox(*key))
			*key = contact_text_clean(lower_from(*kept, 0));
	}
}

StrView
contact_email_key(StrView address)
{
	StrView		kept;
	StrView		key;

	contact_email_forms(address, &kept, &key);
	return key;
}

/* ---- SQL ---- */

#ifndef FRONTEND

PG_FUNCTION_INFO_V1(contact_email_normalize);
PG_FUNCTION_INFO_V1(contact_email_status);

/* Providers that deliver name+anything@ to name@. */
static const char *const plus_domains[] = {
	"fastmail.com", "gmail.com", "hotmail.com", "icloud.com", "live.com", "mac.com",
	"me.com", "outlook.com", "pm.me", "proton.me", "protonmail.com"
};

/* The mailbox behind a canonical address, by what its provider promises. */
static StrView
resolve_alias(StrView s)
{
	const char *domain = (const char *) memchr(s.ptr, '@', s.len) + 1;
	int			local = domain - s.ptr - 1;
	int			domain_len = s.len - local - 1;
	const char *plus;
	bool		known = false;
	bool		gmail;
	char	   *buf;
	int			n = 0;

	if (s.ptr[0] == '"')
		return s;
	if (domain_len == 14 && memcmp(domain, "googlemail.com", 14) == 0)
	{
		domain = "gmail.com";
		domain_len = strlen(domain);
	}
	for (int i = 0; i < lengthof(plus_domains) && !known; i++)
		known = strlen(plus_domains[i]) == domain_len && memcmp(domain, plus_domains[i], domain_len) == 0;
	if (!known)
		return s;

	gmail = domain_len == 9 && memcmp(domain, "gmail.com", 9) == 0;
	plus = memchr(s.ptr, '+', local);
	if (plus && plus > s.ptr)
		local = plus - s.ptr;
	buf = palloc(local + 1 + domain_len);
	for (int i = 0; i < local; i++)
		if (!gmail || s.ptr[i] != '.')
			buf[n++] = s.ptr[i];
	buf[n++] = '@';
	memcpy(buf + n, domain, domain_len);
	return strview(buf, n + domain_len);
}

static StrView
text_view(text *t)
{
	return strview(VARDATA_ANY(t), VARSIZE_ANY_EXHDR(t));
}

/*
 * normalize_email(text, aliases boolean) -> text
 *		The canonical form, or NULL if it is no address.
 */
Datum
contact_email_normalize(PG_FUNCTION_ARGS)
{
	StrView		canonical;

	if (contact_email_parse(text_view(PG_GETARG_TEXT_PP(0)), &canonical) == CONTACT_EMAIL_INVALID)
		PG_RETURN_NULL();
	if (PG_GETARG_BOOL(1))
		canonical = resolve_alias(canonical);
	PG_RETURN_TEXT_P(cstring_to_text_with_len(canonical.ptr, canonical.len));
}

/*
 * email_status(text) -> text
 */
Datum
contact_email_status(PG_FUNCTION_ARGS)
{
	static const char *const names[] = {
		[CONTACT_EMAIL_INVALID] = "invalid",[CONTACT_EMAIL_REPAIRED] = "repaired",
		[CONTACT_EMAIL_UNUSUAL] = "unusual",[CONTACT_EMAIL_VALID] = "valid"
	};
	StrView		canonical;

	PG_RETURN_TEXT_P(cstring_to_text(names[contact_email_parse(text_view(PG_GETARG_TEXT_PP(0)), &canonical)]));
}

#endif							/* !FRONTEND */
