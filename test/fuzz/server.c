/*
 * server.c
 *		What the parsers use of the server, for use outside of it.
 *
 * The encoding is UTF8.  palloc is malloc with a list of what is to be freed,
 * so that the address sanitizer sees every block by itself.  Conversions from
 * other charsets do not exist.  What libpgcommon and libpgport have (strings,
 * UTF-8, Unicode, base64) is taken from there.
 */
#include "fuzz.h"

#include "access/xact.h"
#include "catalog/namespace.h"
#include "common/int.h"
#include "common/unicode_norm.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/datetime.h"
#include "utils/formatting.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

/* ---- checks ---- */

jmp_buf    *fuzz_catch = NULL;

void
fuzz_failed(const char *condition, const char *file, int line)
{
	fprintf(stderr, "FUZZ_CHECK failed: %s, at %s:%d\n", condition, file, line);
	abort();
}

void
ExceptionalCondition(const char *condition, const char *type, const char *file, int line)
{
	fuzz_failed(condition, file, line);
}

/* ---- memory ---- */

static void **blocks;
static int	nblocks;
static int	maxblocks;

static int
find_block(void *p)
{
	for (int i = nblocks - 1; i >= 0; i--)
		if (blocks[i] == p)
			return i;
	fuzz_failed("block is palloc'd", __FILE__, __LINE__);
}

static void
check_size(Size size)
{
	FUZZ_CHECK(size <= MaxAllocSize);
}

void *
palloc(Size size)
{
	void	   *p;

	check_size(size);
	p = malloc(size);
	if (nblocks == maxblocks)
	{
		maxblocks = maxblocks ? maxblocks * 2 : 1024;
		blocks = realloc(blocks, maxblocks * sizeof(void *));
	}
	/* the cores are to fill in what they use */
	memset(p, 0x7E, size);
	return blocks[nblocks++] = p;
}

void *
palloc0(Size size)
{
	return memset(palloc(size), 0, size);
}

void *
palloc_extended(Size size, int flags)
{
	return flags & MCXT_ALLOC_ZERO ? palloc0(size) : palloc(size);
}

void *
repalloc(void *p, Size size)
{
	int			i = find_block(p);

	check_size(size);
	return blocks[i] = realloc(p, size);
}

void *
repalloc_huge(void *p, Size size)
{
	return repalloc(p, size);
}

void
pfree(void *p)
{
	int			i = find_block(p);

	free(p);
	blocks[i] = blocks[--nblocks];
}

void
fuzz_reset(void)
{
	while (nblocks > 0)
		free(blocks[--nblocks]);
	fuzz_reset_jsonb();
}

char *
pnstrdup(const char *s, Size len)
{
	char	   *copy;

	len = strnlen(s, len);
	copy = palloc(len + 1);
	memcpy(copy, s, len);
	copy[len] = '\0';
	return copy;
}

char *
pstrdup(const char *s)
{
	return pnstrdup(s, strlen(s));
}

/* libpgcommon allocates by these, by malloc alone and by the above. */
void *
pg_malloc(size_t size)
{
	return palloc(size);
}

/* The library's result is malloc'd: --wrap sends callers here. */
extern pg_wchar *__real_unicode_normalize(UnicodeNormalizationForm form, const pg_wchar *input);
extern pg_wchar *__wrap_unicode_normalize(UnicodeNormalizationForm form, const pg_wchar *input);

pg_wchar *
__wrap_unicode_normalize(UnicodeNormalizationForm form, const pg_wchar *input)
{
	pg_wchar   *result = __real_unicode_normalize(form, input);
	pg_wchar   *copy;
	int			n = 0;

	while (result[n])
		n++;
	copy = palloc((n + 1) * sizeof(pg_wchar));
	memcpy(copy, result, (n + 1) * sizeof(pg_wchar));
	for (int i = nblocks - 1; i >= 0 && i >= nblocks - 4; i--)
		if (blocks[i] == result)
		{
			pfree(result);
			return copy;
		}
	free(result);
	return copy;
}

/* The tables of the quick check are the server's: only the certain is known. */
UnicodeNormalizationQC
unicode_is_normalized_quickcheck(UnicodeNormalizationForm form, const pg_wchar *input)
{
	for (; *input; input++)
		if (*input >= 0x300)
			return UNICODE_NORM_QC_MAYBE;
	return UNICODE_NORM_QC_YES;
}

/* ---- errors ---- */

static char error_text[256];

bool
errstart(int elevel, const char *domain)
{
	return elevel >= ERROR;
}

bool
errstart_cold(int elevel, const char *domain)
{
	return errstart(elevel, domain);
}

int
errcode(int code)
{
	return 0;
}

