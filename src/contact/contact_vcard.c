/*
 * contact_vcard.c
 *		Take vCards apart into properties.
 *
 * What real software writes decides here, not the version that a card claims:
 * any line end, byte order marks and UTF-16, folds that cut a character,
 * quoted-printable in any version, bare parameters, base64 without indent,
 * undeclared Windows-1252.  Lines are unfolded as bytes and only then decoded.
 * A line that cannot be read is skipped and counted; a card without its END
 * lasts until the next BEGIN or the end of the input.
 *
 * Every loop is linear in the input and nothing recurses: input is hostile.
 */
#include "postgres.h"

#include "compat.h"
#include "contact/contact_vcard.h"

#define BOM		"\xEF\xBB\xBF"

typedef enum LineKind
{
	LINE_EOF,
	LINE_BEGIN,					/* BEGIN:VCARD */
	LINE_END,					/* END:VCARD */
	LINE_OVER,					/* the card is over its cap */
	LINE_PROPERTY
} LineKind;

typedef enum LineEncoding
{
	ENC_NONE,
	ENC_QUOTED,
	ENC_BASE64
} LineEncoding;

/* A line, unfolded as far as it was read. */
typedef struct Line
{
	StringInfoData text;
	int			colon;			/* where the value's colon is, -1 = not seen */
	int			scanned;		/* how far it was looked for */
	bool		quoted;
	LineEncoding encoding;
} Line;

bool
contact_vcard_is_name(StrView s)
{
	if (s.len <= 0 || s.len > VCARD_MAX_NAME)
		return false;
	for (int i = 0; i < s.len; i++)
		if (!vcard_is_alnum(s.ptr[i]) && s.ptr[i] != '-' && s.ptr[i] != '_')
			return false;
	return true;
}

/* Drop the backslash of what vCard escapes; any other one is text. */
StrView
contact_vcard_unescape(StrView raw)
{
	char	   *buf;
	int			n = 0;

	if (raw.len == 0 || memchr(raw.ptr, '\\', raw.len) == NULL)
		return raw;
	buf = palloc(raw.len);
	for (int i = 0; i < raw.len; i++)
	{
		char		c = raw.ptr[i];

		if (c == '\\' && i + 1 < raw.len)
		{
			char		next = raw.ptr[i + 1];

			if (next == 'n' || next == 'N')
			{
				c = '\n';
				i++;
			}
			else if (strchr(",;:\\", next) != NULL && next != '\0')
			{
				c = next;
				i++;
			}
		}
		buf[n++] = c;
	}
	return strview(buf, n);
}

/* ---- the input as lines ---- */

/*
 * The line at *at, without its end (CRLF, LF, CR, or CRCRLF as a text mode
 * makes of CRLF); *at moves behind it.
 */
static bool
raw_line(VcardReader *r, int *at, StrView *line)
{
	int			i = *at;
	const char *end;

	if (i >= r->len)
		return false;
	if (i < r->lf_from || i > r->lf)
	{
		/* kept, so that lines that end in CR do not look for it each */
		end = memchr(r->ptr + i, '\n', r->len - i);
		r->lf_from = i;
		r->lf = end ? end - r->ptr : r->len;
	}
	end = memchr(r->ptr + i, '\r', r->lf - i);
	i = end ? end - r->ptr : r->lf;
	*line = strview(r->ptr + *at, i - *at);
	if (i < r->len && r->ptr[i++] == '\r')
	{
		if (i + 1 < r->len && r->ptr[i] == '\r' && r->ptr[i + 1] == '\n')
			i++;
		if (i < r->len && r->ptr[i] == '\n')
			i++;
	}
	*at = i;
	return true;
}

