/*
 * contact_phone.c
 *		Reading telephone numbers.
 *
 * The steps are those of Google's libphonenumber, whose metadata this goes by,
 * so that a number means here what it means to everybody who uses that:
 *
 *	1. The text is folded: every character becomes one byte, digits of any
 *	   script are digits, dashes of any kind are dashes, marks nobody sees are
 *	   gone.  All later steps look at that.
 *	2. What can be a number is cut out of it, and the extension off it.
 *	3. A country code is taken off: after a plus or an IDD prefix, or without
 *	   either, where that makes a number of the region out of what is none.
 *	4. A national prefix is taken off or replaced, as the plan says.
 *	5. What is left is held against the lengths and the ranges of the plan.
 *
 * It differs where a wrong answer would do harm to a directory: a number that
 * was guessed out of letters counts only if it is valid, and one that can only
 * be dialled locally is no number at all.
 *
 * Every step is linear in a text of at most CONTACT_PHONE_MAX_INPUT bytes; the
 * programs that match prefixes have no loops, so their cost does not depend on
 * the text.
 */
#ifndef FRONTEND
#include "postgres.h"
#else
#include "postgres_fe.h"
#endif

#include "contact/contact_phone.h"

#define MIN_NATIONAL	2
#define MAX_NATIONAL	17

/* The folded text; what is not in ASCII and has no meaning here is NOISE. */
#define NOISE			'\x7F'
#define CYR_BE			'\x01'
#define CYR_VE			'\x02'
#define CYR_DE			'\x03'
#define CYR_EN			'\x04'
#define CYR_O			'\x05'
#define CYR_PE			'\x0E'

/* Kinds of characters that a folded text may have, as bits. */
#define HAS_LETTER		0x01	/* Cyrillic ones too */
#define HAS_SLASH		0x02	/* backslashes too */
#define HAS_MARK		0x04	/* of an extension or of a parameter: ; , # ~ */

typedef struct PhoneText
{
	int			len;
	uint8		has;			/* HAS_*; whoever cuts it may leave too many */
	char		s[CONTACT_PHONE_MAX_INPUT + 1];
} PhoneText;

typedef struct PhoneDigits
{
	int			len;
	char		d[CONTACT_PHONE_MAX_INPUT + 1];
} PhoneDigits;

static inline bool
is_digit(char c)
{
	return c >= '0' && c <= '9';
}

/* Letters are in lower case here. */
static inline bool
is_letter(char c)
{
	return c >= 'a' && c <= 'z';
}

/* What may stand between digits; an x may stand for a carrier's code. */
static inline bool
is_punctuation(char c)
{
	switch (c)
	{
		case '-':
		case ' ':
		case '(':
		case ')':
		case '[':
		case ']':
		case '.':
		case '/':
		case '~':
		case 'x':
			return true;
		default:
			return false;
	}
}

static inline bool
is_blank(char c)
{
	return c == ' ' || c == '\t';
}

/*
 * Step 1: folding
 */

/* The digit zero of every script in the basic plane that has decimal digits. */
static const uint16 zeros[] = {
	0x0660, 0x06F0, 0x07C0, 0x0966, 0x09E6, 0x0A66, 0x0AE6, 0x0B66, 0x0BE6,
	0x0C66, 0x0CE6, 0x0D66, 0x0DE6, 0x0E50, 0x0ED0, 0x0F20, 0x1040, 0x1090,
	0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40,
	0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10
};

/* A character outside ASCII, folded; '\0' if it is as good as not there. */
static char
fold_char(uint32 c)
{
	for (int i = 0; i < lengthof(zeros); i++)
		if (c >= zeros[i] && c < (uint32) zeros[i] + 10)
			return '0' + (c - zeros[i]);
	if (c >= 0x1D7CE && c <= 0x1D7FF)	/* mathematical digits */
		return '0' + (c - 0x1D7CE) % 10;
	if (c >= 0xFF01 && c <= 0xFF5E) /* full width */
	{
		c -= 0xFF01 - '!';
		return c >= 'A' && c <= 'Z' ? c + ('a' - 'A') : c;
	}
	if ((c >= 0x2010 && c <= 0x2015) || c == 0x2212 || c == 0x30FC)
		return '-';
	if (c == 0x00A0 || c == 0x3000 || (c >= 0x2000 && c <= 0x200A) || c == 0x202F || c == 0x205F)
		return ' ';
	if (c == 0x2053 || c == 0x223C)
		return '~';
	/* soft hyphen, acute accent; joiners, direction and byte order marks */
	if (c == 0x00AD || c == 0x0301 || c == 0x061C || c == 0xFEFF ||
		(c >= 0x200B && c <= 0x200F) || (c >= 0x202A && c <= 0x202E) ||
		(c >= 0x2060 && c <= 0x2069))
		return '\0';

	if (c == 0x00D3 || c == 0x00F3) /* extensión */
		return 'o';
	switch (c >= 0x0410 && c <= 0x042F ? c + 0x20 : c)
	{
		case 0x0431:
			return CYR_BE;
		case 0x0432:
			return CYR_VE;
		case 0x0434:
			return CYR_DE;
		case 0x043D:
			return CYR_EN;
		case 0x043E:
			return CYR_O;
		case 0x043F:
			return CYR_PE;
	}
	return NOISE;
}

