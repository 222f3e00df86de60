/*
 * parse.c
 *		contact_parse.c and contact_json.c: what the former reads, the latter
 *		reads alike, and what is printed reads as the same.
 */
#include "fuzz.h"

static void
check_printed(const ContactValue *v)
{
	StringInfoData text;
	ContactValue again;
	ContactClaims claims;
	ContactError error;

	initStringInfo(&text);
	contact_to_json(&text, v, false);
	FUZZ_CHECK(fuzz_is_text(strview(text.data, text.len)));
	if (contact_parse(text.data, text.len, &again))
		FUZZ_CHECK(contact_value_cmp(v, &again) == 0);
	FUZZ_CHECK(contact_claims_from_jsonb(fuzz_jsonb(text.data), false, &claims, &error));
	if (contact_value_cmp(v, &claims.value) != 0)
	{
		fuzz_show("read", v);
		fuzz_show("read again", &claims.value);
	}
	FUZZ_CHECK(contact_value_cmp(v, &claims.value) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	StrView		s = strview((const char *) data, size);
	char	   *text;
	ContactValue usual;
	ContactClaims claims;
	ContactClaims patch;
	ContactError error;
	Jsonb	   *json = NULL;
	volatile bool is_usual;
	bool		is_json;

	if (!fuzz_is_text(s))
		return 0;
	text = pnstrdup(s.ptr ? s.ptr : "", s.len);
	is_usual = contact_parse(text, s.len, &usual);
	FUZZ_TRY(is_json, json = fuzz_jsonb(text));
	FUZZ_CHECK(is_json || !is_usual);
	if (is_json)
	{
		bool		read = contact_claims_from_jsonb(json, false, &claims, &error);

		FUZZ_CHECK(read || !is_usual);
		if (is_usual && contact_value_cmp(&usual, &claims.value) != 0)
		{
			fuzz_show("by contact_parse", &usual);
			fuzz_show("by jsonb", &claims.value);
		}
		FUZZ_CHECK(!is_usual || contact_value_cmp(&usual, &claims.value) == 0);
		if (read)
		{
			fuzz_check_value(&claims.value);
			fuzz_check_canonical(&claims.value);
			check_printed(&claims.value);
		}
		else
			FUZZ_CHECK(error.message != NULL && memchr(error.path, '\0', sizeof(error.path)) != NULL);
		if (contact_claims_from_jsonb(json, true, &patch, &error))
			fuzz_check_value(&patch.value);
	}
	fuzz_reset();
	return 0;
}
