/*
 * store_fresh.c
 *		Records that are new here and that nothing can link to any other.
 *
 * Most of what a source shows for the first time is of this kind: nobody has ever
 * asserted one of its keys, and nobody can have decided about it.  Such a record
 * is a cluster of its own, so that it needs neither to be stored before it is
 * linked, nor to be looked for afterwards.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "miscadmin.h"
#include "utils/builtins.h"
#include "utils/timestamp.h"

#include "compat.h"
#include "store/store.h"

/* A key that a record of the batch asserts. */
typedef struct Assertion
{
	StrView		key;
	int64		record_id;
} Assertion;

/* From the system some at a time, since that costs as much for a few. */
void
store_random(void *bytes, int n)
{
	static uint8 pool[2048];
	static int	left = 0;

	Assert(n <= sizeof(pool));
	if (left < n)
	{
		left = 0;
		if (!pg_strong_random(pool, sizeof(pool)))
			ereport(ERROR,
					(errcode(ERRCODE_INTERNAL_ERROR),
					 errmsg("could not generate random values")));
		left = sizeof(pool);
	}
	left -= n;
	memcpy(bytes, pool + left, n);
	/* nobody shall find it twice */
	memset(pool + left, 0, n);
}

/*
 * A UUID of version 7 (RFC 9562), with what the clock has below a millisecond in
 * rand_a.  Contacts that are made together lie together in every index by id.
 */
pg_uuid_t
store_mint(void)
{
	pg_uuid_t	id;
	uint64		now = GetCurrentTimestamp() + (int64) (POSTGRES_EPOCH_JDATE - UNIX_EPOCH_JDATE) * USECS_PER_DAY;
	uint64		ms = now / 1000;
	int			fraction = now % 1000 * 4096 / 1000;

	store_random(id.data, UUID_LEN);
	for (int i = 0; i < 6; i++)
		id.data[i] = ms >> (40 - 8 * i);
	id.data[6] = 0x70 | fraction >> 8;
	id.data[7] = fraction;
	id.data[8] = (id.data[8] & 0x3f) | 0x80;	/* the RFC's variant */
	return id;
}

static int
assertion_cmp(const void *a, const void *b)
{
	const Assertion *x = a;
	const Assertion *y = b;
	int			r = strview_cmp(x->key, y->key);

	if (r)
		return r;
	return x->record_id < y->record_id ? -1 : x->record_id > y->record_id;
}

static int
id_cmp(const void *a, const void *b)
{
	int64		x = *(const int64 *) a;
	int64		y = *(const int64 *) b;

	return x < y ? -1 : x > y;
}

/* The ids, sorted, of the batch's records that share a key with any other record. */
static int64 *
find_company(const StoreEvidence *evidence, int *ncompany)
{
	int			n = evidence->keys.n;
	Assertion  *said = palloc(sizeof(Assertion) * Max(n, 1));
	int64	   *company = palloc(sizeof(int64) * Max(n, 1));
	static const char *const columns[] = {"record_id"};
	StoreArray	keys;
	int		   *index = palloc(sizeof(int) * Max(n, 1));
	StoreFound *known;
	int			at = 0;

	for (int i = 0; i < n; i++)
	{
		text	   *key = DatumGetTextPP(evidence->keys.values[i]);

		said[i].key.ptr = VARDATA_ANY(key);
		said[i].key.len = VARSIZE_ANY_EXHDR(key);
		said[i].record_id = DatumGetInt64(evidence->records.values[i]);
	}
	qsort(said, n, sizeof(Assertion), assertion_cmp);

	store_array_init(&keys, TEXTOID);
	for (int i = 0; i < n;)
	{
		int			end = i + 1;

		while (end < n && strview_cmp(said[end].key, said[i].key) == 0)
			end++;
		if (said[end - 1].record_id != said[i].record_id)
		{
			for (; i < end; i++)
				company[at++] = said[i].record_id;
			continue;
		}
		index[keys.n] = i;
		store_array_add_text(&keys, said[i].key);
		i = end;
	}
	known = store_find_one("identities", "identities_pkey", columns, lengthof(columns), 1, (StoreArray *[]) {&keys});
	for (int64 i = 0; i < known->n; i++)
		company[at++] = said[index[known->which[i]]].record_id;
	qsort(company, at, sizeof(int64), id_cmp);
	*ncompany = at;
	return company;
}

/*
 * Mark those of the records that have been, or have, what their source merged into
 * another record: in the batch, or as far as is stored.
 */
static void
find_merged(const StoreRecord *records, int nrecords, bool *merged)
{
	StoreArray	sources;
	StoreArray	ids;
	StoreArray	index;
	bool		any = false;
	uint64		n;

	for (int i = 0; i < nrecords; i++)
		any |= records[i].m.merged_into.len > 0;
	if (!any && store_run("SELECT FROM contactsync.records r WHERE r.tenant_id = contactsync.current_tenant() "
						  "AND r.merged_into IS NOT NULL LIMIT 1", 0, NULL) == 0)
		return;
	store_array_init(&sources, TEXTOID);
	store_array_init(&ids, TEXTOID);
	store_array_init(&index, INT4OID);
	for (int i = 0; i < nrecords; i++)
	{
		/* what was merged within the batch is rare: nobody in it is fresh and alone then */
		merged[i] = any;
		store_array_add_text(&sources, records[i].source);
		store_array_add_text(&ids, records[i].source_id);
		store_array_add(&index, Int32GetDatum(i), false);
	}
	if (any)
		return;
	n = store_run("SELECT u.i FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) "
				  "AS u (source, id, i) WHERE EXISTS (SELECT FROM contactsync.records r "
				  "WHERE r.tenant_id = contactsync.current_tenant() AND r.source = u.source AND r.merged_into = u.id OFFSET 0)",
				  3, (StoreArray *[]) {&sources, &ids, &index});
	for (uint64 row = 0; row < n; row++)
	{
		bool		isnull;

		merged[DatumGetInt32(store_value(row, 1, &isnull))] = true;
	}
}

/* Give those that are alone their contacts' ids.  evidence: of the whole batch. */
void
store_name_alone(StoreRecord *records, int nrecords, const StoreEvidence *evidence)
{
	static const StoreColumn columns[] = {{"id", UUIDOID}, {"record_id", INT8OID}, {"minted_for", INT8OID}, {"reused_at", TIMESTAMPTZOID}};
	StoreRows	aliases;
	int64	   *company;
	int			ncompany;
	bool	   *merged = palloc0(sizeof(bool) * nrecords);
	bool		any = false;

	for (int i = 0; i < nrecords && !any; i++)
		any = records[i].fresh;
	if (!any)
		return;
	company = find_company(evidence, &ncompany);
	find_merged(records, nrecords, merged);
	store_rows_for(&aliases, "contact_aliases", columns, lengthof(columns));
	for (int i = 0; i < nrecords; i++)
	{
		StoreRecord *r = &records[i];

		if (!r->fresh || merged[i] || bsearch(&r->id, company, ncompany, sizeof(int64), id_cmp))
			continue;
		r->alone = r->has_contact = true;
		r->contact_id = store_mint();
		store_put(&aliases, UUIDPGetDatum(&r->contact_id));
		store_put(&aliases, Int64GetDatum(r->id));
		store_put(&aliases, Int64GetDatum(r->id));
		store_put_time(&aliases, r->m.reused.effective);
	}
	store_write(&aliases);
}