/* Decode one character; of what is not UTF-8, one byte, as noise. */
static int
decode(const unsigned char *s, int len, uint32 *c)
{
	static const uint32 smallest[] = {0, 0, 0x80, 0x800, 0x10000};
	int			n = s[0] < 0xC2 ? 0 : s[0] < 0xE0 ? 2 : s[0] < 0xF0 ? 3 : s[0] < 0xF5 ? 4 : 0;

	*c = 0xFFFD;
	if (n == 0 || n > len)
		return 1;
	*c = s[0] & (0xFF >> (n + 1));
	for (int i = 1; i < n; i++)
	{
		if ((s[i] & 0xC0) != 0x80)
		{
			*c = 0xFFFD;
			return 1;
		}
		*c = *c << 6 | (s[i] & 0x3F);
	}
	if (*c < smallest[n])
		*c = 0xFFFD;
	return n;
}

static inline uint8
has_kind(char folded)
{
	if (is_digit(folded))
		return 0;
	if (is_letter(folded) || (folded > '\0' && folded < '\t') || folded == CYR_PE)
		return HAS_LETTER;
	if (folded == '/' || folded == '\\')
		return HAS_SLASH;
	return folded == ';' || folded == ',' || folded == '#' || folded == '~' ? HAS_MARK : 0;
}

static void
fold(const char *s, int len, bool utf8, PhoneText *t)
{
	t->len = 0;
	t->has = 0;
	for (int i = 0; i < len;)
	{
		unsigned char b = s[i];
		char		folded;

		if (b < 0x80)
		{
			i++;
			folded = b >= 'A' && b <= 'Z' ? b + ('a' - 'A') :
				b == '\t' || (b >= ' ' && b < 0x7F) ? b : NOISE;
		}
		else if (!utf8)
		{
			i++;
			folded = b == 0xA0 ? ' ' : NOISE;
		}
		else
		{
			uint32		c;

			i += decode((const unsigned char *) s + i, len - i, &c);
			folded = fold_char(c);
			if (folded == '\0')
				continue;
		}
		t->s[t->len++] = folded;
		t->has |= has_kind(folded);
	}
	t->s[t->len] = '\0';
}

/*
 * Step 2: what can be a number, and its extension
 */

static void
keep(PhoneText *t, int from, int to)
{
	memmove(t->s, t->s + from, to - from);
	t->len = to - from;
	t->s[t->len] = '\0';
}

/* What spreadsheets make of long numbers: 4.42E+11.  The rest is lost. */
static bool
is_scientific(const PhoneText *t)
{
	const char *p = t->s;

	while (*p && !is_digit(*p))
		p++;
	if (!is_digit(*p++) || (*p != '.' && *p != ','))
		return false;
	for (p++; is_digit(*p); p++)
		;
	if (*p++ != 'e')
		return false;
	if (*p == '+' || *p == '-')
		p++;
	if (!is_digit(*p))
		return false;
	while (is_digit(*p))
		p++;
	while (*p && !is_digit(*p) && !is_letter(*p))
		p++;
	return *p == '\0';
}

/*
 * A local number in a tel: URI with its context (RFC 3966) as one number.
 * False if the context is none.
 */
