/*
 * contact_vcard_decode.c
 *		The bytes of a vCard as characters: files, charsets, encodings.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "common/base64.h"
#include "mb/pg_wchar.h"

#include "compat.h"
#include "contact/contact_vcard.h"

static int
put_utf8(char *out, uint32 c)
{
	unicode_to_utf8(c, (unsigned char *) out);
	return pg_utf_mblen((unsigned char *) out);
}

/* UTF-16 as UTF-8; halves of pairs that stand alone become U+FFFD. */
static void
open_utf16(VcardReader *r, const unsigned char *p, int len, bool big)
{
	char	   *buf = palloc_extended((Size) len / 2 * 3 + 1, MCXT_ALLOC_HUGE);
	char	   *out = buf;

	for (int i = 0; i + 1 < len; i += 2)
	{
		uint32		c = big ? p[i] << 8 | p[i + 1] : p[i + 1] << 8 | p[i];

		if (c >= 0xD800 && c < 0xDC00 && i + 3 < len)
		{
			uint32		low = big ? p[i + 2] << 8 | p[i + 3] : p[i + 3] << 8 | p[i + 2];

			if (low >= 0xDC00 && low < 0xE000)
			{
				c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
				i += 2;
			}
		}
		if (c >= 0xD800 && c < 0xE000)
			c = 0xFFFD;
		if (c != 0)
			out += put_utf8(out, c);
	}
	r->ptr = buf;
	r->len = out - buf;
	r->text = true;
}

void
contact_vcard_open(VcardReader *r, const char *ptr, int len)
{
	const unsigned char *p = (const unsigned char *) ptr;

	memset(r, 0, sizeof(*r));
	r->ptr = ptr;
	r->len = len;
	r->rev = PG_INT64_MIN;
	r->lf = -1;
	if (len < 2)
		return;
	/* a byte order mark, or the B of BEGIN as two bytes */
	if ((p[0] == 0xFE && p[1] == 0xFF) || (p[0] == 0 && p[1] == 'B'))
		open_utf16(r, p, len, true);
	else if ((p[0] == 0xFF && p[1] == 0xFE) || (p[0] == 'B' && p[1] == 0))
		open_utf16(r, p, len, false);
}

/* The part of Windows-1252 that is not Latin-1; 0 = no character. */
static const uint16 win1252[32] = {
	0x20AC, 0, 0x201A, 0x0192, 0x201E, 0x2026, 0x2020, 0x2021,
	0x02C6, 0x2030, 0x0160, 0x2039, 0x0152, 0, 0x017D, 0,
	0, 0x2018, 0x2019, 0x201C, 0x201D, 0x2022, 0x2013, 0x2014,
	0x02DC, 0x2122, 0x0161, 0x203A, 0x0153, 0, 0x017E, 0x0178
};

static StrView
from_win1252(StrView s)
{
	char	   *buf = palloc(3 * (Size) s.len + 1);
	char	   *out = buf;

	for (int i = 0; i < s.len; i++)
	{
		uint32		c = (unsigned char) s.ptr[i];

		if (c >= 0x80 && c < 0xA0)
			c = win1252[c - 0x80] ? win1252[c - 0x80] : 0xFFFD;
		out += put_utf8(out, c);
	}
	return strview(buf, out - buf);
}

static bool
is_ascii(StrView s)
{
	int			i = 0;

	for (; i + (int) sizeof(uint64) <= s.len; i += sizeof(uint64))
	{
		uint64		bytes;

		memcpy(&bytes, s.ptr + i, sizeof(bytes));
		if (bytes & UINT64CONST(0x8080808080808080))
			return false;
	}
	for (; i < s.len; i++)
		if (IS_HIGHBIT_SET(s.ptr[i]))
			return false;
	return true;
}

/* The encoding that a CHARSET names, or -1. */
static int
charset_encoding(StrView name)
{
	char		buf[NAMEDATALEN];

	if (name.len <= 0 || name.len >= (int) sizeof(buf))
		return -1;
	memcpy(buf, name.ptr, name.len);
	buf[name.len] = '\0';
	if (pg_strcasecmp(buf, "GB2312") == 0)
		return PG_GBK;
	if (pg_strncasecmp(buf, "cp125", 5) == 0 && strlen(buf) == 6)
		return pg_char_to_encoding(psprintf("win%s", buf + 2));
	return pg_char_to_encoding(buf);
}

