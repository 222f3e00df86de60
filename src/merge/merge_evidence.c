/*
 * merge_evidence.c
 *		What keys and names say of who is who.
 *
 * A key's worth is told from its text, from what records call it, and from the
 * names of those who assert it; never from who came first.
 */
#include "postgres.h"

#include "merge/merge.h"

/* Addresses of an office, not of a person (RFC 2142, and what firms print). */
static const char *const role_locals[] = {
	"abuse", "accounting", "accounts", "admin", "administration", "administrator", "all", "billing", "board",
	"booking", "bookings", "buchhaltung", "buero", "careers", "compliance", "contact", "contacto", "customerservice",
	"dpo", "einkauf", "enquiries", "enquiry", "events", "feedback", "finance", "frontdesk", "hello", "help",
	"helpdesk", "hostmaster", "hr", "info", "information", "inquiries", "inquiry", "invoice", "invoices", "jobs",
	"kontakt", "legal", "mail", "marketing", "media", "news", "newsletter", "office", "operations", "orders",
	"payments", "personal", "postmaster", "press", "presse", "privacy", "purchasing", "rechnung", "reception",
	"recruiting", "root", "sales", "secretary", "security", "sekretariat", "service", "shop", "staff", "support",
	"team", "technik", "usenet", "ventas", "verkauf", "vertrieb", "webmaster", "welcome",
};

/* What forms hold where nobody had an address. */
static const char *const placeholder_locals[] = {
	"bounce", "bounces", "do-not-reply", "do_not_reply", "donotreply", "fake", "keine", "mailer-daemon", "n/a", "na",
	"no-email", "no-mail", "no-reply", "no_email", "no_reply", "nobody", "noemail", "nomail", "none", "noreply",
	"notprovided", "null", "unbekannt", "undefined", "unknown",
};

/* And these, where the domain is one of examples too. */
static const char *const example_locals[] = {
	"a", "abc", "demo", "email", "example", "foo", "name", "test", "tester", "user", "x", "xx", "xxx",
};
static const char *const example_domains[] = {
	"example.com", "example.net", "example.org", "invalid", "localhost", "test", "test.com", "test.de", "test.org",
};

static const char *const placeholder_ids[] = {
	"-", "--", "?", "anonymous", "keine", "n/a", "na", "nil", "none", "null", "tbd", "test", "undefined", "unknown", "x", "xxx",
};

void
identity_policy_defaults(IdentityPolicy *policy)
{
	policy->generic_names = 8;
	policy->max_records = 100;
}

static int
word_cmp(const void *key, const void *word)
{
	const StrView *k = key;
	const char *w = *(const char *const *) word;
	StrView		v;

	v.ptr = w;
	v.len = strlen(w);
	return strview_cmp(*k, v);
}

#define IS_ONE_OF(view_, words_) \
	(bsearch(&(view_), words_, lengthof(words_), sizeof(words_[0]), word_cmp) != NULL)

static bool
has_prefix(StrView s, const char *prefix)
{
	int			n = strlen(prefix);

	return s.len > n && memcmp(s.ptr, prefix, n) == 0;
}

static StrView
after(StrView s, int n)
{
	s.ptr += n;
	s.len -= n;
	return s;
}

/* The parts of "email:local@domain". */
static bool
split_email(StrView key, StrView *local, StrView *domain)
{
	int			at;

	if (!has_prefix(key, "email:"))
		return false;
	key = after(key, 6);
	for (at = key.len - 1; at >= 0 && key.ptr[at] != '@'; at--)
		;
	if (at < 0)
		return false;
	*local = *domain = key;
	local->len = at;
	*domain = after(key, at + 1);
	return true;
}

int
identity_kind_len(StrView key)
{
	if (!has_prefix(key, "id:"))
		return 0;
	/* a colon in the name of the metadata key is written with a backslash */
	for (int i = 3; i < key.len; i++)
	{
		if (key.ptr[i] == '\\')
			i++;
		else if (key.ptr[i] == ':')
			return i + 1;
	}
	return 0;
}

/* One digit, however often: 0, 000000, 999999. */
static bool
is_one_digit(StrView s)
{
	for (int i = 0; i < s.len; i++)
		if (s.ptr[i] < '0' || s.ptr[i] > '9' || s.ptr[i] != s.ptr[0])
			return false;
	return s.len > 0;
}

/* A number whose last six digits, or more, are one digit or count up from 1. */
static bool
is_placeholder_number(StrView digits)
{
	StrView		tail;

	if (digits.len < 7)
		return false;
	tail = after(digits, digits.len - 6);
	if (is_one_digit(tail))
		return true;
	tail = after(digits, digits.len - 7);
	return strncmp(tail.ptr, "1234567", 7) == 0 || (digits.len >= 9 && strncmp(digits.ptr + digits.len - 9, "123456789", 9) == 0);
}