static StrView
trim(StrView s)
{
	while (s.len > 0)
	{
		if ((unsigned char) s.ptr[0] <= ' ')
			s = strview(s.ptr + 1, s.len - 1);
		else if (s.len >= 3 && memcmp(s.ptr, BOM, 3) == 0)
			s = strview(s.ptr + 3, s.len - 3);
		else
			break;
	}
	while (s.len > 0 && (unsigned char) s.ptr[s.len - 1] <= ' ')
		s.len--;
	return strview(s.ptr, s.len);
}

/* Is the line "<word>:VCARD"? */
static bool
is_mark(StrView line, const char *word)
{
	int			n = strlen(word);

	/* nearly all lines are told by their first letter */
	if (line.len == 0 || (vcard_is_alnum(line.ptr[0]) && (line.ptr[0] ^ word[0]) & ~0x20))
		return false;
	line = trim(line);
	if (line.len <= n || pg_strncasecmp(line.ptr, word, n) != 0)
		return false;
	line = trim(strview(line.ptr + n, line.len - n));
	if (line.len == 0 || line.ptr[0] != ':')
		return false;
	return contact_vcard_is(trim(strview(line.ptr + 1, line.len - 1)), "VCARD");
}

/* What a header says of its value's encoding. */
static LineEncoding
header_encoding(StrView header)
{
	const char *p = header.ptr;
	const char *end = header.ptr + header.len;

	while (p < end && (p = memchr(p, ';', end - p)) != NULL)
	{
		const char *next = ++p < end ? memchr(p, ';', end - p) : NULL;
		StrView		token = trim(strview(p, (next ? next : end) - p));

		if (token.len > 9 && pg_strncasecmp(token.ptr, "ENCODING=", 9) == 0)
		{
			token = trim(strview(token.ptr + 9, token.len - 9));
			if (contact_vcard_is(token, "B"))
				return ENC_BASE64;
		}
		if (contact_vcard_is(token, "QUOTED-PRINTABLE"))
			return ENC_QUOTED;
		if (contact_vcard_is(token, "BASE64"))
			return ENC_BASE64;
	}
	return ENC_NONE;
}

/* Append without NULs, and look for the end of the header. */
static void
line_append(Line *line, StrView s)
{
	if (s.len > 0 && memchr(s.ptr, '\0', s.len) == NULL)
		appendBinaryStringInfo(&line->text, s.ptr, s.len);
	else
	{
		for (int i = 0; i < s.len; i++)
			if (s.ptr[i] != '\0')
				appendStringInfoCharMacro(&line->text, s.ptr[i]);
	}
	for (; line->colon < 0 && line->scanned < line->text.len; line->scanned++)
	{
		char		c = line->text.data[line->scanned];

		if (c == '"')
			line->quoted = !line->quoted;
		else if (c == ':' && !line->quoted)
		{
			line->colon = line->scanned;
			line->encoding = header_encoding(strview(line->text.data, line->colon));
		}
	}
}

static bool
is_base64_line(StrView s)
{
	s = trim(s);
	for (int i = 0; i < s.len; i++)
		if (!vcard_is_base64(s.ptr[i]) && s.ptr[i] != '=')
			return false;
	return s.len > 0;
}

/*
 * Is the next physical line more of this one?  If so, cut from both what only
 * joins them.
 */
static bool
line_continues(Line *line, StrView *next, int version)
{
	StringInfo	text = &line->text;

	if (line->encoding == ENC_QUOTED && text->len > line->colon + 1 &&
		text->data[text->len - 1] == '=')
	{
		/* a soft break; what stands first on the next line is content */
		if (is_mark(*next, "END") || is_mark(*next, "BEGIN"))
			return false;
		text->data[--text->len] = '\0';
		return true;
	}
	if (next->len > 0 && (next->ptr[0] == ' ' || next->ptr[0] == '\t'))
	{
		/* 2.1 breaks before a blank, which stays, but not all 2.1 does */
		if (version != 21 || line->encoding == ENC_BASE64 ||
			(text->len > 0 && (text->data[text->len - 1] == ' ' || text->data[text->len - 1] == '\t')))
			*next = strview(next->ptr + 1, next->len - 1);
		return true;
	}
	return line->encoding == ENC_BASE64 && is_base64_line(*next);
}

