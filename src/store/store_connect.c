/*
 * store_connect.c
 *		All that is connected with some records.
 *
 * Keys that are not generic, decisions and merges at the source connect records.
 * They are followed breadth first, all that is new in a round at once: each record,
 * key and decision is looked up once, and most records have all they are connected
 * with after one round, if they are in a contact already, or after two.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "miscadmin.h"
#include "utils/array.h"

#include "compat.h"
#include "store/store.h"

/* What was reached: records and decisions by id, keys. */
typedef struct SeenId
{
	int64		id;
	char		status;
} SeenId;

typedef struct SeenKey
{
	StrView		key;
	char		status;
} SeenKey;

#define SH_PREFIX ids
#define SH_ELEMENT_TYPE SeenId
#define SH_KEY_TYPE int64
#define SH_KEY id
#define SH_HASH_KEY(tb, key) murmurhash32((uint32) (key) ^ (uint32) ((uint64) (key) >> 32))
#define SH_EQUAL(tb, a, b) ((a) == (b))
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

#define SH_PREFIX keys
#define SH_ELEMENT_TYPE SeenKey
#define SH_KEY_TYPE StrView
#define SH_KEY key
#define SH_HASH_KEY(tb, key) hash_bytes((const unsigned char *) (key).ptr, (key).len)
#define SH_EQUAL(tb, a, b) (strview_cmp(a, b) == 0)
#define SH_SCOPE static inline
#define SH_DECLARE
#define SH_DEFINE
#include "lib/simplehash.h"

/* The keys that the records of a round assert, by record. */
typedef struct RoundKeys
{
	struct RoundKeys *next;
	uint64		n;
	int64	   *record_ids;		/* parallel */
	IdentityKey *keys;
} RoundKeys;

typedef struct Walk
{
	StoreLinks *links;
	int			max;			/* of links->members */
	RoundKeys  *keys;
	ids_hash   *seen_records;
	ids_hash   *seen_decisions;
	keys_hash  *seen_keys;
	StoreArray	decisions;		/* all of them */
	/* what is new in this round */
	StoreArray	record_ids;
	StoreArray	new_keys;
	StoreArray	new_decisions;
	/* parallel: source and id of each record; those that some were merged into */
	StoreArray	sources;
	StoreArray	source_ids;
	StoreArray	into_sources;
	StoreArray	into_ids;
} Walk;

