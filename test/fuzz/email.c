/*
 * email.c
 *		contact_email.c: a canonical address is its own canonical form, and its
 *		key is the key of whatever it was spelled as.
 */
#include "fuzz.h"

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	StrView		s = strview((const char *) data, size);
	StrView		canonical;
	StrView		again;
	StrView		clean;
	StrView		key;
	StrView		other;
	ContactEmailStatus status;

	if (!fuzz_is_text(s))
		return 0;
	status = contact_email_parse(s, &canonical);
	contact_email_forms(s, &clean, &key);
	FUZZ_CHECK(strview_same(contact_email_key(s), key));
	FUZZ_CHECK(fuzz_is_text(clean));
	contact_email_forms(clean, &again, &other);
	FUZZ_CHECK(strview_same(again, clean) && strview_same(other, key));
	FUZZ_CHECK((status == CONTACT_EMAIL_INVALID) == (canonical.ptr == NULL));
	FUZZ_CHECK((status == CONTACT_EMAIL_INVALID) == (key.ptr == NULL));
	if (status != CONTACT_EMAIL_INVALID)
	{
		FUZZ_CHECK(strview_same(clean, canonical));
		FUZZ_CHECK(canonical.len <= 254);
		FUZZ_CHECK(memchr(canonical.ptr, '@', canonical.len) != NULL);
		FUZZ_CHECK(contact_email_parse(canonical, &again) >= CONTACT_EMAIL_UNUSUAL);
		FUZZ_CHECK(strview_same(again, canonical));
		FUZZ_CHECK(strview_same(contact_email_key(canonical), key));
		FUZZ_CHECK(strview_same(contact_email_key(key), key));
	}
	fuzz_reset();
	return 0;
}