/* Read and unfold a line of a card that may reach up to "limit". */
static LineKind
next_line(VcardReader *r, Line *line, int limit)
{
	StrView		raw;
	int			at;

	if (!raw_line(r, &r->at, &raw))
		return LINE_EOF;
	if (is_mark(raw, "BEGIN"))
		return LINE_BEGIN;
	if (is_mark(raw, "END"))
		return LINE_END;
	resetStringInfo(&line->text);
	line->colon = -1;
	line->scanned = 0;
	line->quoted = false;
	line->encoding = ENC_NONE;
	for (;;)
	{
		if (r->at > limit)
			return LINE_OVER;
		line_append(line, raw);
		at = r->at;
		if (!raw_line(r, &at, &raw) || !line_continues(line, &raw, r->version))
			return LINE_PROPERTY;
		r->at = at;
	}
}

/* ---- a line as a property ---- */

/* Line ends that are content, as escapes: a value is one line. */
static StrView
escape_lines(StrView s)
{
	char	   *buf;
	int			n = 0;

	if (s.len == 0 || (memchr(s.ptr, '\n', s.len) == NULL && memchr(s.ptr, '\r', s.len) == NULL))
		return s;
	buf = palloc(2 * (Size) s.len);
	for (int i = 0; i < s.len; i++)
	{
		if (s.ptr[i] == '\r' && i + 1 < s.len && s.ptr[i + 1] == '\n')
			continue;
		if (s.ptr[i] == '\r' || s.ptr[i] == '\n')
		{
			buf[n++] = '\\';
			buf[n++] = 'n';
		}
		else
			buf[n++] = s.ptr[i];
	}
	return strview(buf, n);
}

static StrView
copy_case(StrView s, bool upper)
{
	char	   *buf = palloc(s.len + 1);

	for (int i = 0; i < s.len; i++)
		buf[i] = upper ? pg_ascii_toupper((unsigned char) s.ptr[i])
			: pg_ascii_tolower((unsigned char) s.ptr[i]);
	return strview(buf, s.len);
}

/* RFC 6868: ^n, ^^ and ^' in a parameter. */
static StrView
decode_caret(StrView s)
{
	char	   *buf;
	int			n = 0;

	if (s.len == 0 || memchr(s.ptr, '^', s.len) == NULL)
		return s;
	buf = palloc(s.len);
	for (int i = 0; i < s.len; i++)
	{
		char		next = i + 1 < s.len ? s.ptr[i + 1] : '\0';

		if (s.ptr[i] == '^' && (next == 'n' || next == '^' || next == '\''))
		{
			buf[n++] = next == 'n' ? '\n' : next == '^' ? '^' : '"';
			i++;
		}
		else
			buf[n++] = s.ptr[i];
	}
	return strview(buf, n);
}

static bool
add_param(VcardProperty *prop, StrView name, StrView value)
{
	VcardParam *param;

	if (prop->nparams == VCARD_MAX_PARAMS)
		return false;
	param = &prop->params[prop->nparams++];
	param->name = name;
	param->value = value;
	return true;
}

/* A parameter's values, from *p on; *p moves to the semicolon or the end. */
static bool
parse_values(VcardProperty *prop, StrView name, const char **p, const char *end)
{
	bool		is_type = contact_vcard_is(name, "TYPE");

	for (;;)
	{
		const char *start = *p;
		bool		quoted = start < end && *start == '"';
		StrView		value;

		if (quoted)
		{
			start++;
			for (*p = start; *p < end && **p != '"'; (*p)++)
				;
			value = strview(start, *p - start);
			while (*p < end && **p != ',' && **p != ';')
				(*p)++;
		}
		else
		{
			while (*p < end && **p != ',' && **p != ';')
				(*p)++;
			value = strview(start, *p - start);
		}
		/* TYPE="work,voice" is a list nevertheless */
		while (is_type && quoted && value.len > 0)
		{
			const char *comma = memchr(value.ptr, ',', value.len);
			int			n = comma ? comma - value.ptr : value.len;

			if (!add_param(prop, name, decode_caret(strview(value.ptr, n))))
				return false;
			value = strview(value.ptr + n + 1, value.len - n - 1);
		}
		if (!(is_type && quoted) && !add_param(prop, name, decode_caret(value)))
			return false;
		if (*p == end || **p == ';')
			return true;
		(*p)++;
	}
}