static bool
join_context(PhoneText *t)
{
	static const char mark[] = ";phone-context=";
	const char *at = strstr(t->s, mark);
	const char *number = t->s;
	const char *scheme;
	const char *context;
	PhoneText	joined;
	int			n;
	bool		digits = false;

	if (at == NULL)
		return true;
	while ((scheme = strstr(number, "tel:")) != NULL && scheme < at)
		number = scheme + 4;
	context = at + strlen(mark);
	n = strcspn(context, ";");

	joined.len = 0;
	if (context[0] == '+')
	{
		for (int i = 1; i < n; i++)
		{
			if (!is_digit(context[i]) && !strchr("-.()", context[i]))
				return false;
			digits |= is_digit(context[i]);
		}
		if (!digits)
			return false;
		memcpy(joined.s, context, n);
		joined.len = n;
	}
	else
	{
		/* a domain says only whose number it is */
		for (int i = 0; i < n; i++)
			if (!is_digit(context[i]) && !is_letter(context[i]) && context[i] != '-' && context[i] != '.')
				return false;
		if (n == 0)
			return false;
	}
	memcpy(joined.s + joined.len, number, at - number);
	joined.len += at - number;
	context += n;
	if (strncmp(context, ";ext=", 5) == 0)
	{
		n = 5 + strspn(context + 5, "0123456789");
		memcpy(joined.s + joined.len, context, n);
		joined.len += n;
	}
	joined.s[joined.len] = '\0';
	joined.has = t->has;
	*t = joined;
	return true;
}

/*
 * Cut off what stands around a number, and a second number after a slash.
 * *lead bytes stood before it, what was after it begins at *rest.
 */
static void
cut_number(PhoneText *t, int *lead, int *rest)
{
	int			from = 0;
	int			to = t->len;
	const char *isub;

	while (from < to && t->s[from] != '+' && !is_digit(t->s[from]))
		from++;
	while (to > from && !is_digit(t->s[to - 1]) && !is_letter(t->s[to - 1]) && t->s[to - 1] != '#')
		to--;
	for (int i = from; i < to && (t->has & HAS_SLASH); i++)
	{
		int			x = i + 1;

		if (t->s[i] != '/' && t->s[i] != '\\')
			continue;
		while (x < to && t->s[x] == ' ')
			x++;
		if (x < to && t->s[x] == 'x' && !is_letter(t->s[x + 1]))
		{
			to = i;
			break;
		}
	}
	keep(t, from, to);
	isub = t->has & HAS_MARK ? strstr(t->s, ";isub=") : NULL;
	if (isub != NULL && isub > t->s)
		keep(t, 0, isub - t->s);
	*lead = from;
	*rest = to;
}

/* Words for an extension, how many digits may follow, and what may precede. */
typedef struct ExtensionMark
{
	const char *word;
	int			digits;
	enum
	{
		AFTER_NOTHING,
		AFTER_BLANKS,
		AFTER_COMMAS,			/* right before it, blanks before those */
		AFTER_BOTH				/* blanks and commas in any order */
	}			after;
} ExtensionMark;

static const ExtensionMark marks[] = {
	{";ext=", 20, AFTER_NOTHING},
	{"ext", 20, AFTER_BOTH}, {"xt", 20, AFTER_BOTH},
	{"extn", 20, AFTER_BOTH}, {"xtn", 20, AFTER_BOTH},
	{"extension", 20, AFTER_BOTH}, {"xtension", 20, AFTER_BOTH},
	{"extensio", 20, AFTER_BOTH}, {"xtensio", 20, AFTER_BOTH},
	{"anexo", 20, AFTER_BOTH}, {"ramal", 20, AFTER_BOTH},
	{"interno", 20, AFTER_BOTH}, {"poste", 20, AFTER_BOTH},
	{"p.w", 20, AFTER_BOTH}, {"wew", 20, AFTER_BOTH}, {"wewn", 20, AFTER_BOTH},
	{"\x03\x05\x01", 20, AFTER_BOTH},	/* dob, Cyrillic: DE O BE */
	{"\x03\x05\x0E", 20, AFTER_BOTH},	/* dop: DE O PE */
	{"\x02\x04", 20, AFTER_BOTH},	/* vn: VE EN */
	{"x", 9, AFTER_BOTH}, {"#", 9, AFTER_BOTH}, {"~", 9, AFTER_BOTH},
	{"int", 9, AFTER_BOTH},
	{";", 15, AFTER_BLANKS}, {",,", 15, AFTER_COMMAS}, {",", 9, AFTER_COMMAS}
};

typedef struct Extension
{
	int			start;			/* of all that is not the number */
	int			mark;			/* where its mark begins, at the latest */
	int			from;			/* the digits */
	int			len;
} Extension;

