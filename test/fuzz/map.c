/*
 * map.c
 *		contact_map.c: whatever a mapping makes of a payload is JSON that reads
 *		as a contact or is refused, and speaks of no field that the mapping does
 *		not name.
 *
 * The input is a mapping, a byte 0xFF and a payload.
 */
#include "fuzz.h"

static void
check_map(Jsonb *map, Jsonb *payload, bool patch)
{
	Jsonb	   *mapped = NULL;
	ContactClaims claims;
	ContactClaims mask;
	ContactError error;
	bool		ok;

	contact_map_coverage(map, &mask);
	/* a path that is none is thrown out */
	FUZZ_TRY(ok, mapped = contact_map(map, payload, patch));
	if (!ok)
		return;
	for (int i = 1; i < mask.nelements; i++)
		FUZZ_CHECK(contact_item_cmp(&mask.elements[i - 1], &mask.elements[i]) < 0);
	if (!contact_claims_from_jsonb(mapped, patch, &claims, &error))
	{
		FUZZ_CHECK(error.message != NULL);
		return;
	}
	fuzz_check_value(&claims.value);
	fuzz_check_canonical(&claims.value);
	/* of metadata, a mapping names keys */
	FUZZ_CHECK((claims.covers & ~(mask.covers | CF_BIT(CF_METADATA))) == 0);
}

int
LLVMFuzzerTestOneInput(const uint8 *data, size_t size)
{
	const char *p = (const char *) data;
	const char *cut = size > 0 ? memchr(p, 0xFF, size) : NULL;
	StrView		texts[2];
	Jsonb	   *map = NULL;
	Jsonb	   *payload = NULL;
	bool		ok;

	if (cut == NULL)
		return 0;
	texts[0] = strview(p, cut - p);
	texts[1] = strview(cut + 1, p + size - cut - 1);
	if (texts[0].len == 0 || texts[1].len == 0 || !fuzz_is_text(texts[0]) || !fuzz_is_text(texts[1]))
		return 0;
	FUZZ_TRY(ok, map = fuzz_jsonb(pnstrdup(texts[0].ptr, texts[0].len)));
	if (ok)
		FUZZ_TRY(ok, payload = fuzz_jsonb(pnstrdup(texts[1].ptr, texts[1].len)));
	for (int patch = 0; ok && patch < 2 && JB_ROOT_IS_OBJECT(map); patch++)
		check_map(map, payload, patch);
	fuzz_reset();
	return 0;
}