/* A parameter of 2.1 is a value alone. */
static StrView
bare_name(StrView value)
{
	static const char *const encodings[] = {"QUOTED-PRINTABLE", "BASE64", "8BIT", "7BIT"};
	static const char *const values[] = {"URL", "URI", "INLINE", "CONTENT-ID"};

	for (int i = 0; i < lengthof(encodings); i++)
		if (contact_vcard_is(value, encodings[i]))
			return strview("ENCODING", 8);
	for (int i = 0; i < lengthof(values); i++)
		if (contact_vcard_is(value, values[i]))
			return strview("VALUE", 5);
	return strview("TYPE", 4);
}

/* "group.NAME;param=value;...": false if it is not of this form. */
static bool
parse_header(StrView header, VcardProperty *prop)
{
	const char *p = header.len > 0 ? memchr(header.ptr, ';', header.len) : NULL;
	const char *end = header.ptr + header.len;
	StrView		name = trim(strview(header.ptr, (p ? p : end) - header.ptr));
	const char *dot = name.len > 0 ? memchr(name.ptr, '.', name.len) : NULL;
	VcardParam	params[VCARD_MAX_PARAMS];

	if (dot)
	{
		StrView		group = strview(name.ptr, dot - name.ptr);

		if (!contact_vcard_is_name(group))
			return false;
		prop->group = copy_case(group, false);
		name = strview(dot + 1, name.ptr + name.len - dot - 1);
	}
	if (!contact_vcard_is_name(name))
		return false;
	prop->name = copy_case(name, true);

	prop->params = params;
	while (p != NULL && p < end)
	{
		const char *start = ++p;
		StrView		token;

		while (p < end && *p != '=' && *p != ';')
			p++;
		token = trim(strview(start, p - start));
		if (p < end && *p == '=')
		{
			p++;
			if (!parse_values(prop, copy_case(token, true), &p, end))
				return false;
		}
		else if (token.len > 0)
		{
			/* a value without a name, as in 2.1 */
			const char *at = token.ptr;

			if (!parse_values(prop, bare_name(token), &at, token.ptr + token.len))
				return false;
		}
	}
	prop->params = palloc(sizeof(VcardParam) * Max(prop->nparams, 1));
	memcpy(prop->params, params, sizeof(VcardParam) * prop->nparams);
	return true;
}

/* Text that is sent as base64 is still text. */
static bool
is_text_property(StrView name)
{
	static const char *const names[] = {
		"N", "FN", "NICKNAME", "ORG", "TITLE", "ROLE", "NOTE", "EMAIL", "TEL",
		"ADR", "LABEL", "CATEGORIES", "URL", "BDAY", "UID"
	};

	for (int i = 0; i < lengthof(names); i++)
		if (contact_vcard_is(name, names[i]))
			return true;
	return false;
}

/* Take out the parameters of the encoding, and tell what they say. */
static LineEncoding
take_encoding(VcardProperty *prop, StrView *charset)
{
	LineEncoding encoding = ENC_NONE;
	int			n = 0;

	for (int i = 0; i < prop->nparams; i++)
	{
		VcardParam *param = &prop->params[i];

		if (contact_vcard_is(param->name, "CHARSET"))
			*charset = trim(param->value);
		else if (contact_vcard_is(param->name, "ENCODING"))
		{
			StrView		value = trim(param->value);

			if (contact_vcard_is(value, "QUOTED-PRINTABLE"))
				encoding = ENC_QUOTED;
			else if (contact_vcard_is(value, "BASE64") || contact_vcard_is(value, "B"))
				encoding = ENC_BASE64;
		}
		else if (contact_vcard_is_name(param->name))
			prop->params[n++] = *param;
	}
	prop->nparams = n;
	return encoding;
}