/* Take the marks that end before "end" into account. */
static void
try_marks(const PhoneText *t, int end, Extension *e)
{
	for (int i = 0; i < lengthof(marks); i++)
	{
		int			n = strlen(marks[i].word);
		int			start = end - n;
		bool		commas = marks[i].after == AFTER_BOTH;

		if (start < 0 || e->len > marks[i].digits || memcmp(t->s + start, marks[i].word, n) != 0)
			continue;
		e->mark = Max(e->mark, start);
		if (marks[i].after == AFTER_COMMAS)
			while (start > 0 && t->s[start - 1] == ',')
				start--;
		if (marks[i].after != AFTER_NOTHING)
			while (start > 0 && (is_blank(t->s[start - 1]) || (commas && t->s[start - 1] == ',')))
				start--;
		e->start = Min(e->start, start);
	}
}

/*
 * The extension at the end of the text: digits, a mark before them, blanks and
 * commas around that.  Several marks may fit ("ext" and "xt", or commas before
 * it): what begins first counts.
 */
static bool
find_extension(const PhoneText *t, Extension *e)
{
	int			to = t->len;
	int			at;
	int			comma = 0;
	int			commas = 0;
	bool		hash = to > 0 && t->s[to - 1] == '#';

	to -= hash;
	for (e->from = to; e->from > 0 && is_digit(t->s[e->from - 1]); e->from--)
		;
	e->len = to - e->from;
	e->start = t->len;
	e->mark = -1;
	if (e->len == 0 || e->len > CONTACT_PHONE_MAX_EXTENSION)
		return false;

	/*
	 * Back over what separates the mark from the digits.  Of commas, which
	 * may be both, the first ones are the mark.
	 */
	for (at = e->from; at > 0 && (is_blank(t->s[at - 1]) || t->s[at - 1] == ',' || t->s[at - 1] == '-'); at--)
	{
		if (t->s[at - 1] == ',')
		{
			comma = at;
			if (at < e->from && t->s[at] == ',')
				commas = at + 1;
		}
	}
	if (comma > 0)
		try_marks(t, comma, e);
	if (commas > 0)
		try_marks(t, commas, e);
	try_marks(t, at, e);
	if (at > 0 && (t->s[at - 1] == '.' || t->s[at - 1] == ':'))
		try_marks(t, at - 1, e);

	/* the American way: 555-0100 - 12# */
	if (hash && e->len <= 6)
	{
		for (at = e->from; at > 0 && (t->s[at - 1] == ' ' || t->s[at - 1] == '-'); at--)
			;
		if (at < e->from)
		{
			e->start = Min(e->start, at);
			e->mark = Max(e->mark, e->from - 1);
		}
	}
	return e->mark >= 0;
}

/*
 * Can it be a number?  At least three digits with nothing but punctuation
 * between them, then letters too, then perhaps an extension; or two digits.
 */
static bool
is_viable(const PhoneText *t, int len, const Extension *e)
{
	int			i = 0;
	int			ndigits = 0;

	if (len == 2 && is_digit(t->s[0]) && is_digit(t->s[1]))
		return true;
	while (i < len && t->s[i] == '+')
		i++;
	for (; i < len && ndigits < 3; i++)
	{
		if (is_digit(t->s[i]))
			ndigits++;
		else if (!is_punctuation(t->s[i]) && t->s[i] != '*')
			return false;
	}
	if (ndigits < 3 || (e && e->mark < i))
		return false;
	for (; i < len; i++)
		if (!is_digit(t->s[i]) && !is_punctuation(t->s[i]) && t->s[i] != '*' && !is_letter(t->s[i]))
			return e != NULL && e->start <= i;
	return true;
}

/* Cut the extension off; false if the text can't be a number. */
static bool
cut_extension(PhoneText *t, ContactPhone *phone)
{
	Extension	e;

	if (!(t->has & (HAS_LETTER | HAS_MARK)) || !find_extension(t, &e))
		return is_viable(t, t->len, NULL);
	if (!is_viable(t, t->len, NULL) && !is_viable(t, t->len, &e))
		return false;
	if (!is_viable(t, e.start, NULL))
		return true;
	memcpy(phone->extension, t->s + e.from, e.len);
	phone->extension[e.len] = '\0';
	phone->extension_len = e.len;
	keep(t, 0, e.start);
	return true;
}

