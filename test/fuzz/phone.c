/*
 * phone.c
 *		contact_phone.c: E.164 reads as itself, in any region.
 *
 * The first byte is the region, none if there is no such one; the second
 * says whether the bytes are UTF-8.
 */
#include "fuzz.h"

#include "contact/contact_phone.h"

static void
check_number(const ContactPhone *phone, int region)
{
	char		text[CONTACT_PHONE_MAX_INPUT + 2];
	ContactPhone again;
	int			len = snprintf(text, sizeof(text), "+%s", phone->digits);

	contact_phone_parse(text, len, region, true, &again);
	/* settling on it may make a valid number of what was only possible as dialled */
	FUZZ_CHECK(again.status >= phone->status);
	FUZZ_CHECK(again.plus && again.plain);
	FUZZ_CHECK(again.extension_len == 0);
	FUZZ_CHECK(strcmp(again.digits, phone->digits) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	ContactPhone phone;
	int			region;

	if (size < 2)
		return 0;
	region = data[0] < contact_phone_nregions ? data[0] : CONTACT_PHONE_NO_REGION;
	contact_phone_parse((const char *) data + 2, size - 2, region, data[1] & 1, &phone);
	FUZZ_CHECK(phone.ndigits == strlen(phone.digits));
	FUZZ_CHECK(strspn(phone.digits, "0123456789") == phone.ndigits);
	FUZZ_CHECK(phone.extension_len == 0 || phone.extension_len == strlen(phone.extension));
	if (phone.status != CONTACT_PHONE_UNPARSED)
	{
		/* E.164 allows 15, but six numbering plans have longer numbers */
		FUZZ_CHECK(phone.ndigits <= 19);
		FUZZ_CHECK(phone.digits[0] != '0');
		check_number(&phone, CONTACT_PHONE_NO_REGION);
		check_number(&phone, region);
	}
	return 0;
}