static int
record_id_cmp(const void *a, const void *b)
{
	const StoreRecord *x = a;
	const StoreRecord *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

/* The place of a record among the members; -1 = it is none. */
int
store_find_member(const StoreLinks *links, int64 record_id)
{
	StoreRecord probe;
	const StoreRecord *r;

	probe.id = record_id;
	r = bsearch(&probe, links->members, links->n, sizeof(StoreRecord), record_id_cmp);
	return r ? r - links->members : -1;
}

/* A record that was reached: is it new? */
static void
reach(Walk *w, int64 record_id)
{
	bool		found;

	ids_insert(w->seen_records, record_id, &found);
	if (!found)
		store_array_add(&w->record_ids, Int64GetDatum(record_id), false);
}

static void
load_members(Walk *w)
{
	StoreLinks *links = w->links;
	int			rows;
	StoreRecord *records = store_records_by_id(&w->record_ids, &rows);

	if (links->n + rows > w->max)
	{
		w->max = Max(links->n + rows, 2 * (uint64) w->max);
		links->members = links->members ?
			repalloc_huge(links->members, sizeof(StoreRecord) * w->max) :
			palloc_extended(sizeof(StoreRecord) * w->max, MCXT_ALLOC_HUGE);
	}
	for (int i = 0; i < rows; i++)
	{
		const StoreRecord *r = &records[i];

		links->members[links->n++] = *r;
		store_array_add_text(&w->sources, r->source);
		store_array_add_text(&w->source_ids, r->source_id);
		if (r->m.merged_into.ptr == NULL)
			continue;
		store_array_add_text(&w->into_sources, r->source);
		store_array_add_text(&w->into_ids, r->m.merged_into);
	}
}

static void
load_keys(Walk *w)
{
	uint64		rows = store_run("SELECT i.record_id, i.key, i.first_version, i.mobile, g.key FROM "
								 STORE_EACH_ROW(1, "identities", "record_id", "i")
								 "LEFT JOIN contactsync.generic_keys g ON g.tenant_id = contactsync.current_tenant() "
								 "AND g.key = i.key ORDER BY i.record_id", 1, (StoreArray *[]) {&w->record_ids});
	RoundKeys  *round = palloc(sizeof(RoundKeys));

	round->n = rows;
	round->record_ids = palloc_extended(sizeof(int64) * Max(rows, 1), MCXT_ALLOC_HUGE);
	round->keys = palloc_extended(sizeof(IdentityKey) * Max(rows, 1), MCXT_ALLOC_HUGE);
	round->next = w->keys;
	w->keys = round;
	for (uint64 row = 0; row < rows; row++)
	{
		IdentityKey *key = &round->keys[row];
		bool		isnull;
		bool		found;

		round->record_ids[row] = store_int8(row, 1);
		key->key = store_text(row, 2);
		key->first_version = store_time(row, 3);
		key->mobile = DatumGetBool(store_value(row, 4, &isnull));
		/* one of a single record is not in the table yet, but no id of its either */
		key->generic = store_text(row, 5).ptr != NULL || identity_placeholder(key->key);
		if (key->generic)
			continue;
		keys_insert(w->seen_keys, key->key, &found);
		if (!found)
			store_array_add(&w->new_keys, store_value(row, 2, &isnull), false);
	}
}

/* Whom the records of this round lead to are those of the next one. */
static void
follow(Walk *w)
{
	uint64		rows = store_run("SELECT false, i.record_id FROM " STORE_EACH_ROW(2, "identities", "key", "i")
								 "UNION ALL SELECT true, d.decision_id FROM " STORE_EACH_ROW(1, "decision_records", "record_id", "d")
								 "UNION ALL SELECT false, x.id FROM ROWS FROM (pg_catalog.unnest($3), pg_catalog.unnest($4)) AS u (source, source_id) "
								 "CROSS JOIN LATERAL (SELECT r.id FROM contactsync.records r WHERE r.tenant_id = contactsync.current_tenant() "
								 "AND r.source = u.source AND r.merged_into = u.source_id OFFSET 0) AS x "
								 "UNION ALL SELECT false, x.id FROM ROWS FROM (pg_catalog.unnest($5), pg_catalog.unnest($6)) AS u (source, source_id) "
								 "CROSS JOIN LATERAL (SELECT r.id FROM contactsync.records r WHERE r.tenant_id = contactsync.current_tenant() "
								 "AND r.source = u.source AND r.source_id = u.source_id OFFSET 0) AS x",
								 6, (StoreArray *[]) {&w->record_ids, &w->new_keys, &w->sources, &w->source_ids,
								 &w->into_sources, &w->into_ids});

	w->record_ids.n = w->new_keys.n = w->new_decisions.n = 0;
	w->sources.n = w->source_ids.n = w->into_sources.n = w->into_ids.n = 0;
	for (uint64 row = 0; row < rows; row++)
	{
		int64		id = store_int8(row, 2);
		bool		isnull;
		bool		found;

		if (!DatumGetBool(store_value(row, 1, &isnull)))
		{
			reach(w, id);
			continue;
		}
		ids_insert(w->seen_decisions, id, &found);
		if (found)
			continue;
		store_array_add(&w->new_decisions, Int64GetDatum(id), false);
		store_array_add(&w->decisions, Int64GetDatum(id), false);
	}
	if (w->new_decisions.n == 0)
		return;
	/* in force or not: what one had parted or joined may be otherwise without it */
	rows = store_run("SELECT n.record_id FROM " STORE_EACH_ROW(1, "decisions", "id", "d")
					 "CROSS JOIN LATERAL (SELECT x.record_id FROM contactsync.decision_records x "
					 "WHERE x.tenant_id = contactsync.current_tenant() AND x.decision_id = d.id OFFSET 0) AS n "
					 "WHERE d.kind IN ('link', 'unlink', 'merge', 'split')", 1, (StoreArray *[]) {&w->new_decisions});
	for (uint64 row = 0; row < rows; row++)
		reach(w, store_int8(row, 1));
}

static int64 *
get_ids(uint64 row, int col, int *n)
{
	bool		isnull;
	Datum		d = store_value(row, col, &isnull);
	Datum	   *values;
	bool	   *nulls;
	int64	   *ids;

	*n = 0;
	if (isnull)
		return NULL;
	deconstruct_array(DatumGetArrayTypeP(d), INT8OID, 8, FLOAT8PASSBYVAL, TYPALIGN_DOUBLE, &values, &nulls, n);
	ids = palloc(sizeof(int64) * Max(*n, 1));
	for (int i = 0; i < *n; i++)
		ids[i] = DatumGetInt64(values[i]);
	return ids;
}

/* Those of the decisions that are in force. */
static void
load_decisions(StoreLinks *links, StoreArray *ids)
{
	uint64		n;

	if (ids->n == 0)
		return;
	n = store_run("SELECT d.id, d.kind, d.decided_at, d.records, d.others, d.contact_id FROM "
				  STORE_EACH_ROW(1, "decisions", "id", "d")
				  "WHERE d.undone_by IS NULL AND d.kind IN ('link', 'unlink', 'merge', 'split') "
				  "ORDER BY d.decided_at DESC, d.id DESC", 1, (StoreArray *[]) {ids});
	links->ndecisions = n;
	links->decisions = palloc0(sizeof(IdentityDecision) * Max(n, 1));
	links->pinned = palloc0(sizeof(pg_uuid_t) * Max(n, 1));
	for (uint64 row = 0; row < n; row++)
	{
		IdentityDecision *d = &links->decisions[row];
		char		kind = store_text(row, 2).ptr[0];
		bool		isnull;
		Datum		contact = store_value(row, 6, &isnull);

		d->id = store_int8(row, 1);
		d->decided_at = store_time(row, 3);
		d->kind = kind == 'l' ? ID_LINK : kind == 'u' ? ID_UNLINK : kind == 'm' ? ID_MERGE : ID_SPLIT;
		d->records = get_ids(row, 4, &d->nrecords);
		d->others = get_ids(row, 5, &d->nothers);
		if (!isnull)
			links->pinned[row] = *DatumGetUUIDP(contact);
	}
}

void
store_connect(StoreArray *record_ids, StoreLinks *links)
{
	Walk		w = {0};

	memset(links, 0, sizeof(*links));
	w.links = links;
	w.seen_records = ids_create(CurrentMemoryContext, record_ids->n, NULL);
	w.seen_decisions = ids_create(CurrentMemoryContext, 16, NULL);
	w.seen_keys = keys_create(CurrentMemoryContext, record_ids->n, NULL);
	store_array_init(&w.decisions, INT8OID);
	store_array_init(&w.record_ids, INT8OID);
	store_array_init(&w.new_keys, TEXTOID);
	store_array_init(&w.new_decisions, INT8OID);
	store_array_init(&w.sources, TEXTOID);
	store_array_init(&w.source_ids, TEXTOID);
	store_array_init(&w.into_sources, TEXTOID);
	store_array_init(&w.into_ids, TEXTOID);
	for (int i = 0; i < record_ids->n; i++)
		reach(&w, DatumGetInt64(record_ids->values[i]));
	while (w.record_ids.n > 0)
	{
		CHECK_FOR_INTERRUPTS();
		load_members(&w);
		load_keys(&w);
		follow(&w);
	}
	if (links->n > 0)
		qsort(links->members, links->n, sizeof(StoreRecord), record_id_cmp);
	links->who = palloc0(sizeof(IdentityRecord) * Max(links->n, 1));
	links->contact = palloc0(sizeof(pg_uuid_t) * Max(links->n, 1));
	for (RoundKeys *round = w.keys; round; round = round->next)
	{
		for (uint64 i = 0; i < round->n; i++)
		{
			int			at = store_find_member(links, round->record_ids[i]);

			/* keys of a record that is no more link nobody */
			if (at >= 0 && links->who[at].nkeys++ == 0)
				links->who[at].keys = &round->keys[i];
		}
	}
	load_decisions(links, &w.decisions);
}
