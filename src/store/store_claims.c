/*
 * store_claims.c
 *		What an observation claims: its payload as its source's connector reads it.
 */
#include "postgres.h"

#include <openssl/evp.h>

#include "utils/fmgrprotos.h"
#include "utils/jsonb.h"
#include "utils/memutils.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "store/store.h"

/* {"<field>" or "<field>:<key>": {"source": ..., "source_id": ...}, ...}, which _confirm_write has checked */
void
store_read_origins(Datum origins, MergeObservation *o)
{
	JsonbIterator *it = JsonbIteratorInit(&DatumGetJsonbP(origins)->root);
	JsonbIteratorToken token;
	JsonbValue	v;
	StrView		source = {NULL, 0};
	StrView		source_id = {NULL, 0};
	StrView		name = {NULL, 0};
	int			depth = 0;

	o->written = true;
	o->origins = palloc0(sizeof(*o->origins) * Max(JsonContainerSize(&DatumGetJsonbP(origins)->root), 1));
	while ((token = JsonbIteratorNext(&it, &v, false)) != WJB_DONE)
	{
		StrView		s = strview(v.type == jbvString ? v.val.string.val : NULL, v.type == jbvString ? v.val.string.len : 0);
		struct MergeOrigin *last = o->norigins > 0 ? &o->origins[o->norigins - 1] : NULL;

		depth += token == WJB_BEGIN_OBJECT;
		if (token == WJB_END_OBJECT && depth-- == 2)
			last->record = merge_origin_name(source, source_id);
		if (token == WJB_KEY && depth == 2)
			name = s;
		if (token == WJB_VALUE && name.len == strlen("source"))
			source = s;
		if (token == WJB_VALUE && name.len == strlen("source_id"))
			source_id = s;
		if (token == WJB_KEY && depth == 1)
		{
			const char *colon = memchr(s.ptr, ':', s.len);

			last = &o->origins[o->norigins++];
			last->field = contact_field_lookup(s.ptr, colon ? colon - s.ptr : s.len);
			if (colon)
				last->key = strview(colon + 1, s.ptr + s.len - colon - 1);
		}
	}
}

/* {"<field>" or "<field>:<key>": "<time>", ...}, which _changed has made */
void
store_read_changed(Datum changed, MergeObservation *o)
{
	JsonbIterator *it = JsonbIteratorInit(&DatumGetJsonbP(changed)->root);
	JsonbIteratorToken token;
	JsonbValue	v;

	o->changes = palloc0(sizeof(*o->changes) * Max(JsonContainerSize(&DatumGetJsonbP(changed)->root), 1));
	while ((token = JsonbIteratorNext(&it, &v, true)) != WJB_DONE)
	{
		StrView		s = strview(v.type == jbvString ? v.val.string.val : NULL, v.type == jbvString ? v.val.string.len : 0);
		const char *colon = s.len > 0 ? memchr(s.ptr, ':', s.len) : NULL;

		if (token == WJB_KEY)
		{
			struct MergeChange *change = &o->changes[o->nchanges++];

			change->field = contact_field_lookup(s.ptr, colon ? colon - s.ptr : s.len);
			change->key = colon ? strview(colon + 1, s.ptr + s.len - colon - 1) : strview(NULL, 0);
		}
		else if (token == WJB_VALUE)
			o->changes[o->nchanges - 1].at =
				DatumGetTimestampTz(DirectFunctionCall3(timestamptz_in, CStringGetDatum(pnstrdup(s.ptr, s.len)),
														ObjectIdGetDatum(InvalidOid), Int32GetDatum(-1)));
	}
}

/* Ready to begin; NULL if it fails.  Kept, since to look for it costs more than to use it. */
static EVP_MD_CTX *
sha256(void)
{
	static const EVP_MD *md = NULL;
	static EVP_MD_CTX *ctx = NULL;

	if (md == NULL)
#if OPENSSL_VERSION_NUMBER >= 0x30000000L
		md = EVP_MD_fetch(NULL, "SHA256", NULL);
#else
		md = EVP_sha256();
#endif
	if (ctx == NULL)
		ctx = EVP_MD_CTX_new();
	return md && ctx && EVP_DigestInit_ex(ctx, md, NULL) == 1 ? ctx : NULL;
}

static bool
digest_changes(EVP_MD_CTX *ctx, const MergeObservation *o)
{
	bool		ok = o->nchanges == 0 || EVP_DigestUpdate(ctx, "changed", 7) == 1;

	for (int i = 0; i < o->nchanges && ok; i++)
	{
		const struct MergeChange *change = &o->changes[i];
		uint8		field = change->field;

		ok = EVP_DigestUpdate(ctx, &field, 1) == 1 &&
			EVP_DigestUpdate(ctx, change->key.ptr, change->key.len) == 1 &&
			EVP_DigestUpdate(ctx, &change->at, sizeof(change->at)) == 1;
	}
	return ok;
}

static bool
digest_origins(EVP_MD_CTX *ctx, const MergeObservation *o)
{
	bool		ok = !o->written || EVP_DigestUpdate(ctx, "written", 7) == 1;

	for (int i = 0; i < o->norigins && ok; i++)
	{
		const struct MergeOrigin *origin = &o->origins[i];
		uint8		field = origin->field;

		ok = EVP_DigestUpdate(ctx, &field, 1) == 1 &&
			EVP_DigestUpdate(ctx, origin->key.ptr, origin->key.len) == 1 &&
			EVP_DigestUpdate(ctx, origin->record.ptr, origin->record.len) == 1;
	}
	return ok;
}

/* What names an observation: all of it but its receipt. */
static void
digest(MergeObservation *o, const ContactClaims *said, const Contact *claims)
{
	EVP_MD_CTX *ctx;
	uint8		result[EVP_MAX_MD_SIZE];
	int64		numbers[4] = {o->raw, o->seq, o->created, o->modified};
	uint8		small[2] = {o->kind, o->inferred};
	StrView		covers = store_covers_text(said);
	bool		ok;

	ok = (ctx = sha256()) != NULL &&
		EVP_DigestUpdate(ctx, numbers, sizeof(numbers)) == 1 &&
		EVP_DigestUpdate(ctx, small, sizeof(small)) == 1 &&
		EVP_DigestUpdate(ctx, covers.ptr, covers.len) == 1 &&
		EVP_DigestUpdate(ctx, claims, VARSIZE(claims)) == 1 &&
		EVP_DigestUpdate(ctx, o->into.ptr, o->into.len) == 1 &&
		digest_origins(ctx, o) &&
		digest_changes(ctx, o) &&
		EVP_DigestFinal_ex(ctx, result, NULL) == 1;
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