int
errmsg(const char *format,...)
{
	va_list		args;

	va_start(args, format);
	vsnprintf(error_text, sizeof(error_text), format, args);
	va_end(args);
	return 0;
}

int
errmsg_internal(const char *format,...)
{
	strlcpy(error_text, format, sizeof(error_text));
	return 0;
}

int
errdetail(const char *format,...)
{
	return 0;
}

int
errhint(const char *format,...)
{
	return 0;
}

void
errfinish(const char *file, int line, const char *function)
{
	if (fuzz_catch)
		longjmp(*fuzz_catch, 1);
	fprintf(stderr, "thrown: %s\n", error_text);
	fuzz_failed("nothing is thrown", file, line);
}

void
contact_error_report(const ContactError *error, struct Node *escontext)
{
	ereport(ERROR, errmsg("%s at %s", error->message, error->path));
}

/* ---- interrupts ---- */

volatile sig_atomic_t InterruptPending = false;

void
ProcessInterrupts(void)
{
	abort();
}

/* ---- encodings ---- */

int
GetDatabaseEncoding(void)
{
	return PG_UTF8;
}

int
pg_mblen(const char *s)
{
	return pg_utf_mblen((const unsigned char *) s);
}

int
pg_mb2wchar_with_len(const char *from, pg_wchar *to, int len)
{
	int			n = 0;

	while (len > 0 && *from)
	{
		int			size = pg_utf_mblen((const unsigned char *) from);

		if (size > len)
			break;
		to[n++] = utf8_to_unicode((const unsigned char *) from);
		from += size;
		len -= size;
	}
	to[n] = 0;
	return n;
}

bool
pg_verify_mbstr(int encoding, const char *s, int len, bool no_error)
{
	FUZZ_CHECK(no_error);
	return pg_encoding_verifymbstr(encoding, s, len) == len;
}

int
pg_mbcliplen(const char *s, int len, int limit)
{
	int			clipped = 0;
	int			n;

	while (clipped < len && (n = pg_mblen(s + clipped)) + clipped <= limit)
		clipped += n;
	return Min(clipped, len);
}

bool
IsTransactionState(void)
{
	return true;
}

Oid
FindDefaultConversionProc(int32 from, int32 to)
{
	return InvalidOid;
}

/* ---- utilities ---- */

static char *
change_case(const char *s, size_t len, bool upper)
{
	char	   *result = pnstrdup(s, len);

	for (char *p = result; *p; p++)
		*p = upper ? pg_ascii_toupper((unsigned char) *p) : pg_ascii_tolower((unsigned char) *p);
	return result;
}

char *
asc_tolower(const char *s, size_t len)
{
	return change_case(s, len, false);
}

char *
asc_toupper(const char *s, size_t len)
{
	return change_case(s, len, true);
}

/* The day of the Julian period, by the calendar's arithmetic. */
int
date2j(int y, int m, int d)
{
	int			a = (14 - m) / 12;

	y += 4800 - a;
	m += 12 * a - 3;
	return d + (153 * m + 2) / 5 + 365 * y + y / 4 - y / 100 + y / 400 - 32045;
}

void
j2date(int jd, int *year, int *month, int *day)
{
	int			a = jd + 32044;
	int			b = (4 * a + 3) / 146097;
	int			c = a - 146097 * b / 4;
	int			d = (4 * c + 3) / 1461;
	int			e = c - 1461 * d / 4;
	int			m = (5 * e + 2) / 153;

	*day = e - (153 * m + 2) / 5 + 1;
	*month = m + 3 - 12 * (m / 10);
	*year = 100 * b + d - 4800 + m / 10;
}

const int	day_tab[2][13] = {
	{31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0},
	{31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31, 0}
};

int
tm2timestamp(struct pg_tm *tm, fsec_t fsec, int *tzp, Timestamp *result)
{
	if (!IS_VALID_JULIAN(tm->tm_year, tm->tm_mon, tm->tm_mday))
		return -1;
	if (pg_mul_s64_overflow(date2j(tm->tm_year, tm->tm_mon, tm->tm_mday) - POSTGRES_EPOCH_JDATE, USECS_PER_DAY, result) ||
		pg_add_s64_overflow(*result, ((tm->tm_hour * 60 + tm->tm_min) * 60 + tm->tm_sec) * USECS_PER_SEC + fsec, result))
		return -1;
	if (tzp)
		*result += *tzp * USECS_PER_SEC;
	return IS_VALID_TIMESTAMP(*result) ? 0 : -1;
}