/*
 * The digits of a text.  Three letters make it a vanity number, whose letters
 * are the digits on their keys; fewer mean nothing.
 */
static bool
take_digits(const PhoneText *t, int from, PhoneDigits *n)
{
	static const char keys[] = "22233344455566677778889999";
	int			letters = 0;
	int			xs = 0;

	for (int i = from; i < t->len && (t->has & HAS_LETTER); i++)
	{
		letters += is_letter(t->s[i]);
		xs += t->s[i] == 'x';
	}
	n->len = 0;
	for (int i = from; i < t->len; i++)
	{
		if (is_digit(t->s[i]))
			n->d[n->len++] = t->s[i];
		else if (letters >= 3 && is_letter(t->s[i]))
			n->d[n->len++] = keys[t->s[i] - 'a'];
	}
	return letters > xs || letters >= 3;
}

/*
 * The tables
 */

static bool
automaton_accepts(int state, const char *d, int len)
{
	for (int i = 0; i < len; i++)
	{
		int			e = contact_phone_states[state];
		int			end = contact_phone_states[state + 1];
		uint32		bit = 1U << (d[i] - '0');

		while (e < end && !(contact_phone_edges[e] & bit))
			e++;
		if (e == end)
			return false;
		state = contact_phone_edges[e] >> 10;
	}
	return state < contact_phone_naccepting;
}

/*
 * Run a program from position "at" on: where its match ends, or -1.  Slots get
 * the borders of groups.  Recursion is as deep as the program has splits on a
 * path, a few dozen.
 */
static int
run_program(const uint16 *pc, const char *d, int len, int at, int *slots)
{
	for (;; pc++)
	{
		int			arg = CPO_ARG(*pc);
		int			end;

		switch ((ContactPhoneOp) CPO_OF(*pc))
		{
			case CPO_MATCH:
				return at;
			case CPO_DIGIT:
				if (at == len || !(arg & 1 << (d[at] - '0')))
					return -1;
				at++;
				break;
			case CPO_SPLIT:
				end = run_program(pc + 1, d, len, at, slots);
				if (end >= 0)
					return end;
				pc += arg - 1;
				break;
			case CPO_JUMP:
				pc += arg - 1;
				break;
			case CPO_SAVE:
				{
					int			old = slots[arg];

					slots[arg] = at;
					end = run_program(pc + 1, d, len, at, slots);
					if (end < 0)
						slots[arg] = old;
					return end;
				}
			case CPO_END:
				if (at < len)
					return -1;
				break;
		}
	}
}

static inline const ContactPhoneCode *
find_code(int calling)
{
	int			n = contact_phone_code_numbers[calling];

	return n > 0 ? &contact_phone_codes[n - 1] : NULL;
}

static inline bool
length_possible(const ContactPhoneRegion *r, int len)
{
	return len <= MAX_NATIONAL && (r->lengths >> len & 1);
}

static inline bool
length_excessive(const ContactPhoneRegion *r, int len)
{
	return len > MAX_NATIONAL || r->lengths >> len == 0;
}

int
contact_phone_region(const char *code, int len)
{
	char		upper[2];
	int			low = 0;
	int			high = contact_phone_nregions;

	if (len != 2)
		return CONTACT_PHONE_BAD_REGION;
	for (int i = 0; i < 2; i++)
		upper[i] = code[i] >= 'a' && code[i] <= 'z' ? code[i] - ('a' - 'A') : code[i];
	while (low < high)
	{
		int			middle = (low + high) / 2;
		int			c = memcmp(contact_phone_regions[middle].code, upper, 2);

		if (c == 0)
			return middle;
		if (c < 0)
			low = middle + 1;
		else
			high = middle;
	}
	for (const char *p = contact_phone_planless; *p; p += p[2] ? 3 : 2)
		if (memcmp(p, upper, 2) == 0)
			return CONTACT_PHONE_NO_REGION;
	return CONTACT_PHONE_BAD_REGION;
}

/*
 * Steps 3 and 4: country code and national prefix
 */

/*
 * Take the national prefix off, or put what the plan says in its place, unless
 * that makes what is no number of the country out of one.
 */
