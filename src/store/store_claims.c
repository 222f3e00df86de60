/*
 * store_claims.c
 *		What an observation claims: its payload as its source's connector reads it.
 */
#include "postgres.h"

#include "common/cryptohash.h"
#include "common/sha2.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"

#include "compat.h"
#include "store/store.h"

/* What names an observation: all of it but its receipt. */
static void
digest(MergeObservation *o, const ContactClaims *said, const Contact *claims)
{
	pg_cryptohash_ctx *ctx = pg_cryptohash_create(PG_SHA256);
	uint8		result[PG_SHA256_DIGEST_LENGTH];
	int64		numbers[4] = {o->raw, o->seq, o->created, o->modified};
	uint8		small[2] = {o->kind, o->inferred};
	StrView		covers = store_covers_text(said);
	bool		ok;

	ok = pg_cryptohash_init(ctx) == 0 &&
		pg_cryptohash_update(ctx, (uint8 *) numbers, sizeof(numbers)) == 0 &&
		pg_cryptohash_update(ctx, small, sizeof(small)) == 0 &&
		pg_cryptohash_update(ctx, (const uint8 *) covers.ptr, covers.len) == 0 &&
		pg_cryptohash_update(ctx, (const uint8 *) claims, VARSIZE(claims)) == 0 &&
		pg_cryptohash_update(ctx, (const uint8 *) o->into.ptr, o->into.len) == 0 &&
		pg_cryptohash_final(ctx, result, sizeof(result)) == 0;
	pg_cryptohash_free(ctx);
	if (!ok)
		elog(ERROR, "could not compute a digest");
	memcpy(o->digest, result, MERGE_DIGEST_LEN);
}

/* A snapshot speaks about every field, or about those that it says it read. */
static bool
set_coverage(MergeObservation *o, const StoreMapping *mapping, const Datum *coverage, ContactError *error)
{
	ContactClaims *claims = &o->claims;
	ContactClaims mask = {0};
	int			n = 0;

	if (o->kind == MK_PATCH)
		return true;
	if (coverage == NULL && mapping->map && o->kind == MK_SNAPSHOT)
	{
		mask = mapping->covers;
		mask.elements = palloc(sizeof(ContactItem) * Max(mask.nelements, 1));
		memcpy(mask.elements, mapping->covers.elements, sizeof(ContactItem) * mask.nelements);
	}
	else if (coverage == NULL)
	{
		if (o->kind == MK_SNAPSHOT || claims->covers != 0 || claims->nelements > 0)
			claims->covers = (1U << CF_COUNT) - 1;
		claims->nelements = 0;
		return true;
	}
	else
		store_covers_parse(*coverage, &mask);
	for (int i = 0; i < claims->value.nitems; i++)
	{
		const ContactItem *item = &claims->value.items[i];
		ContactValue elements = {0};

		elements.items = mask.elements;
		elements.nitems = mask.nelements;
		if (!(mask.covers & CF_BIT(item->field)) &&
			contact_find(&elements, item->field, item->key) < 0)
		{
			error->message = "the payload has a field that the coverage does not name";
			snprintf(error->path, sizeof(error->path), "$.%s", contact_field_names[item->field]);
			return false;
		}
	}
	/* an element named by the mask is there, or it is gone */
	for (int i = 0; i < mask.nelements; i++)
	{
		ContactItem *m = &mask.elements[i];

		if (mask.covers & CF_BIT(m->field))
			continue;
		m->flags = contact_find(&claims->value, m->field, m->key) < 0 ? CI_TOMBSTONE : 0;
		mask.elements[n++] = *m;
	}
	claims->covers = mask.covers;
	claims->elements = mask.elements;
	claims->nelements = n;
	return true;
}

/*
 * In a context of its own; what is kept of it is in the stored form, from which
 * o->claims.value is read where it is needed: most often nothing of it is new.
 */
bool
store_read_claims(MergeObservation *o, const StoreMapping *mapping, const Datum *payload, const Datum *coverage,
				  MemoryContext scratch, Contact **stored, Datum *covers, ContactError *error)
{
	MemoryContext context = MemoryContextSwitchTo(scratch);
	ContactClaims claims;
	bool		ok = true;

	memset(&o->claims, 0, sizeof(o->claims));
	if (payload && o->kind != MK_DELETE)
		ok = store_read_payload(mapping, DatumGetJsonbP(*payload), o->kind == MK_PATCH, &o->claims, error);
	if (ok && o->kind != MK_DELETE)
		ok = set_coverage(o, mapping, coverage, error);
	MemoryContextSwitchTo(context);
	if (!ok)
		return false;
	claims = o->claims;
	*stored = contact_form(&claims.value);
	*covers = store_covers_array(&claims);
	digest(o, &claims, *stored);
	memset(&o->claims, 0, sizeof(o->claims));
	store_covers_parse(*covers, &o->claims);
	MemoryContextReset(scratch);
	return true;
}