int
timestamp2tm(Timestamp t, int *tzp, struct pg_tm *tm, fsec_t *fsec, const char **tzn, pg_tz *zone)
{
	int64		day = t / USECS_PER_DAY;
	int64		time = t % USECS_PER_DAY;

	FUZZ_CHECK(tzp == NULL);
	if (time < 0)
	{
		time += USECS_PER_DAY;
		day--;
	}
	j2date(day + POSTGRES_EPOCH_JDATE, &tm->tm_year, &tm->tm_mon, &tm->tm_mday);
	*fsec = time % USECS_PER_SEC;
	time /= USECS_PER_SEC;
	tm->tm_sec = time % 60;
	tm->tm_min = time / 60 % 60;
	tm->tm_hour = time / 3600;
	return 0;
}

struct varlena *
pg_detoast_datum(struct varlena *datum)
{
	return datum;
}

struct varlena *
pg_detoast_datum_packed(struct varlena *datum)
{
	return datum;
}

/* ---- values ---- */

bool
fuzz_is_text(StrView s)
{
	return s.len == 0 || (memchr(s.ptr, '\0', s.len) == NULL &&
						  pg_encoding_verifymbstr(PG_UTF8, s.ptr, s.len) == s.len);
}

void
fuzz_check_value(const ContactValue *v)
{
	for (int i = 0; i < v->nitems; i++)
	{
		const ContactItem *item = &v->items[i];

		FUZZ_CHECK(item->field < CF_COUNT);
		FUZZ_CHECK(fuzz_is_text(item->key));
		FUZZ_CHECK(fuzz_is_text(item->value));
		FUZZ_CHECK(fuzz_is_text(item->type));
		FUZZ_CHECK(fuzz_is_text(item->extension));
		for (int p = 0; p < CA_COUNT && item->field == CF_ADDRESSES; p++)
			FUZZ_CHECK(fuzz_is_text(item->part[p]));
		FUZZ_CHECK(i == 0 || contact_item_cmp(item - 1, item) < 0);
	}
}

void
fuzz_check_canonical(const ContactValue *v)
{
	ContactValue stored;
	Contact    *c;

	for (int i = 0; i < v->nitems; i++)
	{
		ContactItem again = v->items[i];

		FUZZ_CHECK(contact_item_normalize(&again));
		if (!contact_item_same(&again, &v->items[i]))
		{
			ContactValue one = {1, 0, &again, NULL};

			fuzz_show("value", v);
			fuzz_show("normalised", &one);
		}
		FUZZ_CHECK(contact_item_same(&again, &v->items[i]));
	}
	c = contact_form(v);
	contact_deform(c, &stored);
	FUZZ_CHECK(stored.nitems == v->nitems);
	FUZZ_CHECK(contact_value_cmp(v, &stored) == 0);
	for (int f = 0; f < CF_COUNT; f++)
	{
		ContactReader r;
		int			end;

		contact_read(&r, PointerGetDatum(c), CF_BIT(f), true);
		if (!CF_IS_LIST(f))
		{
			text	   *value = contact_read_scalar(&r, f);
			int			at = contact_find(v, f, strview(NULL, 0));

			FUZZ_CHECK((value == NULL) == (at < 0 || (v->items[at].flags & CI_TOMBSTONE)));
			FUZZ_CHECK(value == NULL ||
					   strview_same(strview(VARDATA_ANY(value), VARSIZE_ANY_EXHDR(value)), v->items[at].value));
		}
		for (int i = contact_read_field(&r, f, &end); i < end; i++)
		{
			ContactItem item;

			contact_read_item(&r, f, i, &item);
			FUZZ_CHECK(contact_item_same(&item, &v->items[i]));
			FUZZ_CHECK(contact_find(v, f, item.key) == i);
		}
	}
}

static void
show_string(const char *name, StrView s)
{
	if (s.len == 0)
		return;
	fprintf(stderr, " %s=\"", name);
	for (int i = 0; i < s.len; i++)
	{
		unsigned char c = s.ptr[i];

		if (c < ' ' || c >= 0x7F || c == '\\')
			fprintf(stderr, "\\x%02X", c);
		else
			fputc(c, stderr);
	}
	fputc('"', stderr);
}

void
fuzz_show(const char *what, const ContactValue *v)
{
	fprintf(stderr, "%s: %d items\n", what, v->nitems);
	for (int i = 0; i < v->nitems; i++)
	{
		const ContactItem *item = &v->items[i];

		fprintf(stderr, "  %s flags=%d", contact_field_names[item->field], item->flags);
		show_string("key", item->key);
		show_string("value", item->value);
		show_string("type", item->type);
		show_string("extension", item->extension);
		for (int p = 0; p < CA_COUNT && item->field == CF_ADDRESSES; p++)
			show_string("part", item->part[p]);
		fputc('\n', stderr);
	}
}