/* The value's bytes, decoded; false if they cannot be, or are too many. */
static bool
decode_value(const VcardReader *r, StrView value, LineEncoding encoding,
			 StrView charset, VcardProperty *prop)
{
	/* a data: URI is not encoded once more, whatever the header says */
	if (encoding == ENC_BASE64 && value.len > 5 && pg_strncasecmp(value.ptr, "data:", 5) == 0)
		encoding = ENC_NONE;
	if (value.len > (encoding == ENC_QUOTED ? 3 : 1) * VCARD_MAX_VALUE)
		return false;
	if (encoding == ENC_QUOTED)
		value = contact_vcard_decode_quoted(value);
	else if (encoding == ENC_BASE64)
	{
		if (!contact_vcard_clean_base64(value, &value))
			return false;
		prop->base64 = !is_text_property(prop->name);
		if (!prop->base64)
			value = contact_vcard_decode_base64(value);
	}
	if (r->text && encoding == ENC_NONE)
		charset = strview(NULL, 0);
	if (value.len > VCARD_MAX_VALUE || !contact_vcard_decode(&value, charset))
		return false;
	/* a line holds line ends only where it was encoded */
	prop->value = encoding == ENC_NONE && charset.len == 0 ? value : escape_lines(value);
	if (prop->value.ptr == value.ptr && value.len > 0)
		prop->value.ptr = pnstrdup(value.ptr, value.len);	/* was the line's */
	return prop->value.len <= VCARD_MAX_VALUE;
}

static bool
parse_property(const VcardReader *r, const Line *line, VcardProperty *prop)
{
	const char *text = line->text.data;
	int			colon = line->colon;
	StrView		header;
	StrView		charset = {NULL, 0};
	LineEncoding encoding;

	memset(prop, 0, sizeof(*prop));
	if (colon < 0)
	{
		/* a quote that does not end */
		const char *first = memchr(text, ':', line->text.len);

		if (first == NULL)
			return false;
		colon = first - text;
	}
	if (colon > VCARD_MAX_VALUE)
		return false;
	header = strview(pnstrdup(text, colon), colon);
	if (!contact_vcard_decode(&header, charset) || !parse_header(header, prop))
		return false;
	encoding = take_encoding(prop, &charset);
	return decode_value(r, strview(text + colon + 1, line->text.len - colon - 1),
						encoding, charset, prop);
}

/* ---- cards ---- */

/* Go behind the card that an AGENT holds; nested ones are counted, not read. */
static void
skip_nested(VcardReader *r)
{
	int			depth = 1;
	bool		agent = false;
	StrView		line;
	int			at;

	while (depth > 0 && (at = r->at, raw_line(r, &at, &line)))
	{
		if (is_mark(line, "BEGIN"))
		{
			if (!agent)
				return;			/* the END of the outer card is missing */
			if (++depth > VCARD_MAX_NESTING)
				r->limit = true;
		}
		else if (is_mark(line, "END"))
			depth--;
		line = trim(line);
		if (line.len > 0)
			agent = line.len > 5 && pg_strncasecmp(line.ptr, "AGENT", 5) == 0 &&
				line.ptr[line.len - 1] == ':';
		r->at = at;
	}
}

/* Go behind the END of a card that is over its cap. */
static void
skip_card(VcardReader *r)
{
	StrView		line;
	int			at;

	while (at = r->at, raw_line(r, &at, &line))
	{
		if (is_mark(line, "BEGIN"))
			return;
		r->at = at;
		if (is_mark(line, "END"))
			return;
	}
}

