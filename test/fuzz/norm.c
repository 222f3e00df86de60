/*
 * norm.c
 *		contact_norm.c, contact_core.c, contact_layout.c: the canonical form of
 *		an item is its own, keys keep what contact.h promises, and a stored
 *		value is read as it was.
 *
 * Items are separated by 0xFF, the strings in them by zero bytes; an item's
 * first two bytes are its field and its flags.
 */
#include "fuzz.h"

#include "common/unicode_norm.h"
#include "mb/pg_wchar.h"

#define MAX_ITEMS		64

/* Below the cap on runs, a clean text is in NFC as a whole. */
static void
check_clean(StrView s)
{
	StrView		clean = contact_text_clean(s);
	pg_wchar   *chars;
	pg_wchar   *composed;
	int			n = 0;

	if (s.len > 512)
		return;
	chars = palloc((clean.len + 1) * sizeof(pg_wchar));
	for (int i = 0; i < clean.len; i += pg_utf_mblen((const unsigned char *) clean.ptr + i))
		chars[n++] = utf8_to_unicode((const unsigned char *) clean.ptr + i);
	chars[n] = 0;
	composed = unicode_normalize(UNICODE_NFC, chars);
	FUZZ_CHECK(memcmp(chars, composed, (n + 1) * sizeof(pg_wchar)) == 0);
	FUZZ_CHECK(strview_same(contact_text_clean(clean), clean));
}

static bool
read_item(StrView s, ContactItem *item)
{
	StrView	   *strings[] = {
		&item->value, &item->type, &item->extension, &item->key,
		&item->part[0], &item->part[1], &item->part[2], &item->part[3], &item->part[4]
	};
	int			n = 0;
	const char *p;
	const char *end = s.ptr + s.len;

	if (s.len < 3)
		return false;
	memset(item, 0, sizeof(*item));
	item->field = (unsigned char) s.ptr[0] % CF_COUNT;
	item->flags = s.ptr[1] & (CI_PRIMARY | CI_VERIFIED | CI_UNVERIFIED);
	item->stamp = -1;
	for (p = s.ptr + 2; p <= end && n < lengthof(strings); n++)
	{
		const char *zero = p < end ? memchr(p, '\0', end - p) : NULL;

		*strings[n] = strview(p, (zero ? zero : end) - p);
		if (!fuzz_is_text(*strings[n]))
			return false;
		check_clean(*strings[n]);
		p = (zero ? zero : end) + 1;
	}
	if (item->field != CF_ADDRESSES)
		memset(item->part, 0, sizeof(item->part));
	if (item->field != CF_PHONES)
		item->extension = strview(NULL, 0);
	if (!CF_IS_LIST(item->field))
		item->type = strview(NULL, 0);
	return true;
}

static bool
is_e164(StrView key)
{
	for (int i = 1; i < key.len; i++)
		if (key.ptr[i] < '0' || key.ptr[i] > '9')
			return false;
	return key.len > 1 && key.ptr[0] == '+';
}

static void
check_key(const ContactItem *item)
{
	StrView		key;

	if (item->field == CF_PHONES)
	{
		key = contact_phone_key(item->value, item->extension);
		FUZZ_CHECK(key.len == 0 || strview_same(key, item->key));
		FUZZ_CHECK(key.len > 0 || !is_e164(item->key));
	}
	if (item->field == CF_EMAILS)
	{
		key = contact_email_key(item->value);
		FUZZ_CHECK(key.len == 0 || strview_same(key, item->key));
		key = contact_email_key(item->key);
		FUZZ_CHECK(key.len == 0 || strview_same(key, item->key));
	}
	if (item->field == CF_TAGS)
		FUZZ_CHECK(strview_same(contact_name_key(item->key), item->key));
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	ContactItem items[MAX_ITEMS];
	ContactValue v = {0, 0, items, NULL};
	const char *p = (const char *) data;
	const char *end = p + size;

	while (p < end && v.nitems < MAX_ITEMS)
	{
		const char *next = memchr(p, 0xFF, end - p);
		ContactItem *item = &items[v.nitems];

		if (next == NULL)
			next = end;
		if (read_item(strview(p, next - p), item) && contact_item_normalize(item))
		{
			check_key(item);
			v.nitems++;
		}
		p = next + 1;
	}
	/* of a scalar there is one */
	contact_sort(&v);
	fuzz_check_value(&v);
	fuzz_check_canonical(&v);
	fuzz_reset();
	return 0;
}