static void
strip_national_prefix(PhoneDigits *n, const ContactPhoneRegion *r)
{
	int			slots[2 * (CONTACT_PHONE_MAX_GROUPS + 1)];
	const char *rule = contact_phone_transforms[r->transform];
	PhoneDigits stripped;
	int			end;

	if (r->prefix == 0 || n->len == 0)
		return;
	memset(slots, -1, sizeof(slots));
	end = run_program(contact_phone_programs + r->prefix, n->d, n->len, 0, slots);
	if (end < 0)
		return;

	/* nothing takes its place, or what took part in the last group says so */
	if (r->groups == 0 || slots[2 * r->groups + 1] <= slots[2 * r->groups])
		rule = "";
	stripped.len = 0;
	for (; *rule; rule++)
	{
		if (*rule == '$')
		{
			int			group = *++rule - '0';
			int			len = slots[2 * group + 1] - slots[2 * group];

			if (len > 0)
				memcpy(stripped.d + stripped.len, n->d + slots[2 * group], len);
			stripped.len += Max(len, 0);
		}
		else
			stripped.d[stripped.len++] = *rule;
	}
	if (stripped.len + n->len - end > CONTACT_PHONE_MAX_INPUT)
		return;
	memcpy(stripped.d + stripped.len, n->d + end, n->len - end);
	stripped.len += n->len - end;

	if (automaton_accepts(r->general, n->d, n->len) &&
		!automaton_accepts(r->general, stripped.d, stripped.len))
		return;
	memcpy(n->d, stripped.d, stripped.len);
	n->len = stripped.len;
}

static void
drop_digits(PhoneDigits *n, int count)
{
	n->len -= count;
	memmove(n->d, n->d + count, n->len);
}

/* Take the country code off a number that begins with one; NULL if none. */
static const ContactPhoneCode *
strip_code(PhoneDigits *n)
{
	int			calling = 0;

	if (n->len <= MIN_NATIONAL || n->d[0] == '0')
		return NULL;
	for (int i = 0; i < 3 && i < n->len; i++)
	{
		const ContactPhoneCode *code;

		calling = 10 * calling + (n->d[i] - '0');
		code = find_code(calling);
		if (code)
		{
			drop_digits(n, i + 1);
			return code;
		}
	}
	return NULL;
}

/* Take the region's IDD prefix off. */
static bool
strip_idd(PhoneDigits *n, const ContactPhoneRegion *r)
{
	int			slots[2 * (CONTACT_PHONE_MAX_GROUPS + 1)];
	int			end;

	if (r->idd == 0)
		return false;
	end = run_program(contact_phone_programs + r->idd, n->d, n->len, 0, slots);
	/* no country code begins with 0 */
	if (end < 0 || (end < n->len && n->d[end] == '0'))
		return false;
	drop_digits(n, end);
	return true;
}

/*
 * The country code that a number without a plus begins with.  NULL if it has
 * none, and then *bad tells whether it should have one.
 */
static const ContactPhoneCode *
strip_dialled_code(PhoneDigits *n, const ContactPhoneRegion *r, bool *bad)
{
	PhoneDigits full = *n;
	PhoneDigits national = *n;
	const ContactPhoneCode *code;

	*bad = false;
	if (strip_idd(n, r))
	{
		code = strip_code(n);
		*bad = code == NULL;
		return code;
	}

	code = strip_code(&national);
	if (code == NULL || code->calling != r->calling)
		return NULL;
	strip_national_prefix(&national, r);
	if ((!automaton_accepts(r->general, full.d, full.len) &&
		 automaton_accepts(r->general, national.d, national.len)) ||
		length_excessive(r, full.len))
	{
		*n = national;
		return code;
	}
	return NULL;
}

/*
 * The national number of n, in its place, its country code, and whether it is
 * valid; NULL if there is none.  r is the region's plan, or NULL.
 */
static const ContactPhoneCode *
to_national(PhoneDigits *n, bool plus, const ContactPhoneRegion *r, bool *valid)
{
	const ContactPhoneCode *code = NULL;
	const ContactPhoneRegion *plan = r;
	PhoneDigits stripped;

	if (plus)
		code = strip_code(n);
	if (code == NULL)
	{
		bool		bad;

		/* a plus before what is dialled, "+0044...", as good as none */
		if (r == NULL || (plus && n->len <= MIN_NATIONAL))
			return NULL;
		code = strip_dialled_code(n, r, &bad);
		if (bad || (plus && code == NULL))
			return NULL;
	}
	if (code == NULL)
		code = find_code(r->calling);
	else if (r == NULL || code->calling != r->calling || &contact_phone_regions[code->region] != r)
		plan = &contact_phone_regions[code->region];
	if (n->len < MIN_NATIONAL)
		return NULL;

	/* E.164 is taken as it is */
	*valid = plus && automaton_accepts(code->valid, n->d, n->len);
	if (!*valid)
	{
		stripped = *n;
		strip_national_prefix(&stripped, plan);
		if (length_possible(plan, stripped.len) || length_excessive(plan, stripped.len))
			*n = stripped;
		*valid = automaton_accepts(code->valid, n->d, n->len);
	}
	return n->len >= MIN_NATIONAL && n->len <= MAX_NATIONAL ? code : NULL;
}

