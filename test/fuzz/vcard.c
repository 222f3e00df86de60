/*
 * vcard.c
 *		contact_vcard*.c: what was read, written and read again is equal.
 *
 * Of the first byte one bit says that the input is text, another that UIDs
 * are kept.
 */
#include "fuzz.h"

static void
check_lines(StringInfo card)
{
	int			width = 0;

	FUZZ_CHECK(fuzz_is_text(strview(card->data, card->len)));
	for (int i = 0; i < card->len; i++)
	{
		if (card->data[i] == '\r')
			FUZZ_CHECK(i + 1 < card->len && card->data[i + 1] == '\n');
		width = card->data[i] == '\n' || card->data[i] == '\r' ? 0 : width + 1;
		FUZZ_CHECK(width <= 75);
	}
}

static void
check_written(const ContactValue *v, int version)
{
	StringInfoData card;
	VcardReader r;
	ContactValue again;
	ContactValue none;

	initStringInfo(&card);
	contact_to_vcard(&card, v, version);
	check_lines(&card);
	contact_vcard_open(&r, card.data, card.len);
	r.text = true;
	r.keep_uid = true;
	FUZZ_CHECK(contact_vcard_next(&r, &again));
	/* beyond the caps of a card nothing is promised */
	if (r.limit || r.skipped > 0)
		return;
	if (contact_value_cmp(v, &again) != 0)
	{
		fprintf(stderr, "%s\n", card.data);
		fuzz_show("read", v);
		fuzz_show("read again", &again);
	}
	FUZZ_CHECK(contact_value_cmp(v, &again) == 0);
	FUZZ_CHECK(!contact_vcard_next(&r, &none));
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	VcardReader r;
	ContactValue v;

	if (size < 1)
		return 0;
	contact_vcard_open(&r, (const char *) data + 1, size - 1);
	r.text |= (data[0] & 1) && fuzz_is_text(strview((const char *) data + 1, size - 1));
	r.keep_uid = (data[0] & 2) != 0;
	while (contact_vcard_next(&r, &v))
	{
		FUZZ_CHECK(r.at <= r.len);
		FUZZ_CHECK(fuzz_is_text(r.uid));
		FUZZ_CHECK(fuzz_is_text(r.kind));
		fuzz_check_value(&v);
		fuzz_check_canonical(&v);
		check_written(&v, 40);
		check_written(&v, 30);
	}
	fuzz_reset();
	return 0;
}