/* Convert; false, not an error, if a character is not there or malformed. */
static bool
convert(StrView s, int from, int to, StrView *result)
{
	Oid			proc;
	char	   *buf;
	int			size = s.len * MAX_CONVERSION_GROWTH + 2;

	if (from != PG_UTF8 && !pg_verify_mbstr(from, s.ptr, s.len, true))
		return false;
	/* conversions are found in the catalog */
	if (!IsTransactionState() || !OidIsValid(proc = FindDefaultConversionProc(from, to)))
		return false;
	buf = palloc(size);
	if (pg_do_encoding_conversion_buf(proc, from, to, (unsigned char *) unconstify(char *, s.ptr),
									  s.len, (unsigned char *) buf, size, true) != s.len)
		return false;
	*result = strview(buf, strlen(buf));
	return true;
}

/*
 * Bytes as text of the server's encoding.  What is not valid in the charset
 * that was named, or in UTF-8, is Windows-1252.  False if the server's
 * encoding lacks a character.
 */
bool
contact_vcard_decode(StrView *s, StrView charset)
{
	int			server = GetDatabaseEncoding();
	int			encoding;

	if (is_ascii(*s))
		return true;
	encoding = charset_encoding(charset);
	if (encoding == PG_LATIN1 || encoding == PG_WIN1252)
		*s = from_win1252(*s);	/* who says Latin-1 means this */
	else if (encoding < 0 || encoding == PG_UTF8 || encoding == PG_SQL_ASCII ||
			 !convert(*s, encoding, PG_UTF8, s))
	{
		if (!pg_verify_mbstr(PG_UTF8, s->ptr, s->len, true))
			*s = from_win1252(*s);
	}
	return server == PG_UTF8 || server == PG_SQL_ASCII || convert(*s, PG_UTF8, server, s);
}

static int
hex_digit(unsigned char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	c |= 0x20;
	return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

StrView
contact_vcard_decode_quoted(StrView s)
{
	char	   *buf = palloc(s.len + 1);
	int			n = 0;

	for (int i = 0; i < s.len; i++)
	{
		int			hi;
		int			lo;

		if (s.ptr[i] != '=')
			buf[n++] = s.ptr[i];
		else if (i + 2 < s.len && (hi = hex_digit(s.ptr[i + 1])) >= 0 &&
				 (lo = hex_digit(s.ptr[i + 2])) >= 0)
		{
			if (hi || lo)
				buf[n++] = (char) (hi << 4 | lo);
			i += 2;
		}
		else if (i + 1 < s.len)
			buf[n++] = '=';
	}
	return strview(buf, n);
}

/* Base64 without the blanks in it, and with the padding that it needs. */
bool
contact_vcard_clean_base64(StrView s, StrView *result)
{
	char	   *buf = palloc(s.len + 4);
	int			n = 0;

	for (int i = 0; i < s.len;)
	{
		int			start = i;

		while (i < s.len && vcard_is_base64(s.ptr[i]))
			i++;
		memcpy(buf + n, s.ptr + start, i - start);
		n += i - start;
		for (; i < s.len && !vcard_is_base64(s.ptr[i]); i++)
			if (s.ptr[i] != ' ' && s.ptr[i] != '\t' && s.ptr[i] != '=')
				return false;
	}
	if (n % 4 == 1)
		n--;					/* was cut off */
	while (n % 4 != 0)
		buf[n++] = '=';
	*result = strview(buf, n);
	return true;
}

StrView
contact_vcard_decode_base64(StrView s)
{
	int			size = pg_b64_dec_len(s.len) + 1;
	void	   *bytes = palloc(size);	/* char or uint8, by version */
	char	   *buf = bytes;
	int			len = pg_b64_decode(s.ptr, s.len, bytes, size);
	int			n = 0;

	for (int i = 0; i < len; i++)
		if (buf[i] != '\0')
			buf[n++] = buf[i];
	return strview(buf, n);
}