static bool
find_begin(VcardReader *r)
{
	StrView		line;

	while (raw_line(r, &r->at, &line))
		if (is_mark(line, "BEGIN"))
			return true;
	return false;
}

/* Does this AGENT hold a card in its value?  *open if it goes on behind it. */
static bool
agent_has_card(const VcardProperty *prop, bool *open)
{
	StrView		value = trim(contact_vcard_unescape(prop->value));

	*open = false;
	if (value.len < 11 || pg_strncasecmp(value.ptr, "BEGIN:VCARD", 11) != 0)
		return false;
	*open = value.len == 11;
	return true;
}

static void
start_card(VcardReader *r)
{
	r->skipped = 0;
	r->limit = false;
	r->version = 0;
	r->uid = r->kind = strview(NULL, 0);
	r->rev = PG_INT64_MIN;
}

/* How far a card may reach that begins here. */
static int
card_limit(const VcardReader *r)
{
	return r->len - r->at > VCARD_MAX_CARD ? r->at + VCARD_MAX_CARD : r->len;
}

static void
note_version(VcardReader *r, StrView value)
{
	value = trim(value);
	r->version = contact_vcard_is(value, "2.1") ? 21 :
		contact_vcard_is(value, "3.0") ? 30 :
		contact_vcard_is(value, "4.0") ? 40 : 0;
}

/*
 * Read one property into the array.  True if a nested card begins behind it;
 * *empty_agent if one may.
 */
static bool
read_property(VcardReader *r, const Line *line, VcardProperty **props,
			  int *nprops, int *maxprops, bool *empty_agent)
{
	VcardProperty prop;
	bool		open;

	if (*nprops == VCARD_MAX_PROPERTIES)
		r->limit = true;
	if (*nprops == VCARD_MAX_PROPERTIES || !parse_property(r, line, &prop))
	{
		r->skipped++;
		return false;
	}
	if (contact_vcard_is(prop.name, "VERSION"))
		note_version(r, prop.value);
	if (contact_vcard_is(prop.name, "AGENT"))
	{
		*empty_agent = trim(prop.value).len == 0;
		if (agent_has_card(&prop, &open))
		{
			r->skipped++;
			return open;
		}
	}
	if (*nprops == *maxprops)
	{
		*maxprops = *maxprops ? *maxprops * 2 : 16;
		*props = *props ? repalloc(*props, sizeof(VcardProperty) * *maxprops)
			: palloc(sizeof(VcardProperty) * *maxprops);
	}
	(*props)[(*nprops)++] = prop;
	return false;
}

/*
 * The properties of the next card; false at the end of the input.
 */
bool
contact_vcard_read(VcardReader *r, VcardProperty **props, int *nprops)
{
	Line		line;
	int			maxprops = 0;
	int			limit;
	bool		agent = false;	/* the line before was an empty AGENT */

	*props = NULL;
	*nprops = 0;
	start_card(r);
	if (!find_begin(r))
		return false;
	limit = card_limit(r);
	initStringInfo(&line.text);
	for (;;)
	{
		int			before = r->at;

		switch (next_line(r, &line, limit))
		{
			case LINE_EOF:
				return *nprops > 0;
			case LINE_END:
				return true;
			case LINE_OVER:
				r->limit = true;
				r->skipped++;
				skip_card(r);
				return true;
			case LINE_BEGIN:
				if (agent)
				{
					r->skipped++;
					skip_nested(r);
					agent = false;
				}
				else if (*nprops > 0)
				{
					r->at = before;
					return true;
				}
				else
				{
					start_card(r);
					limit = card_limit(r);
				}
				break;
			case LINE_PROPERTY:
				if (trim(strview(line.text.data, line.text.len)).len == 0)
					break;
				agent = false;
				if (read_property(r, &line, props, nprops, &maxprops, &agent))
					skip_nested(r);
				break;
		}
	}
}
