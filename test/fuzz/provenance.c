/*
 * provenance.c
 *		Reading "_provenance": whatever is accepted is stored, written and read
 *		back to the same bytes.
 */
#include "fuzz.h"

/* The value of a document with its provenance; false if it is none. */
static bool
read_value(const char *text, ContactValue *v)
{
	ContactClaims claims;
	ContactError error;
	Jsonb	   *json = fuzz_jsonb(text);

	memset(&error, 0, sizeof(error));
	if (!contact_claims_from_jsonb(json, false, &claims, &error) ||
		!contact_stamps_from_jsonb(json, &claims.value, &error) ||
		!contact_fits(&claims.value, &error))
	{
		FUZZ_CHECK(error.message != NULL && memchr(error.path, '\0', sizeof(error.path)) != NULL);
		return false;
	}
	*v = claims.value;
	return true;
}

static void
check_same_stamp(const ContactValue *a, const ContactValue *b, int i)
{
	const ContactStamp *x;
	const ContactStamp *y;

	FUZZ_CHECK((a->items[i].stamp < 0) == (b->items[i].stamp < 0));
	if (a->items[i].stamp < 0)
		return;
	x = &a->stamps[a->items[i].stamp];
	y = &b->stamps[b->items[i].stamp];
	FUZZ_CHECK(strview_same(x->source, y->source) && x->flags == y->flags);
	FUZZ_CHECK(x->as_of == y->as_of && x->changed_at == y->changed_at);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	StrView		s = strview((const char *) data, size);
	ContactValue v;
	ContactValue stored;
	ContactValue again;
	StringInfoData text;
	Contact    *c;
	Contact    *c_again;
	volatile bool accepted = false;
	bool		is_json;

	if (!fuzz_is_text(s))
		return 0;
	FUZZ_TRY(is_json, accepted = read_value(pnstrdup(s.ptr ? s.ptr : "", s.len), &v));
	if (is_json && accepted)
	{
		fuzz_check_value(&v);
		c = contact_form(&v);
		contact_deform(c, &stored);
		FUZZ_CHECK(stored.nitems == v.nitems);
		for (int i = 0; i < v.nitems; i++)
		{
			FUZZ_CHECK(contact_item_same(&v.items[i], &stored.items[i]));
			check_same_stamp(&v, &stored, i);
		}
		initStringInfo(&text);
		contact_to_json(&text, &stored, true);
		FUZZ_CHECK(fuzz_is_text(strview(text.data, text.len)));
		FUZZ_CHECK(read_value(text.data, &again));
		c_again = contact_form(&again);
		FUZZ_CHECK(VARSIZE(c) == VARSIZE(c_again) && memcmp(c, c_again, VARSIZE(c)) == 0);
	}
	fuzz_reset();
	return 0;
}