bool
identity_placeholder(StrView key)
{
	StrView		local, domain;
	int			kind = identity_kind_len(key);

	if (split_email(key, &local, &domain))
		return IS_ONE_OF(local, placeholder_locals) ||
			(IS_ONE_OF(local, example_locals) && IS_ONE_OF(domain, example_domains));
	if (has_prefix(key, "tel:+"))
		return is_placeholder_number(after(key, 5));
	if (kind > 0)
	{
		StrView		value = after(key, kind);

		return value.len == 0 || IS_ONE_OF(value, placeholder_ids) ||
			(is_one_digit(value) && (value.ptr[0] == '0' || value.len >= 6));
	}
	return false;
}

IdentityStrength
identity_strength(const IdentityKey *key)
{
	StrView		local, domain;

	if (key->generic)
		return IS_GENERIC;
	if (identity_kind_len(key->key) > 0)
		return IS_EXCLUSIVE;
	if (split_email(key->key, &local, &domain))
		return IS_ONE_OF(local, role_locals) ? IS_SHARED : IS_PERSONAL;
	return key->mobile ? IS_PERSONAL : IS_SHARED;
}

/* ---- names ---- */

/* "last\nfirst" split at the line break. */
static void
split_name(StrView name, StrView *last, StrView *first)
{
	const char *nl = memchr(name.ptr, '\n', name.len);

	last->ptr = name.ptr;
	last->len = nl ? nl - name.ptr : name.len;
	first->ptr = nl ? nl + 1 : NULL;
	first->len = nl ? name.len - last->len - 1 : 0;
}

/* Length of the one character that a name consists of, with or without a full stop; 0 = it is longer. */
static int
initial_len(StrView a)
{
	int			n = a.len;

	if (n > 1 && a.ptr[n - 1] == '.')
		n--;
	/* one character: ASCII, or the bytes of one multi-byte one */
	if (n == 0 || n > 4 || (n > 1 && !IS_HIGHBIT_SET(a.ptr[0])))
		return 0;
	for (int i = 1; i < n; i++)
		if (((unsigned char) a.ptr[i] & 0xC0) != 0x80)
			return 0;
	return n;
}

/* One is the other's initial. */
static bool
is_initial(StrView a, StrView b)
{
	int			n = initial_len(a);

	return n > 0 && b.len >= n && memcmp(a.ptr, b.ptr, n) == 0;
}

static bool
names_match(StrView x, StrView y)
{
	StrView		xl, xf, yl, yf;

	split_name(x, &xl, &xf);
	split_name(y, &yl, &yf);
	if (strview_cmp(xl, yl) != 0)
		return false;
	return xf.len == 0 || yf.len == 0 || strview_cmp(xf, yf) == 0 ||
		is_initial(xf, yf) || is_initial(yf, xf);
}

int
identity_names_agree(int na, const StrView *a, int nb, const StrView *b)
{
	if (na == 0 || nb == 0)
		return 0;
	for (int i = 0; i < na; i++)
		for (int j = 0; j < nb; j++)
			if (names_match(a[i], b[j]))
				return 1;
	return -1;
}

static int
view_cmp(const void *a, const void *b)
{
	return strview_cmp(*(const StrView *) a, *(const StrView *) b);
}

/*
 * How many people these names are of, at least: for each last name the first
 * names that are written out, and the initials of none of them.  Names are
 * sorted and distinct.
 */
static int
count_people(const StrView *names, int n)
{
	int			people = 0;

	for (int i = 0; i < n;)
	{
		StrView		last, first, l, f;
		int			of_this = 0;
		int			end;

		split_name(names[i], &last, &first);
		for (end = i; end < n; end++)
		{
			bool		counts;

			split_name(names[end], &l, &f);
			if (strview_cmp(l, last) != 0)
				break;
			counts = f.len > 0;
			for (int k = i; k < n && counts && initial_len(f) > 0; k++)
			{
				StrView		kl, kf;

				split_name(names[k], &kl, &kf);
				if (strview_cmp(kl, last) != 0)
					break;
				/* "a" and "a." are one initial, and the first of them counts */
				counts = k == end || !is_initial(f, kf) || (initial_len(kf) > 0 && k > end);
			}
			of_this += counts;
		}
		people += Max(of_this, 1);
		i = end;
	}
	return people;
}

bool
identity_generic(const IdentityPolicy *policy, StrView key,
				 IdentityRecord *const *records, int nrecords)
{
	StrView    *names;
	int			n = 0;
	int			distinct = 0;

	if (nrecords > policy->max_records || identity_placeholder(key))
		return true;
	for (int i = 0; i < nrecords; i++)
		n += records[i]->nnames;
	if (n <= policy->generic_names)
		return false;
	names = palloc(sizeof(StrView) * n);
	n = 0;
	for (int i = 0; i < nrecords; i++)
		for (int k = 0; k < records[i]->nnames; k++)
			names[n++] = records[i]->names[k];
	qsort(names, n, sizeof(StrView), view_cmp);
	for (int i = 0; i < n; i++)
		if (i == 0 || strview_cmp(names[i], names[distinct - 1]) != 0)
			names[distinct++] = names[i];
	n = count_people(names, distinct);
	pfree(names);
	return n > policy->generic_names;
}