/* Nothing but digits, separators and quotes, a plus only in front of digits? */
static bool
is_plain(const char *s, int len)
{
	bool		digits = false;

	for (int i = 0; i < len; i++)
	{
		char		c = s[i];

		if (is_digit(c))
			digits = true;
		else if (is_letter(c) || (c < ' ' && c != '\t') || c == NOISE || c == ',' || c == ';' ||
				 c == '*' || c == '#' || (c == '+' && digits))
			return false;
	}
	return true;
}

/*
 * The E.164 form of a possible number must read as itself, or the number would
 * have two identities.  A plan may leave what looks like a national prefix in
 * its place, and the plan that E.164 is read by, that of the country code, take
 * it off.  Do so until that changes nothing; false if there is no end to it.
 */
static bool
settle(PhoneDigits *n, const ContactPhoneRegion *plan)
{
	for (int i = 0; i < 4; i++)
	{
		PhoneDigits stripped = *n;

		strip_national_prefix(&stripped, plan);
		if ((stripped.len == n->len && memcmp(stripped.d, n->d, n->len) == 0) ||
			!length_possible(plan, stripped.len))
			return true;
		*n = stripped;
	}
	return false;
}

/* Fill in what the digits mean; they stay as dialled if that is nothing. */
static void
set_number(ContactPhone *phone, PhoneDigits *n, bool letters, int region)
{
	const ContactPhoneCode *code;
	const ContactPhoneRegion *plan;
	bool		valid;
	char	   *p = phone->digits;

	memcpy(phone->digits, n->d, n->len);
	phone->digits[n->len] = '\0';
	phone->ndigits = n->len;

	code = to_national(n, phone->plus, region >= 0 ? &contact_phone_regions[region] : NULL, &valid);
	if (code == NULL)
		return;
	plan = &contact_phone_regions[code->region];
	if (valid)
		phone->status = CONTACT_PHONE_VALID;
	else if (!letters && length_possible(plan, n->len) && settle(n, plan))
		phone->status = CONTACT_PHONE_POSSIBLE;
	else
		return;
	if (code->calling >= 100)
		*p++ = '0' + code->calling / 100;
	if (code->calling >= 10)
		*p++ = '0' + code->calling / 10 % 10;
	*p++ = '0' + code->calling % 10;
	memcpy(p, n->d, n->len);
	p[n->len] = '\0';
	phone->ndigits = p + n->len - phone->digits;
}

void
contact_phone_parse(const char *s, int len, int region, bool utf8, ContactPhone *phone)
{
	PhoneText	t;
	PhoneText	number;
	PhoneDigits n;
	bool		viable;
	bool		letters;
	int			lead;
	int			rest;
	int			from = 0;

	phone->status = CONTACT_PHONE_UNPARSED;
	phone->plus = phone->plain = false;
	phone->ndigits = phone->extension_len = 0;
	phone->digits[0] = phone->extension[0] = '\0';
	if (len <= 0 || len > CONTACT_PHONE_MAX_INPUT)
		return;

	fold(s, len, utf8, &t);
	if ((t.has & HAS_LETTER) && (is_scientific(&t) || !join_context(&t)))
		return;
	number = t;
	cut_number(&number, &lead, &rest);
	viable = cut_extension(&number, phone);
	while (from < number.len && number.s[from] == '+')
		from++;
	phone->plus = from > 0;
	letters = take_digits(&number, from, &n);
	phone->plain = n.len > 0 && is_plain(t.s, lead) && is_plain(number.s, number.len) &&
		is_plain(t.s + rest, t.len - rest);
	if (viable)
		set_number(phone, &n, letters, region);
	else
	{
		memcpy(phone->digits, n.d, n.len);
		phone->digits[phone->ndigits = n.len] = '\0';
	}
}
